"""How a backbone becomes a function from bytes to features: a Keras model with the preprocessing inside."""

import logging
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np

from featx.backbones.described import describe_network
from featx.backbones.keras_config import PREPROCESSING_LAYERS, check_own_weights
from featx.backbones.keras_file import build_keras_trunk
from featx.backbones.network_file import CLASSIFIER_LAYER, NetworkFile, is_network_file, is_network_name, is_onnx
from featx.backbones.preprocessing import PREPROCESSINGS, as_preprocessing, find_pixels
from featx.backbones.table import BACKBONES, Preprocessing, find_backbone, trunk_of
from featx.backbones.weights import MAX_WEIGHTS_BYTES, count_classes
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.recipe import Recipe, UnknownRecipeError
from featx.storage import StoragePath
from featx.store import private_copy
from featx.system import check_name, import_keras
from featx.text import printable

log = logging.getLogger("featx")

#: Keras's dtype policy for each precision that a model can compute in. Weights are float32 in both.
DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

#: Classes of a whole classifier with random weights: as many as ImageNet has.
_N_RANDOM_CLASSES = 1000


def count_network_classes(backbone: str, weights_path: Path | None, cache_dir: StoragePath) -> int:
    """Return how many classes a whole classifier tells apart; 1000 if it has random weights, None for their path.

    Raises:
        WeightsError: the file holds no classifier.
    """
    if is_network_file(backbone):
        return _count_scores(describe_network(weights_path or backbone, cache_dir))
    return _count_keras_classes(backbone, weights_path)


def _count_keras_classes(backbone: str, weights_path: Path | None) -> int:
    if weights_path is None:
        return _N_RANDOM_CLASSES
    n_classes = count_classes(weights_path)
    if n_classes is None:
        official = find_backbone(backbone).whole.name
        raise WeightsError(
            f"{printable(weights_path)} does not contain the whole classifier of {backbone}, whose last layer has a "
            f"kernel (n_features, n_classes); files named …_notop.h5 lack it. Name the file of the whole one, like "
            f"Keras's {official}, with --weights PATH."
        )
    return n_classes


def _count_scores(network: NetworkFile) -> int:
    if network.n_classes is None:
        raise WeightsError(f"{printable(network.name)} has no classifier: no output with one number for each class.")
    _say_scores(network)
    return network.n_classes


@cache  # so that it is said once
def _say_scores(network: NetworkFile) -> None:
    kind, name = network.scores_kind, printable(network.name)
    if network.has_probabilities:
        log.info("%s ends with %s: its output is taken for probabilities.", name, kind)
    else:
        log.info("%s ends with %s: softmax turns its output into probabilities.", name, kind)


def check_fit(backbone: str, layer: str, image_size: tuple[int, int], pooling: str | None) -> None:
    """Raise BackboneError if these do not go together, as far as that is known without Keras, which is slow to start.

    Args:
        backbone: name in `featx.backbones.table.BACKBONES`.
        layer: name of the layer whose output is wanted; `"predictions"` is the whole classifier.
        image_size: `(height, width)` in pixels.
        pooling: `"avg"`, `"max"` or None.
    """
    entry, received = find_backbone(backbone), "x".join(map(str, image_size))
    if layer != CLASSIFIER_LAYER and (names := trunk_of(backbone).layers):
        _check_layer(backbone, layer, names)
    if layer == CLASSIFIER_LAYER and pooling:
        _refuse_pooling(pooling)
    if layer == CLASSIFIER_LAYER and not (entry.takes_any_size or image_size == entry.image_size):
        raise BackboneError(
            f"The whole classifier of {backbone} takes images of {'x'.join(map(str, entry.image_size))} only: "
            f"leave --image-size out, or choose another --backbone. Received: {received}"
        )
    if min(image_size) < entry.min_size:
        raise BackboneError(
            f"{backbone} takes images of {entry.min_size} pixels or more in height and in width. Choose a larger "
            f"--image-size. Received: {received}"
        )


def check_recipe(recipe: Recipe) -> None:
    """Raise FeatxError unless this featx computes what `recipe` says, as far as that is known without Keras.

    Raises:
        UnknownRecipeError: a member of it means something that this featx does not know.
        BackboneError: its layer, image size and pooling do not go with its backbone.
    """
    recipe.check_implemented()
    if is_network_file(recipe.backbone):
        _check_file_recipe(recipe)
        return
    if recipe.backbone not in BACKBONES:
        raise UnknownRecipeError.of("backbone", recipe.backbone, "those that featx backbones lists")
    if recipe.layout is not None:
        raise UnknownRecipeError.of("layout", recipe.layout, f"none for {recipe.backbone}")
    if recipe.preprocessing not in get_args(Preprocessing):
        raise UnknownRecipeError.of("preprocessing", recipe.preprocessing, ", ".join(get_args(Preprocessing)))
    check_fit(recipe.backbone, recipe.layer, recipe.image_size, recipe.pooling)


def _check_file_recipe(recipe: Recipe) -> None:
    """Raise FeatxError unless a recipe of a network file can be computed, as far as can be told without the file."""
    if not is_network_name(recipe.backbone):
        raise UnknownRecipeError.of("backbone", recipe.backbone, "names of files without a folder")
    if recipe.has_random_weights:
        raise UnknownRecipeError.of("weights", recipe.weights, "the SHA-256 of a network file")
    words = f"{', '.join(PREPROCESSINGS)}, and mean=…,std=…"
    try:
        is_known = as_preprocessing(recipe.preprocessing) == recipe.preprocessing
    except BackboneError:
        is_known = False
    if not is_known:
        raise UnknownRecipeError.of("preprocessing", recipe.preprocessing, words)
    if recipe.layer == CLASSIFIER_LAYER and recipe.pooling:
        _refuse_pooling(recipe.pooling)


def _refuse_pooling(pooling: str) -> NoReturn:
    raise BackboneError(
        f"The layer {CLASSIFIER_LAYER} has a probability for each class, which cannot be pooled: leave --pooling "
        f"out, or choose another --layer. Received: {pooling!r}"
    )


def _check_layer(backbone: str, layer: str, names: Sequence[str]) -> None:
    last = ", ".join(names[-8:])
    check_name(layer, names, f"{backbone} has no layer of this name. Its last layers: {last}.", BackboneError)


def build_model(recipe: Recipe, weights_path: Path | None, precision: str = "float32") -> Any:
    """Return the Keras model of a recipe: `(n, height, width, 3)` uint8 RGB in, `(n, …)` float32 features out.

    The preprocessing is part of the model, so that it cannot be got wrong outside. It is done in float32 whatever the
    precision: bfloat16 has 8 bits, and differences of numbers from 0 to 255 need more. So are pooling and the
    probabilities of a whole classifier, which is what a recipe for the layer `predictions` means.

    Args:
        recipe: what to build.
        weights_path: a file in the layout of Keras's official ones; None for a recipe with random weights.
        precision: arithmetic of the network: one of `DTYPE_POLICIES`.

    Raises:
        UnknownRecipeError: this featx cannot compute what the recipe says.
        BackboneError: the layer does not exist or cannot be pooled, or the images have a size that the network does
            not take.
        WeightsError: the file does not fit the network, is not the one that the recipe names, or there is none.
    """
    check_recipe(recipe)
    if weights_path is None and not recipe.has_random_weights:
        raise WeightsError(f"The file with the weights of {recipe.backbone} is needed: name it with --weights PATH.")
    keras = import_keras()
    is_file = is_network_file(recipe.backbone)
    trunk = (_build_file_trunk if is_file else _build_trunk)(keras, recipe, weights_path, precision)
    trunk.trainable = False
    images = keras.Input((*recipe.image_size, 3), dtype="uint8", name="images")
    preprocess = _preprocess_for_file if is_file else _preprocess
    features = trunk(preprocess(keras, images, recipe.preprocessing), training=False)
    return keras.Model(images, keras.ops.cast(features, "float32"))


def build_tail(recipe: Recipe, weights_path: Path | None, after: str, *, load_weights: bool = True) -> Any:
    """Return the last part of a network: the output of the layer `after` in, the features of `recipe` out.

    It is frozen, and computes in float32.

    Args:
        recipe: whose layer and pooling are the output.
        weights_path: as for `build_model`.
        after: the layer whose output is the only input, see `featx.backbones.find_block`.
        load_weights: whether it gets the weights of the recipe. If not, it has no particular ones, and `weights_path`
            is not read.

    Returns:
        a Keras model, `(n, …)` float32 in, `(n, …)` float32 out.

    Raises:
        BackboneError: what follows that layer also needs the output of an earlier one; or as for `build_model`.
        WeightsError: as for `build_model`.
    """
    keras = import_keras()
    trunk = _build_trunk(keras, recipe, weights_path, "float32", load_weights=load_weights)
    try:
        tail = keras.Model(trunk.get_layer(after).output, trunk.output, name="tail")
    except ValueError as error:
        raise BackboneError(
            f"What follows {after} in {recipe.backbone} also needs the output of an earlier layer, so it cannot be "
            f"tuned on the features of {after}: name another block with --tune, such as "
            f"{find_backbone(recipe.backbone).last_block or recipe.layer}."
        ) from error
    tail.trainable = False
    return tail


def _build_trunk(
    keras: Any, recipe: Recipe, weights_path: Path | None, precision: str, *, load_weights: bool = True
) -> Any:
    """Return a network from preprocessed pixels to the features of the recipe; see `build_tail` for `load_weights`."""
    with _dtype_policy(keras, DTYPE_POLICIES[precision]):
        network = _build_network(keras, recipe, weights_path)
    probabilities = network.layers[-1] if recipe.layer == CLASSIFIER_LAYER else None
    for layer in network.layers:
        if type(layer).__name__ in PREPROCESSING_LAYERS or layer is probabilities:
            layer.dtype_policy = "float32"
    if load_weights and weights_path is not None:
        _load_weights(network, recipe, weights_path)
    trunk = keras.Model(network.input, _pooled(keras, _output_of_layer(network, recipe), recipe))
    if load_weights and weights_path is None:
        _set_random_weights(network, trunk, seed=int(recipe.weights.removeprefix("random-")))
    return trunk


def _build_file_trunk(keras: Any, recipe: Recipe, path: Path | None, precision: str) -> Any:
    """Return the network of a file from preprocessed pixels to the features of the recipe."""
    if path is None or is_onnx(recipe.backbone):
        raise BackboneError(f"Keras does not run {printable(recipe.backbone)}: choose --engine openvino.")
    trunk = build_keras_trunk(recipe, path, DTYPE_POLICIES[precision])
    return trunk if recipe.pooling is None else keras.Model(trunk.input, _pooled(keras, trunk.output, recipe))


@contextmanager
def _dtype_policy(keras: Any, policy: str) -> Iterator[None]:
    """Build the layers of the block under a dtype policy of Keras's, and put back the one there was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build_network(keras: Any, recipe: Recipe, weights_path: Path | None) -> Any:
    check_fit(recipe.backbone, recipe.layer, recipe.image_size, recipe.pooling)
    application = getattr(keras.applications, find_backbone(recipe.backbone).application)
    top: dict[str, Any] = {"include_top": False}
    height, width = recipe.image_size
    if recipe.layer == CLASSIFIER_LAYER:
        n_classes = _count_keras_classes(recipe.backbone, weights_path)
        top = {"include_top": True, "classes": n_classes, "classifier_activation": "softmax"}
    try:
        network = application(weights=None, input_shape=(height, width, 3), **top)
    except ValueError as error:
        raise BackboneError(
            f"{recipe.backbone} cannot be built for images of this size: {_one_line(error)} Choose a larger "
            f"--image-size. Received: {height}x{width}"
        ) from error
    _number_layers_from_zero(network)
    return network


def _number_layers_from_zero(network: Any) -> None:
    """Give layers that Keras named by their kind, such as `conv2d_93`, the names they have in a new process.

    Keras counts through all the networks of a process. The recipe has the name that a new process gives.
    """
    by_kind: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for layer in network.layers:
        kind, number = re.fullmatch(r"(.+?)(?:_(\d+))?", layer.name).groups()  # type: ignore[union-attr]
        if kind.replace("_", "") == type(layer).__name__.lower():
            by_kind[kind].append((int(number or 0), layer))
    for kind, numbered in by_kind.items():
        first = min(number for number, _ in numbered)
        for number, layer in numbered:
            layer.name = f"{kind}_{number - first}" if number > first else kind


def _load_weights(network: Any, recipe: Recipe, weights_path: Path) -> None:
    """Load weights from a file whose digest the recipe has: the bytes that are loaded are those that were digested."""
    is_whole = recipe.layer == CLASSIFIER_LAYER
    try:
        with private_copy(weights_path) as (copy, digest):
            _check_digest(weights_path, digest, recipe)
            check_own_weights(copy, MAX_WEIGHTS_BYTES)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras warns of every layer before it raises
                network.load_weights(copy)
    except (MemoryError, FeatxError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
            raise WeightsError(f"The weights file {printable(weights_path)} cannot be read: {reason}.") from error
        # A foreign file may end in anything: zipfile's, h5py's, pickle's errors
        which = "of the whole classifier" if is_whole else "without the classifier (…_notop.h5)"
        has_classifier = not is_whole and count_classes(weights_path) is not None
        hint = f" It ends in a classifier: whole networks are for --layer {CLASSIFIER_LAYER}." if has_classifier else ""
        raise WeightsError(
            f"{printable(weights_path)} does not contain weights of {recipe.backbone} in the layout of Keras's "
            f"official files {which}: {_one_line(error)}{hint}"
        ) from error


def _check_digest(weights_path: Path, digest: str, recipe: Recipe) -> None:
    if digest != recipe.weights:
        raise WeightsError(
            f"The weights file {printable(weights_path)} changed while featx was running; run the same command "
            f"again. Expected SHA-256 {recipe.weights[:16]}…, got {digest[:16]}…"
        )


def _output_of_layer(network: Any, recipe: Recipe) -> Any:
    if recipe.layer == CLASSIFIER_LAYER:  # Keras calls the last layer so in most networks
        return network.output
    names = [layer.name for layer in network.layers]
    _check_layer(recipe.backbone, recipe.layer, names)
    return network.get_layer(recipe.layer).output


def _pooled(keras: Any, output: Any, recipe: Recipe) -> Any:
    """Return a layer's output as the recipe wants it: as it is, or pooled over height and width, in float32."""
    if recipe.pooling is None:
        return output
    if len(output.shape) != 4:
        raise BackboneError(
            f"Only an output of (height, width, channels) can be pooled, and that of {recipe.layer!r} in "
            f"{recipe.backbone} is {output.shape[1:]}: leave --pooling out, or choose another --layer. "
            f"Received: {recipe.pooling!r}"
        )
    pooling = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[recipe.pooling]
    return pooling(dtype="float32")(output)


def _preprocess(keras: Any, images: Any, preprocessing: str) -> Any:
    """Return what the network gets for uint8 `images`; see `Backbone.preprocessing`."""
    pixels = keras.ops.cast(images, "float32")
    if preprocessing == "none":
        return pixels
    if preprocessing == "efficientnet":
        return _rescale_efficientnet(pixels)
    return keras.applications.imagenet_utils.preprocess_input(pixels, data_format="channels_last", mode=preprocessing)


def _preprocess_for_file(keras: Any, images: Any, preprocessing: str) -> Any:
    """Return what the network of a file gets for uint8 `images`; see `featx.backbones.preprocessing`."""
    pixels, done = find_pixels(preprocessing), keras.ops.cast(images, "float32")
    if any(pixels.mean):
        done = done - np.array(pixels.mean, np.float32)
    if any(std != 1 for std in pixels.std):
        done = done / np.array(pixels.std, np.float32)
    return keras.ops.flip(done, axis=-1) if pixels.is_bgr else done


def _rescale_efficientnet(pixels: Any) -> Any:
    """Return pixels such that EfficientNet's own first layers see what Keras's ImageNet model shows them.

    Keras puts `Rescaling(1/255)` and `Normalization(mean, variance)` into every EfficientNet, and one more division by
    the square root of the standard deviation into the one for `weights="imagenet"`
    (`keras/src/applications/efficientnet.py`). The official weights need it whoever loads them; as an affine map
    before the first layer, `x ↦ (x − 255·mean) / √std + 255·mean`, it does the same.
    """
    mean = 255.0 * np.array([0.485, 0.456, 0.406], np.float32)
    scale = 1.0 / np.sqrt(np.array([0.229, 0.224, 0.225], np.float32))
    return pixels * scale + (1.0 - scale) * mean


#: Random networks are kept tame: with gain 1 after every batch normalization, the residual sums of ResNet50 grow
#: beyond what float16 holds.
_RANDOM_GAMMA = 0.8


def _set_random_weights(network: Any, trunk: Any, seed: int) -> None:
    """Set seeded random weights: He-normal kernels (He et al. 2015), identity statistics.

    Drawn with NumPy, so that one seed means the same numbers on every Keras backend. They are drawn in the order of the
    layers of `network`, up to the last one that `trunk` has: most of the numbers of VGG16 belong to its last blocks.
    """
    rng = np.random.default_rng(seed)
    layers, kept = network.layers, trunk.layers
    n_layers = 1 + max(number for number, layer in enumerate(layers) if layer in kept)
    for layer in layers[:n_layers]:
        kind = type(layer).__name__
        for weight in layer.weights:
            # A depthwise kernel (h, w, channels, 1) sees one channel; any other sees all of its last but one axis.
            fan_in_axes = 2 if kind == "DepthwiseConv2D" or weight.name == "depthwise_kernel" else -1
            name = "gamma" if kind == "LayerScale" else weight.name  # whose only weight has no name
            weight.assign(_random_weight(name, tuple(weight.shape), fan_in_axes, rng))


def _random_weight(name: str, shape: tuple[int, ...], fan_in_axes: int, rng: np.random.Generator) -> np.ndarray:
    if name.endswith("kernel"):
        return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:fan_in_axes])), shape).astype(np.float32)
    if name == "gamma":
        return np.full(shape, _RANDOM_GAMMA, np.float32)
    if "variance" in name:
        return np.ones(shape, np.float32)
    return np.zeros(shape, np.float32)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
