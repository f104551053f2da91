import hashlib
import shutil
import signal
import threading
import time
from concurrent.futures import wait

import numpy as np
import pytest

from featx.errors import StoreError
from featx.recipe import Recipe
from featx.store import segment_writer
from featx.store.feature_store import FeatureStore
from featx.store.segment_writer import SegmentWriter
from featx.system.timings import Stopwatch, Timings

RECIPE = Recipe(backbone="vgg16", weights="ab" * 32, layer="block5_pool", image_size=(64, 64), preprocessing="caffe")
ROWS_IN_SEGMENT = 4


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(segment_writer, "SEGMENT_BYTES", ROWS_IN_SEGMENT * 2 * 2 * 8 * 2)


class GatedStore(FeatureStore):
    """A store that writes to disk while `gate` is open, and knows which threads wrote."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gate = threading.Event()
        self.gate.set()
        self.writers = []

    def write_segment(self, name, features, digests, cost, views=0):
        self.writers.append(threading.current_thread())
        assert self.gate.wait(60)
        return super().write_segment(name, features, digests, cost, views)


@pytest.fixture
def store(tmp_path) -> GatedStore:
    return GatedStore(tmp_path / "cache", RECIPE)


def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 2, 2, 8) float16 and digests (n, 32) of the images `start` to `stop`."""
    numbers = range(start, stop)
    features = [np.full((2, 2, 8), number, np.float16) for number in numbers]
    names = b"".join(hashlib.sha256(b"%d" % number).digest() for number in numbers)
    return np.array(features), np.frombuffer(names, np.uint8).reshape(-1, 32)


def assert_stored(store: FeatureStore, n: int) -> None:
    store.reload()
    features, digests = rows(0, n)
    assert len(store) == sum(map(len, store.segments)) == n  # none twice
    np.testing.assert_array_equal(store.read(digests), features)


def assert_costs_agree(store: FeatureStore, total: Timings) -> None:
    assert sum((segment.timings for segment in store.segments), Timings()) == total
    assert all(segment.timings.n_images == len(segment) for segment in store.segments)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8, 23])
def test_every_row_is_stored_once_however_batches_and_segments_fit(store, batch_size):
    with SegmentWriter(store, Stopwatch()) as writer:
        for start in range(0, 23, batch_size):
            writer.add(*rows(start, min(start + batch_size, 23)))
    assert_stored(store, 23)
    assert sorted(map(len, store.segments)) == [3, 4, 4, 4, 4, 4]
    assert writer.timings.n_images == 23
    assert_costs_agree(store, writer.timings)


def test_flushing_puts_on_disk_what_there_is_and_a_new_segment_follows(store):
    with SegmentWriter(store, Stopwatch()) as writer:
        writer.add(*rows(0, 6))
        writer.flush()
        assert_stored(store, 6)
        writer.flush()
        assert len(store.writers) == 2
        writer.add(*rows(6, 7))
    assert_stored(store, 7)
    assert sorted(map(len, store.segments)) == [1, 2, 4]
    assert_costs_agree(store, writer.timings)


def test_nothing_is_written_for_no_rows(store):
    with SegmentWriter(store, Stopwatch()) as writer:
        pass
    assert not store.dir.exists()
    assert writer.timings == Timings()


def test_old_segment_is_closed_before_it_is_full(store, monkeypatch):
    monkeypatch.setattr(segment_writer, "SEGMENT_AGE_S", 0.0)
    with SegmentWriter(store, Stopwatch()) as writer:
        writer.add(*rows(0, 1))
        writer.add(*rows(1, 3))
    assert_stored(store, 3)
    assert sorted(map(len, store.segments)) == [1, 2]


def test_a_segment_is_filled_while_another_is_written_and_no_more_than_that(store):
    store.gate.clear()
    with SegmentWriter(store, Stopwatch()) as writer:
        writer.add(*rows(0, 8))
        assert not store.gate.is_set()
        threading.Timer(0.05, store.gate.set).start()
        writer.add(*rows(8, 9))
        assert store.gate.is_set()  # before that there was no room
    assert_stored(store, 9)
    assert store.writers[0] is not threading.main_thread()


def test_only_waiting_for_the_writer_counts_as_writing(store):
    begun = time.perf_counter()
    stopwatch = Stopwatch()
    store.gate.clear()

    def open_gate_late():
        while not stopwatch._running:
            time.sleep(0.001)
        time.sleep(0.05)
        store.gate.set()

    with SegmentWriter(store, stopwatch) as writer:
        writer.add(*rows(0, 8))
        time.sleep(0.05)  # the first segment is being written all the while
        opener = threading.Thread(target=open_gate_late)
        opener.start()
        writer.add(*rows(8, 9))
        opener.join()
    store.reload()
    first, second, last = (cost_of(store, number) for number in (0, 4, 8))
    assert first.write_s < 0.05 <= second.write_s < second.elapsed_s - 0.05
    assert 0 < last.write_s <= last.elapsed_s
    assert_costs_agree(store, writer.timings)
    assert writer.timings.write_s <= writer.timings.elapsed_s <= time.perf_counter() - begun


def cost_of(store: FeatureStore, number: int) -> Timings:
    """What the segment cost that begins with the image `number`."""
    begins = rows(number, number + 1)[1]
    return next(segment.timings for segment in store.segments if np.array_equal(segment.digests[:1], begins))


def break_store(store: FeatureStore) -> None:
    if store.dir.exists():
        shutil.move(store.dir, store.dir.with_name("before"))
    store.dir.parent.mkdir(exist_ok=True)
    store.dir.write_text("a file where the folder should be")


def mend_store(store: FeatureStore) -> None:
    store.dir.unlink()
    if store.dir.with_name("before").exists():
        shutil.move(store.dir.with_name("before"), store.dir)


def add_until_writing_has_failed(writer: SegmentWriter) -> None:
    writer.add(*rows(0, 5))
    assert writer._handed_over
    wait([writer._handed_over[1]])


def test_error_of_the_writer_is_raised_by_the_next_add_and_only_once(store):
    break_store(store)
    told = []

    def extract():
        with SegmentWriter(store, Stopwatch()) as writer:
            add_until_writing_has_failed(writer)
            try:
                writer.add(*rows(5, 6))
            except StoreError as error:
                told.append(error)
                raise

    with pytest.raises(StoreError, match="Writing to the store .* failed") as raised:
        extract()
    assert told == [raised.value]


def test_error_of_the_writer_that_no_add_has_met_is_raised_on_leaving(store):
    break_store(store)
    with pytest.raises(StoreError, match="Writing to the store .* failed"), SegmentWriter(store, Stopwatch()) as writer:
        add_until_writing_has_failed(writer)


def test_error_of_another_kind_does_not_hide_the_error_of_the_writer(store):
    break_store(store)

    def extract():
        with SegmentWriter(store, Stopwatch()) as writer:
            add_until_writing_has_failed(writer)
            raise RuntimeError("of the network")

    with pytest.raises(StoreError, match="Writing to the store .* failed"):
        extract()


def test_what_could_not_be_written_is_written_on_leaving_if_it_can_be(store):
    break_store(store)
    writer = SegmentWriter(store, Stopwatch())

    def extract():
        with writer:
            add_until_writing_has_failed(writer)
            try:
                writer.add(*rows(5, 6))
            finally:
                mend_store(store)

    with pytest.raises(StoreError):
        extract()
    assert_stored(store, 5)
    assert_costs_agree(store, writer.timings)


class ToldWriter(SegmentWriter):
    """A writer that says when it has begun to flush for the first and for the second time."""

    def __init__(self, *args):
        super().__init__(*args)
        self.begun = [threading.Event(), threading.Event()]
        self.left = iter(self.begun)

    def flush(self):
        next(self.left).set()
        super().flush()

    def interrupt(self, number: int) -> None:
        """Interrupt the main thread while it flushes for the `number`th time."""
        assert self.begun[number].wait(60)
        time.sleep(0.02)  # most likely it waits for the other thread then
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_interrupt_on_leaving_keeps_the_segment_being_written_and_the_rest(store):
    writer = ToldWriter(store, Stopwatch())
    store.gate.clear()

    def disturb():
        writer.interrupt(0)
        assert writer.begun[1].wait(60)
        store.gate.set()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with pytest.raises(KeyboardInterrupt), writer:
        writer.add(*rows(0, 6))
    disturber.join()
    assert_stored(store, 6)
    assert_costs_agree(store, writer.timings)


def test_second_interrupt_gets_through_and_the_segment_being_written_is_kept(store):
    writer = ToldWriter(store, Stopwatch())
    store.gate.clear()

    def disturb():
        writer.interrupt(0)
        writer.interrupt(1)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with pytest.raises(KeyboardInterrupt), writer:
        writer.add(*rows(0, 6))
    disturber.join()
    assert not store.gate.is_set()
    store.gate.set()
    writer._thread.shutdown()
    assert_stored(store, 4)
