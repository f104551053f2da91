"""Which images have features: those of a data set that was extracted, and single ones, which are computed at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from featx.backbones import Weights
from featx.dataset import (
    ImageDataset,
    Images,
    ManyImages,
    SkippedImage,
    SkippedImages,
    as_source,
    digest_sources,
    images_in,
    source_path,
)
from featx.errors import FeaturesMissingError
from featx.extract.options import ExtractionSettings
from featx.extract.pipeline import compute_missing
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore
from featx.text import printable


def readable_images(dataset: ImageDataset, store: FeatureStore, command: str) -> tuple[ImageDataset, str]:
    """Return the images that have features, and a part of a sentence about those that cannot be read, if there are any.

    Raises:
        FeaturesMissingError: an image that may be readable has none; `command` computes them.
    """
    has_features = store.contains(dataset.digests)
    others, skipped = np.flatnonzero(~has_features), SkippedImages(store.dir / "skipped.csv")
    reasons = [skipped.reason(dataset.digests[row].tobytes()) for row in others]
    if n_missing := reasons.count(None):
        raise FeaturesMissingError(
            f"{n_missing} of {dataset.n_images} images have no {store.recipe.backbone} features yet. "
            f"Make them with: {command}"
        )
    why = ""
    if reasons:
        why = f" ({len(others):,} images cannot be read, such as {printable(dataset.paths[others[0]])}: {reasons[0]})"
    return dataset.subset(has_features), why


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images whose features are in the store now, in the order in which they were given.

    Attributes:
        paths: n files; None for each image that is not a file.
        digests: `(n, 32)` uint8, SHA-256 of each one's bytes; zeros where it cannot be read.
        reasons: why each cannot be read; None where it can.
    """

    paths: tuple[StoragePath | None, ...]
    digests: np.ndarray
    reasons: tuple[str | None, ...]

    @property
    def is_readable(self) -> np.ndarray:
        """`(n,)` bool."""
        return np.array([reason is None for reason in self.reasons], bool)


def store_images(
    given: ManyImages,
    recipe: Recipe,
    find_weights: Callable[[], Weights],
    cache_dir: StoragePath,
    settings: ExtractionSettings,
) -> StoredImages:
    """Compute the features that the store lacks, and say which images cannot be read.

    Args:
        given: images in a list, a tuple, an iterator, a pandas Series or a NumPy array; a data set; one image; or a
            folder or an archive, for all images in it.
        recipe: what the features are.
        find_weights: returns the weights; called if there is something to compute.
        cache_dir: where stores lie.
        settings: how features are computed.

    Raises:
        ImageError: an image cannot be read, and `settings` are strict.
        WeightsError: features have to be computed, and the backbone's weights were not found.
        FeatxError: these are not images, or the store cannot be read or written.
    """
    sources = [as_source(item) for item in images_in(given)]
    digests, reasons = digest_sources(sources, cache_dir, show=settings.show)
    rows = np.array([row for row in range(len(sources)) if row not in reasons], np.int64)
    images = Images(sources, digests)[rows]
    unreadable = [SkippedImage.of(source_path(sources[row]), b"", reason) for row, reason in reasons.items()]
    (computed,) = compute_missing(images, [recipe], find_weights, cache_dir, settings, unreadable=unreadable)
    why = {image.digest or image.path: image.reason for image in computed.skipped}
    all_reasons = [reasons.get(row) for row in range(len(sources))]
    for row, digest in zip(rows, images.digests, strict=True):
        bad = SkippedImage.of(source_path(sources[row]), digest.tobytes(), "")
        all_reasons[row] = why.get(bad.digest) or why.get(bad.path)
    files = tuple(None if isinstance(source, np.ndarray) else source for source in sources)
    return StoredImages(files, digests, tuple(all_reasons))
