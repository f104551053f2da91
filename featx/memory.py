"""How much memory there is, and how much of it a piece of work takes."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from featx.arguments import whole_number
from featx.units import parse_size

#: What training takes at once, times the size of the features: they themselves, the training images', those as float32,
#: and the folds of a cross-validation.
_COPIES = 6

#: The share of what is free that training takes if it is not told.
_SHARE_OF_FREE = 0.5

#: The share of what it may take, and the most bytes, that are features read from disk and waiting to be used.
_BUFFER_SHARE, _MAX_BUFFER_BYTES, _MIN_BUFFER_BYTES = 1 / 16, 256 << 20, 1 << 20


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory training may take.

    Attributes:
        limit_bytes: in bytes; half of what is free if None.
    """

    limit_bytes: int | None = None

    @property
    def n_bytes(self) -> int:
        """In bytes, as of now."""
        return int(_SHARE_OF_FREE * free_memory_bytes()) if self.limit_bytes is None else self.limit_bytes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of features that may be held at a time, if they do not fit."""
        return min(_MAX_BUFFER_BYTES, max(_MIN_BUFFER_BYTES, int(_BUFFER_SHARE * self.n_bytes)))

    def holds(self, features_bytes: int) -> bool:
        """Return whether training on so many bytes of features, all in memory, stays below the limit."""
        return _COPIES * features_bytes <= self.n_bytes


HALF_OF_FREE = MemoryLimit()


def as_memory_limit(given: MemoryLimit | int | str | None) -> MemoryLimit:
    """Return the limit that a number of bytes means, or text like `"4GiB"`; half of what is free for None.

    Raises:
        FeatxError: it is none of these.
    """
    if isinstance(given, MemoryLimit):
        return given
    given = parse_size(given) if isinstance(given, str) else given
    return HALF_OF_FREE if given is None else MemoryLimit(whole_number("memory", given, 0))


def free_memory_bytes() -> int:
    """Return how many bytes this process may still take: of the machine, and of its control group if it is in one."""
    return min(_free_on_machine(), *_free_in_groups(Path("/sys/fs/cgroup")))


def _free_on_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _free_in_groups(root: Path) -> list[int]:
    """Return what is left to this process's control group, and to those that it is in; `(v2)` of Linux only."""
    try:
        entry = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [sys.maxsize]
    group = root / entry.removeprefix("0::").strip("/")
    free = [sys.maxsize]
    for folder in (group, *group.parents):
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        except OSError:
            continue
        if limit != "max":
            free.append(max(0, int(limit) - int(used)))
    return free


def reset_peak_memory() -> None:
    """Make `peak_memory_bytes` count from now on, where the system can: Linux; elsewhere, from the process's start."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the high-water mark
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        high_water = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(high_water.split()[1]) * 1024
    except (OSError, StopIteration):
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage if sys.platform == "darwin" else usage * 1024
