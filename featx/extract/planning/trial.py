"""Tries one engine and precision on the sample, in its own process.

So the process that plans does not load TensorFlow. If a trial runs out of memory, the plan says so and goes on.
The process is started with `subprocess`: `multiprocessing` would run the user's script again.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from featx.backbones import Weights
from featx.dataset import ImageDataset, Images, PathTable, digest_files, images_of, views_of
from featx.engines import ENGINES, EngineOptions, default_batch_size, load_network, network_path
from featx.errors import FeatxError
from featx.extract.options import ExtractionSettings
from featx.extract.pipeline import StageOne
from featx.extract.planning.estimate import DiskUsage, Estimate, Pace, Work
from featx.images import Views
from featx.recipe import Recipe
from featx.store import SEGMENT_AGE_S, SEGMENT_BYTES, FeatureStore, new_segment_name
from featx.system import Timings, cpu_seconds, from_json_value, hide_with, keras_sees_gpu, n_cores
from featx.text import printable

#: No pass has many more images than this, however fast they are.
MOST = 20_000

#: Images of the first pass, which pays for what is done only once.
N_FIRST = 8

#: A trial that takes longer is given up.
LIMIT_S = 600.0

#: The reason of what was not tried, or not to the end, because the plan had to be finished.
NOT_TRIED = "It was not tried, because the plan must take no longer than half a minute."


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Stage one, unchanged, on a sample, into its own store.

    Attributes:
        missing: how many images and views there are to compute, with this engine and precision.
        recipe: of the images' features.
        weights: that it names.
        options: how the backbone is run; its engine is never `"auto"`.
        data_dir: the folder of images.
        sample: paths in it of the images to be timed, each of which can be read.
        calibration: paths in it of the images that an int8 network is calibrated on.
        cache_dir: has, or gets, the converted networks.
        work_dir: a folder for temporary files.
        workers: decoding threads.
        views: augmented views to be timed as well.
        pass_s: seconds that a pass is to take: the first batch and the last segment, which all images together have
            only once, are some hundredths of two.
    """

    missing: Estimate
    recipe: Recipe
    weights: Weights
    options: EngineOptions
    data_dir: Path
    sample: tuple[str, ...]
    calibration: tuple[str, ...]
    cache_dir: Path
    work_dir: Path
    workers: int | None
    views: Views | None
    pass_s: float

    @property
    def networks_dir(self) -> Path:
        """The cache folder that has, or gets, its network."""
        return self.cache_dir if self.missing.is_converted else self.work_dir / "networks-of-sample"

    def convert(self, started_at: float) -> Estimate:
        """Make the network, and return what is `missing` with the time that it took since `started_at`.

        What an int8 network is made of is kept in the cache in any case.
        """
        if self.networks_dir != self.cache_dir:
            floats = self.recipe.in_float32
            load_network(floats, self.weights, self.cache_dir, None)
            copy_path = network_path(floats, self.networks_dir)
            copy_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(network_path(floats, self.cache_dir), copy_path)
        load_network(self.recipe, self.weights, self.networks_dir, self._dataset(self.calibration))
        return replace(self.missing, convert_s=time.time() - started_at)

    def measure(self, started_at: float) -> Estimate:
        """Return what computing what is `missing` takes, in this process that was started at `started_at`."""
        sample = self._dataset(self.sample)
        passes = self.passes(self.recipe, images_of(sample))
        first = next(passes)
        until_first_s = time.time() - started_at
        began, own_before, all_before = time.perf_counter(), time.process_time(), cpu_seconds()
        timed = list(passes)
        cores_s = (time.perf_counter() - began) * (os.cpu_count() or n_cores())
        others_s = cpu_seconds() - all_before - (time.process_time() - own_before)
        feature_shape = FeatureStore(self.work_dir / "store", self.recipe).segments[0].feature_shape
        images, views = self._with_cost(self.missing.images, timed, feature_shape), self.missing.views
        start_s = max(0.0, until_first_s - first.n_images * timed[0].elapsed_s / timed[0].n_images)
        if self.views and views:
            recipe = replace(self.recipe, augmentation=self.views.augmentation)
            first_views, *timed_views = self.passes(recipe, views_of(sample, self.views.n))
            views = self._with_cost(views, timed_views, feature_shape)
            if images.n_missing and views.n_missing:
                start_s += first_views.start_s
        estimate = replace(
            self.missing,
            on_gpu=ENGINES[self.options.engine].uses_gpu and keras_sees_gpu(),
            images=images,
            views=views,
            start_s=start_s,
            feature_shape=feature_shape,
            others_share=max(0.0, others_s) / cores_s,
        )
        peak_bytes = max(one.peak_memory_bytes for one in timed)
        return replace(estimate, peak_memory_bytes=peak_bytes + estimate.disk.memory_bytes)

    def _dataset(self, paths: tuple[str, ...]) -> ImageDataset:
        """Return these images, whose digests are in the cache; their classes and splits are of no account."""
        digests, _ = digest_files(paths, self.cache_dir, folder=os.fsencode(self.data_dir.resolve()))
        none = np.zeros(len(paths), np.int64)
        return ImageDataset(
            self.data_dir, ("",), PathTable(paths), labels=none, is_test=none.astype(bool), digests=digests
        )

    def passes(self, recipe: Recipe, images: Images) -> Iterator[Timings]:
        """Yield what the first images took, with the start of the engine, then passes that are long enough to count.

        A pass runs over the images as often as need be, in whole rounds.
        """
        store, calibration = FeatureStore(self.work_dir / "store", recipe), self._dataset(self.calibration)
        settings = ExtractionSettings(engine_options=self.options, workers=self.workers)
        stage = StageOne(recipe, self.weights, store, self.networks_dir, settings, calibration)

        def run(n: int) -> Timings:
            result = stage.run(images[np.resize(np.arange(len(images)), n)])
            if result.error:
                raise result.error
            if result.skipped:
                raise FeatxError(f"{printable(result.skipped[0].path)} cannot be read: {result.skipped[0].reason}.")
            return result.timings

        with closing(stage):
            yield run(min(N_FIRST, len(images)))
            one_round = run(self.n_round)
            if one_round.elapsed_s >= self.pass_s:
                yield one_round
                return
            n_rounds = math.ceil(min(self.pass_s / one_round.elapsed_s, MOST / self.n_round))
            yield run(n_rounds * self.n_round)
            yield run(n_rounds * self.n_round)

    @property
    def n_round(self) -> int:
        """How many images keep the machine busy to the end of a pass: as many batches as run in parallel.

        Of one batch more than that, the last would run alone. All images together have such an end, too, but once: a
        pass of three batches on two cores takes as long as four.
        """
        options, batch_size = self.options, default_batch_size(self.options)
        if not ENGINES[options.engine].has_streams:
            return batch_size
        return batch_size * (options.streams or min(options.threads or n_cores(), n_cores()))

    def _with_cost(self, work: Work, passes: list[Timings], feature_shape: tuple[int, ...]) -> Work:
        """Return `work` with the time and the disk space that it takes."""
        each, total = [one.elapsed_s / one.n_images for one in passes], sum(passes, Timings())
        pace = Pace(row_s=total.elapsed_s / total.n_images, low_s=min(each), high_s=max(each))
        room = disk_usage(work.n_missing, feature_shape, pace.row_s, self.recipe, self.work_dir)
        return replace(work, pace=pace, room=room)


def disk_usage(n_rows: int, feature_shape: tuple[int, ...], row_s: float, recipe: Recipe, work_dir: Path) -> DiskUsage:
    """Return what `n_rows` rows take that come every `row_s` seconds: a segment of them is written, to see its size.

    A segment is closed when it is full or, with a slow network, when it is old enough.
    """
    if not n_rows:
        return DiskUsage()
    row = np.zeros((1, *feature_shape), recipe.dtype)
    n = min(n_rows, max(1, SEGMENT_BYTES // row.nbytes), max(1, round(SEGMENT_AGE_S / row_s)))
    with TemporaryDirectory(dir=work_dir) as folder:
        store, digests = FeatureStore(Path(folder), recipe), np.ones((n, 32), np.uint8)
        store.write_segment(new_segment_name(), np.repeat(row, n, axis=0), digests, lambda: Timings(n))
        store.publish()
        size_bytes = sum(path.stat().st_size for path in Path(folder, recipe.slug).iterdir())
    return DiskUsage(round(size_bytes * n_rows / n), math.ceil(n_rows / n))


def try_out(trial: Trial, method: str, stop_at: float = math.inf) -> Estimate:
    """Run a method of `trial` in its own process, which ends with this one, and return its result.

    If it cannot be done here or fails, the estimate has the reason: `NOT_TRIED` if it would have taken beyond
    `stop_at`, by `time.perf_counter`.
    """
    left_s = stop_at - time.perf_counter()
    if left_s <= 0:
        return replace(trial.missing, reason=NOT_TRIED)
    # It finds this featx, and what it writes for a while goes with `work_dir`.
    python_path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    job = json.dumps([os.getpid(), method, asdict(trial), time.time()], default=str)
    errors_path = trial.work_dir / "errors.txt"
    with (
        errors_path.open("wb") as errors,
        # A session of its own: Ctrl-C is for the process that waits, and ends the trial with it.
        subprocess.Popen(
            [sys.executable, "-P", "-c", "from featx.extract.planning.trial import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": python_path, "TMPDIR": str(trial.work_dir.resolve())},
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same for Windows
        ) as process,
    ):
        try:
            answer, _ = process.communicate(job.encode(), min(LIMIT_S, left_s))
        except subprocess.TimeoutExpired:
            if left_s < LIMIT_S:
                return replace(trial.missing, reason=NOT_TRIED)
            return replace(trial.missing, reason=f"It was stopped after {LIMIT_S / 60:.0f} minutes.")
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        return replace(trial.missing, reason=_cause(process.returncode, errors_path))
    estimate: Estimate = from_json_value(Estimate, json.loads(answer))
    return estimate


def _cause(returncode: int, errors_path: Path) -> str:
    """Return what a process died of: a signal, or the last line that it wrote."""
    if returncode < 0:
        return f"The signal {signal.Signals(-returncode).name} ended its process."
    lines = errors_path.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"code {returncode}")
    return f"Its process failed: {printable(last.strip())[:300]}"


def main() -> None:
    """Run in the trial's own process: do what standard input asks for, and write the answer to standard output."""
    parent, method, members, started_at = json.load(sys.stdin)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    trial: Trial = from_json_value(Trial, members)
    hide_with(nullcontext)  # what TensorFlow prints goes to a file already; but it starts as fast as in `featx extract`
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for libraries that print
        try:
            estimate: Estimate = getattr(trial, method)(started_at)
        except FeatxError as error:
            estimate = replace(trial.missing, reason=str(error))
        except MemoryError:
            estimate = replace(trial.missing, reason="There is not enough memory.")
        json.dump(asdict(estimate), answer)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, for whatever reason."""
    while os.getppid() == parent and psutil.pid_exists(parent):  # Windows goes on naming a parent that has ended
        time.sleep(1.0)
    os._exit(1)
