"""What a store lacks of some images: found, computed, and what cannot be read remembered."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from featx.cluster import run_on_cluster
from featx.dataset import ImageDataset
from featx.digests import forget_digests
from featx.dim_images import DimImages, dim_sentence
from featx.engines import EngineOptions
from featx.errors import printable
from featx.image_sources import Images, source_path
from featx.places import Place
from featx.reader import CHANGED
from featx.recipe import Recipe
from featx.skipped import SkippedImage, SkippedImages
from featx.stage_one import StageOne, strict_error
from featx.store import FeatureStore, row_names
from featx.timings import Timings
from featx.weights import Weights

log = logging.getLogger("featx")


@dataclass(frozen=True)
class Computed:
    """What was computed, and what could not be.

    Attributes:
        is_cached: `(n,)` bool, the images whose features were there.
        skipped: images that could not be read.
        timings: what was computed now has cost.
    """

    is_cached: np.ndarray
    skipped: tuple[SkippedImage, ...]
    timings: Timings


def compute_missing(
    images: Images,
    recipe: Recipe,
    find_weights: Callable[[], Weights],
    cache_dir: Place,
    engine_options: EngineOptions,
    *,
    unreadable: Sequence[SkippedImage] = (),
    whole_folder: Place | None = None,
    dataset: ImageDataset | None = None,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    ray_address: str | None = None,
) -> Computed:
    """Make the store of `recipe` hold the features of `images`.

    Args:
        images: what is wanted; views other than 0 if the recipe says how they are made.
        recipe: what the features are.
        find_weights: returns the weights that the recipe names; called if there is something to compute.
        cache_dir: where stores lie.
        engine_options: how the backbone is run.
        unreadable: files that are wanted, too, but have no digest.
        whole_folder: the images are all that lie in this folder: others in it that were skipped once are forgotten.
        dataset: has the images that an int8 network is calibrated on.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        show: show progress on stderr.
        ray_address: the Ray cluster that computes them, as `ray.init` knows it; this process if None.

    Raises:
        DtypeOverflowError: a feature does not fit the storage dtype. What was computed before is kept.
        ImageError: `strict`, and an image cannot be read. What was computed before is kept.
        StoreError: the store cannot be read or written.
        WeightsError: the weights are not to be found.
    """
    store = FeatureStore(cache_dir, recipe)
    memory = SkippedImages(store.dir / "skipped.csv")
    dim = DimImages(store.dir / "dim.json")
    is_cached = store.contains(images.digests, images.views)
    missing = np.flatnonzero(~is_cached)
    log.debug("Recipe: %s", recipe.to_json())
    log.debug("Store: %s, %d segments, %d rows.", printable(store.dir), len(store.segments), len(store))
    skipped = [*unreadable, *_bad(images, missing, memory.reason)]
    todo = _todo(images, missing, skipped)
    log.debug("Of %d images, %d are in the store and %d are to be computed.", len(images), is_cached.sum(), len(todo))
    timings = Timings()
    try:
        if strict and skipped:
            raise strict_error(skipped[0])
        if todo.size:
            store.check_writable()
            stage = StageOne(recipe, find_weights(), store, cache_dir, engine_options, workers, dataset)
            with closing(stage):
                run = partial(run_on_cluster, ray_address, stage) if ray_address else stage.run
                try:
                    timings = run(images[todo], skipped, strict=strict, show=show)
                finally:
                    dim.remember(stage.dim)
        if recipe.augmentation is None:  # else it has been said of the images themselves
            _warn(dim_sentence(dim.among(images.digests, lambda row: printable(source_path(images.sources[row])))))
    finally:
        store.publish()
        skipped = _every_file(images, missing, skipped)
        memory.remember(skipped, whole_folder)
        forget_digests([image.path for image in skipped if image.reason == CHANGED], cache_dir)
    return Computed(is_cached, tuple(skipped), timings)


def _warn(sentence: str) -> None:
    if sentence:
        log.warning("%s", sentence)


def _bad(images: Images, rows: np.ndarray, reason_of: Callable[[bytes], str | None]) -> Iterator[SkippedImage]:
    """Yield those of the images `rows` whose content is no image, by what `reason_of` says of their digests."""
    for row in rows:
        digest = images.digests[row].tobytes()
        if reason := reason_of(digest):
            yield SkippedImage.of(source_path(images.sources[row]), digest, reason)


def _every_file(images: Images, rows: np.ndarray, skipped: Sequence[SkippedImage]) -> list[SkippedImage]:
    """Return `skipped` with those of the images `rows` that have the same bad content: only one of them was tried.

    A file is there once, however many views of it are wanted.
    """
    reasons = {bytes.fromhex(image.digest): image.reason for image in skipped if image.digest}
    same = _bad(images, rows, reasons.get) if reasons else ()
    return list(dict.fromkeys((*(image for image in skipped if not image.digest), *same)))


def _todo(images: Images, missing: np.ndarray, skipped: list[SkippedImage]) -> np.ndarray:
    """Return the rows to compute, `(n,)` int64: one for each view of a content that is neither stored nor bad."""
    names = row_names(images.digests[missing], np.broadcast_to(images.views, len(images))[missing])
    _, first = np.unique(names, return_index=True)
    rows = missing[np.sort(first)]
    bad = {image.digest for image in skipped}
    if not bad:
        return rows
    return rows[[digest.tobytes().hex() not in bad for digest in images.digests[rows]]]
