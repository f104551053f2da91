"""Cross-validation: every image is tested by a model that has seen neither it nor what belongs to it."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset
from featx.errors import FeatxError
from featx.heads import Targets, Training, at_temperature, needs_temperature, temperature_of
from featx.store import Rows
from featx.system import progress_bar
from featx.train.folds import Folds, make_folds
from featx.train.metrics import Result, measure, wilson_interval
from featx.train.near_duplicates import find_copies

log = logging.getLogger("featx")

#: Probabilities `(n, n_classes)`, and the temperature of each row, `(n,)`; None if there is none to choose.
_Calibrated = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None

#: With fewer test images than this, cross-validation is suggested: the interval of 90 % spans 5 points and more.
FEW_TEST_IMAGES = 500


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """What one model achieved in cross-validation.

    Attributes:
        results: for each repetition, what it achieved on all images, as if they were one test split. `fit_s` is the
            time of all folds, and `peak_memory_bytes` the largest of them; the rest is that of the first fold.
        accuracies: on each fold, of all repetitions.
        out_of_fold: `(n, n_classes)`, probabilities of all images in the first repetition, before calibration.
        temperatures: `(n,)`, what the results' probabilities of each image were calibrated with, in the first
            repetition; None if they were not. See `calibrated_across`.
    """

    results: tuple[Result, ...]
    accuracies: tuple[float, ...]
    out_of_fold: npt.NDArray[np.float64]
    temperatures: npt.NDArray[np.float64] | None = None

    @property
    def n_folds(self) -> int:
        """How many folds each repetition has."""
        return len(self.accuracies) // len(self.results)

    @property
    def accuracy(self) -> float:
        """The accuracy on all images, from 0 to 1: the mean over the repetitions."""
        return fmean(result.metrics.accuracy for result in self.results)

    @property
    def accuracy_sd(self) -> float:
        """The standard deviation of the accuracies on the folds."""
        return stdev(self.accuracies)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy`, see `resampled_interval`."""
        n_samples = self.results[0].metrics.n_samples
        return resampled_interval(self.accuracies, self.n_folds, self.accuracy, n_samples)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The cross-validation of all heads of a run.

    Attributes:
        folds: how the images were divided.
        heads: what each head achieved, in the order of the run's results.
    """

    folds: Folds
    heads: tuple[CrossValidated, ...]


def divide(dataset: ImageDataset, X: Rows | None, n_folds: int, n_repeats: int, training: Training) -> Folds:
    """Return folds of all images, which divide neither groups nor copies, and log how many near-duplicates there are.

    Args:
        dataset: the images.
        X: `(n, …)`, features of all of them, which find the near-duplicates; None to look for none.
        n_folds: number of folds.
        n_repeats: how often the images are divided, each time otherwise.
        training: its seed is that of the first time.

    Raises:
        FeatxError: there is too little to divide.
    """
    copies = None if X is None else find_copies(dataset, X, show=training.show)
    near = np.empty((0, 2), np.int64) if copies is None else copies.rows
    folds = make_folds(dataset, near, n_folds, n_repeats, training.seed)
    log.info(
        "Cross-validation: %d folds of all %s images. Near-duplicates that stay together: %s pairs.",
        *(n_folds, f"{dataset.n_images:,}", f"{len(near):,}"),
    )
    return folds


def cross_validate(
    train: Callable[[npt.NDArray[np.bool_], Training], Sequence[Result]],
    numbers: npt.NDArray[np.int64],
    y: Targets,
    training: Training,
    name: str,
    class_weights: npt.NDArray[np.float64] | None = None,
) -> tuple[CrossValidated, ...]:
    """Return what models achieve on each fold after training on all others; see `calibrated_across` for calibration.

    Args:
        train: returns models trained on all images but those where a mask, `(n,)` bool, is true, and measured on these;
            always the same number of models.
        numbers: `(n_repeats, n)`, the fold of each image, from 0.
        y: `(n,)`, the label of each image.
        training: how; each repetition has the next seed.
        name: what the progress bar calls it.
        class_weights: `(n_classes,)`, how much an image of each class counts when models are calibrated; or None.
    """
    n_folds = int(numbers.max()) + 1
    of_repeats: list[list[Sequence[Result]]] = []
    with progress_bar(len(numbers) * n_folds, name, "trainings", show=training.show) as bar:
        for repeat, of_image in enumerate(numbers):
            seeded = replace(training, seed=training.seed + repeat, show=False, calibrate=False)
            of_repeats.append([])
            for number in range(n_folds):
                results = train(of_image == number, seeded)
                # One model of each kind tells its number of parameters; those of all folds would fill the memory.
                of_repeats[-1].append([replace(one, model=None) for one in results] if number else results)
                bar.update()
    n_models = len(of_repeats[0][0])
    of_models = ([[fold[i] for fold in one] for one in of_repeats] for i in range(n_models))
    calibrated = partial(calibrated_across, y=y, class_weights=class_weights) if training.calibrate else None
    return tuple(_of_model(one, numbers, y, calibrated) for one in of_models)


def calibrated_across(
    probabilities: npt.NDArray[np.float64],
    of_image: npt.NDArray[np.int64],
    y: Targets,
    class_weights: npt.NDArray[np.float64] | None = None,
) -> _Calibrated:
    """Return the probabilities of all images, those of each fold calibrated by the other folds; and the temperatures.

    So no image has a part in its own calibration. All have the calibration that the heads of a run have, which are
    calibrated by all folds. None if a temperature could not be chosen.

    Args:
        probabilities: `(n, n_classes)`, of each image by a model that has not seen it.
        of_image: `(n,)`, the fold of each image.
        y: `(n,)`, the label of each image.
        class_weights: `(n_classes,)`, or None.
    """
    temperatures = np.empty(len(y))
    for number in range(int(of_image.max()) + 1):
        others = of_image != number
        found = temperature_of(probabilities[others], y[others], class_weights)
        if found is None:
            return None
        temperatures[~others] = found[0]
    return at_temperature(probabilities, temperatures, is_multilabel=y.ndim == 2), temperatures


def _of_model(
    of_repeats: Sequence[Sequence[Result]],
    numbers: npt.NDArray[np.int64],
    y: Targets,
    calibrated: Callable[[npt.NDArray[np.float64], npt.NDArray[np.int64]], _Calibrated] | None,
) -> CrossValidated:
    """Return what one model achieved; `of_repeats` are its results on each fold, for each repetition."""
    plain = [_together(results, of_image) for results, of_image in zip(of_repeats, numbers, strict=True)]
    found: list[_Calibrated] = [None] * len(plain)
    if calibrated and needs_temperature(of_repeats[0][0].name):
        found = [calibrated(*one) for one in zip(plain, numbers, strict=True)]
    shown = [after[0] if after else before for before, after in zip(plain, found, strict=True)]
    pooled = tuple(_pooled(results, rows, y) for results, rows in zip(of_repeats, shown, strict=True))
    accuracies = tuple(result.metrics.accuracy for results in of_repeats for result in results)
    return CrossValidated(pooled, accuracies, plain[0], found[0][1] if found[0] else None)


def _together(results: Sequence[Result], of_image: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the probabilities of all images, each from the result on its fold."""
    probabilities = np.empty((len(of_image), results[0].probabilities.shape[1]))
    for number, result in enumerate(results):
        probabilities[of_image == number] = result.probabilities
    return probabilities


def _pooled(results: Sequence[Result], probabilities: npt.NDArray[np.float64], y: Targets) -> Result:
    """Return the first result with the probabilities of all images, and with the time and memory of all folds."""
    return replace(
        results[0],
        probabilities=probabilities,
        metrics=measure(y, probabilities),
        out_of_fold=None,
        fit_s=sum(result.fit_s for result in results),
        peak_memory_bytes=max(result.peak_memory_bytes for result in results),
    )


def resampled_interval(accuracies: Sequence[float], n_folds: int, mean: float, n_samples: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a cross-validated accuracy.

    They are those of Nadeau and Bengio's corrected t-test, see `resampled_variance`, or of Wilson's interval of all
    images, whichever is farther from the mean: folds that happen to agree must not promise too much.

    Args:
        accuracies: on each fold, of all repetitions, from 0 to 1.
        n_folds: number of folds of a repetition.
        mean: the accuracy on all images.
        n_samples: number of images.

    Raises:
        FeatxError: there are fewer than two accuracies.
    """
    from scipy.stats import t

    low, high = wilson_interval(round(mean * n_samples), n_samples)
    variance = resampled_variance(accuracies, n_folds)
    reach = float(t.ppf(0.975, len(accuracies) - 1)) * math.sqrt(variance)
    return max(min(low, mean - reach), 0.0), min(max(high, mean + reach), 1.0)


def resampled_variance(values: Sequence[float], n_folds: int) -> float:
    """Return the corrected variance of the mean of values that each fold has one of.

    The training images of two folds are mostly the same, so the values are not independent. This adds the share of test
    to training images to the variance (Nadeau and Bengio, "Inference for the generalization error", Machine Learning
    52, 2003; for repeated cross-validation: Bouckaert and Frank, "Evaluating the replicability of significance tests
    for comparing learning algorithms", PAKDD 2004).

    Args:
        values: of each fold, of all repetitions.
        n_folds: number of folds of a repetition, 2 or more.

    Raises:
        FeatxError: there are fewer than two values.
    """
    if len(values) < 2:
        raise FeatxError(f"Cross-validation needs the values of two or more folds. Received: {len(values)}")
    return float((1 / len(values) + 1 / (n_folds - 1)) * np.var(values, ddof=1))
