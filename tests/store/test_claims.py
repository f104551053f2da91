"""What a segment claims counts once it has been verified; what is around the rows is held to be hostile, too."""

import os
import sqlite3
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.dataset import statcache
from featx.dataset.statcache import StatCache, check_database
from featx.errors import DamagedSegmentError
from featx.store import hdf5_structure, verification
from featx.store.feature_array import stored_rows
from featx.store.feature_store import FeatureStore
from featx.store.hdf5_file import _lookup3
from featx.store.segment_file import new_segment_name, write_segment_file
from featx.store.verification import check_store, list_store, mend_store
from featx.system.timings import Timings
from tests.chaos.hostile_stores import checksums, write
from tests.store.test_feature_store import RECIPE, add, reopened, rows

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "cache", RECIPE)
    add(store, range(5))
    add(store, range(5, 9))
    store.publish()
    return store


def hostile_path(store: FeatureStore) -> Path:
    """A name that sorts before all others."""
    return store.dir / f"seg-{0:032x}.h5"


def put(path: Path, features: np.ndarray, digests: np.ndarray, **how) -> Path:
    """Write a segment of this recipe whose checksums are right."""
    return write(path, features, digests, **how, attributes={"recipe": np.bytes_(RECIPE.to_json())})


def assert_holds(store: FeatureStore, n: int = 9) -> None:
    """Assert that all good rows are there, and nothing else."""
    features, digests = rows(range(n))
    opened = reopened(store)
    assert np.array_equal(opened.read(digests), features)
    assert len(opened) == n
    assert len(list(store.dir.glob("seg-*"))) == 2


def never_written(file: h5py.File, name: str, array: np.ndarray) -> object:
    return file.create_dataset(name, array.shape, array.dtype, chunks=(10, *array.shape[1:]), compression="gzip")


def test_a_claim_of_thousands_of_rows_of_another_shape_evicts_nothing(store):
    digests = np.frombuffer(np.random.default_rng(0).bytes(2000 * 32), np.uint8).reshape(-1, 32)
    path = hostile_path(store)
    put(path, np.zeros((2000, 7), np.float16), digests, makes={"features": never_written})
    assert list_store(store.dir).n_images == 9
    assert [damage.path for damage in check_store(store.dir).damages] == [path]
    assert_holds(store)


@pytest.mark.parametrize("n", [1, 200])
def test_right_rows_of_another_shape_that_come_later_evict_nothing(store, n):
    path = hostile_path(store)
    digests = rows(range(100, 100 + n))[1]
    put(path, np.ones((n, 2, 2, 7), np.float16), digests)
    assert list_store(store.dir).n_images == 9
    assert [damage.path for damage in check_store(store.dir).damages] == [path]
    mend_store(check_store(store.dir))
    assert path.with_name(f"damaged-{path.name}").exists()
    assert_holds(store)


def test_an_older_segment_decides_only_if_its_rows_match_their_checksums(tmp_path):
    store = FeatureStore(tmp_path / "cache", RECIPE)
    store.dir.mkdir(parents=True)
    put(hostile_path(store), np.ones((200, 7), np.float16), rows(range(200))[1], checks=np.zeros(200, np.uint32))
    for numbers in (range(5), range(5, 9)):
        features, digests = rows(numbers)
        put(store.dir / new_segment_name(), features, digests)
    assert_holds(store)


def test_what_is_computed_here_decides_over_what_was_there(tmp_path, caplog):
    store = FeatureStore(tmp_path / "cache", RECIPE)
    store.dir.mkdir(parents=True)
    put(hostile_path(store), np.ones((200, 7), np.float16), rows(range(100, 300))[1])
    store = reopened(store)
    assert len(store) == 200
    add(store, range(5))
    assert "its features have the shape (7,), those of the store (2, 2, 8)" in caplog.text
    add(store, range(5, 9))
    assert_holds(store)


@pytest.mark.parametrize("name", ["features", "digest", "view", "crc32"])
@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"shuffle": True}, {"fletcher32": False}])
def test_filters_other_than_the_format_s_are_refused(store, name, filters):
    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(name, data=array, chunks=array.shape, **{"fletcher32": True, **filters})

    put(hostile_path(store), *rows(range(20, 25)), makes={name: make})
    (damage,) = check_store(store.dir).damages
    assert damage.reason == f"the filters of {name} are not those of the format"
    assert_holds(store)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_row_that_is_not_finite_is_damage_though_its_checksum_is_right(tmp_path, value, dtype, caplog):
    store = FeatureStore(tmp_path / "cache", RECIPE.from_json(RECIPE.to_json().replace("float16", dtype)))
    features, digests = rows(range(9))
    features = features.astype(dtype)
    store.write_segment(new_segment_name(), features[:5], digests[:5], Timings)
    bad = features[5:].copy()
    bad[2, 1, 0, 7] = value
    store.write_segment(new_segment_name(), bad, digests[5:], Timings)
    (damage,) = check_store(store.dir).damages
    assert (damage.reason, damage.n_images) == ("a feature is not finite", 4)
    with pytest.raises(DamagedSegmentError, match="a feature is not finite"):
        reopened(store).read(digests)
    assert np.array_equal(reopened(store).read(digests[:5]), features[:5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_largest_and_smallest_numbers_are_finite(tmp_path, dtype):
    store = FeatureStore(tmp_path / "cache", RECIPE.from_json(RECIPE.to_json().replace("float16", dtype.__name__)))
    edges = [np.finfo(dtype).max, np.finfo(dtype).min, -0.0, np.finfo(dtype).smallest_subnormal]
    features = np.array(edges, dtype).reshape(1, 2, 2)
    store.write_segment(new_segment_name(), features, rows([1])[1], Timings)
    assert np.array_equal(reopened(store).read(rows([1])[1]), features)


def test_rows_of_a_damaged_segment_that_are_in_a_good_one_too_are_read_from_there(store, caplog):
    features, digests = rows(range(9))
    bad = hostile_path(store)
    put(bad, features, digests, checks=checksums(features + 1, digests, np.zeros(9, np.uint16)))
    assert np.array_equal(reopened(store).read(digests), features)
    assert bad.with_name(f"damaged-{bad.name}").exists()
    bad.with_name(f"damaged-{bad.name}").rename(bad)
    assert np.array_equal(stored_rows(reopened(store), digests)[:], features)
    assert_holds(store)


@pytest.mark.parametrize("name", ["features", "digest", "view", "crc32"])
@pytest.mark.parametrize("n", [2**45, 10**6])
def test_rows_that_a_file_cannot_hold_are_not_allocated(store, name, n):
    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(
            name, (n, *array.shape[1:]), array.dtype, chunks=(1000, *array.shape[1:]), fletcher32=True
        )

    put(hostile_path(store), *rows(range(20, 25)), makes={name: make})
    assert list_store(store.dir).n_images == 9
    assert_holds(store)


def test_data_in_other_files_are_not_read(store, tmp_path):
    secret = tmp_path / "secret"
    content = np.frombuffer(b"SECRET! " * 40, np.float16).reshape(5, 2, 2, 8)
    secret.write_bytes(content.tobytes())

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(name, array.shape, array.dtype, external=[(str(secret), 0, array.nbytes)])

    digests = rows(range(20, 25))[1]
    put(hostile_path(store), content, digests, makes={"features": make})
    assert not reopened(store).contains(digests).any()
    assert_holds(store)


def test_texts_of_variable_length_are_read_and_a_heap_without_end_is_not(store):
    features, digests = rows(range(20, 25))
    texts = {"format": "featx-features", "recipe": RECIPE.to_json()}
    path = hostile_path(store)
    write(path, features, digests, attributes=texts)
    assert np.array_equal(reopened(store).read(digests), features)
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL")
    size = int.from_bytes(content[start + 8 : start + 16], "little")
    content[start + 16 : start + size] = bytes(size - 16)
    path.write_bytes(content)
    assert list_store(store.dir).n_images == 9
    assert [damage.path for damage in check_store(store.dir).damages] == [path]
    assert_holds(store)


def test_a_list_of_free_places_that_leads_back_to_itself_is_found(store):
    """HDF5 goes through it for ever. Groups of the old kind have one."""
    features, digests = rows(range(20, 25))
    path = hostile_path(store)
    put(path, features, digests, libver="earliest")
    assert np.array_equal(reopened(store).read(digests), features)
    content = bytearray(path.read_bytes())
    start = content.index(b"HEAP")
    data = int.from_bytes(content[start + 24 : start + 32], "little")
    content[start + 16 : start + 24] = (8).to_bytes(8, "little")
    content[data + 8 : data + 24] = (8).to_bytes(8, "little") + (16).to_bytes(8, "little")
    path.write_bytes(content)
    assert list_store(store.dir).n_images == 9
    assert_holds(store)


@pytest.mark.parametrize("libver", ["earliest", "v108"])  # the second has old trees below new groups
@pytest.mark.parametrize("name", ["features", "digest"])
def test_a_tree_of_chunks_that_leads_back_to_itself_is_damage(store, libver, name):
    """HDF5 would fill the stack with it, and end the process."""
    features, digests = rows(range(100, 200))
    path = put(hostile_path(store), features, digests, libver=libver)
    with h5py.File(path, "r+", libver=libver) as file:
        array = file[name][:]
        del file[name]
        file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), fletcher32=True)
    content = bytearray(path.read_bytes())
    root = content.index(b"TREE\x01\x01")
    child = root + 24 + 8 + 8 * (array.ndim + 1)
    content[child : child + 8] = root.to_bytes(8, "little")
    path.write_bytes(content)
    assert_holds(store)
    assert path.with_name(f"damaged-{path.name}").exists()


def test_of_a_segment_that_featx_wrote_only_headers_are_read_to_see_that_hdf5_can_read_it(store, monkeypatch):
    monkeypatch.setattr(hdf5_structure, "_content", lambda _path: pytest.fail("all of it was read"))
    assert_holds(store)


@pytest.mark.parametrize("address", [2**64 - 16, 2**63, 2**62, 0, 8])
def test_a_root_group_that_is_nowhere_is_damage(store, address):
    path = put(hostile_path(store), *rows(range(20, 25)))
    content = bytearray(path.read_bytes())
    content[36:44] = address.to_bytes(8, "little")
    content[44:48] = _lookup3(bytes(content[:44])).to_bytes(4, "little")
    path.write_bytes(content)
    assert [damage.path for damage in check_store(store.dir).damages] == [path]
    assert_holds(store)


@pytest.mark.parametrize("timings", ['{"elapsed_s": 1' + "0" * 400 + "}", '{"n_images": 1e300}', '{"n_images": "1"}'])
def test_timings_that_nobody_measured_are_damage(store, timings):
    write(hostile_path(store), *rows(range(20, 25)), attributes={"recipe": RECIPE.to_json(), "timings": timings})
    assert list_store(store.dir).n_images == 9
    assert_holds(store)


@pytest.mark.parametrize("name", ["\udcff", "%b", "%%", "\x1b[2J"])
def test_a_name_that_features_h5_cannot_hold_is_damage(store, name):
    path = store.dir / f"seg-{name}.h5"
    put(hostile_path(store), *rows(range(20, 25))).rename(path)
    assert [damage.path for damage in check_store(store.dir).damages] == [path]
    opened = reopened(store)
    opened.publish()
    assert path.with_name(f"damaged-{path.name}").exists()
    assert_holds(store)


# Files that are derived


@pytest.mark.parametrize("name", ["recipe.json", "timings.json", "features.h5", "skipped.csv"])
@pytest.mark.parametrize("size", [None, 1 << 40])
def test_a_fifo_or_a_terabyte_of_nothing_is_damage_and_can_be_mended(store, name, size):
    path = store.dir / name
    path.unlink(missing_ok=True)
    if size is None:
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, size)
    assert list_store(store.dir).n_images == 9
    check = check_store(store.dir)
    assert [damage.path for damage in check.damages] == [path]
    assert_holds(store)
    mend_store(check)
    assert not check_store(store.dir).damages
    assert_holds(store)


# A store that is being written


def test_a_store_whose_segments_are_not_published_yet_is_sound(store):
    add(store, range(9, 12))
    assert not check_store(store.dir).damages
    for name in ("timings.json", "recipe.json", "features.h5"):
        (store.dir / name).unlink()
        assert not check_store(store.dir).damages


def test_a_store_that_is_published_while_it_is_verified_is_sound(store, monkeypatch):
    shown, numbers = verification.shown_segments, iter(range(9, 12))

    def overtaken(path: Path) -> list[str]:
        names = shown(path)
        for number in numbers:
            other = reopened(store)
            add(other, [number])
            other.publish()
            break
        return names

    monkeypatch.setattr(verification, "shown_segments", overtaken)
    check = check_store(store.dir)
    assert check.damages == ()
    assert check.n_rows == 12


def test_features_h5_that_shows_what_is_not_there_is_damaged(store):
    path = next(store.dir.glob("seg-*"))
    path.unlink()
    assert [damage.path.name for damage in check_store(store.dir).damages] == ["features.h5", "timings.json"]


def test_a_database_that_another_process_makes_meanwhile_is_sound(tmp_path, monkeypatch):
    """What it says of itself is read in one transaction: it cannot change between two looks."""
    monkeypatch.setattr(statcache, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / statcache.DATABASE_NAME

    class Overtaken(sqlite3.Connection):
        def execute(self, *words):
            found = super().execute(*words).fetchall()
            StatCache(tmp_path).close()
            return super().execute(*words) if "sqlite_master" in words[0] and "name =" in words[0] else _Rows(found)

    class _Rows(list):
        def fetchone(self):
            return self[0]

    with sqlite3.connect(path, factory=Overtaken) as connection:
        assert statcache._is_ours(connection) is True  # it was made after the first statement, and then locked
    connection.close()
    assert check_database(path) is None


def test_many_that_make_one_database_at_once_find_it_sound(tmp_path, caplog):
    for number in range(5):
        folder = tmp_path / str(number)
        threads = [threading.Thread(target=lambda folder=folder: StatCache(folder).close()) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert check_database(folder / statcache.DATABASE_NAME) is None
    assert caplog.messages == []


def test_a_segment_that_the_disk_does_not_give_back_is_quarantined_by_a_compaction(store, monkeypatch):
    from featx.store import compaction, feature_store

    def flipped(path, *words):
        cost = write_segment_file(path, *words)
        content = bytearray(path.read_bytes())
        content[content.index(rows([0])[0].tobytes()) + 3] ^= 1
        path.write_bytes(content)
        return cost

    monkeypatch.setattr(feature_store, "write_segment_file", flipped)
    compaction.compact(reopened(store))
    monkeypatch.undo()
    assert len(list(store.dir.glob("damaged-*"))) == 1
    assert_holds(store)
