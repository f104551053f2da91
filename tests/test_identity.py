"""What features are is what their recipe says: whatever would be another thing is refused at every door."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featx.backbones.build import build_model
from featx.backbones.weights import Weights, count_classes
from featx.dataset.scanning import scan
from featx.engines.engine import EngineOptions, create_engine
from featx.errors import FeatxError, WeightsError
from featx.export.export import export_run
from featx.extract.extract import extract_dataset, extract_features
from featx.extract.options import resolve_recipe
from featx.heads.training_loop import Training
from featx.predict.classifier import Classifier
from featx.recipe import Recipe, UnknownRecipeError
from featx.system.late_imports import import_keras
from featx.train.run_folder import read_run
from featx.train.train import train_top

RECIPE = Recipe(backbone="vgg16", weights="random-0", layer="block1_pool", image_size=(32, 32), preprocessing="caffe")
WEIGHTS = Weights("random-0", None)

#: Recipes that an older featx wrote, or a newer one may write.
OTHERS = [{"pixels_version": 2}, {"pixels_version": 4}, {"resize": "lanczos"}, {"preprocessing": "center"}]


# The doors


@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_an_extraction_computes_nothing_under_another_recipe(make_photos, tmp_path, change):
    data, cache = make_photos(tmp_path / "data"), tmp_path / "cache"
    with pytest.raises(UnknownRecipeError, match=f"with {next(iter(change))} "):
        extract_dataset(scan(data, cache), replace(RECIPE, **change), WEIGHTS, cache)
    assert not list(cache.glob("vgg16*"))


@pytest.mark.parametrize("change", OTHERS, ids=str)
@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_no_engine_starts_for_it_and_no_model_is_built(tmp_path, engine, change):
    recipe = replace(RECIPE, **change)
    with pytest.raises(UnknownRecipeError):
        create_engine(recipe, WEIGHTS, tmp_path, None, EngineOptions(engine=engine))
    with pytest.raises(UnknownRecipeError):
        build_model(recipe, None)


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache) -> Path:
    """A data set, a cache and a run, which no test may change."""
    from tests.conftest import SMALL, write_photos

    folder: Path = tmp_path_factory.mktemp("identity")
    data = write_photos(folder / "data", n_train=20, n_test=6)
    new_cache(folder / "cache")
    extract_features(data, cache_dir=folder / "cache", **SMALL)
    training = Training(epochs=2)
    train_top(data, heads="dense", run_dir=folder / "run", cache_dir=folder / "cache", training=training, **SMALL)
    return folder


@pytest.fixture
def run_dir(world, tmp_path) -> Path:
    return Path(shutil.copytree(world / "run", tmp_path / "run"))


def change(path: Path, how: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(how(json.loads(path.read_text()))))


@pytest.mark.parametrize("members", [*OTHERS, {"crop": "center"}], ids=str)
def test_a_run_with_another_recipe_neither_predicts_nor_is_exported(world, run_dir, featx, members):
    """Also where all features are in the cache: under that recipe they would be of another featx."""
    change(run_dir / "recipe.json", lambda recipe: {**recipe, **members})
    (name,) = members
    sentence = (
        rf"recipe\.json: This featx cannot compute features with {name} .*: it knows .*\. Use the featx that wrote"
    )
    with pytest.raises(FeatxError, match=sentence):
        Classifier.load(run_dir, cache_dir=world / "cache")
    with pytest.raises(FeatxError, match=sentence):
        export_run(run_dir, cache_dir=world / "cache")
    result = featx("predict", run_dir, world / "data", "--cache-dir", world / "cache", exit_code=2)
    assert f"with {name} " in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_has_as_many_classes_as_its_head(world, run_dir):
    for names in (["sea"], ["sea", "sky", "wood"], ["sea", "sea"], ["sea", ""], ["sea", "\ud800"], ["sea", 3]):
        (run_dir / "class_names.json").write_text(json.dumps(names))
        for use in (lambda: Classifier.load(run_dir, cache_dir=world / "cache"), lambda: export_run(run_dir)):
            with pytest.raises(FeatxError, match=r"incomplete|names a class twice|has 2 classes, but the run"):
                use()


def test_a_class_whose_name_is_no_utf_8_is_one(world, run_dir, tmp_path):
    """The folder of such a class has this name. ONNX has no place for it, which is said before the network is built."""
    (run_dir / "class_names.json").write_text('["sea", "w\\udcffd"]')
    found = Classifier.load(run_dir, cache_dir=world / "cache")
    assert os.fsencode(found.class_names[1]) == b"w\xffd"
    pytest.importorskip("onnx")
    with pytest.raises(FeatxError, match=r"w\\udcffd is not valid UTF-8, which ONNX files need"):
        export_run(run_dir, tmp_path / "x.onnx", format="onnx")


def test_a_head_for_other_features_is_no_head_of_the_run(world, run_dir):
    """Features of another shape, of as many numbers or not."""
    images = sorted((world / "data").rglob("*.jpg"))[:2]
    for shape in ("[null, 8, 16]", "[null, 64, 2]"):
        change_head(run_dir / "dense.keras", b"[null, 128]", shape.encode())
        with pytest.raises(FeatxError, match=r"takes features of the shape .* and these are \(128,\)"):
            Classifier.load(run_dir, cache_dir=world / "cache").predict(images)
        with pytest.raises(FeatxError, match=r"takes features of the shape .* have \(128,\)"):
            export_run(run_dir, cache_dir=world / "cache")
        shutil.copy(world / "run" / "dense.keras", run_dir)


def change_head(path: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    assert old in members["config.json"]
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data.replace(old, new) if name == "config.json" else data)


def test_of_several_runs_a_bad_one_does_not_hide_the_others(world, tmp_path, caplog):
    for name in ("vgg16-dense", "vgg16-logreg", "other"):
        shutil.copytree(world / "run", tmp_path / "report" / "runs" / name)
    runs = tmp_path / "report" / "runs"
    change(runs / "other" / "recipe.json", lambda recipe: {**recipe, "pixels_version": 2})
    change(runs / "vgg16-dense" / "metrics.json", lambda run: {**run, "heads": {"dense": {"accuracy": "x", "loss": 1}}})
    assert read_run(tmp_path / "report").dir == runs / "vgg16-logreg"
    assert "with pixels_version 2: it knows 3." in caplog.text


# Weights

TINY = {"image_size": (32, 32), "layer": "block1_pool"}


def other_weights(path: Path) -> Path:
    """Return a file like that at `path`, of the same size, with other numbers."""
    other = Path(shutil.copy(path, path.with_name("other.h5")))
    with h5py.File(other, "r+") as file:
        file["block1_conv1/block1_conv1/kernel"][...] = 0.5
    assert other.stat().st_size == path.stat().st_size
    return other


@pytest.mark.parametrize("how", ["renamed over", "in place, same size and mtime"])
def test_weights_that_are_exchanged_while_they_are_loaded_are_not_loaded(vgg16_weights, tmp_path, monkeypatch, how):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    with h5py.File(path) as file:
        kernel = file["block1_conv1/block1_conv1/kernel"][:]
    recipe, weights = resolve_recipe(tmp_path / "cache", weights=str(path), **TINY)
    mine, theirs, times = path.read_bytes(), other_weights(path).read_bytes(), path.stat()
    model = import_keras().Model
    load_weights = model.load_weights

    def put(content: bytes) -> None:
        target = path if how.startswith("in place") else path.with_name("new")
        target.write_bytes(content)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
        target.replace(path)

    def load(self: Any, *words: Any, **options: Any) -> None:
        put(theirs)
        load_weights(self, *words, **options)
        put(mine)

    monkeypatch.setattr(model, "load_weights", load)
    network = build_model(recipe, weights.path).layers[-1]
    assert np.array_equal(network.get_layer("block1_conv1").get_weights()[0], kernel)
    put(theirs)
    with pytest.raises(WeightsError, match="changed while featx was running; run the same command again"):
        build_model(recipe, weights.path)


@pytest.mark.parametrize("where", ["external storage", "external link", "virtual", "soft link", "never written"])
def test_weights_are_in_their_file(vgg16_weights, tmp_path, where):
    path = vgg16_weights / "vgg16_mine_notop.h5"
    other = other_weights(path)
    name = "block1_conv1/block1_conv1/kernel"
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        if where == "external storage":
            file.create_dataset(name, data.shape, data.dtype, external=[(str(other), 4096, data.nbytes)])
        elif where == "external link":
            file[name] = h5py.ExternalLink(str(other), name)
        elif where == "soft link":
            file["kernel"] = data
            file[name] = h5py.SoftLink("/kernel")
        elif where == "virtual":
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[...] = h5py.VirtualSource(str(other), name, data.shape)
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, data.shape, data.dtype, chunks=data.shape, fillvalue=0.5)
    recipe, weights = resolve_recipe(tmp_path / "cache", weights=str(path), **TINY)
    with pytest.raises(WeightsError, match=r"does not contain weights of vgg16 .*(another file|never written)"):
        build_model(recipe, weights.path)
    assert count_classes(path) is None
