"""Which classes an approach takes for which."""

import re
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.compare import Approach, Comparison
from featx.report.plots.letters import are_numbered, class_labels, short
from featx.report.plots.page import INK, new_page
from featx.system import n_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def confusion_chart(comparison: Comparison, approach: Approach) -> "Figure":
    """A matrix of true and predicted classes; with many classes, without numbers in the cells."""
    counts = np.array(approach.confusion)
    n_classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell_in = 1.25 if n_classes <= 3 else 0.62 if n_classes <= 12 else 0.34 if n_classes <= 40 else 12 / n_classes
    side_in = cell_in * n_classes
    title = f"{short(approach.name)}: {_commonest_mistake(comparison, counts)}"
    note = "Numbers stand for classes: see results.md." if are_numbered(comparison.class_names) else ""
    figure = new_page(comparison, title, side_in + 2.1, width_in=max(7.0, side_in + 3.6), note=note)
    axes = figure.add_subplot()
    axes.grid(visible=False)
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
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


def _commonest_mistake(comparison: Comparison, counts: np.ndarray[Any, Any]) -> str:
    mistakes = counts - np.diag(counts.diagonal())
    if not mistakes.any():
        return f"no mistake on {counts.sum():,} test images"
    if (mistakes == mistakes.max()).sum() > 1:
        return f"{mistakes.sum():,} of {counts.sum():,} test images taken for another class"
    true, predicted = divmod(int(mistakes.argmax()), len(counts))
    names = comparison.class_names
    shown = [f"class {i + 1}" if are_numbered(names) else short(names[i], 24) for i in (true, predicted)]
    return f"most often mistook {shown[0]} for {shown[1]} ({mistakes.max():,} of {counts[true].sum():,})"


def confusion_file_names(comparison: Comparison) -> list[str]:
    """Return the file names of the confusion matrices, in the order of the approaches, all different."""
    names: list[str] = []
    for number, approach in enumerate(comparison.approaches, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", approach.name.lower()).strip("-")[:60]
        name = f"confusion-{slug or number}.png"
        names.append(name if name not in names else f"confusion-{slug}-{number}.png")
    return names
