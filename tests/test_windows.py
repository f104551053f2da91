"""featx where Linux is as strict as Windows: no module and no name that only POSIX has, no renaming of open files.

featx is not run on Windows itself: see docs/reliability.md.
"""

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image, ImageOps

from featx.dataset import folders, layout
from featx.dataset.kaggle import fetch, unpack
from featx.dataset.scanning import scan
from featx.errors import DatasetError, FeatxError
from featx.extract.cache import check_cache, compact_cache, list_cache, remove
from featx.extract.extract import extract_features
from featx.storage import ArchiveError, FileHeldError, StatKeys, as_storage_path, paths, windows, windows_paths
from featx.store.feature_store import FeatureStore
from tests.as_on_windows import refuse_as_windows

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block1_pool"}
WORDS = ["--weights", "random", "--image-size", "32", "--layer", "block1_pool", "--pooling", "avg"]


def test_the_main_job_needs_nothing_that_only_posix_has(make_photos, tmp_path):
    data = make_photos(tmp_path / "data")
    fewer = make_photos(tmp_path / "fewer", n_train=6)
    for number, path in enumerate(sorted((fewer / "train" / "sea").glob("*.jpg"))[:3]):
        ImageOps.mirror(Image.open(path)).save(path.with_name(f"mirrored.{number}.jpg"))
    commands = [
        ["extract", fewer, *WORDS],
        ["extract", data, *WORDS],
        ["train-top", data, *WORDS, "--epochs", "2", "--run-dir", "run"],
        ["predict", "run", data / "test", "--format", "csv"],
        ["compare", data, *WORDS, "--epochs", "2", "--report-dir", "report"],
        ["cache", "ls"],
        ["cache", "compact"],
        ["cache", "verify"],
        ["cache", "rm", "digests.sqlite", "--yes"],
        ["fetch", "sample", "--to", tmp_path / "empty"],
    ]
    (tmp_path / "empty").mkdir()
    words = [word for command in commands for word in (*command, "+")]
    result = subprocess.run(
        [sys.executable, "-m", "tests.as_on_windows", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert all("show the same photograph" in line for line in warnings), "the waves on these images are much alike"
    assert "2 segments, now 1; 35 images were written again." in result.stdout
    assert "35 images, no damage." in result.stdout
    assert len([line for line in result.stdout.splitlines() if line.startswith(f"{data}/test/")]) == 8
    assert (tmp_path / "run" / "dense.keras").is_file()
    assert (tmp_path / "report" / "index.html").is_file()
    assert [entry.kind for entry in list_cache(tmp_path / "cache")] == ["store", "networks"]
    assert len(list((tmp_path / "empty" / "train" / "0").iterdir())) == 50


@pytest.fixture
def strict(monkeypatch) -> None:
    refuse_as_windows(monkeypatch.setattr)
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(windows.patiently, "__defaults__", (0.1,))


@pytest.fixture
def store(make_photos, tmp_path, cache) -> FeatureStore:
    """A store of two segments."""
    data = make_photos(tmp_path / "data")
    image = next((data / "train" / "sea").iterdir())
    away = image.rename(tmp_path / "away.jpg")
    extract_features(data, cache_dir=cache, **OPTIONS)
    away.rename(image)
    recipe = extract_features(data, cache_dir=cache, **OPTIONS).recipe
    store = FeatureStore(cache, recipe)
    assert len(store.segments) == 2
    return store


def rows(store: FeatureStore, tmp_path: Path, cache: Path) -> np.ndarray:
    return store.read(scan(tmp_path / "data", cache).digests)


def test_features_h5_that_another_program_reads_costs_no_feature(store, strict, tmp_path, cache, caplog):
    before = rows(store, tmp_path, cache)
    with h5py.File(store.dir / "features.h5", locking=False):
        store.publish(again=True)
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        compact_cache(cache)
        assert len(list(store.dir.glob("seg-*.h5"))) == 3, "the reader's rows have gone"
    assert said.startswith(f"{store.dir}/features.h5 could not be updated: another program has it open")
    caplog.clear()
    compact_cache(cache)
    assert len(list(store.dir.glob("seg-*.h5"))) == 1
    assert not caplog.records
    np.testing.assert_array_equal(rows(FeatureStore(cache, store.recipe), tmp_path, cache), before)
    assert check_cache(cache).is_sound


def test_a_segment_that_another_program_reads_stays_until_it_is_closed(store, strict, tmp_path, cache, caplog):
    before = rows(store, tmp_path, cache)
    with store.segments[0].path.open("rb"):
        compact_cache(cache)
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert said.startswith(f"1 merged segments of {store.dir} could not be removed")
        assert check_cache(cache).is_sound
    compact_cache(cache)
    assert len(list(store.dir.glob("seg-*.h5"))) == 1
    np.testing.assert_array_equal(rows(FeatureStore(cache, store.recipe), tmp_path, cache), before)


def test_an_entry_of_the_cache_that_is_in_use_is_not_removed_in_part(store, strict, tmp_path, cache):
    with (
        store.segments[0].path.open("rb"),
        pytest.raises(FeatxError, match="cannot be removed: another program has it open, or it is protected; close"),
    ):
        remove([store.dir])
    assert len(list(store.dir.glob("seg-*.h5"))) == 2
    remove([store.dir])
    assert not store.dir.exists()


def test_a_file_that_is_open_for_a_moment_is_waited_for(strict, tmp_path):
    path = tmp_path / "file"
    path.touch()
    opened = path.open()
    attempts = iter(range(1, 3))

    def remove_file() -> None:
        if next(attempts) == 2:
            opened.close()
        path.unlink()

    windows.patiently(remove_file, path, patience_s=10)
    assert not path.exists()
    path.touch()
    with path.open(), pytest.raises(FileHeldError, match="another program has it open"):
        windows.patiently(path.unlink, path, patience_s=0)


def test_a_folder_takes_the_place_of_an_empty_one_and_of_no_other(strict, tmp_path):
    for name in ("new", "empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError):
        windows.rename_folder(tmp_path / "new", tmp_path / "full")
    windows.rename_folder(tmp_path / "new", tmp_path / "empty")
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "full" / "file").exists()


def test_fetch_leaves_nothing_beside_the_folder(strict, monkeypatch, tmp_path):
    monkeypatch.setattr("featx.storage.workshops.IS_WINDOWS", True)
    with fetch._workshop(tmp_path / "data") as workshop:
        with pytest.raises(FeatxError, match="Another featx fetch"), fetch._workshop(tmp_path / "data"):
            pass
        assert workshop.is_dir()
    assert not list(tmp_path.iterdir())


def test_names_that_windows_refuses_are_unpacked_under_others(monkeypatch, tmp_path):
    monkeypatch.setattr(unpack, "IS_WINDOWS", True)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("what?/a:b.jpg", "what?/c. /d.jpg", "con/COM1.jpg", "plain/console.jpg"):
            file.writestr(name, name)
    (said,) = unpack.unpack(tmp_path / "a.zip", tmp_path / "to")
    assert said == "Renamed, because Windows does not allow the names: 3, such as what?/a:b.jpg to what_/a_b.jpg."
    found = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*.jpg")}
    assert found == {"what_/a_b.jpg", "what_/c_/d.jpg", "con_/COM1_.jpg", "plain/console.jpg"}
    assert (tmp_path / "to" / "what_" / "a_b.jpg").read_text() == "what?/a:b.jpg"


@pytest.mark.parametrize("names", [("a?/x.jpg", "a_/y.jpg"), ("Cats/x.jpg", "cats/y.jpg"), ("x.jpg", "X.JPG")])
def test_names_that_become_one_on_windows_are_refused(names):
    with pytest.raises(ArchiveError, match="have the same name on Windows"):
        windows_paths(names)


def test_paths_have_slashes_whatever_the_system_writes(make_photos, cache, monkeypatch, tmp_path):
    data = make_photos(tmp_path / "data")
    real = os.scandir

    class Scanned:
        """What `os.scandir` gives on Windows."""

        def __init__(self, folder: str) -> None:
            self._entries = list(real(folder))

        def __enter__(self) -> list[SimpleNamespace]:
            kinds = [(entry, entry.is_dir()) for entry in self._entries]
            return [
                SimpleNamespace(
                    name=entry.name, path=entry.path.replace("/", "\\"), is_dir=lambda is_dir=is_dir: is_dir
                )
                for entry, is_dir in kinds
            ]

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(folders.os, "scandir", Scanned)
    dataset = scan(data, cache)
    assert dataset.class_names == ("sea", "wood")
    assert dataset.paths[0] == "test/sea/sea.0.jpg"


def test_a_split_may_be_typed_with_backslashes(make_photos, monkeypatch, tmp_path):
    make_photos(tmp_path / "data" / "all")
    monkeypatch.setattr(layout, "os", SimpleNamespace(sep="\\", pardir="..", path=_WindowsPaths()))
    found = layout.find_layout(tmp_path / "data", folders.Folders(), train="all\\train", test="all\\test")
    assert sorted(found.train) == ["sea", "wood"]
    with pytest.raises(DatasetError, match="is outside"):
        layout.find_layout(tmp_path / "data", folders.Folders(), train="..\\train", test=None)


class _WindowsPaths:
    """`os.path` that gives backslashes, as it does on Windows."""

    def __getattr__(self, name: str) -> object:
        def there(*given: str) -> str:
            slashed = getattr(os.path, name)(*(text.replace("\\", "/") for text in given))
            return slashed.replace("/", "\\") if name in {"normpath", "relpath"} else slashed

        return there


def test_an_address_of_a_file_on_a_drive_is_its_path(monkeypatch):
    monkeypatch.setattr(paths, "IS_WINDOWS", True)
    assert as_storage_path("file:///C:/my%20photos") == Path("C:/my photos")
    assert as_storage_path("file:///data") == Path("/data")


def test_an_inode_of_128_bits_fits_into_the_digest_cache(tmp_path):
    status = SimpleNamespace(st_dev=1, st_ino=(1 << 127) + (1 << 63) + 5, st_size=1, st_mtime_ns=2, st_ctime_ns=3)
    assert StatKeys().of(os.fsencode(tmp_path), status).inode == -(1 << 63) + 5
