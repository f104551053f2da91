"""What people expect of a command in a shell: streams, exit codes, variables, completion."""

import json
import os
import pty
import subprocess
import sys
import termios

import click
import pytest

from featx.backbones.table import BACKBONES
from featx.cli.main import main

FAST = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg"]


def commands(command=main, words=()):
    """Return (words, command) of all commands that do something."""
    if isinstance(command, click.Group):
        return [pair for name, sub in sorted(command.commands.items()) for pair in commands(sub, (*words, name))]
    return [(words, command)]


def run(*words, **environment):
    """Run a command in a fresh process: for streams, exit codes and what is decided before TensorFlow is needed."""
    return subprocess.run(
        [sys.executable, "-m", "featx", *map(str, words)],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.parametrize(("words", "command"), commands(), ids=[" ".join(words) for words, _ in commands()])
def test_every_command_can_be_quiet_verbose_and_json(words, command):
    options = {name for param in command.params for name in param.opts}
    assert {"--quiet", "--verbose", "--json"} <= options


# Variables


@pytest.fixture
def data(make_photos, tmp_path):
    return make_photos(tmp_path / "data")


def test_variables_stand_for_options_and_what_is_typed_counts_more(data, cache, featx, monkeypatch):
    variables = {"FEATX_WEIGHTS": "random", "FEATX_IMAGE_SIZE": "32", "FEATX_CACHE_DIR": str(cache), "FEATX_JSON": "1"}
    variables |= {"FEATX_LAYER": "block2_pool", "FEATX_POOLING": "avg"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert json.loads(featx("extract", data).stdout)["n_computed"] == 32
    larger = featx("extract", data, "--image-size", "40")
    assert "40x40" in json.loads(larger.stdout)["store_dir"]
    for name in variables:
        monkeypatch.delenv(name)
    typed = run("extract", data, *FAST, "--cache-dir", cache, "--json")  # in a process that has no variables
    assert json.loads(typed.stdout)["n_cached"] == 32, typed.stderr


@pytest.mark.usefixtures("without_rendering")
def test_several_backbones_in_one_variable(data, tmp_path, cache, featx, monkeypatch):
    for name, value in {"WEIGHTS": "random", "IMAGE_SIZE": "32", "BACKBONE": "vgg16 mobilenetv2"}.items():
        monkeypatch.setenv(f"FEATX_{name}", value)
    words = ["compare", data, "--cache-dir", cache, "--report-dir", tmp_path / "report", "--json", "--epochs", "1"]
    names = {approach["name"] for approach in json.loads(featx(*words).stdout)["approaches"]}
    assert names == {"vgg16 + dense", "vgg16 + logreg", "mobilenetv2 + dense", "mobilenetv2 + logreg"}


def test_a_wrong_variable_is_named(data):
    done = run("extract", data, FEATX_IMAGE_SIZE="large")
    assert done.returncode == 2
    assert "'--image-size' (environment variable FEATX_IMAGE_SIZE): An image size must be" in done.stderr
    assert "environment variable" not in run("extract", data, "--image-size", "large").stderr


def test_the_former_name_of_an_option_is_taken_and_not_shown(monkeypatch):
    compare = main.commands["compare"]
    words = ["--rival", "report-dnn", "--baseline", "report-cnn"]
    assert compare.make_context("compare", words).params["baselines"] == ("report-dnn", "report-cnn")
    monkeypatch.setenv("FEATX_RIVAL", "report-cnn report-dnn")
    assert compare.make_context("compare", []).params["baselines"] == ("report-cnn", "report-dnn")
    monkeypatch.setenv("FEATX_BASELINE", "report-dnn")
    shown = compare.make_context("compare", [])
    assert shown.params["baselines"] == ("report-dnn",)
    assert "--baseline" in compare.get_help(shown)
    assert "rival" not in compare.get_help(shown)


# Streams and exit codes


def test_verbose_says_what_is_decided_and_quiet_only_what_is_wrong(data, cache):
    (data / "train" / "sea" / "notes.txt").write_text("no image")
    words = ["extract", data, *FAST, "--cache-dir", cache]
    verbose = run(*words, "--verbose")
    assert '"layer":"block2_pool"' in verbose.stderr
    assert "Of 32 images, 0 are in the store and 32 must be computed." in verbose.stderr
    quiet = run(*words, "--quiet")
    assert quiet.stdout == ""
    assert [line for line in quiet.stderr.splitlines() if "notes.txt" not in line] == []
    assert "must be computed" not in run(*words).stderr


@pytest.mark.parametrize("columns", [0, 60])
def test_progress_is_drawn_on_a_terminal_only(columns):
    code = (
        "import time\nfrom featx.system.progress import progress_bar\n"
        "with progress_bar(30, 'work', 'images', show=True) as bar:\n"
        "    for _ in range(30):\n        time.sleep(0.1)\n        bar.update()\n"
    )
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "\r" not in piped.stderr
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    with subprocess.Popen([sys.executable, "-c", code], stderr=follower) as process:
        os.close(follower)
        shown = b""
        while chunk := _read(leader):
            shown += chunk
        assert process.wait() == 0
    os.close(leader)
    assert b"\r" in shown
    assert b"of 30 images, " in shown
    assert b" images a second, " in shown
    assert b"\x1b[3" not in shown  # no colours, whatever NO_COLOR says


def _read(leader):
    try:
        return os.read(leader, 4096)
    except OSError:  # Linux: the other end is closed
        return b""


def test_exit_code_1_is_damage_or_no(data, cache, featx):
    featx("extract", data, *FAST, "--cache-dir", cache, "--quiet")
    featx("cache", "verify", "--cache-dir", cache, exit_code=0)
    segment = next(cache.glob("*/seg-*.h5"))
    segment.write_bytes(segment.read_bytes()[:-100])
    featx("cache", "verify", "--cache-dir", cache, exit_code=1)
    refused = featx("cache", "rm", "vgg16", "--cache-dir", cache, exit_code=1)
    assert refused.stdout == ""
    assert segment.exists()
    removed = json.loads(featx("cache", "rm", "vgg16", "--cache-dir", cache, "--yes", "--json").stdout)
    assert removed["removed"][0].startswith("vgg16-block2_pool-avg-32x32-")
    assert not segment.exists()


# Completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("featx ", {"extract", "train-top", "compare", "predict", "fetch", "cache"}),
        ("featx cache ", {"ls", "verify", "compact", "rm"}),
        ("featx extract --back", {"--backbone"}),
        ("featx extract --backbone ", set(BACKBONES)),
        ("featx predict runs/first --format ", {"table", "csv", "jsonl"}),
    ],
)
def test_completion_knows_commands_options_and_values(line, expected):
    words = line.split(" ")
    done = run(_FEATX_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert expected <= {found.split(",")[1] for found in done.stdout.splitlines()}, done.stderr


def test_completion_for_each_shell_is_printed():
    for shell in ("bash", "zsh", "fish"):
        done = run(_FEATX_COMPLETE=f"{shell}_source")
        assert "featx" in done.stdout, done.stderr
