"""Formats of image files: which featx reads, what else a file may be, and how to remove a file's metadata.

Decoders read texts, profiles and previews with the pixels, and reject a picture if these are damaged. Data that affects
pixels stays, damaged or not: without it, a picture would look plausible but be wrong.
"""

import codecs
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

#: How the files begin that featx reads, by the name of their format; the first that fits. 32 bytes tell.
READ_FORMATS = {
    # An MPO (a stereo or portrait photo, which phones name .jpg) is a JPEG followed by others.
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "AVIF": re.compile(rb"\x00.{3}ftyp(?:avif|avis|mif1.{4}(?:.{4}){,8}avif)", re.DOTALL),
    "HEIC": re.compile(rb"\x00.{3}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"(?:II[*+]\x00|MM\x00[*+])(?!.{4}CR\x02)", re.DOTALL),  # but not Canon's CR2
    # "BM" alone may begin a text; the length of the second header, one of eight, follows 12 bytes later.
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL),
    "DIB": re.compile(rb"\x28\x00\x00\x00"),  # a .dib may lack the BMP's file header
}

_SAVE = "save it as JPEG or PNG"
_DEVELOP = "develop it to JPEG or PNG"
_FRAMES = "extract its frames as JPEG or PNG"
_UNPACK = "unpack it"
_AGAIN = "download it again"

#: How other files begin, what they are, and what to do about them. The first that fits counts.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x00.{3}ftypcrx ", "camera RAW file (Canon CR3)", _DEVELOP),
    (rb"\x00.{3}(?:ftyp|moov|mdat|wide|free|skip)", "video (MP4 or MOV)", _FRAMES),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL image", _SAVE),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000 image", _SAVE),
    (rb"II\xbc", "JPEG XR image", _SAVE),
    (rb"II\*\x00.{4}CR\x02", "camera RAW file (Canon CR2)", _DEVELOP),
    (rb"II\x1a\x00.{4}HEAPCCDR", "camera RAW file (Canon CRW)", _DEVELOP),
    (rb"FUJIFILMCCD-RAW", "camera RAW file (Fujifilm RAF)", _DEVELOP),
    (rb"IIR[OS]|MMOR", "camera RAW file (Olympus ORF)", _DEVELOP),
    (rb"IIU\x00", "camera RAW file (Panasonic RW2)", _DEVELOP),
    (rb"\x00MRM", "camera RAW file (Minolta MRW)", _DEVELOP),
    (rb"FOVb", "camera RAW file (Sigma X3F)", _DEVELOP),
    (rb"\x89PNG", "PNG with line ends changed in transfer", _AGAIN),
    (rb"8BPS", "Photoshop file (PSD)", _SAVE),
    (rb"gimp xcf", "GIMP file (XCF)", _SAVE),
    (rb"v/1\x01", "OpenEXR image", _SAVE),
    (rb"#\?R(?:ADIANC|GB)E", "Radiance HDR image", _SAVE),
    (rb"DDS ", "DDS texture", _SAVE),
    (rb"qoif", "QOI image", _SAVE),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", "icon (ICO)", _SAVE),
    (rb"icns", "icon (ICNS)", _SAVE),
    (rb"P[1-7fF]\s", "PNM image", _SAVE),
    (rb"/\* XPM|#define \w+_width", "X bitmap (XBM or XPM)", _SAVE),
    (rb"SIMPLE  =", "FITS file", _SAVE),
    (rb".{128}DICM", "DICOM file", _SAVE),
    (rb"%PDF", "PDF document", "save its pages as JPEG or PNG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript file (EPS)", _SAVE),
    (rb"\x93NUMPY", "NumPy file", _SAVE),
    (rb"\x89HDF", "HDF5 file", "save its pictures as JPEG or PNG"),
    (rb"\x1a\x45\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01[\xb3\xba]|FLV\x01", "video", _FRAMES),
    (rb"RIFF.{4}WAVE|ID3|OggS|fLaC", "sound file", _AGAIN),
    (rb"PK\x03\x04|PK\x05\x06", "zip archive", _UNPACK),
    (rb"\x1f\x8b", "gzip file", _UNPACK),
    (rb"7z\xbc\xaf|Rar!|BZh[1-9]|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", "archive", _UNPACK),
    (rb"version https://git-lfs", "Git LFS pointer, not an image", "fetch the image with git lfs pull"),
    (
        rb"\s*+(?:<\?xml.*?\?>\s*+)?(?><!--.*?-->\s*+)*+(?i:<!doctype html|<(?:html|head|body|script|title|meta)\b)",
        "web page (HTML), not an image",
        _AGAIN,
    ),
    (rb"\s*+(?:<[^\x00]*?)?<svg[\s>]", "SVG drawing", "save it as PNG"),
    (rb"\s*+<[?!A-Za-z]", "XML text, not an image", _AGAIN),
    (rb"\s*+(?:\{\s*[\"}]|\[\s*[\[{\"\]\d-])", "JSON text, not an image", _AGAIN),
)

_OTHERS = tuple((re.compile(pattern, re.DOTALL), name, advice) for pattern, name, advice in _OTHER_FORMATS)

#: So much of a file is looked at to give it a name.
_HEAD_BYTES = 1024
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


def format_read(data: bytes) -> str | None:
    """Return the name in `READ_FORMATS` of the format that `data`, 32 bytes or more, begins like.

    None if featx does not read this format. The file may still be damaged.
    """
    return next((name for name, pattern in READ_FORMATS.items() if pattern.match(data)), None)


def reason_not_read(data: bytes) -> str:
    """Return in few words why featx does not read `data`, and what to do, by its first 1,024 bytes.

    >>> reason_not_read(b"<html><body>404 Not Found</body></html>"), reason_not_read(b"8BPS")
    ('web page (HTML), not an image: download it again', 'Photoshop file (PSD): save it as JPEG or PNG')
    """
    head = data[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    for pattern, name, advice in _OTHERS:
        if pattern.match(head):
            return f"{name}: {advice}"
    return f"text, not an image: {_AGAIN}" if _is_text(head) else f"not an image: first bytes {data[:4].hex()}"


def _is_text(head: bytes) -> bool:
    """Return whether all of `head`, whose last letter may be cut in two, is UTF-8 or, with its mark, UTF-16."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield copies of an image file with less and less metadata: first with its orientation, then with none.

    All have the same picture. Nothing is yielded for formats whose metadata does no harm.
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
