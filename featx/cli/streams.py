"""The standard streams of the command's process: those that are closed, and what libraries in C++ write to them."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from featx.errors import FeatxError

#: The streams, and how what stands for a closed one is opened: so that reading or writing it fails, as it would have.
#: What is said on standard error goes nowhere instead, because the exit code says the same.
_STREAMS = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))

_silencing = threading.Lock()


def open_closed_streams() -> None:
    """Open what stands for standard streams that are closed: the next file would have its number else."""
    for name, mode, flags in _STREAMS:
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)  # gets the lowest number that is free
            os.set_inheritable(descriptor, True)
            stream = open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def output_refused(error: OSError) -> FeatxError:
    """Return the error for standard output that takes nothing. What is left is dropped, or Python would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return FeatxError(f"Cannot write the result to standard output: {error.strerror or error}.")


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Send what is written to descriptor 2 nowhere, in a process that is featx's alone.

    TensorFlow's C++ code writes there before it reads its log level, and nothing else stops it. A program that uses
    featx as a library has its descriptors for itself.
    """
    with _silencing:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
