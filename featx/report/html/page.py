"""Fills the HTML template of the page with numbers, charts and thumbnails."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from featx.compare import Approach, ApproachImages, Claim, ClassSample, Comparison, Mistake, ranked
from featx.dataset import Data, ImageFolders
from featx.report.cells import (
    LabelMeasures,
    class_measures,
    cost_cells,
    label_measures,
    percent,
    repeats_cells,
    result_cells,
    short_value,
)
from featx.report.html.pictures import LARGE, SMALL, Thumbnails
from featx.report.plots.diagnostics import (
    confusion_file_names,
    learning_curve_chart,
    reliability_chart,
    risk_coverage_chart,
    training_curves_chart,
)
from featx.report.plots.page import (
    DIM,
    FEATURES_COLOUR,
    INK,
    LINE,
    NARROW,
    PALE,
    SERIES,
    WARNING_COLOUR,
    WIDE,
    Sheet,
    are_numbered,
    page_style,
    texts_of,
)
from featx.report.plots.results import accuracy_note, summary_chart, time_chart
from featx.report.text import (
    CURVES_NOTE,
    LABEL_COLUMNS,
    LEARNING_NOTE,
    TIME_NOTE,
    classes_text,
    curve_verdict,
    few_images_note,
    first_seed_note,
    hardware_text,
    images_text,
    quality_note,
    repeats_header,
    repeats_note,
    title,
    verdict_lines,
)
from featx.system import duration
from featx.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

#: With more classes than this, the most common confusions stand for the matrix, and the hardest classes for all.
MAX_MATRIX = 40
N_CONFUSIONS = 12

#: Cells of a matrix with more classes than this have no percentages.
MAX_ROOMY = 12

#: Sample images on the page, spread over the classes, and classes that have some.
N_SAMPLES, MAX_SAMPLED = 60, 40

#: Columns of the two tables of approaches, and what they mean.
QUALITY_HEADER = (
    ("Accuracy", "on the test images, with its 95 % interval"),
    ("Balanced", "balanced accuracy: the mean of the recalls of the classes"),
    ("Loss", "cross-entropy in nats, on the test images"),
    ("ROC AUC", "area under the ROC curve"),
    ("PR-AUC", "average precision; of two classes, that of the rarer one"),
    ("Macro F1", "mean of the classes' F1"),
    ("Calibration error", "expected calibration error (ECE), from 0 to 1"),
    ("p (Holm)", "paired test against the best approach, corrected for the number of pairs of approaches"),
)
#: The same columns where images can have several labels.
LABELS_HEADER = (
    ("Subset accuracy", "share of the test images whose labels are all right, with its 95 % interval"),
    ("Mean average precision", "mean over the labels, with its 95 % bootstrap interval"),
    ("ROC AUC", "area under the ROC curve, mean over the labels"),
    ("Macro F1", "mean of the labels' F1"),
    ("p (Holm)", "paired test against the best approach, corrected for the number of pairs of approaches"),
)
COST_HEADER = (
    ("Features", "time to extract the features, or to run the whole network"),
    ("Training", "time to train the head, or the whole network from scratch"),
    ("Total", "time from images to a trained classifier"),
    ("Trained parameters", "without those of the frozen backbone"),
    ("Peak memory", "the most memory used at once"),
)

HEAT_MAP_NOTE = (
    "Heat maps show where the head finds evidence, compared with the average training image: blue is evidence for the "
    "wrong answer, orange is evidence against it."
)
NEAREST_NOTE = (
    "The small images are the training images with the most similar features. The number after each label is the "
    "cosine between the features, at most 1."
)

WHY_THEY_DIFFER = (
    "The report's accuracies and losses come from its training images. Here, all are measured on test images.",
    "The report mixes figures of the first and the last epoch. Here, the epoch with the lowest validation loss counts.",
    "The losses that the report gives for its CNN are those of a network that was trained too long: without early "
    "stopping, its training loss went to 0.07 here, and its validation loss to 1.9. But no epoch was right on fewer "
    "than 62 % of the validation images (benchmarks/claims.py).",
    "The report set steps_per_epoch to the number of images, not of batches. Each of its epochs went over the data "
    "dozens of times, which took hours. Here, an epoch is one pass.",
    "The blog measures accuracy on its validation images. It divides pixels by 255 instead of preprocessing them as "
    "for VGG16: on as many photographs, this alone took 8 to 10 points off (benchmarks/claims.py). It trains without "
    "early stopping. Its CNN sees augmented images of 150×150.",
    "The images, their size and the computer differ, so small differences mean nothing.",
)

#: Colours of the pictures, and the page's names for them.
_COLOURS = {
    INK: "var(--ink)",
    PALE: "var(--pale)",
    DIM: "var(--dim)",
    LINE: "var(--line)",
    "#FFFFFF": "var(--card)",
    WARNING_COLOUR: "var(--warning)",
    FEATURES_COLOUR: "var(--features)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES)},
}


def page_html(comparison: Comparison, data_dir: Data | None = None, report_dir: Path | None = None) -> str:
    """Return the page of a comparison: HTML that needs neither a network nor another file.

    Args:
        comparison: what to show.
        data_dir: the data set's folder, from which thumbnails are made; without it there are none.
        report_dir: where the page will be; links to images are relative to it. If None, they are absolute.

    Every name is escaped by the template, and control characters in it are made visible. The page forbids itself, by a
    content security policy, to load anything or to run any script but its own.
    """
    environment = new_environment()
    environment.filters |= {
        "duration": duration,
        "percent": lambda share: percent(share, comparison.n_test),
        "probability": lambda share: f"{100 * share:.0f}\N{NO-BREAK SPACE}%",
        "short": short_value,
    }
    style, script = asset("page.css"), asset("page.js")
    script_digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    approaches = ranked(comparison.approaches)
    images = {seen.name: seen for seen in comparison.error_analysis.approaches} if comparison.error_analysis else {}
    confusions = {approach.name: _confusions(approach, comparison.class_names) for approach in approaches}
    labels = {each.name: label_measures(each, comparison.class_names, MAX_MATRIX) for each in approaches}
    cells = _cells_with_images(images.values(), confusions, labels, len(comparison.class_names))
    numbers = {(cell["approach"], cell["label"], cell["predicted"]): n for n, cell in enumerate(cells)}
    thumbnails = Thumbnails(None if data_dir is None else ImageFolders.of(data_dir).root, report_dir)
    return environment.from_string(asset("page.html.j2")).render(
        comparison=comparison,
        error_analysis=comparison.error_analysis,
        title=_unbroken(title(comparison)),
        lines=[_unbroken(line) for line in verdict_lines(comparison)],
        tables=[
            (
                *("quality", "Quality", LABELS_HEADER if comparison.is_multilabel else QUALITY_HEADER),
                [_quality_row(each, comparison) for each in approaches],
            ),
            ("cost", "Time and cost", COST_HEADER, [_cost_row(each, comparison) for each in approaches]),
        ],
        repeats_header=repeats_header(comparison),
        repeats=[(printable(each.name), repeats_cells(each)) for each in approaches if each.trainings],
        repeats_note=repeats_note(comparison),
        images_text=images_text(comparison),
        first_seed_note=first_seed_note(comparison),
        accuracy_note=accuracy_note(comparison),
        ranked_images=[images[approach.name] for approach in approaches if approach.name in images],
        confusions=confusions,
        matrices=[_matrix(approach, comparison.class_names, numbers) for approach in approaches],
        classes={each.name: class_measures(each, comparison.class_names, MAX_MATRIX) for each in approaches},
        labels=labels,
        label_columns=LABEL_COLUMNS,
        classes_text=classes_text(comparison),
        map_classes=_map_classes(comparison),
        numbers=numbers,
        is_roomy=len(comparison.class_names) <= MAX_ROOMY,
        matrix_files=dict(
            zip((each.name for each in comparison.approaches), confusion_file_names(comparison), strict=True)
        ),
        claims=[_claim(claim, comparison) for claim in comparison.claims],
        why_claims_differ=WHY_THEY_DIFFER,
        charts=_charts(comparison),
        are_numbered=are_numbered(comparison.class_names),
        sampled=_sampled(comparison),
        thumbnail=thumbnails.uri,
        link=thumbnails.link,
        heat_map=partial(_heat_map, comparison, thumbnails),
        reasons_note=_reasons_note(comparison),
        small=SMALL,
        side=LARGE,
        quality_note=quality_note(comparison),
        few_images_note=_unbroken(few_images_note(comparison)),
        hardware=hardware_text(comparison),
        time_note=TIME_NOTE,
        curves_note=CURVES_NOTE,
        learning_note=LEARNING_NOTE,
        curve_verdict=_unbroken(curve_verdict(comparison)),
        recipes=[json.dumps(recipe, sort_keys=True) for recipe in comparison.recipes],
        style=Markup(style),  # noqa: S704 - a file of featx's own
        script=Markup(script),  # noqa: S704 - the same
        script_hash=f"sha256-{script_digest}",
        data=lambda: _data(comparison, cells, thumbnails),  # last: what stands on the page itself has first claim
    )


def new_environment() -> "Environment":
    """Return what fills templates: it escapes whatever it puts into a page, unless that is Markup."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment


def asset(name: str) -> str:
    """Return the text of a file in this room."""
    return resources.files("featx.report.html").joinpath(name).read_text(encoding="utf-8")


def _unbroken(text: str) -> str:
    """Return `text` with spaces that no line breaks at: in `85.7 %`, in `30 points` and in `p < 0.001`."""
    return re.sub(r"(?<=\d) (?=%|points?\b)|(?<=\bp) (?=[<=])|(?<=p [<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def _quality_row(approach: Approach, comparison: Comparison) -> dict[str, Any]:
    metrics = approach.metrics
    p = 2 if approach is comparison.best else approach.p_holm or 0
    areas = (metrics.balanced_accuracy or 0, metrics.loss, metrics.roc_auc or 0, metrics.pr_auc or 0)
    measured: tuple[float, ...] = (approach.accuracy, *areas, metrics.macro_f1, metrics.calibration_error, p)
    if found := metrics.multilabel:
        measured = approach.accuracy, found.mean_average_precision or 0, metrics.roc_auc or 0, metrics.macro_f1, p
    return _row(approach, comparison, result_cells(approach, comparison), measured)


def _cost_row(approach: Approach, comparison: Comparison) -> dict[str, Any]:
    times = (approach.representations_s, approach.top_s, approach.total_s)
    values = (*times, approach.n_parameters, approach.peak_memory_bytes)
    return _row(approach, comparison, cost_cells(approach), values)


def _row(approach: Approach, comparison: Comparison, texts: Sequence[str], values: Sequence[float]) -> dict[str, Any]:
    """Return an approach in a table: the text of each cell, and the number that the table is sorted by."""
    return {
        "name": printable(approach.name),
        "is_best": approach is comparison.best,
        "cells": [{"text": text, "value": value} for text, value in zip(texts, values, strict=True)],
    }


def _claim(claim: Claim, comparison: Comparison) -> dict[str, str]:
    """Return a claim in the page's table, beside what was measured."""
    [approach] = [approach for approach in comparison.approaches if approach.name == claim.approach]
    low, high = (f"{100 * share:g}" for share in claim.accuracy)
    return {
        "name": printable(claim.approach),
        "source": claim.source,
        "images": f"{claim.n_train:,} + {claim.n_test:,}",
        "accuracy": f"{low} %" if low == high else f"{low}–{high} %",
        "measured_accuracy": result_cells(approach, comparison)[0],
        "rest": "; ".join(filter(None, (claim.time, claim.losses and f"losses {claim.losses}"))) or "not given",
        "measured_rest": f"{duration(approach.total_s)}; loss {approach.metrics.loss:.3f} test",
    }


def _sampled(comparison: Comparison) -> list[ClassSample]:
    """Return the classes that the page has sample images of: all, or some of many; the more classes, the fewer."""
    classes = comparison.error_analysis.classes if comparison.error_analysis else ()
    every = -(-len(classes) // MAX_SAMPLED) or 1
    chosen = classes[::every]
    each = max(1, N_SAMPLES // max(1, len(chosen)))
    return [replace(one, paths=one.paths[:each]) for one in chosen]


def _confusions(approach: Approach, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most common confusions: true class, predicted class, number of images, share of the true class."""
    confusion = approach.confusion
    n_true = confusion.n_true
    wrong = [cell for cell in confusion.cells if cell[0] != cell[1]]
    return [
        {"label": names[true], "predicted": names[guess], "n": n, "of": int(n_true[true])}
        for true, guess, n in sorted(wrong, key=lambda cell: -cell[2])[:N_CONFUSIONS]
    ]


def _cells_with_images(
    approaches: Iterable[ApproachImages],
    confusions: Mapping[str, Sequence[dict[str, Any]]],
    labels: Mapping[str, Sequence[LabelMeasures]],
    n_classes: int,
) -> list[dict[str, Any]]:
    """Return the cells that open images, for the page's script, which goes by their numbers.

    They are those of the matrices, or, if these are too large for the page, of the most common confusions, or of the
    labels that the page has.
    """
    listed = {(name, one["label"], one["predicted"]) for name, found in confusions.items() for one in found}
    for name, measures in labels.items():
        listed |= {(name, one.label, f"not {one.label}") for one in measures}
        listed |= {(name, f"not {one.label}", one.label) for one in measures}
    return [
        {"approach": seen.name, "label": cell.label, "predicted": cell.predicted, "paths": cell.paths}
        for seen in approaches
        for cell in seen.cells
        if n_classes <= MAX_MATRIX or (seen.name, cell.label, cell.predicted) in listed
    ]


def _map_classes(comparison: Comparison) -> list[str]:
    """Return what the map tells apart: the classes, or the sets of labels of its points, the most common first."""
    points = comparison.error_analysis.map if comparison.error_analysis else ()
    if comparison.is_multilabel:
        return [label for label, _ in Counter(point.label for point in points).most_common()]
    return list(comparison.class_names)


def _heat_map(comparison: Comparison, thumbnails: Thumbnails, name: str, mistake: Mistake) -> dict[str, Any]:
    """Return the picture of the evidence for a mistake of the approach with this name; empty if there is none."""
    found = mistake.reasons.heat_map
    if found is None:
        return {}
    (image_size,) = (each.image_size for each in comparison.approaches if each.name == name)
    aspect_ratio = next((recipe.get("aspect_ratio") for recipe in comparison.recipes), None)
    uri, width, height = thumbnails.heat_map(mistake.path, found.map, image_size, aspect_ratio)
    return {"uri": uri, "width": width, "height": height, "label": found.label} if uri else {}


def _reasons_note(comparison: Comparison) -> str:
    """Return what the pictures beside mistakes mean; an empty text if there are none."""
    seen = comparison.error_analysis.approaches if comparison.error_analysis else ()
    reasons = [mistake.reasons for one in seen for mistake in one.mistakes]
    has_map, has_nearest = any(one.heat_map for one in reasons), any(one.nearest for one in reasons)
    return " ".join(filter(None, [HEAT_MAP_NOTE if has_map else "", NEAREST_NOTE if has_nearest else ""]))


def _matrix(approach: Approach, names: Sequence[str], numbers: Mapping[tuple[str, str, str], int]) -> dict[str, Any]:
    """Return a confusion matrix: rows of counts with the share of their row, and the numbers of cells with images.

    It has no rows if it is too large for the page.
    """
    lines = []
    rows = zip(names, approach.confusion, strict=True) if len(names) <= MAX_MATRIX else ()
    for true, counts in rows:
        total = max(1, sum(counts))
        row = [
            {
                "n": n,
                "share": round(100 * n / total),
                "predicted": predicted,
                "is_right": predicted == true,
                "number": numbers.get((approach.name, true, predicted)),
            }
            for predicted, n in zip(names, counts, strict=True)
        ]
        lines.append({"label": true, "cells": row})
    return {"name": approach.name, "lines": lines}


def _charts(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Return the charts: `summary`, `time`; `curves`, `learning`, `reliability` and `risk` if there are any.

    Each is a `title` and two SVG elements: `wide`, and `narrow` for a phone.
    """
    drawn: dict[str, Callable[[Sheet], Figure]] = {
        "summary": partial(summary_chart, comparison),
        "time": partial(time_chart, comparison),
    }
    if any(approach.history for approach in comparison.approaches):
        drawn["curves"] = partial(training_curves_chart, comparison)
    if comparison.learning_curve:
        drawn["learning"] = partial(learning_curve_chart, comparison)
    if comparison.error_analysis:
        drawn["reliability"] = partial(reliability_chart, comparison, comparison.error_analysis)
        if all(images.risk_coverage for images in comparison.error_analysis.approaches):
            drawn["risk"] = partial(risk_coverage_chart, comparison, comparison.error_analysis)
    with page_style(texts_of(comparison)):
        return {name: _chart(name, draw) for name, draw in drawn.items()}


def _chart(name: str, draw: "Callable[[Sheet], Figure]") -> dict[str, str]:
    wide = draw(WIDE)
    title = str(wide.get_label())
    return {"title": title, "wide": _svg(wide, name), "narrow": _svg(draw(NARROW), f"{name}-narrow")}


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


def _data(comparison: Comparison, cells: Sequence[dict[str, Any]], thumbnails: Thumbnails) -> Markup:
    """Return what the page's script needs, as JSON that is safe inside a script element.

    Names are exact in it: two that differ never become one. `shown` has those that are shown in another way.
    """
    points = comparison.error_analysis.map if comparison.error_analysis else ()
    paths = [*(point.path for point in points), *(path for cell in cells for path in cell["paths"])]
    names = [*comparison.class_names, *(name for point in points for name in (point.label, point.predicted))]
    names += [name for cell in cells for name in (cell["label"], cell["predicted"])]
    data = {
        "classes": _map_classes(comparison),
        "points": [
            [point.path, point.label, point.predicted, round(point.x, 4), round(point.y, 4)] for point in points
        ],
        "cells": cells,
        "base": thumbnails.base,
        "thumbnails": {path: uri for path in dict.fromkeys(paths) if (uri := thumbnails.uri(path, SMALL))},
        "shown": {name: printable(name) for name in (*names, *paths) if printable(name) != name},
    }
    text = json.dumps(data, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can end the element or begin another
