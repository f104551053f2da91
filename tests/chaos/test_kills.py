"""SIGKILL at random moments: what was on disk stays, nothing on disk is wrong, and the next run goes on from there."""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.chaos import victims
from tests.chaos.moments import COMPACTION, EXTRACTION, Moment, Shot
from tests.chaos.tally import Tally, chosen
from tests.chaos.victims import Trail, Victim
from tests.chaos.world import SEGMENT_ROWS, Rows, World, copy_cache, extract, shown_rows

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
        calls: how often each moment comes.
        elapsed_s: seconds from its start to its end.
    """

    calls: dict[Moment, int]
    elapsed_s: float


@dataclass(frozen=True)
class Plan:
    """One kill.

    Attributes:
        moment: at which function; None for a time after the start, wherever the process may be then.
        part: of the function's calls, or of the time that the process takes, 0 to 1.
        when: see `Moment.whens`.
        delay_s: seconds after that.
    """

    moment: Moment | None
    part: float
    when: str = "before"
    delay_s: float = 0.0

    def shot(self, calls: dict[Moment, int]) -> Shot | None:
        """Return what the process is to do to itself; None if somebody else is to do it."""
        if self.moment is None:
            return None
        return Shot(self.moment, 1 + int(self.part * calls[self.moment]), self.when, self.delay_s)

    @property
    def earlier(self) -> "Plan":
        """The same, but sooner: for a process that has ended before it was to be killed."""
        return replace(self, part=self.part * 0.7, delay_s=0.0)


def plans(moments: Sequence[Moment], seed: int) -> Iterator[Plan]:
    """Yield kills for ever: one of three at a time after the start, the others at moments of each phase in turn."""
    rng = random.Random(seed)
    decks: dict[str, list[tuple[Moment, str]]] = {}
    for moment in moments:
        decks.setdefault(moment.phase, []).extend((moment, when) for when in moment.whens)
    for deck in decks.values():
        rng.shuffle(deck)
        deck.sort(key=lambda choice: choice[1] != "during")  # these come first: half a file is what must never count
    turns = [itertools.cycle(deck) for deck in decks.values()]
    for turn in itertools.cycle(turns):
        moment, when = next(turn)
        delay_s = 0.0 if when == "during" else rng.choice([0.0, 0.0, rng.uniform(0.0005, 0.02)])
        yield Plan(moment, rng.random(), when, delay_s)
        if rng.random() < 0.5:
            yield Plan(None, rng.random())


def series(moments: Sequence[Moment], n: int, seed: int) -> list[list[Plan]]:
    kills = plans(moments, seed)
    return [list(itertools.islice(kills, KILLS_A_SERIES)) for _ in range(n)]


class Bench:
    """Runs victims over caches in one folder."""

    def __init__(self, world: World, folder: Path, tally: Tally) -> None:
        self.world = world
        self.folder = folder
        self.tally = tally
        self.trail = Trail(folder / "trail")
        self._numbers = itertools.count()

    def new_path(self) -> Path:
        return self.folder / f"cache{next(self._numbers)}"

    def extraction(self, cache: Path, shot: Shot | None, counts_path: Path | None = None) -> Victim:
        self.trail.clear()
        arguments = (self.world.data, cache, self.trail, shot, counts_path)
        return Victim(victims.extraction, *arguments, log_path=self.folder / "log")

    def compaction(self, cache: Path, shot: Shot | None, counts_path: Path | None = None) -> Victim:
        self.trail.clear()
        arguments = (cache, self.world.recipe.slug, self.trail, shot, counts_path)
        return Victim(victims.compaction, *arguments, log_path=self.folder / "log")

    def was_killed(self, victim: Victim, plan: Plan, elapsed_s: float) -> bool:
        """Carry out `plan`, if the victim does not do so itself; return False if it ended before."""
        if plan.moment is None:
            time.sleep(max(0.0, victim.started + plan.part * elapsed_s - time.monotonic()))
            victim.kill()
        code = victim.wait()
        assert code in {0, SIGKILLED}, victim.log
        assert not victim.log
        if code == SIGKILLED:
            at_once = plan.moment is not None and not plan.delay_s
            phase = plan.moment.phase if plan.moment and at_once else self.trail.phase
            self.tally.kills[f"{phase}, {'named moment' if plan.moment else 'random time'}"] += 1
        return code == SIGKILLED

    def undisturbed(self, victim: Victim, counts_path: Path, moments: tuple[Moment, ...]) -> Undisturbed:
        assert victim.wait() == 0, victim.log
        elapsed_s = time.monotonic() - victim.started
        calls = victims.read_counts(counts_path, moments)
        assert all(calls.values()), f"moments that never come: {[m for m, n in calls.items() if not n]}"
        return Undisturbed(calls, elapsed_s)


@pytest.fixture(scope="module")
def many_segments(world, server, tmp_path_factory) -> Path:
    """A whole store of many small segments."""
    cache = world.new_cache(tmp_path_factory.mktemp("many-segments") / "cache")
    victim = Victim(victims.extraction, world.data, cache)
    assert victim.wait() == 0
    assert len(list(world.store_dir(cache).glob("seg-*.h5"))) == len(world.reference) / SEGMENT_ROWS
    return cache


@pytest.fixture
def bench(world, server, tmp_path, tally) -> Bench:
    return Bench(world, tmp_path, tally)


@pytest.fixture(scope="module")
def undisturbed_extraction(world, server, tmp_path_factory, tally) -> Undisturbed:
    bench = Bench(world, tmp_path_factory.mktemp("extraction"), tally)
    cache, counts_path = world.new_cache(bench.new_path()), bench.folder / "counts"
    result = bench.undisturbed(bench.extraction(cache, None, counts_path), counts_path, EXTRACTION)
    assert bench.trail.computed == world.reference.keys()
    return result


@pytest.fixture(scope="module")
def undisturbed_compaction(world, many_segments, tmp_path_factory, tally) -> Undisturbed:
    bench = Bench(world, tmp_path_factory.mktemp("compaction"), tally)
    cache, counts_path = copy_cache(many_segments, bench.new_path()), bench.folder / "counts"
    return bench.undisturbed(bench.compaction(cache, None, counts_path), counts_path, COMPACTION)


@pytest.mark.parametrize("kills", series(EXTRACTION, N_EXTRACTIONS, seed=1), ids=range(N_EXTRACTIONS))
def test_killed_extractions_lose_no_more_than_two_segments_and_the_last_one_completes(
    bench, world, tally, undisturbed_extraction, kills
):
    cache, on_disk = world.new_cache(bench.new_path()), Rows()
    for first_plan in kills:
        plan = first_plan
        while True:
            if plan.part < 0.5:  # half of them look at all images again
                (cache / "digests.sqlite").unlink(missing_ok=True)
            victim = bench.extraction(cache, plan.shot(undisturbed_extraction.calls))
            killed = bench.was_killed(victim, plan, undisturbed_extraction.elapsed_s)
            on_disk = tally.assert_sound(world, cache, on_disk)
            world.assert_nothing_damaged(cache)
            if killed:
                break
            tally.assert_whole(world, cache)
            cache, on_disk, plan = world.new_cache(bench.new_path()), Rows(), plan.earlier
        unsaved = bench.trail.computed - on_disk.keys()
        tally.unsaved.append(len(unsaved))
        assert len(unsaved) <= MAX_UNSAVED
    assert extract(world.data, cache).n_computed == len(world.reference) - len(on_disk)
    tally.assert_whole(world, cache)
    world.assert_no_leftovers(cache)


@pytest.mark.parametrize("kills", series(COMPACTION, N_COMPACTIONS, seed=2), ids=range(N_COMPACTIONS))
def test_killed_compactions_lose_nothing_and_the_last_one_completes(
    bench, world, tally, many_segments, undisturbed_compaction, kills
):
    cache = copy_cache(many_segments, bench.new_path())
    for first_plan in kills:
        plan = first_plan
        while not bench.was_killed(
            bench.compaction(cache, plan.shot(undisturbed_compaction.calls)), plan, undisturbed_compaction.elapsed_s
        ):
            tally.assert_whole(world, cache)
            cache, plan = copy_cache(many_segments, bench.new_path()), plan.earlier
        assert tally.assert_sound(world, cache, world.reference) == world.reference
        world.assert_nothing_damaged(cache)
        assert {digest for digest, _ in shown_rows(world.store_dir(cache))} == world.reference.keys()
    assert bench.compaction(cache, None).wait() == 0
    tally.assert_whole(world, cache)
    world.assert_no_leftovers(cache)
