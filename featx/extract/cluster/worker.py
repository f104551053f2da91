"""What runs on a node of the cluster: stage one, for one task after the other, with one engine."""

import logging
import os
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from logging.handlers import BufferingHandler

from featx.backbones import Weights, check_recipe
from featx.dataset import Images
from featx.engines import ENGINES, EngineOptions
from featx.errors import FeatxError
from featx.extract.options import ExtractionSettings
from featx.extract.pipeline import StageOne, StageResult
from featx.recipe import Recipe
from featx.storage import StoragePath, file_digest
from featx.store import FeatureStore
from featx.system import keras_sees_gpu, versions
from featx.text import printable


@dataclass(frozen=True)
class WorkerSlot:
    """A place for one worker.

    Attributes:
        node_id: Ray's name of the node.
        node: what it is called in messages.
        n_cores: processor cores that Ray is asked for.
        n_gpus: GPUs that Ray is asked for, 0 or 1.
    """

    node_id: str
    node: str
    n_cores: int
    n_gpus: int


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker must know before its first task.

    Attributes:
        recipe: what the features are.
        weights: the weights that it names.
        cache_dir: where stores lie, absolute.
        engine_options: how the backbone is run; the engine is not `"auto"` any more.
        workers: decoding threads of each worker; as many as it has cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        keep_pixels: keep the images that are decoded.
        keras_backend: what `KERAS_BACKEND` is where the command was given.
        versions: of all that decides a bit of a feature, there.
        mark: a file in the store that was just made.
        sample: an image that can be read there, and the SHA-256 of its bytes in hexadecimal; None if there is none.
    """

    recipe: Recipe
    weights: Weights
    cache_dir: StoragePath
    engine_options: EngineOptions
    workers: int | None
    strict: bool
    keep_pixels: bool
    keras_backend: str
    versions: dict[str, str]
    mark: StoragePath
    sample: tuple[StoragePath, str] | None


@dataclass
class Outcome(StageResult):
    """What became of a task, or of all of them.

    Attributes:
        warnings: what there was for the log.
    """

    warnings: list[str] = field(default_factory=list)


class Worker:
    """Computes features; Ray calls its methods: `progress` on its own thread, so that it can answer at any time."""

    def __init__(self, slot: WorkerSlot, config: WorkerConfig) -> None:
        """Begin in `slot`; nothing is read before `start`."""
        self._slot = slot
        self._config = config
        self._n_cores = max(1, slot.n_cores)
        self._n_done = 0
        self._is_stopped = False
        self._log = BufferingHandler(sys.maxsize)  # nobody looks into the logs of a worker

    def start(self) -> str | None:
        """Get ready; return what is wrong with this node."""
        config = self._config
        os.environ["KERAS_BACKEND"] = config.keras_backend
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(self._n_cores))
        self._log.setLevel(logging.WARNING)
        log = logging.getLogger("featx")
        log.addHandler(self._log)
        log.propagate = False
        try:
            check_node(self._slot, config)
            store = FeatureStore(config.cache_dir, config.recipe)
            store.check_writable()
        except (FeatxError, OSError) as error:
            return self._on_this_node(error)
        settings = ExtractionSettings(
            engine_options=replace(config.engine_options, threads=self._n_cores),
            workers=config.workers or self._n_cores,
            strict=config.strict,
            keep_pixels=config.keep_pixels,
        )
        # The command has converted and calibrated the network: no worker needs the data set.
        self._stage = StageOne(config.recipe, config.weights, store, config.cache_dir, settings)
        return None

    def compute(self, images: Images, side_by_side: int) -> Outcome:
        """Store the features of `images`, while `side_by_side` workers compute."""
        holding = lambda: nullcontext(lambda: self._is_stopped)  # noqa: E731 - read at once
        done = self._stage.compute(images, self._count, holding, side_by_side=side_by_side)
        error = done.error
        if error is not None and not isinstance(error, FeatxError | MemoryError | OSError):
            raise error
        if type(error) is FeatxError:  # any node would meet the other errors, too
            error = FeatxError(self._on_this_node(error))
        self._n_done = 0
        warnings = [record.getMessage() for record in self._log.buffer]
        self._log.flush()
        return Outcome(done.timings, done.skipped, done.dim, error, warnings)

    def progress(self, *, stop: bool) -> int:
        """Return how many images of the present task are done; with `stop`, only the batches under way are finished."""
        self._is_stopped = stop
        return self._n_done

    def _count(self, n: int) -> None:
        self._n_done += n

    def _on_this_node(self, error: Exception) -> str:
        return f"On the node {self._slot.node}: {error}"


def check_node(slot: WorkerSlot, config: WorkerConfig) -> None:
    """Raise FeatxError unless this node computes the same as the machine that runs the command, of the same files."""
    check_recipe(config.recipe)
    here = versions()
    for package, version in config.versions.items():
        if here.get(package) != version:
            entry = ENGINES[config.engine_options.engine]
            other = " Or choose another --engine." if entry.extra and package == entry.package else ""
            raise FeatxError(
                f"{package} is {here.get(package, 'not installed')}, but {version} where you ran the command: install "
                f"the same version on all machines.{other}"
            )
    if not config.mark.exists():
        raise FeatxError(
            f"The store {printable(config.mark.parent)} is not the one on the machine where you ran the command: "
            f"--cache-dir must be a folder that all nodes share, under the same path."
        )
    if config.sample and digest_of(config.sample[0]) != config.sample[1]:
        raise FeatxError(
            f"{printable(config.sample[0])} is not the same image as on the machine where you ran the command: DATA "
            f"must be a folder that all nodes share, under the same path."
        )
    if ENGINES[config.engine_options.engine].converts:
        return
    path = config.weights.path
    if path and digest_of(path) != config.weights.digest:
        raise FeatxError(
            f"{printable(path)} does not have the same weights as on the machine where you ran the command: put them "
            f"in a folder that all nodes share, under the same path."
        )
    if slot.n_gpus and not keras_sees_gpu():
        raise FeatxError(
            f"Keras with the backend {config.keras_backend!r} cannot use the GPU: install its GPU version, or choose "
            f"--engine openvino."
        )


def digest_of(path: StoragePath) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None if it cannot be read."""
    with suppress(OSError):
        return file_digest(path).hex()
    return None
