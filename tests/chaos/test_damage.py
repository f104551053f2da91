"""Random damage to anything in a cache: no wrong feature is ever given out, and recovering costs what was damaged."""

import itertools
import logging
import random
from pathlib import Path

import pytest

from featx.errors import DamagedSegmentError, FeatxError
from featx.extract.cache import check_cache
from featx.extract.extract import extract_features
from tests.chaos import processes
from tests.chaos.damages import KINDS, Cache, Harm, rows_of
from tests.chaos.processes import Process
from tests.chaos.scenario import BATCH_SIZE, OPTIONS, Scenario, copy_cache, extract, write_images
from tests.chaos.tally import chosen

N_DAMAGES = chosen(full=308, quick=44)

CASES = list(itertools.islice(itertools.cycle(KINDS), N_DAMAGES))


@pytest.fixture(scope="module")
def small_scenario(scenario, tmp_path_factory) -> Scenario:
    """48 images, two files that are none."""
    folder = tmp_path_factory.mktemp("damage")
    return Scenario.of(write_images(folder / "data", 48), scenario.networks_dir, folder / "undisturbed")


@pytest.fixture(scope="module")
def sound(small_scenario, server, tmp_path_factory) -> Cache:
    """A sound cache with a store of six segments, and a store of another recipe with the same images."""
    folder = tmp_path_factory.mktemp("sound")
    cache = folder / "cache"
    cache.mkdir()
    (cache / "networks").symlink_to(small_scenario.networks_dir)
    assert Process(processes.extraction, small_scenario.data, cache).wait() == 0
    (cache / "networks").unlink()
    (cache / "networks").mkdir()
    (network,) = small_scenario.networks_dir.glob(f"{small_scenario.recipe.slug}.zip")
    (cache / "networks" / network.name).write_bytes(network.read_bytes())
    foreign = small_scenario.new_cache(folder / "foreign")
    options = {**OPTIONS, "dtype": "float32"}
    store_dir = extract_features(small_scenario.data, cache_dir=foreign, batch_size=BATCH_SIZE, **options).store_dir
    assert len(list((cache / small_scenario.recipe.slug).glob("seg-*"))) == 6
    return Cache(cache, cache / small_scenario.recipe.slug, store_dir)


@pytest.fixture
def messages(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "featx")
    return caplog


def recover(scenario: Scenario, cache: Path, harm: Harm) -> int:
    """Do what a user would: extract and read, again if a segment is found damaged; return the images computed."""
    n_computed = 0
    for _ in range(len(harm.paths) + 2):
        n_computed += extract(scenario.data, cache).n_computed
        try:
            rows = scenario.readable_rows(cache)
        except DamagedSegmentError:
            continue
        assert rows == scenario.reference
        return n_computed
    raise AssertionError("it does not get well")


@pytest.mark.parametrize(
    ("number", "kind"), list(enumerate(CASES)), ids=[f"{n}-{kind}" for n, kind in enumerate(CASES)]
)
def test_damage_gives_no_wrong_feature_and_costs_no_more_than_it_hit(
    small_scenario, sound, tmp_path, tally, messages, number, kind
):
    folder = copy_cache(sound.dir, tmp_path / "cache")
    cache = Cache(folder, folder / sound.store_dir.name, sound.foreign_dir)
    harm = KINDS[kind](cache, random.Random(number))
    before = check_cache(folder)

    try:
        rows = small_scenario.readable_rows(folder)
    except FeatxError:
        rows = {}
    wrong = small_scenario.wrong(rows.items())
    tally.n_rows_compared += len(rows)
    tally.n_rows_wrong += len(wrong)
    assert not wrong

    n_computed = recover(small_scenario, folder, harm)
    # What was in nobody's way is found by this only: an unused network, a row under a name that is no image's.
    unsound = check_cache(folder, mend=True)
    n_computed += recover(small_scenario, folder, harm)
    assert n_computed <= len(harm.lost)
    tally.assert_whole(small_scenario, folder)
    assert {digest for path in cache.segments for digest in rows_of(path)} == small_scenario.reference.keys()

    said = [path.name in messages.text for path in harm.paths]
    found = bool(n_computed) or not (before.is_sound and unsound.is_sound) or any(said)
    tally.damages[kind, "found" if found else "harmless"] += 1
    tally.recomputed[kind] += n_computed
    if n_computed and "missing" not in kind:
        assert all(said)
