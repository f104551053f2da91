"""Real Ray nodes on this machine: processes that are started, killed, and always ended."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: A node takes ten seconds to start here.
TIMEOUT_S = 90


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so, and fail after a while."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come in {TIMEOUT_S} s")
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid` that are alive, nearest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for process in found:  # which grows meanwhile
        found += children.get(process, [])
    return found[1:]


def kill(pids: Sequence[int]) -> None:
    """End processes with SIGKILL."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Node:
    """One node of a cluster: `ray start --block`, in a folder of its own."""

    def __init__(self, *words: str) -> None:
        """Begin to start it, with these words after `ray start`."""
        # Not pytest's folder: the paths of sockets have to be short.
        self._dir = tempfile.mkdtemp(prefix="fx-ray-")
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *words, "--temp-dir", self._dir]
        small = ["--object-store-memory", "80000000", "--disable-usage-stats"]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._log = Path(self._dir, "said")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *small],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    def has_started(self) -> bool:
        """Return whether it belongs to the cluster by now."""
        assert self.process.poll() is None, self._log.read_text()
        return "Ray runtime started" in self._log.read_text()

    @property
    def is_alive(self) -> bool:
        """Whether it has not been killed."""
        return self.process.poll() is None

    def workers(self) -> list[int]:
        """Return the processes of featx's workers on this node."""
        return [pid for pid in descendants(self.process.pid) if _title(pid).startswith("ray::Worker")]

    def cpu_s(self) -> dict[int, float]:
        """Return the processor seconds that each of its processes has used."""
        return {pid: _cpu_s(pid) for pid in [self.process.pid, *descendants(self.process.pid)]}

    def kill(self) -> None:
        """End all of its processes with SIGKILL, as a power cut would."""
        everything = [*descendants(self.process.pid), self.process.pid]
        kill(everything)
        self.process.wait(TIMEOUT_S)

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # user and system, see proc(5)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


class LocalCluster:
    """A head without cores for workers, and two nodes with one core each."""

    def __init__(self) -> None:
        """Start it, and wait until it is there."""
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.head = Node("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false")
        self.nodes: list[Node] = []
        try:
            wait_until(self.head.has_started, "the head")
            self.complete()
        except BaseException:
            self.remove()
            raise

    def complete(self) -> None:
        """Start nodes in place of those that were killed."""
        for node in [node for node in self.nodes if not node.is_alive]:
            self.nodes.remove(node)
            node.remove()
        while len(self.nodes) < 2:
            self.nodes.append(Node("--address", self.address, "--num-cpus", "1"))
        for node in self.nodes:
            wait_until(node.has_started, "a node")

    def workers(self) -> list[int]:
        """Return the processes of featx's workers."""
        return [pid for node in self.nodes for pid in node.workers()]

    def cpu_s(self) -> dict[int, float]:
        """Return the processor seconds that each process of all nodes has used."""
        return {pid: used for node in [*self.nodes, self.head] for pid, used in node.cpu_s().items()}

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        for node in [*self.nodes, self.head]:
            node.remove()
