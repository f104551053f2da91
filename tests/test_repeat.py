"""Every run and report says what decided it, and can be made again."""

import inspect
import json
import shutil
import tomllib

import pandas as pd
import pytest

import featx
from featx.dataset import ImageFolders, Labels
from featx.errors import FeatxError
from featx.heads import Training
from featx.images import Augmentation, Views
from featx.train.settings import read_settings
from tests.conftest import write_photos

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
TRAINING = Training(seed=3, epochs=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """Photographs, a cache with their features, and a run; no test may change them."""
    folder = tmp_path_factory.mktemp("rerun")
    write_photos(folder / "data", n_train=12, n_test=6)
    new_cache(folder / "cache")
    featx.extract_features(folder / "data", cache_dir=folder / "cache", **OPTIONS)
    featx.train_top(folder / "data", run_dir=folder / "run", cache_dir=folder / "cache", training=TRAINING, **OPTIONS)
    return folder


def test_a_run_again_is_the_same_bit_for_bit(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths are absolute
    again = featx.rerun(world / "run", tmp_path / "again")
    assert again.is_same
    assert again.differences == ()
    assert "so are the results, bit for bit" in str(again)
    assert read_settings(tmp_path / "again") == read_settings(world / "run")
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (world / "run" / "predictions.csv").read_bytes()


def test_all_arguments_are_noted(world):
    for function, command in ((featx.train_top, "train-top"), (featx.compare_approaches, "compare")):
        names = set(inspect.signature(function).parameters)
        assert {"data_dir", "training"} <= names, command
    noted = tomllib.loads((world / "run" / "featx.toml").read_text(encoding="utf-8"))["arguments"]
    defaults = {
        name
        for name, one in inspect.signature(featx.train_top).parameters.items()
        if one.default is not inspect.Parameter.empty and one.default is not None
    }
    assert defaults | OPTIONS.keys() | {"data_dir"} <= noted.keys()
    assert noted["training"]["seed"] == 3
    assert noted["data_dir"] == {"root": str(world / "data")}


def test_what_is_different_is_said(world, tmp_path, featx):
    data = shutil.copytree(world / "data", tmp_path / "data")
    run = shutil.copytree(world / "run", tmp_path / "run")
    path = run / "featx.toml"
    text = path.read_text(encoding="utf-8").replace(str(world / "data"), str(data))
    path.write_text(text.replace('numpy = "', 'numpy = "0.'), encoding="utf-8")
    next((data / "train" / "sea").iterdir()).unlink()
    out = featx("rerun", run, "--to", tmp_path / "again", "--quiet", "--json").stdout
    found = json.loads(out)
    assert found["differences"][0] == (
        "the data (24 training and 12 test images before, 23 training and 12 test images now)"
    )
    assert any(one.startswith("numpy 0.") for one in found["differences"])
    assert set(found["accuracy"]) == {"dense", "logreg"}


def test_a_report_again(world, tmp_path, featx):
    words = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg", "--epochs", "2"]
    words += ["--head", "dense", "--cache-dir", world / "cache", "--views", "1", "--flip", "--quiet", "--claims"]
    featx("compare", world / "data", *words, "--report-dir", tmp_path / "report")
    settings = read_settings(tmp_path / "report")
    assert settings.command == "compare"
    assert settings.restored()["views"] == Views(1, Augmentation(flip=True))
    of_run = read_settings(tmp_path / "report" / "runs" / "vgg16-dense")
    assert {**of_run.arguments, "claims": True} == settings.arguments
    out = featx("rerun", tmp_path / "report", "--to", tmp_path / "again").stdout
    assert "so are the results, bit for bit" in out
    for name in ("index.html", "results.json", "featx.toml", "runs"):
        assert (tmp_path / "again" / name).exists()
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("report", "again"))
    assert one["claims"] == two["claims"]
    assert len(one["claims"]) > 0


def test_odd_names(world, tmp_path):
    data = tmp_path / "d\udcff"
    for split in ("train", "test"):
        shutil.copytree(world / "data" / split / "sea", data / split / "show")  # also the name of a setting
        shutil.copytree(world / "data" / split / "wood", data / split / "w\udcfe")
    training = Training(epochs=1, class_weights={"show": 1.0, "w\udcfe": 2.0})
    featx.train_top(data, run_dir=tmp_path / "run", cache_dir=world / "cache", training=training, **OPTIONS)
    settings = read_settings(tmp_path / "run")
    assert settings.restored()["training"].class_weights == training.class_weights
    assert settings.arguments["data_dir"]["root"] == str(data)
    assert featx.rerun(tmp_path / "run", tmp_path / "again").is_same


def test_labels(world, tmp_path):
    rows = [(str(path), path.parent.name) for path in sorted((world / "data").rglob("*.jpg"))]
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows), encoding="utf-8")
    options = {"cache_dir": world / "cache", "training": TRAINING, **OPTIONS}
    featx.train_top(ImageFolders(world / "data", labels=Labels(table)), run_dir=tmp_path / "run", **options)
    assert featx.rerun(tmp_path / "run", tmp_path / "again").is_same
    frame = pd.DataFrame(rows, columns=["path", "label"])
    featx.train_top(ImageFolders(world / "data", labels=frame), run_dir=tmp_path / "python", **options)
    with pytest.raises(FeatxError, match="given as a table in Python"):
        featx.rerun(tmp_path / "python")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[arguments]", "[arguments", "cannot be read"),
        ("format_version = 1", "format_version = 9", "format version 9; this featx reads 1"),
        ('command = "train-top"', 'command = "rm"', "format version"),
        ("epochs = 2", "epochz = 2", "does not know a setting"),
    ],
)
def test_damaged_settings_are_refused(world, tmp_path, old, new, message):
    run = shutil.copytree(world / "run", tmp_path / "run")
    text = (run / "featx.toml").read_text(encoding="utf-8")
    assert old in text
    (run / "featx.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(FeatxError, match=message):
        featx.rerun(run, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_folder_without_settings(tmp_path, featx):
    assert "There is no featx.toml" in featx("rerun", tmp_path, exit_code=2).stderr
