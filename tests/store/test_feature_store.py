import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import DamagedSegmentError, FeaturesMissingError, StoreError
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import FORMAT_VERSION, new_segment_name
from featx.store.verification import check_store, mend_store
from featx.system.timings import Timings

RECIPE = Recipe(backbone="vgg16", weights="ab" * 32, layer="block5_pool", image_size=(64, 64), preprocessing="caffe")


def rows(numbers) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 2, 2, 8) float16 and digests (n, 32) of the images called `numbers`."""
    names = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
    features = [np.random.default_rng(number).normal(0, 50, (2, 2, 8)) for number in numbers]
    return np.array(features, np.float16), np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32)


def add(store: FeatureStore, numbers, **timings) -> Path:
    features, digests = rows(numbers)
    before = set(store.dir.glob("seg-*"))
    store.write_segment(new_segment_name(), features, digests, lambda: Timings(len(digests), **timings))
    store.reload()
    return (set(store.dir.glob("seg-*")) - before).pop()


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", RECIPE)


def reopened(store: FeatureStore) -> FeatureStore:
    return FeatureStore(store.dir.parent, store.recipe)


def test_features_are_found_by_digest_in_any_order(store):
    add(store, range(10))
    add(store, range(10, 25))
    order = np.random.default_rng(0).permutation(25)
    features, digests = rows(order)
    assert np.array_equal(reopened(store).read(digests), features)
    assert len(reopened(store)) == 25


def test_nothing_is_written_before_the_first_segment(store):
    store.publish()
    assert not store.dir.exists()
    assert len(store) == 0
    assert not store.contains(rows([1])[1]).any()


def test_missing_rows_are_an_error_not_a_guess(store):
    add(store, range(4))
    assert store.contains(rows([3, 4])[1]).tolist() == [True, False]
    with pytest.raises(FeaturesMissingError, match="1 of 2 images"):
        store.read(rows([3, 4])[1])


def test_another_view_of_an_image_is_another_row(store):
    add(store, range(4))
    assert not store.contains(rows([3])[1], views=1).any()


def test_digests_that_end_in_zeros_are_told_apart(store):
    digests = np.zeros((3, 32), np.uint8)
    digests[0, 1], digests[1, 0], digests[2, 30] = 1, 1, 1
    features = rows(range(3))[0]
    store.write_segment(new_segment_name(), features, digests, Timings)
    assert np.array_equal(reopened(store).read(digests[::-1]), features[::-1])


def test_an_image_computed_by_two_processes_is_one_row(store):
    add(store, range(5))
    add(store, range(3, 8))
    assert len(reopened(store)) == 8
    assert np.array_equal(reopened(store).read(rows(range(8))[1]), rows(range(8))[0])


def test_another_recipe_is_another_store(store, tmp_path):
    add(store, range(3))
    other = FeatureStore(tmp_path / "cache", Recipe.from_json(RECIPE.to_json().replace("float16", "float32")))
    assert other.dir != store.dir
    assert len(other) == 0


def test_cost_is_what_the_rows_asked_for_have_cost(store):
    add(store, range(10), elapsed_s=20.0, forward_s=10.0, peak_memory_bytes=7)
    add(store, range(10, 20), elapsed_s=40.0, peak_memory_bytes=5)
    cost = store.cost(rows([0, 1, 2, 3, 4, 10])[1])
    assert (cost.n_images, cost.elapsed_s, cost.forward_s, cost.peak_memory_bytes) == (6, 14.0, 5.0, 7)


def test_virtual_dataset_reads_with_h5py_alone_from_anywhere_after_a_move(store, tmp_path):
    add(store, range(5))
    add(store, range(5, 12))
    store.publish()
    moved = tmp_path / "elsewhere" / "moved cache"
    shutil.move(store.dir.parent, moved)
    script = (
        "import sys, h5py, numpy as np\n"
        "with h5py.File(sys.argv[1]) as file:\n"
        "    np.savez(sys.argv[2], features=file['features'][:], digest=file['digest'][:], view=file['view'][:])\n"
        "assert 'featx' not in sys.modules\n"
    )
    out = tmp_path / "out.npz"
    path = moved / store.dir.name / "features.h5"
    subprocess.run([sys.executable, "-I", "-c", script, path, out], check=True, cwd="/")
    with np.load(out) as arrays:
        expected = dict(zip(map(bytes, rows(range(12))[1]), rows(range(12))[0], strict=True))
        assert len(arrays["view"]) == 12
        for digest, features in zip(arrays["digest"], arrays["features"], strict=True):
            assert np.array_equal(expected[bytes(digest)], features)


def test_publishing_again_writes_nothing(store):
    add(store, range(5))
    store.publish()
    before = {path.name: path.stat().st_mtime_ns for path in store.dir.iterdir()}
    reopened(store).publish()
    assert {path.name: path.stat().st_mtime_ns for path in store.dir.iterdir()} == before
    assert set(before) >= {"features.h5", "recipe.json", "timings.json"}


def test_timings_file_adds_up_the_segments(store):
    add(store, range(5), elapsed_s=2.0)
    add(store, range(5, 9), elapsed_s=3.0)
    store.publish()
    timings = json.loads((store.dir / "timings.json").read_text())
    assert (timings["n_images"], timings["elapsed_s"]) == (9, 5.0)


def test_rows_whose_segment_has_gone_read_as_nan_never_as_zeros(store):
    path = add(store, range(5))
    add(store, range(5, 7))
    store.publish()
    path.unlink()
    with h5py.File(store.dir / "features.h5") as file:
        features = file["features"][:]
    assert np.isnan(features).all(axis=(1, 2, 3)).sum() == 5


def damage_flip(path):
    data = bytearray(path.read_bytes())
    at = data.find(rows([0])[0].tobytes())
    assert at > 0
    data[at + 17] ^= 8
    path.write_bytes(data)


def damage_zeros(path):
    """Zero all features and, with them, their Fletcher-32 checksum: which is right for zeros."""
    data = bytearray(path.read_bytes())
    features = rows(range(5))[0].tobytes()
    at = data.find(features)
    data[at : at + len(features) + 4] = bytes(len(features) + 4)
    path.write_bytes(data)


def damage_swapped_rows(path):
    with h5py.File(path, "r+") as file:
        file["features"][:] = file["features"][:][::-1]


@pytest.mark.parametrize("damage", [damage_flip, damage_zeros, damage_swapped_rows])
def test_damaged_features_are_found_when_read_and_cost_only_their_segment(store, damage, caplog):
    path = add(store, range(5))
    add(store, range(5, 9))
    damage(path)
    store = reopened(store)
    with pytest.raises(DamagedSegmentError, match="only its 5 images"):
        store.read(rows(range(9))[1])
    assert path.name in caplog.text
    assert path.with_name(f"damaged-{path.name}").exists()
    store = reopened(store)
    assert store.contains(rows(range(9))[1]).tolist() == [False] * 5 + [True] * 4
    assert np.array_equal(store.read(rows(range(5, 9))[1]), rows(range(5, 9))[0])


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def foreign(path):
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)


def of_another_recipe(path):
    with h5py.File(path, "r+") as file:
        file.attrs["recipe"] = "{}"


def without_view(path):
    with h5py.File(path, "r+") as file:
        del file["view"]


@pytest.mark.parametrize("damage", [cut_off, emptied, foreign, of_another_recipe, without_view])
def test_what_is_no_segment_is_quarantined_when_the_store_is_opened(store, damage, caplog):
    path = add(store, range(5))
    add(store, range(5, 9))
    damage(path)
    store = reopened(store)
    assert len(store) == 4
    assert "is damaged" in caplog.text
    assert path.with_name(f"damaged-{path.name}").exists()
    store.publish()
    with h5py.File(store.dir / "features.h5") as file:
        assert len(file["features"]) == 4


def test_a_newer_format_is_refused_and_left_alone(store):
    path = add(store, range(5))
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    with pytest.raises(StoreError, match="Update featx"):
        reopened(store)
    assert path.exists()


def test_damaged_virtual_dataset_is_written_again(store):
    add(store, range(5))
    store.publish()
    (store.dir / "features.h5").write_bytes(b"nothing")
    reopened(store).publish()
    with h5py.File(store.dir / "features.h5") as file:
        assert len(file["features"]) == 5


def test_unfinished_files_are_ignored_and_old_ones_removed(store):
    add(store, range(5))
    young, old = store.dir / ".tmp-1.h5", store.dir / ".tmp-2.h5"
    for path in (young, old):
        path.write_bytes(b"half a segment")
    os.utime(old, (1, 1))
    store = reopened(store)
    store.publish()
    assert len(store) == 5
    assert young.exists()
    assert not old.exists()


def test_failed_write_leaves_nothing_behind(store, monkeypatch):
    add(store, range(5))

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        add(store, range(5, 9))
    monkeypatch.undo()
    assert len(reopened(store)) == 5
    assert not list(store.dir.glob(".tmp-*"))


def test_one_segment_of_another_shape_does_not_evict_the_others(store, caplog):
    add(store, range(5))
    digests = rows(range(5, 8))[1]
    store.write_segment("seg-" + "0" * 32 + ".h5", np.zeros((3, 2, 2, 7), np.float16), digests, Timings)
    store = reopened(store)
    assert len(store) == 5
    assert "its features have the shape (2, 2, 7)" in caplog.text


def test_what_is_no_file_is_no_segment(store):
    add(store, range(5))
    os.mkfifo(store.dir / f"seg-{1:032x}.h5")
    (store.dir / f"seg-{2:032x}.h5").mkdir()
    assert len(reopened(store)) == 5


def test_derived_files_that_have_gone_are_written_again(store):
    add(store, range(5))
    for name in ("recipe.json", "timings.json", "features.h5"):
        store.publish()
        (store.dir / name).unlink()
        reopened(store).publish()
        assert (store.dir / name).exists()


def test_lack_of_memory_is_not_taken_for_damage(store, monkeypatch):
    path = add(store, range(5))

    def none_left(*_args):
        raise MemoryError

    monkeypatch.setattr("featx.store.feature_store.read_rows", none_left)
    with pytest.raises(MemoryError):
        store.read(rows(range(5))[1])
    assert path.exists()


@pytest.mark.parametrize("name", ["timings.json", "recipe.json", "features.h5"])
def test_what_a_writer_that_was_killed_wrote_last_is_put_right_by_the_next(store, name):
    """Others have published more since it looked: its file is whole, and of the past."""
    add(store, range(10), forward_s=1.0)
    store.publish()
    of_the_past = (store.dir / name).read_bytes() if name != "recipe.json" else b"{}"
    add(store, range(10, 20), forward_s=2.0)
    store.publish()
    expected = (store.dir / name).read_bytes()
    (store.dir / name).write_bytes(of_the_past)
    reopened(store).publish()
    if name == "features.h5":
        with h5py.File(store.dir / name) as file:
            assert len(file["features"]) == 20
    else:
        assert (store.dir / name).read_bytes() == expected


def test_a_writer_that_is_overtaken_between_its_files_leaves_none_of_the_past(store, monkeypatch):
    """Another process adds a segment and publishes while this one is writing what it saw before."""
    from featx.store import feature_store

    add(store, range(10), forward_s=1.0)
    write_text, overtaken = feature_store.write_text, []

    def slow(path, text):
        if path.name == "timings.json" and not overtaken:
            overtaken.append(True)
            other = reopened(store)
            add(other, range(10, 20), forward_s=2.0)
            other.publish()
        write_text(path, text)

    monkeypatch.setattr(feature_store, "write_text", slow)
    store.publish()
    assert overtaken
    assert json.loads((store.dir / "timings.json").read_text())["n_images"] == 20
    with h5py.File(store.dir / "features.h5") as file:
        assert len(file["features"]) == 20


@pytest.mark.timeout(60)
def test_a_damaged_list_of_segments_is_found_and_does_not_hang(store):
    """HDF5 itself goes through a global heap for ever whose free space has the size zero."""
    add(store, range(10))
    store.publish()
    path = store.dir / "features.h5"
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL")
    end = start + int.from_bytes(content[start + 8 : start + 16], "little")
    at = start + 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    assert at < end
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    check = check_store(store.dir)
    assert [damage.path for damage in check.damages] == [path]
    mend_store(check)
    assert not check_store(store.dir).damages
