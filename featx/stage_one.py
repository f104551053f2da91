"""The pipeline of stage one: reader → engine → writer, all three at work at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from featx.dataset import ImageDataset
from featx.dim_images import DimImage
from featx.engines import Engine, EngineOptions, create_engine, default_batch_size, needs_keras
from featx.errors import DtypeOverflowError, ImageError, printable
from featx.image_sources import Images, source_path
from featx.interrupts import held_interrupts
from featx.keras_import import import_keras
from featx.memory import reset_peak_memory
from featx.places import Place
from featx.progress import progress_bar
from featx.reader import Batch, Unreadable, read_batches
from featx.recipe import Recipe
from featx.segment_writer import SegmentWriter
from featx.skipped import SkippedImage
from featx.store import FeatureStore
from featx.timings import Stopwatch, Timings
from featx.weights import Weights

#: Told of so many images more that are done with.
Count = Callable[[int], object]

#: Holds interruptions back while its block runs; yields what tells whether one has come.
Holding = Callable[[], AbstractContextManager[Callable[[], bool]]]


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
    cache_dir: Place
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
