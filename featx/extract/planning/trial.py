"""One engine and precision on the sample, in a process of its own: `python -m featx.extract.planning.trial`.

Reads a `TrialJob` from standard input and ends with it. What is timed is stage one as it is, into a store of its own.
"""

import gc
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from featx.dataset import Images, images_of, look_ahead, read_batches, views_of
from featx.engines import ENGINES, EngineOptions, choose_engine, default_batch_size, load_network
from featx.errors import FeatxError, printable
from featx.extract.options import ExtractionSettings
from featx.extract.pipeline import StageOne
from featx.extract.planning.survey import N_SAMPLE
from featx.extract.planning.trial_job import Measured, Pace, TrialJob
from featx.recipe import Recipe
from featx.storage import write_text
from featx.store import FeatureStore
from featx.system import cpu_seconds, keras_sees_gpu, n_cores

#: A pass counts if it takes this part of the time that is to be timed; a shorter one says how many images it needs.
COUNTED = 0.45

#: No pass has many more images than this, however fast they are.
MOST = 20_000

#: Images of the first pass, which pays for what is done only once.
N_FIRST = 8


def main() -> None:
    """Do what standard input asks for, and write the answer."""
    line = sys.stdin.readline()
    if not line:
        return  # whoever started it was stopped at that moment
    job = TrialJob.from_json(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: dict[str, Any] = {"converted": _convert(job)} if job.convert else {"measured": asdict(_measure(job))}
    except FeatxError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "There is not enough memory."}
    write_text(job.answer_path, json.dumps(answer))


def _end_with_parent() -> None:
    """End the process when whoever started it is gone, whatever ended that."""
    sys.stdin.read()
    os._exit(1)


def _convert(job: TrialJob) -> float:
    """Make the network of a recipe, and return the seconds since the process was started."""
    load_network(job.recipe, job.weights, job.networks_dir, job.dataset)
    return time.time() - job.started_at


def _measure(job: TrialJob) -> Measured:
    sample = job.dataset.subset(job.dataset.is_test)
    images = _Rows(job, images_of(sample), job.recipe)
    first = images.run(min(N_FIRST, sample.n_images))
    until_first_s = time.time() - job.started_at
    gc.collect()
    n_round = _images_in_round(job.engine_options, job.recipe)
    passes = list(_passes(images, n_round, job.timed_s))
    views: Pace | None = None
    if job.views:
        recipe = replace(job.recipe, augmentation=job.views.augmentation)
        of_views = _Rows(job, views_of(sample, job.views.n), recipe)
        views = _pace(list(_passes(of_views, n_round, job.timed_s)))
    pace = _pace(passes)
    uses_gpu = ENGINES[choose_engine(job.engine_options, job.recipe)].uses_gpu
    return Measured(
        start_s=max(0.0, until_first_s - first.n * pace.row_s),
        restart_s=passes[-1].start_s,
        images=pace,
        views=views,
        feature_shape=images.store.segments[0].feature_shape,
        peak_memory_bytes=max(one.peak_memory_bytes for one in passes),
        others_share=sum(one.others_s for one in passes) / sum(one.cores_s for one in passes),
        on_gpu=uses_gpu and keras_sees_gpu(),
        auto_engine=choose_engine(EngineOptions(), job.recipe) if uses_gpu else None,
        n_in_pass=max(one.n for one in passes),
    )


@dataclass(frozen=True)
class _Pass:
    """What one run of stage one took.

    Attributes:
        n: images or views.
        elapsed_s: after the engine was ready.
        start_s: until then.
        peak_memory_bytes: largest resident memory.
        cores_s: processor time that there was, on all cores.
        others_s: what other processes had of it.
    """

    n: int
    elapsed_s: float
    start_s: float
    peak_memory_bytes: int
    cores_s: float
    others_s: float

    @property
    def row_s(self) -> float:
        """Seconds for one."""
        return self.elapsed_s / self.n


class _Rows:
    """Images of the sample, or views of them, that stage one is run on."""

    def __init__(self, job: TrialJob, images: Images, recipe: Recipe) -> None:
        self.store = FeatureStore(job.work_dir / "store", recipe)
        self._job, self._images, self._recipe = job, images, recipe

    def run(self, n: int) -> _Pass:
        """Run stage one on `n` rows: all of them as often as need be.

        While the engine starts, the reader decodes its first batches: that must not look like time saved.
        """
        job, recipe = self._job, self._recipe
        rows = np.resize(np.arange(len(self._images)), n)
        batch_size = default_batch_size(job.engine_options)
        n_ahead = min(n, look_ahead(recipe.image_size, batch_size) * batch_size)
        ahead_s = self._decoding_s(rows[:n_ahead], batch_size)
        began, own_before, all_before = time.perf_counter(), time.process_time(), cpu_seconds()
        settings = ExtractionSettings(engine_options=job.engine_options, workers=job.workers)
        with closing(StageOne(recipe, job.weights, self.store, job.networks_dir, settings, job.dataset)) as stage:
            result = stage.run(self._images[rows])
        if result.error:
            raise result.error
        timings, skipped = result.timings, result.skipped
        cores_s = (time.perf_counter() - began) * (os.cpu_count() or n_cores())
        own_s = time.process_time() - own_before
        others_s = max(0.0, cpu_seconds() - all_before - own_s)
        if skipped:
            raise FeatxError(f"{printable(skipped[0].path)} cannot be read: {skipped[0].reason}.")
        self.store.reload()
        elapsed_s = timings.elapsed_s - max(0.0, timings.start_s - ahead_s)
        return _Pass(n, elapsed_s, timings.start_s, timings.peak_memory_bytes, cores_s, others_s)

    def _decoding_s(self, rows: np.ndarray, batch_size: int) -> float:
        """Return what decoding these rows takes without an engine, by the first `N_SAMPLE` of them."""
        some, recipe = self._images[rows[:N_SAMPLE]], self._recipe
        began = time.perf_counter()
        for _ in read_batches(
            some.sources,
            some.digests,
            recipe.image_size,
            batch_size,
            self._job.workers,
            views=some.views,
            augmentation=recipe.augmentation,
        ):
            pass
        return (time.perf_counter() - began) * len(rows) / len(some)


def _images_in_round(options: EngineOptions, recipe: Recipe) -> int:
    """Return how many images keep the machine busy to the end of a pass: a batch for each that runs side by side.

    Of one batch more than that, the last would run alone. All images together have such an end, too, but once: a pass
    of three batches on two cores takes as long as four.
    """
    batch_size = default_batch_size(options)
    if not ENGINES[choose_engine(options, recipe)].has_streams:
        return batch_size
    return batch_size * (options.streams or min(options.threads or n_cores(), n_cores()))


def _passes(rows: _Rows, n_round: int, wanted_s: float) -> Iterator[_Pass]:
    """Yield passes of whole rounds that are long enough to count, until enough has been timed."""
    n_rounds, timed_s = 1, 0.0
    while timed_s < wanted_s:
        one = rows.run(n_rounds * n_round)
        if one.elapsed_s >= COUNTED * wanted_s or one.n >= MOST:
            timed_s += one.elapsed_s
            yield one
        else:
            n_wanted = min(MOST, one.n * 1.3 * COUNTED * wanted_s / max(one.elapsed_s, 0.01))
            n_rounds = math.ceil(n_wanted / n_round)


def _pace(passes: list[_Pass]) -> Pace:
    each = [one.row_s for one in passes]
    row_s = sum(one.elapsed_s for one in passes) / sum(one.n for one in passes)
    return Pace(row_s=row_s, low_s=min(each), high_s=max(each))


if __name__ == "__main__":
    main()
