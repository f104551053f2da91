"""`featx cache`: on real stores, with real damage."""

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.dataset.split_record import SplitRecord
from featx.errors import FeatxError
from featx.extract import cache as cache_module
from featx.extract.cache import check_cache, list_cache
from featx.recipe import Recipe
from featx.storage import workshop
from featx.store.compaction import compact
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system.timings import Timings

RECIPE = Recipe(backbone="vgg16", weights="random-3", layer="block5_pool", image_size=(64, 64), preprocessing="caffe")


def rows(numbers) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 2, 2, 8) float16 and digests (n, 32) of the images called `numbers`."""
    names = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
    features = [np.random.default_rng(number).normal(0, 50, (2, 2, 8)) for number in numbers]
    return np.array(features, np.float16), np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32)


def add(store: FeatureStore, numbers) -> Path:
    name = new_segment_name()
    store.write_segment(name, *rows(numbers), lambda: Timings(len(numbers), elapsed_s=len(numbers) / 2))
    return store.dir / name


def assert_holds(cache_dir: Path, numbers) -> None:
    """Assert that a store has these rows, as they were written."""
    store = FeatureStore(cache_dir, RECIPE)
    features, digests = rows(numbers)
    assert np.array_equal(store.read(digests), features)
    assert len(store) == len(set(numbers))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def filled(tmp_path) -> FeatureStore:
    """A published store of 30 rows in three segments."""
    store = FeatureStore(tmp_path / "cache", RECIPE)
    for start in (0, 10, 20):
        add(store, range(start, start + 10))
    store.publish()
    return store


def flip(path: Path, at: int, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def flip_features(path: Path, number: int) -> None:
    flip(path, path.read_bytes().find(rows([number])[0].tobytes()) + 5)


def segment_of(store: FeatureStore, number: int) -> Path:
    store.reload()
    digest = rows([number])[1]
    return next(segment.path for segment in store.segments if (segment.digests == digest).all(axis=1).any())


# ls


def test_ls_shows_stores_networks_and_digests(filled, featx):
    cache_dir = filled.dir.parent
    (cache_dir / "networks").mkdir()
    (cache_dir / "networks" / "x.zip").write_bytes(b"12345")
    (cache_dir / "mine.txt").write_text("x")
    before = contents(cache_dir)
    listed = {
        entry["name"]: entry for entry in json.loads(featx("cache", "ls", "--cache-dir", cache_dir, "--json").output)
    }
    assert contents(cache_dir) == before
    assert {name: entry["kind"] for name, entry in listed.items()} == {
        filled.dir.name: "store",
        "networks": "networks",
        "mine.txt": "other",
    }
    store = listed[filled.dir.name]
    assert (store["n_images"], store["n_segments"], store["recipe_key"]) == (30, 3, RECIPE.key)
    assert store["size_bytes"] == sum(path.stat().st_size for path in filled.dir.iterdir())
    assert listed["networks"]["size_bytes"] == 5
    text = featx("cache", "ls", "--cache-dir", cache_dir).output
    assert filled.dir.name in text
    assert "float32, float16" in text


def test_ls_of_nothing_is_no_error(tmp_path, featx):
    assert "is empty" in featx("cache", "ls", "--cache-dir", tmp_path / "none").output
    assert not (tmp_path / "none").exists()


def test_ls_knows_a_store_whose_recipe_json_is_damaged(filled):
    (filled.dir / "recipe.json").write_text('{"backbone": "resnet50"}')
    (entry,) = list_cache(filled.dir.parent)
    assert entry.store is not None
    assert entry.store.recipe == RECIPE


# verify


def test_a_sound_cache_is_verified_and_left_as_it_is(filled, featx):
    before = contents(filled.dir)
    output = featx("cache", "verify", "--cache-dir", filled.dir.parent).output
    assert "30 images, no damage" in output
    assert "No damage found" in output
    assert contents(filled.dir) == before


def test_verify_finds_a_flipped_bit_says_what_it_costs_and_changes_nothing(filled, featx):
    path = segment_of(filled, 12)
    flip_features(path, 12)
    before = contents(filled.dir)
    result = featx("cache", "verify", "--cache-dir", filled.dir.parent, exit_code=1)
    assert contents(filled.dir) == before
    assert f"DAMAGED {path}" in result.output
    assert "10 images must be computed again, about 5" in result.output  # half a second each
    assert "featx cache verify --mend" in result.output
    assert "featx extract DATA --weights random:3 --layer block5_pool --image-size 64 --precision" in result.output
    assert f"--dtype float16 --cache-dir {filled.dir.parent}" in result.output


def test_mending_quarantines_what_is_damaged_and_nothing_else(filled, featx):
    path = segment_of(filled, 12)
    flip_features(path, 12)
    others = {p: data for p, data in contents(filled.dir).items() if p.name.startswith("seg-") and p != path}
    featx("cache", "verify", "--mend", "--cache-dir", filled.dir.parent, exit_code=1)
    assert path.with_name(f"damaged-{path.name}").exists()
    assert {p: data for p, data in contents(filled.dir).items() if p.name.startswith("seg-")} == others
    assert_holds(filled.dir.parent, [*range(10), *range(20, 30)])
    assert check_cache(filled.dir.parent).is_sound
    timings = json.loads((filled.dir / "timings.json").read_text())
    (filled.dir / "timings.json").write_text(json.dumps({**timings, "n_fallback": 0}))
    assert check_cache(filled.dir.parent).is_sound
    (filled.dir / "timings.json").write_text(json.dumps({**timings, "n_fallback": 1}))
    assert not check_cache(filled.dir.parent).is_sound
    with h5py.File(filled.dir / "features.h5") as file:
        assert len(file["features"]) == 20


def test_rows_that_are_in_a_sound_segment_too_cost_nothing(filled):
    path = segment_of(filled, 12)
    add(filled, range(10, 20))
    flip_features(path, 12)
    (store,) = check_cache(filled.dir.parent, [filled.dir.name]).stores
    assert [damage.n_images for damage in store.damages if damage.path == path] == [0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.json", b"{}"),
        ("timings.json", b'{"n_images": 31}'),
        ("features.h5", b"nothing"),
        ("skipped.csv", b'path,digest\n"'),
    ],
)
def test_damaged_derived_files_are_found_and_cost_no_image(filled, name, content):
    (filled.dir / name).write_bytes(content)
    (store,) = check_cache(filled.dir.parent).stores
    assert [(damage.path.name, damage.n_images) for damage in store.damages] == [(name, 0)]
    assert store.mending_s == 0


def test_features_h5_that_shows_a_segment_twice_is_found_and_written_again(filled):
    with h5py.File(filled.dir / "features.h5", "r+") as file:
        names = [name.decode() for name in file["segments"]]
        layout = h5py.VirtualLayout((30, 2, 2, 8), "float16")
        for i in range(3):
            layout[10 * i : 10 * i + 10] = h5py.VirtualSource(names[0], "features", (10, 2, 2, 8), "float16")
        del file["features"]
        file.create_virtual_dataset("features", layout)
    (store,) = check_cache(filled.dir.parent, mend=True).stores
    assert [damage.path.name for damage in store.damages] == ["features.h5"]
    assert check_cache(filled.dir.parent).is_sound


def test_a_store_of_which_nothing_can_be_read_is_not_called_sound(filled, featx):
    for path in filled.dir.iterdir():
        path.write_bytes(b"gone")
    result = featx("cache", "verify", "--cache-dir", filled.dir.parent, exit_code=1)
    assert "An unknown number of images" in result.output


def test_damaged_networks_and_digests_are_found_and_made_again(make_photos, tmp_path, cache, featx, settle):
    (cache / "networks").unlink()
    data = make_photos(tmp_path / "data")
    words = ["extract", data, "--cache-dir", cache, "--weights", "random", "--layer", "block1_pool", "--image-size", 32]
    words += ["--engine", "openvino", "--precision", "float32"]  # which convert a network on every processor
    settle()
    featx(*words, "--quiet")
    (network,) = (cache / "networks").glob("*.zip")
    flip(network, network.stat().st_size // 2)
    with sqlite3.connect(cache / "digests.sqlite") as database:
        database.execute("UPDATE states SET digest = zeroblob(32) WHERE path = (SELECT min(path) FROM states)")
    database.close()
    found = json.loads(featx("cache", "verify", "--json", "--cache-dir", cache, exit_code=1).output)
    assert {Path(damage["path"]).name for damage in found["damages"]} == {network.name, "digests.sqlite"}
    featx("cache", "verify", "--mend", "--cache-dir", cache, exit_code=1)
    assert not network.exists()
    featx("cache", "verify", "--cache-dir", cache)
    assert json.loads(featx(*words, "--json").stdout)["n_computed"] == 0


def test_a_network_that_another_process_is_writing_is_neither_damaged_nor_removed(filled):
    cache = filled.dir.parent
    (cache / "networks").mkdir()
    unfinished = cache / "networks" / ".tmp-0123456789abcdef.zip"
    unfinished.write_bytes(b"half a network")
    assert check_cache(cache, mend=True).is_sound
    assert unfinished.exists()


def test_an_unknown_name_lists_what_there_is(filled, featx):
    result = featx("cache", "verify", "resnet", "--cache-dir", filled.dir.parent, exit_code=2)
    assert f"It has: {filled.dir.name}" in result.output


# compact


def test_small_segments_become_one_with_the_same_rows_and_the_same_cost(filled, featx):
    cost = sum((segment.timings for segment in FeatureStore(filled.dir.parent, RECIPE).segments), Timings())
    result = json.loads(featx("cache", "compact", "--json", "--cache-dir", filled.dir.parent).output)
    assert result == {filled.dir.name: {"n_segments_before": 3, "n_segments": 1, "n_rows": 30}}
    assert_holds(filled.dir.parent, range(30))
    (segment,) = FeatureStore(filled.dir.parent, RECIPE).segments
    assert segment.timings == cost
    assert check_cache(filled.dir.parent).is_sound
    assert not [path for path in filled.dir.iterdir() if path.name.startswith(".tmp-")]


def test_compacting_again_writes_nothing(filled):
    compact(filled)
    before = contents(filled.dir)
    assert compact(FeatureStore(filled.dir.parent, RECIPE)).n_rows == 0
    assert contents(filled.dir) == before


def test_rows_that_two_processes_computed_are_kept_once(filled):
    add(filled, range(5, 15))
    filled.reload()
    compact(filled)
    assert_holds(filled.dir.parent, range(30))
    assert sum(map(len, FeatureStore(filled.dir.parent, RECIPE).segments)) == 30


def test_large_segments_are_left_alone_and_merged_ones_do_not_grow_beyond_bounds(filled, monkeypatch):
    row_bytes = 2 * 2 * 8 * 2
    monkeypatch.setattr("featx.store.compaction.TARGET_BYTES", 14 * row_bytes)
    monkeypatch.setattr("featx.store.compaction.SMALL_BYTES", 8 * row_bytes)
    large = {path: data for path, data in contents(filled.dir).items() if path.name.startswith("seg-")}
    for start in range(30, 60, 5):
        add(filled, range(start, start + 5))
    filled.reload()
    compact(filled)
    assert_holds(filled.dir.parent, range(60))
    after = contents(filled.dir)
    assert all(after[path] == data for path, data in large.items())
    assert sorted(map(len, FeatureStore(filled.dir.parent, RECIPE).segments)) == [10] * 6


def test_a_damaged_segment_is_quarantined_and_the_others_are_still_there(filled):
    path = segment_of(filled, 12)
    flip_features(path, 12)
    compact(filled)
    assert path.with_name(f"damaged-{path.name}").exists()
    assert_holds(filled.dir.parent, [*range(10), *range(20, 30)])


def test_an_open_store_finds_its_rows_after_another_process_has_merged_them(filled):
    reader = FeatureStore(filled.dir.parent, RECIPE)
    compact(filled)
    features, digests = rows(range(30))
    assert np.array_equal(reader.read(digests), features)


def test_no_segment_is_removed_before_its_rows_are_on_disk_again(filled, monkeypatch):
    """At every removal, a reader of the store, and one of features.h5, find all rows."""
    seen: list[int] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name.startswith("seg-"):
            with h5py.File(filled.dir / "features.h5") as file:
                assert not np.isnan(file["features"][:]).any()
            copy = Path(shutil.copytree(filled.dir, filled.dir.parent / f"copy{len(seen)}" / RECIPE.slug))
            assert_holds(copy.parent, range(30))
            seen.append(1)

    monkeypatch.setattr(Path, "unlink", watched)
    compact(filled)
    assert len(seen) == 3


# rm


def test_rm_asks_first(filled, featx, monkeypatch):
    cache_dir = filled.dir.parent
    before = contents(cache_dir)
    from click.testing import CliRunner

    from featx.cli.main import main

    result = CliRunner().invoke(main, ["cache", "rm", "vgg16", "--cache-dir", str(cache_dir)], input="n\n")
    assert "Remove" in result.output
    assert contents(cache_dir) == before
    result = CliRunner().invoke(main, ["cache", "rm", "vgg16", "--cache-dir", str(cache_dir)], input="y\n")
    assert result.exit_code == 0
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("option", ["--quarantined", "--set-aside"])  # the latter is its former name
def test_rm_removes_what_was_quarantined_and_nothing_else(filled, featx, option):
    path = segment_of(filled, 12)
    flip_features(path, 12)
    featx("cache", "verify", "--mend", "--cache-dir", filled.dir.parent, exit_code=1)
    featx("cache", "rm", option, "--yes", "--cache-dir", filled.dir.parent)
    assert not list(filled.dir.glob("damaged-*"))
    assert_holds(filled.dir.parent, [*range(10), *range(20, 30)])


def test_rm_of_nothing_named_removes_nothing(filled, featx):
    featx("cache", "rm", "--yes", "--cache-dir", filled.dir.parent, exit_code=2)
    assert_holds(filled.dir.parent, range(30))


def test_rm_removes_a_link_not_what_it_leads_to(filled, tmp_path, featx):
    elsewhere = tmp_path / "elsewhere"
    filled.dir.rename(elsewhere)
    filled.dir.symlink_to(elsewhere, target_is_directory=True)
    featx("cache", "rm", filled.dir.name, "--yes", "--cache-dir", filled.dir.parent)
    assert not filled.dir.is_symlink()
    assert len(list(elsewhere.glob("seg-*"))) == 3


def test_a_cache_that_is_a_file_is_an_error_in_words(tmp_path):
    (tmp_path / "cache").write_text("x")
    with pytest.raises(FeatxError, match="The cache cannot be in a file"):
        list_cache(tmp_path / "cache")


@pytest.mark.parametrize("name", ["", "mine", "my"])
def test_rm_removes_only_what_featx_has_made(filled, featx, name):
    """An empty name begins every name, and so removed the one entry that there was."""
    cache_dir = filled.dir.parent
    shutil.rmtree(filled.dir)
    (cache_dir / "mine").mkdir()
    (cache_dir / "mine" / "thesis.txt").write_text("years of work")
    result = featx("cache", "rm", name, "--yes", "--cache-dir", cache_dir, exit_code=2)
    said = {"": "The name of an entry is empty", "mine": f"featx did not make {cache_dir}/mine", "my": "has no my"}
    assert said[name] in result.stderr
    assert (cache_dir / "mine" / "thesis.txt").read_text() == "years of work"


def test_rm_of_an_empty_name_removes_no_store(filled, featx):
    result = featx("cache", "rm", "", "--yes", "--cache-dir", filled.dir.parent, exit_code=2)
    assert "name one as featx cache ls shows it" in result.stderr
    assert_holds(filled.dir.parent, range(30))


def test_ls_shows_what_was_left_unfinished_and_rm_sweeps_it(filled, featx):
    cache_dir = filled.dir.parent
    left = cache_dir / ".tmp-plan-1"
    left.mkdir()
    (left / "lock").touch()
    (left / "big").write_bytes(bytes(3000))
    (filled.dir / ".tmp-1.h5").write_bytes(bytes(2000))
    listed = {e["name"]: e for e in json.loads(featx("cache", "ls", "--cache-dir", cache_dir, "--json").output)}
    assert (listed[left.name]["kind"], listed[left.name]["size_bytes"]) == ("unfinished", 3000)
    assert listed[filled.dir.name]["unfinished_bytes"] == 2000
    text = featx("cache", "ls", "--cache-dir", cache_dir).output
    assert "left by a featx command that was killed" in text
    assert "2.0 KiB unfinished" in text
    with workshop(left):
        assert "another featx command is using it" in featx("cache", "ls", "--cache-dir", cache_dir).output
        held = featx("cache", "rm", left.name, "--yes", "--cache-dir", cache_dir, exit_code=2)
        assert "wait until it is done" in held.stderr
    left.mkdir()
    (left / "lock").touch()
    featx("cache", "rm", filled.dir.name, "--yes", "--cache-dir", cache_dir)
    assert list(cache_dir.iterdir()) == []


# One bad entry


def newer_store(cache_dir: Path) -> FeatureStore:
    """A store whose segment a newer featx has written."""
    store = FeatureStore(cache_dir, Recipe.from_json(RECIPE.to_json().replace("random-3", "random-4")))
    path = add(store, range(5))
    store.publish()
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    return store


def test_a_store_of_a_newer_featx_keeps_no_command_from_the_others(filled, featx):
    cache_dir = filled.dir.parent
    newer = newer_store(cache_dir)
    before = contents(newer.dir)
    listed = {
        entry["name"]: entry for entry in json.loads(featx("cache", "ls", "--json", "--cache-dir", cache_dir).output)
    }
    assert listed[filled.dir.name]["n_images"] == 30
    assert "Update featx" in listed[newer.dir.name]["problem"]
    assert "Update featx" in featx("cache", "ls", "--cache-dir", cache_dir).output
    path = segment_of(filled, 12)
    flip_features(path, 12)
    result = featx("cache", "verify", "--mend", "--cache-dir", cache_dir, exit_code=2)
    assert f"DAMAGED {path}" in result.stdout
    assert "Update featx" in result.stderr
    assert path.with_name(f"damaged-{path.name}").exists()
    result = featx("cache", "compact", "--cache-dir", cache_dir, exit_code=2)
    assert f"Compacted: {filled.dir.name}." in result.stderr
    assert len(FeatureStore(cache_dir, RECIPE).segments) == 1
    assert contents(newer.dir) == before
    featx("cache", "rm", newer.dir.name, "--yes", "--cache-dir", cache_dir)
    assert not newer.dir.exists()
    featx("cache", "verify", "--cache-dir", cache_dir)


def test_a_store_whose_recipe_this_featx_does_not_know_is_not_damaged(filled, featx):
    text = json.dumps({**json.loads(RECIPE.to_json()), "crop": "center"}, sort_keys=True, separators=(",", ":"))
    name = f"{filled.dir.name.rpartition('-')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    newer = Path(shutil.copytree(filled.dir, filled.dir.with_name(name)))
    (newer / "recipe.json").write_text(f"{text}\n")
    before = contents(newer)
    for words in (("verify",), ("verify", "--mend"), ("compact",)):
        result = featx("cache", *words, "--cache-dir", newer.parent, exit_code=2)
        assert f"{name} is a store of another featx: this one does not know crop in a recipe." in result.stderr
        assert "DAMAGED" not in result.output
    assert "does not know crop" in featx("cache", "ls", "--cache-dir", newer.parent).output
    assert contents(newer) == before
    (newer / "recipe.json").write_text(text.replace("center", "other"))  # which the name of the folder denies
    assert "DAMAGED" in featx("cache", "verify", name, "--cache-dir", newer.parent, exit_code=1).output


def test_what_goes_while_the_cache_is_listed_is_left_out(filled, monkeypatch):
    other = newer_store(filled.dir.parent)
    list_store = cache_module.list_store

    def slow(path: Path):
        shutil.rmtree(other.dir, ignore_errors=True)
        return list_store(path)

    monkeypatch.setattr(cache_module, "list_store", slow)
    assert [entry.name for entry in list_cache(filled.dir.parent)] == [filled.dir.name]


def test_files_that_go_while_they_are_counted_are_not_counted(filled, monkeypatch):
    from featx.extract.cache import size_bytes

    before, stat, (path, *_) = size_bytes(filled.dir), Path.stat, filled.dir.glob("seg-*")
    n_bytes = path.stat().st_size

    def gone(self: Path, **how):
        if self == path:
            path.unlink(missing_ok=True)
        return stat(self, **how)

    monkeypatch.setattr(Path, "stat", gone)
    assert size_bytes(filled.dir) == before - n_bytes


def test_what_another_process_has_removed_is_removed(filled, featx):
    cache_module.remove([filled.dir, filled.dir])
    assert not filled.dir.exists()


def test_a_folder_that_was_removed_is_named_as_the_reason(tmp_path, featx, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    result = featx("cache", "ls", exit_code=2)
    assert "it was removed or renamed. Change to another folder with cd." in result.output


def test_the_record_of_the_test_split_is_listed_checked_and_removed_with_a_question(tmp_path, featx, monkeypatch):
    cache, path = tmp_path / "cache", tmp_path / "cache" / "splits-0.2.bin"
    SplitRecord(cache, 0.2).add(np.eye(5, 32, dtype=np.uint8), np.arange(5) == 0)
    assert "test images that featx has chosen" in featx("cache", "ls", "--cache-dir", cache).output
    featx("cache", "verify", "--cache-dir", cache)
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    found = featx("cache", "verify", "--cache-dir", cache, exit_code=1).output
    assert f"DAMAGED {path}: it does not match its checksum" in found
    featx("cache", "verify", "--mend", "--cache-dir", cache, exit_code=1)
    assert not path.exists()
    assert [entry.kind for entry in list_cache(cache)] == ["digests", "quarantined"]
    assert SplitRecord(cache, 0.2).is_lost
    SplitRecord(cache, 0.2).add(np.eye(5, 32, dtype=np.uint8), np.arange(5) == 0)
    monkeypatch.setattr("featx.cli.cache.ask", lambda question: "may then choose other test images" not in question)
    featx("cache", "rm", path.name, "--cache-dir", cache, exit_code=1)
    assert path.exists()
    featx("cache", "rm", path.name, "--cache-dir", cache, "--yes")
    assert not path.exists()


def test_a_store_of_an_older_featx_is_as_it_should_be(filled):
    """Its `timings.json` knows nothing of what is counted since, such as images computed again in float32."""
    counted = {"n_images", "start_s", "decode_s", "forward_s", "write_s", "elapsed_s", "peak_memory_bytes"}
    assert json.loads((filled.dir / "timings.json").read_text()).keys() == counted
    assert check_cache(filled.dir.parent).is_sound
