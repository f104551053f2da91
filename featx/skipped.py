"""Images that could not be read: remembered, so that they are reported every time and tried only once."""

import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from typing import Self

import PIL

from featx.errors import printable
from featx.files import write_text
from featx.images import READS_VERSION
from featx.places import Place
from featx.tables import csv_lines

log = logging.getLogger("featx")

#: What gives images up: Pillow, and what featx makes of it.
DECODER = f"{PIL.__version__}+{READS_VERSION}"


@dataclass(frozen=True, order=True)
class SkippedImage:
    """One file without pixels.

    Attributes:
        path: where it was, exactly.
        digest: SHA-256 of its bytes in hexadecimal; empty if it is not the bytes that are to blame.
        reason: why it was skipped.
        decoder: the `DECODER` that gave up; another one tries again.
    """

    path: str
    digest: str
    reason: str
    decoder: str = DECODER

    @classmethod
    def of(cls, path: Place, digest: bytes, reason: str) -> Self:
        """Return the record of one file."""
        return cls(str(path), digest.hex(), reason)


def read_skipped(path: Place) -> list[SkippedImage]:
    """Return what the file at `path` lists.

    Raises:
        ValueError: it is no such list, or not a sound one.
        OSError: it cannot be read.
    """
    names = [field.name for field in fields(SkippedImage)]
    with io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error
    if header != names or any(len(row) != len(names) for row in rows):
        raise ValueError("its columns are not those of a list of skipped images")
    images = [SkippedImage(*row) for row in rows]
    if any(not re.fullmatch(r"(?:[0-9a-f]{64})?", image.digest) for image in images):
        raise ValueError("a digest is none")
    return images


class SkippedImages:
    """`skipped.csv` of a store: a row for each file, and what is known of each content."""

    def __init__(self, path: Place) -> None:
        """Read the file at `path`, if there is one. It is only a memory: a damaged one is begun anew."""
        self._path = path
        self._known = _by_content(self._read())

    def _read(self) -> dict[str, SkippedImage]:
        try:
            rows = read_skipped(self._path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s) and is begun anew.", printable(self._path), error)
            return {}
        return {row.path: row for row in rows}

    def reason(self, digest: bytes) -> str | None:
        """Return why this decoder cannot read the image with `digest`; None if it has not tried."""
        known = self._known.get(digest.hex())
        return known.reason if known else None

    def remember(self, images: Iterable[SkippedImage], whole_folder: Place | None = None) -> None:
        """Add `images` to the rows, and write the file if that changes it.

        If they are all that was skipped in `whole_folder`, the rows of others in it are dropped.
        """
        there = self._read()  # another process may have added to it
        rows = dict(there)
        if whole_folder is not None:
            inside = f"{str(whole_folder).rstrip(os.sep)}{os.sep}"
            # Before names were written exactly, they were escaped.
            rows = {path: row for path, row in there.items() if not path.startswith((inside, printable(inside)))}
        rows |= {image.path: image for image in images}
        self._known = _by_content(rows)
        if rows != there:
            self._write(rows)

    def _write(self, rows: dict[str, SkippedImage]) -> None:
        header = [field.name for field in fields(SkippedImage)]
        lines = csv_lines(header, (astuple(row) for row in sorted(rows.values())))
        try:
            write_text(self._path, "".join(lines))
        except OSError as error:
            log.warning("%s cannot be written (%s); what was skipped is tried again.", printable(self._path), error)


def _by_content(rows: Mapping[str, SkippedImage]) -> dict[str, SkippedImage]:
    """Return those of the rows whose content this decoder has given up on, by its digest."""
    return {row.digest: row for row in rows.values() if row.digest and row.decoder == DECODER}
