"""Unbalanced classes: how unbalanced they are, and whether accuracy still says anything about them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset
from featx.heads import BALANCED
from featx.text import printable
from featx.train.metrics import Metrics

#: How many times as many images the largest class has as the smallest one, so that balanced accuracy is shown beside
#: accuracy; and so that a much lower balanced accuracy is a warning.
UNBALANCED, VERY_UNBALANCED = 1.5, 10.0

#: How far below the accuracy a balanced accuracy is much lower.
MUCH_LOWER = 0.05

_MAX_NAMED = 4  # approaches in a warning


def imbalance(n_of_class: npt.ArrayLike) -> float:
    """Return how many times as many images the largest class has as the smallest one that has any.

    >>> imbalance([100, 0, 20]), imbalance([0, 0])
    (5.0, 1.0)
    """
    counts = np.asarray(n_of_class)
    counts = counts[counts > 0]
    return float(counts.max() / counts.min()) if len(counts) else 1.0


def accuracy_warnings(dataset: ImageDataset, measured: Mapping[str, Metrics], *, is_weighted: bool) -> tuple[str, ...]:
    """Return a sentence if the accuracy is misleading, because most test images are of one class; else nothing.

    It is misleading if it is not clearly better than always answering the most common class, or if the balanced
    accuracy is much lower.

    Args:
        dataset: the images that were tested.
        measured: what each head or approach achieved, by its name.
        is_weighted: whether they were trained with class weights.
    """
    names, (_, n_of_class) = dataset.class_names, dataset.class_counts
    ratio = imbalance(n_of_class)
    share = float(n_of_class.max() / max(n_of_class.sum(), 1))
    misled = {name: metrics for name, metrics in measured.items() if _is_misleading(metrics, share, ratio)}
    if not misled:
        return ()
    large, small = int(n_of_class.argmax()), int(np.where(n_of_class > 0, n_of_class, n_of_class.max()).argmin())
    figures = [
        f"{name} {_percent(metrics.balanced_accuracy or 0)} (accuracy {_percent(metrics.accuracy)})"
        for name, metrics in misled.items()
    ]
    more = f", and {len(figures) - _MAX_NAMED} others" if len(figures) > _MAX_NAMED else ""
    advice = "" if is_weighted else f" --class-weights {BALANCED} makes images of rare classes count more."
    return (
        f"Accuracy is misleading here: {printable(names[large])} has {ratio:.3g} times as many test images as "
        f"{printable(names[small])}, and always answering {printable(names[large])} gets "
        f"{_percent(share)} right. Look at the balanced accuracy, the mean over the classes: "
        f"{', '.join(figures[:_MAX_NAMED])}{more}.{advice}",
    )


def _is_misleading(metrics: Metrics, commonest_share: float, ratio: float) -> bool:
    if metrics.multilabel:  # a rare label has an average precision of its own
        return False
    if ratio > UNBALANCED and not metrics.is_above(commonest_share):
        return True
    balanced = metrics.accuracy if metrics.balanced_accuracy is None else metrics.balanced_accuracy
    return ratio >= VERY_UNBALANCED and metrics.accuracy - balanced >= MUCH_LOWER


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
