"""The segments of a store while other processes add and merge some: all rows are seen, or none is said to be there."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TypeVar

from featx.errors import StoreError, printable
from featx.places import Place, RemotePath

#: Seconds after which a store whose segments still come and go is taken for trouble.
PATIENCE_S = 60.0

#: Segments of a store elsewhere that are looked at at once: most of the time is spent waiting.
AT_ONCE = 16

T = TypeVar("T")


def segment_paths(store_dir: Place) -> list[Place]:
    """Return the segments in the folder of a store, sorted; none if there is no folder.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        found: list[Place] = [path for path in store_dir.glob("seg-*.h5") if path.is_file()]
        return sorted(found, key=lambda path: path.name)
    except FileNotFoundError:  # the folder went while it was being listed
        return []
    except OSError as error:
        raise StoreError(f"The store {printable(store_dir)} cannot be read: {error.strerror}.") from error


def look_at_segments(
    store_dir: Place,
    look: Callable[[Place], T],
    known: Mapping[Place, T] = MappingProxyType({}),
    *,
    at_once: int = AT_ONCE,
) -> dict[Place, T]:
    """Return what `look` says of each segment, sorted by path; those that go meanwhile are left out.

    Rows are merged by writing them to a new segment before the old ones are removed, so that a single listing can
    miss both. Two that agree have seen all rows: what the first missed because it came too late is in the second.

    Args:
        store_dir: the folder of a store.
        look: called once with each segment, by several threads if the store is elsewhere; may raise FileNotFoundError
            where one has gone.
        known: what it has said before. A name is never given to another segment.
        at_once: segments elsewhere that are looked at at the same time.

    Raises:
        StoreError: the folder cannot be read, or segments come and go without end.
    """
    seen = dict(known)
    before: list[Place] | None = None
    deadline = time.monotonic() + PATIENCE_S
    while (paths := segment_paths(store_dir)) != before or not seen.keys() >= set(paths):
        if time.monotonic() > deadline:
            raise StoreError(
                f"The segments of {printable(store_dir)} come and go faster than they can be read; "
                f"try again when fewer processes work on this store."
            )
        seen |= _looked_at([path for path in paths if path not in seen], look, at_once)
        before = paths
    return {path: seen[path] for path in paths}


def _looked_at(paths: Sequence[Place], look: Callable[[Place], T], at_once: int) -> dict[Place, T]:
    """Return what `look` says of each path; one that has been merged by another process is left out."""

    def looked(path: Place) -> list[tuple[Place, T]]:
        try:
            return [(path, look(path))]
        except FileNotFoundError:
            return []

    if not paths or not isinstance(paths[0], RemotePath):
        return dict(pair for path in paths for pair in looked(path))
    with ThreadPoolExecutor(at_once) as pool:
        return dict(pair for pairs in pool.map(looked, paths) for pair in pairs)
