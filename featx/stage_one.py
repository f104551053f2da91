"""The pipeline of stage one: reader → engine → writer, all three at work at the same time."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from featx.dataset import ImageDataset
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


@dataclass
class StageOne:
    """Computes features of images.

    Threads decode a few batches ahead, the engine has a few under way, and what it has finished is collected for the
    next segment. Ctrl-C and SIGTERM take effect when the batches under way are finished and kept.
    """

    images: Images
    recipe: Recipe
    weights: Weights
    store: FeatureStore
    cache_dir: Place
    engine_options: EngineOptions
    workers: int | None
    dataset: ImageDataset | None  # has the images that an int8 network is calibrated on

    def run(self, rows: np.ndarray, skipped: list[SkippedImage], *, strict: bool, show: bool) -> Timings:
        """Store the features of the images `rows`, `(n,)` int64; what cannot be read is added to `skipped`.

        The engine is started for the first image that can be read, so that a folder of damaged files costs nothing.
        """
        images = self.images[rows]
        reset_peak_memory()
        stopwatch = Stopwatch()
        batch_size = default_batch_size(self.engine_options)
        batches = read_batches(
            images.sources,
            images.digests,
            self.recipe.image_size,
            batch_size,
            self.workers,
            views=images.views,
            augmentation=self.recipe.augmentation,
        )
        with ExitStack() as stack:
            stack.enter_context(closing(batches))
            writer = stack.enter_context(SegmentWriter(self.store, stopwatch))
            unit = "views" if self.recipe.augmentation else "images"
            bar = stack.enter_context(progress_bar(len(rows), self.recipe.backbone, unit, show=show))
            readable = _readable(images, stopwatch.waiting("decode", batches), skipped, bar, strict=strict)
            first = next(readable, None)
            if first is not None:
                engine = stack.enter_context(closing(self._start_engine(stopwatch, show=show)))
                under_way = _UnderWay(engine, writer, stopwatch, self.recipe, images, bar)
                with held_interrupts() as interrupted:
                    for batch in chain([first], readable):
                        under_way.submit(batch)
                        if interrupted():
                            break
                    under_way.collect(0)
        return writer.timings

    def _start_engine(self, stopwatch: Stopwatch, *, show: bool) -> Engine:
        if needs_keras(self.recipe, self.cache_dir, self.engine_options):
            import_keras()
            stopwatch.restart()  # the start of Keras is no cost of this backbone
        with stopwatch.phase("start"):
            return create_engine(
                self.recipe, self.weights, self.cache_dir, self.dataset, self.engine_options, show=show
            )


def _readable(
    images: Images, batches: Iterable[Batch], skipped: list[SkippedImage], bar: Any, *, strict: bool
) -> Iterator[Batch]:
    """Yield the batches that have an image; what cannot be read is added to `skipped`.

    Raises:
        ImageError: `strict`, and an image cannot be read.
    """
    for batch in batches:
        skipped += [_skipped(images, image) for image in batch.unreadable]
        bar.update(len(batch.unreadable))
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
        self, engine: Engine, writer: SegmentWriter, stopwatch: Stopwatch, recipe: Recipe, images: Images, bar: Any
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._stopwatch = stopwatch
        self._recipe = recipe
        self._images = images
        self._bar = bar
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
            self._bar.update(len(batch.rows))

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
    return ImageError(f"{image.path} cannot be read: {image.reason}. Without --strict it would be skipped.")
