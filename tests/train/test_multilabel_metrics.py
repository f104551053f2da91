"""Measures of several labels for each image, against scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from featx.errors import FeatxError
from featx.train.metrics import measure, reliability
from featx.train.multilabel_metrics import average_precisions, commonest_labels

warnings.filterwarnings("ignore", module="sklearn")


def answers(n=400, shares=(0.5, 0.1, 0.9, 0.3), seed=0, decimals=12):
    """Labels, and probabilities that have something to do with them; few decimals make many of them equal."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, len(shares))) < np.array(shares)
    logits = rng.normal(0, 1.2, y.shape) + np.where(y, 1.0, -1.0)
    return y, np.round(1 / (1 + np.exp(-logits)), decimals)


@pytest.mark.parametrize("decimals", [12, 2, 1])
def test_every_measure_is_scikit_learns(decimals):
    y, p = answers(decimals=decimals)
    metrics = measure(y, p)
    several, predicted = metrics.multilabel, p > 0.5
    assert metrics.accuracy == pytest.approx(accuracy_score(y, predicted))
    assert metrics.macro_f1 == pytest.approx(f1_score(y, predicted, average="macro"))
    assert metrics.roc_auc == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert several.mean_average_precision == pytest.approx(average_precision_score(y, p, average="macro"))
    eps = np.finfo(float).eps
    losses = [log_loss(y[:, k], np.clip(p[:, k], eps, 1 - eps)) for k in range(4)]
    assert metrics.loss == pytest.approx(np.mean(losses))
    for k, label in enumerate(several.labels):
        assert label.average_precision == pytest.approx(average_precision_score(y[:, k], p[:, k]))
        assert label.roc_auc == pytest.approx(roc_auc_score(y[:, k], p[:, k]))
        assert label.f1 == pytest.approx(f1_score(y[:, k], predicted[:, k]))
        assert label.precision == pytest.approx(precision_score(y[:, k], predicted[:, k]))
        assert label.recall == pytest.approx(recall_score(y[:, k], predicted[:, k]))
        assert (label.n_true, label.n_predicted) == (y[:, k].sum(), predicted[:, k].sum())
        assert label.n_right == (y[:, k] & predicted[:, k]).sum()


def test_the_interval_of_the_mean_average_precision_is_the_bootstraps():
    """Against resampling row by row with scikit-learn, which takes a thousand times as long."""
    y, p = answers(n=150, shares=(0.4, 0.2))
    several = measure(y, p).multilabel
    rng = np.random.default_rng(5)
    rows = (rng.integers(len(y), size=len(y)) for _ in range(600))
    means = [average_precision_score(y[some], p[some], average="macro") for some in rows]
    low, high = np.quantile(means, [0.025, 0.975])
    assert several.mean_average_precision_low == pytest.approx(low, abs=0.02)
    assert several.mean_average_precision_high == pytest.approx(high, abs=0.02)


def test_the_interval_has_the_true_value_in_about_19_of_20_samples():
    y, p = answers(n=60_000, shares=(0.4, 0.2))
    truth = average_precisions(y, p).mean()
    inside = 0
    for part in range(100):
        some = slice(300 * part, 300 * (part + 1))
        several = measure(y[some], p[some]).multilabel
        inside += several.mean_average_precision_low <= truth <= several.mean_average_precision_high
    assert 87 <= inside <= 100


def test_a_label_that_no_test_image_has_is_left_out_of_the_means():
    y, p = answers(shares=(0.5, 0.0, 0.3))
    metrics = measure(y, p)
    empty = metrics.multilabel.labels[1]
    assert (empty.recall, empty.average_precision, empty.roc_auc, empty.f1) == (None, None, None, 0.0)
    assert metrics.multilabel.mean_average_precision == pytest.approx(
        average_precision_score(y[:, [0, 2]], p[:, [0, 2]], average="macro")
    )
    assert metrics.roc_auc == pytest.approx(roc_auc_score(y[:, [0, 2]], p[:, [0, 2]], average="macro"))
    none = measure(np.zeros((4, 2), bool), np.full((4, 2), 0.2))
    assert (none.accuracy, none.roc_auc, none.multilabel.mean_average_precision) == (1.0, None, None)


def test_the_same_answer_for_all_images_is_the_baseline():
    y = np.array([[1, 1, 0]] * 6 + [[1, 0, 0]] * 3 + [[0, 0, 1]], bool)
    assert commonest_labels(y) == ((0, 1), 0.6)
    several = measure(y, np.tile(y.mean(axis=0), (10, 1))).multilabel
    assert several.mean_average_precision == pytest.approx(several.mean_prevalence)
    assert (several.commonest, several.commonest_share) == ((0, 1), 0.6)


def test_calibrated_answers_are_called_calibrated():
    rng = np.random.default_rng(0)
    p = rng.random((20_000, 2))
    y = rng.random(p.shape) < p
    assert measure(y, p).calibration_error < 0.01
    assert measure(y, p**3).calibration_error > 0.05
    for one in reliability(y, p):
        assert one.accuracy == pytest.approx(one.confidence, abs=0.03)


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        (np.ones((2, 2), bool), [[0.5, 1.5], [0, 0]], "from 0 to 1"),
        (np.ones((2, 2), bool), [[0.5, np.nan], [0, 0]], "from 0 to 1"),
        (np.ones((2, 2), bool), [[0.5], [0.1]], "a probability each"),
        (np.ones((0, 2), bool), np.ones((0, 2)), "a probability each"),
    ],
)
def test_what_is_no_probability_is_refused(y, p, message):
    with pytest.raises(FeatxError, match=message):
        measure(y, p)
