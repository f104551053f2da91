"""The network of an ONNX file as one that OpenVINO runs: uint8 pixels in, the features of one layer out."""

from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, NetworkFile, OpenedOnnx, describe_onnx, find_pixels, open_onnx
from featx.errors import BackboneError
from featx.recipe import Recipe
from featx.system import import_openvino, kept_signal_stack
from featx.text import printable

#: How far the features of an image may depend on the others of its batch, as a share of the largest: rounding.
_ROUNDING = 1e-3


def build_onnx(recipe: Recipe, path: Path, file: NetworkFile) -> Any:
    """Return the `openvino.Model` of a recipe: `(n, height, width, 3)` uint8 RGB in, `(n, …)` float32 features out.

    It takes any number of images, unless the file is for a fixed number, and that is built into the network.

    Args:
        recipe: what to build.
        path: the file.
        file: what there is in it.

    Raises:
        BackboneError: the file is not the one that the recipe names, has no such layer, or does not take such images.
    """
    opened = open_onnx(path, file)
    model = _built(opened, recipe)
    if opened.is_widened and not _keeps_images_apart(model, opened.file.batch, recipe.image_size):
        opened = open_onnx(path, describe_onnx(path, file.digest, widen=False))
        model = _built(opened, recipe)
    if not opened.is_widened and not _keeps_images_apart(model, opened.file.batch, recipe.image_size):
        raise BackboneError(
            f"In {printable(opened.file.name)}, the features of an image depend on the other images of its batch. "
            f"Export the network again for inference, or for one image at a time."
        )
    return model


def _built(opened: OpenedOnnx, recipe: Recipe) -> Any:
    openvino = import_openvino()
    ops, file = openvino.opset13, opened.file
    layout = file.choose_layout(recipe.layout) or file.layouts[0]
    height, width = file.choose_image_size(recipe.image_size, recipe.layout)
    images = ops.parameter([file.batch or -1, height, width, 3], openvino.Type.u8, name="images")
    pixels = _preprocessed(ops, images, recipe.preprocessing)
    if layout == "nchw":
        pixels = ops.transpose(pixels, np.array([0, 3, 1, 2]))
    if file.input_type != "f32":
        pixels = ops.convert(pixels, file.input_type)
    for target in opened.model.input(0).get_target_inputs():
        target.replace_source_output(pixels.output(0))
    try:
        return openvino.Model([_features(ops, opened, recipe)], [images])
    except RuntimeError as error:  # OpenVINO raises nothing else
        raise BackboneError(
            f"{printable(file.name)} cannot be run up to the layer {printable(recipe.layer)} on images of "
            f"{height}×{width}: {' '.join(str(error).split())[-200:]}"
        ) from error


def _preprocessed(ops: Any, images: Any, preprocessing: str) -> Any:
    """Return `(n, height, width, 3)` float32 for uint8 `images`."""
    pixels, done = find_pixels(preprocessing), ops.convert(images, "f32")
    if any(pixels.mean):
        done = ops.subtract(done, np.array(pixels.mean, np.float32))
    if any(std != 1 for std in pixels.std):
        done = ops.divide(done, np.array(pixels.std, np.float32))
    return ops.gather(done, np.array([2, 1, 0]), np.array(3)) if pixels.is_bgr else done


def _features(ops: Any, opened: OpenedOnnx, recipe: Recipe) -> Any:
    """Return the output that the recipe wants, float32, pooled if it says so."""
    file = opened.file
    is_whole = recipe.layer == CLASSIFIER_LAYER
    if is_whole and file.scores is None:
        raise BackboneError(f"{printable(file.name)} has no output with one number for each class. {file.advice}")
    layer = file.find_layer(file.scores if is_whole and file.scores else recipe.layer)
    features = opened.outputs[layer.name]
    if features.get_element_type().get_type_name() != "f32":
        features = ops.convert(features, "f32").output(0)
    if is_whole and not file.has_probabilities:
        return ops.softmax(features, 1).output(0)
    if recipe.pooling is None:
        return features
    axes = np.array(file.pooled_axes(layer.name, recipe.pooling)) + 1
    pool = {"avg": ops.reduce_mean, "max": ops.reduce_max}[recipe.pooling]
    return pool(features, axes, keep_dims=False).output(0)


def _keeps_images_apart(model: Any, batch: int | None, image_size: tuple[int, int]) -> bool:
    """Return whether the features of an image are the same wherever it is in a batch, and whatever is beside it."""
    if batch == 1:
        return True
    n_images = batch or 2
    images = np.random.default_rng(0).integers(0, 256, (n_images + 1, *image_size, 3), np.uint8)
    with kept_signal_stack():
        try:
            compiled = import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            first, second = (np.array(compiled(images[start : start + n_images])[0]) for start in (0, 1))
        except RuntimeError:  # OpenVINO raises nothing else
            return False
    if len(first) != n_images:
        return False
    return bool(np.abs(first[1:] - second[:-1]).max() <= _ROUNDING * max(float(np.abs(first).max()), 1e-30))
