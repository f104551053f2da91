"""A data set joined with its features, by the content of the images."""

from dataclasses import dataclass

import numpy as np

from featx.dataset import ImageDataset
from featx.errors import FeaturesMissingError, TrainingError, printable
from featx.recipe import Recipe
from featx.skipped import SkippedImages
from featx.store import FeatureStore
from featx.timings import Timings


@dataclass(frozen=True)
class Features:
    """A data set joined with its features; images that could not be read are in neither.

    Attributes:
        dataset: the images that have features.
        recipe: what the features are.
        X: `(n, …)` of the recipe's dtype, a row for each image of `dataset`.
        timings: what the features cost when they were made.
    """

    dataset: ImageDataset
    recipe: Recipe
    X: np.ndarray
    timings: Timings


def load_features(dataset: ImageDataset, store: FeatureStore, command: str) -> Features:
    """Return the join of `dataset` and `store`; `command` is what makes features that are missing.

    Raises:
        FeaturesMissingError: an image that may be readable has no features.
        DamagedSegmentError: a segment failed its checksum.
    """
    has_features = store.contains(dataset.digests)
    memory = SkippedImages(store.dir / "skipped.csv")
    n_missing = sum(memory.reason(dataset.digests[row].tobytes()) is None for row in np.flatnonzero(~has_features))
    if n_missing:
        raise FeaturesMissingError(
            f"{n_missing} of {dataset.n_images} images have no {store.recipe.backbone} features yet. "
            f"Make them with: {command}"
        )
    readable = dataset.subset(has_features)
    _check_classes(readable)
    return Features(readable, store.recipe, store.read(readable.digests), store.cost(readable.digests))


def _check_classes(dataset: ImageDataset) -> None:
    n_train = np.bincount(dataset.labels[~dataset.is_test], minlength=len(dataset.class_names))
    for name, n in zip(dataset.class_names, n_train, strict=True):
        if n < 2:
            raise TrainingError(
                f"The class {printable(name)} has {n} training image(s) that can be read; training needs two or more."
            )
    if not dataset.n_test:
        raise TrainingError(f"No test image of {printable(dataset.root)} can be read.")
