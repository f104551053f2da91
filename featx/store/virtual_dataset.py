"""`features.h5`: one HDF5 file that shows the rows of all segments, which lie beside it, as one data set."""

import io
from typing import Any

import h5py
import numpy as np

from featx.recipe import Recipe
from featx.storage import StoragePath, read_small
from featx.store.hdf5_file import (
    DAMAGE_ERRORS,
    as_text,
    find_chunks,
    open_hdf5,
    stored_dataset,
    without_marks,
)
from featx.store.hdf5_structure import has_sound_heaps
from featx.store.segment_file import Segment, new_file, stamp

#: Names of more than a million segments.
_NAMES_BYTES = 64 << 20

#: Larger than the file that shows them.
_FILE_BYTES = 128 << 20


def write_virtual_dataset(path: StoragePath, recipe: Recipe, segments: list[Segment]) -> None:
    """Write to `path` a file that shows all rows of `segments`, one segment after the other.

    Raises:
        OSError: it cannot be written.
    """
    n = sum(map(len, segments))
    shapes: dict[str, tuple[tuple[int, ...], Any, Any]] = {
        # Rows whose segment has gone read as NaN: HDF5's own choice, zeros, would look like features. Pixels are never
        # NaN; black is the best that is left.
        "features": ((n, *segments[0].feature_shape), recipe.dtype, np.nan if recipe.dtype[0] == "f" else 0),
        "digest": ((n, 32), "uint8", 0),
        "view": ((n,), "uint16", 0),
    }
    with new_file(path) as file:
        stamp(file, recipe)
        # No attribute: those hold 64 KiB at most, which thousands of names exceed, and have no checksum.
        names = np.array([segment.path.name.encode() for segment in segments])
        file.create_dataset("segments", data=names, chunks=names.shape, fletcher32=True)
        for name, (shape, dtype, fill) in shapes.items():
            layout = h5py.VirtualLayout(shape, dtype)
            start = 0
            for segment in segments:
                source = h5py.VirtualSource(segment.path.name, name, (len(segment), *shape[1:]), dtype)
                layout[start : start + len(segment)] = source
                start += len(segment)
            file.create_virtual_dataset(name, layout, fillvalue=fill)


def shown_segments(path: StoragePath) -> list[str]:
    """Return the names of the segments that the file at `path` shows; none if it is missing or damaged."""
    try:
        with open_hdf5(path, of_store=True) as file:
            names = stored_dataset(file, "segments")
            find_chunks(names)
            if names.dtype.kind != "S" or names.nbytes > _NAMES_BYTES:
                return []
            return [as_text(name) for name in names[:]]
    except DAMAGE_ERRORS:
        return []


def is_virtual_dataset_of(path: StoragePath, segments: list[Segment]) -> bool:
    """Return whether what programs without featx see in the file at `path` are the rows of `segments`, in order."""
    expected = [(segment.path.name, len(segment)) for segment in segments]
    try:
        content = without_marks(read_small(path, _FILE_BYTES))
        # HDF5 keeps the names of the segments in global heaps, too.
        if not has_sound_heaps(content):
            return False
        with h5py.File(io.BytesIO(content), "r") as file:
            return all(_sources(stored_dataset(file, name)) == expected for name in ("features", "digest", "view"))
    except DAMAGE_ERRORS:
        return False


def _sources(dataset: h5py.Dataset) -> list[tuple[str, int]]:
    """Return the file and the number of rows of each source of a virtual data set, in the order of its rows."""
    sources: list[tuple[int, str, int]] = []
    for source in dataset.virtual_sources():
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        sources.append((first, source.file_name, last + 1 - first))
    return [(name, n_rows) for _, name, n_rows in sorted(sources)]
