"""What there is in network files, remembered in the cache under their digests.

A file is read once, by the reader for its kind. Later commands need neither the reader nor the library that it uses.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featx.backbones.keras_file import describe_keras
from featx.backbones.network_file import NETWORK_SUFFIXES, NetworkFile, NetworkLayer, is_network_file
from featx.backbones.onnx_file import describe_onnx
from featx.backbones.weights import find_weights
from featx.errors import BackboneError
from featx.storage import StoragePath, expanded, local_dir, read_small, replacing
from featx.text import printable

log = logging.getLogger("featx")

FORMAT = "featx-network-file"
#: Raised by one when readers find other layers, or other usual ones, in the same file.
FORMAT_VERSION = 1

#: Larger than what is said of any network.
_MOST_BYTES = 64 << 20

#: What reads a file, by the end of its name.
_READERS: dict[str, Callable[[Path, str], NetworkFile]] = {
    ".onnx": describe_onnx,
    ".keras": describe_keras,
}


def describe_network(path: Path | str, cache_dir: StoragePath) -> NetworkFile:
    """Return what there is in the file of a network.

    Args:
        path: the file.
        cache_dir: remembers digests of files, and what is in them.

    Raises:
        WeightsError: there is no such file, or it cannot be read.
        BackboneError: it is damaged, or not a network that can be a backbone.
    """
    path = expanded(path)
    if not is_network_file(path):
        raise BackboneError(
            f"The name of a network file ends in {' or '.join(NETWORK_SUFFIXES)}. Received: {printable(path)}"
        )
    digest = find_weights(str(path), "imagenet", cache_dir).digest
    kept_path = local_dir(cache_dir) / "networks" / f"{_slug(path.name)}-{digest[:16]}.json"
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _from_json(read_small(kept_path, _MOST_BYTES).decode(), path.name, digest)
    described = _READERS[path.suffix.lower()](path, digest)
    try:
        with replacing(kept_path) as temporary:
            temporary.write_text(_to_json(described), encoding="utf-8")
    except OSError as error:
        log.debug("%s is not kept: %s.", printable(kept_path), error.strerror)
    return described


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)[:80]


def _to_json(described: NetworkFile) -> str:
    network = json.dumps(asdict(described))
    checksum = hashlib.sha256(network.encode("ascii")).hexdigest()
    return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": checksum, "network": network})


def _from_json(text: str, name: str, digest: str) -> NetworkFile:
    """Return what `_to_json` wrote of the file with this digest, which may have another name now.

    Raises:
        ValueError: it is not that.
        LookupError, TypeError, AttributeError: the same.
    """
    content = json.loads(text)
    if hashlib.sha256(content["network"].encode("ascii")).hexdigest() != content["sha256"]:
        raise ValueError("damaged")
    members: dict[str, Any] = json.loads(content["network"])
    if (content["format"], content["format_version"], members["digest"]) != (FORMAT, FORMAT_VERSION, digest):
        raise ValueError("of another format, or of another file")
    layers = tuple(NetworkLayer(**{**layer, "shape": tuple(layer["shape"])}) for layer in members["layers"])
    return NetworkFile(**{**members, "name": name, "input_shape": tuple(members["input_shape"]), "layers": layers})
