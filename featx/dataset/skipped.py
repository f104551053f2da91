"""What a store remembers about images: those that could not be read, and those that look nearly black.

The nearly black ones have 16 bits a sample, but hold data of 8 to 14 bits. featx warns whenever it uses their store.
"""

import csv
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Self, TypeVar

import numpy as np
import PIL

from featx.dataset.image_dataset import Images
from featx.dataset.loader import Dim, source_path
from featx.images import READS_VERSION, heic_version
from featx.storage import StoragePath, read_small, write_text
from featx.system import csv_lines
from featx.text import printable

log = logging.getLogger("featx")

_Known = TypeVar("_Known")

#: What gives images up: Pillow, what featx makes of it, and pillow-heif if it is installed.
DECODER = "+".join(filter(None, (PIL.__version__, str(READS_VERSION), heic_version())))

#: Bits that cameras, microscopes and detectors put into samples of 16.
_USUAL_BITS = (8, 10, 12, 14)


@dataclass(frozen=True, order=True)
class SkippedImage:
    """One file without pixels.

    Attributes:
        path: where it was, exactly.
        digest: SHA-256 of its bytes in hexadecimal; empty if it is not the bytes that are to blame.
        reason: why it was skipped.
        decoder: the `DECODER` that gave up; another one tries again.
        has_changed: whether the file was no longer the one that was digested; not written down.
    """

    path: str
    digest: str
    reason: str
    decoder: str = DECODER
    has_changed: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, path: StoragePath, digest: bytes, reason: str, *, has_changed: bool = False) -> Self:
        """Return the record of one file."""
        return cls(str(path), digest.hex(), reason, has_changed=has_changed)


_COLUMNS = ("path", "digest", "reason", "decoder")


def read_skipped(path: StoragePath) -> list[SkippedImage]:
    """Return what the file at `path` lists.

    Raises:
        ValueError: it is no such list, or not a sound one.
        OSError: it cannot be read.
    """
    with io.StringIO(read_small(path).decode("utf-8", "surrogateescape"), newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error
    if tuple(header) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise ValueError("its columns are not those of skipped.csv")
    images = [SkippedImage(path, digest, reason, decoder) for path, digest, reason, decoder in rows]
    if any(not re.fullmatch(r"(?:[0-9a-f]{64})?", image.digest) for image in images):
        raise ValueError("a digest is not valid")
    return images


class SkippedImages:
    """`skipped.csv` of a store: a row for each file, and what is known of each content."""

    def __init__(self, path: StoragePath) -> None:
        """Read the file at `path`, if there is one. It is only a memory: a damaged one is written anew."""
        self._path = path
        self._known = _by_content(self._read())

    def _read(self) -> dict[str, SkippedImage]:
        return _remembered(self._path, lambda: {row.path: row for row in read_skipped(self._path)})

    def reason(self, digest: bytes) -> str | None:
        """Return why this decoder cannot read the image with `digest`; None if it has not tried."""
        known = self._known.get(digest.hex())
        return known.reason if known else None

    def remember(self, images: Iterable[SkippedImage], whole_folder: StoragePath | None = None) -> None:
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
            lines = csv_lines(_COLUMNS, (astuple(row)[: len(_COLUMNS)] for row in sorted(rows.values())))
            _write(self._path, "".join(lines), ", so featx will try the skipped images again")


def _by_content(rows: Mapping[str, SkippedImage]) -> dict[str, SkippedImage]:
    """Return those of the rows whose content this decoder has given up on, by its digest."""
    return {row.digest: row for row in rows.values() if row.digest and row.decoder == DECODER}


@dataclass(frozen=True)
class DimImage:
    """One of them.

    Attributes:
        path: where it is, printable.
        digest: SHA-256 of its bytes in hexadecimal.
        largest: its largest value, of 65,535, at least 1.
    """

    path: str
    digest: str
    largest: int

    @classmethod
    def of(cls, images: Images, dim: Dim) -> Self:
        """Return what was noted of one of `images`."""
        path, digest = source_path(images.sources[dim.row]), images.digests[dim.row].tobytes()
        return cls(printable(path), digest.hex(), dim.largest)


class DimImages:
    """`dim.json` of a store: the largest value of each of them, by its digest, to be said whenever it is used."""

    def __init__(self, path: StoragePath) -> None:
        """Read the file at `path`, if there is one. It is only a memory: a damaged one is written anew."""
        self._path = path
        self._largest = self._read()

    def _read(self) -> dict[str, int]:
        def read() -> dict[str, int]:
            largest = json.loads(read_small(self._path))
            if not all(type(value) is int and 0 < value < 1 << _USUAL_BITS[-1] for value in largest.values()):
                raise ValueError("it has values that no such image has")
            return {bytes.fromhex(digest).hex(): value for digest, value in largest.items()}

        return _remembered(self._path, read)

    def remember(self, images: Iterable[DimImage]) -> None:
        """Add `images`, and write the file if that changes it."""
        largest = {image.digest: image.largest for image in images}
        if not largest.items() <= self._largest.items():
            self._largest = self._read() | largest  # another process may have added to it
            _write(self._path, json.dumps(self._largest, indent=0, sort_keys=True))

    def among(self, digests: np.ndarray, path_of: Callable[[int], str]) -> list[DimImage]:
        """Return those that are among images.

        Args:
            digests: `(n, 32)` uint8.
            path_of: returns the path of the image with a row, printable.
        """
        if not self._largest:
            return []
        rows = {digest.tobytes().hex(): row for row, digest in reversed([*enumerate(digests)])}
        found = sorted(rows[digest] for digest in self._largest.keys() & rows.keys())
        digest_of = {row: digest for digest, row in rows.items()}
        return [DimImage(path_of(row), digest_of[row], self._largest[digest_of[row]]) for row in found]


def dim_sentence(images: Iterable[DimImage]) -> str:
    """Return how many different images these are, and what to do; empty if there are none."""
    different = {image.digest: image for image in images}
    if not different:
        return ""
    largest = max(image.largest for image in different.values())
    bits = next(bits for bits in _USUAL_BITS if largest < 1 << bits)
    path = next(iter(different.values())).path
    factor = 65535 // (2**bits - 1)
    if len(different) == 1:
        return (
            f"1 image has 16 bits a sample but no value above {largest:,} of 65,535, so it looks nearly black: {path}. "
            f"If it holds {bits}-bit data, multiply its values by {factor}."
        )
    return (
        f"{len(different):,} images have 16 bits a sample but no value above {largest:,} of 65,535, such as {path}, so "
        f"they look nearly black: if they hold {bits}-bit data, multiply their values by {factor}."
    )


def _remembered(path: StoragePath, read: Callable[[], dict[str, _Known]]) -> dict[str, _Known]:
    """Return what `read` makes of the file at `path`; nothing if it is not there, or damaged, which is logged."""
    try:
        return read()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read (%s) and is written again from scratch.", printable(path), error)
        return {}


def _write(path: StoragePath, text: str, so_what: str = "") -> None:
    try:
        write_text(path, text)
    except OSError as error:
        log.warning("%s cannot be written (%s)%s.", printable(path), error, so_what)
