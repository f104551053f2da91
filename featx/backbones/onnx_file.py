"""Opens an ONNX file with OpenVINO, and finds its layers, their shapes, and those that are usually wanted."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.backbones.network_file import NetworkFile, NetworkLayer
from featx.backbones.onnx_messages import OnnxFile, OnnxNode, parse_onnx
from featx.errors import BackboneError, system_errors
from featx.storage import read_whole
from featx.system import brief, import_openvino, size
from featx.text import printable

#: Protocol Buffers end there.
_MAX_BYTES = (2 << 30) - 1

#: Element types of an input that pixels can be put into.
_PIXEL_TYPES = {"f32", "f16", "bf16", "f64", "u8"}

#: Operators of ONNX that only pass on what they get, or give it another shape.
_PASSING = {"Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout"}

#: Operators that make probabilities of scores.
_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}

#: Operators of a classifier, whose first input is what it looks at.
_WEIGHTED = {"Gemm", "MatMul", "Conv"}

#: Operators of OpenVINO that always have the channels on the second axis, and those that leave axes where they are.
_CHANNELS_SECOND = {
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "BatchNormInference"),
}
_KEEPING = {
    *("Add", "Subtract", "Multiply", "Divide", "Power", "Minimum", "Maximum", "Convert", "Concat", "MVN", "Pad"),
    *("Relu", "PRelu", "Elu", "Selu", "Clamp", "Sigmoid", "Tanh", "Swish", "HSwish", "HSigmoid", "Gelu", "Mish"),
    *("SoftPlus", "Exp", "Erf", "Sqrt", "Abs", "Negative", "FakeQuantize"),
}


@dataclass(frozen=True)
class OpenedOnnx:
    """An ONNX file that OpenVINO has read.

    Attributes:
        file: what there is in it.
        model: the network, an `openvino.Model`.
        outputs: of the operators in `model`, `openvino.Output`, by the names in the file.
        is_widened: whether it was for a fixed number of images, and takes any number now.
    """

    file: NetworkFile
    model: Any
    outputs: Mapping[str, Any]
    is_widened: bool


def open_onnx(path: Path, file: NetworkFile) -> OpenedOnnx:
    """Return the network in an ONNX file that `describe_onnx` has described: the bytes that were digested.

    Raises:
        BackboneError: it is not that file any more.
    """
    model = _read_model(read_onnx(path, file.digest), printable(path))
    is_widened = file.batch is None and model.input(0).get_partial_shape()[0].is_static
    model.reshape([file.batch or -1, *_sides(model)])
    return OpenedOnnx(file, model, dict(_named_outputs(model)), is_widened)


def describe_onnx(path: Path, digest: str, *, widen: bool = True) -> NetworkFile:
    """Return what there is in an ONNX file.

    Args:
        path: the file.
        digest: SHA-256 of the file in hexadecimal.
        widen: whether a network for a fixed number of images is made to take any, if it can.

    Raises:
        BackboneError: it is no ONNX file, or none that can be a backbone; or it is not the one with this `digest`.
    """
    name, content = printable(path), read_onnx(path, digest)
    try:
        onnx = parse_onnx(content)
    except ValueError as error:
        reason = "its names are not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise BackboneError(f"{name} is not an ONNX file, or damaged: {reason}.") from None
    if onnx.has_external_data:
        raise BackboneError(
            f"{name} has weights in other files: write all into one file with the Python package onnx: "
            f'onnx.save_model(onnx.load("{printable(path.name)}"), "whole.onnx", save_as_external_data=False).'
        )
    if len(onnx.inputs) != 1:
        raise BackboneError(
            f"{name} has {len(onnx.inputs)} inputs ({brief(', '.join(onnx.inputs))}): featx needs a network with one, "
            f"the images. Export the image encoder alone."
        )
    return _described(onnx, _read_model(content, name), path, digest, widen=widen)


def read_onnx(path: Path, digest: str) -> bytes:
    """Return all of an ONNX file: the bytes that were digested.

    Raises:
        BackboneError: it cannot be read, or is not the one with this `digest`.
    """
    name = printable(path)
    with system_errors(f"The network file {name}", "read", kind=BackboneError):
        content = read_whole(path, _MAX_BYTES)
    if content is None:
        raise BackboneError(f"The network file {name} is larger than an ONNX file can be ({size(_MAX_BYTES)}).")
    if hashlib.sha256(content).hexdigest() != digest:
        raise BackboneError(f"The network file {name} changed while featx was running; run the same command again.")
    return content


def _read_model(content: bytes, name: str) -> Any:
    """Return the `openvino.Model` of an ONNX file."""
    try:
        return import_openvino().Core().read_model(content)
    except RuntimeError as error:  # OpenVINO raises nothing else
        raise BackboneError(f"OpenVINO cannot read {name}: {_reason(error)}.") from error


def _reason(error: RuntimeError) -> str:
    """Return what OpenVINO says of a file, without the places in its source code."""
    text = str(error)
    if unknown := re.search(r"No conversion rule found for operations?: *([^\n]+)", text):
        return f"it does not have the operators {brief(unknown[1].strip())}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not re.match(r"(Exception from|Check '|\S+\.[ch]pp:\d+)", line)]
    return brief((said or lines or ["no reason given"])[-1].rstrip("."))


def _described(onnx: OnnxFile, model: Any, path: Path, digest: str, *, widen: bool) -> NetworkFile:
    name, source = printable(path), model.input(0)
    shape = _dimensions(source)
    element_type = source.get_element_type().get_type_name()
    received = f"Its input {printable(onnx.inputs[0])} is {element_type} {source.get_partial_shape()}"
    if shape is None or len(shape) != 4 or element_type not in _PIXEL_TYPES:
        raise BackboneError(
            f"{name} does not take images, (n, 3, height, width) or (n, height, width, 3) of floats or bytes: "
            f"{received}."
        )
    if not any(shape[axis] in {3, None} for axis in (1, 3)):
        raise BackboneError(f"{name} does not take images of three colours. {received}.")
    shapes = _shapes_of_any_number(model) if widen or shape[0] is None else None
    batch = None if shapes else shape[0] or 1
    shapes = shapes or _shapes(model, batch or 1)
    if shapes is None:
        raise BackboneError(f"OpenVINO cannot run {name}: the sizes of its layers do not fit its input. {received}.")
    model.reshape([batch or -1, *_sides(model)])
    outputs = dict(_named_outputs(model))
    channels = dict(_channels_axes(model))
    layers = tuple(
        _layer(node, tensor, outputs[tensor], shapes.get(tensor), batch, channels)
        for node in onnx.nodes
        for tensor in node.outputs
        if tensor in outputs
    )
    return NetworkFile(
        name=path.name,
        digest=digest,
        input_name=onnx.inputs[0],
        input_type=element_type,
        input_shape=(batch, *shape[1:]),
        layers=layers,
        **_usual(onnx, {layer.name: layer for layer in layers if not layer.problem}),
    )


def _named_outputs(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the outputs of all operators by their names in the file."""
    nodes = (node for node in model.get_ordered_ops() if node.get_type_name() != "Result")
    yield from ((name, output) for node in nodes for output in node.outputs() for name in output.names)


def _dimensions(output: Any) -> tuple[int | None, ...] | None:
    """Return the shape of an output, None for a side that is free; None if even the number of sides is."""
    shape = output.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(None if side.is_dynamic else side.get_length() for side in shape)


def _sides(model: Any) -> list[Any]:
    """Return the sides of the input but for the number of images."""
    return list(model.input(0).get_partial_shape())[1:]


def _shapes(model: Any, n_images: int) -> dict[str, tuple[int | None, ...] | None] | None:
    """Return the shapes of all outputs for so many images, by their names in the file; None if it takes no such number.

    With a number, OpenVINO works out shapes that are computed from that number.
    """
    probe = model.clone()  # in which OpenVINO replaces what depends on that number alone by constants
    try:
        probe.reshape([n_images, *_sides(probe)])
    except RuntimeError:  # OpenVINO raises nothing else
        return None
    return {name: _dimensions(output) for name, output in _named_outputs(probe)}


def _shapes_of_any_number(model: Any) -> dict[str, tuple[int | None, ...] | None] | None:
    """Return the shapes for two images; None unless there are as many rows as images, for two of them and for three."""
    for n_images in (3, 2):
        shapes = _shapes(model, n_images)
        if shapes is None or any((shapes[min(output.names)] or (0,))[0] != n_images for output in model.outputs):
            return None
    return shapes


def _layer(
    node: OnnxNode,
    name: str,
    output: Any,
    shape: tuple[int | None, ...] | None,
    batch: int | None,
    channels: Mapping[tuple[str, int], int],
) -> NetworkLayer:
    kind, problem = output.get_element_type(), ""
    if not kind.is_real():
        problem = f"its numbers are {kind.get_type_name()}, not floats"
    elif shape is None:
        problem = "its shape is not known before it runs"
    elif not shape or shape[0] != (batch or 2):
        problem = "its first axis is not that of the images"
    axis = channels.get(_place(output))
    return NetworkLayer(
        name=name,
        node=node.name,
        kind=node.kind,
        shape=(shape or ())[1:],
        channels=None if axis is None else axis - 1,
        problem=problem,
    )


def _channels_axes(model: Any) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield which axis has the channels, for each output of four axes where the operators before it tell."""
    known: dict[tuple[str, int], int] = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        before = [known.get(_place(source)) for source in node.input_values()]
        axes = {axis for axis in before if axis is not None}
        axis = None
        if kind in _CHANNELS_SECOND:
            axis = 1
        elif kind == "Transpose" and before[0] is not None:
            order = node.input_value(1).get_node()
            axis = list(order.get_data()).index(before[0]) if order.get_type_name() == "Constant" else None
        elif kind in _KEEPING and len(axes) == 1:
            (axis,) = axes
        for output in node.outputs():
            if axis is not None and len(_dimensions(output) or ()) == 4:
                known[_place(output)] = axis
    yield from known.items()


def _place(output: Any) -> tuple[str, int]:
    """Return what tells an output from all others of its network."""
    return output.get_node().get_friendly_name(), output.get_index()


def _usual(onnx: OnnxFile, layers: Mapping[str, NetworkLayer]) -> dict[str, Any]:
    """Return which layers are usually wanted: `scores`, `scores_kind`, `pooled` and `spatial` of a `NetworkFile`."""
    makers = {output: node for node in onnx.nodes for output in node.outputs}
    vectors = [name for name in onnx.outputs if name in layers and len(layers[name].shape) == 1]
    if len(vectors) != 1:
        only = onnx.outputs[0] if len(onnx.outputs) == 1 else ""
        return {"spatial": only} if only in layers and len(layers[only].shape) == 3 else {}
    scores = vectors[0]
    last = _maker(makers, scores)
    scored = last
    if last and last.kind in _ACTIVATIONS:
        last = _maker(makers, last.inputs[0])
    if last and last.kind == "Add" and (summed := [name for name in last.inputs if name not in onnx.constants]):
        last = _maker(makers, summed[0])
    pooled: str | None = None
    if last and last.kind in _WEIGHTED:
        pooled = last.inputs[0] if last.inputs[0] in layers and _is_vector(layers[last.inputs[0]]) else None
    elif scored and scored.kind not in _ACTIVATIONS:
        pooled = scores
    before = _ancestors(makers, pooled or scores)
    spatial = [name for name, layer in layers.items() if name in before and _is_spatial(layer)]
    return {
        "scores": scores,
        "scores_kind": scored.kind if scored else "",
        "pooled": pooled,
        "spatial": spatial[-1] if spatial else None,
    }


def _maker(makers: Mapping[str, OnnxNode], name: str) -> OnnxNode | None:
    """Return the node that computes a tensor, before nodes that only pass it on."""
    node = makers.get(name)
    while node and node.kind in _PASSING and node.inputs:
        node = makers.get(node.inputs[0])
    return node


def _ancestors(makers: Mapping[str, OnnxNode], name: str) -> set[str]:
    """Return the names of a tensor and of all that it is computed from."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += makers[one].inputs if one in makers else ()
    return found


def _is_vector(layer: NetworkLayer) -> bool:
    return bool(layer.shape) and all(side == 1 for side in layer.shape[1:])


def _is_spatial(layer: NetworkLayer) -> bool:
    if layer.channels is None:
        return False
    return all(side != 1 for axis, side in enumerate(layer.shape) if axis != layer.channels)
