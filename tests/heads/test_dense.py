# ruff: noqa: N803, N806 - X, Z and C are what scikit-learn calls them
import hashlib
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from featx.errors import TrainingError
from featx.heads import logistic
from featx.heads.dense import TrainingSet
from featx.heads.inference import read_head, save_model
from featx.heads.logistic import folds_of
from featx.heads.registry import HEADS, train_head
from featx.heads.training_loop import Training, count_parameters, predict_proba
from tests.conftest import load_model


def digests_of(X):
    return np.stack([np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in X])


def digits(n_classes, n_train, n_test=300):
    """Digits as features of shape (8, 8, 1) float16: train and test rows."""
    data = load_digits()
    rows = np.flatnonzero(data.target < n_classes)[: n_train + n_test]
    X, y = data.images[rows, :, :, None].astype(np.float16), data.target[rows].astype(np.int64)
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def head(name, X, y, n_classes, **training):
    is_validation = np.arange(len(y)) % 5 == 0
    return train_head(name, TrainingSet(X, y, digests_of(X), is_validation, n_classes), Training(**training))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_digits_are_learned(name, n_classes):
    X, y, X_test, y_test = digits(n_classes, 60 * n_classes if n_classes == 10 else 200, 150)
    trained = head(name, X, y, n_classes, epochs=25)
    probabilities = predict_proba(trained.model, X_test)
    assert probabilities.shape == (len(y_test), n_classes)
    assert (probabilities.argmax(axis=1) == y_test).mean() > (0.97 if n_classes == 2 else 0.8)
    assert trained.model.output_shape[-1] == (1 if n_classes == 2 and name != "knn" else n_classes)
    assert trained.fit_s > 0


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_head_bit_for_bit(name):
    X, y, _, _ = digits(3, 90)
    first, second = (head(name, X, y, 3, seed=5, epochs=2).model.get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", HEADS)
def test_saved_heads_give_the_same_probabilities(name, tmp_path):
    X, y, X_test, _ = digits(2, 60)
    model = head(name, X, y, 2, epochs=2).model
    save_model(model, tmp_path / "head.keras")
    np.testing.assert_array_equal(
        predict_proba(load_model(tmp_path / "head.keras"), X_test), predict_proba(model, X_test)
    )
    read = read_head(tmp_path / "head.keras")
    np.testing.assert_allclose(read.predict_proba(X_test), predict_proba(model, X_test), atol=1e-6)
    np.testing.assert_allclose(predict_proba(read.to_keras(), X_test), predict_proba(model, X_test), atol=1e-6)


@pytest.mark.parametrize(("n_classes", "outputs"), [(2, 1), (3, 3)])
def test_dense_is_the_report_s_top_model(n_classes, outputs):
    X, y, _, _ = digits(n_classes, 60)
    trained = head("dense", X, y, n_classes, epochs=2)
    kinds = [type(layer).__name__ for layer in trained.model.layers]
    assert kinds == ["InputLayer", "Flatten", "Dense", "Dropout", "Dense"]
    assert count_parameters(trained.model) == 64 * 256 + 256 + 256 * outputs + outputs
    assert [layer.activation.__name__ for layer in trained.model.layers[2::2]] == [
        "relu",
        "softmax" if outputs > 1 else "sigmoid",
    ]
    assert trained.model.layers[3].rate == 0.5


def test_dense_keeps_the_best_epoch_with_the_scale_in_its_kernel():
    X, y, _, _ = digits(3, 150)
    trained = head("dense", X * np.float16(50), y, 3, epochs=6)
    held_out = np.arange(len(y)) % 5 == 0
    of_truth = predict_proba(trained.model, X[held_out] * np.float16(50))[np.arange(held_out.sum()), y[held_out]]
    kept = trained.history[trained.kept_epoch - 1]
    assert kept.val_loss == min(epoch.val_loss for epoch in trained.history)
    assert -np.log(of_truth).mean() == pytest.approx(kept.val_loss, rel=1e-3)


def plain_fit(X, y, C):
    """Return raw scikit-learn's probabilities for its own rows, in float64, with the documented scaling."""
    flat = X.reshape(len(X), -1).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    scaled = centred / np.sqrt((centred**2).mean())
    return LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(scaled, y).predict_proba(scaled)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("shape", ["more rows than features", "fewer rows than features"])
def test_logreg_is_what_plain_scikit_learn_fits(n_classes, shape):
    X, y, _, _ = digits(n_classes, 200)
    if shape == "fewer rows than features":
        X = np.concatenate([X, np.sqrt(X), X**2 / 16] * 3, axis=3)[:100]
        y = y[:100]
        assert len(X) <= X[0].size // 2
    trained = head("logreg", X, y, n_classes)
    assert trained.details["converged"] == "yes"
    np.testing.assert_allclose(predict_proba(trained.model, X), plain_fit(X, y, trained.details["C"]), atol=5e-3)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_folding_the_scale_into_the_kernel_changes_no_probability(n_classes, monkeypatch):
    fitted = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, Z, y: fitted.append((self, Z)) or fit(self, Z, y))
    X, y, _, _ = digits(n_classes, 200)
    trained = head("logreg", X, y, n_classes)
    final, Z = fitted[-1]
    assert len(Z) == len(X)
    np.testing.assert_allclose(predict_proba(trained.model, X), final.predict_proba(Z), atol=1e-5)


def test_logreg_does_not_care_how_large_features_are():
    X, y, X_test, _ = digits(3, 120)
    small = head("logreg", X, y, 3)
    large = head("logreg", (X * np.float16(64)), y, 3)
    np.testing.assert_allclose(
        predict_proba(large.model, X_test * np.float16(64)), predict_proba(small.model, X_test), atol=1e-4
    )


def test_logreg_uses_the_validation_rows_too():
    X, y, _, _ = digits(3, 120)
    everything = head("logreg", X, y, 3)
    nothing_held_out = train_head("logreg", TrainingSet(X, y, digests_of(X), np.zeros(120, bool), 3), Training())
    np.testing.assert_array_equal(*(trained.model.get_weights()[0] for trained in (everything, nothing_held_out)))


def test_folds_keep_equal_images_together_and_every_class_everywhere():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, 200)
    y = (image % 3).astype(np.int64)
    digests = digests_of(image[:, None])
    folds = folds_of(y, digests, 3, seed=1)
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert all(len(set(folds[image == number])) == 1 for number in set(image))
    assert all(set(y[folds == fold]) == {0, 1, 2} for fold in range(5))
    order = rng.permutation(200)
    np.testing.assert_array_equal(folds_of(y[order], digests[order], 3, seed=1), folds[order])


def test_two_images_per_class_are_enough_for_logreg():
    X, y, _, _ = digits(3, 60)
    rows = np.concatenate([np.flatnonzero(y == number)[:2] for number in range(3)])
    trained = head("logreg", X[rows], y[rows], 3)
    assert trained.details["cv_folds"] == 2
    assert (predict_proba(trained.model, X[rows]).argmax(axis=1) == y[rows]).all()


def test_copies_of_one_image_are_one_image():
    X, y, _, _ = digits(2, 20)
    rows = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[[0, 0, 0]]])
    folds = folds_of(y[rows], digests_of(X[rows]), 2, seed=0)
    assert (folds == -1).all()  # a class cannot be held out, and the other alone says nothing
    assert "cv_folds" not in head("logreg", X[rows], y[rows], 2).details
    with pytest.raises(TrainingError, match="There is no image of class number 2"):
        folds_of(y[rows], digests_of(X[rows]), 3, seed=0)


def test_a_class_with_one_image_is_never_held_out():
    X, y, _, _ = digits(3, 60)
    rows = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:1]])
    folds = folds_of(y[rows], digests_of(X[rows]), 3, seed=0)
    assert folds[-1] == -1
    assert sorted(set(folds[:-1])) == [0, 1, 2, 3, 4]
    trained = head("logreg", X[rows], y[rows], 3)
    assert trained.details["cv_folds"] == 5
    np.testing.assert_array_equal(np.isnan(trained.out_of_fold).any(axis=1), folds == -1)
    assert predict_proba(trained.model, X[rows])[-1].argmax() == 2


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_one_image_of_each_class_is_enough(name, n_classes):
    X, y, X_test, y_test = digits(n_classes, 60)
    rows = np.array([np.flatnonzero(y == number)[0] for number in range(n_classes)])
    images = TrainingSet(X[rows], y[rows], digests_of(X[rows]), np.zeros(n_classes, bool), n_classes)
    trained = train_head(name, images, Training())
    assert (predict_proba(trained.model, X[rows]).argmax(axis=1) == y[rows]).all()
    probabilities = predict_proba(trained.model, X_test)
    assert (probabilities.argmax(axis=1) == y_test).mean() > (0.9 if n_classes == 2 else 0.5)
    assert -np.log(probabilities[np.arange(len(y_test)), y_test]).mean() < np.log(n_classes)


def test_without_validation_rows_dense_trains_for_all_epochs():
    X, y, _, _ = digits(2, 20)
    trained = train_head(
        "dense", TrainingSet(X, y, digests_of(X), np.zeros(20, bool), 2), Training(epochs=9, patience=2)
    )
    assert trained.kept_epoch == len(trained.history) == 9
    assert np.isnan([epoch.val_loss for epoch in trained.history]).all()
    assert trained.history[-1].loss < trained.history[0].loss


def test_features_that_are_all_the_same_give_the_frequency_of_the_classes():
    y = np.arange(40) % 4 // 3
    X = np.full((40, 3), 7, np.float16)
    digests = digests_of(np.arange(40)[:, None])
    trained = train_head("logreg", TrainingSet(X, y, digests, np.zeros(40, bool), 2), Training())
    np.testing.assert_allclose(predict_proba(trained.model, X)[:, 1], 0.25, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error(name, value):
    X, y, _, _ = digits(2, 40)
    X[3, 0, 0, 0] = value
    with pytest.raises(TrainingError, match="infinite or not a number"):
        head(name, X, y, 2)


def test_a_fit_that_does_not_converge_says_so_in_the_details_only(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    X, y, _, _ = digits(3, 90)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = head("logreg", X, y, 3)
    assert trained.details["converged"] == "no"
    assert not caught


def test_an_unknown_head_is_an_error_that_lists_the_known():
    X, y, _, _ = digits(2, 20)
    with pytest.raises(TrainingError, match="dense, logreg.*Received: 'forest'"):
        head("forest", X, y, 2)
