"""What features take on the disk: segments are written to see how large they are."""

import math
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featx.recipe import Recipe
from featx.store import CHUNK_BYTES, SEGMENT_AGE_S, SEGMENT_BYTES, FeatureStore, new_segment_name
from featx.system import Timings


@dataclass(frozen=True)
class Room:
    """What features take on the disk.

    Attributes:
        size_bytes: of all files.
        n_segments: in so many segments.
    """

    size_bytes: int = 0
    n_segments: int = 0

    def __add__(self, other: "Room") -> "Room":
        return Room(self.size_bytes + other.size_bytes, self.n_segments + other.n_segments)


NO_ROOM = Room()


class Ruler:
    """Measures segments of one recipe, by writing some of them."""

    def __init__(self, recipe: Recipe, feature_shape: tuple[int, ...], batch_size: int, work_dir: Path) -> None:
        """Begin; rows come `batch_size` at a time. What is written to the folder `work_dir` goes again."""
        self._recipe = recipe
        self._row = np.zeros((1, *feature_shape), recipe.dtype)
        self._batch_size = batch_size
        self._work_dir = work_dir
        self._size_of: dict[int, int] = {}

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one image."""
        return self._row.nbytes

    def memory_bytes(self, n_rows: int, row_s: float) -> int:
        """Return what collecting and writing `n_rows` rows takes at most, above a run that has none.

        The segment that is being filled, the one that is being written, and that one again as a file in memory.
        """
        n_in_time = max(1, round(SEGMENT_AGE_S / row_s))
        full_bytes = min(SEGMENT_BYTES, n_in_time * self.row_bytes)
        n_bytes = n_rows * self.row_bytes
        return 2 * min(n_bytes, full_bytes) + min(max(0, n_bytes - full_bytes), full_bytes)

    def room(self, n_rows: int, row_s: float) -> Room:
        """Return what `n_rows` rows take that come every `row_s` seconds.

        A segment is closed when it is full or, with a slow network, when it is old enough.
        """
        if not n_rows:
            return NO_ROOM
        n_full = max(1, SEGMENT_BYTES // max(1, self.row_bytes))
        n_in_time = max(1, round(SEGMENT_AGE_S / row_s))
        if n_in_time < min(n_full, n_rows):
            return self._room_of_any_segments(n_rows, math.ceil(n_rows / n_in_time))
        n_segments, n_rest = divmod(n_rows, n_full)
        size_bytes = self._derived_bytes + sum(
            self._segment_bytes(n) * k for n, k in ((n_full, n_segments), (n_rest, 1))
        )
        return Room(size_bytes, n_segments + (n_rest > 0))

    def _room_of_any_segments(self, n_rows: int, n_segments: int) -> Room:
        """Return what `n_rows` rows take in segments that end with any batch, and their last chunks with it."""
        n_chunk = max(1, CHUNK_BYTES // max(1, self.row_bytes))
        if n_rows <= n_segments * n_chunk:  # each has one chunk, which is no larger than it need be
            return Room(self._derived_bytes + n_segments * self._segment_bytes(n_rows // n_segments), n_segments)
        chunk_bytes = self._segment_bytes(2 * n_chunk) - self._segment_bytes(n_chunk)
        head_bytes = self._segment_bytes(n_chunk) - chunk_bytes
        n_empty = (n_chunk - math.gcd(n_chunk, self._batch_size)) / 2  # on the average
        size_bytes = (n_rows + n_segments * n_empty) / n_chunk * chunk_bytes + n_segments * head_bytes
        return Room(self._derived_bytes + round(size_bytes), n_segments)

    def _segment_bytes(self, n_rows: int) -> int:
        if not n_rows:
            return 0
        if n_rows not in self._size_of:
            with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
                self._size_of[n_rows] = self._write(Path(folder), n_rows).stat().st_size
        return self._size_of[n_rows]

    @cached_property
    def _derived_bytes(self) -> int:
        """What lies beside the segments: `features.h5` and its like, which hardly grow with them."""
        with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
            segment = self._write(Path(folder), 1)
            FeatureStore(Path(folder), self._recipe).publish()
            return sum(path.stat().st_size for path in segment.parent.iterdir() if path != segment)

    def _write(self, folder: Path, n_rows: int) -> Path:
        """Write a segment and return its path. A digest is never zero; of what is in it, nothing else is looked at."""
        store, name = FeatureStore(folder, self._recipe), new_segment_name()
        digests = np.full((n_rows, 32), 1, np.uint8)
        store.write_segment(name, np.repeat(self._row, n_rows, axis=0), digests, lambda: Timings(n_rows))
        return folder / self._recipe.slug / name
