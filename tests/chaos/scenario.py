"""What the chaos suite works on: a small data set, its undisturbed features, and how a store is held against them."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from featx.extract.extract import Extraction, extract_features
from featx.recipe import Recipe
from featx.storage.stat_key import RACY_NS
from featx.store.feature_store import FeatureStore
from tests.onnx_networks import write_network

OPTIONS: dict[str, Any] = {
    "weights": "random",
    "image_size": (32, 32),
    "layer": "block1_pool",
    "precision": "float32",
}
#: A network beside the folder of images, which is then the backbone.
ONNX_NAME = "network.onnx"
BATCH_SIZE = 4
ROW_BYTES = 16 * 16 * 64 * 2
#: Rows of one segment in these tests.
SEGMENT_ROWS = 8

#: The same as words on the command line.
OPTION_WORDS = [
    *("--weights", "random"),
    *("--image-size", "32"),
    *("--layer", "block1_pool"),
    *("--precision", "float32"),
    *("--batch-size", str(BATCH_SIZE)),
]

#: What may lie in a store when nobody is at work.
STORE_FILES = {"features.h5", "recipe.json", "timings.json", "skipped.csv"}

Rows = dict[bytes, bytes]


def write_images(root: Path, n: int, *, n_bad: int = 2, first: int = 0) -> Path:
    """Write `n` different small JPEG images from number `first` on, and `n_bad` that cannot be read, a year ago."""
    for number in range(first, first + n):
        rng = np.random.default_rng(number)
        pixels = np.clip(rng.normal(rng.uniform(60, 200, 3), 30, (24, 28, 3)), 0, 255).astype(np.uint8)
        # Names that sort as the numbers do not: files are read in an order that has nothing to do with the classes.
        path = image_path(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    for number in range(n_bad):
        (root / "train" / "wood" / f"bad.{number}.jpg").write_bytes(b"no image %d" % number)
    make_old(root)
    return root


def image_path(root: Path, number: int) -> Path:
    """Return where `write_images` puts an image."""
    return root / ("test" if number % 4 == 3 else "train") / ("sea", "wood")[number // 4 % 2] / f"{number:04d}.jpg"


def make_old(root: Path) -> None:
    """Date all files back, and wait: the digests of files that have just changed are not remembered."""
    for path in root.rglob("*.jpg"):
        os.utime(path, ns=(10**18, 10**18))
    time.sleep(RACY_NS / 10**9)


def write_onnx(data: Path) -> None:
    """Make an ONNX network the backbone for the images in `data`: its rows are as large as the others."""
    write_network(data.parent / ONNX_NAME, width=64)


def options_for(data: Path) -> dict[str, Any]:
    """Return the options of the recipe for the images in `data`."""
    path = data.parent / ONNX_NAME
    onnx = {"backbone": path, "preprocess": "mean=127,std=128", "layer": "relu1", "precision": "float32"}
    return onnx if path.exists() else OPTIONS


def extract(data: Path, cache: Path) -> Extraction:
    """Extract in this process, undisturbed, and hold the digest of every image against its file."""
    extraction = extract_features(data, cache_dir=cache, batch_size=BATCH_SIZE, **options_for(data))
    dataset = extraction.dataset
    for path, digest in zip(dataset.paths, dataset.digests, strict=True):
        assert hashlib.sha256((dataset.root / path).read_bytes()).digest() == bytes(digest), path
    return extraction


def segment_rows(store_dir: Path) -> Rows:
    """Return the rows of all segments, by digest, as HDF5 gives them: no code of featx is in between."""
    rows: Rows = {}
    for path in sorted(store_dir.glob("seg-*.h5")):
        with h5py.File(path, "r") as file:
            rows |= _rows(file)
    return rows


def shown_rows(store_dir: Path) -> list[tuple[bytes, bytes]]:
    """Return what `features.h5` shows, row by row; nothing if there is none."""
    path = store_dir / "features.h5"
    if not path.exists():
        return []
    with h5py.File(path, "r") as file:
        digests, features = file["digest"][:], file["features"][:]
    return [(bytes(digest), row.tobytes()) for digest, row in zip(digests, features, strict=True)]


def _rows(file: h5py.File) -> Rows:
    return {bytes(digest): row.tobytes() for digest, row in zip(file["digest"][:], file["features"][:], strict=True)}


@dataclass(frozen=True)
class Scenario:
    """A data set and what is true of it.

    Attributes:
        data: the folder of images.
        networks_dir: the converted network.
        recipe: of the features.
        reference: the features of every image, by digest, from an undisturbed run.
    """

    data: Path
    networks_dir: Path
    recipe: Recipe
    reference: Rows

    @classmethod
    def of(cls, data: Path, networks_dir: Path, cache: Path) -> "Scenario":
        """Extract `data` undisturbed, in `cache`."""
        new_cache(cache, networks_dir)
        extraction = extract(data, cache)
        reference = segment_rows(extraction.store_dir)
        assert len(reference) == extraction.n_computed
        return cls(data, networks_dir, extraction.recipe, reference)

    def new_cache(self, cache: Path) -> Path:
        """Make an empty cache that has the converted network."""
        return new_cache(cache, self.networks_dir)

    def store_dir(self, cache: Path) -> Path:
        """Return the folder of the store in `cache`."""
        return cache / self.recipe.slug

    @property
    def digests(self) -> np.ndarray:
        """The digests of all images, `(n, 32)` uint8."""
        return np.frombuffer(b"".join(self.reference), np.uint8).reshape(-1, 32)

    def wrong(self, rows: Iterable[tuple[bytes, bytes]]) -> list[str]:
        """Return the digests of the rows that are not as in the reference."""
        return [digest.hex() for digest, row in rows if self.reference.get(digest) != row]

    def readable_rows(self, cache: Path) -> Rows:
        """Return what featx reads from a store, by digest.

        Raises:
            FeatxError: it finds a damage.
        """
        store = FeatureStore(cache, self.recipe)
        digests = self.digests[store.contains(self.digests)]
        features = store.read(digests)
        return {bytes(digest): row.tobytes() for digest, row in zip(digests, features, strict=True)}

    def assert_nothing_damaged(self, cache: Path) -> None:
        """Assert that no segment was ever found damaged: a final name never holds a part of a file."""
        assert [path.name for path in self.store_dir(cache).glob("damaged-*")] == []

    def assert_no_leftovers(self, cache: Path) -> None:
        """Assert that an hour later, the next run leaves nothing but what belongs to a store."""
        store_dir = self.store_dir(cache)
        for path in store_dir.glob(".tmp-*"):
            os.utime(path, (0, 0))
        assert extract(self.data, cache).n_computed == 0
        others = [path.name for path in store_dir.iterdir() if path.name not in STORE_FILES]
        assert [name for name in others if not name.startswith("seg-")] == []


def new_cache(cache: Path, networks_dir: Path) -> Path:
    """Make an empty cache with the converted networks in `networks_dir`."""
    cache.mkdir(parents=True)
    (cache / "networks").symlink_to(networks_dir, target_is_directory=True)
    return cache


def copy_cache(source: Path, target: Path) -> Path:
    """Copy a cache; a link to networks stays a link."""
    return Path(shutil.copytree(source, target, symlinks=True))
