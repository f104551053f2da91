"""Tables: for a terminal, in Markdown, as CSV, and for pandas, which is optional and imported late."""

import csv
import importlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from featx.errors import FeatxError
from featx.system.missing_packages import import_failure
from featx.text import JOINERS, Shown, one_line


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_left: int = 1) -> Shown:
    """Return aligned columns for a terminal: the first `n_left` to the left, the others to the right.

    The first name of the header is indented: first cells begin with two characters for a mark, or two blanks.
    """
    lines = [[one_line(cell) for cell in line] for line in ((f"  {header[0]}", *header[1:]), *rows)]
    widths = [max(n_columns(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "  ".join(
            _padded(cell, width, to_the_left=i < n_left)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return Shown("\n".join([padded[0], "  " + "─" * (sum(widths) + 2 * len(widths) - 4), *padded[1:]]))


def _padded(cell: str, width: int, *, to_the_left: bool) -> str:
    blanks = " " * (width - n_columns(cell))
    return cell + blanks if to_the_left else blanks + cell


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown; the cells have been escaped."""
    ruler = [":---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows))


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    r"""Yield a table as CSV, a line each, every text exactly as it is: for a program to read, not for a terminal.

    Quoted as in RFC 4180, with line feeds. Write it as UTF-8 with `errors="surrogateescape"`: what is no UTF-8 in a
    file's name comes out as the bytes that it is.

    >>> "".join(csv_lines(["path", "n"], [("a,b", 1), ("c\rd", 2)]))
    'path,n\n"a,b",1\n"c\rd",2\n'
    """
    line = io.StringIO(newline="")
    writer = csv.writer(line)  # ends lines with "\r\n", so that it quotes both of these in a cell
    for row in chain([header], rows):
        writer.writerow(row)
        yield line.getvalue().removesuffix("\r\n") + "\n"
        line.seek(0)
        line.truncate()


def escape_markdown(text: str) -> str:
    r"""Return `text` so that Markdown shows it as it is, also in a table.

    >>> print(escape_markdown("a|b\n`<i>` $1_000 & #2"))
    a\|b\\n\`\<i\>\` \$1\_000 \& \#2
    """
    return re.sub(r"([\\`*_{}\[\]<>#!|~$&])", r"\\\1", one_line(text))


def n_columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes.

    >>> n_columns("cat"), n_columns("猫"), n_columns("e\u0301")
    (3, 2, 1)
    """
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
        if not unicodedata.combining(char) and char not in JOINERS
    )


def data_frame(columns: Mapping[Any, Any]) -> Any:
    """Return a `pandas.DataFrame` with these columns.

    Raises:
        FeatxError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise FeatxError(f"{import_failure('pandas', error, 'featx[pandas]')}.") from error
    return pandas.DataFrame(dict(columns))
