"""Images of 16 bits a sample that come out nearly black, since they hold 8, 10, 12 or 14 bits: said once for all."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from featx.errors import printable
from featx.files import write_text
from featx.image_sources import Images, source_path
from featx.places import Place
from featx.reader import Dim

log = logging.getLogger("featx")

#: Bits that cameras, microscopes and detectors put into samples of 16.
_USUAL_BITS = (8, 10, 12, 14)


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

    def __init__(self, path: Place) -> None:
        """Read the file at `path`, if there is one. It is only a memory: a damaged one is begun anew."""
        self._path = path
        self._largest = self._read()

    def _read(self) -> dict[str, int]:
        try:
            largest = json.loads(self._path.read_bytes())
            return {str(bytes.fromhex(digest).hex()): int(value) for digest, value in largest.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s) and is begun anew.", printable(self._path), error)
            return {}

    def remember(self, images: Iterable[DimImage]) -> None:
        """Add `images`, and write the file if that changes it."""
        largest = {image.digest: image.largest for image in images}
        if largest.items() <= self._largest.items():
            return
        self._largest = self._read() | largest  # another process may have added to it
        try:
            write_text(self._path, json.dumps(self._largest, indent=0, sort_keys=True))
        except OSError as error:
            log.warning("%s cannot be written (%s).", printable(self._path), error)

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
            f"1 image has 16 bits a sample but no value above {largest:,} of 65,535, such as {path}, so it comes out "
            f"nearly black: if it holds {bits}-bit data, multiply its values by {factor}."
        )
    return (
        f"{len(different):,} images have 16 bits a sample but no value above {largest:,} of 65,535, such as {path}, so "
        f"they come out nearly black: if they hold {bits}-bit data, multiply their values by {factor}."
    )
