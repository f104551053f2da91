"""Thousands of stores that somebody has tampered with: no wrong row, no traceback, no hang, and no harm to the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.hostile_stores import KINDS
from tests.chaos.tally import chosen

ROOT = Path(__file__).parents[2]

#: Processes one after the other; in each, cases of every kind.
N_PARTS = chosen(full=20, quick=2)
CASES_PER_PART = chosen(full=150, quick=len(KINDS) * 3)


@pytest.mark.parametrize("part", range(N_PARTS))
def test_hostile_stores_harm_nobody_within_bounds_of_time_and_memory(tmp_path, part):
    first = part * CASES_PER_PART
    words = [sys.executable, "-m", "tests.chaos.hostile_stores", tmp_path, str(first), str(first + CASES_PER_PART)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    cases = done.stdout.splitlines()
    assert done.returncode == 0, f"{cases[-1:]}\n{done.stderr[-5000:]}"
    assert len(cases) == CASES_PER_PART
