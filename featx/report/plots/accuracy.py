"""Accuracy against time: the one picture for those who look at one only."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featx.compare import SIGNIFICANCE, Approach, Comparison, duration, ranked
from featx.report.plots.letters import short
from featx.report.plots.marks import (
    INTERVALS,
    approach_rows,
    colour,
    kind_legend,
    label_points,
    marker,
    right_of,
    time_scale,
    visible,
)
from featx.report.plots.page import PALE, new_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_chart(comparison: Comparison) -> "Figure":
    """Dots with intervals, the best approach on top, beside what chance reaches."""
    rows = ranked(comparison.approaches)
    figure = new_page(comparison, _accuracy_title(comparison), 1.2 + 0.42 * len(rows), note=INTERVALS)
    axes = figure.add_subplot()
    for y, approach in enumerate(rows):
        metrics = approach.metrics
        low, high = 100 * metrics.accuracy_low, 100 * metrics.accuracy_high
        axes.hlines(y, low, high, colour(approach), lw=3, alpha=0.6)
        axes.plot(100 * metrics.accuracy, y, marker(approach), color=colour(approach), ms=7.5)
        right_of(axes, y, f"{100 * metrics.accuracy:.1f} %  ({low:.1f} – {high:.1f})")
    _chance_line(axes, rows, 100 * comparison.commonest_share)
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.set_xlabel("accuracy on test images, with its 95 % interval")
    approach_rows(axes, rows, top=-1.1)
    kind_legend(axes, comparison, n_columns=2)  # beside long names, three do not fit
    return figure


def _chance_line(axes: "Axes", rows: Sequence[Approach], chance: float) -> None:
    """Mark what chance reaches; if that is so far off that the intervals would shrink to dots, say it at the edge."""
    low = min(100 * approach.metrics.accuracy_low for approach in rows)
    high = max(100 * approach.metrics.accuracy_high for approach in rows)
    text, start = f"always the commonest class: {chance:.1f} %", min(chance, low) - 2
    if low - chance > 4 * (high - low):
        text, start = f"◂ far left: {text}", low - 0.3 * (high - low)
    else:
        axes.axvline(chance, color=PALE, ls="--", lw=1.3)
    margin = 0.02 * (high - start)
    axes.set_xlim(max(start, -margin), min(high + 4 * margin, 100 + margin))
    axes.text(max(start, chance), -0.75, f" {text}", color="#5F5F5F", fontsize=9, va="center")


def _accuracy_title(comparison: Comparison) -> str:
    best = comparison.best
    others = [approach for approach in comparison.approaches if approach is not best]
    close = [approach for approach in others if not approach.differs_from_best]
    if not others:
        return f"{short(best.name)} is right on {100 * best.metrics.accuracy:.1f} % of the test images"
    if not close:
        return f"{short(best.name)} is right most often, beyond chance (McNemar, p < {SIGNIFICANCE:g})"
    names = short(close[0].name) if len(close) == 1 else f"{len(close)} others"
    return f"{short(best.name)} leads, but {names} may be as good: the difference is within chance"


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
    best, other = comparison.best, comparison.best_of_other_kind
    if other is None or {best.kind, other.kind} != {"features", "scratch"}:
        return f"{short(best.name)}: {100 * best.metrics.accuracy:.1f} % right after {duration(best.total_s)}"
    features, scratch = (best, other) if best.kind == "features" else (other, best)
    doubt = "" if other.differs_from_best else " (not told apart from chance)"
    return (
        f"Features + top: {100 * features.metrics.accuracy:.1f} % in {duration(features.total_s)}. "
        f"From scratch: {100 * scratch.metrics.accuracy:.1f} % in {duration(scratch.total_s)}{doubt}"
    )
