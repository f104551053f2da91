"""`featx fetch` against a server on loopback that speaks Kaggle's protocol."""

import functools
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import kagglesdk.kaggle_env
import numpy as np
import pytest
from PIL import Image

from featx.dataset.kaggle import credentials, demo, demo_data, download, ranges
from featx.dataset.kaggle.fetch import MARK, fetch_data, fetch_part
from featx.dataset.sample import is_sample
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from tests.chaos.test_full_disk import small_disk
from tests.dataset.kaggle.kaggle_server import COMPETITION, DATASET, SIGNATURE, basic, bearer, command, serving, zipped
from tests.storage.archives import Member, zip_bytes

PETS = "tongpython/cat-and-dog"
DOGS_VS_CATS = "competition:dogs-vs-cats"
TOKEN = "KGAT_5ec7e7a0b1c2d3"
KEY = "0123456789abcdef5ec7e7"


def jpeg(*seed: int) -> bytes:
    """Return a JPEG file of noise; it does not shrink in a zip file."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


FILES = {
    f"{split}/{split}/{name}/{name}.{i}.jpg": jpeg(number, i, len(split))
    for split, n in (("training_set", 12), ("test_set", 4))
    for number, name in enumerate(("cats", "dogs"))
    for i in range(n)
}
ARCHIVE = zipped(FILES)
CUT = 2 * download._CHUNK_BYTES
PHOTOS = {f"{name}.{i}.jpg": jpeg(number, i) for number, name in enumerate(("cat", "dog")) for i in range(10)}
COMPETITION_ARCHIVE = zipped(
    {
        "train.zip": zipped({f"train/{name}": content for name, content in PHOTOS.items()}),
        "test1.zip": zipped({f"test1/{i}.jpg": jpeg(7, i) for i in range(1, 4)}),
        "sampleSubmission.csv": "id,label\n",
    }
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty home and working folder, and an environment without Kaggle."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def kaggle(here, monkeypatch):
    """Kaggle with a data set and a competition, the latter for those who sign in."""
    with serving() as server:
        server.archives = {PETS: ARCHIVE, f"{PETS}/versions/3": ARCHIVE, DOGS_VS_CATS: COMPETITION_ARCHIVE}
        server.private = {DOGS_VS_CATS}
        server.accepted = {bearer(TOKEN), basic("tong", KEY)}
        monkeypatch.setitem(kagglesdk.kaggle_env._env_to_endpoint, kagglesdk.kaggle_env.KaggleEnv.PROD, server.url)
        monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0))
        yield server


def content_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_fetched(folder: Path, files: dict[str, bytes] = FILES) -> None:
    """All is there, and nothing else is left beside it."""
    assert content_of(folder) == files
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def assert_error(result, *parts: str) -> None:
    """One sentence on standard error, without secrets."""
    assert result.stdout == ""
    assert result.stderr.startswith("featx: ")
    assert result.stderr.count("\n") == 1
    for secret in (TOKEN, KEY, SIGNATURE, "Traceback", "HTTPSConnectionPool"):
        assert secret not in result.stderr
    for part in parts:
        assert part in result.stderr


# What is fetched


def test_a_data_set_is_fetched_anonymously_and_can_be_scanned(kaggle, here, featx):
    result = featx("fetch", PETS)
    assert_fetched(here / "data")
    assert result.stdout.startswith(f"{PETS} is in data: 32 files, ")
    assert result.stdout.endswith(" Next: featx extract data\n")
    assert kaggle.authorizations("POST") == kaggle.authorizations("GET") == [""]
    (post,) = kaggle.asked("POST")
    assert post.path == DATASET
    assert (post.body["ownerSlug"], post.body["datasetSlug"]) == ("tongpython", "cat-and-dog")
    dataset = scan(here / "data", here / "cache")
    assert (dataset.n_train, dataset.n_test, dataset.class_names) == (24, 8, ("cats", "dogs"))
    assert dataset.warnings == ()


def test_a_version_of_a_data_set_is_asked_for_by_its_number(kaggle, here):
    fetch_data(f"{PETS}/versions/3", here / "data")
    assert [request.body["datasetVersionNumber"] for request in kaggle.asked("POST")] == [3]


def test_a_competition_is_sorted_into_classes_and_can_be_scanned(kaggle, here, featx, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    result = featx("fetch", DOGS_VS_CATS)
    assert "Sorted by their names, in train: cat, dog." in result.stderr
    assert [request.path for request in kaggle.asked("POST")] == [COMPETITION]
    expected = {f"train/{name[:3]}/{name}": content for name, content in PHOTOS.items()}
    expected |= {f"test1/{i}.jpg": jpeg(7, i) for i in range(1, 4)} | {"sampleSubmission.csv": b"id,label\n"}
    assert_fetched(here / "data", expected)
    dataset = scan(here / "data", here / "cache", test_fraction=0.3)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.n_images == 20
    assert any("test1" in warning for warning in dataset.warnings)


def test_a_second_call_asks_nobody_and_changes_nothing(kaggle, here, featx):
    featx("fetch", PETS)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    kaggle.seen.clear()
    result = featx("fetch", PETS)
    assert "data already; nothing was downloaded: 32 files" in result.stdout
    assert kaggle.seen == []
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
    (here / "data" / "mine.txt").write_text("a note of the user's own")
    assert fetch_data(PETS).was_there


@pytest.mark.parametrize("harm", ["remove", "shorten"])
def test_files_that_are_missing_or_changed_are_noticed_and_nothing_is_overwritten(kaggle, here, featx, harm):
    featx("fetch", PETS)
    victim = here / "data" / "test_set/test_set/cats/cats.0.jpg"
    if harm == "remove":
        victim.unlink()
    else:
        victim.write_bytes(b"short")
    before = content_of(here / "data")
    result = featx("fetch", PETS, exit_code=2)
    assert_error(result, "1 of the 32 files", "cats.0.jpg", "remove the folder")
    assert content_of(here / "data") == before


def test_a_folder_that_was_emptied_but_for_the_hidden_mark_is_filled_again(kaggle, here, featx):
    featx("fetch", PETS)
    subprocess.run("rm -rf data/*", shell=True, check=True)
    assert [path.name for path in (here / "data").iterdir()] == [MARK]
    featx("fetch", PETS)
    assert_fetched(here / "data")
    assert len(kaggle.asked("GET")) == 2


def test_somebody_elses_folder_is_left_alone(kaggle, here, featx):
    featx("fetch", PETS)
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    (here / "file").write_text("mine")
    (here / "marked").mkdir()
    (here / "marked" / MARK).write_text("[1]")
    (here / "marked" / "x").touch()
    before = content_of(here)
    for slug, folder in ((f"{PETS}/versions/3", "data"), (PETS, "mine"), (PETS, "file"), (PETS, "marked")):
        assert_error(featx("fetch", slug, "--to", folder, exit_code=2), folder, "--to")
    assert content_of(here) == before
    assert len(kaggle.seen) == 2


def test_an_empty_folder_a_link_and_the_working_folder_are_filled(kaggle, here, tmp_path, monkeypatch):
    (tmp_path / "large disk").mkdir()
    (here / "data").symlink_to(tmp_path / "large disk")
    fetch_data(PETS)
    assert content_of(tmp_path / "large disk") == FILES
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    fetch_data(PETS, Path())
    assert content_of(here / "empty") == FILES


def test_json_says_what_was_done_and_quiet_says_nothing(kaggle, here, featx):
    result = featx("fetch", PETS, "--to", "my data", "--json", "--quiet")
    summary = json.loads(result.stdout)
    assert result.stderr == ""
    assert summary == {
        "slug": PETS,
        "folder": "my data",
        "n_files": 32,
        "size_bytes": sum(map(len, FILES.values())),
        "was_there": False,
        "warnings": [],
        "next": "featx extract 'my data'",
    }
    assert featx("fetch", PETS, "--to", "my data", "--quiet").output == ""
    assert json.loads(featx("fetch", PETS, "--to", "my data", "--json").stdout) == {**summary, "was_there": True}


def test_what_will_be_unpacked_is_announced(kaggle, here, featx):
    stderr = featx("fetch", PETS).stderr
    assert stderr.startswith(f"featx: Unpacking {PETS.replace('/', '+')}.zip: 32 files, ")
    assert stderr.count("\n") == 1


def test_progress_counts_bytes_from_where_the_last_call_stopped(kaggle, here, monkeypatch):
    bars = []

    def watched(*args, **options):
        bars.append(original(*args, **options))
        return bars[-1]

    original = download.progress_bar
    monkeypatch.setattr(download, "progress_bar", watched)
    kaggle.cuts = [CUT]
    fetch_data(PETS, show=True)
    first, second = bars
    assert first.n == second.initial == CUT
    assert second.n == second.total == len(ARCHIVE)


@pytest.mark.parametrize(
    "slug", ["moon", "a/b/c", "../../etc", "a/b/versions/0", "competition:", "competition:a/b", ""]
)
def test_what_is_no_slug_is_refused_before_anything_is_asked(kaggle, here, featx, slug):
    result = featx("fetch", slug, exit_code=2)
    assert "OWNER/DATASET" in result.stderr
    with pytest.raises(FeatxError, match="competition:NAME"):
        fetch_data(slug)
    assert kaggle.seen == []


def test_the_sample_is_told_like_everything_else(here, featx):
    assert featx("fetch", "sample").stdout == (
        "The sample is in data. Next: featx compare data --image-size 64 --with-scratch-cnn\n"
    )
    assert json.loads(featx("fetch", "sample", "--json").stdout)["was_there"]
    assert featx("fetch", "sample", "--quiet").output == ""


# Interruptions


def test_a_connection_cut_half_way_is_taken_up_again_in_the_same_call(kaggle, here):
    kaggle.cuts = [CUT, 0, CUT // 2]  # before the rest is asked for, it is seen whether all is still the same
    fetch_data(PETS)
    assert_fetched(here / "data")
    assert kaggle.ranges_asked() == [f"bytes={CUT}-", f"bytes={CUT + CUT // 2}-"]


def test_a_call_that_had_to_give_up_is_gone_on_with_by_the_next_one(kaggle, here, featx):
    kaggle.cuts = [CUT, *[0] * 9]
    assert_error(featx("fetch", PETS, exit_code=2), "what was downloaded is kept", "Run it again")
    assert not (here / "data").exists()
    kaggle.cuts.clear()
    kaggle.seen.clear()
    featx("fetch", PETS)
    assert_fetched(here / "data")
    assert kaggle.ranges_asked() == [f"bytes={CUT}-"]


def test_an_archive_that_has_changed_in_between_is_downloaded_from_its_beginning(kaggle, here, featx):
    kaggle.cuts = [CUT, *[0] * 9]
    featx("fetch", PETS, exit_code=2)
    kaggle.cuts.clear()
    kaggle.etag = '"second"'
    kaggle.archives[PETS] = zipped({f"new/{name}": content for name, content in FILES.items()})
    featx("fetch", PETS)
    assert_fetched(here / "data", {f"new/{name}": content for name, content in FILES.items()})


@pytest.mark.parametrize("lack", ["etag", "ranges"])
def test_a_server_that_cannot_go_on_begins_again(kaggle, here, lack):
    setattr(kaggle, lack, None)
    kaggle.cuts = [CUT]
    fetch_data(PETS)
    assert_fetched(here / "data")
    assert kaggle.ranges_asked() == []


def test_a_server_that_brings_other_bytes_than_it_was_asked_for_is_not_believed(kaggle, here, monkeypatch):
    kaggle.cuts = [CUT]
    kaggle.wrong_ranges = True
    fetch_data(PETS)
    assert_fetched(here / "data")
    assert kaggle.ranges_asked() == [f"bytes={CUT}-"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_stopped_half_way_leaves_nothing_half_and_the_next_one_goes_on(kaggle, here, featx, number):
    kaggle.stalls = [700_000]
    kaggle.archives[PETS] = large = zipped({"a/big.bin": os.urandom(1_500_000), **FILES})
    process = subprocess.Popen(command(kaggle, "fetch", PETS), stderr=subprocess.PIPE, text=True)
    assert kaggle.stalled.wait(60)
    (partial,) = wait_for(lambda: [path for path in here.rglob("*.part") if path.stat().st_size >= 500_000])
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    stopped = "featx: stopped; finished work is kept. Run it again to resume.\n"
    assert stderr == ("" if number == signal.SIGKILL else stopped)
    assert not (here / "data").exists()
    n_bytes = partial.stat().st_size
    kaggle.released.set()
    featx("fetch", PETS)
    assert kaggle.ranges_asked() == [f"bytes={n_bytes}-"]
    assert len(content_of(here / "data")) == 33
    assert [path.name for path in here.iterdir()] == ["data"]
    assert len(large) > n_bytes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_stopped_while_it_unpacks_downloads_nothing_again(kaggle, here, featx, number):
    program = (
        "import os, sys, featx.dataset.kaggle.unpack as u\n"
        "def write(*args):\n"
        "    original(*args)\n"
        f"    if '.7.jpg' in str(args[2]): os.kill(os.getpid(), {int(number)})\n"
        "original, u._write = u._write, write\n"
    )
    words = command(kaggle, "fetch", PETS)
    words[2] = program + words[2]
    result = subprocess.run(words, check=False, capture_output=True, text=True)
    assert result.returncode in {-9, 130}, result.stderr
    assert not (here / "data").exists()
    kaggle.seen.clear()
    featx("fetch", PETS)
    assert_fetched(here / "data")
    assert kaggle.seen == []


def test_two_processes_do_not_write_into_each_other(kaggle, here, featx):
    kaggle.stalls = [CUT]
    process = subprocess.Popen(command(kaggle, "fetch", PETS), stderr=subprocess.PIPE)
    assert kaggle.stalled.wait(60)
    assert_error(featx("fetch", PETS, exit_code=2), "Another featx fetch is writing to")
    kaggle.released.set()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_fetched(here / "data")


def wait_for(condition, timeout_s: float = 30):
    """Return what `condition` returns as soon as that is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came true")


# Who asks


def test_credentials_stay_at_home_unless_they_are_needed(kaggle, here, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    fetch_data(PETS, here / "public")
    assert set(kaggle.authorizations("POST")) == {""}
    kaggle.private.add(PETS)
    kaggle.seen.clear()
    fetch_data(PETS, here / "private")
    assert kaggle.authorizations("POST") == ["", bearer(TOKEN)]
    assert [request.host for request in kaggle.asked("GET")] == ["localhost"]
    assert kaggle.authorizations("GET") == [""]  # the files lie at another host, which has no business with them


def test_a_resumed_download_sends_no_credentials_to_where_the_files_lie(kaggle, here, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    kaggle.cuts = [CUT]
    fetch_data(DOGS_VS_CATS)
    assert kaggle.ranges_asked() == [f"bytes={CUT}-"]
    assert set(kaggle.authorizations("GET")) == {""}


def write_json(path: Path, **content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


CREDENTIALS = {
    "token": ({"KAGGLE_API_TOKEN": TOKEN}, None, bearer(TOKEN)),
    "token in a file": ({}, lambda home: write_token(home / ".kaggle/access_token"), bearer(TOKEN)),
    "file named": ({"KAGGLE_API_TOKEN": "../home/t/token"}, lambda home: write_token(home / "t/token"), bearer(TOKEN)),
    "key": ({"KAGGLE_USERNAME": "tong", "KAGGLE_KEY": KEY}, None, basic("tong", KEY)),
    "kaggle.json": (
        {},
        lambda home: write_json(home / ".kaggle/kaggle.json", username="tong", key=KEY),
        basic("tong", KEY),
    ),
    "XDG": (
        {},
        lambda home: write_json(home / ".config/kaggle/kaggle.json", username="tong", key=KEY),
        basic("tong", KEY),
    ),
    "named folder": (
        {"KAGGLE_CONFIG_DIR": "../home/elsewhere"},
        lambda home: write_json(home / "elsewhere/kaggle.json", username="tong", key=KEY),
        basic("tong", KEY),
    ),
    "login": (
        {},
        lambda home: write_json(
            home / ".kaggle/credentials.json",
            refresh_token="r",
            access_token=TOKEN,
            access_token_expiration="2999-01-01T00:00:00+00:00",
        ),
        bearer(TOKEN),
    ),
}


def write_token(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(f"{TOKEN}\n")


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_credentials_are_found_where_kaggle_keeps_them(kaggle, here, monkeypatch, kind):
    variables, prepare, expected = CREDENTIALS[kind]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if prepare:
        prepare(Path.home())
    fetch_data(DOGS_VS_CATS)
    assert kaggle.authorizations("POST") == [expected]


def test_a_token_too_long_for_a_file_name_is_a_token_and_not_shown(kaggle, here, featx, monkeypatch):
    """`kagglesdk` asks the file system for a file of that name, whose error message is the token."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN * 30)
    assert_error(featx("fetch", DOGS_VS_CATS, exit_code=2), "does not accept the credentials in KAGGLE_API_TOKEN")
    assert kaggle.authorizations("POST") == [bearer(TOKEN * 30)]


def test_a_token_that_has_run_out_does_not_keep_a_good_key_from_being_used(kaggle, here, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "old")
    monkeypatch.setenv("KAGGLE_USERNAME", "tong")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    fetch_data(DOGS_VS_CATS)
    assert kaggle.authorizations("POST") == [bearer("old"), basic("tong", KEY)]


@pytest.mark.parametrize("value", ["", "two\nlines", "schlüssel", "{"])
def test_credentials_that_cannot_be_sent_are_named(kaggle, here, featx, monkeypatch, value):
    monkeypatch.setenv("KAGGLE_API_TOKEN", value if value != "{" else "")
    (Path.home() / ".kaggle").mkdir()
    (Path.home() / ".kaggle/kaggle.json").write_text(value)
    (Path.home() / ".kaggle/credentials.json").write_text(value)
    result = featx("fetch", DOGS_VS_CATS, exit_code=2)
    assert_error(
        result, "You must sign in to Kaggle for", f"or fix {Path.home()}/.kaggle/kaggle.json, which is not JSON"
    )
    assert "or fix ~/.kaggle/credentials.json, which has no valid login" in result.stderr
    in_no_token = "or fix KAGGLE_API_TOKEN, which has characters that no token has"
    assert (in_no_token in result.stderr) == (value not in {"", "{"})
    assert kaggle.seen == []


JSON = json.dumps({"username": "tong", "key": KEY})


@pytest.mark.parametrize("where", [".kaggle", ".config/kaggle", "named"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + JSON.encode(),
        JSON.encode("utf-16"),
        b"\xfe\xff" + JSON.encode("utf-16-be"),
        JSON.encode("utf-16-le"),
        JSON.encode("utf-32"),
        f"\r\n {JSON}\r\n".replace(", ", ",\r\n").encode("utf-16"),
        JSON.replace("tong", " tong ").replace(KEY, f"{KEY}\\n").encode(),
    ],
)
def test_a_key_is_read_however_its_file_was_saved(kaggle, here, monkeypatch, where, content):
    """PowerShell's `>` writes UTF-16 with a mark, Notepad UTF-8 with one; an empty .kaggle does not hide .config."""
    (Path.home() / ".kaggle").mkdir()
    (Path.home() / where).mkdir(parents=True, exist_ok=True)
    (Path.home() / where / "kaggle.json").write_bytes(content)
    if where == "named":
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(Path.home() / where))
    fetch_data(DOGS_VS_CATS)
    assert kaggle.authorizations("POST") == [basic("tong", KEY)]


@pytest.mark.parametrize("name", ["access_token", "access_token.txt", "named"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_token_is_read_however_its_file_was_saved(kaggle, here, monkeypatch, name, encoding):
    (Path.home() / ".kaggle").mkdir()
    (Path.home() / ".kaggle" / name).write_bytes(f"{TOKEN}\r\n".encode(encoding))
    if name == "named":
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(Path.home() / ".kaggle" / name))
    fetch_data(DOGS_VS_CATS)
    assert kaggle.authorizations("POST") == [bearer(TOKEN)]


EXAMPLE = 'it must look like {"username": "NAME", "key": "KEY"}'


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (JSON.replace('"', "'"), f"is not JSON (line 1, column 2); {EXAMPLE}, with straight double quotes"),
        (JSON.replace('"', "\u201d"), f"is not JSON (line 1, column 2); {EXAMPLE}"),
        (JSON.replace("}", ",}"), f"is not JSON (line 1, column {len(JSON) + 1}); {EXAMPLE}"),
        ("[" * 100_000, f"is not JSON; {EXAMPLE}"),
        (f"tong:{KEY}", f"is not JSON (line 1, column 1); {EXAMPLE}"),
        ("", f"is not JSON (line 1, column 1); {EXAMPLE}"),
        (b'{"username": "t\xf6ng", "key": "' + KEY.encode() + b'"}', "is not text in UTF-8 or UTF-16"),
        ("{}", f"has no text for username and key; {EXAMPLE}"),
        (f'["tong", "{KEY}"]', f"has no text for username and key; {EXAMPLE}"),
        (f'{{"tong": "{KEY}"}}', f"has no text for username and key; {EXAMPLE}"),
        (f'{{"Username": "tong", "key": "{KEY}"}}', f"has no text for username; {EXAMPLE}"),
        ('{"username": "tong", "key": " "}', f"has no text for key; {EXAMPLE}"),
        (f'{{"username": "tong", "key": ["{KEY}"]}}', f"has no text for key; {EXAMPLE}"),
        (f'{{"username": "tong", "key": "{KEY}\u200b"}}', "has a key with characters that no key has"),
        (None, "cannot be read (Is a directory)"),
        (0o000, "cannot be read (Permission denied)"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_with_the_reason_and_without_the_key(kaggle, here, featx, content, trouble):
    path = Path.home() / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    elif isinstance(content, int):
        path.write_text(JSON)
        path.chmod(content)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = featx("fetch", DOGS_VS_CATS, exit_code=2)
    assert_error(
        result,
        f"You must sign in to Kaggle for {DOGS_VS_CATS}: make an API token at",
        f", or fix {path}, which {trouble}",
    )
    assert "tong" not in result.stderr
    assert kaggle.seen == []


def test_a_file_of_tokens_that_cannot_be_used_is_named(kaggle, here, featx, monkeypatch):
    (Path.home() / ".kaggle/access_token").mkdir(parents=True)
    (Path.home() / ".kaggle/access_token.txt").write_text(f"{TOKEN}\n{TOKEN}\n")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(Path.home() / "nothing"))
    assert_error(
        featx("fetch", DOGS_VS_CATS, exit_code=2),
        "or fix ~/.kaggle/access_token, which cannot be read (Is a directory)",
        "or fix ~/.kaggle/access_token.txt, which has characters that no token has",
        "or fix KAGGLE_CONFIG_DIR, which names a folder without kaggle.json.",
    )


@pytest.mark.parametrize(("there", "lacking"), [("KAGGLE_KEY", "KAGGLE_USERNAME"), ("KAGGLE_USERNAME", "KAGGLE_KEY")])
def test_half_of_a_pair_is_named_or_completed_from_the_file(kaggle, here, featx, monkeypatch, there, lacking):
    monkeypatch.setenv(there, {"KAGGLE_KEY": KEY, "KAGGLE_USERNAME": "tong"}[there])
    assert_error(featx("fetch", DOGS_VS_CATS, exit_code=2), f"or fix {there}, which is set without {lacking}.")
    write_json(Path.home() / ".kaggle/kaggle.json", **{"username": "tong", "key": KEY, there[7:].lower(): ""})
    fetch_data(DOGS_VS_CATS)
    assert kaggle.authorizations("POST") == [basic("tong", KEY)]


def test_a_key_that_cannot_be_used_is_named_only_where_it_may_be_the_reason(kaggle, here, featx, monkeypatch):
    (Path.home() / ".kaggle").mkdir()
    (Path.home() / ".kaggle/kaggle.json").write_text("{'username'}")
    assert "kaggle.json" not in featx("fetch", PETS, "--to", "pets").stderr
    kaggle.errors[PETS] = (404, "Dataset not found")  # as it says of one that is private, too
    assert_error(featx("fetch", PETS, exit_code=2), "check the spelling, or fix", "kaggle.json, which is not JSON")
    kaggle.errors[PETS] = (429, "Too many")
    assert "kaggle.json" not in featx("fetch", PETS, exit_code=2).stderr
    monkeypatch.setenv("KAGGLE_API_TOKEN", "old")
    assert_error(
        featx("fetch", DOGS_VS_CATS, exit_code=2), "does not accept the credentials in KAGGLE_API_TOKEN", "or fix"
    )


@pytest.mark.parametrize("variables", [{}, {"VERBOSE": "1", "KAGGLE_API_TOKEN": TOKEN}])
def test_kaggle_itself_is_not_imported_and_says_nothing(kaggle, here, variables):
    words = command(kaggle, "fetch", PETS, "--quiet")
    words[2] += "\n"
    words[2] = words[2].replace(
        "\nrun()", "\nimport atexit\natexit.register(lambda: print('kaggle' in sys.modules))\nrun()"
    )
    result = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, **variables})
    assert (result.stdout, result.stderr) == ("False\n", "")
    assert list(Path.home().iterdir()) == []


def test_no_log_and_no_file_holds_a_secret(kaggle, here, monkeypatch, caplog):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG, "featx"):
        fetch_data(DOGS_VS_CATS, show=True)
    kaggle.errors[PETS] = (400, f"bad token {TOKEN}")
    kaggle.private.add(PETS)
    with pytest.raises(FeatxError) as failure:
        fetch_data(PETS, here / "other")
    assert "with the credentials in KAGGLE_API_TOKEN" in caplog.text
    assert TOKEN not in str(failure.value)
    assert "bad token …" in str(failure.value)
    for secret in (TOKEN, SIGNATURE):
        assert secret not in caplog.text
        assert not [path for path in here.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


# Failures


@pytest.mark.parametrize(
    ("slug", "status", "message", "parts"),
    [
        (PETS, 404, "Dataset not found", ["Kaggle has no tongpython/cat-and-dog (Dataset not found)", "spelling"]),
        (
            PETS,
            403,
            "Permission denied",
            [f"You must sign in to Kaggle for {PETS} (Permission denied)", "KAGGLE_API_TOKEN"],
        ),
        (PETS, 401, "Unauthenticated", [f"You must sign in to Kaggle for {PETS} (Unauthenticated)", "access_token"]),
        (PETS, 429, "Too many", ["received too many requests", "wait"]),
        (PETS, 500, "a\nb\x1b[2J", ["error 500", r"a\nb\x1b[2J", "later"]),
        (DOGS_VS_CATS, 403, "You must accept the rules", ["https://www.kaggle.com/competitions/dogs-vs-cats/rules"]),
        (DOGS_VS_CATS, 401, "Unauthenticated", ["does not accept the credentials in KAGGLE_API_TOKEN"]),
        (DOGS_VS_CATS, 404, "Not found", ["Kaggle has no competition:dogs-vs-cats"]),
    ],
)
@pytest.mark.parametrize("html", [False, True])
def test_what_kaggle_refuses_is_one_sentence_with_what_to_do(kaggle, here, featx, slug, status, message, parts, html):
    kaggle.errors[slug] = (status, message)
    kaggle.html = html
    words = {"KAGGLE_API_TOKEN": TOKEN} if slug == DOGS_VS_CATS else {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in words.items():
            patch.setenv(name, value)
        result = featx("fetch", slug, exit_code=2)
    said = printable_brackets(message)
    assert_error(result, *(part.replace(said, "") if html else part for part in parts if not html or "\\n" not in part))
    assert list(here.iterdir()) == []


def printable_brackets(message: str) -> str:
    return f" ({message})"


def test_a_competition_without_credentials_is_not_even_asked_for(kaggle, here, featx):
    assert_error(featx("fetch", DOGS_VS_CATS, exit_code=2), "You must sign in to Kaggle for", "kaggle.com/settings")
    assert kaggle.seen == []


def test_no_network_is_said_at_once(kaggle, here, featx, monkeypatch):
    monkeypatch.setitem(
        kagglesdk.kaggle_env._env_to_endpoint, kagglesdk.kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:1"
    )
    assert_error(featx("fetch", PETS, exit_code=2), "cannot be reached, because there is no connection", "check")
    assert list(here.iterdir()) == []


def test_a_proxy_with_a_password_is_not_named(kaggle, here, featx, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:{KEY}@127.0.0.1:1")
    assert_error(featx("fetch", PETS, exit_code=2), "the proxy")


@pytest.mark.parametrize(("n_bytes", "part"), [(0, "cannot be reached"), (CUT, "what was downloaded is kept")])
def test_a_server_that_goes_silent_is_given_up_on(kaggle, here, featx, monkeypatch, n_bytes, part):
    monkeypatch.setattr(credentials, "TIMEOUT_S", (1.0, 0.2))
    kaggle.stalls = [n_bytes, *[0] * 9]
    assert_error(featx("fetch", PETS, exit_code=2), part, "not answer in time")


@pytest.mark.parametrize("content", [b"<html>Sign in</html>", ARCHIVE[:-100], ARCHIVE[:5000] + b"x" + ARCHIVE[5001:]])
def test_a_broken_archive_is_one_sentence_and_is_downloaded_anew(kaggle, here, featx, content):
    kaggle.archives[PETS] = content
    assert_error(
        featx("fetch", PETS, "--quiet", exit_code=2), f"The archive of {PETS} was not unpacked", "download it again"
    )
    assert list(here.iterdir()) == []
    kaggle.archives[PETS] = ARCHIVE
    featx("fetch", PETS)
    assert_fetched(here / "data")


def test_names_in_an_encoding_that_the_archive_does_not_say(kaggle, here, featx):
    names = {name: name.replace("cats/", "猫/").replace("dogs/", "狗/") for name in FILES}
    inner = zip_bytes([Member(names[name].encode("gbk"), content) for name, content in FILES.items()])
    kaggle.archives[PETS] = zipped({"photos.zip": inner})
    doubtful = featx("fetch", PETS, "--to", "doubtful")
    assert "does not say the encoding of 32 of its names" in doubtful.stderr
    assert_error(featx("fetch", PETS, "--to", "doubtful", "--zip-encoding", "gbk", exit_code=2), "remove the folder")
    result = featx("fetch", PETS, "--zip-encoding", "gbk")
    assert "encoding" not in result.stderr
    assert content_of(here / "data") == {f"photos/{names[name]}": content for name, content in FILES.items()}
    assert "already" in featx("fetch", PETS).stdout
    assert "already" in featx("fetch", PETS, "--zip-encoding", "gbk").stdout
    assert scan(here / "data", here / "cache").class_names == ("狗", "猫")


def test_a_wrong_encoding_costs_nothing_that_was_downloaded(kaggle, here, featx):
    kaggle.archives[PETS] = zip_bytes([Member(f"{name}狗.jpg".encode("gbk"), FILES[name]) for name in FILES])
    assert_error(
        featx("fetch", PETS, "--quiet", "--zip-encoding", "utf-8", exit_code=2), "is not valid utf-8; choose another"
    )
    featx("fetch", PETS, "--zip-encoding", "gbk")
    assert len(kaggle.authorizations("GET")) == 1
    assert_fetched(here / "data", {f"{name}狗.jpg": content for name, content in FILES.items()})


def test_an_archive_that_leads_out_of_the_folder_leaves_nothing(kaggle, here, featx):
    kaggle.archives[PETS] = zipped({**FILES, "../../evil.jpg": b"evil"})
    assert_error(featx("fetch", PETS, "--quiet", exit_code=2), "../../evil.jpg in it leads out of its folder")
    assert list(here.iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_downloaded(kaggle, here, featx, monkeypatch):
    usage = type("Usage", (), {"free": (64 << 20) + 2 * len(ARCHIVE) - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    assert_error(featx("fetch", PETS, exit_code=2), "make room", "--to")
    assert not list(here.rglob("*.zip"))


@pytest.mark.parametrize("limit", [CUT, len(ARCHIVE) + 5000])
def test_a_disk_that_fills_up_is_one_sentence_and_costs_nothing_that_was_downloaded(kaggle, here, featx, limit):
    """No file of the process may grow beyond the limit: writing more fails, as on a full disk."""
    kaggle.archives[PETS] = (
        zipped({"big.bin": os.urandom(2 * len(ARCHIVE)), **FILES})
        if limit < len(ARCHIVE)
        else zipped({"big.zip": zipped({"big.bin": bytes(2 * len(ARCHIVE))}, 8), **FILES})
    )
    result = subprocess.run(
        command(kaggle, "fetch", PETS, "--quiet"),
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )
    assert result.returncode == 2
    assert_error(result, "cannot be written to data: File too large", "--to", "what was downloaded is kept")
    assert not (here / "data").exists()
    kaggle.seen.clear()
    featx("fetch", PETS)
    assert kaggle.ranges_asked() == ([f"bytes={CUT}-"] if limit == CUT else [])
    assert len(kaggle.seen) == (3 if limit == CUT else 0)


def test_an_archive_without_a_length_leaves_room_on_the_disk(kaggle, here, featx, tmp_path):
    """It never ends, and the disk is a real one."""
    kaggle.endless = {"archive"}
    with small_disk(tmp_path / "disk", 80 << 20) as disk:
        result = featx("fetch", PETS, "--to", disk / "data", exit_code=2)
        assert_error(result, "whose size Kaggle does not say, does not fit", str(disk), "make room", "--to")
        assert shutil.disk_usage(disk).free > 79 << 20, "what is of no use is removed"
        assert list(disk.iterdir()) == []
        kaggle.endless = set()
        kaggle.archives[PETS] = ARCHIVE
        featx("fetch", PETS, "--to", disk / "data")
        assert_fetched(disk / "data")


@pytest.mark.parametrize("what", ["error", "redirect"])
def test_what_kaggle_says_without_end_takes_no_memory(kaggle, here, featx, what):
    kaggle.endless = {what}
    if what == "redirect":
        featx("fetch", PETS)
        assert_fetched(here / "data")
    else:
        assert_error(featx("fetch", PETS, exit_code=2), "Kaggle")
    assert kaggle.n_endless < 64 << 20  # what was on its way


def test_a_folder_that_cannot_be_written_is_one_sentence(kaggle, here, featx):
    (here / "file").write_text("a file where a folder should be")
    result = featx("fetch", PETS, "--to", "file/data", exit_code=2)
    assert_error(result, "cannot be written to file/data: Not a directory", "--to")


# A part of an archive, and the demo that is made of it

FIRST_TWO = {name: content for name, content in FILES.items() if int(name.rsplit(".", 2)[1]) < 2}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(ranges, "_BLOCK_BYTES", 1024)


def n_bytes_asked(server) -> int:
    asked = (re.fullmatch(r"bytes=(\d+)-(\d+)", text) for text in server.ranges_asked())
    return sum(int(match[2]) - int(match[1]) + 1 for match in asked if match)


def test_a_part_is_fetched_by_its_bytes_and_never_twice(kaggle, here, small_blocks, caplog):
    caplog.set_level(logging.INFO, "featx")
    fetched = fetch_part(PETS, Path("some"), 2)
    assert_fetched(Path("some"), FIRST_TWO)
    assert (fetched.n_files, fetched.was_there) == (len(FIRST_TWO), False)
    part = sum(map(len, FIRST_TWO.values()))
    assert part < n_bytes_asked(kaggle) < len(ARCHIVE) / 2
    assert f"Fetching 8 of the {len(FILES)} files of {PETS} from Kaggle: " in caplog.text
    assert kaggle.authorizations("POST") == [""]
    kaggle.seen.clear()
    assert fetch_part(PETS, Path("some"), 2).was_there
    assert not kaggle.seen


def test_another_part_is_not_taken_for_the_one_that_is_there(kaggle, here):
    fetch_part(PETS, Path("some"), 2)
    with pytest.raises(FeatxError, match="is not empty"):
        fetch_part(PETS, Path("some"), 3)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"ranges": False}, "only as a whole"),
        ({"wrong_ranges": True}, "does not send parts"),
        ({"endless": {"part"}}, "fewer or more bytes"),
        ({"cuts": [0, 10]}, "the network"),
        ({"archives": {PETS: b"no zip file" * 500}}, "broken"),
        ({"errors": {PETS: (429, "Too many requests")}}, "too many requests"),
        ({"private": {PETS}}, "sign in"),
    ],
    ids=["no ranges", "wrong ranges", "endless part", "cut", "no archive", "too often", "private"],
)
def test_without_a_part_the_reason_is_said_and_nothing_is_left(kaggle, here, trouble, message):
    for name, value in trouble.items():
        setattr(kaggle, name, value)
    with pytest.raises(FeatxError, match=message):
        fetch_part(PETS, Path("some"), 2)
    assert not [path for path in here.iterdir() if path.suffix != ".part"]


def test_the_demo_has_photographs_with_a_network(kaggle, here, monkeypatch):
    monkeypatch.setattr(demo, "_N_PER_FOLDER", 2)
    found = demo_data(Path("cache"))
    assert found.folder == Path("cache/cats-and-dogs")
    assert found.image_size == (150, 150)
    scanned = scan(found.folder, Path("cache"))
    assert (scanned.class_names, scanned.n_train, scanned.n_test) == (("cats", "dogs"), 4, 4)


def test_the_demo_has_digits_without_a_network_and_says_what_they_can_show(kaggle, here, caplog):
    caplog.set_level(logging.INFO, "featx")
    kaggle.archives.clear()
    found = demo_data(Path("cache"))
    assert (found.folder, found.image_size) == (Path("cache/sample-digits"), (64, 64))
    assert is_sample(found.folder)
    assert "not what transfer learning can do" in caplog.text
    assert "Kaggle has no" in caplog.text


@pytest.mark.usefixtures("without_rendering")
@pytest.mark.usefixtures("without_rendering")
def test_a_bare_comparison_is_the_demo_and_options_count_more(kaggle, here, cache, featx, monkeypatch):
    monkeypatch.setattr(demo, "_N_PER_FOLDER", 4)
    words = ["--weights", "random", "--image-size", "48", "--epochs", "1", "--cache-dir", cache, "--json"]
    comparison = json.loads(featx("compare", *words).stdout)
    assert comparison["class_names"] == ["cats", "dogs"]
    assert [one["name"] for one in comparison["approaches"]] == ["vgg16 + dense", "vgg16 + logreg", "report-cnn"]
    assert [(one["weights"], one["image_size"]) for one in comparison["recipes"]] == [("random-0", [48, 48])]
    assert "leave out DATA" in featx("compare", cache / "cats-and-dogs", "--demo", exit_code=2).output
    assert featx("compare", "--demo", *words, "--head", "knn").stdout
    Path("data").mkdir()
    Path("data/notes.txt").touch()
    assert "The demo" not in featx("compare", *words, exit_code=2).output


# Others who may write beside the folder


@pytest.mark.parametrize("kind", ["link", "open folder", "folder of another user"])
def test_a_planted_workshop_is_refused_and_nothing_of_its_victim_is_touched(kaggle, here, featx, kind):
    victim = here.parent / "victim"
    victim.mkdir()
    (victim / "lock").write_bytes(b"precious")
    shop = here / ".pets-fetch"
    if kind == "link":
        shop.symlink_to(victim)
    else:
        shop.mkdir()
        (shop / "lock").symlink_to(victim / "lock")
        (shop / "lock-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
        shop.chmod(0o777)
    if kind == "folder of another user":
        if os.geteuid() != 0:
            pytest.skip("only root may give a folder away")
        os.chown(shop, 12345, 12345)
    result = featx("fetch", PETS, "--to", "pets", exit_code=2)
    assert_error(result, f"featx does not use {here}/.pets-fetch, because ", "remove it")
    assert (victim / "lock").read_bytes() == b"precious"
    assert kaggle.seen == []


def test_an_archive_that_featx_did_not_download_does_not_count(kaggle, here):
    shop = here / ".data-fetch"
    shop.mkdir(mode=0o700)
    planted = zipped({"train/cats/planted.jpg": jpeg(1), "train/dogs/planted.jpg": jpeg(2)})
    (shop / "tongpython+cat-and-dog.zip").write_bytes(planted)
    (shop / "tongpython+cat-and-dog.zip.json").write_text(json.dumps({"n_bytes": len(planted), "sha256": "0" * 64}))
    fetch_data(PETS)
    assert_fetched(here / "data")


def test_an_archive_that_was_downloaded_is_not_downloaded_again(kaggle, here, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.dataset.kaggle.fetch.unpack", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch_data(PETS)
    kaggle.seen.clear()
    fetch_data(PETS)
    assert kaggle.seen == []
    assert_fetched(here / "data")


def test_a_mount_point_is_filled(kaggle, here, featx):
    (here / "data").mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", here / "data"], capture_output=True, check=False)
    if mounting.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        kaggle.cuts = [CUT, *[0] * 9]
        featx("fetch", PETS, exit_code=2)
        kaggle.cuts.clear()
        featx("fetch", PETS)
        assert kaggle.ranges_asked()[-1] == f"bytes={CUT}-"
        assert_fetched(here / "data")
        assert {path.name for path in (here / "data").iterdir()} == {MARK, "training_set", "test_set"}
        assert fetch_data(PETS).was_there
    finally:
        subprocess.run(["umount", "--lazy", here / "data"], check=True)
