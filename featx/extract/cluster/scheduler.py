"""Gives tasks to the workers of a cluster, one after the other, and to other workers if one is lost.

Ray alone cannot do this. An actor with `max_restarts` whose node is gone waits for free cores and keeps its task
meanwhile, though other workers are idle. `ray.util.ActorPool` forgets the task of a lost actor, starts no actors on new
nodes, and in older versions gives more tasks to dead actors.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from featx.dataset import Images, source_path
from featx.engines import default_batch_size
from featx.errors import FeatxError
from featx.extract.cluster.worker import Outcome, Worker, WorkerConfig, WorkerSlot
from featx.store import FeatureStore
from featx.text import printable

#: A task is work for so long. A worker that is killed takes no more with it; and once for each task, its engine waits
#: for the first images and for the last segment.
TASK_S = 20.0

#: Towards the end, when tasks are made smaller so that all workers end together, none is smaller than this.
LEAST_S = 1.0

#: Batches in a worker's first task, which shows how fast it is.
FIRST_BATCHES = 4

#: A task is no larger, however fast the worker: its names have to travel, and its rows may be computed again.
MAX_IMAGES = 8192

#: How often to report, and to ask a worker how far it is; how often to ask Ray for nodes.
TICK_S, LOOK_EVERY_S = 0.5, 2.0

#: If this many workers are lost with the same images or on one node, and no task is done, that is no accident.
MAX_LOST = 3

#: Importing and looking at files takes a worker a while, so it may keep us waiting longer than no worker at all.
START_PATIENCE = 3

#: A worker that computes reports every batch; the first waits for the engine, which a GPU's compiler keeps for minutes.
STALLED_S = 1800.0


@dataclass(frozen=True)
class Progress:
    """What has happened since the last one; perhaps nothing, but the driver is alive.

    Attributes:
        n_done: images that were finished since then.
        warnings: for the log.
    """

    n_done: int
    warnings: list[str]


@dataclass(frozen=True)
class Task:
    """Work for one worker.

    Attributes:
        rows: `(n,)` int64, which of the images.
        n_lost: workers that were lost with them so far.
    """

    rows: np.ndarray
    n_lost: int = 0


class TaskQueue:
    """All rows that no worker has, in their order: views of one image are side by side, and stay so."""

    def __init__(self, n_rows: int, batch_size: int) -> None:
        """Begin with all rows of `n_rows`, which workers compute in batches of `batch_size`."""
        self._waiting = deque([Task(np.arange(n_rows))])
        self._batch_size = batch_size

    @property
    def n_left(self) -> int:
        """Rows that no worker has."""
        return sum(len(task.rows) for task in self._waiting)

    def take(self, images_per_s: float | None, n_workers: int) -> Task:
        """Return the next task, for one of `n_workers`, which computes `images_per_s`; None if nobody knows yet.

        There must be rows left.
        """
        size = _size(images_per_s, self.n_left, n_workers, self._batch_size)
        task = self._waiting.popleft()
        if len(task.rows) > size:
            self._waiting.appendleft(replace(task, rows=task.rows[size:]))
        return replace(task, rows=task.rows[:size])

    def give_back(self, task: Task) -> None:
        """Have a task done before all others."""
        if len(task.rows):
            self._waiting.appendleft(task)


def _size(images_per_s: float | None, n_left: int, n_workers: int, batch_size: int) -> int:
    """Return how many images the next task has: whole batches.

    >>> [_size(rate, n_left, 4, 32) for rate, n_left in ((None, 10**6), (150, 10**6), (150, 8000), (150, 300), (1, 99))]
    [128, 2976, 992, 128, 32]
    """
    if images_per_s is None:
        wanted = float(FIRST_BATCHES * batch_size)
    else:
        fair = max(n_left / (2 * n_workers), LEAST_S * images_per_s)
        wanted = min(TASK_S * images_per_s, fair, MAX_IMAGES)
    return batch_size * max(1, int(wanted / batch_size))


@dataclass(eq=False)
class _RunningWorker:
    """A worker, as seen from here.

    Attributes:
        slot: where it is.
        actor: Ray's handle of a `Worker`.
        is_ready: whether it may get a task.
        task: what it is working on.
        n_counted: how many images of it have been counted.
        images_per_s: how fast it is; None before its first task.
    """

    slot: WorkerSlot
    actor: Any
    is_ready: bool = False
    task: Task | None = None
    n_counted: int = 0
    images_per_s: float | None = None


@dataclass(eq=False)
class Scheduler:
    """Has the workers of a cluster compute the features of images.

    All of it runs on one thread: `run` looks round twice a second, and `_work` follows one worker.

    Attributes:
        ray: the module, connected.
        find_slots: tells where there is room for workers at present.
        command: gets `Progress`; anything that it sends means that the work must end early.
        images: whose features are wanted; their sources have absolute paths.
        config: for the workers.
        patience_s: how long to wait for a worker if there is none.
    """

    ray: Any
    find_slots: Callable[[], list[WorkerSlot]]
    command: Connection
    images: Images
    config: WorkerConfig
    patience_s: float

    def __post_init__(self) -> None:
        self.ray.method(concurrency_group="progress")(Worker.progress)  # marks it: it does not wait for `compute`
        self._actor_class = self.ray.remote(concurrency_groups={"progress": 1})(Worker)
        self._store = FeatureStore(self.config.cache_dir, self.config.recipe)
        self._batch_size = default_batch_size(self.config.engine_options)
        self._queue = TaskQueue(len(self.images), self._batch_size)
        self._workers: list[_RunningWorker] = []
        self._n_lost: Counter[str] = Counter()  # by node, since a task was done there
        self._first_nodes: set[str] | None = None
        self._unfit: set[str] = set()
        self._look_s = 0.0
        self._event_s = time.monotonic()
        self._has_begun = False  # whether any worker was ever ready
        self._is_ending = False
        self._n_done = 0  # since the last `Progress`
        self._outcome = Outcome()  # its warnings are those since the last `Progress`

    async def run(self) -> Outcome:
        """Return when all is done, or ended early; what workers still do is cancelled with the event loop."""
        running: set[asyncio.Task[None]] = set()
        while not self._is_over():
            if self.command.poll():
                self.command.recv()  # raises if the command has ended, which ends this process and its workers
                self._end_early()
            running |= {asyncio.create_task(self._work(slot)) for slot in self._free_slots()}
            timer = asyncio.create_task(asyncio.sleep(TICK_S))
            ended, running = await asyncio.wait({timer, *running}, return_when=asyncio.FIRST_COMPLETED)
            running.discard(timer)
            for turn in ended:
                turn.result()  # raises what nobody has foreseen
            self.command.send(Progress(self._n_done, self._outcome.warnings))
            self._n_done, self._outcome.warnings = 0, []
            if error := self._out_of_patience():
                self._end_early(error)
                break
        return self._outcome

    def _is_over(self) -> bool:
        is_busy = any(worker.task for worker in self._workers)
        return not is_busy and (self._is_ending or not self._queue.n_left)

    def _end_early(self, error: Exception | None = None) -> None:
        """Give out nothing more, and have the workers finish the batches under way: they are told when next asked."""
        self._outcome.error = self._outcome.error or error
        self._is_ending = True

    # Workers come

    def _free_slots(self) -> list[WorkerSlot]:
        """Return where there is room for workers and none yet, as many as there is work for."""
        if self._is_ending or time.monotonic() < self._look_s:
            return []
        self._look_s = time.monotonic() + LOOK_EVERY_S
        slots = self.find_slots()
        if self._first_nodes is None:
            self._first_nodes = {slot.node_id for slot in slots}
        free = Counter(slots) - Counter(worker.slot for worker in self._workers)
        fit = [slot for slot in free.elements() if slot.node_id not in self._unfit]
        n_idle = sum(worker.task is None for worker in self._workers)
        return fit[: max(0, math.ceil(self._queue.n_left / self._batch_size) - n_idle)]

    def _leave_out(self, slot: WorkerSlot, reason: str) -> None:
        """Have no more workers on a node: an error, or, where the work is under way without it, a warning."""
        if slot.node_id in self._unfit:
            return
        self._unfit.add(slot.node_id)
        if self._first_nodes and slot.node_id in self._first_nodes:
            self._end_early(FeatxError(reason))
        else:
            self._outcome.warnings.append(f"{reason} featx does not use this node.")

    # Workers compute

    async def _work(self, slot: WorkerSlot) -> None:
        """Start a worker and give it one task after the other, until all is over or it is lost."""
        here = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(slot.node_id, soft=False)
        actor_class = self._actor_class.options(num_cpus=slot.n_cores, num_gpus=slot.n_gpus, scheduling_strategy=here)
        worker = _RunningWorker(slot, actor_class.remote(slot, self.config))
        self._workers.append(worker)
        try:
            reason = await worker.actor.start.remote()
            self._event_s = time.monotonic()
            if reason:
                self._leave_out(slot, reason)
                return
            worker.is_ready = self._has_begun = True
            while not self._is_over():
                if self._is_ending or not self._queue.n_left:
                    await asyncio.sleep(TICK_S)  # another worker may be lost
                else:
                    await self._compute(worker)
        except self.ray.exceptions.RayTaskError as error:
            self._end_early(FeatxError(f"A worker on the node {slot.node} failed: {_last_line(error)}."))
        except self.ray.exceptions.RayError as error:
            self._lose(worker, error)
        finally:
            self._workers.remove(worker)
            self.ray.kill(worker.actor)

    async def _compute(self, worker: _RunningWorker) -> None:
        """Have a worker compute its next task, and count its progress."""
        n_ready = sum(other.is_ready for other in self._workers)
        worker.task = self._queue.take(worker.images_per_s, n_ready)
        worker.n_counted = 0
        computed = asyncio.ensure_future(worker.actor.compute.remote(self.images[worker.task.rows], n_ready))
        while not (await asyncio.wait({computed}, timeout=TICK_S))[0]:
            with suppress(self.ray.exceptions.RayError):  # of which `computed` tells, too
                n = await worker.actor.progress.remote(stop=self._is_ending)
                self._count(worker, max(n, worker.n_counted))
        outcome = computed.result()
        worker.task = None
        timings = outcome.timings
        self._count(worker, timings.n_images + len(outcome.skipped))
        self._outcome.timings += timings
        self._outcome.skipped += outcome.skipped
        self._outcome.dim += outcome.dim
        self._outcome.warnings += outcome.warnings
        self._n_lost[worker.slot.node_id] = 0
        worked_s = (timings.elapsed_s - timings.start_s) * n_ready
        if worked_s > 0:
            worker.images_per_s = timings.n_images / worked_s or None
        if outcome.error:
            self._end_early(outcome.error)

    def _count(self, worker: _RunningWorker, n: int) -> None:
        """Take note that `n` images of the present task of `worker` are done."""
        if n != worker.n_counted:
            self._event_s = time.monotonic()
            self._n_done += n - worker.n_counted
            worker.n_counted = n

    # Workers go

    def _lose(self, worker: _RunningWorker, error: Exception) -> None:
        """Give what a worker had not stored to others."""
        node, reason = worker.slot.node, _reason(error)
        self._look_s = time.monotonic() + LOOK_EVERY_S  # it may take Ray a moment to see that a node has gone
        left = self._unstored(worker, worker.task) if worker.task else Task(np.arange(0))
        self._queue.give_back(left)
        self._n_lost[worker.slot.node_id] += 1
        if worker.is_ready:
            self._event_s = time.monotonic()
            what = f"its {len(left.rows):,} images" if len(left.rows) else "its work"
            self._outcome.warnings.append(f"A worker on the node {node} was lost ({reason}); others take over {what}.")
        if len(left.rows) and left.n_lost == MAX_LOST:
            first = printable(source_path(self.images.sources[left.rows[0]]))
            what = f"{MAX_LOST} workers in a row were lost with the same images, from {first} on ({reason})"
            self._end_early(FeatxError(f"{what}. What was computed is kept. Fix this, then run it again to resume."))
        elif self._n_lost[worker.slot.node_id] == MAX_LOST:
            what = f"{MAX_LOST} workers in a row were lost on the node {node} ({reason})."
            self._leave_out(worker.slot, what)

    def _unstored(self, worker: _RunningWorker, task: Task) -> Task:
        """Return the part of a lost worker's task that is not in the store; count the rest as computed."""
        images = self.images[task.rows]
        self._store.reload()
        stored = self._store.contains(images.digests, images.views)
        kept = images[stored.nonzero()[0]]
        self._outcome.timings += self._store.cost(kept.digests, kept.views)
        self._count(worker, len(kept))
        return Task(task.rows[~stored], task.n_lost + 1)

    def _out_of_patience(self) -> FeatxError | None:
        """Return why to end a run that would wait for ever."""
        patience_s = self.patience_s
        if any(worker.is_ready for worker in self._workers):
            patience_s, what = STALLED_S, "no worker has finished an image"
        elif self._has_begun:
            what = "no worker is left, and no other has joined"
        else:
            patience_s *= START_PATIENCE
            what = "no worker could start (perhaps all cores or GPUs are taken)"
        if self._is_over() or time.monotonic() - self._event_s < patience_s:
            return None
        return FeatxError(
            f"On the Ray cluster, {what} for {patience_s:.0f} s. What was computed is kept: repair the cluster (see "
            f"ray status), then run the same command again to resume."
        )


def _reason(error: Exception) -> str:
    """Return in a few words why a worker was lost."""
    if "creation task" in str(error):
        return _last_line(error)
    known = {"OutOfMemoryError": "out of memory", "NodeDiedError": "the node is gone"}
    return known.get(type(error).__name__, "its process or its node is gone")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1][:300].removesuffix(".")) if lines else type(error).__name__
