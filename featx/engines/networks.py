"""The networks that OpenVINO runs, as files in the cache: converted once, checked when they are read."""

import json
import logging
import shutil
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, printable, system_errors
from featx.recipe import DTYPES, Recipe
from featx.storage import StoragePath, check_readable, local_dir, replacing, sweep

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
    log.warning("%s is damaged (%s); featx makes it again.", printable(path), printable(reason[:200]))


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
        sweep(path.parent)


def pack_network(recipe: Recipe, cache_dir: StoragePath, run_dir: Path) -> None:
    """Copy the int8 network of `recipe` to a run folder, if the cache has it: the run then predicts on any machine.

    Other networks can be made again from the weights alone.

    Raises:
        OSError: it cannot be copied.
    """
    if recipe.precision == "int8" and is_converted(recipe, cache_dir):
        path = network_path(recipe, cache_dir)
        shutil.copyfile(path, run_dir / path.name)


def unpack_network(recipe: Recipe, run_dir: Path, cache_dir: StoragePath) -> None:
    """Copy what `pack_network` put into a run folder to the cache, unless a network is there; a damaged one is said.

    Raises:
        FeatxError: it cannot be read or written.
    """
    path = network_path(recipe, cache_dir)
    packed = run_dir / path.name
    if recipe.precision != "int8" or path.exists() or not packed.is_file():
        return
    with system_errors(printable(packed), f"copied to {printable(path)}"):
        if reason := check_network(packed):
            log.warning("%s is damaged (%s) and is not used.", printable(packed), printable(reason))
            return
        with replacing(path) as temporary:
            shutil.copyfile(packed, temporary)


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
