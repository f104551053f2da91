"""Ctrl-C and SIGTERM while work goes on that had better end at a seam."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM: treated like Ctrl-C, so that what is finished is kept."""


def raise_terminated(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM: raise `Terminated`."""
    raise Terminated


def ignore_interrupts() -> None:
    """Have SIGINT and SIGTERM ignored from now on: the process ends, and impatience shall not end in a traceback."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_interrupts() -> Iterator[Callable[[], bool]]:
    """Hold back the first SIGINT or SIGTERM while the block runs; yield what tells whether one has come.

    It takes effect when the block is left; a second one, at once. Signals that would end the process without
    Python's doing, or are ignored, are left as they are; and so are all of them in a thread, where none arrives.
    """
    with _noted_interrupts(n_held=1) as noted:
        yield lambda: bool(noted)
    _repeat(noted)


@contextmanager
def insistent_interrupts() -> Iterator[None]:
    """Raise what SIGINT or SIGTERM raises at the end of the block, if it did not get through when it came.

    Modules in C++ make an ImportError of it while they are loaded, which others take for a missing package.
    """
    with _noted_interrupts(n_held=0) as noted:
        try:
            yield
        except Exception:
            if not noted:
                raise
    _repeat(noted)


@contextmanager
def _noted_interrupts(n_held: int) -> Iterator[list[int]]:
    """Note signals while the block runs, and pass them on but for the first `n_held`."""
    noted: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    all_handlers = {number: signal.getsignal(number) for number in (_SIGNALS if is_main else ())}
    handlers = {int(number): handler for number, handler in all_handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > n_held:
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _repeat(noted: list[int]) -> None:
    """Have the first of the signals handled, now that its handler is back."""
    if noted and callable(handler := signal.getsignal(noted[0])):
        handler(noted[0], None)
