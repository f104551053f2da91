"""From a Keras model to the network that OpenVINO runs: converted once, and kept in the cache."""

import json
import logging
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featx.backbones import Weights, build_model
from featx.dataset import ImageDataset
from featx.engines.openvino_import import import_openvino
from featx.errors import FeatxError, printable
from featx.recipe import DTYPES, Recipe
from featx.storage import StoragePath, check_readable, local_dir, remove_abandoned_files, replacing

log = logging.getLogger("featx")

FORMAT = "featx-network"
FORMAT_VERSION = 1

#: What reading a damaged zip file, or one of another making, ends in.
_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError, TypeError)


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
    try:
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            file.writestr("network.json", json.dumps(about, indent=2))
            file.writestr("network.xml", network.xml)
            file.writestr("network.bin", network.weights)
        remove_abandoned_files(path.parent)
    except OSError as error:
        raise FeatxError(
            f"{printable(path)} cannot be written: {error.strerror or error}. Free some space, or choose another "
            f"--cache-dir, and run it again."
        ) from error


def kept_calibrations(recipe: Recipe, cache_dir: StoragePath) -> list[tuple[str, ...]]:
    """Return the digests of the images that int8 networks in the cache were calibrated on, whose recipe is `recipe` but
    for that.
    """
    wanted = replace(network_recipe(recipe), calibration=None)
    return [tuple(about["calibration"]) for about in _kept(cache_dir) if _without_calibration(about) == wanted]


def _without_calibration(about: dict[str, Any]) -> Recipe | None:
    try:
        return replace(Recipe.from_json(about["recipe"]), calibration=None)
    except FeatxError:
        return None


def _kept(cache_dir: StoragePath) -> Iterator[dict[str, Any]]:
    """Yield what is said of each network in the cache; a damaged one is found when it is used."""
    for path in sorted((local_dir(cache_dir) / "networks").glob("*.zip")):
        try:
            with zipfile.ZipFile(path) as file:
                yield _about(file)
        except (OSError, *_DAMAGE):
            continue


def _about(file: zipfile.ZipFile) -> dict[str, Any]:
    if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
        raise ValueError("it is compressed, which featx never does: it may unpack to any size")
    about: dict[str, Any] = json.loads(file.read("network.json"))
    if about["format"] != FORMAT or about["format_version"] > FORMAT_VERSION:
        raise ValueError("it has an unknown format")
    return about


def serialized(model: Any) -> tuple[bytes, bytes]:
    """Return an `openvino.Model` in OpenVINO's own format: its structure, and its constants in full precision."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory(prefix="featx-network-") as folder:
        xml_path = Path(folder, "network.xml")
        openvino.save_model(model, xml_path, compress_to_fp16=False)
        return xml_path.read_bytes(), xml_path.with_suffix(".bin").read_bytes()


def is_converted(recipe: Recipe, cache_dir: StoragePath) -> bool:
    """Return whether the network of `recipe` is in the cache, so that Keras need not be started to run it."""
    return network_path(recipe, cache_dir).is_file()


def load_network(
    recipe: Recipe, weights: Weights, cache_dir: StoragePath, dataset: ImageDataset | None, *, show: bool = False
) -> Any:
    """Return the `openvino.Model` of a recipe: from the cache, or converted now and kept there.

    It takes `(n, height, width, 3)` uint8 RGB and gives `(n, …)` float32, for any n.

    Args:
        recipe: what to run.
        weights: the weights that the recipe names.
        cache_dir: where converted networks lie.
        dataset: has the images that an int8 network is calibrated on; None if there are none to calibrate on.
        show: show progress on stderr.

    Raises:
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network.
        FeatxError: the network is not in the cache and cannot be made or kept there.
    """
    network = read_network(recipe, cache_dir)
    if network is not None:
        try:
            return _openvino_model(network)
        except RuntimeError as error:  # OpenVINO raises nothing else
            say_damaged(recipe, cache_dir, " ".join(str(error).split()))
    if recipe.precision == "int8":
        from featx.engines.quantization import quantize  # NNCF is needed by few

        floats = replace(recipe, precision="float32", calibration=None)
        floating = load_network(floats, weights, cache_dir, dataset, show=show)
        network = quantize(floating, recipe, dataset, cache_dir, show=show)
    else:
        network = _converted(recipe, weights, show=show)
    write_network(network, recipe, cache_dir)
    return _openvino_model(network)


def _openvino_model(network: Network) -> Any:
    model = import_openvino().Core().read_model(network.xml, network.weights)
    if len(model.outputs) != 1:
        raise RuntimeError("it has several outputs")
    return model


def _converted(recipe: Recipe, weights: Weights, *, show: bool) -> Network:
    """Have Keras convert the model of `recipe`, on whatever backend it runs."""
    import_openvino()  # first, without its telemetry: Keras would import it, too
    if show:
        log.info("Converting %s for OpenVINO, once for all.", recipe.backbone)
    model = build_model(network_recipe(recipe), weights.path)
    with tempfile.TemporaryDirectory(prefix="featx-network-") as folder, _untouched_logging():
        xml_path = Path(folder, "network.xml")
        model.export(str(xml_path), format="openvino", verbose=False)
        return Network(*serialized(_with_one_output(import_openvino().Core().read_model(xml_path))))


def _with_one_output(model: Any) -> Any:
    """Return an `openvino.Model` that gives features and nothing else.

    Where TensorFlow has a gradient of its own for an activation, as for EfficientNet's swish, every use of it becomes
    another output. The features are the first.
    """
    return import_openvino().Model([model.outputs[0]], model.get_parameters())


@contextmanager
def _untouched_logging() -> Iterator[None]:
    """Give the root logger back as it was: OpenVINO's converter makes it mute, and adds a handler of its own."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
