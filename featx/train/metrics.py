"""Measures of a classifier's probabilities on images that it has never seen."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import fmean
from typing import Self

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.heads import THRESHOLD, Targets, Trained, is_right, predict_proba, probability_of_truth
from featx.store import ViewRows, one_view
from featx.system import peak_memory_bytes
from featx.train.multilabel_metrics import MultilabelMetrics, checked_labels

#: Equal-width confidence bins of the calibration error, as in Guo et al. (2017).
N_CALIBRATION_BINS = 15

#: Bins of the reliability diagram: at most so many, each with at least so many images if there are enough.
MAX_RELIABILITY_BINS, MIN_IN_RELIABILITY_BIN = 10, 20

#: How far a row of probabilities may be from a sum of 1: float32 rounding, not a missing softmax.
SUM_TOLERANCE = 1e-3

#: Classes whose images are ranked at a time, by all their probabilities.
_CLASSES_TOGETHER = 64


@dataclass(frozen=True)
class Metrics:
    """How well probabilities fit the true classes of `n_samples` images.

    Attributes:
        n_samples: number of images.
        n_correct: number of images whose most probable class is the true one; if images can have several labels, whose
            labels are all right. The accuracy is then the subset accuracy.
        accuracy: `n_correct / n_samples`.
        accuracy_low: lower end of the 95 % Wilson interval of the accuracy.
        accuracy_high: upper end of it.
        loss: mean cross-entropy in nats, probabilities clipped at float64's epsilon (2.2e-16), so that one
            certain mistake costs at most 36 nats and not infinity. With several labels, the mean over these, too.
        roc_auc: area under the ROC curve, of class 1 for two classes, else the unweighted mean of one-vs-rest;
            `None`, not defined, if a class has no image. With several labels, the mean of those for which it is
            defined.
        macro_f1: unweighted mean of the classes' F1, over the classes that have an image or a prediction; one that has
            only predictions counts as 0.
        calibration_error: expected calibration error of the most probable class, from 0 to 1; see `calibration_error`.
            With several labels, of all answers about a label.
        balanced_accuracy: unweighted mean of the recalls of the classes that have an image: the accuracy if every class
            had as many. `None` in results of an older featx, and with several labels.
        pr_auc: average precision, the area under the precision-recall curve as a step function. For two classes, it is
            that of the rarer one, or of class 1 if both have as many images: to find these is what is hard. Else, it is
            the unweighted mean of one-vs-rest, over the classes that have an image. By chance it is the share of the
            class, or the mean of the shares. `None` if the rarer class has no image, and in results of an older featx.
            With several labels, it is the mean average precision.
        multilabel: what there is to measure only if images can have several labels; None if they have one class each.
    """

    n_samples: int
    n_correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    roc_auc: float | None
    macro_f1: float
    calibration_error: float
    balanced_accuracy: float | None = None
    pr_auc: float | None = None
    multilabel: MultilabelMetrics | None = None

    def is_above(self, accuracy: float) -> bool:
        """Return whether the classifier is clearly better than this accuracy: its whole 95 % interval is above it."""
        return self.accuracy_low > accuracy


@dataclass(frozen=True, kw_only=True)
class Result(Trained):
    """A trained model and what it achieved on the test split.

    Attributes:
        probabilities: `(n_test, n_classes)` float64, in the order of the data set's test images.
        metrics: measured on the test split.
        peak_memory_bytes: largest resident memory of the process while the model was trained.
    """

    probabilities: npt.NDArray[np.float64]
    metrics: Metrics
    peak_memory_bytes: int

    def __repr__(self) -> str:
        return f"<Result of {self.name}: {self.metrics.accuracy:.1%} of {self.metrics.n_samples:,} test images>"

    @classmethod
    def of(cls, trained: Trained, probabilities: npt.NDArray[np.float64], y_test: Targets) -> Self:
        """Return what `trained` achieves with these probabilities of the test images, whose labels are `y_test`."""
        metrics = measure(y_test, probabilities)
        peak = peak_memory_bytes()
        return cls(**vars(trained), probabilities=probabilities, metrics=metrics, peak_memory_bytes=peak)

    def averaged_over(self, views: ViewRows, y_test: Targets) -> Self:
        """Return the same head with its probabilities averaged over each test image and its views.

        Args:
            views: `(n_test, n_views, …)` features of the views.
            y_test: `(n_test,)` int64 labels, or `(n_test, n_classes)` bool.
        """
        of_views = [predict_proba(self.model, one_view(views, number)) for number in range(views.shape[1])]
        probabilities = np.mean([self.probabilities, *of_views], axis=0)
        return replace(self, probabilities=probabilities, metrics=measure(y_test, probabilities))


def commonest_class(y: npt.ArrayLike) -> tuple[int, float]:
    """Return the most common of the classes `y`, `(n,)` integers, and its share: the accuracy of always answering it.

    Of equally common ones it is the first.

    >>> commonest_class([0, 1, 1, 1])
    (1, 0.75)
    """
    counts = np.bincount(np.asarray(y))
    return int(counts.argmax()), float(counts.max() / counts.sum())


def measure(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> Metrics:
    """Return the metrics of `probabilities` against the true classes.

    Args:
        y: `(n,)` integers from 0 to `n_classes - 1`; or `(n, n_classes)` bool, which labels each image has, if it can
            have several.
        probabilities: `(n, n_classes)` floats; each row sums to 1 within `SUM_TOLERANCE`, and is then divided by
            its sum in float64. Of equally probable classes the first is the prediction. With several labels, each is
            from 0 to 1, whatever the others are.

    Raises:
        FeatxError: nothing to measure, shapes or types that don't match, classes out of range, or rows that are not
            probabilities (NaN, negative, or a wrong sum).
    """
    from sklearn.metrics import f1_score

    if _are_several(y):
        return _measure_labels(*checked_labels(y, probabilities))
    labels, rows = _checked(y, probabilities)
    n_samples = len(rows)
    predicted = rows.argmax(axis=1)
    correct = predicted == labels
    n_correct = int(correct.sum())
    low, high = wilson_interval(n_correct, n_samples)
    n_of_class = np.bincount(labels, minlength=rows.shape[1])
    recalls = np.bincount(labels[correct], minlength=rows.shape[1])[n_of_class > 0] / n_of_class[n_of_class > 0]
    roc_auc, pr_auc = _areas(labels, rows)
    return Metrics(
        n_samples=n_samples,
        n_correct=n_correct,
        accuracy=n_correct / n_samples,
        accuracy_low=low,
        accuracy_high=high,
        loss=_log_loss(probability_of_truth(rows, labels)),
        roc_auc=roc_auc,
        macro_f1=float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        calibration_error=calibration_error(rows.max(axis=1), correct),
        balanced_accuracy=float(recalls.mean()),
        pr_auc=pr_auc,
    )


def _are_several(y: npt.ArrayLike) -> bool:
    """Return whether `y` has several labels for an image, not a class."""
    given = np.asarray(y)
    return given.ndim == 2 and given.dtype == bool


def _measure_labels(y: npt.NDArray[np.bool_], rows: npt.NDArray[np.float64]) -> Metrics:
    n_samples, n_correct = len(rows), int(is_right(rows, y).sum())
    low, high = wilson_interval(n_correct, n_samples)
    multilabel = MultilabelMetrics.of(y, rows)
    areas = [label.roc_auc for label in multilabel.labels if label.roc_auc is not None]
    f1 = [label.f1 for label in multilabel.labels if label.f1 is not None]
    right = ((rows > THRESHOLD) == y).ravel()
    return Metrics(
        n_samples=n_samples,
        n_correct=n_correct,
        accuracy=n_correct / n_samples,
        accuracy_low=low,
        accuracy_high=high,
        loss=_log_loss(probability_of_truth(rows, y)),
        roc_auc=fmean(areas) if areas else None,
        macro_f1=fmean(f1) if f1 else 0.0,
        calibration_error=calibration_error(np.maximum(rows, 1 - rows).ravel(), right),
        pr_auc=multilabel.mean_average_precision,
        multilabel=multilabel,
    )


@lru_cache(maxsize=4096)  # thousands of classes have the same few counts again and again
def wilson_interval(n_correct: int, n_samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of Wilson's score interval of a proportion (Wilson, 1927, without continuity correction).

    Raises:
        FeatxError: `n_samples` is not positive, or `n_correct` is not between 0 and it.
    """
    from scipy.stats import binomtest

    if not 0 <= n_correct <= n_samples or n_samples == 0:
        raise FeatxError(
            f"An interval needs 0 <= n_correct <= n_samples and at least one sample. "
            f"Received: n_correct={n_correct}, n_samples={n_samples}"
        )
    interval = binomtest(n_correct, n_samples).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: `confusion[true][predicted]` images. It has rows, as a matrix has.

    Only the cells that have images are held: there are never more of them than images, however many classes there are.

    Attributes:
        n_classes: number of rows, and of columns.
        cells: (true class, predicted class, number of images), in this order, none of them twice or with 0 images.
    """

    n_classes: int
    cells: tuple[tuple[int, int, int], ...]

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]]) -> Self:
        """Return the same as a matrix of rows.

        Raises:
            FeatxError: it is not square.
        """
        if any(len(row) != len(rows) for row in rows):
            raise FeatxError(f"A confusion matrix has as many columns as rows, which are {len(rows)}.")
        cells = ((true, guess, n) for true, row in enumerate(rows) for guess, n in enumerate(row) if n)
        return cls(len(rows), tuple(cells))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n_classes

    def __getitem__(self, true: int) -> tuple[int, ...]:
        """Return the row of a class: the number of its images by the class that they were taken for."""
        true = range(self.n_classes)[true]
        row = [0] * self.n_classes
        for _, guess, n in self.cells[bisect_left(self.cells, (true,)) : bisect_left(self.cells, (true + 1,))]:
            row[guess] = n
        return tuple(row)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return map(self.__getitem__, range(self.n_classes))

    @cached_property
    def columns(self) -> npt.NDArray[np.int64]:
        """The cells as `(3, n_cells)`: the true classes, the predicted ones, and the numbers of images."""
        return np.array(self.cells, np.int64).reshape(-1, 3).T

    @property
    def n_true(self) -> npt.NDArray[np.int64]:
        """How many images each class has, `(n_classes,)`."""
        true, _, n = self.columns
        return self._summed(true, n)

    @property
    def n_predicted(self) -> npt.NDArray[np.int64]:
        """How many images were taken for each class, `(n_classes,)`."""
        _, guess, n = self.columns
        return self._summed(guess, n)

    @property
    def n_right(self) -> npt.NDArray[np.int64]:
        """How many images of each class were taken for it, `(n_classes,)`."""
        true, guess, n = self.columns
        return self._summed(true, np.where(true == guess, n, 0))

    def _summed(self, classes: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(classes, n, self.n_classes).astype(np.int64)


def confusion_matrix(y: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Confusion:
    """Return how often each class was predicted as each: rows true, columns predicted.

    Args:
        y: `(n,)` integers, the true classes.
        predicted: `(n,)` integers, the predicted ones.
        n_classes: number of classes; one that has no image keeps its row.

    Raises:
        FeatxError: lengths that don't match, or classes outside 0 to `n_classes - 1`.
    """
    true, guess = _classes(y, n_classes), _classes(predicted, n_classes)
    if true.shape != guess.shape:
        raise FeatxError(f"y and predicted must have the same length. Received: {true.size} and {guess.size}")
    pairs, n = np.unique(np.stack([true, guess], axis=1), axis=0, return_counts=True)
    return Confusion(n_classes, tuple(map(tuple, np.column_stack([pairs, n]).tolist())))


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is recognized among the test images.

    Attributes:
        n_samples: number of its images.
        n_predicted: number of images that were taken for it.
        n_correct: number of its images that were taken for it.
        precision: `n_correct / n_predicted`; None if no image was taken for it.
        precision_low: lower end of the 95 % Wilson interval of the precision.
        precision_high: upper end of it.
        recall: `n_correct / n_samples`; None if it has no image.
        recall_low: lower end of the 95 % Wilson interval of the recall.
        recall_high: upper end of it.
        f1: harmonic mean of precision and recall; 0 if no image was rightly taken for it.
    """

    n_samples: int
    n_predicted: int
    n_correct: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    f1: float


def class_metrics(confusion: Confusion) -> tuple[ClassMetrics, ...]:
    """Return the precision and the recall of each class, in their order."""
    counts = (confusion.n_true, confusion.n_predicted, confusion.n_right)
    return tuple(
        ClassMetrics(n, guessed, right, *_share(right, guessed), *_share(right, n), 2 * right / max(n + guessed, 1))
        for n, guessed, right in zip(*(of_class.tolist() for of_class in counts), strict=True)
    )


def _share(n_correct: int, n: int) -> tuple[float | None, float | None, float | None]:
    """Return a share with its interval, if it is of any images."""
    return (n_correct / n, *wilson_interval(n_correct, n)) if n else (None, None, None)


def calibration_error(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: how far confidence is from accuracy, on average over the images.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3: the images are
    binned by confidence, each bin open below and closed above, and the gaps between a bin's accuracy and its mean
    confidence are averaged, weighted by the bins' sizes.

    Args:
        confidence: `(n,)` probabilities of the predicted classes.
        correct: `(n,)` bool, whether each prediction was right.
    """
    gaps = np.bincount(_bins(confidence), weights=correct - confidence, minlength=N_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / confidence.size)


@dataclass(frozen=True)
class ReliabilityBin:
    """Images with about the same confidence: how many, their mean confidence, and the share that is right.

    `accuracy_low` and `accuracy_high` are the ends of the 95 % Wilson interval of the accuracy.
    """

    n_samples: int
    confidence: float
    accuracy: float
    accuracy_low: float = 0.0
    accuracy_high: float = 1.0


def reliability(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Return bins of about as many images each, from the least confident to the most.

    Images of the same confidence share a bin. There are `MAX_RELIABILITY_BINS` bins, or fewer, with at least
    `MIN_IN_RELIABILITY_BIN` images each.

    Args:
        y: `(n,)` integers, the true classes; or `(n, n_classes)` bool, several labels: then each answer about a label
            counts as an image.
        probabilities: `(n, n_classes)`, as for `measure`.
    """
    if _are_several(y):
        several, rows = checked_labels(y, probabilities)
        confidence, correct = np.maximum(rows, 1 - rows).ravel(), ((rows > THRESHOLD) == several).ravel()
    else:
        labels, rows = _checked(y, probabilities)
        confidence, correct = rows.max(axis=1), rows.argmax(axis=1) == labels
    n_bins = int(np.clip(len(correct) // MIN_IN_RELIABILITY_BIN, 1, MAX_RELIABILITY_BINS))
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="lower")
    bins = np.searchsorted(edges, confidence, side="left")
    return tuple(_reliability_bin(confidence[mask], correct[mask]) for mask in (bins == n for n in np.unique(bins)))


@dataclass(frozen=True)
class CoveragePoint:
    """The images that a classifier is surest of: their share of all, and the share of them that it gets wrong."""

    coverage: float
    error: float


def risk_coverage(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> tuple[CoveragePoint, ...]:
    """Return how often the answers are wrong that are the most confident: of 1 % of the images, 2 %, and so on to all.

    It is the risk-coverage curve of a classifier that may refuse to answer (El-Yaniv and Wiener, On the foundations of
    noise-free selective classification, 2010). Images of the same confidence come together: a part of them counts as a
    random one.

    Args:
        confidence: `(n,)`.
        correct: `(n,)` bool.
    """
    n = len(confidence)
    levels, level = np.unique(-confidence, return_inverse=True)
    n_of_level = np.bincount(level, minlength=len(levels))
    wrong_share = np.bincount(level, ~correct, len(levels)) / n_of_level
    n_wrong = np.cumsum(wrong_share[np.sort(level)])  # of the most confident 1, 2, ... n
    counts = np.unique(np.ceil(np.arange(1, 101) / 100 * n).astype(np.int64))
    return tuple(CoveragePoint(count / n, float(n_wrong[count - 1] / count)) for count in counts.tolist())


def _reliability_bin(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> ReliabilityBin:
    n_correct, n_samples = int(correct.sum()), correct.size
    return ReliabilityBin(
        n_samples, float(confidence.mean()), n_correct / n_samples, *wilson_interval(n_correct, n_samples)
    )


def _bins(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence: each open below and closed above."""
    return np.clip(np.ceil(confidence * N_CALIBRATION_BINS).astype(np.int64) - 1, 0, N_CALIBRATION_BINS - 1)


def _log_loss(of_truth: npt.NDArray[np.float64]) -> float:
    smallest = np.finfo(np.float64).eps
    return -float(np.log(np.clip(of_truth, smallest, 1 - smallest)).mean())


def _areas(y: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the areas under the ROC curve and under the precision-recall curve, see `Metrics`.

    The former comes from ranks, as Mann and Whitney have it (1947). The latter is the mean, over the images of a class,
    of the precision if all images are taken for it that are at least as probable. scikit-learn goes through thousands
    of classes one by one, with all of them as a matrix in memory.
    """
    n_images, n_classes = rows.shape
    n_of_class = np.bincount(y, minlength=n_classes)
    roc, precision = np.zeros(n_classes), np.zeros(n_classes)
    for start in range(0, n_classes, _CLASSES_TOGETHER):
        in_order = np.sort(np.ascontiguousarray(rows[:, start : start + _CLASSES_TOGETHER].T), axis=1)
        for label, of_class in enumerate(in_order, start):
            own = np.sort(rows[y == label, label])
            n, n_below, n_up_to = len(own), np.searchsorted(of_class, own), np.searchsorted(of_class, own, "right")
            if n:
                above = (n_below + n_up_to + 1).sum() / 2 - n * (n + 1) / 2  # pairs in which it ranks above another
                roc[label] = above / (n * max(n_images - n, 1))
                precision[label] = ((n - np.searchsorted(own, own)) / (n_images - n_below)).mean()
    is_there = n_of_class > 0
    roc_auc = float(roc[1] if n_classes == 2 else roc.mean()) if is_there.all() else None
    if n_classes > 2:
        return roc_auc, float(precision[is_there].mean())
    rarer = int(n_of_class[1] <= n_of_class[0])
    return roc_auc, float(precision[rarer]) if is_there[rarer] else None


def _checked(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return `y` and the probabilities, each row of which now sums to 1 in float64."""
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] < 2:
        raise FeatxError(
            f"Probabilities must have the shape (n_samples, n_classes), with at least one sample and two classes. "
            f"Received: {rows.shape}"
        )
    labels = _classes(y, rows.shape[1])
    if labels.size != rows.shape[0]:
        raise FeatxError(f"Each row of probabilities needs one label. Received: {labels.size} and {rows.shape[0]}")
    if not np.isfinite(rows).all():
        raise FeatxError(
            f"{int((~np.isfinite(rows).all(axis=1)).sum())} of {rows.shape[0]} rows of probabilities hold NaN or "
            f"infinity: the training has probably diverged."
        )
    sums = rows.sum(axis=1)
    if rows.min() < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise FeatxError(
            f"Probabilities must not be negative and each row must sum to 1. "
            f"Received: a minimum of {rows.min():.4g} and sums from {sums.min():.6g} to {sums.max():.6g}"
        )
    return labels, rows / sums[:, np.newaxis]


def _classes(y: npt.ArrayLike, n_classes: int) -> npt.NDArray[np.int64]:
    labels = np.asarray(y)
    if labels.ndim != 1 or (labels.size and not np.issubdtype(labels.dtype, np.integer)):
        raise FeatxError(f"Classes must be a vector of integers. Received: {labels.dtype} {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
        raise FeatxError(f"Classes must be between 0 and {n_classes - 1}. Received: {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)
