"""An ONNX file as the backbone of every job: extraction, training, prediction, comparison, plan."""

import json
import logging

import numpy as np
import pytest

from featx import Classifier, FeatureExtractor, compare_approaches, extract_features, plan_extraction, train_top
from featx.backbones import build, build_model
from featx.engines import EngineOptions, create_engine
from featx.errors import FeatxError, WeightsError
from featx.export.graph import keras_to_onnx
from featx.extract import extract_command, resolve_recipe
from featx.heads import Training
from featx.predict import DirectClassifier
from featx.recipe import Recipe
from featx.store import FeatureStore
from featx.system.late_imports import import_keras
from tests.onnx_networks import SPATIAL, write_network

OPTIONS = {"preprocess": "mean=127,std=128", "precision": "float32"}
MAPS = ["sea=0-9", "wood=10-19"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "small.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tests.conftest import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "data", 8, 4)


@pytest.fixture(scope="module")
def trained(network, photos, tmp_path_factory):
    """A run, and the cache with its features."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"backbone": network, "cache_dir": folder / "cache", **OPTIONS}
    extract_features(photos, **options)
    return train_top(photos, run_dir=folder / "run", training=Training(epochs=2), heads=["logreg"], **options), folder


def test_vgg16_as_an_onnx_file_gives_the_features_of_the_built_in_one(tmp_path, cache):
    layer = "block3_pool"
    options = {"weights": "random", "image_size": (48, 64), "layer": layer, "precision": "float32"}
    recipe, weights = resolve_recipe(cache, backbone="vgg16", **options)
    trunk = build._build_trunk(import_keras(), recipe, None, "float32")
    path = tmp_path / "vgg16.onnx"
    path.write_bytes(keras_to_onnx(trunk, "pixels", "features").SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3)).astype(np.uint8)
    built_in = np.asarray(build_model(recipe, weights.path)(images))
    in_file, weights = resolve_recipe(cache, backbone=path, preprocess="caffe", precision="float32")
    assert in_file.image_size == (48, 64)
    engine = create_engine(in_file, weights, cache, None, EngineOptions())
    features = engine.features(images)
    engine.close()
    assert features.shape == built_in.shape
    a, b = (x.reshape(3, -1).astype(np.float64) for x in (features, built_in))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.9999999
    np.testing.assert_allclose(features, built_in, atol=1e-4 * np.abs(built_in).max())


def test_a_run_predicts_with_its_network_wherever_it_is(trained, photos, network, tmp_path, monkeypatch, featx):
    run, folder = trained
    image = next((photos / "test" / "sea").iterdir())
    known = Classifier.load(run.dir, cache_dir=folder / "cache").predict([image]).probabilities
    assert json.loads((run.dir / "recipe.json").read_text())["backbone"] == "small.onnx"
    hidden = network.rename(tmp_path / "hidden.onnx")
    try:
        with pytest.raises(WeightsError, match=r"small\.onnx.*was not found.*--weights PATH"):
            Classifier.load(run.dir, cache_dir=tmp_path / "c1").predict([image])
        words = ["predict", run.dir, image, "--weights", hidden, "--cache-dir", tmp_path / "c2", "--json"]
        top = {item["label"]: item["probability"] for item in json.loads(featx(*words, "--top-k", 2).stdout)["top"]}
        np.testing.assert_allclose([top["sea"], top["wood"]], known[0], atol=1e-6)
        with pytest.raises(FeatxError, match="openvino"):
            Classifier.load(run.dir, cache_dir=tmp_path / "c3", engine="keras", weights=hidden).predict([image])
    finally:
        hidden.rename(network)


def test_direct_and_heads_are_compared_with_other_backbones(network, photos, cache, caplog, without_rendering):
    with caplog.at_level(logging.INFO, "featx"):
        comparison = compare_approaches(
            photos,
            backbones=[network, "mobilenetv2"],
            weights="random",
            image_size=32,
            preprocess="tf",
            precision="float32",
            pooling=None,
            direct=True,
            maps=MAPS,
            cache_dir=cache,
            training=Training(epochs=1),
        )
    names = {approach.name for approach in comparison.approaches}
    assert {"small.onnx + dense", "small.onnx + logreg", "small.onnx direct", "mobilenetv2 + logreg"} <= names
    assert "small.onnx ends with Gemm: softmax turns its output into probabilities." in caplog.messages
    direct = DirectClassifier.load(backbone=network, maps=MAPS, cache_dir=cache, **OPTIONS)
    assert direct.predict(sorted((photos / "test").rglob("*.jpg"))).n_unreadable == 0


def test_two_files_of_one_name_are_not_compared(network, photos, cache, tmp_path):
    other = write_network(tmp_path / "small.onnx", seed=3)
    with pytest.raises(FeatxError, match="same name"):
        compare_approaches(photos, backbones=[network, other], cache_dir=cache, **OPTIONS)


def test_a_block_of_a_file_is_not_tuned(network, photos, cache):
    with pytest.raises(FeatxError, match="leave --tune out"):
        train_top(photos, tune="last", backbone=network, cache_dir=cache, **OPTIONS)


def test_a_plan_tries_what_can_run_it(network, photos, cache):
    plan = plan_extraction(photos, backbone=network, cache_dir=cache, preprocess="tf", precision="float32")
    assert [(one.engine, one.reason) for one in plan.estimates] == [("openvino", None)]
    assert (plan.backbone, plan.feature_shape, plan.chosen.engine) == ("small.onnx", (16,), "openvino")


def test_scikit_learn_gets_the_features(network, photos, cache):
    extractor = FeatureExtractor(network, preprocess="tf", layer=SPATIAL, pooling="max", cache_dir=cache)
    features = extractor.fit_transform(sorted((photos / "test").rglob("*.jpg")))
    assert features.shape == (8, 16)


def test_several_layers_have_the_bits_of_each_alone(network, photos, cache, tmp_path):
    extract_features(photos, backbone=network, layers=["relu1", "flatten"], cache_dir=cache, **OPTIONS)
    for layer in ("relu1", "flatten"):
        options = {"backbone": network, "layer": layer, **OPTIONS}
        alone = extract_features(photos, cache_dir=tmp_path / "alone", **options)
        together = extract_features(photos, cache_dir=cache, **options)
        assert (alone.n_computed, together.n_computed) == (24, 0)
        digests = alone.dataset.digests
        stores = [FeatureStore(one.store_dir.parent, one.recipe) for one in (alone, together)]
        np.testing.assert_array_equal(*(store.read(digests) for store in stores))


def test_views_and_the_preview_work_with_it(network, photos, cache, featx, tmp_path, monkeypatch, without_rendering):
    extraction = extract_features(photos, backbone=network, cache_dir=cache, views=2, **OPTIONS)
    assert extraction.views.n_computed == 2 * 16
    monkeypatch.chdir(tmp_path)
    featx("extract", photos, "--backbone", network, "--views", 2, "--preview", "--cache-dir", cache)


def test_advice_names_the_file_and_its_preprocessing(network, photos, cache, featx):
    command = extract_command(photos, cache, backbone=str(network), preprocess="tf")
    assert f"--backbone {network} --preprocess tf" in command
    words = ["train-top", photos, "--backbone", network, "--preprocess", "tf", "--cache-dir", cache]
    assert f"--backbone {network} --preprocess tf" in featx(*words, exit_code=2).output


def test_a_damaged_network_in_the_cache_is_made_again(network, photos, tmp_path, featx, caplog):
    cache = tmp_path / "cache"
    first = extract_features(photos, backbone=network, cache_dir=cache, **OPTIONS)
    converted = next((cache / "networks").glob("small.onnx-*.zip"))
    whole = converted.read_bytes()
    assert "no damage" in featx("cache", "verify", "--cache-dir", cache).output
    converted.write_bytes(whole[: len(whole) // 2])
    options = {**OPTIONS, "dtype": "float32"}
    second = extract_features(photos, backbone=network, cache_dir=cache, **options)
    assert second.n_computed == first.n_computed
    assert any("damaged" in message and "creates it again" in message for message in caplog.messages)
    assert Recipe.from_json((second.store_dir / "recipe.json").read_text()) == second.recipe
