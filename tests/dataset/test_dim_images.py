"""Images that hold 12 bits in samples of 16 come out nearly black: featx decodes them as they are, and says so."""

import hashlib
import json
import logging
import shutil

import numpy as np
import pytest

from featx.compare.baselines import train_on_pixels
from featx.dataset.loader import Dim, read_batches
from featx.dataset.scanning import scan
from featx.dataset.skipped import DimImage, dim_sentence
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.images.augmentation import Views
from featx.images.decode import decode_into
from featx.train.train import train_top
from tests.images.odd_images import HEIGHT, WIDTH, packed, photo, png, tiff

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}


def samples(bits: int, channels: int = 1, name: str = "dim") -> np.ndarray:
    """Return `(HEIGHT, WIDTH, channels)` uint16 whose largest value is that of so many bits."""
    values = (photo(name, channels).astype(np.uint16) << 8) >> (16 - bits)
    values[0, 0] = 2**bits - 1
    return values


def with_alpha(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.full((HEIGHT, WIDTH, 1), 65535, np.uint16)], axis=2)


def tiff_16(values: np.ndarray, photometric: int, order: str = "<", planes: int = 1, **tags: int) -> bytes:
    n = values.shape[2]
    blocks = [values] if planes == 1 else [values[..., i] for i in range(n)]
    content = [packed(block, 16, order) for block in blocks]
    extra = {338: 2} if n in {2, 4} else {}
    return tiff(content, {258: (16,) * n, 262: photometric, 277: n, 284: planes, **extra}, order=order)


def largest(data: bytes) -> int:
    return decode_into(np.empty((8, 8, 3), np.uint8), data)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_the_largest_value_of_a_dim_image_is_told_whatever_its_format(bits):
    white = 2**bits - 1
    gray, rgb = samples(bits), samples(bits, 3)
    for data in (
        *(png(gray, 16, 0), png(rgb, 16, 2), png(with_alpha(gray), 16, 4), png(with_alpha(rgb), 16, 6)),
        *(tiff_16(gray, 1), tiff_16(gray, 1, ">"), tiff_16(gray, 0)),
        *(tiff_16(rgb, 2), tiff_16(rgb, 2, ">", planes=2), tiff_16(with_alpha(rgb), 2)),
    ):
        assert largest(data) == white


def test_other_images_are_not_dim():
    bright = samples(14)
    bright[0, 0] = 1 << 14
    for data in (
        *(png(bright, 16, 0), png(samples(16, 3), 16, 2), tiff_16(samples(16), 1), tiff_16(samples(16, 3), 2)),
        png(np.zeros((HEIGHT, WIDTH, 1), np.uint16), 16, 0),  # black, not dim
        png(samples(8) // 16, 8, 0),
        tiff([b"".join(packed(row, 12) for row in samples(12))], {258: 12, 262: 1}),  # says itself that it has 12 bits
    ):
        assert largest(data) == 0


def test_a_dim_image_is_decoded_as_it_is():
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    assert decode_into(pixels, png(samples(12), 16, 0)) == 4095
    assert np.array_equal(pixels[..., :1], np.floor(samples(12) / 257 + 0.5))


def test_the_reader_tells_which_images_are_dim_and_their_views_too(tmp_path):
    contents = [png(samples(16), 16, 0), png(samples(12, 3), 16, 2), png(samples(8), 8, 0)]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    digests = np.array([list(hashlib.sha256(content).digest()) for content in contents], np.uint8)
    batches = read_batches(paths, digests, (8, 8), 4)
    assert [dim for batch in batches for dim in batch.dim] == [Dim(1, 4095)]
    twice, views = np.repeat(np.arange(3), 2), np.tile([1, 2], 3)
    sources = [paths[row] for row in twice]
    batches = read_batches(sources, digests[twice], (8, 8), 6, 1, views=views, augmentation=Views(2).augmentation)
    assert [dim for batch in batches for dim in batch.dim] == [Dim(2, 4095)]


@pytest.fixture
def data(make_photos, tmp_path):
    """Photos, four of which are dim, two of these equal."""
    root = make_photos(tmp_path / "data")
    for i in range(3):
        (root / "train" / "sea" / f"dim {i}.png").write_bytes(png(samples(12, 1, f"dim {i}"), 16, 0))
    shutil.copy(root / "train" / "sea" / "dim 2.png", root / "train" / "sea" / "dim 3.png")
    return root


WARNING = (
    "3 images have 16 bits a sample but no value above 4,095 of 65,535, such as {}, so they look nearly black: "
    "if they hold 12-bit data, multiply their values by 16."
)


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "16 bits a sample" in record.getMessage()]


def test_an_extraction_warns_once_with_number_example_and_what_to_do(data, cache, caplog):
    caplog.set_level(logging.WARNING, "featx")
    extraction = extract_features(data, cache_dir=cache, views=Views(2), **OPTIONS)
    assert extraction.n_computed == 35
    assert warnings_of(caplog) == [WARNING.format(data / "train" / "sea" / "dim 0.png")]
    caplog.clear()
    assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 0
    assert warnings_of(caplog) == [WARNING.format(data / "train" / "sea" / "dim 0.png")]  # nothing was decoded


def test_what_is_trained_on_them_says_so_too(data, cache, tmp_path):
    extract_features(data, cache_dir=cache, **OPTIONS)
    run = train_top(data, cache_dir=cache, run_dir=tmp_path / "run", training=Training(epochs=1), **OPTIONS)
    assert WARNING.format("train/sea/dim 0.png") in run.warnings
    (store_dir,) = cache.glob("vgg16-*")
    (store_dir / "dim.json").write_text("damaged")
    again = train_top(data, cache_dir=cache, run_dir=tmp_path / "again", training=Training(epochs=1), **OPTIONS)
    assert not any("16 bits" in warning for warning in again.warnings)


def test_the_command_shows_it(data, cache, featx):
    words = (
        "extract",
        data,
        "--cache-dir",
        cache,
        "--weights",
        "random",
        "--image-size",
        "32",
        "--layer",
        "block2_pool",
    )
    result = featx(*words)
    assert "16 bits a sample but no value above 4,095" in result.stderr
    (warning,) = [
        text for text in json.loads(featx(*words, "--json", "--quiet").stdout)["warnings"] if "16 bits" in text
    ]
    assert warning == WARNING.format("train/sea/dim 0.png")


def test_a_network_trained_from_pixels_is_warned_of_them_too(data, cache, caplog):
    caplog.set_level(logging.WARNING, "featx")
    train_on_pixels(scan(data, cache), "report-dnn", Training(epochs=1, patience=1), cache)
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize(
    ("largest", "advice"),
    [
        ([1], "If it holds 8-bit data, multiply its values by 257."),
        ([1023], "If it holds 10-bit data, multiply its values by 64."),
        ([16383], "If it holds 14-bit data, multiply its values by 4."),
        ([255, 256], "if they hold 10-bit data, multiply their values by 64."),
    ],
)
def test_the_advice_is_for_as_many_bits_as_the_brightest_has(largest, advice):
    sentence = dim_sentence(DimImage(f"{i}.png", f"{i:064}", value) for i, value in enumerate(largest))
    assert sentence.endswith(advice)


def test_nothing_is_said_of_no_image():
    assert not dim_sentence([])
