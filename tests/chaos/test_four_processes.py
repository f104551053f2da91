"""Four processes write to one store, one is killed, a fifth merges what they write, two read all the while."""

import os
import random
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import FeatxError
from featx.store.compaction import compact
from featx.store.feature_store import FeatureStore
from tests.chaos import processes
from tests.chaos.fault_points import EXTRACTION, SUBMIT, Hooks, replace
from tests.chaos.processes import Process, Trail
from tests.chaos.scenario import Scenario, extract, image_path
from tests.chaos.tally import chosen

N_ROUNDS = chosen(full=8, quick=1)

#: How long a batch is made to take: four processes are to be at work at the same time, for a second or two.
BATCH_S = 0.05

#: Images that each of the four has: any two of them share 24 to 72, the four together have all.
PARTS = [range(72), range(24, 96), [*range(36), *range(60, 96)], range(12, 84)]


def parts_of(data: Path, folder: Path) -> list[Path]:
    """Make four data sets of links to the images of `data`."""
    for number, part in enumerate(PARTS):
        for image in part:
            link = image_path(folder / f"data{number}", image)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(image_path(data, image), link)
    return [folder / f"data{number}" for number in range(len(PARTS))]


def slow_extraction(data: Path, cache: Path, trail: Trail) -> None:
    """Extract with small segments, slowly."""
    processes.small_segments()
    processes.note_computed(trail.computed_path)
    Hooks(EXTRACTION, trail.crumb_path)

    def slow(engine, images):
        time.sleep(BATCH_S)
        return submit(engine, images)

    submit = replace(SUBMIT.target, slow)
    extract(data, cache)


def compact_on_and_on(scenario: Scenario, cache: Path, stop_path: Path, counts_path: Path) -> None:
    """Merge the small segments of a store until the file `stop_path` is there; write how many rows were merged."""
    processes.several_groups()
    n_rows = 0
    while not stop_path.exists():
        try:
            n_rows += compact(FeatureStore(cache, scenario.recipe)).n_rows
        except FeatxError as error:
            print(f"compaction: {error}")
    counts_path.write_text(str(n_rows))


def read_on_and_on(scenario: Scenario, cache: Path, stop_path: Path, counts_path: Path) -> None:
    """Read a store, by featx and through `features.h5`, until `stop_path` is there; print what is not right."""
    n_seen, before = 0, set()
    while not stop_path.exists():
        rows = scenario.readable_rows(cache)
        wrong = scenario.wrong(rows.items())
        lost = before - rows.keys()
        if wrong or lost:
            print(f"featx: {len(wrong)} rows wrong, {len(lost)} lost")
        before = set(rows)
        n_seen += len(rows) + read_virtual_dataset(scenario, cache)
    counts_path.write_text(str(n_seen))


def read_virtual_dataset(scenario: Scenario, cache: Path) -> int:
    """Check what `features.h5` shows, and return how many rows that were."""
    path = scenario.store_dir(cache) / "features.h5"
    try:
        with h5py.File(path, "r", locking=False) as file:
            digests, features = file["digest"][:], file["features"][:]
    except OSError:  # not yet there, or merged while HDF5 was opening what it shows: said, and no row given out
        return 0
    # It was opened before others merged what it shows: those rows are marked, see docs/format.md.
    gone = ~digests.any(axis=1)
    unmarked = ~np.isnan(features).reshape(len(features), -1).any(axis=1)
    shown = [
        (bytes(d), f.tobytes()) for d, f in zip(digests[~gone & unmarked], features[~gone & unmarked], strict=True)
    ]
    wrong = scenario.wrong(shown)
    if wrong:
        print(f"features.h5: {len(wrong)} rows wrong")
    return len(shown)


@pytest.mark.parametrize("number", range(N_ROUNDS))
def test_four_writers_a_merger_and_two_readers_lose_no_row_though_one_is_killed(
    scenario, server, tmp_path, cache, tally, number
):
    rng = random.Random(number)
    parts = parts_of(scenario.data, tmp_path)
    trails = [Trail(tmp_path / f"trail{i}") for i in range(4)]
    for trail in trails:
        trail.clear()
    stop_path = tmp_path / "stop"
    others = {
        name: Process(
            function, scenario, cache, stop_path, tmp_path / f"{name}.count", log_path=tmp_path / f"{name}.log"
        )
        for name, function in (("merger", compact_on_and_on), ("one", read_on_and_on), ("other", read_on_and_on))
    }
    started = time.monotonic()
    writers = [
        Process(slow_extraction, data, cache, trail, log_path=tmp_path / f"writer{i}.log")
        for i, (data, trail) in enumerate(zip(parts, trails, strict=True))
    ]
    unlucky = rng.randrange(4)
    time.sleep(max(0.0, started + rng.uniform(0.3, 1.5) - time.monotonic()))
    writers[unlucky].kill()
    codes = [writer.wait() for writer in writers]
    if codes[unlucky] == -9:
        tally.kills[f"four processes: {trails[unlucky].phase}"] += 1
    stop_path.touch()
    assert [other.wait() for other in others.values()] == [0, 0, 0], "\n".join(other.log for other in others.values())
    assert [code for i, code in enumerate(codes) if i != unlucky] == [0, 0, 0], "\n".join(w.log for w in writers)
    assert [process.log for process in (*others.values(), *writers) if process.log] == []
    counts = {name: int((tmp_path / f"{name}.count").read_text()) for name in others}
    tally.n_rows_merged += counts["merger"]
    tally.n_rows_compared += counts["one"] + counts["other"]
    assert min(counts["one"], counts["other"]) > 0

    finished = set().union(*(trails[i].computed for i in range(4) if i != unlucky))
    on_disk = tally.assert_sound(scenario, cache, {digest: scenario.reference[digest] for digest in finished})
    assert extract(scenario.data, cache).n_computed == len(scenario.reference) - len(on_disk)
    tally.assert_whole(scenario, cache)
    compact(FeatureStore(cache, scenario.recipe))
    tally.assert_whole(scenario, cache)
    scenario.assert_no_leftovers(cache)
