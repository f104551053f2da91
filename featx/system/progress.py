"""Progress on stderr: done and to do, rate, time left. Silent for anything under two seconds."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

#: Jobs shorter than this show nothing.
DELAY_S = 2.0

#: In a log, where a line cannot be drawn again, one is added this often.
LOG_INTERVAL_S = 30.0


class _Lines(tqdm):  # type: ignore[type-arg]  # it is generic in its stubs only
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
def waiting(what: str, *, show: bool) -> Iterator[None]:
    """Show on stderr for how long something has been going on that does not say how far it is."""
    done = threading.Event()
    with progress_bar(None, what, "s", show=show) as bar:
        bar.bar_format = "{desc}: {elapsed}"

        def tick() -> None:
            while not done.wait(1.0):
                bar.update()

        thread = threading.Thread(target=tick, name="featx-waiting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def progress_bar(total: int | None, what: str, unit: str, *, show: bool, n_done: int = 0) -> "tqdm[Any]":
    """Return a tqdm bar on stderr: a line that is drawn again on a terminal, a new line every 30 s in a log.

    It begins at `n_done`, which does not make the rate look better. Of bytes (`"B"`), it shows KB, MB and so on.
    """
    on_terminal = sys.stderr.isatty()
    bar = tqdm if on_terminal else _Lines
    return bar(
        total=total,
        desc=what,
        initial=n_done,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        disable=not show,
        delay=DELAY_S,
        mininterval=0.2 if on_terminal else LOG_INTERVAL_S,
        dynamic_ncols=_knows_its_width(),
        ncols=None if _knows_its_width() else 80,
        leave=False,
        file=sys.stderr,
    )


def _knows_its_width() -> bool:
    """Return whether stderr is a terminal that says how wide it is; on one that says 0, tqdm would draw nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False
