"""The convolutions of a converted network as a network that ncnn runs."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import FeatxError, system_errors
from featx.system import import_ncnn, import_openvino

#: The first line of a network in ncnn's text format, https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
_MAGIC = 7767517

#: Before the weights of a convolution: they are float32, not compressed.
_FLOAT32_TAG = bytes(4)

#: What would make float32 less precise.
_HALF_PRECISION = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")


@dataclass(frozen=True)
class Layer:
    """A layer as ncnn has it.

    Attributes:
        kind: its type.
        name: of the layer, and of the tensor that it makes.
        parameters: by their numbers.
        arrays: weights, then biases, if it has any.
    """

    kind: str
    name: str
    parameters: dict[int, int] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Chain:
    """The convolutions that follow each other from the first one on.

    Attributes:
        layers: what they are in ncnn.
        source: the output, of an operation of OpenVINO, that the first one takes.
        end: the output of the last one.
    """

    layers: list[Layer]
    source: Any
    end: Any

    def head(self, model: Any) -> Any:
        """Return what of `model` comes before the chain: `(1, height, width, 3)` uint8 to `(1, 3, h, w)` float32."""
        return import_openvino().Model([self.source], model.get_parameters())

    def tail(self, model: Any) -> Any:
        """Return what of `model`, which is changed, comes after the chain: `(1, channels, h, w)` to `(1, …)`, float32.

        The head must have been taken before.
        """
        openvino = import_openvino()
        tensor = openvino.opset13.parameter(self.end.get_shape(), openvino.Type.f32)
        for target in self.end.get_target_inputs():
            target.replace_source_output(tensor.output(0))
        return openvino.Model([one.input_value(0) for one in model.get_results()], [tensor])


def chain_of(model: Any) -> Chain:
    """Return the chain of convolutions of an `openvino.Model` of one image.

    Raises:
        FeatxError: there is none that ncnn can run.
    """
    first = next((node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"), None)
    layers: list[Layer] = []
    end = source = first.input_value(0) if first else None
    while end is not None and (found := _next_layer(end, f"layer{len(layers)}", is_first=not layers)):
        layer, end = found
        layers.append(layer)
    if not layers:
        raise FeatxError("ncnn cannot run this network. Choose --engine openvino.")
    return Chain(layers, source, end)


def _next_layer(source: Any, name: str, *, is_first: bool) -> tuple[Layer, Any] | None:
    """Return the layer that takes `source`, and its output; None if several do, or ncnn is not to run it."""
    node = _only_user(source)
    if node is None:
        return None
    if node.get_type_name() == "MaxPool" and not is_first:
        return _pooling(node, name)
    return _convolution(node, name) if node.get_type_name() == "Convolution" else None


def _pooling(node: Any, name: str) -> tuple[Layer, Any] | None:
    how = node.get_attributes()
    pads, dilations = [*how["pads_begin"], *how["pads_end"]], how.get("dilations", [1])
    if len(how["kernel"]) != 2 or any(pads) or set(dilations) != {1} or how["rounding_type"] != "floor":
        return None
    (height, width), (down, across) = how["kernel"], how["strides"]
    return Layer("Pooling", name, {0: 0, 1: width, 11: height, 2: across, 12: down, 5: 1}), node.output(0)


def _convolution(node: Any, name: str) -> tuple[Layer, Any] | None:
    """Return a convolution with the bias and the ReLU that follow it."""
    kernel, how, end = _constant(node, 1), node.get_attributes(), node.output(0)
    if kernel is None or kernel.ndim != 4:
        return None
    (top, left), (bottom, right) = how["pads_begin"], how["pads_end"]
    (down, across), (dilated_down, dilated_across) = how["strides"], how["dilations"]
    parameters = {0: kernel.shape[0], 1: kernel.shape[3], 11: kernel.shape[2], 6: kernel.size}
    parameters |= {2: dilated_across, 12: dilated_down, 3: across, 13: down, 4: left, 15: right, 14: top, 16: bottom}
    arrays = [kernel]
    user = _only_user(end)
    bias = _constant(user, 1) if user is not None and user.get_type_name() == "Add" else None
    if bias is not None and bias.shape == (1, kernel.shape[0], 1, 1):
        parameters[5], end = 1, user.output(0)
        arrays.append(bias)
        user = _only_user(end)
    if user is not None and user.get_type_name() == "Relu":
        parameters[9], end = 1, user.output(0)
    return Layer("Convolution", name, parameters, tuple(arrays)), end


def _only_user(output: Any) -> Any:
    """Return the operation that takes `output`; None if several do."""
    targets = list(output.get_target_inputs())
    return targets[0].get_node() if len(targets) == 1 else None


def _constant(node: Any, number: int) -> np.ndarray | None:
    """Return the input of an operation with this number, float32; None if it is not constant."""
    given = node.input_value(number).get_node()
    is_float32 = given.get_type_name() == "Constant" and given.get_element_type().get_type_name() == "f32"
    return given.get_data() if is_float32 else None


def load_chain(chain: Chain, n_threads: int) -> Any:
    """Return the `ncnn.Net` of a chain, which computes an image on so many cores; its input is called `pixels`.

    Raises:
        FeatxError: there is no room for the weights in the folder for temporary files.
    """
    network = import_ncnn().Net()
    network.opt.num_threads = n_threads
    for name in _HALF_PRECISION:
        setattr(network.opt, name, False)
    advice = " Free some space there, or set TMPDIR to another folder."
    with (
        system_errors("A temporary file with the weights", "written", advice),
        tempfile.TemporaryDirectory(prefix="featx-ncnn-") as folder,
    ):
        weights = Path(folder, "weights.bin")
        with weights.open("wb") as file:
            file.writelines(_weights_of(chain))
        failed = network.load_param_mem(_text_of(chain)) or network.load_model(str(weights))
    if failed:
        raise FeatxError("ncnn cannot load this network. Choose --engine openvino.")
    return network


def _text_of(chain: Chain) -> str:
    """Return the structure in ncnn's text format: a line for each layer, with the tensors that it takes and makes."""
    names = ["pixels", *(layer.name for layer in chain.layers)]
    lines = ["Input pixels 0 1 pixels"]
    for source, layer in zip(names, chain.layers, strict=False):
        how = " ".join(f"{number}={value}" for number, value in sorted(layer.parameters.items()))
        lines.append(f"{layer.kind} {layer.name} 1 1 {source} {layer.name} {how}")
    return "\n".join([str(_MAGIC), f"{len(lines)} {len(lines)}", *lines, ""])


def _weights_of(chain: Chain) -> Iterator[bytes]:
    for layer in chain.layers:
        for number, array in enumerate(layer.arrays):
            yield (b"" if number else _FLOAT32_TAG) + np.ascontiguousarray(array, "<f4").tobytes()
