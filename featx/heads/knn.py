"""The head `knn`: the training images that are most like an image vote for its class."""
# ruff: noqa: N806 - Z is what the books call it

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.dense import Task, centre_and_scale
from featx.heads.inference import nearest_votes, voting_model
from featx.heads.logistic import Scaled
from featx.heads.slabs import scaled_rows, scaled_slabs
from featx.heads.training_loop import Trained
from featx.store import row_bytes, take

_Scores = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

#: What is tried: how similarity is measured, how many neighbours vote, how much more a vote counts that is more alike,
#: and the share of the vote that is divided equally among all classes.
METRICS = ("cosine", "euclidean")
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
SHARPNESSES = (1.0, 3.0, 10.0, 30.0, 100.0)
SMOOTHINGS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)

#: Images that are left out in turn, at most: more of them choose no better.
MAX_LEFT_OUT = 2000


@dataclass(frozen=True)
class Vote:
    """How neighbours vote.

    The D features z are centred, and scaled to a root mean square of 1. A training image t is as like z as
    `z · t / (‖t‖ √D)` if the metric is cosine, and `z · t / D - ‖t‖² / 2D` if it is Euclidean. For one z, both put the
    training images in the order of their cosine or Euclidean distance.

    Attributes:
        metric: one of `METRICS`.
        k: how many of the training images vote, those that are most alike. Images that are as like as the last of these
            vote, too.
        sharpness: a vote counts `exp(sharpness * similarity)`, times the weight of its class if there are weights.
        smoothing: the share of the vote that goes to all classes equally, above 0: no class ever gets none.
    """

    metric: str = "cosine"
    k: int = 10
    sharpness: float = 3.0
    smoothing: float = 0.2


def knn_bytes(n_rows: int, n_features: int, n_classes: int, *, in_memory: bool) -> int:  # noqa: ARG001
    """Return about how much memory the head takes: it has all training features in it, and Keras copies them.

    >>> knn_bytes(8000, 8192, 2, in_memory=True) >> 20
    812
    """
    n_left_out = min(n_rows, MAX_LEFT_OUT)
    return 4 * (3 * n_rows + n_left_out) * n_features + (12 * n_rows + 16 * n_left_out) * n_classes


def train_knn(task: Task) -> Trained:
    """Return k nearest neighbours as a Keras model that holds all training features, those of views as well.

    `Vote` has the formula. Its numbers are those with the lowest log loss when images are left out one by one, each
    with its views, its copies and its group. An image that is the only one of its class is not left out. If there are
    no others, the vote is `Vote()`.
    """
    scaled = Scaled(task.X, *centre_and_scale(task.X))
    unit = np.unique(task.digests, axis=0, return_inverse=True)[1].reshape(-1)
    left_out = _left_out(task, unit)
    vote, details, out_of_fold = Vote(k=min(Vote.k, len(unit))), dict[str, Any](), None
    if len(left_out):
        neighbours = _neighbours(task, scaled, unit, left_out)
        weight_of = np.ones(task.n_classes) if task.class_weights is None else task.class_weights
        vote = _choose(neighbours, task.y[left_out], weight_of)
        probabilities = _probabilities(*neighbours[vote.metric], vote, weight_of)
        details["cv_accuracy"] = float((probabilities.argmax(axis=1) == task.y[left_out]).mean())
        details["cv_images"] = len(left_out)
        out_of_fold = np.full((len(task.rows), task.n_classes), np.nan, np.float32)
        out_of_fold[left_out] = probabilities
    kernel, bias = _similarity(task, scaled, vote)
    of_row = np.full((len(unit), task.n_classes), vote.smoothing / task.n_classes, np.float32)
    of_row[np.arange(len(unit)), task.y] += 1 - vote.smoothing
    if task.class_weights is not None:
        of_row *= (task.class_weights[task.y] / task.class_weights.max())[:, np.newaxis]
    model = voting_model(task.X.shape[1:], kernel, bias, vote.k, of_row)
    details = {"feature_scale": scaled.scale, **asdict(vote), **details}
    return Trained("knn", model, details=details, out_of_fold=out_of_fold)


def _left_out(task: Task, unit: _Labels) -> _Labels:
    """Return which images are left out in turn: some of those whose class has others, too, that are not of its unit."""
    n_images = len(task.rows)
    pairs = np.unique(np.stack([task.y, unit]), axis=1)
    has_others = np.bincount(pairs[0], minlength=task.n_classes) > 1
    able = np.flatnonzero(has_others[task.y[:n_images]])
    n_most = MAX_LEFT_OUT
    if not isinstance(task.X, np.ndarray):  # their features are held in memory
        n_most = min(n_most, max(2, task.X.buffer_bytes // (2 * row_bytes(task.X))))
    return np.sort(np.random.default_rng(task.training.seed).permutation(able)[:n_most])


def _neighbours(task: Task, scaled: Scaled, unit: _Labels, left_out: _Labels) -> dict[str, tuple[_Scores, _Labels]]:
    """Return, for each metric, the similarities to the nearest rows of other units, best first, and their labels.

    Both are `(n_left_out, k)`, with k the largest of `NEIGHBOURS`, or as many as all have.
    """
    n_features = scaled.mean.size
    Z = scaled_rows(scaled, take(task.X, left_out)[:])
    n_others = len(unit) - np.bincount(unit)[unit[left_out]]
    k = int(min(NEIGHBOURS[-1], n_others.min()))
    best = {metric: (np.empty((len(Z), 0), np.float32), np.empty((len(Z), 0), np.int64)) for metric in METRICS}
    for which, rows in scaled_slabs(scaled, "knn", show=task.training.show):
        products = Z @ rows.T
        products[unit[left_out][:, np.newaxis] == unit[which]] = -np.inf
        factor, offset = _factor_and_offset(rows, n_features)
        for metric in METRICS:
            scores = products * factor[metric] - offset[metric]
            best[metric] = _merged(best[metric], scores, task.y[which], k)
    return {metric: _sorted(*found) for metric, found in best.items()}


def _factor_and_offset(rows: npt.NDArray[np.float32], n_features: int) -> tuple[dict[str, _Scores], dict[str, _Scores]]:
    """Return, for each t and metric, what makes a product z · t the similarity of `Vote`: a factor, and an offset."""
    squares = np.einsum("ij,ij->i", rows, rows)
    lengths = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    factor = {"cosine": 1 / (lengths * np.sqrt(n_features)), "euclidean": np.full(len(rows), 1 / n_features)}
    offset = {"cosine": np.zeros(len(rows)), "euclidean": squares / (2 * n_features)}
    return tuple({name: values.astype(np.float32) for name, values in one.items()} for one in (factor, offset))  # type: ignore[return-value]


def _merged(best: tuple[_Scores, _Labels], scores: _Scores, labels: _Labels, k: int) -> tuple[_Scores, _Labels]:
    """Return the k best of those found before and new ones, in no order."""
    scores = np.hstack([best[0], scores])
    labels = np.hstack([best[1], np.broadcast_to(labels, (len(scores), len(labels)))])
    if scores.shape[1] <= k:
        return scores, labels
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(scores, top, axis=1), np.take_along_axis(labels, top, axis=1)


def _sorted(scores: _Scores, labels: _Labels) -> tuple[_Scores, _Labels]:
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(labels, order, axis=1)


def _choose(neighbours: dict[str, tuple[_Scores, _Labels]], y: _Labels, weight_of: _Floats) -> Vote:
    """Return the vote with the lowest log loss for images with labels `y`; see `_neighbours`.

    `weight_of`, `(n_classes,)`, is how much a vote of each class counts, and an image in the loss.

    Of few images, all may be right by luck: at least one of n + 2 counts as wrong, as in `fit_temperature`.
    """
    smoothings = [share for share in SMOOTHINGS if share >= 1 / (len(y) + 2)] or [SMOOTHINGS[0]]
    best, lowest = Vote(), np.inf
    for metric in METRICS:
        scores, labels = neighbours[metric]
        is_right = labels == y[:, np.newaxis]
        for k, sharpness in product(NEIGHBOURS, SHARPNESSES):
            if k > scores.shape[1]:
                continue
            counts = _counts(scores[:, :k], labels[:, :k], sharpness, weight_of)
            of_truth = (counts * is_right[:, :k]).sum(axis=1)
            for share in smoothings:
                logs = np.log((1 - share) * of_truth + share / len(weight_of))
                loss = -float(np.average(logs, weights=weight_of[y]))
                if loss < lowest:
                    best, lowest = Vote(metric, k, sharpness, share), loss
    return best


def _counts(scores: _Scores, labels: _Labels, sharpness: float, weight_of: _Floats) -> _Floats:
    """Return how much each neighbour's vote counts, `(n, k)`: shares of 1."""
    counts = nearest_votes(sharpness * scores.astype(np.float64), scores.shape[1]) * weight_of[labels]
    shares: _Floats = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _probabilities(scores: _Scores, labels: _Labels, vote: Vote, weight_of: _Floats) -> npt.NDArray[np.float32]:
    """Return `(n, n_classes)`: what the neighbours vote for; see `_neighbours`."""
    shares = np.full((len(scores), len(weight_of)), vote.smoothing / len(weight_of))
    counts = _counts(scores[:, : vote.k], labels[:, : vote.k], vote.sharpness, weight_of)
    np.add.at(shares, (np.arange(len(scores))[:, np.newaxis], labels[:, : vote.k]), (1 - vote.smoothing) * counts)
    return shares.astype(np.float32)


def _similarity(task: Task, scaled: Scaled, vote: Vote) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return kernel `(n_features, n_rows)` and bias: from raw features to each row's similarity, times sharpness."""
    n_features = scaled.mean.size
    kernel, bias = np.empty((n_features, len(task.X)), np.float32), np.empty(len(task.X), np.float32)
    for which, rows in scaled_slabs(scaled, "knn", show=task.training.show):
        factor, offset = _factor_and_offset(rows, n_features)
        columns = (vote.sharpness * scaled.scale * factor[vote.metric]) * rows.T.astype(np.float64)
        kernel[:, which] = columns
        bias[which] = -vote.sharpness * offset[vote.metric] - scaled.mean @ columns
    return kernel, bias
