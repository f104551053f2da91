"""Where the rows of a data set are in an HDF5 file, and how to read them without HDF5.

A chunk of featx's is its rows, one after the other, and four bytes of Fletcher-32. HDF5 reads one at a time, under a
lock of its own, and checks and copies it; for rows that have a checksum of their own, that is work for nothing.
"""

import io
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.storage import RemotePath, StoragePath

_HEAD_BYTES = 64 << 10

#: The end of a segment holds its digests and views: 38 bytes a row after at least some hundred bytes of features.
_TAIL_BYTES = 256 << 10
_TAIL_SHARE = 16

#: In the middle, HDF5 keeps where the chunks are: one piece of that is asked for when it is wanted, or a few.
_MAX_PIECES, _PIECE_BYTES = 4, 8 << 10
#: Bytes that are read from a segment in one go.
READ_BYTES = 8 << 20

_FLETCHER32_BYTES = 4


@contextmanager
def open_hdf5(path: StoragePath, *, without_features: bool = False) -> Iterator[h5py.File]:
    """Open the HDF5 file at `path`; one elsewhere is read as a whole, unless it is wanted `without_features`.

    The files of a store never change, so that HDF5's file locks, which many network folders do not support, are not
    needed. Nor does it matter whether another program has the file open to write, or was killed while it had.

    Raises:
        OSError: it cannot be read, or is none.
    """
    if not isinstance(path, Path):
        content = _ends(path) if without_features else io.BytesIO(path.read_bytes())
        with h5py.File(content, "r") as file:
            yield file
    elif file := _opened_directly(path):
        with file:
            yield file
    else:
        with _Unmarked(path) as content, h5py.File(content, "r") as file:
            yield file


def _opened_directly(path: Path) -> h5py.File | None:
    """Return the file as HDF5 itself opens it; None if it refuses to."""
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError:  # marked as open, locked where the user wants locks, or worse, which the next to open it says
        return None


@contextmanager
def openable(path: Path) -> Iterator[Path]:
    """Yield the path of the HDF5 file at `path`, or of a copy while HDF5 refuses to open it for another program's sake.

    For libraries that open a file themselves, with locks and in their own way.

    Raises:
        OSError: it cannot be copied.
    """
    if not _is_refused(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        copy = shutil.copyfile(path, Path(folder, path.name))
        with copy.open("r+b") as file:
            head = _without_marks(file.read(_SUPERBLOCK.size))
            file.seek(0)
            file.write(head)
        yield copy


def _is_refused(path: Path) -> bool:
    """Return whether HDF5 refuses to open a file that can be read."""
    try:
        h5py.File(path, "r").close()
    except OSError:
        with suppress(OSError), open_hdf5(path):
            return True
    return False


#: How an HDF5 file begins: signature, version, sizes of offsets and of lengths, marks, four offsets, checksum.
_SUPERBLOCK = struct.Struct("<8s4B32s4s")
_SIGNATURE, _MARKED_VERSION = b"\x89HDF\r\n\x1a\n", 3


class _Unmarked(io.FileIO):
    """A file as it would be if no program had it open to write, for which HDF5 leaves a mark in its superblock.

    HDF5 opens no marked file, and whoever was killed has left his mark for ever. The marks say nothing of what is in
    the file, and are all that is hidden.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`.

        Raises:
            OSError: it cannot be read.
        """
        super().__init__(path, "rb")
        try:
            self._head = _without_marks(self.read(_SUPERBLOCK.size))
        except OSError:
            self.close()
            raise

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`, and return how many bytes there were."""
        position = self.tell()
        n_read = super().readinto(buffer)
        head = self._head[position : position + n_read]
        buffer[: len(head)] = head
        return n_read


def _without_marks(head: bytes) -> bytes:
    """Return how a file begins that begins with `head`, less the marks."""
    if len(head) < _SUPERBLOCK.size:
        return head
    signature, version, n_offset, n_length, _, offsets, _ = _SUPERBLOCK.unpack(head)
    if (signature, version, n_offset) != (_SIGNATURE, _MARKED_VERSION, 8):
        return head
    plain = _SUPERBLOCK.pack(signature, version, n_offset, n_length, 0, offsets, b"")[:-4]
    return plain + struct.pack("<I", _lookup3(plain))


def _lookup3(data: bytes) -> int:
    """Return the checksum of HDF5's own structures: Bob Jenkins's lookup3, `hashlittle`, of `data`, which is not empty.

    https://www.burtleburtle.net/bob/c/lookup3.c
    """
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data.ljust(-(-len(data) // 12) * 12, b"\0"))
    state = [(0xDEADBEEF + len(data)) & _WORD] * 3
    for start in range(0, len(words), 3):
        state = [(value + word) & _WORD for value, word in zip(state, words[start : start + 3], strict=True)]
        state = _mixed(*state) if start + 3 < len(words) else _finished(*state)
    return state[2]


_WORD = 0xFFFFFFFF


def _mixed(a: int, b: int, c: int) -> list[int]:
    for shift in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _WORD) ^ _rotated(c, shift)
        a, b, c = b, (c + b) & _WORD, a
    return [a, b, c]


def _finished(a: int, b: int, c: int) -> list[int]:
    for shift in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, shift)) & _WORD
        a, b, c = b, c, a
    return [c, a, b]


def _rotated(value: int, shift: int) -> int:
    return (value << shift | value >> (32 - shift)) & _WORD


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

    def read(self, path: StoragePath, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
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
def _reader(path: StoragePath) -> Iterator[_Fill]:
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
