"""A comparison image by image: planted copies, wrong labels and mistakes are found, and nothing else is."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from featx.compare.error_analysis import (
    N_IN_CELL,
    ErrorAnalysis,
    analyse_errors,
    feature_map,
)
from featx.compare.mistakes import N_MISTAKES
from featx.compare.result import Comparison
from featx.dataset.image_dataset import ImageDataset
from featx.system.arguments import from_json_value
from featx.train.near_duplicates import Copies
from tests.conftest import SMALL


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def dataset_of(n_train: int, n_test: int, n_classes: int = 2) -> ImageDataset:
    n = n_train + n_test
    rng = np.random.default_rng(1)
    return ImageDataset(
        root=None,
        class_names=tuple("abcdefghij"[:n_classes]),
        paths=tuple(f"{i:05}.jpg" for i in range(n)),
        labels=np.arange(n) % n_classes,
        is_test=np.arange(n) >= n_train,
        digests=rng.integers(0, 256, (n, 32), np.uint8),
    )


# The map


def test_map_puts_what_is_alike_together(rng):
    centres = rng.normal(0, 20, (3, 40))
    groups = np.repeat(np.arange(3), 40)
    places = feature_map((centres[groups] + rng.normal(0, 1, (120, 40))).astype(np.float16).reshape(120, 2, 20), seed=0)
    assert places.shape == (120, 2)
    assert (places.min(), places.max()) == (0, 1)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    again = feature_map((centres[groups] + 0).astype(np.float16).reshape(120, 2, 20), seed=0)
    assert np.isfinite(again).all()


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (4, 5), (5, 1), (6, 4)])
def test_map_of_few_images_or_features_is_a_map(rng, shape):
    places = feature_map(rng.normal(0, 1, shape), seed=0)
    assert places.shape == (shape[0], 2)
    assert ((places >= 0) & (places <= 1)).all()


@pytest.mark.parametrize("n_different", [1, 2, 4, 5, 6])
def test_map_of_images_that_are_often_equal_is_a_map(rng, n_different):
    X = rng.normal(0, 1, (n_different, 4)).astype(np.float16)[np.arange(60) % n_different]
    places = feature_map(X, seed=0)
    assert np.isfinite(places).all()


# All together


@pytest.fixture
def planted(rng):
    """30 training and 20 test images: test image 3 copies training images 5 and 6, training image 7 is mislabelled."""
    dataset = dataset_of(30, 20)
    centres = np.array([[5.0] * 8 + [0.0] * 8, [0.0] * 8 + [5.0] * 8])
    X = np.abs(centres[dataset.labels] + rng.normal(0, 2, (50, 16)))
    probabilities = np.where(dataset.labels[30:, None] == np.arange(2), 0.8, 0.2)
    probabilities[[3, 6]] = [[0.99, 0.01], [0.3, 0.7]]  # their classes are 1 and 0
    out_of_fold = np.where(dataset.labels[:30, None] == np.arange(2), 0.9, 0.1 + 1e-6).astype(np.float32)
    out_of_fold[7] = [0.97, 0.03]
    return analyse_errors(
        dataset,
        {"first": probabilities, "second": probabilities[:, ::-1]},
        "first",
        0,
        backbone="vgg16",
        X=X.astype(np.float16),
        near=Copies(np.array([[5, 33], [6, 33], [9, 11], [8, 9]]), np.array([0.99, 0.98, 0.97, 0.96], np.float32)),
        out_of_fold=out_of_fold,
        judge="first",
        skipped=[("bad.jpg", "no image")],
    )


def test_planted_copy_is_found_and_accuracy_is_given_without_it(planted):
    assert planted.n_near_duplicates == 1
    [copy] = planted.near_duplicates
    assert (copy.test_path, copy.train_path, copy.test_label, copy.train_label) == ("00033.jpg", "00005.jpg", "b", "b")
    assert copy.cosine == pytest.approx(0.99)
    assert [approach.accuracy_without_duplicates for approach in planted.approaches] == [18 / 19, 1 / 19]


def test_what_was_calibrated_is_shown_before_and_after():
    rng = np.random.default_rng(0)
    dataset = dataset_of(30, 200)
    y = dataset.labels[30:]
    p = np.where(rng.random(200) < 0.8, 0.8, 0.2)
    plain = np.where(y[:, None] == np.arange(2), p[:, None], 1 - p[:, None])
    temperatures = {"one": 0.5, "of folds": np.where(np.arange(200) < 100, 0.5, 2.0)}
    found = analyse_errors(dataset, dict.fromkeys((*temperatures, "none"), plain), "none", 0, temperatures=temperatures)
    one, of_folds, none = found.approaches
    assert one.calibration_error_before == pytest.approx((p > 0.5).mean() - 2 / 3)
    assert {round(each.confidence, 3) for each in one.reliability_before} == {0.667}
    assert {round(each.confidence, 3) for each in of_folds.reliability_before} == {0.667, 0.941}
    assert (none.reliability_before, none.calibration_error_before) == ((), None)
    assert one.reliability == none.reliability
    assert none.risk_coverage[-1].error == pytest.approx((p < 0.5).mean())


def test_copies_within_a_split_are_named_those_in_different_classes_first(planted):
    assert planted.n_copies_within == 2
    first, second = planted.copies_within
    assert (first.split, first.first_path, first.second_path) == ("train", "00008.jpg", "00009.jpg")
    assert (first.first_label, first.second_label) == ("a", "b")
    assert (second.first_path, second.second_path) == ("00009.jpg", "00011.jpg")


def test_copies_byte_for_byte_within_a_split_are_left_out(planted):
    dataset = dataset_of(30, 20)
    dataset.digests[9] = dataset.digests[8]
    copies = Copies(np.array([[8, 9]]), np.ones(1, np.float32))
    probabilities = {"x": np.full((20, 2), 0.5)}
    found = analyse_errors(dataset, probabilities, "x", 0, backbone="b", X=np.eye(50), near=copies)
    assert (found.n_copies_within, found.copies_within) == (0, ())


def test_planted_wrong_labels_are_ranked(planted):
    assert [(doubt.path, doubt.split, doubt.label, doubt.suggested) for doubt in planted.doubtful] == [
        ("00033.jpg", "test", "b", "a"),
        ("00007.jpg", "train", "b", "a"),
    ]
    assert planted.doubtful[1].label_probability == pytest.approx(0.03)
    assert planted.n_doubtful == 2


def test_a_low_probability_alone_makes_no_label_doubtful():
    """Of many classes, that of the label is often low without another one that is high."""
    dataset = dataset_of(10, 10, n_classes=10)
    flat, sure = np.full((10, 10), 0.1), np.full((10, 10), 0.04)
    flat[:, 0] = 0.1 + 1e-6
    sure[:, 0] = 0.64
    for of_test, n in ((flat, 0), (sure, 9)):
        found = analyse_errors(dataset, {"x": of_test}, "x", 0, out_of_fold=flat.astype(np.float32), judge="x")
        assert found.n_doubtful == n


def test_a_head_that_agrees_with_few_labels_says_so(planted):
    assert planted.weak_agreement is None
    dataset = dataset_of(10, 10)
    guesses = np.tile([0.9, 0.1], (10, 1))  # it agrees with the half of the labels that are of the first class
    found = analyse_errors(dataset, {"x": guesses}, "x", 0, out_of_fold=guesses.astype(np.float32), judge="x")
    assert found.weak_agreement == pytest.approx((dataset.labels == 0).mean())


def test_exact_copies_are_counted_by_kind_and_named():
    dataset = dataset_of(6, 4)
    dataset.digests[2] = dataset.digests[0]  # within a split
    dataset.digests[6] = dataset.digests[1]  # across splits and, as labels take turns, across classes
    found = analyse_errors(dataset, {"x": np.full((4, 2), 0.5)}, "x", 0)
    assert {copies.kind: (copies.n, copies.examples) for copies in found.copies} == {
        "within a split": (1, (("00000.jpg", "00002.jpg"),)),
        "across splits": (1, (("00001.jpg", "00006.jpg"),)),
        "across classes": (1, (("00001.jpg", "00006.jpg"),)),
    }


def test_every_class_has_sample_images():
    found = analyse_errors(dataset_of(30, 20, 3), {"x": np.full((20, 3), 1 / 3)}, "x", 0)
    assert [(one.label, one.n_train, one.n_test) for one in found.classes] == [("a", 10, 7), ("b", 10, 7), ("c", 10, 6)]
    for label, one in enumerate(found.classes):
        assert len(set(one.paths)) == 4
        assert all(int(path[:5]) < 30 and int(path[:5]) % 3 == label for path in one.paths)


def test_mistakes_and_cells_are_the_images_in_the_confusion_matrix(planted):
    first, second = planted.approaches
    assert [(m.path, m.label, m.predicted, m.probability) for m in first.mistakes] == [
        ("00033.jpg", "b", "a", 0.99),
        ("00036.jpg", "a", "b", 0.7),
    ]
    cells = {(cell.label, cell.predicted): cell.paths for cell in first.cells}
    assert set(cells) == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}
    assert cells["b", "a"] == ("00033.jpg",)
    assert len(second.mistakes) == N_MISTAKES
    assert max(len(cell.paths) for cell in second.cells) <= N_IN_CELL


def test_map_shows_test_images_only(planted):
    assert {point.path for point in planted.map} == {f"{i:05}.jpg" for i in range(30, 50)}
    assert {(p.label, p.predicted) for p in planted.map if p.path in {"00033.jpg", "00036.jpg"}} == {
        ("b", "a"),
        ("a", "b"),
    }


def test_large_test_splits_are_sampled_the_same_way_every_time(rng, monkeypatch):
    monkeypatch.setattr("featx.compare.error_analysis.N_ON_MAP", 200)
    dataset = dataset_of(10, 300)
    X = rng.normal(0, 1, (dataset.n_images, 4))
    probabilities = np.full((dataset.n_test, 2), 0.5)
    shown = analyse_errors(dataset, {"x": probabilities}, "x", 0, backbone="b", X=X).map
    assert len(shown) == 200
    shuffled = replace(dataset, digests=dataset.digests[::-1].copy())
    others = analyse_errors(shuffled, {"x": probabilities}, "x", 0, backbone="b", X=X).map
    assert {point.path for point in others} != {point.path for point in shown}


def test_without_features_only_mistakes_are_shown(rng):
    dataset = dataset_of(10, 10, 3)
    found = analyse_errors(dataset, {"report-cnn": rng.dirichlet([1, 1, 1], 10)}, "report-cnn", 0)
    assert (found.backbone, found.map, found.near_duplicates, found.doubtful) == (None, (), (), ())
    assert found.approaches[0].accuracy_without_duplicates is None


def test_error_analysis_survives_json(planted):
    assert from_json_value(ErrorAnalysis, json.loads(json.dumps(asdict(planted)))) == planted
    with pytest.raises(TypeError):
        from_json_value(ErrorAnalysis, {})


def test_comparison_holds_its_error_analysis(make_photos, cache, tmp_path):
    from featx.compare.compare import compare_approaches
    from featx.heads.training_loop import Training

    data = make_photos(tmp_path / "data")
    (data / "train" / "sea" / "bad.jpg").write_bytes(b"no image")
    comparison = compare_approaches(
        data,
        baselines=["report-dnn"],
        cache_dir=cache,
        training=Training(epochs=1),
        **SMALL,
    )
    seen = comparison.error_analysis
    assert [images.name for images in seen.approaches] == [approach.name for approach in comparison.approaches]
    for images, approach in zip(seen.approaches, comparison.approaches, strict=True):
        n_right = round(sum(b.accuracy * b.n_samples for b in images.reliability))
        assert n_right == approach.metrics.n_correct
        counts = {(c.label, c.predicted): len(c.paths) for c in images.cells}
        names = comparison.class_names
        for true, row in enumerate(approach.confusion):
            for guess, n in enumerate(row):
                assert counts.get((names[true], names[guess]), 0) == min(n, N_IN_CELL)
    assert len(seen.map) == comparison.n_test
    [(path, reason)] = seen.skipped
    assert path == str(data / "train" / "sea" / "bad.jpg")
    assert "text, not an image" in reason
    assert Comparison.from_json(comparison.to_json()) == comparison
