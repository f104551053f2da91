"""Axes of time, whose marks are round numbers of seconds, minutes, hours and days."""

import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from featx.compare import Approach, Comparison, duration, ranked
from featx.report.plots.letters import short
from featx.report.plots.page import DIRECT_COLOUR, DPI, FEATURES_COLOUR, PALE, SCRATCH_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What lines through points mean.
INTERVALS = "Lines: 95 % intervals (Wilson)."
#: Marks of a time axis, in seconds.
TIME_STEPS_S = (
    *(unit * n for unit in (0.001, 0.01, 0.1) for n in (1, 2, 5)),
    *(unit * n for unit in (1, 60) for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10)),
    *(86400 * n for n in (1, 2, 5, 10, 20, 50)),
)


def colour(approach: Approach) -> str:
    """Return the colour of an approach, which tells its kind, as does its marker."""
    return {"features": FEATURES_COLOUR, "scratch": SCRATCH_COLOUR, "direct": DIRECT_COLOUR}[approach.kind]


def marker(approach: Approach) -> str:
    """Return the marker of an approach, as matplotlib knows it."""
    return {"features": "o", "scratch": "s", "direct": "D"}[approach.kind]


def kind_legend(axes: "Axes", comparison: Comparison, n_columns: int = 3) -> None:
    """Say above the axes, in so many columns, which kinds of approaches there are."""
    names = {
        "features": "top model on bottleneck features",
        "scratch": "trained from scratch",
        "direct": "pretrained, used as it is",
    }
    for approach in {approach.kind: approach for approach in comparison.approaches}.values():
        axes.plot([], [], marker(approach), color=colour(approach), ms=8, label=names[approach.kind])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, borderaxespad=0.2, handletextpad=0.2)


def approach_rows(axes: "Axes", rows: Sequence[Approach], top: float) -> None:
    """Make the y axis a list of approaches, the first on top, with room above from `top`."""
    axes.set_yticks(range(len(rows)), [short(approach.name, 32) for approach in rows])
    axes.set_ylim(len(rows) - 0.5, top)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def right_of(axes: "Axes", y: float, text: str) -> None:
    """Write beside the axes, where no bar and no whisker can reach."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=10)


def label_points(figure: "Figure", axes: "Axes", approaches: Sequence[Approach]) -> None:
    """Name each point where the label covers least: of many places around it, the nearest free one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # matplotlib's stubs lack it
    figure.draw_without_rendering()  # fixes the layout, and with it where the points are
    area = axes.get_window_extent()
    taken = [_point_box(axes, approach) for approach in approaches]
    for approach in ranked(approaches):
        label = axes.annotate(
            f"{short(approach.name, 28)}\n{100 * approach.metrics.accuracy:.1f} % in {duration(approach.total_s)}",
            (visible(approach.total_s), 100 * approach.metrics.accuracy),
            (0, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            linespacing=1.1,
            arrowprops={"arrowstyle": "-", "color": PALE, "lw": 0.8, "shrinkB": 7, "zorder": 1},
        )
        label.set_in_layout(False)
        label.update_positions(renderer)  # only then does it know where its point is
        box = _free_place(Text.get_window_extent(label), taken, area)
        x, y = axes.transData.transform(label.xy)
        label.set_position(((box.x0 - x) * 72 / DPI, ((box.y0 + box.y1) / 2 - y) * 72 / DPI))
        assert label.arrow_patch is not None
        label.arrow_patch.set_visible(overlap(box.padded(12), _point_box(axes, approach)) == 0)
        taken.append(box)


def _free_place(own: "Bbox", taken: Sequence["Bbox"], area: "Bbox") -> "Bbox":
    """Return the box `own`, which starts at its point, moved to where it covers none of the boxes and stays inside."""

    def cost(place: tuple[float, float]) -> float:
        box = own.translated(*place)
        covered = sum(overlap(box.padded(3), other) for other in taken)
        outside = box.width * box.height - overlap(box, area)
        distance = np.hypot(max(place[0], -place[0] - own.width, 0), place[1])
        return float(10 * covered + 10 * outside + distance + (4 if place[0] < 0 else 0))

    rights = (14, 40, 80, 120)
    columns = [*rights, *(-right - own.width for right in rights), -own.width / 2]
    return own.translated(*min(product(columns, range(-200, 201, 8)), key=cost))


def _point_box(axes: "Axes", approach: Approach) -> "Bbox":
    """Return the box of a point and its whisker, in pixels."""
    from matplotlib.transforms import Bbox

    metrics, x = approach.metrics, visible(approach.total_s)
    ends = axes.transData.transform([(x, 100 * metrics.accuracy_low), (x, 100 * metrics.accuracy_high)])
    return Bbox(ends).padded(8)


def overlap(a: "Bbox", b: "Bbox") -> float:
    """Return the area that two boxes share."""
    from matplotlib.transforms import Bbox

    shared = Bbox.intersection(a, b)
    return shared.width * shared.height if shared else 0.0


def visible(seconds: float) -> float:
    """Return a time that has a place on a logarithmic axis."""
    return max(seconds, 0.001)


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
