"""Class weights: how much an image of each class counts in training, and when training stops.

A head that is trained on many images of one class and few of another learns to answer the former. With weights, images
of the rare class count more, as if they were there several times. The terms of the likelihood are weighted, as in King
and Zeng, "Logistic regression in rare events data", Political Analysis 9, 2001.
"""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError, system_errors
from featx.storage import as_path, read_json, read_small
from featx.system import did_you_mean, shown
from featx.text import printable

#: Weights that give every class the same total, however many images it has.
BALANCED = "balanced"

#: The first line of a table of weights, if it is one of names.
_HEADERS = (["class", "weight"], ["label", "weight"])

_MAX_NAMED = 10  # classes in an error
_LARGEST = sys.float_info.max


#: Class weights as a user gives them, see `as_class_weights`.
ClassWeights = Mapping[str, float] | Path | str | None


def as_class_weights(given: object) -> ClassWeights:
    """Return class weights as a number for each class, `"balanced"`, or None.

    Args:
        given: one of these, or a file: CSV with a class and its weight in each line, or a JSON object.

    Raises:
        FeatxError: it is none of these, the file cannot be read, or a weight is not a number above 0.
    """
    if given is None or (isinstance(given, str) and given == BALANCED):
        return given
    if isinstance(given, Mapping):
        return {str(name): _weight(value, f"The weight of {printable(name)}") for name, value in given.items()}
    if isinstance(given, str | Path):
        return _read(as_path(given))
    raise FeatxError(
        f'Class weights are "{BALANCED}", a file, or a number for each class, such as {{"cats": 1, "dogs": 50}}. '
        f"Received: {shown(given)}"
    )


def check_class_weights(weights: ClassWeights, class_names: Sequence[str], *, is_multilabel: bool = False) -> None:
    """Raise FeatxError unless `weights` have a number for each of the classes, and for no other.

    There are none where images can have several labels: one label of an image may be rare and another one common.
    """
    if weights is not None and is_multilabel:
        raise FeatxError(
            "Class weights (class_weights, --class-weights) need images with one class each, and these can have "
            "several labels: leave the weights out."
        )
    if not isinstance(weights, Mapping):
        return
    known = set(class_names)
    if unknown := [name for name in weights if name not in known]:
        raise FeatxError(
            f"The class weights name {_listed(unknown)}, but the images have the classes {_listed(class_names)}."
            f"{did_you_mean(unknown[0], class_names)}"
        )
    if missing := [name for name in class_names if name not in weights]:
        raise FeatxError(f"The class weights lack {_listed(missing)}: give a weight for each class, or use {BALANCED}.")


def weigh_classes(
    weights: ClassWeights, y: npt.NDArray[np.int64], class_names: Sequence[str]
) -> npt.NDArray[np.float64] | None:
    """Return the weight of each class, `(n_classes,)`, so that the mean over the training images is 1; None without.

    Only their ratios matter. `"balanced"` is n / (n_classes · n of the class), as in scikit-learn.

    Args:
        weights: see `as_class_weights`.
        y: `(n,)` labels of the training images, which have at least one of each class.
        class_names: the names of the classes.

    Raises:
        FeatxError: as `check_class_weights`.
    """
    if weights is None:
        return None
    check_class_weights(weights, class_names)
    counts = np.bincount(y, minlength=len(class_names))
    given = [weights[name] for name in class_names] if isinstance(weights, Mapping) else 1 / np.maximum(counts, 1)
    ratios = np.asarray(given, np.float64) / np.max(given)  # a sum of very large numbers would be infinite
    return ratios * (len(y) / float(counts @ ratios))


def weights_text(weights: npt.NDArray[np.float64]) -> str:
    """Return the weights in the order of the classes, or the lowest and highest of many.

    >>> weights_text(np.array([0.51, 25.5])), weights_text(np.arange(1.0, 100.0))
    ('0.51, 25.5', '1 to 99')
    """
    if len(weights) > _MAX_NAMED:
        return f"{weights.min():.4g} to {weights.max():.4g}"
    return ", ".join(f"{weight:.4g}" for weight in weights)


def _read(path: Path) -> dict[str, float]:
    """Return the weights in a file."""
    name, weights = printable(path.name), dict[str, float]()
    for where, one, weight in _members(path, name) if path.suffix.lower() == ".json" else _lines(path, name):
        if one in weights:
            raise FeatxError(f"{where} is a second weight for {printable(one)}: leave one out.")
        weights[one] = _weight(weight, f"{where}: the weight of {printable(one)}")
    if not weights:
        raise FeatxError(f"{name} is empty: write a class and its weight in each line, such as dogs,50.")
    return weights


def _members(path: Path, name: str) -> Iterator[tuple[str, str, object]]:
    """Yield where it stands, a class and its weight, for each member of a JSON object."""
    found = read_json(path, "file of class weights")
    if not isinstance(found, dict):
        raise FeatxError(f'{name} must contain a JSON object, such as {{"cats": 1, "dogs": 50}}.')
    yield from ((name, one, weight) for one, weight in found.items())


def _lines(path: Path, name: str) -> Iterator[tuple[str, str, object]]:
    """Yield the same for each line of a table with commas, semicolons or tabs."""
    advice = f" Name a CSV or JSON file with a weight for each class, or {BALANCED}."
    with system_errors(f"The class weights {printable(path)}", "read", advice + did_you_mean(str(path), [BALANCED])):
        data = read_small(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FeatxError(f"{name} is not UTF-8: save it as UTF-8, which spreadsheets call “CSV UTF-8”.") from None
    delimiter = next((one for one in "\t;" if one in text.partition("\n")[0]), ",")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in lines:
            cells = [cell.strip() for cell in row]
            where = f"Line {lines.line_num} of {name}"
            if not any(cells) or (lines.line_num == 1 and [cell.casefold() for cell in cells] in _HEADERS):
                continue
            if len(cells) != 2 or not all(cells):
                raise FeatxError(f"{where} must be a class and its weight, such as dogs,50.")
            yield where, cells[0], _number(cells[1])
    except csv.Error as error:
        raise FeatxError(f"Line {lines.line_num} of {name} cannot be read: {error}.") from error


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _weight(value: object, what: str) -> float:
    """Return a weight; raise FeatxError if it is not a number above 0."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise FeatxError(f"{what} must be a number above 0. Received: {shown(value)}")
    return float(value)


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(printable, names[:_MAX_NAMED])) + more
