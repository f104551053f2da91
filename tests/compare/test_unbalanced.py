"""Unbalanced classes, from folders to the run folder and the page: measures, warning and class weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

import featx as library
from featx.compare.baselines import BASELINES
from featx.compare.compare import compare_approaches
from featx.compare.result import Comparison
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.heads.class_weights import weigh_classes
from featx.heads.training_loop import Training, predict_proba
from featx.report.folder import write_report
from featx.report.text import RESULT_HEADER, quality_note, table
from featx.system.tables import n_columns
from featx.train.metrics import class_metrics
from featx.train.run_folder import read_run
from featx.train.train import train_top
from tests.compare.test_baselines import digit_pixels
from tests.compare.test_result import comparison

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
WORDS = ("--weights", "random", "--image-size", 32, "--layer", "block2_pool", "--pooling", "avg", "--epochs", 2)
N_TRAIN, N_TEST = (48, 6), (36, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """A folder with many images of sea and few of wood in `data`, and their features in `cache`."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("unbalanced")
    data = write_photos(folder / "data", n_train=N_TRAIN[0], n_test=N_TEST[0])
    for split, n in (("train", N_TRAIN[1]), ("test", N_TEST[1])):
        for path in sorted((data / split / "wood").iterdir())[n:]:
            path.unlink()
    extract_features(data, cache_dir=new_cache(folder / "cache"), **OPTIONS)
    return folder


def test_train_top_weighs_classes_and_its_run_folder_says_how(world, tmp_path, featx):
    words = ["train-top", world / "data", "--cache-dir", world / "cache", *WORDS]
    weighted = featx(*words, "--class-weights", "balanced", "--run-dir", tmp_path / "balanced")
    assert "balanced accuracy" in weighted.stdout
    metrics = json.loads((tmp_path / "balanced" / "metrics.json").read_text())
    n = sum(N_TRAIN)
    assert metrics["training"]["class_weights"] == pytest.approx(
        {"sea": n / 2 / N_TRAIN[0], "wood": n / 2 / N_TRAIN[1]}
    )
    for head in metrics["heads"].values():
        assert head["class_weights"] == "0.5625, 4.5"
        recalls = [one["recall"] for one in head["classes"]]
        assert [one["class"] for one in head["classes"]] == ["sea", "wood"]
        assert [one["n_samples"] for one in head["classes"]] == list(N_TEST)
        assert head["balanced_accuracy"] == pytest.approx(np.mean(recalls))
        assert head["classes"][1]["recall_low"] <= recalls[1] <= head["classes"][1]["recall_high"]
        assert 0 <= head["pr_auc"] <= 1
    (tmp_path / "w.json").write_text(json.dumps({"wood": 8, "sea": 1}))
    file = featx(*words, "--class-weights", tmp_path / "w.json", "--run-dir", tmp_path / "file", "--json")
    named = json.loads(file.stdout)
    assert named["balanced_accuracy"].keys() == named["pr_auc"].keys() == {"dense", "logreg"}
    of_file, balanced = (
        library.Classifier.load(tmp_path / name, cache_dir=world / "cache") for name in ("file", "balanced")
    )
    image = world / "data" / "test" / "wood" / "wood.0.jpg"
    np.testing.assert_allclose(
        of_file.predict_proba(image), balanced.predict_proba(image), atol=1e-4
    )  # the same ratios


def test_without_weights_the_run_says_so_and_the_accuracy_is_called_misleading(world, tmp_path, caplog):
    run = train_top(
        world / "data", cache_dir=world / "cache", run_dir=tmp_path / "run", training=Training(epochs=1), **OPTIONS
    )
    metrics = json.loads((run.dir / "metrics.json").read_text())
    assert metrics["training"]["class_weights"] is None
    misled = [name for name, head in metrics["heads"].items() if not head["better_than_baseline"]]
    [warning] = [text for text in run.warnings if "Accuracy is misleading" in text]
    assert "sea has 12 times as many test images as wood, and always answering sea gets 92.3 % right" in warning
    assert all(f"{name} " in warning for name in misled)
    assert warning in metrics["warnings"]
    assert warning in caplog.messages


@pytest.mark.usefixtures("without_rendering")
def test_compare_weighs_all_that_is_trained_and_shows_it_everywhere(world, tmp_path):
    how = {"baselines": ["report-dnn"], "cache_dir": world / "cache", "tune": "block2", **OPTIONS}
    found = compare_approaches(world / "data", training=Training(epochs=1, class_weights="balanced"), **how)
    assert {one.name for one in found.approaches} == {"vgg16 + dense", "vgg16 + logreg", "vgg16 + tuned", "report-dnn"}
    assert {one.details["class_weights"] for one in found.approaches} == {"0.5625, 4.5"}
    assert found.is_unbalanced
    assert "Trained with class weights" in quality_note(found)
    [warning] = [text for text in found.warnings if "Accuracy is misleading" in text]
    assert "--class-weights" not in warning
    text = table(found)
    assert max(map(n_columns, text.splitlines())) <= 80
    header = next(line for line in text.splitlines() if "Accuracy" in line and "Approach" in line)
    assert "Balanced" in header
    write_report(found, tmp_path / "report", world / "data")
    page, markdown = ((tmp_path / "report" / name).read_text() for name in ("index.html", "results.md"))
    for one in found.approaches:
        rare = one.classes[1]
        cell = f"{100 * rare.recall:.0f} % ({100 * rare.recall_low:.0f}–{100 * rare.recall_high:.0f})"
        assert f"<td>{cell}</td>" in page
    assert "Accuracy is misleading" in page
    assert "| Balanced | Loss | AUC | PR-AUC |" in markdown
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    for one, written in zip(found.approaches, results["approaches"], strict=True):
        assert written["metrics"]["balanced_accuracy"] == one.metrics.balanced_accuracy
        assert [each["class"] for each in written["classes"]] == ["sea", "wood"]
        assert written["classes"][1]["precision"] == one.classes[1].precision
    assert Comparison.from_json((tmp_path / "report" / "results.json").read_text()) == replace(
        found, error_analysis=Comparison.from_json((tmp_path / "report" / "results.json").read_text()).error_analysis
    )


def test_a_baseline_is_trained_and_stopped_with_weights():
    pixels, y = digit_pixels(2, 120, 8)
    rows = np.flatnonzero((y == 0) | (np.arange(120) % 5 == 0))
    pixels, y, is_validation = pixels[rows], y[rows], np.arange(len(rows)) % 3 == 0
    weights = weigh_classes("balanced", y, ("0", "1"))
    plain, weighted = (
        BASELINES["report-dnn"].train(
            pixels, y, is_validation, Training(epochs=3, patience=9), n_classes=2, class_weights=one
        )
        for one in (None, weights)
    )
    p = predict_proba(weighted.model, pixels[is_validation])
    of_truth = p[np.arange(len(p)), y[is_validation]]
    kept = weighted.history[weighted.kept_epoch - 1]
    assert kept.val_loss == pytest.approx(np.average(-np.log(of_truth), weights=weights[y[is_validation]]), rel=1e-3)
    assert weighted.history[0].loss != plain.history[0].loss
    assert p[:, 1].mean() > predict_proba(plain.model, pixels[is_validation])[:, 1].mean()


def test_weights_of_wrong_classes_are_refused_before_anything_is_computed(world, tmp_path, featx):
    (tmp_path / "w.csv").write_text("sea,1\nwod,2\n")
    for command in ("train-top", "compare"):
        words = [command, world / "data", "--cache-dir", tmp_path / "cache", "--weights", "random"]
        stderr = featx(*words, "--class-weights", tmp_path / "w.csv", exit_code=2).stderr
        assert "The class weights name wod, but the images have the classes sea, wood. Did you mean wood?" in stderr
        assert not list((tmp_path / "cache").glob("vgg16*"))
    with pytest.raises(FeatxError, match="lack wood"):
        compare_approaches(world / "data", cache_dir=tmp_path / "cache", training=Training(class_weights={"sea": 1}))
    misspelt = featx("train-top", world / "data", "--class-weights", "balance", exit_code=2).stderr
    assert "Did you mean balanced?" in misspelt


def test_folds_weigh_the_images_that_they_train_on(world):
    training = Training(epochs=1, class_weights="balanced")
    found = compare_approaches(world / "data", cache_dir=world / "cache", training=training, folds=3, **OPTIONS)
    assert found.best.metrics.n_samples == sum(N_TRAIN) + sum(N_TEST)
    # A third of 84 and of 9 images is tested: in each fold, 62 are trained on, 56 and 6.
    assert {one.details["class_weights"] for one in found.approaches} == {"0.5536, 5.167"}


def test_a_cross_validated_run_has_the_weights_of_all_its_images(world, tmp_path):
    training = Training(epochs=1, class_weights="balanced")
    how = {"cache_dir": world / "cache", "run_dir": tmp_path / "run", "heads": "logreg", "folds": 3}
    run = train_top(world / "data", training=training, **how, **OPTIONS)
    metrics = json.loads((run.dir / "metrics.json").read_text())
    assert metrics["training"]["class_weights"] == pytest.approx({"sea": 93 / 2 / 84, "wood": 93 / 2 / 9})
    assert [one["n_samples"] for one in metrics["heads"]["logreg"]["classes"]] == [84, 9]


# What an older featx has written


@pytest.mark.usefixtures("without_rendering")
def test_results_and_runs_without_the_new_measures_are_read(world, tmp_path):
    old = comparison()
    fields = json.loads(old.to_json())
    for approach in fields["approaches"]:
        del approach["classes"], approach["metrics"]["balanced_accuracy"], approach["metrics"]["pr_auc"]
    read = Comparison.from_json(json.dumps(fields))
    assert [one.metrics.balanced_accuracy for one in read.approaches] == [None, None]
    assert read.best.classes == class_metrics(old.best.confusion)
    write_report(read, tmp_path / "report")
    row = next(line for line in table(read, markdown=True).splitlines() if "logreg" in line)
    assert row.count(" – ") == 2
    assert "Balanced" not in table(read)

    how = {"cache_dir": world / "cache", "run_dir": tmp_path / "run", "heads": "logreg"}
    run = train_top(world / "data", **how, **OPTIONS)
    metrics = json.loads((run.dir / "metrics.json").read_text())
    del metrics["training"]["class_weights"], metrics["heads"]["logreg"]["classes"]
    del metrics["heads"]["logreg"]["balanced_accuracy"], metrics["heads"]["logreg"]["pr_auc"]
    (run.dir / "metrics.json").write_text(json.dumps(metrics))
    assert read_run(run.dir).heads == ("logreg",)


def test_the_terminal_has_balanced_accuracy_only_where_classes_are_unbalanced():
    even = comparison({"vgg16 + dense, 8 views, averaged": 2.0, "mobilenetv3large + logreg": 1.0})
    assert "Balanced" not in table(even)
    assert {"ECE", "Loss"} <= set(table(even).split())
    matrix = ((200, 0), (5, 15))
    odd = replace(even, approaches=tuple(replace(one, confusion=matrix) for one in even.approaches))
    assert {"Balanced", "Loss"} <= set(table(odd).split())
    assert "ECE" not in table(odd)
    assert max(map(n_columns, table(odd).splitlines())) <= 80
    assert "mobilenetv3large" in table(odd)
    for one in (even, odd):
        assert all(name in table(one, markdown=True) for name in RESULT_HEADER[:-1])
