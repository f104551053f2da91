"""Stage one: computes the features that the store lacks, and nothing else."""

import shlex
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from featx.dataset import ImageDataset, scan
from featx.digests import forget_digests
from featx.engines import Engine, EngineOptions, create_engine, default_batch_size, needs_keras
from featx.errors import DtypeOverflowError, ImageError, printable
from featx.keras_import import import_keras
from featx.memory import reset_peak_memory
from featx.progress import progress_bar
from featx.reader import CHANGED, Batch, Unreadable, read_batches
from featx.recipe import DTYPES, Recipe
from featx.resolve import RecipeOptions, resolve_recipe
from featx.segment_writer import SegmentWriter
from featx.skipped import SkippedImage, SkippedImages
from featx.store import FeatureStore
from featx.timings import Stopwatch, Timings
from featx.weights import Weights

DEFAULT_ENGINE = EngineOptions()


@dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    Attributes:
        dataset: the images.
        recipe: what their features are.
        store_dir: where they are.
        n_computed: images computed now.
        n_cached: images whose features were there.
        skipped: images that could not be read.
        timings: what was computed now has cost.
        elapsed_s: the whole call, in seconds.
    """

    dataset: ImageDataset
    recipe: Recipe
    store_dir: Path
    n_computed: int
    n_cached: int
    skipped: tuple[SkippedImage, ...]
    timings: Timings
    elapsed_s: float


def extract_features(
    data_dir: Path,
    *,
    cache_dir: Path = Path("cache"),
    engine: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    streams: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    **options: Unpack[RecipeOptions],
) -> Extraction:
    """Make the store hold the features of every image in `data_dir`.

    >>> from pathlib import Path
    >>> extraction = extract_features(Path("data"), backbone="vgg16", image_size=(150, 150))  # doctest: +SKIP

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`.
        cache_dir: where stores lie.
        engine: what runs the backbone: `"auto"`, `"keras"` or `"openvino"`; see `featx.engines.EngineOptions`, also for
            the next three.
        batch_size: images in a batch.
        threads: processor cores for `openvino`.
        streams: batches that `openvino` runs side by side.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        show: show progress on stderr.
        options: see `featx.resolve.RecipeOptions`.

    Raises:
        FeatxError: the data set, the backbone, the weights or the store is not fit; the message says what to do.
    """
    engine_options = EngineOptions(engine=engine, batch_size=batch_size, threads=threads, streams=streams)
    dataset = scan(data_dir, cache_dir, show=show)
    recipe, weights = resolve_recipe(cache_dir, dataset, **options)
    return extract_dataset(
        dataset, recipe, weights, cache_dir, engine_options, workers=workers, strict=strict, show=show
    )


def extract_dataset(
    dataset: ImageDataset,
    recipe: Recipe,
    weights: Weights,
    cache_dir: Path,
    engine_options: EngineOptions = DEFAULT_ENGINE,
    *,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
) -> Extraction:
    """Make the store of `recipe` hold the features of every image of `dataset`; arguments as for `extract_features`.

    Raises:
        DtypeOverflowError: a feature does not fit the storage dtype. What was computed before is kept.
        ImageError: `strict`, and an image cannot be read. What was computed before is kept.
        StoreError: the store cannot be read or written.
    """
    started = time.perf_counter()
    store = FeatureStore(cache_dir, recipe)
    is_cached = store.contains(dataset.digests)
    memory = SkippedImages(store.dir / "skipped.csv")
    skipped = _skipped_before(dataset, np.flatnonzero(~is_cached), memory)
    todo = _todo(dataset, is_cached, skipped)
    stage = StageOne(dataset, recipe, weights, store, cache_dir, engine_options, workers)
    timings = Timings()
    try:
        if strict and skipped:
            raise _strict_error(skipped[0])
        if todo.size:
            store.check_writable()
            timings = stage.run(todo, skipped, strict=strict, show=show)
    finally:
        store.publish()
        memory.replace(dataset.root.absolute(), skipped)
        forget_digests([Path(image.path) for image in skipped if image.reason == CHANGED], cache_dir)
    changed = [image for image in skipped if not image.digest]
    bad = [image for image in _skipped_before(dataset, np.flatnonzero(~is_cached), memory) if image.digest]
    return Extraction(
        dataset=dataset,
        recipe=recipe,
        store_dir=store.dir,
        n_computed=timings.n_images,
        n_cached=int(is_cached.sum()),
        skipped=(*changed, *bad),  # every file, where several have the same bad content
        timings=timings,
        elapsed_s=time.perf_counter() - started,
    )


def extract_command(data_dir: Path, cache_dir: Path, **options: Unpack[RecipeOptions]) -> str:
    """Return the command line that extracts these features, as one would type it."""
    words = ["featx", "extract", str(data_dir)]
    defaults: RecipeOptions = {
        "weights": "imagenet",
        "layer": None,
        "image_size": None,
        "precision": "auto",
        "dtype": DTYPES[0],
    }
    for name, value in options.items():
        if value != defaults.get(name):
            words += [f"--{name.replace('_', '-')}", as_typed(value)]
    if cache_dir != Path("cache"):
        words += ["--cache-dir", str(cache_dir)]
    return shlex.join(words)


def as_typed(value: object) -> str:
    """Return an option's value as one would type it.

    >>> as_typed((64, 64)), as_typed((120, 160)), as_typed("vgg16")
    ('64', '120x160', 'vgg16')
    """
    if isinstance(value, tuple):
        return "x".join(map(str, dict.fromkeys(value)))
    return str(value)


def _skipped_before(dataset: ImageDataset, missing: np.ndarray, memory: SkippedImages) -> list[SkippedImage]:
    """Return the files that the scan could not read, and those whose content is known to be no image."""
    root = dataset.root.absolute()
    skipped = [SkippedImage.of(root / path, b"", reason) for path, reason in dataset.unreadable]
    for row in missing:
        digest = dataset.digests[row].tobytes()
        if reason := memory.reason(digest):
            skipped.append(SkippedImage.of(root / dataset.paths[row], digest, reason))
    return skipped


def _todo(dataset: ImageDataset, is_cached: np.ndarray, skipped: list[SkippedImage]) -> np.ndarray:
    """Return the rows to compute, `(n,)` int64: one for each content that is neither stored nor known to be bad."""
    hopeless = {image.digest for image in skipped}
    first_of_content = {dataset.digests[row].tobytes().hex(): row for row in np.flatnonzero(~is_cached)[::-1]}
    return np.sort(np.array([row for key, row in first_of_content.items() if key not in hopeless], np.int64))


def _skipped(image: Unreadable, paths: list[Path], digests: np.ndarray) -> SkippedImage:
    digest = digests[image.row].tobytes() if image.is_content else b""
    return SkippedImage.of(paths[image.row].absolute(), digest, image.reason)


def _strict_error(image: SkippedImage) -> ImageError:
    return ImageError(f"{image.path} cannot be read: {image.reason}. Without --strict it would be skipped.")


@dataclass
class StageOne:
    """The pipeline reader → engine → writer over some images of a data set.

    All three work at the same time: threads decode a few batches ahead, the engine has a few under way, and what it has
    finished is collected for the next segment.
    """

    dataset: ImageDataset
    recipe: Recipe
    weights: Weights
    store: FeatureStore
    cache_dir: Path
    engine_options: EngineOptions
    workers: int | None

    def run(self, rows: np.ndarray, skipped: list[SkippedImage], *, strict: bool, show: bool) -> Timings:
        """Store the features of the images `rows`, `(n,)` int64; what cannot be read is added to `skipped`.

        The engine is started for the first image that can be read, so that a folder of damaged files costs nothing.
        """
        paths = [self.dataset.root / self.dataset.paths[row] for row in rows]
        digests = self.dataset.digests[rows]
        reset_peak_memory()
        stopwatch = Stopwatch()
        batch_size = default_batch_size(self.engine_options)
        batches = read_batches(paths, digests, self.recipe.image_size, batch_size, self.workers)
        with ExitStack() as stack:
            stack.enter_context(closing(batches))
            writer = stack.enter_context(SegmentWriter(self.store, stopwatch))
            bar = stack.enter_context(progress_bar(len(rows), self.recipe.backbone, "images", show=show))
            engine: Engine | None = None
            under_way: deque[tuple[Batch, Future[np.ndarray]]] = deque()

            def collect(limit: int) -> None:
                """Write what is finished, until no more than `limit` batches are under way."""
                while len(under_way) > limit or (under_way and under_way[0][1].done()):
                    batch, future = under_way.popleft()
                    with stopwatch.phase("forward"):
                        features = future.result()
                    writer.add(self._to_storage(features, batch, paths), digests[batch.rows])
                    bar.update(len(batch.rows))

            for batch in stopwatch.waiting("decode", batches):
                skipped += [_skipped(image, paths, digests) for image in batch.unreadable]
                bar.update(len(batch.unreadable))
                if strict and batch.unreadable:
                    raise _strict_error(skipped[-1])
                if len(batch.rows):
                    if engine is None:
                        engine = stack.enter_context(closing(self._start_engine(stopwatch, show=show)))
                    with stopwatch.phase("forward"):
                        under_way.append((batch, engine.submit(batch.images)))
                    collect(engine.depth)
            collect(0)
        return writer.timings

    def _start_engine(self, stopwatch: Stopwatch, *, show: bool) -> Engine:
        if needs_keras(self.recipe, self.cache_dir, self.engine_options):
            import_keras()
            stopwatch.restart()  # the start of Keras is no cost of this backbone
        with stopwatch.phase("start"):
            return create_engine(
                self.recipe, self.weights, self.cache_dir, self.dataset, self.engine_options, show=show
            )

    def _to_storage(self, features: np.ndarray, batch: Batch, paths: list[Path]) -> np.ndarray:
        """Return `features` in the storage dtype; raise rather than store infinity."""
        with np.errstate(over="ignore"):  # said below, and better
            stored = features.astype(self.recipe.dtype)
        fits = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
        if fits.all():
            return stored
        bad = int(np.flatnonzero(~fits)[0])
        name = printable(paths[batch.rows[bad]])
        largest = np.abs(features[bad]).max()
        if np.isfinite(largest):
            raise DtypeOverflowError(
                f"The features of {name} reach {largest:.6g}, more than {self.recipe.dtype} holds "
                f"({np.finfo(self.recipe.dtype).max:.6g}). Extract with --dtype float32."
            )
        raise DtypeOverflowError(f"The features of {name} are not finite: the weights do not suit this network.")
