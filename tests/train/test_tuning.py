"""`featx train-top --tune`, and what uses its runs: predict, export and compare."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from featx.compare.compare import compare_approaches
from featx.errors import BackboneError, FeaturesMissingError, FeatxError
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training, predict_proba
from featx.images.augmentation import Views
from featx.predict.classifier import Classifier
from featx.system.machine import MemoryLimit
from featx.train.features import load_features
from featx.train.run_folder import read_run
from featx.train.train import train_top
from tests.conftest import load_model

#: The head stands on block 3; the features are those of the layer before it.
OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block3_pool", "precision": "float32"}
STORED = {**OPTIONS, "layer": "block2_pool"}
WORDS = ["--weights", "random", "--image-size", 32, "--layer", "block3_pool", "--precision", "float32", "--quiet"]
FAST = Training(epochs=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """A data set, a cache with features of the layer before the block and of views, and a run; none is changed."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("tuning")
    data = write_photos(folder / "data", n_train=12, n_test=5)
    cache = new_cache(folder / "cache")
    extract_features(data, cache_dir=cache, views=2, **STORED)
    train_top(data, run_dir=folder / "run", cache_dir=cache, training=FAST, tune="block3", **OPTIONS)
    return folder


def train(world, tmp_path, **options):
    given = {**OPTIONS, "tune": "block3", "training": FAST, **options}
    return train_top(world / "data", run_dir=tmp_path / "run", cache_dir=world / "cache", **given)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# The run


def test_a_run_has_both_heads_and_says_which_block_was_tuned(world):
    metrics = json.loads((world / "run" / "metrics.json").read_text())
    assert metrics["format_version"] == 2
    assert metrics["tuned"] == {"block": "block3", "output_layer": "block3_pool"}
    assert list(metrics["heads"]) == ["dense", "tuned"]
    assert json.loads((world / "run" / "recipe.json").read_text())["layer"] == "block2_pool"
    run = read_run(world / "run")
    assert run.heads == ("tuned", "dense")
    assert (run.recipe.layer, run.output.layer, run.output.pooling) == ("block2_pool", "block3_pool", None)
    assert {row["head"] for row in rows_of(world / "run" / "history.csv")} == {"dense", "tuned"}


def test_a_tuned_block_has_no_held_out_images(world):
    assert read_run(world / "run").held_out("tuned") is None
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    with pytest.raises(FeatxError, match="no held-out images of tuned, because a block was tuned: train with --folds"):
        classifier.predict(world / "data", max_error=0.1)


def test_missing_features_are_advised_of_the_layer_before_the_block(world, cache, tmp_path):
    with pytest.raises(FeaturesMissingError, match=r"featx extract .*--layer block2_pool") as error:
        train_top(world / "data", run_dir=tmp_path / "run", cache_dir=cache, tune="block3", pooling="avg", **OPTIONS)
    assert "--pooling" not in str(error.value)


@pytest.mark.parametrize("pooling", [None, "avg"])
def test_probabilities_are_those_of_the_saved_models_on_the_stored_features(world, tmp_path, pooling):
    run = train(world, tmp_path, pooling=pooling)
    features = load_features(world / "data", cache_dir=world / "cache", **STORED)
    X_test = features.X[features.dataset.is_test]
    for result in run.results:
        model = load_model(run.dir / f"{result.name}.keras")
        np.testing.assert_allclose(predict_proba(model, X_test), result.probabilities, atol=1e-6)
    assert read_run(run.dir).output.pooling == pooling


def test_features_that_stay_on_disk_and_views_are_trained_on(world, tmp_path, monkeypatch):
    streamed = train(world, tmp_path, training=replace(FAST, memory=MemoryLimit(1)), views=2)
    assert not isinstance(streamed.features.X, np.ndarray)
    assert [result.details["views"] for result in streamed.results] == [2, 2]
    assert all(np.isfinite(result.probabilities).all() for result in streamed.results)
    assert not [path for path in (world / "cache").iterdir() if path.is_file() and path.suffix == ""]


def test_views_change_what_is_learned(world, tmp_path):
    plain = train(world, tmp_path / "plain")
    viewed = train(world, tmp_path / "viewed", views=Views(1))
    assert not np.array_equal(plain.results[0].probabilities, viewed.results[0].probabilities)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "blok3"}, "vgg16 has no block or layer of this name up to block3_pool. Its last block is block5"),
        ({"tune": "block5"}, "vgg16 has no block or layer of this name up to block3_pool"),
        ({"tune": "last"}, "vgg16 has no block or layer of this name up to block3_pool"),
        ({"tune": "block1"}, "Some layers of vgg16 must stay frozen: name a later block. Received: 'block1'"),
        ({"tune": "input_layer"}, "Some layers of vgg16 must stay frozen"),
        ({"tune": ""}, "vgg16 has no block or layer of this name"),
        ({"layer": "predictions", "image_size": None}, "no block or layer of this name up to predictions"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(BackboneError, match=message):
        train_top(
            tmp_path, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", **{**OPTIONS, "tune": "x", **options}
        )
    assert not (tmp_path / "run").exists()


def test_heads_cannot_be_chosen_for_a_tuned_block(world, tmp_path):
    with pytest.raises(FeatxError, match=r"leave heads \(--head\) out"):
        train(world, tmp_path, heads="logreg")
    with pytest.raises(FeatxError, match=r"A block to tune is text, such as block5\. Received: 5"):
        train(world, tmp_path, tune=5)


def test_the_command_tunes_the_named_block(world, tmp_path, featx):
    words = [world / "data", *WORDS, "--cache-dir", world / "cache", "--epochs", 2, "--run-dir", tmp_path / "run"]
    said = json.loads(featx("train-top", *words, "--tune", "block3", "--json").stdout)
    assert list(said["accuracy"]) == ["dense", "tuned"]
    assert said["feature_shape"] == [8, 8, 128]
    ours = json.loads((tmp_path / "run" / "metrics.json").read_text())["heads"]
    same = json.loads((world / "run" / "metrics.json").read_text())["heads"]
    assert {name: head["loss"] for name, head in ours.items()} == {name: head["loss"] for name, head in same.items()}


# What uses it


@pytest.mark.parametrize("head", [None, "tuned", "dense"])
def test_predictions_are_those_of_the_run(world, head):
    rows = rows_of(world / "run" / "predictions.csv")
    classifier = Classifier.load(world / "run", head=head, cache_dir=world / "cache")
    predictions = classifier.predict([world / "data" / row["path"] for row in rows])
    expected = [[float(row[f"{head or 'tuned'}:{name}"]) for name in classifier.class_names] for row in rows]
    np.testing.assert_allclose(predictions.probabilities, expected, atol=2e-6)


def test_new_images_are_classified(world, cache, featx, tmp_path):
    photo = shutil.copy(world / "data" / "test" / "sea" / "sea.0.jpg", tmp_path / "new.jpg")
    before = Classifier.load(world / "run", cache_dir=world / "cache").predict(photo).probabilities
    said = featx("predict", world / "run", photo, "--cache-dir", cache, "--format", "jsonl", "--quiet").stdout
    assert json.loads(said)["probability"] == pytest.approx(before.max(), abs=1e-4)


@pytest.mark.parametrize(
    "tuned",
    [None, [], {}, {"output_layer": 3}, {"output_layer": "block9"}, {"output_layer": "block1_pool"}]
    + [{"output_layer": "block3_pool", "output_pooling": pooling} for pooling in (7, "sum")]
    + [{"output_layer": "block3_conv1"}, {"output_layer": "block2_pool"}, {"output_layer": "predictions"}],
    ids=str,
)
def test_a_run_that_says_something_else_of_its_block_is_refused(world, tmp_path, tuned):
    run_dir = shutil.copytree(world / "run", tmp_path / "run")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    (run_dir / "metrics.json").write_text(json.dumps({**metrics, "tuned": tuned}))
    with pytest.raises(FeatxError):
        Classifier.load(run_dir, cache_dir=world / "cache")


def test_a_head_of_another_run_is_refused(world, tmp_path):
    run_dir = shutil.copytree(world / "run", tmp_path / "run")
    (run_dir / "class_names.json").write_text('["a", "b", "c"]')
    with pytest.raises(FeatxError, match=r"featx cannot run the head .*tuned\.keras"):
        Classifier.load(run_dir, cache_dir=world / "cache")
    with pytest.raises(FeatxError, match="has the heads tuned, dense. Received: 'logreg'"):
        Classifier.load(run_dir, head="logreg")


def test_compare_adds_the_tuned_backbone_and_keeps_its_run(world, tmp_path):
    comparison = compare_approaches(
        world / "data",
        cache_dir=world / "cache",
        training=FAST,
        tune="block3",
        views=1,
        runs_dir=tmp_path / "runs",
        **OPTIONS,
    )
    names = [approach.name for approach in comparison.approaches]
    assert {"vgg16 + tuned", "vgg16 + tuned, 1 views", "vgg16 + dense", "vgg16 + logreg"} <= set(names)
    tuned = next(approach for approach in comparison.approaches if approach.name == "vgg16 + tuned")
    assert tuned.details["block"] == "block3"
    assert tuned.representations_s > 0
    assert tuned.top_s > 0
    assert tuned.total_s == tuned.representations_s + tuned.top_s
    assert comparison.error_analysis is not None
    assert {recipe["layer"] for recipe in comparison.recipes} == {"block2_pool", "block3_pool"}
    run = read_run(tmp_path / "runs" / "vgg16-tuned")
    assert run.heads == ("tuned",)
    assert Classifier.load(run.dir, cache_dir=world / "cache").predict(world / "data" / "test").n_unreadable == 0


def test_error_analysis_looks_at_the_last_layer_when_the_tuned_block_is_best(world, monkeypatch):
    from featx.compare import compare as module

    looked_at = []
    monkeypatch.setattr(module, "analyse_errors", lambda *_, **options: looked_at.append(options))
    ranked = module.ranked
    monkeypatch.setattr(
        module, "ranked", lambda approaches: sorted(ranked(approaches), key=lambda one: "tuned" not in one.name)
    )
    options = {"cache_dir": world / "cache", "training": FAST, "tune": "block3", "heads": "logreg", **OPTIONS}
    compare_approaches(world / "data", **options)
    assert looked_at[0]["X"].shape[1:] == (4, 4, 256)
    assert looked_at[0]["judge"] == "vgg16 + logreg"
