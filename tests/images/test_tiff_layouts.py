"""Every way in which a TIFF lays out its samples gives the picture that was put in, or is refused: nothing between.

The files are written by hand, byte by byte. tifffile and libvips read the same samples from files of the same layouts.
"""

import itertools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from featx.errors import ImageError
from featx.images.decode import decode_image
from tests.images.odd_images import HEIGHT, WIDTH, lab_of, lzw, packed, photo, tiff

ALPHA, PREMULTIPLIED, UNKNOWN = 2, 1, 0

#: Colour spaces: PhotometricInterpretation, samples of colour, and what the samples beyond them are.
SPACES = {
    "gray": (1, 1, ()),
    "white is zero": (0, 1, ()),
    "gray, alpha": (1, 1, (ALPHA,)),
    "gray, premultiplied": (1, 1, (PREMULTIPLIED,)),
    "gray, unknown": (1, 1, (UNKNOWN,)),
    "white is zero, alpha": (0, 1, (ALPHA,)),
    "RGB": (2, 3, ()),
    "RGB, alpha": (2, 3, (ALPHA,)),
    "RGB, premultiplied": (2, 3, (PREMULTIPLIED,)),
    "RGB, unknown": (2, 3, (UNKNOWN,)),
    "RGB, alpha, unknown": (2, 3, (ALPHA, UNKNOWN)),
    "palette": (3, 1, ()),
    "palette, alpha": (3, 1, (ALPHA,)),
    "CMYK": (5, 4, ()),
    "CMYK, unknown": (5, 4, (UNKNOWN,)),
    "CMYK, alpha": (5, 4, (ALPHA,)),
    "YCbCr": (6, 3, ()),
    "CIELAB": (8, 3, ()),
    "ICC Lab": (9, 3, ()),
}

UNSIGNED, SIGNED, FLOAT = 1, 2, 3

#: What can be read: bits, and whether samples are interleaved ("chunky") or in planes. All else is refused.
CHUNKY, PLANAR = 1, 2
RIGHT = {
    (8, CHUNKY): set(SPACES) - {"white is zero, alpha", "CMYK, alpha", "ICC Lab"},
    (8, PLANAR): {
        *("gray", "white is zero", "gray, unknown", "palette", "YCbCr"),
        *("RGB", "RGB, alpha", "RGB, premultiplied", "RGB, unknown", "CMYK", "CMYK, unknown"),
    },
    (16, CHUNKY): {"gray", "white is zero", "RGB", "RGB, alpha", "RGB, premultiplied", "RGB, unknown", "CMYK"},
    (16, PLANAR): {
        *("gray", "white is zero", "gray, unknown"),
        *("RGB", "RGB, alpha", "RGB, premultiplied", "RGB, unknown", "CMYK", "CMYK, unknown"),
    },
    (12, CHUNKY): {"gray"},
    (12, PLANAR): {"gray", "gray, unknown"},
}

#: Of these, Pillow knows the little-endian order only.
LITTLE_ENDIAN_ONLY = {(16, "white is zero"), (12, "gray"), (12, "gray, unknown")}

ENCODINGS: dict[str, tuple[int, int, Callable[[bytes], bytes]]] = {
    "uncompressed": (1, 1, bytes),
    "deflate": (8, 1, zlib.compress),
    "deflate of differences": (8, 2, zlib.compress),
    "LZW": (5, 1, lzw),
    "LZW of differences": (5, 2, lzw),
}


@dataclass(frozen=True)
class Layout:
    """How samples lie in a file."""

    planes: int
    tile: int
    order: str
    encoding: str

    def __str__(self) -> str:
        planes, tile = ("planar" if self.planes == PLANAR else "chunky"), ("tiles" if self.tile else "strips")
        return f"{planes}, {tile}, {self.order}, {self.encoding}"


LAYOUTS = [Layout(*each) for each in itertools.product((CHUNKY, PLANAR), (0, 16), "<>", ENCODINGS)]


def samples_of(space: str, bits: int) -> np.ndarray:
    """Return `(HEIGHT, WIDTH, samples)` uint32 below `2**bits`: a photo."""
    photometric, n_colors, extra = SPACES[space]
    levels = photo(space, n_colors + len(extra)).astype(np.float64)
    if photometric == 8:
        levels[...] = lab_of(80 + levels / 3)  # no colour that sRGB lacks
    if PREMULTIPLIED in extra:
        levels[..., :n_colors] *= levels[..., n_colors : n_colors + 1] / 255
    fine = levels.round() + photo("fine", 1) / 256  # for the bits beyond eight
    return np.floor(fine * 2.0 ** (bits - 8)).astype(np.uint32) if bits > 8 else levels.round().astype(np.uint32)


def palette() -> np.ndarray:
    return photo("palette").reshape(-1, 3)[:256]


def picture_of(space: str, samples: np.ndarray, bits: int) -> np.ndarray:
    """Return the picture `(HEIGHT, WIDTH, 3)`, 0 to 255 and not rounded, that the samples stand for."""
    photometric, n_colors, extra = SPACES[space]
    # docs/images.md: of 16 bits in colour, the high byte counts.
    levels = (samples >> 8) / 255 if bits == 16 and n_colors > 1 else samples / (2**bits - 1)
    color = levels[..., :n_colors]
    if photometric == 0:
        color = 1 - color
    elif photometric == 3:
        color = palette()[samples[..., 0]] / 255
    elif photometric == 5:
        color = (1 - color[..., :3]) * (1 - color[..., 3:])
    elif photometric == 6:  # ITU-R BT.601, as in JFIF
        luma, blue, red = (color[..., i] - (128 / 255 if i else 0) for i in range(3))
        color = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    elif photometric == 8:
        color = (80 + photo(space) / 3) / 255
    if extra and extra[0] != UNKNOWN:
        alpha = levels[..., n_colors : n_colors + 1]
        color = color + 1 - alpha if extra[0] == PREMULTIPLIED else color * alpha + 1 - alpha
    return np.broadcast_to(np.clip(color, 0, 1) * 255, (HEIGHT, WIDTH, 3))


def blocks_of(plane: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """Yield strips of seven rows, or tiles filled up with zeros, of `(HEIGHT, WIDTH, samples)`."""
    if not tile:
        yield from (plane[y : y + 7] for y in range(0, HEIGHT, 7))
        return
    padded = np.zeros((HEIGHT + tile, WIDTH + tile, plane.shape[2]), plane.dtype)
    padded[:HEIGHT, :WIDTH] = plane
    for y, x in itertools.product(range(0, HEIGHT, tile), range(0, WIDTH, tile)):
        yield padded[y : y + tile, x : x + tile]


def differences(block: np.ndarray, bits: int) -> np.ndarray:
    """Return each sample less the one on its left (TIFF 6.0, predictor 2)."""
    left = np.zeros_like(block)
    left[:, 1:] = block[:, :-1]
    return (block - left) % 2**bits


def file_of(space: str, samples: np.ndarray, bits: int, sample_format: int, layout: Layout) -> bytes:
    photometric, n_colors, extra = SPACES[space]
    n_samples = n_colors + len(extra)
    compression, predictor, encode = ENCODINGS[layout.encoding]
    planes = [samples] if layout.planes == CHUNKY else [samples[..., i : i + 1] for i in range(n_samples)]
    blocks = [block for plane in planes for block in blocks_of(plane, layout.tile)]
    if predictor == 2:
        blocks = [differences(block.astype(np.int64), bits) for block in blocks]
    content = [encode(b"".join(packed(row, bits, layout.order) for row in block)) for block in blocks]
    tags = {258: (bits,) * n_samples, 259: compression, 262: photometric, 277: n_samples, 278: 7, 284: layout.planes}
    tags |= {317: predictor} if predictor == 2 else {}
    tags |= {338: extra} if extra else {}
    tags |= {339: (sample_format,) * n_samples} if sample_format != UNSIGNED else {}
    tags |= {320: tuple(int(level) * 257 for level in palette().T.ravel())} if photometric == 3 else {}
    tags |= {530: (1, 1)} if photometric == 6 else {}
    return tiff(content, tags, order=layout.order, tile=layout.tile)


def is_right(space: str, bits: int, sample_format: int, layout: Layout) -> bool:
    if sample_format != UNSIGNED or space not in RIGHT.get((bits, layout.planes), ()):
        return False
    return layout.order == "<" or (bits, space) not in LITTLE_ENDIAN_ONLY


def layouts(bits: int, sample_format: int) -> list[Layout]:
    """Return all; of numbers that are refused as such, and of 12 bits, those of the two simplest encodings."""
    if sample_format == UNSIGNED and bits in {8, 16}:
        return LAYOUTS
    return [layout for layout in LAYOUTS if layout.encoding in {"uncompressed", "deflate"}]


@pytest.mark.parametrize(
    ("bits", "sample_format"),
    [*itertools.product((8, 12, 16, 32), [UNSIGNED]), (8, SIGNED), (16, SIGNED), (16, FLOAT), (32, FLOAT)],
)
@pytest.mark.parametrize("space", SPACES)
def test_a_tiff_of_any_layout_is_the_picture_that_was_put_in_or_is_refused(space, bits, sample_format):
    samples = samples_of(space, bits)
    tolerance = 4 if space == "CIELAB" else 1  # eight bits of CIELAB are coarse
    wrong = defaultdict(list)
    for layout in layouts(bits, sample_format):
        try:
            pixels = decode_image(file_of(space, samples, bits, sample_format, layout), (HEIGHT, WIDTH))
        except ImageError:
            outcome = "refused"
        else:
            difference = np.abs(pixels - picture_of(space, samples, bits)).max()
            outcome = "right" if difference <= tolerance + 0.5 else f"{difference:.0f} levels off"
        if outcome != ("right" if is_right(space, bits, sample_format, layout) else "refused"):
            wrong[outcome].append(str(layout))
    assert wrong == {}


def test_the_table_of_what_can_be_read_names_spaces_that_are_tried():
    assert set().union(*RIGHT.values()) <= set(SPACES)
    assert len(LAYOUTS) == 40
