"""Images of 16 bits a sample that come out nearly black, since they hold 8, 10, 12 or 14 bits: said once for all."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from featx.errors import printable
from featx.image_sources import Images, source_path
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


def warn_of_dim_images(images: Iterable[DimImage]) -> None:
    """Log how many different images these are, and what to do; nothing if there are none."""
    different = {image.digest: image for image in images}
    if not different:
        return
    brightest = max(different.values(), key=lambda image: image.largest)
    bits = next(bits for bits in _USUAL_BITS if brightest.largest < 1 << bits)
    one = len(different) == 1
    log.warning(
        "%s 16 bits a sample but no value above %s of 65,535, such as %s, so %s: if %s %d-bit data, multiply "
        "%s values by %d.",
        "1 image has" if one else f"{len(different):,} images have",
        f"{brightest.largest:,}",
        brightest.path,
        "it comes out nearly black" if one else "they come out nearly black",
        "it holds" if one else "they hold",
        bits,
        "its" if one else "their",
        65535 // (2**bits - 1),
    )
