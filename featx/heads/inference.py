"""Saved models: written, read by Keras, and heads run without it.

Starting Keras takes longer than all other work for one image. A head is a `.keras` file (a zip of `config.json` and
`model.weights.h5`) with a chain of `Dense` layers; the layers between them, `Flatten` and `Dropout`, do nothing to
features that are one row for each image. In one kind of head, the nearest training rows vote between two such layers.
NumPy multiplies as well as Keras does. Nothing in the file is run as code.
"""

import io
import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import FeatxError
from featx.storage import READ_FLAGS, check_readable, replacing
from featx.store import as_text, check_own_data
from featx.system import import_keras
from featx.text import printable

_WITHOUT_NUMBERS = {"Flatten", "Dropout"}

#: The layers of a head in which the nearest training rows vote, see `voting_model`.
_VOTING_KINDS = ["InputLayer", "Flatten", "Dense", "TopK", "Min", "GreaterEqual", "Softmax", "Dense", "Sum", "Divide"]

#: What a damaged file, or one that somebody made up, makes zipfile, JSON, HDF5 and NumPy raise.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, RuntimeError, NotImplementedError),
)

#: The member of a `.keras` file that holds the weights.
WEIGHTS_NAME = "model.weights.h5"

#: A head is not larger than this, and its description, of a few layers, not than that.
_MAX_BYTES, _MAX_CONFIG_BYTES = 16 << 30, 1 << 20

#: What HDF5 needs around the weights, at most; and so many times them, since an optimizer may be saved with them.
_AROUND_BYTES, _MOST_COPIES = 1 << 20, 4

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


@dataclass(frozen=True)
class DenseLayer:
    """`kernel (n_in, n_out)`, `bias (n_out,)`, both float32, and the name of an activation.

    If `n_nearest` is not 0, the outputs go through `nearest_votes` instead.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: str
    n_nearest: int = 0

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return what the layer makes of its inputs: `(n, n_in)` to `(n, n_out)`."""
        outputs = X @ self.kernel + self.bias
        return nearest_votes(outputs, self.n_nearest) if self.n_nearest else _ACTIVATIONS[self.activation](outputs)


@dataclass(frozen=True)
class Head:
    """A head that has been trained: features in, probabilities out.

    Attributes:
        feature_shape: of one image's features.
        n_classes: 2 or more.
        layers: what has numbers in it, from the features to the probabilities.
    """

    feature_shape: tuple[int, ...]
    n_classes: int
    layers: tuple[DenseLayer, ...] = field(repr=False)

    @property
    def is_multilabel(self) -> bool:
        """Whether images can have several labels: it has a sigmoid for each."""
        return len(self.layers[-1].bias) > 1 and self.layers[-1].activation == "sigmoid"

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return `(n, n_classes)` float64 probabilities for the features `X`, `(n, …)`.

        Every row sums to 1, unless images can have several labels.

        Raises:
            FeatxError: the features have another shape, or the weights of the head are so large that it gives no
                probabilities.
        """
        check_shape(X, self.feature_shape)
        out = np.empty((len(X), self.n_classes))
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            for start in range(0, len(X), _SLAB_ROWS):
                rows = X[start : start + _SLAB_ROWS].reshape(-1, math.prod(self.feature_shape)).astype(np.float32)
                for layer in self.layers:
                    rows = layer(rows)
                out[start : start + len(rows)] = np.hstack([1 - rows, rows]) if rows.shape[1] == 1 else rows
            if not self.is_multilabel:
                out /= out.sum(axis=1, keepdims=True)
        check_probabilities(out)
        return out

    def to_keras(self) -> Any:
        """Return a Keras model that computes the same: features `(n, …)` to what `output_layer` makes."""
        keras = import_keras()
        if n_nearest := self.layers[0].n_nearest:
            similarity, votes = self.layers
            return voting_model(self.feature_shape, similarity.kernel, similarity.bias, n_nearest, votes.kernel)
        features = keras.Input(self.feature_shape, name="features")
        outputs = keras.layers.Flatten()(features)
        for layer in self.layers:
            dense = keras.layers.Dense(len(layer.bias), layer.activation, kernel_initializer="zeros", dtype="float32")
            outputs = dense(outputs)
            dense.set_weights([layer.kernel, layer.bias])
        return keras.Model(features, outputs)


def head_of(model: Any) -> Head:
    """Return the head that a Keras model is, as those that `train_head` makes are.

    Raises:
        ValueError: it has layers that featx does not use in heads.
    """
    feature_shape, shapes = _shapes(json.loads(model.to_json())["config"]["layers"])
    layers = []
    for one in shapes:
        kernel, *has_bias = model.get_layer(one.name).get_weights()
        bias = has_bias[0] if has_bias else np.zeros(one.n_outputs, np.float32)
        layers.append(DenseLayer(kernel, bias, one.activation, one.n_nearest))
    return Head(feature_shape, max(2, shapes[-1].n_outputs), tuple(layers))


def voting_model(
    feature_shape: tuple[int, ...], kernel: np.ndarray, bias: np.ndarray, n_nearest: int, votes: np.ndarray
) -> Any:
    """Return the Keras model of a head in which the nearest of n training rows vote.

    Args:
        feature_shape: of one image's features.
        kernel: `(n_features, n)` float32; with the bias, from raw features to the similarity to each training row.
        bias: `(n,)` float32.
        n_nearest: how many vote, see `nearest_votes`.
        votes: `(n, n_classes)` float32, what each is for: no negative number, and some that is above 0.
    """
    keras = import_keras()
    features = keras.Input(feature_shape, name="features")
    options = {"kernel_initializer": "zeros", "trainable": False}
    similarity = keras.layers.Dense(len(bias), name="similarity", **options)
    of_class = keras.layers.Dense(votes.shape[1], use_bias=False, name="probabilities", **options)
    scores = similarity(keras.layers.Flatten()(features))
    last = keras.ops.min(keras.ops.top_k(scores, n_nearest)[0], axis=-1, keepdims=True)
    counts = of_class(keras.layers.Softmax()(scores, mask=scores >= last))
    shares = keras.ops.divide(counts, keras.ops.sum(counts, axis=-1, keepdims=True))
    model = keras.Model(features, shares, name="knn")
    similarity.set_weights([kernel, bias])
    of_class.set_weights([votes])
    return model


def nearest_votes(scores: np.ndarray, n_nearest: int) -> np.ndarray:
    """Return `(n, m)`: the softmax of each row over its `n_nearest` highest `scores`, `(n, m)`, and 0 for the others.

    Scores that are equal to the last of these count, too: which ones they are does not depend on the order of rows.
    """
    last = np.partition(scores, -n_nearest, axis=1)[:, -n_nearest, np.newaxis]
    return _softmax(np.where(scores >= last, scores, -np.inf))


def check_shape(X: np.ndarray, feature_shape: tuple[int, ...]) -> None:
    """Raise FeatxError unless the features `X`, `(n, …)`, have the shape that a head takes."""
    if X.shape[1:] != feature_shape:
        raise FeatxError(
            f"The head takes features of the shape {feature_shape}, and these are {X.shape[1:]}: it belongs "
            f"to another recipe; train again with featx train-top."
        )


def check_probabilities(probabilities: np.ndarray) -> None:
    """Raise FeatxError if what a head gives are no numbers."""
    if not np.isfinite(probabilities).all():
        raise FeatxError("The head gives no valid probabilities, because its weights are too large; train again.")


def read_head(path: Path) -> Head:
    """Return the head in the `.keras` file `path`.

    Raises:
        FeatxError: it is missing, cannot be read, is damaged, or is not a head trained by featx.
    """
    with damage_said(path):
        return _read(path)


@contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Raise FeatxError for all that goes wrong when the head in the file `path` is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise FeatxError(f"There is no head {printable(path)}; train one with featx train-top.") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise FeatxError(f"{printable(path)} cannot be read: {os.strerror(error.errno)}.") from error
        if isinstance(error, zipfile.BadZipFile):  # zipfile takes it for what the system cannot read, too
            check_readable(path)
        reason = printable(" ".join(str(error).split())[:200])
        raise FeatxError(f"featx cannot run the head {printable(path)} ({reason}); train again.") from error


@contextmanager
def opened_head(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield the zip that a `.keras` file is. Anybody may have made it: it is regular, and not compressed.

    Raises:
        ValueError: it is something else.
    """
    with os.fdopen(os.open(path, READ_FLAGS), "rb") as source:  # without waiting, should it be a FIFO
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise ValueError("it is not a regular file, or is too large")
        with zipfile.ZipFile(source) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
                raise ValueError("it is compressed")  # Keras does not: a bomb would
            yield file


def check_size(file: zipfile.ZipFile, n_bytes: int) -> None:
    """Raise ValueError unless the weights in a `.keras` file take about as much as those of its layers: `n_bytes`."""
    if not n_bytes <= file.getinfo(WEIGHTS_NAME).file_size <= _MOST_COPIES * n_bytes + _AROUND_BYTES:
        raise ValueError("its weights are not those of its layers")


def _read(path: Path) -> Head:
    """Return the head in a file that anybody may have made: what it claims is checked before memory is taken for it."""
    with opened_head(path) as file:
        if file.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
            raise ValueError("its description is too long")
        layers = json.loads(file.read("config.json"))["config"]["layers"]
        feature_shape, dense = _shapes(layers)
        check_size(file, 4 * sum((layer.n_inputs + layer.has_bias) * layer.n_outputs for layer in dense))
        weights = file.read(WEIGHTS_NAME)
    with h5py.File(io.BytesIO(weights), "r") as file:
        check_own_data(file, weights, len(weights))
        variables = {as_text(group["vars"].attrs.get("name", "")): group["vars"] for group in file["layers"].values()}
        trained = tuple(_dense(layer, variables[layer.name]) for layer in dense)
    return Head(feature_shape, max(2, dense[-1].n_outputs), trained)


@dataclass(frozen=True)
class _Shape:
    """What a `Dense` layer is said to be: its name, `n_inputs` and `n_outputs` 1 or more, its activation.

    `n_nearest` is as in `DenseLayer`.
    """

    name: str
    n_inputs: int
    n_outputs: int
    activation: str
    n_nearest: int = 0
    has_bias: bool = True


def _shapes(layers: list[dict[str, Any]]) -> tuple[tuple[int, ...], list[_Shape]]:
    """Return the shape of one image's features and the `Dense` layers, from what a model says of its layers.

    Raises:
        ValueError: it is no head.
        LookupError, TypeError, AttributeError: it is no such description at all.
    """
    if layers[0]["class_name"] != "InputLayer":
        raise ValueError("its first layer is not the input layer")
    _, *sides = layers[0]["config"]["batch_shape"]
    feature_shape = tuple(map(_size, sides))
    dense: list[_Shape] = []
    n_inputs = math.prod(feature_shape)
    if [layer["class_name"] for layer in layers] == _VOTING_KINDS:
        return feature_shape, _voting_shapes(layers, n_inputs)
    for layer in layers[1:]:
        kind, config = layer["class_name"], layer["config"]
        if kind in _WITHOUT_NUMBERS:
            continue
        if kind != "Dense" or config["use_bias"] is not True or config["activation"] not in _CHAIN_ACTIVATIONS:
            raise ValueError(f"it has a layer that featx does not use in heads: {kind}")
        dense.append(_Shape(str(config["name"]), n_inputs, _size(config["units"]), config["activation"]))
        n_inputs = dense[-1].n_outputs
    if not dense or dense[-1].activation not in ({"sigmoid"} if n_inputs == 1 else {"sigmoid", "softmax"}):
        raise ValueError("it does not end in probabilities")
    return feature_shape, dense


def _voting_shapes(layers: list[dict[str, Any]], n_inputs: int) -> list[_Shape]:
    """Return the `Dense` layers of a head as `voting_model` makes it.

    Raises:
        ValueError: it is no such head.
        LookupError, TypeError: it is no such description at all.
    """
    similarity, top_k, votes = (layers[number]["config"] for number in (2, 3, 7))
    n_rows, n_nearest, n_classes = _size(similarity["units"]), _size(top_k["k"]), _size(votes["units"])
    has_bias = [one["use_bias"] for one in (similarity, votes)]
    if {similarity["activation"], votes["activation"]} != {"linear"} or has_bias != [True, False]:
        raise ValueError("it is not made as featx makes such heads")
    if n_nearest > n_rows or n_classes < 2:
        raise ValueError("its layers do not fit together")
    return [
        _Shape(str(similarity["name"]), n_inputs, n_rows, "linear", n_nearest),
        _Shape(str(votes["name"]), n_rows, n_classes, "linear", has_bias=False),
    ]


def _size(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a size in it is not a whole number of 1 or more")
    return value


def _dense(layer: _Shape, variables: Any) -> DenseLayer:
    """Return a layer with its weights.

    Raises:
        ValueError: they are other numbers than it is said to have, or not finite.
    """
    kernel, bias = variables["0"], variables["1"] if layer.has_bias else np.zeros(layer.n_outputs, np.float32)
    if (kernel.shape, bias.shape) != ((layer.n_inputs, layer.n_outputs), (layer.n_outputs,)):
        raise ValueError("its layers do not fit together")
    if not {kernel.dtype, bias.dtype} <= {np.dtype(np.float16), np.dtype(np.float32)}:
        raise ValueError("its weights are not floating-point numbers")
    numbers = [variable[:].astype(np.float32, copy=False) for variable in (kernel, bias)]
    dense = DenseLayer(numbers[0], numbers[1], layer.activation, layer.n_nearest)
    if not (np.isfinite(dense.kernel).all() and np.isfinite(dense.bias).all()):
        raise ValueError("its weights are not finite")
    if not layer.has_bias and not ((dense.kernel >= 0).all() and (dense.kernel > 0).any(axis=1).all()):
        raise ValueError("its votes are not shares")
    return dense


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


def _linear(x: np.ndarray) -> np.ndarray:
    return x


#: Those of chains of layers, and that of heads that vote.
_CHAIN_ACTIVATIONS = ("relu", "sigmoid", "softmax")
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "linear": _linear,
}
