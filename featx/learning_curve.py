"""How much data is enough: each approach trained on ever more of the training images, several times over."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from featx.comparison import CurvePoint
from featx.dataset import ImageDataset
from featx.join import Features
from featx.progress import progress_bar
from featx.results import Training
from featx.rivals import train_on_pixels
from featx.splits import sample_mask
from featx.train import train_on_features

#: Shares of the training images.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: Seeds, counted from the comparison's own. Each draws other images, and trains with other initial weights.
N_SEEDS = 3

#: Of each class, at least so many images, or all if there are fewer: some to learn from, some to validate on.
MIN_PER_CLASS = 4


def head_curve(features: Features, head: str, training: Training) -> tuple[CurvePoint, ...]:
    """Return the accuracy of a head on the test images after training on a part of the training images."""

    def accuracy(rows: np.ndarray, seeded: Training) -> float:
        part = replace(features, dataset=features.dataset.subset(rows), X=features.X[rows])
        return train_on_features(part, head, seeded).metrics.accuracy

    return _curve(f"{features.recipe.backbone} + {head}", features.dataset, training, accuracy)


def rival_curve(
    dataset: ImageDataset, rival: str, training: Training, cache_dir: Path, workers: int | None = None
) -> tuple[CurvePoint, ...]:
    """Return the accuracy of a network trained from scratch on a part of the training images."""

    def accuracy(rows: np.ndarray, seeded: Training) -> float:
        return train_on_pixels(dataset.subset(rows), rival, seeded, cache_dir, workers).metrics.accuracy

    return _curve(rival, dataset, training, accuracy)


def _curve(
    name: str, dataset: ImageDataset, training: Training, accuracy: Callable[[np.ndarray, Training], float]
) -> tuple[CurvePoint, ...]:
    """Return a point for each share; `accuracy` trains on the rows where its mask, `(n,)` bool, is true."""
    shares = list(_shares(dataset))
    points = []
    with progress_bar(len(shares) * N_SEEDS, f"curve of {name}", "trainings", show=training.show) as bar:
        for fraction, n_train in shares:
            accuracies = []
            for seed in range(training.seed, training.seed + N_SEEDS):
                mask = dataset.is_test | _part(dataset, fraction, seed)
                accuracies.append(accuracy(mask, replace(training, seed=seed, show=False)))
                bar.update()
            points.append(CurvePoint(name, n_train / dataset.n_train, n_train, tuple(accuracies)))
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
