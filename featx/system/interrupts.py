"""Ctrl-C and SIGTERM while work goes on that had better end at a seam."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

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
    held: list[int] = []
    handlers = _handlers()

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1:
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, hold)
    try:
        yield lambda: bool(held)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if held:
        handlers[held[0]](held[0], None)


@contextmanager
def insistent_interrupts() -> Iterator[None]:
    """Raise what SIGINT or SIGTERM raises at the end of the block, if it did not get through when it came.

    Modules in C++ make an ImportError of it while they are loaded, which others take for a missing package.
    """
    noted: list[int] = []
    handlers = _handlers()

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    except Exception:
        if not noted:
            raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if noted:
        handlers[noted[0]](noted[0], None)


def _handlers() -> dict[int, Callable[[int, FrameType | None], Any]]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    return {number: handler for number, handler in handlers.items() if callable(handler)}
