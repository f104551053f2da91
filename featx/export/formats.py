"""The artefacts that a graph is written as: a Keras file, TensorFlow's SavedModel, ONNX.

Each holds the class names as well, and what it was made of, as `notes`: a dictionary for JSON.
"""

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any

from featx.errors import FeatxError
from featx.export.graph import Graph
from featx.system import import_keras

#: The member of a `.keras` file, and the file in a SavedModel's `assets.extra/`, that holds the notes.
NOTES_NAME = "featx.json"

#: Versions of the operators, old enough for every ONNX runtime of the last years, new enough for float64 in all.
ONNX_OPSET = 17

#: How every PNG file begins.
_PNG = b"\x89PNG\r\n\x1a\n"

#: Encoded images in a batch that are decoded at a time.
_DECODED_AT_ONCE = 8


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
    tf.saved_model.save(module, str(folder), signatures=signatures)
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
        raise FeatxError(f"The format onnx needs more packages ({error}): pip install 'featx[onnx]'.") from error


def write_onnx(graph: Graph, notes: dict[str, Any], path: Path) -> None:
    """Write an ONNX file: `images (n, h, w, 3)` uint8 to `probabilities (n, n_classes)` and `class_names (n_classes,)`.

    The notes are in its `metadata_props`, lists and the like as JSON.

    Raises:
        FeatxError: tf2onnx or onnx is not installed.
    """
    onnx, tf2onnx = import_onnx()
    tf = importlib.import_module("tensorflow")
    function = tf.function(lambda images: {"probabilities": graph.whole(images, training=False)})
    model, _ = tf2onnx.convert.from_function(function, input_signature=[_images_spec(tf)], opset=ONNX_OPSET)
    _name_shapes(model)
    _add_class_names(onnx, model, notes["class_names"])
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}
    onnx.helper.set_model_props(model, text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _name_shapes(model: Any) -> None:
    """Leave `images` as the only input, and give sizes that vary names.

    tf2onnx also lists as inputs what it has made constants of, and no node takes: tensors that a traced function had
    from outside. Were one taken after all, the checker would miss it.
    """
    images = next(value for value in model.graph.input if value.name == "images")
    del model.graph.input[:]
    model.graph.input.append(images)
    for value, sides in ((model.graph.input[0], ("n", "h", "w")), (model.graph.output[0], ("n",))):
        for dimension, side in zip(value.type.tensor_type.shape.dim, sides, strict=False):
            dimension.dim_param = side


def _add_class_names(onnx: Any, model: Any, class_names: list[str]) -> None:
    """Give the ONNX `model` one more output, which is always the same."""
    helper, string = onnx.helper, onnx.TensorProto.STRING
    names = [name.encode() for name in class_names]
    value = helper.make_tensor("class_names", string, [len(names)], names)
    model.graph.node.append(helper.make_node("Constant", [], ["class_names"], value=value))
    model.graph.output.append(helper.make_tensor_value_info("class_names", string, [len(names)]))
