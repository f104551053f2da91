"""Real featx processes for faults to happen in, forked from a server that has imported everything already."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import scenario
from tests.chaos.fault_points import (
    ADD,
    COMPACTION,
    CRUMB_BYTES,
    EXTRACTION,
    SEGMENT_BYTES,
    SMALL_BYTES,
    TARGET_BYTES,
    Fault,
    FaultPoint,
    Hooks,
    replace,
)

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")

#: A process that takes longer hangs.
TIMEOUT_S = 120


def start_server() -> None:
    """Start the fork server; without this, the first process of a test would wait for its imports."""
    CONTEXT.set_forkserver_preload(["tests.chaos.preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    try:
        Process(_nothing).wait()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _nothing() -> None:
    pass


class Process:
    """A process that runs `function(*arguments)`; what it prints goes to the pipe `log_path`, and can be read here.

    To a pipe, since a file would be as full as any other where the disk is.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any, log_path: Path | None = None) -> None:
        self._log = b""
        self._pipe: int | None = None
        if log_path:
            log_path.unlink(missing_ok=True)
            os.mkfifo(log_path)
            self._pipe = os.open(log_path, os.O_RDONLY | os.O_NONBLOCK)
        self._process = CONTEXT.Process(target=_run, args=(function, arguments, log_path), daemon=True)
        self.started = time.monotonic()
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    @property
    def log(self) -> str:
        """What it has printed so far."""
        if self._pipe is not None:
            with suppress(BlockingIOError):
                while data := os.read(self._pipe, 1 << 16):
                    self._log += data
        return self._log.decode(errors="replace")

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join(TIMEOUT_S)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative for a signal."""
        self._process.join(TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"The process hangs. It said:\n{self.log}")
        code = self._process.exitcode
        assert code is not None
        if self._pipe is not None:
            assert self.log is not None
            os.close(self._pipe)
            self._pipe = None
        return code


def _run(function: Callable[..., None], arguments: tuple[Any, ...], log_path: Path | None) -> None:
    if log_path:
        descriptor = os.open(log_path, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001 - what a test wants to see, whatever it is
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@dataclass(frozen=True)
class Trail:
    """What a process leaves behind of itself: files in a folder.

    Attributes:
        dir: the folder.
    """

    dir: Path

    @property
    def crumb_path(self) -> Path:
        """Holds the phase that was entered last."""
        return self.dir / "crumb"

    @property
    def computed_path(self) -> Path:
        """Holds the digests of all rows that were handed to the writer."""
        return self.dir / "computed"

    @property
    def phase(self) -> str:
        """The phase that the process entered last; `before all` if none."""
        crumb = self.crumb_path.read_bytes() if self.crumb_path.exists() else b""
        return crumb[:CRUMB_BYTES].decode().strip() or "before all"

    @property
    def computed(self) -> set[bytes]:
        """The digests of all rows that were handed to the writer."""
        data = self.computed_path.read_bytes() if self.computed_path.exists() else b""
        return {data[i : i + 32] for i in range(0, len(data), 32)}

    def clear(self) -> None:
        """Begin anew."""
        self.dir.mkdir(parents=True, exist_ok=True)
        self.crumb_path.unlink(missing_ok=True)
        self.computed_path.unlink(missing_ok=True)


def small_segments() -> None:
    """Have this process write segments of a few rows."""
    replace(SEGMENT_BYTES, scenario.SEGMENT_ROWS * scenario.ROW_BYTES)


def note_computed(path: Path) -> None:
    """Have this process append the digests of all rows that the writer has taken to the file `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def noting(writer: Any, features: Any, digests: Any, views: Any = 0) -> None:
        add(writer, features, digests, views)
        os.write(descriptor, digests.tobytes())

    add = replace(ADD.target, noting)


def extraction(
    data: Path, cache: Path, trail: Trail | None = None, fault: Fault | None = None, counts_path: Path | None = None
) -> None:
    """Extract, with segments of a few rows; `fault` happens on the way."""
    small_segments()
    if trail:
        note_computed(trail.computed_path)
    hooks = Hooks(EXTRACTION, trail and trail.crumb_path, *filter(None, [fault]))
    scenario.extract(data, cache)
    if counts_path:
        write_counts(counts_path, hooks.calls)


def compaction(
    cache: Path, store_name: str, trail: Trail, fault: Fault | None = None, counts_path: Path | None = None
) -> None:
    """Merge the segments of a store in several groups."""
    from featx.extract.cache import compact_cache

    several_groups()
    hooks = Hooks(COMPACTION, trail.crumb_path, *filter(None, [fault]))
    compact_cache(cache, [store_name])
    if counts_path:
        write_counts(counts_path, hooks.calls)


def several_groups() -> None:
    """Have this process merge few segments at a time, to segments that are not small any more."""
    replace(TARGET_BYTES, 3 * scenario.SEGMENT_ROWS * scenario.ROW_BYTES)
    replace(SMALL_BYTES, 2 * scenario.SEGMENT_ROWS * scenario.ROW_BYTES)


def command_line(words: list[str], faults: Sequence[Fault] = (), prepare: Callable[[], None] | None = None) -> None:
    """Run `featx WORDS…` as `python -m featx` does, with segments of a few rows."""
    from featx.__main__ import run

    small_segments()
    Hooks(EXTRACTION, None, *faults)
    if prepare:
        prepare()
    sys.argv = ["featx", *words]
    run()


def write_counts(path: Path, calls: dict[FaultPoint, int]) -> None:
    """Write how often each fault point was reached."""
    path.write_text("\n".join(str(n) for n in calls.values()))


def read_counts(path: Path, points: tuple[FaultPoint, ...]) -> dict[FaultPoint, int]:
    """Return how often each of `points` was reached."""
    return dict(zip(points, map(int, path.read_text().split()), strict=True))
