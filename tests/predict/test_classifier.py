"""A trained run put to use: `Classifier`, and `featx predict`, on real JPEG files."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cli.predict import find_files
from featx.dataset.scanning import scan
from featx.errors import FeatxError, ImageError, WeightsError
from featx.extract.extract import extract_features
from featx.heads.inference import read_head
from featx.heads.registry import HEADS
from featx.heads.training_loop import Training, predict_proba
from featx.predict.classifier import Classifier
from featx.train.run_folder import read_run
from featx.train.train import train_top
from tests.conftest import load_model

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}


@pytest.fixture(scope="module", params=[("sea", "wood"), ("sea", "sky", "wood")], ids=["binary", "many classes"])
def world(request, tmp_path_factory, new_cache):
    """A data set, a cache with its features and a run; no test may change them."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("classifier")
    data = write_photos(folder / "data", n_train=20, n_test=6, classes=request.param)
    new_cache(folder / "cache")
    extract_features(data, cache_dir=folder / "cache", **OPTIONS)
    train_top(
        data, run_dir=folder / "run", cache_dir=folder / "cache", training=Training(epochs=3), heads=HEADS, **OPTIONS
    )
    return folder


@pytest.fixture
def run_dir(world, tmp_path):
    return shutil.copytree(world / "run", tmp_path / "run")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# The head, without Keras


@pytest.mark.parametrize("head", HEADS)
def test_head_gives_what_keras_gives(world, head):
    path = world / "run" / f"{head}.keras"
    X = np.random.default_rng(0).normal(0, 20, (700, 128)).astype(np.float16)
    ours = read_head(path).predict_proba(X)
    np.testing.assert_allclose(ours, predict_proba(load_model(path), X), atol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_the_keras_model_of_a_head_gives_what_the_saved_one_gives_bit_for_bit(world, head):
    path = world / "run" / f"{head}.keras"
    X = np.random.default_rng(0).normal(0, 20, (70, 128)).astype(np.float32)
    np.testing.assert_array_equal(read_head(path).to_keras()(X), load_model(path)(X))


def test_probabilities_of_extreme_features_are_finite(world):
    head = read_head(world / "run" / "logreg.keras")
    with np.errstate(all="raise", under="ignore"):
        probabilities = head.predict_proba(np.array([[6e4] * 128, [-6e4] * 128], np.float16))
    assert np.isfinite(probabilities).all()


def compress(path):
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def change_config(path, old, new):
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    assert old in members["config.json"]
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data.replace(old, new) if name == "config.json" else data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK" + b"\0" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:3000]),
        compress,
        lambda path: change_config(path, b'"class_name": "Dropout"', b'"class_name": "Lambda"'),
        lambda path: change_config(path, b'"activation": "relu"', b'"activation": "gelu"'),
        lambda path: change_config(path, b'"batch_shape": [null, 128]', b'"batch_shape": [null, 129]'),
        lambda path: path.unlink(),
    ],
    ids=["empty", "no zip", "cut", "compressed", "lambda", "activation", "shape", "gone"],
)
def test_damaged_head_is_an_error(run_dir, damage):
    path = run_dir / "dense.keras"
    damage(path)
    with pytest.raises(FeatxError, match=r"dense\.keras|no head"):
        read_head(path)


# The run folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "There is no run in"),
        ("metrics.json", "[", "is damaged"),
        ("metrics.json", "[]", "does not contain what featx writes"),
        (
            "metrics.json",
            '{"format": "featx-run", "format_version": 4}',
            "has format version 4; this featx reads",
        ),
        ("class_names.json", '["sea"]', "is incomplete"),
        ("class_names.json", "[" * 100_000, "is damaged"),
        ("class_names.json", None, "cannot be read"),
        ("recipe.json", "{}", "not a featx recipe"),
    ],
)
def test_run_that_is_none_is_an_error(run_dir, name, content, message):
    if content is None:
        (run_dir / name).unlink()
    else:
        (run_dir / name).write_text(content)
    with pytest.raises(FeatxError, match=message):
        read_run(run_dir)


def test_unknown_head_is_an_error(run_dir):
    (run_dir / "logreg.keras").unlink()
    with pytest.raises(FeatxError, match="has the heads dense, knn, prototypes, svm. Received: 'logreg'"):
        Classifier.load(run_dir, head="logreg")


# Predictions


@pytest.mark.parametrize("head", HEADS)
def test_predictions_are_those_of_the_run(world, head):
    rows = rows_of(world / "run" / "predictions.csv")
    classifier = Classifier.load(world / "run", head=head, cache_dir=world / "cache")
    predictions = classifier.predict([world / "data" / row["path"] for row in rows])
    expected = [[float(row[f"{head}:{name}"]) for name in classifier.class_names] for row in rows]
    np.testing.assert_allclose(predictions.probabilities, expected, atol=2e-6)
    assert predictions.labels == [classifier.class_names[i] for i in np.argmax(expected, axis=1)]


def test_new_images_are_computed_once_and_known_by_content(world, cache, tmp_path):
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, file in enumerate(files):
        shutil.copy(world / "data" / "test" / "sea" / f"sea.{number}.jpg", file)
    before = Classifier.load(world / "run", cache_dir=world / "cache").predict(files)
    after = Classifier.load(world / "run", cache_dir=cache).predict([files[2], files[0], files[1]])
    np.testing.assert_allclose(after.probabilities, before.probabilities[[2, 0, 1]], atol=1e-6)
    files[0].rename(tmp_path / "renamed.jpg")
    store_dir = cache / read_run(world / "run").recipe.slug
    segments = sorted(store_dir.glob("seg-*"))
    again = Classifier.load(world / "run", cache_dir=cache).predict([tmp_path / "renamed.jpg"])
    np.testing.assert_allclose(again.probabilities[0], before.probabilities[0], atol=1e-6)
    assert sorted(store_dir.glob("seg-*")) == segments


def test_what_cannot_be_read_is_a_row_with_a_reason(world, cache, tmp_path):
    good = world / "data" / "test" / "sea" / "sea.0.jpg"
    bad, twin, folder = tmp_path / "bad.jpg", tmp_path / "twin.jpg", tmp_path / "folder.jpg"
    bad.write_bytes(b"no image")
    twin.write_bytes(b"no image")
    folder.mkdir()
    files = [bad, good, tmp_path / "gone.jpg", folder, twin]
    for _ in range(2):  # the second time from memory
        predictions = Classifier.load(world / "run", cache_dir=cache).predict(files)
        assert [prediction.path for prediction in predictions] == files
        assert [reason and reason[:20] for reason in predictions.reasons] == [
            "text, not an image: ",
            None,
            "No such file or dire",
            "a folder, not a file",
            "text, not an image: ",
        ]
        assert np.isnan(predictions.probabilities).all(axis=1).tolist() == [True, False, True, True, True]
        assert predictions.n_unreadable == 4
        assert predictions[0].label is None
        assert predictions[1].label == "sea"
    with pytest.raises(ImageError, match=r"gone\.jpg cannot be read"):
        Classifier.load(world / "run", cache_dir=cache).predict(files, strict=True)
    with pytest.raises(ImageError):
        Classifier.load(world / "run", cache_dir=cache).predict_proba(files)


def test_predicting_does_not_forget_what_was_skipped_in_a_data_set(world, cache, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "worse.jpg").write_bytes(b"no image, either")
    for name in ("bad.jpg", "worse.jpg"):
        Classifier.load(world / "run", cache_dir=cache).predict([tmp_path / name])
    listed = (cache / read_run(world / "run").recipe.slug / "skipped.csv").read_text()
    assert "bad.jpg" in listed
    assert "worse.jpg" in listed


def test_table_of_predictions(world):
    files = [world / "data" / "test" / "sea" / "sea.0.jpg", world / "gone.jpg"]
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    predictions = classifier.predict(files)
    table = predictions.to_pandas()
    assert list(table.columns) == [
        "path",
        "label",
        "probability",
        "reason",
        "is_unsure",
        "is_unlike",
        *(f"p:{n}" for n in classifier.class_names),
    ]
    assert table["label"].tolist()[0] == predictions[0].label
    assert table["probability"][0] == predictions.probabilities[0].max()
    assert table["reason"].tolist()[1] == "No such file or directory"


def test_one_file_is_a_list_of_one(world):
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    path = world / "data" / "test" / "wood" / "wood.1.jpg"
    for one in (path, str(path), [path], (path,), {str(path): 1}.keys(), np.array([str(path)])):
        assert [prediction.path for prediction in classifier.predict(one)] == [path]
        assert classifier.predict_proba(one).shape == (1, len(classifier.class_names))
    dataset = scan(world / "data", world / "cache")
    assert len(classifier.predict(dataset)) == dataset.n_images
    assert len(classifier.predict([])) == 0
    assert classifier.predict_proba([]).shape == (0, len(classifier.class_names))


@pytest.mark.parametrize(
    "wrong",
    [
        b"cat.jpg",
        [b"cat.jpg"],
        {"cat.jpg": 1},
        7,
        None,
        [None],
        [7],
        [["cat.jpg"]],
        np.zeros((40, 48), np.uint8),
        np.zeros((40, 48, 3)),
        [np.zeros((40, 48, 4), np.uint8)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_cannot_be_classified(world, wrong):
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    for predict_one in (classifier.predict, classifier.predict_proba):
        with pytest.raises(FeatxError, match=r"Received: .*(bytes|dict|int|NoneType|list|uint8|float64)"):
            predict_one(wrong)


def test_predictions_are_a_sequence(world):
    files = [*sorted((world / "data" / "test" / "wood").iterdir()), world / "gone.jpg"]
    predictions = Classifier.load(world / "run", cache_dir=world / "cache").predict(files)
    whole = list(predictions)
    assert [prediction.path for prediction in whole] == files
    for rows in (slice(1), slice(-2, None), slice(None, None, -1), slice(1, 99, 3), slice(9, 2)):
        some = predictions[rows]
        assert list(some) == whole[rows]
        assert some.labels == predictions.labels[rows]
        assert some.probabilities.shape == (len(some), len(predictions.class_names))
        assert some.n_unreadable == sum(prediction.label is None for prediction in whole[rows])
    assert predictions[-1] == whole[-1]
    assert predictions[np.int64(1)] == whole[1]
    assert list(reversed(predictions)) == whole[::-1]
    assert whole[2] in predictions
    assert predictions.index(whole[2]) == 2
    with pytest.raises(IndexError):
        predictions[len(files)]
    assert f"{len(files)} images" in repr(predictions)
    assert len(repr(predictions)) < 300
    assert repr(whole[0]).startswith("Prediction(path=PosixPath(")


def test_predictions_are_chosen_by_masks_and_numbers(world):
    pandas = pytest.importorskip("pandas")
    files = [*sorted((world / "data" / "test" / "wood").iterdir()), world / "gone.jpg"]
    predictions = Classifier.load(world / "run", cache_dir=world / "cache").predict(files)
    whole = list(predictions)
    is_readable = np.array([prediction.label is not None for prediction in whole])
    for mask in (is_readable, is_readable.tolist(), pandas.Series(is_readable, index=range(7, 7 + len(files)))):
        assert list(predictions[mask]) == whole[:-1]
    assert list(predictions[predictions.to_pandas()["probability"] > 2]) == []
    for rows in ([2, -1, 0], np.array([2, -1, 0]), (2, -1, 0)):
        assert list(predictions[rows]) == [whole[2], whole[-1], whole[0]]
    assert len(predictions[[]]) == 0
    for wrong, error in ((1.5, TypeError), ("x", TypeError), (None, TypeError), (True, TypeError), ([[0]], TypeError)):
        with pytest.raises(error, match="choose rows by a number, a slice, a mask, or a list of numbers"):
            predictions[wrong]
    for outside in ([True], [len(files)]):
        with pytest.raises(IndexError):
            predictions[outside]


def test_images_in_memory_are_classified_like_files(world):
    pandas = pytest.importorskip("pandas")
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    files = sorted((world / "data" / "test").rglob("*.jpg"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    arrays = [np.asarray(picture) for picture in pictures]
    expected = classifier.predict(files)
    for images in (pictures, arrays, np.stack(arrays), iter(arrays), pandas.Series(arrays)):
        predictions = classifier.predict(images)
        assert predictions.labels == expected.labels
        assert predictions.paths == (None,) * len(files)
        np.testing.assert_allclose(predictions.probabilities, expected.probabilities, atol=0.05)
    assert np.array_equal(classifier.predict_proba(arrays[0]), classifier.predict_proba(pictures[0]))
    assert classifier.predict(arrays[0])[0].path is None
    mixed = classifier.predict([arrays[0], world / "gone.jpg", files[0]])
    assert [prediction.label for prediction in mixed] == [expected[0].label, None, expected[0].label]
    table = mixed.to_pandas()
    assert table["path"].isna().tolist() == [True, False, False]
    assert table["path"].tolist()[1:] == [str(world / "gone.jpg"), str(files[0])]


def test_a_folder_or_an_archive_stands_for_its_images_unless_it_is_in_a_list(world, tmp_path):
    classifier = Classifier.load(world / "run", cache_dir=world / "cache")
    folder = world / "data" / "test"
    files = sorted(folder.rglob("*.jpg"))
    for one in (folder, str(folder)):
        assert classifier.predict(one).paths == tuple(files)
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", folder)
    of_archive = classifier.predict(archive)
    assert np.array_equal(of_archive.probabilities, classifier.predict(folder).probabilities)
    in_list = classifier.predict([folder, files[0]])
    assert [prediction.reason for prediction in in_list] == ["a folder, not a file", None]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatxError, match="has no images that featx can read"):
        classifier.predict(tmp_path / "empty")


# Weights


def test_run_whose_weights_are_gone_says_so(vgg16_weights, tmp_path, cache, make_photos, monkeypatch):
    data = make_photos(tmp_path / "data")
    path = shutil.move(vgg16_weights / "vgg16_mine_notop.h5", tmp_path / "mine.h5")
    options = {**OPTIONS, "weights": str(path), "cache_dir": cache}
    extract_features(data, **options)
    train_top(data, run_dir=tmp_path / "run", heads="logreg", training=Training(epochs=1), **options)
    assert read_run(tmp_path / "run").weights_path == path
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "nowhere"))
    moved = shutil.move(path, tmp_path / "moved.h5")
    new = tmp_path / "new.jpg"
    Image.new("RGB", (50, 40), "red").save(new)
    known = next((data / "test" / "sea").iterdir())
    assert (
        Classifier.load(tmp_path / "run", cache_dir=cache).predict([known, new]).n_unreadable == 0
    )  # the network is kept
    other = tmp_path / "other-cache"
    with pytest.raises(WeightsError, match=r"weights of vgg16 with .*mine.h5 is not there.* --weights PATH"):
        Classifier.load(tmp_path / "run", cache_dir=other).predict([new])
    (tmp_path / "wrong_notop.h5").write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=r"wrong_notop.h5 has others"):
        Classifier.load(tmp_path / "run", cache_dir=other, weights=tmp_path / "wrong_notop.h5").predict([new])
    here = Classifier.load(tmp_path / "run", cache_dir=other, weights=moved).predict([new])
    (tmp_path / "folder").mkdir()
    shutil.move(moved, tmp_path / "folder" / "vgg16_found_notop.h5")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "folder"))
    found = Classifier.load(tmp_path / "run", cache_dir=tmp_path / "third").predict([new])
    np.testing.assert_allclose(found.probabilities, here.probabilities, atol=1e-6)


# Files


def test_words_become_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.jpg", "a/deep/2.PNG", "a/notes.txt", "b[1].jpg", "c.jpg", "d.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    listed = ["x.jpg\n", "\n", "y z.jpg\r\n"]
    assert [str(file) for file in find_files(["d.jpg", "a", "[cd].jpg", "b[1].jpg", "-", "no*.jpg"], listed)] == [
        "d.jpg",
        "a/1.jpg",
        "a/deep/2.PNG",
        "c.jpg",
        "d.jpg",
        "b[1].jpg",
        "x.jpg",
        "y z.jpg",
        "no*.jpg",
    ]
    assert [str(file) for file in find_files(["**/*.PNG"])] == ["a/deep/2.PNG"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["empty"], "empty has no images that featx can read"),
        (["-"], "You named no image"),
    ],
)
def test_words_that_mean_nothing_are_an_error(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(FeatxError, match=message):
        find_files(words)


# The command


def predict(world, *words, **options):
    command = [sys.executable, "-m", "featx", "predict", world / "run", *words, "--cache-dir", world / "cache"]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, **options)


def test_csv_and_json_lines_agree(world, featx):
    good, gone = world / "data" / "test" / "wood" / "wood.1.jpg", world / "gone\n\x1b[31m.jpg"
    words = ["predict", world / "run", good, gone, "--cache-dir", world / "cache", "--top-k", 2]
    rows = list(csv.DictReader(io.StringIO(featx(*words).stdout)))
    objects = [json.loads(line) for line in featx(*words, "--json").stdout.splitlines()]
    assert featx(*words, "--format", "jsonl").stdout == featx(*words, "--json").stdout
    assert [row["path"] for row in rows] == [item["path"] for item in objects] == [str(good), str(gone)]
    assert rows[0]["label"] == objects[0]["label"] == objects[0]["top"][0]["label"]
    assert float(rows[0]["probability_2"]) == pytest.approx(objects[0]["top"][1]["probability"], abs=1e-6)
    assert rows[1]["label"] == ""
    assert objects[1]["label"] is None
    assert rows[1]["reason"] == objects[1]["reason"] == "No such file or directory"


def test_table_names_classes_and_reasons(world, featx):
    good, gone = world / "data" / "test" / "wood" / "wood.1.jpg", world / "gone.jpg"
    words = ["predict", world / "run", good, gone, "--cache-dir", world / "cache"]
    lines = featx(*words, "--format", "table", "--top-k", 99).stdout.splitlines()
    assert "class" in lines[0]
    assert "%" in lines[2]
    assert lines[3].endswith("cannot be read: No such file or directory")


def test_list_of_files_comes_from_standard_input(world):
    files = [str(world / "data" / "test" / "sea" / f"sea.{i}.jpg") for i in (1, 0)]
    result = predict(world, "-", input="\n".join(files) + "\n")
    assert [row["path"] for row in csv.DictReader(io.StringIO(result.stdout))] == files
    assert result.stderr == ""


def test_new_image_is_classified_without_tensorflow(world, tmp_path):
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (70, 60, 3), np.uint8)).save(tmp_path / "new.jpg")
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    result = predict(world, tmp_path / "new.jpg", env=environment)
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert {"featx", "openvino"} <= loaded
    assert not loaded & {"tensorflow", "keras", "sklearn", "pandas", "matplotlib"}
    assert len(result.stdout.splitlines()) == 2


def test_exit_code_is_1_if_nothing_could_be_read(world, featx):
    good, gone = world / "data" / "test" / "wood" / "wood.1.jpg", world / "gone.jpg"
    words = ["predict", world / "run", "--cache-dir", world / "cache", "--format", "csv"]
    assert "No such file or directory" in featx(*words, gone, exit_code=1).stdout
    assert "No such file or directory" in featx(*words, gone, good, exit_code=0).stdout


def test_files_of_a_folder_that_are_left_out_by_their_suffix_are_counted(tmp_path, caplog):
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("1.jpg", "2.heic", "a.txt", "b.TXT", "notes", "labels.json"):
        (folder / name).write_text(name)
    assert [file.name for file in find_files([str(folder)])] == ["1.jpg", "2.heic"]
    (said,) = caplog.messages
    assert "these suffixes: 2 .txt, 1 .json, 1 without suffix, such as" in said
