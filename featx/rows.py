"""Rows of features, in memory or on disk: what training needs to know of either."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]


class StreamedRows(Protocol):
    """Rows `(n, …)` that are on disk, see `featx.store.StoredRows`."""

    #: Bytes of rows that may be held at a time.
    buffer_bytes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, …)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: slice | _Array) -> _Array:
        """Return some rows, in memory."""

    def take(self, rows: slice | _Array) -> "StreamedRows":
        """Return some of the rows; they stay on disk."""

    def followed_by(self, other: Any) -> "StreamedRows":
        """Return these rows, and below them those of `other`; they stay on disk."""

    def in_order(self) -> Iterator[tuple[_Array, _Array]]:
        """Yield all rows as they lie on disk: `(k,)` int64, which ones, and `(k, …)`."""

    def shuffled(self, rng: np.random.Generator, multiple_of: int = 1) -> Iterator[tuple[_Array, _Array]]:
        """Yield all rows in random order: `(k,)` int64, which ones, and `(k, …)`, where `multiple_of` divides k."""


#: Rows `(n, …)`.
Rows = _Array | StreamedRows


@dataclass(frozen=True)
class StreamedViews:
    """The views of images, on disk.

    Attributes:
        rows: those of one image side by side.
        n_views: of each image.
    """

    rows: StreamedRows
    n_views: int

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, n_views, …)`."""
        return (len(self.rows) // self.n_views, self.n_views, *self.rows.shape[1:])


#: Rows of views, `(n, n_views, …)`.
ViewRows = _Array | StreamedViews


def take(rows: Rows, which: _Array) -> Rows:
    """Return the rows `which`, `(k,)` integers or `(n,)` bool, where `rows` are: in memory, or on disk."""
    return rows[which] if isinstance(rows, np.ndarray) else rows.take(which)


def below(rows: Rows, others: Rows) -> Rows:
    """Return `rows`, and below them `others`, where both are: in memory, or on disk."""
    return np.concatenate([rows, others]) if isinstance(rows, np.ndarray) else rows.followed_by(others)


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
