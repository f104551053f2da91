"""Which images an int8 network is calibrated on: always the same ones, whoever asks."""

import hashlib

import numpy as np

from featx.dataset import ImageDataset

#: More change the ranges little, and the time to calibrate grows with them.
N_CALIBRATION = 200

#: A kept calibration goes on being used while so many of its images are still in the train split.
SHARE_STILL_THERE = 0.5


def choose_calibration(dataset: ImageDataset) -> tuple[str, ...]:
    """Return the digests, in hexadecimal, of the images to calibrate on: those with the smallest, so a random sample.

    They are of the train split, each content once, at most `N_CALIBRATION`; the same in whatever order the images come.
    """
    return tuple(sorted(_train_digests(dataset))[:N_CALIBRATION])


def calibration_digest(digests: tuple[str, ...]) -> str:
    """Return what stands for these images in a recipe: SHA-256, in hexadecimal, of their sorted digests."""
    return hashlib.sha256("".join(sorted(digests)).encode("ascii")).hexdigest()


def best_calibration(kept: list[tuple[str, ...]], dataset: ImageDataset) -> tuple[str, ...]:
    """Return the calibration of `kept` that fits `dataset` best; a new one if none does.

    A few images more or less must not mean another recipe, for then all features would have to be computed again.
    """
    train = _train_digests(dataset)

    def share(digests: tuple[str, ...]) -> float:
        return len(train.intersection(digests)) / max(1, len(digests))

    best = max(sorted(kept), key=share, default=())
    return best if share(best) >= SHARE_STILL_THERE else choose_calibration(dataset)


def calibration_rows(digests: tuple[str, ...], dataset: ImageDataset) -> np.ndarray:
    """Return `(n,)` int64: the rows of `dataset` with these images, in the order of `digests`; without what is gone."""
    row_of = {digest.tobytes().hex(): row for row, digest in enumerate(dataset.digests)}
    return np.array([row_of[digest] for digest in digests if digest in row_of], np.int64)


def _train_digests(dataset: ImageDataset) -> set[str]:
    return {digest.tobytes().hex() for digest in dataset.digests[~dataset.is_test]}
