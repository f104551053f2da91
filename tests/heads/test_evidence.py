"""The evidence of each position: it adds up to the score, it is where the classes differ, and knn has none."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from featx.errors import FeatxError
from featx.heads.dense import TrainingSet
from featx.heads.evidence import find_evidence, why_no_evidence
from featx.heads.inference import head_of, read_head, save_model
from featx.heads.registry import HEADS, train_head
from featx.heads.training_loop import Training, predict_proba
from featx.heads.tuned import TunedHead, _on_block, dense_layers
from featx.system.late_imports import import_keras

SHAPE = (2, 3, 8)

#: The position in which the classes differ.
PLACE = (1, 2)


@functools.cache  # for Keras, each new model is a new graph
def trained(name, n_classes, *, is_multilabel=False, n=90, shape=SHAPE):
    """Return a head's Keras model and the features that it was trained on: classes differ in `PLACE` only."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    X = np.abs(rng.normal(0, 1, (n, *shape)))
    if len(shape) == 3:
        X[:, *PLACE] += 3 * np.eye(shape[-1])[y]
    targets = np.eye(n_classes, dtype=bool)[y] if is_multilabel else y
    digests = rng.integers(0, 256, (n, 32), np.uint8)
    images = TrainingSet(X.astype(np.float16), targets, digests, np.arange(n) % 10 == 0, n_classes)
    return train_head(name, images, Training(epochs=12, seed=1)).model, images.X


def assert_sums(found):
    """Positions add up: to float32's rounding."""
    differences = [one.score - one.base for one in found]
    np.testing.assert_allclose([one.map.sum() for one in found], differences, rtol=1e-4, atol=1e-4)


def log_odds(probabilities, labels):
    """Return the score of each row's class from probabilities, as `find_evidence` defines it."""
    rows, p = np.arange(len(labels)), probabilities
    if p.shape[1] == 2 or not np.allclose(p.sum(axis=1), 1):
        return np.log(p[rows, labels] / (1 - p[rows, labels]))
    return np.log(p[rows, labels]) - np.log(p).mean(axis=1)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", [name for name in HEADS if name != "knn"])
def test_positions_add_up_to_the_score_and_the_most_is_where_the_classes_differ(name, n_classes):
    model, X = trained(name, n_classes)
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float16)
    labels = np.arange(len(X)) % n_classes
    found = find_evidence(head_of(model), X, labels, mean)
    scores, (base, *_) = (log_odds(predict_proba(model, rows), labels[: len(rows)]) for rows in (X, mean[np.newaxis]))
    np.testing.assert_allclose([one.score for one in found], scores, rtol=1e-3, atol=1e-3)
    assert found[0].base == pytest.approx(base, rel=1e-3, abs=1e-3)
    assert_sums(found)
    strongest = [np.unravel_index(np.abs(one.map).argmax(), SHAPE[:2]) == PLACE for one in found]
    assert np.mean(strongest) > 0.9
    assert np.mean([one.map[PLACE] > 0 for one in found]) > 0.9, "it speaks for the right class"


@pytest.mark.parametrize("name", ["dense", "logreg"])
def test_each_of_several_labels_has_its_own_evidence(name):
    model, X = trained(name, 3, is_multilabel=True)
    head, mean = head_of(model), X.mean(axis=0)
    assert head.is_multilabel
    probabilities = predict_proba(model, X)
    for label in range(3):
        found = find_evidence(head, X, np.full(len(X), label), mean)
        p = probabilities[:, label]
        np.testing.assert_allclose([one.score for one in found], np.log(p / (1 - p)), rtol=1e-3, atol=1e-3)
        assert_sums(found)


def test_evidence_of_dense_is_the_integrated_gradient():
    """The slopes of each relu are the mean gradient on the way from the mean to the image: here, in 4,000 steps."""
    model, X = trained("dense", 2)
    hidden, last = head_of(model).layers
    mean = X.mean(axis=0, dtype=np.float64)
    way = X[0].astype(np.float64) - mean
    steps = mean.ravel() + (np.arange(4000)[:, np.newaxis] + 0.5) / 4000 * way.ravel()
    active = (steps @ hidden.kernel + hidden.bias > 0).mean(axis=0)
    gradient = (active * last.kernel[:, 0]) @ hidden.kernel.T
    (found,) = find_evidence(head_of(model), X[:1], [1], mean)
    np.testing.assert_allclose(found.map, (way * gradient.reshape(SHAPE)).sum(axis=-1), atol=2e-3)


def test_the_other_of_two_classes_has_the_opposite_evidence():
    model, X = trained("logreg", 2)
    head, mean = head_of(model), X.mean(axis=0)
    ours, theirs = (find_evidence(head, X, np.full(len(X), label), mean) for label in (0, 1))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.map, -other.map)
        assert (one.score, one.base) == (-other.score, -other.base)


def test_a_saved_head_has_the_evidence_of_the_model(tmp_path):
    model, X = trained("dense", 3)
    save_model(model, tmp_path / "dense.keras")
    labels, mean = np.zeros(len(X), int), X.mean(axis=0)
    for one, other in zip(
        *(find_evidence(head, X, labels, mean) for head in (head_of(model), read_head(tmp_path / "dense.keras"))),
        strict=True,
    ):
        np.testing.assert_array_equal(one.map, other.map)


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_a_tuned_block_has_evidence_at_the_positions_of_its_output(is_multilabel):
    keras = import_keras()
    inputs = keras.Input((6, 6, 4))
    outputs = keras.layers.MaxPooling2D()(keras.layers.Conv2D(5, 3, padding="same", activation="relu")(inputs))
    tail = keras.Model(inputs, outputs)
    layers = dense_layers(keras, 3, seed=0, is_multilabel=is_multilabel)
    head = TunedHead((6, 6, 4), 3, _on_block(keras, tail, layers))
    X = np.random.default_rng(0).normal(0, 2, (5, 6, 6, 4)).astype(np.float32)
    mean, labels = X.mean(axis=0), np.array([0, 1, 2, 0, 1])
    found = find_evidence(head, X, labels, mean)
    assert why_no_evidence(head) == ""
    assert {one.map.shape for one in found} == {(3, 3)}
    of_images, of_mean = (log_odds(head.predict_proba(rows), labels[: len(rows)]) for rows in (X, mean[np.newaxis]))
    np.testing.assert_allclose([one.score for one in found], of_images, atol=1e-4)
    assert found[0].base == pytest.approx(of_mean[0], abs=1e-4)
    assert_sums(found)


def test_a_head_without_evidence_says_why():
    assert "knn compares whole images" in why_no_evidence(head_of(trained("knn", 2)[0]))
    assert "no positions: extract them without --pooling" in why_no_evidence(
        head_of(trained("logreg", 2, shape=(6,))[0])
    )
    assert why_no_evidence(head_of(trained("prototypes", 2)[0])) == ""
    dense = head_of(trained("dense", 2)[0])
    changed = replace(dense, layers=(replace(dense.layers[0], activation="sigmoid"), dense.layers[1]))
    assert "a layer that featx does not train" in why_no_evidence(changed)


def test_features_of_another_recipe_are_refused():
    model, X = trained("logreg", 2)
    with pytest.raises(FeatxError, match="it belongs to another recipe"):
        find_evidence(head_of(model), X[:, :1], np.zeros(len(X), int), X.mean(axis=0))
