"""Training epoch by epoch, and accuracy by the number of training images."""

from typing import TYPE_CHECKING

import numpy as np

from featx.comparison import Comparison, ranked
from featx.plots.letters import short
from featx.plots.marks import colour, marker
from featx.plots.picture_page import INK, PALE, new_page

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
