"""Held-out training images: they calibrate a head, and show how often it is wrong."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from featx.heads.calibration import FEWEST_IMAGES, at_temperature, divide_scores, temperature_of
from featx.heads.dense import Task, TrainingSet, dense_held_out
from featx.heads.logistic import folds_of
from featx.heads.registry import needs_temperature, train_task
from featx.heads.training_loop import Targets, Trained, Training, predict_proba
from featx.system import progress_bar

#: A head that has no held-out images of its own is trained on folds, until so many images have been held out: a
#: temperature is one number, and more images would not change it much.
N_FOLDS, ENOUGH_IMAGES = 5, 2000


def calibrate(trained: Trained, images: TrainingSet, training: Training) -> Trained:
    """Return the head with calibrated probabilities, see `calibrated_by`; `knn`, `prototypes` and `svm` have them.

    `dense`, and `logreg` on features on disk, are trained once more on parts of the images to predict the others.

    The time that this takes is part of the training's.

    Args:
        trained: the head, trained on all images. Its model changes.
        images: what it was trained on.
        training: how.
    """
    if not needs_temperature(trained.name):
        return trained
    start_s = time.perf_counter()
    probabilities: npt.NDArray[np.floating] | None = trained.out_of_fold
    if probabilities is None:
        probabilities = _held_out(trained.name, images, training)
    if probabilities is None:
        return trained
    calibrated = calibrated_by(probabilities, trained, images.y, images.class_weights)
    return replace(calibrated, fit_s=trained.fit_s + time.perf_counter() - start_s)


def calibrated_by(
    probabilities: npt.NDArray[np.floating],
    trained: Trained,
    y: Targets,
    class_weights: npt.NDArray[np.float64] | None = None,
) -> Trained:
    """Return the head with the temperature that fits probabilities of held-out images best, if they are enough.

    The last layer of its model is divided by the temperature, so whatever uses the model gives calibrated
    probabilities (Guo et al., On calibration of modern neural networks, 2017). No answer changes.

    Args:
        probabilities: `(n, n_classes)`, from such heads that have not seen the images; NaN of images not held out.
        trained: the head. Its model changes, unless it needs no temperature.
        y: the labels of the images.
        class_weights: `(n_classes,)`, or None; see `fit_temperature`.
    """
    found = temperature_of(probabilities, y, class_weights) if needs_temperature(trained.name) else None
    if found is None:
        return replace(trained, out_of_fold=probabilities.astype(np.float32))
    temperature, n_images = found
    divide_scores(trained.model, temperature)
    calibrated = at_temperature(probabilities, temperature, is_multilabel=y.ndim == 2).astype(np.float32)
    details = {**trained.details, "temperature": temperature, "calibration_images": n_images}
    return replace(trained, details=details, out_of_fold=calibrated)


def _held_out(name: str, images: TrainingSet, training: Training) -> npt.NDArray[np.float64] | None:
    """Return `(n, n_classes)`, probabilities from heads that have not seen the images; NaN of images not held out.

    None if there are too few to calibrate by. Groups and copies are not divided. A fold stops early by the validation
    images that it does not hold out, or by the next fold if it holds out all of them.
    """
    fold = folds_of(images.y, images.digests, images.n_classes, training.seed, n_folds=N_FOLDS)
    if (fold >= 0).sum() < FEWEST_IMAGES:
        return None
    sizes = np.bincount(fold[fold >= 0])
    n_needed = int(np.searchsorted(sizes.cumsum(), min(ENOUGH_IMAGES, sizes.sum()))) + 1
    folds = [fold == number for number in range(len(sizes))]
    probabilities = np.full((len(images.X), images.n_classes), np.nan)
    with progress_bar(n_needed, "calibration", "trainings", show=training.show) as bar:
        found_in = _predicted(name, images, replace(training, show=False), folds)
        for held_out, found in zip(folds[:n_needed], found_in, strict=False):  # no fold is trained that is not needed
            probabilities[held_out] = found
            bar.update()
    return probabilities


def _predicted(
    name: str, images: TrainingSet, training: Training, folds: Sequence[npt.NDArray[np.bool_]]
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the probabilities of the images that each mask holds out, from heads trained on the others.

    Features in memory are not copied, which could be too much for it: only `dense` is trained on these here.
    """
    if name == "dense":
        yield from dense_held_out(Task.of(images, training), folds)
        return
    for held_out in folds:
        trained = train_task(name, Task.of(images.subset(~held_out), training))
        yield predict_proba(trained.model, images.X, np.flatnonzero(held_out))
