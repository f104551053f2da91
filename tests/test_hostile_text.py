"""Hostile text in all that featx shows: no terminal obeys it, no secret gets out, no command runs it."""

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result

from featx.cli.main import main
from featx.extract.extract import extract_features
from featx.extract.options import RECIPE_OPTIONS, option_variable
from featx.train.train import train_top
from tests.chaos.tally import IS_FULL
from tests.conftest import write_photos
from tests.storage.elsewhere import web_server

# fsspec closes the connections of a file system that is no longer used without waiting for their end.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

SMALL = {"weights": "random", "layer": "block1_pool", "image_size": (32, 32), "precision": "float32"}
WORDS = ("--weights", "random", "--layer", "block1_pool", "--image-size", "32", "--precision", "float32")
FORGED = "featx: error: forged"
SECRET = "S3cr3t"

#: What a name may be that is meant to harm whoever reads it, or copies a command with it. None has a slash.
HOSTILE = [
    f"\x1b]0;owned\x07 \x9b31m\n{FORGED}",
    f"x; touch PWNED; #\r\n{FORGED}\r",
    "$(touch PWNED)`touch PWNED`'\"",
    "-rf & touch PWNED |",
    "--help",
    "\u202egpj.\u2066exe\u2028\u200b\ufeff",
    os.fsdecode(b"\xff\xfe' undecodable"),
    "back\\slash !! ~root *?[a] {a,b}",
    "~nouser",
]
#: All at once, for what takes long.
ALL = "".join(HOSTILE[:7])
#: `make chaos` tries each of them by itself, and all other tests what only a whole name can do.
NAMES = [*HOSTILE, ALL] if IS_FULL else [ALL, *HOSTILE[3:5], HOSTILE[8]]


def is_safe(text: str) -> bool:
    """Whether a terminal shows all of `text`; of the controls, it may have line ends, and tqdm's carriage returns."""
    text = re.sub(r"\r+(?=featx: )", "", text)
    return not [char for char in text if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


def words_of(line: str, folder: Path) -> list[str]:
    """The words that bash makes of a line; if any of it runs, it leaves something in `folder`."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, cwd=folder, check=True)
    assert not done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


class Session:
    """Runs commands, and looks at all that they say.

    Attributes:
        said: all of it.
    """

    def __init__(self, here: Path) -> None:
        self.here = here
        self.said: list[str] = []

    def run(self, *words: object) -> Result:
        """Run a command; its end is looked at, not which it is."""
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exception is None or isinstance(result.exception, SystemExit), words
        text = result.stdout + result.stderr
        self.said.append(text)
        assert is_safe(text), text
        assert not re.search(f"^{FORGED}", text, re.MULTILINE), text
        assert SECRET not in text
        assert "Traceback" not in text
        return result

    def advised(self, text: str) -> list[list[str]]:
        """The words of each command that a text advises, as a shell makes them."""
        lines = re.findall(
            r"(?:: |\. |^  )((?:env -u .*|)featx (?:extract|predict|compare|cache) .*)$", text, re.MULTILINE
        )
        empty = self.here / "empty"
        empty.mkdir(exist_ok=True)
        found = [words_of(line, empty) for line in lines]
        assert not list(empty.iterdir()), "something in a command ran"
        assert [words for words, line in zip(found, lines, strict=True) if "$'" not in line] == [
            shlex.split(line) for line in lines if "$'" not in line
        ]
        return found


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return Session(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, new_cache: Callable[[Path], Path]) -> Path:
    """A folder with photographs, a cache of their features, and a run; a photograph cannot be read."""
    here = tmp_path_factory.mktemp("made")
    photos = write_photos(here / "photos", n_train=4, n_test=2)
    (photos / "train" / "sea" / "bad.jpg").write_bytes(b"no image")
    cache = new_cache(here / "cache")
    extract_features(photos, cache_dir=cache, **SMALL)
    train_top(photos, run_dir=here / "run", cache_dir=cache, **SMALL)
    return here


def copied(made: Path, name: str, target: str) -> Path:
    """A copy of something that was made, under a hostile name in the working folder."""
    return Path(shutil.copytree(made / name, Path(target).absolute(), symlinks=True)).relative_to(Path.cwd())


# Names of folders, and members of the files in them


@pytest.mark.usefixtures("without_rendering")
@pytest.mark.parametrize("text", NAMES)
def test_names_of_data_and_cache_and_reasons_are_shown_and_advised_safely(session, made, text):
    data, cache = copied(made, "photos", text), copied(made, "cache", f"{text} cache")
    (skipped,) = cache.glob("*/skipped.csv")
    line = skipped.read_text().splitlines()[1].split(",")
    quoted = text.replace('"', '""')
    rows = [skipped.read_text(), f'"{quoted}",{line[1]},"{quoted}",{line[3]}\n']
    skipped.write_bytes("".join(rows).encode("utf-8", "surrogateescape"))
    folder = ["--", data] if text.startswith("-") else [data]
    session.run("extract", *WORDS, f"--cache-dir={cache}", *folder)
    missing = session.run("train-top", *WORDS, f"--cache-dir={cache}", "--pooling", "avg", *folder)
    assert missing.exit_code == 2
    ((_, _, named, *options),) = session.advised(missing.stderr)
    assert Path(named) == data
    assert main.commands["extract"].make_context("extract", [named, *options]).params["cache_dir"] == cache


@pytest.mark.parametrize("text", NAMES)
def test_what_lies_in_a_cache_is_shown_and_advised_safely(session, made, text):
    cache = copied(made, "cache", text)
    (store,) = (path.parent for path in cache.glob("*/recipe.json"))
    recipe = json.loads((store / "recipe.json").read_text())
    for number, member in enumerate((*RECIPE_OPTIONS, "aspect_ratio", "preprocessing", text)):
        other = Path(shutil.copytree(store, store.with_name(f"{text}{number}")))
        (other / "recipe.json").write_text(json.dumps({**recipe, member: [64, 64] if "size" in member else text}))
        segment = next(other.glob("seg-*.h5"))
        segment.write_bytes(segment.read_bytes()[:1000])
        shutil.copy(segment, other / f"seg-{text}.h5")
    (cache / f"{text}.txt").write_text(text, errors="surrogateescape")
    where = ("--cache-dir", cache)
    session.run("cache", "ls", *where)
    session.run("cache", "ls", "--quiet", *where)
    verified = session.run("cache", "verify", *where)
    assert "DAMAGED" in verified.stdout
    commands = session.advised(verified.stdout)
    assert ["featx", "cache", "verify", "--mend", "--cache-dir", str(cache)] in commands
    for words in commands:
        if "extract" in words:
            assert words[words.index("--cache-dir") + 1] == str(cache)
    session.run("cache", "verify", "--mend", *where)
    session.run("cache", "compact", *where)
    session.run("cache", "rm", *where, "--", f"no {text}")
    session.run("cache", "rm", *where, "--", f"{text}.txt")
    session.run("cache", "rm", "--yes", *where, "--", f"{text}0", f"{text}.txt")


def test_members_of_a_run_are_shown_safely(session, made):
    text = ALL
    folder = ["--cache-dir", made / "cache"]
    photo = made / "photos" / "test" / "sea" / "sea.0.jpg"
    members = {
        "class_names.json": [[text, f"{text}2"]],
        "metrics.json": [{"format_version": text}, {"weights_path": text}, {"heads": {text: text}}, {"format": text}],
        "recipe.json": [{name: text} for name in ("weights", "layer", "backbone", text)],
    }
    for name, values in members.items():
        for number, value in enumerate(values):
            run = copied(made, "run", f"{text[:60]}{name}{number}")
            whole = json.loads((run / name).read_text())
            (run / name).write_text(json.dumps(value if isinstance(value, list) else {**whole, **value}))
            run_words = ["--", f"./{run}"]
            session.run("predict", *folder, "--format", "table", *run_words, photo)
            if name != "class_names.json":
                session.run("export", *folder, "--to", f"{text}/x.keras", *run_words)
    session.run("predict", "--format", "table", *folder, "--", f"no {text}", text)
    session.run("predict", "--format", "table", *folder, "--", f"./{copied(made, 'run', f'{text} run')}", text, photo)


# Words and variables


@pytest.mark.parametrize("text", HOSTILE)
def test_words_and_variables_are_shown_safely(session, made, monkeypatch, text):
    for command in ("extract", "plan", "train-top", "compare"):
        for name in ("layer", "weights", "image-size", "pooling", "backbone", "dtype", "train-folder"):
            test_folder = ["--test-folder=x"] if "folder" in name else []
            session.run(command, made / "photos", f"--{name}={text}", *test_folder)
        session.run(command, f"./no {text}")
    session.run(text)
    session.run("fetch", f"./{text}")
    session.run("fetch", "sample", "--to", made / "run" / f"{text}")
    options = ("--image-size", "--precision", "--cache-dir", "--memory")
    for name in (*map(option_variable, options), "FEATX_WEIGHTS_DIR"):
        with monkeypatch.context() as patch:
            patch.setenv(name, text)
            session.run("train-top", made / "photos", *(WORDS[2:] if name == "FEATX_WEIGHTS_DIR" else WORDS))


def test_the_sample_is_written_where_it_is_named_and_its_command_names_it(session):
    for text in NAMES[:2]:
        fetched = session.run("fetch", "sample", "--to", text)
        ((_, _, named, *_),) = session.advised(fetched.stdout)
        assert Path(named) == Path(text)


# Secrets


def written(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("without_rendering")
def test_a_secret_in_an_address_is_in_nothing_that_is_said_or_written(session, made, new_cache, monkeypatch):
    password = f"pa@{SECRET}:%2F'\"$"
    served = session.here / "served"
    shutil.copytree(made / "photos", served / "photos")
    with tarfile.open(served / "photos.tar", "w") as file:
        file.add(made / "photos", "photos")
    cache = new_cache(session.here / "cache")
    sig = f"se=2020-01-01T08:00:00Z&sig={SECRET}"
    with web_server(served, f"me:{unquote(password)}") as (host, asked):
        base, where = f"http://me:{password}@{host}", ["--cache-dir", str(cache)]
        addresses = (f"{base}/photos", f"tar://photos::{base}/photos.tar?{sig}", f"{base}/photos#{SECRET}")
        for number, address in enumerate(addresses):
            words = ["train-top", address, *WORDS, *where, "--epochs", "1", "--run-dir", f"run{number}"]
            monkeypatch.setattr("sys.argv", ["featx", *words])
            session.run(*words)
            extracted = session.run("extract", "--verbose", address, *WORDS, "--cache-dir", cache)
            assert extracted.exit_code == (0 if number < 2 else extracted.exit_code), extracted.output
            session.run(*words)
            session.run("predict", made / "run", f"{address}/test/sea/sea.0.jpg", "--cache-dir", cache)
            session.run("train-top", f"{address}/nothing", *WORDS)
        report = ["compare", addresses[0], *WORDS, *where, "--epochs", "1", "--report-dir", "report"]
        monkeypatch.setattr("sys.argv", ["featx", *report])
        assert session.run(*report).exit_code == 0
        assert asked
    addresses = (
        *(f"{base}/photos", f"http://me:{password}@127.0.0.1:9/x?{sig}", f"simplecache::s3://K:{password}@b/x"),
        *(
            f"s3://K:{password}@b/x?{sig}",
            f"zip://cd::http://127.0.0.1:9/cd.zip?{sig}",
            f"file://h{SECRET}@x:{password}@y",
        ),
        *(f"gs://{SECRET}@b", f"unknown://u:{password}@h/x", f"http://127.0.0.1:9/a b#{SECRET} {SECRET}"),
    )
    for address in addresses:
        session.run("extract", address)
        session.run("extract", made / "photos", *WORDS, "--cache-dir", address)
        session.run("cache", "ls", "--cache-dir", address)
        session.run("predict", address, address)
        session.run("predict", made / "run", address, "--cache-dir", cache)
        session.run("export", address, "--to", address)
        session.run("export", made / "run", "--to", address)
        session.run("train-top", made / "photos", "--weights", address, "--run-dir", address)
        session.run("extract", made / "photos", "--weights", address, "--layer", address)
        session.run("extract", made / "photos", address)
        session.run("fetch", address, "--to", address)
        session.run("fetch", "sample", "--to", address)
        session.run(address)
        session.run("compare", "--report-dir", address, address, "--class-list", address)
        for name in ("FEATX_CACHE_DIR", "FEATX_WEIGHTS_DIR", "FEATX_IMAGE_SIZE"):
            with monkeypatch.context() as patch:
                patch.setenv(name, address)
                session.run("train-top", made / "photos", *(WORDS[:4] if name != "FEATX_WEIGHTS_DIR" else ()))
    shutil.rmtree(served)
    files = written(session.here)
    names = {"metrics.json", "results.json", "results.md", "index.html", "digests.sqlite", "skipped.csv"}
    assert names <= {path.name for path in files}
    assert not [path for path, content in files.items() if SECRET.encode() in content or SECRET in str(path)]
    assert f"http://***@{host}/photos" in (session.here / "run0" / "metrics.json").read_text()
    gc.collect()


def test_a_file_behind_http_is_predicted(session, made):
    shutil.copytree(made / "photos", session.here / "served")
    with web_server(session.here / "served", f"me:{SECRET}") as (host, _):
        photo = f"http://me:{SECRET}@{host}/test/sea/sea.0.jpg"
        result = session.run("predict", made / "run", photo, "--cache-dir", made / "cache")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith(f"http://***@{host}/test/sea/sea.0.jpg,")
    gc.collect()


# The folder that featx runs in


def test_a_working_folder_that_is_gone_is_said(session, made):
    gone = session.here / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    commands = (
        ["extract", made / "photos"],
        ["cache", "ls"],
        ["predict", made / "run", "x.jpg"],
        ["fetch", "sample"],
    )
    for words in commands:
        result = session.run(*words)
        assert result.exit_code == 2
        assert "it was removed or renamed. Change to another folder" in result.stderr


def test_a_home_that_is_not_there_is_no_traceback(session, made):
    for words in (["extract", made / "photos", "--weights"], ["predict", made / "run", made / "photos", "--weights"]):
        assert session.run(*words, "~nouser/x").exit_code in {0, 2}
    assert "There is no weights file ~nouser/x" in session.said[0]
