"""Counts the images of a folder and those that a store lacks: exactly if that is quick, else from a sample."""

import hashlib
import heapq
import os
import stat
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featx.dataset import (
    Data,
    ImageDataset,
    Images,
    SkippedImages,
    StatCache,
    digest_files,
    images_of,
    list_images,
    scan_listed,
    views_of,
)
from featx.engines import N_CALIBRATION
from featx.extract.planning.estimate import Work
from featx.images import Views
from featx.recipe import Recipe
from featx.storage import StatKeys
from featx.store import FeatureStore, row_names

#: Images that are timed.
N_SAMPLE = 64

#: All images are read for their digests if that takes no longer than this, by the rate at which some were read.
DIGEST_LIMIT_S = 5.0

#: The share of images that becomes the train split where there is no test split, as `featx.scan` has it.
_TRAIN_SHARE = 0.8


@dataclass(frozen=True, eq=False)
class Survey:
    """What a folder holds.

    Attributes:
        dataset: the images whose digests are known: all that can be read, unless `n_unread` says otherwise.
        n_images: images, those that were not read included.
        n_train: images in the train split; an estimate if `n_unread`, and there is no test split.
        size_bytes: of all their files.
        n_unread: images that were only counted, because reading them all would take too long.
        listing_s: seconds for finding the files, and for reading the unread ones, at the rate at which some were read.
    """

    dataset: ImageDataset
    n_images: int
    n_train: int
    size_bytes: int
    n_unread: int
    listing_s: float


def survey(data: Data, cache_dir: Path, *, show: bool = False) -> Survey:
    """Return what is in a data set's folder on this machine.

    Args:
        data: as for `featx.dataset.scanning.scan`.
        cache_dir: remembers digests of files.
        show: show progress on stderr.

    Raises:
        DatasetError: there are no images, or it is not clear which folders are the classes.
    """
    if isinstance(data, ImageDataset):
        _, size_bytes = _look_up(_file_names(data), cache_dir)
        return Survey(data, data.n_images, data.n_train, size_bytes, 0, 0.0)
    started = time.perf_counter()
    listed = list_images(data, to_train=False, show=show)
    files = listed.dataset
    names = _file_names(files)
    is_known, size_bytes = _look_up(names, cache_dir)
    listing_s = time.perf_counter() - started
    # Some are to be timed, int8 is calibrated on some, and some show how fast files are read.
    unread = np.flatnonzero(~is_known)
    chosen = [(np.arange(len(names)), N_SAMPLE), (np.flatnonzero(~files.is_test), N_CALIBRATION), (unread, N_SAMPLE)]
    some = np.unique(np.concatenate([_spread(files.paths, among, n) for among, n in chosen]))
    started = time.perf_counter()
    digest_files([names[row] for row in some], cache_dir)
    reading_s = (time.perf_counter() - started) / max(1, int(np.count_nonzero(~is_known[some])))
    unread = np.setdiff1d(unread, some)
    if reading_s * len(unread) <= DIGEST_LIMIT_S:
        dataset = scan_listed(listed, cache_dir, to_train=False, show=show)
        return Survey(dataset, dataset.n_images, dataset.n_train, size_bytes, 0, listing_s)
    dataset = _digested(files, names, np.setdiff1d(np.arange(len(names)), unread), cache_dir)
    n_train = files.n_train if files.n_test else round(_TRAIN_SHARE * files.n_train)
    return Survey(dataset, len(names), n_train, size_bytes, len(unread), listing_s + reading_s * len(unread))


def _file_names(files: ImageDataset) -> list[bytes]:
    root = os.fsencode(str(files.root.resolve()))
    return [os.path.join(root, os.fsencode(path)) for path in files.paths]  # noqa: PTH118 - a Path cannot hold bytes


def _look_up(names: Sequence[bytes], cache_dir: Path) -> tuple[np.ndarray, int]:
    """Return whether each file's digest is known, `(n,)` bool, and the bytes of all files.

    What is no file, or cannot be looked at, counts as known: there is nothing in it to read.
    """
    with closing(StatCache(cache_dir)) as cache:
        known = cache.lookup(names)
    is_known, size_bytes, keys = np.ones(len(names), bool), 0, StatKeys()
    for row, name in enumerate(names):
        try:
            status = os.stat(name)  # noqa: PTH116 - a Path cannot hold bytes
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            size_bytes += status.st_size
            is_known[row] = name in known and known[name].key == keys.of(name, status)
    return is_known, size_bytes


def _digested(files: ImageDataset, names: Sequence[bytes], rows: np.ndarray, cache_dir: Path) -> ImageDataset:
    """Return those of the files `rows` that can be read."""
    digests, reasons = digest_files([names[row] for row in rows], cache_dir)
    kept = np.setdiff1d(np.arange(len(rows)), list(reasons))
    dataset = files.subset(np.isin(np.arange(files.n_images), rows[kept]))
    unreadable = tuple((files.paths[rows[row]], reason) for row, reason in reasons.items())
    return replace(dataset, digests=digests[kept], unreadable=unreadable, warnings=files.warnings)


def sample_rows(dataset: ImageDataset) -> np.ndarray:
    """Return `(k,)` int64, k ≤ `N_SAMPLE`: rows of images all over a data set, always the same ones."""
    return _spread(dataset.paths, np.arange(dataset.n_images), N_SAMPLE)


def _spread(paths: Sequence[str], rows: np.ndarray, n: int) -> np.ndarray:
    """Return those `n` of `rows` whose paths have the smallest hashes: anywhere in the data set, always the same."""

    def hash_of(row: int) -> bytes:
        return hashlib.sha256(os.fsencode(paths[row])).digest()

    return np.array(heapq.nsmallest(n, rows.tolist(), key=hash_of), np.int64)


def missing_work(found: Survey, recipe: Recipe, views: Views | None, cache_dir: Path) -> tuple[Work, Work | None]:
    """Return how many of the images have features and how many are missing, and the same for their views.

    Raises:
        StoreError: the store cannot be read.
    """
    store = FeatureStore(cache_dir, recipe)
    skipped = SkippedImages(store.dir / "skipped.csv")
    is_readable = [skipped.reason(digest.tobytes()) is None for digest in found.dataset.digests]
    dataset = found.dataset.subset(np.array(is_readable, bool))
    images = _count(images_of(dataset), store, found.n_unread)
    if views is None:
        return images, None
    viewed = dataset.subset(views.of_test | ~dataset.is_test)
    n_unread = found.n_unread
    if n_unread and not views.of_test:
        n_unread = max(0, found.n_train - found.dataset.n_train)
    store = FeatureStore(cache_dir, replace(recipe, augmentation=views.augmentation))
    return images, _count(views_of(viewed, views.n), store, n_unread * views.n)


def _count(images: Images, store: FeatureStore, n_unread: int) -> Work:
    """Return what there is to do about `images`, and about `n_unread` others of which nothing is known."""
    is_cached = store.contains(images.digests, images.views)
    names = row_names(images.digests, np.broadcast_to(images.views, len(images)))
    return Work(n_cached=int(is_cached.sum()), n_missing=len(np.unique(names[~is_cached])) + n_unread)
