import hashlib

import numpy as np
import pytest

from featx.images import decode_image
from featx.reader import read_batches


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


def test_stopping_early_does_not_decode_the_rest(photos):
    batches = read_batches(photos, digests_of(photos), (20, 30), 2, 1)
    next(batches)
    batches.close()
    assert list(batches) == []
