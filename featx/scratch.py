"""The rivals from the report: networks that learn from pixels alone, in one table.

All take `(n, height, width, 3)` uint8 RGB pixels and scale them inside, so that nothing about pixels can be got wrong
outside. A new rival is one function and one entry in `RIVALS`.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.augmentation import REPORT
from featx.comparison import Epoch
from featx.errors import TrainingError, printable
from featx.fitting import fit, layer_seeds, split
from featx.keras_import import import_keras


@dataclass(frozen=True)
class Rival:
    """A network to train from scratch.

    Attributes:
        name: its key in `RIVALS`.
        image_size: `(height, width)` in pixels, unless the user wants another.
        smallest_side: the fewest pixels that a side may have.
        batch_size: images per step.
        outputs: number of outputs, from the number of classes.
        layers: the layers between pixels in `0..1` and the last one, from Keras, the pixels and a seed per layer.
    """

    name: str
    image_size: tuple[int, int]
    smallest_side: int
    batch_size: int
    outputs: Callable[[int], int]
    layers: Callable[[Any, Any, Iterator[int]], Any]

    def build(self, image_size: tuple[int, int], n_classes: int, seed: int) -> Any:
        """Return the untrained Keras model: `(n, height, width, 3)` uint8 RGB to a sigmoid `(n, 1)` or a softmax."""
        keras = import_keras()
        seeds = layer_seeds(seed)
        pixels = keras.Input((*image_size, 3), dtype="uint8", name="pixels")
        hidden = self.layers(keras, keras.layers.Rescaling(1 / 255)(pixels), seeds)
        width = self.outputs(n_classes)
        output = _dense(keras, width, "sigmoid" if width == 1 else "softmax", seeds, name="probabilities")(hidden)
        return keras.Model(pixels, output, name=self.name)


@dataclass(frozen=True)
class TrainedRival:
    """A rival that has been trained.

    Attributes:
        name: its key in `RIVALS`.
        model: a Keras model from `(n, height, width, 3)` uint8 RGB to a sigmoid `(n, 1)` or a softmax `(n, n_classes)`.
        history: the epochs.
        kept_epoch: the epoch, from 1, whose weights the model has.
        fit_s: seconds of training, without the start of Keras.
    """

    name: str
    model: Any
    history: tuple[Epoch, ...]
    kept_epoch: int
    fit_s: float


def train_rival(
    name: str,
    pixels_train: npt.NDArray[np.uint8],
    y_train: npt.NDArray[np.int64],
    is_validation: npt.NDArray[np.bool_],
    *,
    n_classes: int,
    seed: int,
    epochs: int = 50,
    patience: int = 5,
    show: bool = False,
) -> TrainedRival:
    """Return the rival `name`, trained on the pixels of the training split.

    Args:
        name: a key of `RIVALS`.
        pixels_train: `(n, height, width, 3)` uint8 RGB, an array or a memory map.
        y_train: `(n,)` int64 labels, `0` to `n_classes - 1`.
        is_validation: `(n,)`, the rows that decide when to stop.
        n_classes: number of classes, 2 or more.
        seed: of everything random: initial weights, shuffling, dropout, augmentation.
        epochs: the most passes over the rows.
        patience: epochs without a lower validation loss before training stops.
        show: show progress on stderr.

    Raises:
        TrainingError: there is no such rival, or it cannot be trained on this.
    """
    if name not in RIVALS:
        raise TrainingError(f"A rival is one of {', '.join(RIVALS)}. Received: {printable(name)}")
    rival = RIVALS[name]
    _check_pixels(rival, pixels_train)
    import_keras()  # its start is no part of training
    start_s = time.perf_counter()
    train, validation = split(pixels_train, y_train, is_validation)
    height, width = pixels_train.shape[1:3]
    model = rival.build((height, width), n_classes, seed)
    result = fit(
        model,
        train,
        validation,
        n_classes=n_classes,
        seed=seed,
        epochs=epochs,
        patience=patience,
        batch_size=rival.batch_size,
        show=show,
    )
    return TrainedRival(name, model, result.history, result.kept_epoch, time.perf_counter() - start_s)


def _check_pixels(rival: Rival, pixels: npt.NDArray[Any]) -> None:
    """Raise `TrainingError` for pixels that this rival cannot take."""
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise TrainingError(f"Pixels must be (n, height, width, 3) uint8 RGB. Received: {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[1:3]) < rival.smallest_side:
        raise TrainingError(
            f"{rival.name} halves its images so often that they need {rival.smallest_side} pixels a "
            f"side. Received: {pixels.shape[1]}x{pixels.shape[2]}"
        )


def _report_cnn(keras: Any, pixels: Any, seeds: Iterator[int]) -> Any:
    """Conv 32-32-64, each 3×3 with relu and followed by max-pooling, then Dense 64 and dropout; in colour."""
    hidden = _convolutions(keras, pixels, (32, 32, 64), seeds)
    hidden = _dense(keras, 64, "relu", seeds)(keras.layers.Flatten()(hidden))
    return keras.layers.Dropout(0.5, seed=next(seeds))(hidden)


def _report_cnn_gray(keras: Any, pixels: Any, seeds: Iterator[int]) -> Any:
    """Conv 32-64-128-128-128-256 with max-pooling, then Dense 1000-800-600-400-100-50; in grey, on altered copies.

    While training, every image is flipped, turned by up to 20 degrees, zoomed by up to 20 % and sheared by up to 0.3.
    """
    hidden = keras.ops.image.rgb_to_grayscale(pixels)
    hidden = keras.layers.RandomFlip("horizontal", seed=next(seeds))(hidden)
    hidden = keras.layers.RandomRotation(REPORT.rotation / 360, fill_mode="nearest", seed=next(seeds))(hidden)
    hidden = keras.layers.RandomZoom(REPORT.zoom, fill_mode="nearest", seed=next(seeds))(hidden)
    # The layer draws a sign itself, so that (0, shear) goes both ways; given as one number, it cannot be loaded again.
    shear = (0, math.tan(math.radians(REPORT.shear)))
    hidden = keras.layers.RandomShear(shear, fill_mode="nearest", seed=next(seeds))(hidden)
    hidden = _convolutions(keras, hidden, (32, 64, 128, 128, 128, 256), seeds)
    hidden = keras.layers.Flatten()(hidden)
    for units in (1000, 800, 600, 400, 100, 50):
        hidden = _dense(keras, units, "relu", seeds)(hidden)
    return hidden


def _report_dnn(keras: Any, pixels: Any, seeds: Iterator[int]) -> Any:
    """Dense 128-64, each followed by dropout; no convolution."""
    hidden = keras.layers.Flatten()(pixels)
    for units in (128, 64):
        hidden = _dense(keras, units, "relu", seeds)(hidden)
        hidden = keras.layers.Dropout(0.5, seed=next(seeds))(hidden)
    return hidden


def _convolutions(keras: Any, images: Any, filters: tuple[int, ...], seeds: Iterator[int]) -> Any:
    """Return images after 3×3 convolutions with relu, each followed by 2×2 max-pooling."""
    for count in filters:
        glorot = keras.initializers.GlorotUniform(next(seeds))
        images = keras.layers.Conv2D(count, 3, activation="relu", kernel_initializer=glorot)(images)
        images = keras.layers.MaxPooling2D(2)(images)
    return images


def _dense(keras: Any, units: int, activation: str, seeds: Iterator[int], name: str | None = None) -> Any:
    """Return a dense layer with seeded initial weights."""
    glorot = keras.initializers.GlorotUniform(next(seeds))
    return keras.layers.Dense(units, activation=activation, kernel_initializer=glorot, name=name)


def _sigmoid_for_two(n_classes: int) -> int:
    return 1 if n_classes == 2 else n_classes


def _always_softmax(n_classes: int) -> int:
    return n_classes


#: The rivals by name.
RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("report-cnn", (64, 64), 22, 32, _sigmoid_for_two, _report_cnn),
        Rival("report-cnn-gray", (256, 256), 190, 32, _always_softmax, _report_cnn_gray),
        Rival("report-dnn", (64, 64), 1, 32, _sigmoid_for_two, _report_dnn),
    )
}
