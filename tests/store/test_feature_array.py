import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from featx.errors import DamagedSegmentError, FeaturesMissingError
from featx.recipe import Recipe
from featx.store.compaction import compact
from featx.store.feature_array import stored_rows
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name, read_rows
from featx.system.timings import Timings

RECIPE = Recipe(
    backbone="vgg16",
    weights="random-0",
    layer="block5_pool",
    image_size=(32, 32),
    preprocessing="caffe",
    dtype="float32",
)
SHAPE = (2, 3, 70)


def digests_of(numbers):
    """Return digests `(n, 32)`: those of neighbours begin alike in all of the bytes that the index sorts by."""
    digests = np.zeros((len(numbers), 32), np.uint8)
    digests[:, 31] = np.asarray(numbers) % 251 + 1
    digests[:, :2] = (np.asarray(numbers) // 3)[:, np.newaxis].astype(">u2").view(np.uint8)
    return digests


def features_of(numbers, view=0):
    """Return features `(n, *SHAPE)` that tell whose they are."""
    return np.asarray(numbers, np.float32)[:, np.newaxis, np.newaxis, np.newaxis] + np.full(SHAPE, view / 8, np.float32)


def fill(store, numbers, view=0):
    store.write_segment(
        new_segment_name(), features_of(numbers, view), digests_of(numbers), lambda: Timings(len(numbers)), view
    )


@pytest.fixture
def store(tmp_path):
    """A store of 2000 rows in three segments, in no order."""
    store = FeatureStore(tmp_path, RECIPE)
    for numbers in np.array_split(np.random.default_rng(0).permutation(2000), [300, 301]):
        fill(store, numbers)
    store.reload()
    return store


def read(parts, n):
    """Return the features of all parts in the order of their rows; each row must come once."""
    parts = list(parts)
    names = np.concatenate([names for names, _ in parts])
    assert sorted(names.tolist()) == list(range(n))
    return np.concatenate([features for _, features in parts])[np.argsort(names)]


def test_rows_are_those_of_their_images_in_any_order_and_selection(store):
    numbers = np.random.default_rng(1).permutation(2000)[:1500]
    rows = stored_rows(store, digests_of(numbers))
    assert rows.shape == (1500, *SHAPE)
    np.testing.assert_array_equal(rows[:], features_of(numbers))
    np.testing.assert_array_equal(rows[7:11], features_of(numbers[7:11]))
    np.testing.assert_array_equal(rows[np.array([5, 3, 5])], features_of(numbers[[5, 3, 5]]))
    np.testing.assert_array_equal(rows.take(numbers < 50)[:], features_of(numbers[numbers < 50]))
    np.testing.assert_array_equal(read(rows.in_order(), 1500), features_of(numbers))


@example(numbers=[0, 0, 2], close=True)
@given(numbers=st.lists(st.integers(0, 1999), min_size=1, max_size=40), close=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_are_right_whichever_are_wanted_and_however_often(store, numbers, close):
    """Neighbours, gaps between them and repeats: the same image may be in a data set twice."""
    wanted = np.array([number % 8 for number in numbers] if close else numbers)
    digests = digests_of(np.arange(2000))
    segment = max(store.segments, key=len)
    names = {digest.tobytes(): number for number, digest in enumerate(digests)}
    there = np.array([names[digest.tobytes()] for digest in segment.digests])
    rows = np.sort(wanted % len(segment))
    parts = list(read_rows(segment, rows))
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), features_of(there[rows]))
    np.testing.assert_array_equal(stored_rows(store, digests[wanted])[:], features_of(wanted))


def test_shuffled_rows_come_once_each_in_whole_batches_and_are_mixed(store):
    rows = stored_rows(store, digests_of(np.arange(2000)), buffer_bytes=400 * 2 * 3 * 70 * 4)
    parts = list(rows.shuffled(np.random.default_rng(0), multiple_of=32))
    assert [len(names) % 32 for names, _ in parts[:-1]] == [0] * (len(parts) - 1)
    assert len(parts) > 3
    np.testing.assert_array_equal(read(parts, 2000), features_of(np.arange(2000)))
    order = np.concatenate([names for names, _ in parts])
    places = np.empty(2000, np.int64)
    places[rows._pieces()[0]] = np.arange(2000)
    assert (np.diff(places[order]) == 1).mean() < 0.05  # neighbours on disk are no neighbours any more


def test_the_order_is_decided_by_the_seed(store):
    rows = stored_rows(store, digests_of(np.arange(2000)), buffer_bytes=1 << 18)
    one, same, other = (
        np.concatenate([names for names, _ in rows.shuffled(np.random.default_rng(seed))]) for seed in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_rows_of_two_stores_below_each_other(store, tmp_path):
    views = FeatureStore(tmp_path / "views", RECIPE)
    fill(views, np.arange(50), view=1)
    fill(views, np.arange(50), view=2)
    views.reload()
    of_views = stored_rows(views, np.repeat(digests_of(np.arange(50)), 2, axis=0), np.tile([1, 2], 50))
    both = stored_rows(store, digests_of(np.arange(2000)), buffer_bytes=1 << 18).followed_by(of_views)
    assert both.shape == (2100, *SHAPE)
    expected = np.repeat(features_of(np.arange(50)), 2, axis=0) + np.tile([1 / 8, 2 / 8], 50).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(both[2000:], expected)
    np.testing.assert_array_equal(read(both.in_order(), 2100)[:2000], features_of(np.arange(2000)))
    shuffled = read(both.shuffled(np.random.default_rng(0)), 2100)
    np.testing.assert_array_equal(shuffled[2000:], expected)


def test_rows_that_another_process_merges_meanwhile_are_still_read(store, tmp_path):
    rows = stored_rows(store, digests_of(np.arange(2000)))
    parts = rows.in_order()
    first = next(parts)
    compact(FeatureStore(tmp_path, RECIPE))
    assert len(list(store.dir.glob("seg-*"))) == 1
    np.testing.assert_array_equal(read([first, *parts], 2000), features_of(np.arange(2000)))
    np.testing.assert_array_equal(rows[:], features_of(np.arange(2000)))


def test_a_flipped_bit_is_found_and_nothing_of_its_row_is_given_out(store):
    rows = stored_rows(store, digests_of(np.arange(2000)))
    path = max(store.dir.glob("seg-*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedSegmentError, match="run the extraction again"):
        list(rows.shuffled(np.random.default_rng(0)))
    assert path.with_name(f"damaged-{path.name}").exists()


def test_missing_rows_are_an_error(store):
    with pytest.raises(FeaturesMissingError, match="1 of 2 images"):
        stored_rows(store, digests_of([5, 2001]))
