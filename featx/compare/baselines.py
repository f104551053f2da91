"""The baselines: networks trained from the pixels of a data set and measured on its test split.

`report-resnet50`, the report's other experiment, is a head on features. Its recipe and its views are defined here.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset import DimImage, ImageDataset, dim_sentence, images_of, read_batches
from featx.errors import ImageError
from featx.extract import RecipeOptions
from featx.heads import (
    Targets,
    Trained,
    Training,
    fit,
    layer_seeds,
    output_layer,
    predict_proba,
    split,
    weigh_classes,
    weights_text,
)
from featx.images import REPORT, Views
from featx.storage import StoragePath, scratch_array
from featx.store import KeptPixels
from featx.system import import_keras, progress_bar, reset_peak_memory
from featx.text import printable
from featx.train import Result, validation_part

log = logging.getLogger("featx")

#: The baseline that is a head on features: its name, backbone and head (see `featx.heads.dense`), and the views of each
#: training image, unless the user wants another number.
REPORT_RESNET50, REPORT_BACKBONE, REPORT_HEAD, REPORT_N_VIEWS = "report-resnet50", "resnet50", "softmax", 4

#: What a detail is called that says for how many images, and views, pixels were kept from before.
KEPT_PIXELS = "images_not_decoded"

#: Images decoded at a time.
_PORTION = 256


def report_resnet50_options(options: RecipeOptions) -> RecipeOptions:
    """Return the experiment's recipe options; `options` sets what it leaves open: weights, precision, dtype."""
    return {**options, "backbone": REPORT_BACKBONE, "image_size": (256, 256), "pooling": "avg", "layer": None}


def report_resnet50_views(views: Views | None) -> Views:
    """Return the experiment's views: the report's augmentation, and the number of `views` if given."""
    return replace(views, augmentation=REPORT, of_test=False) if views else Views(REPORT_N_VIEWS)


@dataclass(frozen=True)
class Baseline:
    """A network to train from scratch.

    Attributes:
        name: its key in `BASELINES`.
        image_size: `(height, width)` in pixels.
        batch_size: images per step.
        always_softmax: whether it has an output for each class, even if there are two.
        layers: the layers between pixels in `0..1` and the last one, from Keras, the pixels and a seed per layer.
    """

    name: str
    image_size: tuple[int, int]
    batch_size: int
    always_softmax: bool
    layers: Callable[[Any, Any, Iterator[int]], Any]

    def build(self, image_size: tuple[int, int], n_classes: int, seed: int, *, is_multilabel: bool = False) -> Any:
        """Return the untrained Keras model: `(n, height, width, 3)` uint8 RGB to what `output_layer` makes."""
        keras = import_keras()
        seeds = layer_seeds(seed)
        pixels = keras.Input((*image_size, 3), dtype="uint8", name="pixels")
        hidden = self.layers(keras, keras.layers.Rescaling(1 / 255)(pixels), seeds)
        output = output_layer(
            *(keras, n_classes, next(seeds)), always_softmax=self.always_softmax, is_multilabel=is_multilabel
        )
        return keras.Model(pixels, output(hidden), name=self.name)

    def train(
        self,
        pixels: npt.NDArray[np.uint8],
        y: Targets,
        is_validation: npt.NDArray[np.bool_],
        training: Training,
        *,
        n_classes: int,
        class_weights: npt.NDArray[np.float64] | None = None,
    ) -> Trained:
        """Return the network, trained on the pixels of the training split.

        Args:
            pixels: `(n, height, width, 3)` uint8 RGB, an array or a memory map.
            y: `(n,)` int64 labels, `0` to `n_classes - 1`; or `(n, n_classes)` bool, which labels each image has.
            is_validation: `(n,)`, the rows that decide when to stop.
            training: how; the batch size is the baseline's own.
            n_classes: number of classes, 2 or more.
            class_weights: `(n_classes,)`, how much an image of each class counts; None if all count the same.

        Raises:
            TrainingError: it cannot be trained on this data.
        """
        train, validation = split(pixels, y, is_validation, class_weights=class_weights)
        model = self.build(pixels.shape[1:3], n_classes, training.seed, is_multilabel=y.ndim == 2)
        trained = fit(model, train, validation, training, n_classes=n_classes, batch_size=self.batch_size)
        noted = {} if class_weights is None else {"class_weights": weights_text(class_weights)}
        return replace(trained, details={**trained.details, **noted})


def train_on_pixels(
    dataset: ImageDataset,
    name: str,
    training: Training,
    cache_dir: StoragePath,
    workers: int | None = None,
    aspect_ratio: str | None = None,
) -> Result:
    """Return the baseline called `name`, trained on the training split and measured on the test split.

    Images are decoded once, into a temporary file in `cache_dir`; that time is part of the training.
    `aspect_ratio` is as for `featx.images.decode_image`.

    Raises:
        ImageError: an image has changed or disappeared since the data set was scanned.
    """
    baseline, is_test = BASELINES[name], dataset.is_test
    import_keras()  # its start is no part of training
    reset_peak_memory()
    dim: list[DimImage] = []
    kept: list[int] = []
    decoded = partial(
        _decoded,
        image_size=baseline.image_size,
        aspect_ratio=aspect_ratio,
        cache_dir=cache_dir,
        workers=workers,
        dim=dim,
        kept=kept,
        show=training.show,
    )
    started = time.perf_counter()
    with decoded(dataset.subset(~is_test)) as pixels:
        y, is_validation = dataset.labels[~is_test], validation_part(dataset, training.seed)
        weights = weigh_classes(training.class_weights, y, dataset.class_names)
        n_classes = len(dataset.class_names)
        trained = baseline.train(pixels, y, is_validation, training, n_classes=n_classes, class_weights=weights)
    noted = {KEPT_PIXELS: sum(kept)} if sum(kept) else {}
    trained = replace(trained, fit_s=time.perf_counter() - started, details={**trained.details, **noted})
    with decoded(dataset.subset(is_test)) as pixels:
        if dim:
            log.warning("%s", dim_sentence(dim))
        return Result.of(trained, predict_proba(trained.model, pixels), dataset.labels[is_test])


def _report_cnn(keras: Any, pixels: Any, seeds: Iterator[int]) -> Any:
    """Conv 32-32-64, each 3×3 with relu and followed by max-pooling, then Dense 64 and dropout; in colour."""
    hidden = _convolutions(keras, pixels, (32, 32, 64), seeds)
    hidden = _dense(keras, 64, seeds)(keras.layers.Flatten()(hidden))
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
        hidden = _dense(keras, units, seeds)(hidden)
    return hidden


def _report_dnn(keras: Any, pixels: Any, seeds: Iterator[int]) -> Any:
    """Dense 128-64, each followed by dropout; no convolution."""
    hidden = keras.layers.Flatten()(pixels)
    for units in (128, 64):
        hidden = _dense(keras, units, seeds)(hidden)
        hidden = keras.layers.Dropout(0.5, seed=next(seeds))(hidden)
    return hidden


def _convolutions(keras: Any, images: Any, filters: tuple[int, ...], seeds: Iterator[int]) -> Any:
    """Return images after 3×3 convolutions with relu, each followed by 2×2 max-pooling."""
    for count in filters:
        glorot = keras.initializers.GlorotUniform(next(seeds))
        images = keras.layers.Conv2D(count, 3, activation="relu", kernel_initializer=glorot)(images)
        images = keras.layers.MaxPooling2D(2)(images)
    return images


def _dense(keras: Any, units: int, seeds: Iterator[int]) -> Any:
    """Return a dense layer with relu and seeded initial weights."""
    glorot = keras.initializers.GlorotUniform(next(seeds))
    return keras.layers.Dense(units, activation="relu", kernel_initializer=glorot)


#: The baselines by name.
BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline("report-cnn", (64, 64), 32, always_softmax=False, layers=_report_cnn),
        Baseline("report-cnn-gray", (256, 256), 32, always_softmax=True, layers=_report_cnn_gray),
        Baseline("report-dnn", (64, 64), 32, always_softmax=False, layers=_report_dnn),
    )
}

#: All that may be asked for: what is trained from pixels, and the report's other experiment.
BASELINE_NAMES = (*BASELINES, REPORT_RESNET50)


@contextmanager
def _decoded(
    dataset: ImageDataset,
    *,
    image_size: tuple[int, int],
    aspect_ratio: str | None,
    cache_dir: StoragePath,
    workers: int | None,
    dim: list[DimImage],
    kept: list[int],
    show: bool,
) -> Iterator[np.ndarray]:
    """Yield the pixels `(n, height, width, 3)` uint8 of a data set; on disk, so that they need not fit in memory.

    Images that come out nearly black are added to `dim`, and how many were not decoded to `kept`.
    """
    paths = [dataset.root / path for path in dataset.paths]
    shape = (len(paths), *image_size, 3)
    with scratch_array(cache_dir, shape, np.uint8, "Training from scratch", "decoded images") as pixels:
        known = KeptPixels(cache_dir, image_size, aspect_ratio).reader(len(paths))
        batches = read_batches(
            paths,
            dataset.digests,
            image_size,
            _PORTION,
            workers,
            aspect_ratio=aspect_ratio,
            kept=known,
        )
        with closing(batches), progress_bar(len(paths), "decode", "images", show=show) as bar:
            for batch in batches:
                for image in batch.unreadable:
                    raise ImageError(f"{printable(paths[image.row])} cannot be read any more: {image.reason}.")
                pixels[batch.rows] = batch.images
                kept.append(batch.n_kept)
                dim += [DimImage.of(images_of(dataset), noted) for noted in batch.dim]
                bar.update(len(batch.rows))
        yield pixels
