"""Paths in a block of bytes: a sequence of strings like any other, whatever the strings are."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.dataset import path_table
from featx.dataset.path_table import PathTable

#: Any text, also what stands for bytes of a file name that are not UTF-8.
NAMES = st.lists(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=6), max_size=12)


@settings(deadline=None)
@given(NAMES, st.data())
def test_a_table_says_what_a_tuple_says(names, data):
    table = PathTable(names)
    assert table == tuple(names)
    assert list(table) == names
    assert [table[row] for row in range(-len(names), len(names))] == names + names
    part = data.draw(st.slices(len(names)))
    assert table[part] == names[part]
    rows = data.draw(st.lists(st.integers(0, max(0, len(names) - 1)), max_size=8 if names else 0))
    assert table.take(np.array(rows, np.int64)) == [names[row] for row in rows]
    assert pickle.loads(pickle.dumps(table)) == table
    assert PathTable.joined([table, PathTable(), table]) == names + names


@settings(deadline=None)
@given(NAMES, NAMES)
def test_tables_are_equal_if_all_their_paths_are(one, other):
    assert (PathTable(one) == PathTable(other)) == (one == other)
    assert (PathTable(one) == tuple(other)) == (one == other)
    assert PathTable(["a"]) != (1,)


def test_a_number_that_is_no_path_is_an_error():
    with pytest.raises(IndexError, match="There are 2 paths"):
        PathTable(["a", "b"])[2]
    with pytest.raises(IndexError):
        PathTable()[0]


def test_paths_in_several_slabs_are_all_there(monkeypatch):
    monkeypatch.setattr(path_table, "_SLAB_ROWS", 4)
    names = [f"cats/{number}.jpg" for number in range(11)]
    table = PathTable(names)
    assert table == names
    assert table.take(np.arange(10, -1, -1)) == names[::-1]


def test_a_path_takes_four_bytes_more_than_its_characters():
    names = [f"cats/{number:08}.jpg" for number in range(100_000)]
    table = PathTable(names)
    assert len(table.block) + table.starts.nbytes <= 100_000 * (len(names[0]) + 4) + 4
    assert table.take(np.arange(100_000)) is table
