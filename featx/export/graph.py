"""One Keras model from images of any size to probabilities: resizing, backbone and head as a single graph.

It is made of stock layers and operations only, so that `keras.models.load_model` reads it where there is no featx.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones import build_model
from featx.heads import load_model
from featx.recipe import Recipe
from featx.system import import_keras

#: Pillow resizes with whole numbers: weights are rounded to multiples of 2**-22.
_PILLOW_ONE = float(2**22)

_FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Graph:
    """The parts of an artefact, and the whole. All are Keras models, and share their weights.

    Attributes:
        resizer: `(n, h, w, 3)` uint8 RGB of any size to `(n, height, width, 3)` uint8.
        classifier: `(n, height, width, 3)` uint8 to `(n, n_classes)` float32 probabilities.
        whole: one after the other.
    """

    resizer: Any
    classifier: Any
    whole: Any


def build_graph(recipe: Recipe, weights_path: Path | None, head_path: Path) -> Graph:
    """Return the graph of a recipe and the head in the `.keras` file `head_path`. It computes in float32.

    Raises:
        WeightsError: the backbone's weights do not fit.
        FeatxError: the head is missing or damaged.
    """
    keras = import_keras()
    resizer = _resizer(keras, recipe.image_size)
    classifier = _classifier(keras, recipe, build_model(recipe, weights_path), load_model(head_path))
    images = _any_images(keras)
    probabilities = keras.layers.Activation("linear", name="probabilities")(classifier(resizer(images)))
    return Graph(resizer, classifier, keras.Model(images, probabilities, name="featx"))


def _any_images(keras: Any) -> Any:
    return keras.Input((None, None, 3), dtype="uint8", name="images")


def _classifier(keras: Any, recipe: Recipe, network: Any, head: Any) -> Any:
    resized = keras.Input((*recipe.image_size, 3), dtype="uint8", name="resized")
    probabilities = head(_as_stored(keras.ops, network(resized), recipe.dtype))
    if probabilities.shape[-1] == 1:
        probabilities = keras.ops.concatenate([1.0 - probabilities, probabilities], axis=-1)
    return keras.Model(resized, probabilities, name="classifier")


def _as_stored(ops: Any, features: Any, dtype: str) -> Any:
    """Return float32 features with the rounding of the store: the head was trained on that.

    What is too large for float16, and is not stored, is cut off there. Without this step between the two casts, tf2onnx
    would take them for useless.
    """
    if dtype == "float32":
        return features
    return ops.cast(ops.clip(ops.cast(features, dtype), -_FLOAT16_MAX, _FLOAT16_MAX), "float32")


def _resizer(keras: Any, image_size: tuple[int, int]) -> Any:
    """Return a model that resizes as `featx.images.decode` does, to the last bit: Pillow's `BILINEAR`, rows first.

    Pillow weighs pixels by a triangle as wide as two pixels of the coarser grid, in fixed-point numbers, in one pass
    along rows and one along columns, and rounds after each. Both passes are matrices here. In float64 all these whole
    numbers are exact, and no GPU takes its short cuts (TF32) with them.
    """
    ops = keras.ops
    height, width = image_size
    images = _any_images(keras)
    # The sides are known only when the graph runs; stock operations can tell them from tensors of their length alone.
    row, column = (
        ops.ones_like(ops.sum(ops.cast(part, "float64"), axis=axes))
        for part, axes in ((images[:1, :1, :, :1], (0, 1, 3)), (images[:1, :, :1, :1], (0, 2, 3)))
    )
    along_rows, along_columns = _pillow_weights(ops, row, width), _pillow_weights(ops, column, height)
    pixels = ops.cast(ops.transpose(images, (0, 1, 3, 2)), "float64")  # (n, h, 3, w)
    once = _resampled(ops, pixels, along_rows)
    twice = _resampled(ops, ops.transpose(once, (0, 2, 3, 1)), along_columns)  # (n, 3, width, height)
    return keras.Model(images, ops.cast(ops.transpose(twice, (0, 3, 2, 1)), "uint8"), name="resizer")


def _resampled(ops: Any, pixels: Any, weights: Any) -> Any:
    """Return `pixels (…, n_in)` times `weights (n_in, n_out)`, rounded half up to whole numbers."""
    return ops.floor(ops.matmul(pixels, weights) / _PILLOW_ONE + 0.5)


def _pillow_weights(ops: Any, ones: Any, n_out: int) -> Any:
    """Return `(n_in, n_out)` float64 whole numbers: how much each of the pixels along a side counts, in 2**-22.

    Args:
        ops: `keras.ops`.
        ones: `(n_in,)` float64 ones.
        n_out: pixels wanted.
    """
    positions = ops.expand_dims(ops.cumsum(ones) - 0.5, 1)
    scale = ops.sum(ones) / float(n_out)
    centres = ops.multiply(np.arange(n_out, dtype=np.float64) + 0.5, scale)
    triangles = ops.relu(1.0 - ops.absolute(positions - centres) / ops.maximum(scale, 1.0))
    shares = triangles / ops.sum(triangles, axis=0, keepdims=True)
    return ops.floor(shares * _PILLOW_ONE + 0.5)
