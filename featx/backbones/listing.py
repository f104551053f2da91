"""What there is to know of each backbone before it is chosen."""

from dataclasses import dataclass

from featx.backbones.table import BACKBONES, trunk_of
from featx.backbones.weights import has_weights_here


@dataclass(frozen=True)
class BackboneInfo:
    """What one gets for choosing a backbone, and what it costs. All but `top1` is without its classifier.

    Attributes:
        name: what `--backbone` takes.
        image_size: `(height, width)` in pixels that the network was made for.
        feature_shape: the features of an image of this size.
        n_parameters: how many numbers its weights are.
        weights_bytes: about how large the file of the weights is: they are float32.
        top1: accuracy of the whole classifier on ImageNet, in per cent, as Keras's documentation has it.
        has_weights_here: whether ImageNet's weights are on this machine.
    """

    name: str
    image_size: tuple[int, int]
    feature_shape: tuple[int, ...]
    n_parameters: int
    weights_bytes: int
    top1: float
    has_weights_here: bool


def list_backbones() -> tuple[BackboneInfo, ...]:
    """Return all backbones by family. It takes no time, and loads neither Keras nor TensorFlow.

    Raises:
        WeightsError: `FEATX_WEIGHTS_DIR` names no folder.
    """
    return tuple(_info(name) for name in BACKBONES)


def _info(name: str) -> BackboneInfo:
    entry, trunk = BACKBONES[name], trunk_of(name)
    return BackboneInfo(
        name=name,
        image_size=entry.image_size,
        feature_shape=trunk.feature_shape,
        n_parameters=trunk.n_parameters,
        weights_bytes=4 * trunk.n_parameters,
        top1=entry.top1,
        has_weights_here=has_weights_here(name),
    )
