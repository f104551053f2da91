"""Keras model files as backbones: their layers and numbers are Keras's, and none of them runs code of the file."""

import hashlib
import json
import zipfile

import h5py
import numpy as np
import pytest

from featx.backbones import build_model, describe_network, described
from featx.backbones.keras_config import prepare_config
from featx.engines import EngineOptions, create_engine
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.extract import check_options, options_before, resolve_recipe
from featx.recipe import Recipe
from featx.system.late_imports import import_keras

SIZE = 32


@pytest.fixture(scope="module")
def keras():
    return import_keras()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def random_images(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def tamed(network):
    """Return the network with random numbers in all of its weights, statistics too."""
    rng = np.random.default_rng(1)
    for weight in network.weights:
        low, high = (0.5, 1.5) if "variance" in weight.name or weight.name == "gamma" else (-0.2, 0.2)
        if weight.dtype == "float32":
            weight.assign(rng.uniform(low, high, weight.shape))
    return network


@pytest.fixture(scope="module")
def nested(keras, folder):
    """What a course on transfer learning ends with: a backbone between layers that preprocess, and a head."""
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), alpha=0.35)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.RandomFlip(),
            layers.Rescaling(1 / 127.5, offset=-1),
            base,
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dropout(0.5),
            layers.Dense(5, name="dense"),
        ],
        name="nested",
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    tamed(network).save(folder / "nested.keras")
    return network


@pytest.fixture(scope="module")
def vgg(keras, folder):
    """The first blocks of the built-in VGG16 with seeded weights, and its recipe."""
    recipe = Recipe(
        backbone="vgg16", weights="random-0", layer="block2_pool", image_size=(SIZE, SIZE), preprocessing="caffe"
    )
    model = build_model(recipe, None)
    model.layers[-1].save(folder / "vgg.keras")
    return model


def features_of(path, cache, images, engine="keras", **options):
    chosen = {"preprocess": "none", "precision": "float32", **options}
    recipe, weights = resolve_recipe(cache, backbone=str(path), **chosen)
    running = create_engine(recipe, weights, cache, None, EngineOptions(engine=engine))
    try:
        return running.features(images)
    finally:
        running.close()


# What is computed


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_vgg16_in_a_file_gives_the_features_of_the_built_in_one(vgg, folder, cache, engine):
    images = random_images()
    expected = np.asarray(vgg(images))
    found = features_of(folder / "vgg.keras", cache, images, engine, preprocess="caffe")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    means = features_of(folder / "vgg.keras", cache, images, engine, preprocess="caffe", pooling="avg")
    np.testing.assert_allclose(means, expected.mean(axis=(1, 2)), rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    other = features_of(folder / "vgg.keras", cache, images, engine, preprocess="tf")
    assert np.abs(other - expected).max() > 0.1 * np.abs(expected).max()


def test_layers_of_a_nested_network_are_computed_as_keras_does_it(keras, nested, folder, cache):
    images = random_images()
    base = nested.get_layer("mobilenetv2_0.35_32")
    scaled = images / 127.5 - 1
    logits = nested(images.astype(np.float32), training=False)
    expected = {
        "block_2_add": keras.Model(base.input, base.get_layer("block_2_add").output)(scaled),
        "dense": logits,
        "predictions": keras.ops.softmax(logits),
    }
    for layer, numbers in expected.items():
        found = features_of(folder / "nested.keras", cache, images, layer=layer)
        np.testing.assert_allclose(found, np.asarray(numbers), rtol=1e-4, atol=1e-5, err_msg=layer)
    found = features_of(folder / "nested.keras", cache, images, "openvino", layer="dense")
    np.testing.assert_allclose(found, np.asarray(logits), rtol=1e-3, atol=1e-4)


def test_the_precision_of_the_recipe_counts_and_not_that_of_the_file(keras, folder, cache):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        images = keras.Input((SIZE, SIZE, 3))
        hidden = keras.layers.Conv2D(8, 3, name="conv")(keras.layers.Rescaling(1 / 255, name="scale")(images))
        tamed(keras.Model(images, keras.layers.GlobalMaxPooling2D()(hidden))).save(folder / "half.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    for precision, policy in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        recipe, weights = resolve_recipe(
            cache, backbone=str(folder / "half.keras"), preprocess="none", precision=precision
        )
        trunk = build_model(recipe, weights.path, precision).layers[-1]
        dtypes = {
            layer.name: layer.dtype_policy.name for layer in trunk.layers if layer.weights or "scale" in layer.name
        }
        assert dtypes == {"scale": "float32", "conv": policy}


def test_a_network_of_any_size_needs_one_and_takes_bytes_as_they_are(keras, folder, cache):
    images = keras.Input((None, None, 3), dtype="uint8")
    outputs = keras.layers.Conv2D(4, 3, activation="relu")(keras.ops.cast(images, "float32") / 255)
    network = tamed(keras.Model(images, outputs + 1.0))
    path = folder / "free.keras"
    network.save(path)
    with pytest.raises(BackboneError, match=r"takes images of any size: .*--image-size"):
        check_options(cache, backbone=str(path), preprocess="none")
    with pytest.raises(BackboneError, match="takes bytes, so it does its own preprocessing: use --preprocess none"):
        check_options(cache, backbone=str(path), preprocess="tf", image_size=SIZE)
    assert describe_network(path, cache).layers[-1].shape == (None, None, 4)
    found = features_of(path, cache, random_images(), image_size=SIZE)
    np.testing.assert_allclose(found, np.asarray(network(random_images())), rtol=1e-5, atol=1e-5)


# What is found in a file


def test_the_layers_and_the_usual_ones_are_found(nested, folder, cache, monkeypatch):
    network = describe_network(folder / "nested.keras", cache)
    assert (network.pooled, network.scores, network.scores_kind) == ("pooled", "dense", "Dense")
    assert network.spatial == "mobilenetv2_0.35_32/block_13_pad"  # the rest is 1×1
    assert (network.input_shape, network.layouts, network.n_classes) == ((None, SIZE, SIZE, 3), ("nhwc",), 5)
    assert network.find_layer("block_2_add").shape == (8, 8, 8)
    monkeypatch.setitem(described._READERS, ".keras", lambda *_: pytest.fail("it was read again"))
    assert describe_network(folder / "nested.keras", cache) == network


def test_the_recipe_has_the_digest_of_the_file_and_the_layer(nested, folder, tmp_path, cache):
    path = tmp_path / "mine.keras"
    path.write_bytes((folder / "nested.keras").read_bytes())
    recipe, weights = resolve_recipe(cache, backbone=str(path), preprocess="tf", precision="float32")
    assert recipe.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (recipe.backbone, recipe.layer, recipe.preprocessing) == ("mine.keras", "pooled", "tf")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("notes.txt", "changed")
    other, _ = resolve_recipe(cache, backbone=str(path), preprocess="tf", precision="float32")
    assert other.weights != recipe.weights
    with pytest.raises(BackboneError, match="changed while featx was running"):
        build_model(recipe, weights.path)


def test_preprocessing_is_not_guessed_and_a_wrong_layer_is_answered_with_the_nearest(nested, folder, cache):
    path = str(folder / "nested.keras")
    with pytest.raises(BackboneError, match="does not say what it wants of pixels"):
        check_options(cache, backbone=path)
    with pytest.raises(BackboneError, match=r"has no layer of this name.*last pooled: pooled.* Did you mean pooled"):
        check_options(cache, backbone=path, preprocess="none", layer="poolde")
    with pytest.raises(BackboneError, match="takes images of 32×32 only"):
        check_options(cache, backbone=path, preprocess="none", image_size=64)
    with pytest.raises(WeightsError, match="There is no network file .* Did you mean nested.keras"):
        check_options(cache, backbone=str(folder / "nestde.keras"), preprocess="none")
    with pytest.raises(BackboneError, match="Only a Keras application has blocks to tune"):
        options_before("last", cache, backbone=path, preprocess="none")


# What is refused


def refused(path, cache, match):
    with pytest.raises(FeatxError, match=match):
        check_options(cache, backbone=str(path), preprocess="none", image_size=SIZE)


def test_code_in_a_file_is_refused_before_keras_sees_it(keras, folder, cache, monkeypatch):
    images = keras.Input((SIZE, SIZE, 3))
    keras.Model(images, keras.layers.Lambda(lambda x: x + 1, name="mine")(images)).save(folder / "lambda.keras")
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda *_args, **_options: pytest.fail("it did"))
    refused(folder / "lambda.keras", cache, r"the layer mine \(Lambda\), which runs code from the file")


def test_custom_layers_are_refused(keras, folder, cache):
    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    images = keras.Input((SIZE, SIZE, 3))
    keras.Model(images, Mine(name="own")(images)).save(folder / "custom.keras")
    refused(folder / "custom.keras", cache, r"the custom object own \(Mine\), whose code is not in the file")


@pytest.mark.parametrize(
    ("node", "match"),
    [
        ({"module": "builtins", "class_name": "__lambda__", "config": {"value": "x"}}, "runs code"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"name": "t", "filepath": "/x"}}, "runs code"),
        ({"module": "os", "class_name": "system", "config": {}, "registered_name": "system"}, "custom object"),
        ({"module": "builtins", "class_name": "function", "config": "f", "registered_name": "p>f"}, "custom object"),
        ({"module": "keras.src.saving.saving_lib", "class_name": "H5IOStore", "config": {}}, "custom object"),
        ({"module": None, "class_name": "Mine", "config": {}, "registered_name": "Mine"}, "custom object"),
        ({"module": "keras", "class_name": "QuantizedDTypePolicy", "config": {"name": "q"}}, "is quantized"),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) else "",
)
def test_what_runs_code_or_is_not_kerass_own_is_refused_wherever_it_is(node, match):
    inside = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "activation": node}}
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [inside]}}
    with pytest.raises(BackboneError, match=match):
        prepare_config(config, "x.keras", "float32")


def test_networks_that_do_not_take_one_image_are_refused(keras, folder, cache):
    layers = keras.layers
    one, two = keras.Input((SIZE, SIZE, 3), name="one"), keras.Input((SIZE, SIZE, 3), name="two")
    keras.Model([one, two], layers.Add()([one, two])).save(folder / "two.keras")
    refused(folder / "two.keras", cache, r"has 2 inputs \(one, two\)")
    keras.Model(one, [layers.Conv2D(2, 1)(one), layers.Conv2D(3, 1)(one)]).save(folder / "outputs.keras")
    refused(folder / "outputs.keras", cache, "has 2 outputs")
    gray = keras.Input((SIZE, SIZE, 1))
    keras.Model(gray, layers.Conv2D(2, 1)(gray)).save(folder / "gray.keras")
    refused(folder / "gray.keras", cache, "does not take images of three colours on the last axis")
    flat = keras.Input((48,))
    keras.Model(flat, layers.Dense(2)(flat)).save(folder / "flat.keras")
    refused(folder / "flat.keras", cache, "does not take images, .*float32 \\(None, 48\\)")
    with pytest.warns(UserWarning, match="has not yet been built"):
        keras.Sequential([layers.Conv2D(2, 1)]).save(folder / "unbuilt.keras")
    refused(folder / "unbuilt.keras", cache, "begin the network with an Input")


def test_a_layer_used_several_times_is_not_offered(keras, folder, cache):
    images = keras.Input((SIZE, SIZE, 3))
    twice = keras.layers.Conv2D(3, 1, name="twice")
    keras.Model(images, keras.layers.ReLU(name="end")(twice(twice(images)))).save(folder / "twice.keras")
    path = folder / "twice.keras"
    with pytest.raises(BackboneError, match="several layers of this name|uses it several times"):
        check_options(cache, backbone=str(path), preprocess="none", layer="twice")
    assert check_options(cache, backbone=str(path), preprocess="none")["layer"] == "end"


@pytest.mark.parametrize("damage", ["no zip", "compressed", "no weights", "no json", "list", "deep", "Keras 2"])
def test_what_is_no_file_of_keras_is_refused(nested, folder, tmp_path, cache, damage):
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(folder / "nested.keras") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    if damage == "no weights":
        del members["model.weights.h5"]
    changed = {"no json": b"{", "list": b"[1]", "deep": b"[" * 200_000}
    members["config.json"] = changed.get(damage, members["config.json"])
    if damage == "Keras 2":
        members["metadata.json"] = b'{"keras_version": "2.15.0"}'
    kind = zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    if damage == "no zip":
        path.write_bytes(b"no zip at all")
    refused(path, cache, "bad.keras is not a file of Keras 3, or damaged")


def test_weights_in_another_file_or_of_another_network_are_refused(nested, folder, tmp_path, cache):
    path = tmp_path / "linked.keras"
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["x"] = np.zeros(3)
    for name, write in {
        "linked": lambda file: file.__setitem__("layers", h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "/")),
        "empty": lambda file: file.create_group("layers"),
    }.items():
        weights = tmp_path / f"{name}.h5"
        with h5py.File(weights, "w") as file:
            write(file)
        with zipfile.ZipFile(folder / "nested.keras") as whole, zipfile.ZipFile(path, "w") as file:
            for member in ("metadata.json", "config.json"):
                file.writestr(member, whole.read(member))
            file.write(weights, "model.weights.h5")
        recipe, found = resolve_recipe(cache, backbone=str(path), preprocess="none", precision="float32")
        with pytest.raises(FeatxError, match="do not fit its network"):
            build_model(recipe, found.path)


def test_a_network_larger_than_any_is_refused_before_memory_is_taken(keras, folder, cache, tmp_path):
    images = keras.Input((SIZE, SIZE, 3))
    keras.Model(images, keras.layers.Dense(4)(images)).save(folder / "small.keras")
    path = tmp_path / "huge.keras"
    with zipfile.ZipFile(folder / "small.keras") as small, zipfile.ZipFile(path, "w") as file:
        for name in small.namelist():
            content = small.read(name)
            if name == "config.json":
                config = json.loads(content)
                dense = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")
                dense["config"]["units"] = 10**10
                content = json.dumps(config).encode()
            file.writestr(name, content)
    refused(path, cache, r"has .* of weights: featx takes 4.0 GiB at most")
    with keras.StatelessScope():  # at its end, Keras gives values to all variables that it has kept without
        keras.layers.Dense(4).build((None, 2))


# From end to end


def test_a_run_on_a_keras_file_predicts_and_is_exported(nested, folder, tmp_path, make_photos, featx):
    data, run = make_photos(tmp_path / "data"), tmp_path / "run"
    options = ["--backbone", folder / "nested.keras", "--preprocess", "none", "--cache-dir", tmp_path / "cache"]
    options += ["--precision", "float32"]
    featx("extract", data, *options, "--quiet")
    featx("train-top", data, *options, "--epochs", 2, "--run-dir", run, "--quiet")
    photo = next(data.rglob("*.jpg"))
    predicted = json.loads(featx("predict", run, photo, "--cache-dir", tmp_path / "cache", "--format", "jsonl").stdout)
    exported = tmp_path / "model.keras"
    featx("export", run, "--to", exported, "--quiet")
    from PIL import Image

    whole = import_keras().models.load_model(exported)
    probabilities = np.asarray(whole(np.asarray(Image.open(photo).convert("RGB"))[None]))[0]
    assert probabilities.max() == pytest.approx(predicted["probability"], abs=1e-3)
