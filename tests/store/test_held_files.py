"""Files that another program has open, has locked, or was killed over; and files that the system cannot read."""

import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import Result

from featx.backbones.build import build_model
from featx.backbones.weights import count_classes, find_weights
from featx.engines.networks import network_path, read_network
from featx.errors import DamagedSegmentError, FeatxError, StoreError, WeightsError
from featx.extract.options import resolve_recipe
from featx.heads.inference import read_head
from featx.store.compaction import compact
from featx.store.feature_store import FeatureStore
from featx.store.hdf5_file import _lookup3
from featx.store.segment_file import check_rows, read_index
from featx.store.verification import check_store, mend_store
from featx.system.timings import Timings
from tests.store.test_feature_store import RECIPE, add, reopened, rows

ROOT = Path(__file__).parents[2]
Featx = Callable[..., Result]

HOLDERS = {
    "r+": "file = h5py.File(path, 'r+')",
    "r+, latest": "file = h5py.File(path, 'r+', libver='latest')",
    "swmr": "file = h5py.File(path, 'r+', libver='latest'); file.swmr_mode = True",
    "flock": "file = open(path, 'rb'); fcntl.flock(file, fcntl.LOCK_EX)",
    "writes": "file = h5py.File(path, 'r+'); file['features'][1] = 0; file.flush()",
}


@contextmanager
def held(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a file; it is killed at last."""
    code = f"import fcntl, h5py, sys; path = sys.argv[1]; {HOLDERS[how]}; print('open', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def is_marked(path: Path) -> bool:
    """Return whether HDF5 itself would not open the file, though nobody locks it."""
    with path.open("rb") as file:
        return bool(file.read(12)[11] & 5)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "cache", RECIPE)
    add(store, range(10))
    add(store, range(10, 20))
    store.publish()
    return store


def assert_sound(store: FeatureStore) -> None:
    """Assert that all rows are there, and that nothing was renamed."""
    features, digests = rows(range(20))
    assert np.array_equal(reopened(store).read(digests), features)
    assert sorted(path.name[:4] for path in store.dir.glob("*.h5")) == ["feat", "seg-", "seg-"]
    assert not list(store.dir.glob("damaged-*"))


@pytest.mark.parametrize("how", ["r+", "r+, latest", "swmr", "flock"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_segment_that_is_held_is_read_by_its_checksums(store, how, is_killed, caplog):
    path = store.segments[0].path
    with held(path, how) as process:
        if is_killed:
            process.kill()
            process.wait()
        assert is_marked(path) == (how != "flock")
        assert_sound(store)
        check = check_store(store.dir)
        assert check.damages == ()
        assert check.n_rows == 20
        mend_store(check)
        assert_sound(store)
        compaction = compact(reopened(store))
        assert (compaction.n_segments_before, compaction.n_segments, compaction.n_rows) == (2, 1, 20)
        assert np.array_equal(reopened(store).read(rows(range(20))[1]), rows(range(20))[0])
    assert caplog.messages == []


@pytest.mark.parametrize("how", ["r+", "swmr", "flock"])
def test_features_h5_that_is_held_is_not_written_again(store, how):
    path = store.dir / "features.h5"
    before = path.stat().st_ino
    with held(path, how):
        assert check_store(store.dir).damages == ()
        reopened(store).publish()
    assert path.stat().st_ino == before


def test_rows_that_a_holder_has_changed_are_found(store):
    path = store.segments[0].path
    with held(path, "writes"):
        assert [damage.path for damage in check_store(store.dir).damages] == [path]
        assert path.exists()
        with pytest.raises(DamagedSegmentError, match="only its 10 images"):
            reopened(store).read(rows(range(20))[1])
    assert path.with_name(f"damaged-{path.name}").exists()


def test_every_command_uses_a_segment_that_is_held(featx: Featx, make_photos, tmp_path, cache):
    words = [make_photos(tmp_path / "data"), "--cache-dir", cache, "--weights", "random", "--image-size", 32]
    words += ["--layer", "block2_pool"]
    featx("extract", *words)
    (segment,) = cache.glob("vgg16*/seg-*.h5")
    store_dir = segment.parent
    before = {path.name: path.stat().st_ino for path in store_dir.iterdir()}
    with held(segment, "r+"):
        assert json.loads(featx("extract", *words, "--json").stdout)["n_computed"] == 0
        featx("train-top", *words, "--run-dir", tmp_path / "run", "--epochs", 2)
        featx("cache", "verify", "--cache-dir", cache)
        featx("cache", "verify", "--mend", "--cache-dir", cache)
        featx("cache", "compact", "--cache-dir", cache)
    assert {path.name: path.stat().st_ino for path in store_dir.iterdir()} == before


def test_a_lock_is_passed_by_where_the_environment_demands_locks(store):
    code = (
        "import sys; from pathlib import Path; from featx.store import FeatureStore\n"
        "from tests.store.test_feature_store import RECIPE, rows\n"
        "print(len(FeatureStore(Path(sys.argv[1]), RECIPE).read(rows(range(20))[1])))"
    )
    with held(store.segments[0].path, "flock"):
        result = subprocess.run(
            [sys.executable, "-c", code, store.dir.parent],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
            check=False,
        )
    assert (result.stdout, result.stderr) == ("20\n", "")


def test_marks_are_hidden_with_the_checksum_that_hdf5_expects():
    # From the comments of lookup3.c.
    assert _lookup3(b"Four score and seven years ago") == 0x17770551


# What is no damage


def unreadable(path: Path) -> Path:
    """Put in the place of `path` a file that can be opened, and whose reading ends in an input/output error."""
    path.unlink()
    path.symlink_to("/proc/self/mem")
    return path


def test_an_input_output_error_is_no_damage(store, tmp_path):
    path = unreadable(store.segments[0].path)
    with pytest.raises(StoreError, match=f"{path.name} cannot be read: Input/output error"):
        reopened(store)
    with pytest.raises(StoreError, match="cannot be read: Input/output error"):
        check_store(store.dir)
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["recipe.json", "timings.json", "features.h5", "skipped.csv"])
def test_a_derived_file_that_the_system_cannot_read_is_no_damage(store, name):
    (store.dir / name).touch()
    unreadable(store.dir / name)
    with pytest.raises(StoreError, match=f"{name} cannot be read: Input/output error"):
        check_store(store.dir)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_segment_that_may_not_be_read_is_no_damage(store):
    path = store.segments[0].path
    path.chmod(0)
    with pytest.raises(StoreError, match="cannot be read: Permission denied"):
        reopened(store)
    path.chmod(0o600)
    assert_sound(store)


def test_too_many_open_files_are_no_damage(store):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(others) + 1, before[1]))
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        with pytest.raises(StoreError, match="Too many open files"):
            check_rows(store.segments[0])
        with pytest.raises(StoreError, match="Too many open files"):
            read_index(store.segments[0].path, RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in (*others, *opened):
            os.close(descriptor)
    assert_sound(store)


LITTLE_MEMORY = """
import os, resource, sys
from pathlib import Path
import numpy as np
from featx.errors import StoreError
from featx.store.segment_file import check_rows, read_index
from tests.store.test_feature_store import RECIPE

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for extra in range(0, 64 << 20, 1 << 20):
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (used + extra,) * 2)
        word = b"whole"
        try:
            segment = read_index(Path(sys.argv[1]), RECIPE)
            check_rows(segment)
        except MemoryError:
            word = b"memory"
        except BaseException as error:
            word = repr(error).encode()
        os.write(1, word + b"\\n")
        os._exit(0)
    os.wait()
"""


def test_too_little_memory_is_no_damage(tmp_path):
    store = FeatureStore(tmp_path / "cache", RECIPE)
    features = np.random.default_rng(0).normal(0, 1, (20, 64, 64, 128)).astype(np.float16)
    store.write_segment(f"seg-{0:032x}.h5", features, rows(range(20))[1], Timings)
    (path,) = store.dir.glob("seg-*.h5")
    result = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, path], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert set(result.stdout.split("\n")) == {"memory", "whole", ""}, result.stdout


def test_a_digest_cache_that_is_locked_is_no_damage(tmp_path, monkeypatch, featx: Featx):
    monkeypatch.setattr("featx.dataset.statcache.BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "digests.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA application_id = 0x66747864; PRAGMA user_version = 1; CREATE TABLE digests (x)")
    connection.execute("BEGIN EXCLUSIVE")
    result = featx("cache", "verify", "--mend", "--cache-dir", tmp_path, exit_code=2)
    connection.close()
    assert result.output == f"featx: The digest cache {path} cannot be read: database is locked. Try again later.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["digests.sqlite"]


def test_a_head_that_the_system_cannot_read_need_not_be_trained_again(tmp_path):
    (tmp_path / "dense.keras").touch()
    path = unreadable(tmp_path / "dense.keras")
    with pytest.raises(FeatxError, match=r"dense\.keras cannot be read: Input/output error\.$"):
        read_head(path)


def test_a_network_that_the_system_cannot_read_is_neither_made_again_nor_removed(tmp_path, featx: Featx):
    recipe = replace(RECIPE, weights="random-0")
    path = network_path(recipe, tmp_path)
    path.parent.mkdir()
    path.touch()
    unreadable(path)
    with pytest.raises(FeatxError, match=f"{path.name} cannot be read: Input/output error"):
        read_network(recipe, tmp_path)
    result = featx("cache", "verify", "--mend", "--cache-dir", tmp_path, exit_code=2)
    assert result.output == f"featx: {path} cannot be read: Input/output error.\n"
    assert path.is_symlink()


# Weights

TINY = {"image_size": (32, 32), "layer": "block1_pool"}


def first_kernel(path: Path) -> np.ndarray:
    with h5py.File(path, "r", locking=False) as file:
        kernel: np.ndarray = file["block1_conv1/block1_conv1/kernel"][:]
        return kernel


def assert_used(path: Path, cache: Path, kernel: np.ndarray) -> None:
    recipe, weights = resolve_recipe(cache, weights=str(path), **TINY)
    assert weights.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    network = build_model(recipe, weights.path).layers[-1]
    assert np.array_equal(network.get_layer("block1_conv1").get_weights()[0], kernel)
    assert count_classes(path) is None  # the file has no classifier, and that can be told


@pytest.mark.parametrize("how", ["r+", "flock"])
def test_weights_that_are_held_are_used(vgg16_weights, tmp_path, how):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    with held(path, how):
        with pytest.raises(BlockingIOError):
            h5py.File(path, "r")
        assert_used(path, tmp_path / "cache", first_kernel(path))


def test_weights_that_a_killed_writer_has_left_marked_are_used(vgg16_weights, tmp_path):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    kernel = first_kernel(path)
    with h5py.File(path) as old, h5py.File(tmp_path / "marked.h5", "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
    path = (tmp_path / "marked.h5").rename(path)
    with held(path, "r+"):
        pass
    assert is_marked(path)
    assert_used(path, tmp_path / "cache", kernel)


def test_weights_that_change_between_their_digest_and_their_use_are_refused(vgg16_weights, tmp_path):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    recipe, weights = resolve_recipe(tmp_path / "cache", weights=str(path), **TINY)
    with h5py.File(path, "r+") as file:
        file["block1_conv1/block1_conv1/kernel"][0] = 0
    with pytest.raises(WeightsError, match="changed while featx was running; run the same command again"):
        build_model(recipe, weights.path)


def test_weights_replaced_in_place_with_the_same_size_and_time_are_others(vgg16_weights, tmp_path, settle):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    settle()
    find_weights("vgg16", str(path), tmp_path / "cache")
    before = path.stat()
    with h5py.File(path, "r+") as file:
        file["block1_conv1/block1_conv1/kernel"][0] = 0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    assert_used(path, tmp_path / "cache", first_kernel(path))


def test_weights_that_the_system_cannot_read_are_not_said_to_be_others(tmp_path):
    (tmp_path / "mine.h5").touch()
    with pytest.raises(WeightsError, match=r"mine\.h5 cannot be read: Input/output error\.$"):
        count_classes(unreadable(tmp_path / "mine.h5"))
