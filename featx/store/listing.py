"""The segments of a store while other processes add and merge some: all rows are seen, or none is said to be there."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from featx.errors import StoreError, printable

#: Seconds after which a store whose segments still come and go is taken for trouble.
PATIENCE_S = 60.0

T = TypeVar("T")


def segment_paths(store_dir: Path) -> list[Path]:
    """Return the segments in the folder of a store, sorted; none if there is no folder.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return sorted(path for path in store_dir.glob("seg-*.h5") if path.is_file())
    except FileNotFoundError:  # the folder went while it was being listed
        return []
    except OSError as error:
        raise StoreError(f"The store {printable(store_dir)} cannot be read: {error.strerror}.") from error


def look_at_segments(
    store_dir: Path, look: Callable[[Path], T], known: Mapping[Path, T] = MappingProxyType({})
) -> dict[Path, T]:
    """Return what `look` says of each segment, sorted by path; those that go meanwhile are left out.

    Rows are merged by writing them to a new segment before the old ones are removed, so that a single listing can
    miss both. Two that agree have seen all rows: what the first missed because it came too late is in the second.

    Args:
        store_dir: the folder of a store.
        look: called once with each segment; may raise FileNotFoundError where one has gone.
        known: what it has said before. A name is never given to another segment.

    Raises:
        StoreError: the folder cannot be read, or segments come and go without end.
    """
    seen = dict(known)
    before: list[Path] | None = None
    deadline = time.monotonic() + PATIENCE_S
    while (paths := segment_paths(store_dir)) != before or not seen.keys() >= set(paths):
        if time.monotonic() > deadline:
            raise StoreError(
                f"The segments of {printable(store_dir)} come and go faster than they can be read; "
                f"try again when fewer processes work on this store."
            )
        for path in paths:
            if path not in seen:
                try:
                    seen[path] = look(path)
                except FileNotFoundError:  # merged by another process
                    continue
        before = paths
    return {path: seen[path] for path in paths}
