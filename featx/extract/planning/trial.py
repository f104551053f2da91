"""One engine and precision, tried out on the sample in a process of its own.

So TensorFlow is not loaded into the process that plans, and a trial that runs out of memory is a reason, not a crash.
The process is one of `subprocess`: those of `multiprocessing` would run the user's script again.
"""

import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from featx.backbones import Weights
from featx.dataset import ImageDataset, Images, images_of, views_of
from featx.engines import EngineOptions, default_batch_size, load_network, network_path
from featx.errors import FeatxError, printable
from featx.extract.pipeline import StageOne
from featx.extract.planning.estimate import DiskUsage, Estimate, Pace, Work
from featx.images import Views
from featx.recipe import Recipe
from featx.store import SEGMENT_AGE_S, SEGMENT_BYTES, FeatureStore, new_segment_name
from featx.system import Timings, cpu_seconds, keras_sees_gpu, n_cores

#: No pass has many more images than this, however fast they are.
MOST = 20_000

#: Images of the first pass, which pays for what is done only once.
N_FIRST = 8

#: A trial that takes longer is given up.
LIMIT_S = 600.0

#: How often somebody who waits is told that it goes on.
TICK_S = 1.0

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """Stage one as it is, on a sample, into a store of its own.

    Attributes:
        recipe: of the images' features.
        weights: that it names.
        options: how the backbone is run; its engine is never `"auto"`.
        sample: the images to be timed, each of which can be read.
        calibration: the images that an int8 network is calibrated on.
        cache_dir: has, or gets, the converted networks.
        work_dir: a folder for what is written meanwhile.
        workers: decoding threads.
        views: augmented views to be timed as well.
        pass_s: seconds that a pass is to take: the first batch and the last segment, which all images together have
            only once, are some hundredths of two.
        keeps_network: whether an extraction may find its network in the cache.
    """

    recipe: Recipe
    weights: Weights
    options: EngineOptions
    sample: ImageDataset
    calibration: ImageDataset
    cache_dir: Path
    work_dir: Path
    workers: int | None
    views: Views | None
    pass_s: float
    keeps_network: bool = True

    @property
    def networks_dir(self) -> Path:
        """The cache folder that has, or gets, its network."""
        return self.cache_dir if self.keeps_network else self.work_dir / "networks-of-sample"

    def convert(self) -> None:
        """Make the network; what an int8 network is made of is kept in the cache in any case."""
        if not self.keeps_network:
            floats = replace(self.recipe, precision="float32", calibration=None)
            load_network(floats, self.weights, self.cache_dir, None)
            copy_path = network_path(floats, self.networks_dir)
            copy_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(network_path(floats, self.cache_dir), copy_path)
        load_network(self.recipe, self.weights, self.networks_dir, self.calibration)

    def measure(self, missing: Estimate, started_at: float) -> Estimate:
        """Return what computing the images and views that are `missing` takes.

        Args:
            missing: has their numbers.
            started_at: when this process was started, in seconds since 1970.
        """
        passes = self.passes(self.recipe, images_of(self.sample))
        first = next(passes)
        until_first_s = time.time() - started_at
        began, own_before, all_before = time.perf_counter(), time.process_time(), cpu_seconds()
        timed = list(passes)
        cores_s = (time.perf_counter() - began) * (os.cpu_count() or n_cores())
        others_s = cpu_seconds() - all_before - (time.process_time() - own_before)
        pace = _pace(timed)
        start_s = max(0.0, until_first_s - first.n_images * pace.row_s)
        segment = FeatureStore(self.work_dir / "store", self.recipe).segments[0]
        views = missing.views
        if self.views and views:
            recipe = replace(self.recipe, augmentation=self.views.augmentation)
            first_views, *timed_views = self.passes(recipe, views_of(self.sample, self.views.n))
            views = self._with_cost(views, _pace(timed_views), segment.feature_shape)
            if missing.images.n_missing and views.n_missing:
                start_s += first_views.start_s
        return replace(
            missing,
            on_gpu=self.options.engine == "keras" and keras_sees_gpu(),
            images=self._with_cost(missing.images, pace, segment.feature_shape),
            views=views,
            start_s=start_s,
            feature_shape=segment.feature_shape,
            peak_memory_bytes=max(
                one.peak_memory_bytes - writing_bytes(one.n_images, segment.row_bytes, pace.row_s) for one in timed
            )
            + writing_bytes(missing.n_missing, segment.row_bytes, pace.row_s),
            others_share=max(0.0, others_s) / cores_s,
        )

    def passes(self, recipe: Recipe, images: Images) -> Iterator[Timings]:
        """Yield what the first images took, with the start of the engine, then passes that are long enough to count.

        A pass runs over the images as often as need be, in whole rounds.
        """
        store = FeatureStore(self.work_dir / "store", recipe)
        stage = StageOne(recipe, self.weights, store, self.networks_dir, self.options, self.workers, self.calibration)

        def run(n: int) -> Timings:
            return stage.run(images[np.resize(np.arange(len(images)), n)], [], strict=True, show=False)

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
        """How many images keep the machine busy to the end of a pass: a batch for each that runs side by side.

        Of one batch more than that, the last would run alone. All images together have such an end, too, but once: a
        pass of three batches on two cores takes as long as four.
        """
        options, batch_size = self.options, default_batch_size(self.options)
        if options.engine == "keras":
            return batch_size
        return batch_size * (options.streams or min(options.threads or n_cores(), n_cores()))

    def _with_cost(self, work: Work, pace: Pace, feature_shape: tuple[int, ...]) -> Work:
        """Return `work` with the time and the disk space that it takes."""
        room = disk_usage(work.n_missing, feature_shape, pace.row_s, self.recipe, self.work_dir)
        return replace(work, pace=pace, room=room)


def _pace(passes: list[Timings]) -> Pace:
    each, total = [one.elapsed_s / one.n_images for one in passes], sum(passes, Timings())
    return Pace(row_s=total.elapsed_s / total.n_images, low_s=min(each), high_s=max(each))


def disk_usage(n_rows: int, feature_shape: tuple[int, ...], row_s: float, recipe: Recipe, work_dir: Path) -> DiskUsage:
    """Return what `n_rows` rows take that come every `row_s` seconds: a segment of them is written, to see its size.

    A segment is closed when it is full or, with a slow network, when it is old enough.
    """
    if not n_rows:
        return DiskUsage()
    row = np.zeros((1, *feature_shape), recipe.dtype)
    n = min(n_rows, max(1, SEGMENT_BYTES // row.nbytes), max(1, round(SEGMENT_AGE_S / row_s)))
    with TemporaryDirectory(dir=work_dir) as folder:
        store = FeatureStore(Path(folder), recipe)
        digests = np.ones((n, 32), np.uint8)
        store.write_segment(new_segment_name(), np.repeat(row, n, axis=0), digests, lambda: Timings(n))
        store.publish()
        size_bytes = sum(path.stat().st_size for path in Path(folder, recipe.slug).iterdir())
    return DiskUsage(round(size_bytes * n_rows / n), math.ceil(n_rows / n))


def writing_bytes(n_rows: int, row_bytes: int, row_s: float) -> int:
    """Return the memory that collecting and writing `n_rows` rows takes at most, above a run that has none.

    That is the segment that is being filled, the one that is being written, and that one again as a file in memory.
    """
    full_bytes = min(SEGMENT_BYTES, max(1, round(SEGMENT_AGE_S / row_s)) * row_bytes)
    n_bytes = n_rows * row_bytes
    return min(2 * n_bytes, n_bytes + full_bytes, 3 * full_bytes)


def run_apart(function: Callable[[], _Answer], work_dir: Path, tick: Callable[[], object]) -> _Answer:
    """Return what `function` returns in a process of its own, which ends with this one; `tick` is called meanwhile.

    Raises:
        FeatxError: it cannot be done here, or has failed; the message is the reason.
    """
    answer_path, errors_path = work_dir / "answer.pickle", work_dir / "errors.txt"
    # It finds this featx, and what it writes for a while goes with `work_dir`.
    python_path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    with errors_path.open("wb") as errors:
        # A session of its own: Ctrl-C is for the process that waits, and ends the trial with it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from featx.extract.planning.trial import main; main()"],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": python_path, "TMPDIR": str(work_dir.resolve())},
            start_new_session=True,
        )
    try:
        _wait(process, pickle.dumps((function, answer_path)), tick)
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        raise FeatxError(_cause(process.returncode, errors_path))
    answer: _Answer | FeatxError = pickle.loads(answer_path.read_bytes())  # noqa: S301 - we wrote it
    if isinstance(answer, FeatxError):
        raise answer
    return answer


def _wait(process: "subprocess.Popen[bytes]", job: bytes, tick: Callable[[], object]) -> None:
    """Hand the job to a process and wait until it ends."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has failed, and says so
        process.stdin.write(job)
        process.stdin.flush()
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise FeatxError(f"It was given up after {LIMIT_S / 60:.0f} minutes.")
        with suppress(subprocess.TimeoutExpired):
            process.wait(TICK_S)
        tick()


def _cause(returncode: int, errors_path: Path) -> str:
    """Return what a process died of: a signal, or the last line that it wrote."""
    if returncode < 0:
        return f"Its process was ended by the signal {signal.Signals(-returncode).name}."
    lines = errors_path.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"code {returncode}")
    return f"Its process failed: {printable(last.strip())[:300]}"


def main() -> None:
    """Do, in the process of its own, what standard input asks for, and write the answer."""
    function, answer_path = pickle.load(sys.stdin.buffer)  # noqa: S301 - `run_apart` wrote it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = function()
    except FeatxError as error:
        answer = FeatxError(str(error))
    except MemoryError:
        answer = FeatxError("There is not enough memory.")
    answer_path.write_bytes(pickle.dumps(answer))


def _end_with_parent() -> None:
    """End the process when whoever started it is gone, whatever ended that."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)
