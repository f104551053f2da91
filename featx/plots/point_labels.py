"""Names beside the points of a picture, where they cover least."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from featx.comparison import Approach, duration, ranked
from featx.plots.letters import short
from featx.plots.picture_page import DPI, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox


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
