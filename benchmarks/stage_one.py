"""Stage one of featx as a contender: from image files to features that are safe on disk."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from turns import Figures, Task, measuring

from featx.dataset.loader import LOOK_AHEAD, read_batches
from featx.dataset.scanning import scan
from featx.engines.engine import Engine, EngineOptions, cpu_engine, create_engine, default_batch_size
from featx.extract.extract import extract_features
from featx.extract.options import RecipeOptions, resolve_recipe

BATCH_SIZE = default_batch_size(EngineOptions(engine="openvino"))


class Preparation:
    """Makes the converted network, which featx keeps, and decodes the images for the contenders' networks alone."""

    def __init__(self, task: Task) -> None:
        started = time.perf_counter()
        _start_engine(task)[0].close()
        self.facts: Figures = {"elapsed_s": time.perf_counter() - started}
        np.save(task.pixels_path, _decoded(task, task.n_alone))

    def turn(self, what: str) -> Figures:
        """Do nothing: all is done."""
        raise NotImplementedError(what)


class StageOne:
    """`featx.extract_features` into a cache that has nothing but the converted network."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._engine = self._run_alone()[0]["start"]["engine"]
        # What the reader decodes at most while the engine starts: it takes as long without an engine.
        started = time.perf_counter()
        n_ahead = len(_decoded(task, LOOK_AHEAD * BATCH_SIZE))
        self._look_ahead_s = time.perf_counter() - started
        self.facts: Figures = {
            "n_look_ahead": n_ahead,
            "look_ahead_s": self._look_ahead_s,
            "loaded_tensorflow": "tensorflow" in sys.modules,
            "engine": self._engine,
        }

    def turn(self, what: str) -> Figures:
        """Extract all features, or let the network alone run; or write its features of the pixels in memory."""
        if what == "features":
            np.save(self._task.features_path, self._run_alone()[1])
            return {}
        if what == "alone":
            return self._run_alone()[0]
        with _fresh_cache(self._task) as cache_dir, measuring() as figures:
            extraction = extract_features(
                Path(self._task.data_dir), cache_dir=cache_dir, engine=self._engine, **_options(self._task)
            )
        # While the engine starts, the reader decodes its first batches: that must not look like time saved.
        start_s = max(0.0, extraction.timings.start_s - self._look_ahead_s)
        return {
            **figures,
            "n_images": extraction.n_computed,
            "after_start_s": figures["elapsed_s"] - start_s,
            "phases": extraction.timings.to_dict(),
        }

    def _run_alone(self) -> tuple[Figures, np.ndarray]:
        pixels = np.load(self._task.pixels_path)
        engine, start = _start_engine(self._task)
        with closing(engine):
            engine.features(pixels[:BATCH_SIZE])
            with measuring() as figures:
                features = engine.features(pixels)
        return {**figures, "n_images": len(features), "start": start}, features


def _options(task: Task) -> RecipeOptions:
    size = (task.image_size, task.image_size)
    return {"backbone": task.backbone, "image_size": size, "precision": task.precision, "weights": task.weights}


def _converted_dir(task: Task) -> Path:
    """Return the cache folder that has the converted network."""
    return Path(task.work_dir, "converted")


def _start_engine(task: Task) -> tuple[Engine, Figures]:
    """Return an engine that is ready to run, and what starting it took."""
    cache_dir = _converted_dir(task)
    dataset = scan(Path(task.data_dir), cache_dir)
    recipe, weights = resolve_recipe(cache_dir, dataset, **_options(task))
    name = cpu_engine(recipe)  # even where there is a GPU
    with measuring() as figures:
        engine = create_engine(recipe, weights, cache_dir, dataset, EngineOptions(engine=name))
    return engine, {**figures, "engine": name}


def _decoded(task: Task, n: int) -> np.ndarray:
    """Return the first images, `(n, height, width, 3)` uint8, as featx decodes them."""
    dataset = scan(Path(task.data_dir), _converted_dir(task))
    paths = [dataset.root / path for path in dataset.paths][:n]
    size = (task.image_size, task.image_size)
    return np.concatenate([batch.images for batch in read_batches(paths, dataset.digests, size, BATCH_SIZE)])


@contextmanager
def _fresh_cache(task: Task) -> Iterator[Path]:
    """Yield a cache folder that has the converted networks, knows the digest of the weights, and has nothing else."""
    with tempfile.TemporaryDirectory(dir=task.work_dir) as name:
        shutil.copytree(_converted_dir(task) / "networks", Path(name, "networks"), copy_function=os.link)
        resolve_recipe(Path(name), **_options(replace(task, precision="float32")))
        yield Path(name)
