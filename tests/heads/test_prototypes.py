"""The nearest class mean, and temperatures that keep probabilities honest."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.neighbors import NearestCentroid

from featx.heads.calibration import fit_temperature
from featx.heads.dense import TrainingSet
from featx.heads.logistic import folds_of
from featx.heads.registry import train_head
from featx.heads.training_loop import Training, predict_proba
from tests.heads.test_dense import digests_of, digits, head


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # a corner of the digits is always empty
@pytest.mark.parametrize("n_classes", [2, 10])
def test_answers_are_those_of_scikit_learn_s_nearest_centroid(n_classes):
    X, y, X_test, _ = digits(n_classes, 150)
    probabilities = predict_proba(head("prototypes", X, y, n_classes).model, X_test)
    flat, flat_test = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (X, X_test))
    model = NearestCentroid().fit(flat, y)
    assert (probabilities.argmax(axis=1) == model.predict(flat_test)).all()


def test_probabilities_are_a_softmax_of_squared_distances():
    X, y, X_test, _ = digits(4, 150)
    trained = head("prototypes", X, y, 4)
    flat, flat_test = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (X, X_test))
    means = np.stack([flat[y == number].mean(axis=0) for number in range(4)])
    squares = ((flat_test[:, np.newaxis] - means) ** 2).sum(axis=2) * trained.details["feature_scale"] ** 2
    expected = softmax(-squares / trained.details["temperature"], axis=1)
    np.testing.assert_allclose(predict_proba(trained.model, X_test), expected, atol=1e-5)


def test_held_out_images_are_not_in_the_means():
    X, y, _, _ = digits(3, 60)
    digests = digests_of(X)
    trained = head("prototypes", X, y, 3)
    folds = folds_of(y, digests, 3, seed=0)
    flat = X.reshape(60, -1).astype(np.float64)
    for fold in range(5):
        seen = folds != fold
        means = np.stack([flat[seen & (y == number)].mean(axis=0) for number in range(3)])
        squares = ((flat[~seen, np.newaxis] - means) ** 2).sum(axis=2) * trained.details["feature_scale"] ** 2
        expected = softmax(-squares / trained.details["temperature"], axis=1)
        np.testing.assert_allclose(trained.out_of_fold[~seen], expected, atol=1e-4)


def test_a_temperature_makes_probabilities_as_right_as_they_say():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    y = (rng.random(20_000)[:, np.newaxis] < softmax(logits, axis=1).cumsum(axis=1)).argmax(axis=1)
    temperature, loss = fit_temperature(7 * logits + 3, y, default=1.0)
    assert temperature == pytest.approx(7, rel=0.03)
    assert loss == pytest.approx(-np.log(softmax(logits, axis=1)[np.arange(len(y)), y]).mean(), rel=0.01)


def test_few_images_that_are_all_right_do_not_make_it_certain():
    scores = np.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, 9.0]])
    temperature, _ = fit_temperature(scores, np.array([0, 1, 0, 1]), default=9.0)
    assert 0.6 < softmax(scores / temperature, axis=1).max() < 0.9
    assert fit_temperature(scores[:0], np.array([], np.int64), default=9.0) == (9.0, 0.0)


def test_views_count_in_the_means_and_are_not_held_out():
    X, y, _, _ = digits(3, 60)
    views = np.stack([X + np.float16(1), X], axis=1)
    trained = train_head("prototypes", TrainingSet(X, y, digests_of(X), np.zeros(60, bool), 3, views), Training())
    assert trained.out_of_fold.shape == (60, 3)
    assert trained.details["views"] == 2
    plain = head("prototypes", X, y, 3)
    np.testing.assert_allclose(  # all means move by the same third of 1: only the bias sees it
        trained.model.get_weights()[0] * trained.details["temperature"] / trained.details["feature_scale"] ** 2,
        plain.model.get_weights()[0] * plain.details["temperature"] / plain.details["feature_scale"] ** 2,
        atol=1e-3,
    )
