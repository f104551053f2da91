"""Ctrl-C and SIGTERM to real `featx` commands: one line that says how to go on, and nothing finished is lost."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.chaos import fault_points as points
from tests.chaos import processes
from tests.chaos.fault_points import Fault
from tests.chaos.processes import Process
from tests.chaos.scenario import BATCH_SIZE, OPTION_WORDS, Rows, extract
from tests.chaos.tally import chosen

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SIGNALS = sorted(EXIT_CODES)

GO_ON = "featx: stopped; finished work is kept. Run it again to resume.\n"
NOTHING_BEGUN = "featx: stopped before anything was started.\n"


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "featx", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what is on stderr."""
    _, stderr = process.communicate(timeout=processes.TIMEOUT_S)
    return process.returncode, stderr


def assert_stopped(number: int, code: int, stderr: str) -> None:
    """Assert that a process has ended as it should after a signal."""
    assert code in {EXIT_CODES[number], -number}, stderr
    if code == -number and "featx: stopped" not in stderr:  # Python had not yet come to featx's code, or had left it
        assert "/featx/" not in stderr
        return
    # Where Ctrl-C has hit an exec() of the standard library, Python ends with the signal itself: 130 to a shell.
    assert code == EXIT_CODES[number] or number == signal.SIGINT
    *warnings, last = stderr.splitlines(keepends=True)
    assert all(line.startswith("featx: warning: ") for line in warnings)
    assert last in {GO_ON, NOTHING_BEGUN}


@pytest.fixture(scope="module")
def command_s(scenario, tmp_path_factory) -> float:
    """Seconds that the command takes when nobody disturbs it."""
    cache = scenario.new_cache(tmp_path_factory.mktemp("signals") / "cache")
    started = time.monotonic()
    assert finished(start("extract", scenario.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS)) == (0, "")
    return time.monotonic() - started


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("attempt", range(chosen(full=10, quick=2)))
def test_a_signal_at_any_time_is_one_line_and_the_next_run_completes(
    scenario, cache, tally, command_s, number, attempt
):
    rng = random.Random(1000 * number + attempt)
    words = ["extract", scenario.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS]
    process = start(*words)
    time.sleep(rng.uniform(0, command_s))
    process.send_signal(number)
    code, stderr = finished(process)
    if code:
        tally.signals[f"extract, any time: {signal.Signals(number).name}"] += 1
        assert_stopped(number, code, stderr)
    on_disk = tally.assert_sound(scenario, cache, Rows())
    scenario.assert_nothing_damaged(cache)
    extraction = extract(scenario.data, cache)
    assert (extraction.n_cached, extraction.n_computed) == (len(on_disk), len(scenario.reference) - len(on_disk))
    tally.assert_whole(scenario, cache)


#: Where the signal comes, and how many images are finished then, at least: what is under way is finished, too.
SIGNAL_POINTS = {
    "scan": (points.LIST_FOLDER, 2, 0),
    "digest": (points.HASH, 3, 0),
    "stat cache": (points.REMEMBER, 1, 0),
    "start": (points.COMPILE, 1, 0),
    "decode": (points.DECODE, 30, 0),
    "first batch": (points.SUBMIT, 1, BATCH_SIZE),
    "batch 5": (points.SUBMIT, 5, 5 * BATCH_SIZE),
    "batch 20": (points.SUBMIT, 20, 20 * BATCH_SIZE),
    "callback": (points.TAKE, 7, 7 * BATCH_SIZE),
    "add": (points.ADD, 9, 9 * BATCH_SIZE),
    "segment": (points.WRITE_SEGMENT, 3, 24),
    "fsync": (points.FSYNC, 5, 16),
    "rename": (points.RENAME, 5, 32),
    "last segment": (points.WRITE_SEGMENT, 12, 88),
    "publish": (points.PUBLISH, 1, 96),
    "features.h5": (points.WRITE_VIRTUAL, 1, 96),
}


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", SIGNAL_POINTS if chosen(full=1, quick=0) else list(SIGNAL_POINTS)[::3])
def test_a_signal_at_a_named_point_keeps_the_batches_that_are_finished(
    scenario, server, cache, tmp_path, tally, number, name
):
    point, nth, n_finished = SIGNAL_POINTS[name]
    fault = Fault(point, nth, action=functools.partial(signal_self, number))
    words = ["extract", str(scenario.data), "--cache-dir", str(cache), "--quiet", *OPTION_WORDS]
    process = Process(processes.command_line, words, [fault], log_path=tmp_path / "log")
    code = process.wait()
    tally.signals[f"extract, {name}: {signal.Signals(number).name}"] += 1
    assert_stopped(number, code, process.log)
    on_disk = tally.assert_sound(scenario, cache, Rows())
    scenario.assert_nothing_damaged(cache)
    assert len(on_disk) >= n_finished
    if on_disk and name not in {"publish", "features.h5"}:
        timings = json.loads((scenario.store_dir(cache) / "timings.json").read_text())
        assert timings["n_images"] == len(on_disk)
    assert extract(scenario.data, cache).n_computed == len(scenario.reference) - len(on_disk)
    tally.assert_whole(scenario, cache)
    scenario.assert_no_leftovers(cache)


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)


def has_only_whole_runs(report: Path) -> bool:
    """Return whether a report folder has nothing but whole runs: what a comparison keeps of its work."""
    runs = list(report.glob("runs/*"))
    is_alone = [path.name for path in report.iterdir()] == ["runs"]
    return is_alone and bool(runs) and all((run / "metrics.json").exists() for run in runs)


STAGE_TWO = {
    "train-top": (["train-top"], "--run-dir", "metrics.json"),
    "compare": (["compare", "--baseline", "report-dnn"], "--report-dir", "results.json"),
}


@pytest.mark.parametrize("name", STAGE_TWO)
@pytest.mark.parametrize("attempt", range(chosen(full=4, quick=1)))
def test_stage_two_stops_with_one_line_and_leaves_no_half_written_folder(
    scenario, cache, tmp_path, tally, name, attempt
):
    extract(scenario.data, cache)
    words, option, last_file = STAGE_TWO[name]
    number = SIGNALS[(attempt + (name == "compare")) % 2]
    folder = tmp_path / "folder"
    process = start(
        *words, scenario.data, "--cache-dir", cache, option, folder, "--quiet", "--epochs", "500", *OPTION_WORDS[:-2]
    )
    time.sleep(random.Random(f"{name} {attempt}").uniform(0.3, 12))
    process.send_signal(number)
    code, stderr = finished(process)
    if code:
        tally.signals[f"{name}: {signal.Signals(number).name}"] += 1
        assert_stopped(number, code, stderr)
        is_whole = not folder.exists() or (folder / last_file).exists()
        assert is_whole or (name == "compare" and has_only_whole_runs(folder))
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]
    else:
        assert (folder / last_file).exists()
    assert [path.name for path in cache.iterdir() if path.name.startswith("tmp")] == []
    tally.assert_whole(scenario, cache)


#: Runs the command line as `python -m featx` does, and sends it SIGINT twice.
_TWICE = """
import functools, sys
from tests.chaos import fault_points, processes, test_signals
delay_s = float(sys.argv[1])
fault = fault_points.Fault(fault_points.SUBMIT, 3, action=functools.partial(
    test_signals.signal_twice, delay_s))
processes.command_line(sys.argv[2:], [fault])
"""


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 20, 40, 80, 160] if chosen(full=1, quick=0) else [0, 10])
def test_impatience_is_one_line_too(scenario, cache, tally, delay_ms):
    words = ["extract", scenario.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS]
    process = subprocess.Popen(
        [sys.executable, "-c", _TWICE, str(delay_ms / 1000), *map(str, words)],
        cwd=processes.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, stderr = finished(process)
    tally.signals["extract, twice: SIGINT"] += 1
    assert_stopped(signal.SIGINT, code, stderr)
    tally.assert_sound(scenario, cache, Rows())
    extract(scenario.data, cache)
    tally.assert_whole(scenario, cache)


#: Runs the command line; Ctrl-C comes while click looks at its words, before the command is called.
_WHILE_PARSING = """
import os, sys
import click
from featx.__main__ import run

real = click.Command.parse_args

def parse_args(*args):
    os.kill(os.getpid(), number)
    return real(*args)

click.Command.parse_args = parse_args
number = int(sys.argv.pop(1))
run()
"""


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_the_words_are_parsed_is_one_line(scenario, cache, tally, number):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _WHILE_PARSING,
            str(int(number)),
            "extract",
            str(scenario.data),
            "--cache-dir",
            str(cache),
        ],
        cwd=processes.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, stderr = finished(process)
    tally.signals[f"words being parsed: {signal.Signals(number).name}"] += 1
    assert_stopped(number, code, stderr)


#: Runs the command line; a signal comes while a module in C++ is loaded, which makes an ImportError of it.
_SWALLOWED = """
import importlib.abc, os, sys

class Swallower(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt:
                pass
            raise ImportError("initialization failed")

number, module = int(sys.argv.pop(1)), sys.argv.pop(1)
sys.meta_path.insert(0, Swallower())
from featx.__main__ import run
run()
"""


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("module", "engine"), [("optree", "keras"), ("openvino._pyopenvino", "openvino")])
def test_a_signal_that_a_loading_module_swallows_takes_effect_all_the_same(
    scenario, cache, tally, number, module, engine
):
    words = ["extract", scenario.data, "--cache-dir", cache, *OPTION_WORDS, "--engine", engine]
    process = subprocess.Popen(
        [sys.executable, "-c", _SWALLOWED, str(int(number)), module, *map(str, words)],
        cwd=processes.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, stderr = finished(process)
    tally.signals[f"{module} being loaded: {signal.Signals(number).name}"] += 1
    assert_stopped(number, code, stderr[stderr.index("featx: stopped") :])


def signal_twice(delay_s: float) -> None:
    threading.Thread(target=_signal_later, args=[delay_s], daemon=True).start()
    signal_self(signal.SIGINT)


def _signal_later(delay_s: float) -> None:
    time.sleep(delay_s)
    signal_self(signal.SIGINT)
