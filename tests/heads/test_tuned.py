"""A tuned block: what it computes and learns is what end-to-end training would, and its file is read with care."""

import zipfile
from dataclasses import replace
from itertools import product

import h5py
import numpy as np
import pytest

from featx.backbones.build import build_model, build_tail
from featx.errors import BackboneError, FeatxError
from featx.heads import tuned
from featx.heads.dense import TrainingSet, dense_layers
from featx.heads.evidence import find_evidence
from featx.heads.inference import save_model
from featx.heads.training_loop import Training, count_parameters, predict_proba
from featx.heads.tuned import TUNED, read_tuned, train_tuned, trainable_copy, trained_head
from featx.recipe import Recipe
from featx.storage.scratch import scratch_array
from featx.system.late_imports import import_keras
from featx.system.machine import MemoryLimit
from tests.conftest import load_model

#: Block 3 of VGG16, on the output of block 2: small, and all that matters is in it.
BLOCK3 = Recipe(
    backbone="vgg16",
    weights="random-0",
    layer="block3_pool",
    image_size=(32, 32),
    preprocessing="caffe",
    dtype="float32",
)
BEFORE = "block2_pool"

#: So little that no features fit.
TINY = MemoryLimit(1)


@pytest.fixture(scope="module")
def tail():
    return build_tail(BLOCK3, None, BEFORE)


@pytest.fixture(scope="module")
def images():
    """Two classes of noise, one with bright rows and one with bright columns, and their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    pixels = rng.integers(0, 120, (48, 32, 32, 3), np.uint8)
    pixels[y == 0, ::4] += 100
    pixels[y == 1, :, ::4] += 100
    return pixels, y.astype(np.int64)


@pytest.fixture(scope="module")
def features(images):
    """Of the layer before the block, float32."""
    return np.asarray(build_model(replace(BLOCK3, layer=BEFORE), None).predict(images[0], verbose=0))


def trained(tail, X, y, folder, n_classes=2, **training):
    digests = np.random.default_rng(1).integers(0, 256, (len(y), 32), np.uint8)
    images = TrainingSet(X, y, digests, np.arange(len(y)) % 4 < 2, n_classes)
    return train_tuned(tail, images, Training(**training), folder)


@pytest.fixture(scope="module")
def both(tail, features, images, tmp_path_factory):
    """The head on the frozen block, and with the block tuned."""
    return trained(tail, features, images[1], tmp_path_factory.mktemp("scratch"), epochs=3)


# What is trained


def test_a_block_with_sums_that_are_no_layers_is_copied():
    """Such as those of ConvNeXt and MobileNetV3."""
    keras = import_keras()
    features = keras.Input((2, 2, 3))
    outputs = features + keras.layers.Dense(3)(features) * 0.5
    for layer in (keras.layers.Flatten(), keras.layers.Dense(5, "relu"), keras.layers.Dense(1, "sigmoid")):
        outputs = layer(outputs)
    model = keras.Model(features, outputs)
    X = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    copy = trainable_copy(model, seed=0)
    assert np.array_equal(copy.predict(X, verbose=0), model.predict(X, verbose=0))
    assert len(copy.trainable_variables) == 6


def test_gradients_are_those_of_end_to_end_training_with_the_early_layers_frozen(tail, features, images):
    keras = import_keras()
    pixels, y = images
    whole = build_model(BLOCK3, None)
    trunk = next(layer for layer in whole.layers if isinstance(layer, keras.Model))
    trunk.trainable = True
    for layer in trunk.layers:
        layer.trainable = layer.name.startswith("block3")
    heads = [dense_layers(keras, 2, seed=3) for _ in range(2)]
    end_to_end = on(keras, whole.inputs, whole.outputs[0], heads[0])
    on_features = trainable_copy(on(keras, tail.inputs, tail.outputs[0], heads[1]), seed=0)
    changes = [change_in_a_step(keras, model, X, y) for model, X in ((end_to_end, pixels), (on_features, features))]
    assert changes[0].keys() == changes[1].keys()
    assert len(changes[0]) == 3 * 2 + 2 * 2
    for name, gradient in changes[0].items():
        assert np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(changes[1][name], gradient, rtol=0, atol=1e-4 * np.abs(gradient).max(), err_msg=name)


def on(keras, inputs, outputs, layers):
    for number, layer in enumerate(layers):
        layer.name = f"head_{number}"
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def change_in_a_step(keras, model, X, y):
    """Return how much each array changes in one step of gradient descent with rate 1: the gradient."""
    before = {name: np.array(variable) for name, variable in named(model)}
    model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy", jit_compile=False)
    model.train_on_batch(X, y.astype(np.float32)[:, None])
    return {name: before[name] - np.array(variable) for name, variable in named(model)}


def named(model):
    """Yield the arrays of a model that are trained, each with the name of its layer."""
    for variable in model.trainable_variables:
        yield "/".join(variable.path.split("/")[-2:]), variable


@pytest.mark.parametrize("scale", [1, 1 / 64, 4])
def test_without_an_epoch_of_tuning_the_probabilities_are_those_of_the_frozen_head(both, features, scale):
    frozen, _ = both
    start = trainable_copy(frozen.model, 0, scale)
    np.testing.assert_array_equal(predict_proba(start, features), predict_proba(frozen.model, features))


def test_tuning_that_makes_it_worse_keeps_the_frozen_head(tail, features, images, tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "TUNED_LEARNING_RATE", 1.0)
    frozen, worse = trained(tail, features, images[1], tmp_path, epochs=2, patience=1)
    assert worse.kept_epoch == 0
    assert len(worse.history) == 1
    np.testing.assert_array_equal(predict_proba(worse.model, features), predict_proba(frozen.model, features))


def test_tuning_lowers_the_loss_and_changes_the_block(tail, features, images, tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "TUNED_LEARNING_RATE", 1e-4)
    frozen, better = trained(tail, features, images[1], tmp_path, epochs=6)
    assert better.kept_epoch > 0
    before = next(epoch for epoch in frozen.history if epoch.epoch == frozen.kept_epoch)
    assert better.history[better.kept_epoch - 1].val_loss < before.val_loss
    kernels = [model.get_layer("block3_conv1").get_weights()[0] for model in (frozen.model, better.model)]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(kernels[0], tail.get_layer("block3_conv1").get_weights()[0])


def test_mixed_precision_lowers_the_loss_and_leaves_a_head_in_float32(tail, features, images, tmp_path, monkeypatch):
    """On a processor, mixed precision computes what it computes on a GPU, only slowly."""
    policies = set()
    fit = tuned.Task.fit

    def watched(task, model, *args, **kwargs):
        policies.update((layer.name, layer.compute_dtype, layer.variable_dtype) for layer in model.layers)
        assert {layer.compute_dtype for layer in model.layers[-5:]} == {"float32"}, "of the head"
        return fit(task, model, *args, **kwargs)

    monkeypatch.setattr(tuned.Task, "fit", watched)
    monkeypatch.setattr(tuned, "TUNED_LEARNING_RATE", 1e-4)
    monkeypatch.setattr(tuned, "_is_mixed_faster", lambda: True)
    frozen, better = trained(tail, features, images[1], tmp_path, epochs=3)
    assert ("block3_conv1", "bfloat16", "float32") in policies
    assert better.kept_epoch > 0
    before = next(epoch for epoch in frozen.history if epoch.epoch == frozen.kept_epoch)
    assert better.history[better.kept_epoch - 1].val_loss < before.val_loss
    assert {layer.compute_dtype for layer in better.model.layers} == {"float32"}
    in_float32 = trainable_copy(frozen.model, 0)
    mixed = trainable_copy(frozen.model, 0, policy=tuned.MIXED)
    exact, rounded = (predict_proba(model, features) for model in (in_float32, mixed))
    assert 0 < np.abs(rounded - exact).max() < 0.1


def test_mixed_precision_is_for_a_gpu_that_multiplies_bfloat16(monkeypatch):
    for has_bfloat16, sees_gpu in product((False, True), repeat=2):
        monkeypatch.setattr(tuned, "has_fast_bfloat16", lambda has=has_bfloat16: has)
        monkeypatch.setattr(tuned, "keras_sees_gpu", lambda sees=sees_gpu: sees)
        assert tuned._is_mixed_faster() == (has_bfloat16 and sees_gpu)


def test_only_the_head_is_trained_at_first_and_then_the_block_as_well(tail, both):
    frozen, better = both
    n_head = (4 * 4 * 256 + 1) * 256 + 257
    assert count_parameters(frozen.model) == n_head
    assert count_parameters(better.model) == n_head + tail.count_params()
    assert (frozen.name, better.name) == ("dense", TUNED)
    assert better.fit_s > frozen.fit_s > 0


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tail, features, images, tmp_path, both):
    again = trained(tail, features, images[1], tmp_path, epochs=3)
    for one, other in zip(both, again, strict=True):
        assert all(map(np.array_equal, one.model.get_weights(), other.model.get_weights()))


def test_features_of_the_frozen_block_that_do_not_fit_are_on_disk(tail, features, images, tmp_path, both, monkeypatch):
    made = []

    def noted(*args):
        made.append(args[1:3])
        return scratch_array(*args)

    monkeypatch.setattr(tuned, "scratch_array", noted)
    on_disk = trained(tail, features, images[1], tmp_path, epochs=3, memory=TINY)
    assert made == [((48, 4, 4, 256), np.float32)]
    assert not list(tmp_path.iterdir())
    for one, other in zip(both, on_disk, strict=True):
        assert all(map(np.array_equal, one.model.get_weights(), other.model.get_weights()))


def test_no_room_for_them_is_a_sentence(tail, features, images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(FeatxError, match=r"^Tuning needs 1 MiB in .* for features of the frozen block: No space left"):
        trained(tail, features, images[1], tmp_path, epochs=1, memory=TINY)


def test_batch_normalization_stays_as_it_was_trained():
    recipe = replace(BLOCK3, backbone="resnet50", layer="conv5_block3_out", pooling="avg")
    resnet_tail = build_tail(recipe, None, "conv4_block6_out")
    keras = import_keras()
    model = trainable_copy(on(keras, resnet_tail.inputs, resnet_tail.outputs[0], dense_layers(keras, 2, 0)), seed=0)
    normalizations = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    before = [layer.get_weights() for layer in normalizations]
    X = np.random.default_rng(0).normal(0, 1, (8, *resnet_tail.input_shape[1:])).astype(np.float32)
    changes = change_in_a_step(keras, model, X, np.arange(8) % 2)
    assert len(normalizations) == 10
    assert not any("bn" in name for name in changes)
    assert all(np.abs(change).max() > 0 for name, change in changes.items() if "kernel" in name)
    for layer, arrays in zip(normalizations, before, strict=True):
        assert all(map(np.array_equal, layer.get_weights(), arrays))


def test_dropout_in_a_block_depends_on_the_seed_alone():
    recipe = replace(BLOCK3, backbone="efficientnetb0", layer="top_activation", preprocessing="efficientnet")
    block = build_tail(recipe, None, "block5c_add")
    seeds = [
        [layer.seed for layer in trainable_copy(block, seed).layers if hasattr(layer, "rate")] for seed in (1, 1, 2)
    ]
    assert None not in seeds[0]
    assert len(set(seeds[0])) == len(seeds[0]) > 1
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize(
    ("backbone", "after", "n_inputs"),
    [("vgg16", "block4_pool", (2, 2, 512)), ("mobilenetv2", "block_15_add", (1, 1, 160))],
)
def test_the_tail_continues_where_the_features_end(backbone, after, n_inputs):
    last = {"vgg16": "block5_pool", "mobilenetv2": "out_relu"}[backbone]
    recipe = replace(BLOCK3, backbone=backbone, layer=last)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    middle = build_model(replace(recipe, layer=after), None).predict(pixels, verbose=0)
    assert middle.shape[1:] == n_inputs
    expected = build_model(recipe, None).predict(pixels, verbose=0)
    ours = build_tail(recipe, None, after).predict(middle, verbose=0)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("after", ["conv5_block1_1_relu", "conv5_block1_0_conv", "conv5_block2_2_conv"])
def test_a_block_that_needs_another_layer_as_well_cannot_be_tuned(after):
    recipe = replace(BLOCK3, backbone="resnet50", layer="conv5_block3_out")
    with pytest.raises(BackboneError, match=rf"What follows {after} in resnet50 also needs .* such as conv5\."):
        build_tail(recipe, None, after, load_weights=False)


# Its file


@pytest.fixture
def path(both, tmp_path):
    save_model(both[1].model, tmp_path / "tuned.keras")
    return tmp_path / "tuned.keras"


def empty_tail():
    return build_tail(BLOCK3, None, BEFORE, load_weights=False)


def test_a_saved_head_gives_the_same_probabilities_in_featx_and_in_plain_keras(both, features, path):
    expected = predict_proba(both[1].model, features)
    head = read_tuned(path, empty_tail(), 2)
    assert (head.feature_shape, head.n_classes) == ((8, 8, 128), 2)
    np.testing.assert_allclose(head.predict_proba(features), expected, atol=1e-6)
    np.testing.assert_allclose(head.predict_proba(features[:1]), expected[:1], atol=1e-6)
    np.testing.assert_allclose(predict_proba(load_model(path), features), expected, atol=1e-6)
    assert head.predict_proba(features[:0]).shape == (0, 2)
    with pytest.raises(FeatxError, match="The head takes features of the shape"):
        head.predict_proba(features[:, :4])


def test_the_evidence_of_a_tuned_head_adds_up_just_trained_or_saved(both, features, path):
    mean = features.mean(axis=0)
    p, p_mean = (predict_proba(both[1].model, rows)[:, 1] for rows in (features[:4], mean[np.newaxis]))
    for head in (trained_head(both[1], 2), read_tuned(path, empty_tail(), 2)):
        found = find_evidence(head, features[:4], [1, 1, 1, 1], mean)
        assert {one.map.shape for one in found} == {(4, 4)}
        np.testing.assert_allclose([one.score for one in found], np.log(p / (1 - p)), rtol=1e-3, atol=1e-3)
        assert found[0].base == pytest.approx(np.log(p_mean[0] / (1 - p_mean[0])), rel=1e-3, abs=1e-3)
        sums = [one.score - one.base for one in found]
        np.testing.assert_allclose([one.map.sum() for one in found], sums, rtol=1e-4, atol=1e-4)


def test_its_file_is_no_larger_than_its_weights(both, path):
    n_bytes = 4 * sum(array.size for array in both[1].model.get_weights())
    assert n_bytes < path.stat().st_size < n_bytes + 200_000


def rewrite(path, change, name="model.weights.h5"):
    """Change a member of the file by a function of its path."""
    with zipfile.ZipFile(path) as file:
        members = {member: file.read(member) for member in file.namelist()}
    inside = path.with_name("member")
    inside.write_bytes(members[name])
    change(inside)
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, inside.read_bytes() if member == name else data)


def change_weights(path, change):
    def within(inside):
        with h5py.File(inside, "a") as file:
            change(file["layers/conv2d/vars"])

    rewrite(path, within)


def make_infinite(group):
    group["0"][0] = np.inf


def make_external(group):
    del group["0"]
    group["0"] = h5py.ExternalLink("/etc/passwd", "/")


def make_narrow(group):
    del group["0"]
    group["0"] = np.zeros((3, 3, 128, 255), np.float32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "not a zip"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not a zip"),
        (lambda path: path.unlink(), "There is no head"),
        (lambda path: rewrite(path, lambda inside: inside.write_bytes(b"\x89HDF")), "its weights are not those"),
        (lambda path: rewrite(path, lambda inside: inside.write_bytes(bytes(inside.stat().st_size))), ""),
        (lambda path: change_weights(path, make_infinite), "its weights are not finite"),
        (lambda path: change_weights(path, make_external), "it refers to another file"),
        (lambda path: change_weights(path, make_narrow), "featx cannot run the head"),
    ],
    ids=["empty", "cut", "gone", "too small", "no HDF5", "infinite", "external", "narrow"],
)
def test_damage_is_a_sentence(path, damage, reason):
    damage(path)
    with pytest.raises(FeatxError, match=rf"tuned\.keras.*{reason}|{reason}.*tuned\.keras"):
        read_tuned(path, empty_tail(), 2)


def test_what_the_file_says_of_its_layers_is_not_believed(path, features, both):
    rewrite(path, lambda inside: inside.write_text('{"module": "os", "class_name": "system"}'), "config.json")
    probabilities = read_tuned(path, empty_tail(), 2).predict_proba(features)
    np.testing.assert_allclose(probabilities, predict_proba(both[1].model, features), atol=1e-6)


def test_another_number_of_classes_or_another_block_is_refused(path):
    with pytest.raises(FeatxError, match="featx cannot run the head"):
        read_tuned(path, empty_tail(), 1000)
    other = build_tail(replace(BLOCK3, layer="block3_conv3"), None, BEFORE, load_weights=False)
    with pytest.raises(FeatxError, match="its weights are not those of its layers"):
        read_tuned(path, other, 2)
