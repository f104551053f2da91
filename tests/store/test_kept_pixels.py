"""Kept pixels: real JPEG files, decoded once for several networks, with the same features bit for bit."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from featx.compare.compare import compare_approaches
from featx.dataset import loader
from featx.dataset.image_dataset import images_of
from featx.dataset.scanning import scan
from featx.extract.cache import check_cache, list_cache
from featx.extract.extract import Extraction, extract_features
from featx.heads.training_loop import Training
from featx.images import decode_image
from featx.store.feature_store import FeatureStore
from featx.store.kept_pixels import KeptPixels
from featx.store.segment_file import new_segment_name
from featx.system.timings import Timings

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}

#: Another recipe of the same pixels.
OTHER = {**OPTIONS, "layer": "block1_pool"}


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    return make_photos(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows by one with each image that is decoded."""
    done: list[int] = []

    def counted(*arguments: object) -> int:
        done.append(1)
        return decode_into(*arguments)

    decode_into = loader.decode_into
    monkeypatch.setattr(loader, "decode_into", counted)
    return done


def bits_of(extraction: Extraction) -> bytes:
    """The features of all images, in their order."""
    store = FeatureStore(extraction.store_dir.parent, extraction.recipe)
    return store.read(extraction.dataset.digests).tobytes()


def kept(cache: Path, size: tuple[int, int] = (32, 32), aspect_ratio: str | None = None) -> FeatureStore:
    return KeptPixels(cache, size, aspect_ratio).store


def test_another_network_decodes_nothing_and_its_features_are_the_same(data, cache, new_cache, tmp_path, decoded):
    first = extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    assert (len(decoded), len(kept(cache)), first.timings.n_kept) == (32, 32, 0)
    decoded.clear()
    second = extract_features(data, cache_dir=cache, **OTHER)
    assert (decoded, second.timings.n_kept) == ([], 32)
    plain = new_cache(tmp_path / "plain")
    assert bits_of(second) == bits_of(extract_features(data, cache_dir=plain, **OTHER))
    assert bits_of(first) == bits_of(extract_features(data, cache_dir=plain, **OPTIONS))


def test_int8_is_calibrated_on_kept_pixels(data, tmp_path, decoded):
    """In caches without networks of other tests, which would be calibrated already."""
    extract_features(data, cache_dir=tmp_path / "kept", keep_pixels=True, **OPTIONS)
    decoded.clear()
    int8 = extract_features(data, cache_dir=tmp_path / "kept", precision="int8", **OTHER)
    assert (decoded, int8.n_computed) == ([], 32)
    plain = extract_features(data, cache_dir=tmp_path / "plain", precision="int8", **OTHER)
    assert len(decoded) > 32
    assert bits_of(int8) == bits_of(plain)


def test_any_program_reads_what_was_kept_and_it_is_what_was_decoded(data, cache):
    extraction = extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    images = images_of(extraction.dataset)
    with h5py.File(kept(cache).dir / "features.h5") as file:
        pixels = dict(zip(map(bytes, file["digest"][:]), file["features"][:], strict=True))
    assert len(pixels) == len(images.sources) == 32
    for source, digest in zip(images.sources, images.digests, strict=True):
        expected = decode_image(source.read_bytes(), (32, 32))
        assert pixels[bytes(digest)].dtype == np.uint8
        assert np.array_equal(pixels[bytes(digest)], expected)


def test_nothing_is_kept_unless_one_asks_for_it(data, cache):
    extract_features(data, cache_dir=cache, **OPTIONS)
    assert not kept(cache).dir.exists()


def test_only_pixels_of_the_same_size_and_framing_are_used(data, cache, decoded):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    for others in ({"image_size": (32, 40)}, {"resize": "crop"}, {"resize": "pad"}):
        decoded.clear()
        extraction = extract_features(data, cache_dir=cache, **{**OTHER, **others})
        assert (len(decoded), extraction.timings.n_kept) == (32, 0)


def test_new_images_are_decoded_and_kept_too(data, cache, make_photos, tmp_path, decoded):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    decoded.clear()
    more = make_photos(tmp_path / "more", n_train=15)
    for number in (12, 13, 14):
        shutil.copy(more / "train" / "sea" / f"sea.{number}.jpg", data / "train" / "sea")
    extraction = extract_features(data, cache_dir=cache, keep_pixels=True, **OTHER)
    assert (len(decoded), extraction.timings.n_kept, extraction.n_computed) == (3, 32, 35)
    assert len(kept(cache)) == 35


def test_views_are_made_of_kept_pixels(data, cache, new_cache, tmp_path, decoded):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    decoded.clear()
    views = extract_features(data, cache_dir=cache, views=2, **OPTIONS).views
    assert (decoded, views.timings.n_kept, views.n_computed) == ([], 48, 48)
    plain = new_cache(tmp_path / "plain")
    expected = extract_features(data, cache_dir=plain, views=2, **OPTIONS).views
    dataset = scan(data, cache)
    digests = np.repeat(dataset.digests[~dataset.is_test], 2, axis=0)
    numbers = np.tile([1, 2], 24).astype(np.uint16)
    rows = [FeatureStore(folder, expected.recipe).read(digests, numbers) for folder in (cache, plain)]
    assert np.array_equal(*rows)


def test_layers_that_share_a_pass_count_what_was_kept(data, cache):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    options = {name: value for name, value in OPTIONS.items() if name != "layer"}
    first = extract_features(data, cache_dir=cache, layers=["block1_pool", "block3_pool"], **options)
    assert [one.timings.n_kept for one in (first, *first.others)] == [32, 32]


def test_damaged_pixels_are_decoded_again(data, cache, new_cache, tmp_path, decoded, caplog):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    (segment,) = kept(cache).segments
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 1
    segment.path.write_bytes(content)
    (damaged,) = [store for store in check_cache(cache).stores if store.damages]
    assert damaged.recipe.is_of_pixels
    decoded.clear()
    second = extract_features(data, cache_dir=cache, **OTHER)
    assert (second.n_computed, second.timings.n_kept) == (32, 32 - len(decoded))
    assert "its images will be decoded again" in caplog.text
    assert decoded
    assert bits_of(second) == bits_of(extract_features(data, cache_dir=new_cache(tmp_path / "other"), **OTHER))


def test_an_image_that_looks_black_says_so_each_time(data, cache, caplog):
    dim = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10))
    dim.save(data / "train" / "wood" / "wood.0.jpg", "PNG")
    for options in (OPTIONS, OTHER):
        caplog.clear()
        extract_features(data, cache_dir=cache, keep_pixels=True, **options)
        assert "nearly black" in caplog.text


def test_what_cannot_be_read_is_skipped_each_time(data, cache):
    (data / "train" / "wood" / "wood.0.jpg").write_bytes(b"no image")
    for options in (OPTIONS, OTHER):
        extraction = extract_features(data, cache_dir=cache, keep_pixels=True, **options)
        assert (len(extraction.skipped), extraction.n_computed) == (1, 31)
    assert len(kept(cache)) == 31


def test_what_featx_says_of_kept_pixels(data, cache, featx):
    words = ("extract", data, "--cache-dir", cache, "--weights", "random", "--image-size", "32", "--pooling", "avg")
    first = featx(*words, "--layer", "block2_pool", "--keep-pixels")
    assert "has the pixels of 32 images." in first.stderr
    said = featx(*words, "--layer", "block1_pool", "--views", "2").stdout
    assert "featx had kept the pixels of 32 images, so it did not decode them again." in said
    assert "views/s, without decoding, since featx had kept the pixels)" in said
    result = featx(*words, "--layer", "block3_pool", "--json")
    assert json.loads(result.stdout)["timings"]["n_kept"] == 32
    assert "decoded images" in featx("cache", "ls", "--cache-dir", cache).stdout
    featx("cache", "verify", "--cache-dir", cache)
    featx("cache", "compact", "--cache-dir", cache)
    featx("cache", "rm", "pixels", "--cache-dir", cache, "--yes")
    assert not any(entry.store and entry.store.recipe.is_of_pixels for entry in list_cache(cache))


def test_verify_says_that_damaged_pixels_cost_next_to_nothing(data, cache, featx):
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    (segment,) = kept(cache).segments
    segment.path.write_bytes(segment.path.read_bytes()[:-1000])
    said = featx("cache", "verify", "--cache-dir", cache, exit_code=1).stdout
    assert "These images are decoded again when they are needed." in said
    assert "featx extract" not in said


def test_a_comparison_says_whose_time_lacks_decoding_and_baselines_use_pixels_too(data, cache, decoded):
    extract_features(data, cache_dir=cache, keep_pixels=True, **{**OPTIONS, "image_size": (64, 64)})
    decoded.clear()
    comparison = compare_approaches(
        data,
        cache_dir=cache,
        baselines=["report-dnn"],
        training=Training(epochs=1, calibrate=False),
        **{**OTHER, "image_size": (64, 64)},
    )
    assert len(decoded) == 32  # at the size at which copies are looked for
    said = "The time of these approaches does not include decoding, because featx had kept the pixels: "
    (warning,) = [one for one in comparison.warnings if one.startswith(said)]
    assert {*warning.removeprefix(said).removesuffix(".").split(", ")} == {one.name for one in comparison.approaches}


@pytest.mark.parametrize("shape", [(3,), (32, 32, 1), (1, 1, 3), (64, 64, 3)])
def test_pixels_of_another_shape_are_not_taken_for_these(data, cache, shape, caplog):
    digests = scan(data, cache).digests
    store = FeatureStore(cache, kept(cache).recipe)
    store.write_segment(new_segment_name(), np.zeros((len(digests), *shape), np.uint8), digests, Timings)
    extraction = extract_features(data, cache_dir=cache, **OTHER)
    assert "is damaged (its features have the shape" in caplog.text
    assert extraction.timings.n_kept == 0
    assert bits_of(extraction) == bits_of(extract_features(data, cache_dir=cache.with_name("other"), **OTHER))


def test_a_few_images_are_decoded_rather_than_many_segments_opened(data, cache, decoded, monkeypatch):
    monkeypatch.setattr("featx.store.segment_writer.SEGMENT_BYTES", 2 * 32 * 32 * 3)
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    assert len(kept(cache).segments) == 16
    decoded.clear()
    extract_features(data / "test" / "sea", cache_dir=cache, **OTHER)
    assert len(decoded) == 4


def test_an_older_featx_leaves_pixels_alone(data, cache):
    """It refuses the version, with a sentence, instead of taking integers for damaged features."""
    extract_features(data, cache_dir=cache, keep_pixels=True, **OPTIONS)
    (segment,) = kept(cache).segments
    with h5py.File(segment.path) as file:
        assert file.attrs["format_version"] == 2
