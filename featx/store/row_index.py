"""Which rows a store has, and where: its segments, and an index of the rows of all of them.

Other processes may add and merge segments meanwhile. Whoever looks sees every row, or gets an error.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from featx.errors import StoreError, system_errors
from featx.storage import RemotePath, StoragePath
from featx.store.segment_file import ROW_NAME, Segment, row_names
from featx.system import DaemonThreads, shown
from featx.text import printable

#: Seconds after which a store whose segments still come and go is taken for trouble.
PATIENCE_S = 60.0

#: Segments of a store elsewhere that are looked at side by side: most of the time is spent waiting.
AT_ONCE = 16

T = TypeVar("T")


def look_at_segments(
    store_dir: StoragePath,
    look: Callable[[StoragePath], T],
    known: Mapping[StoragePath, T] = MappingProxyType({}),
    *,
    at_once: int = AT_ONCE,
) -> dict[StoragePath, T]:
    """Return what `look` says of each segment, sorted by path; those that go meanwhile are left out.

    Rows are merged by writing them to a new segment before the old ones are removed, so that a single listing can
    miss both. Two that agree have seen all rows: what the first missed because it came too late is in the second.

    Args:
        store_dir: the folder of a store.
        look: called once with each segment, by several threads if the store is elsewhere; may raise FileNotFoundError
            where one has gone.
        known: what it has said before. A name is never given to another segment.
        at_once: segments elsewhere that are looked at at the same time.

    Raises:
        StoreError: the folder cannot be read, or segments come and go without end.
    """
    seen = dict(known)
    before: list[StoragePath] | None = None
    deadline = time.monotonic() + PATIENCE_S
    while (paths := segment_paths(store_dir)) != before or not seen.keys() >= set(paths):
        if time.monotonic() > deadline:
            raise StoreError(
                f"Other processes change the segments of {printable(store_dir)} faster than featx can read them; "
                f"try again when fewer processes use this store."
            )
        seen |= _looked_at([path for path in paths if path not in seen], look, at_once)
        before = paths
    return {path: seen[path] for path in paths}


def segment_paths(store_dir: StoragePath) -> list[StoragePath]:
    """Return the segments in the folder of a store, sorted; none if there is no folder.

    Raises:
        StoreError: it cannot be read.
    """
    found: list[StoragePath] = []
    with system_errors(f"The store {printable(store_dir)}", "read", kind=StoreError), suppress(FileNotFoundError):
        found = [path for path in store_dir.glob("seg-*.h5") if path.is_file()]
    return sorted(found, key=lambda path: path.name)


class RowIndex:
    """Finds rows among those of several segments, numbered from 0 through all of them.

    Names are sorted by a key of 64 bits, which sorts twenty times as fast as names do. Rows of one key are told apart
    by their names, so that two images whose digests begin alike are still two.

    Attributes:
        segments: in the order of their rows.
        keys: `(n,)` uint64, ascending: of each name that no index before this one has.
        sorted_rows: `(n,)` int64, their rows.
        n_in_memory: rows whose part of the index is not in a file.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        after: "RowIndex | None" = None,
    ) -> None:
        """Index `segments`; of rows with one name, which two processes may both have computed, the first counts.

        Args:
            segments: whose rows to index.
            known: their `keys` and `sorted_rows`, if these were computed before.
            after: the index of other segments, which come before these.
        """
        self.segments: Sequence[Segment] = [*(after.segments if after else ()), *segments]
        self._starts = np.cumsum([0, *map(len, self.segments)])
        self._after = after
        self.n_in_memory = 0 if known else sum(map(len, segments))
        if known:
            self.keys, self.sorted_rows = known
            return
        keys = np.concatenate([np.empty(0, np.uint64), *(_keys(part.digests, part.views) for part in segments)])
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
        is_own = np.concatenate([np.empty(0, bool), *(_is_missing(part, after) for part in segments)])[rows]
        rows += int(self._starts[-1]) - self.n_in_memory
        is_own &= self._is_first_of_its_name(keys, rows)
        self.keys, self.sorted_rows = keys[is_own], rows[is_own]

    def __len__(self) -> int:
        """Return the number of different names."""
        return len(self.keys) + (len(self._after) if self._after else 0)

    @property
    def rows(self) -> np.ndarray:
        """`(n,)` int64, ascending: the first row of each name."""
        own = np.sort(self.sorted_rows)
        return np.concatenate([self._after.rows, own]) if self._after else own

    def find(self, digests: np.ndarray, views: np.ndarray | int) -> np.ndarray:
        """Return `(n,)` int64: the row of each of `digests`, `(n, 32)` uint8, and `views`; -1 where there is none.

        Raises:
            StoreError: they are not digests.
        """
        if np.shape(digests)[1:] != (32,) or getattr(digests, "dtype", None) != np.uint8:
            raise StoreError(f"Digests must be an array of shape (n, 32) and dtype uint8. Received: {shown(digests)}")
        views = np.broadcast_to(views, len(digests)).astype(np.uint16)
        found = self._after.find(digests, views) if self._after else np.full(len(digests), -1, np.int64)
        keys, wanted = _keys(digests, views), row_names(digests, views)
        order = np.argsort(keys)  # of neighbours, a search finds most of its way in the processor's cache
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(self.keys, keys[order])
        left = self._of_same_key(np.flatnonzero(found < 0), at, keys)
        while len(left):
            rows = self.sorted_rows[at[left]]
            is_it = self.names(rows) == wanted[left]
            found[left[is_it]] = rows[is_it]
            left = left[~is_it]
            at[left] += 1
            left = self._of_same_key(left, at, keys)
        return found

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the segment of each of `rows`, `(n,)` int64, and its row there."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        return numbers, rows - self._starts[numbers]

    def names(self, rows: np.ndarray) -> np.ndarray:
        """Return the names `(n,)` of `rows`, `(n,)` int64."""
        names = np.empty(len(rows), ROW_NAME)
        numbers, in_segment = self.locate(rows)
        for number, which in grouped(numbers):
            segment, there = self.segments[number], in_segment[which]
            names[which] = row_names(segment.digests[there], segment.views[there])
        return names

    def _of_same_key(self, which: np.ndarray, at: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return those of `which` whose key stands at their place in the index."""
        which = which[at[which] < len(self.keys)]
        here: np.ndarray = which[self.keys[at[which]] == keys[which]]
        return here

    def _is_first_of_its_name(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return `(n,)` bool: which of `rows`, sorted by `keys`, are the first with their name."""
        is_first = np.ones(len(keys), bool)
        alike = np.zeros(len(keys), bool)
        same = keys[1:] == keys[:-1]
        alike[1:] |= same
        alike[:-1] |= same
        among = np.flatnonzero(alike)
        is_first[among] = False
        _, first = np.unique(self.names(rows[among]), return_index=True)
        is_first[among[first]] = True
        return is_first


def grouped(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each different one of `numbers`, `(n,)` integers, ascending, with its places in ascending order.

    >>> [(number, places.tolist()) for number, places in grouped(np.array([7, 5, 7]))]
    [(5, [1]), (7, [0, 2])]
    """
    if not len(numbers):
        return
    order = np.argsort(numbers, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        yield int(numbers[places[0]]), places


def _looked_at(paths: Sequence[StoragePath], look: Callable[[StoragePath], T], at_once: int) -> dict[StoragePath, T]:
    """Return what `look` says of each path; one that has been merged by another process is left out."""

    def looked(path: StoragePath) -> list[tuple[StoragePath, T]]:
        try:
            return [(path, look(path))]
        except FileNotFoundError:
            return []

    if not paths or not isinstance(paths[0], RemotePath):
        return dict(pair for path in paths for pair in looked(path))
    with DaemonThreads(at_once, "featx-index") as pool:
        return dict(pair for pairs in pool.map(looked, paths) for pair in pairs)


def _is_missing(segment: Segment, index: RowIndex | None) -> np.ndarray:
    """Return `(n,)` bool: which rows of a segment have names that are not in the index."""
    missing: np.ndarray = index.find(segment.digests, segment.views) < 0 if index else np.ones(len(segment), bool)
    return missing


def _keys(digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return `(n,)` uint64: the first bytes of each digest, and other bits for each view of one image."""
    start = np.ascontiguousarray(digests[:, :8]).view("<u8").ravel().astype(np.uint64)
    return start ^ (views.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))  # 2⁶⁴ over the golden ratio: spreads
