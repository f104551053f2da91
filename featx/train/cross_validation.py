"""Cross-validation: every image is tested by a model that has seen neither it nor what belongs to it."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset
from featx.errors import FeatxError
from featx.heads import Targets, Training
from featx.store import Rows
from featx.system import progress_bar
from featx.train.folds import Folds, make_folds
from featx.train.metrics import Result, measure, wilson_interval
from featx.train.near_duplicates import find_copies

log = logging.getLogger("featx")

#: With fewer test images than this, cross-validation is suggested: the interval of 90 % spans 5 points and more.
FEW_TEST_IMAGES = 500


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """What one model achieved in cross-validation.

    Attributes:
        results: for each repetition, what it achieved on all images, as if they were one test split. `fit_s` is the
            time of all folds, and `peak_memory_bytes` the largest of them; the rest is that of the first fold.
        accuracies: on each fold, of all repetitions.
    """

    results: tuple[Result, ...]
    accuracies: tuple[float, ...]

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
) -> tuple[CrossValidated, ...]:
    """Return what models achieve on each fold after training on all others.

    Args:
        train: returns models trained on all images but those where a mask, `(n,)` bool, is true, and measured on these;
            always the same number of models.
        numbers: `(n_repeats, n)`, the fold of each image, from 0.
        y: `(n,)`, the label of each image.
        training: how; each repetition has the next seed.
        name: what the progress bar calls it.
    """
    n_folds = int(numbers.max()) + 1
    of_repeats: list[list[Sequence[Result]]] = []
    with progress_bar(len(numbers) * n_folds, name, "trainings", show=training.show) as bar:
        for repeat, of_image in enumerate(numbers):
            seeded = replace(training, seed=training.seed + repeat, show=False)
            of_repeats.append([])
            for number in range(n_folds):
                results = train(of_image == number, seeded)
                # One model of each kind tells its number of parameters; those of all folds would fill the memory.
                of_repeats[-1].append([replace(one, model=None) for one in results] if number else results)
                bar.update()
    n_models = len(of_repeats[0][0])
    return tuple(_of_model([[fold[i] for fold in one] for one in of_repeats], numbers, y) for i in range(n_models))


def _of_model(of_repeats: Sequence[Sequence[Result]], numbers: npt.NDArray[np.int64], y: Targets) -> CrossValidated:
    """Return what one model achieved; `of_repeats` are its results on each fold, for each repetition."""
    pooled = [_pooled(results, of_image, y) for results, of_image in zip(of_repeats, numbers, strict=True)]
    accuracies = [result.metrics.accuracy for results in of_repeats for result in results]
    return CrossValidated(tuple(pooled), tuple(accuracies))


def _pooled(results: Sequence[Result], of_image: npt.NDArray[np.int64], y: Targets) -> Result:
    """Return the first result with the probabilities of all images, and with the time and memory of all folds."""
    probabilities = np.empty((len(y), results[0].probabilities.shape[1]))
    for number, result in enumerate(results):
        probabilities[of_image == number] = result.probabilities
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
