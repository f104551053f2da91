"""The pictures of a comparison, as PNG files at twice the resolution of the page they are meant for."""

import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison import SIGNIFICANCE, Approach, Comparison, duration, ranked
from featx.examination import Examination
from featx.picture_page import (
    DIRECT_COLOUR,
    FEATURES_COLOUR,
    INK,
    PALE,
    REPRESENTATIONS_COLOUR,
    SCRATCH_COLOUR,
    new_page,
    page_style,
    png,
    short,
)
from featx.point_labels import label_points, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVALS = "Lines: 95 % intervals (Wilson)."

#: Marks of a time axis, in seconds.
TIME_STEPS_S = (
    *(unit * n for unit in (0.001, 0.01, 0.1) for n in (1, 2, 5)),
    *(unit * n for unit in (1, 60) for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10)),
    *(86400 * n for n in (1, 2, 5, 10, 20, 50)),
)


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return the PNG files of a comparison by file name; `training-curves.png` only if an approach has a history."""
    with page_style():
        pictures = {
            "summary.png": _summary(comparison),
            "accuracy.png": _accuracy(comparison),
            "time.png": _time(comparison),
        }
        if any(approach.history for approach in comparison.approaches):
            pictures["training-curves.png"] = _training_curves(comparison)
        if comparison.learning_curve:
            pictures["learning-curve.png"] = _learning_curve(comparison)
        for approach, name in zip(comparison.approaches, confusion_file_names(comparison), strict=True):
            pictures[name] = _confusion(comparison, approach)
        return {name: png(figure) for name, figure in pictures.items()}


def chart_figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Return the charts of a page: `summary`, `time`; `curves`, `learning` and `reliability` if there are any."""
    figures = {"summary": _summary(comparison), "time": _time(comparison)}
    if any(approach.history for approach in comparison.approaches):
        figures["curves"] = _training_curves(comparison)
    if comparison.learning_curve:
        figures["learning"] = _learning_curve(comparison)
    if comparison.examination:
        figures["reliability"] = _reliability(comparison, comparison.examination)
    return figures


def confusion_file_names(comparison: Comparison) -> list[str]:
    """Return the file names of the confusion matrices, in the order of the approaches, all different."""
    names: list[str] = []
    for number, approach in enumerate(comparison.approaches, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", approach.name.lower()).strip("-")[:60]
        name = f"confusion-{slug or number}.png"
        names.append(name if name not in names else f"confusion-{slug}-{number}.png")
    return names


def _summary(comparison: Comparison) -> "Figure":
    """Accuracy against time, the one picture for those who look at one only."""
    figure = new_page(comparison, _headline(comparison), 4.6, note=INTERVALS)
    axes = figure.add_subplot()
    _time_scale(axes, [approach.total_s for approach in comparison.approaches])
    for approach in comparison.approaches:
        low, high = 100 * approach.metrics.accuracy_low, 100 * approach.metrics.accuracy_high
        axes.vlines(visible(approach.total_s), low, high, _colour(approach), lw=2, alpha=0.7)
        axes.plot(
            visible(approach.total_s),
            100 * approach.metrics.accuracy,
            _marker(approach),
            color=_colour(approach),
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
    _kind_legend(axes, comparison)
    label_points(figure, axes, comparison.approaches)
    return figure


def _accuracy(comparison: Comparison) -> "Figure":
    rows = ranked(comparison.approaches)
    figure = new_page(comparison, _accuracy_title(comparison), 1.2 + 0.42 * len(rows), note=INTERVALS)
    axes = figure.add_subplot()
    for y, approach in enumerate(rows):
        metrics = approach.metrics
        low, high = 100 * metrics.accuracy_low, 100 * metrics.accuracy_high
        axes.hlines(y, low, high, _colour(approach), lw=3, alpha=0.6)
        axes.plot(100 * metrics.accuracy, y, _marker(approach), color=_colour(approach), ms=7.5)
        _right_of(axes, y, f"{100 * metrics.accuracy:.1f} %  ({low:.1f} – {high:.1f})")
    _chance_line(axes, rows, 100 * comparison.commonest_share)
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.set_xlabel("accuracy on test images, with its 95 % interval")
    _approach_rows(axes, rows, top=-1.1)
    _kind_legend(axes, comparison)
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


def _time(comparison: Comparison) -> "Figure":
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
        _right_of(axes, y, _time_label(approach))
    axes.set_xlim(0, 1.03 * visible(max(approach.total_s for approach in rows)))
    _linear_time_ticks(axes, max(approach.total_s for approach in rows))
    axes.set_xlabel("time from images to trained classifier")
    _approach_rows(axes, rows, top=-0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def _training_curves(comparison: Comparison) -> "Figure":
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
            axes.plot(epochs, validation, _colour(approach), marker=dot, ms=4, lw=2.2, label="validation images")
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


def _learning_curve(comparison: Comparison) -> "Figure":
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
        axes.fill_between(n, low, high, color=_colour(approach), alpha=0.15, lw=0)
        means = [100 * point.mean for point in points]
        style = lines[drawn[approach.kind] % len(lines)]
        axes.plot(
            n, means, style, marker=_marker(approach), ms=5, color=_colour(approach), label=short(approach.name, 30)
        )
    ticks = sorted({point.n_train for point in comparison.learning_curve})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel("accuracy on test images")
    axes.set_xlabel("training images (logarithmic scale)")
    axes.legend(loc="lower right")
    return figure


def _reliability(comparison: Comparison, examination: Examination) -> "Figure":
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
        axes.plot(sure, right, color=_colour(approach), lw=1.6)
        axes.scatter(sure, right, [15 + 150 * count / max(n) for count in n], color=_colour(approach), alpha=0.8, lw=0)
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


def _confusion(comparison: Comparison, approach: Approach) -> "Figure":
    counts = np.array(approach.confusion)
    n_classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell_in = 1.25 if n_classes <= 3 else 0.62 if n_classes <= 12 else 0.34 if n_classes <= 40 else 12 / n_classes
    side_in = cell_in * n_classes
    title = f"{short(approach.name)}: {_commonest_mistake(comparison, counts)}"
    figure = new_page(comparison, title, side_in + 2.1, width_in=max(7.0, side_in + 3.6))
    axes = figure.add_subplot()
    axes.grid(visible=False)
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, format="{x:g} %")
    bar.outline.set_visible(False)
    bar.set_label("share of the true class (row)")
    every = -(-n_classes // 60)
    names = [short(name, 18) for name in comparison.class_names]
    size = 10.5 if n_classes <= 12 else 8
    axes.set_xticks(
        range(0, n_classes, every),
        names[::every],
        fontsize=size,
        rotation=0 if max(map(len, names)) * n_classes < 60 else 90,
    )
    recalls = [f"{name}  {100 * share[i, i]:.0f} %" for i, name in enumerate(names)] if n_classes > 12 else names
    axes.set_yticks(range(0, n_classes, every), recalls[::every], fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class" + (", and how much of it was recognized" if n_classes > 12 else ""))
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
            text += f"\n{100 * share[row, column]:.1f} %" if n_classes <= 3 else f"\n{100 * share[row, column]:.0f} %"
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


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


def _commonest_mistake(comparison: Comparison, counts: np.ndarray[Any, Any]) -> str:
    mistakes = counts - np.diag(counts.diagonal())
    if not mistakes.any():
        return f"no mistake on {counts.sum():,} test images"
    if (mistakes == mistakes.max()).sum() > 1:
        return f"{mistakes.sum():,} of {counts.sum():,} test images taken for another class"
    true, predicted = divmod(int(mistakes.argmax()), len(counts))
    names = [short(comparison.class_names[i], 24) for i in (true, predicted)]
    return f"most often mistook {names[0]} for {names[1]} ({mistakes.max():,} of {counts[true].sum():,})"


def _time_label(approach: Approach) -> str:
    if approach.kind == "scratch":
        return duration(approach.total_s)
    return f"{duration(approach.representations_s)} + {duration(approach.top_s)}"


def _colour(approach: Approach) -> str:
    return {"features": FEATURES_COLOUR, "scratch": SCRATCH_COLOUR, "direct": DIRECT_COLOUR}[approach.kind]


def _marker(approach: Approach) -> str:
    return {"features": "o", "scratch": "s", "direct": "D"}[approach.kind]


def _kind_legend(axes: "Axes", comparison: Comparison) -> None:
    names = {
        "features": "top model on bottleneck features",
        "scratch": "trained from scratch",
        "direct": "pretrained, used as it is",
    }
    for approach in {approach.kind: approach for approach in comparison.approaches}.values():
        axes.plot([], [], _marker(approach), color=_colour(approach), ms=8, label=names[approach.kind])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2, handletextpad=0.2)


def _approach_rows(axes: "Axes", rows: Sequence[Approach], top: float) -> None:
    """Make the y axis a list of approaches, the first on top, with room above from `top`."""
    axes.set_yticks(range(len(rows)), [short(approach.name, 32) for approach in rows])
    axes.set_ylim(len(rows) - 0.5, top)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _right_of(axes: "Axes", y: float, text: str) -> None:
    """Write beside the axes, where no bar and no whisker can reach."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=10)


def _time_scale(axes: "Axes", times: Sequence[float]) -> None:
    """Linear from 0; logarithmic where the longest is more than eight times the shortest, fit for points only."""
    shortest, longest = visible(min(times)), visible(max(times))
    if longest <= 8 * shortest:
        axes.set_xlim(0, 1.25 * longest)
        _linear_time_ticks(axes, 1.25 * longest)
        return
    low, high = shortest / 1.8, longest * 1.8
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    inside = [t for t in TIME_STEPS_S if low <= t <= high]
    ticks = inside[:: -(-len(inside) // 8)]
    axes.set_xticks(ticks, [_tick(t) for t in ticks])
    axes.set_xticks([], minor=True)


def _linear_time_ticks(axes: "Axes", longest: float) -> None:
    step = next((step for step in TIME_STEPS_S if longest / step <= 7), longest)
    ticks = np.arange(0, 1.001 * longest, step)
    axes.set_xticks(ticks, [_tick(t) for t in ticks])


def _tick(seconds: float) -> str:
    """Return a time without the units that are 0: `2 min`, not `2 min 00 s`."""
    return re.sub(r"(?<=[a-z]) 00 \w+$|\.0+(?= s)", "", duration(float(seconds)))
