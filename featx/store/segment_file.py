"""One segment: an immutable, checksummed HDF5 file of rows. `docs/format.md` specifies what is written here."""

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from isal.isal_zlib import crc32  # zlib's, five to ten times as fast: reading waits for little else

from featx.errors import StoreError
from featx.recipe import Recipe
from featx.storage import OddFileError, StorageError, StoragePath, check_readable
from featx.store.hdf5_file import (
    DAMAGE_ERRORS,
    READ_BYTES,
    Chunks,
    find_chunks,
    open_hdf5,
    read_attribute,
    stored_dataset,
)
from featx.system import Timings
from featx.text import printable

FORMAT = "featx-features"
#: Of features; and of pixels, which are integers, so that an older featx leaves them alone.
FORMAT_VERSION, PIXELS_FORMAT_VERSION = 1, 2

#: A row's name: digest and view, as bytes that sort. NumPy ignores trailing zeros when it compares them, which is no
#: loss where all have one length.
ROW_NAME = np.dtype("S34")

#: Bytes of one chunk, the smallest piece that is read and checked at once.
CHUNK_BYTES = 1 << 20

#: HDF5 1.10's format has checksums in the file's own structures too; any HDF5 since 2016 reads it.
LIBVER = ("v110", "v110")

#: What HDF5 says of too little memory, "can't allocate …" and "unable to allocate …" among others; it has no code.
_TOO_LITTLE_MEMORY = ("allocation failed", "t allocate", "to allocate")


#: What memory is tried for at most.
_LARGEST_BUFFER = 1 << 30


class SegmentDamageError(Exception):
    """The bytes of a segment are not what was written. The message says what is wrong, in a few words."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One immutable file of rows.

    Attributes:
        path: where it is.
        digests: `(n, 32)` uint8, SHA-256 of each row's image file.
        views: `(n,)` uint16, 0 for the image itself.
        feature_shape: shape of one row's features.
        dtype: of the features.
        timings: what the rows cost.
        checksums: `(n,)` uint32, of each row.
        chunks: where the features are in the file.
    """

    path: StoragePath
    digests: np.ndarray
    views: np.ndarray
    feature_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    timings: Timings
    checksums: np.ndarray
    chunks: Chunks

    def __len__(self) -> int:
        return len(self.views)

    @property
    def n_bytes(self) -> int:
        """Bytes of the features."""
        return len(self) * self.row_bytes

    @property
    def rows_per_chunk(self) -> int:
        """Rows of the smallest piece that is read at once."""
        return self.chunks.n_rows

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one row, at least 1."""
        return max(1, int(np.prod(self.feature_shape)) * self.dtype.itemsize)


def row_names(digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return the names `(n,)` of rows with `digests`, `(n, 32)` uint8, and `views`, `(n,)` uint16."""
    names = np.empty((len(digests), 34), np.uint8)
    names[:, :32] = digests
    names[:, 32:] = views.astype(">u2")[:, np.newaxis].view(np.uint8)
    return names.view(ROW_NAME).ravel()


def new_segment_name() -> str:
    """Return a file name that no segment has, on this machine or on another."""
    return f"seg-{uuid.uuid4().hex}.h5"


def stated_recipe(path: StoragePath) -> str:
    """Return the recipe that the segment at `path` names, as JSON, whatever else is in the file.

    Raises:
        SegmentDamageError: it names none.
        FileNotFoundError: it is not there.
        StoreError: the system cannot read it.
    """
    with _opened(path, without_features=True) as file:
        return str(read_attribute(file, "recipe", path))


def read_index(path: StoragePath, recipe: Recipe) -> Segment:
    """Return what is in the segment at `path`, without reading its features.

    Raises:
        SegmentDamageError: it is no segment of `recipe`, or not a whole one.
        FileNotFoundError: it is not there.
        StoreError: the system cannot read it, or it was written by a newer featx.
    """
    if "%" in path.name or not path.name.isprintable():  # HDF5 takes the former for a pattern; others are no text
        raise SegmentDamageError("its name cannot be in features.h5")
    with _opened(path, without_features=True) as file:
        _check_stamp(file, path, recipe)
        arrays = {name: stored_dataset(file, name) for name in ("features", "digest", "view", "crc32")}
        features = arrays["features"]
        n = len(features)
        expected = {"digest": ((n, 32), np.uint8), "view": ((n,), np.uint16), "crc32": ((n,), np.uint32)}
        do_fit = all(_is_array(arrays[name], shape, dtype) for name, (shape, dtype) in expected.items())
        if not do_fit or features.ndim < 2 or not n or not _is_stored_as(features, recipe.dtype):
            raise SegmentDamageError("its arrays do not fit together")
        chunks = {name: find_chunks(array) for name, array in arrays.items()}
        timings = Timings.from_dict(json.loads(str(read_attribute(file, "timings", path))))
        return Segment(
            path=path,
            digests=_read_digests(arrays["digest"]),
            views=arrays["view"][:].astype(np.uint16),
            feature_shape=features.shape[1:],
            dtype=features.dtype,
            timings=timings,
            checksums=arrays["crc32"][:].astype(np.uint32),
            chunks=chunks["features"],
        )


def _check_stamp(file: h5py.File, path: StoragePath, recipe: Recipe) -> None:
    """Raise unless the segment at `path` says that it is one, of a known version and of `recipe`.

    Raises:
        SegmentDamageError: it says something else.
        StoreError: it was written by a newer featx.
    """
    try:
        is_segment = read_attribute(file, "format", path) == FORMAT
    except (KeyError, ValueError):
        is_segment = False
    if not is_segment:
        raise SegmentDamageError("it is not a featx segment")
    version = read_attribute(file, "format_version", path)
    if not isinstance(version, int):
        raise SegmentDamageError("its format version is not a number")
    if version > _format_version(recipe):
        raise StoreError(
            f"{printable(path)} has the format version {version}; this featx knows versions up to "
            f"{_format_version(recipe)}. Update featx, or use another --cache-dir."
        )
    if read_attribute(file, "recipe", path) != recipe.to_json():
        raise SegmentDamageError("it belongs to another recipe")


def _is_array(dataset: h5py.Dataset, shape: tuple[int, ...], dtype: object) -> bool:
    """Return whether a data set has this shape and this dtype, in either order of bytes."""
    return bool(dataset.shape == shape and dataset.dtype.newbyteorder("=") == dtype)


def _is_stored_as(dataset: h5py.Dataset, dtype: str) -> bool:
    """Return whether the numbers of a data set are in the file as little-endian ones of this dtype, bit for bit."""
    little_endian = np.dtype(dtype).newbyteorder("<")
    return bool(dataset.id.get_type().equal(h5py.h5t.py_create(little_endian)))


def _read_digests(dataset: h5py.Dataset) -> np.ndarray:
    """Return digests `(n, 32)` uint8; a block of zeros, which is sound by its Fletcher-32, ends the reading at once.

    A sparse file claims any number of zeros.
    """
    step = READ_BYTES // 32
    parts = []
    for start in range(0, len(dataset), step):
        parts.append(dataset[start : start + step])
        if not parts[-1].any(axis=1).all():
            raise SegmentDamageError("a digest is zero")
    return np.concatenate(parts)


def read_rows(segment: Segment, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the features of `rows`, `(n,)` int64, sorted: which of them, and `(k, …)` in the dtype they are stored in.

    Reads some megabytes at a time, and checks every row against its checksum: CRC-32, which covers all of a row. HDF5,
    which would check its own as well, takes twice as long.

    Raises:
        SegmentDamageError: a row fails, or the file is broken.
        FileNotFoundError: it has gone.
        StoreError: the system cannot read it.
    """
    with _reading(segment.path):
        for which, raw in segment.chunks.read(segment.path, rows):
            features = raw.view(segment.dtype.newbyteorder("<")).reshape(-1, *segment.feature_shape)
            _check_values(segment, rows[which], features)
            yield which, features.astype(segment.dtype, copy=False)


def check_rows(segment: Segment) -> None:
    """Read all of a segment as other programs see it, through HDF5, and check it against its checksums.

    Raises:
        SegmentDamageError: a row fails, or the file is broken.
        FileNotFoundError: it has gone.
        StoreError: the system cannot read it.
    """
    with _opened(segment.path) as file:
        features = stored_dataset(file, "features")
        step = max(1, READ_BYTES // segment.row_bytes // segment.rows_per_chunk) * segment.rows_per_chunk
        for start in range(0, len(segment), step):
            slab = features[start : start + step]
            _check_values(segment, np.arange(start, start + len(slab)), slab)


def _check_values(segment: Segment, rows: np.ndarray, features: np.ndarray) -> None:
    """Raise SegmentDamageError unless `features` are those of `rows`, and finite, as all that featx stores."""
    if (_row_checksums(features, segment.digests[rows], segment.views[rows]) != segment.checksums[rows]).any():
        raise SegmentDamageError("a row does not match its checksum")
    if not _are_finite(features):
        raise SegmentDamageError("a feature is not finite")


def write_segment_file(
    path: StoragePath,
    recipe: Recipe,
    features: np.ndarray,
    digests: np.ndarray,
    views: np.ndarray,
    cost: Callable[[], Timings],
) -> Timings:
    """Write a segment to `path` and return what it cost.

    Args:
        path: from `featx.storage.files.replacing`, which sees to it that the file is there as a whole or not at all.
        recipe: of the features.
        features: `(n, …)` of the recipe's dtype, n ≥ 1.
        digests: `(n, 32)` uint8.
        views: `(n,)` uint16.
        cost: called once the rows are laid out and only the disk is left, so that laying them out can be in it.

    Raises:
        OSError: it cannot be written.
    """
    n = len(features)
    checksums = _row_checksums(features, digests, views)
    with new_file(path) as file:
        stamp(file, recipe)
        for name, array in {"features": features, "digest": digests, "view": views, "crc32": checksums}.items():
            chunk_rows = min(n, max(1, CHUNK_BYTES // max(1, array[0].nbytes)))
            file.create_dataset(name, data=array, chunks=(chunk_rows, *array.shape[1:]), fletcher32=True)
        timings = cost()
        file.attrs["timings"] = fixed(json.dumps(timings.to_dict()))
    return timings


@contextmanager
def new_file(path: StoragePath) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that lies in memory; after the block it is written to `path`.

    HDF5 itself is kept from the disk: where that is full, it can neither write nor close its file, and crashes at last.

    Raises:
        OSError: it cannot be written.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBVER) as file:
        yield file
    path.write_bytes(image.getbuffer())


def stamp(file: h5py.File, recipe: Recipe) -> None:
    """Write what every file of a store says of itself to its root attributes."""
    file.attrs["format"] = fixed(FORMAT)
    file.attrs["format_version"] = _format_version(recipe)
    file.attrs["recipe"] = fixed(recipe.to_json())
    file.attrs["h5py_version"] = fixed(h5py.__version__)
    file.attrs["hdf5_version"] = fixed(h5py.version.hdf5_version)


def _format_version(recipe: Recipe) -> int:
    return PIXELS_FORMAT_VERSION if recipe.is_of_pixels else FORMAT_VERSION


def fixed(text: str) -> Any:
    """Return `text` as a string of fixed length: HDF5 keeps others in a heap that has no checksum."""
    data = text.encode("utf-8")
    return np.array(data, h5py.string_dtype("utf-8", len(data)))


def _are_finite(features: np.ndarray) -> bool:
    """Return whether all numbers, of at least one, are finite: eight times as fast as NumPy tells of float16.

    As integers, infinity and what is none sort after all other numbers of their sign.
    """
    if features.dtype.kind != "f":  # pixels
        return True
    n_bytes, infinity = features.itemsize, np.array(np.inf, features.dtype.newbyteorder("<"))
    signed, unsigned = f"<i{n_bytes}", f"<u{n_bytes}"
    largest, most_negative = features.view(signed).max(), features.view(unsigned).max()
    return bool(largest < infinity.view(signed) and most_negative < (-infinity).view(unsigned))


def _row_checksums(features: np.ndarray, digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return `(n,)` uint32: CRC-32 of digest, view (little-endian) and features (little-endian) of each row.

    HDF5's own Fletcher-32 takes a block of zeros for a good one, and cannot know that two rows have been swapped.
    """
    n = len(features)
    names = np.hstack([digests, views.astype("<u2")[:, np.newaxis].view(np.uint8)])
    rows = np.ascontiguousarray(features, features.dtype.newbyteorder("<")).reshape(n, -1)
    return np.fromiter((crc32(rows[i], crc32(names[i])) for i in range(n)), np.uint32, n)


@contextmanager
def _opened(path: StoragePath, *, without_features: bool = False) -> Iterator[h5py.File]:
    """Open a segment by HDF5, and tell damage from trouble of the system."""
    with _reading(path), open_hdf5(path, of_store=True, without_features=without_features) as file:
        yield file


@contextmanager
def _reading(path: StoragePath) -> Iterator[None]:
    """Tell damage to the segment at `path` from trouble of the system."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OddFileError as error:
        raise SegmentDamageError(str(error.strerror)) from error
    except StorageError as error:
        raise StoreError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    except DAMAGE_ERRORS as error:
        check_readable(path)
        if isinstance(error, OSError) and error.errno:  # the system's word: permission, input/output, too many files
            raise StoreError(f"{printable(path)} cannot be read: {os.strerror(error.errno)}.") from error
        if any(words in str(error) for words in _TOO_LITTLE_MEMORY) and not _is_memory_for(path):
            raise MemoryError(str(error)) from error
        raise SegmentDamageError(" ".join(str(error).split())) from error


def _is_memory_for(path: StoragePath) -> bool:
    """Return whether there is memory for all that is in a file: if HDF5 wants more, the file claims what it has not."""
    try:
        np.empty(2 * min(path.stat().st_size, _LARGEST_BUFFER), np.uint8)
    except MemoryError:
        return False
    return True
