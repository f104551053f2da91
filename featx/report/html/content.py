"""What the page says, made from a comparison: numbers as text, and pictures."""

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from featx.compare import Approach, ApproachImages, Comparison, ErrorAnalysis, duration, ranked
from featx.errors import ImageError, printable
from featx.images import decode_image, read_file
from featx.report.text import count, p_value, repeats_cells
from featx.storage import StoragePath, as_data
from featx.system import size

#: Sides in pixels of pictures that stand by themselves, and of those that show up under the pointer.
LARGE, SMALL = 96, 48

#: All thumbnails together take at most so many bytes of the page.
BUDGET_BYTES = 2_000_000


@dataclass(frozen=True)
class Claim:
    """A line of that report, as it stood there."""

    accuracy: str
    time: str
    losses: str


CLAIMS = {
    "report-cnn": Claim("32 %", "6.4 h", "0.0546 training, 3.2969 validation"),
    "vgg16 + dense": Claim("96 %", "11 min = 10 + 1", "not given"),
}

WHY_THEY_DIFFER = (
    "Its accuracies and losses are of the training, called results; here everything is measured on test images.",
    "It mixed figures of first and of last epochs; here the epoch with the lowest validation loss is kept, and counts.",
    "Its hours come from steps_per_epoch given in images instead of batches: an epoch went over the data dozens of "
    "times. Here an epoch is one pass.",
    "Other images, at another size, on another machine: only the order of approaches could be compared at all.",
)


class Thumbnails:
    """Data URIs of images below `root`, square, as the backbone sees them: stretched.

    Without a root, or where the budget is used up or a file is gone, there is none.
    """

    def __init__(self, root: StoragePath | str | None) -> None:
        self._root = None if root is None else as_data(root)
        self._left_bytes = BUDGET_BYTES
        self._known: dict[tuple[str, int], str] = {}

    def uri(self, path: str, side: int = LARGE) -> str:
        """Return the data URI of the image at `path`, or an empty string."""
        if (path, side) not in self._known:
            self._known[path, side] = self._make(path, side)
        return self._known[path, side]

    def uris(self, paths: Iterable[str], side: int) -> dict[str, str]:
        """Return the data URIs of those of `paths` that have one."""
        return {path: uri for path in dict.fromkeys(paths) if (uri := self.uri(path, side))}

    def _make(self, path: str, side: int) -> str:
        if self._root is None or self._left_bytes <= 0:
            return ""
        try:
            pixels = decode_image(read_file(self._root / path), (side, side))
        except ImageError:
            return ""
        uri = f"data:image/webp;base64,{base64.b64encode(_webp(pixels)).decode('ascii')}"
        self._left_bytes -= len(uri)
        return uri


def _webp(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "WEBP", quality=55, method=4)
        return file.getvalue()


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


def matrices(comparison: Comparison, examination: ErrorAnalysis | None) -> list[dict[str, Any]]:
    """Return the confusion matrices: for each approach, the best first, rows of counts with the share of their row."""
    numbers = {
        (cell["approach"], cell["label"], cell["predicted"]): number
        for number, cell in enumerate(_cells_with_images(examination))
    }
    return [_matrix(approach, comparison, numbers) for approach in ranked(comparison.approaches)]


def _cells_with_images(examination: ErrorAnalysis | None) -> list[dict[str, Any]]:
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
        {}
        if comparison.error_analysis is None
        else {images.name: images for images in comparison.error_analysis.approaches}
    )
    return [seen[approach.name] for approach in ranked(comparison.approaches) if approach.name in seen]


def page_data(comparison: Comparison, thumbnails: Thumbnails) -> Markup:
    """Return what the page's script needs, as JSON that is safe inside a script element.

    Names are exact in it: two that differ never become one. `shown` has those that are shown in another way.
    """
    examination = comparison.error_analysis
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
