"""Where in an image a head finds evidence for a class: what each position of the features adds to the class's score.

The score is the number before the sigmoid or the softmax, so evidence is in units of log odds, and can be added up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.heads.inference import DenseLayer, Head, check_shape
from featx.heads.tuned import TunedHead

_Floats = npt.NDArray[np.float64]

#: Features whose evidence is computed at a time, as float64.
_SLAB_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for and against a class in one image.

    Attributes:
        label: the class.
        map: `(h, w)` float64, what each position of the features adds to the score. A number above 0 is evidence for
            the class. The sum of all numbers is `score - base`.
        score: of the class for this image, see `find_evidence`.
        base: the score of the average training image.
    """

    label: int
    map: _Floats
    score: float
    base: float


def why_no_evidence(head: Head | TunedHead) -> str:
    """Return why a head says nothing about positions, as a sentence; an empty one if it does."""
    top = head if isinstance(head, Head) else head.split[1]
    if top.layers[0].n_nearest:
        return "There is no heat map, because the head knn compares whole images: look at the nearest training images."
    if any(layer.activation != "relu" for layer in top.layers[:-1]):
        return "There is no heat map, because the head has a layer that featx does not train: train again."
    if len(top.feature_shape) != 3 or top.feature_shape[:2] == (1, 1):
        return (
            "There is no heat map, because the features have no positions: extract them without --pooling, or choose a "
            "layer with positions."
        )
    return ""


def find_evidence(
    head: Head | TunedHead, X: np.ndarray, labels: Sequence[int] | np.ndarray, mean: np.ndarray
) -> list[Evidence]:
    """Return the evidence for one class in each image.

    The evidence is what differs from the average training image m. A position with the features x gets

        sum over its channels of (x - m) · u

    A head that is linear in the features (`logreg`, `svm`, `prototypes`) has its weights as u. In `dense`, u is the
    mean gradient of the score on the straight way from m to x: integrated gradients (Sundararajan et al., Axiomatic
    attribution for deep networks, 2017). With one hidden layer, that is the rescale rule of DeepLIFT (Shrikumar et al.,
    Learning important features through propagating activation differences, 2017): the gradient with the slope of each
    relu between m and x. So positions add up to the score of x minus the score of m, whatever the head. The gradient at
    x alone, which is usual (Ancona et al., Towards better understanding of gradient-based attribution methods, 2018),
    does not do that. Without m, most of the evidence would be what all images have in common.

    The score of a class is its log odds: with a sigmoid for two classes, the number before the sigmoid for class 1, and
    minus that number for class 0; with a sigmoid for each label, the number before it. With a softmax, it is the number
    before the softmax minus the mean of these numbers over all classes: adding the same to all changes no probability.

    If a block was tuned, positions are those of its output, and m is the output for the average features.

    Args:
        head: one for which `why_no_evidence` has nothing to say.
        X: `(n, …)` features.
        labels: n classes.
        mean: the average features of the training images, of the shape of one image's.

    Raises:
        FeatxError: the features have another shape.
    """
    check_shape(X, head.feature_shape)
    check_shape(mean[np.newaxis], head.feature_shape)
    top, labels = head, np.asarray(labels)
    if isinstance(head, TunedHead):
        block, top = head.split
        mean, X = block(mean[np.newaxis])[0], block(X)
    assert isinstance(top, Head)
    n_rows = max(1, _SLAB_BYTES // (8 * mean.size))
    slabs = (slice(start, start + n_rows) for start in range(0, len(X), n_rows))
    return [one for some in slabs for one in _of_rows(top, X[some], labels[some], mean)]


def _of_rows(head: Head, X: np.ndarray, labels: np.ndarray, mean: np.ndarray) -> list[Evidence]:
    rows = np.concatenate([mean[np.newaxis], X]).reshape(1 + len(X), -1).astype(np.float64)
    differences = rows[1:] - rows[0]
    *hidden, last = head.layers
    slopes = []
    for layer in hidden:
        rows, slope = _relu(_product(rows, layer.kernel) + layer.bias)
        slopes.append(slope)
    weights, bias = _score(last, labels)
    scores, bases = (rows[1:] * weights).sum(axis=1) + bias, weights @ rows[0] + bias
    for layer, slope in zip(reversed(hidden), reversed(slopes), strict=True):
        weights = _product(weights * slope, layer.kernel.T)
    maps = (differences * weights).reshape(len(X), *head.feature_shape).sum(axis=-1)
    parts = zip(labels.tolist(), maps, scores.tolist(), bases.tolist(), strict=True)
    return [Evidence(*each) for each in parts]


def _product(rows: _Floats, kernel: np.ndarray) -> _Floats:
    """Return `rows @ kernel`, computed in float32: a copy of a large kernel in float64 would fill the memory."""
    product: _Floats = (rows.astype(np.float32) @ kernel).astype(np.float64)
    return product


def _relu(rows: _Floats) -> tuple[_Floats, _Floats]:
    """Return the relu of `rows`, `(1 + n, k)`, and its slope between the first row and each other, `(n, k)`."""
    positive = np.maximum(rows, 0)
    way = rows[1:] - rows[0]
    is_there = way == 0
    slope = np.where(is_there, rows[1:] > 0, (positive[1:] - positive[0]) / np.where(is_there, 1, way))
    return positive, slope


def _score(last: DenseLayer, labels: np.ndarray) -> tuple[_Floats, _Floats]:
    """Return what makes the score of each class of the last layer's inputs: weights `(n, k)` and biases `(n,)`."""
    if len(last.bias) == 1:
        sign = np.where(labels == 1, 1.0, -1.0)
        return sign[:, np.newaxis] * last.kernel[:, 0], sign * last.bias[0]
    kernel, bias = last.kernel[:, labels].astype(np.float64), last.bias[labels].astype(np.float64)
    if last.activation == "softmax":
        kernel -= last.kernel.mean(axis=1, dtype=np.float64, keepdims=True)
        bias -= last.bias.mean(dtype=np.float64)
    return kernel.T, bias
