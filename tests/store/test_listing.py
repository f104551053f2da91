"""Segments that come and go while they are looked at: no row is missed."""

import itertools

import pytest

from featx.errors import StoreError
from featx.store import row_index
from featx.store.row_index import look_at_segments


def content(path):
    return path.read_text()


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"seg-{name}.h5").write_text(name)
    return tmp_path


def test_each_is_looked_at_once_and_nothing_else(folder):
    (folder / "seg-d.h5").mkdir()
    (folder / ".tmp-seg-e.h5").write_text("e")
    seen = []
    found = look_at_segments(folder, seen.append)
    assert [path.name for path in found] == ["seg-a.h5", "seg-b.h5", "seg-c.h5"]
    assert seen == list(found)


def test_no_folder_has_no_segments(tmp_path):
    assert look_at_segments(tmp_path / "none", content) == {}


def test_what_is_known_is_not_looked_at_again(folder):
    known = look_at_segments(folder, content)
    (folder / "seg-a.h5").unlink()
    (folder / "seg-d.h5").write_text("d")
    looked_at = []
    again = look_at_segments(folder, lambda path: (looked_at.append(path.name), path.read_text())[1], known)
    assert (looked_at, list(again.values())) == (["seg-d.h5"], ["b", "c", "d"])


@pytest.mark.parametrize("n_mergers", [1, 4])
def test_rows_that_move_at_every_look_are_found_in_their_last_place(folder, n_mergers):
    """However often others merge, the reader only looks at what is new to it, and so it catches up with them."""
    mergers = iter(range(20 * n_mergers))

    def look(path):
        rows = path.read_text()
        for number in [n for n, _ in zip(mergers, range(n_mergers), strict=False)]:
            merge(folder, f"seg-{number:03}.h5")
        return rows

    assert "".join(sorted("".join(look_at_segments(folder, look).values()))) == "abc"


def merge(folder, name):
    old = sorted(folder.glob("seg-*.h5"))
    (folder / name).write_text("".join(path.read_text() for path in old))
    for path in old:
        path.unlink()


def test_a_listing_that_missed_both_copies_of_a_row_is_not_believed(folder, monkeypatch):
    listings = iter([["seg-b.h5"], ["seg-b.h5", "seg-d.h5"], ["seg-b.h5", "seg-d.h5"]])
    (folder / "seg-d.h5").write_text("ac")
    monkeypatch.setattr(row_index, "segment_paths", lambda store_dir: [store_dir / name for name in next(listings)])
    assert list(look_at_segments(folder, content).values()) == ["b", "ac"]


def test_segments_that_never_settle_are_an_error_in_the_end(folder, monkeypatch):
    monkeypatch.setattr(row_index, "PATIENCE_S", 0.1)

    numbers = itertools.count()

    def look(_path):
        merge(folder, f"seg-{next(numbers)}.h5")
        raise FileNotFoundError

    with pytest.raises(StoreError, match="faster than featx can read them; try again when fewer"):
        look_at_segments(folder, look)
