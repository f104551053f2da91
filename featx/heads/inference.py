"""Saved models: written, read by Keras, and heads run without it.

The start of Keras takes longer than everything else there is to do for one image. A head is a `.keras` file (a zip of
`config.json` and `model.weights.h5`) with a chain of `Dense` layers; what lies between them, `Flatten` and `Dropout`,
does nothing to features that are one row for each image. NumPy multiplies as well as Keras does. Nothing in the file is
run as code.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import FeatxError, printable
from featx.storage import check_readable, check_regular, replacing
from featx.system import import_keras

_WITHOUT_NUMBERS = {"InputLayer", "Flatten", "Dropout"}

#: What a damaged file makes zipfile, JSON and HDF5 raise.
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError)

#: Larger than any head: the kernel of a dense one has 1 KiB for each of an image's features.
_HEAD_BYTES = 4 << 30

#: Images at a time: enough to keep the processor busy.
_SLAB_ROWS = 512


def save_model(model: Any, path: Path) -> None:
    """Write a Keras model to `path`, which ends in `.keras`, whole or not at all.

    Raises:
        FeatxError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            model.save(temporary)
    except (OSError, ValueError) as error:
        raise FeatxError(f"{printable(path)}: the model cannot be written ({error}).") from error


def load_model(path: Path) -> Any:
    """Return the Keras model in the `.keras` file `path`, to predict with. Nothing in the file is run as code.

    Raises:
        FeatxError: the file is missing, cannot be read, is damaged, or no Keras model.
    """
    keras = import_keras()
    if not path.is_file():
        raise FeatxError(f"{printable(path)}: there is no model here; train one with featx train-top.")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive ends in whatever zip, JSON, HDF5 or Keras raise
        check_readable(path)
        reason = " ".join(str(error).split())[:200]
        raise FeatxError(
            f"{printable(path)}: this is not a valid Keras model; train again. Received: {reason}"
        ) from error


@dataclass(frozen=True)
class _Dense:
    """`kernel (n_in, n_out)`, `bias (n_out,)`, both float32, and the name of an activation."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: str

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return _ACTIVATIONS[self.activation](X @ self.kernel + self.bias)


@dataclass(frozen=True)
class Head:
    """A head that has been trained: features in, probabilities out.

    Attributes:
        feature_shape: of one image's features.
        n_classes: 2 or more.
    """

    feature_shape: tuple[int, ...]
    n_classes: int
    _layers: tuple[_Dense, ...]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return `(n, n_classes)` float64 probabilities for the features `X`, `(n, …)`; every row sums to 1."""
        out = np.empty((len(X), self.n_classes))
        for start in range(0, len(X), _SLAB_ROWS):
            rows = X[start : start + _SLAB_ROWS].reshape(-1, int(np.prod(self.feature_shape))).astype(np.float32)
            for layer in self._layers:
                rows = layer(rows)
            out[start : start + len(rows)] = np.hstack([1 - rows, rows]) if rows.shape[1] == 1 else rows
        out /= out.sum(axis=1, keepdims=True)
        return out


def read_head(path: Path) -> Head:
    """Return the head in the `.keras` file `path`.

    Raises:
        FeatxError: it is missing, cannot be read, is damaged, or no head that featx has trained.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise FeatxError(f"There is no head {printable(path)}; train one with featx train-top.") from error
    except _DAMAGE as error:
        check_readable(path)
        reason = " ".join(str(error).split())[:200]
        raise FeatxError(f"{printable(path)} is no head that featx can run ({reason}); train again.") from error


def _read(path: Path) -> Head:
    check_regular(path, _HEAD_BYTES)
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # Keras does not compress: a bomb would
                raise ValueError("it is compressed")
        layers = json.loads(file.read("config.json"))["config"]["layers"]
        weights = io.BytesIO(file.read("model.weights.h5"))
    if layers[0]["class_name"] != "InputLayer":
        raise ValueError("its first layer is not its input")
    feature_shape = tuple(layers[0]["config"]["batch_shape"][1:])
    with h5py.File(weights, "r") as file:
        variables = {group["vars"].attrs["name"]: group["vars"] for group in file["layers"].values()}
        dense = tuple(_dense(layer, variables) for layer in layers if layer["class_name"] not in _WITHOUT_NUMBERS)
    n_outputs = _check_chain(dense, int(np.prod(feature_shape)))
    return Head(feature_shape, max(2, n_outputs), dense)


def _dense(layer: dict[str, Any], variables: dict[str, Any]) -> _Dense:
    config = layer["config"]
    if layer["class_name"] != "Dense" or not config["use_bias"] or config["activation"] not in _ACTIVATIONS:
        raise ValueError(f"it has a layer that no head has: {layer['class_name']}")
    kernel, bias = (variables[config["name"]][number][:].astype(np.float32) for number in "01")
    return _Dense(kernel, bias, config["activation"])


def _check_chain(layers: tuple[_Dense, ...], n_features: int) -> int:
    """Raise ValueError unless each layer takes what the one before gives; return how many outputs the last has."""
    n_inputs = n_features
    for layer in layers:
        if layer.kernel.shape != (n_inputs, len(layer.bias)):
            raise ValueError("its layers do not fit together")
        n_inputs = len(layer.bias)
    if not layers or layers[-1].activation != ("sigmoid" if n_inputs == 1 else "softmax"):
        raise ValueError("it does not end in probabilities")
    return n_inputs


def _relu(x: np.ndarray) -> np.ndarray:
    positive: np.ndarray = np.maximum(x, 0)
    return positive


def _sigmoid(x: np.ndarray) -> np.ndarray:
    p: np.ndarray = 0.5 * (1 + np.tanh(0.5 * x.astype(np.float64)))  # overflows nowhere
    return p


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    shares: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": _relu, "sigmoid": _sigmoid, "softmax": _softmax}
