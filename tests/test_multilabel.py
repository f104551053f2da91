"""Images with several labels each, from the table to a page, to predictions and to exports."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featx.cli.compare import comparison_text
from featx.cli.predict import format_predictions
from featx.cli.train_top import run_json, run_text
from featx.compare import Comparison
from featx.compare.compare import compare_approaches
from featx.dataset import ImageFolders, Labels
from featx.errors import FeatxError
from featx.export.export import export_run
from featx.extract.extract import extract_features
from featx.extract.options import options_before
from featx.heads.training_loop import Training
from featx.predict.classifier import Classifier
from featx.report.folder import write_report
from featx.report.text import table
from featx.train.features import load_features
from featx.train.metrics import measure
from featx.train.run_folder import read_run
from featx.train.settings import read_settings
from featx.train.train import train_top
from tests.conftest import SMALL, load_model, write_photos

OPTIONS = {**SMALL, "pooling": None}
NAMES = ("dark", "red", "sea", "wood")


def write_labelled(folder: Path) -> ImageFolders:
    """Write photographs of sea or wood, some dark and some with a red edge, some of which have no label."""
    write_photos(folder, n_train=40, n_test=20)
    rows = []
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        rng = np.random.default_rng(number)
        pixels, labels = np.asarray(Image.open(path)).astype(float), [path.parent.name]
        if rng.random() < 0.4:
            pixels, labels = 0.7 * pixels, [*labels, "dark"]
        if rng.random() < 0.3:
            pixels[:, :4, 0] += 120
            labels.append("red")
        pixels += rng.normal(0, 30, pixels.shape)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=92)
        rows.append((path.relative_to(folder).as_posix(), "|".join(labels if number % 20 else []), path.parts[-3]))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return ImageFolders(folder, labels=Labels(folder / "labels.csv", separator="|", keep_unlabelled=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """`data`, a `cache` with its features, and a `run`; no test may change them."""
    folder = tmp_path_factory.mktemp("multilabel")
    data, cache = write_labelled(folder / "data"), new_cache(folder / "cache")
    extract_features(data, cache_dir=cache, **OPTIONS)
    run = train_top(data, cache_dir=cache, run_dir=folder / "run", training=Training(epochs=6), **OPTIONS)
    photos = sorted((folder / "data" / "test").rglob("*.jpg"))[::3]
    return SimpleNamespace(data=data, cache=cache, run=run, dir=run.dir, photos=photos)


def test_the_run_says_what_its_predictions_say(world):
    metrics = json.loads((world.dir / "metrics.json").read_text())
    assert metrics["format_version"] == 3
    with (world.dir / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    y = np.array([[name in row["label"].split("|") for name in NAMES] for row in rows])
    assert not y.any(axis=1).all()
    for head, said in metrics["heads"].items():
        p = np.array([[float(row[f"{head}:{name}"]) for name in NAMES] for row in rows])
        again = measure(y, p)
        assert said["n_correct"] == again.n_correct
        assert said["multilabel"]["mean_average_precision"] == pytest.approx(
            again.multilabel.mean_average_precision, abs=1e-3
        )
        assert [label["n_true"] for label in said["multilabel"]["labels"]] == y.sum(axis=0).tolist()
        assert again.multilabel.mean_average_precision > again.multilabel.mean_prevalence + 0.2
    assert metrics["baseline"] == {"class": "sea", "accuracy": (y == [False, False, True, False]).all(axis=1).mean()}


def test_the_terminal_and_the_json_have_each_label(world):
    text = str(run_text(world.run))
    dense = world.run.results[0].metrics
    assert f"dense: all labels of {100 * dense.accuracy:.1f} % of the test images (" in text
    assert f"mean average precision {100 * dense.multilabel.mean_average_precision:.1f} % (" in text
    assert "Always answering sea, the most common set of labels, gets" in text
    assert "Always answering each label's share has a mean average precision of" in text
    for name, label in zip(NAMES, dense.multilabel.labels, strict=True):
        assert f"  {name}" in text
        assert f"{label.average_precision:.3f}" in text
    assert set(run_json(world.run)["mean_average_precision"]) == {"dense", "logreg"}


def test_no_share_of_wrong_answers_is_promised_for_labels(world):
    assert not (world.dir / "held_out.csv").exists()
    reference = read_run(world.dir).reference()
    assert len(reference) == 80
    assert {"", "dark|red|wood"} <= set(reference.labels)
    classifier = Classifier.load(world.dir, cache_dir=world.cache)
    with pytest.raises(FeatxError, match="These images can have several labels, .*leave it out"):
        classifier.predict(world.photos, max_error=0.1)


def test_features_have_the_labels(world):
    features = load_features(world.data, cache_dir=world.cache, **OPTIONS)
    assert (features.y.shape, features.y.dtype) == ((120, 4), bool)
    pytest.importorskip("pandas")
    assert set(features.to_pandas()["label"]) >= {"", "sea", "dark|red|wood"}


def test_predictions_are_the_labels_above_a_half(world, featx):
    classifier = Classifier.load(world.dir, cache_dir=world.cache)
    predictions = classifier.predict([*world.photos, "none.jpg"])
    assert predictions.is_multilabel
    for one, p in zip(list(predictions)[:-1], predictions.probabilities, strict=False):
        assert set(one.labels) == {name for name, value in zip(NAMES, p, strict=True) if value > 0.5}
        assert one.label == NAMES[int(p.argmax())]
    assert predictions[-1].labels == ()
    assert predictions[1:3].is_multilabel
    texts = {form: format_predictions(predictions, form).splitlines() for form in ("table", "csv", "jsonl")}
    for row, line in zip(csv.DictReader(texts["csv"]), texts["jsonl"], strict=True):
        assert row["labels"] == "|".join(json.loads(line)["labels"])
    assert texts["table"][0].split() == ["image", "labels"]
    first = predictions[0]
    assert ", ".join(f"{name} {p:.1%}" for name, p in first.top if p > 0.5) in texts["table"][2]
    assert "then 2" in format_predictions(predictions, "table", top_k=2)
    printed = featx("predict", world.dir, world.photos[0], "--cache-dir", world.cache, "--json").stdout
    assert json.loads(printed)["labels"] == list(first.labels)


def test_an_image_with_none_of_the_labels_is_said_to_have_none(world):
    predictions = Classifier.load(world.dir, cache_dir=world.cache).predict(world.photos[:1])
    nothing = type(predictions)(NAMES, predictions.paths, np.array([[0.1, 0.2, 0.4, 0.3]]), (None,), True)
    assert "none (most likely sea 40.0%)" in format_predictions(nothing, "table")
    assert nothing[0].labels == ()
    assert next(csv.DictReader(format_predictions(nothing, "csv").splitlines()))["labels"] == ""


@pytest.mark.parametrize("head", ["dense", "logreg"])
def test_exports_say_what_predict_says_and_that_labels_are_independent(head, world, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    import tensorflow as tf

    expected = Classifier.load(world.dir, head=head, cache_dir=world.cache).predict_proba(world.photos)
    images = np.stack([np.asarray(Image.open(path)) for path in world.photos])
    found, notes = {}, {}
    made = export_run(world.dir, tmp_path / "m.keras", head=head, cache_dir=world.cache)
    assert made.is_multilabel
    found["keras"] = load_model(made.path).predict(images, verbose=0)
    notes["keras"] = json.loads(zipfile.ZipFile(made.path).read("featx.json"))
    export_run(world.dir, tmp_path / "m.onnx", format="onnx", head=head, cache_dir=world.cache)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found["onnx"], names = session.run(["probabilities", "class_names"], {"images": images})
    notes["onnx"] = {name: json.loads(session.get_modelmeta().custom_metadata_map[name]) for name in ("multilabel",)}
    if head == "dense":
        export_run(world.dir, tmp_path / "m", format="savedmodel", head=head, cache_dir=world.cache)
        signature = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
        found["savedmodel"] = signature(images=tf.constant(images))["probabilities"].numpy()
        notes["savedmodel"] = json.loads((tmp_path / "m" / "assets.extra" / "featx.json").read_text())
    assert names.tolist() == list(NAMES)
    for form, probabilities in found.items():
        np.testing.assert_allclose(probabilities, expected, atol=1e-4, err_msg=form)
        assert notes[form]["multilabel"] is True
    assert np.abs(expected.sum(axis=1) - 1).max() > 0.5


def test_a_run_that_disagrees_with_its_heads_is_refused(world, tmp_path):
    folder = Path(shutil.copytree(world.dir, tmp_path / "run"))
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text.replace('"format_version": 3', '"format_version": 1'))
    with pytest.raises(FeatxError, match="do not agree on whether an image can have several labels"):
        read_run(folder).read_head()


def test_a_tuned_block_has_a_sigmoid_for_each_label(world, tmp_path):
    options = {**SMALL, "layer": "block2_pool", "pooling": None}
    _, before = options_before("block2", world.cache, **options)
    extract_features(world.data, cache_dir=world.cache, **before)
    run = train_top(
        world.data,
        cache_dir=world.cache,
        run_dir=tmp_path / "run",
        tune="block2",
        training=Training(epochs=2),
        **options,
    )
    tuned = {result.name: result for result in run.results}["tuned"]
    found = Classifier.load(tmp_path / "run", cache_dir=world.cache).predict_proba(
        [world.data.root / run.features.dataset.paths[row] for row in np.flatnonzero(run.features.dataset.is_test)]
    )
    np.testing.assert_allclose(found, tuned.probabilities, atol=1e-4)
    assert np.abs(found.sum(axis=1) - 1).max() > 0.2


@pytest.fixture(scope="module")
def comparison(world):
    return compare_approaches(
        world.data,
        **OPTIONS,
        baselines=["report-cnn"],
        cache_dir=world.cache,
        training=Training(epochs=3),
        learning_curve=[40],
    )


def test_a_comparison_counts_images_whose_labels_are_all_right(comparison, world):
    assert comparison.is_multilabel
    by_name = {approach.name: approach for approach in comparison.approaches}
    run = {result.name: result for result in world.run.results}
    assert by_name["vgg16 + logreg"].accuracy == run["logreg"].metrics.accuracy
    assert by_name["vgg16 + logreg"].metrics.multilabel == run["logreg"].metrics.multilabel
    assert by_name["report-cnn"].metrics.multilabel.mean_average_precision is not None
    assert comparison.commonest_class == "sea"
    assert Comparison.from_json(comparison.to_json()) == comparison
    assert {point.approach for point in comparison.learning_curve} == set(by_name)


def test_the_error_analysis_names_missed_and_wrongly_predicted_images(comparison, world):
    analysis, run = comparison.error_analysis, {result.name: result for result in world.run.results}
    dataset = world.run.features.dataset
    y, paths = dataset.labels[dataset.is_test], np.array(dataset.paths)[dataset.is_test]
    p = run["logreg"].probabilities
    seen = next(one for one in analysis.approaches if one.name == "vgg16 + logreg")
    cells = {(cell.label, cell.predicted): set(cell.paths) for cell in seen.cells}
    for label, name in enumerate(NAMES):
        missed, wrong = y[:, label] & (p[:, label] <= 0.5), ~y[:, label] & (p[:, label] > 0.5)
        for key, mask in (((name, f"not {name}"), missed), ((f"not {name}", name), wrong)):
            named = cells.get(key, set())
            assert named <= set(paths[mask])
            assert len(named) == min(mask.sum(), 12)
    assert {mistake.path for mistake in seen.mistakes} <= set(paths[((p > 0.5) != y).any(axis=1)])
    assert len(seen.mistakes) == min(12, ((p > 0.5) != y).any(axis=1).sum())
    assert [sample.label for sample in analysis.classes] == list(NAMES)
    assert {point.label for point in analysis.map} >= {"sea", "no label"}


def test_the_report_has_a_table_of_labels(comparison, world, tmp_path, without_rendering):
    write_report(comparison, tmp_path / "report", world.data)
    page = (tmp_path / "report" / "index.html").read_text()
    markdown = (tmp_path / "report" / "results.md").read_text()
    best = comparison.best
    assert f"{best.name} got all labels of " in page
    assert "mean average precision" in page
    assert ">Labels</h2>" in page
    assert "Confusion matrix" not in page
    assert not list((tmp_path / "report").glob("confusion-*.png"))
    assert "## Labels" in markdown
    for label, name in zip(best.metrics.multilabel.labels, NAMES, strict=True):
        assert f"| {name} | {label.n_true} | {label.average_precision:.3f} | {label.roc_auc:.3f} |" in markdown
    terminal = str(comparison_text(comparison, tmp_path))
    assert re.search(r"Subset accuracy +mAP \(95 % CI\) +AUC", terminal)
    assert "always answering each label's share is" in " ".join(terminal.split())
    assert max(map(len, table(comparison).splitlines())) <= 80


def test_folds_test_every_image_once(world):
    found = compare_approaches(
        world.data, **OPTIONS, cache_dir=world.cache, training=Training(epochs=2), folds=3, fold_repeats=1
    )
    assert found.n_folds == 3
    assert {approach.metrics.n_samples for approach in found.approaches} == {120}
    assert found.best.metrics.multilabel.mean_average_precision > found.best.metrics.multilabel.mean_prevalence


REFUSED = {
    "a pretrained classifier": ({"direct": True}, r"^A pretrained classifier \(direct, --direct\) chooses one class"),
    "a head for one class": ({"heads": ["dense", "knn"]}, r"^The head knn chooses one class .* --head dense or --head"),
    "class weights": ({"training": Training(class_weights="balanced")}, "^Class weights .* need images with one class"),
    "images of each class": ({"learning_curve": True, "shots": [2]}, r"^Numbers of images of each class \(shots, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_one_class_for_each_image_is_refused_before_anything_long(name, world, tmp_path):
    options, message = REFUSED[name]
    with pytest.raises(FeatxError, match=message):
        compare_approaches(world.data, **{**OPTIONS, "layer": None}, cache_dir=world.cache, **options)
    if name in {"a head for one class", "class weights"}:
        with pytest.raises(FeatxError, match=message):
            train_top(world.data, run_dir=tmp_path / "run", cache_dir=world.cache, **OPTIONS, **options)


def test_the_settings_of_a_run_have_the_separator(world):
    labels = read_settings(world.dir).restored()["data_dir"].labels
    assert (labels.separator, labels.keep_unlabelled) == ("|", True)
