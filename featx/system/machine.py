"""Facts about this machine and process: cores, memory, versions."""

import ctypes
import datetime as dt
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from featx.system.arguments import parse_size, whole_number

#: From Ampere on (compute capability 8.0), NVIDIA's GPUs have bfloat16 arithmetic.
_FIRST_WITH_BFLOAT16 = (8, 0)

_CUDA_ATTRIBUTE_MAJOR, _CUDA_ATTRIBUTE_MINOR = 75, 76  # CUdevice_attribute in cuda.h
#: What training takes at once, times the size of the features: they themselves, the training images', those as float32,
#: and two folds of a cross-validation.
_COPIES = 8

#: The share of what is free that training takes if it is not told.
_SHARE_OF_FREE = 0.5

#: The share of what it may take, and the most bytes, that are features read from disk and waiting to be used.
_BUFFER_SHARE, _MAX_BUFFER_BYTES, _MIN_BUFFER_BYTES = 1 / 16, 256 << 20, 1 << 20


#: What decides the numbers, besides Python.
_PACKAGES = (
    "featx",
    "tensorflow",
    "keras",
    "openvino",
    "ncnn",
    "nncf",
    "numpy",
    "h5py",
    "scikit-learn",
    "pillow",
    "pillow-heif",
)


# Cores and processors


def n_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_seconds() -> float:
    """Return the processor time that all processes of this machine have used, in seconds."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal")))


def has_fast_bfloat16() -> bool:
    """Return whether bfloat16 arithmetic is faster than float32 here: on the GPU if there is one, else on the CPU."""
    capability = cuda_capability()
    return capability >= _FIRST_WITH_BFLOAT16 if capability else cpu_has_bfloat16()


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16: AVX-512 BF16 or AMX on x86, BF16 on ARM.

    Only Linux says so in a file; elsewhere the answer is no.
    """
    features = _line("/proc/cpuinfo", "flags") or _line("/proc/cpuinfo", "Features")
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(features.split())


@cache
def cpu_has_int8() -> bool:
    """Return whether the processor multiplies and adds int8 in one instruction: VNNI or AMX on x86.

    Only Linux says so in a file; elsewhere the answer is no.
    """
    flags = _line("/proc/cpuinfo", "flags")
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags.split())


@cache
def cuda_capability() -> tuple[int, int] | None:
    """Return the compute capability of the first NVIDIA GPU that this process may use; None if there is none.

    Asks NVIDIA's driver, which honours `CUDA_VISIBLE_DEVICES`. Whether the Keras backend was built for that GPU is
    another question.
    """
    cuda = None
    for name in ("libcuda.so.1", "nvcuda.dll"):  # on Linux, and on Windows
        with suppress(OSError):
            cuda = cuda or ctypes.CDLL(name)
    if cuda is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CUDA_ATTRIBUTE_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CUDA_ATTRIBUTE_MINOR, device)
    )
    return None if failed else (major.value, minor.value)


# Memory


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory training may use.

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
    return min(int(psutil.virtual_memory().available), *_free_in_groups(Path("/sys/fs/cgroup")))


def _free_in_groups(root: Path) -> list[int]:
    """Return what is left to this process's control group, and to those that it is in; `(v2)` of Linux only."""
    free = [sys.maxsize]
    group = root / _line("/proc/self/cgroup", "0::").strip("/")
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
    if line := _line("/proc/self/status", "VmHWM:"):
        return int(line.split()[0]) * 1024
    memory = psutil.Process().memory_info()
    if peak := getattr(memory, "peak_wset", 0):  # Windows
        return int(peak)
    with suppress(ImportError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage if sys.platform == "darwin" else usage * 1024
    return int(memory.rss)


# On what, with what and when a result was made


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers; those not installed left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int]:
    """Return what this machine is: processor, cores that may be used, memory in bytes, system."""
    processor = _line("/proc/cpuinfo", "model name").partition(":")[2].strip()
    return {
        "processor": processor or platform.processor() or platform.machine(),
        "cores": n_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
    }


def now() -> str:
    """Return the time, in UTC, as ISO 8601 with seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _line(path: str, start: str) -> str:
    """Return what follows `start` on the first line of a file that begins so; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")
