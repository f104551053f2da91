"""What this machine can do. Asked without starting a library that would take seconds to answer."""

import ctypes
import os
from functools import cache
from pathlib import Path

#: From Ampere on (compute capability 8.0), NVIDIA's GPUs have bfloat16 arithmetic.
_FIRST_WITH_BFLOAT16 = (8, 0)

_CUDA_ATTRIBUTE_MAJOR, _CUDA_ATTRIBUTE_MINOR = 75, 76  # CUdevice_attribute in cuda.h


def n_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_seconds() -> float:
    """Return the processor time that all processes of this machine have used, in seconds; 0 where it does not say."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def has_fast_bfloat16() -> bool:
    """Return whether bfloat16 arithmetic is faster than float32 here: on the GPU if there is one, else on the CPU."""
    capability = cuda_capability()
    return capability >= _FIRST_WITH_BFLOAT16 if capability else cpu_has_bfloat16()


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16: AVX-512 BF16 or AMX on x86, BF16 on ARM.

    Only Linux says so in a file; elsewhere the answer is no.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    features = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(features.split())


@cache
def cuda_capability() -> tuple[int, int] | None:
    """Return the compute capability of the first NVIDIA GPU that this process may use; None if there is none.

    Asks NVIDIA's driver, which honours `CUDA_VISIBLE_DEVICES`. Whether the Keras backend was built for that GPU is
    another question.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CUDA_ATTRIBUTE_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CUDA_ATTRIBUTE_MINOR, device)
    )
    return None if failed else (major.value, minor.value)
