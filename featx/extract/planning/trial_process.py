"""A trial in a process of its own: started, waited for, ended; what it died of is a reason."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, printable
from featx.extract.planning.trial_job import TrialJob

#: A trial that takes longer is given up.
LIMIT_S = 600.0

#: How often somebody who waits is told that it goes on.
TICK_S = 1.0

#: How long a trial has to put away what it has begun.
GRACE_S = 5.0


def run_trial(job: TrialJob, tick: Callable[[], object]) -> dict[str, Any]:
    """Return the answer of a trial; `tick` is called while it runs.

    Raises:
        FeatxError: it cannot be done here, or has failed; the message is the reason.
    """
    errors_path = job.work_dir / "errors.txt"
    with errors_path.open("wb") as errors:
        # A session of its own: Ctrl-C is for the process that waits, and ends the trial with it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "featx.extract.planning.trial"],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            env=_environment(job.work_dir),
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(job.to_json().encode("ascii") + b"\n")
            process.stdin.flush()
        _wait(process, tick)
        if process.returncode:
            raise FeatxError(_cause(process.returncode, errors_path))
    finally:
        _end(process)
    answer: dict[str, Any] = json.loads(job.answer_path.read_text(encoding="utf-8"))
    if "error" in answer:
        raise FeatxError(answer["error"])
    return answer


def _wait(process: "subprocess.Popen[bytes]", tick: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise FeatxError(f"It was given up after {LIMIT_S / 60:.0f} minutes.")
        with suppress(subprocess.TimeoutExpired):
            process.wait(TICK_S)
        tick()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See to it that the process has ended, and has put away what it had begun."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()
    process.communicate()


def _environment(work_dir: Path) -> dict[str, str]:
    """Return the environment of a trial: it finds this featx, and what it writes for a while goes with `work_dir`."""
    spec = importlib.util.find_spec("featx")
    assert spec is not None
    assert spec.origin is not None
    found = [str(Path(spec.origin).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found)), "TMPDIR": str(work_dir.resolve())}


def _cause(returncode: int, errors_path: Path) -> str:
    """Return what a process died of: a signal, or the last line that it wrote."""
    if returncode < 0:
        return f"Its process was ended by the signal {signal.Signals(-returncode).name}."
    lines = errors_path.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"code {returncode}")
    return f"Its process failed: {printable(last.strip())[:300]}"
