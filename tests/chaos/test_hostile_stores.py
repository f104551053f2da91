"""Thousands of stores that somebody has tampered with: no wrong row, no traceback, no hang, and no harm to the rest."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.hostile_stores import KINDS
from tests.chaos.tally import chosen

ROOT = Path(__file__).parents[2]

#: Processes side by side; each works through cases of every kind.
N_PROCESSES = 2
N_CASES = chosen(full=1500, quick=len(KINDS) * 2)


def test_hostile_stores_harm_nobody_within_bounds_of_time_and_memory(tmp_path):
    share = N_CASES // N_PROCESSES
    parts = [range(first, first + share) for first in range(0, N_CASES, share)]
    processes = [start(tmp_path / str(part.start), part) for part in parts]
    answers = [process.communicate() for process in processes]
    for process, part, (cases, errors) in zip(processes, parts, answers, strict=True):
        assert process.returncode == 0, f"{cases.splitlines()[-1:]}\n{errors[-5000:]}"
        assert len(cases.splitlines()) == len(part)


def start(folder: Path, part: range) -> subprocess.Popen[str]:
    """Begin with the cases of these numbers; the process ends with the first one that fails or takes too long."""
    folder.mkdir()
    words = [sys.executable, "-m", "tests.chaos.hostile_stores", folder, str(part.start), str(part.stop)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
