"""Stage one: finds the features that a store does not have, and computes them; reader → engine → writer."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from featx.backbones import Weights, check_recipe
from featx.dataset import (
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
from featx.engines import Engine, create_engine, default_batch_size, needs_keras
from featx.errors import DtypeOverflowError, ImageError
from featx.extract.options import ExtractionSettings
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore, SegmentWriter, row_names
from featx.system import Stopwatch, Timings, held_interrupts, import_keras, progress_bar, reset_peak_memory, waiting
from featx.text import printable

#: Called with the number of images that were finished since the last call.
Count = Callable[[int], object]

#: Holds interruptions back while its block runs; yields a function that says whether there was one.
Holding = Callable[[], AbstractContextManager[Callable[[], bool]]]
log = logging.getLogger("featx")


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What was added to a store.

    Attributes:
        recipe: what its features are.
        store_dir: the folder of the store.
        n_computed: images, or views, computed now.
        n_cached: images, or views, whose features were in the store already.
        skipped: images that could not be read.
        timings: what it took to compute the new ones.
    """

    recipe: Recipe
    store_dir: StoragePath
    n_computed: int
    n_cached: int
    skipped: tuple[SkippedImage, ...]
    timings: Timings


def compute_missing(
    images: Images,
    recipe: Recipe,
    find_weights: Callable[[], Weights],
    cache_dir: StoragePath,
    settings: ExtractionSettings,
    *,
    dataset: ImageDataset | None = None,
    unreadable: Sequence[SkippedImage] = (),
    whole_folder: StoragePath | None = None,
) -> Computed:
    """Compute the features of `images` that the store of `recipe` does not have yet.

    Args:
        images: what is wanted; views other than 0 if the recipe says how they are made.
        recipe: what the features are.
        find_weights: returns the weights that the recipe names; called if there is something to compute.
        cache_dir: where stores lie.
        settings: how they are computed.
        dataset: has the images that an int8 network is calibrated on.
        unreadable: files that are wanted, too, but have no digest.
        whole_folder: a folder of which these are all images: forget others in it that were skipped before.

    Raises:
        DtypeOverflowError: a feature does not fit the storage dtype. What was computed before is kept.
        ImageError: an image cannot be read, and `settings` are strict. What was computed before is kept.
        StoreError: the store cannot be read or written.
        WeightsError: the weights were not found.
        UnknownRecipeError: this featx does not compute what the recipe says.
    """
    check_recipe(recipe)
    store = FeatureStore(cache_dir, recipe)
    memory = SkippedImages(store.dir / "skipped.csv")
    dim = DimImages(store.dir / "dim.json")
    is_cached = store.contains(images.digests, images.views)
    missing = np.flatnonzero(~is_cached)
    log.debug("Recipe: %s", recipe.to_json())
    log.debug("Store: %s, %d segments, %d rows.", printable(store.dir), len(store.segments), len(store))
    known = [*unreadable, *_bad(images, missing, memory.reason)]
    todo = _todo(images, missing, known)
    log.debug("Of %d images, %d are in the store and %d must be computed.", len(images), is_cached.sum(), len(todo))
    result = StageResult()
    try:
        if settings.strict and known:
            raise strict_error(known[0])
        if todo.size:
            store.check_writable()
            with closing(StageOne(recipe, find_weights(), store, cache_dir, settings, dataset)) as stage:
                result = _run(stage, images[todo])
                dim.remember(result.dim)
            if result.error:
                raise result.error
        if recipe.augmentation is None:  # else it has been said of the images themselves
            sentence = dim_sentence(dim.among(images.digests, lambda row: printable(source_path(images.sources[row]))))
            if sentence:
                log.warning("%s", sentence)
    finally:
        store.publish()
        skipped = _every_file(images, missing, [*known, *result.skipped])
        memory.remember(skipped, whole_folder)
        forget_digests([image.path for image in skipped if image.has_changed], cache_dir)
    return Computed(
        recipe=recipe,
        store_dir=store.dir,
        n_computed=result.timings.n_images,
        n_cached=int(is_cached.sum()),
        skipped=tuple(skipped),
        timings=result.timings,
    )


def _run(stage: "StageOne", images: Images) -> "StageResult":
    if not stage.settings.ray_address:
        return stage.run(images)
    from featx.extract.cluster import run_on_cluster  # which is of this module, and seldom wanted

    return run_on_cluster(stage, images)


def strict_error(image: SkippedImage) -> ImageError:
    """Return the error that `--strict` makes of a skipped image."""
    return ImageError(f"{printable(image.path)} cannot be read: {image.reason}. Without --strict, featx skips it.")


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


def _todo(images: Images, missing: np.ndarray, skipped: Sequence[SkippedImage]) -> np.ndarray:
    """Return the rows to compute, `(n,)` int64: one for each view of a content that is neither stored nor bad."""
    names = row_names(images.digests[missing], np.broadcast_to(images.views, len(images))[missing])
    _, first = np.unique(names, return_index=True)
    rows = missing[np.sort(first)]
    bad = {image.digest for image in skipped}
    if not bad:
        return rows
    return rows[[digest.tobytes().hex() not in bad for digest in images.digests[rows]]]


@dataclass
class StageResult:
    """What a run of stage one has done, also if it ended early.

    Attributes:
        timings: what it has cost; nothing if it ended early.
        skipped: images that could not be read.
        dim: images that came out nearly black.
        error: what ended it early.
    """

    timings: Timings = field(default_factory=Timings)
    skipped: list[SkippedImage] = field(default_factory=list)
    dim: list[DimImage] = field(default_factory=list)
    error: BaseException | None = None


@dataclass
class StageOne:
    """Computes features of images, of one recipe.

    Threads decode a few batches ahead, the engine has a few under way, and what it has finished is collected for the
    next segment. Ctrl-C and SIGTERM take effect when the batches under way are finished and kept.

    The engine is started for the first image that can be read, so that a folder of damaged files costs nothing, and
    kept until `close`.
    """

    recipe: Recipe
    weights: Weights
    store: FeatureStore
    cache_dir: StoragePath
    settings: ExtractionSettings
    dataset: ImageDataset | None = None  # has the images that an int8 network is calibrated on
    _engine: Engine | None = field(default=None, init=False)

    @property
    def unit(self) -> str:
        """What is counted."""
        return "views" if self.recipe.augmentation else "images"

    def run(self, images: Images) -> StageResult:
        """Store the features of `images`."""
        with progress_bar(len(images), self.recipe.backbone, self.unit, show=self.settings.show) as bar:
            return self.compute(images, bar.update, held_interrupts)

    def compute(self, images: Images, count: Count, holding: Holding, *, side_by_side: int = 1) -> StageResult:
        """Do as `run`, for someone who counts and interrupts in another way; see `Stopwatch` for `side_by_side`."""
        reset_peak_memory()
        reader = _Reader(images, self.recipe, self.settings, count)
        try:
            timings = self._store(reader, holding, Stopwatch(side_by_side))
        except BaseException as error:  # noqa: BLE001 - whoever asked raises it, after remembering what was skipped
            return StageResult(Timings(), reader.skipped, reader.dim, error)
        return StageResult(timings, reader.skipped, reader.dim)

    def close(self) -> None:
        """Wait for what the engine has under way, and free what it holds."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _store(self, reader: "_Reader", holding: Holding, stopwatch: Stopwatch) -> Timings:
        with closing(reader.batches(stopwatch)) as batches, SegmentWriter(self.store, stopwatch) as writer:
            first = next(batches, None)
            if first is not None:
                under_way = _UnderWay(self._started_engine(stopwatch), writer, stopwatch, reader)
                with holding() as reader.interrupted:
                    for batch in chain([first], batches):
                        under_way.submit(batch)
                        if reader.interrupted():
                            break
                    under_way.collect(0)
        return writer.timings

    def _started_engine(self, stopwatch: Stopwatch) -> Engine:
        if self._engine is None:
            options, show = self.settings.engine_options, self.settings.show
            if needs_keras(self.recipe, self.cache_dir, options):
                with waiting("start Keras", show=show):
                    import_keras()
                stopwatch.restart()  # the start of Keras is no cost of this backbone
            with stopwatch.phase("start"), waiting(f"start {self.recipe.backbone}", show=show):
                self._engine = create_engine(
                    self.recipe, self.weights, self.cache_dir, self.dataset, options, show=show
                )
        return self._engine


def _never() -> bool:
    return False


@dataclass
class _Reader:
    """Reads images in batches, and keeps what there is to say of them.

    Attributes:
        images: what is read.
        recipe: how.
        settings: how, too.
        count: told of the images that cannot be read.
        skipped: those, so far.
        dim: images that came out nearly black, so far.
        interrupted: whether somebody wants to stop; a server may never send the images that are waited for.
    """

    images: Images
    recipe: Recipe
    settings: ExtractionSettings
    count: Count
    skipped: list[SkippedImage] = field(default_factory=list, init=False)
    dim: list[DimImage] = field(default_factory=list, init=False)
    interrupted: Callable[[], bool] = field(default_factory=lambda: _never, init=False)

    def batches(self, stopwatch: Stopwatch) -> Generator[Batch, None, None]:
        """Yield the batches that have an image.

        Raises:
            ImageError: an image cannot be read, and the settings are strict.
        """
        read = read_batches(
            self.images.sources,
            self.images.digests,
            self.recipe.image_size,
            default_batch_size(self.settings.engine_options),
            self.settings.workers,
            aspect_ratio=self.recipe.aspect_ratio,
            views=self.images.views,
            augmentation=self.recipe.augmentation,
            interrupted=lambda: self.interrupted(),  # noqa: PLW0108 - another function once there is work
        )
        with closing(read):
            for batch in stopwatch.waiting("decode", read):
                self.dim += [DimImage.of(self.images, dim) for dim in batch.dim]
                self.skipped += [_skipped(self.images, image) for image in batch.unreadable]
                self.count(len(batch.unreadable))
                if self.settings.strict and batch.unreadable:
                    raise strict_error(self.skipped[-1])
                if len(batch.rows):
                    yield batch


def _skipped(images: Images, image: Unreadable) -> SkippedImage:
    digest = images.digests[image.row].tobytes() if image.is_content else b""
    return SkippedImage.of(source_path(images.sources[image.row]), digest, image.reason, has_changed=image.has_changed)


@dataclass
class _UnderWay:
    """The batches that the engine is computing, in their order; what is finished goes to the writer."""

    engine: Engine
    writer: SegmentWriter
    stopwatch: Stopwatch
    reader: _Reader
    _waiting: deque[tuple[Batch, "Future[np.ndarray]"]] = field(default_factory=deque, init=False)

    def submit(self, batch: Batch) -> None:
        """Have a batch computed, and hand on what is finished."""
        with self.stopwatch.phase("forward"):
            self._waiting.append((batch, self.engine.submit(batch.images)))
        self.collect(self.engine.depth)

    def collect(self, limit: int) -> None:
        """Hand on to the writer what is finished, until no more than `limit` batches are under way.

        Raises:
            DtypeOverflowError: a feature does not fit the storage dtype.
            StoreError: a segment cannot be written.
        """
        while len(self._waiting) > limit or (self._waiting and self._waiting[0][1].done()):
            batch, future = self._waiting.popleft()
            with self.stopwatch.phase("forward"):
                features = future.result()
            images = self.reader.images[batch.rows]
            self.writer.add(_to_storage(features, self.reader.recipe.dtype, images), images.digests, images.views)
            self.reader.count(len(batch.rows))


def _to_storage(features: np.ndarray, dtype: str, images: Images) -> np.ndarray:
    """Return the features of `images` in the storage dtype; raise rather than store infinity."""
    with np.errstate(over="ignore"):  # said below, and better
        stored = features.astype(dtype)
    fits = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
    if fits.all():
        return stored
    bad = int(np.flatnonzero(~fits)[0])
    name = printable(source_path(images.sources[bad]))
    largest = np.abs(features[bad]).max()
    if np.isfinite(largest):
        raise DtypeOverflowError(
            f"The features of {name} reach {largest:.6g}, more than {dtype} holds ({np.finfo(dtype).max:.6g}). "
            f"Extract with --dtype float32."
        )
    raise DtypeOverflowError(f"The features of {name} are not finite: the weights do not fit this network.")
