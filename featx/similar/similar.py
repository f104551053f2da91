"""The images of a data set that are most similar to others, by the features in the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import numpy.typing as npt

from featx.dataset import UNLABELLED, Data, ImageDataset, ManyImages, label_texts, scan
from featx.errors import FeatxError
from featx.extract import (
    DEFAULT_CACHE_DIR,
    ExtractionOptions,
    ExtractionSettings,
    StoredImages,
    check_options,
    extract_command,
    readable_images,
    resolve_recipe,
    split_options,
    store_images,
)
from featx.storage import StoragePath, as_cache_dir
from featx.store import FeatureStore, nearest_rows, stored_rows, unit_rows
from featx.system import data_frame, progress_bar, whole_number

if TYPE_CHECKING:
    import pandas as pd

#: More similar images than anybody looks at.
MAX_K = 10_000


@dataclass(frozen=True, eq=False)
class SimilarImages:
    """For each of q photographs, the k images of a data set that are most similar to it, the most similar first.

    Attributes:
        dataset: the images that were searched.
        photos: q files; None for each photograph that is not a file.
        rows: `(q, k)` int64, rows of `dataset`; -1 where there are fewer, or the photograph cannot be read.
        similarity: `(q, k)` float32, the cosine of the two images' features, at most 1; NaN where the row is -1.
        reasons: why each photograph cannot be read; None where it can.
    """

    dataset: ImageDataset
    photos: tuple[StoragePath | None, ...]
    rows: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.photos)

    def __repr__(self) -> str:
        return f"<SimilarImages: {self.rows.shape[1]} of {self.dataset.n_images:,} images for each of {len(self)}>"

    def of(self, photo: int) -> list[tuple[StoragePath, str, float]]:
        """Return what is similar to the photograph with this number: file, class and similarity of each image.

        An image without a label has an empty class.
        """
        dataset = self.dataset
        names = ["" if name == UNLABELLED else name for name in dataset.class_names]
        return [
            (dataset.root / dataset.paths[row], *label_texts(dataset.labels[[row]], names), float(cosine))
            for row, cosine in zip(self.rows[photo], self.similarity[photo], strict=True)
            if row >= 0
        ]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with `photo`, `rank` from 1, `similarity`, `path` and `label`, a row for each similar image.

        Raises:
            FeatxError: pandas is not installed.
        """
        found = [
            (photo and str(photo), rank, cosine, str(path), label)
            for number, photo in enumerate(self.photos)
            for rank, (path, label, cosine) in enumerate(self.of(number), start=1)
        ]
        names = ("photo", "rank", "similarity", "path", "label")
        return data_frame({name: [row[column] for row in found] for column, name in enumerate(names)})


def find_similar(
    data: Data,
    photos: ManyImages,
    *,
    k: int = 10,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    **options: Unpack[ExtractionOptions],
) -> SimilarImages:
    """Return the images of a data set that are most similar to some photographs.

    The similarity is the cosine of the features of the two images, averaged over positions if there are any. It is
    computed for every image, some megabytes of features at a time. A photograph that is itself a file of the data set
    is not similar to itself; a copy of it is.

    >>> similar = find_similar("data", ["photo.jpg"], k=3, image_size=150)  # doctest: +SKIP
    >>> [path.name for path, label, similarity in similar.of(0)]  # doctest: +SKIP
    ['cat.17.jpg', 'cat.4.jpg', 'dog.9.jpg']

    Args:
        data: as for `extract_features`. It needs no labels.
        photos: as for `Classifier.predict`. The features of those that are new are computed, and go to the store.
        k: number of images for each photograph.
        cache_dir: where the feature stores are.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first photograph that cannot be read.
        show: show progress on stderr.
        options: of the recipe and the engine, see `featx.extract.options.ExtractionOptions`.

    Raises:
        FeaturesMissingError: the store lacks features of the data set; the message names the command that computes
            them.
        ImageError: `strict`, and a photograph cannot be read.
        FeatxError: the data set, the photographs, the weights or the store cannot be used.
    """
    k = whole_number("k", k, most=MAX_K)
    cache_dir = as_cache_dir(cache_dir)
    recipe_options, engine_options = split_options(options)
    check_options(cache_dir, **recipe_options)
    settings = ExtractionSettings(engine_options=engine_options, workers=workers, strict=strict, show=show)
    dataset = scan(data, cache_dir, to_train=False, show=show)
    recipe, weights = resolve_recipe(cache_dir, dataset, **recipe_options)
    command = extract_command(dataset.folders, cache_dir, None, **recipe_options)
    dataset, why = readable_images(dataset, FeatureStore(cache_dir, recipe), command)
    if not dataset.n_images:
        raise FeatxError(f"There is no image to compare with{why}.")
    images = store_images(photos, recipe, lambda: weights, cache_dir, settings)
    store, readable = FeatureStore(cache_dir, recipe), np.flatnonzero(images.is_readable)
    rows = np.full((len(images.paths), min(k, dataset.n_images)), -1, np.int64)
    similarity = np.full(rows.shape, np.nan, np.float32)
    if len(readable):
        queries = unit_rows(store.read(images.digests[readable]))
        own, X = _own_rows(dataset, images)[readable], stored_rows(store, dataset.digests)
        with progress_bar(dataset.n_images, "compare", "images", show=show) as bar:
            rows[readable], similarity[readable] = nearest_rows(queries, X, k, own=own, done=bar.update)
    return SimilarImages(dataset, images.paths, rows, similarity, images.reasons)


def _own_rows(dataset: ImageDataset, images: StoredImages) -> npt.NDArray[np.int64]:
    """Return the row of each image in the data set, `(q,)` int64; -1 of one that is no file of it."""
    own = np.full(len(images.paths), -1, np.int64)
    for number, (path, digest) in enumerate(zip(images.paths, images.digests, strict=True)):
        for row in np.flatnonzero((dataset.digests == digest).all(axis=1)) if path else ():
            if _resolved(dataset.root / dataset.paths[row]) == _resolved(path):
                own[number] = row
    return own


def _resolved(path: StoragePath | None) -> StoragePath | None:
    return path.resolve() if isinstance(path, Path) else path
