"""How often each approach is right against how sure it is."""

from typing import TYPE_CHECKING

import numpy as np

from featx.compare import Comparison, ErrorAnalysis, ranked
from featx.report.plots.letters import short
from featx.report.plots.marks import colour, marker
from featx.report.plots.page import INK, PALE, new_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves_chart(comparison: Comparison) -> "Figure":
    """Loss and accuracy of each approach that has a history, side by side, with the epoch that was kept."""
    rows = [approach for approach in comparison.approaches if approach.history]
    figure = new_page(comparison, "How training went, epoch by epoch, and which epoch was kept", 0.6 + 2.3 * len(rows))
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for axes_row, approach in zip(grid, rows, strict=True):
        epochs = [e.epoch for e in approach.history]
        losses = [(e.loss, e.val_loss) for e in approach.history]
        accuracies = [(100 * e.accuracy, 100 * e.val_accuracy) for e in approach.history]
        curves = {"loss (nats)": losses, "accuracy (%)": accuracies}
        dot = "o" if len(epochs) < 15 else ""
        for axes, (what, values) in zip(axes_row, curves.items(), strict=True):
            train, validation = np.where(np.isfinite(values), values, np.nan).T  # a gap where training diverged
            axes.plot(epochs, train, PALE, marker=dot, ms=4, lw=1.8, label="training images")
            axes.plot(epochs, validation, colour(approach), marker=dot, ms=4, lw=2.2, label="validation images")
            axes.set_title(f"{short(approach.name, 30)}: {what}", loc="left", fontsize=10.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlim(0.5, max(epochs) + 0.5)
            if approach.kept_epoch is not None:
                label = f"kept: epoch {approach.kept_epoch}"
                axes.axvline(approach.kept_epoch, color=INK, ls=":", lw=1.6, label=label)
        axes_row[0].legend(fontsize=8.5, loc="best", framealpha=0.8, frameon=True, edgecolor="none")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def learning_curve_chart(comparison: Comparison) -> "Figure":
    """Accuracy by number of training images, on a logarithmic scale, with the range of the seeds as bands."""
    figure = new_page(comparison, "How much data is enough", 4.6, note="Bands: lowest to highest of the seeds.")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    lines = ("-", "--", ":", "-.")
    drawn: dict[str, int] = {}
    for approach in ranked(comparison.approaches):
        points = [point for point in comparison.learning_curve if point.approach == approach.name]
        if not points:
            continue
        n = [point.n_train for point in points]
        drawn[approach.kind] = drawn.get(approach.kind, -1) + 1
        low, high = ([100 * edge(point.accuracies) for point in points] for edge in (min, max))
        axes.fill_between(n, low, high, color=colour(approach), alpha=0.15, lw=0)
        means = [100 * point.mean for point in points]
        style = lines[drawn[approach.kind] % len(lines)]
        axes.plot(
            n, means, style, marker=marker(approach), ms=5, color=colour(approach), label=short(approach.name, 30)
        )
    ticks = sorted({point.n_train for point in comparison.learning_curve})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel("accuracy on test images")
    axes.set_xlabel("training images (logarithmic scale)")
    axes.legend(loc="lower right")
    return figure


def reliability_chart(comparison: Comparison, examination: ErrorAnalysis) -> "Figure":
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
