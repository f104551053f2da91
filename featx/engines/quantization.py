"""An int8 network from a float one: post-training quantization by NNCF, its ranges set by images of the train split.

The recipe says which images, so they are always the same. Whether the int8 network gives the features of the float one
is checked on these images, too.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from featx.dataset import ImageDataset, read_batches
from featx.engines.fallback import (
    can_find_images,
    rounds_activations,
    widen_ranges,
    with_alarm,
    with_levels,
    without_alarm,
)
from featx.engines.networks import calibration_digest, kept_calibrations, network_path
from featx.engines.saturation import without_saturation
from featx.errors import FeatxError
from featx.recipe import OLD_FALLBACK, Recipe
from featx.storage import StoragePath
from featx.store import KeptPixels
from featx.system import import_nncf, import_openvino, kept_signal_stack, progress_bar
from featx.text import printable

log = logging.getLogger("featx")

#: Images that an int8 network is calibrated on. More change the ranges little, and the time to calibrate grows.
N_CALIBRATION = 200

#: A kept calibration goes on being used while so many of its images are still in the train split.
SHARE_STILL_THERE = 0.5

#: Images whose largest feature is more than this many times that of the median image say nothing about the others.
OUTLIER_FACTOR = 2.0

#: The least cosine that the int8 features of a calibration image may have with its float32 features. It is stricter
#: than the 0.98 that any image is to have: of many more images, the lowest cosine is lower.
LEAST_COSINE = 0.985

#: Bytes of float32 features that are held for the check; of large ones, fewer images are checked.
_CHECKED_BYTES = 256 << 20

_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}

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


def check_can_quantize(recipe: Recipe, cache_dir: StoragePath) -> None:
    """Raise FeatxError if only older versions of featx make the int8 network of `recipe`, or NNCF is not installed."""
    if recipe.fallback == OLD_FALLBACK:
        raise FeatxError(
            f"The int8 network of these features is not in the cache, and only older versions of featx make such a "
            f"network. Copy {printable(network_path(recipe, cache_dir))} from the cache where the features were "
            f"computed, or run featx extract on the images, which computes them again."
        )
    import_nncf()


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
    with progress_bar(3 * len(rows), f"int8 {recipe.backbone}", "images", show=show) as bar:
        images = _decode(dataset, rows, recipe, cache_dir)
        with kept_signal_stack():
            is_ordinary, features = _examined(network, images, bar)
            quantized = _quantized(network, images[is_ordinary], bar)
            if recipe.fallback:
                widen_ranges(quantized)
                checked = slice(len(features))
                alarmed = _checked(quantized, images[checked], features, is_ordinary[checked], recipe, bar)
                quantized = without_alarm(network) if alarmed is None else alarmed
    return quantized, digests


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


def _decode(dataset: ImageDataset, rows: np.ndarray, recipe: Recipe, cache_dir: StoragePath) -> np.ndarray:
    """Return the pixels `(n, height, width, 3)` uint8 of the images `rows`, of which some may be kept in the cache.

    What cannot be read is left out.
    """
    paths = [dataset.root / dataset.paths[row] for row in rows]
    kept = KeptPixels.of(recipe, cache_dir).reader(dataset.n_images)
    batches = read_batches(
        paths, dataset.digests[rows], recipe.image_size, _BATCH_SIZE, aspect_ratio=recipe.aspect_ratio, kept=kept
    )
    images = np.concatenate([batch.images for batch in batches])
    if not len(images):
        raise FeatxError("None of the images for the int8 calibration can be read; choose another --precision.")
    return images


def _examined(network: Any, images: np.ndarray, bar: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are ordinary, `(n,)` bool, and the float32 features of the first ones, `(k, n_features)`.

    Ordinary is an image whose largest feature is no more than `OUTLIER_FACTOR` times that of the median image.
    """
    compiled = import_openvino().Core().compile_model(network, "CPU", _FLOAT32)
    largest = np.empty(len(images))
    features: list[np.ndarray] = []
    for row in range(len(images)):
        computed = compiled(images[row : row + 1])[0].ravel()
        largest[row] = np.abs(computed).max()
        if (len(features) + 1) * computed.nbytes <= _CHECKED_BYTES or not features:
            features.append(computed.copy())
        bar.update()
    return largest <= OUTLIER_FACTOR * np.median(largest), np.array(features)


def _checked(
    network: Any, images: np.ndarray, features: np.ndarray, is_ordinary: np.ndarray, recipe: Recipe, bar: Any
) -> Any:
    """Return an int8 network with an alarm for images that it does not fit.

    None, and this is said, if it does not even fit the ordinary ones of its calibration images.

    Args:
        network: an int8 `openvino.Model`.
        images: that it was calibrated on, `(n, height, width, 3)` uint8.
        features: their features in float32, `(n, n_features)`.
        is_ordinary: whether an image was among those that set the ranges, `(n,)` bool.
        recipe: of the features.
        bar: shows how many images are done.
    """
    if not rounds_activations(network):  # as one that ends before its first convolution
        return without_alarm(network)
    if not can_find_images(network):
        log.warning(
            "featx cannot tell which images int8 does not fit with %s. So it computes all of them in float32: "
            "--precision auto may be faster.",
            printable(recipe.backbone),
        )
        return None
    compiled = import_openvino().Core().compile_model(without_saturation(with_levels(network)), "CPU", _FLOAT32)
    cosines, levels = np.empty(len(images)), []
    for row in range(len(images)):
        outputs = compiled(images[row : row + 1])
        cosines[row] = _cosine(outputs[0].ravel(), features[row])
        levels.append(outputs[1][0].copy())
        bar.update()
    bar.update(bar.total - bar.n)
    least = cosines[is_ordinary if is_ordinary.any() else slice(None)].min()
    if least < LEAST_COSINE:
        log.warning(
            "int8 changes the features of %s too much: one of its calibration images has a cosine of %.3f with its "
            "float32 features. So featx computes it in float32: --precision auto may be faster.",
            printable(recipe.backbone),
            least,
        )
        return None
    return with_alarm(network, np.array(levels)[cosines >= min(LEAST_COSINE, np.median(cosines))])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two vectors; 1 if both are 0, as the features of a black image may be."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


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
