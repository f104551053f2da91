"""Stage two on features that stay on disk: the same as in memory, but for the order of the rows, in bounded memory."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.compare.compare import compare_approaches
from featx.extract.extract import extract_features
from featx.heads.dense import TrainingSet
from featx.heads.registry import HEADS, train_head
from featx.heads.training_loop import Training, predict_proba
from featx.images.augmentation import REPORT, Views
from featx.recipe import Recipe
from featx.store.feature_array import FeatureArray, StreamedViews, stored_rows
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system.machine import MemoryLimit, free_memory_bytes, peak_memory_bytes, reset_peak_memory
from featx.system.prefetch import in_threads, prefetched
from featx.system.timings import Timings
from featx.train.features import load_features
from featx.train.train import train_top

RECIPE = Recipe(backbone="vgg16", weights="random-0", layer="block5_pool", image_size=(32, 32), preprocessing="caffe")
OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "precision": "float32"}

#: So little that no features fit.
TINY = MemoryLimit(1)


def digests_of(X):
    return np.stack([np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in X])


def digits(n_classes, n):
    """Different digits as features of shape (8, 8, 1) float16, sorted by class as a data set is, and their labels."""
    data = load_digits()
    rows = np.flatnonzero(data.target < n_classes)[:n]
    rows = rows[np.argsort(data.target[rows], kind="stable")]
    return data.images[rows, :, :, None].astype(np.float16), data.target[rows].astype(np.int64)


def stored(folder, X, *, views=0, buffer_bytes=1 << 20):
    """Return the rows of `X`, on disk in several segments."""
    store = FeatureStore(folder, RECIPE)
    digests = digests_of(X)
    numbers = np.broadcast_to(views, len(X))
    for rows in np.array_split(np.arange(len(X)), 5):
        store.write_segment(new_segment_name(), X[rows], digests[rows], Timings, numbers[rows])
    store.reload()
    return stored_rows(store, digests, numbers, buffer_bytes=buffer_bytes)


def head(name, X, y, digests, n_classes, views=None, epochs=12):
    is_validation = np.arange(len(y)) % 5 == 0
    return train_head(name, TrainingSet(X, y, digests, is_validation, n_classes, views), Training(epochs=epochs))


@pytest.mark.parametrize("n_classes", [2, 10])
def test_streamed_logistic_regression_is_the_exact_solvers(n_classes, tmp_path):
    X, y = digits(n_classes, 1200)
    exact, streamed = (head("logreg", rows, y, digests_of(X), n_classes) for rows in (X, stored(tmp_path, X)))
    assert streamed.details["C"] == pytest.approx(exact.details["C"])  # all rows are in the sample
    assert streamed.details["solver"] == "streaming"
    assert streamed.details["converged"] == "yes"
    assert streamed.details["passes"] < 60
    np.testing.assert_allclose(predict_proba(streamed.model, X), predict_proba(exact.model, X), atol=0.02)


def test_a_small_sample_ends_where_all_rows_do(tmp_path):
    """The sample decides only where to begin and how long a step is, and C, which is told here."""
    from sklearn.linear_model import LogisticRegression

    X, y = digits(10, 1700)
    rows = stored(tmp_path, X, buffer_bytes=60_000)  # for 234 of them
    streamed = head("logreg", rows, y, digests_of(X), 10)
    assert streamed.details["cv_images"] == 234
    flat = X.reshape(len(X), -1).astype(np.float64)
    scaled = (flat - flat.mean(axis=0)) * streamed.details["feature_scale"]
    reference = LogisticRegression(C=streamed.details["C"], tol=1e-6, max_iter=5000).fit(scaled, y)
    np.testing.assert_allclose(predict_proba(streamed.model, X), reference.predict_proba(scaled), atol=0.02)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_head_bit_for_bit_and_says_the_same_as_in_memory(name, tmp_path):
    X, y = digits(3, 500)
    rows = stored(tmp_path, X)
    first, second = (head(name, rows, y, digests_of(X), 3) for _ in range(2))
    pairs = zip(first.model.get_weights(), second.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    of_disk, of_memory = predict_proba(first.model, rows), predict_proba(first.model, X)
    np.testing.assert_allclose(of_disk, of_memory, atol=1e-6)
    assert (of_disk.argmax(axis=1) == y).mean() > 0.95


@pytest.mark.parametrize("name", HEADS)
def test_views_on_disk_are_trained_on(name, tmp_path):
    """Only the views tell the classes apart: images themselves are all but alike."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 75)
    images = rng.normal(0, 1, (300, 2, 2, 8)).astype(np.float16)
    views = np.repeat(images + rng.normal(0, 2, (4, 2, 2, 8)).astype(np.float16)[y], 2, axis=0)
    rows = stored(tmp_path / "images", images)
    of_views = stored(tmp_path / "views", views, views=np.tile([1, 2], 300))
    digests = digests_of(images)
    trained = head(name, rows, y, digests, 4, views=StreamedViews(of_views, 2), epochs=30)
    assert trained.details["views"] == 2
    alone = head(name, rows, y, digests, 4, epochs=30)
    of_views_right, alone_right = (
        (predict_proba(model.model, views).argmax(axis=1) == np.repeat(y, 2)).mean() for model in (trained, alone)
    )
    assert of_views_right > 0.9
    assert alone_right < 0.7


@pytest.fixture
def data(make_photos, tmp_path):
    return make_photos(tmp_path / "data", n_train=24, n_test=8)


def test_stage_two_is_the_same_from_disk(data, tmp_path, cache, caplog):
    caplog.set_level("INFO", logger="featx")
    views = Views(2, REPORT, of_test=True)
    extract_features(data, cache_dir=cache, views=views, **OPTIONS)
    runs = {
        memory: train_top(
            data, run_dir=tmp_path / str(number), cache_dir=cache, views=views,
            training=Training(epochs=3, memory=memory), **OPTIONS,
        )
        for number, memory in enumerate((MemoryLimit(1 << 40), TINY))
    }  # fmt: skip
    in_memory, on_disk = runs.values()
    assert isinstance(on_disk.features.X, FeatureArray)
    np.testing.assert_array_equal(on_disk.features.X[:], in_memory.features.X)
    assert on_disk.features.timings == in_memory.features.timings
    assert [message for message in caplog.messages if "stay on disk during training" in message]
    dense, logreg = on_disk.results
    assert {"solver": "streaming", "views": 2}.items() <= logreg.details.items()
    np.testing.assert_allclose(logreg.probabilities, in_memory.results[1].probabilities, atol=0.1)
    assert np.isfinite(dense.probabilities).all()


def test_a_comparison_is_made_from_disk(data, cache):
    views = Views(1, REPORT, of_test=True)
    comparison = compare_approaches(
        data, backbones=["vgg16"], cache_dir=cache, views=views,
        training=Training(epochs=2, memory=TINY), **OPTIONS,
    )  # fmt: skip
    names = [approach.name for approach in comparison.approaches]
    assert {"vgg16 + dense", "vgg16 + logreg", "vgg16 + dense, 1 views, averaged"} <= set(names)
    assert comparison.error_analysis.map
    assert comparison.error_analysis.approaches[0].accuracy_without_duplicates is not None


def test_the_command_says_that_it_streams_and_takes_sizes(data, tmp_path, cache, featx):
    words = [data, "--weights", "random", "--image-size", 32, "--layer", "block2_pool", "--cache-dir", cache]
    featx("extract", *words)
    result = featx("train-top", *words, "--run-dir", tmp_path / "run", "--memory", "1KiB", "--epochs", 2)
    assert "because they need more memory than 1.0 KiB (--memory)" in result.stderr
    wrong = featx("train-top", *words, "--memory", "much", exit_code=2)
    assert "such as 4GiB" in wrong.output


def test_loaded_features_are_arrays_whatever_their_size(data, cache):
    extract_features(data, cache_dir=cache, **OPTIONS)
    assert isinstance(load_features(data, cache_dir=cache, **OPTIONS).X, np.ndarray)


def test_what_is_held_in_memory_is_bounded(tmp_path):
    """96 MiB of features pass through less than half of that."""
    store = FeatureStore(tmp_path, RECIPE)
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (6 * 2048, 32), np.uint8)
    for part in np.split(digests, 6):
        features = rng.standard_normal((2048, 4, 4, 256), np.float32).astype(np.float16)
        store.write_segment(new_segment_name(), features, part, Timings)
    store.reload()
    rows = stored_rows(store, digests[rng.permutation(len(digests))], buffer_bytes=4 << 20)
    del features
    for parts in (rows.in_order, lambda: prefetched(rows.shuffled(np.random.default_rng(0), 32))):
        reset_peak_memory()
        before = peak_memory_bytes()
        assert sum(features.nbytes for _, features in parts()) == 96 << 20
        assert peak_memory_bytes() - before < 40 << 20


def test_free_memory_is_some_and_not_more_than_the_machine_has():
    assert 1 << 20 < free_memory_bytes() < 1 << 45
    assert MemoryLimit().n_bytes == pytest.approx(free_memory_bytes() / 2, rel=0.3)
    assert MemoryLimit(800).holds(100)
    assert not MemoryLimit(800).holds(101)


def test_what_prefetching_meets_is_raised_where_it_is_used_and_stopping_early_is_fine():
    def failing():
        yield 1
        yield 2
        raise ValueError("the third")

    items = prefetched(failing())
    assert next(items) == 1
    assert next(items) == 2
    with pytest.raises(ValueError, match="the third"):
        next(items)
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    source = endless()
    early = prefetched(source)
    next(early)
    early.close()
    source.close()
    assert closed


def test_threads_give_results_in_order_and_take_few_items_at_a_time():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = in_threads(lambda number: number**2, items())
    assert next(results) == 0
    assert len(taken) < 50
    assert list(results) == [number**2 for number in range(1, 50)]
