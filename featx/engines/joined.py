"""Several networks as one, so that images go once through what they have in common: layers of one backbone."""

import hashlib
from collections.abc import Sequence
from typing import Any

from featx.system import import_openvino


def join(models: Sequence[Any]) -> Any:
    """Return an `openvino.Model` that gives the features of all `models`, flattened, one after the other.

    It takes what each of them takes, `(n, height, width, 3)` uint8, and gives `(n, n_features)` float32. The models are
    changed, and of no use any more.

    Networks that were cut from one backbone at several layers have the same operations up to the first cut. Operations
    are the same if they are of one kind and have the same attributes, content and inputs.
    """
    openvino = import_openvino()
    images = models[0].get_parameters()[0]
    known: dict[tuple[Any, ...], Any] = {}  # operations by what they compute
    outputs = []
    for model in models:
        alike: dict[str, Any] = {}  # what stands for each operation of this model, by its name
        for node in model.get_ordered_ops():
            sources = [one.get_source_output() for one in node.inputs()]
            inputs = [alike[source.get_node().get_name()].output(source.get_index()) for source in sources]
            if node.get_type_name() == "Result":
                outputs.append(inputs[0])
                continue
            found = images if node.get_type_name() == "Parameter" else known.setdefault(_meaning(node, inputs), node)
            if found is node:
                for own, source in zip(node.inputs(), inputs, strict=True):
                    own.replace_source_output(source)
            alike[node.get_name()] = found
    operations = openvino.opset13
    flat = [operations.reshape(output, [0, -1], special_zero=True) for output in outputs]
    return openvino.Model([operations.concat(flat, axis=1)], [images], "joined")


def _meaning(node: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return what is equal for operations that compute the same."""
    content = hashlib.sha256(node.data.tobytes()).digest() if node.get_type_name() == "Constant" else b""
    sources = tuple((source.get_node().get_name(), source.get_index()) for source in inputs)
    return (str(node.get_type_info()), repr(sorted(node.get_attributes().items())), content, sources)
