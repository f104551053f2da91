"""The command line: mostly in this process; what is slow to load, and noise, in processes of their own."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import featx.cli.main
from featx.dataset.scanning import scan
from featx.storage import mark_folder

FAST = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg"]
#: The head that takes least, for tests that need a comparison of something.
ONE_HEAD = ["--head", "knn"]


def test_the_three_commands_from_photos_to_report(data, here, featx):
    assert "32 computed, 0 from the cache" in featx("extract", data, *FAST, "--backbone", "vgg16").stdout
    assert "logreg" in featx("train-top", data, *FAST, "--epochs", 2).stdout
    result = featx("compare", data, *FAST, "--epochs", 2, "--with-scratch-cnn", "--report-dir", "report")
    *_, use, where, page = result.stdout.splitlines()
    assert use == "Classify images with the best head: featx predict report IMAGE…"
    assert where == "Report: report"
    assert page == f"file://{here}/report/index.html"
    assert {"index.html", "results.json", "results.md", "accuracy.png"} <= {
        path.name for path in Path("report").iterdir()
    }
    assert len(list(Path("runs").glob("2*"))) == 1
    assert {path.name for path in here.iterdir()} == {"cache", "runs", "report"}


@pytest.mark.usefixtures("without_rendering")
def test_data_in_the_place_of_a_command_is_compared(data, here, featx):
    result = featx(data, *FAST, "--epochs", 1, "--report-dir", "report")
    assert result.stdout.splitlines()[-1] == f"file://{here}/report/index.html"
    assert "No such command 'comprae'" in featx("comprae", data, exit_code=2).output
    assert "nowhere" in featx("nowhere/", exit_code=2).stderr
    assert "No such command" not in featx("nowhere/", exit_code=2).stderr
    (here / "extract").mkdir()
    assert "extract" not in featx("extract", data, *FAST).stderr  # a command is a command, whatever lies here


@pytest.mark.usefixtures("without_rendering")
def test_a_report_folder_predicts_and_exports_with_its_best_head(data, here, featx):
    featx("compare", data, *FAST, "--epochs", 1, "--report-dir", "report")
    assert {path.name for path in Path("report/runs").iterdir()} == {"vgg16-dense", "vgg16-logreg"}
    best = json.loads(Path("report/results.json").read_text())["approaches"]
    best_head = min(best, key=lambda one: (-one["metrics"]["accuracy"], one["metrics"]["loss"]))["name"].split(" + ")[1]
    photo = data / "test" / "sea" / "sea.0.jpg"
    said = {
        name: featx("predict", *words, photo, "--json", "--quiet").stdout
        for name, words in {
            "report": ["report"],
            "best": [f"report/runs/vgg16-{best_head}"],
            "logreg": ["report", "--head", "logreg"],
            "logreg run": ["report/runs/vgg16-logreg"],
        }.items()
    }
    assert said["report"] == said["best"]
    assert said["logreg"] == said["logreg run"]
    exported = json.loads(featx("export", "report", "--json").stdout)
    assert exported["head"] == best_head
    assert Path(exported["path"]).parent == Path(f"report/runs/vgg16-{best_head}")
    assert "There is no run in" in featx("predict", data, photo, exit_code=2).output


@pytest.mark.usefixtures("without_rendering")
def test_the_page_is_opened_where_there_is_a_display_only(data, here, featx, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    monkeypatch.setattr("sys.platform", "linux")
    words = ["compare", data, *FAST, *ONE_HEAD, "--open"]
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "Could not open the page" in featx(*words, "--report-dir", "first").stderr
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert "Could not open the page" not in featx(*words, "--report-dir", "second").stderr
    assert opened == [f"file://{here}/second/index.html"]


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "NOTHING"],
        ["compare", "DATA", "--report-dir", "deep/in/a/folder", "--weights", "missing.h5"],
        ["train-top", "DATA", *FAST],
        ["extract", "NOTHING"],
    ],
    ids=["compare", "report-dir", "train-top", "extract"],
)
def test_a_command_that_fails_leaves_no_empty_folders(data, tmp_path, monkeypatch, featx, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    (tmp_path / "empty" / "images").mkdir()
    words = [{"DATA": data, "NOTHING": "images"}.get(word, word) for word in words]
    featx(*words, exit_code=2)
    left = {path.name for path in Path().iterdir()} - {"images"}
    assert left <= {"cache"}
    assert not left or any(path.is_file() and path.stat().st_size for path in Path("cache").iterdir())


def test_without_data_the_sample_is_used_and_said(here, featx):
    words = ["block_2_add" if word == "block2_pool" else word for word in FAST]
    result = featx("extract", *words, "--backbone", "mobilenetv2")
    assert "built-in sample" in result.stderr
    assert "1,797 images in 10 classes (500 training, 1,297 test)" in result.stdout


@pytest.mark.usefixtures("without_rendering")
def test_json_is_the_only_thing_on_stdout(data, here, featx):
    extraction = json.loads(featx("extract", data, *FAST, "--json").stdout)
    assert (extraction["n_computed"], extraction["n_images"]) == (32, 32)
    run = json.loads(featx("train-top", data, *FAST, "--epochs", 1, "--json").stdout)
    assert set(run["accuracy"]) == {"dense", "logreg"}
    comparison = json.loads(featx("compare", data, *FAST, "--epochs", 1, "--json").stdout)
    assert len(comparison["approaches"]) == 2


def test_quiet_says_nothing(data, here, featx):
    assert featx("extract", data, *FAST, "--quiet").output == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extract", "nowhere"], "nowhere"),
        (["extract", "empty"], "no images"),
        (["extract", "DATA", "--weights", "nothing.h5"], "There is no weights file nothing.h5"),
        (["extract", "DATA", "--image-size", "big"], "HEIGHTxWIDTH"),
        (["extract", "DATA", "--backbone", "vgg17"], "'vgg17' is not in the list of featx backbones"),
        (["extract", "DATA", "--weights", "random", "--layer", "top", "--image-size", "32"], "no layer of this name"),
        (["extract", "DATA", "--weights", "random", "--image-size", "8"], "Choose a larger --image-size"),
        (["train-top", "DATA", *FAST], "Make them with: featx extract"),
        (["compare", "DATA", *FAST, "--report-dir", "full"], "is not empty"),
        (["compare", "DATA", *FAST, "--baseline", "report-rnn"], "report-cnn"),
        (["extract", "DATA", *FAST, "--cache-dir", "file"], "file"),
        (["fetch", "sample", "--to", "full"], "full"),
    ],
)
def test_errors_are_one_line_on_stderr_and_exit_code_2(data, here, featx, words, message):
    (here / "empty").mkdir()
    (here / "file").touch()
    (here / "full").mkdir()
    (here / "full" / "something").touch()
    result = featx(*[data if word == "DATA" else word for word in words], exit_code=2)
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not [path for path in here.glob("r*/*") if path.is_dir()]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(("featx: ", "Error: "))


def test_what_is_wrong_with_a_data_set_is_said(data, here, featx):
    content = (data / "train" / "sea" / "sea.0.jpg").read_bytes()
    (data / "test" / "sea" / "leak.jpg").write_bytes(content)
    (data / "train" / "sea" / "notes.txt").write_text("no image")
    stderr = featx("extract", data, *FAST).stderr
    assert "leak.jpg" in stderr
    assert "notes.txt" in stderr


@pytest.mark.usefixtures("without_rendering")
def test_what_featx_has_written_is_not_taken_for_images(make_photos, here, featx):
    (here / "cache" / "networks").unlink()  # featx is to make its cache itself, which marks it
    (here / "cache").rmdir()
    make_photos(here, n_train=20, n_test=0)
    for name in ("sea", "wood"):
        (here / "train" / name).rename(here / name)
    for folder in ("train", "test"):
        shutil.rmtree(here / folder)
    (here / "sea" / "cache").mkdir()  # as if featx had once been started in a class folder
    shutil.copy(next((here / "sea").glob("*.jpg")), here / "sea" / "cache" / "sample.jpg")
    mark_folder(here / "sea" / "cache")
    stderr = featx("compare", ".", *FAST, *ONE_HEAD).stderr
    assert "featx: Left out, because featx made them: 2 folders (reports, sea/cache).\n" in stderr
    assert "sample.jpg" not in stderr
    stderr = featx("compare", ".", *FAST, *ONE_HEAD, "--report-dir", "mine/0").stderr  # beside the first report
    assert "featx: Left out, because featx made them: 4 folders (cache, mine, reports, …).\n" in stderr
    assert "featx: 2 classes, images in .: sea (20), wood (20).\n" in stderr
    reports = [json.loads(path.read_text()) for path in here.glob("*/*/results.json")]
    assert [report["class_names"] for report in reports] == [["sea", "wood"]] * 2
    assert {report["n_train"] + report["n_validation"] + report["n_test"] for report in reports} == {40}
    assert len(list(here.glob("*/*/*.png"))) > 4
    dataset = scan(here, here / "cache")  # beside both
    assert (dataset.class_names, dataset.n_images) == (("sea", "wood"), 40)
    (warning,) = [warning for warning in dataset.warnings if "cache" in warning]
    assert "because featx made it, although there are images in it: 1 folder (sea/cache)" in warning


@pytest.mark.usefixtures("without_rendering")
def test_classes_called_as_featxs_own_folders_are_classes(make_photos, here, new_cache, featx):
    (here / "cache").rename(here.parent / "cache elsewhere")
    names, elsewhere = ("cache", "reports", "runs"), ["--cache-dir", here.parent / "cache elsewhere"]
    make_photos(here, classes=names, n_train=20, n_test=0)
    for name in names:
        (here / "train" / name).rename(here / name)
        (here / name / ".featx-output").touch()  # as an earlier featx did
    for folder in ("train", "test"):
        shutil.rmtree(here / folder)
    images = sorted(here.glob("*/*.jpg"))
    for _ in range(2):
        stderr = featx("compare", ".", *FAST, *ONE_HEAD, *elsewhere).stderr
        assert "featx: 3 classes, images in .: cache (20), reports (20), runs (20).\n" in stderr
    featx("train-top", ".", *FAST, *ONE_HEAD, *elsewhere)
    reports = [json.loads(path.read_text()) for path in here.glob("reports/*/results.json")]
    assert [report["class_names"] for report in reports] == [list(names)] * 2
    assert len(list(here.glob("runs/*/metrics.json"))) == 1
    dataset = scan(here, here.parent / "cache elsewhere")
    assert (dataset.class_names, dataset.n_images) == (names, 60)
    for command in ("compare", "train-top", "extract", "plan"):  # the default cache is a class
        result = featx(command, ".", *FAST, exit_code=2)
        assert "The cache cannot be in cache, where images lie, such as cache.0.jpg: choose another" in result.stderr
    assert sorted(here.glob("*/*.jpg")) == images
    assert {path.name for path in (here / "cache").iterdir() if path.suffix != ".jpg"} == {".featx-output"}


def test_letters_that_a_terminal_lacks_do_not_cost_the_result(data, cache):
    words = ["extract", data, *FAST, "--cache-dir", cache]
    (data / "train" / "sea" / "страница 🐈.jpg").write_bytes(b"no image")
    result = run_process(*words, PYTHONIOENCODING="latin-1")
    assert result.returncode == 0, result.stderr


@pytest.mark.usefixtures("without_rendering")
def test_names_from_the_file_system_cannot_write_to_the_terminal(here, featx, make_photos):
    data = make_photos(here / "da\x1b[31mta\n", classes=("se\x1b[2Ja", "wood"))
    (data / "train" / "wood" / "bad\x1b[2J\n.jpg").write_bytes(b"no image")
    result = featx("extract", data, *FAST)
    assert "\x1b" not in result.output
    assert r"bad\x1b[2J\n.jpg" in result.stdout
    result = featx("compare", data, *FAST, *ONE_HEAD)
    assert "\x1b" not in result.output


def run_process(*words: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "featx", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_only_featx_speaks(data, tmp_path, cache):
    for words in (["extract"], ["train-top", "--run-dir", tmp_path / "run"]):
        result = run_process(*words, data, *FAST, "--cache-dir", cache)
        assert result.returncode == 0
        lines = result.stderr.splitlines()
        assert lines[0].startswith("featx: 2 classes, images in ")
        # A bar if it is slow; and the waves on these images may be taken for the same photograph.
        said = r"featx: Converting vgg16|featx: warning: Test images that show the same|[\w ]+: +\d+%"
        assert all(re.match(said, line) for line in lines[1:])


def test_warm_extraction_loads_neither_tensorflow_nor_scikit_learn(data, cache, featx):
    words = ["extract", str(data), *FAST, "--cache-dir", str(cache)]
    featx(*words)
    script = (
        "import sys\n"
        "from featx.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "slow = {'tensorflow', 'keras', 'openvino', 'sklearn', 'scipy', 'matplotlib', 'jax', 'torch'}\n"
        "slow &= set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert "0 computed, 32 from the cache" in result.stdout


def commands(group: click.Group = featx.cli.main.main) -> list[click.Command]:
    """Return all commands that do something, those below others too."""
    below = group.commands.values()
    return [c for command in below for c in (commands(command) if isinstance(command, click.Group) else [command])]


def test_command_bodies_are_short():
    for command in commands():
        function = ast.parse(inspect.getsource(inspect.unwrap(command.callback))).body[0]
        first = function.body[1]  # after the docstring
        assert function.end_lineno - first.lineno + 1 <= 15, f"{command.name} does too much"


def test_every_command_has_an_example():
    for command in commands():
        assert re.search(rf"featx (cache )?{command.name}", command.help)
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, f"{command.name} {option.name} lacks help"
