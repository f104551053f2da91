"""Images that could not be read: remembered, so that they are reported every time and tried only once."""

import csv
import io
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import Self

import PIL

from featx.errors import printable
from featx.files import write_text
from featx.images import READS_VERSION
from featx.places import Place

log = logging.getLogger("featx")

#: What gives images up: Pillow, and what featx makes of it.
DECODER = f"{PIL.__version__}+{READS_VERSION}"


@dataclass(frozen=True, order=True)
class SkippedImage:
    """One file without pixels.

    Attributes:
        path: where it was, printable.
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
        return cls(printable(path), digest.hex(), reason)


def read_skipped(path: Place) -> list[SkippedImage]:
    """Return what the file at `path` lists.

    Raises:
        ValueError: it is no such list, or not a sound one.
        OSError: it cannot be read.
    """
    names = [field.name for field in fields(SkippedImage)]
    with io.StringIO(path.read_bytes().decode("utf-8"), newline="") as file:
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
    """`skipped.csv` of a store."""

    def __init__(self, path: Place) -> None:
        """Read the file at `path`, if there is one. It is only a memory: a damaged one is begun anew."""
        self._path = path
        self._known = self._read()

    def _read(self) -> dict[str, SkippedImage]:
        try:
            rows = read_skipped(self._path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s) and is begun anew.", printable(self._path), error)
            return {}
        return {row.digest or row.path: row for row in rows}

    def reason(self, digest: bytes) -> str | None:
        """Return why this decoder cannot read the image with `digest`; None if it has not tried."""
        known = self._known.get(digest.hex())
        return known.reason if known and known.decoder == DECODER else None

    def remember(self, images: Iterable[SkippedImage], whole_folder: Place | None = None) -> None:
        """Add `images` to what is known, and write the file if that changes it.

        If they are all that was skipped in `whole_folder`, what was known of others in it is forgotten.
        """
        self._known = self._read()  # another process may have added to it
        others = self._known
        if whole_folder is not None:
            inside = f"{printable(whole_folder)}{os.sep}"
            others = {key: image for key, image in others.items() if not image.path.startswith(inside)}
        self._write(others | {image.digest or image.path: image for image in images})

    def _write(self, known: dict[str, SkippedImage]) -> None:
        if known == self._known:
            return
        self._known = known
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in fields(SkippedImage)])
        writer.writerows(astuple(image) for image in sorted(known.values()))
        try:
            write_text(self._path, text.getvalue())
        except OSError as error:
            log.warning("%s cannot be written (%s); what was skipped is tried again.", printable(self._path), error)
