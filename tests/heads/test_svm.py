"""The linear SVM is scikit-learn's, in memory and on disk, and its probabilities are honest."""
# ruff: noqa: N803 - X, Z and C are what scikit-learn calls them

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from featx.heads import svm
from featx.heads.dense import TrainingSet
from featx.heads.registry import train_head
from featx.heads.training_loop import Training, predict_proba
from tests.heads.test_dense import digests_of, digits, head
from tests.heads.test_streamed_logistic import digits as sorted_digits
from tests.heads.test_streamed_logistic import stored


def decisions_of(X, y, X_test, C, weights=None):
    """Return plain LinearSVC's decisions, in float64, with the documented scaling; `weights` are those of rows."""
    flat, flat_test = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (X, X_test))
    mean = flat.mean(axis=0)
    scale = 1 / np.sqrt(((flat - mean) ** 2).mean())
    model = LinearSVC(C=C, tol=1e-7, max_iter=100_000, random_state=0).fit((flat - mean) * scale, y, weights)
    return model.decision_function((flat_test - mean) * scale), np.linalg.norm(model.coef_)


def logits(probabilities):
    """Return what the softmax was of, with a mean of 0 in each row."""
    logs = np.log(probabilities)
    return logs - logs.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("shape", ["more rows than features", "fewer rows than features"])
def test_svm_is_scikit_learn_s_linear_svc(n_classes, shape):
    X, y, X_test, _ = digits(n_classes, 200)
    if shape == "fewer rows than features":
        X, X_test = (np.concatenate([rows, np.sqrt(rows), rows**2 / 16] * 3, axis=3) for rows in (X, X_test))
        X, y = X[:100], y[:100]
    trained = head("svm", X, y, n_classes)
    decisions, length = decisions_of(X, y, X_test, trained.details["C"])
    columns = np.stack([-decisions / 2, decisions / 2], axis=1) if n_classes == 2 else decisions
    expected = columns / (length * trained.details["temperature"])
    found = logits(predict_proba(trained.model, X_test))
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert trained.details["converged"] == "yes"
    assert (found.argmax(axis=1) == columns.argmax(axis=1)).mean() > 0.99


@pytest.mark.parametrize("class_weights", [None, [0.2, 0.4, 3.0]])
def test_rows_on_disk_end_at_the_same_minimum(class_weights, tmp_path):
    X, y = sorted_digits(3, 600)
    weights = None if class_weights is None else np.array(class_weights)
    images = TrainingSet(X, y, digests_of(X), np.zeros(len(y), bool), 3, class_weights=weights)
    exact, streamed = (train_head("svm", replace(images, X=rows), Training()) for rows in (X, stored(tmp_path, X)))
    decisions, length = decisions_of(X, y, X, exact.details["C"], None if weights is None else weights[y])
    expected = decisions / (length * exact.details["temperature"])
    expected -= expected.mean(axis=1, keepdims=True)
    found = logits(predict_proba(exact.model, X))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert streamed.details["solver"] == "streaming"
    assert streamed.details["C"] == pytest.approx(exact.details["C"])
    np.testing.assert_allclose(predict_proba(streamed.model, X), predict_proba(exact.model, X), atol=0.03)


def test_more_rows_than_the_sample_end_at_linear_svc_s_minimum(monkeypatch):
    X, y, X_test, _ = digits(5, 600)
    monkeypatch.setattr(svm, "SAMPLE_ROWS", 200)
    trained = head("svm", X, y, 5)
    assert trained.details["cv_images"] == 200
    decisions, length = decisions_of(X, y, X_test, trained.details["C"])
    expected = decisions / (length * trained.details["temperature"])
    found = logits(predict_proba(trained.model, X_test))
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_the_loss_of_weighted_rows_is_that_of_repeated_rows():
    rng = np.random.default_rng(0)
    decisions, y = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    rows = np.concatenate([np.arange(30), np.flatnonzero(y == 1)])
    loss, slopes = svm._squared_hinge(decisions, y, np.array([1.0, 2.0, 1.0]))
    repeated, of_repeated = svm._squared_hinge(decisions[rows], y[rows], None)
    assert loss == pytest.approx(repeated)
    np.testing.assert_allclose(slopes.sum(axis=0), of_repeated.sum(axis=0))


def test_a_sample_has_two_images_of_each_class(monkeypatch):
    monkeypatch.setattr(svm, "SAMPLE_ROWS", 30)
    rng = np.random.default_rng(0)
    y = np.sort(np.concatenate([np.repeat(np.arange(20), 5), np.zeros(200, np.int64)]))
    X = (rng.normal(size=(20, 20))[y] + 0.1 * rng.normal(size=(300, 20))).astype(np.float32)
    images = TrainingSet(X, y, digests_of(X), np.arange(300) % 5 == 0, 20)
    trained = train_head("svm", images, Training())
    assert trained.details["cv_images"] == 40
    assert (predict_proba(trained.model, X).argmax(axis=1) == y).mean() > 0.99


def test_a_fit_that_does_not_converge_says_so_in_the_details_only(monkeypatch):
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 1)
    X, y, _, _ = digits(3, 90)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = head("svm", X, y, 3)
    assert trained.details["converged"] == "no"
    assert not caught


def test_probabilities_say_how_often_they_are_right():
    X, y, X_test, y_test = digits(10, 400, 1000)
    of_answer = predict_proba(head("svm", X, y, 10).model, X_test)
    right = (of_answer.argmax(axis=1) == y_test).mean()
    assert of_answer.max(axis=1).mean() == pytest.approx(right, abs=0.08)
