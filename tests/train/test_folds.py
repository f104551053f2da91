"""Folds: nothing that belongs together is divided, and every class has its share."""

from pathlib import Path

import numpy as np
import pytest

from featx.dataset import ImageDataset
from featx.errors import FeatxError
from featx.train.cross_validation import resampled_interval
from featx.train.folds import make_folds

NONE = np.empty((0, 2), np.int64)


def dataset_of(labels: np.ndarray, groups: np.ndarray | None = None, copies: int = 0) -> ImageDataset:
    """A data set of so many images; the last `copies` are the same as the first."""
    n = len(labels)
    digests = np.random.default_rng(0).integers(0, 256, (n, 32), np.uint8)
    digests[n - copies :] = digests[:copies]
    names = tuple(f"class {label}" for label in range(labels.max() + 1))
    units = None if groups is None else np.repeat(groups.astype("<u8").view(np.uint8).reshape(-1, 8), 4, axis=1)
    return ImageDataset(
        Path("data"), names, tuple(f"{row}.jpg" for row in range(n)), labels, np.zeros(n, bool), digests, groups=units
    )


def test_folds_have_the_same_share_of_every_class_and_each_image_once():
    labels = np.repeat([0, 1, 2], [100, 50, 25])
    folds = make_folds(dataset_of(labels), NONE, 5, 2, seed=3)
    numbers = folds.of(dataset_of(labels))
    assert numbers.shape == (2, 175)
    for of_repeat in numbers:
        for number in range(5):
            assert np.bincount(labels[of_repeat == number]).tolist() == [20, 10, 5]
    assert (numbers[0] != numbers[1]).any()
    assert np.array_equal(make_folds(dataset_of(labels), NONE, 5, 1, seed=4).of(dataset_of(labels))[0], numbers[1])


def test_groups_copies_and_near_copies_are_in_one_fold():
    labels, groups = np.arange(120) % 2, np.arange(120) // 6
    dataset = dataset_of(labels, groups, copies=3)
    near = np.array([[10, 70], [70, 100]])
    (numbers,) = make_folds(dataset, near, 4, 1, seed=0).of(dataset)
    for group in range(20):
        assert len(np.unique(numbers[groups == group])) == 1
    assert numbers[0] == numbers[117]  # a copy in another group
    assert numbers[10] == numbers[70] == numbers[100]


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (np.arange(40) % 2, np.arange(40) // 20, "5 folds need 5 groups or more, and there are 2: choose fewer folds"),
        (np.arange(4) % 2, None, "5 folds need 5 different images or more, and there are 4"),
        (np.arange(40) // 30, np.minimum(np.arange(40), 30), "All images of the class class 1 are one group: when it"),
        (np.repeat([0, 1], [30, 2]), None, "The class class 1 has 2 images in too few groups: a fold would leave"),
    ],
)
def test_what_cannot_be_divided_is_refused(labels, groups, message):
    with pytest.raises(FeatxError, match=message):
        make_folds(dataset_of(labels, groups), NONE, 5, 1, seed=0)


def test_intervals_are_never_narrower_than_those_of_one_test_split():
    low, high = resampled_interval([0.9] * 5, 5, 0.9, 100)
    assert low == pytest.approx(0.8256, abs=1e-3)
    assert high == pytest.approx(0.9448, abs=1e-3)
    wide = resampled_interval([0.7, 0.9, 0.8, 1.0, 0.85], 5, 0.85, 100)
    assert wide[0] < low
    assert wide[1] == 1
