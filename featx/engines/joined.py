"""Several networks as one, so that images go once through what they have in common: layers of one backbone."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from featx.system import import_openvino

#: What OpenVINO computes in bfloat16 in any case. What follows the last of them on the way to an output, it computes in
#: float32, and leaves the results of that last one in float32, too.
_ALWAYS_BFLOAT16 = {"Convolution", "GroupConvolution", "MatMul"}


def split_features(features: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return `(n, *shape)` for each of `shapes`, from features `(n, n_features)` that lie one after the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(features, ends[:-1], axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def join(models: Sequence[Any], precision: str) -> Any:
    """Return an `openvino.Model` that gives the features of all `models`, flattened, one after the other.

    It takes what each of them takes, `(n, height, width, 3)` uint8, and gives `(n, n_features)` float32. The models are
    changed, and of no use any more.

    Networks that were cut from one backbone at several layers have the same operations up to the first cut. Operations
    are the same if they are of one kind and have the same attributes, content and inputs. In bfloat16, the last ones
    before a cut are computed twice, once for the output and once for what follows, as in the networks alone: OpenVINO
    does not round what leads to an output.
    """
    openvino = import_openvino()
    images = models[0].get_parameters()[0]
    known: dict[tuple[Any, ...], Any] = {}  # operations by what they compute
    outputs = []
    for model in models:
        own = _end(model) if precision == "bfloat16" else set()
        alike: dict[str, Any] = {}  # what stands for each operation of this model, by its name
        for node in model.get_ordered_ops():
            sources = [one.get_source_output() for one in node.inputs()]
            inputs = [alike[source.get_node().get_name()].output(source.get_index()) for source in sources]
            if node.get_type_name() == "Result":
                outputs.append(inputs[0])
                continue
            if node.get_type_name() == "Parameter":
                found = images
            elif node.get_name() in own:
                found = node
                _set_apart(node)
            else:
                found = known.setdefault(_meaning(node, inputs), node)
            if found is node:
                for one, source in zip(node.inputs(), inputs, strict=True):
                    one.replace_source_output(source)
            alike[node.get_name()] = found
    operations = openvino.opset13
    flat = [operations.reshape(output, [0, -1], special_zero=True) for output in outputs]
    return openvino.Model([operations.concat(flat, axis=1)], [images], "joined")


def _end(model: Any) -> set[str]:
    """Return the names of the operations from the last in bfloat16, on each way to the output, and of what follows.

    So are their constants: OpenVINO computes a convolution in another way if two of them share a kernel.
    """
    names: set[str] = set()
    to_visit = [model.get_results()[0].input_value(0).get_node()]
    while to_visit:
        node = to_visit.pop()
        if node.get_name() in names or node.get_type_name() in {"Constant", "Parameter"}:
            continue
        names.add(node.get_name())
        if node.get_type_name() not in _ALWAYS_BFLOAT16:
            to_visit += _sources(node)
    operations = model.get_ordered_ops()
    for node in operations:
        if any(source.get_name() in names for source in _sources(node)):
            names.add(node.get_name())
    sources = [source for node in operations if node.get_name() in names for source in _sources(node)]
    return names | {source.get_name() for source in sources if source.get_type_name() == "Constant"}


def _set_apart(node: Any) -> None:
    """Write a convolution's padding as numbers: OpenVINO would join it again with one that is otherwise the same."""
    if node.get_attributes().get("auto_pad") in {"same_upper", "same_lower", "valid"}:
        node.set_attribute("auto_pad", "explicit")


def _sources(node: Any) -> list[Any]:
    return [one.get_source_output().get_node() for one in node.inputs()]


def _meaning(node: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return what is equal for operations that compute the same."""
    content = hashlib.sha256(node.data.tobytes()).digest() if node.get_type_name() == "Constant" else b""
    sources = tuple((source.get_node().get_name(), source.get_index()) for source in inputs)
    return (str(node.get_type_info()), repr(sorted(node.get_attributes().items())), content, sources)
