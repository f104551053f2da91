"""Run folders that somebody made up: well-formed files with false claims, one or a few in each.

Run as a program, it tries some of them on a process of its own, with little memory: see `main`.
"""

import io
import json
import math
import os
import random
import resource
import shutil
import struct
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import FeatxError
from featx.predict.classifier import Classifier
from featx.recipe import Recipe
from featx.storage import file_digest
from featx.store.feature_store import FeatureStore
from featx.train.run_folder import read_run

#: What a program that predicts may take besides what it has when it begins.
MEMORY_BYTES = 1 << 30

#: The same, for a file on disk: what a sparse file claims.
SPARSE_BYTES = 1 << 40

Rng = random.Random
Members = dict[str, Any]

#: Values for any member of a JSON file. JSON has no NaN, but Python reads and writes it.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 4, 1.0, 3.5, -0.0, 1e308, math.nan, math.inf, -math.inf),
    *(2**31, 2**32, 2**63, 2**64, -(2**63), 10**400),
    *(
        "",
        "a",
        "0",
        "../../x",
        "/etc/hostname",
        "\x1b]0;title\x07",
        "line\nline",
        "\udcff",
        "\ud800",
        "\0",
        "x" * 100_000,
    ),
    *("random-0", "random-", f"random-{10**30}", "ab" * 32, "AB" * 32, "float32", "int8", "resnet50", "predictions"),
    *([], {}, [[]], [None], ["a", "b"], [1, 2], [32, 32], [-1, 32], [math.inf, 32], [2**40, 2**40], {"a": {"b": [1]}}),
)

#: Texts in the place of a JSON file.
TEXTS = (
    *(b"", b"{", b"[]", b"{}", b"null", b"NaN", b"-1", b'"text"', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0" * 1000),
    *(b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000),
)


@dataclass
class Run:
    """A copy of a run folder that is being falsified.

    Attributes:
        dir: the folder.
        bait: a file outside that nothing may read.
        rng: chance.
    """

    dir: Path
    bait: "Bait"
    rng: Rng

    def change_json(self, name: str, change: Callable[[Any, Rng], Any]) -> None:
        """Change a JSON file."""
        path = self.dir / name
        text = json.dumps(change(json.loads(path.read_text(encoding="utf-8")), self.rng))
        path.write_text(text, encoding="utf-8")

    def change_head(self, change: Callable[[dict[str, bytes], Rng], None]) -> None:
        """Change the members of the head's file, which Keras does not compress."""
        path = self.dir / "dense.keras"
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        change(members, self.rng)
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)


@dataclass(frozen=True)
class Bait:
    """A file that nothing may read. Its time of access tells: the system writes it where it is older than the mtime."""

    path: Path

    def set_up(self) -> None:
        """Date it so that reading it is noticed."""
        os.utime(self.path, (1_000_000_000, 1_500_000_000))

    @property
    def is_read(self) -> bool:
        """Whether it was read since."""
        return self.path.stat().st_atime != 1_000_000_000


# JSON


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a JSON value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def change_member(value: Any, rng: Rng) -> Any:
    """Something in a JSON value is another one, missing, elsewhere, or too much."""
    found = list(places(value))
    if not found:
        return rng.choice(VALUES)
    container, key = rng.choice(found)
    kind = rng.choice(
        ["value", "value", "value", "value", "gone", "nested", "renamed", "extra", "swapped", "none left"]
    )
    if kind == "value":
        container[key] = rng.choice(VALUES)
    elif kind == "gone":
        del container[key]
    elif kind == "nested":
        container[key] = [container[key]] if rng.random() < 0.5 else {"value": container[key]}
    elif kind == "renamed" and isinstance(container, dict):
        container[str(key).upper()] = container.pop(key)
    elif kind == "extra" and isinstance(container, dict):
        container[rng.choice(["crop", "gamma", "Resize", "", "x" * 1000, "\x1b[2J"])] = rng.choice(VALUES)
    elif kind == "swapped":
        other, other_key = rng.choice(found)
        with suppress(KeyError, IndexError, TypeError):
            container[key], other[other_key] = other[other_key], container[key]
    else:
        return rng.choice(VALUES)
    return value


def change_recipe_member(recipe: Members, rng: Rng) -> Any:
    """A member of the recipe that this featx knows has a value that it does not, or one that is also sound."""
    name = rng.choice([*recipe, "pooling", "calibration", "augmentation", "aspect_ratio"])
    views = {"flip": True, "rotation": 20.0, "zoom": 0.2, "shear": 0.3, "version": 1}
    sound_or_not: dict[str, list[Any]] = {
        "pixels_version": [1, 2, 4, 3.0, "3", True],
        "resize": ["lanczos", "bicubic", "BILINEAR", "bilinear "],
        "precision": ["float16", "bfloat16", "int8", "fp32"],
        "dtype": ["float64", "float32", "bfloat16", "<f2"],
        "weights": ["random-1", "random--1", "random-٣", "imagenet", "cd" * 32, "cd" * 31],
        "backbone": ["vgg19", "VGG16", "resnet50", "../vgg16"],
        "layer": ["block3_pool", "block9_pool", "predictions", "../x"],
        "image_size": [[64, 64], [31, 31], [4097, 32], [0, 0], [32], [32, 32, 3], [32, 32.0]],
        "preprocessing": ["tf", "torch", "Caffe", "imagenet"],
        "pooling": ["max", "sum", "AVG"],
        "calibration": ["ab" * 32, "ab"],
        "aspect_ratio": ["crop", "pad", "stretch", "Crop"],
        "augmentation": [views, {**views, "version": 2}, {**views, "crop": 0.1}, {**views, "zoom": 7.0}, {}],
    }
    return {**recipe, name: rng.choice(sound_or_not[name])}


def any_json(name: str) -> Callable[[Run], None]:
    """Return what changes something in a JSON file."""
    return lambda run: run.change_json(name, change_member)


def any_text(run: Run) -> None:
    """A JSON file is another text."""
    path = run.dir / run.rng.choice(["recipe.json", "metrics.json", "class_names.json"])
    path.write_bytes(run.rng.choice(TEXTS))


def twice(run: Run) -> None:
    """A member occurs twice, with two values."""
    path = run.dir / run.rng.choice(["recipe.json", "metrics.json"])
    members = json.loads(path.read_text(encoding="utf-8"))
    name = run.rng.choice(list(members))
    again = json.dumps({name: run.rng.choice(VALUES)})
    path.write_text(f"{again[:-1]}, {json.dumps(members)[1:]}", encoding="utf-8")


def class_names(run: Run) -> None:
    """There are other classes than outputs, or names that no folder has."""
    names = json.loads((run.dir / "class_names.json").read_text(encoding="utf-8"))
    changed = run.rng.choice(
        [
            names[:-1],
            [*names, "more"],
            [names[0], *names[:-1]],
            [*names[:-1], "\ud800"],
            [*names[:-1], ""],
            names * 1000,
        ]
    )
    (run.dir / "class_names.json").write_text(json.dumps(changed), encoding="utf-8")


def sparse_json(run: Run) -> None:
    """A JSON file of a size that no memory has, which takes no room on the disk."""
    os.truncate(run.dir / run.rng.choice(["recipe.json", "metrics.json", "class_names.json"]), SPARSE_BYTES)


# What the run remembers of its training images


def remembered(run: Run) -> None:
    """The training images that the run remembers are other ones, too many, or none at all."""
    rng = run.rng
    rows, table, mean = (run.dir / name for name in ("reference.npy", "reference.csv", "mean_features.npy"))
    kind = rng.choice(["sparse", "text", "header", "shape", "objects", "cells", "many", "folder"])
    if kind == "sparse":
        os.truncate(rng.choice([rows, table, mean]), SPARSE_BYTES)
    elif kind == "text":
        rng.choice([rows, table, mean]).write_bytes(rng.choice(TEXTS))
    elif kind == "header":
        numbers = rng.choice([rows, mean])
        data = numbers.read_bytes()
        claim = rng.choice([b"(9999999, 99999), ", b"(-1, 128), ", b"(), ", b"None, ", b"((1, 2), 3), "])
        start = data.index(b"'shape': ") + 9
        numbers.write_bytes(data[:start] + claim + data[start + len(claim) :])
    elif kind == "shape":
        np.save(rows, np.zeros(rng.choice([(0, 128), (12, 0), (120, 127), (120, 2, 64)]), np.float16))
    elif kind == "objects":
        np.save(rows, np.array([[{}]], object), allow_pickle=True)
    elif kind == "cells":
        header, *lines = table.read_text(encoding="utf-8").splitlines()
        cell = rng.choice(["nan", "inf", "-1e400", '"', "\0", "x" * 200_000, "1,2,3"])
        lines[rng.randrange(len(lines))] = f"a,b,{cell}"
        table.write_text("\n".join([header, *lines]), encoding="utf-8")
    elif kind == "many":
        table.write_bytes(b"path,label,distance\n" + b"a,b,0\n" * 10_000_000)
    else:
        rows.unlink()
        rows.mkdir()


# The file of a head: a zip file


def head_config(run: Run) -> None:
    """Something in the description of the layers is another one."""

    def change(members: dict[str, bytes], rng: Rng) -> None:
        config = json.loads(members["config.json"])
        layers = config["config"]["layers"]
        kind = rng.choice(["anything", "member", "shape", "units", "no layers", "order", "class"])
        layer = rng.choice(layers)
        if kind == "anything":
            config = change_member(config, rng)
        elif kind == "member":
            layer["config"] = change_member(layer["config"], rng)
        elif kind == "shape":
            layers[0]["config"]["batch_shape"] = rng.choice(
                [
                    [None],
                    [None, -1],
                    [None, math.inf],
                    [None, 2**62, 4],
                    [None, 0],
                    [None, 8, 8],
                    [None, True],
                    "x",
                    None,
                    [],
                ]
            )
        elif kind == "units":
            layers[-1]["config"]["units"] = rng.choice([0, -1, 2, 4, 10**12, 10**400, math.nan, "3", True, None])
        elif kind == "no layers":
            config["config"]["layers"] = layers[: rng.randrange(len(layers))]
        elif kind == "order":
            rng.shuffle(layers)
        else:
            layer["class_name"] = rng.choice(
                ["Lambda", "Dense", "Conv2D", "TorchModuleWrapper", "InputLayer", "", None]
            )
        members["config.json"] = json.dumps(config).encode()

    run.change_head(change)


def head_zip(run: Run) -> None:
    """The zip file around the head is another one than Keras writes."""
    path, rng = run.dir / "dense.keras", run.rng
    with zipfile.ZipFile(path) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    kind = rng.choice(["compressed", "gone", "extra", "twice", "lies", "sparse", "encrypted", "bomb", "long"])
    if kind == "sparse":
        os.truncate(path, SPARSE_BYTES)
        return
    if kind == "gone":
        del members[rng.randrange(len(members))]
    elif kind == "extra":
        members.append((rng.choice(["../../evil", "/etc/evil", "x" * 1000, "model.weights.h5/x"]), b"x"))
    elif kind == "twice":
        members.insert(0, (members[-1][0], b"x" * 100))
    elif kind == "long":
        members = [(name, data + b" " * (2 << 20) if name == "config.json" else data) for name, data in members]
    elif kind == "bomb":
        members = [(name, bytes(300 << 20) if name == "config.json" else data) for name, data in members]
    method = zipfile.ZIP_DEFLATED if kind in {"compressed", "bomb"} else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.simplefilter("ignore")  # zipfile warns of a name that occurs twice
        for name, data in members:
            file.writestr(name, data)
    if kind in {"lies", "encrypted"}:
        change_directory(path, rng, encrypted=kind == "encrypted")


def change_directory(path: Path, rng: Rng, *, encrypted: bool) -> None:
    """Have the directory of a zip file say that a member is larger than it is, or encrypted."""
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 4) if data[at : at + 4] == b"PK\x01\x02"]
    at = rng.choice(starts)
    if encrypted:
        data[at + 8] |= 1
    else:
        struct.pack_into("<II", data, at + 20, *[rng.choice([0, 100, 2**31, 2**32 - 2])] * 2)
    path.write_bytes(data)


# The HDF5 file in it


def head_hdf5(run: Run) -> None:
    """The weights are elsewhere, made of nothing, of another type, or not what the layers say."""

    def change(members: dict[str, bytes], rng: Rng) -> None:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            layers = [group for group in file["layers"].values() if len(group["vars"])]
            rng.choice(HDF5_CHANGES)(file, rng.choice(layers)["vars"], run)
        members["model.weights.h5"] = content.getvalue()

    run.change_head(change)


def _replaced(variables: h5py.Group, rng: Rng) -> tuple[str, np.ndarray]:
    name = rng.choice(["0", "1"])
    data = variables[name][:]
    del variables[name]
    return name, data


def external_storage(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, data = _replaced(variables, run.rng)
    where = [(str(run.bait.path), 0, h5py.h5f.UNLIMITED)]
    variables.create_dataset(name, data.shape, data.dtype, external=where)


def external_link(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, _ = _replaced(variables, run.rng)
    variables[name] = h5py.ExternalLink(str(run.bait.path), "/x")


def external_group(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    del file["layers"]
    file["layers"] = h5py.ExternalLink(str(run.bait.path), "/")


def soft_link(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, _ = _replaced(variables, run.rng)
    variables[name] = h5py.SoftLink(run.rng.choice(["/layers", f"{variables.name}/{name}", "/nowhere", ".."]))


def virtual(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, data = _replaced(variables, run.rng)
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[...] = h5py.VirtualSource(str(run.bait.path), "x", data.shape, data.dtype)
    variables.create_virtual_dataset(name, layout, fillvalue=0)


def filtered(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    """Chunks, and a filter: the numbers are the same."""
    name, data = _replaced(variables, run.rng)
    how = run.rng.choice([{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}])
    variables.create_dataset(name, data=data, chunks=True, **how)


def never_written(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, data = _replaced(variables, run.rng)
    shape = run.rng.choice([data.shape, (2**20, 2**20), (2**40,), (0,), ()])
    variables.create_dataset(name, shape, "float32", chunks=True if shape and 0 not in shape else None, fillvalue=0.5)


def other_type(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, data = _replaced(variables, run.rng)
    kind = run.rng.choice(["int8", "float64", "complex64", "S8", "bool", "text", "fields", "reference", ">f4"])
    if kind == "text":
        variables.create_dataset(name, data=np.full(data.shape, "x", object), dtype=h5py.string_dtype())
    elif kind == "fields":
        variables[name] = np.zeros(data.shape, [("a", "f4"), ("b", "i4")])
    elif kind == "reference":
        variables.create_dataset(name, data.shape, dtype=h5py.ref_dtype)
    else:
        variables[name] = data.astype(kind)


def other_values(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    data = variables[run.rng.choice(["0", "1"])]
    values = data[:]
    values.reshape(-1)[run.rng.randrange(values.size)] = run.rng.choice([math.nan, math.inf, -math.inf, 3e38, -3e38])
    data[...] = values


def huge_values(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    data = variables["0"]
    data[...] = np.where(np.arange(data.size).reshape(data.shape) % 2, 3e38, -3e38)


def other_shape(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, data = _replaced(variables, run.rng)
    variables[name] = run.rng.choice([data.T, data[:-1], data[np.newaxis], data.reshape(-1), data[:0], np.float32(1)])


def missing(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    del file[run.rng.choice(["layers", f"{variables.name}/0", f"{variables.name}/1", variables.name])]


def extra(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    """Something more: the head is as it was."""
    parent = run.rng.choice([file, variables])
    parent[run.rng.choice(["2", "more", "x" * 500])] = np.zeros(3)


def cycle(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    """A group that is in itself: who walks through it never ends."""
    variables["again"] = file["/"]


def many(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    """Many names for one data set."""
    for number in range(500):
        variables[f"name{number}"] = variables["1"]


def committed_type(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, _ = _replaced(variables, run.rng)
    variables[name] = np.dtype("f4")


def group_instead(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    name, _ = _replaced(variables, run.rng)
    variables.create_group(name)


def other_name(file: h5py.File, variables: h5py.Group, run: Run) -> None:
    del variables.attrs["name"]
    if run.rng.random() < 0.9:
        variables.attrs["name"] = run.rng.choice(
            [b"dense", 3, math.nan, np.zeros(1000), "", "\x1b[2J", np.empty(0, "S1")]
        )


HDF5_CHANGES = (
    *(external_storage, external_link, external_group, soft_link, virtual, filtered, never_written, other_type),
    *(other_values, huge_values, other_shape, missing, extra, cycle, many, committed_type, group_instead, other_name),
)


def endless_heap(run: Run) -> None:
    """The heap that has the names of the layers is zero where the length of a name should be."""

    def change(members: dict[str, bytes], rng: Rng) -> None:
        data = bytearray(members["model.weights.h5"])
        start = data.index(b"GCOL\x01")
        data[start + 16 : start + 64] = bytes(48)
        members["model.weights.h5"] = bytes(data)

    run.change_head(change)


def endless_names(run: Run) -> None:
    """What is free among the names of a group leads round in a circle."""

    def change(members: dict[str, bytes], rng: Rng) -> None:
        data = bytearray(members["model.weights.h5"])
        starts = [at for at in range(len(data) - 5) if data[at : at + 5] == b"HEAP\0"]
        for start in starts if rng.random() < 0.5 else [rng.choice(starts)]:
            begin = int.from_bytes(data[start + 24 : start + 32], "little")
            data[start + 16 : start + 24] = (8).to_bytes(8, "little")
            data[begin + 8 : begin + 24] = struct.pack("<2Q", 8, 16)
        members["model.weights.h5"] = bytes(data)

    run.change_head(change)


def several(run: Run) -> None:
    """Two or three of the others at once."""
    for _ in range(run.rng.choice([2, 3])):
        with suppress(Exception):  # the first has left nothing that the second could change
            KINDS[run.rng.choice([name for name in KINDS if name != "several"])](run)


KINDS: dict[str, Callable[[Run], None]] = {
    "recipe.json: any member": any_json("recipe.json"),
    "recipe.json: a known member": lambda run: run.change_json("recipe.json", change_recipe_member),
    "metrics.json: any member": any_json("metrics.json"),
    "class_names.json: any member": any_json("class_names.json"),
    "class_names.json: other classes": class_names,
    "JSON: another text": any_text,
    "JSON: a member twice": twice,
    "JSON: sparse": sparse_json,
    "reference": remembered,
    "head: description": head_config,
    "head: zip file": head_zip,
    "head: HDF5": head_hdf5,
    "head: HDF5, again": head_hdf5,
    "head: endless heap": endless_heap,
    "head: endless names": endless_names,
    "several": several,
}


# Trying them


def problem_of(run: Run, cache: Path, images: list[Path], sound: Recipe) -> str:
    """Return what is wrong with what featx does with a run; empty if it says in a line why not, or is right."""
    try:
        recipe = read_run(run.dir).recipe
        if recipe != sound:
            return problem_of_recipe(recipe, run)
        classifier = Classifier.load(run.dir, head="dense", cache_dir=cache)
        probabilities = classifier.predict(images).probabilities
    except FeatxError as error:
        text = str(error)
        is_line = text.isprintable() and 10 < len(text) < 1500
        return "" if is_line else f"no line for people: {text[:300]!r} ({len(text)})"
    names = json.loads((run.dir / "class_names.json").read_text(encoding="utf-8"))
    if list(classifier.class_names) != names:
        return f"other classes: {classifier.class_names}"
    store = FeatureStore(cache, sound)
    digests = np.stack([np.frombuffer(file_digest(path), np.uint8) for path in images])
    expected = reference(run.dir / "dense.keras", store.read(digests))
    return "" if np.allclose(probabilities, expected, atol=1e-3) else f"wrong: {probabilities}, not {expected}"


def problem_of_recipe(recipe: Recipe, run: Run) -> str:
    """Return what is wrong with a recipe that featx would compute: it must be the file's, and none of another featx."""
    stated = json.loads((run.dir / "recipe.json").read_text(encoding="utf-8"))
    stated = {name: value for name, value in stated.items() if value is not None}
    if json.dumps(stated, sort_keys=True, separators=(",", ":")) != recipe.to_json():
        return f"another recipe: {recipe.to_json()}"
    is_known = (
        (recipe.pixels_version, recipe.resize, recipe.backbone) == (3, "bilinear", "vgg16")
        and recipe.precision in {"float32", "bfloat16", "int8"}
        and recipe.dtype in {"float16", "float32"}
        and recipe.layer in {"block1_pool", "block2_pool", "block3_pool"}
        and recipe.preprocessing in {"caffe", "tf", "torch", "none"}
        and recipe.pooling in {None, "avg", "max"}
        and (recipe.augmentation is None or recipe.augmentation.version == 1)
        and (recipe.calibration is not None) == (recipe.precision == "int8")
        and all(32 <= side <= 4096 for side in recipe.image_size)
    )
    return "" if is_known else f"a recipe that this featx does not know: {recipe.to_json()}"


def reference(path: Path, X: np.ndarray) -> np.ndarray:
    """Return what a head says of the features `X`, `(n, …)`: a reader of such files that trusts them."""
    with zipfile.ZipFile(path) as file:
        layers = json.loads(file.read("config.json"))["config"]["layers"]
        content = io.BytesIO(file.read("model.weights.h5"))
    rows = X.reshape(len(X), -1).astype(np.float64)
    with h5py.File(content, "r") as file:
        variables = {group["vars"].attrs["name"]: group["vars"] for group in file["layers"].values()}
        for layer in layers:
            if layer["class_name"] == "Dense":
                part = variables[layer["config"]["name"]]
                rows = rows @ part["0"][:].astype(np.float64) + part["1"][:]
                if layer["config"]["activation"] == "relu":
                    rows = np.maximum(rows, 0)
                elif layer["config"]["activation"] == "sigmoid":
                    rows = 1 / (1 + np.exp(-rows))
                else:
                    rows = np.exp(rows - rows.max(axis=1, keepdims=True))
                    rows /= rows.sum(axis=1, keepdims=True)
    return np.hstack([1 - rows, rows]) if rows.shape[1] == 1 else rows


def main(folder: Path, first: int, last: int) -> None:
    """Try the cases `first` to `last`, and print a line before and after each; `folder` has `sound/` and `cache/`.

    The process may take `MEMORY_BYTES` more than it has after a sound run.
    """
    images = sorted((folder / "data").rglob("*.jpg"))[:5]
    sound = read_run(folder / "sound").recipe
    bait = Bait(folder / "bait")
    with h5py.File(bait.path, "w", libver="latest") as file:
        file["x"] = np.full((16, 16), 0.25, np.float32)
    os.chdir(folder)
    Classifier.load(folder / "sound", cache_dir=folder / "cache").predict(images)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    kinds = list(KINDS)
    for number in range(first, last):
        kind = kinds[number % len(kinds)]
        run = Run(Path(shutil.copytree(folder / "sound", folder / f"run-{first}-{number}")), bait, Rng(number))
        KINDS[kind](run)
        bait.set_up()
        print("trying", number, kind, flush=True)
        began = time.perf_counter()
        try:
            problem = problem_of(run, folder / "cache", images, sound)
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            problem = f"{type(error).__name__}: {error}"[:500] + f" at {traceback.format_exc()[-600:]}"
        if bait.is_read:
            problem += " A file outside was read."
        print("tried", number, f"{time.perf_counter() - began:.3f}", problem.replace("\n", " | "), flush=True)
        shutil.rmtree(run.dir)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
