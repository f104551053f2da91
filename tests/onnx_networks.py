"""Small ONNX networks, as exporters write them: convolutions, pooling, and a classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: What the layers of `write_network` are called.
SPATIAL, POOLED, SCORES = "relu2_out", "flat_out", "logits"

N_CLASSES = 1000

OPSET = 13


def write_network(
    path: Path,
    *,
    batch: int | str = "n",
    size: int | str = 32,
    nhwc: bool = False,
    end: str = "",
    channels: int = 3,
    input_type: int = TensorProto.FLOAT,
    flat_shape: Sequence[int] | None = None,
    width: int = 8,
    n_classes: int = N_CLASSES,
    after: str = "",
    shape: Sequence[int | str] | None = None,
    opset: int = OPSET,
    seed: int = 0,
) -> Path:
    """Write a network to `path`: two convolutions, global pooling, and a matrix with `n_classes` columns.

    Args:
        path: the file.
        batch: images at a time; a name for any number.
        size: height and width; a name for any.
        nhwc: whether its input has the colours last.
        end: an operator after the classifier, such as `"Softmax"`.
        channels: colours of its input.
        input_type: of its numbers.
        flat_shape: flattens by a Reshape to this shape, as exporters do that know the number of images.
        width: channels after the first convolution.
        n_classes: of the classifier.
        after: what is added to the output of the pooling: `"rows"`, a constant with as many rows as there are images;
            `"others"`, the mean of all images.
        shape: of its input, if it is none that the others give.
        opset: the version of its operators.
        seed: of its weights.
    """
    own = [batch, size, size, channels] if nhwc else [batch, channels, size, size]
    nodes = [helper.make_node("Transpose", ["images"], ["nchw"], "to_nchw", perm=[0, 3, 1, 2])] if nhwc else []
    pixels = "nchw" if nhwc else "images"
    if input_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [pixels], ["floats"], "cast", to=TensorProto.FLOAT))
        pixels = "floats"
    nodes += [
        helper.make_node("Conv", [pixels, "w1"], ["conv1_out"], "conv1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1_out"], ["relu1_out"], "relu1"),
        helper.make_node("Conv", ["relu1_out", "w2", "b2"], ["conv2_out"], "conv2", strides=[2, 2]),
        helper.make_node("Relu", ["conv2_out"], [SPATIAL], "relu2"),
        helper.make_node("GlobalAveragePool", [SPATIAL], ["pool_out"], "pool"),
        *([helper.make_node("ReduceMean", ["pool_out"], ["others"], axes=[0])] if after == "others" else []),
        helper.make_node("Add", ["pool_out", after], ["more_out"], "more")
        if after
        else helper.make_node("Identity", ["pool_out"], ["more_out"], "more"),
        helper.make_node("Reshape", ["more_out", "flat_shape"], [POOLED], "flatten")
        if flat_shape
        else helper.make_node("Flatten", ["more_out"], [POOLED], "flatten"),
        helper.make_node("Gemm", [POOLED, "w3", "b3"], [SCORES], "classifier", transB=1),
    ]
    output = SCORES
    if end:
        output = "ended"
        nodes.append(helper.make_node(end, [SCORES], [output], "end"))
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.3, (width, channels, 3, 3)),
        "w2": rng.normal(0, 0.2, (16, width, 3, 3)),
        "b2": rng.normal(0, 0.1, 16),
        "w3": rng.normal(0, 0.3, (n_classes, 16)),
        "b3": rng.normal(0, 0.1, n_classes),
    }
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    if after == "rows":
        tensors.append(numpy_helper.from_array(np.ones((batch, 1, 1, 1), np.float32), "rows"))
    if flat_shape:
        tensors.append(numpy_helper.from_array(np.array(flat_shape, np.int64), "flat_shape"))
    return save(
        path,
        nodes,
        [helper.make_tensor_value_info("images", input_type, shape or own)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, n_classes])],
        tensors,
        opset=opset,
    )


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    tensors: Sequence[onnx.TensorProto] = (),
    domain: str = "",
    opset: int = OPSET,
) -> Path:
    """Write the network with these parts to `path`."""
    graph = helper.make_graph(list(nodes), "network", list(inputs), list(outputs), list(tensors))
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path
