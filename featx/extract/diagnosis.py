"""What featx finds on this machine, and whether the features that it computes here are right."""

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from featx.backbones import BACKBONES, Weights, has_weights_here
from featx.engines import AUTO, EngineOptions, choose_engine, create_engine
from featx.errors import FeatxError
from featx.extract.cache import CacheEntry, list_cache
from featx.extract.options import DEFAULT_CACHE_DIR, resolve_recipe
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir
from featx.system import (
    cuda_capability,
    free_memory_bytes,
    hardware,
    has_fast_bfloat16,
    keras_backend,
    keras_sees_gpu,
    versions,
    waiting,
)

#: Packages that `pip install "featx[…]"` adds, by the name of the extra.
EXTRAS = {
    "heic": "pillow-heif",
    "ncnn": "ncnn",
    "nncf": "nncf",
    "onnx": "onnx",
    "pandas": "pandas",
    "ray": "ray",
    "s3": "s3fs",
}

#: What the self-test computes: the whole of VGG16 with random weights, which every machine draws alike.
SELF_TEST = {"backbone": "vgg16", "weights": "random:0", "image_size": (32, 32), "pooling": "avg", "dtype": "float32"}

#: The first features of `picture`, computed by Keras in float64.
REFERENCE = (
    *(87.292848, 0.0, 87.746675, 115.085772, 53.443391, 72.620686, 0.0, 29.764445),
    *(0.0, 18.210146, 120.251883, 85.890932, 0.0, 72.409107, 29.942938, 35.095498),
)

#: How far features may be from these, as a part of the largest. OpenVINO and Keras differ by 1.3e-6 in float32, and by
#: 0.006 to 0.008 in bfloat16.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


@dataclass(frozen=True)
class SelfTest:
    """Features that were computed to compare them with stored ones.

    Attributes:
        precision: of the network.
        engine: what computed them.
        deviation: the largest difference, as a part of the largest feature; NaN if there are no features.
        elapsed_s: seconds that it took, with the start of the engine.
        problem: why there are none, a sentence; empty if there are.
    """

    precision: str
    engine: str
    deviation: float
    elapsed_s: float
    problem: str = ""

    @property
    def is_passed(self) -> bool:
        """Whether the features are those that they should be."""
        return self.deviation <= TOLERANCE[self.precision]


@dataclass(frozen=True)
class Diagnosis:
    """What featx finds on this machine.

    Attributes:
        versions: of featx, Python and the packages that decide the numbers.
        missing: extras of featx whose package is not installed.
        hardware: processor, cores, memory and system.
        free_memory_bytes: memory that this process may still take.
        keras_backend: what Keras runs on.
        gpu: whether Keras can use a GPU; None if it does not start.
        has_cuda: whether there is an NVIDIA GPU.
        engine: what runs a backbone of Keras's by default.
        fast: precisions in which this machine is faster than in float32.
        weights: backbones whose ImageNet weights are on this machine.
        problems: what is wrong with the weights' folder or the cache, a sentence each.
        cache_dir: the cache.
        cache: what is in it.
        self_tests: one for each precision that `auto` may mean here.
    """

    versions: dict[str, str]
    missing: tuple[str, ...]
    hardware: dict[str, str | int]
    free_memory_bytes: int
    keras_backend: str
    gpu: bool | None
    has_cuda: bool
    engine: str
    fast: tuple[str, ...]
    weights: tuple[str, ...]
    problems: tuple[str, ...]
    cache_dir: StoragePath
    cache: tuple[CacheEntry, ...]
    self_tests: tuple[SelfTest, ...]

    def __repr__(self) -> str:
        failed = [test.precision for test in self.self_tests if not test.is_passed]
        tests = f"self-test in {' and '.join(failed)} failed" if failed else "self-tests passed"
        return f"<Diagnosis: {self.engine or 'no engine'}, {len(self.problems):,} problems, {tests}>"

    @property
    def is_sound(self) -> bool:
        """Whether everything that was looked at works."""
        return not self.problems and all(test.is_passed for test in self.self_tests)


def diagnose(cache_dir: StoragePath | str = DEFAULT_CACHE_DIR, *, show: bool = False) -> Diagnosis:
    """Look at this machine, and compute features of one picture in each precision that is usual here.

    It changes nothing, and takes a few seconds: TensorFlow is started.

    Args:
        cache_dir: the cache to look at.
        show: show progress on stderr.
    """
    cache_dir = as_cache_dir(cache_dir)
    problems: list[str] = []
    with waiting("start Keras", show=show):
        gpu = _gpu(problems)
    precisions = ("float32", "bfloat16") if has_fast_bfloat16() else ("float32",)
    return Diagnosis(
        versions={"featx": metadata.version("featx"), **versions()},
        missing=tuple(extra for extra, package in EXTRAS.items() if not _is_installed(package)),
        hardware=hardware(),
        free_memory_bytes=free_memory_bytes(),
        keras_backend=keras_backend(),
        gpu=gpu,
        has_cuda=cuda_capability() is not None,
        engine=_engine(problems),
        fast=(*precisions[1:], "int8"),
        weights=_weights(problems),
        cache_dir=cache_dir,
        cache=_cache(cache_dir, problems),
        self_tests=tuple(_self_test(precision, show=show) for precision in precisions),
        problems=tuple(problems),
    )


def picture() -> np.ndarray:
    """Return the picture of the self-test, `(1, 32, 32, 3)` uint8: any pattern that has no two pixels quite alike."""
    rows, columns, channels = np.ogrid[:32, :32, :3]
    pattern: np.ndarray = (7 * rows + 13 * columns + 29 * channels + rows * columns) % 256
    return pattern.astype(np.uint8)[np.newaxis]


def _self_test(precision: str, *, show: bool) -> SelfTest:
    start_s = time.perf_counter()
    engine = ""
    try:
        with tempfile.TemporaryDirectory() as folder, waiting(f"self-test in {precision}", show=show):
            recipe, weights = resolve_recipe(Path(folder), **{**SELF_TEST, "precision": precision})  # type: ignore[arg-type]
            engine = choose_engine(EngineOptions(), recipe)
            features = _features(recipe, weights, Path(folder))
    except FeatxError as error:
        return SelfTest(precision, engine, float("nan"), time.perf_counter() - start_s, str(error))
    reference = np.array(REFERENCE)
    deviation = np.abs(features[: len(reference)] - reference).max() / np.abs(reference).max()
    return SelfTest(precision, engine, float(deviation), time.perf_counter() - start_s)


def _features(recipe: Recipe, weights: Weights, cache_dir: Path) -> np.ndarray:
    with closing(create_engine(recipe, weights, cache_dir)) as engine:
        features: np.ndarray = engine.features(picture())[0]
    return features.astype(np.float64)


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gpu(problems: list[str]) -> bool | None:
    try:
        return keras_sees_gpu()
    except FeatxError as error:
        problems.append(str(error))
        return None


def _engine(problems: list[str]) -> str:
    recipe = Recipe(backbone="vgg16", weights="random-0", layer="a", image_size=(32, 32), preprocessing="caffe")
    try:
        return choose_engine(EngineOptions(engine=AUTO), recipe)
    except FeatxError as error:
        problems.append(str(error))
        return ""


def _weights(problems: list[str]) -> tuple[str, ...]:
    try:
        return tuple(backbone for backbone in BACKBONES if has_weights_here(backbone))
    except FeatxError as error:
        problems.append(str(error))
        return ()


def _cache(cache_dir: StoragePath, problems: list[str]) -> tuple[CacheEntry, ...]:
    try:
        entries = tuple(list_cache(cache_dir))
    except FeatxError as error:
        problems.append(str(error))
        return ()
    problems += [f"{entry.name}: {entry.problem}" for entry in entries if entry.problem]
    return entries
