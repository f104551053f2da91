"""What an HDF5 file of Keras weights says of its network, read without Keras."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featx.errors import WeightsError, printable
from featx.store.hdf5_file import open_hdf5

#: What Keras calls the last layer of a whole classifier: its output is a probability for each class.
CLASSIFIER_LAYER = "predictions"

#: What a file that is none, or of another making, makes h5py and the code below raise.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)


def count_classes(path: Path) -> int | None:
    """Return how many classes the classifier in a file of Keras weights has; None if the file holds no classifier.

    The file is in the layout of Keras's official ones (HDF5, a group for each layer), or was written by Keras 3's
    `model.save_weights("….weights.h5")`. In the former the classifier is the last layer, whatever it is called:
    Keras loads it by its place, and some of the official files are older than its present name.

    Raises:
        WeightsError: the system cannot read it.
    """
    try:
        with open_hdf5(path) as file:
            last = list(_official_layer(file) if "layers" not in file else _keras_3_layer(file))
            shapes = [array.shape for array in last]
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # else it is HDF5 that does not know the file
            reason = os.strerror(error.errno)
            raise WeightsError(f"The weights file {printable(path)} cannot be read: {reason}.") from error
        return None
    is_dense = [len(shape) for shape in shapes] == [2, 1] and shapes[0][1] == shapes[1][0]
    return int(shapes[1][0]) if is_dense else None


def _official_layer(file: Any) -> Iterator[Any]:
    """Yield the arrays of the last layer that has any."""
    layers = file.get("model_weights", file)
    for layer in reversed([_text(name) for name in layers.attrs["layer_names"]]):
        names = [_text(name) for name in layers[layer].attrs["weight_names"]]
        if names:
            yield from (layers[layer][name] for name in names)
            return


def _keras_3_layer(file: Any) -> Iterator[Any]:
    """Yield the arrays of the classifier; Keras 3 keeps a layer's name as an attribute of its arrays."""
    for layer in file["layers"].values():
        if _text(layer["vars"].attrs.get("name", "")) == CLASSIFIER_LAYER:
            yield from (layer["vars"][number] for number in ("0", "1"))


def _text(name: str | bytes) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
