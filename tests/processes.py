"""Processes of commands, forked from one that has loaded TensorFlow already.

To load TensorFlow takes five seconds of processor time. Tests whose subject is the outcome of several commands, each in
a process of its own, run them as forks of one process that has imported everything and has done nothing else: no engine
is started, and no thread. Where the subject is a fresh process itself (what it imports, how it starts, what it prints
meanwhile, how it ends), tests start one with `subprocess`. The chaos suite has a fork server of its own, without
TensorFlow, which calls functions with faults in them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

#: Runs the command line, as `python -m featx` does.
FEATX = "from featx.__main__ import run; run()"

#: Reads jobs, one a line: a folder for the output, the source of a program and its `sys.argv`. Answers with exit codes.
_SERVER = """
import json, os, sys
from pathlib import Path
from featx.cli import main
from featx.cli.streams import silent_stderr
from featx.system import hide_with, import_keras, import_openvino
hide_with(silent_stderr)
import_openvino()
import_keras()
threads = Path("/proc/self/task")
assert not threads.exists() or len(list(threads.iterdir())) == 1, "a fork would be without the other threads"
jobs = os.fdopen(os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for line in jobs:
    folder, program, argv = json.loads(line)
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = argv
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    sys.exit()
os._exit(0)  # at once: to take TensorFlow apart takes a while
"""


class ForkServer:
    """A process that has loaded TensorFlow, and runs each program in a fork of itself.

    Libraries read some variables of the environment when they are imported: so a server has one environment and one
    working folder, for itself and all its forks.
    """

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, program: str, *argv: object) -> "subprocess.CompletedProcess[str]":
        """Run a program, Python source, with this `sys.argv`, as `python -c` does; wait for its end."""
        assert self._process.stdin
        assert self._process.stdout
        with TemporaryDirectory() as folder:
            job = [folder, program, list(map(str, argv))]
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            assert code, "the fork server has ended"
            stdout, stderr = (Path(folder, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(argv, int(code), stdout, stderr)
