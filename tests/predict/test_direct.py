"""A pretrained classifier applied as it is: `DirectClassifier`, and `featx predict --direct`, on real photographs."""

import csv
import hashlib
import io
import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from featx.backbones.class_map import make_class_map
from featx.compare.candidates import direct_applications
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.predict.direct import DirectClassifier
from featx.system.late_imports import import_keras

MAPS = ["cats=30-32", "dogs=24-29"]
RESNET = {"backbone": "resnet50", "image_size": (64, 64), "precision": "float32"}


@pytest.fixture(scope="module")
def photos(shared):
    """Real photographs: 50 cats, then 50 dogs."""
    test = shared / "data" / "cats-dogs" / "test"
    return [path for name in ("cats", "dogs") for path in sorted((test / name).iterdir())[:50]]


def words(whole, cache):
    return ["--backbone", "resnet50", "--image-size", 64, "--weights", whole, "--cache-dir", cache]


def pixels_of(path):
    """Return a JPEG as (64, 64, 3) float32, by Pillow alone and by the rules of docs/images.md."""
    with Image.open(path) as image:
        image.draft("RGB", (4 * 64, 4 * 64))
        wide = image.convert("RGB").resize((64, image.height), Image.Resampling.BILINEAR)
    return np.asarray(wide.resize((64, 64), Image.Resampling.BILINEAR), np.float32)


@pytest.fixture(scope="module")
def expected(whole_resnet50, photos) -> np.ndarray:
    """What Keras itself says of every fifth photograph: the probabilities `(20, 2)` of a cat and a dog."""
    keras = import_keras()
    network = keras.applications.ResNet50(weights=str(whole_resnet50), classes=202, input_shape=(64, 64, 3))
    pixels = np.stack([pixels_of(path) for path in photos[::5]])
    raw = network.predict_on_batch(keras.applications.resnet50.preprocess_input(pixels)).astype(np.float64)
    cats, dogs = raw[:, 30:33].sum(axis=1), raw[:, 24:30].sum(axis=1)
    return np.stack([cats, dogs], axis=1) / (cats + dogs)[:, np.newaxis]


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_probabilities_are_those_of_keras_summed(whole_resnet50, photos, expected, cache, featx, engine):
    command = ["predict", "--direct", *photos[::5], "--map", MAPS[0], "--map", MAPS[1], *words(whole_resnet50, cache)]
    lines = featx(*command, "--precision", "float32", "--engine", engine, "--top-k", 2, "--json").stdout.splitlines()
    tops = [{item["label"]: item["probability"] for item in json.loads(line)["top"]} for line in lines]
    np.testing.assert_allclose([[top["cats"], top["dogs"]] for top in tops], expected, atol=1e-4)
    assert expected[:, 0].std() > 0.05


def test_real_photographs_are_classified_better_than_by_chance(whole_resnet50, photos, cache, featx):
    command = ["predict", "--direct", *photos, "--map", MAPS[0], "--map", MAPS[1], *words(whole_resnet50, cache)]
    rows = list(csv.DictReader(io.StringIO(featx(*command).stdout)))
    assert [row["path"] for row in rows] == [str(path) for path in photos]
    n_right = sum(row["label"] == name for row, name in zip(rows, ["cats"] * 50 + ["dogs"] * 50, strict=True))
    assert n_right >= 60  # by chance less than once in 40 times


def test_all_forms_agree_and_a_second_run_computes_nothing(whole_resnet50, photos, cache, tmp_path, featx):
    (tmp_path / "map.json").write_text('{"cats": ["tabby, tabby cat", 31, "n02124075"], "dogs": "24-29"}')
    class_list = photos[0].parents[4] / "weights" / "classes.json"
    gone = tmp_path / "gone.jpg"
    command = ["predict", "--direct", photos[0], gone, "--map", tmp_path / "map.json", "--class-list", class_list]
    command += words(whole_resnet50, cache)
    rows = list(csv.DictReader(io.StringIO(featx(*command, "--top-k", 2).stdout)))
    (store_dir,) = cache.glob("resnet50-predictions-64x64-*")
    segments = sorted(store_dir.glob("seg-*"))
    objects = [json.loads(line) for line in featx(*command, "--top-k", 9, "--json").stdout.splitlines()]
    assert sorted(store_dir.glob("seg-*")) == segments
    assert rows[0]["label"] == objects[0]["label"]
    assert sum(item["probability"] for item in objects[0]["top"]) == pytest.approx(1)
    assert rows[1]["reason"] == objects[1]["reason"] == "No such file or directory"
    assert "cannot be read" in featx(*command, "--format", "table").stdout
    numbers = ["predict", "--direct", photos[0], "--map", MAPS[0], "--map", MAPS[1], *words(whole_resnet50, cache)]
    again = next(csv.DictReader(io.StringIO(featx(*numbers).stdout)))
    assert again["probability"] == rows[0]["probability"]


def test_a_class_list_alone_names_the_networks_own_classes(whole_resnet50, photos, cache, shared):
    class_list = shared / "weights" / "classes.json"
    options = {**RESNET, "weights": str(whole_resnet50), "cache_dir": cache}
    classifier = DirectClassifier.load(class_list=class_list, **options)
    predictions = classifier.predict(photos[:3])
    assert predictions.probabilities.shape == (3, 202)
    assert not (predictions.is_unsure | predictions.is_unlike).any()
    with pytest.raises(FeatxError, match="A pretrained classifier has no held-out images .* leave out max_error"):
        classifier.predict(photos[:3], max_error=0.05)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-6)
    assert {name for name, _ in predictions[0].top} == {item["name"] for item in json.loads(class_list.read_text())}


def test_the_likeliest_of_the_networks_own_classes_are_named(whole_resnet50, photos, cache, shared, featx):
    class_list = shared / "weights" / "classes.json"
    command = ["predict", "--direct", *photos[:3], "--class-list", class_list, "--top-k", 3]
    rows = list(csv.DictReader(io.StringIO(featx(*command, *words(whole_resnet50, cache)).stdout)))
    (store_dir,) = cache.glob("resnet50-predictions-64x64-*")
    with h5py.File(store_dir / "features.h5") as file:
        rank_of_digest = {
            bytes(digest): np.argsort(-row)[:3] for digest, row in zip(file["digest"], file["features"], strict=True)
        }
    names = [item["name"] for item in json.loads(class_list.read_text())]
    for row, path in zip(rows, photos, strict=False):
        ranks = rank_of_digest[hashlib.sha256(path.read_bytes()).digest()]
        assert [row["label"], row["label_2"], row["label_3"]] == [names[number] for number in ranks]
    assert len(rows) == 3


def test_cats_and_dogs_of_imagenet_need_no_map_and_that_is_said(cache, photos, caplog):
    caplog.set_level("INFO", "featx")
    options = {**RESNET, "image_size": (32, 32), "weights": "random", "cache_dir": cache}
    predictions = DirectClassifier.load(**options).predict(photos[:2])
    assert predictions.class_names == ("cats", "dogs")
    assert "using these classes of ImageNet: cats=281-285 dogs=151-268." in caplog.text


def test_a_backbone_without_its_classifier_is_left_out_in_one_sentence(
    whole_resnet50, vgg16_weights, cache, monkeypatch, caplog
):
    (vgg16_weights / "vgg16_mine_notop.h5").rename(vgg16_weights / "vgg16_mine.h5")
    shutil.copy(whole_resnet50, vgg16_weights)
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(vgg16_weights))
    applications, warnings = direct_applications(["vgg16", "resnet50"], {}, lambda n: make_class_map(MAPS, n), cache)
    assert [options["backbone"] for options, _ in applications] == ["resnet50"]
    assert warnings == ["vgg16 direct is left out: featx found no weights with its classifier."]
    assert "vgg16_mine.h5" in caplog.text  # what to do about it


def test_what_cannot_be_done_is_an_error(cache, shared, whole_resnet50, photos):
    notop = str(shared / "weights" / "resnet50_tiny_imagenet_notop.h5")
    with pytest.raises(WeightsError, match=r"does not contain the whole classifier of resnet50.*notop\S* lack it"):
        DirectClassifier.load(**RESNET, weights=notop, cache_dir=cache)
    with pytest.raises(FeatxError, match="202 classes of its own"):
        DirectClassifier.load(**RESNET, weights=str(whole_resnet50), cache_dir=cache)
    with pytest.raises(FeatxError, match="int8 needs a data set for calibration"):
        DirectClassifier.load(weights="random", precision="int8", cache_dir=cache)
    with pytest.raises(BackboneError, match=r"takes images of 224x224 only: leave --image-size out.* 64x64"):
        DirectClassifier.load(backbone="vgg16", image_size=(64, 64), weights="random", cache_dir=cache)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "This network has 202 classes of its own"),
        (["--map", "cats=30-32", "--map", "dogs=24-202"], "numbered from 0 to 201. Received: 202 for dogs"),
        (["--map", "cats=9\n-\n3", "--map", "dogs=1"], r"smaller number. Received: 9\n-\n3"),
        (["--map", "cats=30", "--map", "dogs=24", "--precision", "int8"], "int8 needs a data set for calibration"),
        (["--map", "cats=30", "--map", "dogs=24", "--backbone", "vgg16"], "takes images of 224x224 only"),
        (["--map", "cats=30", "--map", "dogs=24", "--weights", "NOTOP"], "does not contain the whole classifier"),
        (["--class-list", "nowhere.json"], "The class list nowhere.json cannot be read: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_computed(whole_resnet50, shared, cache, featx, typed, message):
    notop = shared / "weights" / "resnet50_tiny_imagenet_notop.h5"
    typed = [notop if word == "NOTOP" else word for word in typed]
    result = featx("predict", "--direct", "a.jpg", *words(whole_resnet50, cache), *typed, exit_code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("featx: ")
    assert message in line
    assert not list(cache.glob("*-predictions-*"))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--direct", "a.jpg", "--head", "dense"], "--head can be used only with a RUN"),
        (["--direct", "a.jpg", "--max-error", "0.05"], "--max-error can be used only with a RUN"),
        (
            ["runs/none", "a.jpg", "--map", "cats=1", "--image-size", "32"],
            "--map, --image-size can be used only with --direct",
        ),
        (["--direct", "a.jpg", "--weights", "random", "--map", "cats=1"], "Map at least two classes"),
        (["--direct"], "You named no image"),
        (["runs/none"], "You named no image"),
        ([], "Missing argument 'RUN'"),
    ],
)
def test_options_that_do_not_fit_are_an_error(featx, tmp_path, typed, message):
    assert message in featx("predict", *typed, "--cache-dir", tmp_path, exit_code=2).stderr


def test_variables_of_the_direct_application_do_not_disturb_a_run(featx, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONE", "resnet50")
    monkeypatch.setenv("FEATX_PRECISION", "int8")
    result = featx("predict", tmp_path, "a.jpg", exit_code=2)
    assert "There is no run in" in result.stderr
