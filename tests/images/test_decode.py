import errno
import itertools
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from featx.errors import ImageError
from featx.images import decode
from featx.images.decode import IMAGE_SUFFIXES, decode_image, decode_into, quiet_pillow, read_file
from featx.storage import files
from featx.storage.paths import as_storage_path
from tests.images.odd_images import UPRIGHT, lab_of

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)


@cache
def noise(height=HEIGHT, width=WIDTH, channels=3):
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height=HEIGHT, width=WIDTH):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1).astype(np.uint8)


def encoded(image, file_format, **options):
    stream = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, file_format, **options)
    return stream.getvalue()


def png(width, height, bit_depth, color_type, rows, *, trns=None):
    """A PNG file from its packed rows, written without Pillow."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0))
    transparency = chunk(b"tRNS", trns) if trns else b""
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + transparency + pixels + chunk(b"IEND", b"")


def tiff(pixels, photometric, bits, *, width=None, order="<", sample_format=None, extra=None, orientation=None):
    """An uncompressed TIFF file of one strip, written without Pillow. `bits`: of each sample."""
    samples = len(bits)
    tags = {256: width or pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: photometric, 277: samples}
    tags |= {278: pixels.shape[0], 279: pixels.nbytes}
    tags |= {} if sample_format is None else {339: sample_format}
    tags |= {} if extra is None else {338: extra}
    tags |= {} if orientation is None else {274: orientation}
    n_tags = len(tags) + 2
    bits_at = 8 + 2 + 12 * n_tags + 4
    entries = {tag: struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items()}
    entries[273] = struct.pack(order + "HHII", 273, 4, 1, bits_at + 2 * samples)
    inline = struct.pack(order + "HH", bits[0], bits[-1] if samples == 2 else 0)
    where = inline if samples <= 2 else struct.pack(order + "I", bits_at)
    entries[258] = struct.pack(order + "HHI", 258, 3, samples) + where
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", n_tags) + b"".join(entries[tag] for tag in sorted(entries)) + b"\0" * 4
    lengths = struct.pack(f"{order}{samples}H", *bits)
    return magic + struct.pack(order + "I", 8) + directory + lengths + pixels.tobytes()


def on_white(color, alpha):
    alpha = alpha[..., None] / 255
    return np.floor(color * alpha + 255 * (1 - alpha) + 0.5)


def assert_shades(actual, shades):
    np.testing.assert_array_equal(actual, np.repeat(np.asarray(shades)[..., None], 3, axis=2))


def reason(data, size=(8, 8)):
    with pytest.raises(ImageError) as raised:
        decode_image(data, size)
    return str(raised.value)


# ---------------------------------------------------------------- formats and modes


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("DIB", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_lossless_formats_give_their_pixels_exactly(file_format, options):
    pixels = decode_image(encoded(noise(), file_format, **options), SIZE)
    np.testing.assert_array_equal(pixels, noise())
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_is_decoded_in_full_when_it_is_not_large(options):
    data = encoded(smooth(), "JPEG", quality=95, **options)
    assert np.abs(decode_image(data, SIZE).astype(int) - smooth()).max() <= 6


def test_a_lossy_webp_is_close_to_its_original():
    pixels = decode_image(encoded(smooth(), "WEBP", quality=100), SIZE)
    assert np.abs(pixels.astype(int) - smooth()).max() <= 8


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "JPEG", "GIF"])
def test_grayscale_becomes_three_equal_channels(file_format):
    shades = np.repeat(np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5, 8, axis=0), 8, axis=1)
    assert_shades(decode_image(encoded(shades, file_format, quality=100), SIZE), shades)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_one_bit_images_are_black_and_white(file_format):
    bits = noise()[..., 0] > 127
    assert_shades(decode_image(encoded(Image.fromarray(bits), file_format), SIZE), bits * 255)


def test_a_fax_is_black_on_white():
    bits = noise()[..., 0] > 127
    data = encoded(Image.fromarray(bits), "TIFF", compression="group4")
    assert_shades(decode_image(data, SIZE), bits * 255)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_palette_images_show_their_palette(file_format):
    palette = noise(16, 16).reshape(256, 3)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decode_image(encoded(image, file_format), (16, 16)), palette.reshape(16, 16, 3))


@pytest.mark.parametrize(("file_format", "transparency"), [("PNG", 7), ("GIF", 7), ("PNG", bytes(range(256)))])
def test_transparent_palette_entries_lie_on_white(file_format, transparency):
    palette = noise(16, 16).reshape(256, 3)
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("P")
    image.putpalette(palette.tobytes())
    alpha = np.full(256, 255) if isinstance(transparency, int) else np.frombuffer(transparency, np.uint8)
    if isinstance(transparency, int):
        alpha[transparency] = 0
    pixels = decode_image(encoded(image, file_format, transparency=transparency), (16, 16))
    np.testing.assert_array_equal(pixels, on_white(palette, alpha).reshape(16, 16, 3))


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_rgba_lies_on_white(file_format, options):
    rgba = noise(channels=4)
    pixels = decode_image(encoded(rgba, file_format, exact=True, **options), SIZE)
    np.testing.assert_array_equal(pixels, on_white(rgba[..., :3], rgba[..., 3]))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grayscale_with_alpha_lies_on_white(file_format):
    la = noise(channels=2)
    pixels = decode_image(encoded(Image.fromarray(la, "LA"), file_format), SIZE)
    np.testing.assert_array_equal(pixels, on_white(np.repeat(la[..., :1], 3, axis=2), la[..., 1]))


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_alpha_is_not_multiplied_again(channels):
    straight = noise(channels=channels)
    alpha = straight[..., -1]
    premultiplied = straight.copy()
    premultiplied[..., :-1] = np.round(straight[..., :-1] * (alpha[..., None] / 255))
    data = tiff(premultiplied, photometric=channels // 2, bits=(8,) * channels, extra=1)
    expected = premultiplied[..., :-1].astype(int) + 255 - alpha[..., None]
    assert np.abs(decode_image(data, SIZE).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("bit_depth", "color_type", "rows", "key", "expected"),
    [
        (2, 0, [0b00_01_10_11], (1,), [0, 255, 170, 255]),
        (4, 0, [0x0F, 0x84], (15,), [0, 255, 136, 68]),
        (8, 0, [0, 9, 100, 255], (9,), [0, 255, 100, 255]),
        (1, 0, [0b0101_0000], (0,), [255, 255, 255, 255]),
    ],
)
def test_the_transparent_shade_of_a_png_is_white_at_every_bit_depth(bit_depth, color_type, rows, key, expected):
    data = png(4, 1, bit_depth, color_type, [bytes(rows)], trns=struct.pack(">H", *key))
    assert_shades(decode_image(data, (1, 4)), [expected])


@pytest.mark.parametrize(("bit_depth", "scale"), [(8, 1), (16, 257)])
def test_the_transparent_color_of_a_png_is_white_at_every_bit_depth(bit_depth, scale):
    colors = np.array([[(10, 20, 30), (11, 20, 30)]]) * scale
    key = struct.pack(">3H", *colors[0, 0])
    rows = [colors.astype(f">u{bit_depth // 8}").tobytes()]
    assert decode_image(png(2, 1, bit_depth, 2, rows, trns=key), (1, 2)).tolist() == [[[255] * 3, [11, 20, 30]]]


def test_cmyk_tiff_is_converted_to_rgb():
    cmyk = noise(channels=4)
    expected = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    pixels = decode_image(encoded(Image.fromarray(cmyk, "CMYK"), "TIFF"), SIZE)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("transform", [0, 2])
def test_adobe_cmyk_and_ycck_jpegs_are_not_inverted(transform):
    stored = (90, 140, 170, 200)  # as in the file: Adobe stores 255 - ink
    flat = Image.new("CMYK", (WIDTH, HEIGHT), tuple(255 - level for level in stored))
    data = encoded(flat, "JPEG", quality=100)
    marker = data.index(b"Adobe") + 11
    data = data[:marker] + bytes([transform]) + data[marker + 1 :]
    y, cb, cr, k = stored
    if transform == 2:  # JFIF's YCbCr to RGB; the ink is what RGB lacks
        rgb = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128))
        expected = np.array([(255 - level) * k / 255 for level in rgb])
    else:
        expected = np.array(stored[:3]) * k / 255
    assert np.abs(decode_image(data, (1, 1))[0, 0] - expected).max() <= 3


def test_16_bit_shades_are_scaled_not_clipped():
    shades = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(SIZE)
    expected = np.floor(shades / 257 + 0.5)
    big, little = shades.astype(">u2"), shades.astype("<u2")
    for data in (
        png(WIDTH, HEIGHT, 16, 0, [row.tobytes() for row in big]),
        tiff(little, 1, (16,)),
        tiff(big, 1, (16,), order=">"),
        encoded(shades, "TIFF", compression="tiff_deflate"),
        tiff((65535 - little).astype("<u2"), 0, (16,)),  # 0 is white
    ):
        assert_shades(decode_image(data, SIZE), expected)


def test_the_transparent_16_bit_shade_is_white():
    data = png(3, 1, 16, 0, [struct.pack(">3H", 0, 257, 258)], trns=struct.pack(">H", 257))
    assert_shades(decode_image(data, (1, 3)), [[0, 255, 1]])


def test_12_bit_shades_fill_the_range():
    packed = np.array([[0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10]], np.uint8)  # 000 fff 800 010
    data = tiff(packed, 1, (12,), width=4)
    assert_shades(decode_image(data, (1, 4)), [[0, 255, 128, 1]])


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_color_keeps_its_high_byte(color_type, channels):
    wide = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(">u2")
    high = (wide >> 8).astype(np.uint8)
    pixels = decode_image(png(WIDTH, HEIGHT, 16, color_type, [row.tobytes() for row in wide]), SIZE)
    if channels == 3:
        np.testing.assert_array_equal(pixels, high)
    else:
        np.testing.assert_array_equal(pixels, on_white(high[..., :-1], high[..., -1]) + np.zeros(3))


@pytest.mark.parametrize(
    ("dtype", "sample_format", "kind"),
    [("<f4", 3, "floating-point"), ("<i4", 2, "32-bit"), ("<u4", 1, "32-bit"), ("<i2", 2, "32-bit"), ("<i1", 2, "")],
)
def test_pixels_of_unknown_range_are_refused_not_guessed(dtype, sample_format, kind):
    pixels = np.zeros((4, 4), dtype)
    message = reason(tiff(pixels, 1, (pixels.itemsize * 8,), sample_format=sample_format))
    assert message.startswith(kind)
    assert message.endswith("pixels: which value is white is not known")


def test_lab_tiff_is_converted_to_srgb():
    rgb = np.array([[(128, 128, 128), (255, 255, 255), (0, 0, 0), (180, 90, 60), (60, 120, 170), (90, 150, 80)]])
    data = tiff(lab_of(rgb), 8, (8, 8, 8))
    assert np.abs(decode_image(data, (1, 6)).astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_counts(file_format):
    first, second = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (16, 16), (30, 30, 200))
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(first, file_format, save_all=True, append_images=[second], **options)
    assert np.abs(decode_image(data, (4, 4)).astype(int) - (200, 30, 30)).max() <= 3


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "bitmap.jpg"
    path.write_bytes(encoded(noise(), "BMP"))
    np.testing.assert_array_equal(decode_image(read_file(path), SIZE), noise())


@pytest.mark.parametrize(
    ("file_format", "name"),
    [
        ("JPEG2000", "JPEG 2000 image"),
        ("PPM", "PNM image"),
        ("ICO", "icon (ICO)"),
        ("EPS", "PostScript file (EPS)"),
        ("DDS", "DDS texture"),
        ("TGA", ""),
        ("PCX", ""),
    ],
)
def test_formats_that_were_not_asked_for_are_refused(file_format, name):
    data = encoded(smooth(), file_format)
    unnamed = f"not an image: first bytes {data[:4].hex()}"
    assert reason(data) == (f"{name}: save it as JPEG or PNG" if name else unnamed)


def test_every_suffix_is_lower_case_and_starts_with_a_dot():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


# ---------------------------------------------------------------- orientation and size


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_deflate"})],
)
def test_exif_orientation_is_applied_once(orientation, file_format, options):
    data = encoded(noise(), file_format, exif=exif(orientation), **options)
    expected = UPRIGHT[orientation](noise())
    np.testing.assert_array_equal(decode_image(data, expected.shape[:2]), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("enlarged", [1, 16])
def test_exif_orientation_is_applied_to_jpegs_at_full_and_at_reduced_scale(orientation, enlarged):
    stored = smooth(HEIGHT * enlarged, WIDTH * enlarged)
    expected = UPRIGHT[orientation](smooth())
    data = encoded(stored, "JPEG", quality=95, exif=exif(orientation))
    pixels = decode_image(data, expected.shape[:2]).astype(int)
    assert np.abs(pixels - expected).max() <= 6


def test_orientation_of_a_jpeg_may_be_in_its_xmp_data_alone():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    expected = UPRIGHT[6](smooth())
    pixels = decode_image(encoded(smooth(), "JPEG", quality=95, xmp=xmp), expected.shape[:2])
    assert np.abs(pixels.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(orientation):
    data = encoded(noise(), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode_image(data, SIZE), noise())


def test_damaged_exif_data_does_not_lose_the_image():
    data = encoded(smooth(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert np.abs(decode_image(data, SIZE).astype(int) - smooth()).max() <= 6


def triangle_weights(n_in, n_out):
    """Bilinear with antialiasing: a triangle as wide as two output pixels (or two input pixels, when enlarging)."""
    scale = n_in / n_out
    support = max(scale, 1.0)
    centers = (np.arange(n_out) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(n_in) + 0.5 - centers[:, None]) / support)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(224, 224), (13, 7), (48, 20), (20, 64), (1, 1)])
def test_resizing_is_bilinear_with_antialiasing_over_the_full_image(size):
    rows, columns = triangle_weights(HEIGHT, size[0]), triangle_weights(WIDTH, size[1])
    expected = np.einsum("ay,bx,yxc->abc", rows, columns, noise())
    assert np.abs(decode_image(encoded(noise(), "PNG"), size) - expected).max() <= 1.01  # Pillow rounds twice


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_shapes_are_stretched(height, width):
    pixels = decode_image(encoded(Image.new("RGB", (width, height), (1, 2, 3)), "PNG"), (30, 20))
    assert pixels.shape == (30, 20, 3)
    assert (pixels == (1, 2, 3)).all()


def test_a_column_of_pixels_is_resized_the_same_in_either_order(monkeypatch):
    data = encoded(noise(2000, 3), "PNG")
    usual = decode_image(data, (50, 40)).astype(int)
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)  # the image passes, its row-wise enlargement does not
    assert np.abs(decode_image(data, (50, 40)) - usual).max() <= 1


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF"])
def test_an_image_is_decoded_to_its_place_in_a_batch_and_nowhere_else(file_format):
    batch = np.full((3, 20, 30, 3), 77, np.uint8)
    data = encoded(noise(), file_format)
    decode_into(batch[1], data)
    np.testing.assert_array_equal(batch[1], decode_image(data, (20, 30)))
    assert (batch[[0, 2]] == 77).all()


# ---------------------------------------------------------------- JPEG at reduced scale


@cache
def sample_photos():
    datasets = pytest.importorskip("sklearn.datasets")
    return [Image.fromarray(pixels) for pixels in datasets.load_sample_images().images]


def scaled_and_full(data, size, monkeypatch):
    scaled = decode_image(data, size).astype(float)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "JPEG_SCALE_MARGIN", 1000)
        return scaled, decode_image(data, size).astype(float)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("box", [(0, 0, 640, 427), (3, 5, 636, 426)])
def test_reduced_scale_changes_pixels_by_less_than_rounding(scale, box, monkeypatch):
    for photo, quality, subsampling in itertools.product(sample_photos(), (60, 95), (0, 2)):
        data = encoded(photo.crop(box), "JPEG", quality=quality, subsampling=subsampling)
        size = (photo.height // scale // 4 - 1, photo.width // scale // 4 - 1)
        scaled, full = scaled_and_full(data, size, monkeypatch)
        assert (scaled != full).any()  # or nothing was reduced
        assert np.abs(scaled - full).mean() <= 0.55
        assert 10 * np.log10(255**2 / ((scaled - full) ** 2).mean()) >= 48


def test_photos_of_a_real_data_set_hardly_change_at_reduced_scale(monkeypatch):
    folder = Path(__file__).parents[3] / "shared/data/cats-dogs/test/cats"
    if not folder.is_dir():
        pytest.skip("needs the cats-dogs photos")
    differences = []
    for path in sorted(folder.iterdir())[:60]:
        scaled, full = scaled_and_full(read_file(path), (24, 24), monkeypatch)
        differences.append(np.abs(scaled - full).mean())
    assert 0 < np.mean(differences) <= 0.35
    assert max(differences) <= 0.8


@pytest.mark.parametrize(
    ("size", "decoded"),
    [((100, 100), (400, 400)), ((101, 100), (800, 800)), ((100, 101), (800, 800)), ((25, 25), (100, 100))],
)
def test_a_reduced_jpeg_has_four_times_the_pixels_asked_for(size, decoded):
    image = decode._open(encoded(Image.new("RGB", (800, 800)), "JPEG"))
    decode._choose_jpeg_scale(image, size)
    assert image.size == decoded


def test_the_margin_holds_for_photos_that_lie_on_their_side():
    image = decode._open(encoded(Image.new("RGB", (1600, 400)), "JPEG", exif=exif(6)))
    assert decode._choose_jpeg_scale(image, (200, 50)) == (0, 0, 800, 200)


def test_nothing_shifts_when_the_scale_does_not_divide_the_side(monkeypatch):
    ramp = np.repeat(np.linspace(0, 255, 2001)[None, :, None], 400, axis=0).repeat(3, axis=2).astype(np.uint8)
    scaled, full = scaled_and_full(encoded(ramp, "JPEG", quality=95), (10, 60), monkeypatch)
    assert np.abs(scaled - full).max() <= 1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("percent", range(10, 100, 10))
@pytest.mark.parametrize("size", [(8, 8), SIZE])
def test_a_truncated_jpeg_is_refused_wherever_it_ends(progressive, percent, size):
    data = encoded(noise(), "JPEG", progressive=progressive)
    assert reason(data[: len(data) * percent // 100], size).startswith("truncated: ")


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("percent", [20, 50, 80])
def test_other_truncated_files_are_refused(file_format, percent):
    data = encoded(noise(), file_format)
    assert reason(data[: len(data) * percent // 100]).startswith("truncated: ")


def test_the_reason_for_a_truncated_file_is_worded_the_same_each_time():
    data = encoded(noise(), "JPEG")[:-100]
    assert reason(data) == reason(data)
    assert "0x" not in reason(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (b"<html><body>404 Not Found</body></html>", "web page (HTML), not an image: download it again"),
        (b"hello", "text, not an image: download it again"),
        (b"\0" * 1000, "not an image: first bytes 00000000"),
        (b"BMW builds cars, and " * 9, "text, not an image"),
        (b"\x89PNG\r\n\x1a\n\0\0", "truncated: the header is cut off"),
        (b"\x89PNG\r\n\x1a\n", "truncated: "),
        (b"\xff\xd8\xff", "truncated: "),
        (b"RIFF\x04\0\0\0WEBP", "unreadable: "),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data, expected):
    assert reason(data).startswith(expected)


def test_random_bytes_are_refused():
    assert reason(noise().tobytes()).startswith("not an image: first bytes ")


def bomb_png():
    return png(30000, 30000, 8, 2, [b""])


def bomb_bmp():
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 2_700_000_054, 0, 0, 54, 40, 30000, 30000, 1, 24, *(0,) * 6)


@pytest.mark.parametrize("data", [bomb_png(), bomb_bmp()])
def test_a_decompression_bomb_is_refused_from_its_header(data):
    assert reason(data) == "30000×30000 pixels: more than 89,478,485 are refused as a decompression bomb"


def test_the_limit_is_the_same_whatever_pillow_was_told(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason(bomb_png()).startswith("30000×30000 pixels")
    assert reason(png(9460, 9460, 8, 0, [b""])).startswith("9460×9460 pixels")
    assert reason(png(9459, 9459, 1, 0, [b""])).startswith("truncated: ")


def test_running_out_of_memory_is_a_reason_like_others(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(decode, "_rgb", fail)
    assert reason(encoded(noise(), "PNG")) == "out of memory"


VALID = [
    encoded(noise(12, 16), "JPEG"),
    encoded(noise(12, 16), "JPEG", progressive=True, exif=exif(6)),
    encoded(noise(12, 16, 4), "PNG"),
    encoded(noise(12, 16), "WEBP"),
    encoded(noise(12, 16), "BMP"),
    encoded(noise(12, 16), "GIF"),
    encoded(noise(12, 16), "TIFF"),
    encoded(noise(12, 16), "TIFF", compression="tiff_lzw", exif=exif(6)),
    encoded(Image.fromarray(noise(12, 16)[..., 0] > 99), "TIFF", compression="group4"),
]


# ---------------------------------------------------------------- files


def test_a_regular_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "link") == b"x" * 100_000


def test_a_file_that_the_system_reads_in_pieces_is_read_whole(tmp_path, monkeypatch):
    content = bytes(range(256)) * 40
    (tmp_path / "a").write_bytes(content)
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, n: real(descriptor, min(n, 4000)))
    assert read_file(tmp_path / "a") == content


def unreadable(path):
    with pytest.raises(ImageError) as raised:
        read_file(path)
    return str(raised.value)


def test_fifos_sockets_devices_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/socket.jpg")  # the full path may be too long for a socket
            for path in (tmp_path / "fifo.jpg", tmp_path / "socket.jpg", Path("/dev/zero"), tmp_path):
                assert unreadable(path) == "not a regular file"
    finally:
        os.close(here)


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    assert unreadable(tmp_path / "loop") == "symlink loop"
    assert unreadable(tmp_path / "dangling") == "no such file"
    assert unreadable(tmp_path / "missing") == "no such file"
    assert unreadable(tmp_path / "a\0b") == "no such file"


def test_empty_and_huge_files_are_refused(tmp_path):
    (tmp_path / "empty").touch()
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate((512 << 20) + 1)  # sparse: it takes no room
    assert unreadable(tmp_path / "empty") == "empty file"
    assert unreadable(tmp_path / "huge") == "larger than 512 MiB"


def test_a_huge_file_elsewhere_is_not_read_again_for_its_digest(monkeypatch):
    monkeypatch.setattr(decode, "MAX_FILE_MIB", 0)
    path = as_storage_path("memory://huge/cat.jpg")
    with fsspec.open(str(path), "wb") as file:
        file.write(b"cat")
    with pytest.raises(ImageError, match="larger than 0 MiB") as caught:
        read_file(path)
    assert not caught.value.is_content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    assert unreadable(tmp_path / "secret") == "permission denied"


def test_permission_errors_have_their_words():
    assert files._REASONS[errno.EACCES] == files._REASONS[errno.EPERM] == "permission denied"


def test_refused_files_leave_no_descriptor_open(tmp_path):
    (tmp_path / "empty").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in [tmp_path, tmp_path / "empty"] * 20:
        unreadable(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---------------------------------------------------------------- threads and silence


def odd_tiff():
    """A TIFF that Pillow warns about: its last tag claims more data than the file has."""
    data = bytearray(encoded(Image.fromarray(noise()), "TIFF", software="x" * 50))
    entry = data.index(struct.pack("<HH", 305, 2))
    data[entry + 4 : entry + 8] = struct.pack("<I", 1 << 20)
    return bytes(data)


def test_pillow_warns_about_the_odd_tiff():
    with pytest.warns(UserWarning, match="Tag data larger than file"):
        assert Image.open(BytesIO(odd_tiff())).tag_v2


def test_pillows_warnings_are_no_errors():
    np.testing.assert_array_equal(decode_image(odd_tiff(), SIZE), noise())
    with quiet_pillow():
        np.testing.assert_array_equal(decode_image(odd_tiff(), SIZE), noise())


def test_quiet_pillow_leaves_everything_as_it_was():
    logger = logging.getLogger("PIL")
    filters, handlers = list(warnings.filters), list(logger.handlers)
    with quiet_pillow(), quiet_pillow():
        assert warnings.filters != filters
    assert warnings.filters == filters
    assert logger.handlers == handlers
    assert logger.propagate
    with pytest.raises(UserWarning, match="mine"), quiet_pillow():
        warnings.warn("mine", stacklevel=1)


def test_many_threads_decode_as_one_does():
    files = [*VALID, odd_tiff(), b"junk", encoded(noise(), "JPEG")[:500]] * 8
    start = threading.Barrier(8)

    def decode(data):
        try:
            return decode_image(data, (9, 9)).tobytes()
        except ImageError as error:
            return str(error)

    def decode_all(shift):
        start.wait()
        return [decode(data) for data in files[shift:] + files[:shift]]

    filters = list(warnings.filters)
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode_all, range(8)))
    assert all(result == expected[shift:] + expected[:shift] for shift, result in enumerate(results))
    assert warnings.filters == filters


def test_damaged_files_write_nothing_to_the_terminal(tmp_path):
    fax = bytearray(VALID[-1])
    fax[10:18] = b"\xff\0\xff\0\x55\xaa\x55\xaa"  # libtiff complains about it on file descriptor 2
    deflate = bytearray(encoded(noise(), "TIFF", compression="tiff_deflate"))
    deflate[300:310] = b"\xff" * 10
    for name, data in {"fax": fax, "deflate": deflate, "odd": odd_tiff()}.items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys, pathlib, contextlib\nfrom featx.images.decode import *\nfrom featx.errors import ImageError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    with contextlib.suppress(ImageError): decode_image(path.read_bytes(), (8, 8))\n"
    )
    finished = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=True, timeout=60)
    assert finished.stdout == b""
    assert finished.stderr == b""


@pytest.mark.parametrize("size", [(300, 40), (40, 300), (64, 64), (33, 500), (301, 299)], ids=str)
def test_rows_are_resized_before_columns_whatever_the_sides(size):
    """As the weights of the triangle say it, pass by pass, in whole numbers: Pillow itself may choose the order."""
    height, width = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    once = resampled(pixels.transpose(0, 2, 1), 48)  # (h, 3, 48)
    expected = resampled(once.transpose(1, 2, 0), 32).transpose(2, 1, 0)  # (3, 48, 32) to (32, 48, 3)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels), "PNG"), (32, 48)), expected)


def resampled(pixels: np.ndarray, n_out: int) -> np.ndarray:
    """Return `(…, n_in)` uint8 as `(…, n_out)` uint8: Pillow's antialiased bilinear filter in 22-bit fixed point."""
    n_in = pixels.shape[-1]
    scale = n_in / n_out
    centres = (np.arange(n_out) + 0.5) * scale
    triangles = np.maximum(0, 1 - np.abs(np.arange(n_in)[:, None] + 0.5 - centres) / max(scale, 1))
    weights = np.floor(triangles / triangles.sum(axis=0) * 2**22 + 0.5).astype(np.int64)
    return ((pixels.astype(np.int64) @ weights + 2**21) >> 22).clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------- the work of one image


def markers(data):
    """Where each marker of a JPEG begins, up to the end of its first picture."""
    found, at = [], 2
    while data[at : at + 2] != b"\xff\xd9":
        if data[at] != 0xFF or data[at + 1] in {0, *range(0xD0, 0xD8)}:
            at += 1
            continue
        found.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*found, at]


def jpeg_of_scans(n, *, progressive):
    """A sound JPEG whose last scan is there again and again, so that it has `n`."""
    image = Image.fromarray(smooth())
    data = encoded(image, "JPEG", progressive=True)
    if not progressive:  # one component after the other: the scan of all of them, without its first two
        data = encoded(image, "JPEG", subsampling=0)
    starts = markers(data)
    scans = [start for start in starts if data[start + 1] == 0xDA]
    last, end = data[scans[-1] : starts[-1]], starts[-1]
    if not progressive:
        of_one = bytes([0xFF, 0xDA, 0, 8, 1]) + last[5:7] + bytes([0, 63, 0]) + last[14:]
        return data[: scans[-1]] + of_one * n + data[end:]
    return data[:end] + last * (n - len(scans)) + data[end:]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(progressive):
    data = jpeg_of_scans(20_000, progressive=progressive)
    assert reason(data) == "too many scans (20,000; at most 500)"


def test_a_jpeg_of_500_scans_is_decoded():
    decode_image(jpeg_of_scans(500, progressive=True), SIZE)
    assert reason(jpeg_of_scans(501, progressive=True)) == "too many scans (501; at most 500)"


def test_a_large_jpeg_may_have_fewer_scans():
    data = jpeg_of_scans(31, progressive=True)
    frame = next(at for at in markers(data) if data[at + 1] == 0xC2)
    large = data[: frame + 5] + struct.pack(">HH", 8900, 10_000) + data[frame + 9 :]
    assert reason(large) == "too many scans (31; at most 30)"


@pytest.mark.parametrize("progressive", [False, True])
def test_what_looks_like_a_scan_and_is_none_does_not_count(progressive):
    data = encoded(noise(), "JPEG", progressive=progressive, quality=95)
    expected = decode_image(data, SIZE)
    fake = b"\xff\xfe" + struct.pack(">H", 2 + 2 * 600) + b"\xff\xda" * 600
    last = markers(data)[-2]
    for at in (2, last):  # in front of all, and of the last scan
        if progressive or at == 2:
            assert np.array_equal(decode_image(data[:at] + fake + data[at:], SIZE), expected)
    assert np.array_equal(decode_image(data + b"\xff\xda" * 600, SIZE), expected)  # the pictures of an MPO follow


def test_an_end_in_a_comment_hides_no_scans():
    data = jpeg_of_scans(20_000, progressive=True)
    scan = next(at for at in markers(data) if data[at + 1] == 0xDA)
    second = next(at for at in markers(data) if at > scan)
    data = data[:second] + b"\xff\xfe\x00\x04\xff\xd9" + data[second:]
    assert reason(data) == "too many scans (20,000; at most 500)"


def tiff_of_strips(n):
    """A gray TIFF, one pixel wide, of `n` strips, all of which are the same byte."""
    tags = [(256, 1), (257, n), (258, 8), (259, 1), (262, 1), (273, None), (277, 1), (278, 1), (279, None)]
    first_array = 10 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        if value is not None
        else struct.pack("<HHII", tag, 4, n, first_array + (4 * n if tag == 279 else 0))
        for tag, value in tags
    )
    header = b"II*\0" + struct.pack("<I", 10) + b"x\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return header + struct.pack("<I", 8) * n + struct.pack("<I", 1) * n


def of_many_parts(kind, n):
    if kind == "TIFF strips":
        return tiff_of_strips(n)
    if kind == "PNG chunks":
        row = png(8, 8, 8, 0, [bytes(8)] * 8)
        chunk = bytes(4) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
        return row[:33] + chunk * n + row[33:]
    data = encoded(smooth(), "JPEG" if kind == "JPEG comments" else "GIF")
    if kind == "JPEG comments":
        return data[:2] + b"\xff\xfe\x00\x02" * n + data[2:]
    palette_end = 13 + (3 << (data[10] & 7) + 1)
    return data[:palette_end] + b"\x21\xfe\x01a\0" * n + data[palette_end:]


@pytest.mark.parametrize("kind", ["JPEG comments", "PNG chunks", "GIF comments", "TIFF strips"])
def test_a_file_of_countless_small_parts_is_refused(kind):
    decode_image(of_many_parts(kind, 5000), SIZE)
    assert reason(of_many_parts(kind, 200_000)).startswith("more than 100,000 parts, such as comments or strips")
