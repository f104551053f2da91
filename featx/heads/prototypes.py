"""The head `prototypes`: an image is of the class whose mean is nearest to its features."""

import numpy as np
import numpy.typing as npt

from featx.heads.calibration import SCORE_BYTES, as_probabilities, fit_temperature
from featx.heads.dense import Task, centre_and_scale, linear_model
from featx.heads.logistic import N_FOLDS, Scaled, folds_of
from featx.heads.slabs import scaled_slabs
from featx.heads.training_loop import Trained

_Floats = npt.NDArray[np.float64]

#: The temperature that is expected, as a multiple of the features' total variance.
DEFAULT_TEMPERATURE = 2.0


def prototypes_bytes(n_rows: int, n_features: int, n_classes: int, *, in_memory: bool) -> int:  # noqa: ARG001
    """Return about how much memory the head takes: sums of each class for each fold, means without it, and scores.

    >>> prototypes_bytes(8000, 25088, 1000, in_memory=True) >> 20
    2663
    """
    return n_classes * (8 * (2 * N_FOLDS + 2) * n_features + SCORE_BYTES * n_rows)


def train_prototypes(task: Task) -> Trained:
    """Return the nearest class mean as Flatten → Dense: softmax(-‖x - mean‖² / T).

    ‖x‖² is the same for all classes, so the rest is linear in x (Snell et al., Prototypical networks for few-shot
    learning, 2017). The means are those of all images and views. T is what fits images best that are held out, in
    folds that divide no group; see `fit_temperature`. Only there do class weights count. A class with a single image is
    not held out. If fewer than two classes have more, T is a default.
    """
    scaled = Scaled(task.X, *centre_and_scale(task.X))
    folds = folds_of(task.y, task.digests, task.n_classes, task.training.seed)
    sums, counts = _sums(task, scaled, folds)
    scores = _held_out_scores(task, scaled, folds, sums, counts)
    is_rated = folds[: len(task.rows)] >= 0
    rated, y = scores[is_rated], task.y[: len(task.rows)][is_rated]
    temperature, _ = fit_temperature(rated, y, DEFAULT_TEMPERATURE * scaled.mean.size, task.class_weights)
    details: dict[str, float | int | str] = {"feature_scale": scaled.scale, "temperature": temperature}
    if len(y):
        details["cv_accuracy"] = float((rated.argmax(axis=1) == y).mean())
        details["cv_folds"] = int(folds.max()) + 1
    means = sums.sum(axis=0) / counts.sum(axis=0)[:, np.newaxis]
    coef, bias = 2 * means / temperature, -(means**2).sum(axis=1) / temperature
    model = linear_model("prototypes", task, scaled, coef, bias)
    out_of_fold = as_probabilities(scores, temperature) if is_rated.any() else None
    return Trained("prototypes", model, details=details, out_of_fold=out_of_fold)


def _sums(task: Task, scaled: Scaled, folds: npt.NDArray[np.int64]) -> tuple[_Floats, _Floats]:
    """Return the sums of rows by fold and class, `(n_folds + 1, n_classes, n_features)`, and how many there are.

    The last fold is of what is never held out.
    """
    n_folds = int(folds.max()) + 1
    sums = np.zeros((n_folds + 1, task.n_classes, scaled.mean.size))
    for which, rows in scaled_slabs(scaled, "prototypes", show=task.training.show):
        cells = np.stack([folds[which], task.y[which]], axis=1)
        for fold, label in np.unique(cells, axis=0):
            sums[fold, label] += rows[(cells == (fold, label)).all(axis=1)].sum(axis=0, dtype=np.float64)
    counts = np.zeros(sums.shape[:2])
    np.add.at(counts, (folds, task.y), 1)
    return sums, counts


def _held_out_scores(
    task: Task, scaled: Scaled, folds: npt.NDArray[np.int64], sums: _Floats, counts: _Floats
) -> npt.NDArray[np.float32]:
    """Return `(n_images, n_classes)`: 2 x · mean - ‖mean‖² of images, with means without their fold; else NaN."""
    n_images = len(task.rows)
    scores = np.full((n_images, task.n_classes), np.nan, np.float32)
    of_images = folds[:n_images]
    if folds.max() < 0:
        return scores
    means = (sums.sum(axis=0) - sums[:-1]) / (counts.sum(axis=0) - counts[:-1])[:, :, np.newaxis]
    for which, rows in scaled_slabs(scaled, "prototypes", show=task.training.show):
        for fold in range(len(means)):
            held_out = (which < n_images) & (folds[which] == fold)
            if held_out.any():
                products = rows[held_out].astype(np.float64) @ means[fold].T
                scores[which[held_out]] = 2 * products - (means[fold] ** 2).sum(axis=1)
    assert np.isfinite(scores[of_images >= 0]).all()
    return scores
