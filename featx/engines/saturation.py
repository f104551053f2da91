"""int8 networks on x86 processors without VNNI, where products of 8 bits are added in pairs of 16 bits.

Such a pair is at most 255·127·2 = 64,770, but sums above 32,767 are clipped: features then differ from those of other
processors. Where each weight is the sum of two of at most 64, which multiply the same input, no pair exceeds 32,640.
All sums are what they are with VNNI, bit for bit, and the network is still faster than in float32.
"""

from functools import cache
from typing import Any

import numpy as np

from featx.system import import_openvino, kept_signal_stack

#: Channels in and out of the network that shows whether sums are cut off.
_N_CHANNELS = 64


def without_saturation(model: Any) -> Any:
    """Return an int8 `openvino.Model` whose sums are exact on this processor; it is changed in place."""
    if int8_saturates():
        split_weights(model)
    return model


@cache
def int8_saturates() -> bool:
    """Return whether OpenVINO clips sums of int8 products here, by computing a product with a known result."""
    openvino = import_openvino()
    ops = openvino.opset13
    images = ops.parameter([1, _N_CHANNELS, 8, 8], openvino.Type.u8)
    quantized = ops.fake_quantize(ops.convert(images, "f32"), *map(np.float32, (0, 255, 0, 255)), 256)
    weights = ops.constant(np.full((_N_CHANNELS, _N_CHANNELS, 1, 1), 127, np.int8))
    scaled = ops.multiply(ops.convert(weights, "f32"), np.float32(1))
    product = ops.convolution(quantized, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    with kept_signal_stack():
        model = openvino.Model([product.output(0)], [images])
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    sums = compiled(np.full((1, _N_CHANNELS, 8, 8), 255, np.uint8))[0]
    return bool((sums != 255 * 127 * _N_CHANNELS).any())


def split_weights(model: Any) -> None:
    """Give each convolution and matrix product of an int8 `openvino.Model` its input twice, and smaller weights."""
    openvino = import_openvino()
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        weights = _int8_weights(operation) if kind in {"Convolution", "MatMul"} else None
        if weights is None:
            continue
        whole = weights.get_data()
        half = whole >> 1
        # Channels are on the second axis; those of a matrix's rows on the last, or on the last but one.
        is_transposed = kind == "MatMul" and operation.get_attributes()["transpose_b"]
        axis = 1 if kind == "Convolution" else whole.ndim - (1 if is_transposed else 2)
        split = openvino.opset13.constant(np.concatenate([half, whole - half], axis))
        for reader in weights.output(0).get_target_inputs():
            reader.replace_source_output(split.output(0))
        features = operation.input_value(0)
        twice = openvino.opset13.concat([features, features], 1 if kind == "Convolution" else -1)
        operation.input(0).replace_source_output(twice.output(0))
    model.validate_nodes_and_infer_types()


def _int8_weights(operation: Any) -> Any:
    """Return the constant of int8 that `operation` multiplies by, after a conversion and a scale; None without one."""
    node = operation.input_value(1).get_node()
    for kind in ("Multiply", "Convert"):
        if node.get_type_name() != kind:
            return None
        node = node.input_value(0).get_node()
    is_int8 = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    return node if is_int8 else None
