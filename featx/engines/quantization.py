"""An int8 network from a float one: post-training quantization by NNCF, its ranges set by images of the train split.

The recipe says which images, so they are always the same.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from featx.dataset import ImageDataset, read_batches
from featx.engines.networks import calibration_digest, kept_calibrations, network_path
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import import_nncf, import_openvino, kept_signal_stack, progress_bar
from featx.text import printable

log = logging.getLogger("featx")

#: Images that an int8 network is calibrated on. More change the ranges little, and the time to calibrate grows.
N_CALIBRATION = 200

#: A kept calibration goes on being used while so many of its images are still in the train split.
SHARE_STILL_THERE = 0.5

#: Images whose largest feature is more than this many times that of the median image say nothing about the others.
OUTLIER_FACTOR = 2.0

#: Images per request while calibrating.
_BATCH_SIZE = 4


def choose_calibration(dataset: ImageDataset) -> tuple[str, ...]:
    """Return the digests, in hexadecimal, of the images to calibrate on: those with the smallest, so a random sample.

    They are of the train split, each content once, at most `N_CALIBRATION`; the same in whatever order the images come.
    """
    return tuple(sorted(_train_digests(dataset))[:N_CALIBRATION])


def best_calibration(kept: list[tuple[str, ...]], dataset: ImageDataset) -> tuple[str, ...]:
    """Return the calibration of `kept` that fits `dataset` best; a new one if none does.

    A few images more or less must not change the recipe: then all features would have to be computed again.
    """
    train = _train_digests(dataset)

    def share(digests: tuple[str, ...]) -> float:
        return len(train.intersection(digests)) / max(1, len(digests))

    best = max(sorted(kept), key=share, default=())
    return best if share(best) >= SHARE_STILL_THERE else choose_calibration(dataset)


def calibration_rows(digests: tuple[str, ...], dataset: ImageDataset) -> np.ndarray:
    """Return `(n,)` int64: the rows of `dataset` with these images, in the order of `digests`; without what is gone."""
    row_of = {digest.tobytes().hex(): row for row, digest in enumerate(dataset.digests)}
    return np.array([row_of[digest] for digest in digests if digest in row_of], np.int64)


def _train_digests(dataset: ImageDataset) -> set[str]:
    return {digest.tobytes().hex() for digest in dataset.digests[~dataset.is_test]}


def quantize(
    network: Any, recipe: Recipe, dataset: ImageDataset | None, cache_dir: StoragePath, *, show: bool
) -> tuple[Any, tuple[str, ...]]:
    """Return the int8 network of `recipe`, an `openvino.Model`, and the digests of the images it is calibrated on.

    Args:
        network: the float network, an `openvino.Model`.
        recipe: has precision int8 and says which images to calibrate on.
        dataset: has these images.
        cache_dir: may remember which these are.
        show: show progress on stderr.

    Raises:
        FeatxError: the images are not there, or none of them can be read.
    """
    digests, rows = _find_images(recipe, dataset, cache_dir)
    assert dataset is not None  # _find_images has seen to it
    if show:
        log.info("Calibrating %s for int8 on %d training images; this is needed only once.", recipe.backbone, len(rows))
    with progress_bar(2 * len(rows), f"int8 {recipe.backbone}", "images", show=show) as bar:
        images = _decode(dataset, rows, recipe)
        with kept_signal_stack():
            ordinary = images[_is_ordinary(network, images, bar)]
            return _quantized(network, ordinary, bar), digests


def _find_images(
    recipe: Recipe, dataset: ImageDataset | None, cache_dir: StoragePath
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return digests and rows of the images that `recipe` was made for."""
    if dataset is not None:
        for digests in (*kept_calibrations(recipe, cache_dir), choose_calibration(dataset)):
            rows = calibration_rows(digests, dataset)
            if calibration_digest(digests) == recipe.calibration and len(rows) == len(digests):
                return digests, rows
    raise FeatxError(
        f"The int8 network of these features is not in the cache, and featx cannot create it again without its "
        f"calibration images. Copy {printable(network_path(recipe, cache_dir))} from the cache where the features were "
        f"computed, or run featx extract on the images with the same options as before."
    )


def _decode(dataset: ImageDataset, rows: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the pixels `(n, height, width, 3)` uint8 of the images `rows`; what cannot be read is left out."""
    paths = [dataset.root / dataset.paths[row] for row in rows]
    batches = read_batches(
        paths, dataset.digests[rows], recipe.image_size, _BATCH_SIZE, aspect_ratio=recipe.aspect_ratio
    )
    images = np.concatenate([batch.images for batch in batches])
    if not len(images):
        raise FeatxError("None of the images for the int8 calibration can be read; choose another --precision.")
    return images


def _is_ordinary(network: Any, images: np.ndarray, bar: Any) -> np.ndarray:
    """Return `(n,)` bool: whose largest feature is no more than `OUTLIER_FACTOR` times that of the median image."""
    compiled = import_openvino().Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    largest = np.empty(len(images))
    for row in range(len(images)):
        largest[row] = np.abs(compiled(images[row : row + 1])[0]).max()
        bar.update()
    is_ordinary: np.ndarray = largest <= OUTLIER_FACTOR * np.median(largest)
    return is_ordinary


def _quantized(network: Any, images: np.ndarray, bar: Any) -> Any:
    nncf = import_nncf()
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would set others' handlers, too

    def samples() -> Iterator[np.ndarray]:
        for row in range(len(images)):
            yield images[row : row + 1]
            bar.update(bar.n < bar.total)

    minmax = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws bars of its own there
        return nncf.quantize(
            network,
            nncf.Dataset(_Samples(samples)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=minmax, disable_bias_correction=True
            ),
        )


class _Samples:
    """Lets NNCF go through the images as often as it likes."""

    def __init__(self, iterate: Callable[[], Iterator[np.ndarray]]) -> None:
        self._iterate = iterate

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._iterate()
