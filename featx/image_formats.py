"""What the first bytes of a file say it is: an image that featx reads, or something else that has a name."""

import codecs
import re

#: How the files begin that featx reads, by the name of their format. 18 bytes tell.
READ_FORMATS = {
    # An MPO (a stereo or portrait photo, which phones name .jpg) is a JPEG followed by others.
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"(?:II[*+]\x00|MM\x00[*+])(?!.{4}CR\x02)", re.DOTALL),  # but not Canon's CR2
    # "BM" alone may begin a text; the length of the second header, one of eight, follows 12 bytes later.
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL),
    "DIB": re.compile(rb"\x28\x00\x00\x00"),  # a .dib may lack the BMP's file header
}

_SAVE = "save it as JPEG or PNG"
_DEVELOP = "develop it to JPEG or PNG"
_FRAMES = "take its frames out as JPEG or PNG"
_UNPACK = "unpack it"
_AGAIN = "download it again"

#: How other files begin, what they are, and what to do about them. The first that fits counts.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x00.{3}ftyp(?:avif|avis|mif1.{4}(?:.{4}){,8}avif)", "AVIF image", _SAVE),
    (rb"\x00.{3}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC image", _SAVE),
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


def format_read(data: bytes) -> str | None:
    """Return the name in `READ_FORMATS` of the image file that `data` begins like; None if featx reads no such file."""
    return next((name for name, pattern in READ_FORMATS.items() if pattern.match(data)), None)


def looks_like_image(data: bytes) -> bool:
    """Return whether a file that begins with `data`, 32 bytes or more, is an image that featx reads, sound or not."""
    return format_read(data) is not None


def name_of_format(data: bytes) -> str | None:
    """Return what a file is that featx does not read, like `"HEIC image"`, by its first 1,024 bytes; None if unknown.

    >>> name_of_format(b"\\0\\0\\0\\x18ftypheic")
    'HEIC image'
    """
    found = _other_format(data)
    return found and found[0]


def reason_not_read(data: bytes) -> str:
    """Return in few words why featx does not read `data`, and what to do.

    >>> reason_not_read(b"<html><body>404 Not Found</body></html>")
    'web page (HTML), not an image: download it again'
    """
    found = _other_format(data)
    return f"{found[0]}: {found[1]}" if found else f"no image: first bytes {data[:4].hex()}"


def _other_format(data: bytes) -> tuple[str, str] | None:
    head = data[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    for pattern, name, advice in _OTHERS:
        if pattern.match(head):
            return name, advice
    return ("text, not an image", _AGAIN) if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Return whether all of `head`, whose last letter may be cut in two, is UTF-8 or, with its mark, UTF-16."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)
