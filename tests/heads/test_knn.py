"""The nearest training images vote: as scikit-learn's do, with what is best for images that are left out."""
# ruff: noqa: N806 - X and Z are what the books call them

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from featx.errors import FeatxError, NotEnoughMemoryError
from featx.heads import knn
from featx.heads.dense import TrainingSet
from featx.heads.inference import nearest_votes, read_head, save_model
from featx.heads.knn import Vote
from featx.heads.registry import check_memory, train_head
from featx.heads.training_loop import Training, predict_proba
from tests.heads.test_dense import digests_of, digits, head


def scaled(X, like):
    flat, of = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (X, like))
    return (flat - of.mean(axis=0)) / np.sqrt(((of - of.mean(axis=0)) ** 2).mean())


def as_scikit_learn(X, y, X_test, vote, n_classes):
    """Return what scikit-learn's neighbours say with the same vote, smoothed."""
    Z, Z_test = scaled(X, X), scaled(X_test, X)
    n_features = Z.shape[1]

    def weights(distances):
        # One row of test features at a time: its length is what a cosine is multiplied by in `Vote`.
        factor = length / np.sqrt(n_features) if vote.metric == "cosine" else 1.0
        similar = -distances * factor if vote.metric == "cosine" else -(distances**2) / (2 * n_features)
        return np.exp(vote.sharpness * (similar - similar.max(axis=1, keepdims=True)))

    model = KNeighborsClassifier(vote.k, metric=vote.metric, weights=weights, algorithm="brute").fit(Z, y)
    shares = []
    for row in Z_test:
        length = np.linalg.norm(row)
        shares.append(model.predict_proba(row[np.newaxis])[0])
    return (1 - vote.smoothing) * np.array(shares) + vote.smoothing / n_classes


@pytest.mark.parametrize("metric", knn.METRICS)
@pytest.mark.parametrize(("n_classes", "k", "sharpness"), [(2, 1, 10.0), (10, 5, 3.0), (3, 20, 30.0)])
def test_votes_are_those_of_scikit_learn_s_neighbours(metric, n_classes, k, sharpness, monkeypatch):
    X, y, X_test, y_test = digits(n_classes, 200, 100)
    vote = Vote(metric, k, sharpness, 0.1)
    monkeypatch.setattr(knn, "_choose", lambda *_args: vote)
    probabilities = predict_proba(head("knn", X, y, n_classes).model, X_test)
    expected = as_scikit_learn(X, y, X_test, vote, n_classes)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert probabilities.min() >= 0.099 / n_classes
    assert (probabilities.argmax(axis=1) == y_test).mean() > 0.85


def test_votes_count_as_much_as_their_class(monkeypatch):
    X, y, X_test, _ = digits(3, 200, 100)
    X, X_test = (
        rows + np.random.default_rng(0).random(rows.shape).astype(np.float16) for rows in (X, X_test)
    )  # no ties
    vote, weights = Vote("euclidean", 20, 10.0, 0.1), np.array([0.3, 0.6, 2.1])
    monkeypatch.setattr(knn, "_choose", lambda *_args: vote)
    images = TrainingSet(X, y, digests_of(X), np.zeros(200, bool), 3, class_weights=weights)
    probabilities = predict_proba(train_head("knn", images, Training()).model, X_test)
    shares = (as_scikit_learn(X, y, X_test, vote, 3) - 0.1 / 3) * weights
    expected = 0.9 * shares / shares.sum(axis=1, keepdims=True) + 0.1 / 3
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_the_vote_with_the_lowest_loss_of_images_left_out_is_chosen():
    X, y, _, _ = digits(4, 120)
    trained = head("knn", X, y, 4)
    chosen = Vote(*(trained.details[name] for name in ("metric", "k", "sharpness", "smoothing")))

    def loss(vote):
        left_out = [np.arange(len(y)) != row for row in range(len(y))]
        Z = scaled(X, X)
        similar = Z @ Z.T
        if vote.metric == "cosine":
            similar = similar / (np.linalg.norm(Z, axis=1) * np.sqrt(Z.shape[1]))
        else:
            similar = similar / Z.shape[1] - (Z**2).sum(axis=1) / (2 * Z.shape[1])
        of_truth = []
        for row, others in enumerate(left_out):
            weights = nearest_votes(vote.sharpness * similar[row, others][np.newaxis], vote.k)[0]
            of_truth.append(weights[y[others] == y[row]].sum())
        return -np.log((1 - vote.smoothing) * np.array(of_truth) + vote.smoothing / 4).mean()

    others = [Vote(metric, k, chosen.sharpness, chosen.smoothing) for metric in knn.METRICS for k in (1, 5, 20, 50)]
    others += [Vote(chosen.metric, chosen.k, sharpness, chosen.smoothing) for sharpness in knn.SHARPNESSES]
    assert all(loss(chosen) <= loss(other) + 1e-6 for other in others)
    of_truth = trained.out_of_fold[np.arange(len(y)), y]
    assert -np.log(of_truth).mean() == pytest.approx(loss(chosen), abs=1e-4)


def test_an_image_is_left_out_with_its_group():
    """Copies would be each other's nearest neighbours: with random labels, they alone are right."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(100, 30)), 2, axis=0).astype(np.float16)
    y = np.repeat(rng.integers(0, 2, 100), 2)
    apart, together = digests_of(np.arange(200)[:, None]), digests_of(np.arange(200)[:, None] // 2)
    right = {}
    for name, units in (("apart", apart), ("together", together)):
        trained = train_head("knn", TrainingSet(X, y, units, np.zeros(200, bool), 2), Training())
        right[name] = trained.details["cv_accuracy"]
    assert right["apart"] > 0.95
    assert right["together"] < 0.65


def test_rows_that_are_equally_alike_all_vote():
    scores = np.array([[3.0, 1.0, 1.0, 0.0]])
    np.testing.assert_allclose(nearest_votes(scores, 2), np.array([[np.e**2, 1, 1, 0]]) / (np.e**2 + 2))
    np.testing.assert_allclose(nearest_votes(scores, 1), [[1, 0, 0, 0]])


def test_of_many_images_some_are_left_out(monkeypatch):
    monkeypatch.setattr(knn, "MAX_LEFT_OUT", 50)
    X, y, X_test, y_test = digits(5, 400)
    trained = head("knn", X, y, 5)
    assert trained.details["cv_images"] == 50
    assert np.isfinite(trained.out_of_fold).all(axis=1).sum() == 50
    assert (predict_proba(trained.model, X_test).argmax(axis=1) == y_test).mean() > 0.9


def test_memory_that_all_features_do_not_fit_in_is_refused_before(monkeypatch):
    monkeypatch.setattr("featx.heads.registry.free_memory_bytes", lambda: 100 << 20)
    X = np.broadcast_to(np.float16(0), (10_000, 8192))
    with pytest.raises(NotEnoughMemoryError, match=r"knn needs about 1000 MiB .* for 10,000 rows and 8,192 features"):
        check_memory("knn", X, 10_000, 2)
    check_memory("dense", X, 10_000, 2)


def test_a_saved_head_that_was_made_up_is_refused(tmp_path, monkeypatch):
    X, y, _, _ = digits(3, 30)
    trained = head("knn", X, y, 3)
    votes = trained.model.layers[-1]
    kernel = votes.get_weights()[0]
    for made_up in (-kernel, 0 * kernel):
        votes.set_weights([made_up])
        save_model(trained.model, tmp_path / "knn.keras")
        with pytest.raises(FeatxError, match=r"knn\.keras"):
            read_head(tmp_path / "knn.keras")
