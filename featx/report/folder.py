"""The report folder: a comparison as a page, as pictures, as Markdown, and as JSON."""

import json
from pathlib import Path

from featx.compare import Approach, Comparison
from featx.dataset import Data
from featx.errors import FeatxError, printable
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
    CAVEAT,
    CURVES_NOTE,
    LEARNING_NOTE,
    REPEATS_NOTE,
    TIME_NOTE,
    curve_verdict,
    short_value,
    table,
    verdict,
)
from featx.storage import as_path, replacing
from featx.system import escape_markdown, markdown_table, shown

NUMBERS_NOTE = "The pictures number the classes: no font here has the letters of some names, or two names look alike."


def write_report(comparison: Comparison, report_dir: Path | str, data_dir: Data | None = None) -> None:
    """Write `index.html`, `results.json`, `results.md` and the pictures to a folder, which is made if need be.

    Thumbnails in the page are made from the images in the data set's folder `data_dir`; without it there are none.

    Each file is written under a temporary name and renamed, so that a final name never holds half a file.

    Raises:
        FeatxError: the folder cannot be made or written.
    """
    if not isinstance(comparison, Comparison):
        raise FeatxError(f"write_report takes what compare_approaches returns. Received: {shown(comparison)}")
    report_dir = as_path(report_dir)
    pictures = draw(comparison)
    files = {
        **pictures,
        "index.html": page_html(comparison, data_dir).encode(),
        "results.json": comparison.to_json().encode(),
        "results.md": results_page(comparison, has_curves="training-curves.png" in pictures).encode(),
    }
    try:
        report_dir.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with replacing(report_dir / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise FeatxError(
            f"The report cannot be written to {printable(report_dir)} ({error.strerror or error}); name a folder that "
            f"can be written to."
        ) from error


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return the PNG files of a comparison by file name; `training-curves.png` only if an approach has a history."""
    with page_style(texts_of(comparison)):
        pictures = {
            "summary.png": summary_chart(comparison),
            "accuracy.png": accuracy_chart(comparison),
            "time.png": time_chart(comparison),
        }
        if any(approach.history for approach in comparison.approaches):
            pictures["training-curves.png"] = training_curves_chart(comparison)
        if comparison.learning_curve:
            pictures["learning-curve.png"] = learning_curve_chart(comparison)
        for approach, name in zip(comparison.approaches, confusion_file_names(comparison), strict=True):
            pictures[name] = confusion_chart(comparison, approach)
        return {name: png(figure) for name, figure in pictures.items()}


def results_page(comparison: Comparison, *, has_curves: bool) -> str:
    """Return `results.md`; `has_curves` if there is a picture of the training curves."""
    numbers = f"{comparison.n_train:,} training, {comparison.n_validation:,} validation, {comparison.n_test:,} test"
    parts = [
        f"# {escape_markdown(comparison.dataset)}: features against training from scratch",
        verdict(comparison, escape_markdown),
        f"{len(comparison.class_names)} classes; {numbers} images; seed {comparison.seed}.",
        table(comparison, markdown=True).rstrip(),
        CAVEAT,
        TIME_NOTE,
        *([REPEATS_NOTE] if any(approach.repeats for approach in comparison.approaches) else []),
        "![Accuracy on test images against total time, by approach](summary.png)",
        "## Accuracy\n\n![Accuracy on test images with 95 % intervals](accuracy.png)",
        "## Time\n\n![Time by approach, representations and top](time.png)",
    ]
    if has_curves:
        parts.append(f"## Training\n\n{CURVES_NOTE}\n\n![Loss and accuracy by epoch](training-curves.png)")
    if comparison.learning_curve:
        sentence = escape_markdown(curve_verdict(comparison))
        picture = "![Accuracy by number of training images](learning-curve.png)"
        parts.append(f"## How much data is enough\n\n{sentence}\n\n{LEARNING_NOTE}\n\n{picture}")
    pictures = zip(comparison.approaches, confusion_file_names(comparison), strict=True)
    matrices = [f"![Confusion matrix of {escape_markdown(approach.name)}]({name})" for approach, name in pictures]
    parts += ["## What is taken for what", *_class_numbers(comparison), *matrices]
    parts += ["## How to get these numbers again", _provenance(comparison)]
    return "\n\n".join(parts) + "\n"


def _class_numbers(comparison: Comparison) -> list[str]:
    """Return what the numbers in the pictures mean, if they number the classes."""
    if not are_numbered(comparison.class_names):
        return []
    lines = [(escape_markdown(name), str(n)) for n, name in enumerate(comparison.class_names, start=1)]
    return [NUMBERS_NOTE, markdown_table(("Class", "Number"), lines)]


def _provenance(comparison: Comparison) -> str:
    versions = ", ".join(escape_markdown(f"{name} {version}") for name, version in comparison.versions.items())
    hardware = ", ".join(escape_markdown(f"{name}: {value}") for name, value in comparison.hardware.items())
    parts = [
        f"    {printable(comparison.command)}",
        "\n".join(
            [
                f"- Made: {escape_markdown(comparison.created_at)}",
                f"- Data set's digest: {escape_markdown(comparison.dataset_digest)}",
                f"- Classes: {', '.join(escape_markdown(name) for name in comparison.class_names)}",
                f"- Versions: {versions or 'not known'}",
                f"- Hardware: {hardware or 'not known'}",
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
