"""What goes to and fro between featx, the driver of the cluster, and its workers."""

from dataclasses import dataclass

from featx.backbones import Weights
from featx.dataset import DimImage, Images, SkippedImage
from featx.engines import EngineOptions
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import Timings

#: Sent to the driver: hand out nothing more, and let the workers finish the batches under way.
STOP = "stop"

#: What may go wrong with a portion and end a run with one line, here as on one machine.
Failure = FeatxError | MemoryError | OSError


@dataclass(frozen=True)
class Sample:
    """One of the images, by which a worker knows that it sees the same folder.

    Attributes:
        path: where it is.
        digest: SHA-256 of its bytes, in hexadecimal.
    """

    path: StoragePath
    digest: str


@dataclass(frozen=True)
class Terms:
    """What every worker is to know before it gets its first portion.

    Attributes:
        recipe: what the features are.
        weights: the weights that it names.
        cache_dir: where stores lie, absolute.
        engine_options: how the backbone is run; the engine is not `"auto"` any more.
        workers: decoding threads of each worker; as many as it has cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        keras_backend: what `KERAS_BACKEND` is where the command was given.
        versions: of all that decides a bit of a feature, there.
        mark: a file in the store that was just made.
        sample: an image that can be read there; None if there is none.
    """

    recipe: Recipe
    weights: Weights
    cache_dir: StoragePath
    engine_options: EngineOptions
    workers: int | None
    strict: bool
    keras_backend: str
    versions: dict[str, str]
    mark: StoragePath
    sample: Sample | None


@dataclass(frozen=True)
class Job:
    """What the driver is to do.

    Attributes:
        images: whose features are wanted; their sources have absolute paths.
        terms: for the workers.
        patience_s: so long the driver waits for a worker where there is none.
    """

    images: Images
    terms: Terms
    patience_s: float


@dataclass(frozen=True)
class Connected:
    """The driver has found the cluster.

    Attributes:
        engine: which runs there: `"keras"` or `"openvino"`.
        room: for which workers on which nodes, in words.
    """

    engine: str
    room: str


@dataclass(frozen=True)
class Counted:
    """So many images more are done with; 0 only says that the driver is alive."""

    n: int


@dataclass(frozen=True)
class Said:
    """Something for the log, at a level of `logging`."""

    level: int
    text: str


@dataclass(frozen=True)
class Done:
    """What became of a portion.

    Attributes:
        timings: what its rows have cost, all of which are on disk.
        skipped: images that could not be read.
        dim: images that came out nearly black.
        error: what ended it early.
        said: what there was for the log.
    """

    timings: Timings
    skipped: list[SkippedImage]
    dim: list[DimImage]
    error: Failure | None
    said: list[Said]


@dataclass(frozen=True)
class Finished:
    """What became of a job; as `Done`."""

    timings: Timings
    skipped: list[SkippedImage]
    dim: list[DimImage]
    error: Failure | None
