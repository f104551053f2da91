"""HDF5 files from others: whether all that they give out is in the file itself, and no more than it may be.

HDF5 does what a file says. It reads other files (external links and storage, virtual data sets), loads libraries
(filters), makes arrays of any size out of nothing (chunks that were never written), and reads some heaps for ever.
"""

import math
import mmap
from pathlib import Path

import h5py

from featx.store.hdf5_file import open_hdf5
from featx.store.hdf5_structure import has_sound_heaps, has_sound_names, has_sound_trees

#: Filters that are part of HDF5 or h5py, by number: deflate, shuffle, Fletcher-32, szip, n-bit, scale-offset, LZF.
_BUILT_IN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}

#: More links than any network has layers and weights: walking through all of them is to take no time.
_MAX_LINKS = 20_000


def check_own_file(path: Path, most_bytes: int) -> None:
    """Do as `check_own_data` for the file at `path`.

    Raises:
        ValueError: as there.
        OSError: it cannot be read, or is no HDF5 file.
    """
    with (
        open_hdf5(path) as file,
        path.open("rb") as raw,
        mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        check_own_data(file, content, most_bytes)


def check_own_data(file: h5py.File, content: bytes | mmap.mmap, most_bytes: int) -> None:
    """Raise ValueError, in a few words, unless all data of an HDF5 file that was just opened is in the file.

    Args:
        file: the file. Nothing is read but what its data sets are.
        content: its bytes.
        most_bytes: of all its arrays together.
    """
    if not all(is_sound(content, beyond=True) for is_sound in (has_sound_heaps, has_sound_names, has_sound_trees)):
        raise ValueError("a list of texts, names or chunks in it has no end")
    n_links, n_bytes = 0, 0
    groups, seen = [file["/"]], set()
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise ValueError("a group of it is in itself")
        seen.add(address)
        n_links += len(group)
        if n_links > _MAX_LINKS:
            raise ValueError("it has too many parts")
        for name in group:
            is_here = isinstance(group.get(name, getlink=True), h5py.HardLink)
            if not is_here:
                raise ValueError("it refers to another file or place")
            part = group[name]
            if isinstance(part, h5py.Group):
                groups.append(part)
            elif isinstance(part, h5py.Dataset):
                n_bytes += _own_bytes(part)
                if n_bytes > most_bytes:
                    raise ValueError("it claims more data than it may hold")


def _own_bytes(dataset: h5py.Dataset) -> int:
    """Return how many bytes the array of a data set has.

    Raises:
        ValueError: not all of them are in the file.
    """
    if dataset.external or dataset.is_virtual:
        raise ValueError("it refers to another file")
    plan = dataset.id.get_create_plist()
    if not {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} <= _BUILT_IN_FILTERS:
        raise ValueError("it needs a filter that is not part of HDF5")
    if dataset.shape is None:
        return 0
    n_bytes: int = math.prod(dataset.shape) * dataset.dtype.itemsize
    is_written = dataset.chunks is None or dataset.id.get_num_chunks() == _n_chunks(dataset)
    if not is_written or (n_bytes and not dataset.id.get_storage_size()):
        raise ValueError("a part of its data was never written")
    return n_bytes


def _n_chunks(dataset: h5py.Dataset) -> int:
    return math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
