"""The report folder: a comparison as a page, as pictures, as Markdown, and as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.compare import Approach, Comparison, ErrorAnalysis, compare_approaches, with_claims
from featx.dataset import Data, ImageFolders
from featx.errors import FeatxError, reason_of
from featx.report.cells import (
    class_measures,
    label_measures,
    short_value,
)
from featx.report.html.page import page_html
from featx.report.plots.diagnostics import (
    confusion_chart,
    confusion_file_names,
    learning_curve_chart,
    training_curves_chart,
)
from featx.report.plots.page import are_numbered, page_style, png, texts_of
from featx.report.plots.results import accuracy_chart, summary_chart, time_chart
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
    repeats_note,
    table,
    title,
    verdict_lines,
)
from featx.storage import as_path, new_folder, replacing
from featx.system import escape_markdown, markdown_table, shown, waiting
from featx.text import printable
from featx.train import REPORTS_NAME, RUNS_NAME, SETTINGS_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS_NOTE = (
    "The pictures show numbers for the classes: no installed font has all their letters, or two names look the same."
)

#: The report's page: a folder with it is a whole report.
PAGE_NAME = "index.html"

#: With more classes than this, results.md has precision and recall of the hardest only.
MAX_CLASS_ROWS = 40


def make_report(
    data: Data, report_dir: Path | None = None, *, claims: bool = False, show: bool = False, **options: Any
) -> tuple[Comparison, Path]:
    """Compare approaches, and write the report, with a run folder for each head on features.

    Args:
        data: the data set.
        report_dir: an empty or new folder; a new one in `reports` if None.
        claims: as for `write_report`.
        show: show progress on stderr while the report is written.
        options: of `compare_approaches`.

    Returns:
        The comparison, and the folder.

    Raises:
        FeatxError: the comparison or the report failed. Runs that were finished are kept.
    """
    with new_folder(report_dir, Path(REPORTS_NAME), last=PAGE_NAME, precious=RUNS_NAME) as making:
        comparison = compare_approaches(data, runs_dir=making.built / RUNS_NAME, **options)
        comparison = with_claims(comparison, always=claims)
        if claims and (settings := comparison.settings):
            arguments = {**settings.arguments, "claims": True}
            comparison = replace(comparison, settings=replace(settings, arguments=arguments))
        making.is_worth_keeping = True
        with waiting("report", show=show):
            fill_report(making.built, comparison, making.path, ImageFolders.of(data).root)
    return comparison, making.path


def write_report(
    comparison: Comparison, report_dir: Path | str, data_dir: Data | None = None, *, claims: bool = False
) -> None:
    """Write `index.html`, `results.json`, `results.md` and the pictures to a folder, which is created if necessary.

    The page's thumbnails come from the images in the data set's folder `data_dir`; without it, there are none. With
    `claims`, the report has what others claim about the same approaches, even if it is about other images; see
    `featx.compare.claims`.

    If the folder is empty or new, the report is there as a whole or not at all. In another folder, each file is written
    under a temporary name and then renamed, so a file with its final name is always complete.

    Raises:
        FeatxError: the folder cannot be made or written.
    """
    if not isinstance(comparison, Comparison):
        raise FeatxError(f"write_report needs the result of compare_approaches. Received: {shown(comparison)}")
    comparison = with_claims(comparison, always=claims)
    report_dir = as_path(report_dir)
    if report_dir.is_dir() and any(report_dir.iterdir()):
        fill_report(report_dir, comparison, report_dir, data_dir)
        return
    with new_folder(report_dir, last=PAGE_NAME) as making:
        fill_report(making.built, comparison, making.path, data_dir)


def fill_report(folder: Path, comparison: Comparison, report_dir: Path, data_dir: Data | None = None) -> None:
    """Write the files of a report into `folder`, which will be at `report_dir`; the rest is as for `write_report`.

    The figures are written first: whatever becomes of the pictures and the page, they are kept.
    """
    figures = {"results.json": comparison.to_json().encode()}
    if comparison.settings:
        figures[SETTINGS_NAME] = comparison.settings.to_toml()
    _write(folder, figures, report_dir)
    try:
        pictures = draw(comparison)
        files = {
            **pictures,
            "results.md": results_page(comparison, has_curves="training-curves.png" in pictures).encode(),
            PAGE_NAME: page_html(comparison, data_dir, report_dir).encode(),
        }
    except Exception as error:  # of any library: the figures are worth more than a traceback
        raise FeatxError(f"The pictures and the page of the report cannot be made: {reason_of(error)}.") from error
    _write(folder, files, report_dir)


def _write(folder: Path, files: Mapping[str, bytes], report_dir: Path) -> None:
    try:
        for name, content in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise FeatxError(
            f"The report cannot be written to {printable(report_dir)} ({error.strerror or error}). Choose a folder "
            f"that you can write to."
        ) from error


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return the PNG files of a comparison by file name; `training-curves.png` only if an approach has a history."""
    charts: dict[str, Callable[[], Figure]] = {
        "summary.png": partial(summary_chart, comparison),
        "accuracy.png": partial(accuracy_chart, comparison),
        "time.png": partial(time_chart, comparison),
    }
    if any(approach.history for approach in comparison.approaches):
        charts["training-curves.png"] = partial(training_curves_chart, comparison)
    if comparison.learning_curve:
        charts["learning-curve.png"] = partial(learning_curve_chart, comparison)
    for approach, name in zip(comparison.approaches, confusion_file_names(comparison), strict=True):
        if not comparison.is_multilabel:
            charts[name] = partial(confusion_chart, comparison, approach)
    with page_style(texts_of(comparison)):  # one after the other: each takes its pixels many times over
        return {name: png(chart()) for name, chart in charts.items()}


def results_page(comparison: Comparison, *, has_curves: bool) -> str:
    """Return `results.md`; `has_curves` if there is a picture of the training curves."""
    counts = f"{classes_text(comparison)} {images_text(comparison)}"
    seed = list(filter(None, [first_seed_note(comparison)]))
    parts = [
        f"# {title(comparison, escape_markdown)}",
        *verdict_lines(comparison, escape_markdown),
        f"Data set: {escape_markdown(comparison.dataset)}. {counts} Seed {comparison.seed}.",
        table(comparison, markdown=True).rstrip(),
        quality_note(comparison),
        *filter(None, [escape_markdown(few_images_note(comparison))]),
        TIME_NOTE,
        *([repeats_note(comparison)] if any(approach.trainings for approach in comparison.approaches) else []),
        "![Accuracy on test images against total time, by approach](summary.png)",
        "## Accuracy\n\n![Accuracy on test images with 95 % intervals](accuracy.png)",
        "## Time\n\n![Time by approach, for features and for training](time.png)",
    ]
    if has_curves:
        parts += ["## Training", CURVES_NOTE, *seed, "![Loss and accuracy by epoch](training-curves.png)"]
    if comparison.learning_curve:
        sentence = escape_markdown(curve_verdict(comparison))
        picture = "![Accuracy by number of training images](learning-curve.png)"
        parts.append(f"## Learning curve: how much data is enough\n\n{sentence}\n\n{LEARNING_NOTE}\n\n{picture}")
    if comparison.is_multilabel:
        parts += ["## Labels", *seed, *_by_label(comparison)]
    else:
        pictures = zip(comparison.approaches, confusion_file_names(comparison), strict=True)
        matrices = [f"![Confusion matrix of {escape_markdown(approach.name)}]({name})" for approach, name in pictures]
        parts += ["## Confusion matrix", *seed, *_class_numbers(comparison), *matrices, *_by_class(comparison)]
    if comparison.error_analysis:
        parts += ["## Problems in the data", _problems(comparison.error_analysis)]
    parts += ["## How to reproduce", _provenance(comparison)]
    return "\n\n".join(parts) + "\n"


def _by_class(comparison: Comparison) -> list[str]:
    """Return the precision and recall of the best approach by class, of many classes those of the hardest."""
    measures = class_measures(comparison.best, comparison.class_names, MAX_CLASS_ROWS)
    lines = [(escape_markdown(m.label), f"{m.n_test:,}", m.precision, m.recall, m.f1) for m in measures]
    n_classes = len(comparison.class_names)
    which = f", for the {len(lines)} of {n_classes:,} classes with the lowest F1" if len(lines) < n_classes else ""
    return [
        f"Precision and recall of {escape_markdown(comparison.best.name)} by class{which}, with 95 % intervals:",
        markdown_table(("Class", "Test images", "Precision", "Recall", "F1"), lines),
    ]


def _by_label(comparison: Comparison) -> list[str]:
    """Return how well the best approach recognizes each label, of many labels the hardest."""
    measures = label_measures(comparison.best, comparison.class_names, MAX_CLASS_ROWS)
    lines = [(escape_markdown(name), *map(str, rest)) for name, *rest in map(astuple, measures)]
    n_labels = len(comparison.class_names)
    which = f" the {len(lines)} of {n_labels:,}" if len(lines) < n_labels else ""
    by = " with the lowest average precision" if which else ""
    return [
        f"How {escape_markdown(comparison.best.name)} recognizes{which or ' the'} labels{by}:",
        markdown_table(LABEL_COLUMNS, lines),
    ]


def _problems(found: ErrorAnalysis) -> str:
    """Return how many images have which problem; results.json names them."""
    of_copies = {copies.kind: copies.n for copies in found.copies}
    counts = {
        "Exact copies within a split": of_copies.get("within a split", 0),
        "Test images that are exact copies of training images": of_copies.get("across splits", 0),
        "Exact copies in different classes": of_copies.get("across classes", 0),
        "Files that could not be read": len(found.skipped),
    }
    if found.n_near_duplicates is not None and found.n_copies_within is not None:
        counts["Test images that are near-duplicates of training images"] = found.n_near_duplicates
        counts["Pairs of near-duplicates within a split"] = found.n_copies_within
    if found.backbone:
        counts["Possibly wrong labels"] = found.n_doubtful
    return markdown_table(("Problem", "Images"), [(what, f"{n:,}") for what, n in counts.items()])


def _class_numbers(comparison: Comparison) -> list[str]:
    """Return what the numbers in the pictures mean, if they number the classes."""
    if not are_numbered(comparison.class_names):
        return []
    lines = [(escape_markdown(name), str(n)) for n, name in enumerate(comparison.class_names, start=1)]
    return [NUMBERS_NOTE, markdown_table(("Class", "Number"), lines)]


def _provenance(comparison: Comparison) -> str:
    versions = ", ".join(escape_markdown(f"{name} {version}") for name, version in comparison.versions.items())
    parts = [
        f"    {printable(comparison.command)}",
        "\n".join(
            [
                f"- Date: {escape_markdown(comparison.created_at)}",
                f"- Digest of the data set: {escape_markdown(comparison.dataset_digest)}",
                f"- Classes: {', '.join(escape_markdown(name) for name in comparison.class_names)}",
                f"- Versions: {versions or 'unknown'}",
                f"- Hardware: {hardware_text(comparison, escape_markdown)}",
            ]
        ),
        "\n".join(_settings(approach) for approach in comparison.approaches),
    ]
    if comparison.recipes:
        recipes = "\n".join(json.dumps(recipe, sort_keys=True) for recipe in comparison.recipes)
        parts.append(f"Recipes of the features:\n\n```json\n{recipes}\n```")
    return "\n\n".join(parts)


def _settings(approach: Approach) -> str:
    height, width = approach.image_size
    kept = [] if approach.kept_epoch is None else [f"epoch kept: {approach.kept_epoch} of {len(approach.history)}"]
    details = [
        f"{escape_markdown(name)}: {escape_markdown(short_value(value))}" for name, value in approach.details.items()
    ]
    return f"- {escape_markdown(approach.name)}: " + ", ".join([f"images {height}×{width}", *kept, *details])
