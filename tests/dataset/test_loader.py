import hashlib
import threading
import time

import numpy as np
import pytest

from featx.dataset import loader
from featx.dataset.loader import read_batches
from featx.images.decode import decode_image, read_file


def digests_of(paths) -> np.ndarray:
    return np.array([list(hashlib.sha256(path.read_bytes()).digest()) for path in paths], np.uint8)


@pytest.fixture
def photos(make_photos, tmp_path):
    return sorted(make_photos(tmp_path / "data", n_train=15, n_test=4).rglob("*.jpg"))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 3), (7, 2), (100, None)])
def test_batches_keep_the_order_of_the_files(photos, batch_size, workers):
    batches = list(read_batches(photos, digests_of(photos), (20, 30), batch_size, workers))
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tolist() == list(range(len(photos)))
    images = np.concatenate([batch.images for batch in batches])
    expected = np.stack([decode_image(path.read_bytes(), (20, 30)) for path in photos])
    assert np.array_equal(images, expected)


def test_bad_files_leave_a_gap_in_the_rows_and_shift_nothing(photos):
    photos[3].write_bytes(b"no image")
    digests = digests_of(photos)
    photos[5].write_bytes(photos[6].read_bytes())
    photos[8].unlink()
    batches = list(read_batches(photos, digests, (20, 30), 6))
    bad = {image.row: image for batch in batches for image in batch.unreadable}
    assert {row: image.is_content for row, image in bad.items()} == {3: True, 5: False, 8: False}
    assert "changed while featx was running" in bad[5].reason
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tolist() == [row for row in range(len(photos)) if row not in bad]
    last = decode_image(photos[-1].read_bytes(), (20, 30))
    assert np.array_equal(batches[-1].images[-1], last)


def test_batch_of_nothing_but_bad_files_is_empty(photos):
    for path in photos[4:8]:
        path.write_bytes(b"no image")
    empty = list(read_batches(photos, digests_of(photos), (20, 30), 4))[1]
    assert empty.images.shape == (0, 20, 30, 3)
    assert empty.rows.tolist() == []
    assert [image.row for image in empty.unreadable] == [4, 5, 6, 7]


def test_batches_are_arrays_of_their_own(photos):
    batches = list(read_batches(photos, digests_of(photos), (20, 30), 4))
    kept = batches[1].images.copy()
    batches[0].images[:] = 0
    assert np.array_equal(batches[1].images, kept)


@pytest.mark.parametrize(("most_bytes", "n_files"), [(1 << 20, 8 * 2), (20 * 30 * 3 * 2 * 3, 3 * 2), (0, 2 * 2)])
def test_files_are_decoded_ahead_so_far_and_no_further(photos, monkeypatch, most_bytes, n_files):
    read: list[str] = []
    monkeypatch.setattr(loader, "LOOK_AHEAD_BYTES", most_bytes)
    monkeypatch.setattr(loader, "read_source", lambda path: (read.append(path.name), read_file(path))[1])
    batches = read_batches(photos, digests_of(photos), (20, 30), 2)
    for n_taken in range(3):
        next(batches)
        deadline = time.monotonic() + 60
        while len(read) < n_files + 2 * n_taken and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # for what should not be read
        assert len(read) == n_files + 2 * n_taken
    batches.close()


def test_threads_are_as_many_as_the_process_may_use_cores_unless_told_otherwise(photos, monkeypatch):
    monkeypatch.setattr(loader, "n_cores", lambda: 3)
    for workers, n_threads in ((None, 3), (2, 2)):
        threads = set()
        together = threading.Barrier(n_threads)

        def meet(path, threads=threads, together=together):
            if threading.get_ident() not in threads:
                threads.add(threading.get_ident())
                together.wait(60)
            return read_file(path)

        monkeypatch.setattr(loader, "read_source", meet)
        list(read_batches(photos, digests_of(photos), (20, 30), 8, workers))
        assert len(threads) == n_threads


def test_stopping_early_does_not_decode_the_rest(photos):
    batches = read_batches(photos, digests_of(photos), (20, 30), 2, 1)
    next(batches)
    batches.close()
    assert list(batches) == []
