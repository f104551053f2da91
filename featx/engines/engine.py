"""The engines: what each can do, and which one runs a recipe on this machine."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self, TypedDict

import numpy as np

from featx.backbones import DTYPE_POLICIES, Weights, check_recipe, is_network_file, is_onnx
from featx.dataset import ImageDataset
from featx.engines.keras_engine import KerasEngine
from featx.engines.ncnn_engine import BACKBONES, MIN_CORES, MIN_PIXELS_PER_CORE, NcnnEngine
from featx.engines.networks import is_converted
from featx.engines.openvino_engine import OpenVinoEngine
from featx.errors import FeatxError
from featx.recipe import PRECISIONS, Recipe
from featx.storage import StoragePath
from featx.system import (
    MAX_THREADS,
    check_name,
    cuda_capability,
    install_command,
    keras_backend,
    keras_sees_gpu,
    n_cores,
    openvino_has_bfloat16,
    whole_number,
)
from featx.text import printable

log = logging.getLogger("featx")

#: Leaves the choice of an engine, or of a precision, to featx.
AUTO = "auto"

#: Means the fastest precision of this machine.
FAST = "fast"

#: Images in a batch unless told otherwise. More is no faster on a CPU; a GPU needs them to be busy.
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 256

#: More than any GPU computes at once.
MAX_BATCH_SIZE = 1 << 16


class Engine(Protocol):
    """Runs one backbone on this machine.

    Attributes:
        depth: how many batches must be in progress to keep the machine busy.
        n_fallback: images that were computed in the recipe's fallback so far.
    """

    @property
    def depth(self) -> int: ...  # noqa: D102 - the class says it

    @property
    def n_fallback(self) -> int: ...  # noqa: D102 - the class says it

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
        """Wait for the batches in progress, and free the engine's resources."""
        ...


class JoinedEngine(Engine, Protocol):
    """Runs one backbone up to several layers in one pass. Their features are flattened and lie one after the other.

    Attributes:
        request_size: images that it computes together.
    """

    @property
    def request_size(self) -> int: ...  # noqa: D102 - the class says it

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Return `(n, …)` float32 for each recipe, from the features `(n, n_features)` of all."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """What an engine can do.

    Attributes:
        title: its name in messages.
        package: the Python package that it needs.
        extra: what installs that package, if featx does not need it otherwise.
        create: starts it; takes a recipe and the arguments of `create_engine`.
        joins: whether it computes several layers in one pass; `create` then takes the recipes of the `others`.
        precisions: what it computes in.
        backbones: those of the table that it runs; all if None.
        network_suffixes: how the names of the network files that it runs end.
        converts: whether Keras converts the network for it, once; else Keras itself runs the network.
        uses_gpu: whether it can use a GPU.
        has_streams: whether it runs several batches or images at the same time on the cores of a CPU.
        has_bfloat16: returns whether it computes bfloat16 on this processor.
        min_pixels: returns how many pixels an image must have; of smaller ones, the next engine computes more a second.
    """

    title: str
    package: str
    create: Callable[..., Any]
    extra: str | None = None
    precisions: tuple[str, ...]
    backbones: tuple[str, ...] | None = None
    network_suffixes: tuple[str, ...]
    converts: bool
    joins: bool
    uses_gpu: bool
    has_streams: bool
    has_bfloat16: Callable[[], bool]
    min_pixels: Callable[[], int] = lambda: 0

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.package) is not None

    def runs(self, backbone: str) -> bool:
        """Return whether it runs this backbone: of the table, or a network file."""
        if is_network_file(backbone):
            return backbone.lower().endswith(self.network_suffixes)
        return self.backbones is None or backbone in self.backbones

    def suits(self, recipe: Recipe) -> bool:
        """Return whether it runs `recipe`, and its images are not too small for it to be fast."""
        is_large = recipe.image_size[0] * recipe.image_size[1] >= self.min_pixels()
        return recipe.precision in self.precisions and self.runs(recipe.backbone) and is_large


class EngineChoices(TypedDict, total=False):
    """The attributes of `EngineOptions`, for functions that take them by name; the others get their defaults."""

    engine: str | None
    batch_size: int | None
    threads: int | None
    streams: int | None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a backbone is run; none of this changes what the features are.

    Attributes:
        engine: one of `ENGINES`; `"auto"` is `keras` where there is a GPU that it can use, or for bfloat16 on a
            processor where OpenVINO has none; `ncnn`, if it is installed, for VGG16 and VGG19 in float32 on images of
            96×96 pixels or more (on more than four cores: 48×48 pixels for each core); else `openvino`.
        batch_size: images in a batch; chosen for the machine if None.
        threads: processor cores for `openvino` and `ncnn`; all if None.
        streams: batches (`openvino`) or images (`ncnn`) that run at the same time; chosen for the machine if None.

    Raises:
        FeatxError: there is no such engine, or a number is not whole, or is too small or too large.
    """

    engine: str = AUTO
    batch_size: int | None = None
    threads: int | None = None
    streams: int | None = None

    def __post_init__(self) -> None:
        check_name(self.engine, ENGINE_CHOICES, f"An engine must be one of {', '.join(ENGINE_CHOICES)}.")
        for name, most in (("batch_size", MAX_BATCH_SIZE), ("threads", MAX_THREADS), ("streams", MAX_THREADS)):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, number, most=most))

    @classmethod
    def of(cls, choices: EngineChoices) -> Self:
        """Return these choices, with the defaults for those that are not given or None."""
        given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
        return cls(**given)


def engines_for(precision: str, backbone: str) -> list[str]:
    """Return the names of the engines that run `backbone` in `precision`, the fastest on a CPU first."""
    return [name for name, entry in ENGINES.items() if precision in entry.precisions and entry.runs(backbone)]


def default_batch_size(options: EngineOptions) -> int:
    """Return the number of images in a batch."""
    may_use_gpu = options.engine == AUTO or ENGINES[options.engine].uses_gpu
    on_gpu = may_use_gpu and cuda_capability() is not None
    return options.batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE)


def check_engine(engine: str, precision: str, backbone: str) -> None:
    """Raise FeatxError if the engine, unless it is `auto`, does not run this backbone, or not in a precision named."""
    if engine != AUTO and not ENGINES[engine].runs(backbone):
        others = " or ".join(name for name, entry in ENGINES.items() if entry.runs(backbone))
        raise FeatxError(
            f"The {engine} engine cannot run {'the network file ' * is_network_file(backbone)}{printable(backbone)}: "
            f"choose --engine {others}, or leave --engine out."
        )
    names = engines_for(precision, backbone)
    if engine != AUTO and precision not in {AUTO, FAST} and engine not in names:
        raise FeatxError(f"The {engine} engine does not support {precision}; choose --engine {names[0]}.")


def choose_engine(options: EngineOptions, recipe: Recipe) -> str:
    """Return the name in `ENGINES` of the engine that runs `recipe` here. Where there is a GPU, this starts Keras.

    Raises:
        FeatxError: the engine asked for cannot run this precision.
    """
    check_engine(options.engine, recipe.precision, recipe.backbone)
    if options.engine != AUTO:
        return options.engine
    names = engines_for(recipe.precision, recipe.backbone)
    on_gpu = next((name for name in names if ENGINES[name].uses_gpu), None)
    if on_gpu is None or cuda_capability() is None:
        return cpu_engine(recipe)
    if keras_sees_gpu():
        return on_gpu
    chosen = cpu_engine(recipe)
    if chosen != on_gpu:
        log.warning(
            "There is a GPU, but Keras's backend %s cannot use it: continuing with %s on the CPU.",
            keras_backend(),
            chosen,
        )
    return chosen


def engines_on_cpu(recipe: Recipe) -> list[str]:
    """Return the names of the installed engines that suit `recipe`, the fastest on a CPU first; at least one."""
    names = engines_for(recipe.precision, recipe.backbone)
    return [name for name in names if ENGINES[name].suits(recipe) and ENGINES[name].is_installed] or names[-1:]


def cpu_engine(recipe: Recipe) -> str:
    """Return the name of the fastest engine that runs `recipe` on this processor."""
    first, *others = engines_on_cpu(recipe)
    if recipe.precision == "bfloat16" and others and not ENGINES[first].has_bfloat16():
        _say_no_bfloat16(first, others[0])
        return others[0]
    fastest = next(name for name, entry in ENGINES.items() if entry.suits(recipe))
    if fastest != first and ENGINES[fastest].extra:
        _say_missing(fastest, recipe.backbone)
    return first


@cache  # so that it is said once
def _say_no_bfloat16(engine: str, other: str) -> None:
    log.warning(
        "%s has no bfloat16 on this processor: using %s, which is slower; features may differ by rounding.",
        ENGINES[engine].title,
        other,
    )


@cache
def _say_missing(engine: str, backbone: str) -> None:
    command = install_command(f"featx[{ENGINES[engine].extra}]")
    log.info("%s would compute %s faster here, but is not installed: %s", engine, backbone, command)


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
        cache_dir: where the converted networks are.
        dataset: has the images that an int8 network is calibrated on.
        options: how to run it.
        show: show progress on stderr.

    Raises:
        UnknownRecipeError: this featx does not compute what the recipe says.
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network.
        FeatxError: there is no engine for this precision here.
    """
    check_recipe(recipe)
    options = options or EngineOptions()
    chosen = choose_engine(options, recipe)
    log.debug("Engine: %s, %s.", chosen, options)
    create: Callable[..., Engine] = ENGINES[chosen].create
    return create(recipe, weights, options, cache_dir=cache_dir, dataset=dataset, show=show)


def create_joined_engine(
    recipes: Sequence[Recipe], weights: Weights, cache_dir: StoragePath, options: EngineOptions, *, show: bool = False
) -> JoinedEngine | None:
    """Return an engine that computes several layers of a backbone in one pass.

    None if this machine has no such engine, or if it does not give every layer the bits that it gets alone: OpenVINO
    may compute a network in another way if it has more outputs. It is tried with one batch of noise.

    Args:
        recipes: of the same images, backbone and precision.
        weights: the weights that the recipes name.
        cache_dir: where the converted networks are.
        options: how to run them.
        show: show progress on stderr.

    Raises:
        FeatxError: as for `create_engine`.
    """
    first, *others = recipes
    for recipe in recipes:
        check_recipe(recipe)
    engine = choose_engine(options, first)
    if first.precision == "int8" or not ENGINES[engine].joins:
        return None
    create: Callable[..., JoinedEngine] = ENGINES[engine].create
    joined = create(first, weights, options, cache_dir=cache_dir, others=others, show=show)
    noise = np.random.default_rng(0).integers(0, 256, (joined.request_size, *first.image_size, 3), np.uint8)
    for recipe, features in zip(recipes, joined.split(joined.features(noise)), strict=True):
        with closing(create_engine(recipe, weights, cache_dir, options=options)) as alone:
            if not np.array_equal(alone.features(noise), features):
                joined.close()
                return None
    log.debug("Engine: %s, %s, %d layers in one pass.", engine, options, len(recipes))
    return joined


def needs_weights(recipe: Recipe, cache_dir: StoragePath, options: EngineOptions) -> bool:
    """Return whether `create_engine` will read the file of the weights: to run the network, or to convert it."""
    return not ENGINES[choose_engine(options, recipe)].converts or not is_converted(recipe, cache_dir)


def needs_keras(recipe: Recipe, cache_dir: StoragePath, options: EngineOptions) -> bool:
    """Return whether `create_engine` will start Keras: to run the network, or to convert it."""
    return not is_onnx(recipe.backbone) and needs_weights(recipe, cache_dir, options)


def _openvino(recipe: Recipe, weights: Weights, options: EngineOptions, **how: Any) -> Engine:
    numbers = {name: getattr(options, name) for name in ("batch_size", "threads", "streams")}
    return OpenVinoEngine(recipe, weights, **numbers, **how)


def _ncnn(recipe: Recipe, weights: Weights, options: EngineOptions, *, dataset: object = None, **how: Any) -> Engine:
    del dataset  # which only int8 is calibrated on
    return NcnnEngine(recipe, weights, threads=options.threads, streams=options.streams, **how)


def _keras(recipe: Recipe, weights: Weights, options: EngineOptions, **_of_others: object) -> Engine:
    return KerasEngine(recipe, weights, default_batch_size(options))


#: The engines by their names, the fastest on a CPU first.
ENGINES = {
    "ncnn": EngineEntry(
        title="ncnn",
        package="ncnn",
        extra="ncnn",
        create=_ncnn,
        precisions=("float32",),
        backbones=BACKBONES,
        network_suffixes=(),
        converts=True,
        joins=True,
        uses_gpu=False,
        has_streams=True,
        has_bfloat16=lambda: False,
        min_pixels=lambda: MIN_PIXELS_PER_CORE * max(MIN_CORES, n_cores()),
    ),
    "openvino": EngineEntry(
        title="OpenVINO",
        package="openvino",
        create=_openvino,
        precisions=PRECISIONS,
        network_suffixes=(".onnx", ".keras"),
        converts=True,
        joins=True,
        uses_gpu=False,
        has_streams=True,
        has_bfloat16=openvino_has_bfloat16,
    ),
    "keras": EngineEntry(
        title="Keras",
        package="keras",
        create=_keras,
        precisions=tuple(DTYPE_POLICIES),
        network_suffixes=(".keras",),
        converts=False,
        joins=False,
        uses_gpu=True,
        has_streams=False,
        has_bfloat16=lambda: True,
    ),
}

#: What a user may choose.
ENGINE_CHOICES = (AUTO, *sorted(ENGINES))
