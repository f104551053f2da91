"""Which pretrained networks there are: a new one is a line in `BACKBONES` and a line in `networks.json`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from featx.errors import BackboneError
from featx.system import check_name

#: What is done to pixels before the network: see `Backbone`. The word is part of every recipe, so none may change.
Preprocessing = Literal["caffe", "tf", "torch", "none", "efficientnet"]


@dataclass(frozen=True)
class OfficialFile:
    """A file of weights that Keras publishes.

    Attributes:
        url: where it is.
        checksum: its MD5, or its SHA-256, in hexadecimal, as Keras has it; None where Keras publishes neither.
        name: file name that Keras keeps it under.
    """

    url: str
    checksum: str | None
    name: str


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
        top1: accuracy of the whole classifier on ImageNet, in per cent, as Keras's documentation has it.
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
    top1: float
    last_block: str = ""
    min_size: int = 32
    takes_any_size: bool = True


def _entry(
    application: str,
    size: int,
    top1: float,
    whole: str | None = None,
    notop: str | None = None,
    *,
    files: str,
    no_top: str = "_notop",
    family: str = "",
    kept_as: str = "",
    **others: Any,
) -> Backbone:
    """Return an entry.

    Args:
        application: name of the constructor.
        size: height and width of images, in pixels.
        top1: see `Backbone`.
        whole: checksum of the weights of the whole classifier.
        notop: checksum of the weights without it.
        files: the end of the files' URLs. In it, `{name}` is the application in lower case, `{variant}` the same
            without `family`, and `{top}` is `no_top` in that without the classifier, else nothing.
        no_top: see `files`.
        family: see `files`.
        kept_as: file name that Keras keeps a file under, with the same fields as `files`; as in the URL if empty.
        **others: the other attributes.
    """

    def file(checksum: str | None, top: str) -> OfficialFile:
        fields = {"name": application.lower(), "variant": application.removeprefix(family).lower(), "top": top}
        url = f"{_GOOGLE}/{files.format(**fields)}"
        return OfficialFile(url, checksum, kept_as.format(**fields).replace("-", "_") or url.rsplit("/", 1)[1])

    return Backbone(
        application=application,
        image_size=(size, size),
        top1=top1,
        whole=file(whole, ""),
        notop=file(notop, no_top),
        **others,
    )


#: Where Keras has its weights, and how most of their names end.
_GOOGLE = "https://storage.googleapis.com"
_KERAS = "tensorflow/keras-applications"
_KERNELS = "weights_tf_dim_ordering_tf_kernels"

# What the networks of a family have in common.
_VGG = partial(
    _entry,
    files=f"{_KERAS}/{{name}}/{{name}}_{_KERNELS}{{top}}.h5",
    layer="block5_pool",
    preprocessing="caffe",
    last_block="block5",
    takes_any_size=False,
)
_RESNET = partial(
    _entry,
    files=f"{_KERAS}/resnet/{{name}}_{_KERNELS}{{top}}.h5",
    layer="conv5_block3_out",
    preprocessing="caffe",
    last_block="conv5",
)
_RESNET_V2 = partial(_RESNET, layer="post_relu", preprocessing="tf")
_INCEPTION = partial(_entry, preprocessing="tf", min_size=75)
_MOBILENET = partial(_entry, no_top="_no_top", preprocessing="tf")
_MOBILENET_V3 = partial(
    _entry,
    files=f"{_KERAS}/mobilenet_v3/weights_mobilenet_v3_{{variant}}_224_1.0_float{{top}}.h5",
    no_top="_no_top_v2",
    family="MobileNetV3",
    preprocessing="none",
)
_DENSENET = partial(
    _entry,
    files=f"{_KERAS}/densenet/{{name}}_{_KERNELS}{{top}}.h5",
    layer="relu",
    preprocessing="torch",
    last_block="conv5",
)
_NASNET = partial(
    _entry,
    files=f"{_KERAS}/nasnet/NASNet-{{variant}}{{top}}.h5",
    no_top="-no-top",
    family="NASNet",
    kept_as="nasnet_{variant}{top}.h5",
    preprocessing="tf",
)
_EFFICIENTNET = partial(
    _entry, files="keras-applications/{name}{top}.h5", layer="top_activation", preprocessing="efficientnet"
)
_EFFICIENTNET_V2 = partial(
    _entry,
    files=f"{_KERAS}/efficientnet_v2/efficientnetv2-{{variant}}{{top}}.h5",
    family="EfficientNetV2",
    layer="top_activation",
    preprocessing="none",
)


def _convnext(application: str, *arguments: Any) -> Backbone:
    variant = application.removeprefix("ConvNeXt").lower()
    return _entry(
        application,
        *arguments,
        files=f"{_KERAS}/convnext/convnext_{variant}{{top}}.h5",
        layer="layer_normalization",
        preprocessing="none",
        last_block=f"convnext_{variant}_stage_3",
    )


# fmt: off
#: All applications of Keras, by the name of the constructor in lower case: size, top-1, checksums of the weights.
BACKBONES: dict[str, Backbone] = {entry.application.lower(): entry for entry in (
    _VGG("VGG16", 224, 71.3, "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"),
    _VGG("VGG19", 224, 71.3, "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"),
    _RESNET("ResNet50", 224, 74.9, "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    _RESNET("ResNet101", 224, 76.4, "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
    _RESNET("ResNet152", 224, 76.6, "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    _RESNET_V2("ResNet50V2", 224, 76.0, "3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
    _RESNET_V2("ResNet101V2", 224, 77.2, "6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
    _RESNET_V2("ResNet152V2", 224, 78.0, "a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
    _INCEPTION("InceptionV3", 299, 77.9, "9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63",
               files=f"{_KERAS}/inception_v3/inception_v3_{_KERNELS}{{top}}.h5", layer="mixed10"),
    _INCEPTION("InceptionResNetV2", 299, 80.3, "e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4",
               files=f"{_KERAS}/inception_resnet_v2/inception_resnet_v2_{_KERNELS}{{top}}.h5", layer="conv_7b_ac"),
    _INCEPTION("Xception", 299, 79.0, "0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97",
               files=f"{_KERAS}/xception/xception_{_KERNELS}{{top}}.h5", layer="block14_sepconv2_act",
               last_block="block14", min_size=71),
    _MOBILENET("MobileNet", 224, 70.4, files=f"{_KERAS}/mobilenet/mobilenet_1_0_224_tf{{top}}.h5",
               layer="conv_pw_13_relu", last_block="conv_dw_13"),
    _MOBILENET("MobileNetV2", 224, 71.3, files=f"{_KERAS}/mobilenet_v2/mobilenet_v2_{_KERNELS}_1.0_224{{top}}.h5",
               layer="out_relu", last_block="block_16"),
    _MOBILENET_V3("MobileNetV3Small", 224, 68.1, "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836",
                  layer="activation_17", last_block="expanded_conv_10"),
    _MOBILENET_V3("MobileNetV3Large", 224, 75.6, "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389",
                  layer="activation_19", last_block="expanded_conv_14"),
    _DENSENET("DenseNet121", 224, 75.0, "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
    _DENSENET("DenseNet169", 224, 76.2, "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
    _DENSENET("DenseNet201", 224, 77.3, "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    _NASNET("NASNetMobile", 224, 74.4, "020fb642bf7360b370c678b08e0adf61", "1ed92395b5b598bdda52abe5c0dbfd63",
            layer="activation_187"),
    _NASNET("NASNetLarge", 331, 82.5, "11577c9a518f0070763c2b964a382f17", "d81d89dc07e6e56530c4e77faddd61b5",
            layer="activation_259"),
    _EFFICIENTNET("EfficientNetB0", 224, 77.1, "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d",
                  last_block="block7a"),
    _EFFICIENTNET("EfficientNetB1", 240, 79.1, "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432",
                  last_block="block7b"),
    _EFFICIENTNET("EfficientNetB2", 260, 80.1, "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39",
                  last_block="block7b"),
    _EFFICIENTNET("EfficientNetB3", 300, 81.6, "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226",
                  last_block="block7b"),
    _EFFICIENTNET("EfficientNetB4", 380, 82.9, "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba",
                  last_block="block7b"),
    _EFFICIENTNET("EfficientNetB5", 456, 83.6, "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f",
                  last_block="block7c"),
    _EFFICIENTNET("EfficientNetB6", 528, 84.0, "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743",
                  last_block="block7c"),
    _EFFICIENTNET("EfficientNetB7", 600, 84.3, "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a",
                  last_block="block7d"),
    _EFFICIENTNET_V2("EfficientNetV2B0", 224, 78.7, "21ecbf6da12460d5c40bb2f29ceb2188",
                     "893217f2bb855e2983157299931e43ff", last_block="block6h"),
    _EFFICIENTNET_V2("EfficientNetV2B1", 240, 79.8, "069f0534ff22adf035c89e2d9547a9dc",
                     "0e80663031ca32d657f9caa404b6ec37", last_block="block6i"),
    _EFFICIENTNET_V2("EfficientNetV2B2", 260, 80.5, "424e49f28180edbde1e94797771950a7",
                     "1dfe2e7a5d45b6632553a8961ea609eb", last_block="block6j"),
    _EFFICIENTNET_V2("EfficientNetV2B3", 300, 82.0, "1f1fc43bd98a6e4fd8fdfd551e02c7a0",
                     "f6abf7b5849ac99a89b50dd3fd532856", last_block="block6l"),
    _EFFICIENTNET_V2("EfficientNetV2S", 384, 83.9, "e1d88a8495beba45748fedd0cecbe016",
                     "af0682fb74e8c54910f2d4393339c070", last_block="block6o"),
    _EFFICIENTNET_V2("EfficientNetV2M", 480, 85.3, "a3bf6aa3276309f4fc6a34aa114c95cd",
                     "1b8dc055df72dde80d614482840fe342", last_block="block7e"),
    _EFFICIENTNET_V2("EfficientNetV2L", 480, 85.7, "27e6d408b53c7ebc868fefa357689935",
                     "b0b66b5c863aef5b46e8608fe1711615", last_block="block7g"),
    _convnext("ConvNeXtTiny", 224, 81.3, "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
              "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    _convnext("ConvNeXtSmall", 224, 82.3, "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
              "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    _convnext("ConvNeXtBase", 224, 85.3, "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
              "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    _convnext("ConvNeXtLarge", 224, 86.3, "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
              "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    _convnext("ConvNeXtXLarge", 224, 86.7, "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
              "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)}
# fmt: on


def find_backbone(name: str) -> Backbone:
    """Return the entry of `BACKBONES` called `name`.

    Raises:
        BackboneError: there is none.
    """
    check_name(name, BACKBONES, "There is no backbone of this name; featx backbones lists all.", BackboneError)
    return BACKBONES[name]


@dataclass(frozen=True)
class Trunk:
    """What Keras knows of a backbone without its classifier, and takes seconds to say.

    Attributes:
        layers: names of its layers, in their order.
        n_parameters: how many numbers its weights are.
        feature_shape: shape of the output of its last layer, for an image of the backbone's own size.
    """

    layers: tuple[str, ...] = ()
    n_parameters: int = 0
    feature_shape: tuple[int, ...] = ()


def trunk_of(backbone: str) -> Trunk:
    """Return what `networks.json` has of a backbone; nothing if it is not in there."""
    found = _trunks().get(backbone)
    return Trunk(tuple(_names(found["layers"])), found["parameters"], tuple(found["features"])) if found else Trunk()


@cache
def _trunks() -> dict[str, dict[str, Any]]:
    trunks: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("networks.json").read_text("utf-8"))
    return trunks


def _names(folded: list[Any], stem: str = "") -> Iterator[str]:
    """Yield the names in a list that has their common beginnings only once.

    >>> list(_names(["input", ["block1|block2", "conv", ["bn", "a", "b"]]]))
    ['input', 'block1_conv', 'block1_bn_a', 'block1_bn_b', 'block2_conv', 'block2_bn_a', 'block2_bn_b']
    """
    for item in folded:
        if isinstance(item, str):
            yield stem + item
        else:
            beginnings, *inside = item
            for beginning in beginnings.split("|"):
                yield from _names(inside, f"{stem}{beginning}_")


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
    layers, last_block = trunk_of(backbone).layers, find_backbone(backbone).last_block
    names = layers[: layers.index(last_layer) + 1] if last_layer in layers else ()
    name = last_block if block == LAST_BLOCK else block
    if not name and block == LAST_BLOCK:
        raise BackboneError(
            f"featx knows no last block of {backbone}: name the first layer to tune with --tune LAYER. All that "
            f"follows it may take no output of earlier layers but that of the one before it."
        )
    first = next((row for row, layer in enumerate(names) if layer == name or layer.startswith(f"{name}_")), -1)
    if first < 0:
        hint = f" Its last block is {last_block}." if last_block else ""
        rule = f"{backbone} has no block or layer of this name up to {last_layer}.{hint}"
        blocks = [layer.partition("_")[0] for layer in names]
        check_name(name, [*blocks, *names], rule, BackboneError)
    if first < 2:  # the first layer is the input
        raise BackboneError(f"Some layers of {backbone} must stay frozen: name a later block. Received: {name!r}")
    return name, names[first - 1]
