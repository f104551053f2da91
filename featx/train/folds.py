"""Folds for cross-validation: which images are tested together, so that nothing that belongs together is divided."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset, iterative_parts, label_shortage
from featx.errors import FeatxError
from featx.text import printable

#: More would leave too few images in each to measure anything.
MAX_FOLDS = 100

#: Each repetition has a seed of its own, and seeds have an end.
MAX_REPEATS = 1000


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each image is in, once for each repetition.

    Attributes:
        n: number of folds.
        digests: `(n_images,)` bytes of 32, sorted: SHA-256 of each image's file, none twice.
        numbers: `(n_repeats, n_images)` int64, from 0 to `n - 1`, in the order of `digests`.
    """

    n: int
    digests: npt.NDArray[np.bytes_]
    numbers: npt.NDArray[np.int64]

    def of(self, dataset: ImageDataset) -> npt.NDArray[np.int64]:
        """Return `(n_repeats, dataset.n_images)`: the fold of each image of a data set."""
        return self.numbers[:, np.searchsorted(self.digests, _keys(dataset.digests))]


def make_folds(dataset: ImageDataset, near: npt.NDArray[np.int64], n_folds: int, n_repeats: int, seed: int) -> Folds:
    """Return folds that have about the same share of each class, and divide neither groups nor copies.

    Args:
        dataset: the images.
        near: `(k, 2)` pairs of rows that show the same photograph.
        n_folds: number of folds, 2 or more.
        n_repeats: how often the images are divided, each time otherwise.
        seed: of the first time.

    Raises:
        FeatxError: there is too little to divide, or a class would have too few images to train on.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    together = images_together(dataset, near)
    n_groups = int(together.max()) + 1
    if n_groups < n_folds:
        what = "groups" if dataset.groups is not None else "different images"
        raise FeatxError(
            f"{n_folds} folds need {n_folds} {what} or more, and there are {n_groups}: choose fewer folds."
        )
    _check_classes(dataset, together)
    are_alone = n_groups == dataset.n_images
    kind = StratifiedKFold if are_alone else StratifiedGroupKFold  # the latter looks at every group in turn
    numbers = np.empty((n_repeats, dataset.n_images), np.int64)
    for repeat in range(n_repeats):
        if dataset.is_multilabel:
            lots = np.random.default_rng(seed + repeat).permutation(n_groups)
            numbers[repeat] = iterative_parts(dataset.labels, together, lots[together], n_folds)
            continue
        splitter = kind(n_splits=n_folds, shuffle=True, random_state=seed + repeat)
        parts = splitter.split(np.zeros(dataset.n_images), dataset.labels, None if are_alone else together)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class may have fewer images than there are folds
            for number, (_, rows) in enumerate(parts):
                numbers[repeat, rows] = number
    _check_training(dataset, numbers, n_folds)
    digests, first = np.unique(_keys(dataset.digests), return_index=True)
    return Folds(n_folds, digests, numbers[:, first])


def _keys(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return `(n,)` bytes for `(n, 32)` uint8; trailing zeros, which NumPy drops, tell no two digests apart wrongly."""
    return np.ascontiguousarray(digests).view("S32")[:, 0]


def images_together(dataset: ImageDataset, near: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `(n,)`: a number for each image, the same for all of a group, for copies, and for copies of these.

    Args:
        dataset: the images.
        near: `(k, 2)` pairs of rows that show the same photograph.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = dataset.n_images
    _, units = np.unique(_keys(dataset.units), return_inverse=True)
    _, contents = np.unique(_keys(dataset.digests), return_inverse=True)
    first, second = near.reshape(-1, 2).T
    rows = np.concatenate([np.arange(n), np.arange(n), first])
    columns = np.concatenate([n + units, 2 * n + contents, second])  # nodes: images, then units, then contents
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(3 * n, 3 * n))
    _, component = connected_components(graph, directed=False)
    numbers: npt.NDArray[np.int64] = np.unique(component[:n], return_inverse=True)[1]
    return numbers


def _check_classes(dataset: ImageDataset, together: npt.NDArray[np.int64]) -> None:
    """Raise FeatxError if all images of a class belong together."""
    for label, name in enumerate(dataset.class_names):
        n_groups = len(np.unique(together[dataset.has_class(label)]))
        if n_groups == 1:
            what = "one group" if dataset.groups is not None else "one image and its copies"
            noun = "label" if dataset.is_multilabel else "class"
            raise FeatxError(
                f"All images of the {noun} {printable(name)} are {what}: when it is tested, there is none to train on. "
                f"Leave the {noun} out."
            )


def _check_training(dataset: ImageDataset, numbers: npt.NDArray[np.int64], n_folds: int) -> None:
    """Raise FeatxError if a fold leaves fewer than two images of a class to train on."""
    for of_repeat in numbers:
        for number in range(n_folds):
            fold = replace(dataset, is_test=of_repeat == number)
            if shortage := label_shortage(fold):
                raise FeatxError(f"A fold leaves too few images to train on. {shortage} Or choose other folds.")
            n_train, n_tested = fold.class_counts
            for label in np.flatnonzero(n_train < 2):
                n_all = n_train[label] + n_tested[label]
                raise FeatxError(
                    f"The class {printable(dataset.class_names[label])} has {n_all} images in too few groups: a "
                    f"fold would leave fewer than two of them to train on. Choose another number of folds, or leave "
                    f"the class out."
                )
