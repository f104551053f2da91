"""An archive is the same data set whether featx unpacks it or reads it where it is, whoever has packed it."""

import io
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import featx as library
from featx.dataset.image_dataset import ImageDataset
from featx.dataset.kaggle.unpack import unpack
from featx.dataset.scanning import scan
from featx.errors import DatasetError, FeatxError
from featx.report.html.pictures import Thumbnails
from featx.storage.member_names import ArchiveError, text_encoding
from featx.storage.paths import as_data
from tests.conftest import write_photos
from tests.storage.archives import Member, zip_bytes

UTF8_FLAG = 0x800
#: `表` ends in the byte of a backslash in Shift-JIS; `模` in GBK is `ģ` in UTF-8.
CLASSES = ("表", "海")
WORDS = ("--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg")


def unicode_path(raw: bytes, name: str, version: int = 1) -> bytes:
    """Return Info-ZIP's extra field with a member's name in UTF-8."""
    text = name.encode()
    return struct.pack("<HHBI", 0x7075, 5 + len(text), version, zlib.crc32(raw)) + text


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("folder") / "photos", n_train=3, n_test=2, classes=CLASSES)


@pytest.fixture(scope="module")
def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


@pytest.fixture
def seen(tmp_path) -> Callable[..., ImageDataset]:
    """Return the data set in an archive, having seen that it is the one that unpacking gives; a warning is in both."""

    def seen(path: Path, encoding: str | None = None) -> ImageDataset:
        data = scan(as_data(path, encoding), tmp_path / "cache")
        out = tmp_path / "out"
        if path.suffix == ".zip":
            warnings = unpack(path, out, zip_encoding=encoding)
            assert set(warnings) <= set(data.warnings)
        else:
            out.mkdir()
            subprocess.run(["tar", "-xf", path, "-C", out], check=True)
        unpacked = scan(out, tmp_path / "cache")
        assert data.class_names == unpacked.class_names
        assert data.paths == unpacked.paths
        assert data.digest == unpacked.digest
        assert not data.unreadable
        shutil.rmtree(out)
        return data

    return seen


@pytest.fixture
def write(tmp_path) -> Callable[[Sequence[Member]], Path]:
    def write(members: Sequence[Member]) -> Path:
        (tmp_path / "photos.zip").write_bytes(zip_bytes(members))
        return tmp_path / "photos.zip"

    return write


# Ways to write a path


def folders_of(names: Sequence[str]) -> Iterator[str]:
    yield from sorted({f"{parent}/" for name in names for parent in map(str, Path(name).parents) if parent != "."})


WAYS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "plain": dict,
    "with a dot": lambda files: {f"./{name}": content for name, content in files.items()},
    "the folder itself": lambda files: {"./": b""} | {f"./{name}": content for name, content in files.items()},
    "backslashes": lambda files: {name.replace("/", "\\"): content for name, content in files.items()},
    "absolute": lambda files: {f"/{name}": content for name, content in files.items()},
    "of a drive": lambda files: {f"C:\\{name}".replace("/", "\\"): content for name, content in files.items()},
    "empty parts": lambda files: {name.replace("/", "//"): content for name, content in files.items()},
    "folders": lambda files: dict.fromkeys(folders_of(list(files)), b"") | files,
    "in a folder": lambda files: {f"photos/{name}": content for name, content in files.items()},
    "macOS": lambda files: files | {"__MACOSX/train/._x.jpg": b"1", "train/._x.jpg": b"2", ".DS_Store": b"3"},
    "replaced": lambda files: {f"./{next(iter(files))}": b"old"} | files,
    "more than one dot": lambda files: {f"././{name}".replace("/", "/./"): content for name, content in files.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_zip_file_is_the_folder_in_it_however_its_paths_are_written(folder, files, write, seen, tmp_path, way):
    archive = write([Member(name.encode(), content, UTF8_FLAG) for name, content in WAYS[way](files).items()])
    data = seen(archive)
    assert data.digest == scan(folder, tmp_path / "cache").digest
    replaced = [f"Left out, because a later file has the same name: 1, such as {next(iter(files))}."]
    assert data.warnings == tuple(replaced if way == "replaced" else ())


@pytest.mark.parametrize("way", [way for way in WAYS if way != "of a drive"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_file_is_the_folder_in_it_however_its_paths_are_written(folder, files, tmp_path, way, form):
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w", format=form) as tar_file:
        for name, content in WAYS[way](files).items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(content)
            tar_file.addfile(entry, io.BytesIO(content))
    data = scan(archive, tmp_path / "cache")
    assert data.digest == scan(folder, tmp_path / "cache").digest
    assert not data.unreadable


def test_blanks_and_dots_at_the_end_of_a_name_belong_to_it(files, write, seen):
    members = [Member(name.replace("海/", "海 ./").encode(), content, UTF8_FLAG) for name, content in files.items()]
    assert seen(write(members)).class_names == ("海 .", "表")


def test_an_empty_class_folder_is_there_by_both_ways(files, write, seen):
    data = seen(write([Member(b"train/nothing/", b""), *(Member(n.encode(), c, UTF8_FLAG) for n, c in files.items())]))
    assert data.class_names == ("海", "表")


def test_names_of_macos_keep_their_form(files, write, seen, tmp_path):
    """It writes UTF-8, does not say so, and takes letters and accents apart."""
    shown = {name.replace("海", "café"): content for name, content in files.items()}
    members = [Member(unicodedata.normalize("NFD", name).encode(), content) for name, content in shown.items()]
    data = seen(write(members))
    assert data.class_names == ("cafe\u0301", "表")
    assert data.warnings == ()


# Encodings


def encoded(files: dict[str, bytes], encoding: str) -> list[Member]:
    return [Member(name.encode(encoding), content) for name, content in files.items()]


def test_utf_8_is_found_out(folder, files, write, seen, tmp_path):
    data = seen(write(encoded(files, "utf-8")))
    assert data.digest == scan(folder, tmp_path / "cache").digest
    assert data.warnings == ()


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "euc_jp", "big5"])
def test_a_zip_file_of_any_encoding_is_the_folder_in_it(folder, files, write, seen, tmp_path, encoding):
    archive = write(encoded(files, encoding))
    data = seen(archive, encoding)
    assert data.digest == scan(folder, tmp_path / "cache").digest
    assert data.warnings == ()
    assert Thumbnails(as_data(archive, encoding)).uri(data.paths[0])


def test_names_in_doubt_are_read_as_the_format_says_and_told(files, write, seen):
    western = {name.replace("表", "Ärger").replace("海", "naïve"): content for name, content in files.items()}
    data = seen(write(encoded(western, "cp437")))
    assert data.class_names == ("naïve", "Ärger")
    (warning,) = data.warnings
    assert "does not say the encoding of 10 of its names" in warning
    assert "such as test/naïve/naïve.0.jpg, read as cp437:" in warning
    assert "--zip-encoding" in warning


def test_one_name_in_doubt_is_enough_to_doubt_all(files, write, seen):
    """A word of GBK may be UTF-8 by chance: `模` would be `ģ`, and nobody would know."""
    shown = {name.replace("海", "模"): content for name, content in files.items()}
    archive = write(encoded(shown, "gbk"))
    assert "模".encode("gbk").decode("utf-8") == "ģ"
    (warning,) = seen(archive).warnings
    assert "10 of its names" in warning
    assert seen(archive, "gbk").class_names == ("模", "表")


@pytest.mark.parametrize("name", ["chaton/café", "chat à poil/maïs", "кот/пёс", "ネコ/犬", "cafe\u0301/e"])
def test_words_in_utf_8_are_not_doubted(files, write, seen, name):
    western = {path.replace("表", "b").replace("海", name): content for path, content in files.items()}
    assert seen(write(encoded(western, "utf-8"))).warnings == ()


def test_a_single_letter_that_is_in_utf_8_by_chance_is_told(files, write, seen):
    shown = {name.replace("表", "dog").replace("海", "猫"): content for name, content in files.items()}
    archive = write(encoded(shown, "gbk"))
    (warning,) = seen(archive).warnings
    assert "5 of its names, such as test/è/è.0.jpg, read as utf-8: if they look wrong" in warning
    data = seen(archive, "gbk")
    assert (data.class_names, data.warnings) == (("dog", "猫"), ())


def test_names_in_doubt_are_told_before_an_error_that_may_come_of_them(files, write, tmp_path, caplog):
    members = [Member(name.split("/", 1)[1].encode("gbk"), content) for name, content in files.items() if "海" in name]
    with pytest.raises(DatasetError):
        scan(write(members), tmp_path / "cache")
    assert f"{len(members)} of its names, such as ║ú/║ú.0.jpg" in caplog.text


def test_names_that_say_their_encoding_are_in_that(folder, files, write, seen, tmp_path):
    members = []
    for number, (name, content) in enumerate(files.items()):
        raw = name.encode("gbk")
        extra = struct.pack("<HHI", 0x5455, 4, 0) + unicode_path(raw, name)  # after a field of another kind
        ways = [Member(name.encode(), content, UTF8_FLAG), Member(raw, content, 0, extra)]
        members.append(ways[number % 2])
    data = seen(write(members), "cp866")
    assert data.digest == scan(folder, tmp_path / "cache").digest


@pytest.mark.parametrize("kind", ["renamed", "of a later version"])
def test_a_unicode_name_of_another_name_does_not_count(files, write, seen, kind):
    """As it is where a program that does not know the field has renamed the member."""
    old = "train/old.jpg"
    members = [
        Member(
            name.encode("gbk"),
            content,
            0,
            unicode_path(b"other" if kind == "renamed" else name.encode("gbk"), old, 1 if kind == "renamed" else 2),
        )
        for name, content in files.items()
    ]
    assert seen(write(members), "gbk").class_names == ("海", "表")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_file_of_any_encoding_is_the_folder_in_it(folder, files, seen, tmp_path, form):
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w", format=form, encoding="gbk") as tar_file:
        tar_file.add(folder, ".")
    data = scan(as_data(archive, "gbk"), tmp_path / "cache")
    assert data.digest == scan(folder, tmp_path / "cache").digest
    in_doubt = seen(archive)  # bytes as tar leaves them, too
    assert {os.fsencode(name) for name in in_doubt.class_names} == {name.encode("gbk") for name in CLASSES}
    (warning,) = (warning for warning in in_doubt.warnings if "encoding" in warning)
    assert r"of its names, such as ./test/\xba\xa3" in warning or r"such as ./test/\xb1\xed" in warning
    assert "--zip-encoding" in warning


def test_a_tar_file_that_says_its_encoding_needs_no_option(folder, seen, tmp_path):
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar_file:
        tar_file.add(folder, ".")
    assert scan(as_data(archive, "cp866"), tmp_path / "cache").digest == scan(folder, tmp_path / "cache").digest


def test_a_wrong_encoding_is_refused_in_one_sentence(files, write, tmp_path):
    archive = write(encoded(files, "gbk"))
    with pytest.raises(DatasetError, match=r"the name test/\\xba\\xa3.*not valid utf-8; choose another") as failure:
        scan(as_data(archive, "utf-8"), tmp_path / "cache")
    assert str(failure.value).count("photos.zip") == 1
    with pytest.raises(ArchiveError, match="not valid utf-8"):
        unpack(archive, tmp_path / "out", zip_encoding="utf-8")


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "utf-16", "cp037", "", "g\nbk", "\0"])
def test_an_encoding_that_no_name_can_be_in_is_refused(name):
    with pytest.raises(FeatxError, match="such as gbk"):
        text_encoding(name)


@pytest.mark.parametrize("name", ["gbk", "GB18030", "Shift-JIS", "cp932", "euc_kr", "big5", "cp437", "latin1", "utf8"])
def test_encodings_of_names_are_known(name):
    assert text_encoding(name) == name


def test_every_command_takes_the_encoding(featx, files, write, tmp_path, monkeypatch):
    archive, cache = write(encoded(files, "gbk")), tmp_path / "cache"
    plain = featx("extract", archive, *WORDS, "--cache-dir", tmp_path / "other")
    assert "10 of its names" in plain.stderr
    result = featx("extract", archive, *WORDS, "--cache-dir", cache, "--zip-encoding", "gbk")
    assert "encoding" not in result.stderr
    monkeypatch.setenv("FEATX_ZIP_ENCODING", "gbk")
    featx("train-top", archive, *WORDS, "--cache-dir", cache, "--run-dir", tmp_path / "run", "--epochs", 1)
    predicted = featx("predict", tmp_path / "run", archive, "--cache-dir", cache, "--format", "csv")
    assert "test/海/海.0.jpg" in predicted.stdout
    missing = featx("train-top", archive, *WORDS, "--pooling", "max", "--cache-dir", cache, exit_code=2)
    assert "--zip-encoding gbk" in missing.output
    monkeypatch.setenv("FEATX_ZIP_ENCODING", "klingon")
    assert "FEATX_ZIP_ENCODING" in featx("extract", archive, exit_code=2).output


def test_another_process_reads_names_in_the_same_encoding(files, write):
    path = pickle.loads(pickle.dumps(as_data(write(encoded(files, "gbk")), "gbk")))
    assert (path / "test/海/海.0.jpg").read_bytes() == files["test/海/海.0.jpg"]


def test_an_encoding_means_nothing_for_a_folder(folder, tmp_path):
    assert as_data(folder, "gbk") == folder
    assert library.as_data(folder) == folder


# Links


def test_links_in_a_tar_file_are_files_if_they_stay_in_it(folder, files, tmp_path):
    links = tmp_path / "photos"
    shutil.copytree(folder, links)
    first, second, third, *_ = sorted(links.glob("train/*/*.jpg"))
    os.link(first, first.with_name("a hard link.jpg"))
    (second.parent / "a link.jpg").symlink_to(second.name)
    (links / "train" / "海" / "a link to a link.jpg").symlink_to(Path("..", second.parent.name, "a link.jpg"))
    expected = scan(links, tmp_path / "cache")
    assert expected.n_images == len(files) + 3
    for target in ("/etc/passwd", "../../../outside.jpg", "loop.jpg", "nothing.jpg"):
        (third.parent / "loop.jpg").unlink(missing_ok=True)
        (third.parent / "loop.jpg").symlink_to(target)
        (tmp_path / "outside.jpg").write_bytes(b"outside")
        archive = tmp_path / "photos.tar"
        subprocess.run(["tar", "-cf", archive, "-C", links, "."], check=True)
        data = scan(archive, tmp_path / "cache")
        assert data.digest == expected.digest
        (warning,) = (warning for warning in data.warnings if "ordinary" in warning)
        assert warning.startswith("Left out because they are not ordinary files: 1, such as ./train/")
        assert warning.endswith("/loop.jpg.")


def test_links_in_a_zip_file_are_left_out_by_both_ways(files, tmp_path, seen):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as zip_file:
        for name, content in files.items():
            zip_file.writestr(name, content)
        link = zipfile.ZipInfo("train/海/link.jpg")
        link.external_attr = 0o120777 << 16
        zip_file.writestr(link, "/etc/passwd")
    assert seen(archive).warnings == ("Left out because they are not ordinary files: 1, such as train/海/link.jpg.",)


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "train/../../evil.jpg", "train/海/../../../evil.jpg"])
def test_a_tar_file_that_leads_out_of_its_folder_is_refused(folder, tmp_path, name):
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tar_file:
        tar_file.add(folder, ".")
        tar_file.addfile(tarfile.TarInfo(name))
    with pytest.raises(DatasetError, match=r"evil\.jpg in it leads out of its folder"):
        scan(archive, tmp_path / "cache")


@pytest.mark.parametrize("names", [("train/x.jpg", "train/x.jpg/y.jpg"), ("train/x.jpg/y.jpg", "train/x.jpg")])
def test_a_file_that_is_a_folder_too_is_refused(write, tmp_path, names):
    archive = write([Member(name.encode(), b"1") for name in names])
    with pytest.raises(DatasetError, match=r"train/x\.jpg in it is both a file and a folder"):
        scan(archive, tmp_path / "cache")


def test_a_zip_file_with_a_password_is_refused_as_a_whole(write, files, tmp_path):
    archive = write([Member(name.encode(), content, UTF8_FLAG | 1) for name, content in files.items()])
    with pytest.raises(DatasetError, match="protected by a password"):
        scan(archive, tmp_path / "cache")


# Archives of other programs

PROGRAMS = {
    "zip": ["zip", "-qr", "photos.zip", "."],
    "zip without folders": ["zip", "-qrD", "photos.zip", "train", "test"],
    "7z": ["7z", "a", "-bd", "photos.zip", "train", "test"],
    "7z in the local encoding": ["7z", "a", "-bd", "-mcl", "photos.zip", "train", "test"],
    "bsdtar to zip": ["bsdtar", "-cf", "photos.zip", "--format", "zip", "train", "test"],
    "tar": ["tar", "-cf", "photos.tar", "."],
    "tar with whole paths": ["tar", "-cPf", "photos.tar", "--transform", "s,^,/,", "train", "test"],
    "tar of the old format": ["tar", "-cf", "photos.tar", "--format", "v7", "train", "test"],
    "pax": ["tar", "-cf", "photos.tar", "--format", "pax", "train", "test"],
    "bsdtar": ["bsdtar", "-cf", "photos.tar", "train", "test"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_archives_of_other_programs_are_the_folder_in_them(folder, files, seen, tmp_path, program):
    words = PROGRAMS[program]
    if not shutil.which(words[0]):
        pytest.skip(f"there is no {words[0]} here")
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    subprocess.run(words, cwd=work, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    (archive,) = work.glob("photos.*")
    data = seen(archive.replace(tmp_path / archive.name))
    assert data.digest == scan(folder, tmp_path / "cache").digest
    assert data.warnings == ()


def test_thousands_of_links_that_lead_to_links_are_soon_told(folder, files, tmp_path):
    """Fsspec follows each to its end, through all members: it took hours."""
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tar_file:
        tar_file.add(folder, ".")
        for number in range(3000):
            link = tarfile.TarInfo(f"./train/海/l{number}.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, f"l{number + 1}.jpg"
            tar_file.addfile(link)
    started_s = time.process_time()
    data = scan(archive, tmp_path / "cache")
    assert time.process_time() - started_s < 10
    assert data.n_images == len(files)
    (warning,) = (warning for warning in data.warnings if "ordinary" in warning)
    assert warning.startswith("Left out because they are not ordinary files: 3,000, such as ./train/海/l0.jpg")
