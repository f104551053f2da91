"""The page of a comparison: fills the HTML template with numbers, charts and thumbnails."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from featx.compare import Approach, ApproachImages, Comparison, ranked
from featx.dataset import Data, ImageFolders
from featx.errors import ImageError, printable
from featx.images import decode_image, read_file
from featx.report.plots.diagnostics import learning_curve_chart, reliability_chart, training_curves_chart
from featx.report.plots.page import (
    COLOURS,
    DIM,
    INK,
    LINE,
    PALE,
    REPRESENTATIONS_COLOUR,
    WARNING_COLOUR,
    are_numbered,
    page_style,
    texts_of,
)
from featx.report.plots.results import summary_chart, time_chart
from featx.report.text import (
    CAVEAT,
    CURVES_NOTE,
    LEARNING_NOTE,
    REPEATS_HEADER,
    REPEATS_NOTE,
    TIME_NOTE,
    cost_cells,
    curve_verdict,
    repeats_cells,
    result_cells,
    short_value,
    verdict,
)
from featx.storage import StoragePath, as_data
from featx.system import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Sides in pixels of pictures that stand by themselves, and of those that show up under the pointer.
LARGE, SMALL = 96, 48

#: All thumbnails together take at most so many bytes of the page.
BUDGET_BYTES = 2_000_000

#: Columns of the table of approaches, and what they mean.
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

#: What the report that featx began with said of the same approaches.
CLAIMS = {
    "report-cnn": {"accuracy": "32 %", "time": "6.4 h", "losses": "0.0546 training, 3.2969 validation"},
    "vgg16 + dense": {"accuracy": "96 %", "time": "11 min = 10 + 1", "losses": "not given"},
}

WHY_THEY_DIFFER = (
    "Its accuracies and losses are of the training, called results; here everything is measured on test images.",
    "It mixed figures of first and of last epochs; here the epoch with the lowest validation loss is kept, and counts.",
    "Its hours come from steps_per_epoch given in images instead of batches: an epoch went over the data dozens of "
    "times. Here an epoch is one pass.",
    "Other images, at another size, on another machine: only the order of approaches could be compared at all.",
)

#: Colours of the pictures, and the page's names for them.
_COLOURS = {
    INK: "var(--ink)",
    PALE: "var(--pale)",
    DIM: "var(--dim)",
    LINE: "var(--line)",
    "#FFFFFF": "var(--card)",
    WARNING_COLOUR: "var(--warning)",
    COLOURS["features"]: "var(--blue)",
    REPRESENTATIONS_COLOUR: "var(--light-blue)",
    COLOURS["scratch"]: "var(--orange)",
    COLOURS["direct"]: "var(--green)",
}


def page_html(comparison: Comparison, data_dir: Data | None = None) -> str:
    """Return the page of a comparison: HTML that needs neither a network nor another file.

    Args:
        comparison: what to show.
        data_dir: the data set's folder, from which thumbnails are made; without it there are none.

    Every name is escaped by the template, and control characters in it are made visible. The page forbids itself, by a
    content security policy, to load anything or to run any script but its own.
    """
    from jinja2 import Environment, StrictUndefined

    # Whatever is put into the page is escaped unless it is Markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "printable": printable,
        "duration": duration,
        "percent": lambda share: f"{100 * share:.1f} %",
        "short": short_value,
    }
    style, script = _asset("page.css"), _asset("page.js")
    script_digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    approaches = ranked(comparison.approaches)
    images = {seen.name: seen for seen in comparison.error_analysis.approaches} if comparison.error_analysis else {}
    cells = _cells_with_images(images.values())
    thumbnails = Thumbnails(None if data_dir is None else ImageFolders.of(data_dir).root)
    return environment.from_string(_asset("page.html.j2")).render(
        comparison=comparison,
        error_analysis=comparison.error_analysis,
        verdict=_unbroken(verdict(comparison)),
        header=HEADER,
        rows=[_row(approach, comparison) for approach in approaches],
        repeats_header=REPEATS_HEADER,
        repeats=[(printable(each.name), repeats_cells(each)) for each in approaches if each.repeats],
        repeats_note=REPEATS_NOTE,
        ranked_images=[images[approach.name] for approach in approaches if approach.name in images],
        matrices=[_matrix(approach, comparison.class_names, cells) for approach in approaches],
        why_claims_differ=WHY_THEY_DIFFER,
        charts=_charts(comparison),
        are_numbered=are_numbered(comparison.class_names),
        thumbnail=thumbnails.uri,
        caveat=CAVEAT,
        time_note=TIME_NOTE,
        curves_note=CURVES_NOTE,
        learning_note=LEARNING_NOTE,
        curve_verdict=curve_verdict(comparison),
        recipes=[json.dumps(recipe, sort_keys=True) for recipe in comparison.recipes],
        style=Markup(style),  # noqa: S704 - a file of featx's own
        script=Markup(script),  # noqa: S704 - the same
        script_hash=f"sha256-{script_digest}",
        data=lambda: _data(comparison, cells, thumbnails),  # last: what stands on the page itself has first claim
    )


def _asset(name: str) -> str:
    return resources.files("featx.report.html").joinpath(name).read_text(encoding="utf-8")


def _unbroken(text: str) -> str:
    """Return `text` with spaces that no line breaks at: in `85.7 %` and in `p < 0.001`."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=p [<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def _row(approach: Approach, comparison: Comparison) -> dict[str, Any]:
    """Return an approach in the table: the text of each cell, and the number that the table is sorted by."""
    metrics, is_best = approach.metrics, approach is comparison.best
    values = (
        metrics.accuracy,
        metrics.loss,
        metrics.roc_auc or 0,
        metrics.macro_f1,
        metrics.calibration_error,
        2 if is_best else approach.p_value or 0,
        approach.representations_s,
        approach.top_s,
        approach.total_s,
        approach.n_parameters,
        approach.peak_memory_bytes,
    )
    texts = (*result_cells(approach, comparison), *cost_cells(approach))
    return {
        "name": printable(approach.name),
        "is_best": is_best,
        "cells": [{"text": text, "value": value} for text, value in zip(texts, values, strict=True)],
        "claim": CLAIMS.get(approach.name),
    }


def _cells_with_images(approaches: Iterable[ApproachImages]) -> list[dict[str, Any]]:
    """Return the cells of all matrices that have images, for the page's script, which goes by their numbers."""
    return [
        {"approach": seen.name, "label": cell.label, "predicted": cell.predicted, "paths": cell.paths}
        for seen in approaches
        for cell in seen.cells
    ]


def _matrix(approach: Approach, names: Sequence[str], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a confusion matrix: rows of counts with the share of their row, and the numbers of `cells`."""
    numbers = {
        (cell["label"], cell["predicted"]): n for n, cell in enumerate(cells) if cell["approach"] == approach.name
    }
    lines = []
    for true, counts in zip(names, approach.confusion, strict=True):
        total = max(1, sum(counts))
        row = [
            {
                "n": n,
                "share": round(100 * n / total),
                "predicted": predicted,
                "is_right": predicted == true,
                "number": numbers.get((true, predicted)),
            }
            for predicted, n in zip(names, counts, strict=True)
        ]
        lines.append({"label": true, "cells": row})
    return {"name": approach.name, "lines": lines}


def _charts(comparison: Comparison) -> dict[str, Markup]:
    """Return the charts as SVG elements: `summary`, `time`; `curves`, `learning` and `reliability` if there are any."""
    with page_style(texts_of(comparison)):
        figures = {"summary": summary_chart(comparison), "time": time_chart(comparison)}
        if any(approach.history for approach in comparison.approaches):
            figures["curves"] = training_curves_chart(comparison)
        if comparison.learning_curve:
            figures["learning"] = learning_curve_chart(comparison)
        if comparison.error_analysis:
            figures["reliability"] = reliability_chart(comparison, comparison.error_analysis)
        return {name: _svg(figure, name) for name, figure in figures.items()}


def _svg(figure: "Figure", name: str) -> Markup:
    """Return a picture as an SVG element whose identifiers are nobody else's."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _COLOURS.items():
        text = re.sub(colour, variable, text, flags=re.IGNORECASE)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"|<svg ', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace("<svg ", '<svg role="presentation" aria-hidden="true" ', 1))  # noqa: S704 - matplotlib escapes what it writes


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


def _data(comparison: Comparison, cells: Sequence[dict[str, Any]], thumbnails: Thumbnails) -> Markup:
    """Return what the page's script needs, as JSON that is safe inside a script element.

    Names are exact in it: two that differ never become one. `shown` has those that are shown in another way.
    """
    points = comparison.error_analysis.map if comparison.error_analysis else ()
    paths = [*(point.path for point in points), *(path for cell in cells for path in cell["paths"])]
    data = {
        "classes": comparison.class_names,
        "points": [
            [point.path, point.label, point.predicted, round(point.x, 4), round(point.y, 4)] for point in points
        ],
        "cells": cells,
        "thumbnails": {path: uri for path in dict.fromkeys(paths) if (uri := thumbnails.uri(path, SMALL))},
        "shown": {name: printable(name) for name in (*comparison.class_names, *paths) if printable(name) != name},
    }
    text = json.dumps(data, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can end the element or begin another
