"""How often each approach is right against how sure it is."""

from typing import TYPE_CHECKING

from featx.comparison import Comparison, ranked
from featx.examination import Examination
from featx.plots.letters import short
from featx.plots.marks import colour
from featx.plots.picture_page import PALE, new_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_chart(comparison: Comparison, examination: Examination) -> "Figure":
    """How often each approach is right against how sure it is, a small chart each."""
    seen = {images.name: images.reliability for images in examination.approaches}
    rows = ranked(comparison.approaches)
    n_columns = min(3, len(rows))
    n_rows = -(-len(rows) // n_columns)
    figure = new_page(comparison, "How often an approach is right, by how sure it is", 0.6 + 2.9 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    low = 100 / len(comparison.class_names)
    for axes, approach in zip(grid.flat, rows, strict=False):
        axes.plot([low, 100], [low, 100], PALE, ls="--", lw=1.2)
        sure, right, n = zip(
            *((100 * b.confidence, 100 * b.accuracy, b.n_samples) for b in seen[approach.name]), strict=True
        )
        axes.plot(sure, right, color=colour(approach), lw=1.6)
        axes.scatter(sure, right, [15 + 150 * count / max(n) for count in n], color=colour(approach), alpha=0.8, lw=0)
        axes.set_title(
            f"{short(approach.name, 24)}: error {approach.metrics.calibration_error:.3f}", loc="left", fontsize=10
        )
        axes.set_xlim(low - 2, 102)
        axes.set_ylim(-3, 103)
    for axes in grid[-1]:
        axes.set_xlabel("how sure (%)")
    for axes in grid[:, 0]:
        axes.set_ylabel("how often right (%)")
    return figure
