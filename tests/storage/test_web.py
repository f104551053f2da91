"""Web servers that never end: bounds of memory and time, and Ctrl-C at once."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fsspec.implementations.http import HTTPFileSystem

import featx.dataset.digests as digests_module
from featx.dataset.folders import files_of
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from featx.images import read_file
from featx.storage import remote_path, web
from featx.storage.paths import as_data, as_storage_path
from tests.chaos.test_full_disk import small_disk
from tests.conftest import write_photos
from tests.storage.hostile_web import HostileWeb, hostile_web

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    with hostile_web() as running:
        yield running


@pytest.fixture
def photos(server: HostileWeb, tmp_path: Path) -> str:
    """The address of sound photos."""
    folder = write_photos(tmp_path / "photos", n_train=4, n_test=2)
    for path in folder.rglob("*.jpg"):
        server.files[f"/photos/{path.relative_to(folder)}"] = path.read_bytes()
    return server.list_files()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    HTTPFileSystem.clear_instance_cache()  # or another test's client, with its time limits, would be used


def test_images_are_read_in_one_request_each_whatever_their_size(server, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_path, "_BLOCK_BYTES", 100)
    dataset = scan(photos, tmp_path / "cache")
    assert dataset.n_images == 12
    assert len([request for request in server.asked if request.startswith("GET") and ".jpg" in request]) == 12


def test_one_image_of_the_web_can_be_named(server, photos, tmp_path):
    address = f"{photos}/train/sea/sea.0.jpg"
    (path,) = files_of(as_data(address))
    assert str(path) == address
    assert read_file(path) == server.files["/photos/train/sea/sea.0.jpg"]


def test_an_endless_image_is_skipped_and_takes_no_more_than_its_limit(server, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(digests_module, "MAX_FILE_MIB", 4)
    server.endless.add("/photos/train/sea/endless.jpg")
    dataset = scan(server.list_files(), tmp_path / "cache")
    assert dataset.n_images == 12
    assert [(path.rpartition("/")[2], reason) for path, reason in dataset.unreadable] == [
        ("endless.jpg", "larger than 4 MiB")
    ]
    assert server.n_sent < 64 << 20  # what was on its way


def test_an_endless_image_that_is_read_at_once_takes_no_more_than_was_asked_for(server):
    server.endless.add("/endless.jpg")
    path = as_storage_path(f"http://{server.host}/endless.jpg")
    assert path.read_up_to(1000) == bytes(1000)
    assert server.n_sent < 64 << 20


def test_an_endless_file_is_not_read_whole(server, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", 1 << 20)
    server.endless.add("/endless.json")
    with pytest.raises(OSError, match="longer than 1 MiB"):
        as_storage_path(f"http://{server.host}/endless.json").read_bytes()


def test_a_server_that_does_not_send_parts_is_not_believed(server):
    server.files["/x.jpg"] = bytes(range(256)) * 10
    path = as_storage_path(f"http://{server.host}/x.jpg")
    assert path.read_up_to(100) == bytes(range(100))
    with pytest.raises(OSError, match="does not send parts"):
        path.read_range(500, 10)


def test_an_endless_page_is_one_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "MOST_PAGE_BYTES", 1 << 20)
    server.pages["/photos"] = "endless"
    server.endless.add("/photos")
    with pytest.raises(FeatxError, match="cannot be read: the server's answer is longer than 1 MiB"):
        scan(f"http://{server.host}/photos", tmp_path / "cache")
    assert server.n_sent < 64 << 20


def test_folders_in_folders_without_end_are_one_sentence(server, tmp_path):
    server.deep = True
    with pytest.raises(FeatxError, match="folders in one another; name a folder that has only the images"):
        scan(f"http://{server.host}/photos", tmp_path / "cache")
    assert len(server.asked) <= remote_path.MAX_DEPTH + 2


def test_more_files_than_any_collection_has_are_one_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_path, "MAX_ENTRIES", 1000)
    server.pages["/photos"] = "".join(f'<a href="{number}.jpg">x</a>' for number in range(1500))
    with pytest.raises(FeatxError, match="more than 1,000 files"):
        scan(f"http://{server.host}/photos", tmp_path / "cache")


def test_no_folder_for_temporary_files_is_not_said_to_be_a_missing_archive(server, tmp_path, monkeypatch):
    server.files["/photos.tar"] = bytes(10_240)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FeatxError, match="A temporary file cannot be made: No such file or directory.*TMPDIR"):
        scan(f"http://{server.host}/photos.tar", tmp_path / "cache")


def test_a_copy_of_an_endless_tar_file_leaves_room_on_the_disk(server, tmp_path, monkeypatch):
    server.endless.add("/photos.tar")
    with small_disk(tmp_path / "disk", 80 << 20) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(FeatxError, match=r"does not fit: only .* are left on the disk of .*TMPDIR"):
            scan(f"http://{server.host}/photos.tar", tmp_path / "cache")
        assert shutil.disk_usage(disk).free > 79 << 20


@pytest.mark.parametrize(
    "page", ["<a " + " " * 300_000, "<a " * 100_000, "<a x" + " x" * 200_000, "<a href='" * 60_000]
)
def test_no_page_keeps_the_search_for_links_busy(server, page):
    """What fsspec does by itself takes the cube of the time, and would hold Python's lock."""
    server.pages["/photos"] = f"{page}\n<a href='sea.jpg'>sea</a>"
    (path,) = files_of(as_data(f"http://{server.host}/photos"))
    assert path.name == "sea.jpg"


def test_a_folder_that_cannot_be_listed_is_not_left_out(server, photos, tmp_path):
    del server.pages["/photos/train/wood"]
    with pytest.raises(FeatxError, match=r"There is no folder|cannot be read"):
        scan(photos, tmp_path / "cache")


def test_a_server_that_is_silent_is_given_up(server, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "IDLE_S", 0.5)
    server.stalled.add("/photos/train/sea/stalled.jpg")
    server.files["/photos/train/sea/half.jpg"] = bytes(100_000)
    server.half.add("/photos/train/sea/half.jpg")
    dataset = scan(server.list_files(), tmp_path / "cache")
    assert dataset.n_images == 12
    assert {path.rpartition("/")[2]: reason.split(" (")[0] for path, reason in dataset.unreadable} == {
        "stalled.jpg": "no connection",
        "half.jpg": "no connection",
    }


#: When there is nothing else to wait for: while images are digested, and while they are decoded.
EXTRACT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from featx.__main__ import run
sys.argv = ["featx", "extract", *sys.argv[1:], "--weights", "random", "--image-size", "32", "--layer", "block1_pool"]
run()
"""


@pytest.mark.parametrize("when", ["listing", "digest", "decode"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_wait_for_a_silent_server(server, photos, cache, when, number):
    stalled = "/photos/train/wood" if when == "listing" else "/photos/train/wood/wood.3.jpg"
    if when == "decode":  # each image is asked for twice: for its digest, then for its pixels

        class Stalled(set[str]):
            def __contains__(self, path: object) -> bool:
                return path == stalled and server.asked.count(f"GET {stalled}") > 1

        server.stalled = Stalled()
    else:
        server.stalled.add(stalled)
    process = subprocess.Popen(
        [sys.executable, "-c", EXTRACT, photos, "--cache-dir", str(cache), "--quiet"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.is_stalled.wait(300), process.communicate()
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)  # half of what a silent server is given
    assert process.returncode == 128 + number
    assert errors == "featx: stopped; finished work is kept. Run it again to resume.\n"
