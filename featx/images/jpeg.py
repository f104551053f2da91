"""The work that a JPEG asks for: each of its scans goes over the whole picture, and a file may have thousands."""

import re

from PIL import JpegImagePlugin

from featx.errors import ImageError

#: More scans are refused, as by libjpeg-turbo's tools with `-maxscans 500`. Encoders write up to some twenty.
MAX_SCANS = 500

#: Pixels that all scans together may go over. So the largest picture may have 30 scans, and one of 5 MP or less 500.
MAX_SCANNED_PIXELS = 30 * 89_478_485

#: A marker, in front of a segment or in the data of a scan. Zero follows a 0xFF that is data, D0 to D7 are part of a
#: scan, and 0xFF may be repeated.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_WITHOUT_LENGTH = {0x01, 0xD8}
_END, _SCAN = 0xD9, 0xDA


def refuse_too_many_scans(image: JpegImagePlugin.JpegImageFile, data: bytes) -> None:
    """Raise `ImageError` if the JPEG `data`, which `image` was opened from, takes more than seconds to decode."""
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // (image.width * image.height))
    if (n := _n_scans(data, image.layers, is_progressive="progressive" in image.info)) > most:
        raise ImageError(f"too many scans ({n:,}; at most {most:,})")


def _n_scans(data: bytes, n_components: int, *, is_progressive: bool) -> int:
    """Return how many scans libjpeg decodes for the first picture in `data`. It follows the markers in the same way."""
    at, n = 2, 0
    while found := _MARKER.search(data, at):
        at, marker = found.end(), found[1][0]
        if marker == _END:
            break
        if marker == _SCAN:
            n += 1
            if not is_progressive and data[at + 2 : at + 3] == bytes([n_components]):  # that one is all
                break
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return n
