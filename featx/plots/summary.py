"""Accuracy against time: the one picture for those who look at one only."""

from typing import TYPE_CHECKING

from featx.comparison import Comparison, duration
from featx.plots.letters import short
from featx.plots.marks import INTERVALS, colour, kind_legend, marker
from featx.plots.picture_page import new_page
from featx.plots.point_labels import label_points, visible
from featx.plots.time_axis import time_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def summary_chart(comparison: Comparison) -> "Figure":
    """Accuracy against time, the one picture for those who look at one only."""
    figure = new_page(comparison, _headline(comparison), 4.6, note=INTERVALS)
    axes = figure.add_subplot()
    time_scale(axes, [approach.total_s for approach in comparison.approaches])
    for approach in comparison.approaches:
        low, high = 100 * approach.metrics.accuracy_low, 100 * approach.metrics.accuracy_high
        axes.vlines(visible(approach.total_s), low, high, colour(approach), lw=2, alpha=0.7)
        axes.plot(
            visible(approach.total_s),
            100 * approach.metrics.accuracy,
            marker(approach),
            color=colour(approach),
            ms=9,
            zorder=3,
        )
    lows = [100 * approach.metrics.accuracy_low for approach in comparison.approaches]
    highs = [100 * approach.metrics.accuracy_high for approach in comparison.approaches]
    margin = max(0.15 * (max(highs) - min(lows)), 0.5)
    axes.set_ylim(max(min(lows) - margin, -2), min(max(highs) + margin, 102))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel("accuracy on test images")
    scale = " (logarithmic scale)" if axes.get_xscale() == "log" else ""
    axes.set_xlabel(f"time from images to trained classifier{scale}")
    kind_legend(axes, comparison)
    label_points(figure, axes, comparison.approaches)
    return figure


def _headline(comparison: Comparison) -> str:
    best, rival = comparison.best, comparison.rival
    if rival is None or {best.kind, rival.kind} != {"features", "scratch"}:
        return f"{short(best.name)}: {100 * best.metrics.accuracy:.1f} % right after {duration(best.total_s)}"
    features, scratch = (best, rival) if best.kind == "features" else (rival, best)
    doubt = "" if rival.differs_from_best else " (not told apart from chance)"
    return (
        f"Features + top: {100 * features.metrics.accuracy:.1f} % in {duration(features.total_s)}. "
        f"From scratch: {100 * scratch.metrics.accuracy:.1f} % in {duration(scratch.total_s)}{doubt}"
    )
