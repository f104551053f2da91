"""`train-top --folds`: the figure is that of heads that saw nothing, and the run's heads have seen everything."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cli.train_top import run_json, run_text
from featx.dataset import ImageFolders, Labels, scan
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.extract.options import options_before
from featx.heads.training_loop import Training
from featx.predict.classifier import Classifier
from featx.train import read_run
from featx.train.cross_validation import calibrated_across, resampled_interval
from featx.train.features import load_features
from featx.train.metrics import measure
from featx.train.train import train_on_features, train_top
from tests.conftest import SMALL, write_patients, write_photos

FAST = Training(epochs=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory, new_cache):
    """Three folds, twice, of 24 images, one of them twice."""
    folder = tmp_path_factory.mktemp("crossed")
    data = write_photos(folder / "data", n_train=8, n_test=4)
    shutil.copy(data / "train/sea/sea.0.jpg", data / "test/sea/copy.jpg")
    cache = new_cache(folder / "cache")
    extract_features(data, cache_dir=cache, **SMALL)
    return train_top(data, run_dir=folder / "run", cache_dir=cache, training=FAST, folds=3, fold_repeats=2, **SMALL)


def rows_of(run) -> list[dict[str, str]]:
    with (run.dir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_is_predicted_once_by_the_head_of_its_fold(run):
    rows, dataset = rows_of(run), run.features.dataset
    assert [row["path"] for row in rows] == list(dataset.paths)
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    fold_of = {row["path"]: row["fold"] for row in rows}
    assert fold_of["train/sea/sea.0.jpg"] == fold_of["test/sea/copy.jpg"]
    is_first = np.array([row["fold"] == "1" for row in rows])
    alone = train_on_features(run.features.with_test(is_first), "logreg", FAST)
    expected = [f"{value:.6f}" for value in alone.probabilities[:, 1]]
    assert [row["logreg:wood"] for row in rows if row["fold"] == "1"] == expected


def test_the_figures_are_those_of_all_images(run):
    metrics = json.loads((run.dir / "metrics.json").read_text())
    assert metrics["dataset"]["n_train"] == metrics["dataset"]["n_test"] == 25
    assert (metrics["folds"], metrics["fold_repeats"]) == (3, 2)
    y = run.features.dataset.labels
    for result, head in zip(run.results, run.cross_validation.heads, strict=True):
        saved = metrics["heads"][result.name]
        repeats = [measure(y, one.probabilities).accuracy for one in head.results]
        assert saved["repeat_accuracies"] == repeats
        assert saved["accuracy"] == pytest.approx(np.mean(repeats))
        assert len(saved["fold_accuracies"]) == 6
        assert saved["accuracy_sd"] == pytest.approx(np.std(saved["fold_accuracies"], ddof=1))
        interval = resampled_interval(saved["fold_accuracies"], 3, saved["accuracy"], 25)
        assert (saved["accuracy_low"], saved["accuracy_high"]) == pytest.approx(interval)
        assert saved["loss"] == pytest.approx(measure(y, result.probabilities).loss)
        assert saved["folds_s"] > 0


def test_the_heads_that_are_kept_are_trained_on_all_images(run):
    everything = run.features.with_test(np.zeros(run.features.dataset.n_images, bool))
    # Training needs a test split to measure; a copy of a row is one, and training does not see it.
    dataset = everything.dataset
    row = np.array([0])
    doubled = replace(
        everything,
        X=np.concatenate([everything.X, everything.X[row]]),
        dataset=replace(
            dataset,
            paths=(*dataset.paths, "again"),
            labels=np.append(dataset.labels, dataset.labels[row]),
            digests=np.concatenate([dataset.digests, dataset.digests[row]]),
            is_test=np.append(dataset.is_test, True),
        ),
    )
    expected = train_on_features(doubled, "logreg", FAST).model.get_weights()
    for kept, weights in zip(run.results[1].model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(kept, weights)


def test_the_run_predicts(run, tmp_path):
    classifier = Classifier.load(run.dir, cache_dir=run.dir.parent / "cache")
    (prediction,) = classifier.predict([run.dir.parent / "data/test/wood/wood.0.jpg"])
    assert prediction.label in {"sea", "wood"}


def test_text_and_json_say_what_the_figures_are(run):
    text = run_text(run)
    assert "vgg16 features (128,) of 25 images, extracted in" in text
    assert text.count("±") == 3
    assert "3-fold cross-validation, 2 times" in text
    assert "The heads in the run are trained on all images." in text
    assert "25 images in cross-validation" in repr(run)
    summary = json.loads(json.dumps(run_json(run)))
    assert (summary["folds"], summary["fold_repeats"]) == (3, 2)
    assert len(summary["fold_accuracies"]["dense"]) == 6


def test_it_needs_no_test_split(tmp_path, new_cache):
    """Three images of each class: with one of them for testing, no fold would leave two."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for number in range(6):
        folder = data / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(folder / f"{number}.png")
    cache = new_cache(tmp_path / "cache")
    extract_features(data, cache_dir=cache, **SMALL)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, folds=3, **SMALL)
    assert run.features.dataset.n_test == 6
    with pytest.raises(FeatxError, match="fewer than two of them to train on"):
        train_top(data, run_dir=tmp_path / "more", cache_dir=cache, training=FAST, folds=2, **SMALL)
    assert not (tmp_path / "more").exists()


def test_features_on_disk_are_cross_validated_with_the_same_folds(run, tmp_path):
    data, cache = run.dir.parent / "data", run.dir.parent / "cache"
    training = replace(FAST, memory=1)
    streamed = train_top(
        data, run_dir=tmp_path / "run", cache_dir=cache, training=training, folds=3, heads="logreg", **SMALL
    )
    assert not isinstance(streamed.features.X, np.ndarray)
    assert [row["fold"] for row in rows_of(streamed)] == [row["fold"] for row in rows_of(run)]
    assert streamed.results[0].metrics.accuracy == pytest.approx(
        run.cross_validation.heads[1].results[0].metrics.accuracy, abs=0.1
    )


def test_a_tuned_block_is_cross_validated(tmp_path, new_cache):
    data, cache = write_photos(tmp_path / "data", n_train=6, n_test=2), new_cache(tmp_path / "cache")
    options = {
        "weights": "random",
        "image_size": (32, 32),
        "precision": "float32",
        "layer": "block2_pool",
        "pooling": "avg",
    }
    extract_features(data, cache_dir=cache, **options_before("block2", cache, **options)[1])
    run = train_top(
        data, run_dir=tmp_path / "run", cache_dir=cache, training=Training(epochs=1), folds=2, tune="block2", **options
    )
    assert [result.name for result in run.results] == ["dense", "tuned"]
    assert all(len(head.accuracies) == 2 for head in run.cross_validation.heads)
    assert len(rows_of(run)) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds"),
        ({"folds": 3, "fold_repeats": 0}, "fold_repeats"),
        ({"folds": 3, "views": 2}, "cannot be combined with views"),
        ({"folds": 30}, "30 folds need 30 different images or more"),
    ],
)
def test_what_cannot_be_done_is_refused(run, tmp_path, options, message):
    with pytest.raises(FeatxError, match=message):
        train_top(
            run.dir.parent / "data", run_dir=tmp_path / "run", cache_dir=run.dir.parent / "cache", **options, **SMALL
        )
    assert not (tmp_path / "run").exists()


def test_patients_that_are_known_do_not_help(tmp_path, new_cache):
    """Pixels tell the patient, and nothing tells the class: with groups, the figure is chance."""
    images, table = write_patients(tmp_path)
    cache = new_cache(tmp_path / "cache")
    extract_features(images, cache_dir=cache, **SMALL)
    data = ImageFolders(images, labels=Labels(table, group_column="patient"))
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, folds=5, heads="logreg", **SMALL)
    assert run.results[0].metrics.accuracy < 0.75
    fold_of = {}
    for row in rows_of(run):
        fold_of.setdefault(row["path"].partition("-")[0], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert load_features(scan(data, cache), cache_dir=cache, **SMALL).dataset.groups is not None


def test_the_command_cross_validates(run, featx, tmp_path):
    words = ["train-top", run.dir.parent / "data", "--cache-dir", run.dir.parent / "cache", "--weights", "random"]
    words += ["--image-size", "32", "--layer", "block2_pool", "--precision", "float32", "--pooling", "avg"]
    result = featx(*words, "--epochs", 1, "--folds", 3, "--run-dir", tmp_path / "run")
    assert "3-fold cross-validation" in result.output
    assert Path(tmp_path / "run/predictions.csv").is_file()
    refused = featx(*words, "--folds", 3, "--views", 2, exit_code=2)
    assert "cannot be combined with views" in refused.output


def test_no_image_has_a_part_in_its_own_calibration():
    rng = np.random.default_rng(0)
    p = np.clip(rng.random((600, 1)), 0.01, 0.99)
    probabilities, y, fold = np.hstack([1 - p, p]), (rng.random(600) < p[:, 0]).astype(np.int64), np.arange(600) % 3
    calibrated, temperatures = calibrated_across(probabilities, fold, y)
    turned, others = calibrated_across(probabilities, fold, np.where(fold == 1, 1 - y, y))
    np.testing.assert_array_equal(turned[fold == 1], calibrated[fold == 1])
    assert (others[fold == 0] > temperatures[fold == 0]).all()
    assert temperatures == pytest.approx(1, rel=0.4)
    assert calibrated_across(probabilities[:140], fold[:140], y[:140]) is None


def test_the_folds_calibrate_the_heads_of_the_run(tmp_path, cache):
    data = write_photos(tmp_path / "data", n_train=50, n_test=25)
    extract_features(data, cache_dir=cache, **SMALL)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, folds=3, heads=["logreg", "svm"], **SMALL)
    metrics = json.loads((run.dir / "metrics.json").read_text())["heads"]
    assert metrics["logreg"]["calibration_images"] == 150
    assert "calibration_images" not in metrics["svm"]
    assert len(read_run(run.dir).held_out("logreg")) == len(read_run(run.dir).held_out("svm")) == 150
    assert len(read_run(run.dir).reference()) == 150
    logreg, svm = run.results
    plain = train_top(
        data,
        run_dir=tmp_path / "plain",
        cache_dir=cache,
        folds=3,
        heads=["logreg", "svm"],
        training=Training(calibrate=False),
        **SMALL,
    )
    before, svm_before = plain.results
    np.testing.assert_array_equal(svm.probabilities, svm_before.probabilities)
    np.testing.assert_array_equal(logreg.probabilities.argmax(axis=1), before.probabilities.argmax(axis=1))
    assert (logreg.probabilities != before.probabilities).any()
    assert logreg.metrics.calibration_error == measure(run.features.y, logreg.probabilities).calibration_error
    kernel, scaled = (result.model.layers[-1].get_weights()[0] for result in (before, logreg))
    np.testing.assert_allclose(scaled * logreg.details["temperature"], kernel, rtol=1e-5)
