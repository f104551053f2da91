"""What an engine is, and which one runs a recipe on this machine."""

import importlib.util
import logging
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypedDict

import numpy as np

from featx.backbones import Weights
from featx.dataset import ImageDataset
from featx.engines.openvino_import import openvino_has_bfloat16
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import cuda_capability, keras_backend, keras_sees_gpu, whole_number

log = logging.getLogger("featx")

ENGINES = ("auto", "keras", "openvino")

#: Images in a batch unless told otherwise. More is no faster on a CPU; a GPU needs them to be busy.
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 256


class Engine(Protocol):
    """Runs one backbone on this machine.

    Attributes:
        depth: how many batches that are under way at once keep the machine busy.
    """

    @property
    def depth(self) -> int: ...  # noqa: D102 - the class says it

    def submit(self, images: np.ndarray) -> "Future[np.ndarray]":
        """Begin with `images`, `(n, height, width, 3)` uint8 RGB, and return the future of their features.

        These are `(n, …)` float32. An image's features do not depend on the other images of its batch, nor on their
        number. The array must not change before the future is done.
        """
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, …)` float32 of `images`, `(n, height, width, 3)` uint8 RGB."""
        ...

    def close(self) -> None:
        """Wait for what is under way, and free what the engine holds."""
        ...


class EngineChoices(TypedDict, total=False):
    """The attributes of `EngineOptions`, for functions that take them by name; what is not given is chosen."""

    engine: str
    batch_size: int | None
    threads: int | None
    streams: int | None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a backbone is run; none of it decides what the features are.

    Attributes:
        engine: one of `ENGINES`; `"auto"` is `keras` where there is a GPU that it can use, or for bfloat16 on a
            processor where OpenVINO has none; else `openvino`.
        batch_size: images in a batch; chosen for the machine if None.
        threads: processor cores for `openvino`; all if None.
        streams: batches that `openvino` runs side by side; chosen for the machine if None.

    Raises:
        FeatxError: there is no such engine, or a number is no whole one of 1 or more.
    """

    engine: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    streams: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise FeatxError(f"An engine is one of {', '.join(ENGINES)}. Received: {self.engine!r}")
        for name in ("batch_size", "threads", "streams"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, number))


def default_batch_size(options: EngineOptions) -> int:
    """Return how many images a batch has."""
    on_gpu = options.engine != "openvino" and cuda_capability() is not None
    return options.batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE)


def choose_engine(options: EngineOptions, recipe: Recipe) -> str:
    """Return the engine that runs `recipe` here: `"keras"` or `"openvino"`. Where there is a GPU, this starts Keras.

    Raises:
        FeatxError: the engine asked for cannot run this precision.
    """
    if recipe.precision == "int8":
        if options.engine == "keras":
            raise FeatxError("The keras engine has no int8; choose --engine openvino.")
        return "openvino"
    if options.engine != "auto":
        return options.engine
    has_openvino = importlib.util.find_spec("openvino") is not None
    if cuda_capability() is not None:
        if keras_sees_gpu() or not has_openvino:
            return "keras"
        log.warning(
            "There is a GPU, but Keras's backend %s cannot use it: going on with openvino on the CPU.", keras_backend()
        )
    return cpu_engine(recipe.precision) if has_openvino else "keras"


@cache  # so that it is said once
def cpu_engine(precision: str) -> str:
    """Return the engine that computes `precision` on this processor: `"openvino"`, or `"keras"` if it has to."""
    if precision != "bfloat16" or openvino_has_bfloat16():
        return "openvino"
    log.warning(
        "OpenVINO has no bfloat16 on this processor: using keras, which is slower; features may differ by rounding."
    )
    return "keras"


def create_engine(
    recipe: Recipe,
    weights: Weights,
    cache_dir: StoragePath,
    dataset: ImageDataset | None = None,
    options: EngineOptions | None = None,
    *,
    show: bool = False,
) -> Engine:
    """Return an engine that is ready to run `recipe`.

    Args:
        recipe: what to run.
        weights: the weights that the recipe names.
        cache_dir: where converted networks lie.
        dataset: has the images that an int8 network is calibrated on.
        options: how to run it.
        show: show progress on stderr.

    Raises:
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network.
        FeatxError: there is no engine for this precision here.
    """
    options = options or EngineOptions()
    chosen = choose_engine(options, recipe)
    log.debug("Engine: %s, %s.", chosen, options)
    if chosen == "keras":
        from featx.engines.keras_engine import KerasEngine

        return KerasEngine(recipe, weights, default_batch_size(options))
    from featx.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(
        recipe,
        weights,
        cache_dir,
        dataset,
        batch_size=options.batch_size,
        threads=options.threads,
        streams=options.streams,
        show=show,
    )


def needs_keras(recipe: Recipe, cache_dir: StoragePath, options: EngineOptions) -> bool:
    """Return whether `create_engine` will start Keras: to run the network, or to convert it."""
    if choose_engine(options, recipe) == "keras":
        return True
    from featx.engines.networks import is_converted

    return not is_converted(recipe, cache_dir)
