"""A table of odd and bad image files, and what featx has to make of each.

Files are written by hand, byte by byte, where that is short, so that Pillow does not judge its own work. What is
compressed (JPEG, WebP, LZW, …) comes from Pillow's encoders; the expected pixels are then those that went in, where the
format is lossless, or come from TensorFlow's decoders, which `independent_decoder` names.
"""

import gzip
import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

HEIGHT, WIDTH = 20, 27  # neither is a multiple of a JPEG's blocks, of a byte's bits, or of a tile's side

#: What turns stored pixels upright, by EXIF orientation, from the standard's "0th row, 0th column" table.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


class Outcome(Enum):
    """What becomes of a file in a class folder."""

    DECODED = "decoded"
    SKIPPED = "skipped"
    NO_IMAGE_BY_NAME = "counted in a warning: its name has no image's suffix"
    PASSED_OVER = "passed over without a word: hidden, or an empty folder"


Maker = Callable[[Path, Path], None]


@dataclass(frozen=True, eq=False)
class OddImage:
    """One kind of file.

    Attributes:
        name: of the kind; unique.
        outcome: what becomes of it.
        content: its bytes; or, of what is no plain file, a function that makes it at the path it is given, with a
            folder outside the data set for what it may need there.
        file_name: the file's own name, unique.
        inside: where the image is below `file_name`, if that is a folder.
        pixels: `(height, width, 3)` uint8, upright RGB on white, or None if only another decoder knows.
        tolerance: how far, in grey levels, a pixel may be from `pixels`.
        independent_decoder: name of the TensorFlow operation that reads it too, `decode_…`.
        decoder_tolerance: how far a pixel may be from that one's.
        orientation: in its EXIF data, which TensorFlow does not heed.
        reason: regular expression; why `read_file` or `decode_image` refuses it.
        scan_reason: regular expression; why the scan refuses it before that, if it does.
        n_files: how many image files it is, all of the same content.
    """

    name: str
    outcome: Outcome
    content: bytes | Maker
    file_name: bytes
    inside: str = ""
    pixels: np.ndarray | None = None
    tolerance: int = 0
    independent_decoder: str = ""
    decoder_tolerance: int = 0
    orientation: int = 1
    reason: str = ""
    scan_reason: str = ""
    n_files: int = 1

    def make(self, folder: Path, outside: Path) -> None:
        """Lay the file into `folder`."""
        path = folder / os.fsdecode(self.file_name)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path, outside)

    def path_in(self, folder: Path) -> Path:
        """Return where the image is if the file is laid into `folder`."""
        return folder / os.fsdecode(self.file_name) / self.inside


def decoded(name: str, content: bytes | Maker, *, suffix: str = "", **fields: object) -> OddImage:
    """Return a kind that is read; its name begins with the suffix of its file unless told otherwise."""
    return _kind(name, Outcome.DECODED, content, suffix, fields)


def skipped(name: str, content: bytes | Maker, reason: str, *, suffix: str = "", **fields: object) -> OddImage:
    """Return a kind that is refused for `reason`, a regular expression that the whole reason must match."""
    return _kind(name, Outcome.SKIPPED, content, suffix, {"reason": reason, **fields})


def left_out(name: str, file_name: bytes, content: bytes | Maker, outcome: Outcome) -> OddImage:
    """Return a kind that is never opened."""
    return _kind(name, outcome, content, "", {"file_name": file_name})


def _kind(name: str, outcome: Outcome, content: bytes | Maker, suffix: str, fields: dict[str, object]) -> OddImage:
    file_name = f"{name}.{suffix or name.partition('-')[0]}".encode()
    return OddImage(name, outcome, content, **{"file_name": file_name, **fields})  # type: ignore[arg-type]


# ---------------------------------------------------------------- pictures


@cache
def photo(name: str, channels: int = 3) -> np.ndarray:
    """Return `(HEIGHT, WIDTH, channels)` uint8: soft shades with noise, another picture for every name."""
    rng = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    phases = rng.uniform(0, 6, channels)
    waves = 128 + 90 * np.sin((x * rng.uniform(0.1, 0.3) + y * rng.uniform(0.1, 0.3))[..., None] + phases)
    return np.clip(waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def gray(shades: np.ndarray) -> np.ndarray:
    """Return `(height, width)` shades as three equal channels."""
    return np.repeat(shades.reshape(*shades.shape[:2], 1), 3, axis=2).astype(np.uint8)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Return `(…, 4)` straight RGBA composited on white, or `(…, 2)` gray with alpha as RGB."""
    color, alpha = rgba[..., :-1].astype(float), rgba[..., -1:] / 255
    pixels = np.floor(color * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    return gray(pixels) if pixels.shape[-1] == 1 else pixels


def bits_of(name: str) -> np.ndarray:
    """Return `(HEIGHT, WIDTH)` of 0 and 1."""
    return (photo(name)[..., 0] > 127).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, file_format: str, **options: object) -> bytes:
    """Return the content of a file that Pillow writes."""
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, file_format, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Return EXIF data with this orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def packed(samples: np.ndarray, depth: int, order: str = ">") -> bytes:
    """Return a row of unsigned samples with `depth` bits each, first in the highest bits, filled up to whole bytes."""
    if depth % 8 == 0:
        return samples.astype(f"{order}u{depth // 8}").tobytes()
    return np.packbits((samples.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1).tobytes()


# ---------------------------------------------------------------- files written by hand

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    samples: np.ndarray,
    depth: int,
    color_type: int,
    *,
    interlaced: bool = False,
    before: Sequence[tuple[bytes, bytes]] = (),
    size: tuple[int, int] | None = None,
) -> bytes:
    """Return a PNG of `(height, width, channels)` samples, with the chunks `before` in front of the pixels.

    size: width and height that its header claims, if not the true ones.
    """
    height, width = samples.shape[:2]
    rows = [samples]
    if interlaced:
        rows = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7]
    lines = [b"\0" + packed(row, depth) for part in rows if part.size for row in part]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, color_type, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def bmp(
    rows: bytes,
    bits: int,
    *,
    palette: bytes = b"",
    compression: int = 0,
    header_size: int = 40,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    masks: tuple[int, ...] = (),
) -> bytes:
    """Return a BMP. `rows`: its pixels as they lie in the file; a negative height in `size` has the first row first."""
    if header_size == 12:
        header = struct.pack("<IHHHH", 12, *size, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", header_size, *size, 1, bits, compression, len(rows), 0, 0, 0, 0)
    tail = struct.pack(f"<{len(masks)}I", *masks)
    header += tail.ljust(header_size - 40, b"\0") + palette
    at = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + header + rows


def bmp_rows(lines: Sequence[bytes]) -> bytes:
    """Return the rows of a BMP, last one first, each filled up to four bytes."""
    return b"".join(line + b"\0" * (-len(line) % 4) for line in reversed(lines))


def gif(
    indices: np.ndarray,
    palette: bytes,
    *,
    screen: tuple[int, int] | None = None,
    at: tuple[int, int] = (0, 0),
    interlaced: bool = False,
    transparent: int | None = None,
    local: bool = False,
) -> bytes:
    """Return a GIF of one frame, `(height, width)` indices below 128, whose codes are not compressed."""
    height, width = indices.shape
    table = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    extension = b"" if transparent is None else struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 1, 0, transparent, 0)
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), 0 if local else table, 0, 0)
    frame = struct.pack("<BHHHHB", 0x2C, *at, width, height, (table if local else 0) | interlaced << 6)
    if interlaced:
        indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    bits = []
    for start in range(0, indices.size, 100):  # a clear code (128) before the codes grow to nine bits
        bits += [128, *indices.ravel()[start : start + 100].tolist()]
    codes = np.array([*bits, 129])
    lzw = np.packbits((codes[:, None] >> np.arange(8)) & 1, bitorder="little").tobytes()
    blocks = b"".join(bytes([len(lzw[i : i + 255])]) + lzw[i : i + 255] for i in range(0, len(lzw), 255))
    return (
        head + (b"" if local else palette) + extension + frame + (palette if local else b"") + b"\7" + blocks + b"\0;"
    )


_SHORT_TAGS = {258, 259, 262, 277, 284, 317, 320, 338, 339, 266, 274, 530}


def tiff(
    blocks: Sequence[bytes],
    tags: Mapping[int, int | tuple[int, ...]],
    *,
    order: str = "<",
    big: bool = False,
    tile: int = 0,
    next_page: int = 0,
) -> bytes:
    """Return a TIFF or BigTIFF whose strips, or tiles of side `tile`, are `blocks`."""
    content = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQ" if big else "HI"), *_tiff_head(big), 0)
    offsets = []
    for block in blocks:
        offsets.append(len(content))
        content += block
    where, lengths = (324, 325) if tile else (273, 279)
    values = {256: WIDTH, 257: HEIGHT, 259: 1, 277: 1, 278: HEIGHT, **tags}
    values |= {where: tuple(offsets), lengths: tuple(map(len, blocks))} | ({322: tile, 323: tile} if tile else {})
    inline, number, offset = (8, "Q", "Q") if big else (4, "H", "I")
    entries = b""
    for tag, value in sorted(values.items()):
        numbers = (value,) if isinstance(value, int) else value
        kind, letter = (3, "H") if tag in _SHORT_TAGS else (4, "I")
        raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(raw) > inline:
            raw, content = struct.pack(order + offset, len(content)), content + raw
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(numbers)) + raw.ljust(inline, b"\0")
    directory = struct.pack(order + number, len(values)) + entries + struct.pack(order + offset, next_page)
    at = struct.pack(order + offset, len(content))
    return content[: 16 - 8 if big else 4] + at + content[16 if big else 8 :] + directory


def _tiff_head(big: bool) -> tuple[int, ...]:
    return (43, 8, 0) if big else (42,)


def tiles_of(pixels: np.ndarray, side: int) -> list[bytes]:
    """Return the tiles of `(height, width, channels)` pixels, row by row, filled up with zeros."""
    height, width = (-(-length // side) * side for length in pixels.shape[:2])
    padded = np.zeros((height, width, *pixels.shape[2:]), pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [padded[y : y + side, x : x + side].tobytes() for y in range(0, height, side) for x in range(0, width, side)]


def lzw(data: bytes) -> bytes:
    """Return `data` as a TIFF's LZW has it, no shorter: a clear code (256) comes before codes grow to ten bits."""
    codes = [code for start in range(0, len(data), 200) for code in (256, *data[start : start + 200])]
    return packed(np.array([*codes, 257]), 9)


def lab_of(rgb: np.ndarray) -> np.ndarray:
    """Return `(…, 3)` sRGB colours, 0 to 255, in 8-bit CIELAB of D50, a and b as signed bytes."""
    linear = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_d50 = [[0.43607, 0.38515, 0.14308], [0.22249, 0.71689, 0.06062], [0.01393, 0.09710, 0.71419]]  # IEC 61966-2-1
    xyz = linear @ np.transpose(to_d50) / (0.9642, 1.0, 0.8249)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)  # CIE 15
    lab = np.stack([(116 * f[..., 1] - 16) * 2.55, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    return lab.round().astype(np.int16).astype(np.uint8)


# ---------------------------------------------------------------- JPEG

#: Another build of libjpeg-turbo, which gives the same pixels; its arithmetic may round otherwise on other processors.
JPEG = {"independent_decoder": "decode_jpeg", "decoder_tolerance": 1}


def jpeg_with(name: str, marker: int, content: bytes, pixels: np.ndarray | None = None) -> bytes:
    """Return a JPEG of the picture `name` with one more segment in front."""
    data = encoded(photo(name) if pixels is None else pixels, "JPEG", quality=95)
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def exif_with(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return EXIF data of these tags: number, type, count, value."""
    fields = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + bytes(4)


def jpegs() -> Iterator[OddImage]:
    for name, options in {
        "baseline": {},
        "progressive": {"progressive": True},
        "with-restart-marks": {"restart_marker_blocks": 1},
        "progressive-with-restart-marks": {"progressive": True, "restart_marker_rows": 1},
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "of-the-lowest-quality": {"quality": 1},
        "of-the-highest-quality": {"quality": 100},
        "optimized": {"optimize": True},
        "in-rgb": {"keep_rgb": True},
        "with-a-comment": {"comment": b"\0\xff\x1b[31m"},
        "with-resolution": {"dpi": (1, 65535)},
        "with-a-profile": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
        "with-a-garbage-profile": {"icc_profile": b"\xff\0garbage" * 99},
        "with-garbage-exif": {"exif": b"Exif\0\0II*\0\xff\xff\xff\xffgarbage"},
        "with-empty-exif": {"exif": b"Exif\0\0"},
        "with-foreign-exif": {"exif": b"no EXIF data at all"},
        "with-an-orientation-that-does-not-exist": {"exif": exif(9)},
    }.items():
        yield decoded(f"jpg-{name}", encoded(photo(name), "JPEG", **options), **JPEG)
    for orientation in UPRIGHT:
        name = f"orientation-{orientation}"
        data = encoded(photo(name), "JPEG", exif=exif(orientation), quality=95)
        yield decoded(f"jpg-{name}", data, orientation=orientation, **JPEG)
    yield decoded("jpg-grayscale", encoded(photo("gray")[..., 0], "JPEG"), **JPEG)
    yield decoded("jpg-grayscale-progressive", encoded(photo("gp")[..., 0], "JPEG", progressive=True), **JPEG)
    # TensorFlow rounds down when it converts CMYK, Pillow to the nearest.
    for name, transform in (("cmyk", 0), ("ycck", 2)):
        data = encoded(Image.fromarray(photo(name, 4), "CMYK"), "JPEG", quality=95)
        at = data.index(b"Adobe") + 11
        data = data[:at] + bytes([transform]) + data[at + 1 :]
        yield decoded(f"jpg-{name}", data, independent_decoder="decode_jpeg", decoder_tolerance=2)
    for name, (marker, content) in {
        "a-short-jfif-mark": (0xE0, b"JFIF"),
        "a-short-adobe-mark": (0xEE, b"Adobe"),
        "a-profile-cut-off": (0xE2, b"ICC_PROFILE\0"),
        "a-part-of-a-profile": (0xE2, b"ICC_PROFILE\0\1\5part"),
        "photoshop-data-cut-off": (0xED, b"Photoshop 3.0\x008BIM\3\xed"),
        "a-garbage-list-of-pictures": (0xE2, b"MPF\0garbage"),
        "garbage-xmp": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<\xff"),
        "a-preview-of-64-kb": (0xE3, bytes(65533)),
        "an-empty-segment": (0xE1, b""),
    }.items():
        yield decoded(f"jpg-with-{name}", jpeg_with(name, marker, content), **JPEG)
    nonsense = exif_with((0x112, 3, 1, b"\6\0"), (0x11A, 7, 1, b"x"), (0x128, 3, 1, b"\2\0"))
    data = jpeg_with("nonsense", 0xE1, nonsense)
    yield decoded("jpg-turned-by-exif-of-nonsense-resolution", data, orientation=6, **JPEG)
    data = jpeg_with("turned", 0xE1, exif_with((0x112, 3, 1, b"\6\0")))
    data = data[:2] + struct.pack(">BBH", 0xFF, 0xE0, 6) + b"JFIF" + data[2:]
    yield decoded("jpg-turned-with-a-short-jfif-mark", data, orientation=6, **JPEG)
    data = encoded(photo("trailing"), "JPEG")
    yield decoded("jpg-with-garbage-after-its-end", data + b"\0\xff\xd8garbage" * 50, **JPEG)
    frames = [Image.fromarray(photo(f"frame {number}")) for number in range(2)]
    yield decoded("jpg-mpo", encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]), **JPEG)
    yield decoded("jpg-one-pixel", encoded(photo("dot")[:1, :1], "JPEG"), **JPEG)


def bad_jpegs() -> Iterator[OddImage]:
    for name in ("baseline", "progressive"):
        data = encoded(photo(f"cut {name}"), "JPEG", quality=95, progressive=name == "progressive")
        for percent in range(5, 100, 5):
            cut = data[: len(data) * percent // 100]
            yield skipped(f"jpg-{name}-cut-at-{percent:02}", cut, "truncated: .+")
    data = encoded(photo("header"), "JPEG")
    frame = data.index(b"\xff\xc0")  # marker, length (2), precision (1), height (2), width (2), components
    yield skipped("jpg-without-its-end-mark", data[:-2], "truncated: .+")
    # Damage that leaves a valid stream: the decoder paints the rest gray and does not say so.
    fine = encoded(photo("end mark"), "JPEG", quality=95)
    yield decoded("jpg-with-an-end-mark-halfway", fine[: len(fine) * 8 // 10] + b"\xff\xd9")
    yield skipped("jpg-marker-alone", b"\xff\xd8\xff", "truncated: .*")
    yield skipped("jpg-markers-alone", b"\xff\xd8\xff\xd9", "unreadable: .+")
    yield skipped("jpg-without-tables", data[:20] + data[frame:], "unreadable: .+")
    yield skipped("jpg-of-12-bits", data[: frame + 4] + b"\x0c" + data[frame + 5 :], "unreadable: .+")
    yield skipped("jpg-of-height-zero", data[: frame + 5] + b"\0\0" + data[frame + 7 :], "unreadable: .+")
    bomb = data[: frame + 5] + struct.pack(">HH", 30000, 30000) + data[frame + 9 :]
    yield skipped("jpg-bomb", bomb, BOMB)
    yield skipped("jpg-lossless-process", data[: frame + 1] + b"\xc3" + data[frame + 2 :], "unreadable: .+")


# ---------------------------------------------------------------- PNG

PNG = {"independent_decoder": "decode_png"}
BOMB = r"30000×30000 pixels: more than 89,478,485 are refused as a decompression bomb"


def shades_of(samples: np.ndarray, depth: int) -> np.ndarray:
    """Return gray samples of this depth in 8 bits."""
    return np.floor(samples * 255.0 / (2**depth - 1) + 0.5).astype(np.uint8)


def samples_of(name: str, depth: int, channels: int = 1) -> np.ndarray:
    """Return `(HEIGHT, WIDTH, channels)` uint16 samples below `2**depth`."""
    fine = photo(name, channels).astype(np.uint16) * 257 + photo(name + "'", channels) % 7
    return (fine >> (16 - depth)).astype(np.uint16)


def pngs() -> Iterator[OddImage]:
    palette = photo("palette", 3).reshape(-1, 3)
    for interlaced in (False, True):
        tail = "-interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            name = f"png-gray-{depth}-bit{tail}"
            samples = samples_of(name, depth)
            # TensorFlow takes the high byte of 16 bits, featx rounds.
            yield decoded(
                name,
                png(samples, depth, 0, interlaced=interlaced),
                pixels=gray(shades_of(samples, depth)),
                decoder_tolerance=int(depth == 16),
                **PNG,
            )
        for depth in (1, 2, 4, 8):
            name = f"png-palette-{depth}-bit{tail}"
            samples = samples_of(name, depth)
            colors = palette[: 2**depth]
            data = png(samples, depth, 3, interlaced=interlaced, before=[(b"PLTE", colors.tobytes())])
            yield decoded(name, data, pixels=colors[samples[..., 0]], **PNG)
        for depth in (8, 16):
            for what, color_type, channels in (("rgb", 2, 3), ("gray-alpha", 4, 2), ("rgba", 6, 4)):
                name = f"png-{what}-{depth}-bit{tail}"
                samples = samples_of(name, depth, channels)
                high = (samples >> (depth - 8)).astype(np.uint8)
                pixels = high if channels == 3 else on_white(high)
                yield decoded(name, png(samples, depth, color_type, interlaced=interlaced), pixels=pixels, **PNG)
    yield from _pngs_with_transparent_color(palette)
    yield from _pngs_with_odd_chunks()


def _pngs_with_transparent_color(palette: np.ndarray) -> Iterator[OddImage]:
    for depth in (1, 2, 4, 8, 16):
        name = f"png-gray-{depth}-bit-with-transparent-shade"
        samples = samples_of(name, depth)
        key = int(samples[3, 5, 0])
        pixels = gray(np.where(samples == key, 255, shades_of(samples, depth)))
        data = png(samples, depth, 0, before=[(b"tRNS", struct.pack(">H", key))])
        yield decoded(name, data, pixels=pixels, decoder_tolerance=int(depth == 16), **PNG)
    for depth in (8, 16):
        name = f"png-rgb-{depth}-bit-with-transparent-color"
        samples = samples_of(name, depth, 3)
        samples[:4] = samples[3, 5]
        is_key = (samples == samples[3, 5]).all(axis=-1, keepdims=True)
        pixels = np.where(is_key, 255, samples >> (depth - 8)).astype(np.uint8)
        data = png(samples, depth, 2, before=[(b"tRNS", struct.pack(">3H", *map(int, samples[3, 5])))])
        yield decoded(name, data, pixels=pixels, **PNG)
    for depth in (1, 2, 4, 8):
        name = f"png-palette-{depth}-bit-with-alpha"
        samples = samples_of(name, depth)
        alpha = np.linspace(0, 255, 2**depth).astype(np.uint8)[: 2**depth - 1]  # the last one is opaque
        colors = palette[: 2**depth]
        data = png(samples, depth, 3, before=[(b"PLTE", colors.tobytes()), (b"tRNS", alpha.tobytes())])
        rgba = np.concatenate([colors, np.append(alpha, 255)[:, None]], axis=1)
        # TensorFlow gives alpha, and `on_white` composites: exact.
        yield decoded(name, data, pixels=on_white(rgba)[samples[..., 0]], **PNG)


def _pngs_with_odd_chunks() -> Iterator[OddImage]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, chunks in {
        "with-a-profile": [(b"iCCP", b"sRGB\0\0" + zlib.compress(profile))],
        "with-a-garbage-profile": [(b"iCCP", b"garbage\0\0\xff\xfe\xfd")],
        "with-gamma": [(b"gAMA", struct.pack(">I", 100_000))],
        "with-garbage-exif": [(b"eXIf", b"MM\0*\xff\xff\xff\xffgarbage")],
        "with-garbage-text": [(b"tEXt", b"\0" * 90), (b"iTXt", b"\xff\1\0\0\0\0")],
        "with-an-unknown-chunk": [(b"quUx", b"\x1b[31m")],
        "with-a-background": [(b"bKGD", struct.pack(">3H", 1, 2, 3))],
        "in-color-with-a-suggested-palette": [(b"PLTE", bytes(range(30)))],
    }.items():
        samples = samples_of(name, 8, 3)
        yield decoded(f"png-{name}", png(samples, 8, 2, before=chunks), pixels=samples.astype(np.uint8), **PNG)
    yield from _pngs_with_bad_metadata()
    for name, orientation in (("turned", 6), ("mirrored", 5)):
        data = encoded(photo(name), "PNG", exif=exif(orientation))
        pixels = UPRIGHT[orientation](photo(name))
        yield decoded(f"png-{name}-by-exif", data, pixels=pixels, orientation=orientation, **PNG)
    samples = samples_of("before", 8, 3)
    data = png(samples, 8, 2)
    data = data[:8] + png_chunk(b"tEXt", b"Comment\0before the header") + data[8:]
    yield decoded("png-with-a-chunk-before-its-header", data, pixels=samples.astype(np.uint8))
    tall = png(samples, 8, 2, size=(WIDTH, HEIGHT // 2))
    yield decoded("png-of-fewer-rows-than-its-pixels", tall, pixels=samples.astype(np.uint8)[: HEIGHT // 2])
    samples = samples_of("end", 8, 3)
    data = png(samples, 8, 2)
    yield decoded("png-without-its-end-mark", data[:-12], pixels=samples.astype(np.uint8))
    frames = [Image.fromarray(photo(f"apng {number}")) for number in range(3)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=9)
    yield decoded("png-animated", data, pixels=photo("apng 0"), **PNG)
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield decoded("png-animated-beside-its-default-picture", data, pixels=photo("apng 0"), **PNG)
    yield decoded("png-one-pixel", png(samples_of("dot", 8, 3)[:1, :1], 8, 2), pixels=photo("dot")[:1, :1], **PNG)
    for name, shape in (("row", (1, 20_000)), ("column", (20_000, 1))):
        shades = (np.arange(20_000) // 79).astype(np.uint8).reshape(*shape, 1)
        yield decoded(f"png-{name}-of-20000", png(shades, 8, 0), pixels=gray(shades), **PNG)


def _pngs_with_bad_metadata() -> Iterator[OddImage]:
    bomb = zlib.compress(b"\0" * (70 << 20), 9)
    frame = struct.pack(">IIIIIHHBB", 7, 9999, 9999, 0, 0, 1, 1, 0, 0)
    chunks = {
        "a-text-bomb": png_chunk(b"zTXt", b"Comment\0\0" + bomb),
        "an-international-text-bomb": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        "a-profile-bomb": png_chunk(b"iCCP", b"sRGB\0\0" + bomb),
        "68-mb-of-texts": png_chunk(b"tEXt", b"Comment\0" + bytes(1 << 20)) * 65,
        "an-unknown-text-compression": png_chunk(b"zTXt", b"Comment\0\7text"),
        "an-unknown-profile-compression": png_chunk(b"iCCP", b"sRGB\0\7profile"),
        "an-impossible-animation": png_chunk(b"acTL", struct.pack(">II", 3, 0)) + png_chunk(b"fcTL", frame),
    }
    chunks |= {f"an-empty-{name}": png_chunk(name.encode(), b"") for name in ("gAMA", "cHRM", "pHYs", "iCCP", "acTL")}
    for name in ("tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "tIME", "gAMA", "pHYs"):
        chunks[f"a-wrong-sum-of-{name}"] = png_chunk(name.encode(), b"Title\0\0text")[:-1] + b"?"
    for number, (name, chunk) in enumerate(chunks.items()):
        samples = samples_of(name, 8, 3)
        data = png(samples, 8, 2)
        at = 33 if number % 2 else len(data) - 12  # before the pixels, or behind them
        data = data[:at] + chunk + data[at:]
        yield decoded(f"png-with-{name}", data, pixels=samples.astype(np.uint8))
    samples, turned = samples_of("xmp", 8, 3), b'XML:com.adobe.xmp\0\0\0\0\0<rdf tiff:Orientation="6"/>'
    for name, chunk in {"exif": (b"eXIf", exif_with((0x112, 3, 1, b"\6\0"))[6:]), "xmp": (b"iTXt", turned)}.items():
        data = png(samples, 8, 2, before=[chunk, (b"zTXt", b"Comment\0\0" + bomb)])
        pixels = UPRIGHT[6](samples.astype(np.uint8))
        yield decoded(f"png-turned-by-{name}-with-a-text-bomb", data, pixels=pixels)
    key = samples_of("key", 8)
    data = png(key, 8, 0, before=[(b"tRNS", b"\0" + bytes(key[3, 5].astype(np.uint8))), (b"iCCP", b"sRGB\0\0" + bomb)])
    pixels = gray(np.where(key == key[3, 5], 255, key))
    yield decoded("png-with-a-transparent-shade-and-a-profile-bomb", data, pixels=pixels)


def bad_pngs() -> Iterator[OddImage]:
    samples = samples_of("bad png", 8, 3)
    data = png(samples, 8, 2)
    empty = np.zeros((0, 0, 1), np.uint8)
    pixels = data.index(b"IDAT")
    yield skipped("png-cut-in-its-signature", data[:8], "truncated: .*")
    yield skipped("png-cut-in-its-header", data[:20], "truncated: .+")
    yield skipped("png-cut-in-half", data[: len(data) // 2], "truncated: .+")
    yield skipped("png-without-pixels", data[: pixels - 4] + data[-12:], "(truncated|unreadable): .+")
    broken = data[: pixels + 40] + b"\xff" * 30 + data[pixels + 70 :]
    yield skipped("png-with-broken-pixels", broken, "(truncated|unreadable): .+")
    yield skipped("png-with-a-wrong-header-sum", data[:29] + b"\0\0\0\0" + data[33:], "unreadable: .+")
    yield skipped("png-of-width-zero", png(samples, 8, 2, size=(0, HEIGHT)), "unreadable: .+")
    yield skipped("png-of-3-bits", png(samples, 8, 2).replace(data[8:33], _header(3, 0)), "unreadable: .+")
    yield skipped("png-of-color-type-5", png(samples, 8, 2).replace(data[8:33], _header(8, 5)), "unreadable: .+")
    yield skipped("png-wider-than-its-pixels", png(samples, 8, 2, size=(WIDTH * 2, HEIGHT)), "unreadable: .+")
    yield skipped("png-with-a-wrong-sum-of-pixels", data[:-20] + bytes(4) + data[-16:], "unreadable: .+")
    yield skipped("png-with-two-headers", data[:33] + data[8:20] + data[8:], "unreadable: .+")
    yield skipped("png-without-its-palette", png(samples[..., :1], 8, 3), "unreadable: .+")
    cut = png(samples, 8, 2, before=[(b"tRNS", b"\0")])
    yield skipped("png-with-half-a-transparent-color", cut, "(truncated|unreadable): .+")
    yield skipped("png-bomb", png(empty, 8, 2, size=(30000, 30000)), BOMB)
    yield skipped("png-bomb-of-one-bit", png(empty, 1, 0, size=(30000, 30000)), BOMB)
    palette = png(samples_of("critical", 4), 4, 3, before=[(b"PLTE", bytes(range(48))), (b"tRNS", b"\0\1")])
    for name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
        damage = bytearray(palette)
        at = palette.index(name) + 5
        damage[at] ^= 0x10
        yield skipped(f"png-with-a-damaged-{name.decode()}", bytes(damage), "(truncated|unreadable): .+")
        renamed = palette.replace(name, name.swapcase(), 1)  # not one that may be skipped, once its name is damaged
        yield skipped(f"png-with-a-renamed-{name.decode()}", renamed, "(truncated|unreadable): .+")
    line = b"\x89PNG\n\x1a\n" + data[8:]
    yield skipped("png-sent-as-text", line, "PNG with line ends changed in transfer: download it again")
    apple = data[:8] + png_chunk(b"CgBI", b"\x50\0\x20\2") + data[8:]
    yield skipped("png-for-an-iphone", apple.replace(b"\x78\x9c", b""), "(truncated|unreadable): .+")


def _header(depth: int, color_type: int) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color_type, 0, 0, 0))


# ---------------------------------------------------------------- WebP

WEBP = {"independent_decoder": "decode_webp"}


def webps() -> Iterator[OddImage]:
    # The same library in another build: exact where nothing is lost, else its colour conversion may round otherwise.
    yield decoded("webp-lossy", encoded(photo("lossy"), "WEBP"), decoder_tolerance=2, **WEBP)
    yield decoded("webp-lossless", encoded(photo("ll"), "WEBP", lossless=True), pixels=photo("ll"), **WEBP)
    for name, options in {"alpha": {"lossless": True, "exact": True}, "lossy-alpha": {}}.items():
        rgba = photo(f"webp {name}", 4)
        pixels = on_white(rgba) if options else None
        data = encoded(rgba, "WEBP", **options)
        yield decoded(f"webp-{name}", data, pixels=pixels, decoder_tolerance=0 if options else 2, **WEBP)
    frames = [Image.fromarray(photo(f"webp frame {number}")) for number in range(3)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield decoded("webp-animated", data, pixels=photo("webp frame 0"))  # TensorFlow refuses animations
    for orientation in (3, 8):
        pixels = photo(f"webp {orientation}")
        data = encoded(pixels, "WEBP", lossless=True, exif=exif(orientation))
        pixels = UPRIGHT[orientation](pixels)
        yield decoded(f"webp-orientation-{orientation}", data, pixels=pixels, orientation=orientation, **WEBP)
    profile = encoded(photo("webp icc"), "WEBP", lossless=True, icc_profile=b"\xff\0garbage" * 9)
    yield decoded("webp-with-a-garbage-profile", profile, pixels=photo("webp icc"), **WEBP)
    garbage = encoded(photo("webp exif"), "WEBP", lossless=True, exif=b"Exif\0\0garbage")
    yield decoded("webp-with-garbage-exif", garbage, pixels=photo("webp exif"), **WEBP)
    turned = {"lossless": True, "exif": exif(6), "xmp": b"<x/>"}
    whole = encoded(photo("webp metadata"), "WEBP", **turned)
    upright, at = UPRIGHT[6](photo("webp metadata")), whole.index(b"EXIF")
    yield decoded("webp-cut-in-its-last-metadata", whole[:-3], pixels=upright)
    yield decoded("webp-cut-in-its-exif", whole[: at + 12], pixels=photo("webp metadata"))
    longer = whole[:4] + struct.pack("<I", len(whole) + 90) + whole[8:]
    yield decoded("webp-that-claims-to-be-longer", longer, pixels=upright)


def bad_webps() -> Iterator[OddImage]:
    data = encoded(photo("bad webp"), "WEBP", lossless=True)
    yield skipped("webp-cut-in-half", data[: len(data) // 2], "truncated: .+")
    yield skipped("webp-cut-in-its-header", data[:18], "truncated: .+")
    yield skipped("webp-without-content", b"RIFF\x04\0\0\0WEBP", "unreadable: .+")
    yield skipped("webp-with-broken-pixels", data[:25] + b"\xff" * 40 + data[65:], "unreadable: .+")
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (29999).to_bytes(3, "little") * 2
    yield skipped(
        "webp-bomb",
        b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(data) - 12) + b"WEBP" + canvas + data[12:],
        "unreadable: .+|.*decompression bomb",
    )
    yield skipped("webp-other-riff", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "sound file: download it again")


# ---------------------------------------------------------------- BMP

BMP = {"independent_decoder": "decode_bmp"}


def bmps() -> Iterator[OddImage]:
    palette = photo("bmp palette").reshape(-1, 3)[:256]
    for depth in (1, 4, 8):
        name = f"bmp-{depth}-bit"
        samples = samples_of(name, depth)
        table = np.insert(palette[: 2**depth, ::-1], 3, 0, axis=1).tobytes()
        data = bmp(bmp_rows([packed(row, depth) for row in samples]), depth, palette=table)
        yield decoded(name, data, pixels=palette[samples[..., 0]])  # TensorFlow knows no palette
        old = bmp(
            bmp_rows([packed(row[::-1], depth) for row in samples]),
            depth,
            palette=palette[: 2**depth, ::-1].tobytes(),
            header_size=12,
        )
        yield decoded(f"{name}-of-os2", old, pixels=palette[samples[:, ::-1, 0]])
    shades = samples_of("bmp gray", 8)
    table = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(256, 4)
    table[:, 3] = 0
    data = bmp(bmp_rows([packed(row, 8) for row in shades]), 8, palette=table.tobytes())
    yield decoded("bmp-gray", data, pixels=gray(shades), **BMP)
    rgb = photo("bmp rgb")
    lines = [row[:, ::-1].tobytes() for row in rgb]
    yield decoded("bmp-24-bit", bmp(bmp_rows(lines), 24), pixels=rgb, **BMP)
    top_down = bmp(bmp_rows(lines[::-1]), 24, size=(WIDTH, -HEIGHT))
    yield decoded("bmp-24-bit-top-down", top_down, pixels=rgb, **BMP)
    data = bmp(bmp_rows(lines), 24, header_size=124)
    yield decoded("bmp-24-bit-of-version-5", data, pixels=rgb, **BMP)
    yield decoded("dib-24-bit", bmp(bmp_rows(lines), 24)[14:], pixels=rgb)
    yield from _wide_bmps()
    yield from _run_length_bmps(palette)
    yield decoded("bmp-one-pixel", bmp(b"\3\2\1\0", 24, size=(1, 1)), pixels=np.array([[[1, 2, 3]]], np.uint8), **BMP)


def _wide_bmps() -> Iterator[OddImage]:
    rgba = photo("bmp 32", 4)
    rows = bmp_rows([row[:, [2, 1, 0, 3]].tobytes() for row in rgba])
    # Without masks the fourth byte has no meaning; TensorFlow takes it for alpha.
    yield decoded("bmp-32-bit", bmp(rows, 32), pixels=rgba[..., :3])
    data = bmp(rows, 32, compression=3, header_size=124, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    yield decoded("bmp-32-bit-with-alpha", data, pixels=on_white(rgba))
    rgb = photo("bmp 16")
    for name, shifts, widths in (("565", (11, 5, 0), (5, 6, 5)), ("555", (10, 5, 0), (5, 5, 5))):
        levels = [rgb[..., channel].astype(np.uint16) >> (8 - bits) for channel, bits in enumerate(widths)]
        words = sum(level << shift for level, shift in zip(levels, shifts, strict=True))
        masks = tuple((2**bits - 1) << shift for bits, shift in zip(widths, shifts, strict=True))
        # 5 and 6 bits to 8: some round, some shift; a grey level at most.
        pixels = np.stack([shades_of(level, bits) for level, bits in zip(levels, widths, strict=True)], axis=-1)
        content = bmp_rows([row.astype("<u2").tobytes() for row in words])
        data = bmp(content, 16, compression=3, header_size=56, masks=masks)
        yield decoded(f"bmp-16-bit-{name}", data, pixels=pixels, tolerance=1)


def _run_length_bmps(palette: np.ndarray) -> Iterator[OddImage]:
    table = np.insert(palette[:, ::-1], 3, 0, axis=1)
    indices = np.sort(samples_of("bmp rle", 8)[..., 0], axis=1)
    content = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in indices[::-1]) + b"\0\1"
    yield decoded("bmp-rle8", bmp(content, 8, compression=1, palette=table.tobytes()), pixels=palette[indices])
    rows = indices.astype(np.uint8)
    literal = b"".join(bytes([0, WIDTH]) + row.tobytes() + b"\0" * (WIDTH % 2) + b"\0\0" for row in rows) + b"\0\1"
    data = bmp(literal, 8, compression=1, palette=table.tobytes())
    yield decoded("bmp-rle8-literal", data, pixels=palette[indices[::-1]])
    nibbles = np.tile([[3, 9]], (HEIGHT, WIDTH))[:, :WIDTH]
    data = bmp(bytes([WIDTH, 0x39, 0, 0]) * HEIGHT + b"\0\1", 4, compression=2, palette=table[:16].tobytes())
    yield decoded("bmp-rle4", data, pixels=palette[nibbles])


def bad_bmps() -> Iterator[OddImage]:
    data = bmp(bmp_rows([row[:, ::-1].tobytes() for row in photo("bad bmp")]), 24)
    yield skipped("bmp-cut-in-half", data[: len(data) // 2], "truncated: .+")
    yield skipped("bmp-cut-in-its-header", data[:30], "(truncated|unreadable): .+")
    yield skipped("bmp-bomb", bmp(b"", 24, size=(30000, 30000)), BOMB)
    yield skipped("bmp-bomb-top-down", bmp(b"\1", 24, size=(30000, -30000)), BOMB)
    yield skipped("bmp-of-negative-width", bmp(b"\0" * 99, 24, size=(-5, 5)), "unreadable: .+|.*decompression bomb")
    yield skipped("bmp-of-5-bits", bmp(b"\0" * 99, 5), "unreadable: .+")
    yield skipped("bmp-holding-a-jpeg", bmp(encoded(photo("in"), "JPEG"), 24, compression=4), "unreadable: .+")
    yield skipped("bmp-of-2-bits", bmp(bytes(8 * HEIGHT), 2, palette=bytes(range(16))), "unreadable: .+")
    cut = bmp(b"\5\1\0\0", 8, compression=1, palette=bytes(1023) + b"\1")
    yield skipped("bmp-rle8-cut", cut, "(truncated|unreadable): not enough image data")
    yield skipped("bmp-text-that-begins-alike", b"BMW builds cars, and " * 9, TEXT)


# ---------------------------------------------------------------- GIF

GIF = {"independent_decoder": "decode_gif"}


def gifs() -> Iterator[OddImage]:
    palette = photo("gif palette").reshape(-1, 3)[:128]
    for name, options in {
        "plain": {},
        "interlaced": {"interlaced": True},
        "with-a-local-palette": {"local": True},
    }.items():
        indices = samples_of(name, 7)[..., 0]
        data = gif(indices, palette.tobytes(), **options)
        yield decoded(f"gif-{name}", data, pixels=palette[indices], **GIF)
    indices = samples_of("gif transparent", 7)[..., 0]
    key = int(indices[3, 5])
    pixels = np.where((indices == key)[..., None], 255, palette[indices]).astype(np.uint8)
    # TensorFlow gives no alpha.
    yield decoded("gif-transparent", gif(indices, palette.tobytes(), transparent=key), pixels=pixels)
    yield decoded("gif-87a", b"GIF87a" + gif(indices[::-1], palette.tobytes())[6:], pixels=palette[indices[::-1]])
    yield decoded("gif-without-a-palette", gif(indices, b""), pixels=gray(indices))
    data = gif(indices[::2, ::2], palette.tobytes(), screen=(5, 5))
    yield decoded("gif-frame-larger-than-its-screen", data, pixels=palette[indices[::2, ::2]])
    small = np.zeros((HEIGHT, WIDTH), np.uint8)  # the background's index
    small[3:13, 5:16] = indices[:10, :11]
    data = gif(indices[:10, :11], palette.tobytes(), screen=(WIDTH, HEIGHT), at=(5, 3))
    yield decoded("gif-frame-smaller-than-its-screen", data, pixels=palette[small])
    frames = [Image.fromarray(photo(f"gif frame {number}")).quantize(32) for number in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, loop=0)
    yield decoded("gif-animated", data, pixels=np.asarray(frames[0].convert("RGB")), **GIF)
    yield decoded("gif-cut-in-its-second-frame", data[:-200], pixels=np.asarray(frames[0].convert("RGB")))
    yield decoded("gif-without-its-end-mark", gif(indices.T, palette.tobytes())[:-1], pixels=palette[indices.T])
    for name, extension in {
        "a-long-comment": b"!\xfe" + (b"\xff" + bytes(255)) * 40 + b"\0",
        "an-empty-application-block": b"!\xff\x0bNETSCAPE2.0\0",
        "an-empty-text": b"!\1\0",
    }.items():
        data = gif(indices[::-1], palette.tobytes(), transparent=key)
        data = data[: 13 + 384] + extension + data[13 + 384 :]
        yield decoded(f"gif-with-{name}", data, pixels=pixels[::-1])
    dot = np.array([[5]], np.uint8)
    yield decoded("gif-one-pixel", gif(dot, palette.tobytes()), pixels=palette[dot], **GIF)


def bad_gifs() -> Iterator[OddImage]:
    palette = photo("gif palette").reshape(-1, 3)[:128].tobytes()
    indices = samples_of("bad gif", 7)[..., 0]
    data = gif(indices, palette)
    yield skipped("gif-cut-in-half", data[: 13 + 384 + 200], "truncated: .+")
    yield skipped("gif-cut-in-its-header", data[:9], "truncated: .+")
    yield skipped("gif-without-a-frame", data[: 13 + 384] + b";", "(truncated|unreadable): .+")
    yield skipped("gif-bomb", gif(indices[:1, :1], palette, screen=(30000, 30000)), BOMB)
    bomb = gif(indices, palette)
    frame = 13 + 384
    bomb = bomb[: frame + 5] + struct.pack("<HH", 30000, 30000) + bomb[frame + 9 :]
    yield skipped("gif-bomb-in-its-frame", bomb, ".*decompression bomb")


# ---------------------------------------------------------------- TIFF


def tiffs() -> Iterator[OddImage]:
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
        pixels = photo(f"tif {compression}")
        yield decoded(f"tif-{compression}", encoded(pixels, "TIFF", compression=compression), pixels=pixels)
    data = encoded(photo("predictor"), "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    yield decoded("tif-lzw-with-predictor", data, pixels=photo("predictor"))
    jpeg = encoded(photo("tif jpeg"), "TIFF", compression="jpeg", quality=100)
    yield decoded("tif-jpeg", jpeg, pixels=photo("tif jpeg"), tolerance=4)
    for compression in ("tiff_ccitt", "group3", "group4"):
        bits = bits_of(compression)
        data = encoded(Image.fromarray(bits.astype(bool)), "TIFF", compression=compression)
        yield decoded(f"tif-{compression}", data, pixels=gray(bits * 255))
    for name, order, big in (("little-endian", "<", False), ("big-endian", ">", False), ("bigtiff", "<", True)):
        yield from _tiffs_by_hand(f"tif-{name}", order, big)
    frames = [Image.fromarray(photo(f"page {number}")) for number in range(3)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw")
    yield decoded("tif-of-three-pages", data, pixels=photo("page 0"))
    for orientation in (2, 6):
        pixels = photo(f"tif {orientation}")
        data = tiff([pixels.tobytes()], {258: (8,) * 3, 262: 2, 277: 3, 274: orientation})
        yield decoded(f"tif-orientation-{orientation}", data, pixels=UPRIGHT[orientation](pixels))
    yield from _tiffs_of_few_colors()
    for name, entry in {"text": (700, 3, 4, 8), "model": (271, 7, 1, 8), "exif": (34665, 4, 1, 2**32 - 1)}.items():
        pixels = photo(f"tif odd {name}")
        data = bytearray(tiff([pixels.tobytes()], {258: (8,) * 3, 262: 2, 277: 3, 65000: 1}))
        at = data.index(struct.pack("<HHI", 65000, 4, 1))  # the last tag: libtiff and Pillow take any order
        data[at : at + 12] = struct.pack("<HHII", *entry)
        yield decoded(f"tif-with-odd-{name}", bytes(data), pixels=pixels)
    pixels = photo("tif circle")
    data = tiff([pixels.tobytes()], {258: (8,) * 3, 262: 2, 277: 3}, next_page=8)
    yield decoded("tif-whose-next-page-is-nowhere", data, pixels=pixels)


def _tiffs_by_hand(name: str, order: str, big: bool) -> Iterator[OddImage]:
    """Yield the ways to store pixels, in one byte order."""
    options = {"order": order, "big": big}
    rgb = photo(name)
    color = {258: (8,) * 3, 262: 2, 277: 3}
    halves = [rgb[:10].tobytes(), rgb[10:].tobytes()]
    yield decoded(f"{name}-rgb", tiff(halves, {**color, 278: 10}, **options), pixels=rgb)
    planes = [rgb[..., channel].tobytes() for channel in range(3)]
    yield decoded(f"{name}-planar", tiff(planes, {**color, 284: 2}, **options), pixels=rgb)
    squeezed = [zlib.compress(plane) for plane in planes]
    yield decoded(f"{name}-planar-deflate", tiff(squeezed, {**color, 284: 2, 259: 8}, **options), pixels=rgb)
    tiles = tiles_of(rgb, 16)
    yield decoded(f"{name}-tiled", tiff(tiles, color, tile=16, **options), pixels=rgb)
    squeezed = [zlib.compress(tile) for tile in tiles]
    yield decoded(f"{name}-tiled-deflate", tiff(squeezed, {**color, 259: 8}, tile=16, **options), pixels=rgb)
    for depth in (1, 4, 8, 16):
        shades = samples_of(f"{name} {depth}", depth)
        strip = b"".join(packed(row, depth, order) for row in shades)
        data = tiff([strip], {258: depth, 262: 1}, **options)
        yield decoded(f"{name}-gray-{depth}-bit", data, pixels=gray(shades_of(shades, depth)))
    shades = samples_of(f"{name} inverted", 8)
    data = tiff([packed(shades, 8)], {258: 8, 262: 0}, **options)
    yield decoded(f"{name}-white-is-zero", data, pixels=gray(255 - shades))
    palette = photo(f"{name} palette").reshape(-1, 3)[:256]
    table = tuple(int(level) * 257 for level in palette.T.ravel())
    data = tiff([packed(shades[::-1], 8)], {258: 8, 262: 3, 320: table}, **options)
    yield decoded(f"{name}-palette", data, pixels=palette[shades[::-1, :, 0]])
    wide = samples_of(f"{name} wide", 16, 3)
    data = tiff([packed(wide, 16, order)], {**color, 258: (16,) * 3}, **options)
    yield decoded(f"{name}-rgb-16-bit", data, pixels=(wide >> 8).astype(np.uint8))
    rgba = photo(f"{name} rgba", 4)
    data = tiff([rgba.tobytes()], {258: (8,) * 4, 262: 2, 277: 4, 338: 2}, **options)
    yield decoded(f"{name}-rgba", data, pixels=on_white(rgba))
    cmyk = photo(f"{name} cmyk", 4).astype(float)
    data = tiff([cmyk.astype(np.uint8).tobytes()], {258: (8,) * 4, 262: 5, 277: 4}, **options)
    pixels = np.round((255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255).astype(np.uint8)
    yield decoded(f"{name}-cmyk", data, pixels=pixels, tolerance=1)


def _tiffs_of_few_colors() -> Iterator[OddImage]:
    """Yield YCbCr with one colour for four pixels, as TIFF 6.0 has it unless a tag says otherwise."""
    height, width = HEIGHT // 2 * 2, WIDTH // 2 * 2
    ycc = np.asarray(Image.fromarray(photo("ycc")[:height, :width]).convert("YCbCr"))
    luma, few = ycc[..., 0], ycc[::2, ::2, 1:]
    squares = luma.reshape(height // 2, 2, width // 2, 2).transpose(0, 2, 1, 3)
    units = np.concatenate([squares.reshape(-1, 4), few.reshape(-1, 2)], axis=1)
    full = np.dstack([luma, few.repeat(2, 0).repeat(2, 1)])
    pixels = np.asarray(Image.fromarray(full, "YCbCr").convert("RGB"))
    tags = {256: width, 257: height, 258: (8,) * 3, 262: 6, 277: 3}
    rows = units.reshape(height // 2, -1)
    strips = [rows[:5].tobytes(), rows[5:].tobytes()]
    for name, blocks, more in (
        ("", [rows.tobytes()], {278: height}),
        ("-in-strips", strips, {278: 10}),
        ("-with-deflate", [zlib.compress(strip) for strip in strips], {278: 10, 259: 8, 530: (2, 2)}),
    ):
        yield decoded(f"tif-of-few-colors{name}", tiff(blocks, tags | more), pixels=pixels, tolerance=1)


def bad_tiffs() -> Iterator[OddImage]:
    rgb = photo("bad tif")
    color = {258: (8,) * 3, 262: 2, 277: 3}
    data = tiff([rgb.tobytes()], color)
    fax = encoded(Image.fromarray(bits_of("bad fax").astype(bool)), "TIFF", compression="group4")
    yield skipped("tif-cut-in-half", data[: len(data) // 2], "(truncated|unreadable): .+")
    pillows = encoded(photo("pillows"), "TIFF")
    yield skipped("tif-cut-in-its-pixels", pillows[: len(pillows) // 2], "truncated: .+")
    yield skipped("tif-cut-in-its-header", data[:6], "truncated: .+")
    yield skipped("tif-deflate-of-garbage", tiff([b"garbage"], {**color, 259: 8}), "(truncated|unreadable): .+")
    yield skipped("tif-with-an-unknown-compression", tiff([b"garbage"], {**color, 259: 4711}), "unreadable: .+")
    yield skipped("tif-of-seven-samples", tiff([bytes(9999)], {258: (8,) * 7, 262: 2, 277: 7}), "unreadable: .+")
    yield skipped("tif-bomb", tiff([b"x"], {**color, 256: 30000, 257: 30000}), BOMB)
    yield skipped("tif-bomb-bigtiff", tiff([b"x"], {**color, 256: 30000, 257: 30000}, big=True), BOMB)
    raw = "camera RAW file \\(such as {}\\).*: develop it to JPEG or PNG"
    yield skipped("tif-nef", tiff([rgb.tobytes()], {**color, 254: 1, 330: 8}), raw.format("NEF"))
    yield skipped("tif-dng", tiff([rgb[::-1].tobytes()], {**color, 50706: 0x401}), raw.format("DNG"))
    yield skipped("tif-of-a-sensor", tiff([rgb.tobytes()], {258: 16, 262: 32803}), raw.format("DNG"))
    cr2 = b"II*\0\x10\0\0\0CR\2\0" + data[12:]
    yield skipped("tif-cr2", cr2, r"camera RAW file \(Canon CR2\): develop it to JPEG or PNG")
    strip = tiff([rgb[::-1].tobytes()], color, order=">", big=True)
    yield skipped("tif-big-endian-bigtiff", strip, "unreadable: missing dimensions")  # Pillow takes it for a TIFF
    yield skipped("tif-whose-only-page-is-nowhere", b"II*\0\xff\xff\xff\x7f" + bytes(50), "(truncated|unreadable): .+")
    yield skipped("tif-fax-of-no-known-width", fax.replace(struct.pack("<HHI", 256, 3, 1), b"\0" * 8), "unreadable: .+")
    for name, depth, sample_format, kind in (
        ("float", 32, 3, "floating-point"),
        ("signed-8-bit", 8, 2, "signed integer"),
        ("signed-16-bit", 16, 2, "32-bit or signed integer"),
        ("signed-32-bit", 32, 2, "32-bit or signed integer"),
        ("unsigned-32-bit", 32, 1, "32-bit or signed integer"),
    ):
        strip = bytes([sample_format]) * (HEIGHT * WIDTH * depth // 8)
        reason = f"{kind} pixels: which value is white is not known"
        yield skipped(f"tif-{name}", tiff([strip], {258: depth, 262: 1, 339: sample_format}), reason)


# ---------------------------------------------------------------- contents and names that do not match


TEXT = "text, not an image: download it again"


def misnamed() -> Iterator[OddImage]:
    pixels = photo("misnamed")
    for what, suffix in (("BMP", "jpg"), ("PNG", "gif"), ("GIF", "bmp"), ("TIFF", "jpeg"), ("PNG", "JPG")):
        image = Image.fromarray(pixels).quantize(16).convert("RGB")
        name = f"{what.lower()}-called-{suffix}"
        data = encoded(image if what != "GIF" else image.quantize(16), what)
        yield decoded(name, data + name.encode(), suffix=suffix, pixels=np.asarray(image))
    yield decoded("jpeg-called-png", encoded(photo("jcp"), "JPEG"), suffix="png", **JPEG)
    yield decoded("webp-called-jfif", encoded(photo("wcj"), "WEBP", lossless=True), suffix="jfif", pixels=photo("wcj"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("photo.jpg", encoded(photo("zip"), "JPEG"))
    small = Image.fromarray(photo("other format"))
    page = r"web page \(HTML\), not an image: download it again"
    save = "save it as JPEG or PNG"
    for name, content, suffix, reason in (
        ("html-saved-as-an-image", b"<html><body>404 Not Found</body></html>", "jpg", page),
        ("html-after-a-byte-order-mark", b"\xef\xbb\xbf<!DOCTYPE html><title>Sign in</title>", "jpg", page),
        ("json-error", b'{"error": "quota exceeded"}', "png", "JSON text, not an image: download it again"),
        ("text", b"this is no image", "png", TEXT),
        ("text-in-utf-16", "no image".encode("utf-16"), "jpg", TEXT),
        ("zip", archive.getvalue(), "png", "zip archive: unpack it"),
        ("gzip-of-an-image", gzip.compress(encoded(photo("gz"), "PNG"), mtime=0), "png", "gzip file: unpack it"),
        (
            "git-lfs-pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "jpg",
            "Git LFS pointer, not an image: fetch the image with git lfs pull",
        ),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "png", "SVG drawing: save it as PNG"),
        ("pdf", b"%PDF-1.7\n%%EOF", "tif", "PDF document: save its pages as JPEG or PNG"),
        ("jpeg-2000", encoded(small, "JPEG2000"), "jpg", f"JPEG 2000 image: {save}"),
        ("ico", encoded(small, "ICO"), "bmp", rf"icon \(ICO\): {save}"),
        ("ppm", encoded(small, "PPM"), "bmp", f"PNM image: {save}"),
        ("eps", encoded(small, "EPS"), "tiff", rf"PostScript file \(EPS\): {save}"),
    ):
        yield skipped(name, content, reason, suffix=suffix)
    for name, content, suffix in (
        ("zeros", bytes(5000), "jpg"),
        ("one-byte", b"\xff", "jpg"),
        ("escape-sequences", b"\x1b[31m\x1b]0;owned\x07", "gif"),
        ("jpeg-after-a-space", b" " + encoded(small, "JPEG"), "jpg"),
    ):
        yield skipped(name, content, f"not an image: first bytes {content[:4].hex()}", suffix=suffix)
    yield skipped("empty-file", b"", "empty file", suffix="jpg")


# ---------------------------------------------------------------- names

#: What a file may be called. The kinds with a name of each are one that is read and one that is refused.
NAMES = {
    "newline": b"a\nb",
    "carriage-return": b"a\rb",
    "escape-sequence": b"\x1b[31mred\x1b[0m\x07",
    "c1-control": "\x9b31m".encode(),
    "quotes": b'it\'s "it"',
    "comma-and-semicolon": b'a,"b";c',
    "emoji": "🐈‍⬛👩‍🚀".encode(),
    "undecodable": b"\xff\xfe\x80",
    "right-to-left-override": "\u202egpj.exe".encode(),
    "line-separator": "a\u2028b".encode(),
    "of-255-bytes": b"n" * 251,
    "leading-dash": b"-rf",
    "leading-spaces": b"  padded ",
    "nothing-but-spaces": b"   ",
    "wildcards": b"*?[a-z]{1,2}",
    "percent": b"%s%n%d%%",
    "braces": b"{0.__class__}{}",
    "markup": b"<script>alert(1)<&amp;[red]",
    "backslash": b"a\\nb\\",
    "tilde-and-dollar": b"~$HOME`id`",
    "decomposed-accents": "c\u0327a va".encode(),
    "two-suffixes": b"photo.txt",
}


def names() -> Iterator[OddImage]:
    for name, stem in NAMES.items():
        pixels = photo(f"name {name}")
        yield decoded(f"name-{name}", png(pixels, 8, 2), pixels=pixels, file_name=stem + b".jpg")
        content = f"no image, called {name}".encode()
        yield skipped(f"name-{name}-of-text", content, TEXT, file_name=stem[:-1] + b"#.jpg")
    for suffix in ("jpe", "dib", "JPEG", "tIfF", "avif", "HEIC", "hif"):
        pixels = photo(f"suffix {suffix}")
        yield decoded(f"suffix-{suffix}", png(pixels, 8, 2), suffix=suffix, pixels=pixels)


# ---------------------------------------------------------------- what is no image by its name, or no file


def unnamed() -> Iterator[OddImage]:
    image = encoded(photo("unnamed"), "PNG")
    for name, file_name in {
        "no-suffix": b"image",
        "suffix-of-text": b"labels.txt",
        "suffix-after-the-suffix": b"image.jpg.bak",
        "suffix-with-a-dot": b"image.jpg.",
        "suffix-with-a-space": b"image.jpg ",
        "suffix-of-a-format-not-read": b"image.jp2",
        "suffix-of-a-thumbnail-database": b"Thumbs.db",
        "suffix-on-another-line": b"image.jpg\n",
    }.items():
        yield left_out(name, file_name, image + name.encode(), Outcome.NO_IMAGE_BY_NAME)
    for name, file_name in {
        "hidden-image": b".hidden.jpg",
        "suffix-alone": b".jpg",
        "resource-fork": b"._photo.jpg",
    }.items():
        yield left_out(name, file_name, image + name.encode(), Outcome.PASSED_OVER)


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, _: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the full path may be too long for a socket
    finally:
        os.close(folder)


def _device(kind: int, number: tuple[int, int]) -> Maker:
    return lambda path, _: os.mknod(path, kind | 0o600, os.makedev(*number))


def _empty_folder(path: Path, _: Path) -> None:
    path.mkdir()


def _folder_with_image(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "inside.png").write_bytes(png(photo("inside"), 8, 2))


def _link_to(target: str) -> Maker:
    return lambda path, _: path.symlink_to(target)


def _link_to_image_beside(path: Path, _: Path) -> None:
    original = path.with_name("original.png")
    original.write_bytes(png(photo("original"), 8, 2))
    path.symlink_to(original.name)


def _hard_link(path: Path, outside: Path) -> None:
    (outside / "hard.png").write_bytes(png(photo("hard"), 8, 2))
    path.hardlink_to(outside / "hard.png")


def _link_outside(path: Path, outside: Path) -> None:
    (outside / "outside.png").write_bytes(png(photo("outside"), 8, 2))
    path.symlink_to(outside / "outside.png")


def _link_to_folder_outside(path: Path, outside: Path) -> None:
    (outside / "folder").mkdir()
    (outside / "folder" / "far.png").write_bytes(png(photo("far"), 8, 2))
    path.symlink_to(outside / "folder")


def _link_to_bad_file_outside(path: Path, outside: Path) -> None:
    (outside / "bad").write_bytes(b"bad, and outside")
    path.symlink_to(outside / "bad")


def _sparse(path: Path, _: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate((512 << 20) + 1)


def no_files() -> Iterator[OddImage]:
    special = "not a regular file"
    yield skipped("fifo", _fifo, special, suffix="jpg", scan_reason="a FIFO, not a file")
    yield skipped("socket", _socket, special, suffix="jpg", scan_reason="a socket, not a file")
    for name, kind, number in (("character", 0o020000, (1, 5)), ("block", 0o060000, (7, 250))):
        device = _device(kind, number)
        yield skipped(f"{name}-device", device, special, suffix="jpg", scan_reason="a device, not a file")
    yield skipped("link-to-a-device", _link_to("/dev/zero"), special, suffix="jpg", scan_reason="a device, not a file")
    loop = {"suffix": "jpg", "scan_reason": "Too many levels of symbolic links"}
    yield skipped("link-to-itself", _link_to("link-to-itself.jpg"), "symlink loop", **loop)
    yield skipped("link-in-a-circle", _link_to("link-in-a-circle-back.jpg"), "symlink loop", **loop)
    yield skipped("link-in-a-circle-back", _link_to("link-in-a-circle.jpg"), "symlink loop", **loop)
    missing = {"suffix": "jpg", "scan_reason": "No such file or directory"}
    yield skipped("link-to-nothing", _link_to("nothing"), "no such file", **missing)
    below = {"suffix": "jpg", "scan_reason": "Not a directory"}
    yield skipped("link-below-a-file", _link_to("/dev/null/x.jpg"), "no such file", **below)
    beside = {"suffix": "jpg", "pixels": photo("original"), "n_files": 2}
    yield decoded("link-to-an-image-beside", _link_to_image_beside, **beside)
    yield decoded("hard-link", _hard_link, suffix="jpg", pixels=photo("hard"))
    yield decoded("link-to-an-image-outside", _link_outside, suffix="jpg", pixels=photo("outside"))
    folder = {"suffix": "jpg", "inside": "far.png", "pixels": photo("far")}
    yield decoded("link-to-a-folder-outside", _link_to_folder_outside, **folder)
    yield skipped("link-to-a-bad-file-outside", _link_to_bad_file_outside, TEXT, suffix="jpg")
    inside = {"suffix": "jpg", "inside": "inside.png", "pixels": photo("inside")}
    yield decoded("folder-with-an-image", _folder_with_image, **inside)
    yield left_out("folder-that-is-empty", b"empty.jpg", _empty_folder, Outcome.PASSED_OVER)
    yield left_out("link-to-the-folder-above", b"above.jpg", _link_to(".."), Outcome.PASSED_OVER)
    yield left_out("link-to-its-own-folder", b"here.jpg", _link_to("."), Outcome.PASSED_OVER)
    yield skipped("larger-than-the-limit", _sparse, "larger than 512 MiB", suffix="jpg")


@cache
def table() -> tuple[OddImage, ...]:
    """Return all kinds."""
    return tuple(
        kind
        for kinds in (
            *(jpegs, bad_jpegs, pngs, bad_pngs, webps, bad_webps, bmps, bad_bmps, gifs, bad_gifs, tiffs, bad_tiffs),
            *(misnamed, names, unnamed, no_files),
        )
        for kind in kinds()
    )
