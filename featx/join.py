"""A data set joined with its features, by the content of the images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featx.data_frames import data_frame
from featx.dataset import ImageDataset, scan
from featx.errors import FeaturesMissingError, TrainingError, printable
from featx.extract import extract_command
from featx.recipe import Recipe
from featx.resolve import RecipeOptions, resolve_recipe
from featx.skipped import SkippedImages
from featx.store import FeatureStore
from featx.timings import Timings

if TYPE_CHECKING:
    import pandas as pd


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

    @property
    def y(self) -> np.ndarray:
        """Labels, `(n,)` int64, indices into `class_names`."""
        return self.dataset.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.class_names

    @property
    def paths(self) -> np.ndarray:
        """The image files, `(n,)` of `str`, relative to the data set's folder."""
        return np.array(self.dataset.paths, dtype=object)

    @property
    def split(self) -> np.ndarray:
        """`(n,)` of `str`: `"train"` or `"test"`."""
        return np.where(self.dataset.is_test, "test", "train")

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with `path`, `label`, `split`, and a column for each feature: `f0`, `f1`, ….

        Raises:
            FeatxError: pandas is not installed.
        """
        labels = [self.class_names[label] for label in self.y]
        columns = self.X.reshape(len(self.X), -1).T
        features = {f"f{number}": column for number, column in enumerate(columns)}
        return data_frame({"path": self.paths, "label": labels, "split": self.split} | features)


def load_features(
    dataset: ImageDataset | Path | str, *, cache_dir: Path | str = "cache", **options: Unpack[RecipeOptions]
) -> Features:
    """Return the cached features of a data set, with labels, paths and split, as NumPy arrays.

    >>> features = load_features("data", image_size=(64, 64))  # doctest: +SKIP
    >>> features.X.shape, features.X.dtype, features.class_names  # doctest: +SKIP
    ((32, 2, 2, 512), dtype('float16'), ('cats', 'dogs'))
    >>> features.to_pandas().columns[:4].tolist()  # doctest: +SKIP
    ['path', 'label', 'split', 'f0']

    Args:
        dataset: what `featx.scan` returns, or its folder.
        cache_dir: where stores lie.
        options: the recipe, see `featx.resolve.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that makes them.
        FeatxError: the data set, the weights or the store is not fit; the message says what to do.
    """
    cache_dir = Path(cache_dir)
    if not isinstance(dataset, ImageDataset):
        dataset = scan(Path(dataset), cache_dir)
    recipe, _ = resolve_recipe(cache_dir, dataset, **options)
    return join_features(dataset, FeatureStore(cache_dir, recipe), extract_command(dataset.root, cache_dir, **options))


def join_features(dataset: ImageDataset, store: FeatureStore, command: str) -> Features:
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
