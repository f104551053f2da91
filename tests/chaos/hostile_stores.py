"""Stores that somebody has tampered with: valid HDF5 with right checksums and false claims, and odd kinds of files.

Random damage is in `tests/chaos/damages.py`. This is what no disk does, and what checksums do not tell.

    python -m tests.chaos.hostile_stores FOLDER FIRST STOP

works through the cases with these numbers, in a process of its own that ends as soon as one takes too long.
"""

import faulthandler
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from featx.dataset.skipped import DimImages, SkippedImage, SkippedImages
from featx.errors import DamagedSegmentError, FeatxError, StoreError
from featx.extract.cache import check_cache, compact_cache, list_cache
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system.timings import Timings

#: Seconds and bytes that no case may take. HDF5 cannot be interrupted: the process ends.
LIMIT_S = 20.0
LIMIT_BYTES = 512 << 20

RECIPE = Recipe(backbone="vgg16", weights="random-0", layer="block1_pool", image_size=(32, 32), preprocessing="caffe")
OTHER = replace(RECIPE, weights="random-1")
SHAPE = (4, 4, 8)

#: What h5py says where it does not write what is drawn; the file then lacks it.
REFUSALS = (ValueError, TypeError, OSError, RuntimeError)

Rng = random.Random
Make = Callable[[h5py.File, str, np.ndarray], object]


def digests_of(numbers: range) -> np.ndarray:
    """Digests `(n, 32)` uint8 of the images called `numbers`."""
    return np.stack([np.frombuffer(hashlib.sha256(b"%d" % number).digest(), np.uint8) for number in numbers])


def features_of(digests: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """The only right features, `(n, …)` float16, of images with `digests`."""
    seeds = digests[:, :4].view("<u4").ravel()
    return np.stack([np.random.default_rng(seed).normal(size=shape) for seed in seeds]).astype(np.float16)


#: The rows of the store that is attacked, in two segments; those of the one beside it; and what attackers add.
GOOD, BESIDE, NEW = digests_of(range(9)), digests_of(range(5)), digests_of(range(100, 140))
BAD_IMAGE = hashlib.sha256(b"no image").digest()


def make_caches(folder: Path) -> None:
    """Write what is attacked: a cache with a store of two segments and one of another recipe."""
    for recipe, parts in ((RECIPE, [GOOD[:5], GOOD[5:]]), (OTHER, [BESIDE])):
        store = FeatureStore(folder, recipe)
        for digests in parts:
            timings = Timings(n_images=len(digests), forward_s=0.5, elapsed_s=1.0)
            store.write_segment(new_segment_name(), features_of(digests), digests, lambda timings=timings: timings)
        store.publish()
        skipped = [SkippedImage.of(Path("/photos/bad.jpg"), BAD_IMAGE, "no image")]
        SkippedImages(store.dir / "skipped.csv").remember(skipped, Path("/photos"))


# Segments


def plain(file: h5py.File, name: str, array: np.ndarray) -> h5py.Dataset:
    """As the format says."""
    return file.create_dataset(name, data=array, chunks=(len(array), *array.shape[1:]), fletcher32=True)


def checksums(features: np.ndarray, digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    """As the format says: CRC-32 of digest, view and features."""
    rows = zip(digests, views.astype("<u2"), features, strict=True)
    return np.array([crc32(b"".join(part.tobytes() for part in row)) for row in rows], np.uint32)


def write(
    path: Path,
    features: np.ndarray,
    digests: np.ndarray,
    *,
    views: np.ndarray | None = None,
    checks: np.ndarray | None = None,
    makes: dict[str, Make] | None = None,
    attributes: dict[str, Any] | None = None,
    **how: Any,
) -> Path:
    """Write a segment whose checksums are right, but for what is given; None as an attribute leaves it out."""
    views = np.zeros(len(digests), np.uint16) if views is None else views
    arrays = {"features": features, "digest": digests, "view": views}
    arrays["crc32"] = checksums(features, digests, views) if checks is None else checks
    timings = Timings(n_images=len(digests), elapsed_s=1.0)
    stamp: dict[str, Any] = {
        "format": np.bytes_(b"featx-features"),
        "format_version": 1,
        "recipe": np.bytes_(RECIPE.to_json()),
        "timings": np.bytes_(json.dumps(timings.to_dict())),
    }
    with h5py.File(path, "w", **{"libver": ("v110", "v110"), **how}) as file:
        for name, array in arrays.items():
            with suppress(*REFUSALS):
                (makes or {}).get(name, plain)(file, name, array)
        for name, value in (stamp | (attributes or {})).items():
            with suppress(*REFUSALS):
                if value is not None:
                    file.attrs[name] = value
    return path


def new_path(store_dir: Path, rng: Rng) -> Path:
    """A name that sorts before, among or after the others."""
    start = rng.choice(["0000", "7777", "ffff"])
    return store_dir / f"seg-{start}{rng.randbytes(14).hex()}.h5"


def some(rng: Rng) -> np.ndarray:
    """Digests of images: new ones, some of the good ones, or both."""
    return rng.choice([NEW[: rng.randint(1, 40)], GOOD[: rng.randint(1, 9)], np.concatenate([GOOD[:3], NEW[:3]])])


def other_shape(store_dir: Path, rng: Rng) -> None:
    """Right rows of another shape."""
    digests, shape = some(rng), rng.choice([(4, 4, 7), (128,), (4, 32), (8, 16), (2, 2, 32), (1,)])
    write(new_path(store_dir, rng), features_of(digests, shape), digests)


def many_of_other_shape(store_dir: Path, rng: Rng) -> None:
    """A few kilobytes that claim thousands of rows of another shape, compressed or never written."""
    n, shape = rng.choice([500, 2000, 20_000]), rng.choice([(128,), (4, 4, 7), (7,)])
    zeros = np.zeros((n, *shape), np.float16)
    digests = np.frombuffer(rng.randbytes(32 * n), np.uint8).reshape(n, 32)
    filters = rng.choice([{"compression": "gzip"}, {"compression": "lzf"}, {"fletcher32": True}, {}])

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(name, array.shape, array.dtype, chunks=(10, *array.shape[1:]), **filters)

    write(new_path(store_dir, rng), zeros, digests, makes={"features": make}, checks=np.zeros(n, np.uint32))


def other_filters(store_dir: Path, rng: Rng) -> None:
    """Right rows, with filters other than the format's, or stored in another way."""
    options = rng.choice(
        [
            *(
                {"compression": "gzip"},
                {"compression": "lzf"},
                {"shuffle": True},
                {"shuffle": True, "fletcher32": True},
            ),
            *({"compression": "gzip", "fletcher32": True}, {"chunks": None}, {"maxshape": True, "fletcher32": True}),
            *({"chunks": (1, 1, 1, 1), "fletcher32": True}, {"scaleoffset": 0}),
        ]
    )
    name = rng.choice(["features", "digest", "view", "crc32"])

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        how: dict[str, Any] = {"chunks": (len(array), *array.shape[1:]), **options}
        if how.get("maxshape"):
            how["maxshape"] = (None, *array.shape[1:])
        if "scaleoffset" in how and array.dtype.kind == "f":
            how["scaleoffset"] = 2
        if how["chunks"] and len(how["chunks"]) != array.ndim:
            how["chunks"] = (1,) * array.ndim
        return file.create_dataset(name, data=array, **how)

    digests = some(rng)
    write(new_path(store_dir, rng), features_of(digests), digests, makes={name: make})


def skipped_filter(store_dir: Path, rng: Rng) -> None:
    """Chunks written without the filter that the data set has."""

    def make(file: h5py.File, name: str, array: np.ndarray) -> None:
        dataset = file.create_dataset(name, array.shape, array.dtype, chunks=array.shape, fletcher32=True)
        data = array.tobytes() + b"abcd" * rng.randint(0, 1)
        dataset.id.write_direct_chunk((0,) * array.ndim, data, filter_mask=rng.choice([0, 1]))

    digests = some(rng)
    name = rng.choice(["features", "digest", "view", "crc32"])
    write(new_path(store_dir, rng), features_of(digests), digests, makes={name: make})


def huge_claim(store_dir: Path, rng: Rng) -> None:
    """Up to 2**45 rows that were never written."""
    n = rng.choice([2**45, 2**40, 2**33, 2**31 + 1, 10**6])
    names = rng.choice([["digest"], ["features"], ["view", "crc32"], ["features", "digest", "view", "crc32"]])

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        rows = rng.choice([1, 1000, 100_000])
        filters = rng.choice([{"fletcher32": True}, {}])
        return file.create_dataset(name, (n, *array.shape[1:]), array.dtype, chunks=(rows, *array.shape[1:]), **filters)

    digests = some(rng)
    write(new_path(store_dir, rng), features_of(digests), digests, makes=dict.fromkeys(names, make))


def elsewhere(store_dir: Path, rng: Rng) -> None:
    """Data sets that are in other files: external storage, virtual, external and soft links, to what is not ours."""
    secret = store_dir.parent.parent / "secret"
    content = np.frombuffer(b"SECRET! " * 1024, np.float16)[: 5 * 128].reshape(5, *SHAPE)
    secret.write_bytes(content.tobytes())
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        for name in ("features", "digest", "view", "crc32"):
            file[name] = {"features": content, "digest": NEW[:5]}.get(name, np.zeros(5, np.uint32))
    target = rng.choice([str(secret), "/etc/passwd", "/dev/zero", str(store_dir / "none")])
    other = rng.choice([str(secret.with_suffix(".h5")), "none.h5", str(next(store_dir.glob("seg-*.h5")))])

    def external(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(name, array.shape, array.dtype, external=[(target, 0, array.nbytes)])

    def virtual(file: h5py.File, name: str, array: np.ndarray) -> object:
        layout = h5py.VirtualLayout(array.shape, array.dtype)
        layout[:] = h5py.VirtualSource(other, name, array.shape, array.dtype)
        return file.create_virtual_dataset(name, layout)

    def link(file: h5py.File, name: str, _array: np.ndarray) -> None:
        file[name] = h5py.ExternalLink(other, name)

    def soft(file: h5py.File, name: str, array: np.ndarray) -> None:
        plain(file, f"x-{name}", array)
        file[name] = h5py.SoftLink(rng.choice([f"/x-{name}", f"/{name}", "/nowhere"]))

    make = rng.choice([external, virtual, link, soft])
    names = rng.choice([["features"], ["digest"], ["view"], ["crc32"], ["features", "digest", "view", "crc32"]])
    write(
        new_path(store_dir, rng),
        content,
        NEW[:5],
        makes=dict.fromkeys(names, make),
    )


def odd_types(store_dir: Path, rng: Rng) -> None:
    """Data sets of other types: variable length, references, compounds, texts, other byte orders, groups, scalars."""
    dtype = rng.choice(
        [
            *(h5py.vlen_dtype(np.uint8), h5py.string_dtype(), h5py.ref_dtype, h5py.regionref_dtype, "S2", "V4", "?"),
            *(">f2", "<f4", "<f8", "<u8", "i1", ">u4", "c8", np.dtype([("a", "<f2"), ("b", h5py.string_dtype())])),
            *(h5py.enum_dtype({"A": 0}), np.dtype(("<f2", (2,)))),
        ]
    )
    name = rng.choice(["features", "digest", "view", "crc32"])

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        how = rng.randint(0, 5)
        if how == 0:
            return file.create_group(name)
        if how == 1:
            file[name] = np.dtype("<f2")  # a named type
            return None
        if how == 2:
            file[name] = h5py.Empty("<f2")
            return None
        chunked = {"chunks": True, "fletcher32": True} if how < 5 and not np.dtype(dtype).hasobject else {}
        return file.create_dataset(name, array.shape[: rng.randint(0, array.ndim)] or (1,), dtype, **chunked)

    digests = some(rng)
    write(new_path(store_dir, rng), features_of(digests), digests, makes={name: make})


def odd_attributes(store_dir: Path, rng: Rng) -> None:
    """Attributes of other types, lengths and meanings; many more than there should be."""
    texts = ["", "{}", "[" * 50_000, '{"elapsed_s": 1' + "0" * 400 + "}", '{"elapsed_s": -1}', '{"n_images": 1e400}']
    texts += ['{"n_images": 1' + "0" * 5000 + "}", "null", "\0", "é" * 1000, '{"elapsed_s": NaN}', "x" * 60_000]
    values = [*texts, *(np.bytes_(text.encode()) for text in texts), 0, -1, 2.5, np.arange(3), [["a", "b"]]]
    values += [h5py.Empty("f"), np.float32("nan"), 2**63, np.array([RECIPE.to_json()] * 2, "S"), None, True]
    name = rng.choice(["format", "recipe", "timings"])
    attributes = {name: rng.choice(values)}
    if rng.random() < 0.3:
        attributes |= {f"x{number}": rng.choice(["text", 3]) for number in range(rng.choice([1, 20, 300]))}
    digests = some(rng)
    write(new_path(store_dir, rng), features_of(digests), digests, attributes=attributes)


def newer(store_dir: Path, rng: Rng) -> None:
    """A segment of a version to come: the store is refused, and nobody else is."""
    digests = some(rng)
    version = rng.choice([2, 3, 2**31, 2**63 - 1])
    write(new_path(store_dir, rng), features_of(digests), digests, attributes={"format_version": version})


def odd_version(store_dir: Path, rng: Rng) -> None:
    """A version that is none."""
    digests = some(rng)
    version = rng.choice(["1", 1.5, np.float64("nan"), np.arange(2), b"\xff", None, [[1]], True])
    write(new_path(store_dir, rng), features_of(digests), digests, attributes={"format_version": version})


def variable_length(store_dir: Path, rng: Rng) -> None:
    """Texts of variable length, in a heap that is sound, or zeroed, or runs in a circle: HDF5 may go round for ever."""
    texts = {"format": "featx-features", "recipe": RECIPE.to_json(), "timings": json.dumps(Timings().to_dict())}
    names = rng.sample(sorted(texts), rng.randint(1, 3))
    extra = {f"x{number}": "x" * rng.randint(1, 3000) for number in range(rng.randint(0, 4))}
    digests = some(rng)
    path = write(
        new_path(store_dir, rng),
        features_of(digests),
        digests,
        attributes={name: texts[name] for name in names} | extra,
        libver=rng.choice(["earliest", "latest", ("v110", "v110")]),
    )
    how = rng.randint(0, 5)
    content = bytearray(path.read_bytes())
    start = -1
    while how and (start := content.find(b"GCOL", start + 1)) >= 0:
        size = int.from_bytes(content[start + 8 : start + 16], "little")
        if how == 1:
            content[start + 16 : start + size] = bytes(size - 16)
        elif how == 2:
            at = start + 16 + 8 * rng.randrange((size - 24) // 8)
            content[at : at + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8)])
        elif how == 3:
            content[start + 8 : start + 16] = rng.choice([0, 16, 2**63, len(content) * 2]).to_bytes(8, "little")
        elif how == 4:
            content[start + 24 : start + 32] = rng.choice([0, 2**64 - 16, 2**32]).to_bytes(8, "little")
        else:
            content[start + size - 32 : start + size] = bytes(32)
    path.write_bytes(content)


def not_finite(store_dir: Path, rng: Rng) -> None:
    """Rows with right checksums that are not finite."""
    digests = some(rng)
    features = features_of(digests)
    features[rng.randrange(len(features)), rng.randrange(4)] = rng.choice([np.nan, np.inf, -np.inf])
    write(new_path(store_dir, rng), features, digests)


def false_checksums(store_dir: Path, rng: Rng) -> None:
    """Good names with features of others, or none."""
    digests = some(rng)
    right = features_of(digests)
    features = rng.choice([np.roll(right, 1), right + 1, np.zeros_like(right)])
    checks = checksums(right, digests, np.zeros(len(digests), np.uint16))
    write(new_path(store_dir, rng), features, digests, checks=checks)


def zero_digests(store_dir: Path, rng: Rng) -> None:
    """Rows without a name."""
    digests = np.concatenate([NEW[:3], np.zeros((2, 32), np.uint8)])
    write(new_path(store_dir, rng), features_of(digests), digests)


def odd_layout(store_dir: Path, rng: Rng) -> None:
    """Sound rows in files that featx would not write: a user block, old or new structures, more data sets."""
    digests = some(rng)
    how = rng.choice([{"userblock_size": 512}, {"libver": "earliest"}, {"libver": "latest"}, {"track_order": True}])
    path = write(new_path(store_dir, rng), features_of(digests), digests, **how)
    if rng.random() < 0.5:
        with h5py.File(path, "r+") as file:
            for number in range(rng.choice([1, 200])):
                file.create_group(f"group{number}")
            file["more"] = h5py.SoftLink("/more")
            file["loop"] = file["/"]


def circles(store_dir: Path, rng: Rng) -> None:
    """Old structures of HDF5, which have no checksums, that lead back to themselves."""
    digests = NEW[:40]

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        return file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), fletcher32=True)

    path = write(new_path(store_dir, rng), features_of(digests), digests, makes={"features": make}, libver="earliest")
    content = bytearray(path.read_bytes())
    places = [at for mark in (b"TREE", b"HEAP", b"SNOD") for at in _all(content, mark)]
    for at in rng.sample(places, rng.randint(1, len(places))):
        own = at.to_bytes(8, "little")
        where = at + 8 * rng.randint(1, 12)
        content[where : where + 8] = rng.choice([own, own, bytes(8), b"\xff" * 8])
        if content[at : at + 4] == b"TREE" and rng.random() < 0.5:
            content[at + 5] = rng.randint(0, 3)
        if content[at : at + 4] == b"HEAP" and rng.random() < 0.7:
            head = rng.choice([0, 8, 16, 24, 32])
            data_at = int.from_bytes(content[at + 24 : at + 32], "little")
            content[at + 16 : at + 24] = head.to_bytes(8, "little")
            if data_at + head + 16 < len(content):
                block = head.to_bytes(8, "little") + rng.choice([16, 0, 8]).to_bytes(8, "little")
                content[data_at + head : data_at + head + 16] = block
    path.write_bytes(content)


def _all(content: bytes, mark: bytes) -> list[int]:
    return [at for at in range(0, len(content), 8) if content[at : at + len(mark)] == mark]


def odd_names(store_dir: Path, rng: Rng) -> None:
    """Sound segments under names that are no text, or mean something to HDF5 or a terminal."""
    names = ["\udcff", "%b", "%0b", "%%", "\n\x1b[2J", "x" * 247, "é", "", " ", "..", "*", "\u202e"]
    for name in rng.sample(names, rng.randint(1, 3)):
        digests = some(rng)
        write(new_path(store_dir, rng), features_of(digests), digests).rename(store_dir / f"seg-{name}.h5")


# Other files


def odd_file(path: Path, rng: Rng) -> None:
    """Put something other than a small regular file in the place of `path`."""
    path.unlink(missing_ok=True)
    kind = rng.randint(0, 9)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        os.mkfifo(path.with_name(f".{path.name}"))
        path.symlink_to(f".{path.name}")
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        path.symlink_to(path.name)
    elif kind == 5:
        path.symlink_to("nowhere")
    elif kind < 9:
        path.touch()
        os.truncate(path, {6: 1 << 40, 7: 60 << 20, 8: 0}[kind])
    else:
        path.write_bytes(rng.randbytes(100))


def odd_derived_file(store_dir: Path, rng: Rng) -> None:
    """A file beside the segments is a FIFO, a link, a folder, a device, or a terabyte of nothing."""
    names = ["recipe.json", "timings.json", "skipped.csv", "features.h5", "dim.json"]
    for name in rng.sample(names, rng.randint(1, 5)):
        odd_file(store_dir / name, rng)


def odd_segment_file(store_dir: Path, rng: Rng) -> None:
    """A segment is such a file."""
    for _ in range(rng.randint(1, 4)):
        odd_file(new_path(store_dir, rng), rng)


def sparse_segment(store_dir: Path, rng: Rng) -> None:
    """A segment that is followed by a terabyte of nothing, sound or not."""
    digests = some(rng)
    how = rng.choice([{}, {"attributes": {"timings": "{}"}}, {"checks": np.zeros(len(digests), "u4")}])
    path = write(new_path(store_dir, rng), features_of(digests), digests, **how)
    if rng.random() < 0.3:
        content = path.read_bytes()
        path.write_bytes(content[: rng.randrange(len(content))])
    os.truncate(path, rng.choice([1 << 40, 1 << 30]))


def sparse_claims(store_dir: Path, rng: Rng) -> None:
    """Chunks that really are where they are said to be: in the holes of a sparse file."""
    n = 1_000_000
    path = new_path(store_dir, rng)

    def make(file: h5py.File, name: str, array: np.ndarray) -> object:
        dataset = file.create_dataset(
            name, (n, *array.shape[1:]), array.dtype, chunks=(n // 4, *array.shape[1:]), fletcher32=True
        )
        chunk = bytes(dataset.chunks[0] * array[0].nbytes + 4)
        for number in range(4):
            dataset.id.write_direct_chunk((number * n // 4,) + (0,) * (array.ndim - 1), chunk)
        return dataset

    names = ["digest", "view", "crc32"]
    write(path, features_of(NEW[:2]), NEW[:2], makes=dict.fromkeys(names, make))
    content = path.read_bytes()
    with path.open("wb") as file:
        for at in range(0, len(content), 4096):
            block = content[at : at + 4096]
            file.seek(len(block), os.SEEK_CUR) if not any(block) else file.write(block)
        file.truncate(len(content))


def linked_segment(store_dir: Path, rng: Rng) -> None:
    """A good segment is there once more, under another name or by a link."""
    source = rng.choice(sorted(store_dir.glob("seg-*.h5")))
    path = new_path(store_dir, rng)
    rng.choice([path.symlink_to, path.hardlink_to])(source)


def hostile_texts(store_dir: Path, rng: Rng) -> None:
    """Derived files of the right kind with claims that are none."""
    number = rng.choice(["1" + "0" * 400, "1e400", "NaN", "-1", '"1"', "[" * 3000, "1" + "0" * 5000])
    recipe = json.loads(RECIPE.to_json())
    texts = {
        "timings.json": f'{{"n_images": {number}, "elapsed_s": {number}}}',
        "recipe.json": json.dumps(recipe | {"image_size": [10**400, 3]})
        if rng.random() < 0.5
        else rng.choice(["[" * 100_000, json.dumps(recipe | {"resize": "x" * 10**6}), "null", '"x"']),
        "dim.json": f'{{"{"ab" * 32}": {number}}}',
        "skipped.csv": "path,digest,reason,decoder\n" + rng.choice(['"', "x" * 200_000, "\0,,,\n", "a,b,c,d\n", "a\n"]),
    }
    for name in rng.sample(sorted(texts), rng.randint(1, 4)):
        (store_dir / name).write_text(texts[name])


def hostile_virtual_dataset(store_dir: Path, rng: Rng) -> None:
    """`features.h5` with other lists of segments: of any type, length and place."""
    path = store_dir / "features.h5"
    names = [file.name for file in sorted(store_dir.glob("seg-*.h5"))]
    kind = rng.randint(0, 6)
    is_kept = rng.random() < 0.5 and h5py.is_hdf5(path)  # an attack before this one may have left something else
    with h5py.File(path, "r+" if is_kept else "w") as file:
        if "segments" in file:
            del file["segments"]
        if kind == 0:
            file.create_dataset("segments", (2**40,), "S40", chunks=(1000,), fletcher32=True)
        elif kind == 1:
            file["segments"] = names  # of variable length
        elif kind == 2:
            file["segments"] = h5py.ExternalLink("/etc/passwd", "x")
        elif kind == 3:
            file["segments"] = np.array([b"../../x", b"\x1b[2J", b"\xff" * 40])
        elif kind == 4:
            file.create_dataset("segments", (100,), "S1000000", chunks=(1,), fletcher32=True)
        elif kind == 5:
            plain(file, "segments", np.array([name.encode() for name in names]))
        else:
            file.create_dataset("segments", (5,), "S40", external=[("/dev/zero", 0, 200)])
    if kind == 1:
        content = path.read_bytes()
        start = content.find(b"GCOL")
        path.write_bytes(content[: start + 16] + bytes(len(content) - start - 16))


def odd_neighbours(store_dir: Path, rng: Rng) -> None:
    """Other entries of the cache that are odd: files, FIFOs, folders like stores, networks that are none."""
    cache = store_dir.parent
    odd_file(cache / rng.choice(["x", "vgg16-block1_pool-32x32-00000000", "seg-1.h5"]), rng)
    networks = cache / "networks"
    networks.mkdir()
    for _ in range(rng.randint(1, 3)):
        odd_file(networks / f"{rng.randbytes(4).hex()}.zip", rng)
    third = cache / "vgg16-block5_pool-64x64-12345678"
    third.mkdir()
    for name in rng.sample(["recipe.json", "seg-1.h5", "features.h5", "skipped.csv"], 2):
        odd_file(third / name, rng)
    deep = cache / "deep"
    for _ in range(rng.choice([1, 100])):
        deep /= "d" * rng.choice([1, 20])
    deep.mkdir(parents=True)


KINDS: tuple[Callable[[Path, Rng], None], ...] = (
    other_shape,
    many_of_other_shape,
    other_filters,
    skipped_filter,
    huge_claim,
    elsewhere,
    odd_types,
    odd_attributes,
    newer,
    odd_version,
    variable_length,
    not_finite,
    false_checksums,
    zero_digests,
    odd_layout,
    circles,
    odd_names,
    odd_derived_file,
    odd_segment_file,
    sparse_segment,
    sparse_claims,
    linked_segment,
    hostile_texts,
    hostile_virtual_dataset,
    odd_neighbours,
)


# What must hold


def check_case(number: int, sound: Path, folder: Path) -> None:
    """Attack a copy of the cache `sound`, and use it in every way."""
    rng = Rng(number)
    shutil.rmtree(folder, ignore_errors=True)
    cache = Path(shutil.copytree(sound, folder / "cache"))
    store_dir = cache / RECIPE.slug
    good = {path: path.read_bytes() for path in store_dir.glob("seg-*.h5")}
    beside = {path: path.read_bytes() for path in (cache / OTHER.slug).iterdir()}
    kinds = [KINDS[number % len(KINDS)], *rng.sample(KINDS, rng.choice([0, 0, 1, 2]))]
    for kind in dict.fromkeys(kinds):
        kind(store_dir, rng)
    is_refused = newer in kinds

    check_listing(cache, is_refused=is_refused)
    for again in (False, True):
        check = check_cache(cache, mend=again)
        checks = {store.dir.name: store for store in check.stores}
        assert not checks[OTHER.slug].damages
        assert checks[OTHER.slug].n_rows == len(BESIDE)
        if not is_refused:
            assert not {damage.path for damage in checks[RECIPE.slug].damages} & good.keys()
            assert checks[RECIPE.slug].n_rows >= len(GOOD)
        use_store(cache, is_refused=is_refused, is_mended=again)
        assert FeatureStore(cache, OTHER).read(BESIDE).tobytes() == features_of(BESIDE).tobytes()
        if number % 25 == 0:
            run_commands(cache)
    if number % 5 == 0:
        try:
            compact_cache(cache)
        except FeatxError:
            assert is_refused or kinds_make_folders(store_dir) or check.problems or odd_neighbours in kinds
        use_store(cache, is_refused=is_refused, is_mended=True)
    assert {path: path.read_bytes() for path in (cache / OTHER.slug).iterdir()} == beside
    if is_refused:
        assert {path: path.read_bytes() for path in good} == good


def check_listing(cache: Path, *, is_refused: bool) -> None:
    """List the cache: the store beside is as it was, and the one that was attacked is there."""
    entries = {entry.name: entry for entry in list_cache(cache)}
    listed = entries[OTHER.slug].store
    assert listed
    assert listed.n_images == len(BESIDE)
    assert entries[RECIPE.slug].kind == "store"
    assert bool(entries[RECIPE.slug].problem) == is_refused, entries[RECIPE.slug].problem


def kinds_make_folders(store_dir: Path) -> bool:
    """Whether a folder is where a derived file belongs, which no program can write then."""
    return any((store_dir / name).is_dir() for name in ("recipe.json", "timings.json", "features.h5", "skipped.csv"))


def use_store(cache: Path, *, is_refused: bool, is_mended: bool) -> None:
    """Read every row that the store says it has, and publish it.

    HDF5 alone sees right rows once all of them have been verified.
    """
    store_dir = cache / RECIPE.slug
    SkippedImages(store_dir / "skipped.csv").reason(bytes(GOOD[0]))
    DimImages(store_dir / "dim.json").among(GOOD, str)
    if is_refused:
        with pytest.raises(StoreError, match="Update featx"):
            FeatureStore(cache, RECIPE)
        return
    store = FeatureStore(cache, RECIPE)
    store.cost(GOOD)
    assert store.read(GOOD).tobytes() == features_of(GOOD).tobytes()
    for _ in range(10):
        digests, views = (
            np.concatenate([getattr(segment, name) for segment in store.segments]) for name in ("digests", "views")
        )
        try:
            features = store.read(digests, views)
        except DamagedSegmentError:
            continue
        assert features.tobytes() == features_of(digests).tobytes()
        break
    else:
        raise AssertionError("it does not get well")
    assert store.read(GOOD).tobytes() == features_of(GOOD).tobytes()
    try:
        store.publish()
    except StoreError:
        assert kinds_make_folders(store_dir)
        return
    if is_mended:
        with h5py.File(store_dir / "features.h5") as file:
            assert len(file["features"]) >= len(GOOD)
            assert file["features"][:].tobytes() == features_of(file["digest"][:]).tobytes()


def run_commands(cache: Path) -> None:
    """Run commands; whatever they say, it is no traceback."""
    from featx.cli.main import main

    for words in (["ls"], ["ls", "--json"], ["verify"], ["verify", "--json"], ["rm", "--quarantined", "--yes"]):
        result = CliRunner().invoke(main, ["cache", *words, "--cache-dir", str(cache)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code in {0, 1, 2}


def main() -> None:
    """Work through the cases that the command line names."""
    folder, first, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    import featx.cli.main  # noqa: F401 - its memory is not that of the first case that uses it

    os.fsync = lambda _descriptor: None  # nothing is killed here, and waiting for the disk would take most of the time
    logging.getLogger("featx").addHandler(logging.NullHandler())
    make_caches(folder / "sound")
    check_case(KINDS.index(linked_segment), folder / "sound", folder / "case")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, stop):
        print(number, KINDS[number % len(KINDS)].__name__, flush=True)
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        check_case(number, folder / "sound", folder / "case")
        faulthandler.cancel_dump_traceback_later()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
        assert grown <= LIMIT_BYTES, f"{grown >> 20} MiB"


if __name__ == "__main__":
    main()
