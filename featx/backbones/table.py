"""Which pretrained networks there are: a new one is an entry in `BACKBONES` and a line in `layers.json`."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from featx.errors import BackboneError
from featx.system import check_name

#: What is done to pixels before the network: see `Backbone`. The word is part of every recipe, so none may change.
Preprocessing = Literal["caffe", "tf", "torch", "none", "efficientnet"]


@dataclass(frozen=True)
class OfficialFile:
    """A file of weights that Keras publishes.

    Attributes:
        url: where it is.
        md5: what Keras checks it against; None where Keras publishes no hash.
    """

    url: str
    md5: str | None

    @property
    def name(self) -> str:
        """File name that Keras keeps it under."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One Keras application, with its classifier or without.

    Attributes:
        application: name of the constructor in `keras.applications`.
        layer: the layer whose output is stored unless told otherwise: the last one.
        image_size: `(height, width)` the network was made for, in pixels.
        preprocessing: what is done to pixels before the network. `"caffe"` (BGR, mean-centred, unscaled), `"tf"` (-1
            to 1) and `"torch"` (0 to 1, then mean-centred and divided by the standard deviation) are Keras's, from
            `keras.applications.imagenet_utils.preprocess_input`. `"none"` is for networks whose own first layers do
            it all, and `"efficientnet"` for EfficientNet, whose first layers do all but one step.
        notop: Keras's official weights without the classifier.
        whole: Keras's official weights of the whole classifier.
        last_block: what the names of the layers of the last block begin with; empty if it has no such block.
        min_size: the least height, and the least width, of images that the network takes, in pixels.
        takes_any_size: whether the whole classifier takes images of other sizes than `image_size`, too.
    """

    application: str
    layer: str
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    notop: OfficialFile
    whole: OfficialFile
    last_block: str = ""
    min_size: int = 32
    takes_any_size: bool = True


#: Where Keras has most of its weights, where it has those of EfficientNet, and what most of their names contain.
_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"
_EFFICIENTNETS = "https://storage.googleapis.com/keras-applications"
_KERNELS = "weights_tf_dim_ordering_tf_kernels"

BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(
        application="VGG16",
        layer="block5_pool",
        image_size=(224, 224),
        preprocessing="caffe",
        notop=OfficialFile(f"{_KERAS_FILES}/vgg16/vgg16_{_KERNELS}_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
        whole=OfficialFile(f"{_KERAS_FILES}/vgg16/vgg16_{_KERNELS}.h5", "64373286793e3c8b2b4e3219cbf3544b"),
        last_block="block5",
        takes_any_size=False,
    ),
    "resnet50": Backbone(
        application="ResNet50",
        layer="conv5_block3_out",
        image_size=(224, 224),
        preprocessing="caffe",
        notop=OfficialFile(f"{_KERAS_FILES}/resnet/resnet50_{_KERNELS}_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"),
        whole=OfficialFile(f"{_KERAS_FILES}/resnet/resnet50_{_KERNELS}.h5", "2cb95161c43110f7111970584f804107"),
        last_block="conv5",
    ),
    "mobilenetv2": Backbone(
        application="MobileNetV2",
        layer="out_relu",
        image_size=(224, 224),
        preprocessing="tf",
        notop=OfficialFile(f"{_KERAS_FILES}/mobilenet_v2/mobilenet_v2_{_KERNELS}_1.0_224_no_top.h5", None),
        whole=OfficialFile(f"{_KERAS_FILES}/mobilenet_v2/mobilenet_v2_{_KERNELS}_1.0_224.h5", None),
        last_block="block_16",
    ),
    "efficientnetb0": Backbone(
        application="EfficientNetB0",
        layer="top_activation",
        image_size=(224, 224),
        preprocessing="efficientnet",
        notop=OfficialFile(f"{_EFFICIENTNETS}/efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"),
        whole=OfficialFile(f"{_EFFICIENTNETS}/efficientnetb0.h5", "902e53a9f72be733fc0bcb005b3ebbac"),
        last_block="block7a",
    ),
}


def find_backbone(name: str) -> Backbone:
    """Return the entry of `BACKBONES` called `name`.

    Raises:
        BackboneError: there is none.
    """
    check_name(name, BACKBONES, f"A backbone must be one of {', '.join(BACKBONES)}.", BackboneError)
    return BACKBONES[name]


@cache
def layer_names(backbone: str) -> tuple[str, ...]:
    """Return the layers of a backbone in their order; empty if `layers.json` does not have them.

    Keras knows them, too, but takes seconds to start.
    """
    layers = json.loads(Path(__file__).with_name("layers.json").read_text(encoding="utf-8"))
    return tuple(layers.get(backbone, ()))


#: The word for the last block of a backbone, whichever it is.
LAST_BLOCK = "last"


def find_block(backbone: str, block: str, last_layer: str) -> tuple[str, str]:
    """Return the name of a block, and of the layer before it: all up to that layer stays frozen when it is tuned.

    >>> find_block("vgg16", "last", "block5_pool")
    ('block5', 'block4_pool')

    Args:
        backbone: name in `BACKBONES`.
        block: a layer; or what the names of a block's layers begin with, before an underscore; or `LAST_BLOCK`.
        last_layer: the layer that the head stands on.

    Raises:
        BackboneError: there is no such block, or no layer stays frozen.
    """
    layers, last_block = layer_names(backbone), find_backbone(backbone).last_block
    names = layers[: layers.index(last_layer) + 1] if last_layer in layers else ()
    name = last_block if block == LAST_BLOCK else block
    first = next((row for row, layer in enumerate(names) if layer == name or layer.startswith(f"{name}_")), -1)
    if first < 0:
        hint = f" Its last block is {last_block}." if last_block else ""
        rule = f"{backbone} has no block or layer of this name up to {last_layer}.{hint}"
        blocks = [layer.partition("_")[0] for layer in names]
        check_name(name, [*blocks, *names], rule, BackboneError)
    if first < 2:  # the first layer is the input
        raise BackboneError(f"Some layers of {backbone} must stay frozen: name a later block. Received: {name!r}")
    return name, names[first - 1]
