"""Files are moved out of a data set and back: nothing is lost, overwritten or left in the middle."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featx.clean.find import find_problems
from featx.clean.problems import Problems
from featx.clean.removal import LOG_NAME, remove_files, restore_files
from featx.dataset.image_dataset import ImageFolders
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from tests.conftest import write_photos

WEIRD = ["line\nbreak.jpg", 'comma, "quote".jpg', "Ärger 猫.jpg", os.fsdecode(b"caf\xe9.jpg"), "a b  c .JPG"]


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def data(tmp_path) -> Path:
    """Photographs with an exact copy of each of the first five in one class, under weird names."""
    data = write_photos(tmp_path / "data", n_train=6, n_test=2)
    for number, name in enumerate(WEIRD):
        shutil.copy(data / f"train/sea/sea.{number}.jpg", data / "train/sea" / f"copy of {name}")
    return data


@pytest.fixture
def problems(data, tmp_path) -> Problems:
    return find_problems(data, kinds="copy", cache_dir=tmp_path / "cache")


def test_removed_files_come_back_byte_for_byte(data, problems):
    before = tree(data)
    moved = remove_files(problems)
    assert sorted(moved.paths) == sorted(f"train/sea/copy of {name}" for name in WEIRD)
    assert moved.left == ()
    removed = data.with_name("data-removed")
    assert moved.removed_dir == removed
    assert {**tree(data), **{path: before[path] for path in moved.paths}} == before
    assert {path: digest for path, digest in tree(removed).items() if path in before}.keys() == set(moved.paths)
    assert sorted(restore_files(data).paths) == sorted(moved.paths)
    assert tree(data) == before
    assert not removed.exists()
    with pytest.raises(FeatxError, match="There are no removed files"):
        restore_files(data)


@pytest.mark.usefixtures("data")
def test_removed_files_are_no_images_of_the_folder_above(problems, tmp_path):
    remove_files(problems)
    assert all("removed" not in path for path in scan(tmp_path, tmp_path / "cache", to_train=False).paths)


#: Moves files, and kills its own process before the move with this number.
_KILLED = """
import os, signal, sys
from featx.clean import find_problems, remove_files, removal
n_left = int(sys.argv[3])
def move(source, target, move=removal.move):
    global n_left
    if not n_left:
        os.kill(os.getpid(), signal.SIGKILL)
    n_left -= 1
    move(source, target)
removal.move = move
remove_files(find_problems(sys.argv[1], kinds="copy", cache_dir=sys.argv[2]))
"""


def test_a_process_that_is_killed_between_two_moves_loses_nothing(data, tmp_path):
    before, removed = tree(data), data.with_name("data-removed")
    command = [sys.executable, "-c", _KILLED, str(data), str(tmp_path / "cache"), "2"]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    both = {**tree(data), **{path: digest for path, digest in tree(removed).items() if path in before}}
    assert both == before
    assert len(tree(data)) == len(before) - 2
    with (removed / LOG_NAME).open("ab") as log:
        log.write(b'{"path": "train/se')  # and in the middle of a line
    moved = remove_files(find_problems(data, kinds="copy", cache_dir=tmp_path / "cache"))
    assert len(moved.paths) == len(WEIRD) - 2
    assert len(restore_files(removed).paths) == len(WEIRD)
    assert tree(data) == before
    assert not removed.exists()


def test_nothing_is_overwritten_on_the_way_out_and_back(data, problems, tmp_path):
    copy = data / "train/sea/copy of a b  c .JPG"
    remove_files(problems)
    shutil.copy(data / "train/sea/sea.5.jpg", copy)  # another image has this name now
    again = remove_files(find_problems(data, kinds="copy", cache_dir=tmp_path / "cache"))
    assert len(again.paths) == 1
    removed = again.removed_dir / "train/sea"
    assert (removed / "copy of a b  c -2.JPG").exists()
    copy.write_bytes(b"mine")
    restored = restore_files(data)
    assert copy.read_bytes() == b"mine"
    assert [path for path, _ in restored.left] == ["train/sea/copy of a b  c .JPG"] * 2
    assert len(restored.paths) == len(WEIRD) - 1
    assert "there is a file" in restored.left[0][1]
    copy.unlink()
    restored = restore_files(data)
    assert copy.read_bytes() == (data / "train/sea/sea.5.jpg").read_bytes(), "the one that was removed last"
    assert len(restored.left) == 1


def test_files_that_changed_since_they_were_looked_at_stay(data, problems):
    (data / "train/sea/copy of a b  c .JPG").write_bytes(b"new")
    (data / "train/sea/sea.0.jpg").unlink()
    moved = remove_files(problems)
    reasons = dict(moved.left)
    assert reasons == {
        "train/sea/copy of a b  c .JPG": "it has changed since featx looked at it",
        "train/sea/copy of line\nbreak.jpg": "its copy train/sea/sea.0.jpg is gone",
    }
    assert len(moved.paths) == len(WEIRD) - 2


def test_a_full_disk_moves_nothing(data, problems):
    before, limits = tree(data), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(FeatxError, match=r"data-removed cannot be used: File too large\. Choose another one"):
            remove_files(problems)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(data) == before
    assert restore_files(data).paths == ()
    assert len(remove_files(problems).paths) == len(WEIRD)


def test_what_cannot_be_moved_is_named_and_stays(data, problems, tmp_path):
    folder = tmp_path / "bin"
    remove_files(replace(problems, found=problems.found[:1]), folder)
    shutil.rmtree(folder / "train")
    (folder / "train").write_text("a file where a folder should be")
    moved = remove_files(problems, folder)
    assert moved.paths == ()
    assert {reason for _, reason in moved.left} == {"no such file or directory", "not a directory"}


@pytest.mark.parametrize("where", ["used", "disk"])
def test_a_folder_that_is_used_or_on_another_disk_is_refused(data, problems, tmp_path, where):
    before = tree(data)
    folder = tmp_path / "used"
    if where == "used":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    else:
        folder = Path("/dev/shm") / f"featx-{os.getpid()}"
        if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == data.stat().st_dev:
            pytest.skip("needs a second disk")
    with pytest.raises(FeatxError, match=r"is not empty|is not on the same disk as"):
        remove_files(problems, folder)
    assert tree(data) == before
    assert where == "used" or not folder.exists()


def test_a_folder_with_files_of_another_data_set_is_refused(data, problems, tmp_path):
    shutil.copytree(data, tmp_path / "other")
    remove_files(problems, tmp_path / "bin")
    others = find_problems(tmp_path / "other", kinds="copy", cache_dir=tmp_path / "cache")
    with pytest.raises(FeatxError, match=r"The folder .*bin has files of .*data: choose another one"):
        remove_files(others, tmp_path / "bin")


def test_a_log_leads_to_no_folder_outside(data, problems):
    removed = remove_files(problems).removed_dir
    (removed / "secret.jpg").write_bytes(b"x")
    lines = [{"path": "../evil.jpg", "to": "secret.jpg"}, {"path": "/tmp/evil.jpg", "to": "secret.jpg"}]
    with (removed / LOG_NAME).open("a") as log:
        log.writelines(f"{json.dumps(line)}\n" for line in [*lines, {"path": "x"}, [], {"path": 1, "to": 2}])
    restore_files(data)
    assert (removed / "secret.jpg").exists()
    assert not (data.parent / "evil.jpg").exists()


def test_a_folder_behind_a_link_gives_its_files_back(data, problems, tmp_path):
    before = tree(data)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away", target_is_directory=True)
    moved = remove_files(problems, tmp_path / "link" / "removed")
    assert moved.paths
    restore_files(tmp_path / "link" / "removed")
    assert tree(data) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a log of removed files"),
        ('{"format": "featx-removed", "format_version": 99, "root": "../data"}\n', "has format version 99"),
        ('{"format": "featx-removed", "format_version": 1, "root": "../gone"}\n', "but this folder does not exist"),
    ],
)
def test_a_log_that_is_none_is_refused(data, text, message):
    removed = data.with_name("data-removed")
    removed.mkdir()
    (removed / LOG_NAME).write_text(text)
    with pytest.raises(FeatxError, match=message):
        restore_files(data)


def test_files_that_a_table_names_or_an_archive_holds_are_not_moved(data, tmp_path):
    rows = [
        ("train/sea/sea.0.jpg", "sea"),
        ("train/sea/copy of line\nbreak.jpg", "sea"),
        ("train/wood/wood.0.jpg", "wood"),
    ]
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "tar", data))
    for where, message in ((ImageFolders(data, labels=rows), "table of labels"), (archive, "a folder on this machine")):
        found = find_problems(where, kinds="copy", cache_dir=tmp_path / "cache")
        assert len(found.to_remove) == (1 if where is not archive else len(WEIRD))
        with pytest.raises(FeatxError, match=message):
            remove_files(found)


def test_only_found_problems_are_taken(data):
    with pytest.raises(FeatxError, match="needs the result of find_problems"):
        remove_files([data])
