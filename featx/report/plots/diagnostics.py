"""The detailed charts: how training went, how much data is enough, and which mistakes an approach makes."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.compare import Approach, ApproachImages, Comparison, CurvePoint, ErrorAnalysis, ranked
from featx.report.plots.page import (
    COLOURS,
    DIM,
    INK,
    MARKERS,
    PALE,
    PICTURE,
    SERIES,
    SERIES_DASHES,
    SERIES_MARKERS,
    Sheet,
    are_numbered,
    class_labels,
    new_page,
    short,
)
from featx.report.text import (
    accuracy_word,
    first_seed_note,
)
from featx.system import n_columns
from featx.train import Confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows of the picture of a confusion matrix, at most: each is four pixels high.
MAX_DRAWN = 600


def training_curves_chart(comparison: Comparison, sheet: Sheet = PICTURE) -> "Figure":
    """Loss and accuracy of each approach that has a history, with the epoch that was kept."""
    rows = [approach for approach in comparison.approaches if approach.history]
    n_across = 1 if sheet.is_narrow else 2
    body_in = 0.6 + 4.6 / n_across * len(rows)
    figure = new_page(comparison, "Loss and accuracy by epoch", body_in, sheet, note=first_seed_note(comparison))
    grid = figure.subplots(2 * len(rows) // n_across, n_across, squeeze=False)
    for number, approach in enumerate(rows):
        epochs = [e.epoch for e in approach.history]
        losses = [(e.loss, e.val_loss) for e in approach.history]
        accuracies = [(100 * e.accuracy, 100 * e.val_accuracy) for e in approach.history]
        curves = {"loss (nats)": losses, f"{accuracy_word(comparison)} (%)": accuracies}
        dots = ("o", "s") if len(epochs) < 15 else ("", "")
        pair = grid.flat[2 * number : 2 * number + 2]
        for axes, (what, values) in zip(pair, curves.items(), strict=True):
            train, validation = np.where(np.isfinite(values), values, np.nan).T  # a gap where training diverged
            axes.plot(epochs, train, PALE, ls="--", marker=dots[0], ms=4, lw=1.8, label="training images")
            axes.plot(
                epochs, validation, COLOURS[approach.kind], marker=dots[1], ms=4, lw=2.2, label="validation images"
            )
            axes.set_title(f"{short(approach.name, 24 if sheet.is_narrow else 30)}: {what}", loc="left", fontsize=10.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
            first = 1 if approach.kept_epoch is None else min(1, approach.kept_epoch)
            axes.set_xlim(first - 0.5, max(epochs) + 0.5)
            if approach.kept_epoch is not None:
                label = f"kept: epoch {approach.kept_epoch}"
                axes.axvline(approach.kept_epoch, color=INK, ls=":", lw=1.6, label=label)
        pair[0].legend(fontsize=8.5, loc="best", framealpha=0.8, frameon=True, edgecolor="none")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def learning_curve_chart(comparison: Comparison, sheet: Sheet = PICTURE) -> "Figure":
    """Accuracy by number of training images, of all or of each class (log scale); bars are the range of the seeds."""
    note = "Points: mean over the seeds. Bars: lowest to highest seed."
    figure = new_page(
        comparison, "Accuracy by number of training images", 5.0 if sheet.is_narrow else 4.6, sheet, note=note
    )
    axes = figure.add_subplot()
    axes.set_xscale("log")
    points_of: dict[str, list[CurvePoint]] = {approach.name: [] for approach in ranked(comparison.approaches)}
    for point in comparison.learning_curve:
        points_of[point.approach].append(point)
    names = [name for name, points in points_of.items() if points]
    looks = _looks([approach for approach in ranked(comparison.approaches) if approach.name in names])
    for number, name in enumerate(names):
        points, look = points_of[name], looks[name]
        aside = 1 + 0.03 * (number - (len(names) - 1) / 2)  # or the bars would hide each other
        ends = [(point.mean - min(point.accuracies), max(point.accuracies) - point.mean) for point in points]
        axes.errorbar(
            [aside * (point.per_class or point.n_train) for point in points],
            [100 * point.mean for point in points],
            yerr=100 * np.maximum(np.array(ends).T, 0),  # the mean of equal numbers may be rounded below them
            color=SERIES[look],
            marker=SERIES_MARKERS[look],
            ls=SERIES_DASHES[look],
            ms=6,
            lw=1.8,
            elinewidth=1.2,
            capsize=3,
            label=short(name, 30),
        )
    ticks = sorted({point.per_class or point.n_train for point in comparison.learning_curve})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=90 if sheet.is_narrow else 0)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel(f"{accuracy_word(comparison)} on test images")
    is_of_class = any(point.per_class for point in comparison.learning_curve)
    axes.set_xlabel(f"training images{' of each class' if is_of_class else ''} (log scale)")
    n_columns = 1 if sheet.is_narrow else 3
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, borderaxespad=0.2, handlelength=4)
    return figure


def _looks(approaches: Sequence[Approach]) -> dict[str, int]:
    """Return which of `SERIES` each approach has: the first of its kind that of the kind, as in the other charts."""
    first = {approach.kind: approach.name for approach in reversed(approaches)}
    looks = {first[kind]: number for number, kind in enumerate(COLOURS) if kind in first}
    others = [approach.name for approach in approaches if approach.name not in looks]
    spare = range(len(COLOURS), len(SERIES))
    return looks | {name: spare[number % len(spare)] for number, name in enumerate(others)}


def reliability_chart(comparison: Comparison, error_analysis: ErrorAnalysis, sheet: Sheet = PICTURE) -> "Figure":
    """Accuracy of each approach by its confidence, a small chart each; all bins have about as many images.

    Hollow points are those before calibration, if there was any.
    """
    seen = {images.name: images for images in error_analysis.approaches}
    rows = ranked(comparison.approaches)
    n_across = min(2 if sheet.is_narrow else 3, len(rows))
    n_down = -(-len(rows) // n_across)
    body_in = 0.6 + (2.3 if sheet.is_narrow else 2.9) * n_down
    title = "Reliability: accuracy by confidence"
    figure = new_page(comparison, title, body_in, sheet, note=first_seed_note(comparison))
    grid = figure.subplots(n_down, n_across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    low = 50 if comparison.is_multilabel else 100 / len(comparison.class_names)
    for axes, approach in zip(grid.flat, rows, strict=False):
        axes.plot([low, 100], [low, 100], PALE, ls="--", lw=1.2)
        _reliability_points(axes, approach, seen[approach.name])
        name = short(approach.name, 20 if sheet.is_narrow else 28)
        size = 9 if sheet.is_narrow else 10
        before = seen[approach.name].calibration_error_before
        change = "" if before is None else f", before {before:.3f}"
        axes.set_title(f"{name}\nECE {approach.metrics.calibration_error:.3f}{change}", loc="left", fontsize=size)
        axes.set_xlim(low - 2, 102)
        axes.set_ylim(-3, 103)
    for axes in grid[-1]:
        axes.set_xlabel("confidence (%)")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy (%)")
    return figure


def _reliability_points(axes: "Axes", approach: Approach, images: ApproachImages) -> None:
    """Draw the bins of an approach, with their intervals, and behind them those before calibration."""
    colour, marker = COLOURS[approach.kind], MARKERS[approach.kind]
    before, bins = images.reliability_before, images.reliability
    points = [(100 * each.confidence, 100 * each.accuracy) for each in before]
    if points:
        axes.plot(*zip(*points, strict=True), marker, color=DIM, mfc="none", ms=6, mew=1.2, ls="-", lw=0.7, zorder=2)
    confidences, shares = [100 * each.confidence for each in bins], [100 * each.accuracy for each in bins]
    lows, highs = [100 * each.accuracy_low for each in bins], [100 * each.accuracy_high for each in bins]
    axes.vlines(confidences, lows, highs, colour, lw=1.6, alpha=0.7)
    axes.plot(confidences, shares, marker, color=colour, ms=5, zorder=3)


def risk_coverage_chart(comparison: Comparison, error_analysis: ErrorAnalysis, sheet: Sheet = PICTURE) -> "Figure":
    """The share of wrong answers among the test images that each approach is surest of, by the share of these images.

    An approach that cannot tell which of its answers are right has the same share of wrong answers everywhere. The
    dashed line shows this for the best approach.
    """
    seen = {images.name: images.risk_coverage for images in error_analysis.approaches}
    rows = ranked(comparison.approaches)
    title = "Mistakes among the surest answers"
    figure = new_page(comparison, title, 5.0 if sheet.is_narrow else 4.6, sheet, note=first_seed_note(comparison))
    axes, looks = figure.add_subplot(), _looks(rows)
    error = 100 * seen[rows[0].name][-1].error
    axes.axhline(error, color=PALE, ls="--", lw=1.3)
    axes.annotate("no skill", (0, error), (3, 3), textcoords="offset points", color=DIM, fontsize=9)
    for approach in rows:
        points, look = seen[approach.name], looks[approach.name]
        shares, errors = [100 * each.coverage for each in points], [100 * each.error for each in points]
        style: dict[str, Any] = {
            "color": SERIES[look],
            "ls": SERIES_DASHES[look],
            "marker": SERIES_MARKERS[look],
            "markevery": 0.125,
        }
        axes.plot(shares, errors, **style, ms=5, lw=1.8, label=short(approach.name, 30))
    axes.set_xlim(0, 101)
    axes.set_ylim(0, None)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g} %")
    axes.set_xlabel("share of the test images, the surest first")
    axes.set_ylabel("wrong answers among them")
    n_columns = 1 if sheet.is_narrow else 3
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, borderaxespad=0.2, handlelength=4)
    return figure


def confusion_chart(comparison: Comparison, approach: Approach) -> "Figure":
    """A matrix of true and predicted classes; with many classes, without numbers in the cells.

    With more than `MAX_DRAWN`, several neighbours share a row and a column.
    """
    confusion, n_classes = approach.confusion, approach.confusion.n_classes
    n_together = -(-n_classes // MAX_DRAWN)
    counts = _counts(confusion, n_together)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell_in = 1.25 if n_classes <= 3 else 0.62 if n_classes <= 12 else 0.34 if n_classes <= 40 else 12 / n_classes
    side_in = cell_in * n_classes
    seed = f" (first {'repetition' if approach.folds else 'seed'})" if approach.repeats else ""
    title = f"{short(approach.name)}{seed}: {_commonest_mistake(comparison, confusion)}"
    notes = ["Numbers stand for classes: see results.md."] if are_numbered(comparison.class_names) else []
    notes += [f"Each row and column stands for {n_together} classes."] if n_together > 1 else []
    sheet = replace(PICTURE, width_in=max(7.0, side_in + 3.6))
    figure = new_page(comparison, title, side_in + 2.1, sheet, note=" ".join(notes))
    axes = figure.add_subplot()
    axes.grid(visible=False)
    end = len(counts) * n_together - 0.5  # places on the axes are numbers of classes
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100, extent=(-0.5, end, end, -0.5))
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, format="{x:g} %")
    bar.outline.set_visible(False)
    bar.set_label("share of the true class (row)")
    every = -(-n_classes // 60)
    names = class_labels(comparison.class_names)
    size = 10.5 if n_classes <= 12 else 8
    axes.set_xticks(
        range(0, n_classes, every),
        names[::every],
        fontsize=size,
        rotation=0 if max(map(n_columns, names)) * n_classes < 60 else 90,
    )
    recall = confusion.n_right / np.maximum(confusion.n_true, 1)
    recalls = [f"{name}  {100 * recall[i]:.0f} %" for i, name in enumerate(names)] if n_classes > 12 else names
    axes.set_yticks(range(0, n_classes, every), recalls[::every], fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class" + (", with its recall" if n_classes > 12 else ""))
    if n_classes <= 40:
        _cell_texts(axes, counts, share)
    return figure


def _cell_texts(axes: "Axes", counts: np.ndarray[Any, Any], share: np.ndarray[Any, Any]) -> None:
    """Write the counts, and the row's percentages where cells are large enough; empty cells of large matrices not."""
    n_classes = len(counts)
    size = 14 if n_classes <= 3 else 9 if n_classes <= 12 else 7
    for row, column in product(range(n_classes), repeat=2):
        count = counts[row, column]
        if n_classes > 3 and not count:
            continue
        text = f"{count:,}" if n_classes <= 12 else f"{count}"
        if n_classes <= 12:
            text += f"\n{100 * share[row, column]:.0f} %"
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _counts(confusion: Confusion, n_together: int) -> np.ndarray[Any, Any]:
    """Return the matrix with so many neighbouring classes in one row, and in one column."""
    n_rows = -(-confusion.n_classes // n_together)
    counts = np.zeros((n_rows, n_rows), np.int64)
    true, guess, n = confusion.columns
    np.add.at(counts, (true // n_together, guess // n_together), n)
    return counts


def _commonest_mistake(comparison: Comparison, confusion: Confusion) -> str:
    true, guess, n = confusion.columns
    n_images = n.sum()
    true, guess, n = confusion.columns[:, true != guess]
    if not len(n):
        return f"no mistakes on {n_images:,} test images"
    if (n == n.max()).sum() > 1:
        return f"{n.sum():,} of {n_images:,} test images misclassified"
    commonest = n.argmax()
    names, of = comparison.class_names, confusion.n_true[true[commonest]]
    pair = (int(true[commonest]), int(guess[commonest]))
    shown = [f"class {i + 1}" if are_numbered(names) else short(names[i], 24) for i in pair]
    return f"most often mistook {shown[0]} for {shown[1]} ({n.max():,} of {of:,})"


def confusion_file_names(comparison: Comparison) -> list[str]:
    """Return the file names of the confusion matrices, in the order of the approaches, all different."""
    names: list[str] = []
    for number, approach in enumerate(comparison.approaches, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", approach.name.lower()).strip("-")[:60]
        name = f"confusion-{slug or number}.png"
        names.append(name if name not in names else f"confusion-{slug}-{number}.png")
    return names
