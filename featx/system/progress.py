"""Progress bars on stderr, and Ctrl-C or SIGTERM held back until it is safe to stop.

A bar shows the work done and left, the rate, and the time left. Jobs under two seconds show none.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from featx.system.arguments import duration, size
from featx.text import one_line

#: Jobs shorter than this show nothing.
DELAY_S = 2.0

#: In a log, where a line cannot be drawn again, one is added this often.
LOG_INTERVAL_S = 30.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


#: Units of which a job may well end before it has them all.
_AT_MOST = {"epochs", "passes"}


class _Bar(tqdm):  # type: ignore[type-arg]  # it is generic in its stubs only
    """A bar that says what is done, how fast it goes, and the time left, as people would say it."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the line is made of."""
        parts = super().format_dict
        n, total, elapsed_s, unit = parts["n"], parts["total"], parts["elapsed"], parts["unit"]
        rate = parts["rate"] or ((n - parts["initial"]) / elapsed_s if elapsed_s else 0.0)
        done = size(n) if unit == "B" else f"{n:,}"
        if total is not None:
            done = f"{done} of {size(total) if unit == 'B' else f'{total:,} {unit}'}"
            left = f", {'at most ' if unit in _AT_MOST else ''}{_clock((total - n) / rate)} left" if rate else ""
        else:
            done, left = done if unit == "B" else f"{done} {unit}", ""
        said = f", {pace(rate, unit)}" if rate else ""
        return {**parts, "said": f"{done}{said}{left}", "time": _clock(elapsed_s)}


def _clock(seconds: float) -> str:
    """Return a time in whole seconds: tenths would only flicker."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)


def pace(rate: float, unit: str) -> str:
    """Return the speed of a job that does `rate` of `unit`, a plural, each second.

    >>> pace(38.2, "images"), pace(1 / 6.11, "epochs"), pace(0.4, "passes"), pace(3 << 20, "B")
    ('38 images a second', '6.1 s an epoch', '2.5 s a pass', '3.0 MiB a second')
    """
    if unit == "B":
        return f"{size(round(rate))} a second"
    if rate >= 1:
        return f"{rate:,.0f} {unit} a second" if rate >= 9.95 else f"{rate:.1f} {unit} a second"
    one = "pass" if unit == "passes" else unit.removesuffix("s")
    return f"{duration(1 / rate)} {'an' if one[0] in 'aeiou' else 'a'} {one}"


class _Lines(_Bar):
    """A bar for a log: whole lines instead of one that is drawn again."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002 - tqdm's signature
        """Write the present state as a line."""
        if self.n and not self.disable:
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()

    def close(self) -> None:
        """End without a last line: what comes next says it all."""
        self.disable = True


@contextmanager
def waiting(what: str, *, show: bool) -> Iterator[Callable[[str], None]]:
    """Show on stderr how long a job without a known length has been running.

    Yields a function that takes the name of the current step.
    """
    done = threading.Event()
    with progress_bar(None, what, "seconds", show=show) as bar:
        bar.bar_format = "{desc}: {time}{postfix}"

        def tick() -> None:
            while not done.wait(1.0):
                bar.update()

        thread = threading.Thread(target=tick, name="featx-waiting", daemon=True)
        thread.start()
        try:
            yield lambda now: bar.set_postfix_str(one_line(now), refresh=False)
        finally:
            done.set()
            thread.join()


def progress_bar(total: int | None, what: str, unit: str, *, show: bool, n_done: int = 0) -> "tqdm[Any]":
    """Return a tqdm bar on stderr: a line that is drawn again on a terminal, a new line every 30 s in a log.

    It begins at `n_done`, which does not make the rate look better. The unit is a plural, or `"B"` for bytes.
    """
    can_be_seen = sys.stderr is not None  # a program without a console has none
    on_terminal = can_be_seen and sys.stderr.isatty()
    bar = _Bar if on_terminal else _Lines
    return bar(
        total=total,
        desc=one_line(what),
        initial=n_done,
        unit=unit,
        bar_format="{desc}: {said}{postfix}" if total is None else "{desc}: {percentage:2.0f} % {bar} {said}{postfix}",
        disable=not (show and can_be_seen),
        delay=DELAY_S,
        mininterval=0.2 if on_terminal else LOG_INTERVAL_S,
        dynamic_ncols=_knows_its_width(),
        ncols=None if _knows_its_width() else 80,
        leave=False,
        position=0,  # a bar within another is drawn in its place
        file=sys.stderr,
    )


def _knows_its_width() -> bool:
    """Return whether stderr is a terminal that says how wide it is; on one that says 0, tqdm would draw nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False


class Terminated(KeyboardInterrupt):
    """SIGTERM: treated like Ctrl-C, so that finished work is kept."""


def raise_terminated(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM: raise `Terminated`."""
    raise Terminated


def ignore_interrupts() -> None:
    """Ignore SIGINT and SIGTERM from now on: the process is ending, and another Ctrl-C must not cause a traceback."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_interrupts() -> Iterator[Callable[[], bool]]:
    """Hold back the first SIGINT or SIGTERM while the block runs; yield a function that says whether one has arrived.

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
