"""Imports Keras, OpenVINO, ncnn and NNCF late, and without their log lines.

TensorFlow takes several seconds to start. Only users who need a network should wait for it: call `import_keras()`
inside the function that needs one. Any number of threads may do so at once.

TensorFlow also prints lines about oneDNN, CUDA and absl, before it reads its log level. The command line hides them
with `hide_with`. A library must not: the descriptors belong to the program that uses it.
"""

import ctypes
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib.abc import MetaPathFinder
from typing import Any

from featx.errors import FeatxError
from featx.system.missing_packages import import_failure, install_command
from featx.system.progress import insistent_interrupts

#: Keras imports its backend and OpenVINO, and they import Keras: two threads would get halves of them.
_loading = threading.RLock()

_hidden: Callable[[], AbstractContextManager[None]] | None = None  # None in a process that is not featx's own


#: Packages that Keras imports wherever they are installed, for wrappers, tables and pictures that featx does not ask it
#: for. In a process of featx's own they are left out: they take a third of Keras's start.
_NOT_FOR_KERAS = {"sklearn", "pandas", "matplotlib"}


def hide_with(hidden: Callable[[], AbstractContextManager[None]]) -> None:
    """Have TensorFlow loaded in a block of `hidden()` from now on, which hides what it prints.

    It is for processes of featx's own. There, Keras also starts faster, because it finds no scikit-learn and no
    matplotlib: its wrappers for scikit-learn and its galleries do not work then.
    """
    global _hidden  # noqa: PLW0603 - whose process it is, is known to the command line only
    _hidden = hidden


KERAS_BACKENDS = ("tensorflow", "jax", "torch")


def keras_backend() -> str:
    """Return the backend that Keras runs on: what `KERAS_BACKEND` names, by default `"tensorflow"`.

    Raises:
        FeatxError: the name is not a Keras backend that can train.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend not in KERAS_BACKENDS:
        raise FeatxError(f"KERAS_BACKEND must be one of {', '.join(KERAS_BACKENDS)}. Received: {backend!r}")
    return backend


def import_keras() -> Any:
    """Return the `keras` module, on the backend that `KERAS_BACKEND` names.

    Raises:
        FeatxError: Keras or its backend is not installed, or does not load.
    """
    backend = keras_backend()
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Unless told otherwise, JAX and TensorFlow take most of a GPU's memory when they start, whatever they need.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        with (
            _loading,
            insistent_interrupts(),
            _hidden() if _hidden else nullcontext(),
            _Absent() if _hidden else nullcontext(),
            nullcontext() if "keras" in sys.modules else _without_collector(),
        ):
            if backend == "tensorflow":
                importlib.import_module("tensorflow")
                logging.getLogger("tensorflow").setLevel(logging.ERROR)
            keras = importlib.import_module("keras")
    except ImportError as error:
        raise FeatxError(
            f"Keras with the backend {backend!r} does not load ({error}). Install it with "
            f"{install_command(backend)}, or choose another with KERAS_BACKEND={'|'.join(KERAS_BACKENDS)}."
        ) from error
    # The user's keras.json could change features without changing their recipe.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    return keras


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector in a block that makes half a million objects, nearly all of which stay for good.

    It would look at them many times. In a process of featx's own, it does not look at them afterwards, either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if _hidden:
            gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


class _Absent(MetaPathFinder):
    """Lets this thread find none of `_NOT_FOR_KERAS` inside a block, unless they are loaded; other threads do."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_error: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(self, fullname: str, *_where: object) -> None:
        if fullname in _NOT_FOR_KERAS and threading.get_ident() == self._thread:
            raise ImportError(f"{fullname} is not for Keras", name=fullname)


def keras_sees_gpu() -> bool:
    """Return whether the backend that Keras runs on can use a GPU. This starts Keras."""
    import_keras()
    backend = keras_backend()
    if backend == "tensorflow":
        return bool(importlib.import_module("tensorflow").config.list_physical_devices("GPU"))
    if backend == "torch":
        return bool(importlib.import_module("torch").cuda.is_available())
    return bool(importlib.import_module("jax").default_backend() == "gpu")


def import_openvino() -> Any:
    """Return the `openvino` module.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("openvino", "choose --engine keras, which computes all but int8")


@cache
def openvino_has_bfloat16() -> bool:
    """Return whether OpenVINO multiplies bfloat16 on this processor.

    Only OpenVINO knows: it does not use the bfloat16 of some processors. Without bfloat16, it silently computes in
    float32.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_ncnn() -> Any:
    """Return the `ncnn` module, which knows Winograd's algorithm.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("ncnn", "choose another --engine", extra="ncnn")


def import_nncf() -> Any:
    """Return the `nncf` module, OpenVINO's quantizer.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("nncf", "choose another --precision", extra="nncf")


def import_pyarrow() -> Any:
    """Return the `pyarrow` module, which writes Parquet files.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("pyarrow", "choose a file of another kind", extra="pandas")


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread back the stack for signal handlers that it had, after a block that loads OpenVINO's plugins.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers, remembers the one before, and puts
    that back when it is unloaded. If two plugins live at the same time, the second puts back the stack of the first,
    which is freed by then. The next signal, such as Ctrl-C, then ends in a segmentation fault. The plugin frees its
    stack without putting anything back if the stack is not in use any more: so it is enough to put the former one back
    at once. Only on Linux does the plugin set one.
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


def _import(name: str, way_out: str, *, extra: str | None = None) -> Any:
    # Both fall back on a silent stand-in where this package is missing. They ask for it again when they convert, and
    # so it stays away for good, unless the program featx runs in has loaded it first.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be found
    try:
        with _loading, insistent_interrupts():
            return importlib.import_module(name)
    except ImportError as error:
        requirement = f"featx[{extra}]" if extra else name
        raise FeatxError(f"{import_failure(name, error, requirement)}, or {way_out}.") from error


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux, see sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))
