"""HDF5 files: opened anywhere, even if another program has them open, and read without HDF5 where that is faster.

A chunk that featx writes is its rows, one after the other, and four bytes of Fletcher-32. HDF5 reads one chunk at a
time, under a lock of its own, and checks and copies it. Rows have a checksum of their own, so that is not needed.
"""

import errno
import hashlib
import io
import math
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import system_errors
from featx.storage import READ_FLAGS, RemotePath, StoragePath, check_regular
from featx.store.hdf5_structure import check_structure, has_sound_texts
from featx.text import printable

#: Bytes that are read from a segment in one go.
READ_BYTES = 8 << 20

#: What reading a file that is damaged, or of another making, ends in; an OSError with a number is the system's.
DAMAGE_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)

#: A segment elsewhere is read from both ends: what is not features is at its beginning, and its digests and views,
#: 38 bytes a row, are at its end.
_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 256 << 10

#: Between them, HDF5 keeps where the chunks are. So many pieces are fetched, of so many bytes at least, or else all.
_MAX_PIECES, _PIECE_BYTES = 8, 8 << 10

_FLETCHER32_BYTES = 4

#: A root attribute is a word, a number or a line of JSON.
_ATTRIBUTE_BYTES = 1 << 20

#: How an HDF5 file begins: signature, version, sizes of offsets and of lengths, marks, four offsets, checksum.
_SUPERBLOCK = struct.Struct("<8s4B32s4s")
_SIGNATURE, _MARKED_VERSION = b"\x89HDF\r\n\x1a\n", 3

_WORD = 0xFFFFFFFF

_NO_SPACE = " Free some space there, or set TMPDIR to another folder."


@contextmanager
def open_hdf5(path: StoragePath, *, of_store: bool = False, without_features: bool = False) -> Iterator[h5py.File]:
    """Open the HDF5 file at `path`; one elsewhere is fetched as a whole, unless it is wanted `without_features`.

    One `of_store` is looked at before, for what HDF5 would never come back from.

    The files of a store never change, so HDF5's file locks, which many network folders do not support, are not needed.
    It also works if another program has the file open for writing, or was killed in that state.

    Raises:
        OddFileError: it is not a regular file.
        OSError: it cannot be read, or is not an HDF5 file.
        ValueError: it is `of_store`, and HDF5 would never return from it.
    """
    check_regular(path)
    if not isinstance(path, Path):
        source = _Pieces(path) if without_features else io.BytesIO(path.read_bytes())
        if of_store:
            check_structure(path, source)
        with h5py.File(source, "r") as file:
            yield file
        return
    if of_store:
        with path.open("rb", buffering=0) as beginning:
            check_structure(path, beginning)
    try:
        opened = h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError:  # marked as open, locked where the user wants locks, or worse, which opening it once more says
        opened = None
    if opened:
        with opened:
            yield opened
    else:
        with _Unmarked(path) as content, h5py.File(content, "r") as file:
            yield file


@contextmanager
def private_copy(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path of a copy of the file at `path` that nobody else changes, and its SHA-256 in hexadecimal.

    For libraries that open an HDF5 file themselves, with locks and in their own way: whatever becomes of the original
    meanwhile, what they read is what the digest is of. HDF5 opens the copy also while it refuses to open the original
    for another program's sake.

    Raises:
        FeatxError: the copy cannot be written.
        OSError: the file cannot be read.
    """
    with ExitStack() as stack:
        with system_errors("A folder for temporary files", "made", _NO_SPACE):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="featx-weights-"))
        copy = Path(folder, path.name)
        yield copy, _copied(path, copy)


def _copied(path: Path, copy: Path) -> str:
    """Copy a regular file, without the marks of who has it open, and return its SHA-256 in hexadecimal."""
    what, digest = f"A copy of {printable(path)} in {printable(copy.parent)}", hashlib.sha256()
    with os.fdopen(os.open(path, READ_FLAGS), "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "it is not a regular file")
        head = source.read(_SUPERBLOCK.size)
        source.seek(0)
        left = status.st_size  # of a file that grows meanwhile, no more than was there
        with system_errors(what, "written", _NO_SPACE), copy.open("xb") as target:
            while left and (block := source.read(min(left, READ_BYTES))):
                digest.update(block)
                target.write(block)
                left -= len(block)
            target.seek(0)
            target.write(without_marks(head))
    return digest.hexdigest()


class _Unmarked(io.FileIO):
    """A file as it would be if no program had it open to write, for which HDF5 leaves a mark in its superblock.

    HDF5 opens no marked file, and a program that was killed has left its mark for ever. The marks say nothing about
    the content of the file. Nothing else is hidden.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`.

        Raises:
            OSError: it cannot be read.
        """
        super().__init__(path, "rb")
        try:
            self._head = without_marks(self.read(_SUPERBLOCK.size))
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


def without_marks(content: bytes) -> bytes:
    """Return a file's `content`, or its beginning, without the marks of programs that have it open to write."""
    if len(content) < _SUPERBLOCK.size:
        return content
    signature, version, n_offset, n_length, marks, offsets, _ = _SUPERBLOCK.unpack_from(content)
    if (signature, version, n_offset) != (_SIGNATURE, _MARKED_VERSION, 8) or not marks:
        return content
    plain = _SUPERBLOCK.pack(signature, version, n_offset, n_length, 0, offsets, b"")[:-4]
    return plain + struct.pack("<I", _lookup3(plain)) + content[_SUPERBLOCK.size :]


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


class _Pieces(io.RawIOBase):
    """A file elsewhere. Both of its ends are fetched at once, and the rest as it is asked for."""

    def __init__(self, path: RemotePath) -> None:
        """Fetch the ends of the file at `path`.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        self._path, self._position, self._size = path, 0, path.stat().st_size
        if self._size <= _HEAD_BYTES + _TAIL_BYTES:
            self._pieces = {0: path.read_bytes()}
        else:
            head, tail, _ = path.read_ends(_HEAD_BYTES, _TAIL_BYTES)
            self._pieces = {0: head, self._size - len(tail): tail}
        self._most = len(self._pieces) + _MAX_PIECES

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
        """Fill `buffer`, and return how many bytes there were."""
        n_bytes = min(len(buffer), self._size - self._position)
        part = self._range(self._position, n_bytes) if n_bytes > 0 else b""
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _range(self, start: int, n_bytes: int) -> bytes:
        for first, piece in self._pieces.items():
            if first <= start and start + n_bytes <= first + len(piece):
                return piece[start - first : start - first + n_bytes]
        if len(self._pieces) < self._most:
            self._pieces[start] = self._path.read_range(start, max(n_bytes, _PIECE_BYTES))
            return self._pieces[start][:n_bytes]
        self._pieces = {0: self._path.read_bytes()}
        return self._pieces[0][start : start + n_bytes]


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
        numbers, in_chunk = np.divmod(rows, self.n_rows)
        with _reader(path) as read:
            for first, last in self._runs(np.unique(numbers)):
                low, high = (int(i) for i in np.searchsorted(numbers, [first, last + 1]))
                begin, which, wanted = int(self.offsets[first]), slice(low, high), in_chunk[low:high]
                if first < last:
                    data = read(begin, (last + 1 - first) * self.stored_bytes).reshape(-1, self.stored_bytes)
                    chunks = data[:, :-_FLETCHER32_BYTES].reshape(len(data), self.n_rows, self.row_bytes)
                    yield which, chunks[numbers[which] - first, wanted]
                    continue
                # Of a single chunk, no more than from the first row to the last
                top, n = int(wanted[0]), int(wanted[-1] - wanted[0]) + 1
                data = read(begin + top * self.row_bytes, n * self.row_bytes).reshape(n, self.row_bytes)
                is_all = n == len(wanted) and bool((np.diff(wanted) == 1).all())  # a row may be wanted twice
                yield which, data if is_all else data[wanted - top]

    def _runs(self, numbers: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield the first and the last of chunks that lie one after the other and are worth one read."""
        follows = (np.diff(numbers) == 1) & (np.diff(self.offsets[numbers]) == self.stored_bytes)
        most = max(1, READ_BYTES // self.stored_bytes)
        for run in np.split(numbers, np.flatnonzero(~follows) + 1):
            for start in range(0, len(run), most):
                part = run[start : start + most]
                yield int(part[0]), int(part[-1])


def stored_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the data set `name` of `file`, unread. Its type and its chunks are only what the file claims.

    Raises:
        TypeError: it is a link, possibly to another file, or no data set.
        KeyError: there is none.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise TypeError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{name} is not a data set")
    return dataset


def find_chunks(dataset: h5py.Dataset) -> Chunks:
    """Return where the chunks of `dataset`, `(n, …)`, are, which must be stored as `docs/format.md` says.

    Whatever the file claims, what is found takes no more memory than the file really has bytes.

    Raises:
        ValueError: they are not whole rows, or are not all in the file, or have other filters than Fletcher-32 alone.
    """
    name = dataset.name.removeprefix("/")
    n_rows, *shape = dataset.chunks or (0,)
    if not n_rows or tuple(shape) != dataset.shape[1:]:
        raise ValueError(f"{name} is not stored in chunks of whole rows")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32] or settings.get_external_count():
        raise ValueError(f"the filters of {name} are not those of the format")
    n_chunks = -(-len(dataset) // n_rows)
    row_bytes = math.prod(shape) * dataset.dtype.itemsize
    file_bytes = dataset.file.id.get_filesize()
    if n_chunks * (n_rows * row_bytes + _FLETCHER32_BYTES) > file_bytes:
        raise ValueError(f"{name} claims more rows than the file holds")
    found: list[Any] = []
    dataset.id.chunk_iter(lambda chunk: found.append(chunk) if len(found) <= n_chunks else True)
    chunks = Chunks(np.array([chunk.byte_offset for chunk in found], np.int64), n_rows, row_bytes)
    is_plain = all(
        (chunk.chunk_offset[0], chunk.filter_mask, chunk.size) == (number * n_rows, 0, chunks.stored_bytes)
        for number, chunk in enumerate(found)
    )
    starts = np.append(np.sort(chunks.offsets), file_bytes)
    if not is_plain or len(found) != n_chunks or (np.diff(starts) < chunks.stored_bytes).any():
        raise ValueError(f"{name} is not completely in the file")
    return chunks


def read_attribute(file: h5py.File, name: str, path: StoragePath) -> str | int:
    """Return the root attribute `name` of `file`, which is the one at `path`: a text, or an integer.

    Raises:
        ValueError: it is something else, or of a size that no attribute of featx has, or cannot be read to its end.
        KeyError: there is none.
    """
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    is_text = isinstance(kind, h5py.h5t.TypeStringID)
    is_one = attribute.get_space().get_simple_extent_npoints() == 1
    if not is_one or not (is_text or isinstance(kind, h5py.h5t.TypeIntegerID)):
        raise ValueError(f"the attribute {name} is neither a text nor a number")
    if attribute.get_storage_size() > _ATTRIBUTE_BYTES:
        raise ValueError(f"the attribute {name} is too long")
    if is_text and kind.is_variable_str() and not has_sound_texts(path):
        raise ValueError(f"the attribute {name} is damaged")
    value = np.asarray(file.attrs[name]).item()
    if not is_text:
        return int(value)
    return as_text(value)


def as_text(value: Any) -> str:
    """Return an attribute that is a string of fixed or of variable length."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


@contextmanager
def _reader(path: StoragePath) -> Iterator[Callable[[int, int], np.ndarray]]:
    """Yield what returns `n_bytes` of the file from `offset` on. It raises ValueError where the file ends before."""
    opened: AbstractContextManager[BufferedReader | RemotePath]
    opened = path.open("rb") if isinstance(path, Path) else nullcontext(path)
    with opened as source:

        def read(offset: int, n_bytes: int) -> np.ndarray:
            data = np.empty(n_bytes, np.uint8)
            if isinstance(source, RemotePath):
                content = source.read_range(offset, n_bytes)
                n_read = len(content)
                data[:n_read] = np.frombuffer(content, np.uint8)
            else:
                source.seek(offset)
                n_read = source.readinto(data.data)
            if n_read < n_bytes:
                raise ValueError("the file ends before its features do")
            return data

        yield read
