"""What a store lacks of some images: found, computed, and what cannot be read remembered."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np

from featx.backbones import Weights
from featx.dataset import (
    CHANGED,
    Batch,
    DimImage,
    DimImages,
    ImageDataset,
    Images,
    SkippedImage,
    SkippedImages,
    Unreadable,
    dim_sentence,
    forget_digests,
    read_batches,
    source_path,
)
from featx.engines import Engine, EngineOptions, create_engine, default_batch_size, needs_keras
from featx.errors import DtypeOverflowError, ImageError, printable
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore, SegmentWriter, row_names
from featx.system import Stopwatch, Timings, held_interrupts, import_keras, progress_bar, reset_peak_memory

#: Told of so many images more that are done with.
Count = Callable[[int], object]

#: Holds interruptions back while its block runs; yields what tells whether one has come.
Holding = Callable[[], AbstractContextManager[Callable[[], bool]]]
log = logging.getLogger("featx")


@dataclass
class StageOne:
    """Computes features of images, of one recipe.

    Threads decode a few batches ahead, the engine has a few under way, and what it has finished is collected for the
    next segment. Ctrl-C and SIGTERM take effect when the batches under way are finished and kept.

    The engine is started for the first image that can be read, so that a folder of damaged files costs nothing, and
    kept until `close`. Images that come out nearly black are added to `dim`.
    """

    recipe: Recipe
    weights: Weights
    store: FeatureStore
    cache_dir: StoragePath
    engine_options: EngineOptions
    workers: int | None
    dataset: ImageDataset | None  # has the images that an int8 network is calibrated on
    dim: list[DimImage] = field(default_factory=list, init=False)
    _engine: Engine | None = field(default=None, init=False)

    def run(self, images: Images, skipped: list[SkippedImage], *, strict: bool, show: bool) -> Timings:
        """Store the features of `images` and return what they cost; what cannot be read is added to `skipped`."""
        with progress_bar(len(images), self.recipe.backbone, self.unit, show=show) as bar:
            return self.compute(images, skipped, bar.update, held_interrupts, strict=strict, show=show)

    @property
    def unit(self) -> str:
        """What is counted."""
        return "views" if self.recipe.augmentation else "images"

    def compute(
        self,
        images: Images,
        skipped: list[SkippedImage],
        count: Count,
        holding: Holding,
        *,
        strict: bool,
        show: bool = False,
        side_by_side: int = 1,
    ) -> Timings:
        """Do as `run`, for someone who counts and interrupts in another way; see `Stopwatch` for `side_by_side`."""
        reset_peak_memory()
        stopwatch = Stopwatch(side_by_side)
        batches = read_batches(
            images.sources,
            images.digests,
            self.recipe.image_size,
            default_batch_size(self.engine_options),
            self.workers,
            views=images.views,
            augmentation=self.recipe.augmentation,
        )
        with ExitStack() as stack:
            stack.enter_context(closing(batches))
            writer = stack.enter_context(SegmentWriter(self.store, stopwatch))
            batches_in_time = self._noting_dim(images, stopwatch.waiting("decode", batches))
            readable = _readable(images, batches_in_time, skipped, count, strict=strict)
            first = next(readable, None)
            if first is not None:
                engine = self._started_engine(stopwatch, show=show)
                under_way = _UnderWay(engine, writer, stopwatch, self.recipe, images, count)
                with holding() as interrupted:
                    for batch in chain([first], readable):
                        under_way.submit(batch)
                        if interrupted():
                            break
                    under_way.collect(0)
        return writer.timings

    def _noting_dim(self, images: Images, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.dim += [DimImage.of(images, dim) for dim in batch.dim]
            yield batch

    def close(self) -> None:
        """Wait for what the engine has under way, and free what it holds."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _started_engine(self, stopwatch: Stopwatch, *, show: bool) -> Engine:
        if self._engine is None:
            if needs_keras(self.recipe, self.cache_dir, self.engine_options):
                import_keras()
                stopwatch.restart()  # the start of Keras is no cost of this backbone
            with stopwatch.phase("start"):
                self._engine = create_engine(
                    self.recipe, self.weights, self.cache_dir, self.dataset, self.engine_options, show=show
                )
        return self._engine


def _readable(
    images: Images, batches: Iterable[Batch], skipped: list[SkippedImage], count: Count, *, strict: bool
) -> Iterator[Batch]:
    """Yield the batches that have an image; what cannot be read is added to `skipped`.

    Raises:
        ImageError: `strict`, and an image cannot be read.
    """
    for batch in batches:
        skipped += [_skipped(images, image) for image in batch.unreadable]
        count(len(batch.unreadable))
        if strict and batch.unreadable:
            raise strict_error(skipped[-1])
        if len(batch.rows):
            yield batch


def _skipped(images: Images, image: Unreadable) -> SkippedImage:
    digest = images.digests[image.row].tobytes() if image.is_content else b""
    return SkippedImage.of(source_path(images.sources[image.row]), digest, image.reason)


class _UnderWay:
    """The batches that the engine is computing, in their order."""

    def __init__(
        self, engine: Engine, writer: SegmentWriter, stopwatch: Stopwatch, recipe: Recipe, images: Images, count: Count
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._stopwatch = stopwatch
        self._recipe = recipe
        self._images = images
        self._count = count
        self._waiting: deque[tuple[Batch, Future[np.ndarray]]] = deque()

    def submit(self, batch: Batch) -> None:
        """Have a batch computed, and hand on what is finished."""
        with self._stopwatch.phase("forward"):
            self._waiting.append((batch, self._engine.submit(batch.images)))
        self.collect(self._engine.depth)

    def collect(self, limit: int) -> None:
        """Hand on to the writer what is finished, until no more than `limit` batches are under way.

        Raises:
            DtypeOverflowError: a feature does not fit the storage dtype.
            StoreError: a segment cannot be written.
        """
        while len(self._waiting) > limit or (self._waiting and self._waiting[0][1].done()):
            batch, future = self._waiting.popleft()
            with self._stopwatch.phase("forward"):
                features = future.result()
            images = self._images[batch.rows]
            self._writer.add(self._to_storage(features, batch), images.digests, images.views)
            self._count(len(batch.rows))

    def _to_storage(self, features: np.ndarray, batch: Batch) -> np.ndarray:
        """Return `features` in the storage dtype; raise rather than store infinity."""
        dtype = self._recipe.dtype
        with np.errstate(over="ignore"):  # said below, and better
            stored = features.astype(dtype)
        fits = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
        if fits.all():
            return stored
        bad = int(np.flatnonzero(~fits)[0])
        name = printable(source_path(self._images.sources[batch.rows[bad]]))
        largest = np.abs(features[bad]).max()
        if np.isfinite(largest):
            raise DtypeOverflowError(
                f"The features of {name} reach {largest:.6g}, more than {dtype} holds ({np.finfo(dtype).max:.6g}). "
                f"Extract with --dtype float32."
            )
        raise DtypeOverflowError(f"The features of {name} are not finite: the weights do not suit this network.")


def strict_error(image: SkippedImage) -> ImageError:
    """Return the error that `--strict` makes of a skipped image."""
    return ImageError(f"{printable(image.path)} cannot be read: {image.reason}. Without --strict it would be skipped.")


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
    cache_dir: StoragePath,
    engine_options: EngineOptions,
    *,
    unreadable: Sequence[SkippedImage] = (),
    whole_folder: StoragePath | None = None,
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
                run = stage.run
                if ray_address:
                    from featx.extract.cluster import run_on_cluster  # which is of this module, and seldom wanted

                    run = partial(run_on_cluster, ray_address, stage)
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
