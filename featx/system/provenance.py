"""On what, and with what, a result was made."""

import datetime as dt
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

from featx.errors import redacted
from featx.system.machine import n_cores

PACKAGES = ("featx", "tensorflow", "keras", "openvino", "nncf", "numpy", "h5py", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers; those not installed left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int]:
    """Return what this machine is: processor, cores that may be used, memory in bytes, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": _processor(), "cores": n_cores(), "memory_bytes": memory, "system": platform.system()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def command_line() -> str:
    """Return the command that is running, as one would type it, but for credentials in addresses."""
    program = Path(sys.argv[0]).name
    return shlex.join(["featx" if program == "__main__.py" else program, *map(redacted, sys.argv[1:])])


def now() -> str:
    """Return the time, in UTC, as ISO 8601 with seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
