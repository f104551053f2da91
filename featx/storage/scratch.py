"""Large arrays on disk that are needed for a while only: they need not fit in memory, and nobody else sees them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.storage.paths import StoragePath, local_dir
from featx.text import printable


@contextmanager
def scratch_array(
    cache_dir: StoragePath, shape: tuple[int, ...], dtype: npt.DTypeLike, who: str, what: str
) -> Iterator[npt.NDArray[Any]]:
    """Yield an array of zeros in a temporary file in the cache, or in its folder on this machine if it is elsewhere.

    Args:
        cache_dir: the cache.
        shape: of the array.
        dtype: of the array.
        who: begins the sentence if there is no room for it: what needs it.
        what: says there what is in it.

    Raises:
        FeatxError: the disk is full.
    """
    folder = local_dir(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            _reserve(file, size_bytes)
        except OSError as error:
            raise FeatxError(
                f"{who} needs {size_bytes / 2**20:,.0f} MiB in {printable(folder)} for {what}: "
                f"{os.strerror(error.errno or 0)}. Free some space, or choose another --cache-dir."
            ) from error
        yield np.memmap(file, dtype, "w+", shape=shape)


def _reserve(file: IO[bytes], size_bytes: int) -> None:
    """Take the disk space now: when it runs out under a memory map, the process is killed without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(size_bytes, 1))
