"""The one door to Keras: imported late, and in silence.

TensorFlow takes several seconds to start and greets its user with lines about oneDNN, CUDA and absl. Both are
kept from whoever does not need them: call `import_keras()` inside the function that needs a network.
"""

import importlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featx.errors import FeatxError
from featx.system.interrupts import insistent_interrupts

KERAS_BACKENDS = ("tensorflow", "jax", "torch")


def keras_backend() -> str:
    """Return the backend that Keras runs on: what `KERAS_BACKEND` names, `"tensorflow"` unless told otherwise.

    Raises:
        FeatxError: the name is no Keras backend that can train.
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
        with insistent_interrupts(), _silent_stderr():
            if backend == "tensorflow":
                importlib.import_module("tensorflow")
                logging.getLogger("tensorflow").setLevel(logging.ERROR)
            keras = importlib.import_module("keras")
    except ImportError as error:
        raise FeatxError(
            f"Keras with the backend {backend!r} does not load ({error}). Install it, or choose another with "
            f"KERAS_BACKEND={'|'.join(KERAS_BACKENDS)}."
        ) from error
    # The user's keras.json could change features without changing their recipe.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    return keras


def keras_sees_gpu() -> bool:
    """Return whether the backend that Keras runs on can use a GPU. This starts Keras."""
    import_keras()
    backend = keras_backend()
    if backend == "tensorflow":
        return bool(importlib.import_module("tensorflow").config.list_physical_devices("GPU"))
    if backend == "torch":
        return bool(importlib.import_module("torch").cuda.is_available())
    return bool(importlib.import_module("jax").default_backend() == "gpu")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 to a temporary file: TensorFlow's C++ code writes there before its log level is read."""
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
