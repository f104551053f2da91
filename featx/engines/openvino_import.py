"""Keeps Ctrl-C from crashing the process after OpenVINO has compiled two networks.

OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers, remembers the one before, and puts
that back when it is unloaded. Of two plugins whose lives overlap, the second puts back the stack of the first, which is
freed by then; and the next signal, Ctrl-C for one, ends in a segmentation fault. The plugin frees its stack without
putting anything back where it is not in use any more: so it is enough to put the former one back at once.
"""

import ctypes
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from featx.errors import FeatxError
from featx.system import insistent_interrupts


def import_openvino() -> Any:
    """Return the `openvino` module.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("openvino", "choose --engine keras, which computes all but int8")


@cache
def openvino_has_bfloat16() -> bool:
    """Return whether OpenVINO multiplies bfloat16 on this processor.

    Only OpenVINO knows: some processors have bfloat16 that it does not use. Where it has none, it computes in float32
    whatever it is asked for, and does not say so.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_nncf() -> Any:
    """Return the `nncf` module, OpenVINO's quantizer.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("nncf", "choose another --precision")


def _import(name: str, way_out: str) -> Any:
    # Both fall back on a silent stand-in where this package is missing. They ask for it again when they convert, and
    # so it stays away for good, unless the program featx runs in has loaded it first.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be found
    try:
        with insistent_interrupts():
            return importlib.import_module(name)
    except ImportError as error:
        raise FeatxError(
            f"{name} does not load ({error}). Install it with pip install {name}, or {way_out}."
        ) from error


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux, see sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread back the stack for signal handlers that it had, after a block that loads OpenVINO's plugins.

    Only on Linux does the plugin set one.
    """
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None, use_errno=True).sigaltstack
    before = _SignalStack()
    known = sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            sigaltstack(ctypes.byref(before), None)
