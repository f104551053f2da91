import errno
import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from featx.dataset.kaggle import unpack as module
from featx.dataset.kaggle.fetch import sort_by_prefix
from featx.dataset.kaggle.unpack import unpack
from featx.errors import FeatxError
from featx.storage.member_names import ArchiveError
from tests.dataset.kaggle.kaggle_server import zipped


@pytest.fixture
def write(tmp_path):
    """Write a zip file, from its bytes or its files, and return its path."""

    def write(content) -> Path:
        path = tmp_path / "archive.zip"
        path.write_bytes(content if isinstance(content, bytes) else zipped(content))
        return path

    return write


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def assert_refused(archive: Path, match: str) -> None:
    folder = archive.parent / "in" / "out"
    folder.parent.mkdir(exist_ok=True)
    with pytest.raises(ArchiveError, match=match):
        unpack(archive, folder)
    assert names_in(archive.parent) == {"archive.zip"}
    assert not folder.exists()


def test_files_are_unpacked_with_their_bytes(write, tmp_path):
    files = {"train/cat/0.jpg": os.urandom(3_000_000), "train/dog/ä 1.jpg": b"dog", "empty.txt": b""}
    assert unpack(write(zipped(files, zipfile.ZIP_DEFLATED)), tmp_path / "out") == []
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names_in(tmp_path / "out")} == files


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "//evil", "C:/evil", "c:evil", "..\\evil", "a\\..\\..\\evil", "\\evil", "../"],
)
def test_an_entry_that_leads_out_of_the_folder_is_refused_with_all_the_others(write, name):
    assert_refused(write({"good.jpg": b"good", name: b"evil"}), "leads out of its folder")


def test_backslashes_separate_folders_and_macos_leaves_nothing(write, tmp_path):
    files = {"a\\": b"", "a\\b.jpg": b"1", "./c//d.jpg": b"2", "__MACOSX/._d.jpg": b"3"}
    unpack(write(files), tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a/b.jpg", "c/d.jpg"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_left_out_and_named(write, tmp_path, kind):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        special = zipfile.ZipInfo("passwords\n")
        special.external_attr = (kind | 0o777) << 16
        zip_file.writestr(special, "/etc/passwd")
        zip_file.writestr("good.jpg", b"good")
    (warning,) = unpack(write(buffer.getvalue()), tmp_path / "out")
    assert warning == r"Left out because they are not ordinary files: 1, such as passwords\n."
    assert names_in(tmp_path / "out") == {"good.jpg"}


def test_nothing_unpacked_can_be_run(write, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        entry = zipfile.ZipInfo("run.sh")
        entry.external_attr = (stat.S_IFREG | 0o4777) << 16
        zip_file.writestr(entry, "#!/bin/sh\n")
    unpack(write(buffer.getvalue()), tmp_path / "out")
    assert not (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_last_of_two_files_of_one_name_stays(write, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        zip_file.writestr("a.jpg", b"first")
        zip_file.writestr("a.jpg", b"second")
    unpack(write(buffer.getvalue()), tmp_path / "out")
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"second"


def test_a_file_that_would_be_a_folder_too_is_refused(write):
    assert_refused(write({"x": b"file", "x/y.jpg": b"in it"}), "both a file and a folder")
    assert_refused(write({"x/y.jpg": b"in it", "x": b"file"}), "both a file and a folder")


# Broken and false


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Return a zip file with bytes replaced at an offset from its first record of this kind."""
    at = content.index(signature) + offset
    return content[:at] + value + content[at + len(value) :]


GOOD = zipped({"a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000}, zipfile.ZIP_DEFLATED)
CENTRAL = b"PK\1\2"
BAD = {
    "no zip": b"<html>not found</html>",
    "empty": b"",
    "cut": GOOD[: len(GOOD) // 2],
    "headless": GOOD[60:],
    "wrong checksum": patched(GOOD, CENTRAL, 16, b"\0\0\0\0"),
    "unknown method": patched(GOOD, CENTRAL, 10, struct.pack("<H", 97)),
    "broken stream": patched(GOOD, b"a.jpg", 5, b"\xff\xff\xff\xff"),
    "smaller than it is": patched(GOOD, CENTRAL, 24, struct.pack("<I", 10)),
    "larger than it is": patched(GOOD, CENTRAL, 24, struct.pack("<I", 5000)),
    "password": patched(GOOD, CENTRAL, 8, struct.pack("<H", 1)),
    "names in no code": patched(patched(GOOD, CENTRAL, 8, struct.pack("<H", 0x800)), CENTRAL, 46, b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_is_refused_and_leaves_nothing(write, kind):
    assert_refused(write(BAD[kind]), "protected by a password" if kind == "password" else "broken|size")


def test_any_changed_byte_gives_the_same_files_or_an_error(write, tmp_path):
    """One that changes a name changes a name; no content is ever wrong."""
    for at in range(len(GOOD)):
        changed = GOOD[:at] + bytes([GOOD[at] ^ 0x41]) + GOOD[at + 1 :]
        folder = tmp_path / f"{at}"
        try:
            unpack(write(changed), folder)
        except FeatxError:
            assert not folder.exists()
        else:
            contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
            assert set(contents) <= {b"a" * 1000, b"b" * 1000}
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_bomb_is_refused_before_anything_is_written(write, monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_ALLOWED_BYTES", 1_000_000)
    bomb = zipped({"zeros": bytes(20_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) * module.MAX_RATIO < 20_000_000
    monkeypatch.setattr(module, "_write", None)
    assert_refused(write(bomb), "19.1 MiB")


def test_too_many_files_are_refused(write, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 3)
    monkeypatch.setattr(module._Allowance, "n_files", 3)
    monkeypatch.setattr(module._Allowance.__init__, "__defaults__", (3,))
    assert_refused(write({f"{i}.jpg": b"" for i in range(4)}), "more than 3 files")


def test_a_name_that_the_disk_refuses_does_not_make_the_archive_broken(write, monkeypatch, tmp_path):
    archive = write({"what?.jpg": b"a"})

    def refuse(path: Path, mode: str) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", path)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="Invalid argument"):  # which says so, and keeps what was downloaded
        unpack(archive, tmp_path / "out")


def test_a_name_that_is_too_long_for_the_disk_is_named(write, tmp_path):
    archive = write({"a.jpg": b"a", f"long{'x' * 300}.jpg": b"b"})
    with pytest.raises(FeatxError, match=r"longer than this file system allows: longxxx.*featx reads archives without"):
        unpack(archive, tmp_path / "out")
    assert names_in(tmp_path) == {"archive.zip"}


def test_a_full_disk_is_seen_before_anything_is_written(write, monkeypatch, tmp_path):
    archive = write({"a.jpg": b"a" * 1000})
    free = module.check_space.__globals__["RESERVE_BYTES"] + 999
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    with pytest.raises(FeatxError, match="1000 B.*make room"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Zip files in zip files


def test_nested_archives_become_folders_and_are_gone(write, tmp_path):
    files = {
        "train.zip": zipped({"train/cat.0.jpg": b"cat", "__MACOSX/train/x": b""}),
        "test1.ZIP": zipped({"1.jpg": b"1", "2.jpg": b"2"}),
        "deep/er.zip": zipped({"other/a.zip": zipped({"x.jpg": b"x"})}),
        "labels.csv": "a,b",
    }
    assert unpack(write(files), tmp_path / "out") == []
    names = {"train/cat.0.jpg", "test1/1.jpg", "test1/2.jpg", "deep/er/other/a/x.jpg", "labels.csv"}
    assert names_in(tmp_path / "out") == names


def test_nested_archives_are_unpacked_three_deep_and_no_further(write, tmp_path):
    content = zipped({"x.jpg": b"x"})
    for number in (5, 4, 3, 2, 1):
        content = zipped({f"{number}.zip": content})
    (warning,) = unpack(write(content), tmp_path / "out")
    assert "nested more than 3 deep" in warning
    assert names_in(tmp_path / "out") == {"1/2/3/4.zip"}


def test_a_nested_archive_that_is_bad_stays_packed_and_is_named(write, tmp_path):
    evil = {"ok.jpg": b"ok", "../../evil.jpg": b"evil"}
    files = {"good.jpg": b"", "a.zip": zipped(evil), "b.zip": b"PK no zip", "c.zip": zipped({"c": b"1"}), "c/d": b"2"}
    warnings = unpack(write(files), tmp_path / "out")
    assert names_in(tmp_path / "out") == {"good.jpg", "a.zip", "b.zip", "c.zip", "c/d"}
    assert [warning.split(",")[0] for warning in warnings] == [f"Left packed: {name}.zip" for name in "abc"]
    assert not (tmp_path / "evil.jpg").exists()


def test_nested_bombs_share_one_allowance(write, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_ALLOWED_BYTES", 1_500_000)
    monkeypatch.setattr(module, "MAX_RATIO", 1)
    inner = zipped({"zeros": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    (warning,) = unpack(write({"a.zip": inner, "b.zip": inner}), tmp_path / "out")
    assert warning.startswith("Left packed: b.zip")
    assert names_in(tmp_path / "out") == {"a/zeros", "b.zip"}


# Classes in the names of files


@pytest.mark.parametrize(
    ("names", "sorted_names"),
    [
        (["cat.0.jpg", "dog.0.JPG", "notes.txt"], ["cat/cat.0.jpg", "dog/dog.0.JPG", "notes.txt"]),
        (["cat.0.jpg", "cat.1.jpg"], None),
        (["cat.0.jpg", "dog.0.jpg", "1.jpg"], None),
        (["1.jpg", "2.jpg"], None),
        (["cat.0.jpg", "dog.jpg"], None),
        (["cat_0.jpg", "dog_0.jpg"], None),
        (["cat.0.jpg", "dog.0.jpg", "dog"], None),
        (["cat.0.jpg", "dog.0.jpg", "cat/old.jpg"], None),
        (["cat.0.jpg", "dog.0.jpg", "test/1.jpg"], ["cat/cat.0.jpg", "dog/dog.0.jpg", "test/1.jpg"]),
    ],
)
def test_images_are_sorted_only_where_every_name_tells_a_class(tmp_path, names, sorted_names):
    for name in names:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    found = sort_by_prefix(tmp_path)
    assert names_in(tmp_path / "train") == set(sorted_names or names)
    assert found == ({tmp_path / "train": ["cat", "dog"]} if sorted_names else {})
