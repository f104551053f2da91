"""The index that finds rows by their names: digests that begin alike, repeats and gaps included."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featx.store.row_index import RowIndex
from featx.store.segment_file import Segment
from featx.system.timings import Timings

#: Few first bytes and few last ones, so that names collide in the key, and in whole, all the time.
NAMES = st.tuples(st.sampled_from([0, 1, 255]), st.sampled_from([0, 7]), st.sampled_from([0, 1, 2]))


def columns(names):
    """Return the digests `(n, 32)` and the views `(n,)` that `names` stand for."""
    digests = np.zeros((len(names), 32), np.uint8)
    for row, (first, last, _) in enumerate(names):
        digests[row, 0], digests[row, 31] = first, last
    return digests, np.array([view for *_, view in names], np.uint16)


def segment(names):
    digests, views = columns(names)
    checksums = np.zeros(len(names), np.uint32)
    return Segment(Path("seg"), digests, views, (2,), np.dtype("float16"), Timings(), checksums, None)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=6), max_size=5), st.lists(NAMES, max_size=20))
def test_each_name_is_found_where_it_first_is_and_no_other_is_found(segments, wanted):
    index = RowIndex([segment(names) for names in segments])
    everything = [name for names in segments for name in names]
    assert len(index) == len(set(everything))
    found = index.find(*columns(wanted))
    assert found.tolist() == [everything.index(name) if name in everything else -1 for name in wanted]
    there = found[found >= 0]
    numbers, rows = index.locate(there)
    assert [segments[n][row] for n, row in zip(numbers, rows, strict=True)] == [n for n in wanted if n in everything]


def test_an_empty_index_finds_nothing():
    assert RowIndex([]).find(*columns([(1, 7, 0)])).tolist() == [-1]
    assert len(RowIndex([])) == 0


def test_random_digests_are_found_among_a_hundred_thousand():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (100_000, 32), np.uint8)
    views = rng.integers(0, 9, 100_000).astype(np.uint16)
    parts = [
        Segment(Path("seg"), d, v, (2,), np.dtype("float16"), Timings(), np.zeros(len(v), np.uint32), None)
        for d, v in zip(np.array_split(digests, 7), np.array_split(views, 7), strict=True)
    ]
    index = RowIndex(parts)
    order = rng.permutation(100_000)
    assert (index.find(digests[order], views[order]) == order).all()
    assert (index.find(digests[order], views[order] + np.uint16(9)) == -1).all()
