"""Images cropped or padded to the network's aspect ratio, against Keras's own functions.

Keras has three of them. `keras.utils.load_img(keep_aspect_ratio=True)` resizes a box with Pillow, as featx does, so the
pixels are equal wherever Pillow resizes rows first. `smart_resize` and `keras.ops.image.resize` cut the box out before
they resize it: a pixel beyond the box then counts nothing at the box's edge, which is why the outermost pixels differ.
Only the last one pads. Both compute in float32 and round once at the end, where Pillow rounds after each of its passes:
hence one grey level.
"""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from featx.errors import ImageError
from featx.images import decode
from featx.images.decode import decode_image, image_shape
from featx.images.framing import frame_in
from tests.images.odd_images import UPRIGHT
from tests.images.test_decode import encoded, noise, smooth

#: (height, width) of images, and of what they are resized to: taller, wider, odd, smaller and larger.
SHAPES = [
    *[((90, 150), (64, 64)), ((151, 90), (64, 64)), ((60, 61), (48, 48)), ((61, 60), (48, 48)), ((40, 40), (64, 64))],
    *[
        ((33, 57), (120, 120)),
        ((57, 33), (120, 120)),
        ((33, 57), (60, 150)),
        ((200, 31), (50, 20)),
        ((31, 200), (20, 50)),
    ],
    *[((7, 90), (32, 32)), ((90, 7), (32, 48)), ((3, 5), (2, 3)), ((101, 100), (64, 64)), ((1, 9), (4, 4))],
]


def boxes_of_load_img(monkeypatch, shape, image_size):
    """Return the box that Keras has Pillow resize, and the pixels that come of it."""
    from featx.system.late_imports import import_keras

    keras = import_keras()
    boxes, resize = [], Image.Image.resize

    def noted(self, size, resample=None, box=None, **options):
        boxes.append(tuple(box))
        return resize(self, size, resample, box, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", noted)
        file = BytesIO(encoded(noise(*shape), "PNG"))
        image = keras.utils.load_img(file, target_size=image_size, interpolation="bilinear", keep_aspect_ratio=True)
    (box,) = boxes
    return box, np.asarray(image)


@pytest.mark.parametrize(("shape", "image_size"), SHAPES, ids=str)
def test_crop_is_the_box_and_the_pixels_of_load_img(monkeypatch, shape, image_size):
    box, pixels = boxes_of_load_img(monkeypatch, shape, image_size)
    assert frame_in(shape[::-1], image_size, "crop") == box
    ours = decode_image(encoded(noise(*shape), "PNG"), image_size, "crop")
    assert np.abs(ours.astype(int) - pixels).max() <= 1
    if shape[0] <= shape[1]:  # Pillow 13 then takes rows first, too
        assert np.array_equal(ours, pixels)


def by_keras(shape, image_size, **options):
    from featx.system.late_imports import import_keras

    ops = import_keras().ops
    pixels = np.asarray(noise(*shape), np.float32)
    return np.asarray(ops.image.resize(pixels, image_size, antialias=True, **options))


@pytest.mark.parametrize(("shape", "image_size"), SHAPES, ids=str)
def test_crop_is_keras_crop_to_aspect_ratio_but_for_the_edge_of_the_box(shape, image_size):
    ours = decode_image(encoded(noise(*shape), "PNG"), image_size, "crop")
    expected = by_keras(shape, image_size, crop_to_aspect_ratio=True)
    differs = np.abs(ours - expected).max(axis=2) > 1.01
    left, top, right, bottom = frame_in(shape[::-1], image_size, "crop")
    # The triangle of a pixel reaches as far as one pixel of the coarser grid: so many of the finer one may differ.
    reach_x = int(np.ceil(max(1, image_size[1] / (right - left)))) if right - left < shape[1] else 0
    reach_y = int(np.ceil(max(1, image_size[0] / (bottom - top)))) if bottom - top < shape[0] else 0
    inside = differs[reach_y : image_size[0] - reach_y, reach_x : image_size[1] - reach_x]
    assert not inside.any()


@pytest.mark.parametrize(("shape", "image_size"), SHAPES, ids=str)
def test_crop_is_smart_resize_where_nothing_gets_smaller(shape, image_size):
    """`smart_resize` has no antialiasing, so that only an enlargement is the same."""
    from featx.system.late_imports import import_keras

    left, top, right, bottom = frame_in(shape[::-1], image_size, "crop")
    if image_size[0] < bottom - top or image_size[1] < right - left:
        pytest.skip("the box gets smaller")
    smart_resize = import_keras().preprocessing.image.smart_resize
    expected = smart_resize(np.asarray(noise(*shape), np.float32), image_size)
    # Cut out, so that the edge of the box is that of an image, as it is there.
    cut = np.ascontiguousarray(noise(*shape)[top:bottom, left:right])
    ours = decode_image(encoded(cut, "PNG"), image_size)
    assert np.abs(ours - expected).max() <= 1.01


@pytest.mark.parametrize(("shape", "image_size"), SHAPES, ids=str)
def test_pad_is_keras_pad_to_aspect_ratio_in_black(shape, image_size):
    ours = decode_image(encoded(noise(*shape), "PNG"), image_size, "pad")
    expected = by_keras(shape, image_size, pad_to_aspect_ratio=True, fill_value=0.0)
    assert np.abs(ours - expected).max() <= 1.01


@pytest.mark.parametrize("aspect_ratio", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(64, 64), (48, 48), (200, 200)])
def test_an_image_of_the_wanted_aspect_ratio_is_resized_as_ever(aspect_ratio, shape):
    data = encoded(noise(*shape), "PNG")
    assert np.array_equal(decode_image(data, (64, 64), aspect_ratio), decode_image(data, (64, 64)))


def test_pad_gives_black_bars_and_keeps_the_whole_picture():
    white = Image.new("RGB", (100, 50), "white")
    pixels = decode_image(encoded(white, "PNG"), (40, 40), "pad")
    assert not pixels[:9].any()
    assert not pixels[-9:].any()
    assert (pixels[11:29] == 255).all()
    assert (decode_image(encoded(white, "PNG"), (40, 40), "crop") == 255).all()


@pytest.mark.parametrize("aspect_ratio", [None, "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_size", [(64, 64), (90, 40), (40, 90)], ids=str)
def test_an_image_that_is_turned_shows_the_part_of_the_upright_one(aspect_ratio, orientation, image_size):
    """Noise of odd sides, enlarged and not: a box that is off by a pixel would show."""
    stored = noise(31, 58)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode_image(encoded(stored, "PNG", exif=exif), image_size, aspect_ratio)
    upright = np.ascontiguousarray(UPRIGHT[orientation](stored))
    expected = decode_image(encoded(upright, "PNG"), image_size, aspect_ratio)
    assert np.abs(turned.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("aspect_ratio", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(1200, 2000), (2000, 1200), (1203, 1999), (641, 3203)], ids=str)
def test_a_jpeg_at_reduced_scale_shows_the_same_part(aspect_ratio, shape):
    data = encoded(smooth(*shape), "JPEG", quality=95)
    in_full = encoded(Image.open(BytesIO(data)), "PNG")
    reduced = decode_image(data, (32, 48), aspect_ratio).astype(int)
    difference = np.abs(reduced - decode_image(in_full, (32, 48), aspect_ratio))
    assert difference.mean() < 0.5
    assert difference.max() <= 2


@pytest.mark.parametrize(("aspect_ratio", "scale"), [(None, 1), ("crop", 1), ("pad", 8)])
def test_a_jpeg_is_decoded_at_the_scale_that_leaves_enough_of_the_part_that_is_seen(monkeypatch, aspect_ratio, scale):
    """1600×200 at 48: the cropped square has 200 pixels a side, the padded one 1600."""
    drafted = []
    draft = decode.JpegImagePlugin.JpegImageFile.draft

    def noted(image, mode, size):
        box = draft(image, mode, size)
        drafted.append(1600 / box[1][2])
        return box

    monkeypatch.setattr(decode.JpegImagePlugin.JpegImageFile, "draft", noted)
    decode_image(encoded(smooth(200, 1600), "JPEG"), (48, 48), aspect_ratio)
    assert drafted == [scale]


@pytest.mark.parametrize("aspect_ratio", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (3, 9000), (9000, 3)], ids=str)
def test_extreme_shapes_are_cropped_and_padded(aspect_ratio, shape):
    data = encoded(Image.new("RGB", shape[::-1], (200, 200, 200)), "PNG")
    pixels = decode_image(data, (30, 20), aspect_ratio)
    assert image_shape(data) == shape
    is_whole = aspect_ratio == "crop" or shape == (1, 1)
    assert pixels.min() == (200 if is_whole else 0)
    assert pixels.max() == (200 if is_whole else pixels[13:17].max())


@pytest.mark.parametrize("shape", [(2000, 3), (2000, 40), (300, 90)], ids=str)
def test_padding_in_the_other_order_gives_the_same_but_for_rounding(monkeypatch, shape):
    data = encoded(noise(*shape), "PNG")
    usual = decode_image(data, (40, 40), "pad").astype(int)
    monkeypatch.setattr(decode, "MAX_PIXELS", shape[0] * max(shape[1], 40))  # room for the image, not for its bars
    assert np.abs(decode_image(data, (40, 40), "pad") - usual).max() <= 1


def test_an_image_too_long_and_thin_for_its_bars_is_refused(monkeypatch):
    data = encoded(noise(2000, 3), "PNG")
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    assert decode_image(data, (40, 40), "crop").shape == (40, 40, 3)
    with pytest.raises(ImageError, match="3×2000 pixels: too long and thin to add black bars"):
        decode_image(data, (40, 40), "pad")
