"""What the surest mistakes of an approach rest on."""

import numpy as np
import pytest

from featx.compare.mistakes import MAX_SIDE, N_MISTAKES, N_NEAREST, SurestMistakes, _coarse, explain_mistakes
from featx.extract import resolve_recipe
from featx.heads.training_loop import Training
from featx.system import Timings
from featx.train.features import Features
from featx.train.reference import Reference
from featx.train.train import train_on_features
from tests.compare.test_error_analysis import dataset_of
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """60 training and 40 test images whose class is told by position (0, 1); test image 70 has a wrong label."""
    dataset = dataset_of(60, 40)
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(0, 1, (100, 2, 2, 8)))
    shown = dataset.labels.copy()
    shown[70] = 1 - shown[70]
    X[:, 0, 1] += 4 * np.eye(8)[shown]
    recipe, _ = resolve_recipe(tmp_path_factory.mktemp("mistakes"), None, **SMALL)
    return Features(dataset, recipe, X.astype(np.float16), Timings())


def test_the_surest_are_wrong_and_in_order():
    rng = np.random.default_rng(0)
    probabilities, y = rng.dirichlet([1, 1, 1], 200), rng.integers(0, 3, 200)
    found = SurestMistakes.of(probabilities, y)
    assert len(found.rows) == N_MISTAKES
    assert (found.labels != y[found.rows]).all()
    assert (np.diff(found.probabilities) <= 0).all()
    wrong = probabilities.argmax(axis=1) != y
    assert found.probabilities[0] == probabilities[wrong].max()
    assert len(SurestMistakes.of(np.eye(3), np.arange(3)).rows) == 0


def test_the_most_certain_wrong_answer_about_a_label_counts():
    probabilities = np.array([[0.9, 0.2, 0.6], [0.1, 0.8, 0.3], [0.9, 0.1, 0.1]])
    y = np.array([[False, False, True], [True, True, False], [True, False, False]])
    found = SurestMistakes.of(probabilities, y)
    assert found.rows.tolist() == [0, 1]
    assert found.labels.tolist() == [0, 0]
    assert found.probabilities == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize("head", ["logreg", "knn"])
def test_a_wrong_label_has_its_reasons(features, head):
    """The image looks like the other class, in the position that tells it, and so do the training images nearest it."""
    result = train_on_features(features, head, Training())
    reasons = explain_mistakes(features, result, Reference.of(features))
    path = features.dataset.paths[70]
    looks_like = "ba"[features.dataset.labels[70]]
    found = reasons[path]
    assert [near.label for near in found.nearest] == [looks_like] * N_NEAREST
    if head == "knn":
        assert found.heat_map is None
    else:
        assert found.heat_map.label == looks_like
        assert np.argmax(found.heat_map.map) == 1, "position (0, 1)"


def test_a_head_without_mistakes_has_none(features):
    without = features.subset(np.arange(100) != 70)
    result = train_on_features(without, "logreg", Training())
    assert result.metrics.accuracy == 1
    assert explain_mistakes(without, result, Reference.of(without)) == {}


def test_many_positions_are_added_up_to_few():
    evidence = np.random.default_rng(0).normal(0, 1, (112, 30))
    coarse = _coarse(evidence)
    assert coarse.shape == (28, 15)
    assert max(coarse.shape) <= MAX_SIDE
    assert coarse[0, 0] == pytest.approx(evidence[:4, :2].sum())
    np.testing.assert_array_equal(_coarse(evidence[:7, :7]), evidence[:7, :7])
