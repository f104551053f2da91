"""What runs on a node of the cluster: stage one for one portion after the other, with one engine."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from featx.dataset import Images
from featx.engines import ENGINES
from featx.errors import FeatxError, ImageError, printable
from featx.extract.cluster.messages import Done, Failure, Said, Terms
from featx.extract.cluster.rooms import Room
from featx.extract.options import ExtractionSettings
from featx.extract.pipeline import StageOne
from featx.storage import StoragePath
from featx.store import FeatureStore
from featx.system import keras_sees_gpu, versions


class Worker:
    """Computes features; Ray calls its methods.

    `compute` runs on one thread, `n_counted` and `stop` on another.
    """

    def __init__(self, room: Room, terms: Terms) -> None:
        """Begin on `room`; nothing is read before `start`."""
        self._room = room
        self._terms = terms
        self._stage: StageOne | None = None
        self._n_counted = 0
        self._is_stopped = False
        self._said: list[Said] = []

    def start(self) -> FeatxError | None:
        """Make ready; return why that cannot be."""
        n_cores = max(1, self._room.n_cores)
        os.environ["KERAS_BACKEND"] = self._terms.keras_backend
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(n_cores))
        _listen(self._said)
        try:
            check_node(self._room, self._terms)
            self._stage = self._new_stage(n_cores)
            self._stage.store.check_writable()
        except (FeatxError, OSError) as error:
            return FeatxError(f"{error} This is so on the node {self._room.node}.")
        return None

    def compute(self, images: Images, side_by_side: int) -> Done:
        """Store the features of `images`; `side_by_side` workers do so at this time."""
        assert self._stage
        self._n_counted = 0
        result = self._stage.compute(images, self._count, self._holding, side_by_side=side_by_side)
        error = None
        if isinstance(result.error, FeatxError | MemoryError | OSError):
            error = self._on_this_node(result.error)
        elif result.error:
            raise result.error
        said, self._said[:] = self._said[:], []
        return Done(result.timings, list(result.skipped), list(result.dim), error, said)

    def n_counted(self) -> int:
        """Return how many images of the present portion are done with."""
        return self._n_counted

    def stop(self) -> None:
        """Have the present portion end when the batches under way are finished and kept."""
        self._is_stopped = True

    def _new_stage(self, n_cores: int) -> StageOne:
        terms = self._terms
        store = FeatureStore(terms.cache_dir, terms.recipe)
        settings = ExtractionSettings(
            engine_options=replace(terms.engine_options, threads=n_cores),
            workers=terms.workers or n_cores,
            strict=terms.strict,
        )
        # The driver has converted and calibrated the network: nobody here needs the data set.
        return StageOne(terms.recipe, terms.weights, store, terms.cache_dir, settings)

    def _count(self, n: int) -> None:
        self._n_counted += n

    @contextmanager
    def _holding(self) -> Iterator[Callable[[], bool]]:
        yield lambda: self._is_stopped

    def _on_this_node(self, error: Failure) -> Failure:
        """Return an error that says where it was, unless any node would have met it."""
        if isinstance(error, ImageError) or type(error) is not FeatxError:
            return error
        return FeatxError(f"{error} This is so on the node {self._room.node}.")


def check_node(room: Room, terms: Terms) -> None:
    """Raise FeatxError unless this node has the same versions and sees the same files as the one that asks."""
    here = versions()
    for package, version in terms.versions.items():
        if here.get(package) != version:
            raise FeatxError(
                f"{package} {here.get(package, 'is not installed')} is not the version of the machine that asks, "
                f"{version}: install the same everywhere."
            )
    if not terms.mark.exists():
        raise FeatxError(
            f"The store {printable(terms.mark.parent)} is not the one of the machine that asks: --cache-dir must be a "
            f"folder that all nodes share, under the same path."
        )
    if terms.sample and digest_of(terms.sample.path) != terms.sample.digest:
        raise FeatxError(
            f"{printable(terms.sample.path)} is not the image that it is on the machine that asks: DATA must be a "
            f"folder that all nodes share, under the same path."
        )
    if not ENGINES[terms.engine_options.engine].converts:
        _check_keras(room, terms)


def _check_keras(room: Room, terms: Terms) -> None:
    path = terms.weights.path
    if path and digest_of(path) != terms.weights.digest:
        raise FeatxError(
            f"{printable(path)} holds not the weights of the machine that asks: they must be where all nodes see them, "
            f"under the same path."
        )
    if room.n_gpus and not keras_sees_gpu():
        raise FeatxError(
            f"Keras with the backend {terms.keras_backend!r} cannot use the GPU: install its GPU version, or choose "
            f"--engine openvino."
        )


def digest_of(path: StoragePath) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None if it cannot be read."""
    try:
        if not isinstance(path, Path):
            return hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class _Notes(logging.Handler):
    """Keeps warnings for whoever asked for the work: nobody looks into the logs of a worker."""

    def __init__(self, said: list[Said]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(Said(record.levelno, record.getMessage()))


def _listen(said: list[Said]) -> None:
    """Have what featx logs in this process kept in `said`."""
    log = logging.getLogger("featx")
    log.addHandler(_Notes(said))
    log.propagate = False
