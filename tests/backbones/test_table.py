"""Backbones: the networks and their numbers."""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import get_args

import h5py
import numpy as np
import pytest
from PIL import Image

from featx.backbones import build
from featx.backbones.build import build_model, build_tail
from featx.backbones.table import BACKBONES, Backbone, Preprocessing, find_backbone, find_block, trunk_of
from featx.backbones.weights import count_classes
from featx.engines.keras_engine import KerasEngine
from featx.errors import BackboneError, WeightsError
from featx.extract.options import resolve_recipe
from featx.recipe import Recipe
from featx.system.late_imports import import_keras
from tests.backbones.keras_networks import (
    no_numbers_drawn,
    sketch_of,
    start_of,
    trunk_in_keras,
    untrained_network,
)
from tests.chaos.tally import IS_FULL

SMALL = {"image_size": (32, 32), "weights": "random", "precision": "float32"}


def random_images(n: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3), np.uint8)


#: Each backbone and each size once; the openvino engine is held against the other pairs.
REFERENCES = list(product(("vgg16", "resnet50"), (64, 150))) if IS_FULL else [("vgg16", 64), ("resnet50", 150)]


@pytest.mark.parametrize(("backbone", "size"), REFERENCES)
def test_features_equal_an_independent_float64_implementation(shared, tmp_path, backbone, size):
    reference_path = shared / "reference" / f"{backbone}-{size}.npz"
    if not reference_path.exists():
        pytest.skip(f"there is no {reference_path.name}")
    with np.load(reference_path) as reference:
        files, expected = reference["files"], reference["features"].astype(np.float64)
    folder = shared / "reference" / f"images-{size}"
    images = np.stack([np.asarray(Image.open(folder / str(name)).convert("RGB")) for name in files])
    weights_path = shared / "weights" / f"{backbone}_tiny_imagenet_notop.h5"
    options = {"image_size": (size, size), "precision": "float32"}
    recipe, weights = resolve_recipe(tmp_path, backbone=backbone, weights=str(weights_path), **options)
    features = KerasEngine(recipe, weights, batch_size=16).features(images)
    error = np.linalg.norm(features - expected, axis=-1) / np.linalg.norm(expected, axis=-1).clip(1e-30)
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    assert np.linalg.norm(features - expected) / np.linalg.norm(expected) < 1e-4
    assert np.median(error) < 1e-4
    assert np.abs(features - expected).max() / np.abs(expected).max() < 1e-4


#: One of each family, small ones: all of them take minutes to build.
SMALL_ONES = (
    "vgg16",
    "resnet50",
    "resnet50v2",
    "xception",
    "mobilenet",
    "mobilenetv2",
    "mobilenetv3small",
    "densenet121",
    "efficientnetb0",
    "efficientnetv2b0",
    "convnexttiny",
)
SOME = BACKBONES if IS_FULL else SMALL_ONES


@pytest.fixture
def renamed() -> Iterator[str]:
    """The name of a backbone that `networks.json` does not have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "renamed", BACKBONES["mobilenet"])
        yield "renamed"


def test_a_new_backbone_runs_and_fits_float16(tmp_path, renamed):
    """Those of the table do in the tests of the openvino engine, with either engine."""
    recipe, weights = resolve_recipe(tmp_path, backbone=renamed, **SMALL)
    features = KerasEngine(recipe, weights, batch_size=4).features(random_images(3))
    assert features.shape[0] == 3
    assert features.std() > 0
    assert np.isfinite(features.astype(np.float16)).all()
    assert not np.allclose(features[0], features[1])


@pytest.mark.parametrize("backbone", [name for name in SOME if BACKBONES[name].last_block])
def test_the_last_block_of_a_backbone_can_be_tuned(backbone):
    entry, trunk = BACKBONES[backbone], trunk_of(backbone)
    name, before = find_block(backbone, "last", entry.layer)
    recipe = Recipe(
        backbone=backbone,
        weights="random-0",
        layer=entry.layer,
        image_size=(entry.min_size, entry.min_size),
        preprocessing=entry.preprocessing,
    )
    with import_keras().StatelessScope(initialize_variables=False):
        tail = build_tail(recipe, None, before, load_weights=False)
    layers = [layer.name for layer in tail.layers[1:]]
    assert sorted(layers) == sorted(trunk.layers[trunk.layers.index(before) + 1 :])
    assert f"{layers[0]}_".startswith(f"{name}_")
    assert tail.trainable_variables == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_last_block_is_the_last_that_has_a_number(backbone):
    """Which is cheap to know of all, other than whether it can be tuned."""
    layers, block = trunk_of(backbone).layers, BACKBONES[backbone].last_block
    if not block:
        with pytest.raises(BackboneError, match=f"no last block of {backbone}: name the first layer to tune"):
            find_block(backbone, "last", layers[-1])
        return
    (number,) = re.findall(r"(\d+[a-z]?)$", block)
    inside = next(row for row, layer in enumerate(layers) if layer.startswith(f"{block}_") or layer == block)
    stem = block.removesuffix(number)
    later = {found[1] for layer in layers[inside:] if (found := re.match(rf"{stem}(\d+[a-z]?)(_|$)", layer))}
    assert later == {number}
    assert inside > len(layers) / 2


@pytest.mark.parametrize(
    ("block", "layer", "found"),
    [
        ("block5", "block5_pool", ("block5", "block4_pool")),
        ("block5_conv3", "block5_pool", ("block5_conv3", "block5_conv2")),
        ("block4", "block4_pool", ("block4", "block3_pool")),
        ("block1_conv2", "block5_pool", ("block1_conv2", "block1_conv1")),
    ],
)
def test_a_block_is_found_by_its_name_or_that_of_a_layer(block, layer, found):
    assert find_block("vgg16", block, layer) == found


# The table is held against Keras itself

DENSENET121 = BACKBONES["densenet121"]


def test_the_table_has_all_applications_of_keras():
    applications = import_keras().applications
    networks = {name for name in dir(applications) if callable(getattr(applications, name))}
    assert {entry.application for entry in BACKBONES.values()} == networks
    assert all(entry.application.lower() == name for name, entry in BACKBONES.items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_entry_says_what_keras_says(backbone):
    assert mistakes_in(BACKBONES[backbone]) == []


@pytest.mark.parametrize("backbone", SOME)
def test_networks_json_has_what_keras_builds(backbone):
    """Written anew by `python -m tests.backbones.keras_networks`."""
    assert trunk_of(backbone) == trunk_in_keras(backbone)


@pytest.mark.parametrize(
    "wrong",
    [
        {"preprocessing": "caffe"},
        {"preprocessing": "tf"},
        {"preprocessing": "none"},
        {"preprocessing": "efficientnet"},
        {"layer": "conv5_block16_concat"},
        {"image_size": (299, 299)},
        {"min_size": 31},
        {"min_size": 33},
        {"takes_any_size": False},
        {"notop": DENSENET121.whole},
        {"whole": replace(DENSENET121.whole, checksum=DENSENET121.notop.checksum)},
        {"whole": replace(DENSENET121.whole, checksum=None)},
        {"whole": replace(DENSENET121.whole, name="densenet.h5")},
    ],
    ids=lambda wrong: "-".join(f"{name}-{value}" if isinstance(value, str) else name for name, value in wrong.items()),
)
def test_a_wrong_entry_is_found_and_says_what_is_wrong(wrong):
    assert mistakes_in(replace(DENSENET121, **wrong)) == list(wrong)


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet", "efficientnetb0", "efficientnetv2s", "convnexttiny"])
def test_every_other_preprocessing_is_found_to_be_wrong(backbone):
    entry = BACKBONES[backbone]
    words = get_args(Preprocessing)
    assert [word for word in words if has_preprocessing_of(entry.application, word)] == [entry.preprocessing]


def mistakes_in(entry: Backbone) -> list[str]:
    """Return the attributes of an entry that are not what Keras's source says of the application."""
    name, size = entry.application, entry.min_size
    whole = sketch_of(name, weights="imagenet")
    notop = sketch_of(name, weights="imagenet", include_top=False, input_shape=(*entry.image_size, 3))
    is_right = {
        "layer": entry.layer == trunk_of(name.lower()).layers[-1],
        # MobileNetV3 takes all sizes; its weights are of this one.
        "image_size": entry.image_size == tuple(side or 224 for side in whole.input_shape[:2]),
        "preprocessing": has_preprocessing_of(name, entry.preprocessing),
        "notop": entry.notop == notop.file,
        "whole": entry.whole == whole.file,
        "min_size": not takes(name, size - 1) and takes(name, size),
        # VGG's first dense layer has one kernel for each pixel; the others average over all of them before it.
        "takes_any_size": entry.takes_any_size == ("GlobalAveragePooling2D" in whole.kinds),
    }
    return [name for name, is_it in is_right.items() if not is_it]


def takes(application: str, size: int) -> bool:
    """Return whether Keras takes images of so many pixels in height and in width."""
    try:
        sketch_of(application, weights=None, include_top=False, input_shape=(size, size, 3))
    except ValueError:
        return False
    return True


@cache  # entries that differ in other attributes have the same answer
def has_preprocessing_of(application: str, preprocessing: str) -> bool:
    """Return whether the first layer that learns sees the same numbers in our network as in Keras's own.

    That is after what the application's module does with pixels, and after the layers that preprocess in the network.
    """
    keras = import_keras()
    module = sys.modules[getattr(keras.applications, application).__module__]
    images = random_images(2, (224, 224))
    expected = with_statistics(start_of(application, "imagenet"))(module.preprocess_input(images.astype(np.float64)))
    pixels = build._preprocess(keras, keras.ops.convert_to_tensor(images), preprocessing)
    return np.allclose(with_statistics(start_of(application, None))(pixels), expected, rtol=1e-5, atol=1e-4)


def with_statistics(network):
    """Return the network with what its weights for ImageNet normalize by."""
    for layer in network.layers:
        for weight in layer.weights if type(layer).__name__ == "Normalization" else ():
            if weight.name in IMAGENET_STATISTICS:
                weight.assign(IMAGENET_STATISTICS[weight.name])
                layer.finalize_state()
    return network


def preprocessed(model, images: np.ndarray):
    """Return what `model` from `build_model` gives to the network, which is its last layer."""
    steps = model.operations
    last = steps[steps.index(model.layers[-1]) - 1]
    return import_keras().Model(model.input, last.output)(images)


#: As Keras's files for EfficientNet have it: the variance is the standard deviation, hence the step outside.
IMAGENET_STATISTICS = {"mean": [0.485, 0.456, 0.406], "variance": [0.229, 0.224, 0.225]}

#: Means and standard deviations of ImageNet's channels: of 0 to 255 in the order BGR, and of 0 to 1.
BGR_MEAN = [103.939, 116.779, 123.68]
RGB_MEAN, RGB_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        ("caffe", lambda pixels: pixels[..., ::-1] - BGR_MEAN),
        ("tf", lambda pixels: pixels / 127.5 - 1),
        ("torch", lambda pixels: (pixels / 255 - RGB_MEAN) / RGB_STD),
        ("none", lambda pixels: pixels),
    ],
)
def test_preprocessing_is_the_formula_in_float64(preprocessing, expected):
    recipe = Recipe(
        backbone="vgg16",
        weights="random-0",
        layer="block1_conv1",
        image_size=(32, 32),
        preprocessing=preprocessing,
    )
    images = random_images(2)
    pixels = preprocessed(build_model(recipe, None), images)
    np.testing.assert_allclose(pixels, expected(images.astype(np.float64)), rtol=1e-5, atol=1e-5)


def test_efficientnet_is_rescaled_like_kerass_imagenet_model(tmp_path, monkeypatch):
    keras = import_keras()
    from keras.src.applications import efficientnet
    from keras.src.legacy.saving import legacy_h5_format

    path = tmp_path / "efficientnetb0_mine_notop.h5"
    network = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    rng = np.random.default_rng(1)
    for weight in network.weights:
        if weight.name.endswith(("kernel", "gamma", "beta", "bias")):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    for name, value in (("mean", [0.485, 0.456, 0.406]), ("variance", [0.229, 0.224, 0.225])):
        next(w for w in network.layers[2].weights if w.name == name).assign(np.array(value))
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_args, **_kwargs: str(path))
    official = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(32, 32, 3))
    recipe, weights = resolve_recipe(
        tmp_path,
        backbone="efficientnetb0",
        weights=str(path),
        image_size=(32, 32),
        layer="block1a_project_conv",
        precision="float32",
    )

    def early_features(model) -> np.ndarray:
        return np.asarray(keras.Model(model.input, model.get_layer(recipe.layer).output)(pixels))

    images = random_images(3)
    pixels = images.astype(np.float32)
    expected = early_features(official)
    features = KerasEngine(recipe, weights, batch_size=3).features(images)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(early_features(network) - expected).max() > 0.01 * np.abs(expected).max()


def test_an_images_features_do_not_depend_on_its_batch(tmp_path):
    recipe, weights = resolve_recipe(tmp_path, layer="block3_pool", **SMALL)
    engine = KerasEngine(recipe, weights, batch_size=8)
    images = random_images(21)
    together = engine.features(images)
    order = np.random.default_rng(1).permutation(21)
    assert np.array_equal(engine.features(images[order]), together[order])
    assert np.array_equal(np.concatenate([engine.features(images[i : i + 1]) for i in range(21)]), together)
    assert engine.features(images[:0]).shape == (0, 4, 4, 256)


def test_another_layer_can_be_named(tmp_path):
    recipe, weights = resolve_recipe(tmp_path, layer="block4_pool", **SMALL)
    assert KerasEngine(recipe, weights, batch_size=2).features(random_images(2)).shape == (2, 2, 2, 512)


def test_random_weights_are_the_same_every_time_and_differ_by_seed(tmp_path):
    def features(weights: str) -> np.ndarray:
        recipe, found = resolve_recipe(tmp_path, layer="block2_pool", **{**SMALL, "weights": weights})
        return KerasEngine(recipe, found, batch_size=2).features(random_images(2))

    first = features("random")
    assert np.array_equal(first, features("random:0"))
    assert not np.array_equal(first, features("random:1"))


def test_random_weights_of_the_first_layers_do_not_depend_on_those_that_follow():
    network = untrained_network("ResNet50", (32, 32))
    first = import_keras().Model(network.input, network.get_layer("conv2_block2_out").output)
    build._set_random_weights(network, first, seed=0)
    weights = first.get_weights()
    assert not network.get_layer("conv5_block3_3_conv").kernel.numpy().any()
    build._set_random_weights(network, network, seed=0)
    assert network.get_layer("conv5_block3_3_conv").kernel.numpy().any()
    assert all(map(np.array_equal, weights, first.get_weights()))


def test_unknown_layer_names_those_there_are(tmp_path):
    with pytest.raises(BackboneError, match=r"block5_pool.*Received: 'block6_pool'. Did you mean block5_pool?"):
        resolve_recipe(tmp_path, layer="block6_pool", **SMALL)
    recipe, _ = resolve_recipe(tmp_path, **SMALL)
    with pytest.raises(BackboneError, match=r"block5_pool.*Received: 'block6_pool'"):
        build_model(replace(recipe, layer="block6_pool"), None)


def test_a_backbone_without_a_list_of_layers_is_asked_for_them_itself(tmp_path, renamed):
    recipe, _ = resolve_recipe(tmp_path, backbone=renamed, layer="no_such_layer", **SMALL)
    with pytest.raises(BackboneError, match=r"renamed has no layer of this name.*conv_pw_13_relu. Received: 'no_su"):
        build_model(recipe, None)


def test_images_too_small_for_the_network_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="vgg16 takes images of 32 pixels or more.* Received: 16x16"):
        resolve_recipe(tmp_path, weights="random", image_size=(16, 16))
    recipe, _ = resolve_recipe(tmp_path, weights="random", image_size=(64, 64))
    with pytest.raises(BackboneError, match="--image-size. Received: 64x31"):
        build_model(replace(recipe, image_size=(64, 31)), None)


def test_unknown_backbone_is_refused():
    with pytest.raises(BackboneError, match=r"featx backbones lists all.* Received: 'vgg-16'. Did you mean vgg16"):
        find_backbone("vgg-16")


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", None])
def test_what_holds_no_fitting_weights_is_refused(tmp_path, content):
    path = tmp_path / "weights.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(3)
    else:
        path.write_bytes(content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    recipe = Recipe(backbone="vgg16", weights=digest, layer="block5_pool", image_size=(32, 32), preprocessing="caffe")
    with pytest.raises(WeightsError, match=r"does not contain weights of vgg16"):
        build_model(recipe, path)


def test_weights_of_another_network_are_refused(shared, tmp_path):
    recipe, _ = resolve_recipe(tmp_path, **SMALL)
    path = shared / "weights" / "resnet50_tiny_imagenet_notop.h5"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        build_model(replace(recipe, weights=digest), path)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooled_features_are_the_mean_or_the_largest_of_each_channel(tmp_path, pooling):
    options = {**SMALL, "layer": "block3_pool"}
    images = random_images(3)
    features = KerasEngine(*resolve_recipe(tmp_path, **options), batch_size=3).features(images)
    pooled = KerasEngine(*resolve_recipe(tmp_path, **options, pooling=pooling), batch_size=3).features(images)
    expected = features.mean(axis=(1, 2)) if pooling == "avg" else features.max(axis=(1, 2))
    assert pooled.shape == (3, 256)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


def test_what_has_no_height_and_width_is_not_pooled(tmp_path):
    options = {**SMALL, "backbone": "resnet50", "layer": "predictions", "pooling": "avg"}
    with pytest.raises(BackboneError, match="cannot be pooled: leave --pooling out"):
        build_model(resolve_recipe(tmp_path, **options)[0], None)


@pytest.mark.parametrize(
    ("backbone", "precision"),
    [
        ("resnet50", "float32"),
        ("efficientnetb0", "bfloat16"),
        ("mobilenetv3small", "bfloat16"),
        *([("convnexttiny", "float32")] if IS_FULL else []),
    ],
)
def test_whole_classifier_gives_probabilities(tmp_path, backbone, precision):
    options = {**SMALL, "backbone": backbone, "layer": "predictions", "precision": precision}
    recipe, _ = resolve_recipe(tmp_path, **options)
    probabilities = np.asarray(build_model(recipe, None, precision)(random_images(3)))
    assert recipe.dtype == "float32"
    assert probabilities.shape == (3, 1000)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)  # bfloat16 would be off by 1e-3


#: EfficientNet has a test of its own, and VGG16 takes large images only.
@pytest.mark.parametrize("backbone", sorted({*SMALL_ONES} - {"vgg16", "efficientnetb0"}) if IS_FULL else ["mobilenet"])
def test_the_whole_network_with_the_weights_of_a_file_is_kerass(tmp_path, backbone):
    keras = import_keras()
    from keras.src.legacy.saving import legacy_h5_format

    entry, path = BACKBONES[backbone], tmp_path / f"{backbone}_mine.h5"
    size = (entry.min_size, entry.min_size)
    application = getattr(keras.applications, entry.application)
    network = application(weights=None, classes=7, input_shape=(*size, 3))
    rng = np.random.default_rng(1)
    for weight in network.weights:
        if weight.name in {"gamma", "beta", "moving_mean", "moving_variance", "bias"}:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    options = {"weights": str(path), "image_size": size, "precision": "float32", "layer": "predictions"}
    recipe, weights = resolve_recipe(tmp_path / "cache", backbone=backbone, **options)
    images = random_images(2, size)
    pixels = sys.modules[application.__module__].preprocess_input(images.astype(np.float32))
    expected = np.asarray(network(pixels, training=False))
    np.testing.assert_allclose(np.asarray(build_model(recipe, weights.path)(images)), expected, rtol=1e-4, atol=1e-6)
    assert expected.std() > 0


def test_whole_classifier_of_vgg16_takes_its_own_size_only(tmp_path, monkeypatch):
    recipe, _ = resolve_recipe(tmp_path, weights="random", layer="predictions", precision="float32")
    monkeypatch.setattr(build, "_set_random_weights", lambda *_args, **_seed: None)
    with no_numbers_drawn():
        assert build_model(recipe, None).output_shape == (None, 1000)
    with pytest.raises(BackboneError, match=r"takes images of 224x224 only.* Received: 96x64"):
        build_model(replace(recipe, image_size=(96, 64)), None)


def test_whole_file_and_file_without_classifier_are_told_apart(shared, whole_resnet50, tmp_path):
    options = {**SMALL, "backbone": "resnet50"}
    with pytest.raises(
        WeightsError,
        match=r"without the classifier .* It ends in a classifier: whole networks are for --layer predictions",
    ):
        build_model(resolve_recipe(tmp_path, **{**options, "weights": str(whole_resnet50)})[0], whole_resnet50)
    notop = shared / "weights" / "resnet50_tiny_imagenet_notop.h5"
    options |= {"layer": "predictions", "weights": str(notop)}
    with pytest.raises(WeightsError, match=r"does not contain the whole classifier of resnet50"):
        build_model(resolve_recipe(tmp_path, **options)[0], notop)
    options |= {"backbone": "mobilenetv2", "weights": str(whole_resnet50)}
    with pytest.raises(WeightsError, match=r"weights of mobilenetv2 .* files of the whole classifier"):
        build_model(resolve_recipe(tmp_path, **options)[0], whole_resnet50)


def test_classes_are_counted_in_either_layout_of_keras(whole_resnet50, tmp_path):
    keras = import_keras()
    from keras.src.legacy.saving import legacy_h5_format

    network = keras.applications.MobileNetV2(weights=None, classes=7, input_shape=(32, 32, 3))
    network.save_weights(tmp_path / "new.weights.h5")
    trunk = keras.Model(network.input, network.get_layer("out_relu").output)
    trunk.save_weights(tmp_path / "notop.weights.h5")
    assert count_classes(tmp_path / "new.weights.h5") == 7
    assert count_classes(tmp_path / "notop.weights.h5") is None
    assert count_classes(whole_resnet50) == 202
    for application in (keras.applications.MobileNet, keras.applications.ConvNeXtTiny):
        with no_numbers_drawn():
            network = application(weights=None, classes=8, input_shape=(32, 32, 3))
        network.save_weights(tmp_path / "other.weights.h5")
        assert count_classes(tmp_path / "other.weights.h5") == 8
        with h5py.File(tmp_path / "other.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, network)
        assert count_classes(tmp_path / "other.h5") == 8
    with h5py.File(tmp_path / "old.h5", "w") as file, h5py.File(whole_resnet50) as whole:
        whole.copy(whole, file, "model_weights")
        file.move("model_weights/predictions", "model_weights/probs")  # as Keras called it once
        layers = file["model_weights"]
        layers.attrs["layer_names"] = [
            str(name).replace("predictions", "probs") for name in layers.attrs["layer_names"]
        ]
        names = [f"predictions/{name}" for name in ("kernel", "bias")]
        assert sorted(map(str, layers["probs"].attrs["weight_names"])) == sorted(names)
    assert count_classes(tmp_path / "old.h5") == 202
