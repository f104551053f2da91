"""Axes of time, whose marks are round numbers of seconds, minutes, hours and days."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from featx.comparison import duration
from featx.plots.point_labels import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marks of a time axis, in seconds.
TIME_STEPS_S = (
    *(unit * n for unit in (0.001, 0.01, 0.1) for n in (1, 2, 5)),
    *(unit * n for unit in (1, 60) for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10)),
    *(86400 * n for n in (1, 2, 5, 10, 20, 50)),
)


def time_scale(axes: "Axes", times: Sequence[float]) -> None:
    """Linear from 0; logarithmic where the longest is more than eight times the shortest, fit for points only."""
    shortest, longest = visible(min(times)), visible(max(times))
    if longest <= 8 * shortest:
        axes.set_xlim(0, 1.25 * longest)
        linear_time_ticks(axes, 1.25 * longest)
        return
    low, high = shortest / 1.8, longest * 1.8
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    inside = [t for t in TIME_STEPS_S if low <= t <= high]
    ticks = inside[:: -(-len(inside) // 8)]
    axes.set_xticks(ticks, [_tick(t) for t in ticks])
    axes.set_xticks([], minor=True)


def linear_time_ticks(axes: "Axes", longest: float) -> None:
    """Mark at most seven round times from 0 to `longest` seconds."""
    step = next((step for step in TIME_STEPS_S if longest / step <= 7), longest)
    ticks = np.arange(0, 1.001 * longest, step)
    axes.set_xticks(ticks, [_tick(t) for t in ticks])


def _tick(seconds: float) -> str:
    """Return a time without the units that are 0: `2 min`, not `2 min 00 s`."""
    return re.sub(r"(?<=[a-z]) 00 \w+$|\.0+(?= s)", "", duration(float(seconds)))
