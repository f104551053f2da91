"""What a trained run says about images that it is not sure of, or that are unlike its training images."""

import csv
import io
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.predict.classifier import Classifier
from featx.train import read_run
from featx.train.train import train_top
from tests.conftest import SMALL, write_photos


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """120 training images, a cache with their features, a run, and images of noise; no test may change them."""
    folder = tmp_path_factory.mktemp("doubts")
    data = write_photos(folder / "data", n_train=60, n_test=10)
    new_cache(folder / "cache")
    extract_features(data, cache_dir=folder / "cache", **SMALL)
    train_top(data, run_dir=folder / "run", cache_dir=folder / "cache", heads=["logreg", "knn"], **SMALL)
    (folder / "noise").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(noise).save(folder / "noise" / f"{number}.png")
    return folder


@pytest.fixture
def run_dir(world, tmp_path):
    return shutil.copytree(world / "run", tmp_path / "run")


def classifier(world, run_dir=None, head="logreg"):
    return Classifier.load(run_dir or world / "run", head=head, cache_dir=world / "cache")


def test_a_run_keeps_what_its_heads_said_about_held_out_images(world):
    with (world / "run" / "held_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["head"] for row in rows] == ["logreg"] * 120 + ["knn"] * 120
    assert all(f"/{row['label']}/" in row["path"] for row in rows)
    assert {row["predicted"] for row in rows} == {"sea", "wood"}
    metrics = json.loads((world / "run" / "metrics.json").read_text())["heads"]
    right = np.mean([row["label"] == row["predicted"] for row in rows[:120]])
    assert right == pytest.approx(metrics["logreg"]["cv_accuracy"])
    assert metrics["logreg"]["calibration_images"] == 120
    assert metrics["logreg"]["temperature"] > 0
    assert "calibration_images" not in metrics["knn"]
    held_out = read_run(world / "run").held_out("knn")
    assert held_out.is_right.mean() == metrics["knn"]["cv_accuracy"]
    assert ((held_out.probability > 0.5) & (held_out.probability <= 1)).all()


def test_answers_that_are_not_sure_enough_are_unsure(world, run_dir, caplog):
    photos = sorted((world / "data" / "test").rglob("*.jpg"))
    of_run = classifier(world, run_dir)
    assert not of_run.predict(photos).is_unsure.any()
    path = run_dir / "held_out.csv"
    threshold = float(np.median(of_run.predict(photos).probabilities.max(axis=1)))
    lines = [f"logreg,a.jpg,sea,sea,{threshold:.9f}"] * 100 + [f"logreg,b.jpg,sea,wood,{threshold - 1e-3:.9f}"] * 100
    path.write_text("head,path,label,predicted,probability\n" + "\n".join(lines) + "\n")
    with caplog.at_level(logging.INFO, "featx"):
        found = of_run.predict(photos, max_error=0.1)
    np.testing.assert_array_equal(found.is_unsure, found.probabilities.max(axis=1) < round(threshold, 9))
    n_unsure = int(found.is_unsure.sum())
    assert 0 < n_unsure < 20
    assert f"Of 20 images: {n_unsure} unsure" in caplog.text
    assert [one.is_unsure for one in found] == found.is_unsure.tolist()
    assert found[found.is_unsure].is_unsure.all()
    assert found.to_pandas()["is_unsure"].sum() == n_unsure


def test_too_few_held_out_images_promise_nothing(world):
    needs = r"1 % wrong answers: even without a wrong answer, at least 5\d\d images are needed"
    with pytest.raises(FeatxError, match=rf"With 120 held-out images, .* {needs}"):
        classifier(world).predict(world / "noise", max_error=0.01)


@pytest.mark.parametrize("wrong", [0, 1, -0.1, "0.05", True, float("nan")])
def test_what_is_no_share_of_wrong_answers_is_refused(world, wrong):
    with pytest.raises(FeatxError, match="max_error is a share above 0 and below 1, like 0.05"):
        classifier(world).predict(world / "noise", max_error=wrong)


def test_an_older_run_predicts_as_before_and_says_why_it_can_promise_nothing(world, run_dir):
    for name in ("held_out.csv", "reference.npy", "reference.csv"):
        (run_dir / name).unlink()
    photos = [*(world / "noise").iterdir(), *(world / "data" / "test").rglob("*.jpg")]
    before, after = classifier(world).predict(photos), classifier(world, run_dir).predict(photos)
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    assert not after.is_unlike.any()
    with pytest.raises(FeatxError, match="An older featx made the run .* which has no held-out images: train again"):
        classifier(world, run_dir).predict(photos, max_error=0.1)


def test_a_head_without_held_out_images_says_what_it_needs(world, run_dir):
    (run_dir / "held_out.csv").write_text("head,path,label,predicted,probability\n")
    with pytest.raises(FeatxError, match=r"no held-out images of knn: train it with 100 training images or more"):
        classifier(world, run_dir, "knn").predict(world / "noise", max_error=0.1)


@pytest.mark.parametrize("content", ["", "head\nlogreg\n", "head,path,label,predicted,probability\nlogreg,a,b,c,2\n"])
def test_a_damaged_table_of_held_out_images_is_an_error(world, run_dir, content):
    (run_dir / "held_out.csv").write_text(content)
    with pytest.raises(FeatxError, match=r"held_out\.csv cannot be read \(.+\); train again"):
        classifier(world, run_dir).predict(world / "noise", max_error=0.1)


def test_images_that_are_not_like_the_training_images_are_said_to_be_unlike(world):
    assert classifier(world).predict(world / "noise").is_unlike.all()
    found = classifier(world, head="knn").predict(sorted((world / "data").rglob("*.jpg")))
    assert found.is_unlike.sum() <= 5
    assert not found.is_unsure.any()


def test_notes_are_in_every_format(world, featx, tmp_path):
    photo = next((world / "data" / "test").rglob("*.jpg"))
    (tmp_path / "no.jpg").write_bytes(b"no image")
    words = ("predict", world / "run", "--head", "logreg", "--cache-dir", world / "cache")
    images = (photo, world / "noise" / "0.png", tmp_path / "no.jpg")
    options = ("--max-error", "0.3")
    rows = list(csv.DictReader(io.StringIO(featx(*words, *images, *options).stdout)))
    assert [row["note"] for row in rows] == ["", "unsure; unlike the training images", ""]
    assert list(rows[0]) == ["path", "label", "probability", "reason", "note"]
    lines = [json.loads(line) for line in featx(*words, *images, *options, "--json").stdout.splitlines()]
    assert [(line["unsure"], line["unlike"]) for line in lines] == [(False, False), (True, True), (False, False)]
    table = featx(*words, *images, *options, "--format", "table")
    assert table.stdout.splitlines()[0].split()[-1] == "note"
    assert "Of 3 images: 1 unsure, 1 unlike the training images." in table.stderr
    quiet = featx(*words, photo, *options, "--format", "table")
    assert "note" not in quiet.stdout


def test_calibration_can_be_left_out(world, tmp_path, featx):
    words = ("train-top", world / "data", "--cache-dir", world / "cache", "--weights", "random", "--image-size", "32")
    words = (*words, "--layer", "block2_pool", "--pooling", "avg", "--precision", "float32", "--head", "logreg")
    featx(*words, "--run-dir", tmp_path / "run", "--no-calibrate")
    details = json.loads((tmp_path / "run" / "metrics.json").read_text())["heads"]["logreg"]
    assert "temperature" not in details
    assert "calibrate = false" in (tmp_path / "run" / "featx.toml").read_text()
    assert len(read_run(tmp_path / "run").held_out()) == 120
    with pytest.raises(FeatxError, match="calibrate is True or False"):
        Training(calibrate=1)
