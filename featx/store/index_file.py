"""`index.bin`: the row index of a large store in one file. All processes that open the store map it into memory.

To open a store, featx needs the digest, view and checksum of every row, and an index of them: 75 bytes a row. Without
the file, each process reads them, and holds them in memory of its own. With the file, the system reads them once, and
all processes share them. The file is made from the segments, and can be made again at any time. `docs/format.md`
specifies it.
"""

import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from isal.isal_zlib import crc32

from featx.recipe import Recipe
from featx.storage import IS_WINDOWS, OddFileError, StoragePath, check_regular
from featx.store.hdf5_file import Chunks
from featx.store.row_index import RowIndex
from featx.store.segment_file import Segment
from featx.system import Timings

INDEX_NAME = "index.bin"

#: Rows that are opened from the segments themselves: that takes less than a tenth of a second.
INDEX_ROWS = 200_000

_MAGIC, _VERSION = b"featxidx", 1

#: What begins the file: magic, version, CRC-32 and length of the header, which is JSON.
_START = struct.Struct("<8sIIQ")

#: Arrays begin at multiples of this.
_ALIGNMENT = 64

_SEGMENT_NAME = re.compile(r"seg-[^/\\%\0]+\.h5")

#: What a header may take: hundreds of thousands of segments have less.
_MAX_HEADER_BYTES = 256 << 20

#: The arrays: dtype, and shape of a row. The first three have a row for each row of the store, in the order of the
#: segments; `chunk` one for each chunk of features; `key` and `row` one for each name, see `RowIndex`.
_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "digest": ("<u1", (32,)),
    "view": ("<u2", ()),
    "crc32": ("<u4", ()),
    "chunk": ("<i8", ()),
    "key": ("<u8", ()),
    "row": ("<i8", ()),
}

#: What a file that was damaged, or that somebody made up, makes Python and NumPy raise.
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, struct.error)


def can_have_index(store_dir: StoragePath) -> TypeGuard[Path]:
    """Return whether a store can have an index file: not elsewhere, and not where a mapped file cannot be replaced."""
    return isinstance(store_dir, Path) and not IS_WINDOWS


def write_index_file(path: Path, recipe: Recipe, index: RowIndex) -> None:
    """Write the index to `path`, which is from `featx.storage.replacing`.

    Raises:
        OSError: it cannot be written.
    """
    segments = index.segments
    columns: dict[str, Iterable[np.ndarray]] = {
        "digest": (segment.digests for segment in segments),
        "view": (segment.views for segment in segments),
        "crc32": (segment.checksums for segment in segments),
        "chunk": (segment.chunks.offsets for segment in segments),
        "key": [index.keys],
        "row": [index.sorted_rows],
    }
    header = _header(recipe, segments)
    # The header comes first, but says where the arrays are, so there is room left for that.
    n_header_bytes = len(json.dumps(header)) + len(columns) * 100
    offset = _aligned(_START.size + n_header_bytes)
    places: dict[str, tuple[int, int, int]] = {}
    with path.open("wb") as file:
        for name, parts in columns.items():
            file.seek(offset)
            n, checksum = 0, 0
            for part in parts:
                data = np.ascontiguousarray(part, _ARRAYS[name][0]).data.cast("B")
                checksum = crc32(data, checksum)
                file.write(data)
                n += len(part)
            places[name] = (offset, n, checksum)
            offset = _aligned(file.tell())
        text = json.dumps(header | {"arrays": places}).encode().ljust(n_header_bytes)
        file.seek(0)
        file.write(_START.pack(_MAGIC, _VERSION, crc32(text), len(text)))
        file.write(text)


def read_index_file(store_dir: StoragePath, recipe: Recipe) -> RowIndex | None:
    """Return the index in the file of a store; None if it is missing, damaged, or of another featx or recipe.

    What it says of the rows is checked, but not that the segments that it names are still there.
    """
    if not can_have_index(store_dir):
        return None
    path = store_dir / INDEX_NAME
    try:
        check_regular(path)
        file_bytes = path.stat().st_size
        header = _read_header(path)
        if header["recipe"] != recipe.key:
            return None
        arrays = {name: _mapped(path, file_bytes, name, *header["arrays"][name]) for name in _ARRAYS}
        segments = list(_segments(path.parent, header, np.dtype(recipe.dtype), arrays))
        _check(segments, arrays)
        return RowIndex(segments, known=(arrays["key"], arrays["row"]))
    except (*_DAMAGE, OddFileError):
        return None


def _mapped(path: Path, file_bytes: int, name: str, offset: int, n: int, checksum: int) -> np.ndarray:
    """Return an array of n rows, mapped into memory; its bytes are read once, to check them.

    Raises:
        ValueError: it is not in the file, or its bytes are not those that were written.
    """
    dtype, shape = np.dtype(_ARRAYS[name][0]), (n, *_ARRAYS[name][1])
    if n < 1 or offset < 0 or offset + prod(shape) * dtype.itemsize > file_bytes:
        raise ValueError(f"{name} is not in the file")
    array = np.asarray(np.memmap(path, dtype, "r", offset, shape))
    if crc32(array.data.cast("B")) != checksum:
        raise ValueError(f"{name} does not match its checksum")
    return array


def _check(segments: Sequence[Segment], arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless all arrays fit together."""
    n, n_chunks, rows = sum(map(len, segments)), sum(len(one.chunks.offsets) for one in segments), arrays["row"]
    has_all_rows = {len(arrays[name]) for name in ("digest", "view", "crc32")} == {n}
    has_all_chunks = all(len(one.chunks.offsets) == -(-len(one) // one.chunks.n_rows) for one in segments)
    is_row = len(rows) == len(arrays["key"]) <= n and rows.min() >= 0 and rows.max() < n
    if not (has_all_rows and has_all_chunks and n_chunks == len(arrays["chunk"]) and is_row):
        raise ValueError("its parts do not fit together")


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _header(recipe: Recipe, segments: Sequence[Segment]) -> dict[str, Any]:
    return {
        "recipe": recipe.key,
        "feature_shape": segments[0].feature_shape,
        "segments": [
            [one.path.name, len(one), one.chunks.n_rows, len(one.chunks.offsets), one.timings.to_dict()]
            for one in segments
        ],
    }


def _read_header(path: Path) -> dict[str, Any]:
    """Return what the file says of itself.

    Raises:
        ValueError: it is no such file, or damaged.
    """
    with path.open("rb") as file:
        magic, version, checksum, n_bytes = _START.unpack(file.read(_START.size))
        if (magic, version) != (_MAGIC, _VERSION) or n_bytes > _MAX_HEADER_BYTES:
            raise ValueError("it is no index file")
        text = file.read(n_bytes)
    if len(text) != n_bytes or crc32(text) != checksum:
        raise ValueError("it does not match its checksum")
    header: dict[str, Any] = json.loads(text)
    return header


def _segments(
    store_dir: Path, header: dict[str, Any], dtype: np.dtype[Any], arrays: dict[str, np.ndarray]
) -> Iterator[Segment]:
    """Yield the segments, whose arrays are parts of those in the file.

    Raises:
        ValueError: their names, or the shape of the features, are not such as featx writes.
    """
    shape = tuple(header["feature_shape"])
    if not shape or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError("its features have no shape")
    row_bytes = prod(shape) * dtype.itemsize
    row = chunk = 0
    for name, n_rows, rows_per_chunk, n_chunks, timings in header["segments"]:
        if not _SEGMENT_NAME.fullmatch(name):
            raise ValueError("it names what is no segment")
        rows, chunks = slice(row, row + n_rows), slice(chunk, chunk + n_chunks)
        yield Segment(
            path=store_dir / name,
            digests=arrays["digest"][rows],
            views=arrays["view"][rows],
            feature_shape=shape,
            dtype=dtype,
            timings=Timings.from_dict(timings),
            checksums=arrays["crc32"][rows],
            chunks=Chunks(arrays["chunk"][chunks], rows_per_chunk, row_bytes),
        )
        row, chunk = rows.stop, chunks.stop
