"""Pretrained networks: which there are, and how one becomes a function from bytes to bottleneck features.

A new Keras application is one entry in `BACKBONES`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import BackboneError, WeightsError, printable
from featx.keras_import import import_keras
from featx.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One Keras application without its classifier.

    Attributes:
        application: name of the constructor in `keras.applications`.
        layer: the layer whose output is stored unless told otherwise: the last one.
        image_size: `(height, width)` the network was made for, in pixels.
        preprocessing: `"caffe"` (BGR, mean-centred, unscaled) or `"tf"` (-1 to 1) as Keras defines them in
            `keras.applications.imagenet_utils.preprocess_input`, or `"efficientnet"`, see `_rescale_efficientnet`.
        weights_url: Keras's official file without the classifier.
        weights_md5: what Keras checks that file against; None where Keras publishes no hash.
    """

    application: str
    layer: str
    image_size: tuple[int, int]
    preprocessing: str
    weights_url: str
    weights_md5: str | None

    @property
    def weights_name(self) -> str:
        """File name of Keras's official weights."""
        return self.weights_url.rsplit("/", 1)[1]


_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"

BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(
        application="VGG16",
        layer="block5_pool",
        image_size=(224, 224),
        preprocessing="caffe",
        weights_url=f"{_KERAS_FILES}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_md5="6d6bbae143d832006294945121d1f1fc",
    ),
    "resnet50": Backbone(
        application="ResNet50",
        layer="conv5_block3_out",
        image_size=(224, 224),
        preprocessing="caffe",
        weights_url=f"{_KERAS_FILES}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_md5="4d473c1dd8becc155b73f8504c6f6626",
    ),
    "mobilenetv2": Backbone(
        application="MobileNetV2",
        layer="out_relu",
        image_size=(224, 224),
        preprocessing="tf",
        weights_url=f"{_KERAS_FILES}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        weights_md5=None,
    ),
    "efficientnetb0": Backbone(
        application="EfficientNetB0",
        layer="top_activation",
        image_size=(224, 224),
        preprocessing="efficientnet",
        weights_url="https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
        weights_md5="50bc09e76180e00e4465e1a485ddc09d",
    ),
}


def find_backbone(name: str) -> Backbone:
    """Return the entry of `BACKBONES` called `name`.

    Raises:
        BackboneError: there is none.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise BackboneError(
            f"There is no backbone of this name. Known: {', '.join(BACKBONES)}. Received: {name!r}"
        ) from None


#: Keras's dtype policy for each precision that a model can compute in. Weights are float32 in both.
DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

#: Layers that EfficientNet has for its preprocessing: float32 in every precision, as all that is done to pixels.
_PREPROCESSING_LAYERS = {"Rescaling", "Normalization"}


def build_model(recipe: Recipe, weights_path: Path | None, precision: str = "float32") -> Any:
    """Return the Keras model of a recipe: `(n, height, width, 3)` uint8 RGB in, `(n, …)` float32 features out.

    The preprocessing is part of the model, so that it cannot be got wrong outside. It is done in float32 whatever the
    precision: bfloat16 has 8 bits, and differences of numbers from 0 to 255 need more.

    Args:
        recipe: what to build.
        weights_path: a file in the layout of Keras's official ones; None for a recipe with random weights.
        precision: arithmetic of the network: one of `DTYPE_POLICIES`.

    Raises:
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network, or there is none.
    """
    if weights_path is None and not recipe.has_random_weights:
        raise WeightsError(f"The file with the weights of {recipe.backbone} is needed: name it with --weights PATH.")
    keras = import_keras()
    backbone = find_backbone(recipe.backbone)
    with _dtype_policy(keras, DTYPE_POLICIES[precision]):
        network = _build_network(keras, recipe, backbone)
    for layer in network.layers:
        if type(layer).__name__ in _PREPROCESSING_LAYERS:
            layer.dtype_policy = "float32"
    if weights_path is None:
        _set_random_weights(network, seed=int(recipe.weights.removeprefix("random-")))
    else:
        _load_weights(network, recipe, weights_path)
    trunk = keras.Model(network.input, _output_of_layer(network, recipe))
    trunk.trainable = False
    images = keras.Input((*recipe.image_size, 3), dtype="uint8", name="images")
    features = trunk(_preprocess(keras, images, recipe.preprocessing), training=False)
    return keras.Model(images, keras.ops.cast(features, "float32"))


@contextmanager
def _dtype_policy(keras: Any, policy: str) -> Iterator[None]:
    """Build the layers of the block under a dtype policy of Keras's, and put back the one there was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build_network(keras: Any, recipe: Recipe, backbone: Backbone) -> Any:
    try:
        return getattr(keras.applications, backbone.application)(
            include_top=False, weights=None, input_shape=(*recipe.image_size, 3)
        )
    except ValueError as error:
        height, width = recipe.image_size
        raise BackboneError(
            f"{recipe.backbone} cannot be built for images of this size: {_one_line(error)} Choose a larger "
            f"--image-size. Received: {height}x{width}"
        ) from error


def _load_weights(network: Any, recipe: Recipe, weights_path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of every layer before it raises
            network.load_weights(weights_path)
    except MemoryError:
        raise
    except Exception as error:  # a foreign file may end in anything: zipfile's, h5py's, pickle's errors
        raise WeightsError(
            f"{printable(weights_path)} does not hold weights of {recipe.backbone} in the layout of Keras's official "
            f"files without the classifier (…_notop.h5): {_one_line(error)}"
        ) from error


def _output_of_layer(network: Any, recipe: Recipe) -> Any:
    names = [layer.name for layer in network.layers]
    if recipe.layer not in names:
        raise BackboneError(
            f"{recipe.backbone} has no layer of this name. Its last layers: {', '.join(names[-8:])}. "
            f"Received: {recipe.layer!r}"
        )
    return network.get_layer(recipe.layer).output


def _preprocess(keras: Any, images: Any, preprocessing: str) -> Any:
    pixels = keras.ops.cast(images, "float32")
    if preprocessing == "efficientnet":
        return _rescale_efficientnet(pixels)
    return keras.applications.imagenet_utils.preprocess_input(pixels, data_format="channels_last", mode=preprocessing)


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


def _set_random_weights(network: Any, seed: int) -> None:
    """Set seeded random weights: He-normal kernels (He et al. 2015), identity statistics.

    Drawn with NumPy, so that one seed means the same numbers on every Keras backend.
    """
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        # A depthwise kernel (h, w, channels, 1) sees one channel; any other sees all of its last but one axis.
        fan_in_axes = 2 if type(layer).__name__ == "DepthwiseConv2D" else -1
        for weight in layer.weights:
            weight.assign(_random_weight(weight.name, tuple(weight.shape), fan_in_axes, rng))


def _random_weight(name: str, shape: tuple[int, ...], fan_in_axes: int, rng: np.random.Generator) -> np.ndarray:
    if name == "kernel":
        return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:fan_in_axes])), shape).astype(np.float32)
    if name == "gamma":
        return np.full(shape, _RANDOM_GAMMA, np.float32)
    if "variance" in name:
        return np.ones(shape, np.float32)
    return np.zeros(shape, np.float32)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
