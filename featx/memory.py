"""How much memory a piece of work takes."""

import resource
import sys
from pathlib import Path


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
