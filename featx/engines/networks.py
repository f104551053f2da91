"""The networks that OpenVINO runs: files in the cache, checked when they are read; and how an int8 one is made.

An int8 network is calibrated: images of the train split set the ranges of its layers. Which ones is in the recipe.
"""

import contextlib
import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset import ImageDataset, read_batches
from featx.errors import FeatxError, printable, system_errors
from featx.recipe import DTYPES, Recipe
from featx.storage import StoragePath, check_readable, local_dir, remove_abandoned_files, replacing
from featx.system import import_nncf, import_openvino, kept_signal_stack, progress_bar

log = logging.getLogger("featx")

FORMAT = "featx-network"
FORMAT_VERSION = 1

#: What reading a damaged zip file, or one of another making, ends in.
_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError, TypeError)

#: Images that an int8 network is calibrated on. More change the ranges little, and the time to calibrate grows.
N_CALIBRATION = 200

#: A kept calibration goes on being used while so many of its images are still in the train split.
SHARE_STILL_THERE = 0.5

#: Images whose largest feature is more than this many times that of the median image say nothing about the others.
OUTLIER_FACTOR = 2.0

#: Images per request while calibrating.
_BATCH_SIZE = 4


@dataclass(frozen=True)
class Network:
    """A converted network.

    Attributes:
        xml: its structure, in OpenVINO's format.
        weights: its constants, in OpenVINO's format.
        calibration: digests, in hexadecimal, of the images that an int8 network was calibrated on; else empty.
    """

    xml: bytes
    weights: bytes
    calibration: tuple[str, ...] = ()


def network_recipe(recipe: Recipe) -> Recipe:
    """Return what of `recipe` decides the network: not how features are stored, or of which views they are.

    bfloat16 runs the float32 network.
    """
    precision = "int8" if recipe.precision == "int8" else "float32"
    return replace(recipe.of_images, precision=precision, dtype=DTYPES[0])


def network_path(recipe: Recipe, cache_dir: StoragePath) -> Path:
    """Return where the network of `recipe` is kept: on this machine, also if the cache is elsewhere."""
    return local_dir(cache_dir) / "networks" / f"{network_recipe(recipe).slug}.zip"


def is_converted(recipe: Recipe, cache_dir: StoragePath) -> bool:
    """Return whether the network of `recipe` is in the cache, so that Keras need not be started to run it."""
    return network_path(recipe, cache_dir).is_file()


def read_network(recipe: Recipe, cache_dir: StoragePath) -> Network | None:
    """Return the network that is kept for `recipe`; None if there is none, or a damaged one, which is said.

    Raises:
        FeatxError: the file cannot be read.
    """
    path = network_path(recipe, cache_dir)
    try:
        with zipfile.ZipFile(path) as file:
            about = _about(file)
            if about["recipe"] != network_recipe(recipe).to_json():
                raise ValueError("it belongs to another recipe")
            return Network(file.read("network.xml"), file.read("network.bin"), tuple(about["calibration"]))
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        check_readable(path)
        say_damaged(recipe, cache_dir, str(error))
        return None
    except OSError as error:
        raise FeatxError(f"{printable(path)} cannot be read: {error.strerror or error}.") from error


def check_network(path: Path) -> str | None:
    """Return what is wrong with the network kept at `path`, in a few words; None if all of it is sound.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if network_path(Recipe.from_json(_about(file)["recipe"]), path.parent).name != path.name:
                return "it belongs to another recipe"
            if damaged := file.testzip():
                return f"{damaged} does not match its checksum"
    except (*_DAMAGE, FeatxError) as error:
        check_readable(path)
        return " ".join(str(error).split())
    return None


def say_damaged(recipe: Recipe, cache_dir: StoragePath, reason: str) -> None:
    """Warn that the network kept for `recipe` is of no use."""
    path = network_path(recipe, cache_dir)
    log.warning("%s is damaged (%s); it is made again.", printable(path), printable(reason[:200]))


def write_network(network: Network, recipe: Recipe, cache_dir: StoragePath) -> None:
    """Keep `network` for `recipe`, whole or not at all.

    Raises:
        FeatxError: the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recipe": network_recipe(recipe).to_json(),
        "calibration": network.calibration,
    }
    path = network_path(recipe, cache_dir)
    advice = " Free some space, or choose another --cache-dir, and run it again."
    with system_errors(printable(path), "written", advice):
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            file.writestr("network.json", json.dumps(about, indent=2))
            file.writestr("network.xml", network.xml)
            file.writestr("network.bin", network.weights)
        remove_abandoned_files(path.parent)


def kept_calibrations(recipe: Recipe, cache_dir: StoragePath) -> list[tuple[str, ...]]:
    """Return the digests of the images that int8 networks in the cache were calibrated on, if all but that is as in
    `recipe`. A damaged network is found when it is used.
    """
    wanted = replace(network_recipe(recipe), calibration=None)
    found = []
    for path in sorted((local_dir(cache_dir) / "networks").glob("*.zip")):
        with suppress(OSError, FeatxError, *_DAMAGE), zipfile.ZipFile(path) as file:
            about = _about(file)
            if replace(Recipe.from_json(about["recipe"]), calibration=None) == wanted:
                found.append(tuple(about["calibration"]))
    return found


def _about(file: zipfile.ZipFile) -> dict[str, Any]:
    if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
        raise ValueError("it is compressed, which featx never does: it may unpack to any size")
    about: dict[str, Any] = json.loads(file.read("network.json"))
    if about["format"] != FORMAT or about["format_version"] > FORMAT_VERSION:
        raise ValueError("it has an unknown format")
    return about


def choose_calibration(dataset: ImageDataset) -> tuple[str, ...]:
    """Return the digests, in hexadecimal, of the images to calibrate on: those with the smallest, so a random sample.

    They are of the train split, each content once, at most `N_CALIBRATION`; the same in whatever order the images come.
    """
    return tuple(sorted(_train_digests(dataset))[:N_CALIBRATION])


def calibration_digest(digests: tuple[str, ...]) -> str:
    """Return what stands for these images in a recipe: SHA-256, in hexadecimal, of their sorted digests."""
    return hashlib.sha256("".join(sorted(digests)).encode("ascii")).hexdigest()


def best_calibration(kept: list[tuple[str, ...]], dataset: ImageDataset) -> tuple[str, ...]:
    """Return the calibration of `kept` that fits `dataset` best; a new one if none does.

    A few images more or less must not mean another recipe, for then all features would have to be computed again.
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
        log.info("Calibrating %s for int8 on %d training images, once for all.", recipe.backbone, len(rows))
    with progress_bar(2 * len(rows), f"int8 {recipe.backbone}", "images", show=show) as bar:
        images = _decode(dataset, rows, recipe.image_size)
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
        f"The int8 network of these features is not in the cache, and the images that it was calibrated on are not at "
        f"hand to make it again. Copy {printable(network_path(recipe, cache_dir))} from the cache that they were made "
        f"in, or run featx extract on the images with the same options as then."
    )


def _decode(dataset: ImageDataset, rows: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the pixels `(n, height, width, 3)` uint8 of the images `rows`; what cannot be read is left out."""
    paths = [dataset.root / dataset.paths[row] for row in rows]
    batches = read_batches(paths, dataset.digests[rows], image_size, _BATCH_SIZE)
    images = np.concatenate([batch.images for batch in batches])
    if not len(images):
        raise FeatxError("Not one of the images to calibrate int8 on can be read; choose another --precision.")
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
