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

import pytest

from tests.chaos import victims
from tests.chaos.moments import EXTRACTION, Moment, Shot
from tests.chaos.tally import chosen
from tests.chaos.victims import Victim
from tests.chaos.world import BATCH_SIZE, OPTION_WORDS, Rows, extract

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SIGNALS = sorted(EXIT_CODES)

GO_ON = "featx: stopped; what was finished is kept. Run the same command again to go on.\n"
NOTHING_BEGUN = "featx: stopped; nothing was begun.\n"


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "featx", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what is on stderr."""
    _, stderr = process.communicate(timeout=victims.TIMEOUT_S)
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
def command_s(world, tmp_path_factory) -> float:
    """Seconds that the command takes when nobody disturbs it."""
    cache = world.new_cache(tmp_path_factory.mktemp("signals") / "cache")
    started = time.monotonic()
    assert finished(start("extract", world.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS)) == (0, "")
    return time.monotonic() - started


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("attempt", range(chosen(full=10, quick=2)))
def test_a_signal_at_any_time_is_one_line_and_the_next_run_completes(world, cache, tally, command_s, number, attempt):
    rng = random.Random(1000 * number + attempt)
    words = ["extract", world.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS]
    process = start(*words)
    time.sleep(rng.uniform(0, command_s))
    process.send_signal(number)
    code, stderr = finished(process)
    if code:
        tally.signals[f"extract, any time: {signal.Signals(number).name}"] += 1
        assert_stopped(number, code, stderr)
    on_disk = tally.assert_sound(world, cache, Rows())
    world.assert_nothing_damaged(cache)
    extraction = extract(world.data, cache)
    assert (extraction.n_cached, extraction.n_computed) == (len(on_disk), len(world.reference) - len(on_disk))
    tally.assert_whole(world, cache)


def _at(name: str) -> Moment:
    return next(moment for moment in EXTRACTION if moment.target.endswith(name))


#: Where the signal comes, and how many images are finished then, at least: what is under way is finished, too.
MOMENTS = {
    "scan": (_at(":list_folder"), 2, 0),
    "digest": (_at(":_hash_several"), 3, 0),
    "stat cache": (_at("StatCache.remember"), 1, 0),
    "start": (_at(":_compile"), 1, 0),
    "decode": (_at(":_decode"), 30, 0),
    "first batch": (_at("OpenVinoEngine.submit"), 1, BATCH_SIZE),
    "batch 5": (_at("OpenVinoEngine.submit"), 5, 5 * BATCH_SIZE),
    "batch 20": (_at("OpenVinoEngine.submit"), 20, 20 * BATCH_SIZE),
    "callback": (_at("_Batch.take"), 7, 7 * BATCH_SIZE),
    "add": (_at("SegmentWriter.add"), 9, 9 * BATCH_SIZE),
    "segment": (_at(":write_segment_file"), 3, 24),
    "fsync": (_at("os:fsync"), 5, 16),
    "rename": (_at("Path.replace"), 5, 32),
    "last segment": (_at(":write_segment_file"), 12, 88),
    "publish": (_at("FeatureStore.publish"), 1, 96),
    "features.h5": (_at(":write_virtual_dataset"), 1, 96),
}


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", MOMENTS if chosen(full=1, quick=0) else list(MOMENTS)[::3])
def test_a_signal_at_a_named_moment_keeps_the_batches_that_are_finished(
    world, server, cache, tmp_path, tally, number, name
):
    moment, nth, n_finished = MOMENTS[name]
    shot = Shot(moment, nth, action=functools.partial(signal_self, number))
    words = ["extract", str(world.data), "--cache-dir", str(cache), "--quiet", *OPTION_WORDS]
    victim = Victim(victims.command_line, words, [shot], log_path=tmp_path / "log")
    code = victim.wait()
    tally.signals[f"extract, {name}: {signal.Signals(number).name}"] += 1
    assert_stopped(number, code, victim.log)
    on_disk = tally.assert_sound(world, cache, Rows())
    world.assert_nothing_damaged(cache)
    assert len(on_disk) >= n_finished
    if on_disk and name not in {"publish", "features.h5"}:
        timings = json.loads((world.store_dir(cache) / "timings.json").read_text())
        assert timings["n_images"] == len(on_disk)
    assert extract(world.data, cache).n_computed == len(world.reference) - len(on_disk)
    tally.assert_whole(world, cache)
    world.assert_no_leftovers(cache)


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)


STAGE_TWO = {
    "train-top": (["train-top"], "--run-dir", "metrics.json"),
    "compare": (["compare", "--baseline", "report-dnn"], "--report-dir", "results.json"),
}


@pytest.mark.parametrize("name", STAGE_TWO)
@pytest.mark.parametrize("attempt", range(chosen(full=4, quick=1)))
def test_stage_two_stops_with_one_line_and_leaves_no_half_written_folder(world, cache, tmp_path, tally, name, attempt):
    extract(world.data, cache)
    words, option, last_file = STAGE_TWO[name]
    number = SIGNALS[(attempt + (name == "compare")) % 2]
    folder = tmp_path / "folder"
    process = start(
        *words, world.data, "--cache-dir", cache, option, folder, "--quiet", "--epochs", "500", *OPTION_WORDS[:-2]
    )
    time.sleep(random.Random(f"{name} {attempt}").uniform(0.3, 12))
    process.send_signal(number)
    code, stderr = finished(process)
    if code:
        tally.signals[f"{name}: {signal.Signals(number).name}"] += 1
        assert_stopped(number, code, stderr)
        assert not folder.exists() or (folder / last_file).exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]
    else:
        assert (folder / last_file).exists()
    assert [path.name for path in cache.iterdir() if path.name.startswith("tmp")] == []
    tally.assert_whole(world, cache)


#: Runs the command line as `python -m featx` does, and sends it SIGINT twice.
_TWICE = """
import functools, sys
from tests.chaos import test_signals, victims
delay_s = float(sys.argv[1])
shot = test_signals.Shot(test_signals._at("OpenVinoEngine.submit"), 3, action=functools.partial(
    test_signals.signal_twice, delay_s))
victims.command_line(sys.argv[2:], [shot])
"""


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 20, 40, 80, 160] if chosen(full=1, quick=0) else [0, 10])
def test_impatience_is_one_line_too(world, cache, tally, delay_ms):
    words = ["extract", world.data, "--cache-dir", cache, "--quiet", *OPTION_WORDS]
    process = subprocess.Popen(
        [sys.executable, "-c", _TWICE, str(delay_ms / 1000), *map(str, words)],
        cwd=victims.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, stderr = finished(process)
    tally.signals["extract, twice: SIGINT"] += 1
    assert_stopped(signal.SIGINT, code, stderr)
    tally.assert_sound(world, cache, Rows())
    extract(world.data, cache)
    tally.assert_whole(world, cache)


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
def test_a_signal_while_the_words_are_parsed_is_one_line(world, cache, tally, number):
    process = subprocess.Popen(
        [sys.executable, "-c", _WHILE_PARSING, str(int(number)), "extract", str(world.data), "--cache-dir", str(cache)],
        cwd=victims.ROOT,
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
def test_a_signal_that_a_loading_module_swallows_takes_effect_all_the_same(world, cache, tally, number, module, engine):
    words = ["extract", world.data, "--cache-dir", cache, *OPTION_WORDS, "--engine", engine]
    process = subprocess.Popen(
        [sys.executable, "-c", _SWALLOWED, str(int(number)), module, *map(str, words)],
        cwd=victims.ROOT,
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
