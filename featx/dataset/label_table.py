"""Tables that say which image has which label: CSV, TSV, JSON lines, Parquet, a DataFrame or a list."""

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from featx.errors import DatasetError, system_errors
from featx.storage import OddFileError, StoragePath, read_small
from featx.system import did_you_mean, import_failure, shown
from featx.text import printable

#: A table of a million images takes a tenth of this.
_MAX_TABLE_BYTES = 1 << 30

#: What may stand between the columns of a text table.
_DELIMITERS = (",", ";", "\t", "|")

_MAX_COLUMNS = 12  # that an error names

_Value = TypeVar("_Value")


class Row(NamedTuple):
    """What a table says of one image. Blanks around values are cut off.

    Attributes:
        where: the row in words, such as `"line 3 of labels.csv"`.
        path: of the image, as it stands there.
        label: its class; empty if there is none. A tuple if a list of labels stands there, also in a whole table if
            images can have several, see `featx.dataset.label_sets`.
        split: `"train"`, `"test"` or another word for one; None if the table has no such column.
        group: what the image belongs to, such as a patient; None if the table has no such column.
    """

    where: str
    path: str
    label: str | tuple[str, ...]
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None is the usual name: `path`, `label`, `split` or `group`.

    A column that was not named need not be there, except for the paths.
    """

    path: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


def read_table(table: object, columns: Columns) -> tuple[str, list[Row]]:
    """Return what a table is called, and its rows.

    Args:
        table: a file, whose suffix is `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`, or `.txt` for one path in each
            line; a pandas DataFrame; or a sequence of `(path, label)`, perhaps with a split and a group. JSON lines,
            Parquet, a DataFrame and a sequence may give a list of labels.
        columns: which columns to read.

    Raises:
        DatasetError: it cannot be read as such a table; the message names the row.
    """
    if hasattr(table, "columns") and hasattr(table, "to_dict"):
        name, records = "the table", _numbered(table.to_dict("records"), "row %d of the table")
        return name, list(_rows(records, [str(column) for column in table.columns], columns, name))
    if isinstance(table, StoragePath):
        return _read_file(table, columns)
    if isinstance(table, Sequence) and not isinstance(table, str | bytes):
        return "the list", [_listed(number, item) for number, item in enumerate(table, 1)]
    raise DatasetError(f"Labels are a file, a DataFrame, or a list of (path, label). Received: {shown(table)}")


def _listed(number: int, item: object) -> Row:
    if not isinstance(item, tuple | list) or not 2 <= len(item) <= 4:
        raise DatasetError(f"Item {number} of the list is not (path, label). Received: {shown(item)}")
    try:
        return Row(f"item {number} of the list", _text(item[0]), _label(item[1]), *map(_text, item[2:]))
    except TypeError:
        raise DatasetError(
            f"Item {number} of the list has something that is neither text nor a number. Received: {shown(item)}"
        ) from None


def _read_file(path: StoragePath, columns: Columns) -> tuple[str, list[Row]]:
    name, suffix = printable(path.name), PurePath(path.name).suffix.lower()
    try:
        with system_errors(f"The labels {printable(path)}", "read", kind=DatasetError):
            data = read_small(path, _MAX_TABLE_BYTES)
    except OddFileError as error:
        raise DatasetError(f"The labels {printable(path)} cannot be read: {error.strerror}.") from error
    if suffix == ".parquet":
        table = _read_parquet(data, path)
        records = _numbered(table.to_dict("records"), f"row %d of {name}")
        return name, list(_rows(records, [str(column) for column in table.columns], columns, name))
    text = _decoded(data, path)
    where = f"line %d of {name}"
    if suffix == ".txt":
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        return name, [Row(where % number, line, "") for number, line in lines if line]
    if suffix in {".jsonl", ".ndjson"}:
        found = list(_json_lines(text, where))
        names = list(dict.fromkeys(key for _, record in found for key in record))
        return name, list(_rows(found, names, columns, name))
    return name, list(_csv_rows(text, columns, name))


def _decoded(data: bytes, path: StoragePath) -> str:
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"Line {line} of {printable(path)} is not UTF-8: save the table as UTF-8, which spreadsheets call "
            f"“CSV UTF-8”."
        ) from error
    if "\0" in text:
        raise DatasetError(f"{printable(path)} is not a text table: name a CSV, TSV, JSON lines or Parquet file.")
    return text


def _csv_rows(text: str, columns: Columns, name: str) -> Iterator[Row]:
    """Yield the rows of a text table whose first line names the columns."""
    first = text.partition("\n")[0].rstrip("\r")
    wanted = columns.path or "path"
    headers = {delimiter: next(csv.reader([first], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    fitting = [delimiter for delimiter, header in headers.items() if _column(wanted, _stripped(header)) is not None]
    delimiter = fitting[0] if fitting else max(_DELIMITERS, key=lambda one: len(headers[one]))
    header = _stripped(headers[delimiter])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def records() -> Iterator[tuple[str, dict[str, object]]]:
        at = 1
        try:
            next(reader, None)
            at = reader.line_num + 1
            for values in reader:
                if len(values) != len(header) and values:
                    raise DatasetError(
                        f"Line {at} of {name} has {len(values)} value{'s' * (len(values) != 1)}, and its first line "
                        f"{len(header)} column{'s' * (len(header) != 1)}."
                    )
                if values:
                    yield f"line {at} of {name}", dict(zip(header, values, strict=True))
                at = reader.line_num + 1
        except csv.Error as error:
            raise DatasetError(f"Line {at} of {name} cannot be read: {error}.") from error

    yield from _rows(records(), header, columns, name)


def _stripped(header: Sequence[str]) -> list[str]:
    return [column.strip() for column in header]


def _json_lines(text: str, where: str) -> Iterator[tuple[str, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{_capital(where % number)} is not JSON: {error}.") from error
        if not isinstance(record, dict):
            raise DatasetError(f"{_capital(where % number)} is not a JSON object.")
        yield where % number, record


def _read_parquet(data: bytes, path: StoragePath) -> Any:
    try:
        pandas = importlib.import_module("pandas")
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise DatasetError(f"{import_failure('pyarrow', error, 'featx[pandas]')}.") from error
    try:
        return pandas.read_parquet(io.BytesIO(data))
    except Exception as error:  # a foreign file may end in anything
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{printable(path)} is not a Parquet file: {printable(reason)}.") from error


def _numbered(records: Sequence[Mapping[Any, object]], where: str) -> Iterator[tuple[str, dict[str, object]]]:
    for number, record in enumerate(records, 1):
        yield where % number, {str(key): value for key, value in record.items()}


def _rows(
    records: Iterator[tuple[str, dict[str, object]]] | list[tuple[str, dict[str, object]]],
    header: Sequence[str],
    columns: Columns,
    name: str,
) -> Iterator[Row]:
    """Yield the rows of a table with these columns.

    Raises:
        DatasetError: a column that is needed is not there, or is there twice; or a value is no text.
    """
    path = _needed(columns.path or "path", header, "--path-column", "paths", name)
    label = _chosen(columns.label, "label", header, "--label-column", "labels", name)
    split = _chosen(columns.split, "split", header, "--split-column", "splits", name)
    group = _chosen(columns.group, "group", header, "--group-column", "groups", name)
    for where, record in records:

        def value(
            column: str,
            convert: Callable[[object], _Value],
            where: str = where,
            record: dict[str, object] = record,
        ) -> _Value:
            try:
                return convert(record.get(column, ""))
            except TypeError:
                raise DatasetError(
                    f"{_capital(where)} has a {printable(column)} that is neither text nor a number. "
                    f"Received: {shown(record[column])}"
                ) from None

        rest = [value(column, _text) if column else None for column in (split, group)]
        yield Row(where, value(path, _text), value(label, _label) if label else "", *rest)


def _chosen(named: str | None, usual: str, header: Sequence[str], option: str, what: str, name: str) -> str | None:
    """Return the column that is named, or else the usual one if it is there."""
    if named is None and _column(usual, header) is None:
        return None
    return _needed(named or usual, header, option, what, name)


def _needed(column: str, header: Sequence[str], option: str, what: str, name: str) -> str:
    found = _column(column, header)
    if found is None:
        columns = ", ".join(printable(one) for one in header[:_MAX_COLUMNS]) + (", …" * (len(header) > _MAX_COLUMNS))
        raise DatasetError(
            f"There is no column {printable(column)} in {name}; its columns are {columns}. Name the one with the "
            f"{what} with {option}.{did_you_mean(column, header)}"
        )
    if header.count(found) > 1:
        raise DatasetError(f"Several columns in {name} are called {printable(found)}.")
    return found


def _column(wanted: str, header: Sequence[str]) -> str | None:
    """Return the column with this name, or else the only one that differs from it in letter case alone."""
    if wanted in header:
        return wanted
    alike = [column for column in header if column.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 else None


def _label(value: object) -> str | tuple[str, ...]:
    """Return a label as text, or several as a tuple.

    >>> _label("cat"), _label(["cat", " dark"]), _label(None)
    ('cat', ('cat', 'dark'), '')

    Raises:
        TypeError: it is neither text nor a number, nor a list of these.
    """
    if getattr(value, "ndim", 0) == 1:  # NumPy's, which pandas makes of a list in Parquet
        value = value.tolist()  # type: ignore[attr-defined]
    return tuple(map(_text, value)) if isinstance(value, list | tuple | set | frozenset) else _text(value)


def _text(value: object) -> str:
    """Return a value as text, without blanks around it; empty for what is missing.

    >>> _text(" cats "), _text(3), _text(3.0), _text(None), _text(float("nan"))
    ('cats', '3', '3', '', '')

    Raises:
        TypeError: it is neither text nor a number.
    """
    if hasattr(value, "item"):  # NumPy's
        value = value.item()
    if value is None or type(value).__name__ in {"NAType", "NaTType"} or value != value:  # noqa: PLR0124 - not a number
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # pandas makes floats of whole numbers where some are missing
        value = int(value)
    if isinstance(value, str | int | float | PurePath):
        return str(value).strip()
    raise TypeError


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
