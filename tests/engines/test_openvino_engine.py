"""The openvino engine: the features it gives, the network it keeps, and what it does without."""

import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import Future
from dataclasses import replace
from functools import cache as remembered
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.backbones.build import build_model
from featx.backbones.table import BACKBONES, trunk_of
from featx.dataset.scanning import scan
from featx.engines import openvino_engine
from featx.engines.engine import EngineOptions, create_engine
from featx.engines.networks import (
    Network,
    calibration_digest,
    check_network,
    network_path,
    network_recipe,
    read_network,
    write_network,
)
from featx.engines.openvino_engine import _Batch, _openvino_model, _serialized
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.extract.options import resolve_recipe
from featx.recipe import Recipe
from featx.system.late_imports import import_openvino, openvino_has_bfloat16
from tests.chaos.tally import IS_FULL

SMALL = {"weights": "random", "image_size": (32, 32)}

#: The first blocks of the network alone, for what has nothing to do with the rest.
PART = {**SMALL, "layer": "block2_pool"}

needs_bfloat16 = pytest.mark.skipif(
    not openvino_has_bfloat16(), reason="needs a processor on which OpenVINO has bfloat16"
)


def precision_of(precision: str, *others: object) -> object:
    """Return the parameters of a test that begin with a precision, which not every processor has."""
    return pytest.param(precision, *others, marks=needs_bfloat16 if precision == "bfloat16" else ())


def random_images(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    from tests.conftest import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, networks_dir) -> Path:
    """A cache that the tests share, so that each network is converted once."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "networks").symlink_to(networks_dir, target_is_directory=True)
    return folder


def features_of(images: np.ndarray, photos: Path, cache: Path, options: EngineOptions, **recipe_options) -> np.ndarray:
    dataset = scan(photos, cache)
    recipe, weights = resolve_recipe(cache, dataset, **{**SMALL, **recipe_options})
    engine = create_engine(recipe, weights, cache, dataset, replace(options, engine="openvino"))
    try:
        return engine.features(images)
    finally:
        engine.close()


def reference(shared: Path, backbone: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The shared images and their features by an independent float64 implementation."""
    archive = np.load(shared / "reference" / f"{backbone}-{size}.npz")
    folder = shared / "reference" / f"images-{size}"
    images = np.stack([np.asarray(Image.open(folder / str(name)).convert("RGB")) for name in archive["files"]])
    return images, archive["features"]


#: One of each kind of layers.
SOME = (
    [name for name in BACKBONES if trunk_of(name).n_parameters < 1e8]
    if IS_FULL
    else (
        "vgg16",
        "resnet50",
        "mobilenetv2",
        "efficientnetb0",
        "mobilenetv3small",
        "xception",
        "convnexttiny",
    )
)


@pytest.mark.parametrize("backbone", SOME)
def test_every_backbone_gives_the_features_that_keras_gives_and_they_fit_float16(backbone, photos, cache, monkeypatch):
    model_of = remembered(build_model)  # one model, for the conversion and for Keras
    monkeypatch.setattr(openvino_engine, "build_model", model_of)
    size = BACKBONES[backbone].min_size
    images = random_images(3, size)
    options = {"backbone": backbone, "precision": "float32", "image_size": (size, size)}
    features = features_of(images, photos, cache, EngineOptions(), **options)
    recipe, weights = resolve_recipe(cache, **{**SMALL, **options})
    model = model_of(network_recipe(recipe), weights.path)
    expected = np.asarray(model(images))  # not compiled, which takes longer than to run it
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.isfinite(features.astype(np.float16)).all()
    assert not np.allclose(features[0], features[1])


def test_a_request_that_fails_ends_its_batch_instead_of_waiting_for_ever():
    class FailedRequest:
        def get_output_tensor(self, _number):
            raise RuntimeError("no output")

    batch = _Batch(4, 2, (3,))
    for start in (0, 2):
        _Batch.on_finished(FailedRequest(), (batch, start))
    with pytest.raises(RuntimeError, match="no output"):
        batch.future.result(timeout=0)


#: Each backbone and each size once; the Keras engine is held against the other pairs.
REFERENCES = [("vgg16", 150), ("resnet50", 64), *([("vgg16", 64), ("resnet50", 150)] if IS_FULL else [])]


@pytest.mark.parametrize(
    ("precision", "backbone", "size"),
    [precision_of(precision, *pair) for precision in ("float32", "bfloat16") for pair in REFERENCES],
)
def test_features_agree_with_the_float64_reference(precision, backbone, size, shared, photos, cache):
    images, expected = reference(shared, backbone, size)
    weights = next((shared / "weights").glob(f"{backbone}*_notop.h5"))
    features = features_of(
        images,
        photos,
        cache,
        EngineOptions(),
        backbone=backbone,
        image_size=(size, size),
        weights=str(weights),
        precision=precision,
    )
    relative = np.abs(features - expected).max() / np.abs(expected).max()
    if precision == "float32":
        assert relative < 1e-4
    else:
        assert cosines(features, expected).mean() > 0.9999
        assert cosines(features, expected).min() > 0.9995


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_int8_stays_near_float32(backbone, shared, tmp_path, cache):
    data = shared / "data" / "cats-dogs"
    for split, n in (("train", 12), ("test", 2)):
        for name in ("cats", "dogs"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for path in sorted((data / split / name).iterdir())[:n]:
                (folder / path.name).symlink_to(path)
    weights = str(next((shared / "weights").glob(f"{backbone}*_notop.h5")))
    options = {"backbone": backbone, "image_size": (64, 64), "weights": weights}
    images, _ = reference(shared, backbone, 64)
    int8, float32 = (
        features_of(images, tmp_path / "data", cache, EngineOptions(), precision=p, **options)
        for p in ("int8", "float32")
    )
    assert not np.array_equal(int8, float32)
    assert cosines(int8, float32).mean() > (0.9995 if backbone == "vgg16" else 0.995)


#: With int8, the test of all settings of stage one has a network with branches.
SAME_BITS = [("float32", "resnet50"), ("bfloat16", "resnet50"), ("int8", "vgg16")]
if IS_FULL:
    SAME_BITS += [("float32", "vgg16"), ("bfloat16", "vgg16"), ("int8", "resnet50")]


@pytest.mark.parametrize(("precision", "backbone"), [precision_of(*pair) for pair in SAME_BITS])
def test_same_bits_in_whatever_batch(precision, backbone, photos, cache):
    images = random_images(17)
    order = np.random.default_rng(1).permutation(17)
    results = [
        features_of(images, photos, cache, EngineOptions(batch_size=n), precision=precision, backbone=backbone)
        for n in (1, 8, 16)
    ]
    permuted = features_of(
        images[order], photos, cache, EngineOptions(batch_size=8), precision=precision, backbone=backbone
    )
    one_thread = features_of(
        images, photos, cache, EngineOptions(threads=1, streams=1), precision=precision, backbone=backbone
    )
    assert results[0].any()
    for other in (*results[1:], permuted[np.argsort(order)], one_thread):
        assert np.array_equal(results[0], other)


def test_batches_under_way_at_once_keep_their_order(photos, cache):
    images = random_images(40)
    dataset = scan(photos, cache)
    recipe, weights = resolve_recipe(cache, dataset, precision="float32", **SMALL)
    engine = create_engine(recipe, weights, cache, dataset, EngineOptions(engine="openvino", batch_size=4))
    parts = [images[:0], images[:1], images[1:10], images[10:13], images[13:]]
    futures: list[Future[np.ndarray]] = [engine.submit(part) for part in parts]
    results = [future.result() for future in futures]
    engine.close()
    assert [len(result) for result in results] == [0, 1, 9, 3, 27]
    assert np.array_equal(
        np.concatenate(results), features_of(images, photos, cache, EngineOptions(), precision="float32")
    )


def test_float32_and_bfloat16_and_both_dtypes_share_one_network(photos, cache):
    dataset = scan(photos, cache)
    recipes = [
        resolve_recipe(cache, dataset, precision=precision, dtype=dtype, **SMALL)[0]
        for precision, dtype in itertools.product(("float32", "bfloat16"), ("float16", "float32"))
    ]
    assert len({recipe.key for recipe in recipes}) == 4
    assert len({network_path(recipe, cache) for recipe in recipes}) == 1


def damage_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def damage_by_emptying(path: Path) -> None:
    path.write_bytes(b"")


def damage_structure(path: Path) -> None:
    """A sound zip file whose network is none: what another version of OpenVINO might not read."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {**members, "network.xml": b"<net/>"}.items():
            file.writestr(name, data)


@pytest.fixture
def own_cache(tmp_path) -> Path:
    """A cache whose networks a test may damage: those of `cache` are read by other test processes."""
    (tmp_path / "cache" / "networks").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.mark.parametrize("damage", [damage_bytes, damage_by_cutting, damage_by_emptying, damage_structure])
def test_damaged_network_is_made_again(damage, photos, cache, own_cache, caplog):
    options = {**PART, "precision": "float32", "image_size": (40, 40)}
    images = random_images(3, 40)
    expected = features_of(images, photos, cache, EngineOptions(), **options)
    recipe, _ = resolve_recipe(cache, scan(photos, cache), **options)
    network = Path(shutil.copy(network_path(recipe, cache), network_path(recipe, own_cache)))
    half_written = network.with_name(".tmp-1.zip")
    half_written.write_bytes(b"half a network")
    os.utime(half_written, (1, 1))
    damage(network)
    caplog.clear()
    assert np.array_equal(features_of(images, photos, own_cache, EngineOptions(), **options), expected)
    assert [record.message for record in caplog.records if "is damaged" in record.message]
    assert not half_written.exists()
    caplog.clear()
    assert np.array_equal(features_of(images, photos, own_cache, EngineOptions(), **options), expected)
    assert "damaged" not in caplog.text


def test_network_of_another_recipe_is_not_used(photos, cache, own_cache, caplog):
    images = random_images(2)
    options = {**PART, "precision": "float32", "weights": "random:1"}
    expected = features_of(images, photos, cache, EngineOptions(), **options)
    other_options = {**options, "weights": "random"}
    features_of(images, photos, cache, EngineOptions(), **other_options)  # the other network is there, too
    dataset = scan(photos, cache)
    recipe, other = (resolve_recipe(cache, dataset, **one)[0] for one in (options, other_options))
    shutil.copy(network_path(other, cache), network_path(recipe, own_cache))
    assert np.array_equal(features_of(images, photos, own_cache, EngineOptions(), **options), expected)
    assert "belongs to another recipe" in caplog.text


def int8_recipe(photos: Path, cache: Path) -> Recipe:
    return resolve_recipe(cache, scan(photos, cache), precision="int8", **PART)[0]


def test_calibration_is_the_same_in_every_run_and_outlives_new_images(photos, tmp_path, make_photos):
    cache, other_cache = tmp_path / "cache", tmp_path / "other"
    recipe = int8_recipe(photos, cache)
    assert recipe == int8_recipe(photos, other_cache)
    assert recipe.calibration is not None
    data = make_photos(tmp_path / "data")
    first = extract_features(data, cache_dir=cache, precision="int8", **PART)
    more = make_photos(tmp_path / "more", n_train=15)
    for path in [more / "train" / "sea" / f"sea.{i}.jpg" for i in (12, 13, 14)]:
        path.rename(data / "train" / "sea" / path.name)
    second = extract_features(data, cache_dir=cache, precision="int8", **PART)
    assert second.recipe == first.recipe
    assert (second.n_computed, second.n_cached) == (3, 32)
    assert int8_recipe(data, other_cache) != first.recipe  # there, nothing is kept to go on with


def test_another_data_set_is_calibrated_by_itself(photos, cache, tmp_path, make_photos):
    extract_features(photos, cache_dir=cache, precision="int8", **PART)
    other = make_photos(tmp_path / "other", classes=("lake", "field", "road"), n_train=30)
    for path in (other / "train").rglob("*.jpg"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, quality=90)
    assert int8_recipe(other, cache).calibration != int8_recipe(photos, cache).calibration


def test_test_images_do_not_calibrate(photos, cache, tmp_path, make_photos):
    recipe = int8_recipe(photos, tmp_path / "a")
    fewer = make_photos(tmp_path / "fewer", n_test=2)
    assert int8_recipe(fewer, tmp_path / "b").calibration == recipe.calibration


def test_int8_without_nncf_fails_before_a_network_is_converted(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)  # as if it were not installed
    message = r'^nncf is not installed\. Install it with .*pip install .*"featx\[nncf\]", or choose another --precision'
    with pytest.raises(FeatxError, match=message):
        extract_features(photos, cache_dir=tmp_path / "cache", precision="int8", **PART)
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_int8_needs_a_data_set_and_openvino(photos, cache):
    with pytest.raises(FeatxError, match="needs a data set"):
        resolve_recipe(cache, precision="int8", **SMALL)
    with pytest.raises(FeatxError, match="keras engine does not support int8"):
        extract_features(
            photos, cache_dir=cache, engine="keras", precision="int8", image_size=(33, 33), weights="random"
        )


def test_lost_int8_network_is_not_made_from_other_images(photos, tmp_path, make_photos):
    cache = tmp_path / "cache"
    data = make_photos(tmp_path / "data")
    recipe = extract_features(data, cache_dir=cache, precision="int8", **PART).recipe
    damage_by_cutting(network_path(recipe, cache))
    _, weights = resolve_recipe(cache, **PART)
    next((data / "train" / "sea").iterdir()).unlink()
    with pytest.raises(FeatxError, match="without its calibration images"):
        create_engine(recipe, weights, cache, scan(data, cache), EngineOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "int4"}, "A precision is auto"), ({"engine": "tensorrt"}, "An engine must be one")],
)
def test_unknown_names_are_refused(options, message, photos, cache):
    with pytest.raises(FeatxError, match=message):
        extract_features(photos, cache_dir=cache, **SMALL, **options)


def run_python(code: str, *arguments: object, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


EXTRACT_WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path
from featx import extract_features
extraction = extract_features(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), weights="random", image_size=(32, 32))
loaded = {"tensorflow", "keras", "nncf", "sklearn", "torch", "jax"} & set(sys.modules)
print(extraction.n_computed, sorted(loaded))
"""


def test_new_image_is_computed_without_tensorflow(tmp_path, make_photos, new_cache):
    data, cache = make_photos(tmp_path / "data"), new_cache(tmp_path / "cache")
    extract_features(data, cache_dir=cache, **SMALL)
    Image.fromarray(random_images(1)[0]).save(data / "train" / "sea" / "new.png")
    assert run_python(EXTRACT_WITHOUT_TENSORFLOW, data, cache).strip() == "1 []"


def test_a_network_that_would_unpack_to_any_size_is_not_read(tmp_path, caplog):
    recipe, weights = resolve_recipe(tmp_path, **SMALL, layer="block1_pool")
    create_engine(recipe, weights, tmp_path).close()
    path = network_path(recipe, tmp_path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**members, "network.bin": bytes(64 << 20)}.items():
            file.writestr(name, content)
    assert path.stat().st_size < 1 << 20
    create_engine(recipe, weights, tmp_path).close()
    assert "it is compressed" in caplog.text
    with zipfile.ZipFile(path) as file:
        assert file.read("network.bin") == members["network.bin"]


def float_images(ops):
    images = ops.parameter([-1, 32, 32, 3], np.float32)
    return [images], [images]


def two_outputs(ops):
    images = ops.parameter([-1, 32, 32, 3], np.uint8)
    return [images], [ops.convert(images, "f32"), ops.convert(images, "f32")]


def two_inputs(ops):
    images, more = ops.parameter([-1, 32, 32, 3], np.uint8), ops.parameter([-1], np.uint8)
    return [images, more], [ops.convert(images, "f32")]


def one_number(ops):
    images = ops.parameter([-1, 32, 32, 3], np.uint8)
    return [images], [ops.reduce_mean(ops.convert(images, "f32"), np.arange(4), keep_dims=False)]


def of_other_images(ops):
    images = ops.parameter([-1, 8, 8, 3], np.uint8)
    return [images], [ops.matmul(ops.convert(images, "f32"), np.ones((8, 3, 2), np.float32), False, False)]


def whole_numbers(ops):
    images = ops.parameter([-1, 32, 32, 3], np.uint8)
    return [images], [images]


@pytest.mark.parametrize("make", [float_images, two_outputs, two_inputs, one_number, of_other_images, whole_numbers])
def test_a_sound_network_from_something_else_to_something_else_is_a_damaged_one(make):
    openvino = import_openvino()
    inputs, outputs = make(openvino.opset13)
    network = Network(*_serialized(openvino.Model(outputs, inputs)))
    recipe = Recipe(backbone="vgg16", weights="random-0", layer="x", image_size=(32, 32), preprocessing="caffe")
    with pytest.raises(RuntimeError):
        _openvino_model(network, recipe)


def test_an_int8_network_says_which_images_its_recipe_means(tmp_path):
    digests = ("ab" * 32, "cd" * 32)
    recipe = replace(
        Recipe(backbone="vgg16", weights="random-0", layer="x", image_size=(32, 32), preprocessing="caffe"),
        precision="int8",
        calibration=calibration_digest(digests),
    )
    write_network(Network(b"<net/>", b"", digests), recipe, tmp_path)
    assert read_network(recipe, tmp_path) == Network(b"<net/>", b"", digests)
    assert check_network(network_path(recipe, tmp_path)) is None
    for others in (digests[:1], ("ab" * 32, "cd" * 31), (3,)):
        write_network(Network(b"<net/>", b"", others), recipe, tmp_path)
        assert read_network(recipe, tmp_path) is None
        assert check_network(network_path(recipe, tmp_path))


INTERRUPT_AFTER_TWO_ENGINES = """
import gc, os, signal, sys, time
from pathlib import Path
from featx.engines import create_engine
from featx.extract.options import resolve_recipe
cache = Path(sys.argv[1])
recipe, weights = resolve_recipe(cache, weights="random", image_size=(32, 32), layer="block1_pool")
first = create_engine(recipe, weights, cache)
second = create_engine(recipe, weights, cache)
for name in ("first", "second"):  # the first must go first
    globals().pop(name).close()
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_two_engines_is_no_segmentation_fault(cache):
    create_engine(*resolve_recipe(cache, **SMALL, layer="block1_pool"), cache).close()  # converts: TensorFlow is here
    assert run_python(INTERRUPT_AFTER_TWO_ENGINES, cache).strip() == "interrupted"
