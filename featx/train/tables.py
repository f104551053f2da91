"""The tables in a run folder: CSV files with names exactly as they are."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from featx.storage import read_small
from featx.system import csv_lines

#: A table of a run is not larger than this.
_MAX_BYTES = 256 << 20


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with the columns `names`; what is not UTF-8 in a text comes out as the bytes that it is."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(csv_lines(names, rows))


def read_csv(path: Path, names: Sequence[str], most: int) -> list[list[str]]:
    """Return the rows of a table that `write_csv` has written, at most so many; anybody may have made it.

    Raises:
        ValueError: it has other columns than `names` or more rows, or is no such table.
        OSError: it cannot be read.
    """
    text = read_small(path, _MAX_BYTES).decode("utf-8", "surrogateescape")
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        if next(table, None) != list(names):
            raise ValueError(f"it does not have the columns {', '.join(names)}")
        for row in table:
            if len(row) != len(names) or len(rows) == most:
                raise ValueError("it has cells or rows that featx does not write")
            rows.append(row)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows
