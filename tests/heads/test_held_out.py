"""Heads are calibrated by training images that they have not seen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from featx.heads import held_out
from featx.heads.calibration import at_temperature, temperature_of
from featx.heads.dense import Task, TrainingSet, dense_held_out
from featx.heads.held_out import calibrate
from featx.heads.logistic import folds_of
from featx.heads.registry import train_head
from featx.heads.training_loop import Training, predict_proba
from tests.heads.test_dense import digests_of


def answers(n, n_classes, rng):
    """Scores of heads that know how sure they are, and labels that are as likely as these say."""
    scores = rng.normal(0, 2, (n, n_classes))
    p = softmax(scores, axis=1)
    return scores, np.array([rng.choice(n_classes, p=row) for row in p])


@pytest.mark.parametrize("n_classes", [2, 5])
def test_scores_that_are_three_times_too_large_have_temperature_3(n_classes):
    scores, y = answers(4000, n_classes, np.random.default_rng(0))
    overconfident = softmax(3 * scores, axis=1)
    overconfident[:50] = np.nan
    temperature, n_images = temperature_of(overconfident, y)
    assert n_images == 3950
    assert temperature == pytest.approx(3, rel=0.1)
    calibrated = at_temperature(overconfident, 3.0, is_multilabel=False)
    np.testing.assert_allclose(calibrated[50:], softmax(scores[50:], axis=1), atol=1e-6)
    assert np.isnan(calibrated[:50]).all()
    assert temperature_of(overconfident[:149], y[:149]) is None


def test_several_labels_have_one_temperature():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (2000, 3))
    y = rng.random((2000, 3)) < expit(scores)
    temperature, _ = temperature_of(expit(2 * scores), y)
    assert temperature == pytest.approx(2, rel=0.1)
    np.testing.assert_allclose(at_temperature(expit(2 * scores), 2.0, is_multilabel=True), expit(scores), atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "logreg"])
def test_heads_of_several_labels_are_calibrated(name, monkeypatch):
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 100)
    rng = np.random.default_rng(0)
    y = rng.random((150, 3)) < 0.4
    X = (y @ rng.normal(0, 1, (3, 16)) + rng.normal(0, 1, (150, 16))).astype(np.float32)
    images, training = TrainingSet(X, y, digests_of(X), np.arange(150) % 5 == 0, 3), Training(epochs=3)
    trained = train_head(name, images, training)
    before = predict_proba(trained.model, X)
    calibrated = calibrate(trained, images, training)
    after = at_temperature(before, calibrated.details["temperature"], is_multilabel=True)
    np.testing.assert_allclose(predict_proba(calibrated.model, X), after, atol=1e-5)


def test_each_row_may_have_its_own_temperature():
    p = np.array([[0.9, 0.1], [0.9, 0.1]])
    back = at_temperature(at_temperature(p, np.array([2.0, 0.5]), is_multilabel=False), 2.0, is_multilabel=False)
    np.testing.assert_allclose(back[1], p[1])
    assert back[0, 0] < 0.7


def noisy(n, n_classes, rng, n_features=8):
    """Features (n, 2, 2, n_features) that tell the class of only some images, so that heads are too sure."""
    y = rng.integers(n_classes, size=n)
    means = np.random.default_rng(7).normal(0, 0.4, (n_classes, 4 * n_features))
    return (means[y] + rng.normal(0, 1, (n, 4 * n_features))).reshape(n, 2, 2, n_features).astype(np.float32), y


def images_of(n, n_classes, seed=0):
    X, y = noisy(n, n_classes, np.random.default_rng(seed))
    return TrainingSet(X, y, digests_of(X), np.arange(n) % 5 == 0, n_classes)


@pytest.fixture
def n_validation(monkeypatch) -> list[int]:
    """How many validation images each training has had."""
    noted: list[int] = []

    def note(task: Task, *arguments: object) -> object:
        noted.append(int(task.is_validation.sum()))
        return fit(task, *arguments)

    fit = Task.fit
    monkeypatch.setattr(Task, "fit", note)
    return noted


def test_a_fold_that_holds_out_all_validation_images_stops_early_by_the_next_one(n_validation):
    task = Task.of(images_of(100, 2), Training(epochs=2))
    folds = [np.arange(100) % 5 == number for number in range(5)]  # the first one has all validation images
    assert [len(probabilities) for probabilities in dense_held_out(task, folds)] == [20] * 5
    assert n_validation == [20] * 5


def test_with_many_images_one_fold_is_trained_and_it_stops_early_even_without_validation_images(
    n_validation, monkeypatch
):
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 20)
    images, training = images_of(200, 2), Training(epochs=2)
    fold = folds_of(images.y, images.digests, 2, training.seed, n_folds=held_out.N_FOLDS)
    images = replace(images, is_validation=fold == 0)
    probabilities = held_out._held_out("dense", images, training)
    assert n_validation == [(fold == 1).sum()]
    assert (~np.isnan(probabilities).any(axis=1) == (fold == 0)).all()


def loss(model, X, y):
    return -np.log(np.maximum(predict_proba(model, X)[np.arange(len(y)), y], 1e-7)).mean()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_divides_the_scores_and_changes_no_answer(n_classes, monkeypatch):
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 24)
    images, training = images_of(600, n_classes), Training(epochs=4)
    X, y = noisy(1000, n_classes, np.random.default_rng(1))
    trained = train_head("dense", images, training)
    before, loss_before = predict_proba(trained.model, X), loss(trained.model, X, y)
    calibrated = calibrate(trained, images, training)
    after = predict_proba(calibrated.model, X)
    temperature = calibrated.details["temperature"]
    assert abs(np.log(temperature)) > 0.2
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    np.testing.assert_allclose(after, at_temperature(before, temperature, is_multilabel=False), atol=1e-5)
    assert loss(calibrated.model, X, y) < loss_before
    assert calibrated.details["calibration_images"] == np.isfinite(calibrated.out_of_fold).all(axis=1).sum() == 120
    assert calibrated.fit_s > trained.fit_s


@pytest.mark.parametrize("name", ["dense", "logreg"])
def test_no_image_is_predicted_by_a_head_that_has_seen_a_copy_of_it(name, monkeypatch):
    """Labels mean nothing: only who has seen an image or its copy can be right about it."""
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 40)
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(0, 1, (60, 256)), 2, axis=0).astype(np.float32)
    y = np.repeat(rng.integers(2, size=60), 2)
    images = TrainingSet(X, y, np.repeat(digests_of(X[::2]), 2, axis=0), np.zeros(120, bool), 2)
    training = Training(epochs=20)
    trained = calibrate(train_head(name, images, training), images, training)
    is_rated = np.isfinite(trained.out_of_fold).all(axis=1)
    assert (trained.out_of_fold.argmax(axis=1) == y)[is_rated].mean() < 0.75
    if name == "dense":
        assert (predict_proba(trained.model, X).argmax(axis=1) == y).mean() > 0.9


def test_folds_are_trained_until_enough_images_are_held_out(monkeypatch):
    images, training = images_of(150, 2), Training(epochs=1)
    trained = train_head("dense", images, training)
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 50)
    found = calibrate(trained, images, training).out_of_fold
    fold = folds_of(images.y, images.digests, 2, training.seed, n_folds=5)
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), fold < 2)


def test_few_images_calibrate_nothing():
    images, training = images_of(99, 2), Training(epochs=1)
    trained = train_head("dense", images, training)
    assert calibrate(trained, images, training) is trained
    logreg = train_head("logreg", images, training)
    weights = logreg.model.get_weights()
    after = calibrate(logreg, images, training)
    assert all(np.array_equal(one, other) for one, other in zip(weights, after.model.get_weights(), strict=True))
    assert len(after.out_of_fold) == 99
    assert "temperature" not in after.details


def test_views_of_an_image_are_held_out_with_it(monkeypatch):
    """A view tells the class of its image, which is chance."""
    monkeypatch.setattr(held_out, "ENOUGH_IMAGES", 20)
    rng = np.random.default_rng(0)
    X, y = rng.normal(0, 1, (100, 64)).astype(np.float32), rng.integers(2, size=100)
    images = TrainingSet(X, y, digests_of(X), np.arange(100) % 5 == 0, 2, np.stack([X, X], axis=1))
    training = Training(epochs=15, patience=15)
    trained = calibrate(train_head("dense", images, training), images, training)
    is_rated = np.isfinite(trained.out_of_fold).all(axis=1)
    assert is_rated.sum() == 20
    assert (trained.out_of_fold.argmax(axis=1) == y)[is_rated].mean() < 0.8


def test_a_class_with_two_images_is_held_out_too():
    images = images_of(120, 2)
    y = np.where(np.arange(120) < 2, 2, images.y)
    fold = folds_of(y, images.digests, 3, 0, n_folds=5)
    assert set(fold) == {0, 1, 2, 3, 4}
    assert fold[0] != fold[1]
    assert replace(images, y=y, n_classes=3).subset(fold != 0).y.max() == 2


def test_what_float32_cannot_tell_from_1_is_not_infinitely_sure():
    saturated = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(at_temperature(saturated, 1.0, is_multilabel=False)[0], [2**-25, 1], rtol=1e-6)
    is_right = np.arange(200) % 20 > 0
    temperature, _ = temperature_of(
        np.tile(saturated, (100, 1)), np.where(is_right, np.arange(200) + 1, np.arange(200)) % 2
    )
    assert temperature == pytest.approx(25 * np.log(2) / np.log(19), rel=0.1)
