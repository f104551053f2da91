"""Predictions on their way in and out: the files that words on a command line mean, and a table, CSV or JSON lines."""

import glob
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from featx.dataset import Elsewhere, by_suffix, list_folder
from featx.errors import FeatxError, printable
from featx.predict.classifier import Prediction, Predictions
from featx.storage import RemotePath, StoragePath, as_data, as_storage_path
from featx.system import csv_lines, text_table

log = logging.getLogger("featx")

FORMATS = ("table", "csv", "jsonl")


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
        else:
            files += _files_of(word, zip_encoding)
    if not files:
        raise FeatxError("No image is named: name files, folders or patterns, or - for a list on standard input.")
    return files


def _files_of(word: str, zip_encoding: str | None) -> list[StoragePath]:
    path = as_data(word, zip_encoding)
    if isinstance(path, RemotePath):
        return _files_elsewhere(path)
    if path.is_dir():
        listing = list_folder(word)
        # A folder that cannot be listed is a row with a reason, as a file that cannot be read is.
        found: list[StoragePath] = [Path(name) for name in (*listing.images, *(name for name, _ in listing.unreadable))]
        if not found:
            raise _no_images(printable(word), listing.others)
        return found
    if glob.has_magic(word) and not path.exists():
        paths = sorted(Path(name) for name in glob.iglob(word, recursive=True))  # noqa: PTH207 - also absolute ones
        # A pattern that fits nothing may be the name of a file that is gone.
        return [file for file in paths if not file.is_dir()] or [path]
    return [path]


def _no_images(folder: str, others: Sequence[str]) -> FeatxError:
    return FeatxError(f"{folder} has no images that featx reads{f': {by_suffix(others)}' if others else ''}.")


def _files_elsewhere(path: RemotePath) -> list[StoragePath]:
    try:
        folders = Elsewhere(path)
    except FileNotFoundError:
        return [path]
    except OSError as error:
        raise FeatxError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    if folders.is_empty:
        return [path]  # a file, or nothing: reading it will say so
    for warning in folders.warnings:
        log.warning("%s", warning)
    top = str(path)
    listing = list_folder(top, folders)
    found = listing.images
    if not found:
        raise _no_images(printable(path), listing.others)
    below = (name.removeprefix(f"{top}/") for name in found)
    return [path.with_key(name, folders.keys[name]) for name in below]


def format_predictions(predictions: Predictions, form: str, top_k: int = 1, *, on_terminal: bool = False) -> str:
    """Return predictions as text, a line each.

    Args:
        predictions: what to show.
        form: one of `FORMATS`.
        top_k: classes for each image, the likeliest first; at most as many as there are.
        on_terminal: escape control characters in CSV, which no program reads there. A table always has them escaped,
            and JSON has escapes of its own; otherwise names of files and classes are exact, see `csv_lines`.
    """
    top_k = min(top_k, len(predictions.class_names))
    if form == "csv":
        return _csv(predictions, top_k, printable if on_terminal else str)
    return {"table": _table, "jsonl": _json_lines}[form](predictions, top_k)


def _names(top_k: int) -> list[str]:
    numbered = [(f"label_{rank}", f"probability_{rank}") for rank in range(2, top_k + 1)]
    return ["path", "label", "probability", *(name for pair in numbered for name in pair), "reason"]


def _cells(prediction: Prediction, top_k: int) -> list[str]:
    cells = [cell for label, probability in prediction.top[:top_k] for cell in (label, f"{probability:.6f}")]
    cells += [""] * (2 * top_k - len(cells))
    return [str(prediction.path), *cells, prediction.reason or ""]


def _table(predictions: Predictions, top_k: int) -> str:
    rows = []
    for prediction in predictions:
        shown = [f"{printable(label)} {probability:.1%}" for label, probability in prediction.top[:top_k]]
        unreadable = f"cannot be read: {printable(prediction.reason)}" if prediction.reason else ""
        cells = shown or [unreadable, *[""] * (top_k - 1)]
        rows.append([f"  {printable(prediction.path)}", *cells])
    ordinals = ["class", *(f"then {rank}" for rank in range(2, top_k + 1))]
    return text_table(["image", *ordinals], rows, n_left=top_k + 1)


def _csv(predictions: Predictions, top_k: int, shown: Callable[[str], str]) -> str:
    rows = (list(map(shown, _cells(prediction, top_k))) for prediction in predictions)
    return "".join(csv_lines(_names(top_k), rows)).removesuffix("\n")


def _json_lines(predictions: Predictions, top_k: int) -> str:
    return "\n".join(
        json.dumps(
            {
                "path": str(prediction.path),
                "label": prediction.label,
                "probability": prediction.probability,
                "top": [{"label": label, "probability": p} for label, p in prediction.top[:top_k]],
                "reason": prediction.reason,
            }
        )
        for prediction in predictions
    )
