"""The linear SVM is scikit-learn's, in memory and on disk, and its probabilities are honest."""
# ruff: noqa: N803 - X, Z and C are what scikit-learn calls them

import warnings

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from featx.heads import svm
from featx.heads.training_loop import predict_proba
from tests.heads.test_dense import digests_of, digits, head
from tests.heads.test_streamed_logistic import digits as sorted_digits
from tests.heads.test_streamed_logistic import head as head_of
from tests.heads.test_streamed_logistic import stored


def decisions_of(X, y, X_test, C):
    """Return plain LinearSVC's decisions, in float64, with the documented scaling."""
    flat, flat_test = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (X, X_test))
    mean = flat.mean(axis=0)
    scale = 1 / np.sqrt(((flat - mean) ** 2).mean())
    model = LinearSVC(C=C, tol=1e-7, max_iter=100_000, random_state=0).fit((flat - mean) * scale, y)
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


@pytest.mark.parametrize("n_classes", [2, 10])
def test_rows_on_disk_end_at_the_same_minimum(n_classes, tmp_path):
    X, y = sorted_digits(n_classes, 1200)
    exact, streamed = (head_of("svm", rows, y, digests_of(X), n_classes) for rows in (X, stored(tmp_path, X)))
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
