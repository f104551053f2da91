"""Features in, segments out, each written by another thread while the next is filled."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from featx.errors import StoreError
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system import Stopwatch, Timings

#: A segment is closed when it holds so many bytes or is so old. While it is written, the next is filled: a kill costs
#: twice as much at most.
SEGMENT_BYTES = 32 << 20
SEGMENT_AGE_S = 30.0


class SegmentWriter:
    """Collects rows and writes them as segments. Leaving its context, in whatever way, writes the rest.

    Whoever adds rows waits only if a segment is full and the one before is not yet on disk: there are never more than
    these two in memory. For one thread; only what it calls for is done by another.
    """

    def __init__(self, store: FeatureStore, stopwatch: Stopwatch) -> None:
        """Begin without a row; `stopwatch` knows what rows cost."""
        self._store = store
        self._stopwatch = stopwatch
        self._costs: dict[str, Timings] = {}
        self._filling: _Rows | None = None
        self._handed_over: tuple[_Rows, Future[Timings]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="featx-write")

    @property
    def timings(self) -> Timings:
        """What all rows written so far have cost."""
        return sum(self._costs.values(), Timings())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except KeyboardInterrupt:  # once more: what is finished is kept; a second Ctrl-C gets through
            self.flush()
            raise
        except StoreError:
            if not isinstance(error, StoreError):  # or it has been said already
                raise
        finally:
            self._thread.shutdown(wait=False)

    def add(self, features: np.ndarray, digests: np.ndarray, views: np.ndarray | int = 0) -> None:
        """Add rows: `features` `(n, …)` of the storage dtype, `digests` `(n, 32)` uint8, numbers of `views` `(n,)`.

        Raises:
            StoreError: an earlier segment cannot be written. Leaving the context tries once more.
        """
        if self._handed_over and self._handed_over[1].done():
            self._finish_handed_over()  # which raises what went wrong
        views = np.broadcast_to(views, len(features))
        start = 0
        while start < len(features):
            # Only when others come: the last rows are left to flush, which counts their writing too.
            if self._filling and (self._filling.is_full or self._filling.age_s > SEGMENT_AGE_S):
                self._hand_over(self._filling)
            if self._filling is None:
                self._filling = _Rows(features)
            start += self._filling.take(features[start:], digests[start:], views[start:])

    def flush(self) -> None:
        """Write what has been collected, and wait until all of it is on disk.

        Raises:
            StoreError: it cannot be written.
        """
        with self._stopwatch.phase("write"):
            self._finish_handed_over(try_again=True)
            if self._filling is None:
                return
            rows = self._filling
            self._costs[rows.name] = rows.write(self._store, partial(self._stopwatch.lap, rows.n))
            self._filling = None
        self._stopwatch.next_lap()

    def _hand_over(self, rows: "_Rows") -> None:
        """Have `rows`, which is being filled, written by the other thread, once that has written the rows before."""
        with self._stopwatch.phase("write"):
            self._finish_handed_over()
        rows.cost = self._stopwatch.lap(rows.n)
        task = self._thread.submit(rows.write, self._store, lambda: rows.cost)
        self._filling, self._handed_over = None, (rows, task)
        self._stopwatch.next_lap()

    def _finish_handed_over(self, *, try_again: bool = False) -> None:
        """Wait until the rows that were handed over are on disk. If that failed, `try_again` here, or raise why."""
        if self._handed_over is None:
            return
        rows, task = self._handed_over
        if try_again and task.exception():
            self._costs[rows.name] = rows.write(self._store, lambda: rows.cost)
        else:
            self._costs[rows.name] = task.result()
        self._handed_over = None


class _Rows:
    """The rows of a segment that is not on disk yet.

    Attributes:
        name: the segment's. Chosen before it is written, so that a write that is interrupted and tried again leaves one
            segment, not two.
        n: how many there are.
        cost: what they cost, once they have been handed over.
    """

    def __init__(self, like: np.ndarray) -> None:
        """Make room for rows `like` those of `(n, …)`."""
        capacity = max(1, SEGMENT_BYTES // max(1, like[0].nbytes))
        self._features = np.empty((capacity, *like.shape[1:]), like.dtype)
        self._digests = np.empty((capacity, 32), np.uint8)
        self._views = np.empty(capacity, np.uint16)
        self._begun = time.monotonic()
        self.name = new_segment_name()
        self.n = 0
        self.cost = Timings()

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self.n == len(self._features)

    @property
    def age_s(self) -> float:
        """Seconds since the first row came."""
        return time.monotonic() - self._begun

    def take(self, features: np.ndarray, digests: np.ndarray, views: np.ndarray) -> int:
        """Copy as many rows as there is room for, and return how many those are."""
        into = slice(self.n, min(self.n + len(features), len(self._features)))
        n_taken = into.stop - into.start
        self._features[into] = features[:n_taken]
        self._digests[into] = digests[:n_taken]
        self._views[into] = views[:n_taken]
        self.n = into.stop
        return n_taken

    def write(self, store: FeatureStore, cost: Callable[[], Timings]) -> Timings:
        """Write the segment and return what it cost; see `FeatureStore.write_segment`."""
        rows = slice(self.n)
        return store.write_segment(self.name, self._features[rows], self._digests[rows], cost, self._views[rows])
