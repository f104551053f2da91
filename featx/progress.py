"""Progress on the terminal: done and to do, rate, time left. Silent for anything under two seconds."""

import sys
from typing import Any

from tqdm import tqdm

#: Jobs shorter than this show nothing.
DELAY_S = 2.0


def progress_bar(total: int, what: str, unit: str, *, show: bool) -> "tqdm[Any]":
    """Return a tqdm bar on stderr: a line that is redrawn on a terminal, one line every 30 s in a log."""
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        disable=not show,
        delay=DELAY_S,
        mininterval=0.2 if sys.stderr.isatty() else 30.0,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    )
