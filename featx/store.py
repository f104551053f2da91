"""The features of one recipe on disk: immutable checksummed segments, found by the content of the image.

`docs/format.md` specifies what is written here.
"""

import errno
import json
import logging
import os
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import DamagedSegmentError, FeaturesMissingError, StoreError, printable
from featx.files import TEMPORARY_PREFIX, replacing, write_text
from featx.recipe import Recipe
from featx.timings import Timings

log = logging.getLogger("featx")

FORMAT = "featx-features"
FORMAT_VERSION = 1

#: Bytes of one chunk, the smallest piece that is read and checked at once.
CHUNK_BYTES = 1 << 20
#: Bytes that are read from a segment in one go.
READ_BYTES = 8 << 20
#: A temporary file older than this belongs to nobody: a segment is written within seconds.
ABANDONED_AFTER_S = 3600.0

#: HDF5 1.10's format has checksums in the file's own structures too; any HDF5 since 2016 reads it.
_LIBVER = ("v110", "v110")


def new_segment_name() -> str:
    """Return a file name that no segment has, on this machine or on another."""
    return f"seg-{uuid.uuid4().hex}.h5"


@dataclass(frozen=True)
class Segment:
    """One immutable file of rows.

    Attributes:
        path: where it is.
        digests: `(n, 32)` uint8, SHA-256 of each row's image file.
        views: `(n,)` uint16, 0 for the image itself.
        feature_shape: shape of one row's features.
        timings: what the rows cost.
    """

    path: Path
    digests: np.ndarray
    views: np.ndarray
    feature_shape: tuple[int, ...]
    timings: Timings

    def __len__(self) -> int:
        return len(self.views)


class FeatureStore:
    """The features of one recipe, found by the digest of the image file.

    Opening reads the names of all rows and none of their features. Nothing is written before the first segment.
    """

    def __init__(self, cache_dir: Path, recipe: Recipe) -> None:
        """Open the store of `recipe` below `cache_dir`; damaged segments are set aside with a warning.

        Raises:
            StoreError: the folder cannot be read, or was written by a newer featx.
        """
        self.recipe = recipe
        self.dir = cache_dir / recipe.slug
        self.segments: list[Segment] = []
        self.reload()

    def reload(self) -> None:
        """Read the names of all rows again, those that other processes have added included."""
        opened = [segment for path in self._segment_paths() if (segment := self._open_segment(path))]
        self.segments = self._of_one_shape(opened)
        names = [_row_names(segment.digests, segment.views) for segment in self.segments]
        lengths = [len(segment) for segment in self.segments]
        all_names = np.concatenate([np.empty(0, _ROW_NAME), *names])
        # Two processes may both have computed an image: unique keeps the first of them.
        self._names, first = np.unique(all_names, return_index=True)
        self._segment_of = np.repeat(np.arange(len(lengths)), lengths)[first]
        self._row_of = np.concatenate([np.empty(0, np.int64), *map(np.arange, lengths)])[first]

    def __len__(self) -> int:
        """Return the number of different rows."""
        return len(self._names)

    def contains(self, digests: np.ndarray, view: int = 0) -> np.ndarray:
        """Return `(n,)` bool: which of the images with `digests`, `(n, 32)` uint8, have features."""
        return self._positions(digests, view) >= 0

    def read(self, digests: np.ndarray, view: int = 0) -> np.ndarray:
        """Return the features `(n, …)` of the images with `digests`, `(n, 32)` uint8, in that order.

        Every row is held against its checksum. The dtype is the recipe's.

        Raises:
            FeaturesMissingError: some are not in the store.
            DamagedSegmentError: some failed their checksum; their segment has been set aside.
        """
        positions = self._positions(digests, view)
        n_missing = int((positions < 0).sum())
        if n_missing:
            raise FeaturesMissingError(f"{n_missing} of {len(digests)} images have no features in {self.dir}.")
        if not self.segments:
            return np.empty((0,), self.recipe.dtype)
        out = np.empty((len(digests), *self.segments[0].feature_shape), self.recipe.dtype)
        segment_of = self._segment_of[positions]
        for number in np.unique(segment_of):
            into = np.flatnonzero(segment_of == number)
            rows = self._row_of[positions[into]]
            order = np.argsort(rows, kind="stable")
            self._read_segment(self.segments[number], rows[order], out, into[order])
        return out

    def cost(self, digests: np.ndarray, view: int = 0) -> Timings:
        """Return what the features of the images with `digests`, `(n, 32)` uint8, cost when they were made."""
        positions = np.unique(self._positions(digests, view))
        used = np.bincount(self._segment_of[positions[positions >= 0]], minlength=len(self.segments))
        shares = (segment.timings.share(n / len(segment)) for segment, n in zip(self.segments, used, strict=True) if n)
        return sum(shares, Timings())

    def write_segment(
        self, name: str, features: np.ndarray, digests: np.ndarray, cost: Callable[[], Timings]
    ) -> Timings:
        """Add a segment of rows of view 0 and return what it cost; it is there as a whole, or not at all.

        Args:
            name: from `new_segment_name`; the same one again for the same rows, if writing was interrupted.
            features: `(n, …)` of the recipe's dtype, n ≥ 1.
            digests: `(n, 32)` uint8.
            cost: called once the rows are written and only the syncing is left, so that writing can be in it.

        Raises:
            StoreError: the disk is full, or the folder cannot be written.
        """
        path = self.dir / name
        views = np.zeros(len(digests), np.uint16)
        with self._writing(), replacing(path) as temporary:
            rows = {"features": features, "digest": digests, "view": views}
            return _write_segment_file(temporary, self.recipe, rows, cost)

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written here, before hours of work show it."""
        with self._writing():
            self.dir.mkdir(parents=True, exist_ok=True)
            if not os.access(self.dir, os.W_OK):
                raise PermissionError(errno.EACCES, "no permission to write")

    def publish(self) -> None:
        """Bring everything that is derived from the segments up to date: `features.h5`, `recipe.json`, `timings.json`.

        Does nothing for a store without segments, and next to nothing if all is up to date.
        """
        seen = self._published()
        # Another process may add a segment meanwhile: whoever is last has seen all.
        while (listing := self._listing()) != seen:
            self.reload()
            with self._writing():
                self._write_derived_files()
            seen = listing
        self._remove_abandoned_files()

    def _write_derived_files(self) -> None:
        virtual_path = self.dir / "features.h5"
        if not self.segments:
            virtual_path.unlink(missing_ok=True)
            return
        write_text(self.dir / "recipe.json", self.recipe.to_json() + "\n")
        timings = sum((segment.timings for segment in self.segments), Timings())
        write_text(self.dir / "timings.json", json.dumps(timings.to_dict(), indent=2) + "\n")
        with replacing(virtual_path) as temporary:
            _write_virtual_dataset(temporary, self.recipe, self.segments)

    def _segment_paths(self) -> list[Path]:
        try:
            return sorted(path for path in self.dir.glob("seg-*.h5") if path.is_file())
        except OSError as error:
            raise StoreError(f"The store {printable(self.dir)} cannot be read: {error.strerror}.") from error

    def _listing(self) -> list[str]:
        return [path.name for path in self._segment_paths()]

    def _published(self) -> list[str]:
        """Return the names of the segments that are published; none if a derived file is missing or damaged."""
        if not all((self.dir / name).is_file() for name in ("recipe.json", "timings.json")):
            return []
        try:
            with h5py.File(self.dir / "features.h5", "r", locking=False) as file:
                return [str(name) for name in file.attrs["segments"]]
        except (OSError, KeyError, ValueError, RuntimeError):
            return []

    def _positions(self, digests: np.ndarray, view: int) -> np.ndarray:
        """Return `(n,)` int64: where each image stands in the index, -1 if nowhere."""
        if not len(self._names):
            return np.full(len(digests), -1, np.int64)
        wanted = _row_names(digests, np.full(len(digests), view, np.uint16))
        found = np.minimum(np.searchsorted(self._names, wanted), len(self._names) - 1)
        return np.where(self._names[found] == wanted, found, -1)

    def _open_segment(self, path: Path) -> Segment | None:
        """Return the segment at `path`; None if it is damaged and was set aside, or has gone meanwhile."""
        try:
            with _reading(path) as file:
                segment = _read_segment_index(path, file, self.recipe)
        except _DamageError as error:
            self._set_aside(path, str(error))
            return None
        except FileNotFoundError:
            return None
        return segment

    def _of_one_shape(self, segments: list[Segment]) -> list[Segment]:
        """Return the segments whose features have the shape that most rows have; set the others aside."""
        n_rows: Counter[tuple[int, ...]] = Counter()
        for segment in segments:
            n_rows[segment.feature_shape] += len(segment)
        common = max(n_rows, key=n_rows.__getitem__, default=None)
        for segment in segments:
            if segment.feature_shape != common:
                self._set_aside(segment.path, f"its features have the shape {segment.feature_shape}")
        return [segment for segment in segments if segment.feature_shape == common]

    def _read_segment(self, segment: Segment, rows: np.ndarray, out: np.ndarray, into: np.ndarray) -> None:
        """Read the sorted `rows` of `segment` to the positions `into` of `out`."""
        try:
            with _reading(segment.path) as file:
                _read_rows(file, segment, rows, out, into)
        except _DamageError as error:
            self._set_aside(segment.path, str(error))
            raise DamagedSegmentError(
                f"A segment of {self.dir} was damaged ({error}) and has been set aside; "
                f"run the extraction again: only its {len(segment)} images are computed."
            ) from error
        except FileNotFoundError as error:
            raise DamagedSegmentError(
                f"{segment.path} has gone while it was being read; run the extraction again."
            ) from error

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"damaged-{path.name}")
        try:
            path.rename(aside)
        except OSError as error:
            log.warning("%s is damaged (%s) and is not used; it cannot be renamed: %s.", path, reason, error.strerror)
            return
        log.warning(
            "%s is damaged (%s). It was renamed to %s; its images are computed again.", path, reason, aside.name
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # HDF5's own words are long and for programmers; where the system gave a reason, it is enough.
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            raise StoreError(
                f"Writing to the store {printable(self.dir)} failed: {reason}. What it held before is still good; "
                f"mend this and run the same command again to go on."
            ) from error

    def _remove_abandoned_files(self) -> None:
        """Remove what killed processes have left unfinished."""
        for path in self.dir.glob(f"{TEMPORARY_PREFIX}*"):
            try:
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                    path.unlink()
            except OSError:  # another process was quicker
                continue


class _DamageError(Exception):
    """The bytes of a segment are not what was written."""


#: A row's name: digest and view, as bytes that sort. NumPy ignores trailing zeros when it compares them, which is no
#: loss where all have one length.
_ROW_NAME = np.dtype("S34")


def _row_names(digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    names = np.empty((len(digests), 34), np.uint8)
    names[:, :32] = digests
    names[:, 32:] = views.astype(">u2")[:, np.newaxis].view(np.uint8)
    return names.view(_ROW_NAME).ravel()


def _row_checksums(features: np.ndarray, digests: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return `(n,)` uint32: CRC-32 of digest, view (little-endian) and features (little-endian) of each row.

    HDF5's own Fletcher-32 takes a block of zeros for a good one, and cannot know that two rows have been swapped.
    """
    n = len(features)
    names = np.hstack([digests, views.astype("<u2")[:, np.newaxis].view(np.uint8)])
    rows = np.ascontiguousarray(features, features.dtype.newbyteorder("<")).reshape(n, -1)
    return np.fromiter((zlib.crc32(rows[i], zlib.crc32(names[i])) for i in range(n)), np.uint32, n)


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """Open a segment, and tell damage from trouble of the system.

    Segments never change, so that HDF5's file locks, which many network folders do not support, are not needed.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's word: permission, input/output, too many files
            raise StoreError(f"{printable(path)} cannot be read: {os.strerror(error.errno)}.") from error
        raise _DamageError(" ".join(str(error).split())) from error


def _read_segment_index(path: Path, file: h5py.File, recipe: Recipe) -> Segment:
    attributes = dict(file.attrs)
    if attributes.get("format") != FORMAT:
        raise _DamageError("it is no segment of featx")
    if attributes["format_version"] > FORMAT_VERSION:
        raise StoreError(
            f"{printable(path)} has the format version {attributes['format_version']}; this featx knows versions up "
            f"to {FORMAT_VERSION}. Update featx, or use another --cache-dir."
        )
    if attributes["recipe"] != recipe.to_json():
        raise _DamageError("it belongs to another recipe")
    features, digests, views = file["features"], file["digest"][:], file["view"][:]
    shapes_fit = digests.shape == (len(features), 32) and views.shape == (len(features),) == file["crc32"].shape
    if not shapes_fit or features.dtype != recipe.dtype or not len(features):
        raise _DamageError("its arrays do not fit together")
    timings = Timings.from_dict(json.loads(attributes["timings"]))
    return Segment(path, digests.astype(np.uint8), views.astype(np.uint16), features.shape[1:], timings)


def _read_rows(file: h5py.File, segment: Segment, rows: np.ndarray, out: np.ndarray, into: np.ndarray) -> None:
    features = file["features"]
    expected = file["crc32"][:]
    row_bytes = max(1, int(np.prod(segment.feature_shape)) * features.dtype.itemsize)
    step = max(1, READ_BYTES // row_bytes // features.chunks[0]) * features.chunks[0]
    for start in range(int(rows[0]), int(rows[-1]) + 1, step):
        low, high = np.searchsorted(rows, [start, start + step])
        if low == high:
            continue
        slab_rows = rows[low:high]
        slab = features[start : int(slab_rows[-1]) + 1][slab_rows - start]
        if (_row_checksums(slab, segment.digests[slab_rows], segment.views[slab_rows]) != expected[slab_rows]).any():
            raise _DamageError("a row does not match its checksum")
        out[into[low:high]] = slab


def _write_segment_file(
    path: Path, recipe: Recipe, rows: dict[str, np.ndarray], cost: Callable[[], Timings]
) -> Timings:
    features = rows["features"]
    n = len(features)
    with h5py.File(path, "w", libver=_LIBVER, locking=False) as file:
        _stamp(file, recipe)
        for name, array in {**rows, "crc32": _row_checksums(features, rows["digest"], rows["view"])}.items():
            chunk_rows = min(n, max(1, CHUNK_BYTES // max(1, array[0].nbytes)))
            file.create_dataset(name, data=array, chunks=(chunk_rows, *array.shape[1:]), fletcher32=True)
        file.flush()
        timings = cost()
        file.attrs["timings"] = json.dumps(timings.to_dict())
    return timings


def _write_virtual_dataset(path: Path, recipe: Recipe, segments: list[Segment]) -> None:
    """Write one HDF5 file that shows the rows of all segments, which lie beside it, as one dataset."""
    n = sum(map(len, segments))
    shapes: dict[str, tuple[tuple[int, ...], Any, Any]] = {
        # Rows whose segment has gone read as NaN: HDF5's own choice, zeros, would look like features.
        "features": ((n, *segments[0].feature_shape), recipe.dtype, np.nan),
        "digest": ((n, 32), "uint8", 0),
        "view": ((n,), "uint16", 0),
    }
    with h5py.File(path, "w", libver=_LIBVER, locking=False) as file:
        _stamp(file, recipe)
        file.attrs["segments"] = [segment.path.name for segment in segments]
        for name, (shape, dtype, fill) in shapes.items():
            layout = h5py.VirtualLayout(shape, dtype)
            start = 0
            for segment in segments:
                source = h5py.VirtualSource(segment.path.name, name, (len(segment), *shape[1:]), dtype)
                layout[start : start + len(segment)] = source
                start += len(segment)
            file.create_virtual_dataset(name, layout, fillvalue=fill)


def _stamp(file: h5py.File, recipe: Recipe) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["recipe"] = recipe.to_json()
    file.attrs["h5py_version"] = h5py.__version__
    file.attrs["hdf5_version"] = h5py.version.hdf5_version
