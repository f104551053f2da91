"""Files that featx does not read are called by their name, by their first bytes alone."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import wave
import zipfile

import numpy as np
import pytest
from PIL import Image

from featx.images.formats import format_read, reason_not_read


def box(name: bytes, content: bytes) -> bytes:
    """A box of the ISO base media format (ISO/IEC 14496-12)."""
    return struct.pack(">I", len(content) + 8) + name + content


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    return box(b"ftyp", brand + bytes(4) + b"".join(compatible)) + box(b"meta", bytes(40))


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.jpg", b"x" * 99)
    else:
        with tarfile.open(fileobj=stream, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return stream.getvalue()


def sound() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(80))
    return stream.getvalue()


def saved(save, *arguments) -> bytes:
    stream = io.BytesIO()
    save(stream, *arguments)
    return stream.getvalue()


def encoded(file_format: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(stream, file_format, **options)
    return stream.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
HTML = b"<!DOCTYPE html>\n<html><body><svg ></svg></body></html>"

NAMES = {
    "JPEG XL image": [b"\xff\x0a\x7f\x01\xd0", b"\0\0\0\x0cJXL \r\n\x87\n" + ftyp(b"jxl ")],
    "JPEG 2000 image": [encoded("JPEG2000"), encoded("JPEG2000", no_jp2=True)],
    "JPEG XR image": [b"II\xbc\x01\x20\0\0\0"],
    "video (MP4 or MOV)": [ftyp(b"isom", b"mp41"), ftyp(b"qt  "), ftyp(b"M4V "), ftyp(b"3gp4"), box(b"moov", bytes(9))],
    "video": [b"\x1a\x45\xdf\xa3\x9f\x42\x86", b"RIFF\x99\0\0\0AVI LIST", b"\0\0\x01\xba\x44"],
    "sound file": [sound(), b"ID3\4\0\0"],
    "camera RAW file (Canon CR2)": [b"II*\0\x10\0\0\0CR\2\0" + bytes(30)],
    "camera RAW file (Canon CR3)": [ftyp(b"crx ", b"crx ", b"isom")],
    "camera RAW file (Fujifilm RAF)": [b"FUJIFILMCCD-RAW 0201FF389501"],
    "camera RAW file (Olympus ORF)": [b"IIRO\x08\0\0\0", b"IIRS\x08\0\0\0", b"MMOR\0\0\0\x08"],
    "camera RAW file (Panasonic RW2)": [b"IIU\0\x18\0\0\0"],
    "Photoshop file (PSD)": [b"8BPS\0\1" + bytes(20), b"8BPS\0\2" + bytes(20)],
    "GIMP file (XCF)": [b"gimp xcf v011\0"],
    "OpenEXR image": [b"v/1\x01\2\0\0\0channels\0"],
    "Radiance HDR image": [b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"],
    "QOI image": [b"qoif\0\0\0\x08\0\0\0\x08\3\0"],
    "FITS file": [b"SIMPLE  =                    T"],
    "DICOM file": [bytes(128) + b"DICM\2\0\0\0UL\4\0"],
    "PDF document": [encoded("PDF")],
    "icon (ICO)": [encoded("ICO")],
    "NumPy file": [saved(np.save, np.zeros(3))],
    "HDF5 file": [b"\x89HDF\r\n\x1a\n" + bytes(8)],
    "zip archive": [archive("zip"), saved(np.savez, np.zeros(3))],
    "gzip file": [gzip.compress(b"x")],
    "archive": [archive("tar"), bz2.compress(b"x"), lzma.compress(b"x"), b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\7\1\0"],
    "Git LFS pointer, not an image": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"],
    "SVG drawing": [
        *(SVG, b"\xef\xbb\xbf\n " + SVG, b'<?xml version="1.0"?>\n<!-- Generator: x -->\n<!DOCTYPE svg>\n' + SVG),
        b"<!-- made by hand -->" + SVG,
    ],
    "web page (HTML), not an image": [
        *(HTML, b"\xef\xbb\xbf" + HTML, b"\n\n  <HTML lang=en>", b"<!-- a -->\n<!-- b --><html>", b"<head><title>x"),
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN">' + SVG,
    ],
    "XML text, not an image": [
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b"<annotation><folder>VOC2012</folder></annotation>",
    ],
    "JSON text, not an image": [b'{"error": "quota exceeded"}', b"[]", b"{}", b'[{"a": 1}]', b" [1, 2]"],
    "text, not an image": [
        *(b"404: Not Found", b"Quota exceeded\r\n", "Zugriff verweigert – später".encode(), "拒绝访问".encode()),
        *("hello".encode("utf-16"), ("é" * 1000).encode(), b"x" + ("é" * 1000).encode(), b"BMW builds cars"),
        b"any free lunch",
    ],
}


@pytest.mark.parametrize(
    ("name", "data"),
    # Names without the bytes: archives hold the time they were made, and every test process must find the same tests.
    [pytest.param(name, data, id=f"{name} {n}") for name, files in NAMES.items() for n, data in enumerate(files, 1)],
)
def test_what_is_not_read_is_called_by_its_name_and_says_what_to_do(name, data):
    assert reason_not_read(data).startswith(f"{name}: ")
    assert format_read(data) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"\xff", b"\x1b[31m", b" \xff\xd8\xff\xe0", b"caf\xe9s", b" \n"])
def test_what_has_no_name_shows_its_first_bytes(data):
    assert reason_not_read(data) == f"not an image: first bytes {data[:4].hex()}"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "MPO", "AVIF"])
def test_32_bytes_tell_an_image_that_is_read(file_format):
    assert format_read(encoded(file_format)[:32]) is not None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *[(data, "HEIC") for data in (ftyp(b"heic", b"mif1", b"heic"), ftyp(b"heix", b"mif1"), ftyp(b"hevc", b"msf1"))],
        *[(data, "HEIC") for data in (ftyp(b"mif1", b"mif1", b"heic"), ftyp(b"msf1", b"hevc"))],
        *[(data, "AVIF") for data in (ftyp(b"avif", b"mif1"), ftyp(b"avis"), ftyp(b"mif1", b"mif1", b"avif"))],
    ],
)
def test_heic_and_avif_are_told_apart_by_their_brands(data, name):
    assert format_read(data[:32]) == name


def test_many_comments_take_no_longer_than_few():
    assert reason_not_read(b"<!---->" * 200 + b"<b") == "XML text, not an image: download it again"
