"""The features of a data set, found in the store by the content of its images."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featx.dataset import Data, DimImages, ImageDataset, dim_sentence, label_shortage, scan, views_of
from featx.errors import FeaturesMissingError, FeatxError, TrainingError
from featx.extract import (
    DEFAULT_CACHE_DIR,
    RecipeOptions,
    check_options,
    extract_command,
    readable_images,
    resolve_recipe,
)
from featx.images import Views, as_views
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir
from featx.store import FeatureStore, Rows, StreamedViews, ViewRows, row_bytes, stored_rows, take, take_views
from featx.system import MemoryLimit, Timings, as_mask, data_frame, size
from featx.text import printable
from featx.train.metrics import commonest_class
from featx.train.multilabel_metrics import NO_LABEL, commonest_labels

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("featx")


@dataclass(frozen=True)
class Features:
    """A data set with its features; images that could not be read are in neither.

    Attributes:
        dataset: the images that have features.
        recipe: what the features are.
        X: `(n, …)` of the recipe's dtype, a row for each image of `dataset`; on disk if they do not fit in memory.
        timings: what it took to compute the features, including those of the training images' views.
        train_views: `(n_train, n_views, …)`, a row for each training image; None without augmented views.
        test_views: `(n_test, n_views, …)`, a row for each test image; None unless they are to be averaged over.
        test_views_timings: what it took to compute those.
    """

    dataset: ImageDataset
    recipe: Recipe
    X: Rows
    timings: Timings
    train_views: ViewRows | None = None
    test_views: ViewRows | None = None
    test_views_timings: Timings = field(default_factory=Timings)

    def __repr__(self) -> str:
        return (
            f"<Features of {self.dataset.n_images:,} images in {len(self.class_names)} classes: "
            f"{self.recipe.backbone}, X {self.X.shape} {self.X.dtype}>"
        )

    @property
    def y(self) -> np.ndarray:
        """Labels, `(n,)` int64, indices into `class_names`; or `(n, n_classes)` bool if images can have several."""
        return self.dataset.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.class_names

    @property
    def paths(self) -> np.ndarray:
        """The image files, `(n,)` of `str`, relative to the data set's folder."""
        return np.array(list(self.dataset.paths), dtype=object)

    @property
    def split(self) -> np.ndarray:
        """`(n,)` of `str`: `"train"` or `"test"`."""
        return np.where(self.dataset.is_test, "test", "train")

    @property
    def test_baseline(self) -> tuple[str, float]:
        """The most common class of the test images, or set of labels, and the accuracy of always answering it."""
        if self.dataset.is_multilabel:
            labels, share = commonest_labels(self.y[self.dataset.is_test])
            return "|".join(self.class_names[label] for label in labels) or NO_LABEL, share
        label, share = commonest_class(self.y[self.dataset.is_test])
        return self.class_names[label], share

    def subset(self, mask: np.ndarray) -> "Features":
        """Return the images where `mask`, `(n,)` bool, is true, with the timings of all."""
        is_test, mask = self.dataset.is_test, as_mask(mask, self.dataset.n_images)
        return replace(
            self,
            dataset=self.dataset.subset(mask),
            X=take(self.X, mask),
            train_views=None if self.train_views is None else take_views(self.train_views, mask[~is_test]),
            test_views=None if self.test_views is None else take_views(self.test_views, mask[is_test]),
        )

    def with_test(self, is_test: np.ndarray) -> "Features":
        """Return the same with another test split: the images where `is_test`, `(n,)` bool, is true.

        Raises:
            FeatxError: there are views, which belong to the training images of one split.
        """
        if self.train_views is not None or self.test_views is not None:
            raise FeatxError("Views belong to one split: leave them out to divide the images otherwise.")
        return replace(self, dataset=replace(self.dataset, is_test=as_mask(is_test, self.dataset.n_images)))

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with `path`, `label`, `split`, and a float32 column for each feature: `f0`, `f1`, ….

        pandas computes in the dtype of a column, and float16 overflows when pandas sums or shows it.

        Raises:
            FeatxError: pandas is not installed.
        """
        labels = self.dataset.label_texts
        columns = self.X[:].reshape(len(self.X), -1).astype(np.float32).T
        features = {f"f{number}": column for number, column in enumerate(columns)}
        return data_frame({"path": self.paths, "label": labels, "split": self.split} | features)


def load_features(
    dataset: ImageDataset | Data,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    views: Views | int | None = None,
    **options: Unpack[RecipeOptions],
) -> Features:
    """Return the cached features of a data set, with labels, paths and split, as NumPy arrays.

    >>> features = load_features("data", image_size=(64, 64))  # doctest: +SKIP
    >>> features.X.shape, features.X.dtype, features.class_names  # doctest: +SKIP
    ((32, 2, 2, 512), dtype('float16'), ('cats', 'dogs'))
    >>> features.to_pandas().columns[:4].tolist()  # doctest: +SKIP
    ['path', 'label', 'split', 'f0']

    Args:
        dataset: what `featx.scan` returns, or takes.
        cache_dir: where the feature stores are.
        views: the augmented views to load as well, at most as many as are stored.
        options: the recipe, see `featx.extract.options.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that computes them.
        FeatxError: the data set, the weights or the store cannot be used; the message says what to do.
    """
    cache_dir, views = as_cache_dir(cache_dir), as_views(views)
    check_options(cache_dir, **options)
    if not isinstance(dataset, ImageDataset):
        dataset = scan(dataset, cache_dir)
    recipe, _ = resolve_recipe(cache_dir, dataset, **options)
    command = extract_command(dataset.folders, cache_dir, views, **options)
    features = stored_features(dataset, FeatureStore(cache_dir, recipe), command)
    return with_views(features, views, cache_dir, command) if views else features


def stored_features(
    dataset: ImageDataset, store: FeatureStore, command: str, memory: MemoryLimit | None = None
) -> Features:
    """Return `dataset` with its features in `store`; `command` computes missing features.

    They are read into memory, unless they take more than `memory`, if that is given.

    Raises:
        FeaturesMissingError: an image that may be readable has no features.
        DamagedSegmentError: a segment failed its checksum.
    """
    readable, why = readable_images(dataset, store, command)
    _check_classes(readable, why)
    if dataset.n_test and not readable.n_test:
        raise TrainingError(f"No test image of {printable(dataset.root)} can be read{why}.")
    X = read_rows(store, readable.digests, memory)
    return Features(readable, store.recipe, X, store.cost(readable.digests))


def with_views(
    features: Features, views: Views, cache_dir: StoragePath, command: str, memory: MemoryLimit | None = None
) -> Features:
    """Return `features` with those of augmented views; `command` computes missing views.

    Raises:
        FeaturesMissingError: the store lacks some.
        DamagedSegmentError: a segment failed its checksum.
    """
    dataset = features.dataset
    store = FeatureStore(cache_dir, replace(features.recipe, augmentation=views.augmentation))
    wanted = (views_of(dataset.subset(rows), views.n) for rows in (~dataset.is_test, dataset.is_test & views.of_test))
    names = [(images.digests, np.asarray(images.views)) for images in wanted]
    n_missing = sum(int((~store.contains(*of_split)).sum()) for of_split in names)
    if n_missing:
        raise FeaturesMissingError(
            f"{n_missing} of {sum(len(numbers) for _, numbers in names)} views have no {store.recipe.backbone} "
            f"features yet. Make them with: {command}"
        )
    n_bytes = row_bytes(features.X) * (dataset.n_images + sum(len(numbers) for _, numbers in names))
    if isinstance(features.X, np.ndarray):
        if memory is None or memory.holds(n_bytes):
            memory = None  # all is read
        else:
            X = _rows_on_disk(FeatureStore(cache_dir, features.recipe), dataset.digests, memory, n_bytes)
            features = replace(features, X=X)
    of_train, of_test = (_view_rows(store, *of_split, views.n, memory) for of_split in names)
    train_cost, test_cost = (store.cost(*of_split) for of_split in names)
    return replace(
        features,
        timings=features.timings + train_cost,
        train_views=of_train,
        test_views=of_test,
        test_views_timings=test_cost,
    )


def read_rows(store: FeatureStore, digests: np.ndarray, memory: MemoryLimit | None) -> Rows:
    """Return the features of the images with `digests`, `(n, 32)` uint8: on disk if they do not fit `memory`."""
    n_bytes = len(digests) * (store.segments[0].row_bytes if store.segments else 0)
    if memory is None or memory.holds(n_bytes):
        return store.read(digests)
    return _rows_on_disk(store, digests, memory, n_bytes)


def data_warnings(scanned: ImageDataset, readable: ImageDataset, store_dirs: Iterable[StoragePath]) -> tuple[str, ...]:
    """Return what the user should know about the data, one sentence each, including images without features.

    Args:
        scanned: the data set as it was scanned.
        readable: those of its images that could be read.
        store_dirs: the stores of their features.
    """
    warnings = list(scanned.warnings)
    if n_lost := scanned.n_images - readable.n_images:
        kept = set(readable.paths)
        first = next(path for path in scanned.paths if path not in kept)
        sentence = f"Left out because they cannot be read: {n_lost:,} of {scanned.n_images:,} images, such as"
        warnings.append(f"{sentence} {printable(first)}.")
    n_train, _ = readable.class_counts
    if len(alone := np.flatnonzero(n_train == 1)):
        those = f"{len(alone):,} of {len(n_train):,} classes, such as" if len(alone) > 1 else "the class"
        warnings.append(f"Only one training image: {those} {printable(readable.class_names[alone[0]])}.")
    dim = [
        image
        for store_dir in store_dirs
        for image in DimImages(store_dir / "dim.json").among(
            readable.digests, lambda row: printable(readable.paths[row])
        )
    ]
    return (*warnings, *filter(None, [dim_sentence(dim)]))


def _rows_on_disk(store: FeatureStore, digests: np.ndarray, memory: MemoryLimit, n_bytes: int) -> Rows:
    """Return the same, left on disk, and say so: with the views, if there are any, they would take `n_bytes`."""
    log.info(
        "%s of %s features stay on disk during training, because they need more memory than %s (--memory). "
        "Heads read them from there.",
        size(n_bytes),
        store.recipe.backbone,
        size(memory.n_bytes),
    )
    return stored_rows(store, digests, buffer_bytes=memory.buffer_bytes)


def _view_rows(
    store: FeatureStore, digests: np.ndarray, numbers: np.ndarray, n_views: int, memory: MemoryLimit | None
) -> ViewRows | None:
    """Return the features of views, `n_views` of each image: on disk if there is a limit; None of no image."""
    if not len(digests):
        return None
    if memory:
        return StreamedViews(stored_rows(store, digests, numbers, buffer_bytes=memory.buffer_bytes), n_views)
    features = store.read(digests, numbers)
    return features.reshape(-1, n_views, *features.shape[1:])


def _check_classes(dataset: ImageDataset, why: str) -> None:
    """Raise TrainingError for a class without images to train on."""
    if shortage := label_shortage(dataset):
        raise TrainingError(f"{shortage}{why}")
    n_train, _ = dataset.class_counts
    for name, n in zip(dataset.class_names, n_train, strict=True):
        if not n:
            raise TrainingError(f"The class {printable(name)} has no training image that can be read{why}.")
