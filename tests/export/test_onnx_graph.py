"""A run on an ONNX network as one ONNX file: what it says of images is what featx predict says."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from featx import Classifier, export_run, extract_features, train_top
from featx.errors import FeatxError, WeightsError
from featx.heads import Training
from tests.onnx_networks import SPATIAL, write_network

#: A network, and what is wanted of it.
WORLDS = {
    "pooled": ({"nhwc": True}, {"preprocess": "caffe", "layer": SPATIAL, "pooling": "avg"}),
    "probabilities": ({"n_classes": 7, "opset": 18}, {"preprocess": "mean=127,std=128", "layer": "predictions"}),
    "one": ({"batch": 1, "flat_shape": (1, 16)}, {"preprocess": "imagenet", "dtype": "float32"}),
    "max": ({"opset": 19}, {"preprocess": "none", "layer": SPATIAL, "pooling": "max", "resize": "crop"}),
}


@pytest.fixture(scope="module", params=WORLDS)
def world(request, tmp_path_factory, make_photos_once):
    """Return photos, a run on the features of a network, and the cache."""
    folder = tmp_path_factory.mktemp("world")
    how, options = WORLDS[request.param]
    path = write_network(folder / "network.onnx", **how)
    options = {"backbone": str(path), "precision": "float32", "cache_dir": folder / "cache", **options}
    extract_features(make_photos_once, **options)
    run = train_top(make_photos_once, run_dir=folder / "run", training=Training(epochs=2), heads=["logreg"], **options)
    return request.param, make_photos_once, run, folder


@pytest.fixture(scope="module")
def make_photos_once(tmp_path_factory):
    from tests.conftest import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "data", 6, 3)


def test_the_file_predicts_what_the_run_predicts(world):
    name, photos, run, folder = world
    done = export_run(run.dir, folder / "pets.onnx", format="onnx", cache_dir=folder / "cache")
    session = onnxruntime.InferenceSession(done.path.read_bytes(), providers=["CPUExecutionProvider"])
    files = sorted((photos / "test").rglob("*.jpg"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    assert (session.get_inputs()[0].name, [one.name for one in session.get_outputs()]) == (
        "images",
        ["probabilities", "class_names"],
    )
    step = 1 if name == "one" else len(images)
    assert session.get_inputs()[0].shape[0] == (1 if name == "one" else "n")
    parts = [session.run(None, {"images": images[row : row + step]}) for row in range(0, len(images), step)]
    got = np.concatenate([part[0] for part in parts])
    wanted = Classifier.load(run.dir, cache_dir=folder / "cache").predict(files)
    np.testing.assert_allclose(got, wanted.probabilities, atol=2e-3)
    assert list(parts[0][1]) == list(wanted.class_names)
    notes = {item.key: item.value for item in onnx.load(done.path).metadata_props}
    assert json.loads(notes["recipe"])["backbone"] == "network.onnx"


@pytest.mark.parametrize("world", ["pooled"], indirect=True)
def test_other_formats_and_lost_networks_are_refused(world, tmp_path):
    _, _, run, folder = world
    for form in ("keras", "savedmodel"):
        with pytest.raises(FeatxError, match="add --format onnx"):
            export_run(run.dir, format=form, cache_dir=folder / "cache")
    other = write_network(tmp_path / "network.onnx", seed=5)
    network = folder / "network.onnx"
    hidden = network.rename(tmp_path / "hidden.onnx")
    with pytest.raises(WeightsError, match="another one.*--weights PATH"):
        export_run(run.dir, format="onnx", cache_dir=folder / "cache", weights=other)
    done = export_run(run.dir, tmp_path / "x.onnx", format="onnx", cache_dir=folder / "cache", weights=hidden)
    assert Path(done.path).is_file()
    hidden.rename(network)
