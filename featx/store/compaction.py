"""Merges many small segments into few. None is removed before all its rows are written again and read back.

Two compactions may run at once, on one machine or on two. Each removes only segments whose rows it has written again
itself, and a segment can only have been written again after it was written: so the youngest copy of a row always
stays.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from featx.errors import DamagedSegmentError
from featx.store.feature_store import FeatureStore
from featx.store.row_index import RowIndex, grouped
from featx.store.segment_file import Segment, SegmentDamageError, check_rows, new_segment_name, read_index
from featx.system import Timings, progress_bar
from featx.text import printable

#: A segment that is written holds at most so many bytes of features: they are in memory, and damage to one costs all.
TARGET_BYTES = 64 << 20
#: A segment with fewer is merged with others. Those that a long extraction writes are larger.
SMALL_BYTES = TARGET_BYTES // 4


@dataclass(frozen=True)
class Compaction:
    """What a compaction did.

    Attributes:
        n_segments_before: segments that there were.
        n_segments: segments that there are.
        n_rows: rows that were written again.
    """

    n_segments_before: int
    n_segments: int
    n_rows: int


def compact(store: FeatureStore, *, show: bool = False) -> Compaction:
    """Merge the small segments of `store`, and those that hold the same rows.

    A damaged segment is quarantined, and the group that it belongs to stays as it is.

    Raises:
        StoreError: the store cannot be read or written. Every row is still there.
    """
    before = len(store.segments)
    groups = _groups(store.segments)
    n_rows = 0
    with progress_bar(sum(map(len, groups)), "compact", "segments", show=show) as bar:
        for group in groups:
            with suppress(DamagedSegmentError, FileNotFoundError):  # the latter: another process has merged some
                n_rows += _merge(store, group)
            bar.update(len(group))
    store.reload()
    store.publish()
    return Compaction(before, len(store.segments), n_rows)


def _groups(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Return which segments are to be merged with each other, two or more each."""
    families = _families(segments)
    groups = [family for family in families if len(family) > 1]
    waiting: list[Segment] = []
    for segment in (family[0] for family in families if len(family) == 1):
        if segment.n_bytes >= SMALL_BYTES:
            continue
        if sum(other.n_bytes for other in waiting) + segment.n_bytes > TARGET_BYTES:
            groups.append(waiting)
            waiting = []
        waiting.append(segment)
    return [group for group in (*groups, waiting) if len(group) > 1]


def _families(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Return the segments, together if they share a row, directly or through others."""
    index = RowIndex(segments)
    family_of = np.arange(len(segments))
    for number, segment in enumerate(segments):
        first_holders, _ = index.locate(index.find(segment.digests, segment.views))
        joined = np.unique(family_of[np.append(first_holders, number)])
        family_of[np.isin(family_of, joined)] = joined[0]
    return [[segments[number] for number in family] for _, family in grouped(family_of)]


def _merge(store: FeatureStore, group: Sequence[Segment]) -> int:
    """Write the different rows of `group` again, check them, remove the old segments; return how many rows there are.

    Raises:
        DamagedSegmentError: one of them is damaged and was quarantined; none is removed.
        FileNotFoundError: one of them has gone; none is removed.
    """
    index = RowIndex(group)
    rows = index.rows
    cost = sum((segment.timings for segment in group), Timings())
    step = max(1, TARGET_BYTES // group[0].row_bytes)
    for start in range(0, len(rows), step):
        numbers, in_segment = index.locate(rows[start : start + step])
        n = len(numbers)
        features = np.empty((n, *group[0].feature_shape), group[0].dtype)
        digests, views = np.empty((n, 32), np.uint8), np.empty(n, np.uint16)
        for number, these in grouped(numbers):
            segment, there = group[number], in_segment[these]
            digests[these], views[these] = segment.digests[there], segment.views[there]
            for which, part in store.read_segment(segment, there):
                features[these[which]] = part
        name = new_segment_name()
        store.write_segment(name, features, digests, partial(cost.share, n / len(rows)), views)
        _check(store, name)
    store.remove_merged(group)
    return len(rows)


def _check(store: FeatureStore, name: str) -> None:
    """Raise DamagedSegmentError unless what was written can be read, all of it; else it has been quarantined."""
    try:
        check_rows(read_index(store.dir / name, store.recipe))
    except SegmentDamageError as error:
        store.quarantine(store.dir / name, str(error))
        raise DamagedSegmentError(f"{printable(store.dir)} returned other data than was written.") from error
