"""Measures of a classifier that decides about each of several labels by itself, on images that it has never seen."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.heads import THRESHOLD

_Bools = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]

#: What stands for an image that has none of the labels.
NO_LABEL = "no label"

#: Resamples of the test images for an interval; fewer, down to the second, where there are very many answers.
N_RESAMPLES, MIN_RESAMPLES, _MAX_DRAWN = 1000, 200, 200_000_000

#: Weights of resamples that are held at a time.
_WEIGHTS_TOGETHER = 4_000_000


@dataclass(frozen=True)
class LabelMetrics:
    """How well one label is recognized; None where a measure is not defined. A label is predicted above `THRESHOLD`.

    Attributes:
        n_true: number of images that have the label.
        n_predicted: number of images for which it is predicted.
        n_right: number of images that have it and for which it is predicted.
        precision: `n_right / n_predicted`.
        recall: `n_right / n_true`.
        f1: harmonic mean of both; 0 if the label is only predicted, or only there.
        average_precision: mean of the precision over the images that have the label, in the order of its probability.
        roc_auc: area under the ROC curve.
    """

    n_true: int
    n_predicted: int
    n_right: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    roc_auc: float | None


@dataclass(frozen=True)
class MultilabelMetrics:
    """How well several labels of each image are recognized, and what the same answer for all images would reach.

    Attributes:
        mean_average_precision: mean of the labels' average precision, over labels that an image has; None without any.
        mean_average_precision_low: lower end of its 95 % interval, for the choice of test images, by the bootstrap.
        mean_average_precision_high: upper end of it.
        labels: each label, in the order of the classes.
        mean_prevalence: mean share of the images that have a label, over labels that an image has: the mean average
            precision of answering each label's share for all images.
        commonest: the most common set of labels, as indices of classes; of equally common ones the first.
        commonest_share: the share of the images that have it: the accuracy of always answering it.
    """

    mean_average_precision: float | None
    mean_average_precision_low: float | None
    mean_average_precision_high: float | None
    labels: tuple[LabelMetrics, ...]
    mean_prevalence: float
    commonest: tuple[int, ...]
    commonest_share: float

    @classmethod
    def of(cls, y: _Bools, probabilities: _Floats) -> Self:
        """Return the measures of `(n, n_classes)` probabilities of the labels `y`, `(n, n_classes)`."""
        precisions = average_precisions(y, probabilities)
        areas = _roc_areas(y, probabilities)
        labels = tuple(map(_of_label, y.T, (probabilities > THRESHOLD).T, precisions.tolist(), areas.tolist()))
        low, high = _interval(y, probabilities)
        prevalence = y.mean(axis=0)
        return cls(
            *(_mean(precisions), low, high, labels),
            float(prevalence[prevalence > 0].mean()) if prevalence.any() else 0.0,
            *commonest_labels(y),
        )


def commonest_labels(y: _Bools) -> tuple[tuple[int, ...], float]:
    """Return the most common set of labels, as indices of columns of `y`, `(n, n_classes)`, and its share.

    >>> commonest_labels(np.array([[True, True], [True, True], [False, True]]))[0]
    (0, 1)
    """
    sets, counts = np.unique(y, axis=0, return_counts=True)
    return tuple(np.flatnonzero(sets[counts.argmax()]).tolist()), float(counts.max() / counts.sum())


def checked_labels(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[_Bools, _Floats]:
    """Return `y` as bool and the probabilities as float64, both `(n, n_classes)`.

    Raises:
        FeatxError: there is nothing to measure, the shapes or types do not match, or these are no probabilities.
    """
    labels, rows = np.asarray(y), np.asarray(probabilities, dtype=np.float64)
    if labels.dtype != bool or labels.shape != rows.shape or not labels.size:
        raise FeatxError(
            f"Several labels for each image are a matrix (n_samples, n_classes) of bool, with a probability each. "
            f"Received: {labels.dtype} {labels.shape} and probabilities {rows.shape}"
        )
    if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1):
        raise FeatxError(
            f"Probabilities must be from 0 to 1: the training has probably diverged. "
            f"Received: {rows.min():.4g} to {rows.max():.4g}"
        )
    return labels, rows


def average_precisions(y: _Bools, probabilities: _Floats) -> _Floats:
    """Return the average precision of each label, `(n_classes,)`; NaN for a label that no image has.

    It is the sum over the distinct probabilities, from the highest, of the precision there times what it adds to the
    recall, as scikit-learn's `average_precision_score` has it.

    Args:
        y: `(n, n_classes)`.
        probabilities: `(n, n_classes)`.
    """
    everything = np.ones((len(y), 1), np.float32)
    return np.array([ranked.average_precision(everything)[0] for ranked in map(_Ranked, y.T, probabilities.T)])


class _Ranked:
    """The images in the order of a label's probability, from the highest."""

    def __init__(self, y: _Bools, probabilities: _Floats) -> None:
        self._order = np.argsort(-probabilities, kind="stable")
        self._having = np.flatnonzero(y[self._order])
        falling = probabilities[self._order]
        ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(y) - 1)  # of equal probabilities
        self._end = ends[np.searchsorted(ends, self._having)]
        self._last = np.searchsorted(self._having, self._end, side="right") - 1

    def average_precision(self, weights: npt.NDArray[np.float32]) -> _Floats:
        """Return the average precision with each of the weights of images `(n, m)`, `(m,)`; NaN where it has none."""
        if not len(self._having):
            return np.full(weights.shape[1], np.nan)
        ranked = weights[self._order]
        gained = ranked[self._having]
        n_right, n_above = gained.cumsum(axis=0), ranked.cumsum(axis=0)[self._end]
        with np.errstate(invalid="ignore"):
            precisions = n_right[self._last] / np.maximum(n_above, 1)
            means: _Floats = (gained * precisions).sum(axis=0, dtype=np.float64) / n_right[-1]
        return means


def _interval(y: _Bools, probabilities: _Floats) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of the mean average precision: percentiles of resamples of the images.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    n, n_labels = y.shape
    n_resamples = min(N_RESAMPLES, max(MIN_RESAMPLES, _MAX_DRAWN // (n * n_labels)))
    having = y.any(axis=0)
    ranked = [*map(_Ranked, y.T[having], probabilities.T[having])]
    if not ranked:
        return None, None
    rng = np.random.default_rng(0)
    step = max(1, _WEIGHTS_TOGETHER // n)
    means: list[float] = []
    for start in range(0, n_resamples, step):
        drawn = rng.multinomial(n, np.full(n, 1 / n), min(step, n_resamples - start))
        weights = np.ascontiguousarray(drawn.T, np.float32)
        of_labels = np.array([label.average_precision(weights) for label in ranked])
        has = np.isfinite(of_labels)  # a resample may lack all images with a label
        means += (np.where(has, of_labels, 0).sum(axis=0) / np.maximum(has.sum(axis=0), 1)).tolist()
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return low, high


def _roc_areas(y: _Bools, probabilities: _Floats) -> _Floats:
    """Return the area under the ROC curve of each label, from ranks; NaN for one that no image has, or all have."""
    from scipy.stats import rankdata

    n_true = y.sum(axis=0)
    sums = (rankdata(probabilities, axis=0) * y).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: _Floats = (sums - n_true * (n_true + 1) / 2) / (n_true * (len(y) - n_true))
    return areas


def _of_label(y: _Bools, predicted: _Bools, average_precision: float, roc_auc: float) -> LabelMetrics:
    n_true, n_predicted, n_right = (int(np.count_nonzero(mask)) for mask in (y, predicted, y & predicted))
    return LabelMetrics(
        *(n_true, n_predicted, n_right),
        precision=n_right / n_predicted if n_predicted else None,
        recall=n_right / n_true if n_true else None,
        f1=2 * n_right / (n_true + n_predicted) if n_true + n_predicted else None,
        average_precision=average_precision if np.isfinite(average_precision) else None,
        roc_auc=roc_auc if np.isfinite(roc_auc) else None,
    )


def _mean(values: _Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
