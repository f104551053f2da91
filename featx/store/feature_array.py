"""Features that stay on disk, for training on more of them than fit in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featx.errors import DamagedSegmentError
from featx.store.feature_store import FeatureStore
from featx.store.row_index import grouped
from featx.store.segment_file import Segment

_Array = npt.NDArray[Any]

#: Bytes of features that are held at a time, unless there is less memory.
BUFFER_BYTES = 256 << 20

#: Bytes of rows that are looked at together where they are in memory; on disk, the store decides.
_SLAB_BYTES = 4 << 20

#: Pieces of neighbours that are shuffled with each other, at least.
PIECES_PER_HEAP = 64


class FeatureArray:
    """Features `(n, …)` that are read on demand, with each row checked against its checksum.

    Attributes:
        stores: that have them.
        store_of: `(n,)` uint8, the number of the store that has each row.
        digests: `(n, 32)` uint8, SHA-256 of each row's image file.
        views: `(n,)` uint16, 0 for the image itself.
        buffer_bytes: of features that may be held at a time.
    """

    def __init__(
        self,
        stores: Sequence[FeatureStore],
        store_of: np.ndarray,
        digests: np.ndarray,
        views: np.ndarray,
        buffer_bytes: int,
        places: "_Places | None" = None,
    ) -> None:
        """Represent rows of `stores`; `stored_rows` is the usual way to make one.

        Args:
            stores: whose features have one shape and one dtype.
            store_of: `(n,)` uint8, the number of the store that has each row.
            digests: `(n, 32)` uint8.
            views: `(n,)` uint16.
            buffer_bytes: of features that may be held at a time.
            places: where they are, if that is known.

        Raises:
            FeaturesMissingError: some are not there.
        """
        self.stores, self.store_of, self.digests, self.views = stores, store_of, digests, views
        self.buffer_bytes = buffer_bytes
        self._found = places
        self._places()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, …)`."""
        return (len(self), *self.stores[0].segments[0].feature_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the features."""
        return np.dtype(self.stores[0].recipe.dtype)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the features of `rows`, in memory: a slice, `(k,)` integers, or `(n,)` bool."""
        chosen = self.take(rows)
        out = np.empty(chosen.shape, self.dtype)
        for which, features in chosen.in_order():
            out[which] = features
        return out

    def take(self, rows: slice | np.ndarray) -> "FeatureArray":
        """Return some of the rows; they stay on disk."""
        places = self._places()
        found = _Places(places.lists, places.segments[rows], places.rows[rows])
        return FeatureArray(
            self.stores, self.store_of[rows], self.digests[rows], self.views[rows], self.buffer_bytes, found
        )

    def followed_by(self, other: "FeatureArray") -> "FeatureArray":
        """Return these rows, and below them those of `other`, which are of the same shape; they stay on disk."""
        return FeatureArray(
            [*self.stores, *other.stores],
            np.concatenate([self.store_of, other.store_of + np.uint8(len(self.stores))]),
            np.concatenate([self.digests, other.digests]),
            np.concatenate([self.views, other.views]),
            self.buffer_bytes,
        )

    def in_order(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all rows as they lie on disk, some megabytes at a time: `(k,)` int64, which ones, and `(k, …)`.

        Raises:
            DamagedSegmentError: some failed their checksum; their segment has been quarantined.
            StoreError: the system cannot read them.
        """
        order, _ = self._pieces()
        yield from self._read(order)

    def shuffled(self, rng: np.random.Generator, multiple_of: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all rows in random order, about `buffer_bytes` at a time: `(k,)` int64, which ones, and `(k, …)`.

        Neighbouring rows are fast to read and check, but training needs random ones. So chunks of neighbours are
        distributed at random among groups. The chunks of a group are read in their order on disk, and its rows are
        shuffled.

        Args:
            rng: decides the order.
            multiple_of: k is divisible by this, except for the last part.

        Raises:
            DamagedSegmentError: some failed their checksum; their segment has been quarantined.
            StoreError: the system cannot read them.
        """
        order, starts = self._pieces()
        ends = np.append(starts[1:], len(order))
        n_heaps = min(len(starts), max(1, len(self) * row_bytes(self) // self.buffer_bytes))
        heaps = np.array_split(rng.permutation(len(starts)), n_heaps)
        left = np.empty(0, np.int64), np.empty((0, *self.shape[1:]), self.dtype)
        for number, heap in enumerate(heaps, start=1):
            rows = np.concatenate([order[starts[piece] : ends[piece]] for piece in np.sort(heap)])
            names, features = self._shuffle(rows, left, rng)
            n_whole = len(names) if number == len(heaps) else len(names) - len(names) % multiple_of
            left = names[n_whole:], features[n_whole:].copy()
            yield names[:n_whole], features[:n_whole]

    def _shuffle(
        self, rows: np.ndarray, left: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `rows`, in their order on disk, and what is `left` from before, in random order."""
        n_left, n = len(left[0]), len(left[0]) + len(rows)
        places = rng.permutation(n)
        names, features = np.empty(n, np.int64), np.empty((n, *self.shape[1:]), self.dtype)
        names[places], features[places[:n_left]] = np.concatenate([left[0], rows]), left[1]
        done = n_left
        for which, part in self._read(rows):
            features[places[done : done + len(which)]] = part
            done += len(which)
        return names, features

    def _read(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `rows`, `(n,)` int64 in their order on disk, part by part in that order, with their features."""
        places = self._places()
        of_segments = np.stack([self.store_of[rows], places.segments[rows]])
        edges = np.flatnonzero((np.diff(of_segments, axis=1, prepend=-1, append=-1) != 0).any(axis=0))
        for start, end in pairwise(edges.tolist()):
            these = rows[start:end]
            number = int(of_segments[0, start])
            store, segment = self.stores[number], places.lists[number][of_segments[1, start]]
            n_read = 0
            try:
                for part, features in store.read_segment(segment, places.rows[these]):
                    yield these[part], features
                    n_read = part.stop
            except (FileNotFoundError, DamagedSegmentError) as error:
                rest = these[n_read:]
                if isinstance(error, DamagedSegmentError) and not store.has_elsewhere(
                    self.digests[rest], self.views[rest]
                ):
                    raise
                # Merged by another process, or damaged and there twice: the store finds them where they are now.
                yield rest, store.read(self.digests[rest], self.views[rest])

    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows, `(n,)` int64, in their order on disk, and where there each piece begins, `(p,)` int64.

        A piece is a chunk, or so much of one that a heap has `PIECES_PER_HEAP`: neighbours are often of one class, and
        a heap of few pieces would be of few classes.
        """
        places = self._places()
        order = np.lexsort([places.rows, places.segments, self.store_of])
        first_of_store = np.cumsum([0, *map(len, places.lists)])
        segments = (first_of_store[self.store_of] + places.segments)[order]
        rows_per_chunk = np.array([segment.rows_per_chunk for part in places.lists for segment in part])[segments]
        rows_per_piece = np.minimum(rows_per_chunk, max(1, self.buffer_bytes // (PIECES_PER_HEAP * row_bytes(self))))
        chunks, in_chunk = np.divmod(places.rows[order], rows_per_chunk)
        is_first = np.ones(len(order), bool)
        is_first[1:] = False
        for keys in (segments, chunks, in_chunk // rows_per_piece):
            is_first[1:] |= np.diff(keys) != 0
        return order, np.flatnonzero(is_first)

    def _places(self) -> "_Places":
        """Return where all rows are; looked up again if the stores have changed since."""
        lists = [store.segments for store in self.stores]
        # A store that has changed has another list.
        if self._found is None or any(old is not new for old, new in zip(self._found.lists, lists, strict=True)):
            segments, rows = np.empty(len(self), np.int32), np.empty(len(self), np.int32)
            for number, these in grouped(self.store_of):
                located = self.stores[number].locate(self.digests[these], self.views[these])
                segments[these], rows[these] = located
            self._found = _Places(lists, segments, rows)
        return self._found


def stored_rows(
    store: FeatureStore, digests: np.ndarray, views: np.ndarray | int = 0, *, buffer_bytes: int = BUFFER_BYTES
) -> FeatureArray:
    """Return the features of the images with `digests`, `(n, 32)` uint8, n ≥ 1, in that order; they stay on disk.

    `views` is the number of each one's view, `(n,)`, or one number for all; `buffer_bytes` of features may be held at a
    time.

    Raises:
        FeaturesMissingError: some are not in the store.
    """
    numbers = np.broadcast_to(views, len(digests)).astype(np.uint16)
    return FeatureArray([store], np.zeros(len(digests), np.uint8), digests, numbers, buffer_bytes)


@dataclass(frozen=True)
class StreamedViews:
    """The views of images, on disk.

    Attributes:
        rows: those of one image side by side.
        n_views: of each image.
    """

    rows: FeatureArray
    n_views: int

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, n_views, …)`."""
        return (len(self.rows) // self.n_views, self.n_views, *self.rows.shape[1:])


#: Rows `(n, …)`, in memory or on disk.
Rows = _Array | FeatureArray

#: Rows of views, `(n, n_views, …)`.
ViewRows = _Array | StreamedViews


def take(rows: Rows, which: _Array) -> Rows:
    """Return the rows `which`, `(k,)` integers or `(n,)` bool, where `rows` are: in memory, or on disk."""
    return rows[which] if isinstance(rows, np.ndarray) else rows.take(which)


def in_order(X: Rows) -> Iterator[tuple[npt.NDArray[np.int64], _Array]]:
    """Yield all rows of `X`, `(n, ...)`, in the order in which they lie: which ones, `(k,)`, and the rows."""
    if not isinstance(X, np.ndarray):
        yield from X.in_order()
        return
    size = max(1, _SLAB_BYTES // row_bytes(X))
    for start in range(0, len(X), size):
        rows = np.arange(start, min(start + size, len(X)))
        yield rows, X[rows[0] : rows[-1] + 1]


def below(rows: Rows, others: Rows) -> Rows:
    """Return `rows`, and below them `others`, where both are: in memory, or on disk."""
    if isinstance(rows, np.ndarray):
        return np.concatenate([rows, others])
    return rows.followed_by(cast("FeatureArray", others))


def row_bytes(rows: Rows) -> int:
    """Return the bytes of one row, at least 1."""
    return max(1, int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.dtype.itemsize)


def all_views(views: ViewRows) -> Rows:
    """Return a row for each of `views`, `(n * n_views, …)`, those of one image side by side."""
    return views.rows if isinstance(views, StreamedViews) else views.reshape(-1, *views.shape[2:])


def one_view(views: ViewRows, number: int) -> Rows:
    """Return the views with this number, from 0, `(n, …)`."""
    if isinstance(views, StreamedViews):
        return views.rows.take(slice(number, None, views.n_views))
    return views[:, number]


def take_views(views: ViewRows, mask: _Array) -> ViewRows:
    """Return the views of the images where `mask`, `(n,)` bool, is true."""
    if isinstance(views, StreamedViews):
        return StreamedViews(views.rows.take(np.repeat(mask, views.n_views)), views.n_views)
    return views[mask]


@dataclass(frozen=True)
class _Places:
    """Where rows are: in which segment of `lists`, which has a list for each store, and in which row of it."""

    lists: Sequence[Sequence[Segment]]
    segments: np.ndarray
    rows: np.ndarray
