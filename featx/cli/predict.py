"""`featx predict`: finds the images that you name, and prints their classes as a table, CSV or JSON lines."""

import glob
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featx.cli import options as opt
from featx.cli.terminal import say, say_data
from featx.dataset import files_of
from featx.errors import FeatxError
from featx.storage import RemotePath, StoragePath, as_data, as_storage_path
from featx.system import csv_lines, text_table
from featx.text import one_line, shown_text

if TYPE_CHECKING:
    from featx.predict import ImageClassifier, Predictions

log = logging.getLogger("featx")

#: More classes for each image than anybody reads; each is two columns.
MAX_TOP_K = 1000

#: Options for a run only, and for a pretrained classifier only.
_OF_RUN = ("head", "max_error", "explain")
_OF_DIRECT = ("maps", "class_list", "backbone", "image_size", "resize", "precision", "preprocess", "layout")


@click.command()
@click.argument("run", default="", type=click.Path())
@click.argument("images", nargs=-1)
@opt.ZIP_ENCODING
@opt.HEAD
@click.option("--direct", is_flag=True, help="Use a pretrained classifier without training; leave out RUN.")
@opt.MAP
@opt.BACKBONE
@opt.recipe_option("image_size", help="With --direct: image size in pixels, 224 or HEIGHTxWIDTH.")
@opt.recipe_option(
    "resize", help="With --direct: stretch images, crop the middle, or pad with black.  [default: stretch]"
)
@opt.recipe_option("precision", help="With --direct: arithmetic of the network, but not int8.  [default: auto]")
@opt.recipe_option("preprocess", help="With --direct: what a network file wants of pixels, see featx extract.")
@opt.recipe_option("layout", help="With --direct: order of the axes of a network file's input, if it does not tell.")
@click.option(
    "--top-k",
    type=click.IntRange(1, MAX_TOP_K),
    default=1,
    show_default=True,
    help="Number of classes to print for each image.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Largest share of wrong answers that you accept, like 0.05. Answers that are not sure enough for it get the "
    "note unsure.  [default: no answer is unsure]",
)
@click.option(
    "--format",
    "form",
    type=opt.Choice(["table", "csv", "jsonl"]),
    help="How to print the classes.  [default: table on a terminal, else csv]",
)
@click.option(
    "--weights",
    help="File of the backbone's weights, if you moved it. With --direct, weights of the complete classifier: "
    "imagenet, a file, or random for tests.",
)
@click.option(
    "--explain",
    type=opt.LocalPath(path_type=Path),
    help="Also write a page to this new folder, with heat maps of the evidence and the nearest training images.",
)
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.OUTPUT
def predict(
    run: str,
    images: tuple[str, ...],
    zip_encoding: str | None,
    direct: bool,
    top_k: int,
    form: str | None,
    explain: Path | None,
    output: opt.Output,
    **options: Any,
) -> None:
    """Classify images with a trained run.

    IMAGES are files, folders, archives, patterns, or - for a list of files on standard input.

    RUN is a run folder of featx train-top, or a report folder of featx compare, whose best head is used. With --direct,
    featx uses a pretrained classifier instead. If an image cannot be read, its line has the reason; if none can be
    read, the exit code is 1. Features that are in the cache are not computed again.

    A note marks images that are unlike the training images. With --max-error, a note also marks unsure answers. Of the
    other answers, at most this share is wrong, with a confidence of 95 %.

    \b
    Example:
      featx predict runs/first photo.jpg holidays/ --top-k 2
      featx predict runs/first holidays/ --max-error 0.05
      featx predict runs/first holidays/ --explain why/
      featx predict --direct photo.jpg --backbone resnet50 --map cats=281-285 --map dogs=151-268
    """
    on_terminal = sys.stdout.isatty()
    form = "jsonl" if output.as_json else form or ("table" if on_terminal else "csv")
    how = {name: options.pop(name) for name in ("workers", "strict", "max_error")}
    files = find_files(_image_words(run, images, direct=direct), sys.stdin, zip_encoding)
    classifier = _classifier(run, direct=direct, **options)
    predictions = _predictions(classifier, files, explain, show=output.show, **how)
    text = format_predictions(predictions, form, top_k, on_terminal=on_terminal)
    # Bytes: a program that reads them gets exact names, whatever the encoding of the terminal.
    if on_terminal:
        say(shown_text(text.split("\n")))
    else:
        say_data(text.encode("utf-8", "surrogateescape"))
    if predictions.n_unreadable == len(predictions):
        click.get_current_context().exit(1)


def _image_words(run: str, images: tuple[str, ...], *, direct: bool) -> tuple[str, ...]:
    """Return the words that name images: with --direct, the first word does, too."""
    if not run and not direct:
        raise click.UsageError("Missing argument 'RUN'.")
    return (run, *images) if run and direct else images


def _classifier(run: str, *, direct: bool, **options: Any) -> "ImageClassifier":
    """Return the classifier of a run, or a pretrained one; fail if an option was typed that is for the other."""
    from featx.predict import Classifier, DirectClassifier

    others, why = (_OF_RUN, "a RUN, without --direct") if direct else (_OF_DIRECT, "--direct")
    ctx = click.get_current_context()
    flags = {param.name: param.opts[0] for param in ctx.command.params}
    if typed := [flags[name] for name in others if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        raise click.UsageError(f"{', '.join(typed)} can be used only with {why}.")
    own = {name: value for name, value in options.items() if name not in others}
    own["weights"] = own["weights"] or None
    return DirectClassifier.load(**own) if direct else Classifier.load(run, **own)


def _predictions(
    classifier: "ImageClassifier", files: Sequence[StoragePath], folder: Path | None, **how: Any
) -> "Predictions":
    """Return the predictions for images; if there is a folder, it gets what they rest on."""
    from featx.predict import Classifier
    from featx.report import explain_to

    if folder is None or not isinstance(classifier, Classifier):
        return classifier.predict(files, **how)
    return explain_to(classifier, files, folder, **how).predictions


def find_files(words: Sequence[str], listed: Iterable[str] = (), zip_encoding: str | None = None) -> list[StoragePath]:
    """Return the image files that `words` name, in their order.

    Args:
        words: files; folders, which stand for all image files in them, sorted, as a zip or tar file does; addresses
            of files or folders; patterns such as `*.jpg`, also with `**`; and `-`, which stands for `listed`.
        listed: a file's name a line.
        zip_encoding: as for `featx.storage.as_data`.

    Raises:
        FeatxError: a folder has no image, or nothing is named at all.
    """
    files: list[StoragePath] = []
    for word in words:
        if word == "-":
            files += [as_storage_path(line.rstrip("\r\n")) for line in listed if line.strip()]
            continue
        path = as_data(word, zip_encoding)
        files += files_of(path) if isinstance(path, RemotePath) else _files_here(path, word)
    if not files:
        raise FeatxError("You named no image: name files, folders or patterns, or - for a list on standard input.")
    return files


def _files_here(path: Path, word: str) -> Sequence[StoragePath]:
    if glob.has_magic(word) and not path.exists():
        paths = sorted(Path(name) for name in glob.iglob(word, recursive=True))  # noqa: PTH207 - also absolute ones
        # A pattern that fits nothing may be the name of a file that is gone.
        return [file for file in paths if not file.is_dir()] or [path]
    return files_of(path)


def format_predictions(predictions: "Predictions", form: str, top_k: int = 1, *, on_terminal: bool = False) -> str:
    """Return predictions as text, a line each.

    Args:
        predictions: what to show.
        form: `"table"`, `"csv"` or `"jsonl"`.
        top_k: number of classes for each image, the most likely first; at most all of them.
        on_terminal: escape control characters in CSV, which no program reads there. A table always has them escaped,
            and JSON has its own escapes; otherwise names of files and classes are exact, see `csv_lines`.
    """
    top_k = min(top_k, len(predictions.class_names))
    if form == "csv":
        return _csv(predictions, top_k, one_line if on_terminal else str)
    return {"table": _table, "jsonl": _json_lines}[form](predictions, top_k)


def _table(predictions: "Predictions", top_k: int) -> str:
    rows = []
    for prediction in predictions:
        shown = [f"{label} {probability:.1%}" for label, probability in prediction.top[:top_k]]
        if predictions.is_multilabel and shown:
            labels = [f"{label} {p:.1%}" for label, p in prediction.top if label in prediction.labels]
            shown = [", ".join(labels) or f"none (most likely {shown[0]})", *(shown if top_k > 1 else [])]
        rows.append([f"  {prediction.path}", *(shown or [f"cannot be read: {prediction.reason}"])])
    notes = [prediction.note for prediction in predictions]
    ordinals = ["class", *(f"then {rank}" for rank in range(2, top_k + 1))]
    if predictions.is_multilabel:
        ordinals = ["labels", *(["most likely", *ordinals[1:]] if top_k > 1 else [])]
    rows = [[*row, *[""] * (1 + len(ordinals) - len(row))] for row in rows]
    if any(notes):
        ordinals, rows = [*ordinals, "note"], [[*row, note] for row, note in zip(rows, notes, strict=True)]
    return text_table(["image", *ordinals], rows, n_left=len(ordinals) + 1)


def _csv(predictions: "Predictions", top_k: int, shown: Callable[[str], str]) -> str:
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    several = ["labels"] if predictions.is_multilabel else []
    header = ["path", *several, *(f"{name}{rank}" for rank in ranks for name in ("label", "probability")), "reason"]
    header.append("note")
    rows = []
    for prediction in predictions:
        cells = [cell for label, probability in prediction.top[:top_k] for cell in (label, f"{probability:.6f}")]
        labels = ["|".join(prediction.labels)] if several else []
        cells = [str(prediction.path), *labels, *(cells or [""] * (2 * top_k)), prediction.reason or ""]
        cells.append(prediction.note)
        rows.append(list(map(shown, cells)))
    return "".join(csv_lines(header, rows)).removesuffix("\n")


def _json_lines(predictions: "Predictions", top_k: int) -> str:
    return "\n".join(
        json.dumps(
            {
                "path": str(prediction.path),
                **({"labels": prediction.labels} if predictions.is_multilabel else {}),
                "label": prediction.label,
                "probability": prediction.probability,
                "top": [{"label": label, "probability": p} for label, p in prediction.top[:top_k]],
                "reason": prediction.reason,
                "unsure": prediction.is_unsure,
                "unlike": prediction.is_unlike,
            }
        )
        for prediction in predictions
    )
