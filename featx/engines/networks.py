"""The networks that OpenVINO runs, as files in the cache: converted once, and checked on every read."""

import hashlib
import json
import logging
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, system_errors
from featx.recipe import DTYPES, Recipe
from featx.storage import (
    TEMPORARY_PREFIX,
    OddFileError,
    StoragePath,
    check_readable,
    check_regular,
    local_dir,
    replacing,
    sweep,
)
from featx.text import printable

log = logging.getLogger("featx")

FORMAT = "featx-network"
FORMAT_VERSION = 1

#: What reading a damaged zip file, or one of another making, ends in.
_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError, TypeError)


#: What is in the file of an int8 network, besides the network itself.
_FALLBACK_NAMES = ("fallback.xml", "fallback.bin")

#: Larger than any network, and than what one says of itself.
_NETWORK_BYTES, _ABOUT_BYTES = 8 << 30, 64 << 20


@dataclass(frozen=True)
class Network:
    """A converted network.

    Attributes:
        xml: its structure, in OpenVINO's format.
        weights: its constants, in OpenVINO's format.
        calibration: digests, in hexadecimal, of the images that an int8 network was calibrated on; else empty.
        fallback: structure and constants of the float32 network, for the images that an int8 network does not fit; else
            empty. `read_network` leaves it out, since it is large and seldom needed: see `read_fallback`.
    """

    xml: bytes
    weights: bytes
    calibration: tuple[str, ...] = ()
    fallback: tuple[bytes, bytes] | tuple[()] = ()


def calibration_digest(digests: tuple[str, ...]) -> str:
    """Return what stands for these images in a recipe: SHA-256, in hexadecimal, of their sorted digests."""
    return hashlib.sha256("".join(sorted(digests)).encode("ascii")).hexdigest()


def network_recipe(recipe: Recipe) -> Recipe:
    """Return the part of `recipe` that decides the network: not how features are stored, nor their views.

    bfloat16 runs the float32 network, and images of all aspect ratios go through the same one. An int8 network is
    calibrated on images as the recipe has them.
    """
    if recipe.precision == "int8":
        return replace(recipe.of_images, dtype=DTYPES[0])
    return replace(recipe.of_images, precision="float32", dtype=DTYPES[0], aspect_ratio=None)


def network_path(recipe: Recipe, cache_dir: StoragePath) -> Path:
    """Return the path of the network of `recipe`: on this machine, even if the cache is elsewhere."""
    return local_dir(cache_dir) / "networks" / f"{network_recipe(recipe).slug}.zip"


def is_converted(recipe: Recipe, cache_dir: StoragePath) -> bool:
    """Return whether the network of `recipe` is in the cache, so that it runs without Keras."""
    return network_path(recipe, cache_dir).is_file()


def read_network(recipe: Recipe, cache_dir: StoragePath) -> Network | None:
    """Return the cached network of `recipe`; None if there is none, or, with a warning, if it is damaged.

    Raises:
        FeatxError: the file cannot be read.
    """
    path = network_path(recipe, cache_dir)
    try:
        with _opened(path) as file:
            about = _about(file)
            if about["recipe"] != network_recipe(recipe).to_json():
                raise ValueError("it belongs to another recipe")
            _check_calibration(about, recipe)
            return Network(file.read("network.xml"), file.read("network.bin"), tuple(about["calibration"]))
    except FileNotFoundError:
        return None
    except OddFileError as error:
        say_damaged(recipe, cache_dir, str(error.strerror))
        return None
    except _DAMAGE as error:
        check_readable(path)
        say_damaged(recipe, cache_dir, str(error))
        return None
    except OSError as error:
        raise FeatxError(f"{printable(path)} cannot be read: {error.strerror or error}.") from error


def read_fallback(recipe: Recipe, cache_dir: StoragePath) -> Network:
    """Return the float32 network in the file of the int8 network of `recipe`.

    Raises:
        FeatxError: it cannot be read.
    """
    path = network_path(recipe, cache_dir)
    try:
        with _opened(path) as file:
            xml, weights = map(file.read, _FALLBACK_NAMES)
            return Network(xml, weights)
    except (OSError, *_DAMAGE) as error:
        raise FeatxError(
            f"The float32 network in {printable(path)} cannot be read ({printable(str(error))}). Remove that file, and "
            f"run featx extract on the images to have it made again."
        ) from error


def network_files(folder: Path) -> list[Path]:
    """Return the networks in a folder, sorted, without those that other processes are writing."""
    return sorted(path for path in folder.glob("*.zip") if not path.name.startswith(TEMPORARY_PREFIX))


def check_network(path: Path) -> str | None:
    """Return what is wrong with the network at `path`, in a few words; None if it is not damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with _opened(path) as file:
            about = _about(file)
            recipe = Recipe.from_json(about["recipe"])
            if network_path(recipe, path.parent).name != path.name:
                return "it belongs to another recipe"
            _check_calibration(about, recipe)
            if damaged := file.testzip():
                return f"{damaged} does not match its checksum"
    except OddFileError as error:
        return str(error.strerror)
    except (*_DAMAGE, FeatxError) as error:
        check_readable(path)
        return " ".join(str(error).split())
    return None


def say_damaged(recipe: Recipe, cache_dir: StoragePath, reason: str) -> None:
    """Warn that the network kept for `recipe` is of no use."""
    path = network_path(recipe, cache_dir)
    log.warning("%s is damaged (%s); featx creates it again.", printable(path), printable(reason[:200]))


def write_network(network: Network, recipe: Recipe, cache_dir: StoragePath) -> None:
    """Write `network` for `recipe` to the cache, as a whole or not at all.

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
            for name, content in zip(_FALLBACK_NAMES, network.fallback, strict=False):
                file.writestr(name, content)
        sweep(path.parent)


def pack_network(recipe: Recipe, cache_dir: StoragePath, run_dir: Path) -> None:
    """Copy the int8 network of `recipe` to a run folder, if the cache has it: the run then predicts on any machine.

    Other networks can be converted again from the weights alone.

    Raises:
        OSError: it cannot be copied.
    """
    if recipe.precision == "int8" and is_converted(recipe, cache_dir):
        path = network_path(recipe, cache_dir)
        shutil.copyfile(path, run_dir / path.name)


def unpack_network(recipe: Recipe, run_dir: Path, cache_dir: StoragePath) -> None:
    """Copy the network in a run folder to the cache, unless it is there already; warn if it is damaged.

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
    for path in network_files(local_dir(cache_dir) / "networks"):
        with suppress(OSError, FeatxError, *_DAMAGE), _opened(path) as file:
            about = _about(file)
            if replace(Recipe.from_json(about["recipe"]), calibration=None) == wanted:
                found.append(tuple(about["calibration"]))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the network at `path`.

    Raises:
        OddFileError: it is not a regular file, or larger than any network.
        OSError: it cannot be read.
    """
    check_regular(path, _NETWORK_BYTES)
    with zipfile.ZipFile(path) as file:
        yield file


def _about(file: zipfile.ZipFile) -> dict[str, Any]:
    if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
        raise ValueError("it is compressed, so it may unpack to any size")
    if file.getinfo("network.json").file_size > _ABOUT_BYTES:
        raise ValueError("its description is too long")
    about: dict[str, Any] = json.loads(file.read("network.json"))
    if about["format"] != FORMAT or about["format_version"] > FORMAT_VERSION:
        raise ValueError("it has an unknown format")
    if not all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in about["calibration"]):
        raise ValueError("it does not say which images it was calibrated on")
    return about


def _check_calibration(about: dict[str, Any], recipe: Recipe) -> None:
    """Raise ValueError if an int8 network was calibrated on other images than its recipe says."""
    if recipe.calibration and calibration_digest(tuple(about["calibration"])) != recipe.calibration:
        raise ValueError("it was calibrated on other images")
