"""Image files without their metadata, for pictures that are sound where what is said about them is not.

Decoders read texts, profiles and previews along with the pixels, and give up a picture for damage in them. What decides
pixels stays, damaged or not: a picture that lacks it would be plausible and wrong.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

#: A PNG's chunks that say something about the picture, or hold the further frames of an animation.
_PNG_METADATA = {
    *(b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"pHYs", b"sPLT", b"bKGD", b"hIST"),
    *(b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"cICP", b"mDCV", b"cLLI", b"acTL", b"fcTL", b"fdAT"),
}

#: Of these, texts that may say how it is turned, by how they begin.
_PNG_ORIENTATIONS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")

#: A JPEG's application segments that libjpeg heeds, which tell its colours, and how long they must be for that.
_JPEG_COLORS = {0xE0: 14, 0xEE: 12}

#: The tags of a TIFF that decide pixels, and those that tell a camera's raw file: TIFF 6.0 and its supplements.
_TIFF_TAGS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(330, 332, 334, 336, 338, 339, 347, *range(512, 522), 529, 530, 531, 532, 50706),
}


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield copies of an image file with less and less metadata: first with its orientation, then with none.

    What they have in common is the picture. Nothing is yielded for formats whose metadata do no harm.
    """
    for start, strip in _STRIPPERS.items():
        if data.startswith(start):
            for keeps_orientation in (True, False):
                with suppress(struct.error, IndexError, OverflowError):  # its structure leads beyond its end
                    yield strip(data, keeps_orientation)


def _png(data: bytes, keeps_orientation: bool) -> bytes:
    """Keep sound orientations, and what decides pixels, which the decoder checks: tRNS, and all chunks in capitals.

    A chunk that is damaged and has an unknown name may be one of them.
    """

    def keeps(name: bytes, content: memoryview, checksum: bytes) -> bool:
        is_sound = zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big") == checksum
        if name[:1].isupper() or name == b"tRNS" or not (is_sound or name in _PNG_METADATA):
            return True
        is_text = name in {b"tEXt", b"zTXt", b"iTXt"} and bytes(content[:22]).startswith(_PNG_ORIENTATIONS)
        return keeps_orientation and (name == b"eXIf" or is_text) and is_sound

    view, at, kept = memoryview(data), 8, [memoryview(data)[:8]]
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if keeps(data[at + 4 : at + 8], view[at + 8 : end - 4], data[end - 4 : end]):
            kept.append(view[at:end])
        at = end
    return b"".join([*kept, view[at:]])


def _jpeg(data: bytes, keeps_orientation: bool) -> bytes:
    """Drop comments and application segments up to the first scan, but those that libjpeg heeds."""

    def keeps(marker: int, length: int) -> bool:
        if marker == 0xE1:
            return keeps_orientation
        if marker in _JPEG_COLORS:
            return length - 2 >= _JPEG_COLORS[marker]
        return marker != 0xFE and not 0xE0 <= marker <= 0xEF

    at, kept = 2, [data[:2]]
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1] != 0xFF else -1  # 0xFF may be repeated
        if keeps(data[at + 1], length):
            kept.append(data[at : at + 2 + length])
        at += 2 + length
    return b"".join([*kept, data[at:]])


def _webp(data: bytes, keeps_orientation: bool) -> bytes:
    """Drop the profile; and EXIF and XMP, unless they are whole and tell the orientation."""
    at, kept = 12, [b"WEBP"]
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        is_kept = keeps_orientation and end <= len(data) if name in {b"EXIF", b"XMP "} else name != b"ICCP"
        if is_kept:
            kept.append(data[at:end])
        at = end
    content = b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _gif(data: bytes, keeps_orientation: bool) -> bytes:  # noqa: ARG001 - a GIF has none
    """Drop extensions in front of the first frame, but the one that tells the transparent colour."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept = [data[:at]]
    while data[at] == 0x21:
        end = at + 2
        while data[end]:
            end += 1 + data[end]
        if data[at + 1] == 0xF9:
            kept.append(data[at : end + 1])
        at = end + 1
    return b"".join([*kept, data[at:]])


def _tiff(data: bytes, keeps_orientation: bool) -> bytes:  # noqa: ARG001 - it is one of the tags that count
    """Keep the first page, and of its tags those that count."""
    order, is_big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    offset, number, entry_bytes = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (n_entries,) = struct.unpack_from(order + number, data, at)
    first = at + struct.calcsize(number)
    starts = range(first, first + min(n_entries, 4096) * entry_bytes, entry_bytes)
    entries = [data[start : start + entry_bytes] for start in starts]
    kept = [entry for entry in entries if struct.unpack_from(order + "H", entry)[0] in _TIFF_TAGS]
    directory = struct.pack(order + number, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
    return data[:at] + directory + data[at + len(directory) :]


_STRIPPERS: dict[bytes, Callable[[bytes, bool], bytes]] = {
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"GIF8": _gif,
    b"II": _tiff,
    b"MM": _tiff,
}
