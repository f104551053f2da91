"""Heads that decide about several labels of each image: a sigmoid for each, on real handwritten digits."""
# ruff: noqa: N806 - Z and C are what the books call them

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier

from featx.heads.dense import TrainingSet
from featx.heads.inference import read_head, save_model
from featx.heads.logistic import C_GRID, CV_TOLERANCE, folds_of
from featx.heads.registry import DEFAULT_HEADS as HEADS
from featx.heads.registry import train_head
from featx.heads.training_loop import Training, predict_proba
from featx.store.feature_array import StreamedViews
from tests.conftest import load_model
from tests.heads.test_streamed_logistic import digests_of, digits, stored


def labelled_digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits `(n, 8, 8, 1)` float16, and whether each is even, above four, and has a closed loop."""
    X, digit = digits(10, 1797)
    some = np.random.default_rng(0).permutation(len(X))[:n]
    X, digit = X[some], digit[some]
    return X, np.column_stack([digit % 2 == 0, digit > 4, np.isin(digit, (0, 6, 8, 9))])


def trained(name: str, X: object, y: np.ndarray, digests: np.ndarray, seed: int = 0, **more: object) -> object:
    images = TrainingSet(X, y, digests, np.arange(len(y)) % 5 == 0, y.shape[1], **more)
    return train_head(name, images, Training(epochs=15, seed=seed))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_has_a_sigmoid_for_each_label(name, tmp_path):
    X, y = labelled_digits(900)
    head = trained(name, X[:600], y[:600], digests_of(X[:600]))
    last = head.model.layers[-1]
    assert (last.units, last.activation.__name__) == (3, "sigmoid")
    p = predict_proba(head.model, X[600:])
    assert ((p > 0.5) == y[600:]).mean() > 0.85  # always the commoner answer: 0.56
    assert np.abs(p.sum(axis=1) - 1).max() > 0.9  # the labels of an image do not share its probability
    save_model(head.model, tmp_path / f"{name}.keras")
    saved = read_head(tmp_path / f"{name}.keras")
    assert saved.is_multilabel
    np.testing.assert_allclose(saved.predict_proba(X[600:]), p, atol=1e-5)
    np.testing.assert_allclose(load_model(tmp_path / f"{name}.keras").predict(X[600:], verbose=0), p, atol=1e-5)
    np.testing.assert_allclose(saved.to_keras().predict(X[600:].astype(np.float32), verbose=0), p, atol=1e-5)


def test_two_labels_are_not_two_classes(tmp_path):
    X, y = labelled_digits(300)
    for name in HEADS:
        head = trained(name, X, y[:, :2], digests_of(X))
        assert head.model.output_shape == (None, 2)
        save_model(head.model, tmp_path / f"{name}.keras")
        assert read_head(tmp_path / f"{name}.keras").is_multilabel
    classes = train_head("dense", TrainingSet(X, y[:, 0] * 1, digests_of(X), np.arange(300) % 5 == 0, 2), Training())
    save_model(classes.model, tmp_path / "classes.keras")
    assert not read_head(tmp_path / "classes.keras").is_multilabel


def test_the_history_is_binary_crossentropy_and_the_share_of_images_with_all_labels_right():
    X, y = labelled_digits(500)
    head = trained("dense", X, y, digests_of(X))
    held_out = np.arange(500) % 5 == 0
    p = predict_proba(head.model, X[held_out])
    kept = head.history[head.kept_epoch - 1]
    losses = [log_loss(y[held_out, k], p[:, k]) for k in range(3)]
    assert kept.val_loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert kept.val_accuracy == pytest.approx(((p > 0.5) == y[held_out]).all(axis=1).mean(), abs=1e-6)
    seen = predict_proba(head.model, X[~held_out])
    right = ((seen > 0.5) == y[~held_out]).all(axis=1).mean()
    assert head.history[-1].accuracy == pytest.approx(right, abs=0.15)  # a running mean, with dropout


def test_logistic_regression_is_scikit_learns_one_for_each_label_with_one_c():
    X, y = labelled_digits(600)
    digests = digests_of(X)
    head = trained("logreg", X, y, digests)
    flat = X.reshape(len(X), -1).astype(np.float64)
    Z = (flat - flat.mean(axis=0)) * head.details["feature_scale"]
    reference = OneVsRestClassifier(LogisticRegression(C=head.details["C"], tol=1e-6, max_iter=5000)).fit(Z, y)
    np.testing.assert_allclose(predict_proba(head.model, X), reference.predict_proba(Z), atol=0.01)
    folds = folds_of(y, digests, 3, 0)
    losses = []
    for C in (value / Z.shape[1] for value in C_GRID):
        p = np.empty(y.shape)
        for fold in range(folds.max() + 1):
            model = OneVsRestClassifier(LogisticRegression(C=C, tol=CV_TOLERANCE, max_iter=1000))
            p[folds == fold] = model.fit(Z[folds != fold], y[folds != fold]).predict_proba(Z[folds == fold])
        losses.append(sum(log_loss(y[:, k], p[:, k]) for k in range(3)))
    best = C_GRID[int(np.argmin(losses))] / Z.shape[1]
    assert head.details["C"] == pytest.approx(best)
    assert head.out_of_fold.shape == y.shape
    assert head.details["cv_accuracy"] == pytest.approx(((head.out_of_fold > 0.5) == y).all(axis=1).mean())


def test_a_label_that_a_fold_lacks_is_not_an_error():
    X, y = labelled_digits(200)
    y = np.column_stack([y, np.arange(200) < 2])  # two images have it, in two folds
    head = trained("logreg", X, y, digests_of(X))
    assert np.isfinite(head.out_of_fold).all()
    assert 0 < head.out_of_fold[:, 3].min() < head.out_of_fold[:, 3].max() < 1


def test_streamed_logistic_regression_is_the_exact_solvers(tmp_path):
    X, y = labelled_digits(1000)
    digests = digests_of(X)
    exact, streamed = (trained("logreg", rows, y, digests) for rows in (X, stored(tmp_path, X)))
    assert streamed.details["C"] == pytest.approx(exact.details["C"])
    assert (streamed.details["solver"], streamed.details["converged"]) == ("streaming", "yes")
    np.testing.assert_allclose(predict_proba(streamed.model, X), predict_proba(exact.model, X), atol=0.02)


def test_a_label_that_is_not_in_the_sample_is_learned_from_all_rows(tmp_path):
    X, y = labelled_digits(1000)
    y = np.column_stack([y, np.arange(1000) >= 985])
    streamed = trained("logreg", stored(tmp_path, X, buffer_bytes=20_000), y, digests_of(X))
    assert streamed.details["cv_images"] < 100
    assert predict_proba(streamed.model, X)[:, 3].mean() == pytest.approx(0.015, abs=0.003)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_head_and_views_are_trained_on(name, tmp_path):
    X, y = labelled_digits(200)
    views = np.repeat(X[:, np.newaxis], 2, axis=1) + np.float16(0.5)
    first, again, other = (trained(name, X, y, digests_of(X), seed, views=views).model for seed in (0, 0, 1))
    pairs = list(zip(first.get_weights(), again.get_weights(), strict=True))
    assert all(np.array_equal(one, two) for one, two in pairs)
    assert not all(np.array_equal(one, two) for one, two in zip(first.get_weights(), other.get_weights(), strict=True))
    on_disk = StreamedViews(stored(tmp_path, views.reshape(-1, 8, 8, 1)), 2)
    streamed = trained(name, stored(tmp_path / "x", X), y, digests_of(X), views=on_disk)
    assert streamed.details["views"] == 2
