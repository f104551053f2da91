"""Measures against values worked out by hand or by another route than the code's."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from featx.errors import FeatxError
from featx.train.imbalance import accuracy_warnings, imbalance
from featx.train.metrics import (
    ReliabilityBin,
    class_metrics,
    commonest_class,
    confusion_matrix,
    measure,
    reliability,
    risk_coverage,
    wilson_interval,
)

TWO_CLASSES = ([0, 0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.35, 0.65], [0.8, 0.2]])


def noise(n, n_classes, skill, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), y] += skill
    return y, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_two_classes_by_hand():
    metrics = measure(*TWO_CLASSES)
    assert (metrics.n_samples, metrics.n_correct, metrics.accuracy) == (4, 3, 0.75)
    assert metrics.loss == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.65) + math.log(0.2)) / 4)
    assert metrics.roc_auc == pytest.approx(3 / 4)  # of the four pairs, 0.4 > 0.2 alone is the wrong way round
    assert metrics.macro_f1 == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (1 + 2)) / 2)
    # Four bins of one image each: 0.9, 0.6, 0.65 right and 0.8 wrong.
    assert metrics.calibration_error == pytest.approx((0.1 + 0.75 + 0.8) / 4)


def test_the_calibration_error_averages_within_a_bin_before_it_compares():
    # 0.61 and 0.65 share the bin (9/15, 10/15]; one is right: |1 - 1.26| / 2.
    assert measure([0, 1], [[0.61, 0.39], [0.65, 0.35]]).calibration_error == pytest.approx(0.13)


def test_a_confident_and_right_classifier_has_no_calibration_error():
    assert measure([0, 1, 2], np.eye(3)).calibration_error == 0


def test_many_classes_agree_with_the_definitions():
    y, rows = noise(500, 4, 1.0)
    metrics = measure(y, rows)
    assert metrics.loss == pytest.approx(-np.log(rows[np.arange(500), y]).mean())
    assert metrics.accuracy == (rows.argmax(axis=1) == y).mean()
    areas = [(rows[y == k, k][:, None] > rows[y != k, k]).mean() for k in range(4)]
    assert metrics.roc_auc == pytest.approx(np.mean(areas))
    matrix = np.array(confusion_matrix(y, rows.argmax(axis=1), 4))
    assert metrics.macro_f1 == pytest.approx(np.mean(2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))))


def test_a_certain_mistake_costs_a_finite_loss():
    assert measure([1, 0], [[1.0, 0.0], [1.0, 0.0]]).loss == pytest.approx(-math.log(np.finfo(np.float64).eps) / 2)


def test_float32_rows_are_good_enough():
    y, rows = noise(300, 30, 2.0)
    exact, rounded = measure(y, rows), measure(y, rows.astype(np.float32))
    assert rounded.loss == pytest.approx(exact.loss, rel=1e-5)
    assert rounded.n_correct == exact.n_correct


@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_auc_when_a_class_has_no_image(n_classes):
    metrics = measure([1, 1], np.full((2, n_classes), 1 / n_classes))
    assert metrics.roc_auc is None
    assert 0 <= metrics.macro_f1 <= 1


@pytest.mark.parametrize(
    ("y", "rows", "message"),
    [
        ([], np.zeros((0, 2)), "at least"),
        ([0], [[1.0]], "at least"),
        ([0], [0.5, 0.5], "shape"),
        ([0, 1], [[0.5, 0.5]], "one label"),
        ([0.0], [[0.5, 0.5]], "integers"),
        ([[0]], [[0.5, 0.5]], "integers"),
        ([2], [[0.5, 0.5]], "between 0 and 1"),
        ([-1], [[0.5, 0.5]], "between 0 and 1"),
        ([0, 1], [[0.5, 0.5], [math.nan, 0.5]], "1 of 2 rows"),
        ([0], [[math.inf, 0.5]], "NaN or infinity"),
        ([0], [[0.5, 0.498]], "sum to 1"),
        ([0], [[1.2, -0.2]], "negative"),
    ],
)
def test_what_is_no_probability_of_these_labels_is_refused(y, rows, message):
    with pytest.raises(FeatxError, match=message):
        measure(y, rows)


@pytest.mark.parametrize(
    ("k", "n", "confidence", "z"), [(81, 263, 0.95, 1.959964), (0, 20, 0.95, 1.959964), (5, 5, 0.9, 1.644854)]
)
def test_wilson_interval_is_wilsons_formula(k, n, confidence, z):
    middle = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    assert wilson_interval(k, n, confidence) == pytest.approx((middle - half, middle + half), abs=1e-6)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (0, 0), (-1, 3), (4, 3)])
def test_an_impossible_proportion_is_refused(k, n):
    with pytest.raises(FeatxError, match="at least one sample"):
        wilson_interval(k, n)


def test_reliability_bins_have_about_as_many_images_each_and_an_interval():
    rng = np.random.default_rng(0)
    confidence = 1 - 0.5 * rng.random(1000) ** 3  # most are very confident
    y = (rng.random(1000) < confidence).astype(int)
    bins = reliability(y, np.stack([1 - confidence, confidence], axis=1))
    assert [one.n_samples for one in bins] == [100] * 10
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    for one in bins:
        n_correct = round(one.accuracy * one.n_samples)
        assert (one.accuracy_low, one.accuracy_high) == wilson_interval(n_correct, one.n_samples)
    assert sum(one.accuracy_low <= one.confidence <= one.accuracy_high for one in bins) >= 8  # it is calibrated


def test_few_images_make_few_bins_and_equal_confidences_share_one():
    y, rows = np.array([0, 1] * 15), np.tile([0.8, 0.2], (30, 1))
    assert reliability(y, rows) == (ReliabilityBin(30, pytest.approx(0.8), 0.5, *wilson_interval(15, 30)),)
    rows[:15] = [0.6, 0.4]
    assert sum(one.n_samples for one in reliability(np.tile(y, 7), np.tile(rows, (7, 1)))) == 210
    assert len(reliability(np.tile(y, 7), np.tile(rows, (7, 1)))) == 2


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    matrix = confusion_matrix([0, 0, 0, 2], [0, 1, 1, 2], 3)
    assert list(matrix) == [(1, 2, 0), (0, 0, 0), (0, 0, 1)]
    assert matrix.n_true.tolist() == [3, 0, 1]
    assert matrix.n_predicted.tolist() == [1, 2, 1]
    assert matrix.n_right.tolist() == [1, 0, 1]
    assert list(confusion_matrix([], [], 2)) == [(0, 0), (0, 0)]
    for y, predicted in (([0], [0, 1]), ([0], [3])):
        with pytest.raises(FeatxError, match="length|between"):
            confusion_matrix(y, predicted, 3)


def test_of_classes_without_an_image_only_those_that_are_predicted_count():
    sure = np.eye(3)
    y = [0, 0, 0, 1]
    without = measure(y, sure[[0, 0, 1, 1]])
    assert without.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)  # of the two classes that are there
    assert measure(y, sure[[0, 0, 2, 1]]).macro_f1 == pytest.approx(
        (0.8 + 1 + 0) / 3
    )  # what is never right counts as 0
    assert without.roc_auc is None


def test_the_commonest_class_and_what_is_clearly_better():
    assert commonest_class([2, 0, 2]) == (2, pytest.approx(2 / 3))
    assert commonest_class(np.array([1, 0])) == (0, 0.5)
    metrics = measure([0] * 20 + [1], np.eye(2)[[0] * 21])
    assert not metrics.is_above(commonest_class([0] * 20 + [1])[1])
    assert metrics.is_above(0.5)


# Classes of which some are rare


def unbalanced(n_of_class, skill=1.0, seed=0):
    """Labels of which each class has so many, and probabilities with ties."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(n_of_class)), n_of_class))
    logits = rng.normal(size=(len(y), len(n_of_class)))
    logits[np.arange(len(y)), y] += skill
    rows = np.round(np.exp(logits), 1) + 0.1
    return y, rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_of_class", [(40, 7), (7, 40), (30, 30), (60, 5, 1, 20), (2,) * 70])
def test_rare_classes_are_measured_as_scikit_learn_does(n_of_class):
    y, rows = unbalanced(n_of_class)
    metrics = measure(y, rows)
    rows = rows / rows.sum(axis=1, keepdims=True)  # as `measure` does: it rounds, and what was tied may not be
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(y, rows.argmax(axis=1)))
    one_hot = np.eye(len(n_of_class))[y]
    if len(n_of_class) == 2:
        rarer = int(n_of_class[1] <= n_of_class[0])
        expected = average_precision_score(y == rarer, rows[:, rarer])
        assert metrics.roc_auc == pytest.approx(roc_auc_score(y, rows[:, 1]))
    else:
        expected = average_precision_score(one_hot, rows)
        assert metrics.roc_auc == pytest.approx(roc_auc_score(y, rows, multi_class="ovr"))
    assert metrics.pr_auc == pytest.approx(expected)


def test_rare_classes_by_hand():
    y, rows = TWO_CLASSES
    metrics = measure(y, rows)
    assert metrics.balanced_accuracy == pytest.approx((2 / 2 + 1 / 2) / 2)
    # Of class 1, 0.65 is the first and 0.2 the third: 1 of 1, then 2 of 3.
    assert metrics.pr_auc == pytest.approx((1 + 2 / 3) / 2)


def test_always_answering_the_common_class_is_half_right_when_balanced():
    y = [0] * 98 + [1] * 2
    metrics = measure(y, np.eye(2)[[0] * 100] * 0.8 + 0.1)
    assert (metrics.accuracy, metrics.balanced_accuracy) == (0.98, 0.5)
    assert metrics.pr_auc == pytest.approx(0.02)  # all are as probable: what chance gives


def test_of_a_class_without_an_image_nothing_is_known():
    sure = np.eye(3)
    metrics = measure([0, 0, 1], sure[[0, 2, 1]])
    assert metrics.balanced_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.pr_auc == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert measure([0, 0], np.full((2, 2), 0.5)).pr_auc is None


def test_the_order_of_memory_makes_no_difference():
    y, rows = unbalanced((40, 7, 20))
    assert measure(y, np.asfortranarray(rows)) == measure(y, rows)


def test_each_class_has_its_precision_and_recall_with_wilsons_interval():
    y, rows = unbalanced((60, 5, 1, 20))
    y, predicted = np.append(y, 0), np.append(rows.argmax(axis=1), 0)
    confusion = confusion_matrix(y, predicted, 5)  # the last class has neither images nor predictions
    precision, recall, f1, n = precision_recall_fscore_support(y, predicted, labels=np.arange(5), zero_division=0.0)
    for label, one in enumerate(class_metrics(confusion)):
        n_right, n_predicted = int(((y == label) & (predicted == label)).sum()), int((predicted == label).sum())
        assert (one.n_samples, one.n_predicted, one.n_correct) == (n[label], n_predicted, n_right)
        assert one.f1 == pytest.approx(f1[label])
        if n_predicted:
            assert one.precision == pytest.approx(precision[label])
            assert (one.precision_low, one.precision_high) == wilson_interval(n_right, n_predicted)
        if n[label]:
            assert one.recall == pytest.approx(recall[label])
            assert (one.recall_low, one.recall_high) == wilson_interval(n_right, n[label])
    nothing = class_metrics(confusion)[4]
    assert (nothing.precision, nothing.precision_low, nothing.recall, nothing.recall_high) == (None,) * 4


# Whether accuracy says anything


def dataset_of(*n_of_class):
    """A data set as far as warnings look at it."""
    names = ("cats", "dogs", "owls")[: len(n_of_class)]
    return SimpleNamespace(class_names=names, class_counts=(None, np.array(n_of_class)))


def metrics_of(*right, n_of_class):
    """The metrics of a classifier that gets so many images of each class right."""
    y = np.repeat(np.arange(len(n_of_class)), n_of_class)
    predicted = np.concatenate(
        [
            np.where(np.arange(n) < k, label, not label)
            for label, (k, n) in enumerate(zip(right, n_of_class, strict=True))
        ]
    )
    return measure(y, np.eye(len(n_of_class))[predicted.astype(int)])


@pytest.mark.parametrize(
    ("right", "n_of_class", "is_misleading"),
    [
        ((1000, 0), (1000, 20), True),  # what always answering the first class gets
        ((995, 10), (1000, 20), True),  # half of the rare class is missed
        ((998, 19), (1000, 20), False),
        ((1000, 450), (1000, 500), False),
        ((1000, 20), (1000, 500), True),  # not clearly better than one answer
        ((1000, 300), (1000, 500), False),  # balanced accuracy is much lower, but every reader sees why
        ((250, 255), (500, 500), False),  # it has learned nothing, which is no fault of the measure
    ],
)
def test_accuracy_is_called_misleading_if_the_commonest_class_explains_it(right, n_of_class, is_misleading):
    metrics = metrics_of(*right, n_of_class=n_of_class)
    found = accuracy_warnings(dataset_of(*n_of_class), {"dense": metrics}, is_weighted=False)
    assert len(found) == is_misleading


def test_the_warning_says_what_to_look_at_and_what_to_do():
    n_of_class = (1000, 20)
    measured = {name: metrics_of(995, 10, n_of_class=n_of_class) for name in ("dense", "logreg")}
    measured["svm"] = metrics_of(998, 19, n_of_class=n_of_class)
    [warning] = accuracy_warnings(dataset_of(*n_of_class), measured, is_weighted=False)
    assert warning == (
        "Accuracy is misleading here: cats has 50 times as many test images as dogs, and always answering cats gets "
        "98.0 % right. Look at the balanced accuracy, the mean over the classes: dense 74.8 % (accuracy 98.5 %), "
        "logreg 74.8 % (accuracy 98.5 %). --class-weights balanced makes images of rare classes count more."
    )
    [weighted] = accuracy_warnings(dataset_of(*n_of_class), measured, is_weighted=True)
    assert weighted == warning.split(" --class-weights")[0]
    many = {str(number): measured["dense"] for number in range(6)}
    assert "3 74.8 % (accuracy 98.5 %), and 2 others." in accuracy_warnings(
        dataset_of(*n_of_class), many, is_weighted=True
    )[0]  # fmt: skip


def test_classes_without_a_test_image_do_not_count():
    assert imbalance([30, 0, 10]) == 3
    metrics = measure([0] * 50, np.eye(3)[[0] * 50])
    assert accuracy_warnings(dataset_of(50, 0, 0), {"dense": metrics}, is_weighted=False) == ()


def test_the_risk_coverage_curve_begins_with_the_surest_answers():
    points = risk_coverage(np.linspace(1, 0.5, 1000), np.arange(1000) < 600)
    assert len(points) == 100
    assert [point.coverage for point in points[::33]] == pytest.approx([0.01, 0.34, 0.67, 1.0])
    assert [point.error for point in points[::33]] == pytest.approx([0, 0, 70 / 670, 0.4])


def test_equally_sure_answers_come_together():
    """Whichever of them come first, a part of them is wrong as often as all."""
    order = np.random.default_rng(0).permutation(200)
    confidence, correct = np.repeat([0.9, 0.6], 100)[order], (np.arange(200) % 100 >= 20)[order]
    points = risk_coverage(confidence, correct)
    assert [point.error for point in points] == pytest.approx([0.2] * 100)
    assert len(risk_coverage(confidence[:3], correct[:3])) == 3
