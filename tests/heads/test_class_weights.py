"""Class weights: read from anywhere, and the same as rows that are there several times."""
# ruff: noqa: N806 - X, Z and C are what scikit-learn calls them

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from featx.errors import FeatxError
from featx.heads import logistic
from featx.heads.class_weights import as_class_weights, check_class_weights, weigh_classes, weights_text
from featx.heads.dense import TrainingSet
from featx.heads.logistic import Scaled, fit_logreg, folds_of
from featx.heads.registry import train_head
from featx.heads.streamed_logistic import Objective, _loss
from featx.heads.training_loop import Samples, Training, _validated, fit, predict_proba, split
from featx.system.late_imports import import_keras
from tests.heads.test_streamed_logistic import digests_of, stored

CLASSES = ("cats", "dogs")


def digits(n_classes, n):
    """Digits as features of shape (8, 8, 1) float16, a tenth as many of the last class as of the others."""
    data = load_digits()
    rows = np.flatnonzero(data.target < n_classes)[:n]
    last = rows[data.target[rows] == n_classes - 1]
    rows = np.setdiff1d(rows, last[max(6, len(last) // 10) :])
    return data.images[rows, :, :, None].astype(np.float16), data.target[rows].astype(np.int64)


def twice(y, label):
    """The rows of `y`, those of the class `label` twice."""
    return np.sort(np.concatenate([np.arange(len(y)), np.flatnonzero(y == label)]))


# As they are given


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.csv", "class,weight\ncats,1\ndogs,50\n"),
        ("w.csv", '\ufefflabel;weight\r\ncats;1\r\n\r\n"dogs"; 50\r\n'),
        ("w.tsv", "cats\t1\ndogs\t5e1"),
        ("w.json", '{"cats": 1, "dogs": 50.0}'),
    ],
)
def test_a_file_says_what_a_mapping_says(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    expected = {"cats": 1.0, "dogs": 50.0}
    assert as_class_weights(tmp_path / name) == as_class_weights(str(tmp_path / name)) == expected
    assert Training(class_weights=tmp_path / name) == Training(class_weights={"cats": 1, "dogs": np.float32(50)})
    assert Training(class_weights="balanced").class_weights == "balanced"
    assert Training().class_weights is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.csv", "cats,1\ndogs,-3\n", r"Line 2 of w.csv: the weight of dogs must be a number above 0. Received: -3.0"),
        ("w.csv", "cats,0\ndogs,0\n", "Line 1 of w.csv: the weight of cats must be a number above 0"),
        ("w.csv", "cats,nan\ndogs,1\n", "must be a number above 0. Received: nan"),
        ("w.csv", "cats,1\ndogs,inf\n", "must be a number above 0. Received: inf"),
        ("w.csv", "cats,1\ndogs,much\n", "the weight of dogs must be a number above 0. Received: 'much'"),
        ("w.csv", "cats,1\ndogs\n", "Line 2 of w.csv must be a class and its weight, such as dogs,50"),
        ("w.csv", "cats,1\ncats,2\n", "Line 2 of w.csv is a second weight for cats"),
        ("w.csv", 'cats,1\n"dogs,2\n', "Line 2 of w.csv cannot be read"),
        ("w.csv", "class,weight\n", "w.csv is empty"),
        ("w.csv", b"caf\xe9,1\n", "not UTF-8"),
        ("w.json", '{"cats": 1, "cats": 2}', "cats occurs twice"),
        ("w.json", '{"cats": true, "dogs": 1}', "the weight of cats must be a number above 0. Received: True"),
        ("w.json", '{"cats": 1' + 400 * "0" + ', "dogs": 1}', "the weight of cats must be a number above 0"),
        ("w.json", "[1, 2]", "must contain a JSON object"),
        ("w.json", "{", "not a valid JSON file"),
    ],
)
def test_wrong_weights_are_refused_with_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FeatxError, match=message):
        Training(class_weights=tmp_path / name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("balancd", "cannot be read: No such file .* Name a CSV or JSON file .* Did you mean balanced"),
        ("missing.json", "The file of class weights missing.json cannot be read: No such file"),
        (7, 'Class weights are "balanced", a file, or a number for each class'),
        ({"cats": "1", "dogs": 1}, "The weight of cats must be a number above 0. Received: '1'"),
    ],
)
def test_what_are_no_weights_is_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FeatxError, match=message):
        Training(class_weights=given)


def test_every_class_needs_a_weight_and_no_other():
    check_class_weights({"cats": 1, "dogs": 2}, CLASSES)
    check_class_weights("balanced", CLASSES)
    with pytest.raises(FeatxError, match=r"name dog, but the images have the classes cats, dogs. Did you mean dogs\?"):
        check_class_weights({"cats": 1, "dog": 2}, CLASSES)
    with pytest.raises(FeatxError, match="lack dogs: give a weight for each class, or use balanced"):
        check_class_weights({"cats": 1}, CLASSES)


def test_balanced_is_scikit_learns():
    y = np.repeat(np.arange(4), [500, 3, 20, 1])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y)
    np.testing.assert_allclose(weigh_classes("balanced", y, list("abcd")), expected, rtol=1e-12)


def test_only_ratios_matter_and_the_mean_over_the_images_is_one():
    y = np.repeat(np.arange(2), [50, 10])
    for factor in (1.0, 1e300, 1e-300):
        weights = weigh_classes({"cats": factor, "dogs": 5 * factor}, y, CLASSES)
        np.testing.assert_allclose(weights, [0.6, 3.0])
        assert weights[y].mean() == pytest.approx(1)
    assert weigh_classes(None, y, CLASSES) is None
    assert weights_text(weights) == "0.6, 3"


# In training


def network(outputs, seed=0):
    keras = import_keras()
    glorot = keras.initializers.GlorotUniform(seed)
    features = keras.Input((8, 8, 1))
    activation = "sigmoid" if outputs == 1 else "softmax"
    flat = keras.layers.Flatten()(features)
    return keras.Model(features, keras.layers.Dense(outputs, activation, kernel_initializer=glorot)(flat))


def step(X, y, outputs, n_classes, class_weights=None):
    """Return the loss and how much each weight changes in a step of gradient descent on all rows: the gradient."""
    model = network(outputs)
    before = model.get_weights()
    train = Samples(X, y, np.arange(len(y)), class_weights)
    optimizer = import_keras().optimizers.SGD(1e-3)
    options = {"n_classes": n_classes, "batch_size": len(y), "optimizer": optimizer}
    trained = fit(model, train, train, Training(epochs=1), **options)
    changes = [new - old for new, old in zip(model.get_weights(), before, strict=True)]
    return trained.history[0], changes


@pytest.mark.parametrize(("outputs", "n_classes"), [(1, 2), (2, 2), (3, 3)])
def test_a_weight_of_two_is_the_same_loss_and_gradient_as_rows_that_are_there_twice(outputs, n_classes):
    X, y = digits(n_classes, 200)
    label = n_classes - 1
    rows, weights = twice(y, label), np.where(np.arange(n_classes) == label, 2.0, 1.0)
    weighted, gradient = step(X, y, outputs, n_classes, 10 * weights)
    repeated, expected = step(X[rows], y[rows], outputs, n_classes)
    plain, other = step(X, y, outputs, n_classes)
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-5)
    assert weighted.val_loss == pytest.approx(repeated.val_loss, rel=1e-5)
    assert abs(plain.loss - repeated.loss) > 0.01 * repeated.loss
    for ours, theirs, unweighted in zip(gradient, expected, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
        assert np.abs(unweighted - theirs).max() > 0.01 * np.abs(theirs).max()


def test_views_of_an_image_count_as_much_as_it_does():
    X, y = digits(2, 200)
    n, weights = len(y), np.array([1.0, 9.0])
    rows = np.stack([np.arange(n), n + np.arange(n)], axis=1)
    viewed = Samples(np.concatenate([X, X]), np.concatenate([y, y]), rows, weights)
    losses = []
    for train in (Samples(X, y, np.arange(n), weights), viewed):
        trained = fit(
            network(1), train, Samples(X, y, np.arange(n), weights), Training(epochs=1), n_classes=2, batch_size=n
        )
        losses.append((trained.history[0].loss, trained.history[0].val_loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_validation_loss_that_stops_training_is_weighted():
    X, y = digits(2, 200)
    model = network(1)
    weights, is_validation = np.array([1.0, 9.0]), np.arange(len(y)) % 2 == 0
    _, validation = split(X, y, is_validation, class_weights=weights)
    loss, accuracy = _validated(model, validation)
    p = predict_proba(model, X[is_validation])
    losses = -np.log(p[np.arange(len(p)), y[is_validation]])
    assert loss == pytest.approx(np.average(losses, weights=weights[y[is_validation]]), rel=1e-6)
    assert accuracy == (p.argmax(axis=1) == y[is_validation]).mean()


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("shape", ["more rows than features", "fewer rows than features"])
def test_a_weight_of_two_is_the_same_logistic_regression_as_rows_that_are_there_twice(n_classes, shape, monkeypatch):
    monkeypatch.setattr(logistic, "CV_TOLERANCE", 1e-5)  # else, either may stop sooner, and another C be the best
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-5)
    X, y = digits(n_classes, 300)
    if shape == "fewer rows than features":
        X = np.concatenate([X, np.sqrt(X), X**2 / 16] * 5, axis=3)
    X = X + np.random.default_rng(0).normal(0, 12, X.shape).astype(np.float16)  # so that not all can be right
    label = n_classes - 1
    rows, weights = twice(y, label), np.where(np.arange(n_classes) == label, 2.0, 1.0)
    digests = digests_of(X)
    flat = X.reshape(len(X), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    scaled = Scaled(X, mean, float(1 / np.sqrt(((flat - mean) ** 2).mean())))
    assert len(rows) <= flat.shape[1] // 2 or shape == "more rows than features"

    def fitted(chosen, class_weights):
        of_rows = replace(scaled, X=X[chosen])
        folds = folds_of(y[chosen], digests[chosen], n_classes, 0)
        return fit_logreg(of_rows, y[chosen], folds, len(chosen), lambda _note: None, class_weights)

    weighted, repeated = fitted(np.arange(len(y)), weights), fitted(rows, None)
    assert weighted.details["C"] == repeated.details["C"]
    scale = np.abs(repeated.coef).max()
    np.testing.assert_allclose(weighted.coef, repeated.coef, rtol=0, atol=1e-3 * scale)
    plain = fitted(np.arange(len(y)), None)
    assert np.abs(plain.bias - repeated.bias).max() > 5 * np.abs(weighted.bias - repeated.bias).max()


def test_c_is_chosen_by_the_weighted_loss(monkeypatch):
    """On this noise, the loss without weights would choose the next larger C."""
    monkeypatch.setattr(logistic, "CV_TOLERANCE", 1e-5)
    rng = np.random.default_rng(0)
    y = (np.arange(240) % 12 == 0).astype(np.int64)
    X = rng.normal(size=(240, 12)).astype(np.float32) + 0.7 * y[:, np.newaxis] * (np.arange(12) < 3)
    folds = folds_of(y, rng.integers(0, 256, (240, 32), np.uint8), 2, 0)
    rows = np.concatenate([np.arange(240), *[np.flatnonzero(y == 1)] * 10])
    chosen = [
        fit_logreg(Scaled(X[some], X.mean(axis=0), 1.0), y[some], folds[some], len(some), lambda _note: None, weights)
        for some, weights in ((np.arange(240), np.array([1.0, 11.0])), (rows, None))
    ]
    assert [one.details["C"] * 12 for one in chosen] == pytest.approx([10**-0.5] * 2)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_rows_on_disk_are_weighted_as_rows_in_memory(n_classes, tmp_path):
    X, y = digits(n_classes, 500)
    weights = weigh_classes("balanced", y, list("abcd")[:n_classes])
    digests = digests_of(X)

    def head(rows, class_weights):
        images = TrainingSet(rows, y, digests, np.arange(len(y)) % 5 == 0, n_classes, class_weights=class_weights)
        return train_head("logreg", images, Training())

    exact, streamed, plain = head(X, weights), head(stored(tmp_path, X), weights), head(X, None)
    assert streamed.details["solver"] == "streaming"
    assert streamed.details["C"] == exact.details["C"]
    assert streamed.details["class_weights"] == exact.details["class_weights"] == weights_text(weights)
    ours, theirs, unweighted = (predict_proba(one.model, X) for one in (streamed, exact, plain))
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert unweighted[:, -1].mean() < theirs[:, -1].mean()
    flat = X.reshape(len(X), -1).astype(np.float64)
    Z = (flat - flat.mean(axis=0)) * exact.details["feature_scale"]
    options = {"C": exact.details["C"], "tol": 1e-6, "max_iter": 5000}
    reference = LogisticRegression(class_weight="balanced", **options).fit(Z, y).predict_proba(Z)
    np.testing.assert_allclose(theirs, reference, atol=5e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_the_loss_of_weighted_rows_on_disk_is_that_of_repeated_rows(k):
    rng = np.random.default_rng(0)
    y = rng.integers(max(k, 2), size=50)
    logits = rng.normal(size=(50, k))
    rows, weights = twice(y, 1), np.where(np.arange(max(k, 2)) == 1, 2.0, 1.0)
    loss, residuals = _loss(logits, y, weights)
    repeated, of_repeated = _loss(logits[rows], y[rows], None)
    assert loss == pytest.approx(repeated)
    np.testing.assert_allclose(residuals.sum(axis=0), of_repeated.sum(axis=0))
    assert Objective.__dataclass_fields__["class_weights"].default is None


@pytest.mark.parametrize("name", ["dense", "logreg"])
def test_equal_weights_change_nothing_and_larger_ones_find_more_of_the_rare_class(name):
    """With noise that hides the rare class: without weights, hardly any of its images are found."""
    rng = np.random.default_rng(0)
    y = (np.arange(1000) % 20 == 0).astype(np.int64)
    X = rng.normal(size=(1000, 8)).astype(np.float16) + y[:, None].astype(np.float16) * np.float16(0.5)

    def found(class_weights):
        images = TrainingSet(X, y, digests_of(X), np.arange(1000) % 3 == 0, 2, class_weights=class_weights)
        return predict_proba(train_head(name, images, Training(epochs=15)).model, X)

    plain, equal, balanced = found(None), found(np.array([7.0, 7.0]) / 7), found(weigh_classes("balanced", y, CLASSES))
    np.testing.assert_allclose(plain, equal, atol=1e-4)
    recalls = [(p.argmax(axis=1) == 1)[y == 1].mean() for p in (plain, balanced)]
    assert recalls[0] < 0.4 < 0.6 < recalls[1]
    # With the rare class as common as the other, its probability is higher by about the ratio of the weights.
    assert balanced[:, 1].mean() > 3 * plain[:, 1].mean()


def test_the_json_of_weights_round_trips(tmp_path):
    weights = {"cats": 0.51, "dogs": 25.5}
    (tmp_path / "weights.json").write_text(json.dumps(weights))
    assert Training(class_weights=tmp_path / "weights.json").class_weights == weights
