"""Features in, segments out."""

import time
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from featx.store import FeatureStore, new_segment_name
from featx.timings import Stopwatch, Timings

#: A segment is closed when it holds so many bytes or is so old: this is what a kill can cost.
SEGMENT_BYTES = 64 << 20
SEGMENT_AGE_S = 60.0


class SegmentWriter:
    """Collects rows and writes them as segments. Leaving its context, in whatever way, writes the rest.

    Attributes:
        timings: what all rows written so far have cost.
    """

    def __init__(self, store: FeatureStore, stopwatch: Stopwatch) -> None:
        """Begin an empty segment; `stopwatch` knows what its rows cost."""
        self.timings = Timings()
        self._store = store
        self._stopwatch = stopwatch
        self._features = np.empty((0,))
        self._digests = np.empty((0, 32), np.uint8)
        self._n_rows = 0
        self._begun = time.monotonic()
        self._name = new_segment_name()

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

    def add(self, features: np.ndarray, digests: np.ndarray) -> None:
        """Add rows: `features` `(n, …)` of the storage dtype, `digests` `(n, 32)` uint8."""
        if not len(self._features):
            self._allocate(features)
        for start in range(0, len(features), len(self._features)):
            part = slice(start, start + len(self._features))
            if self._n_rows + len(digests[part]) > len(self._features):
                self.flush()
            if not self._n_rows:
                self._begun = time.monotonic()
                # Chosen now, so that a write that is interrupted and tried again leaves one segment, not two.
                self._name = new_segment_name()
            rows = slice(self._n_rows, self._n_rows + len(digests[part]))
            self._features[rows] = features[part]
            self._digests[rows] = digests[part]
            self._n_rows = rows.stop
        if time.monotonic() - self._begun > SEGMENT_AGE_S:
            self.flush()

    def flush(self) -> None:
        """Write the rows collected so far as a segment."""
        if self._n_rows:
            rows = slice(0, self._n_rows)
            lap = partial(self._stopwatch.lap, self._n_rows)
            with self._stopwatch.phase("write"):
                timings = self._store.write_segment(self._name, self._features[rows], self._digests[rows], lap)
            self._n_rows = 0
            self._stopwatch.next_lap()
            self.timings += timings

    def _allocate(self, features: np.ndarray) -> None:
        n_rows = max(1, SEGMENT_BYTES // max(1, features[0].nbytes))
        self._features = np.empty((n_rows, *features.shape[1:]), features.dtype)
        self._digests = np.empty((n_rows, 32), np.uint8)
