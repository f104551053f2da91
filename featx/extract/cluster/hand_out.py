"""Portions of rows to workers, one after the other, and to others again if a worker is lost."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from featx.dataset import DimImage, SkippedImage, source_path
from featx.engines import default_batch_size
from featx.errors import FeatxError, printable
from featx.extract.cluster.messages import Counted, Done, Failure, Finished, Job, Said
from featx.extract.cluster.portions import Portion, Portions
from featx.extract.cluster.rooms import Room, rooms
from featx.extract.cluster.worker import Worker
from featx.store import FeatureStore
from featx.system import Timings

#: How long to wait for an answer before looking round; how often to ask a worker how far it is, and Ray for nodes.
TICK_S, ASK_EVERY_S, LOOK_EVERY_S = 0.5, 0.5, 2.0

#: So many workers lost, without a portion done, with the same images, or on the same node, are no accident.
MAX_LOST = 3

#: Importing and looking at files takes a worker a while, so it may keep us waiting longer than no worker at all.
START_PATIENCE = 3

#: A worker that computes reports every batch; the first waits for the engine, which a GPU's compiler keeps for minutes.
STALLED_S = 1800.0


@dataclass(eq=False)
class _Hand:
    """A worker, as seen from here.

    Attributes:
        room: where it is.
        actor: Ray's handle of a `Worker`.
        is_ready: whether it may get a portion.
        portion: what it is working on.
        n_counted: how many images of it have been counted.
        images_per_s: how fast it is; None before its first portion.
        asked_s: when it was last asked how far it is; infinite while it has not answered.
    """

    room: Room
    actor: Any
    is_ready: bool = False
    portion: Portion | None = None
    n_counted: int = 0
    images_per_s: float | None = None
    asked_s: float = field(default_factory=time.monotonic)


class HandOut:
    """Has the workers of a cluster compute the features of images."""

    def __init__(
        self, ray: Any, engine: str, job: Job, tell: Callable[[Any], None], is_stopped: Callable[[], bool]
    ) -> None:
        """Begin; nothing is started before `run`.

        Args:
            ray: the module, connected.
            engine: that all workers run.
            job: what is to be done.
            tell: is told of what happens: `Counted` and `Said`.
            is_stopped: whether the work is to end early.
        """
        self._ray, self._engine, self._job, self._tell, self._is_stopped = ray, engine, job, tell, is_stopped
        for method in (Worker.n_counted, Worker.stop):
            ray.method(concurrency_group="control")(method)  # marks it: it does not wait for `compute`
        self._worker_class = ray.remote(concurrency_groups={"control": 1})(Worker)
        self._store = FeatureStore(job.terms.cache_dir, job.terms.recipe)
        batch_size = default_batch_size(job.terms.engine_options)
        self._portions = Portions(len(job.images), batch_size)
        self._batch_size = batch_size
        self._hands: list[_Hand] = []
        self._pending: dict[Any, tuple[_Hand, Callable[[_Hand, Any], None]]] = {}
        self._n_lost: Counter[str] = Counter()  # by node, since a portion was done there
        self._first_nodes: set[str] | None = None
        self._unfit: set[str] = set()
        self._look_s = 0.0
        self._event_s = time.monotonic()
        self._has_begun = False  # whether any worker was ever ready
        self._is_ending = False
        self._timings = Timings()
        self._skipped: list[SkippedImage] = []
        self._dim: list[DimImage] = []
        self._error: Failure | None = None

    def run(self) -> Finished:
        """Return when all is done, or ended early."""
        while not self._is_over():
            if self._is_stopped():
                self._end_early(None)
            self._look_for_room()
            self._hand_out()
            self._ask_how_far()
            self._take_answer()
            self._check_patience()
            self._tell(Counted(0))
        return Finished(self._timings, self._skipped, self._dim, self._error)

    def _is_over(self) -> bool:
        is_busy = any(hand.portion for hand in self._hands)
        return not is_busy and (self._is_ending or not self._portions.n_left)

    # Workers come

    def _look_for_room(self) -> None:
        """Start a worker wherever there is room for one and none yet."""
        if self._is_ending or time.monotonic() < self._look_s:
            return
        self._look_s = time.monotonic() + LOOK_EVERY_S
        found = rooms(self._ray.nodes(), self._engine, self._job.terms.engine_options.threads)
        if self._first_nodes is None:
            self._first_nodes = {room.node_id for room in found}
        taken = Counter(hand.room for hand in self._hands)
        for room in found:
            if taken[room]:
                taken[room] -= 1
            elif room.node_id not in self._unfit and self._has_work_for_one_more():
                self._start(room)

    def _has_work_for_one_more(self) -> bool:
        n_idle = sum(hand.portion is None for hand in self._hands)
        return n_idle * self._batch_size < self._portions.n_left

    def _start(self, room: Room) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(room.node_id, soft=False)
        options = {"num_cpus": room.n_cores, "num_gpus": room.n_gpus, "scheduling_strategy": here}
        hand = _Hand(room, self._worker_class.options(**options).remote(room, self._job.terms))
        self._hands.append(hand)
        self._pending[hand.actor.start.remote()] = (hand, self._on_started)

    def _on_started(self, hand: _Hand, error: FeatxError | None) -> None:
        self._event_s = time.monotonic()
        if error is None:
            hand.is_ready = self._has_begun = True
            return
        self._dismiss(hand)
        self._leave_out(hand.room, error)

    def _leave_out(self, room: Room, error: FeatxError) -> None:
        """Have no more workers on a node: an error, or, where the work is under way without it, a warning."""
        if room.node_id in self._unfit:
            return
        self._unfit.add(room.node_id)
        if self._first_nodes and room.node_id in self._first_nodes:
            self._end_early(error)
        else:
            self._tell(Said(logging.WARNING, f"{error} It is left out."))

    # Portions go

    def _hand_out(self) -> None:
        ready = [hand for hand in self._hands if hand.is_ready]
        for hand in ready:
            if self._is_ending or not self._portions.n_left:
                return
            if hand.portion is None:
                hand.portion = self._portions.take(hand.images_per_s, len(ready))
                hand.n_counted = 0
                call = hand.actor.compute.remote(self._job.images[hand.portion.rows], len(ready))
                self._pending[call] = (hand, partial(self._on_done, side_by_side=len(ready)))

    def _on_done(self, hand: _Hand, done: Done, side_by_side: int) -> None:
        for said in done.said:
            self._tell(said)
        self._count(hand, done.timings.n_images + len(done.skipped))
        self._timings += done.timings
        self._skipped += done.skipped
        self._dim += done.dim
        hand.portion = None
        self._n_lost[hand.room.node_id] = 0
        worked_s = (done.timings.elapsed_s - done.timings.start_s) * side_by_side
        if worked_s > 0:
            hand.images_per_s = done.timings.n_images / worked_s or None
        if done.error:
            self._end_early(done.error)

    def _ask_how_far(self) -> None:
        now = time.monotonic()
        for hand in self._hands:
            if hand.portion and now - hand.asked_s > ASK_EVERY_S:
                hand.asked_s = float("inf")
                call = hand.actor.n_counted.remote()
                self._pending[call] = (hand, partial(self._on_counted, of=hand.portion))

    def _on_counted(self, hand: _Hand, n: int, of: Portion) -> None:
        hand.asked_s = time.monotonic()
        if hand.portion is of:  # or it has been counted in full
            self._count(hand, max(n, hand.n_counted))

    def _count(self, hand: _Hand, n: int) -> None:
        """Take note that `n` images of the present portion of `hand` are done with."""
        if n != hand.n_counted:
            self._event_s = time.monotonic()
            self._tell(Counted(n - hand.n_counted))
            hand.n_counted = n

    # What comes back, and what does not

    def _take_answer(self) -> None:
        """Wait a moment for an answer of some worker."""
        if not self._pending:
            time.sleep(TICK_S)
            return
        answered, _ = self._ray.wait(list(self._pending), timeout=TICK_S)
        for call in answered:
            hand, on_answer = self._pending.pop(call)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                self._dismiss(hand)
                self._end_early(FeatxError(f"A worker on the node {hand.room.node} failed: {_last_line(error)}."))
            except self._ray.exceptions.RayError as error:
                self._lose(hand, error)
            else:
                on_answer(hand, answer)

    def _lose(self, hand: _Hand, error: Exception) -> None:
        """Give what a worker had not stored to others."""
        portion, reason = hand.portion, _reason(error)
        if hand.is_ready:
            self._event_s = time.monotonic()
        self._look_s = time.monotonic() + LOOK_EVERY_S  # it may take Ray a moment to see that a node has gone
        left = self._unstored(hand, portion) if portion else None
        self._dismiss(hand)
        self._n_lost[hand.room.node_id] += 1
        if left:
            self._portions.give_back(left)
        if hand.is_ready:
            n = f"{len(left.rows):,} images go" if left else "work goes"
            self._tell(Said(logging.WARNING, f"A worker on the node {hand.room.node} was lost ({reason}); {n} on."))
        if left and left.n_lost == MAX_LOST:
            first = printable(source_path(self._job.images.sources[left.rows[0]]))
            what = f"{MAX_LOST} workers were lost one after the other with the same images, from {first} on ({reason})"
            self._end_early(FeatxError(f"{what}. What was computed is kept: mend this and run the same command again."))
        elif self._n_lost[hand.room.node_id] == MAX_LOST:
            what = f"{MAX_LOST} workers were lost one after the other on the node {hand.room.node} ({reason})."
            self._leave_out(hand.room, FeatxError(what))

    def _unstored(self, hand: _Hand, portion: Portion) -> Portion | None:
        """Return what of the portion of a lost worker is not in the store; what is there is counted as computed."""
        images = self._job.images[portion.rows]
        self._store.reload()
        stored = self._store.contains(images.digests, images.views)
        kept = images[stored.nonzero()[0]]
        self._timings += self._store.cost(kept.digests, kept.views)
        self._count(hand, len(kept))
        rows = portion.rows[~stored]
        return Portion(rows, portion.n_lost + 1) if len(rows) else None

    def _dismiss(self, hand: _Hand) -> None:
        """End a worker that is of no use."""
        self._hands.remove(hand)
        self._pending = {call: entry for call, entry in self._pending.items() if entry[0] is not hand}
        self._ray.kill(hand.actor)

    # Ends before all is done

    def _end_early(self, error: Failure | None) -> None:
        """Hand out nothing more, and have the workers finish the batches under way."""
        self._error = self._error or error
        if not self._is_ending:
            self._is_ending = True
            for hand in self._hands:
                hand.actor.stop.remote()

    def _check_patience(self) -> None:
        """End a run that would wait for ever."""
        waited_s, patience_s = time.monotonic() - self._event_s, self._job.patience_s
        if any(hand.is_ready for hand in self._hands):
            patience_s, what = STALLED_S, "no worker has finished an image"
        elif self._has_begun:
            what = "no worker is left, and no other has come"
        else:
            patience_s *= START_PATIENCE
            what = "no worker could be started, as if all cores or GPUs were taken,"
        if waited_s < patience_s or self._is_over():
            return
        for hand in self._hands[:]:
            self._dismiss(hand)
        self._end_early(
            FeatxError(
                f"On the Ray cluster, {what} for {patience_s:.0f} s. What was computed is kept: mend the cluster (see "
                f"ray status) and run the same command again to go on."
            )
        )


def _reason(error: Exception) -> str:
    """Return in a few words why a worker was lost."""
    name = type(error).__name__
    if "creation task" in str(error):
        return _last_line(error)
    known = {"OutOfMemoryError": "out of memory", "NodeDiedError": "the node is gone"}
    return known.get(name, "its process or its node is gone")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1][:300].removesuffix(".")) if lines else type(error).__name__
