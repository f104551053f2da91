"""How much data is enough: each approach trained on ever more of the training images, several times over."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from featx.compare.candidates import Contender
from featx.compare.result import CurvePoint
from featx.dataset import ImageDataset, sample_mask
from featx.system import progress_bar
from featx.train import Training

#: Shares of the training images.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: Seeds, counted from the comparison's own. Each draws other images, and trains with other initial weights.
N_SEEDS = 3

#: Of each class, at least so many images, or all if there are fewer: some to learn from, some to validate on.
MIN_PER_CLASS = 4


def learning_curve(contender: Contender, dataset: ImageDataset, training: Training) -> tuple[CurvePoint, ...]:
    """Return the accuracy of a contender on the test images after training on parts of the training images."""
    shares = list(_shares(dataset))
    points = []
    with progress_bar(len(shares) * N_SEEDS, f"curve of {contender.name}", "trainings", show=training.show) as bar:
        for fraction, n_train in shares:
            accuracies = []
            for seed in range(training.seed, training.seed + N_SEEDS):
                mask = dataset.is_test | _part(dataset, fraction, seed)
                result = contender.train(mask, replace(training, seed=seed, show=False))
                accuracies.append(result.metrics.accuracy)
                bar.update()
            points.append(CurvePoint(contender.name, n_train / dataset.n_train, n_train, tuple(accuracies)))
    return tuple(points)


def _shares(dataset: ImageDataset) -> Iterator[tuple[float, int]]:
    """Yield the shares that differ in their number of training images, with that number."""
    before = 0
    for fraction in FRACTIONS:
        n_train = int(_part(dataset, fraction, 0).sum())
        if n_train > before:
            yield fraction, n_train
        before = n_train


def _part(dataset: ImageDataset, fraction: float, seed: int) -> np.ndarray:
    """Return `(n,)` bool: this share of the training images."""
    train = np.flatnonzero(~dataset.is_test)
    mask = np.zeros(dataset.n_images, bool)
    mask[train] = sample_mask(
        dataset.digests[train], dataset.labels[train], seed=seed, fraction=fraction, at_least=MIN_PER_CLASS
    )
    return mask
