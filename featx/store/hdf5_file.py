"""HDF5 files open for reading, on this machine or elsewhere.

From elsewhere, what is wanted is in memory before HDF5 sees any of it: HDF5 reads in dozens of small steps, each of
which would wait for the network, with a lock held that all of h5py needs.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from featx.places import Place, RemotePath

_HEAD_BYTES = 64 << 10

#: The end of a segment holds its digests and views: 38 bytes a row after at least some hundred bytes of features.
_TAIL_BYTES = 256 << 10
_TAIL_SHARE = 16

#: In the middle, HDF5 keeps where the chunks are: one piece of that is asked for when it is wanted, or a few.
_MAX_PIECES, _PIECE_BYTES = 4, 8 << 10


@contextmanager
def open_hdf5(path: Place, *, without_features: bool = False) -> Iterator[h5py.File]:
    """Open the HDF5 file at `path`; one elsewhere is read as a whole, unless it is wanted `without_features`.

    The files of a store never change, so that HDF5's file locks, which many network folders do not support, are not
    needed.

    Raises:
        OSError: it cannot be read, or is none.
    """
    if isinstance(path, Path):
        with h5py.File(path, "r", locking=False) as file:
            yield file
    else:
        content = _ends(path) if without_features else io.BytesIO(path.read_bytes())
        with h5py.File(content, "r") as file:
            yield file


def _ends(path: RemotePath) -> io.IOBase:
    """Return the file without most of its middle, if that is features only; else all of it."""
    size = path.stat().st_size
    for n_tail in (_TAIL_BYTES, size // _TAIL_SHARE):
        if size <= _HEAD_BYTES + n_tail:
            break
        ends = _Ends(path, *path.read_ends(_HEAD_BYTES, n_tail))
        with suppress(Exception), h5py.File(ends, "r") as file:  # what is damaged is found by whoever asked for it
            for name in ("digest", "view", "crc32"):
                file[name][:]
            file["features"].id.chunk_iter(lambda _chunk: None)
        if ends.are_enough:
            return ends
    return io.BytesIO(path.read_bytes())


class _Ends(io.RawIOBase):
    """A file of which the beginning and the end are there, and between them what has been asked for.

    Attributes:
        are_enough: whether that was in no more than `_MAX_PIECES`.
    """

    def __init__(self, path: RemotePath, head: bytes, tail: bytes, size: int) -> None:
        self._path, self._head, self._tail, self._size = path, head, tail, size
        self._pieces: dict[int, bytes] = {}
        self._position = 0
        self.are_enough = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`: with zeros where too much was asked for."""
        start, stop = self._position, min(self._position + len(buffer), self._size)
        tail_start = self._size - len(self._tail)
        if stop <= len(self._head):
            part = self._head[start:stop]
        elif start >= tail_start:
            part = self._tail[start - tail_start : stop - tail_start]
        else:
            part = self._from_middle(start, max(0, stop - start))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _from_middle(self, start: int, n_bytes: int) -> bytes:
        for first, piece in self._pieces.items():
            if first <= start and start + n_bytes <= first + len(piece):
                return piece[start - first : start - first + n_bytes]
        if len(self._pieces) == _MAX_PIECES:
            self.are_enough = False
            return bytes(n_bytes)
        self._pieces[start] = self._path.read_range(start, max(n_bytes, _PIECE_BYTES))
        return self._pieces[start][:n_bytes]
