"""What each approach took, in its parts."""

from typing import TYPE_CHECKING

from featx.compare import Approach, Comparison, duration
from featx.report.plots.letters import short
from featx.report.plots.marks import approach_rows, linear_time_ticks, right_of, visible
from featx.report.plots.page import FEATURES_COLOUR, REPRESENTATIONS_COLOUR, SCRATCH_COLOUR, new_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def time_chart(comparison: Comparison) -> "Figure":
    """Stacked bars, so the axis is linear: on a logarithmic one the lengths of stacked parts mean nothing."""
    rows = sorted(comparison.approaches, key=lambda approach: approach.total_s)
    title = f"{short(rows[0].name)} was ready first, after {duration(rows[0].total_s)}"
    if len(rows) == 1:
        title = f"{short(rows[0].name)} took {duration(rows[0].total_s)}"
    note = "Representations are paid once per image, shared by all heads on a backbone, and counted here in full."
    has_features = any(approach.kind == "features" for approach in rows)
    figure = new_page(comparison, title, 1.2 + 0.46 * len(rows), note=note if has_features else "")
    axes = figure.add_subplot()
    parts = {
        "representations": (REPRESENTATIONS_COLOUR, [a.representations_s for a in rows], [0.0] * len(rows)),
        "top model": (
            FEATURES_COLOUR,
            [a.top_s if a.kind == "features" else 0.0 for a in rows],
            [a.representations_s for a in rows],
        ),
        "training from scratch": (
            SCRATCH_COLOUR,
            [a.top_s if a.kind == "scratch" else 0.0 for a in rows],
            [a.representations_s for a in rows],
        ),
    }
    for name, (colour, widths, lefts) in parts.items():
        if any(widths):
            axes.barh(range(len(rows)), widths, 0.55, lefts, color=colour, label=name)
    for y, approach in enumerate(rows):
        right_of(axes, y, _time_label(approach))
    axes.set_xlim(0, 1.03 * visible(max(approach.total_s for approach in rows)))
    linear_time_ticks(axes, max(approach.total_s for approach in rows))
    axes.set_xlabel("time from images to trained classifier")
    approach_rows(axes, rows, top=-0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def _time_label(approach: Approach) -> str:
    if approach.kind == "scratch":
        return duration(approach.total_s)
    return f"{duration(approach.representations_s)} + {duration(approach.top_s)}"
