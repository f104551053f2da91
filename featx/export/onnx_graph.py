"""One ONNX network from images of any size to probabilities, around the ONNX network of a backbone.

Resizing and the head are the Keras models of `graph`, converted; what OpenVINO does around the network is a few nodes.
"""

import importlib
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, NetworkFile, describe_onnx, find_pixels, open_onnx, read_onnx
from featx.errors import FeatxError
from featx.export.graph import ONNX_OPSET, build_head, build_resizer, keras_to_onnx
from featx.heads import Head, TunedHead
from featx.recipe import Recipe
from featx.text import printable

#: Before it, the axes of a mean are an attribute; since then, an input.
_AXES_ARE_INPUT = 18

#: Element types of OpenVINO, as ONNX calls them.
_TYPES = {"f32": "FLOAT", "f16": "FLOAT16", "bf16": "BFLOAT16", "f64": "DOUBLE", "u8": "UINT8"}


def join_onnx(recipe: Recipe, path: Path, head: Head | TunedHead) -> Any:
    """Return the `onnx.ModelProto` of a recipe of an ONNX file and a head: `images` to `probabilities`.

    It takes any number of images, or as many as the file does.

    Raises:
        BackboneError: the file is not the one that the recipe names.
        FeatxError: the onnx package cannot bring the network to a set of operators that the other parts have.
    """
    onnx = importlib.import_module("onnx")
    file = describe_onnx(path, recipe.weights)
    opened = open_onnx(path, file)
    layer = file.find_layer(file.scores if recipe.layer == CLASSIFIER_LAYER and file.scores else recipe.layer)
    kind = opened.outputs[layer.name].get_element_type().get_type_name()
    output = onnx.helper.make_tensor_value_info(
        layer.name, getattr(onnx.TensorProto, _TYPES[kind]), (None, *layer.shape)
    )
    network = _cut(onnx, onnx.load_model_from_string(read_onnx(path, recipe.weights)), output)
    n_images = network.graph.input[0].type.tensor_type.shape.dim[0]
    opset = max(ONNX_OPSET, _opset(network))
    parts = [
        keras_to_onnx(build_resizer(recipe.image_size, recipe.aspect_ratio), "images", "resized"),
        _preparation(onnx, recipe, file, opset),
        network,
        _ending(onnx, recipe, file, output, head.feature_shape, opset),
        keras_to_onnx(build_head(recipe, head), "features", "probabilities"),
    ]
    ir_version = max(part.ir_version for part in parts)
    same = [
        onnx.compose.add_prefix(_of_opset(part, opset, file.name), f"{number}/") for number, part in enumerate(parts)
    ]
    for part in same:
        part.ir_version = ir_version
    whole = reduce(lambda before, after: _joined(onnx, before, after), same)
    first, last = whole.graph.input[0].name, whole.graph.output[0].name
    _rename(whole, {first: "images", last: "probabilities"})
    if n_images.dim_value:
        whole.graph.input[0].type.tensor_type.shape.dim[0].dim_value = n_images.dim_value
    return whole


def _opset(model: Any) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def _cut(onnx: Any, model: Any, output: Any) -> Any:
    """Return a network that ends with `output`, without what is not needed for it."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    makers = {name: node for node in graph.node for name in node.output}
    needed, waiting = set(), [output.name]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += _read_by(makers[name]) if name in makers else ()
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for field in ("node", "initializer", "input", "output", "value_info"):
        cut.graph.ClearField(field)
    cut.graph.node.extend(nodes)
    cut.graph.initializer.extend(tensors)
    cut.graph.input.extend(inputs)
    cut.graph.output.append(output)
    cut.ClearField("metadata_props")
    return cut


def _read_by(node: Any) -> Iterator[str]:
    """Yield the names of all that a node reads, also inside of its branches and loops."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from _read_by(inner)


def _preparation(onnx: Any, recipe: Recipe, file: NetworkFile, opset: int) -> Any:
    """Return what is done to resized pixels before the network."""
    helper, types, pixels = onnx.helper, onnx.TensorProto, find_pixels(recipe.preprocessing)
    layout = recipe.layout or file.layouts[0]
    steps: list[tuple[str, list[Any], dict[str, Any]]] = [("Cast", [], {"to": types.FLOAT})]
    if any(pixels.mean):
        steps.append(("Sub", [np.array(pixels.mean, np.float32)], {}))
    if any(std != 1 for std in pixels.std):
        steps.append(("Div", [np.array(pixels.std, np.float32)], {}))
    if pixels.is_bgr:
        steps.append(("Gather", [np.array([2, 1, 0])], {"axis": 3}))
    if layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    steps.append(("Cast", [], {"to": getattr(types, _TYPES[file.input_type])}))
    source = helper.make_tensor_value_info("resized", types.UINT8, [None, *recipe.image_size, 3])
    shape = (None, *((3, *recipe.image_size) if layout == "nchw" else (*recipe.image_size, 3)))
    prepared = helper.make_tensor_value_info("prepared", getattr(types, _TYPES[file.input_type]), shape)
    return _chain(onnx, source, steps, prepared, opset)


def _ending(
    onnx: Any, recipe: Recipe, file: NetworkFile, layer: Any, feature_shape: tuple[int, ...], opset: int
) -> Any:
    """Return what is done to the output of the layer before the head: softmax, or pooling."""
    types = onnx.TensorProto
    steps: list[tuple[str, list[Any], dict[str, Any]]] = [("Cast", [], {"to": types.FLOAT})]
    if recipe.layer == CLASSIFIER_LAYER and not file.has_probabilities:
        steps.append(("Softmax", [], {"axis": 1}))
    if recipe.pooling:
        axes = [axis + 1 for axis in file.pooled_axes(layer.name, recipe.pooling)]
        kept: tuple[list[Any], dict[str, Any]] = (
            ([], {"axes": axes}) if opset < _AXES_ARE_INPUT else ([np.array(axes)], {})
        )
        steps.append(({"avg": "ReduceMean", "max": "ReduceMax"}[recipe.pooling], kept[0], {"keepdims": 0, **kept[1]}))
    features = onnx.helper.make_tensor_value_info("features", types.FLOAT, (None, *feature_shape))
    return _chain(onnx, layer, steps, features, opset)


def _chain(
    onnx: Any, source: Any, steps: Sequence[tuple[str, list[Any], dict[str, Any]]], output: Any, opset: int
) -> Any:
    """Return a network of operators that follow each other: the name of each, its constants, and its attributes."""
    helper, nodes, tensors, name = onnx.helper, [], [], source.name
    for number, (operator, constants, attributes) in enumerate(steps):
        names = [f"constant_{number}_{place}" for place in range(len(constants))]
        tensors += [onnx.numpy_helper.from_array(value, one) for value, one in zip(constants, names, strict=True)]
        after = output.name if number == len(steps) - 1 else f"step_{number}"
        nodes.append(helper.make_node(operator, [name, *names], [after], f"step_{number}", **attributes))
        name = after
    graph = helper.make_graph(nodes, output.name, [source], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _of_opset(model: Any, opset: int, name: str) -> Any:
    """Return a network in a newer set of operators."""
    if _opset(model) == opset:
        return model
    try:
        return importlib.import_module("onnx.version_converter").convert_version(model, opset)
    except Exception as error:  # the converter is C++, and raises what it likes
        raise FeatxError(
            f"The onnx package cannot convert {printable(name)} to the operators of opset {opset}: "
            f"{' '.join(str(error).split())[:200]}. Export the network again with this opset."
        ) from error


def _joined(onnx: Any, before: Any, after: Any) -> Any:
    """Return one network after the other: each has one input and one output."""
    return onnx.compose.merge_models(before, after, [(before.graph.output[0].name, after.graph.input[0].name)])


def _rename(model: Any, names: dict[str, str]) -> None:
    """Give the input and the output of a network other names."""
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
