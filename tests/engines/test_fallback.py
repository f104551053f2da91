"""int8 has no holes: images that an int8 network is not made for are found, and computed in float32."""

import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.cli.extract import extraction_text
from featx.dataset.scanning import scan
from featx.engines import fallback, openvino_engine, precision, quantization
from featx.engines.engine import EngineOptions, create_engine
from featx.engines.networks import network_path, read_fallback, read_network, write_network
from featx.engines.openvino_engine import OpenVinoEngine, load_network
from featx.engines.precision import auto_precision, fast_precision, say_fast, speedup
from featx.errors import FeatxError
from featx.extract import extract as extract_module
from featx.extract.extract import Faster, _faster, extract_features
from featx.extract.options import resolve_recipe, split_options
from featx.images import decode_image
from featx.recipe import Recipe, UnknownRecipeError
from featx.store.feature_store import FeatureStore
from featx.system.late_imports import import_openvino
from featx.system.timings import Timings

PART = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool"}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def extremes() -> np.ndarray:
    """Flat colours, stripes, checkerboards and noise, `(n, 32, 32, 3)` uint8."""
    y, x = np.mgrid[:32, :32]
    gray = [np.full((32, 32), level) for level in (0, 1, 64, 124, 255)]
    for period in (1, 2, 4, 16):
        gray += [255 * ((y // period + x // period) % 2), 255 * (x // period % 2), 9 * (y // period % 2)]
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    return np.concatenate([np.stack([np.array(gray)] * 3, -1), noise]).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, networks_dir) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "networks").symlink_to(networks_dir, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Photographs of dull colours, 160 to train on and 40 to test on: what is bright is unlike them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("dull") / "data"
    for number in range(200):
        path = folder / ("train", "test")[number >= 160] / ("sea", "wood")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        pixels = np.kron(rng.integers(90, 120, (4, 4, 3)), np.ones((8, 8, 1))) + rng.integers(-5, 6, (32, 32, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def recipe_of(data: Path, cache: Path, name: str, **options: object) -> Recipe:
    return resolve_recipe(cache, scan(data, cache), **{**PART, "precision": name, **options})[0]


def started(data: Path, cache: Path, recipe: Recipe) -> OpenVinoEngine:
    dataset = scan(data, cache)
    _, weights = resolve_recipe(cache, dataset, **PART)
    engine = create_engine(recipe, weights, cache, dataset, EngineOptions(engine="openvino"))
    assert isinstance(engine, OpenVinoEngine)
    return engine


@pytest.fixture(scope="module")
def engines(data, cache) -> Iterator[dict[str, OpenVinoEngine]]:
    """In float32; in int8; and in int8 as it was before there was a fallback."""
    int8 = recipe_of(data, cache, "int8")
    recipes = {"float32": recipe_of(data, cache, "float32"), "int8": int8, "old": replace(int8, fallback=None)}
    found = {name: started(data, cache, recipe) for name, recipe in recipes.items()}
    yield found
    for engine in found.values():
        engine.close()


@pytest.fixture(scope="module")
def ordinary(data) -> np.ndarray:
    return np.array([decode_image(path.read_bytes(), (32, 32)) for path in sorted((data / "test").rglob("*.png"))])


def test_no_image_has_a_hole_and_before_there_were_some(engines, ordinary):
    images = np.concatenate([ordinary, extremes()])
    expected = engines["float32"].features(images)
    assert cosines(engines["old"].features(images), expected).min() < 0.9
    assert cosines(engines["int8"].features(images), expected).min() > 0.98


def test_ordinary_images_stay_in_int8_and_the_others_are_counted(engines, ordinary):
    before = engines["int8"].n_fallback
    features, expected = (engines[name].features(ordinary) for name in ("int8", "float32"))
    n_again = engines["int8"].n_fallback - before
    assert n_again <= len(ordinary) // 10
    assert sum(np.allclose(a, b, rtol=1e-5, atol=1e-3) for a, b in zip(features, expected, strict=True)) == n_again
    bright = extremes()[4:5]
    features, expected = (engines[name].features(bright) for name in ("int8", "float32"))
    assert engines["int8"].n_fallback == before + n_again + 1
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_few_clipped_activations_are_found_though_no_level_shows_them(engines, ordinary, data, tmp_path, monkeypatch):
    speck = ordinary[:1].copy()
    speck[0, 10:13, 10:13] = (255, 0, 255)
    before = engines["int8"].n_fallback
    expected = engines["float32"].features(speck)
    np.testing.assert_allclose(engines["int8"].features(speck), expected, rtol=1e-5, atol=1e-3)
    assert engines["int8"].n_fallback == before + 1
    monkeypatch.setattr(fallback, "CLIPPED_SHARE", 1.0)
    with closing(started(data, tmp_path, recipe_of(data, tmp_path, "int8"))) as by_levels_alone:
        plain, marked = by_levels_alone.features(ordinary[:1]), by_levels_alone.features(speck)
        assert by_levels_alone.n_fallback == 0
    plain_error = np.abs(plain - engines["float32"].features(ordinary[:1])).max()
    assert np.abs(marked - expected).max() > 10 * plain_error


def test_what_has_another_axis_than_the_images_first_gives_no_alarm():
    """As the heads of some transformers; the rest of this network is 2-D."""
    openvino = import_openvino()
    ops = openvino.opset13
    images = ops.parameter([-1, 4, 4, 3], openvino.Type.u8)

    def rounded(x: object, end: float) -> Any:
        return ops.fake_quantize(x, *map(np.float32, (-end, end, -end, end)), 256)

    def with_weights(x: object, n: int) -> Any:
        weights = np.random.default_rng(0).normal(0, 0.1, (n, 8)).astype(np.float32)
        return rounded(ops.matmul(x, ops.constant(weights), False, False), 900)

    flat = with_weights(rounded(ops.reshape(ops.convert(images, "f32"), [0, 48], special_zero=True), 255), 48)
    heads = rounded(ops.transpose(ops.reshape(flat, [0, 2, 4], special_zero=True), [1, 0, 2]), 900)
    back = ops.reshape(ops.transpose(heads, [1, 0, 2]), [-1, 8], special_zero=False)
    network = openvino.Model([with_weights(back, 8).output(0)], [images])
    assert len(fallback._quantizers(network)) == 3
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    core = openvino.Core()
    levels = core.compile_model(fallback.with_levels(network), "CPU")(pixels)[1]
    alarms = core.compile_model(fallback.with_alarm(network, levels), "CPU")(pixels)[1]
    assert alarms.tolist() == [0] * 8


def test_a_swish_function_raises_no_alarm_at_its_lowest_number():
    """Its range ends so close below 0 that rounding reaches the end."""
    openvino = import_openvino()
    ops = openvino.opset13
    images = ops.parameter([-1, 4, 4, 3], openvino.Type.u8)
    kernel = np.random.default_rng(0).normal(0, 0.02, (8, 3, 1, 1)).astype(np.float32)
    x = ops.transpose(ops.convert(images, "f32"), [0, 3, 1, 2])
    for _ in range(2):
        x = ops.swish(ops.convolution(x, ops.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1]))
        x = ops.fake_quantize(x, *map(np.float32, (-0.2823, 9.7, -0.2823, 9.7)), 256)
        kernel = np.random.default_rng(1).normal(0, 0.3, (8, 8, 1, 1)).astype(np.float32)
    network = openvino.Model([x.output(0)], [images])
    network.reshape([-1, 4, 4, 3])
    fallback.widen_ranges(network)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), np.uint8)
    core = openvino.Core()
    levels = core.compile_model(fallback.with_levels(network), "CPU")(pixels)[1]
    features, alarms = core.compile_model(fallback.with_alarm(network, levels), "CPU")(pixels).values()
    assert np.isclose(features.min(), -0.2823 * fallback.HEADROOM, atol=0.02)
    assert not alarms.any()


def test_features_do_not_depend_on_the_batch(engines, ordinary):
    images = np.stack([*ordinary, *extremes()])[np.random.default_rng(0).permutation(len(ordinary) + len(extremes()))]
    together = engines["int8"].features(images)
    alone = np.concatenate([engines["int8"].features(image[np.newaxis]) for image in images])
    assert np.array_equal(together, alone)
    assert engines["int8"].features(images[:0]).shape == (0, *together.shape[1:])


def test_a_network_that_int8_does_not_suit_is_computed_in_float32(
    data, tmp_path, networks_dir, engines, ordinary, monkeypatch, caplog
):
    monkeypatch.setattr(quantization, "LEAST_COSINE", 1.1)
    recipe = recipe_of(data, tmp_path, "int8")
    with closing(started(data, tmp_path, recipe)) as engine:
        images = np.concatenate([ordinary, extremes()])
        assert np.array_equal(engine.features(images), engines["float32"].features(images))
        assert engine.n_fallback == 0
    assert "int8 changes the features of vgg16 too much: one of its calibration images has a cosine of" in caplog.text


def test_an_extraction_counts_these_images_and_says_how_many(data, cache, tmp_path, featx):
    from PIL import Image

    folder = tmp_path / "data"
    for number, pixels in enumerate(extremes()[[4, 6, 9]]):
        (folder / "train" / "odd").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "train" / "odd" / f"{number}.png")
    for path in data.rglob("*.png"):
        copied = folder / path.relative_to(data)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    own = tmp_path / "cache"
    first = extract_features(data, cache_dir=own, precision="int8", **PART)
    assert first.timings.n_fallback <= 20
    words = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--precision", "int8"]
    done = featx("extract", folder, *words, "--cache-dir", own)
    assert "int8 does not fit 3 of 3 images" in done.stderr
    store = FeatureStore(own, first.recipe)
    assert sum(segment.timings.n_fallback for segment in store.segments) == first.timings.n_fallback + 3
    again = extract_features(folder, cache_dir=own, precision="int8", **PART)
    assert (again.n_computed, again.recipe) == (0, first.recipe)


def test_a_recipe_says_its_fallback_and_another_one_is_refused(data, cache):
    recipe = recipe_of(data, cache, "int8")
    assert recipe.fallback == "float32-v2"
    assert recipe_of(data, cache, "float32").fallback is None
    old = replace(recipe, fallback=None)
    assert "fallback" not in old.to_json()
    assert old.key != recipe.key
    old.check_implemented()
    for wrong in (replace(recipe, fallback="float64"), replace(recipe, precision="float32", calibration=None)):
        with pytest.raises(UnknownRecipeError, match="with fallback 'float"):
            wrong.check_implemented()


def test_older_networks_are_used_but_made_no_more(data, cache, tmp_path, ordinary, engines, monkeypatch):
    recipe = recipe_of(data, cache, "int8")
    old = replace(recipe, fallback="float32")
    old.check_implemented()
    network = read_network(recipe, cache)
    parts = read_fallback(recipe, cache)
    write_network(replace(network, fallback=(parts.xml, parts.weights)), old, tmp_path)
    with closing(started(data, tmp_path, old)) as engine:
        assert np.array_equal(engine.features(ordinary), engines["int8"].features(ordinary))
    monkeypatch.setattr(quantization, "import_nncf", lambda: pytest.fail("it is too late"))
    monkeypatch.setattr(openvino_engine, "_converted", lambda *_, **__: pytest.fail("it is too late"))
    with pytest.raises(FeatxError, match=r"only older versions of featx make such a network\. Copy .*\.zip"):
        started(data, tmp_path / "empty", old)


def test_a_network_without_an_alarm_is_not_taken_for_one_with(data, cache, tmp_path, caplog):
    recipe = recipe_of(data, cache, "int8")
    dataset = scan(data, tmp_path)
    _, weights = resolve_recipe(tmp_path, dataset, **PART)
    network = load_network(recipe, weights, tmp_path, dataset)
    assert len(network.outputs) == 2
    path = network_path(recipe, tmp_path)
    path.write_bytes(network_path(replace(recipe, fallback=None), cache).read_bytes())
    load_network(recipe, weights, tmp_path, dataset)
    assert "belongs to another recipe" in caplog.text


def test_a_layer_before_the_first_convolution_has_nothing_to_round(data, cache, ordinary):
    recipes = [recipe_of(data, cache, name, layer="conv1_pad", backbone="resnet50") for name in ("float32", "int8")]
    dataset = scan(data, cache)
    _, weights = resolve_recipe(cache, dataset, **{**PART, "backbone": "resnet50", "layer": "conv1_pad"})
    found = []
    for recipe in recipes:
        with closing(create_engine(recipe, weights, cache, dataset, EngineOptions(engine="openvino"))) as engine:
            found.append(engine.features(ordinary))
            assert engine.n_fallback == 0
    assert cosines(*found).min() > 0.98


def test_a_damaged_fallback_is_named_when_it_is_needed(data, cache, tmp_path, ordinary, engines):
    features, expected = (engines[name].features(ordinary) for name in ("int8", "float32"))
    ordinary = ordinary[[not np.allclose(*pair, rtol=1e-5, atol=1e-3) for pair in zip(features, expected, strict=True)]]
    recipe = recipe_of(data, cache, "int8")
    path = network_path(recipe, tmp_path)
    content = bytearray(network_path(recipe, cache).read_bytes())
    with zipfile.ZipFile(network_path(recipe, cache)) as file:
        content[file.getinfo("fallback.bin").header_offset + 1000] ^= 0x55
    path.parent.mkdir()
    path.write_bytes(content)
    with closing(started(data, tmp_path, recipe)) as engine:
        assert np.array_equal(engine.features(ordinary), engines["int8"].features(ordinary))
        with pytest.raises(FeatxError, match=r"The float32 network in .*\.zip cannot be read .* Remove that file"):
            engine.features(extremes())


@pytest.fixture
def fast_with(monkeypatch):
    """Pretend that the processor has int8 or not, and that NNCF is installed or not."""

    def pretend(*, int8: bool, nncf: bool, gpu: bool = False) -> None:
        monkeypatch.setattr(precision, "cpu_has_int8", lambda: int8)
        monkeypatch.setattr(precision, "cuda_capability", lambda: (9, 0) if gpu else None)
        monkeypatch.setattr(precision.importlib.util, "find_spec", lambda _name: object() if nncf else None)
        say_fast.cache_clear()

    return pretend


def test_fast_is_int8_where_the_processor_and_nncf_have_it(fast_with, data, cache, caplog):
    caplog.set_level("INFO", "featx")
    fast_with(int8=True, nncf=True)
    assert fast_precision("vgg16") == "int8"
    assert recipe_of(data, cache, "fast") == recipe_of(data, cache, "int8")
    assert "--precision fast is int8 on this machine." in caplog.text
    for less in (
        {"int8": False, "nncf": True},
        {"int8": True, "nncf": False},
        {"int8": True, "nncf": True, "gpu": True},
    ):
        fast_with(**less)
        assert fast_precision("vgg16") == auto_precision("vgg16")
    fast_with(int8=True, nncf=False)
    say_fast("float32")
    assert "int8 would be faster here, but nncf is not installed: " in caplog.text


def test_fast_without_a_data_set_or_with_keras_means_auto(fast_with, cache):
    fast_with(int8=True, nncf=True)
    assert resolve_recipe(cache, **PART, precision="fast")[0] == resolve_recipe(cache, **PART, precision="auto")[0]
    assert split_options({"precision": "fast", "engine": "keras"})[0]["precision"] == "auto"
    assert split_options({"precision": "fast", "engine": "openvino"})[0]["precision"] == "fast"
    with pytest.raises(FeatxError, match="A precision is auto, fast, float32, bfloat16, int8"):
        resolve_recipe(cache, **PART, precision="fastest")


def test_a_long_extraction_says_what_int8_would_have_taken(fast_with, data, cache, monkeypatch):
    monkeypatch.setattr(extract_module, "speedup", lambda _precision, _than: 4.0)
    extraction = extract_features(data, cache_dir=cache, precision="float32", **PART)
    assert extraction.faster is None
    long = replace(extraction, timings=Timings(900, decode_s=20.0, forward_s=200.0, elapsed_s=220.0))
    fast_with(int8=True, nncf=True)
    faster = _faster(long, EngineOptions())
    assert faster == Faster(precision="int8", elapsed_s=70.0)
    assert "int8 would have taken about 1 min 10 s: --precision fast." in extraction_text(replace(long, faster=faster))
    assert (
        _faster(replace(long, timings=Timings(900, decode_s=190.0, forward_s=30.0, elapsed_s=220.0)), EngineOptions())
        is None
    )
    assert _faster(long, EngineOptions(engine="ncnn")) is None, "only OpenVINO's float32 was timed"
    fast_with(int8=False, nncf=True)
    assert _faster(long, EngineOptions()) is None


def test_the_speed_of_a_precision_is_measured():
    assert speedup("float32", "float32") == 1
    assert 0.2 < speedup("int8", "float32") < 100
