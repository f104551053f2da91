"""AVIF, which Pillow reads, and HEIC, which pillow-heif reads where it is installed: ISO/IEC 23008-12 holds both."""

import io
import re
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from featx.errors import ImageError
from featx.images import decode, heic
from featx.images.decode import decode_image, image_shape
from tests.images.odd_images import UPRIGHT

HEIGHT, WIDTH = 40, 64


def picture(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Four corners of their own shades, so that every turn shows, and nothing that a codec would lose."""
    image = Image.new("RGB", size, (40, 90, 160))
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.rectangle([0, 0, width // 2 - 1, height // 2 - 1], fill=(220, 30, 30))
    draw.rectangle([width // 2, 0, width - 1, height // 2 - 1], fill=(30, 200, 40))
    draw.rectangle([0, height // 2, width // 2 - 1, height - 1], fill=(240, 240, 240))
    return image.convert(mode)


def written(image: Image.Image, file_format: str, **options: object) -> bytes:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif", reason="pillow-heif writes and reads HEIC").register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, file_format, quality=95, **options)
    return stream.getvalue()


def inner(pixels: np.ndarray) -> np.ndarray:
    """Return the middle of each quarter: where shades meet, a codec with fewer samples of colour blurs them."""
    height, width = pixels.shape[:2]
    rows, columns = (
        np.r_[4 : height // 2 - 4, height // 2 + 4 : height - 4],
        np.r_[4 : width // 2 - 4, width // 2 + 4 : width - 4],
    )
    return pixels[np.ix_(rows, columns)].astype(int)


BOTH = pytest.mark.parametrize("file_format", ["AVIF", "HEIF"])


@BOTH
def test_the_picture_is_read(file_format):
    pixels = decode_image(written(picture(), file_format), (HEIGHT, WIDTH))
    assert np.abs(inner(pixels) - inner(np.asarray(picture()))).max() <= 5


@BOTH
def test_gray_is_three_equal_channels(file_format):
    pixels = decode_image(written(picture("L"), file_format), (HEIGHT, WIDTH))
    assert np.abs(inner(pixels) - inner(np.asarray(picture("L").convert("RGB")))).max() <= 5
    assert np.ptp(pixels, axis=2).max() <= 3


@BOTH
def test_transparency_is_put_on_white(file_format):
    image = picture("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    pixels = decode_image(written(image, file_format), (HEIGHT, WIDTH))
    expected = (np.asarray(picture(), float) * 128 + 255 * 127) / 255
    assert np.abs(inner(pixels) - inner(expected)).max() <= 5


@BOTH
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_by_its_own_transformations(file_format, orientation):
    """Encoders write the orientation as `irot` and `imir`, and many repeat it in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(picture(), file_format, exif=exif.tobytes())
    if orientation in {3, 6, 8} and file_format == "AVIF":
        assert b"irot" in data
    expected = UPRIGHT[orientation](np.asarray(picture()))
    pixels = decode_image(data, expected.shape[:2])
    assert np.abs(inner(pixels) - inner(expected)).max() <= 5


@BOTH
def test_xmp_turns_nothing(file_format):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1"/></x:xmpmeta>'
    data = written(picture(), file_format, xmp=xmp)
    assert xmp in data
    turned = data.replace(b'Orientation="1"', b'Orientation="6"')
    pixels = decode_image(turned, (HEIGHT, WIDTH))
    assert np.abs(inner(pixels) - inner(np.asarray(picture()))).max() <= 5


@pytest.mark.parametrize("bits", [10, 12])
def test_more_bits_become_eight(bits):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif writes and reads HEIC")
    deep = np.asarray(picture()).astype(np.uint16) << 8
    file = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), deep.tobytes())
    stream, before = io.BytesIO(), pillow_heif.options.SAVE_HDR_TO_12_BIT
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        file.save(stream, quality=95)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = before
    pixels = decode_image(stream.getvalue(), (HEIGHT, WIDTH))
    assert np.abs(inner(pixels) - inner(np.asarray(picture()))).max() <= 5


@BOTH
def test_of_several_pictures_the_first_counts(file_format):
    other = Image.new("RGB", (WIDTH, HEIGHT), "black")
    data = written(picture(), file_format, save_all=True, append_images=[other])
    pixels = decode_image(data, (HEIGHT, WIDTH))
    assert np.abs(inner(pixels) - inner(np.asarray(picture()))).max() <= 12  # a frame of a film has lower quality


@BOTH
def test_a_part_of_a_file_is_refused(file_format):
    data = written(picture(), file_format)
    for n_bytes in (32, 64, len(data) // 2, len(data) - 10):
        with pytest.raises(ImageError, match=r"^(truncated|unreadable): "):
            decode_image(data[:n_bytes], (8, 8))


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Return a file whose `ispe` boxes say that its pictures have these sides."""
    box = re.compile(rb"(ispe\0\0\0\0).{8}", re.DOTALL)
    assert box.search(data)
    return box.sub(lambda found: found[1] + struct.pack(">II", width, height), data)


@BOTH
def test_a_bomb_is_refused_by_its_header(file_format, monkeypatch):
    """A header that speaks of billions of pixels, before one of them is decoded."""
    data = with_size(written(picture(), file_format), 30_000, 30_000)
    monkeypatch.setattr(decode, "_rgb", None)
    with pytest.raises(ImageError, match=r"decompression bomb|^unreadable: "):
        decode_image(data, (8, 8))


def test_a_heic_of_other_sides_than_its_header_says_is_refused():
    with pytest.raises(ImageError, match=r"^(truncated|unreadable): "):
        decode_image(with_size(written(picture(), "HEIF"), 8, 8), (8, 8))


def test_an_avif_of_other_sides_than_its_header_says_is_the_whole_picture():
    """libavif scales what it decodes to the sides of the header: never a part of it, or shifted rows."""
    data = with_size(written(picture(), "AVIF"), 2 * WIDTH, HEIGHT)
    assert image_shape(data) == (HEIGHT, 2 * WIDTH)
    expected = np.asarray(picture().resize((2 * WIDTH, HEIGHT)))
    assert np.abs(inner(decode_image(data, (HEIGHT, 2 * WIDTH))) - inner(expected)).max() <= 8


@BOTH
def test_changed_bytes_give_an_image_or_a_reason(file_format):
    data = written(picture(), file_format)
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            changed[at] = rng.integers(0, 256)
        try:
            assert decode_image(bytes(changed), (8, 8)).shape == (8, 8, 3)
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is right


@BOTH
def test_the_shape_is_known_without_decoding(file_format):
    assert image_shape(written(picture(), file_format)) == (HEIGHT, WIDTH)


#: A HEIC of no more than its beginning: nothing of it is looked at without pillow-heif.
HEIC = struct.pack(">I4s4sI8s", 24, b"ftyp", b"heic", 0, b"mif1heic") + bytes(40)


@pytest.fixture
def without_pillow_heif(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic.heic_image_file.cache_clear()
    yield
    heic.heic_image_file.cache_clear()


@pytest.mark.usefixtures("without_pillow_heif")
def test_a_heic_that_nothing_reads_says_what_to_install():
    with pytest.raises(ImageError, match=r"^HEIC image: pillow_heif .*\[heic\]\"?, or save it as JPEG or PNG$"):
        decode_image(HEIC, (8, 8))


def test_images_are_tried_again_once_pillow_heif_is_installed(monkeypatch):
    """The memory of what could not be read holds for what gave it up: it has the version of pillow-heif, if any."""
    monkeypatch.setattr(heic, "find_spec", lambda _: None)
    assert heic.heic_version() == ""
    monkeypatch.undo()
    pytest.importorskip("pillow_heif", reason="pillow-heif is what is installed")
    from featx.dataset.skipped import DECODER

    assert heic.heic_version()
    assert DECODER.endswith(f"+{heic.heic_version()}")
