"""Where the rows of a data set are in an HDF5 file, and how to read them without HDF5.

A chunk of featx's is its rows, one after the other, and four bytes of Fletcher-32. HDF5 reads one at a time, under a
lock of its own, and checks and copies it; for rows that have a checksum of their own, that is work for nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.places import Place, RemotePath

#: Bytes that are read from a segment in one go.
READ_BYTES = 8 << 20

_FLETCHER32_BYTES = 4


@dataclass(frozen=True, eq=False)
class Chunks:
    """The chunks of a data set whose only filter is Fletcher-32.

    Attributes:
        offsets: `(k,)` int64, where each begins in the file.
        n_rows: in each; of the last, some may be beyond the end.
        row_bytes: of one row.
    """

    offsets: np.ndarray
    n_rows: int
    row_bytes: int

    @property
    def stored_bytes(self) -> int:
        """Bytes that a chunk takes in the file."""
        return self.n_rows * self.row_bytes + _FLETCHER32_BYTES

    def read(self, path: Place, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield which of `rows`, `(n,)` int64, sorted, and their bytes `(m, row_bytes)` uint8, megabytes at a time.

        Args:
            path: of the file.
            rows: which ones.

        Raises:
            ValueError: the file ends before they do.
            OSError: the system cannot read it.
        """
        with _reader(path) as fill:
            yield from self._read(fill, rows)

    def _read(self, fill: "_Fill", rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        numbers = rows // self.n_rows
        for first, last in self._runs(np.unique(numbers)):
            low, high = (int(i) for i in np.searchsorted(numbers, [first, last + 1]))
            wanted = rows[low:high]
            if first == last:
                yield slice(low, high), self._read_one(fill, first, wanted)
                continue
            data = np.empty((last + 1 - first, self.stored_bytes), np.uint8)
            fill(int(self.offsets[first]), data)
            in_chunks = data[:, :-_FLETCHER32_BYTES].reshape(len(data), self.n_rows, self.row_bytes)
            yield slice(low, high), in_chunks[numbers[low:high] - first, wanted % self.n_rows]

    def _read_one(self, fill: "_Fill", number: int, rows: np.ndarray) -> np.ndarray:
        """Return the bytes of `rows`, all of one chunk, of which no more is read than from the first to the last."""
        first = int(rows[0])
        data = np.empty((int(rows[-1]) + 1 - first, self.row_bytes), np.uint8)
        fill(int(self.offsets[number]) + first % self.n_rows * self.row_bytes, data)
        is_all = len(data) == len(rows) and bool((np.diff(rows) == 1).all())  # a row may be wanted twice
        return data if is_all else data[rows - first]

    def _runs(self, numbers: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield the first and the last of chunks that lie one after the other and are worth one read."""
        follows = (np.diff(numbers) == 1) & (np.diff(self.offsets[numbers]) == self.stored_bytes)
        most = max(1, READ_BYTES // self.stored_bytes)
        for run in np.split(numbers, np.flatnonzero(~follows) + 1):
            for start in range(0, len(run), most):
                part = run[start : start + most]
                yield int(part[0]), int(part[-1])


def find_chunks(dataset: h5py.Dataset) -> Chunks | None:
    """Return where the chunks of `dataset`, `(n, …)`, are; None if they are not whole rows with Fletcher-32 alone."""
    n_rows, *shape = dataset.chunks or (0,)
    if tuple(shape) != dataset.shape[1:] or not n_rows or not dataset.fletcher32:
        return None
    row_bytes = int(np.prod(shape)) * dataset.dtype.itemsize
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    chunks = Chunks(np.array([chunk.byte_offset for chunk in found], np.int64), n_rows, row_bytes)
    is_plain = all(
        (chunk.chunk_offset[0], chunk.filter_mask, chunk.size) == (number * n_rows, 0, chunks.stored_bytes)
        for number, chunk in enumerate(found)
    )
    return chunks if is_plain and len(found) == -(-len(dataset) // n_rows) else None


#: Fills an array of uint8 with the bytes of a file that begin at an offset.
_Fill = Callable[[int, np.ndarray], None]


@contextmanager
def _reader(path: Place) -> Iterator[_Fill]:
    """Yield what reads from the file at `path`. It raises ValueError where the file ends before the array is full."""
    if not isinstance(path, Path):
        yield partial(_fill_from_elsewhere, path)
        return
    with path.open("rb", buffering=0) as file:
        yield partial(_fill_from_file, file)


def _fill_from_file(file: FileIO, offset: int, data: np.ndarray) -> None:
    file.seek(offset)
    buffer = memoryview(data.reshape(-1))  # type: ignore[arg-type]  # NumPy's stubs are of before buffers had a type
    while buffer:
        n_read = file.readinto(buffer)  # a system may give fewer bytes at a time
        if not n_read:
            raise ValueError(_TOO_SHORT)
        buffer = buffer[n_read:]


def _fill_from_elsewhere(path: RemotePath, offset: int, data: np.ndarray) -> None:
    content = path.read_range(offset, data.size)
    if len(content) < data.size:
        raise ValueError(_TOO_SHORT)
    data.reshape(-1)[:] = np.frombuffer(content, np.uint8)


_TOO_SHORT = "the file ends before its features do"
