"""A network in a file, as a backbone: its input, its layers, and which of them are usually wanted."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from featx.errors import BackboneError
from featx.recipe import LAYOUTS
from featx.system import brief, check_name
from featx.text import printable

#: How the names of network files end.
NETWORK_SUFFIXES = (".onnx", ".keras")

#: Which axis of a network's input has the colours, by its layout.
_COLOURS = dict(zip(LAYOUTS, (1, 3), strict=True))

#: What Keras calls the last layer of a whole classifier: its output is a probability for each class.
CLASSIFIER_LAYER = "predictions"

#: Operators whose output is a probability for each class.
_PROBABILITIES = {"Softmax", "Sigmoid"}

#: Layers that the error about an unknown one names.
_N_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class NetworkLayer:
    """One output of one operator of a network.

    Attributes:
        name: of the output, as in the file; it is unique, and recipes have it.
        node: name of the operator's node; it may be empty, or that of several.
        kind: the operator, such as `"Conv"`.
        shape: of the output for one image; None for a side that depends on the size of the image.
        channels: which axis of `shape` has the channels, if the others are height and width; None if that is not known.
        problem: why it cannot be stored as features, the end of a sentence; empty if it can.
    """

    name: str
    node: str
    kind: str
    shape: tuple[int | None, ...]
    channels: int | None = None
    problem: str = ""

    @property
    def shape_text(self) -> str:
        """The shape as it is shown: `1280`, `320×7×7`, `?` for what depends on the size of the image."""
        return "×".join("?" if side is None else f"{side}" for side in self.shape) or "1"


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """What there is in the file of a network.

    Attributes:
        name: of the file, without its folder.
        digest: SHA-256 of the file in hexadecimal.
        input_name: of its only input.
        input_type: what the numbers of that input are, such as `"f32"` or `"u8"`.
        input_shape: of that input, `(n, 3, height, width)` or `(n, height, width, 3)`; None for what is free.
        layers: in the order of the file.
        scores: the layer with one number for each class, if it has one; else None.
        scores_kind: the operator that computes them; empty if there are none.
        pooled: the layer that the last operator with weights takes, or the last one of all; None if it is not clear
            which that is.
        spatial: the last layer with height and width; None if there is none.
    """

    name: str
    digest: str
    input_name: str
    input_type: str
    input_shape: tuple[int | None, ...]
    layers: tuple[NetworkLayer, ...]
    scores: str | None = None
    scores_kind: str = ""
    pooled: str | None = None
    spatial: str | None = None

    @property
    def batch(self) -> int | None:
        """Images that it takes at a time; None for any number."""
        return self.input_shape[0]

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that its input may have: one, or both if its shape leaves that open."""
        exact = tuple(name for name, axis in _COLOURS.items() if self.input_shape[axis] == 3)
        return exact or tuple(name for name, axis in _COLOURS.items() if self.input_shape[axis] is None)

    @property
    def default_layer(self) -> str | None:
        """The layer that is stored unless told otherwise; None if the user must say."""
        return self.pooled or self.spatial

    @property
    def has_probabilities(self) -> bool:
        """Whether the scores are probabilities."""
        return self.scores_kind in _PROBABILITIES

    @property
    def n_classes(self) -> int | None:
        """How many classes it tells apart; None if it has no scores."""
        return None if self.scores is None else self.find_layer(self.scores).shape[0]

    def usual_layers(self) -> Iterable[tuple[str, str]]:
        """Yield what each layer that is usually wanted is, and its name."""
        for what, name in (("last pooled", self.pooled), ("last spatial", self.spatial), ("scores", self.scores)):
            if name is not None:
                yield what, name

    def find_layer(self, name: str) -> NetworkLayer:
        """Return the layer that is called `name`, or whose node is.

        Raises:
            BackboneError: there is none, or several nodes have this name, or it cannot be stored as features.
        """
        found = [layer for layer in self.layers if layer.name == name]
        found = found or [layer for layer in self.layers if layer.node == name]
        if len(found) > 1:
            names = ", ".join(printable(layer.name) for layer in found[:_N_NAMED])
            raise BackboneError(
                f"{printable(self.name)} has several layers of the node {brief(repr(name))}: name one by its output, "
                f"{names}."
            )
        if not found:
            fit = [known for layer in self.layers if not layer.problem for known in (layer.name, layer.node)]
            check_name(name, fit, f"{printable(self.name)} has no layer of this name. {self.advice}", BackboneError)
        if found[0].problem:
            raise BackboneError(
                f"The layer {brief(repr(name))} of {printable(self.name)} cannot be stored: {found[0].problem}. "
                f"{self.advice}"
            )
        return found[0]

    def pooled_axes(self, name: str, pooling: str) -> tuple[int, ...]:
        """Return the axes of a layer's output for one image that are height and width, which `pooling` takes away.

        Raises:
            BackboneError: it has none, or it is not clear which they are.
        """
        layer = self.find_layer(name)
        if layer.channels is None:
            raise BackboneError(
                f"Only an output with height, width and channels can be pooled. That of {printable(name)} in "
                f"{printable(self.name)} is {layer.shape_text}, or it is not clear which axis has the channels: leave "
                f"--pooling out, or choose another --layer. Received: {pooling!r}"
            )
        return tuple(axis for axis in range(len(layer.shape)) if axis != layer.channels)

    @property
    def advice(self) -> str:
        """Which layers to choose from, a sentence or two."""
        usual = "; ".join(f"{what}: {printable(name)}" for what, name in self.usual_layers())
        named = f"Usual layers are: {usual}. " if usual else ""
        return f"{named}featx backbones {printable(self.name)} lists them all."

    def choose_layer(self, given: str | None, pooling: str | None) -> str:
        """Return the name of the layer that a recipe has: that of an output, or `CLASSIFIER_LAYER` for the classes.

        Raises:
            BackboneError: there is no such layer, it cannot be stored or pooled, or the user must choose one.
        """
        if given == CLASSIFIER_LAYER and self.scores is not None and pooling is None:
            return CLASSIFIER_LAYER
        name = given or self.default_layer
        if name is None:
            raise BackboneError(f"{printable(self.name)} has several outputs: choose one with --layer. {self.advice}")
        layer = self.find_layer(name)
        if pooling is not None:
            self.pooled_axes(layer.name, pooling)
        return layer.name

    def check_preprocessing(self, preprocessing: str) -> None:
        """Raise BackboneError if the network takes bytes, and would not get the pixels as they are."""
        if self.input_type == "u8" and preprocessing != "none":
            raise BackboneError(
                f"{printable(self.name)} takes bytes, so it does its own preprocessing: use --preprocess none. "
                f"Received: {preprocessing}"
            )

    def choose_layout(self, given: str | None) -> str | None:
        """Return the layout that a recipe has: none, unless the shape of the input leaves it open.

        Raises:
            BackboneError: it is open and not given, or the input has another one.
        """
        shape = f"its input {printable(self.input_name)} is {_shape_text(self.input_shape)}"
        if given is None and len(self.layouts) > 1:
            raise BackboneError(
                f"{printable(self.name)} does not say which axis has the colours ({shape}): add --layout nchw "
                f"(colours, height, width; usual for PyTorch) or --layout nhwc (height, width, colours)."
            )
        if given is not None and given not in self.layouts:
            raise BackboneError(
                f"{printable(self.name)} has the layout {self.layouts[0]}: {shape}. Leave --layout out. "
                f"Received: {given}"
            )
        return given if len(self.layouts) > 1 else None

    def choose_image_size(self, given: tuple[int, int] | None, layout: str | None) -> tuple[int, int]:
        """Return the `(height, width)` of images in pixels that it gets.

        Raises:
            BackboneError: its size is free and none is given, or it takes another one.
        """
        own = self.image_size(layout)
        own_text = "×".join("?" if side is None else str(side) for side in own)
        if given is None and (own[0] is None or own[1] is None):
            raise BackboneError(
                f"{printable(self.name)} takes images of any size: choose the one that it was trained for with "
                f"--image-size, such as 224. Its input is {_shape_text(self.input_shape)}."
            )
        size = tuple(own) if given is None else given
        if any(side not in {None, wanted} for side, wanted in zip(own, size, strict=True)):
            raise BackboneError(
                f"{printable(self.name)} takes images of {own_text} only: leave --image-size out, or export the "
                f"network again with another size. Received: {size[0]}x{size[1]}"
            )
        return int(size[0] or 0), int(size[1] or 0)

    def image_size(self, layout: str | None) -> tuple[int | None, int | None]:
        """Return the `(height, width)` of its input in pixels; None for a side that is free."""
        colours = _COLOURS[layout or self.layouts[0]]
        height, width = (side for axis, side in enumerate(self.input_shape) if axis not in {0, colours})
        return height, width


def is_network_file(backbone: object) -> bool:
    """Return whether a backbone is the file of a network, by its name, and not a name of the table."""
    return str(backbone).lower().endswith(NETWORK_SUFFIXES)


def is_onnx(backbone: str) -> bool:
    """Return whether a backbone is an ONNX file."""
    return backbone.lower().endswith(".onnx")


def is_network_name(name: str) -> bool:
    """Return whether `name` may be that of a network file in a recipe: without a folder, and fit to be shown."""
    return is_network_file(name) and Path(name).name == name and "\\" not in name and name.isprintable()


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"
