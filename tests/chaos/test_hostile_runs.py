"""Runs that somebody made up: a sentence or right probabilities; no traceback, no hang, no bomb, no file outside."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.train.train import train_top
from tests.chaos.hostile_runs import Bait
from tests.chaos.tally import chosen
from tests.conftest import SMALL, write_photos

N_CASES = chosen(full=6500, quick=280)

#: No run takes longer to be refused or used. They take a tenth of a second: the machine may do other things.
LIMIT_S = 30.0

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_cache) -> Path:
    """A data set, a cache with its features, and a sound run."""
    folder: Path = tmp_path_factory.mktemp("hostile-runs")
    data = write_photos(folder / "data", n_train=40, n_test=6, classes=("sea", "sky", "wood"))
    new_cache(folder / "cache")
    extract_features(data, cache_dir=folder / "cache", **SMALL)
    training = Training(epochs=3)
    train_top(data, heads=["dense"], run_dir=folder / "sound", cache_dir=folder / "cache", training=training, **SMALL)
    return folder


def test_a_run_that_somebody_made_up_is_refused_in_a_line_or_used_as_it_says(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.hostile_runs", folder, "0", str(N_CASES)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    problems, tried, doing = [], {}, ""
    with process:
        for line in lines_in_time(process):
            word, *rest = line.split(" ", 3)
            if word == "trying":
                doing = " ".join(rest)
            elif word == "tried":
                tried[int(rest[0])] = float(rest[1])
                if rest[2].strip():
                    problems.append(f"{doing}: {rest[2]}")
            else:
                problems.append(f"{doing}: said {line}")
    assert problems == []
    assert len(tried) == N_CASES, f"ended, or took more than {LIMIT_S} s, at: {doing}"


def lines_in_time(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what a process prints; it is killed if it says nothing for too long."""
    assert process.stdout
    while True:
        timer = Timer(LIMIT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            return
        yield line.rstrip("\n")


def test_the_bait_would_tell(tmp_path):
    """Otherwise the test above would not see that a file outside the run is read."""
    bait = Bait(tmp_path / "bait")
    bait.path.write_bytes(np.zeros(100).tobytes())
    bait.set_up()
    assert not bait.is_read
    bait.path.read_bytes()
    if not bait.is_read:
        pytest.skip("this file system does not write when files were read")
