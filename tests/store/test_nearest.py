"""The nearest rows are exactly those that a comparison with every row finds, in memory and on disk."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from featx.recipe import Recipe
from featx.store import FeatureStore, nearest_rows, new_segment_name, stored_rows, unit_rows
from featx.system import Timings


def digests_of(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 32), np.uint8)


def test_positions_are_averaged_and_rows_have_length_one() -> None:
    features = np.random.default_rng(0).random((5, 2, 3, 4)).astype(np.float16)
    expected = features.astype(np.float64).mean(axis=(1, 2))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_rows(features), expected, rtol=1e-5)
    assert not unit_rows(np.zeros((1, 4), np.float16)).any()


@pytest.mark.parametrize("k", [1, 10, 3000, 5000])
def test_none_is_missed(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featx.store.feature_array._SLAB_BYTES", 40_000)  # many slabs
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 16)).astype(np.float16)
    queries = unit_rows(X[::500] + rng.normal(size=(6, 16)))
    rows, cosine = nearest_rows(queries, X, k)
    k = min(k, len(X))
    distance, expected = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(X).kneighbors(queries)
    assert rows.shape == cosine.shape == (6, k)
    np.testing.assert_allclose(cosine, 1 - distance, atol=2e-6)
    for found, wanted in zip(rows, expected, strict=True):
        assert len(set(found) & set(wanted)) >= k - 1  # the last two may be as near as each other
    assert np.mean(rows == expected) > 0.98


def test_equally_near_rows_come_in_their_order() -> None:
    X = np.tile(np.random.default_rng(0).normal(size=(3, 8)), (40, 1)).astype(np.float16)
    rows, cosine = nearest_rows(unit_rows(X[:1]), X, 10)
    assert rows[0].tolist() == list(range(0, 30, 3))
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_a_row_is_no_answer_to_itself() -> None:
    X = np.eye(4, dtype=np.float32)
    X[3] = X[1]
    rows, cosine = nearest_rows(unit_rows(X), X, 4, own=np.array([0, 1, -1, 3]))
    assert rows[:, 0].tolist() == [1, 3, 2, 1]
    assert rows[:, 3].tolist() == [-1, -1, 3, -1]
    assert np.isnan(cosine[0, 3])


def test_on_disk_as_in_memory(tmp_path: Path) -> None:
    recipe = Recipe(backbone="vgg16", weights="random-0", layer="a", image_size=(32, 32), preprocessing="caffe")
    X = np.random.default_rng(0).normal(size=(500, 2, 2, 8)).astype(np.float16)
    digests = digests_of(500)
    store = FeatureStore(tmp_path, recipe)
    for part in np.array_split(np.random.default_rng(2).permutation(500), 3):
        store.write_segment(new_segment_name(), X[part], digests[part], Timings)
    store.reload()
    queries, n_done = unit_rows(X[:20]), []
    on_disk = nearest_rows(queries, stored_rows(store, digests), 7, done=n_done.append)
    np.testing.assert_array_equal(on_disk[0], nearest_rows(queries, X, 7)[0])
    assert sum(n_done) == 500
