"""What the page says, made from a comparison: numbers as text, and pictures."""

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from featx.comparison import Approach, Comparison, duration, ranked
from featx.errors import printable
from featx.examination import ApproachImages, Examination
from featx.page.claims import CLAIMS, Claim
from featx.page.thumbnails import SMALL, Thumbnails
from featx.report import count, p_value, repeats_cells
from featx.units import size


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, and the number that it is sorted by."""

    text: str
    value: float


@dataclass(frozen=True)
class Row:
    """An approach in the table."""

    name: str
    is_best: bool
    cells: tuple[Cell, ...]
    claim: Claim | None


HEADER = (
    ("Accuracy", "of the test images, with its 95 % interval (Wilson)"),
    ("Loss", "cross-entropy in nats, of the test images"),
    ("ROC AUC", "area under the ROC curve"),
    ("Macro F1", "mean of the classes' F1"),
    ("Calibration error", "how far confidence is from accuracy, from 0 to 1"),
    ("p", "McNemar's exact test against the best"),
    ("Representations", "time to make the features, or to run the whole network"),
    ("+ top", "time to train on them, or to train from scratch"),
    ("= total", "time from images to a trained classifier"),
    ("Parameters", "that were trained"),
    ("Peak memory", "the most that was held at once"),
)


def rows(comparison: Comparison) -> list[Row]:
    """Return the table of approaches, the best first."""
    return [_row(approach, comparison) for approach in ranked(comparison.approaches)]


def _row(approach: Approach, comparison: Comparison) -> Row:
    metrics = approach.metrics
    low, high = 100 * metrics.accuracy_low, 100 * metrics.accuracy_high
    is_best = approach is comparison.best
    from_scratch = approach.kind == "scratch"
    cells = (
        Cell(f"{100 * metrics.accuracy:.1f} % ({low:.1f} – {high:.1f})", metrics.accuracy),
        Cell(f"{metrics.loss:.3f}", metrics.loss),
        Cell("–" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}", metrics.roc_auc or 0),
        Cell(f"{metrics.macro_f1:.3f}", metrics.macro_f1),
        Cell(f"{metrics.calibration_error:.3f}", metrics.calibration_error),
        Cell("best" if is_best else p_value(approach.p_value), 2 if is_best else approach.p_value or 0),
        Cell("–" if from_scratch else duration(approach.representations_s), approach.representations_s),
        Cell(duration(approach.top_s), approach.top_s),
        Cell(duration(approach.total_s), approach.total_s),
        Cell(count(approach.n_parameters), approach.n_parameters),
        Cell(size(approach.peak_memory_bytes), approach.peak_memory_bytes),
    )
    return Row(printable(approach.name), is_best, cells, CLAIMS.get(approach.name))


def repeats(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Return the rows of the table of repeats: names and cells; empty if everything was trained once."""
    repeated = [approach for approach in ranked(comparison.approaches) if approach.repeats]
    return [(printable(approach.name), repeats_cells(approach)) for approach in repeated]


def matrices(comparison: Comparison, examination: Examination | None) -> list[dict[str, Any]]:
    """Return the confusion matrices: for each approach, the best first, rows of counts with the share of their row."""
    numbers = {
        (cell["approach"], cell["label"], cell["predicted"]): number
        for number, cell in enumerate(_cells_with_images(examination))
    }
    return [_matrix(approach, comparison, numbers) for approach in ranked(comparison.approaches)]


def _cells_with_images(examination: Examination | None) -> list[dict[str, Any]]:
    """Return the cells of all matrices that have images, for the page's script, which goes by their numbers."""
    return [
        {"approach": seen.name, "label": cell.label, "predicted": cell.predicted, "paths": cell.paths}
        for seen in (examination.approaches if examination else ())
        for cell in seen.cells
    ]


def _matrix(approach: Approach, comparison: Comparison, numbers: dict[tuple[str, str, str], int]) -> dict[str, Any]:
    names = comparison.class_names
    lines = []
    for true, counts in zip(names, approach.confusion, strict=True):
        total = max(1, sum(counts))
        cells = [
            {
                "n": n,
                "share": round(100 * n / total),
                "predicted": predicted,
                "is_right": predicted == true,
                "number": numbers.get((approach.name, true, predicted)),
            }
            for predicted, n in zip(names, counts, strict=True)
        ]
        lines.append({"label": true, "cells": cells})
    return {"name": approach.name, "lines": lines}


def ranked_images(comparison: Comparison) -> list[ApproachImages]:
    """Return what there is of each approach image by image, the best first."""
    seen = (
        {} if comparison.examination is None else {images.name: images for images in comparison.examination.approaches}
    )
    return [seen[approach.name] for approach in ranked(comparison.approaches) if approach.name in seen]


def page_data(comparison: Comparison, thumbnails: Thumbnails) -> Markup:
    """Return what the page's script needs, as JSON that is safe inside a script element.

    Names are exact in it: two that differ never become one. `shown` has those that are shown in another way.
    """
    examination = comparison.examination
    points = [] if examination is None else examination.map
    cells = _cells_with_images(examination)
    paths = [*(point.path for point in points), *(path for cell in cells for path in cell["paths"])]
    data = {
        "classes": comparison.class_names,
        "points": [
            [point.path, point.label, point.predicted, round(point.x, 4), round(point.y, 4)] for point in points
        ],
        "cells": cells,
        "thumbnails": thumbnails.uris(paths, SMALL),
        "shown": {name: printable(name) for name in (*comparison.class_names, *paths) if printable(name) != name},
    }
    text = json.dumps(data, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can end the element or begin another
