"""Standard streams that are closed, full or shared with others: every command in a fresh process."""

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEATX = f"{shlex.quote(sys.executable)} -m featx"
FAST = ["--weights", "random", "--image-size", "32", "--layer", "block1_pool", "--pooling", "avg"]


@pytest.fixture
def words(make_photos, tmp_path, cache, featx) -> str:
    """Say to extract a few photos, which has been done before."""
    data = make_photos(tmp_path / "data", n_train=2, n_test=1)
    featx("extract", data, *FAST, "--cache-dir", cache)
    return shlex.join(["extract", str(data), *FAST, "--cache-dir", str(cache)])


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_closed_standard_error_or_input_changes_nothing_else(words, closed):
    done = shell(f"{FEATX} {words} {closed}")
    assert done.returncode == 0, done
    assert "6 from the cache" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_an_error_without_standard_error_has_its_exit_code(tmp_path, closed):
    done = shell(f"{FEATX} extract {tmp_path}/nowhere/ {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("where", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_output_that_cannot_be_printed_is_one_line_and_exit_code_2(words, where, reason):
    for command in (words, f"{words} --json", "--help"):
        done = shell(f"{FEATX} {command} {where}")
        assert done.returncode == 2, done
        assert done.stderr.splitlines()[-1] == f"featx: Cannot write the result to standard output: {reason}."
        assert "Traceback" not in done.stderr


def test_predict_without_standard_output_or_input_is_one_line(make_photos, tmp_path, cache, featx):
    data = make_photos(tmp_path / "data", n_train=6, n_test=2)
    run = tmp_path / "run"
    featx("extract", data, *FAST, "--cache-dir", cache)
    featx("train-top", data, *FAST, "--cache-dir", cache, "--run-dir", run, "--epochs", 1)
    photo = data / "test" / "sea" / "sea.0.jpg"
    predict = f"{FEATX} predict {run} --cache-dir {cache}"
    done = shell(f"{predict} {photo} >&-")
    assert done.returncode == 2
    assert done.stderr == "featx: Cannot write the result to standard output: Bad file descriptor.\n"
    done = shell(f"{predict} - <&-")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_error(words):
    done = shell(f"{FEATX} {words} --json | head -c 1")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


#: Two threads that use featx for the first time at once, as a library; then the process says something on stderr.
TWO_THREADS = """
import sys, threading
from pathlib import Path
import featx

def extract(engine):
    done.append(featx.extract_features(
        Path(sys.argv[1]), cache_dir=Path(sys.argv[2]) / engine, weights="random", image_size=(32, 32),
        layer="block1_pool", pooling="avg", engine=engine,
    ).n_computed)

done = []
threads = [threading.Thread(target=extract, args=[engine]) for engine in ("keras", "openvino")]
for thread in threads: thread.start()
for thread in threads: thread.join()
import os
os.write(2, b"still here\\n")
print(done, os.fstat(2) == os.fstat(1), threading.active_count())
"""


def test_two_threads_that_use_featx_for_the_first_time_leave_the_descriptors_alone(make_photos, tmp_path):
    data = make_photos(tmp_path / "data", n_train=2, n_test=1)
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS, data, tmp_path / "caches"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
    assert "still here\n" in done.stdout
    assert "[6, 6] True" in done.stdout
    assert "Traceback" not in done.stdout


def test_no_module_of_the_library_redirects_a_descriptor():
    """The command's own process, and the process of a trial, are featx's alone."""
    allowed = {"cli/streams.py", "extract/planning/trial.py"}
    found = {path for path in (ROOT / "featx").rglob("*.py") if "dup2" in path.read_text(encoding="utf-8")}
    assert {path.relative_to(ROOT / "featx").as_posix() for path in found} == allowed


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_nothing_but_featx_speaks_on_the_terminal(make_photos, tmp_path, engine):
    data = make_photos(tmp_path / "data", n_train=2, n_test=1)
    words = ["extract", str(data), *FAST, "--cache-dir", str(tmp_path / "cache"), "--engine", engine, "--quiet"]
    done = shell(f"{FEATX} {shlex.join(words)}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_block_in_which_nothing_is_heard_ends_with_the_descriptor_it_began_with(capfd):
    from featx.cli.streams import silent_stderr

    before = os.fstat(2)

    def shout() -> None:
        for _ in range(200):
            with silent_stderr():
                os.write(2, b"noise")

    threads = [threading.Thread(target=shout) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.fstat(2) == before
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
