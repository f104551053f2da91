"""Labels that folders do not give: a table, or a pattern of file names, says which image has which."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.dataset.folders import FolderListing, as_text
from featx.dataset.label_sets import separator_warning, with_sets
from featx.dataset.label_table import Columns, Row, read_table
from featx.dataset.names import role_of
from featx.errors import DatasetError
from featx.storage import StoragePath, as_storage_path
from featx.system import brief, did_you_mean, shown
from featx.text import printable

#: The class of images whose labels are not known, where none are needed.
UNLABELLED = "unlabelled"

#: Paths among which the nearest to a wrong one is looked for: more would take seconds.
_MAX_COMPARED = 10_000


@dataclass(frozen=True, eq=False)
class Labels:
    """Where the labels of images are, and perhaps their splits, if not in the names of folders.

    Attributes:
        table: a CSV, TSV, JSON lines or Parquet file; a pandas DataFrame; or a list of `(path, label)`, perhaps with a
            split and a group. Paths are relative to the data set's folder, or absolute. A label may be a list where
            the format has lists: then images can have several labels.
        regex: instead of a table, a regular expression that is searched for in the path of each image, relative to the
            data set's folder. Its group `label` is the label; it may have groups `split` and `group`, too.
        path_column: the column of the table with the paths; `path` if None.
        label_column: that with the labels; `label` if None.
        split_column: that with the splits; `split` if None and there is one. Values are words such as `train`, `test`
            and `validation`.
        group_column: that with the groups, such as patients; `group` if None and there is one. featx never splits a
            group.
        skip_unlabelled: leave out images whose label is empty, or in which the expression is not found. If False, that
            is an error.
        separator: what stands between the labels of an image, such as `"|"`: images can then have several labels. If
            None, the whole text is one label.
        keep_unlabelled: instead of `skip_unlabelled`, keep these images as ones that have none of the labels. Only if
            images can have several.

    Raises:
        DatasetError: there is neither a table nor an expression, or both; it is no such expression; the separator is
            empty; or images without a label are to be both skipped and kept.
    """

    table: object = None
    regex: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    skip_unlabelled: bool = False
    separator: str | None = None
    keep_unlabelled: bool = False
    _pattern: "re.Pattern[str] | None" = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if (self.table is None) == (self.regex is None):
            raise DatasetError("Labels come from a table (--labels) or from an expression (--label-regex): give one.")
        if isinstance(self.table, str | Path):
            object.__setattr__(self, "table", as_storage_path(self.table))
        for name in ("regex", "path_column", "label_column", "split_column", "group_column", "separator"):
            if not isinstance(getattr(self, name), str | None):
                raise DatasetError(f"{name} is text. Received: {shown(getattr(self, name))}")
        if self.separator == "":
            raise DatasetError("The separator of labels (--label-separator) is empty: give a character such as |.")
        if self.skip_unlabelled and self.keep_unlabelled:
            raise DatasetError("Images without a label are either skipped or kept: choose one.")
        if self.regex is not None:
            object.__setattr__(self, "_pattern", _compiled(self.regex))

    def __repr__(self) -> str:
        if self.regex is not None:
            return f"<Labels by {brief(self.regex)}>"
        return f"<Labels of {brief(self.table) if isinstance(self.table, StoragePath) else type(self.table).__name__}>"

    @classmethod
    def of(cls, given: object) -> "Labels":
        """Return the labels that `given` means: a table, or labels already."""
        return given if isinstance(given, cls) else cls(given)

    def words(self) -> list[str]:
        """Return the options of the command line that mean the same; none for a table that is not a file."""
        if self.regex is not None:
            words = ["--label-regex", self.regex]
        elif isinstance(self.table, StoragePath):
            words = ["--labels", str(self.table)]
        else:
            return []
        for flag, column in (
            ("--path-column", self.path_column),
            ("--label-column", self.label_column),
            ("--split-column", self.split_column),
            ("--group-column", self.group_column),
            ("--label-separator", self.separator),
        ):
            words += [] if column is None else [flag, column]
        unlabelled = "skip" if self.skip_unlabelled else "keep" if self.keep_unlabelled else ""
        return [*words, *(["--unlabelled", unlabelled] if unlabelled else [])]

    def rows(self, images: Sequence[str]) -> tuple[str, list[Row]]:
        """Return what the labels are called, and a row for each image that has one; `images` are relative paths."""
        if self._pattern is None:
            return read_table(
                self.table, Columns(self.path_column, self.label_column, self.split_column, self.group_column)
            )
        return "the expression", list(_matches(self._pattern, images))


def _compiled(regex: str) -> "re.Pattern[str]":
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"This is not a regular expression: {error}. Received: {shown(regex)}") from error
    if "label" not in pattern.groupindex:
        raise DatasetError(
            f"The expression needs a group called label, like (?P<label>[^/.]+)\\.\\d+\\.jpg. Received: {shown(regex)}"
        )
    return pattern


def _matches(pattern: "re.Pattern[str]", images: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each image; its label is empty where the expression is not found."""
    for path in images:
        found = pattern.search(path)
        groups = found.groupdict() if found else {}
        rest = [(groups.get(name) or "").strip() if name in pattern.groupindex else None for name in ("split", "group")]
        yield Row(f"image {printable(path)}", path, (groups.get("label") or "").strip(), *rest)


#: The class of an image, or its set of labels; its path; whether it is in the test split.
LabelledPath = tuple[str | tuple[str, ...], str, bool]


def names_in(label: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels that an image has: one class, or several."""
    return label if isinstance(label, tuple) else (label,)


@dataclass(frozen=True)
class Labelled:
    """What labels say of the images below a folder.

    Attributes:
        name: what the labels are called, such as `labels.csv`.
        rows: (class, path relative to the folder, whether it is in the test split), sorted. Instead of a class, a
            tuple of labels if images can have several.
        where: the row that says so, in words, by path.
        groups: the group of each image by path; empty if there are no groups.
        has_splits: whether the rows say which images are in the test split.
        left_out: paths of images without a row, or without a label.
        n_empty: how many of these have a row.
        warnings: sentences; an empty one is none.
    """

    name: str
    rows: list[LabelledPath]
    where: Mapping[str, str]
    groups: Mapping[str, str]
    has_splits: bool
    left_out: list[str]
    n_empty: int
    warnings: tuple[str, ...] = ()

    def first_of(self, class_name: str) -> str:
        """Return the sentence that says where the first image of a class is."""
        path = next(path for label, path, _ in self.rows if class_name in names_in(label))
        return f" {self.where[path][:1].upper()}{self.where[path][1:]} has the first of {printable(class_name)}."


def read_labels(root: StoragePath, listing: FolderListing, labels: Labels, *, to_train: bool) -> Labelled:
    """Return the labels of the images below `root`.

    Args:
        root: the folder of the data set.
        listing: the files in it.
        labels: where the labels are.
        to_train: whether each image needs a label; if not, those without one are of the class `UNLABELLED`.

    Raises:
        DatasetError: a row names a file that is not there, or has no label; or two rows contradict each other.
    """
    prefix = f"{as_text(root).rstrip('/')}/"
    images = [path.removeprefix(prefix) for path in listing.images]
    name, rows = labels.rows(images)
    doubt = separator_warning(rows, name, labels.separator)
    rows = with_sets(rows, labels.separator)
    if labels.keep_unlabelled and not any(isinstance(row.label, tuple) for row in rows):
        raise DatasetError(
            "Only images that can have several labels can be kept without one: name what separates the labels with "
            "--label-separator, or leave these images out with --unlabelled skip."
        )
    finder = _Finder(root, images, [path.removeprefix(prefix) for path in listing.others])
    is_labelled = any(row.label for row in rows)
    needs_label = (to_train or is_labelled) and not labels.keep_unlabelled
    row_of: dict[str, Row] = {}
    empty: list[Row] = []
    for row in rows:
        path = finder.found(row)
        if needs_label and not row.label:
            empty.append(row)
            continue
        before = row_of.setdefault(path, row)
        for what, one, other in zip(("label", "split", "group"), before[2:], row[2:], strict=True):
            if one != other:
                raise DatasetError(
                    f"{_capital(row.where)} gives {printable(path)} another {what} than {before.where}: "
                    f"{_said(other)} and {_said(one)}. Each image needs one."
                )
    if empty and to_train and not labels.skip_unlabelled:
        raise _no_label(empty, labels)
    if not row_of or (to_train and not is_labelled):
        raise DatasetError(f"No image in {printable(root)} has a label in {name}.")
    is_test, warning = _splits(row_of, name)
    groups = _groups(row_of, is_test)
    found = sorted(
        (row.label if is_labelled else UNLABELLED, path, is_test.get(path, False)) for path, row in row_of.items()
    )
    where = {path: row.where for path, row in row_of.items()}
    kept = [row for row in found if row[1] in is_test] if is_test else found
    left_out = sorted(set(images) - row_of.keys())
    return Labelled(name, kept, where, groups, bool(is_test), left_out, len(empty), (warning, doubt))


def _said(value: str | tuple[str, ...] | None) -> str:
    return printable(", ".join(value) if isinstance(value, tuple) else value or "")


def _no_label(empty: Sequence[Row], labels: Labels) -> DatasetError:
    row, n_more = empty[0], len(empty) - 1
    if labels.regex is None:
        more = f", nor do {n_more:,} more rows" if n_more else ""
        what = f"{_capital(row.where)} has no label for {printable(row.path)}{more}."
    else:
        more = f", nor for {n_more:,} more images" if n_more else ""
        what = f"The expression gives no label for {printable(row.path)}{more}."
    keep = ", or --unlabelled keep if they have none of the labels" if isinstance(row.label, tuple) else ""
    return DatasetError(f"{what} To leave such images out, add --unlabelled skip{keep}.")


def _splits(row_of: Mapping[str, Row], name: str) -> tuple[dict[str, bool], str]:
    """Return for each image in the train or the test split whether it is in the latter, and a warning.

    A validation split is the test split if there is no other; featx takes its own validation images from the train
    split.

    Raises:
        DatasetError: a split has another name; or there is no image for training, or none for testing.
    """
    if all(row.split is None for row in row_of.values()):
        return {}, ""
    roles: dict[str, dict[str, Row]] = defaultdict(dict)
    known: dict[str, Any] = {}
    for path, row in row_of.items():
        word = row.split or ""
        if word not in known:
            role = role_of(word)
            known[word] = role.name if role and not role.rest and role.name != UNLABELLED else None
        if known[word] is None:
            raise DatasetError(
                f"{_capital(row.where)} has a split that is neither train, validation nor test. "
                f"Received: {printable(word) if word else 'nothing'}"
            )
        roles[known[word]][path] = row
    if not roles["train"]:
        raise DatasetError(f"In {name}, no image is in the train split.")
    test = "test" if roles["test"] else "validation"
    if not roles[test]:
        raise DatasetError(
            f"In {name}, all images are in the train split. Give some the split test, or leave the splits out: featx "
            f"then takes a test split itself."
        )
    left_out = len(roles["validation"]) if test == "test" else 0
    warning = (
        f"Left out: {left_out:,} images of the validation split, because featx takes its own validation images from "
        f"the train split."
        if left_out
        else ""
    )
    return {**dict.fromkeys(roles["train"], False), **dict.fromkeys(roles[test], True)}, warning


def _groups(row_of: Mapping[str, Row], is_test: Mapping[str, bool]) -> dict[str, str]:
    """Return the group of each image by path; none if the rows have no groups.

    Raises:
        DatasetError: a row has an empty group, or a group is in both splits.
    """
    groups: dict[str, str] = {}
    first: dict[tuple[str, bool], Row] = {}
    for path, row in row_of.items():
        if row.group is None:
            continue
        if not row.group:
            raise DatasetError(f"{_capital(row.where)} has no group for {printable(path)}.")
        groups[path] = row.group
        if path in is_test:
            first.setdefault((row.group, is_test[path]), row)
            if other := first.get((row.group, not is_test[path])):
                raise DatasetError(
                    f"{_capital(row.where)} and {other.where} put the group {printable(row.group)} into both splits, "
                    f"so results would look better than they are. Put all of a group into one split."
                )
    return groups


class _Finder:
    """Finds the images that rows name, however their paths are written."""

    def __init__(self, root: StoragePath, images: Sequence[str], others: Sequence[str]) -> None:
        self._root, self._top = root, as_text(root).rstrip("/")
        self._images, self._others = set(images), set(others)
        self._by_form: dict[str, str] = {}
        self._all = images

    def found(self, row: Row) -> str:
        """Return the path, relative to the folder, of the image that a row names.

        Raises:
            DatasetError: there is no such image.
        """
        if row.path in self._images:
            return row.path
        if not row.path:
            raise DatasetError(f"{_capital(row.where)} has no path.")
        for text in dict.fromkeys((row.path, row.path.replace("\\", "/"))):
            below = self._below(text)
            if below in self._images:
                return below
            if alike := self._in_another_form(below):
                return alike
        raise self._missing(row)

    def _below(self, text: str) -> str:
        """Return a path relative to the folder; an absolute one may lead to it through links."""
        path = os.path.normpath(text).replace(os.sep, "/") if "://" not in text else text
        if not path.startswith(f"{self._top}/") and isinstance(self._root, Path) and path.startswith("/"):
            path = f"{Path(path).parent.resolve().as_posix()}/{Path(path).name}"
        return path.removeprefix(f"{self._top}/")

    def _in_another_form(self, path: str) -> str | None:
        """Return the image whose path differs only in Unicode's form: systems write accents in two ways."""
        if path.isascii():
            return None
        if not self._by_form:
            self._by_form = {unicodedata.normalize("NFC", one): one for one in self._all}
        return self._by_form.get(unicodedata.normalize("NFC", path))

    def _missing(self, row: Row) -> DatasetError:
        text = row.path.replace("\\", "/")
        below = self._below(text)
        if below in self._others:
            return DatasetError(
                f"{_capital(row.where)} names {printable(row.path)}, which is no image that featx reads."
            )
        if below.startswith(("../", "/")):
            return DatasetError(
                f"{_capital(row.where)} names {printable(row.path)}, which is not in {printable(self._root)}: name a "
                f"folder above all images as DATA."
            )
        return DatasetError(
            f"{_capital(row.where)} names {printable(row.path)}, which is not in {printable(self._root)}."
            f"{self._hint(below)}"
        )

    def _hint(self, below: str) -> str:
        """Return the sentence that says which image may be meant."""
        for path in self._all:
            if path.endswith(f"/{below}"):
                folder = printable(path.removesuffix(f"/{below}"))
                return f" There is {printable(path)}: if paths are relative to {folder}/, name that folder as DATA."
            stem = path.rpartition(".")[0]
            if stem == below or stem.endswith(f"/{below}"):
                return f" There is {printable(path)}: paths need their suffix."
        return did_you_mean(below, self._all) if len(self._all) <= _MAX_COMPARED else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
