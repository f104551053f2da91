"""Keeps Ctrl-C from crashing the process after OpenVINO has compiled two networks.

OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers, remembers the one before, and puts
that back when it is unloaded. Of two plugins whose lives overlap, the second puts back the stack of the first, which is
freed by then; and the next signal, Ctrl-C for one, ends in a segmentation fault. The plugin frees its stack without
putting anything back where it is not in use any more: so it is enough to put the former one back at once.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
