"""The ncnn engine: VGG networks in float32 by Winograd's algorithm, with the features that Keras gives."""

import importlib.util
import logging
import subprocess
import sys
import types
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from PIL import Image

from featx.dataset.scanning import scan
from featx.engines import engine as engines
from featx.engines import ncnn_engine
from featx.engines.engine import EngineOptions, choose_engine, create_engine, create_joined_engine
from featx.engines.openvino_engine import load_network
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.extract.options import resolve_recipe
from featx.extract.planning import plan as plan_module
from featx.extract.planning.plan import plan_extraction
from featx.store.feature_store import FeatureStore

VGG = {"backbone": "vgg16", "weights": "random", "precision": "float32", "dtype": "float32"}

#: The first blocks of the network alone, on images that `auto` gives to ncnn: neither square nor of even sides.
PART = {**VGG, "layer": "block2_pool", "image_size": (97, 131)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, networks_dir) -> Path:
    """A cache that the tests share, so that each network is converted once."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "networks").symlink_to(networks_dir, target_is_directory=True)
    return folder


def random_images(n: int, image_size: tuple[int, int]) -> np.ndarray:
    """Return noise, with a black and a white image among it."""
    images = np.random.default_rng(0).integers(0, 256, (n, *image_size, 3), np.uint8)
    images[1:3] = [[[[0]]], [[[255]]]]
    return images


def features_of(images: np.ndarray, cache: Path, engine: str, *, options: dict, **numbers: int) -> np.ndarray:
    recipe, weights = resolve_recipe(cache, **options)
    with closing(create_engine(recipe, weights, cache, options=EngineOptions(engine=engine, **numbers))) as running:
        features: np.ndarray = running.features(images)
    return features


@pytest.mark.parametrize(
    "options",
    [
        PART,
        {**PART, "layer": "block1_conv1", "pooling": "max"},
        {**VGG, "image_size": (33, 47), "pooling": "avg"},
        {**VGG, "image_size": (33, 47), "backbone": "vgg19", "layer": "block3_conv4"},
    ],
    ids=lambda options: "-".join(str(options.get(name)) for name in ("backbone", "layer", "pooling")),
)
def test_features_are_those_of_keras(cache, options):
    images = random_images(4, options["image_size"])
    expected, features = (features_of(images, cache, engine, options=options) for engine in ("keras", "ncnn"))
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_features_of_imagenet_are_those_of_float64(cache, shared):
    size = 150
    reference = shared / "reference"
    with np.load(reference / f"vgg16_imagenet-{size}.npz") as archive:
        expected, names = archive["features"], archive["files"]
    images = np.stack([np.asarray(Image.open(reference / f"images-{size}" / Path(str(name)).name)) for name in names])
    weights = shared / "weights-imagenet" / "vgg16_imagenet_notop.h5"
    features = features_of(images, cache, "ncnn", options={**VGG, "image_size": (size, size), "weights": str(weights)})
    assert np.abs(features - expected).max() < 1e-5 * np.abs(expected).max()


def test_no_number_changes_a_bit(cache):
    images = random_images(7, PART["image_size"])
    expected = features_of(images, cache, "ncnn", options=PART)
    for numbers in (
        {"threads": 1},
        {"threads": 4},
        {"threads": 2, "streams": 1},
        {"threads": 1, "streams": 3},
        {"batch_size": 5},
    ):
        assert np.array_equal(features_of(images, cache, "ncnn", options=PART, **numbers), expected), numbers
    for rows in ([3], [6, 0], [2, 2, 2], []):
        assert np.array_equal(features_of(images[rows], cache, "ncnn", options=PART), expected[rows])


def test_several_layers_in_one_pass_have_the_bits_that_they_have_alone(cache):
    layers = ["block2_pool", "block1_conv2"]
    recipes = [resolve_recipe(cache, **{**PART, "layer": layer})[0] for layer in layers]
    _, weights = resolve_recipe(cache, **PART)
    images = random_images(3, PART["image_size"])
    joined = create_joined_engine(recipes, weights, cache, EngineOptions(engine="ncnn"))
    assert isinstance(joined, ncnn_engine.NcnnEngine)
    with closing(joined):
        found = joined.split(joined.features(images))
    for layer, features in zip(layers, found, strict=True):
        alone = features_of(images, cache, "ncnn", options={**PART, "layer": layer})
        assert np.array_equal(features, alone), layer


def test_auto_takes_it_for_float32_on_large_images_where_it_is_installed(cache, monkeypatch, caplog):
    monkeypatch.setattr(engines, "cuda_capability", lambda: None)
    monkeypatch.setattr(engines, "n_cores", lambda: 2)

    def chosen(**other: object) -> str:
        return choose_engine(EngineOptions(), resolve_recipe(cache, **{**PART, **other})[0])

    assert chosen() == chosen(image_size=(96, 96)) == "ncnn"
    assert chosen(image_size=(96, 95)) == chosen(backbone="resnet50", layer=None) == "openvino"
    assert choose_engine(EngineOptions(engine="ncnn"), resolve_recipe(cache, **{**PART, "image_size": 32})[0]) == "ncnn"
    monkeypatch.setattr(engines, "n_cores", lambda: 16)
    assert [chosen(image_size=size) for size in ((191, 192), (192, 192))] == ["openvino", "ncnn"]
    monkeypatch.setattr(engines, "n_cores", lambda: 2)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == "ncnn" else find_spec(name))
    engines._say_missing.cache_clear()
    with caplog.at_level(logging.INFO, "featx"):
        assert chosen() == chosen() == "openvino"
    (said,) = [record.getMessage() for record in caplog.records if "ncnn" in record.getMessage()]
    assert said.startswith("ncnn would compute vgg16 faster here, but is not installed: ")
    assert said.endswith('"featx[ncnn]"')
    caplog.clear()
    assert chosen(image_size=(64, 64)) == "openvino"
    assert "ncnn" not in caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "resnet50"], "The ncnn engine cannot run resnet50: choose --engine openvino or keras"),
        (
            ["--precision", "bfloat16"],
            "The ncnn engine does not support bfloat16; choose --engine openvino.",
        ),
    ],
)
def test_what_it_cannot_run_is_refused_with_advice(make_photos, tmp_path, words, said):
    data = make_photos(tmp_path / "data")
    command = [sys.executable, "-m", "featx", "extract", data, "--engine", "ncnn", "--weights", "random", *words]
    result = subprocess.run(map(str, command), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(FeatxError, match=r"featx\[ncnn\].*or choose another --engine"):
        features_of(random_images(3, PART["image_size"]), cache, "ncnn", options=PART)


def test_a_network_that_is_no_chain_is_run_as_far_as_it_is_one(cache):
    """After its first convolution, ResNet50 branches: OpenVINO computes the rest."""
    options = {**VGG, "backbone": "resnet50", "image_size": (64, 64), "layer": "conv2_block1_out"}
    recipe, weights = resolve_recipe(cache, **options)
    images = random_images(3, (64, 64))
    with closing(ncnn_engine.NcnnEngine(recipe, weights, cache)) as running:
        features = running.features(images)
    expected = features_of(images, cache, "openvino", options=options)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert load_network(recipe, weights, cache, None) is not None


def test_what_ncnn_cannot_compute_is_a_sentence(cache):
    recipe, weights = resolve_recipe(cache, **PART)
    with closing(ncnn_engine.NcnnEngine(recipe, weights, cache, streams=1)) as running:
        stream = running._idle.get()
        stream._network = types.SimpleNamespace(create_extractor=_Failing)
        running._idle.put(stream)
        with pytest.raises(FeatxError, match=r"ncnn cannot compute an image of 97×131.*Choose --engine openvino"):
            running.features(random_images(3, PART["image_size"]))


class _Failing:
    """An extractor that has too little memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def input(self, *_arguments: object) -> int:
        return 0

    def extract(self, _depth: int) -> tuple[int, None]:
        return -100, None


def test_batches_that_nobody_waits_for_are_left_out_at_the_end(cache):
    recipe, weights = resolve_recipe(cache, **PART)
    running = ncnn_engine.NcnnEngine(recipe, weights, cache, streams=1)
    waiting = [running.submit(random_images(8, PART["image_size"])) for _ in range(4)]
    waiting[0].result()
    computed: list[int] = []
    forward = running._idle.get()
    compute = forward.features
    forward.features = lambda image: computed.append(1) or compute(image)
    running._idle.put(forward)
    running.close()
    assert len(computed) < 8


def test_no_more_cores_are_used_than_wanted(cache, monkeypatch):
    recipe, weights = resolve_recipe(cache, **PART)
    monkeypatch.setattr(ncnn_engine, "n_cores", lambda: 8)
    used = {}
    for threads, streams in ((None, None), (1, 4), (3, 2), (64, None), (4, 2), (None, 1)):
        with closing(ncnn_engine.NcnnEngine(recipe, weights, cache, threads=threads, streams=streams)) as running:
            used[threads, streams] = (running._idle.qsize(), running._network.opt.num_threads)
    assert list(used.values()) == [(8, 1), (1, 1), (2, 1), (8, 1), (2, 2), (1, 8)]


def test_extract_and_plan_use_it(make_photos, tmp_path, new_cache, monkeypatch):
    monkeypatch.setattr(engines, "n_cores", lambda: 2)
    monkeypatch.setattr(plan_module, "PASS_S", 0.1)
    monkeypatch.setattr(plan_module, "BUDGET_S", 600.0)
    data = make_photos(tmp_path / "data")
    found = {}
    for engine in ("ncnn", "openvino"):
        extraction = extract_features(data, cache_dir=new_cache(tmp_path / engine), engine=engine, **PART)
        store = FeatureStore(tmp_path / engine, extraction.recipe)
        found[engine] = store.read(scan(data, tmp_path / engine).digests)
    largest = np.abs(found["openvino"]).max()
    np.testing.assert_allclose(found["ncnn"], found["openvino"], rtol=0, atol=1e-5 * largest)
    options = {name: value for name, value in PART.items() if name != "precision"}
    extraction = extract_features(data, cache_dir=tmp_path / "ncnn", engine="ncnn", **options)
    assert extraction.n_computed == 0, "its only precision is the one of auto"
    plan = plan_extraction(data, cache_dir=tmp_path / "ncnn", engine="ncnn", **options)
    assert [(one.engine, one.precision, one.is_chosen) for one in plan.estimates] == [("ncnn", "float32", True)]
    tried = plan_module._configurations(EngineOptions(), [extraction.recipe])
    assert [how.engine for how, _ in tried] == ["ncnn", "openvino", "keras"]
    small = replace(extraction.recipe, image_size=(64, 64))
    assert [how.engine for how, _ in plan_module._configurations(EngineOptions(), [small])] == ["openvino", "keras"]
