import math

import numpy as np
import pytest

from featx.errors import FeatxError, TrainingError
from featx.heads import training_loop
from featx.heads.inference import read_head, save_model
from featx.heads.training_loop import (
    Samples,
    Training,
    count_parameters,
    fit,
    layer_seeds,
    predict_proba,
    rmsprop,
    split,
)
from featx.system.late_imports import import_keras
from tests.conftest import load_model


def blobs(n_classes, n=240, seed=0):
    """`n` float16 points around the corners of a square, and the number of their corner."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    corners = np.array([(2, 2), (-2, -2), (2, -2), (-2, 2)])
    return (corners[y] + rng.normal(size=(n, 2))).astype(np.float16), y


def network(outputs, seed=0, n_inputs=2, units=16):
    keras = import_keras()
    seeds = layer_seeds(seed)
    glorot = keras.initializers.GlorotUniform
    inputs = keras.Input((n_inputs,))
    hidden = keras.layers.Dense(units, "relu", kernel_initializer=glorot(next(seeds)))(inputs)
    hidden = keras.layers.Dropout(0.2, seed=next(seeds))(hidden)
    activation = "sigmoid" if outputs == 1 else "softmax"
    return keras.Model(inputs, keras.layers.Dense(outputs, activation, kernel_initializer=glorot(next(seeds)))(hidden))


def parts(X, y):
    return split(X, y, np.arange(len(y)) % 4 == 0)


def trained(outputs, n_classes, seed=0, **options):
    X, y = blobs(n_classes)
    model, optimizer = network(outputs, seed), import_keras().optimizers.RMSprop(0.03)
    training = Training(seed, **{"epochs": 12, "patience": 12} | options)
    return model, fit(model, *parts(X, y), training, n_classes=n_classes, optimizer=optimizer)


@pytest.mark.parametrize(("outputs", "n_classes"), [(1, 2), (2, 2), (4, 4)])
def test_separable_classes_are_learned(outputs, n_classes):
    model, result = trained(outputs, n_classes)
    X, y = blobs(n_classes, seed=1)
    assert (predict_proba(model, X).argmax(axis=1) == y).mean() > 0.9
    assert [epoch.epoch for epoch in result.history] == list(range(1, 13))
    assert result.history[-1].loss < result.history[0].loss


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    first, second, other = (trained(4, 4, seed=seed, epochs=3)[0].get_weights() for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_rmsprop_is_that_of_keras_but_for_rounding():
    X, y = blobs(4)
    found = []
    for optimizer in (rmsprop(import_keras(), 0.01), import_keras().optimizers.RMSprop(0.01)):
        found.append(network(4))
        fit(found[-1], *parts(X, y), Training(epochs=3), n_classes=4, optimizer=optimizer)
    assert type(found[0].optimizer) is not type(found[1].optimizer)
    assert found[0].optimizer.iterations == found[1].optimizer.iterations
    for a, b in zip(*(model.get_weights() for model in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def validation_loss(model, X, y):
    _, validation = parts(X, y)
    of_truth = predict_proba(model, X[validation.rows])[np.arange(len(validation)), y[validation.rows]]
    return -np.log(of_truth).mean()


@pytest.mark.parametrize("patience", [3, 100], ids=["stopped early", "ran through"])
def test_the_weights_of_the_best_epoch_are_kept(patience):
    rng = np.random.default_rng(0)
    X, y = (
        rng.normal(size=(80, 20)).astype(np.float32),
        rng.integers(0, 2, 80),
    )  # nothing to learn: validation gets worse
    model = network(1, n_inputs=20, units=64)
    optimizer = import_keras().optimizers.RMSprop(0.01)
    training = Training(epochs=15, patience=patience)
    result = fit(model, *parts(X, y), training, n_classes=2, optimizer=optimizer)
    losses = [epoch.val_loss for epoch in result.history]
    best = int(np.argmin(losses))
    assert result.kept_epoch == best + 1 < len(losses)
    assert len(losses) == (best + 1 + 3 if patience == 3 else 15)
    assert validation_loss(model, X, y) == pytest.approx(losses[best], abs=1e-6)
    assert losses[-1] > losses[best] + 1e-3


def test_every_row_is_learned_from_in_every_epoch():
    X, y = blobs(2, n=2 * 17 - 1)  # one batch more than TensorFlow is given at a time, and that one short
    model, samples = network(1), Samples(X, y, np.arange(len(y)))
    result = fit(model, samples, samples, Training(epochs=3), n_classes=2, batch_size=2)
    assert int(model.optimizer.iterations) == 3 * 17
    assert len(result.history) == 3


@pytest.mark.parametrize("is_mapped", [False, True])
def test_portions_are_all_rows_in_their_order(is_mapped, monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "FEED_BYTES", 1000)
    X = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float16)
    order = np.random.default_rng(1).permutation(300)
    if is_mapped:
        np.save(tmp_path / "X.npy", X)
    rows = np.load(tmp_path / "X.npy", mmap_mode="r") if is_mapped else X
    portions = list(training_loop._portions(rows, order, 16, np.random.default_rng(0)))
    assert len(portions) == 4
    assert np.array_equal(np.concatenate([which for which, _ in portions]), order)
    assert np.array_equal(np.concatenate([some for _, some in portions]), X[order])


def test_a_memory_map_trains_like_the_array(tmp_path):
    X, y = blobs(4)
    np.save(tmp_path / "X.npy", X)
    models = []
    for array in (X, np.load(tmp_path / "X.npy", mmap_mode="r")):
        models.append(network(4))
        fit(models[-1], *parts(array, y), Training(epochs=2), n_classes=4)
    weights = [model.get_weights() for model in models]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize(("outputs", "columns"), [(1, 2), (3, 3)])
def test_probabilities_are_one_column_per_class_and_sum_to_one(outputs, columns):
    X = np.random.default_rng(0).normal(size=(70, 2)).astype(np.float16)
    model = network(outputs)
    probabilities = predict_proba(model, X, batch_size=32)
    assert probabilities.shape == (70, columns)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    expected = np.asarray(model(X.astype(np.float32)))
    np.testing.assert_allclose(probabilities[:, -outputs:], expected, atol=1e-6)
    np.testing.assert_allclose(predict_proba(model, X), probabilities, atol=1e-6)
    assert predict_proba(model, X[:0]).shape == (0, columns)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error_with_advice(value):
    X, y = blobs(2)
    X[1] = value
    with pytest.raises(TrainingError, match=r"diverged.*another --seed"):
        fit(network(1), *parts(X, y), Training(epochs=2), n_classes=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 2}, "Labels must be 0 to 1"),
        ({"n_classes": 5}, "does not fit 5 classes"),
        ({"train": Samples(np.zeros((1, 2)), np.zeros(1, np.int64), np.arange(0))}, "no image to learn from"),
    ],
)
def test_what_cannot_be_trained_is_an_error(change, message):
    train, validation = parts(*blobs(4))
    options = {"train": train, "validation": validation, "n_classes": 4} | change
    with pytest.raises(TrainingError, match=message):
        fit(network(4), training=Training(epochs=1), **options)


def test_arrays_of_different_lengths_are_an_error():
    with pytest.raises(TrainingError, match="3, 2 and 3 entries"):
        split(np.zeros((3, 2)), np.zeros(2, np.int64), np.zeros(3, bool))


def test_only_trained_parameters_are_counted():
    model = network(1)
    assert count_parameters(model) == 2 * 16 + 16 + 16 + 1
    model.layers[1].trainable = False
    assert count_parameters(model) == 16 + 1


def test_a_saved_model_is_one_file_that_gives_the_same_when_it_is_loaded(tmp_path):
    """Plain Keras loads it, too: see `test_saved_heads_predict_in_plain_keras_what_the_run_says`."""
    model = network(3)
    path = tmp_path / "new" / "model.keras"
    save_model(model, path)
    X = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    np.testing.assert_array_equal(predict_proba(load_model(path), X), predict_proba(model, X))
    assert [file.name for file in path.parent.iterdir()] == ["model.keras"]


def test_a_failed_save_leaves_the_old_model(tmp_path):
    path = tmp_path / "model.keras"
    save_model(network(3), path)
    before = path.read_bytes()

    class Unsaveable:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(FeatxError, match="disk full"):
        save_model(Unsaveable(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_or_damaged_model_is_an_error(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FeatxError, match="There is no head"):
        read_head(path)
    path.write_bytes(b"no zip")
    with pytest.raises(FeatxError, match="featx cannot run the head"):
        read_head(path)
    save_model(network(3), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FeatxError, match="featx cannot run the head"):
        read_head(path)


def test_seeds_of_layers_differ_and_depend_on_the_seed_alone():
    first, again, other = ([next(seeds) for _ in range(20)] for seeds in map(layer_seeds, (1, 1, 2)))
    assert first == again
    assert len(set(first + other)) == 40
    assert all(0 <= seed < 2**31 for seed in first)


def test_history_is_of_finite_numbers():
    _, result = trained(1, 2, epochs=2)
    for epoch in result.history:
        assert all(map(math.isfinite, (epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy)))
        assert 0 <= epoch.val_accuracy <= 1
