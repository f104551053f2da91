"""What a folder holds, without reading more of it than is quick: all digests if they are to be had, else a sample."""

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

from featx.dataset import Data, ImageDataset, StatCache, digest_files, list_images, scan_listed
from featx.engines import N_CALIBRATION
from featx.storage import StatKeys

#: Images that are timed.
N_SAMPLE = 64

#: All images are read for their digests if that takes no longer than this, by the rate at which the sample was read.
DIGEST_LIMIT_S = 15.0

#: The share of images that becomes the test split where there is none, as `featx.scan` has it. Which they are
#: is decided by their content.
_TEST_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Survey:
    """What a folder holds.

    Attributes:
        dataset: the images whose digests are known: all that can be read, unless `n_unread` says otherwise.
        n_images: images, those that were not read included.
        n_train: of them in the train split; about so many if `n_unread`, and there is no test split.
        size_bytes: of all their files.
        n_unread: images that were only counted, because reading them all would take too long.
        listing_s: seconds that finding the files has taken.
        reading_s: seconds that reading the unread ones for their digests will take, at the rate of the sample.
    """

    dataset: ImageDataset
    n_images: int
    n_train: int
    size_bytes: int
    n_unread: int
    listing_s: float
    reading_s: float

    @property
    def n_unread_train(self) -> int:
        """How many of the unread images are in the train split."""
        return max(0, self.n_train - self.dataset.n_train) if self.n_unread else 0


def survey(data: Data, cache_dir: Path, *, show: bool = False) -> Survey:
    """Return what is in a data set's folder on this machine.

    Args:
        data: as for `featx.dataset.scanning.scan`.
        cache_dir: remembers digests of files.
        show: show progress on stderr.

    Raises:
        DatasetError: there are no images, or it is not clear which folders are the classes.
    """
    started = time.perf_counter()
    listed = list_images(data, show=show)
    files = listed.dataset
    root = os.fsencode(str(files.root.resolve()))
    names = [os.path.join(root, os.fsencode(path)) for path in files.paths]  # noqa: PTH118 - a Path cannot hold bytes
    is_known, sizes = _look_up(names, cache_dir)
    listing_s = time.perf_counter() - started
    size_bytes = int(sizes.sum())
    unread = np.flatnonzero(~is_known)
    # The sample, images to calibrate int8 on, and what tells how fast files are read here.
    chosen = [(np.arange(len(names)), N_SAMPLE), (np.flatnonzero(~files.is_test), N_CALIBRATION), (unread, N_SAMPLE)]
    rows = np.unique(np.concatenate([_spread(files.paths, among, n) for among, n in chosen]))
    started = time.perf_counter()
    digest_files([names[row] for row in rows], cache_dir)
    n_read = int(np.count_nonzero(~is_known[rows]))
    left = np.setdiff1d(unread, rows)
    reading_s = (time.perf_counter() - started) / max(1, n_read) * len(left)
    if reading_s <= DIGEST_LIMIT_S:
        dataset = scan_listed(listed, cache_dir, to_train=False, show=show)
        return Survey(dataset, dataset.n_images, dataset.n_train, size_bytes, 0, listing_s, 0.0)
    dataset = _with_digests(files, names, np.setdiff1d(np.arange(len(names)), left), cache_dir)
    n_train = files.n_train
    if not files.n_test:
        n_train = round((1 - _TEST_SHARE) * n_train)
    return Survey(dataset, len(names), n_train, size_bytes, len(left), listing_s, reading_s)


def sample_rows(dataset: ImageDataset) -> np.ndarray:
    """Return `(k,)` int64, k ≤ `N_SAMPLE`: rows of images all over a data set, always the same ones.

    They are those whose paths have the smallest hashes.
    """
    return _spread(dataset.paths, np.arange(dataset.n_images), N_SAMPLE)


def _with_digests(files: ImageDataset, names: Sequence[bytes], rows: np.ndarray, cache_dir: Path) -> ImageDataset:
    """Return those of the files `rows` that can be read, whose digests are in the cache."""
    digests, reasons = digest_files([names[row] for row in rows], cache_dir)
    kept = np.setdiff1d(np.arange(len(rows)), list(reasons))
    is_kept = np.zeros(files.n_images, bool)
    is_kept[rows[kept]] = True
    unreadable = tuple((files.paths[rows[row]], reason) for row, reason in reasons.items())
    return replace(files.subset(is_kept), digests=digests[kept], unreadable=unreadable, warnings=files.warnings)


def _look_up(names: Sequence[bytes], cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each file's digest is known, `(n,)` bool, and its size in bytes, `(n,)` int64.

    What is no file, or cannot be looked at, counts as known: there is nothing in it to read.
    """
    is_known, sizes = np.ones(len(names), bool), np.zeros(len(names), np.int64)
    with closing(StatCache(cache_dir)) as cache:
        known = cache.lookup(names)
    keys = StatKeys()
    for row, name in enumerate(names):
        try:
            status = os.stat(name)  # noqa: PTH116 - a Path cannot hold bytes
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            entry = known.get(name)
            sizes[row] = status.st_size
            is_known[row] = entry is not None and entry.key == keys.of(name, status)
    return is_known, sizes


def _spread(paths: Sequence[str], rows: np.ndarray, n: int) -> np.ndarray:
    """Return those `n` of `rows` whose paths have the smallest hashes: anywhere in the data set, always the same."""
    return np.array(heapq.nsmallest(n, rows.tolist(), key=lambda row: _path_hash(paths[row])), np.int64)


def _path_hash(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(path)).digest()
