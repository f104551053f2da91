"""Many small segments become few: nothing is removed before all of its rows are on disk once more, and read back.

Two compactions may run at once, on one machine or on two. Each removes only segments whose rows it has written again
itself, and a segment can only have been written again after it was written: so of all copies of a row the youngest
always stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from featx.store.feature_store import FeatureStore
from featx.store.segment_file import (
    ROW_NAME,
    Segment,
    SegmentDamageError,
    new_segment_name,
    read_index,
    read_rows,
    read_rows_by_hdf5,
)
from featx.system import Timings, progress_bar

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

    A damaged segment that is met is set aside, and its group stays as it is.

    Raises:
        StoreError: the store cannot be read or written. Every row is still there.
    """
    before = len(store.segments)
    groups = _groups(store.segments)
    n_rows = 0
    with progress_bar(sum(map(len, groups)), "compact", "segments", show=show) as bar:
        for group in groups:
            try:
                n_rows += _merge(store, group)
            except _UnreadableError as error:
                store.set_aside(error.segment.path, str(error))
            except FileNotFoundError:  # another process has merged some of these already
                pass
            bar.update(len(group))
    store.reload()
    store.publish()
    return Compaction(before, len(store.segments), n_rows)


class _UnreadableError(Exception):
    """A segment is damaged."""

    def __init__(self, segment: Segment, reason: str) -> None:
        super().__init__(reason)
        self.segment = segment


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
    family_of = list(range(len(segments)))
    names = _row_names(segments)
    order = np.argsort(names, kind="stable")
    numbers = np.repeat(np.arange(len(segments)), [len(segment) for segment in segments])[order]
    same = np.flatnonzero(names[order][1:] == names[order][:-1])
    for one, other in np.unique(np.sort(np.stack([numbers[same], numbers[same + 1]]), axis=0), axis=1).T.tolist():
        old, new = family_of[other], family_of[one]
        family_of = [new if family == old else family for family in family_of]
    families: dict[int, list[Segment]] = {}
    for segment, family in zip(segments, family_of, strict=True):
        families.setdefault(family, []).append(segment)
    return list(families.values())


def _row_names(segments: Sequence[Segment]) -> np.ndarray:
    """Return the names `(n,)` of the rows of all segments, one after the other."""
    return np.concatenate([np.empty(0, ROW_NAME), *(segment.row_names for segment in segments)])


def _merge(store: FeatureStore, group: Sequence[Segment]) -> int:
    """Write the different rows of `group` again, check them, remove the old segments; return how many rows there are.

    Raises:
        _UnreadableError: one of them is damaged; none is removed.
        FileNotFoundError: one of them has gone; none is removed.
    """
    _, first = np.unique(_row_names(group), return_index=True)
    cost = sum((segment.timings for segment in group), Timings())
    rows_each = max(1, TARGET_BYTES // group[0].row_bytes)
    for rows in _portions(_rows(group, first), rows_each):
        name = new_segment_name()
        share = cost.share(len(rows.views) / len(first))
        store.write_segment(name, rows.features, rows.digests, partial(_itself, share), rows.views)
        _check(store, name)
    store.remove_merged(group)
    return len(first)


def _itself(cost: Timings) -> Timings:
    return cost


def _check(store: FeatureStore, name: str) -> None:
    """Raise SegmentDamageError unless what was written can be read, all of it."""
    segment = read_index(store.dir / name, store.recipe)
    for _ in read_rows_by_hdf5(segment, np.arange(len(segment))):
        pass


@dataclass(frozen=True)
class _Rows:
    """Some rows: features `(n, …)`, digests `(n, 32)` uint8, views `(n,)` uint16."""

    features: np.ndarray
    digests: np.ndarray
    views: np.ndarray


def _rows(segments: Sequence[Segment], wanted: np.ndarray) -> Iterator[_Rows]:
    """Yield the rows `wanted`, `(n,)` int64, counted over all `segments`, a few megabytes at a time."""
    is_wanted = np.zeros(sum(map(len, segments)), bool)
    is_wanted[wanted] = True
    start = 0
    for segment in segments:
        rows = np.flatnonzero(is_wanted[start : start + len(segment)])
        start += len(segment)
        if not len(rows):
            continue
        try:
            for which, features in read_rows(segment, rows):
                yield _Rows(features, segment.digests[rows[which]], segment.views[rows[which]])
        except SegmentDamageError as error:
            raise _UnreadableError(segment, str(error)) from error


def _portions(parts: Iterator[_Rows], n_rows: int) -> Iterator[_Rows]:
    """Yield the rows of all `parts`, `n_rows` at a time; the last of them may be fewer."""
    waiting: list[_Rows] = []
    for part in parts:
        waiting.append(part)
        while sum(len(rows.views) for rows in waiting) >= n_rows:
            joined = _joined(waiting)
            yield _cut(joined, slice(0, n_rows))
            waiting = [_cut(joined, slice(n_rows, None))] if len(joined.views) > n_rows else []
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Rows)))


def _cut(rows: _Rows, which: slice) -> _Rows:
    return _Rows(rows.features[which], rows.digests[which], rows.views[which])
