"""What a `.keras` file says of its network, and what must not be in it: code, or weights in other files.

A `.keras` file is a zip with the configuration of a model as JSON, and its weights as HDF5. Keras creates the layers
that the configuration names. Some of them run code that is in the file or elsewhere: these are refused here, before
Keras sees them.
"""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from featx.errors import BackboneError
from featx.store import check_own_file
from featx.system import brief
from featx.text import printable

#: The members of the zip.
_CONFIG, _WEIGHTS, _ABOUT = "config.json", "model.weights.h5", "metadata.json"

#: More than the configuration of any network takes.
_MAX_CONFIG_BYTES = 64 << 20

#: What reading a damaged zip file, or one of another making, ends in.
_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RecursionError)

#: Layers of Keras's own that run code from the file, or read other files.
_RUNNING_CODE = {
    *("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization", "__typespec__"),
}

#: Where Keras has what networks are made of; it has other things elsewhere.
_MODULES = re.compile(
    r"keras|builtins|keras\.(src\.)?"
    r"(layers|models|ops|applications|activations|initializers|regularizers|constraints|random)(\.\w+)*"
)

#: What is no object of Keras's: tensors, and numbers that JSON does not have.
_PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}

#: Layers that preprocess: float32 in every precision, like all that is done to pixels.
PREPROCESSING_LAYERS = {"Rescaling", "Normalization"}


def check_own_weights(path: Path, most_bytes: int) -> None:
    """Raise an error, of any kind, unless all the weights in a file are in the file itself; a `.keras` is a zip.

    The weights of a `.keras` file are unpacked beside it.
    """
    if path.suffix.lower() != ".keras":
        check_own_file(path, most_bytes)
        return
    with zipfile.ZipFile(path) as file:
        _check_stored(file)
        inside = Path(file.extract(_WEIGHTS, path.parent))
    check_own_file(inside, most_bytes)


def read_keras_config(path: Path, name: str) -> dict[str, Any]:
    """Return the configuration of the network in a `.keras` file, called `name` in errors.

    Raises:
        BackboneError: it is no such file, or damaged.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            _check_stored(file)
            file.getinfo(_WEIGHTS)
            if max(file.getinfo(member).file_size for member in (_CONFIG, _ABOUT)) > _MAX_CONFIG_BYTES:
                raise ValueError("its configuration is too long")
            config = json.loads(file.read(_CONFIG))
            if re.search(rb'"keras_version": *"[12]\.', file.read(_ABOUT)):
                raise ValueError("it is of Keras 2; load it with that, and save it again with Keras 3")
        if not isinstance(config, dict) or "class_name" not in config:
            raise ValueError("it has no network")
    except _DAMAGE as error:
        reason = brief(" ".join(str(error).strip("'\"").split()))
        raise BackboneError(f"{printable(name)} is not a file of Keras 3, or damaged: {reason}.") from error
    return config


def _check_stored(file: zipfile.ZipFile) -> None:
    if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
        raise ValueError("it is compressed")  # Keras does not, and it may unpack to any size


def prepare_config(config: dict[str, Any], name: str, dtype_policy: str) -> Any:
    """Return the configuration of a network as featx has Keras build it.

    That is without training, with kernels of zeros until the weights are loaded, and with the dtype policy given here
    instead of that in the file.

    Args:
        config: see `read_keras_config`.
        name: of the file, for errors.
        dtype_policy: of all layers but those that preprocess.

    Raises:
        BackboneError: it contains code, or layers whose code it lacks, or a network that is quantized.
    """
    try:
        return _prepared(config, name, dtype_policy)
    except RecursionError:
        raise BackboneError(f"{printable(name)} has a configuration that is nested too deeply.") from None


def _prepared(node: Any, name: str, dtype_policy: str) -> Any:
    if isinstance(node, list):
        return [_prepared(item, name, dtype_policy) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node.get("class_name")
    if kind is not None and kind not in _PLAIN:
        _check_object(node, name)
    if str(node.get("module")) == "keras.initializers":
        return {**node, "class_name": "Zeros", "config": {}}
    if kind in PREPROCESSING_LAYERS:
        dtype_policy = "float32"
    prepared = {key: _prepared(value, name, dtype_policy) for key, value in node.items() if key != "compile_config"}
    is_policy = isinstance(node.get("dtype"), dict)
    return {**prepared, "dtype": dtype_policy} if is_policy else prepared


def _check_object(node: dict[str, Any], name: str) -> None:
    """Raise BackboneError unless an object of a configuration is one of Keras's own that runs no code of the file."""
    kind, module = str(node["class_name"]), node.get("module")
    config = node.get("config")
    called = config.get("name") if isinstance(config, dict) else config
    what = kind if called is None or kind == "__lambda__" else f"{brief(called)} ({kind})"
    other = "Export the network as ONNX, or save it again without this layer."
    if kind in _RUNNING_CODE:
        raise BackboneError(
            f"{printable(name)} has the layer {printable(what)}, which runs code from the file or reads other files. "
            f"featx does neither. {other}"
        )
    if kind.endswith(("DTypePolicy", "DTypePolicyMap")) and kind != "DTypePolicy":
        raise BackboneError(f"{printable(name)} is quantized: save it in float32, and choose --precision int8 here.")
    is_own = isinstance(module, str) and _MODULES.fullmatch(module)
    if not is_own or ">" in str(node.get("registered_name")):
        raise BackboneError(
            f"{printable(name)} has the custom object {printable(what)}, whose code is not in the file. {other}"
        )
