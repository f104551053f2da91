"""One Keras model from images of any size to probabilities, and the files it is written as: Keras, SavedModel, ONNX.

It is made of stock layers and operations only, so that `keras.models.load_model` reads it where there is no featx.
"""

import errno
import importlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones import build_model
from featx.errors import FeatxError
from featx.heads import Head, TunedHead
from featx.recipe import Recipe
from featx.system import import_failure, import_keras

#: Pillow resizes with whole numbers: weights are rounded to multiples of 2**-22.
_PILLOW_ONE = float(2**22)

_FLOAT16_MAX = 65504.0

#: The member of a `.keras` file, and the file in a SavedModel's `assets.extra/`, that holds the notes.
NOTES_NAME = "featx.json"

#: Versions of the operators, old enough for every ONNX runtime of the last years, new enough for float64 in all.
ONNX_OPSET = 17

#: How every PNG file begins.
_PNG = b"\x89PNG\r\n\x1a\n"

#: Encoded images in a batch that are decoded at a time.
_DECODED_AT_ONCE = 8


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


def build_graph(recipe: Recipe, weights_path: Path | None, head: Head | TunedHead) -> Graph:
    """Return the graph of a recipe and a head. It computes in float32.

    Raises:
        WeightsError: the backbone's weights do not fit.
        FeatxError: the head belongs to another recipe.
    """
    keras = import_keras()
    resizer = build_resizer(recipe.image_size, recipe.aspect_ratio)
    network = build_model(recipe, weights_path)
    if head.feature_shape != network.output_shape[1:]:
        raise FeatxError(
            f"The head takes features of the shape {head.feature_shape}, and those of its recipe have "
            f"{network.output_shape[1:]}; train again with featx train-top."
        )
    resized = keras.Input((*recipe.image_size, 3), dtype="uint8", name="resized")
    classifier = keras.Model(resized, build_head(recipe, head)(network(resized)), name="classifier")
    images = _any_images(keras)
    probabilities = keras.layers.Activation("linear", name="probabilities")(classifier(resizer(images)))
    return Graph(resizer, classifier, keras.Model(images, probabilities, name="featx"))


def _any_images(keras: Any) -> Any:
    return keras.Input((None, None, 3), dtype="uint8", name="images")


def build_head(recipe: Recipe, head: Head | TunedHead) -> Any:
    """Return the Keras model of a head: features `(n, …)` float32 to `(n, n_classes)` float32 probabilities."""
    keras = import_keras()
    features = keras.Input(head.feature_shape, dtype="float32", name="features")
    probabilities = head.to_keras()(_as_stored(keras.ops, features, recipe.dtype))
    if probabilities.shape[-1] == 1:
        probabilities = keras.ops.concatenate([1.0 - probabilities, probabilities], axis=-1)
    return keras.Model(features, probabilities, name="head")


def _as_stored(ops: Any, features: Any, dtype: str) -> Any:
    """Return float32 features with the rounding of the store: the head was trained on that.

    What is too large for float16, and is not stored, is cut off there. Without this step between the two casts, tf2onnx
    would take them for useless.
    """
    if dtype == "float32":
        return features
    return ops.cast(ops.clip(ops.cast(features, dtype), -_FLOAT16_MAX, _FLOAT16_MAX), "float32")


def build_resizer(image_size: tuple[int, int], aspect_ratio: str | None) -> Any:
    """Return a model that resizes as `featx.images.decode` does, to the last bit: Pillow's `BILINEAR`, rows first.

    Pillow weighs pixels by a triangle as wide as two pixels of the coarser grid, in fixed-point numbers, in one pass
    along rows and one along columns, and rounds after each. Both passes are matrices here. In float64 all these whole
    numbers are exact, and no GPU takes its short cuts (TF32) with them.
    """
    keras = import_keras()
    ops = keras.ops
    height, width = image_size
    images = _any_images(keras)
    # The sides are known only when the graph runs; stock operations can tell them from tensors of their length alone.
    row, column = (
        ops.ones_like(ops.sum(ops.cast(part, "float64"), axis=axes))
        for part, axes in ((images[:1, :1, :, :1], (0, 1, 3)), (images[:1, :, :1, :1], (0, 2, 3)))
    )
    # How long a side would be that has the wanted aspect ratio with the other side.
    fitting_row = ops.floor(ops.sum(column) * float(width) / float(height))
    fitting_column = ops.floor(ops.sum(row) * float(height) / float(width))
    along_rows = _pillow_weights(ops, row, width, fitting_row, aspect_ratio)
    along_columns = _pillow_weights(ops, column, height, fitting_column, aspect_ratio)
    pixels = ops.cast(ops.transpose(images, (0, 1, 3, 2)), "float64")  # (n, h, 3, w)
    once = _resampled(ops, pixels, along_rows)
    twice = _resampled(ops, ops.transpose(once, (0, 2, 3, 1)), along_columns)  # (n, 3, width, height)
    return keras.Model(images, ops.cast(ops.transpose(twice, (0, 3, 2, 1)), "uint8"), name="resizer")


def _resampled(ops: Any, pixels: Any, weights: Any) -> Any:
    """Return `pixels (…, n_in)` times `weights (n_in, n_out)`, rounded half up to whole numbers."""
    return ops.floor(ops.matmul(pixels, weights) / _PILLOW_ONE + 0.5)


def _pillow_weights(ops: Any, ones: Any, n_out: int, fitting: Any, aspect_ratio: str | None) -> Any:
    """Return `(n_in, n_out)` float64 whole numbers: how much each of the pixels along a side counts, in 2**-22.

    Args:
        ops: `keras.ops`.
        ones: `(n_in,)` float64 ones.
        n_out: pixels wanted.
        fitting: float64, pixels that the side would have with the aspect ratio of the others, rounded down.
        aspect_ratio: see `featx.images.framing.frame_in`, which this follows.
    """
    positions, n_in = ops.expand_dims(ops.cumsum(ones) - 0.5, 1), ops.sum(ones)  # positions count from the frame
    if aspect_ratio is None:
        length = n_in
    elif aspect_ratio == "crop":
        length = ops.maximum(ops.minimum(n_in, fitting), 1.0)
        positions = positions - ops.floor((n_in - length) / 2.0)
    else:
        bar = ops.floor(ops.maximum(fitting - n_in, 0.0) / 2.0)
        length, positions = n_in + 2.0 * bar, positions + bar
    scale = length / float(n_out)
    reach = ops.maximum(scale, 1.0)
    centres = ops.multiply(np.arange(n_out, dtype=np.float64) + 0.5, scale)
    triangles = ops.relu(1.0 - ops.absolute(positions - centres) / reach)
    if aspect_ratio == "pad":
        sums = _sums_of_triangles(ops, centres, reach, length)
    else:
        sums = ops.sum(triangles, axis=0, keepdims=True)
    return ops.floor(triangles / sums * _PILLOW_ONE + 0.5)


def _sums_of_triangles(ops: Any, centres: Any, reach: Any, length: Any) -> Any:
    """Return `(n_out,)` float64: the sums of triangles over a side with its bars, whose pixels have no tensor.

    Pixel j, from 0, lies at j + 0.5, and counts 1 - |j + 0.5 - centre| / reach. Each half of a triangle is a sum of
    evenly spaced numbers: their count times the mean of the first and the last.
    """
    first = ops.maximum(ops.floor(centres - reach + 0.5), 0.0)
    middle = ops.floor(centres - 0.5)  # the last on the left
    last = ops.minimum(ops.floor(centres + reach - 0.5), length - 1.0)

    def half(start: Any, end: Any, side: float) -> Any:
        return (end - start + 1.0) * (1.0 + side * ((start + end + 1.0) / 2.0 - centres) / reach)

    return half(first, middle, 1.0) + half(middle + 1.0, last, -1.0)


def write_keras(graph: Graph, notes: dict[str, Any], path: Path) -> None:
    """Write the file `path`, which ends in `.keras`, with the notes as one more member of the zip: Keras ignores it."""
    graph.whole.save(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(NOTES_NAME, json.dumps(notes, indent=2))


def write_savedmodel(graph: Graph, notes: dict[str, Any], folder: Path) -> None:
    """Write a SavedModel to the empty folder `folder`.

    Its signatures are `serving_default`, from `images (n, h, w, 3)` uint8, and `serve_bytes`, from `image_bytes (n,)`,
    encoded images. Both give `probabilities (n, n_classes)` and `class_names (n, n_classes)`: TensorFlow Serving wants
    one row for each image in every output.

    Raises:
        OSError: it cannot be written.
    """
    tf = importlib.import_module("tensorflow")
    module = tf.Module()
    module.model = graph.whole
    module.serve = tf.function(lambda images: _outputs(tf, graph.whole(images, training=False), notes))
    module.serve_bytes = tf.function(
        lambda image_bytes: _outputs(tf, graph.classifier(_decoded(tf, graph, image_bytes), training=False), notes)
    )
    signatures = {
        "serving_default": module.serve.get_concrete_function(_images_spec(tf)),
        "serve_bytes": module.serve_bytes.get_concrete_function(tf.TensorSpec((None,), tf.string, name="image_bytes")),
    }
    try:
        tf.saved_model.save(module, str(folder), signatures=signatures)
    except tf.errors.OpError as error:  # what the system refuses has a kind of its own: the path, and then the reason
        raise OSError(errno.EIO, error.message.rpartition("; ")[2]) from error
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / NOTES_NAME).write_text(json.dumps(notes, indent=2), encoding="utf-8")


def _images_spec(tf: Any) -> Any:
    return tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")


def _outputs(tf: Any, probabilities: Any, notes: dict[str, Any]) -> dict[str, Any]:
    names = tf.constant([[name.encode("utf-8", "surrogateescape") for name in notes["class_names"]]])
    return {"probabilities": probabilities, "class_names": tf.repeat(names, tf.shape(probabilities)[0], axis=0)}


def _decoded(tf: Any, graph: Graph, image_bytes: Any) -> Any:
    """Return `(n, height, width, 3)` uint8 from `(n,)` encoded images, each resized by itself."""
    height, width = graph.classifier.input_shape[1:3]
    return tf.map_fn(
        lambda encoded: graph.resizer(_decoded_one(tf, encoded)[tf.newaxis])[0],
        image_bytes,
        parallel_iterations=_DECODED_AT_ONCE,
        fn_output_signature=tf.TensorSpec((height, width, 3), tf.uint8),
    )


def _decoded_one(tf: Any, encoded: Any) -> Any:
    """Return `(h, w, 3)` uint8, decoded as `featx.images.decode` does, but for the EXIF orientation."""
    is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
    return tf.cond(is_png, lambda: _on_white(tf, tf.io.decode_png(encoded, channels=4)), lambda: _jpeg(tf, encoded))


def _jpeg(tf: Any, encoded: Any) -> Any:
    """Return the pixels of a JPEG, decoded as Pillow does: accurate arithmetic, smooth colour. GIF and WebP pass."""
    pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)
    frames = tf.reshape(pixels, tf.concat([[-1], tf.shape(pixels)[-3:]], axis=0))  # a WebP comes with its frames
    return tf.ensure_shape(frames[0], (None, None, 3))


def _on_white(tf: Any, rgba: Any) -> Any:
    """Return `(h, w, 3)` uint8 from `(h, w, 4)` uint8, blended with white in Pillow's whole numbers."""
    rgb, alpha = tf.split(tf.cast(rgba, tf.int32), [3, 1], axis=-1)
    blended = rgb * alpha + 255 * (255 - alpha)
    return tf.cast((blended + 127) // 255, tf.uint8)  # rounded to the nearest: an odd divisor knows no ties


def import_onnx() -> tuple[Any, Any]:
    """Return the packages `onnx` and `tf2onnx`.

    Raises:
        FeatxError: they are not installed.
    """
    import_keras()  # tf2onnx would start TensorFlow with all its greetings
    try:
        return importlib.import_module("onnx"), importlib.import_module("tf2onnx")
    except ImportError as error:
        missing = error.name or "onnx"
        raise FeatxError(f"{import_failure(missing, error, 'featx[onnx]')}, or choose another --format.") from error


def write_onnx(graph: Graph, notes: dict[str, Any], path: Path) -> None:
    """Write an ONNX file: `images (n, h, w, 3)` uint8 to `probabilities (n, n_classes)` and `class_names (n_classes,)`.

    The notes are in its `metadata_props`, lists and the like as JSON.

    Raises:
        FeatxError: tf2onnx or onnx is not installed.
    """
    save_onnx(keras_to_onnx(graph.whole, "images", "probabilities"), notes, path)


def keras_to_onnx(model: Any, source: str, output: str) -> Any:
    """Return a Keras model with one input and one output as an `onnx.ModelProto`, with these names for them.

    Raises:
        FeatxError: tf2onnx or onnx is not installed.
    """
    onnx, tf2onnx = import_onnx()
    tf = importlib.import_module("tensorflow")
    # tf2onnx copies all constants some dozens of times, for a minute with VGG16's. As inputs, weights are only names.
    trained, fixed = model.trainable_variables, model.non_trainable_variables
    weights = {f"weight_{number}": variable for number, variable in enumerate([*trained, *fixed])}

    def outputs_of(inputs: Any, *values: Any) -> dict[str, Any]:
        split = len(trained)
        outputs, _ = model.stateless_call(values[:split], values[split:], inputs, training=False)
        return {output: outputs}

    specs = [tf.TensorSpec(variable.shape, variable.dtype, name=name) for name, variable in weights.items()]
    signature = [tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, name=source), *specs]
    converted, _ = tf2onnx.convert.from_function(tf.function(outputs_of), input_signature=signature, opset=ONNX_OPSET)
    _insert_constants(onnx, converted, {name: np.asarray(variable) for name, variable in weights.items()})
    _leave_one_input(converted, source)
    return converted


def save_onnx(model: Any, notes: dict[str, Any], path: Path) -> None:
    """Write an `onnx.ModelProto` from `images` to `probabilities`, with the names of the classes and the notes."""
    onnx, _ = import_onnx()
    _name_shapes(model)
    _add_class_names(onnx, model, notes["class_names"])
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}
    onnx.helper.set_model_props(model, text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _insert_constants(onnx: Any, model: Any, values: dict[str, npt.NDArray[Any]]) -> None:
    """Give the ONNX `model` the values of some of its inputs, and compute what depends on nothing but constants."""
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
    graph, to_array = model.graph, onnx.numpy_helper.to_array
    known = {**values, **{tensor.name: to_array(tensor) for tensor in graph.initializer}}
    kept = []
    for node in graph.node:
        if all(name in known for name in node.input if name):
            inputs = {name: known[name] for name in node.input if name}
            known.update(zip(node.output, evaluator(node, opsets={"": ONNX_OPSET}).run(None, inputs), strict=True))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input} & set(known)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(known[name]), name) for name in sorted(used))


def _leave_one_input(model: Any, name: str) -> None:
    """Leave `name` as the only input.

    tf2onnx also lists as inputs what it has made constants of, and no node takes: tensors that a traced function had
    from outside. Were one taken after all, the checker would miss it.
    """
    only = next(value for value in model.graph.input if value.name == name)
    del model.graph.input[:]
    model.graph.input.append(only)


def _name_shapes(model: Any) -> None:
    """Give sizes that vary names."""
    for value, sides in ((model.graph.input[0], ("n", "h", "w")), (model.graph.output[0], ("n",))):
        for dimension, side in zip(value.type.tensor_type.shape.dim, sides, strict=False):
            if not dimension.dim_value:
                dimension.dim_param = side


def _add_class_names(onnx: Any, model: Any, class_names: list[str]) -> None:
    """Give the ONNX `model` one more output, which is always the same."""
    helper, string = onnx.helper, onnx.TensorProto.STRING
    names = [name.encode() for name in class_names]
    value = helper.make_tensor("class_names", string, [len(names)], names)
    model.graph.node.append(helper.make_node("Constant", [], ["class_names"], value=value))
    model.graph.output.append(helper.make_tensor_value_info("class_names", string, [len(names)]))
