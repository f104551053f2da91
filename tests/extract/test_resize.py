"""`--resize crop|pad`: everything that decodes images for a network shows it the same part of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx import FeatureExtractor, load_features
from featx.compare import baselines as baselines_module
from featx.compare.compare import compare_approaches
from featx.engines.networks import network_path
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.images.decode import decode_image
from featx.predict.classifier import Classifier
from featx.recipe import Recipe
from featx.report import preview
from tests.conftest import SMALL

MODES = ("crop", "pad")
FAST = Training(epochs=2)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two classes of noise in images of many shapes, as PNG, so that nothing but the resize changes pixels."""
    shapes = [(40, 90), (90, 40), (50, 50), (33, 57), (71, 60), (64, 31)]
    for split, n in (("train", 12), ("test", 4)):
        for number, name in enumerate(("sea", "wood")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                rng = np.random.default_rng([number, i, split == "test"])
                pixels = rng.integers(0, 128 + 127 * number, (*shapes[i % len(shapes)], 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "data"


def framed(data: Path, to: Path, mode: str) -> Path:
    """Write what the network is to see of each image, so that stretching it changes nothing."""
    for path in sorted(data.rglob("*.png")):
        pixels = decode_image(path.read_bytes(), (32, 32), mode)
        target = to / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)
    return to


def features_of(data: Path, cache: Path, **options: object) -> np.ndarray:
    extract_features(data, cache_dir=cache, **SMALL, **options)
    return load_features(data, cache_dir=cache, **SMALL, **options).X


@pytest.mark.parametrize("mode", MODES)
def test_features_are_those_of_the_images_resized_by_hand(data, cache, tmp_path, mode):
    features = features_of(data, cache, resize=mode)
    by_hand = features_of(framed(data, tmp_path / "framed", mode), cache)
    assert np.array_equal(features, by_hand)
    assert not np.array_equal(features, features_of(data, cache))
    paths = sorted(data.rglob("*.png"))
    extractor = FeatureExtractor(**SMALL, resize=mode, cache_dir=cache)
    assert sorted(map(tuple, extractor.transform(paths))) == sorted(map(tuple, features.astype(np.float32)))


def test_each_way_has_its_own_store_and_stretch_the_one_of_ever(data, cache):
    recipes = {}
    for options in ({}, {"resize": "stretch"}, {"resize": "crop"}, {"resize": "pad"}):
        recipes[str(options)] = extract_features(data, cache_dir=cache, **SMALL, **options).recipe
    plain, stretch, crop, pad = recipes.values()
    assert plain == stretch
    assert "aspect_ratio" not in json.loads(plain.to_json())
    assert (crop.aspect_ratio, pad.aspect_ratio) == MODES
    assert len({plain.key, crop.key, pad.key}) == 3
    assert crop.slug.startswith("vgg16-block2_pool-avg-32x32-crop-")
    assert Recipe.from_json(crop.to_json()) == crop
    assert len({network_path(recipe, cache) for recipe in recipes.values()}) == 1, "one network fits all"


@pytest.mark.parametrize("mode", MODES)
def test_views_are_made_of_what_the_network_sees(data, cache, tmp_path, mode):
    """Views depend on an image's digest: those of the images resized by hand would be others, but for a flip alone."""
    seen = {}
    make_view = preview.make_view

    def noted(pixels, digest, view, augmentation):
        seen[digest] = pixels.copy()
        return make_view(pixels, digest, view, augmentation)

    preview.make_view = noted
    try:
        preview.draw_preview(data, tmp_path, cache_dir=cache, image_size=(32, 32), resize=mode)
    finally:
        preview.make_view = make_view
    drawn = {pixels.tobytes() for pixels in seen.values()}
    expected = {decode_image(path.read_bytes(), (32, 32), mode).tobytes() for path in data.rglob("train/*/*.png")}
    assert drawn
    assert drawn <= expected
    extraction = extract_features(data, cache_dir=cache, views=2, resize=mode, **SMALL)
    assert extraction.views
    assert extraction.views.recipe.aspect_ratio == mode
    assert extraction.views.n_computed == 2 * 24


def test_a_run_predicts_with_the_resize_that_it_was_trained_with(data, cache, tmp_path, featx):
    words = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg"]
    words += ["--resize", "pad", "--cache-dir", cache]
    featx("extract", data, *words, "--precision", "float32", "--json")
    featx("train-top", data, *words, "--precision", "float32", "--run-dir", tmp_path / "run", "--epochs", "2")
    paths = sorted(data.rglob("test/*/*.png"))
    predicted = Classifier.load(tmp_path / "run", cache_dir=cache).predict(paths).probabilities
    copies = sorted(framed(data, tmp_path / "framed", "pad").rglob("test/*/*.png"))
    padded = Classifier.load(tmp_path / "run", cache_dir=cache).predict(copies).probabilities
    assert np.array_equal(predicted, padded)
    segment = next(cache.glob("*-pad-*/seg-*.h5"))
    segment.write_bytes(segment.read_bytes()[:1000])
    assert "--resize pad" in featx("cache", "verify", "--cache-dir", cache, exit_code=1).output


@pytest.mark.parametrize("mode", ["stretch", *MODES])
def test_baselines_see_the_same_part_as_the_features(data, cache, monkeypatch, mode):
    seen = []
    train = baselines_module.Baseline.train

    def noted(self, pixels, *arguments, **options):
        seen.append(np.array(pixels))
        return train(self, pixels, *arguments, **options)

    monkeypatch.setattr(baselines_module.Baseline, "train", noted)
    options = {**SMALL, "resize": mode}
    compare_approaches(data, baselines="report-cnn", cache_dir=cache, training=FAST, **options)
    expected = {
        decode_image(path.read_bytes(), (64, 64), None if mode == "stretch" else mode).tobytes()
        for path in data.rglob("train/*/*.png")
    }
    assert {pixels.tobytes() for pixels in seen[0]} == expected


def test_another_word_is_refused_with_the_three(data, cache, featx):
    output = featx("extract", data, "--resize", "pat", "--cache-dir", cache, exit_code=2).output
    assert "'stretch', 'crop', 'pad'" in output
    with pytest.raises(Exception, match=r"Images are resized by stretch, crop or pad\. Received: 'fill'"):
        extract_features(data, cache_dir=cache, resize="fill")
