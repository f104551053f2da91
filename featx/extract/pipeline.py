"""Stage one: finds the features that a store does not have, and computes them; reader → engine → writer."""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import cache
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
from featx.engines import (
    Engine,
    JoinedEngine,
    create_engine,
    create_joined_engine,
    default_batch_size,
    needs_keras,
)
from featx.errors import DtypeOverflowError, ImageError
from featx.extract.options import ExtractionSettings
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore, KeptPixels, PixelWriter, SegmentWriter, row_names
from featx.system import (
    Stopwatch,
    Stopwatches,
    Timings,
    held_interrupts,
    import_keras,
    progress_bar,
    reset_peak_memory,
    waiting,
)
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
    recipes: Sequence[Recipe],
    find_weights: Callable[[], Weights],
    cache_dir: StoragePath,
    settings: ExtractionSettings,
    *,
    dataset: ImageDataset | None = None,
    unreadable: Sequence[SkippedImage] = (),
    whole_folder: StoragePath | None = None,
) -> list[Computed]:
    """Compute the features of `images` that the stores of `recipes` lack: those of several layers in one pass.

    An image that only some of the stores lack is computed for these.

    Args:
        images: what is wanted; views other than 0 if the recipes say how they are made.
        recipes: what the features are, one or more that differ in their layer, pooling and storage dtype.
        find_weights: returns the weights that the recipes name; called if there is something to compute.
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
        UnknownRecipeError: this featx does not compute what a recipe says.
    """
    for recipe in recipes:
        check_recipe(recipe)
        log.debug("Recipe: %s", recipe.to_json())
    find_weights = cache(find_weights)
    wanted = [_Wanted(images, recipe, cache_dir, unreadable) for recipe in recipes]
    try:
        for one in wanted:
            if settings.strict and one.known:
                raise strict_error(one.known[0])
        for members, rows in _passes(wanted, len(images)):
            for one in members:
                one.store.check_writable()
            _compute(members, images[rows], find_weights(), cache_dir, settings, dataset)
        sentences = {one.dim_sentence(): None for one in wanted if one.recipe.augmentation is None}
        for one in wanted:
            one.say_fallback(show=settings.show)
        for sentence in filter(None, sentences):  # of views, it has been said of the images themselves
            log.warning("%s", sentence)
    finally:
        with ExitStack() as stack:
            for one in wanted:
                stack.callback(one.finish, cache_dir, whole_folder)
            if settings.keep_pixels:
                stack.callback(_finish_pixels, KeptPixels.of(recipes[0], cache_dir), show=settings.show)
    return [one.computed() for one in wanted]


def _finish_pixels(kept: KeptPixels, *, show: bool) -> None:
    """Bring the derived files of kept pixels up to date, and say where they are."""
    kept.store.publish()
    where = printable(kept.store.dir)
    log.log(logging.INFO if show else logging.DEBUG, "%s has the pixels of %s images.", where, f"{len(kept.store):,}")


class _Wanted:
    """What one store is to have of some images, and what becomes of them.

    Attributes:
        recipe: of the store.
        store: the store.
        known: files that cannot be read, as far as that is known.
        todo: rows of the images to compute, `(n,)` int64.
    """

    def __init__(
        self, images: Images, recipe: Recipe, cache_dir: StoragePath, unreadable: Sequence[SkippedImage]
    ) -> None:
        self.recipe = recipe
        self.store = FeatureStore(cache_dir, recipe)
        self._images = images
        self._memory = SkippedImages(self.store.dir / "skipped.csv")
        self._dim = DimImages(self.store.dir / "dim.json")
        self._is_cached = self.store.contains(images.digests, images.views)
        self._missing = np.flatnonzero(~self._is_cached)
        log.debug(
            "Store: %s, %d segments, %d rows.", printable(self.store.dir), len(self.store.segments), len(self.store)
        )
        self.known = [*unreadable, *_bad(images, self._missing, self._memory.reason)]
        self.todo = _todo(images, self._missing, self.known)
        n_cached = self._is_cached.sum()
        log.debug("Of %d images, %d are in the store and %d must be computed.", len(images), n_cached, len(self.todo))
        self._timings = Timings()
        self._new: list[SkippedImage] = []
        self._skipped: list[SkippedImage] = []

    def add(self, result: "StageResult", timings: Timings) -> None:
        """Take note of what a run has done for this store."""
        self._timings += timings
        self._new += result.skipped
        self._dim.remember(result.dim)

    def dim_sentence(self) -> str:
        """Return what there is to say of images that look nearly black; empty if there are none."""
        images = self._images
        return dim_sentence(self._dim.among(images.digests, lambda row: printable(source_path(images.sources[row]))))

    def say_fallback(self, *, show: bool) -> None:
        """Say how many images an int8 network was not made for."""
        timings = self._timings
        if timings.n_fallback:
            log.log(
                logging.INFO if show else logging.DEBUG,
                "int8 does not fit %s of %s images, because their activations are unlike those of the calibration "
                "images: featx has computed these in float32.",
                f"{timings.n_fallback:,}",
                f"{timings.n_images:,}",
            )

    def finish(self, cache_dir: StoragePath, whole_folder: StoragePath | None) -> None:
        """Bring the store's derived files up to date, and remember what was skipped."""
        self.store.publish()
        self._skipped = _every_file(self._images, self._missing, [*self.known, *self._new])
        self._memory.remember(self._skipped, whole_folder)
        forget_digests([image.path for image in self._skipped if image.has_changed], cache_dir)

    def computed(self) -> Computed:
        """Return what was done, after `finish`."""
        return Computed(
            recipe=self.recipe,
            store_dir=self.store.dir,
            n_computed=self._timings.n_images,
            n_cached=int(self._is_cached.sum()),
            skipped=tuple(self._skipped),
            timings=self._timings,
        )


def _passes(wanted: Sequence[_Wanted], n_images: int) -> Iterator[tuple[list[_Wanted], np.ndarray]]:
    """Yield stores that lack the same of the images, and these, `(n,)` int64: each image is computed in one pass."""
    lacking = np.zeros(n_images, np.int64)  # a bit for each store
    for number, one in enumerate(wanted):
        lacking[one.todo] |= 1 << number
    for bits in np.unique(lacking[lacking > 0]).tolist():
        members = [one for number, one in enumerate(wanted) if bits >> number & 1]
        yield members, np.flatnonzero(lacking == bits)


def _compute(
    members: Sequence[_Wanted],
    images: Images,
    weights: Weights,
    cache_dir: StoragePath,
    settings: ExtractionSettings,
    dataset: ImageDataset | None,
) -> None:
    """Compute the features of `images` for these stores, in one pass if that gives the same bits.

    Raises whatever ended it early, after remembering what was done until then.
    """
    first, *others = members
    started_s = time.perf_counter()
    engine = _joined_engine(members, weights, cache_dir, settings) if others and not settings.ray_address else None
    if others and engine is None:
        names = ", ".join(printable(one.recipe.layer) for one in members)
        log.info("These layers cannot share a pass here, so featx computes one after the other: %s.", names)
        for one in members:
            _compute([one], images, weights, cache_dir, settings, dataset)
        return
    with closing(StageOne(first.recipe, weights, first.store, cache_dir, settings, dataset)) as stage:
        if engine is not None:
            stage.join([(one.recipe, one.store) for one in others], engine, time.perf_counter() - started_s)
        result = _run(stage, images)
        for one, timings in zip(members, [result.timings, *stage.timings_of_others], strict=True):
            one.add(result, timings)
    if result.error:
        raise result.error


def _joined_engine(
    members: Sequence[_Wanted], weights: Weights, cache_dir: StoragePath, settings: ExtractionSettings
) -> JoinedEngine | None:
    recipes = [one.recipe for one in members]
    options, show = settings.engine_options, settings.show
    if any(needs_keras(recipe, cache_dir, options) for recipe in recipes):
        with waiting("start Keras", show=show):
            import_keras()
    with waiting(f"start {recipes[0].backbone}", show=show):
        return create_joined_engine(recipes, weights, cache_dir, options, show=show)


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
    timings_of_others: list[Timings] = field(default_factory=list, init=False)
    _pixels: KeptPixels = field(init=False)
    _engine: Engine | None = field(default=None, init=False)
    _others: list[tuple[Recipe, FeatureStore]] = field(default_factory=list, init=False)
    _start_s: float = field(default=0.0, init=False)  # of an engine that was started before
    _split: Callable[[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: _unsplit, init=False)

    def __post_init__(self) -> None:
        self._pixels = KeptPixels.of(self.recipe, self.cache_dir)

    def join(self, others: list[tuple[Recipe, FeatureStore]], engine: JoinedEngine, start_s: float) -> None:
        """Compute the features of other layers, too, with an engine that gives all; it is closed with this.

        What these cost is in `timings_of_others` afterwards. Each counts the whole pass, and the `start_s` seconds that
        the start of the engine took.
        """
        self._others, self._engine, self._split, self._start_s = others, engine, engine.split, start_s
        self.timings_of_others = [Timings() for _ in others]

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
        reader = _Reader(images, self.recipe, self.settings, count, self._pixels)
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
        watches = [stopwatch, *(Stopwatch() for _ in self._others)]
        together = Stopwatches(watches) if self._others else stopwatch
        for watch in watches:
            watch.add("start", self._start_s)
        recipes, stores = zip((self.recipe, self.store), *self._others, strict=True)
        with closing(reader.batches(together)) as batches, ExitStack() as stack:
            keep = self._keeping(reader.images, stack)  # first, so it ends last: no time of features
            writers = [stack.enter_context(SegmentWriter(*one)) for one in zip(stores, watches, strict=True)]
            first = next(batches, None)
            if first is not None:
                engine = self._started_engine(together)
                under_way = _UnderWay(engine, self._split, list(zip(recipes, writers, strict=True)), together, reader)
                with holding() as reader.interrupted:
                    for batch in chain([first], batches):
                        under_way.submit(batch)
                        with together.phase("write"):
                            keep(batch)
                        if reader.interrupted():
                            break
                    under_way.collect(0)
        timings, *self.timings_of_others = (writer.timings for writer in writers)
        return timings

    def _keeping(self, images: Images, stack: ExitStack) -> Callable[[Batch], object]:
        """Return what is done with the pixels of a batch; nothing, unless they are to be kept."""
        if not self.settings.keep_pixels:
            return lambda _: None
        return stack.enter_context(PixelWriter(self._pixels, images)).keep

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


def _unsplit(features: np.ndarray) -> list[np.ndarray]:
    return [features]


@dataclass
class _Reader:
    """Reads images in batches, and keeps what there is to say of them.

    Attributes:
        images: what is read.
        recipe: how.
        settings: how, too.
        count: told of the images that cannot be read.
        pixels: those that were decoded before, and kept.
        skipped: those, so far.
        dim: images that came out nearly black, so far.
        interrupted: whether somebody wants to stop; a server may never send the images that are waited for.
    """

    images: Images
    recipe: Recipe
    settings: ExtractionSettings
    count: Count
    pixels: KeptPixels
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
            kept=self.pixels.reader(len(self.images)),
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
    """The batches that the engine is computing, in their order; what is finished goes to the writer of each layer."""

    engine: Engine
    split: Callable[[np.ndarray], list[np.ndarray]]
    writers: list[tuple[Recipe, SegmentWriter]]
    stopwatch: Stopwatch
    reader: _Reader
    _waiting: deque[tuple[Batch, "Future[np.ndarray]"]] = field(default_factory=deque, init=False)
    _n_fallback: int = field(init=False)

    def __post_init__(self) -> None:
        self._n_fallback = self.engine.n_fallback  # of an engine that has run before

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
            self.stopwatch.count("n_fallback", self.engine.n_fallback - self._n_fallback)
            self.stopwatch.count("n_kept", batch.n_kept)
            self._n_fallback = self.engine.n_fallback
            images = self.reader.images[batch.rows]
            for (recipe, writer), part in zip(self.writers, self.split(features), strict=True):
                writer.add(_to_storage(part, recipe.dtype, images), images.digests, images.views)
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
