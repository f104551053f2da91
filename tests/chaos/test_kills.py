"""SIGKILL at random points: what was on disk stays, nothing on disk is wrong, and the next run goes on from there."""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.chaos import processes
from tests.chaos.fault_points import COMPACTION, EXTRACTION, Fault, FaultPoint
from tests.chaos.processes import Process, Trail
from tests.chaos.scenario import SEGMENT_ROWS, Rows, Scenario, copy_cache, extract, shown_rows
from tests.chaos.tally import Tally, chosen

KILLS_A_SERIES = 4
N_EXTRACTIONS = chosen(full=37, quick=5)
N_COMPACTIONS = chosen(full=13, quick=2)

#: Rows that a kill may cost: those of a segment that is being filled, and of one that is being written.
MAX_UNSAVED = 2 * SEGMENT_ROWS

SIGKILLED = -9


@dataclass(frozen=True)
class Undisturbed:
    """What a process does that nobody disturbs.

    Attributes:
        calls: how often each fault point is reached.
        elapsed_s: seconds from its start to its end.
    """

    calls: dict[FaultPoint, int]
    elapsed_s: float


@dataclass(frozen=True)
class Plan:
    """One kill.

    Attributes:
        point: at which function; None for a time after the start, wherever the process may be then.
        part: of the function's calls, or of the time that the process takes, 0 to 1.
        when: see `FaultPoint.whens`.
        delay_s: seconds after that.
    """

    point: FaultPoint | None
    part: float
    when: str = "before"
    delay_s: float = 0.0

    def fault(self, calls: dict[FaultPoint, int]) -> Fault | None:
        """Return what the process is to do to itself; None if somebody else is to do it."""
        if self.point is None:
            return None
        return Fault(self.point, 1 + int(self.part * calls[self.point]), self.when, self.delay_s)

    @property
    def earlier(self) -> "Plan":
        """The same, but sooner: for a process that has ended before it was to be killed."""
        return replace(self, part=self.part * 0.7, delay_s=0.0)


def plans(points: Sequence[FaultPoint], seed: int) -> Iterator[Plan]:
    """Yield kills for ever: one of three some time after its start, the others in each phase in turn."""
    rng = random.Random(seed)
    decks: dict[str, list[tuple[FaultPoint, str]]] = {}
    for point in points:
        decks.setdefault(point.phase, []).extend((point, when) for when in point.whens)
    for deck in decks.values():
        rng.shuffle(deck)
        deck.sort(key=lambda choice: choice[1] != "during")  # these come first: half a file is what must never count
    turns = [itertools.cycle(deck) for deck in decks.values()]
    for turn in itertools.cycle(turns):
        point, when = next(turn)
        delay_s = 0.0 if when == "during" else rng.choice([0.0, 0.0, rng.uniform(0.0005, 0.02)])
        yield Plan(point, rng.random(), when, delay_s)
        if rng.random() < 0.5:
            yield Plan(None, rng.random())


def series(points: Sequence[FaultPoint], n: int, seed: int) -> list[list[Plan]]:
    kills = plans(points, seed)
    return [list(itertools.islice(kills, KILLS_A_SERIES)) for _ in range(n)]


class Bench:
    """Runs processes over caches in one folder."""

    def __init__(self, scenario: Scenario, folder: Path, tally: Tally) -> None:
        self.scenario = scenario
        self.folder = folder
        self.tally = tally
        self.trail = Trail(folder / "trail")
        self._numbers = itertools.count()

    def new_path(self) -> Path:
        return self.folder / f"cache{next(self._numbers)}"

    def extraction(self, cache: Path, fault: Fault | None, counts_path: Path | None = None) -> Process:
        self.trail.clear()
        arguments = (self.scenario.data, cache, self.trail, fault, counts_path)
        return Process(processes.extraction, *arguments, log_path=self.folder / "log")

    def compaction(self, cache: Path, fault: Fault | None, counts_path: Path | None = None) -> Process:
        self.trail.clear()
        arguments = (cache, self.scenario.recipe.slug, self.trail, fault, counts_path)
        return Process(processes.compaction, *arguments, log_path=self.folder / "log")

    def was_killed(self, process: Process, plan: Plan, elapsed_s: float) -> bool:
        """Carry out `plan`, if the process does not do so itself; return False if it ended before."""
        if plan.point is None:
            time.sleep(max(0.0, process.started + plan.part * elapsed_s - time.monotonic()))
            process.kill()
        code = process.wait()
        assert code in {0, SIGKILLED}, process.log
        assert not process.log
        if code == SIGKILLED:
            at_once = plan.point is not None and not plan.delay_s
            phase = plan.point.phase if plan.point and at_once else self.trail.phase
            self.tally.kills[f"{phase}, {'named point' if plan.point else 'random time'}"] += 1
        return code == SIGKILLED

    def undisturbed(self, process: Process, counts_path: Path, points: tuple[FaultPoint, ...]) -> Undisturbed:
        assert process.wait() == 0, process.log
        elapsed_s = time.monotonic() - process.started
        calls = processes.read_counts(counts_path, points)
        assert all(calls.values()), f"fault points that are never reached: {[m for m, n in calls.items() if not n]}"
        return Undisturbed(calls, elapsed_s)


@pytest.fixture(scope="module")
def many_segments(scenario, server, tmp_path_factory) -> Path:
    """A whole store of many small segments."""
    cache = scenario.new_cache(tmp_path_factory.mktemp("many-segments") / "cache")
    process = Process(processes.extraction, scenario.data, cache)
    assert process.wait() == 0
    assert len(list(scenario.store_dir(cache).glob("seg-*.h5"))) == len(scenario.reference) / SEGMENT_ROWS
    return cache


@pytest.fixture
def bench(scenario, server, tmp_path, tally) -> Bench:
    return Bench(scenario, tmp_path, tally)


@pytest.fixture(scope="module")
def undisturbed_extraction(scenario, server, tmp_path_factory, tally) -> Undisturbed:
    bench = Bench(scenario, tmp_path_factory.mktemp("extraction"), tally)
    cache, counts_path = scenario.new_cache(bench.new_path()), bench.folder / "counts"
    result = bench.undisturbed(bench.extraction(cache, None, counts_path), counts_path, EXTRACTION)
    assert bench.trail.computed == scenario.reference.keys()
    return result


@pytest.fixture(scope="module")
def undisturbed_compaction(scenario, many_segments, tmp_path_factory, tally) -> Undisturbed:
    bench = Bench(scenario, tmp_path_factory.mktemp("compaction"), tally)
    cache, counts_path = copy_cache(many_segments, bench.new_path()), bench.folder / "counts"
    return bench.undisturbed(bench.compaction(cache, None, counts_path), counts_path, COMPACTION)


@pytest.mark.parametrize("kills", series(EXTRACTION, N_EXTRACTIONS, seed=1), ids=range(N_EXTRACTIONS))
def test_killed_extractions_lose_no_more_than_two_segments_and_the_last_one_completes(
    bench, scenario, tally, undisturbed_extraction, kills
):
    kill_extractions(bench, scenario, tally, undisturbed_extraction, kills)


def test_killed_extractions_of_an_onnx_network_resume_as_others_do(onnx_scenario, server, tmp_path, tally):
    bench = Bench(onnx_scenario, tmp_path, tally)
    counts_path = tmp_path / "counts"
    process = bench.extraction(onnx_scenario.new_cache(bench.new_path()), None, counts_path)
    undisturbed = bench.undisturbed(process, counts_path, EXTRACTION)
    kill_extractions(bench, onnx_scenario, tally, undisturbed, series(EXTRACTION, 1, seed=3)[0])


def kill_extractions(
    bench: Bench, scenario: Scenario, tally: Tally, undisturbed_extraction: Undisturbed, kills: list[Plan]
) -> None:
    cache, on_disk = scenario.new_cache(bench.new_path()), Rows()
    for first_plan in kills:
        plan = first_plan
        while True:
            if plan.part < 0.5:  # half of them look at all images again
                (cache / "digests.sqlite").unlink(missing_ok=True)
            process = bench.extraction(cache, plan.fault(undisturbed_extraction.calls))
            killed = bench.was_killed(process, plan, undisturbed_extraction.elapsed_s)
            on_disk = tally.assert_sound(scenario, cache, on_disk)
            scenario.assert_nothing_damaged(cache)
            if killed:
                break
            tally.assert_whole(scenario, cache)
            cache, on_disk, plan = scenario.new_cache(bench.new_path()), Rows(), plan.earlier
        unsaved = bench.trail.computed - on_disk.keys()
        tally.unsaved.append(len(unsaved))
        assert len(unsaved) <= MAX_UNSAVED
    assert extract(scenario.data, cache).n_computed == len(scenario.reference) - len(on_disk)
    tally.assert_whole(scenario, cache)
    scenario.assert_no_leftovers(cache)


@pytest.mark.parametrize("kills", series(COMPACTION, N_COMPACTIONS, seed=2), ids=range(N_COMPACTIONS))
def test_killed_compactions_lose_nothing_and_the_last_one_completes(
    bench, scenario, tally, many_segments, undisturbed_compaction, kills
):
    cache = copy_cache(many_segments, bench.new_path())
    for first_plan in kills:
        plan = first_plan
        while not bench.was_killed(
            bench.compaction(cache, plan.fault(undisturbed_compaction.calls)), plan, undisturbed_compaction.elapsed_s
        ):
            tally.assert_whole(scenario, cache)
            cache, plan = copy_cache(many_segments, bench.new_path()), plan.earlier
        assert tally.assert_sound(scenario, cache, scenario.reference) == scenario.reference
        scenario.assert_nothing_damaged(cache)
        assert {digest for digest, _ in shown_rows(scenario.store_dir(cache))} == scenario.reference.keys()
    assert bench.compaction(cache, None).wait() == 0
    tally.assert_whole(scenario, cache)
    scenario.assert_no_leftovers(cache)
