"""Images that an int8 network is not made for: how it finds them, and what computes them instead.

The ranges of an int8 network come from a few hundred training images. The network clips an image whose activations are
larger, and loses one whose activations are far smaller in rounding. So besides its features, the network says

- whether it clips activations in several tensors. A handful of clipped activations are enough for a cosine of 0.97, and
  show in no level. In few tensors they do no harm, and every eighth photograph has some there. Only tensors with one
  range for all channels count: almost every image exceeds one of a thousand ranges before a depthwise convolution.
- whether a level of the image is outside the range of the levels of the calibration images. For each tensor that is
  rounded, the levels are the mean, and the mean of the largest number of each channel.

Such an image is computed again, by the float32 network.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np

from featx.system import import_openvino, kept_signal_stack

#: How far a level may be above the highest, or below the lowest, of the calibration images, as a share of it.
LEVEL_MARGIN = 0.2

#: How much wider the range of a tensor is than the calibration images need, so that it clips none of them. The errors
#: of rounding grow by the same factor.
HEADROOM = 1.02

#: An image does not fit if it is clipped in a larger share of the tensors, and in more than one. Of 3,000 images at
#: 64×64, those that ResNet50 clipped in 1 to 4 of 68 tensors had a cosine of at least 0.996, and those that it did not
#: clip, 0.992. In 5 to 9 tensors, the lowest was 0.992; in more, 0.08.
CLIPPED_SHARE = 0.05

#: Steps from 0 to the end of a range that can be clipped. At a nearer end, as that of a swish function below 0, the
#: headroom is less than rounding.
_STEPS_TO_END = 50

#: A tensor whose lowest number is further below 0 than this share of its highest has no level: its mean says little.
_MOST_NEGATIVE = 0.3

#: Operations with weights: what comes before the first of them is the image itself, whose range is known.
_WITH_WEIGHTS = frozenset({"Convolution", "GroupConvolution", "MatMul"})

#: Images, a number that no other axis is likely to have.
_SEVERAL = 7919

_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


class Fallback:
    """Computes the features of single images in float32, on a thread of its own; started for the first one.

    Attributes:
        n_images: computed so far.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        """Keep the function that returns the float32 network, an `openvino.Model`."""
        self.n_images = 0
        self._load = load
        self._compiled: Any = None
        self._thread = ThreadPoolExecutor(1, "featx-fallback")

    def submit(self, images: np.ndarray, future: "Future[np.ndarray]", alarms: np.ndarray) -> "Future[np.ndarray]":
        """Return the future of the features of `future`, with those of the images that have an alarm computed again.

        Args:
            images: `(n, height, width, 3)` uint8 RGB.
            future: their features, `(n, …)` float32, as the int8 network gives them.
            alarms: `(n,)` float32, above 0 for an alarm; filled when `future` is done.
        """
        return self._thread.submit(self._mend, images, future, alarms)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()

    def _mend(self, images: np.ndarray, future: "Future[np.ndarray]", alarms: np.ndarray) -> np.ndarray:
        features = future.result()
        for row in np.flatnonzero(alarms > 0):
            features[row] = self._forward(images[row : row + 1])
            self.n_images += 1
        return features

    def _forward(self, image: np.ndarray) -> np.ndarray:
        if self._compiled is None:
            network = self._load()
            network.reshape(list(image.shape))  # always one image, so that the bits do not depend on the batch
            with kept_signal_stack():
                self._compiled = import_openvino().Core().compile_model(network, "CPU", _FLOAT32)
        features: np.ndarray = self._compiled(image)[0]
        return features


def rounds_activations(network: Any) -> bool:
    """Return whether an int8 `openvino.Model` rounds anything but its weights."""
    return bool(_all_quantizers(network))


def can_find_images(network: Any) -> bool:
    """Return whether an int8 `openvino.Model` rounds anything that tells of single images."""
    return bool(_quantizers(network))


def with_levels(network: Any) -> Any:
    """Return an int8 `openvino.Model` with the levels of each image, `(n, n_levels)` float32, as second output."""
    ops = import_openvino().opset13
    network = network.clone()
    levels = []
    for quantizer in _quantizers_with_level(network):
        axes = list(range(1, quantizer.get_output_partial_shape(0).rank.get_length()))
        levels.append(ops.unsqueeze(ops.reduce_mean(quantizer, axes), 1))
        if len(axes) > 1:
            levels.append(ops.unsqueeze(ops.reduce_mean(ops.reduce_max(quantizer, axes[1:]), [1]), 1))
    return _with_outputs(network, [ops.concat(levels, 1).output(0)])


def widen_ranges(network: Any) -> None:
    """Make the ranges of an int8 `openvino.Model` wider by `HEADROOM`, in place, where an image could be outside."""
    ops = import_openvino().opset13
    for quantizer in _quantizers_that_may_clip(network):
        for number in range(1, 5):  # lowest and highest, as given and as returned
            limit = quantizer.input_value(number).get_node().get_data()
            quantizer.input(number).replace_source_output(ops.constant(HEADROOM * limit).output(0))


def with_alarm(network: Any, levels: np.ndarray) -> Any:
    """Return an int8 `openvino.Model` with an alarm as second output, `(n,)` float32: above 0 if an image does not fit.

    Args:
        network: the int8 network, with wide ranges; see `widen_ranges`.
        levels: of images that it is made for, `(n, n_levels)` float32; see `with_levels`.
    """
    ops = import_openvino().opset13
    lowest, highest = levels.min(axis=0, keepdims=True), levels.max(axis=0, keepdims=True)
    network = with_levels(network)
    given = network.outputs[1].get_node().input_value(0)
    is_low = ops.less(given, lowest - LEVEL_MARGIN * np.abs(lowest))
    is_high = ops.greater(given, highest + LEVEL_MARGIN * np.abs(highest))
    alarm = ops.reduce_max(ops.convert(ops.logical_or(is_low, is_high), "f32"), [1])
    quantizers = _quantizers_that_may_clip(network)
    if len(quantizers) > 1:
        n_clipped = reduce(ops.add, map(_clipped, quantizers))
        is_often = ops.greater(n_clipped, np.float32(max(1, CLIPPED_SHARE * len(quantizers))))
        alarm = ops.maximum(alarm, ops.convert(is_often, "f32"))
    return _with_outputs(network, [alarm.output(0)])


def without_alarm(network: Any) -> Any:
    """Return an `openvino.Model` whose second output is an alarm that is never raised, `(n,)` float32 zeros."""
    ops = import_openvino().opset13
    n_images = ops.gather(ops.shape_of(network.get_parameters()[0]), np.array([0]), np.array(0))
    return _with_outputs(network, [ops.broadcast(np.float32(0), n_images).output(0)])


def _with_outputs(network: Any, others: Sequence[Any]) -> Any:
    """Return an `openvino.Model` of the features of `network` and these outputs."""
    return import_openvino().Model([network.outputs[0], *others], network.get_parameters())


def _clipped(quantizer: Any) -> Any:
    """Return an operation that gives 1 for each image of which a number is at an end of the range, else 0: `(n,)`."""
    ops = import_openvino().opset13
    low, high = (quantizer.input_value(number).get_node().get_data().item() for number in (3, 4))
    step = (high - low) / (quantizer.get_attributes()["levels"] - 1)
    axes = list(range(1, quantizer.get_output_partial_shape(0).rank.get_length()))
    is_clipped = []
    if high > _STEPS_TO_END * step:
        # In two steps, since the largest number of each channel is needed for a level, too.
        largest = ops.reduce_max(ops.reduce_max(quantizer, axes[1:]) if axes[1:] else quantizer, [1])
        is_clipped.append(ops.greater(largest, np.float32(high - step / 4)))
    if -low > _STEPS_TO_END * step:
        is_clipped.append(ops.less(ops.reduce_min(quantizer, axes), np.float32(low + step / 4)))
    return ops.convert(reduce(ops.logical_or, is_clipped), "f32")


def _quantizers_that_may_clip(network: Any) -> list[Any]:
    """Return the quantizers with one range, but for those of the image itself whose range holds every colour."""
    with_one_range = [one for one in _quantizers(network) if one.input_value(2).get_node().get_data().size == 1]
    return [one for one in with_one_range if not (_is_of_pixels(one) and _holds_every_colour(network, one))]


def _is_of_pixels(quantizer: Any) -> bool:
    """Return whether a quantizer rounds the image, before any operation with weights."""
    node = quantizer
    while (node := node.input_value(0).get_node()).get_type_name() not in _WITH_WEIGHTS:
        if not node.get_input_size():
            return bool(node.get_type_name() == "Parameter")
    return False


def _holds_every_colour(network: Any, quantizer: Any) -> bool:
    openvino = import_openvino()
    low, high = (quantizer.input_value(number).get_node().get_data() for number in (1, 2))
    step = (high - low) / (quantizer.get_attributes()["levels"] - 1)
    with kept_signal_stack():
        before = openvino.Model([quantizer.input_value(0)], network.get_parameters())
        compiled = openvino.Core().compile_model(before, "CPU", _FLOAT32)
    _, height, width, _ = network.input(0).partial_shape
    corners = np.array(list(np.ndindex(2, 2, 2)), np.uint8) * 255
    images = np.broadcast_to(corners[:, np.newaxis, np.newaxis], (8, height.get_length(), width.get_length(), 3))
    found = [compiled(image[np.newaxis])[0] for image in images]
    return all((one >= low - step).all() and (one <= high + step).all() for one in found)


def _quantizers_with_level(network: Any) -> list[Any]:
    found = _quantizers(network)
    with_level = []
    for quantizer in found:
        low, high = (quantizer.input_value(number).get_node().get_data() for number in (1, 2))
        if low.min() >= -_MOST_NEGATIVE * high.max():
            with_level.append(quantizer)
    return with_level or found


def _quantizers(network: Any) -> list[Any]:
    """Return the operations that round activations of single images, in the order in which they are computed.

    The first axis of what they round is the image, unlike that of the heads and tokens of some transformers.
    """
    found = _all_quantizers(network)
    if network.input(0).partial_shape[0].is_static:
        return found
    several = network.clone()
    several.reshape([_SEVERAL, *list(network.input(0).partial_shape)[1:]])
    shapes = {node.get_friendly_name(): node.get_output_partial_shape(0) for node in several.get_ordered_ops()}
    return [one for one in found if list(shapes[one.get_friendly_name()][:1]) == [_SEVERAL]]


def _all_quantizers(network: Any) -> list[Any]:
    return [
        node
        for node in network.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant"
    ]
