"""`featx.toml` in a run or a report: every setting that decided it, and what it was made of.

Settings are the arguments of `train_top` and `compare_approaches` by name, without those that are None.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset import Data, ImageDataset, ImageFolders, Labels
from featx.errors import FeatxError
from featx.heads import Training
from featx.images import Augmentation, Views
from featx.recipe import Recipe
from featx.storage import RemotePath, StoragePath, as_path, read_small
from featx.system import brief, hardware, versions
from featx.text import printable

SETTINGS_NAME = "featx.toml"

_FORMAT, _VERSION = "featx-settings", 1

#: What text that names a file may stand for: a relative path, which means something else in another folder.
_FILES = {"weights", "backbone", "backbones", "class_list", "class_weights"}

#: Arguments that decide nothing: where the result goes, and whether progress is shown.
_NO_SETTINGS = {"run_dir", "runs_dir", "show"}

_COMMENT = "# Every setting that decided this folder. To do it again: featx rerun FOLDER\n\n"


@dataclass(frozen=True)
class Settings:
    """What decided a run or a report.

    Attributes:
        command: `"train-top"` or `"compare"`.
        arguments: of the function, as plain values.
        found: what it was made of: `data` (name, digest, numbers of images), `recipes` by key, `versions`, `hardware`.
    """

    command: str
    arguments: dict[str, Any]
    found: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Settings of {self.command}: {len(self.arguments)} arguments>"

    def restored(self) -> dict[str, Any]:
        """Return the arguments as the function takes them.

        Raises:
            FeatxError: they were made by another featx, or labels were given in Python.
        """
        try:
            return {name: _restored(name, value) for name, value in self.arguments.items()}
        except (TypeError, KeyError, ValueError) as error:
            raise FeatxError(f"This featx does not know a setting in {SETTINGS_NAME}: {printable(error)}.") from error

    def to_toml(self) -> bytes:
        """Return the file. What is not valid UTF-8 in a name comes out as the bytes that it is."""
        import tomli_w

        head = {"format": _FORMAT, "format_version": _VERSION, "command": self.command}
        text = tomli_w.dumps({**head, "arguments": self.arguments, "found": self.found})
        return (_COMMENT + text).encode("utf-8", "surrogateescape")


def settings_of(
    command: str, arguments: Mapping[str, Any], dataset: ImageDataset, recipes: Sequence[Recipe]
) -> Settings:
    """Return what decides a run or a report, from the arguments of the function that makes it.

    Args:
        command: `"train-top"` or `"compare"`.
        arguments: by name; `options` has further ones by name.
        dataset: the images.
        recipes: what the features are.
    """
    given = {**arguments, **arguments["options"]}
    plain = {name: _plain(name, value) for name, value in given.items() if name not in {"options", *_NO_SETTINGS}}
    n_train, n_test = dataset.n_train, dataset.n_test
    data = {"name": dataset.name, "digest": dataset.digest, "n_train": n_train, "n_test": n_test}
    found = {
        "data": data,
        "recipes": {recipe.key: recipe.weights for recipe in recipes},
        "versions": versions(),
        "hardware": hardware(),
    }
    return Settings(command, {name: value for name, value in plain.items() if value is not None}, found)


def read_settings(folder: Path) -> Settings:
    """Return the settings in a run folder or a report folder.

    Raises:
        FeatxError: there are none, they are damaged, or a newer featx wrote them.
    """
    path = folder / SETTINGS_NAME
    try:
        members = tomllib.loads(read_small(path).decode("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise FeatxError(
            f"There is no {SETTINGS_NAME} in {printable(folder)}: name a run folder of featx train-top, or a report "
            f"folder of featx compare, that this version or a newer one has made."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FeatxError(f"{printable(path)} cannot be read: {printable(reason)}.") from error
    known = members.get("command") in {"train-top", "compare"} and all(
        isinstance(members.get(name), dict) for name in ("arguments", "found")
    )
    if members.get("format") != _FORMAT or members.get("format_version") != _VERSION or not known:
        raise FeatxError(
            f"{printable(path)} has format version {brief(members.get('format_version'))}; this featx reads {_VERSION}."
        )
    return Settings(members["command"], members["arguments"], members["found"])


def _plain(name: str, value: Any) -> Any:
    """Return an argument as TOML can hold it; None if it says nothing."""
    if name == "data_dir":
        return _plain_data(value)
    if isinstance(value, Path | RemotePath) or (isinstance(value, str) and name in _FILES and Path(value).is_file()):
        return _absolute(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value):
        settings = [one.name for one in fields(value) if one.init and one.name not in _NO_SETTINGS]
        value = {one: getattr(value, one) for one in settings}
    if isinstance(value, Mapping):
        members = {str(key): _plain(str(key), one) for key, one in value.items()}
        return {key: one for key, one in members.items() if one not in (None, {})}
    return value.item() if isinstance(value, np.generic) else [_plain(name, one) for one in value]


def _plain_data(data: Data) -> dict[str, Any]:
    folders = ImageFolders.of(data)
    members: dict[str, Any] = {"root": _absolute(folders.root), "train": folders.train, "test": folders.test}
    if folders.labels is not None:
        table = folders.labels.table
        is_file = table is None or isinstance(table, StoragePath)
        of_labels = {one.name: getattr(folders.labels, one.name) for one in fields(folders.labels) if one.init}
        of_labels["table"] = None if table is None else _absolute(table) if is_file else ""
        members["labels"] = {name: value for name, value in of_labels.items() if value is not None}
    return {name: value for name, value in members.items() if value is not None}


def _absolute(path: StoragePath | str) -> str:
    is_here = isinstance(path, Path) or (isinstance(path, str) and "://" not in path)
    return str(as_path(path).absolute()) if is_here else str(path)


def _restored(name: str, value: Any) -> Any:
    """Return an argument as the function takes it."""
    if name == "data_dir":
        labels = value.get("labels")
        if labels and labels.get("table") == "":
            raise FeatxError("The labels were given as a table in Python: featx cannot repeat this, only your program.")
        return ImageFolders(**{**value, "labels": Labels(**labels) if labels else None})
    if name == "training":
        return Training(**{**value, "memory": value.get("memory", {}).get("limit_bytes")})
    if name == "views" and isinstance(value, dict):
        return Views(**{**value, "augmentation": Augmentation(**value["augmentation"])})
    return tuple(value) if isinstance(value, list) else value
