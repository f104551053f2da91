"""The index file of a large store: opened without its segments, never behind them, never believed when damaged."""

import errno
import json
import struct
from itertools import pairwise

import numpy as np
import pytest

from featx.store import feature_store, verification
from featx.store.compaction import compact
from featx.store.feature_store import FeatureStore
from featx.store.index_file import INDEX_NAME, read_index_file
from featx.store.verification import check_store, mend_store
from tests.store.test_feature_store import RECIPE, add, reopened, rows


@pytest.fixture
def store(tmp_path, monkeypatch) -> FeatureStore:
    """Return a store of 30 rows in three segments, with an index file, as one of more than `INDEX_ROWS` has."""
    monkeypatch.setattr(feature_store, "INDEX_ROWS", 8)
    store = FeatureStore(tmp_path / "cache", RECIPE)
    for first, end in pairwise([0, 10, 20, 30]):
        add(store, range(first, end), elapsed_s=1.0)
    store.publish()
    assert (store.dir / INDEX_NAME).is_file()
    return store


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Return a list of the segments that are opened from now on."""
    names = []
    read_index = feature_store.read_index

    def noted(path, recipe):
        names.append(path.name)
        return read_index(path, recipe)

    monkeypatch.setattr(feature_store, "read_index", noted)
    return names


def is_whole(store: FeatureStore, n: int) -> bool:
    order = np.random.default_rng(0).permutation(n)
    features, digests = rows(order)
    return len(store) == n and np.array_equal(store.read(digests), features)


def test_a_store_with_an_index_is_opened_without_opening_a_segment(store, opened):
    again = reopened(store)
    assert opened == []
    assert is_whole(again, 30)
    assert again.cost(rows(range(30))[1]).elapsed_s == pytest.approx(3.0)
    assert is_whole(store, 30)


def test_a_small_store_has_no_index(tmp_path):
    small = FeatureStore(tmp_path / "cache", RECIPE)
    add(small, range(30))
    small.publish()
    assert not (small.dir / INDEX_NAME).exists()


def test_rows_that_came_later_are_found_and_a_row_in_both_is_one(store, opened):
    new = add(store, range(25, 35))
    opened.clear()
    again = reopened(store)
    assert opened == [new.name]
    assert is_whole(again, 35)
    assert again.dir.joinpath(INDEX_NAME).is_file()


def test_the_index_is_written_again_once_many_rows_are_not_in_it(store, opened):
    add(store, range(30, 35))
    store.publish()  # 5 of 8
    opened.clear()
    assert is_whole(reopened(store), 35)
    assert len(opened) == 1
    add(store, range(35, 40))
    store.publish()
    opened.clear()
    assert is_whole(reopened(store), 40)
    assert opened == []


def test_an_index_of_segments_that_were_merged_is_not_used(store):
    other = reopened(store)
    index = (store.dir / INDEX_NAME).read_bytes()
    compact(store)
    store.publish()
    (store.dir / INDEX_NAME).write_bytes(index)  # of before
    assert is_whole(reopened(store), 30)
    other.reload()
    assert is_whole(other, 30)
    other.publish()
    assert is_whole(reopened(store), 30)
    assert check_store(store.dir).damages == ()


def test_a_damaged_index_is_noticed_wherever_it_is_damaged(store):
    path = store.dir / INDEX_NAME
    content = path.read_bytes()
    header = struct.calcsize("<8sIIQ")
    for at in [*range(header), *range(header, len(content), 13)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        index = read_index_file(store.dir, RECIPE)
        assert index is None or content[at] == 0, at  # between the arrays are zeros that mean nothing
    for n_bytes in range(0, len(content), 41):
        path.write_bytes(content[:n_bytes])
        assert read_index_file(store.dir, RECIPE) is None
        assert is_whole(reopened(store), 30)


def test_an_index_that_somebody_made_up_is_not_believed(store):
    path = store.dir / INDEX_NAME
    content = path.read_bytes()
    start = struct.Struct("<8sIIQ")
    magic, version, _, n_bytes = start.unpack_from(content)
    header = json.loads(content[start.size : start.size + n_bytes])
    first, *others = header["segments"]
    wrong = [
        {"segments": []},
        {"segments": [["seg-../../x.h5", *first[1:]], *others]},
        {"segments": [["features.h5", *first[1:]], *others]},
        {"segments": [[first[0], first[1] + 1, *first[2:]], *others]},
        {"segments": [[first[0], first[1], first[2], first[3] + 1, first[4]], *others]},
        {"segments": [[first[0], first[1], 0, first[3], first[4]], *others]},
        {"segments": 7},
        {"feature_shape": []},
        {"feature_shape": [-2, 2, 8]},
        {"arrays": {}},
        {"arrays": header["arrays"] | {"row": [1 << 60, 30, 0]}},
        {"arrays": header["arrays"] | {"row": [0, -1, 0]}},
        {"recipe": "ab"},
    ]
    from isal.isal_zlib import crc32

    for change in wrong:
        text = json.dumps(header | change).encode().ljust(n_bytes)[:n_bytes]
        path.write_bytes(start.pack(magic, version, crc32(text), n_bytes) + text + content[start.size + n_bytes :])
        assert read_index_file(store.dir, RECIPE) is None, change
        assert is_whole(reopened(store), 30)
    path.write_bytes(content)
    assert read_index_file(store.dir, RECIPE) is not None


def test_verify_names_a_damaged_index_and_mend_writes_it_again(store):
    path = store.dir / INDEX_NAME
    assert check_store(store.dir).damages == ()
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    check = check_store(store.dir)
    assert [damage.path.name for damage in check.damages] == [INDEX_NAME]
    mend_store(check)
    assert path.read_bytes() == content
    assert check_store(store.dir).damages == ()


def test_a_store_that_may_only_be_read_works_without_an_index(store, monkeypatch, caplog):
    (store.dir / INDEX_NAME).unlink()

    def refused(*_arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(feature_store, "write_index_file", refused)
    again = reopened(store)
    again.publish()
    assert is_whole(again, 30)
    assert not caplog.text


def test_a_damaged_segment_that_cannot_be_moved_is_told_once_though_the_index_knows_it(store, monkeypatch, caplog):
    path = min(store.dir.glob("seg-*"))
    content = bytearray(path.read_bytes())
    content[int(reopened(store).segments[0].chunks.offsets[0]) + 5] ^= 1
    path.write_bytes(content)

    def refused(*_arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(feature_store, "move", refused)
    again = reopened(store)
    with pytest.raises(feature_store.DamagedSegmentError):
        again.read(rows(range(30))[1])
    again.reload()
    assert len(again) == 20
    assert caplog.text.count("is damaged") == 1


def test_an_index_where_featx_has_none_is_no_damage(store, monkeypatch):
    path = store.dir / INDEX_NAME
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(verification, "can_have_index", lambda _dir: False)
    assert check_store(store.dir).damages == ()


def test_an_index_behind_its_segments_is_no_damage(store):
    add(store, range(30, 33))
    store.publish()
    assert check_store(store.dir).damages == ()


def test_timings_that_were_added_in_another_order_are_no_damage(store):
    for number in range(3):  # 1/3 + 1/4 + 1/5 + 3 is not quite 3 + 1/3 + 1/4 + 1/5
        last = add(store, range(30 + number, 31 + number), elapsed_s=1 / (number + 3))
        last.rename(last.with_name(f"seg-{number:032x}.h5"))  # before those that the index knows
    store.publish()
    assert store.segments[0].path.name > store.segments[-1].path.name
    assert check_store(store.dir).damages == ()


def test_a_segment_damaged_after_the_index_was_written_is_found_when_it_is_read(store, caplog):
    path = min(store.dir.glob("seg-*"))
    content = bytearray(path.read_bytes())
    features = reopened(store).segments[0].chunks
    content[int(features.offsets[0]) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(feature_store.DamagedSegmentError):
        reopened(store).read(rows(range(30))[1])
    again = reopened(store)
    assert len(again) == 20
    assert "is damaged" in caplog.text
