"""Features for other tools: read back, every file has the bits of the store."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

import featx
from featx.errors import FeaturesMissingError, FeatxError
from tests.conftest import write_photos

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool"}
WORDS = ("--weights", "random", "--image-size", "32", "--layer", "block2_pool")
COLUMNS = ["path", "label", "split", "digest"]


@pytest.fixture(scope="module", params=["float16", "float32"])
def world(request, tmp_path_factory, new_cache):
    """A data set, its features and their options; no test may change them."""
    folder = tmp_path_factory.mktemp("features")
    data = write_photos(folder / "data", n_train=8, n_test=3)
    new_cache(folder / "cache")
    options = {"cache_dir": folder / "cache", "dtype": request.param, **OPTIONS}
    featx.extract_features(data, **options)
    return data, options, featx.load_features(data, **options)


def check_columns(columns, features) -> None:
    assert list(columns["path"]) == features.paths.tolist()
    assert list(columns["label"]) == [features.class_names[label] for label in features.y]
    assert list(columns["split"]) == features.split.tolist()
    assert list(columns["digest"]) == [digest.tobytes().hex() for digest in features.dataset.digests]


def test_parquet(world, tmp_path, monkeypatch):
    data, options, features = world
    monkeypatch.setattr("featx.export.features._SLAB_BYTES", 100_000)  # several batches
    done = featx.export_features(data, tmp_path / "f.parquet", **options)
    table = parquet.read_table(tmp_path / "f.parquet")
    notes = json.loads(table.schema.metadata[b"featx"])
    X = np.array(table["features"].to_pylist(), notes["dtype"]).reshape(-1, *notes["feature_shape"])
    np.testing.assert_array_equal(X.view(np.uint8), features.X.view(np.uint8))
    assert notes["recipe"] == json.loads(features.recipe.to_json())
    check_columns(table.to_pydict(), features)
    assert parquet.ParquetFile(tmp_path / "f.parquet").num_row_groups > 1
    assert (done.n_images, done.feature_shape) == (len(features.X), features.X.shape[1:])
    assert done.size_bytes == (tmp_path / "f.parquet").stat().st_size


def test_npz_and_npy(world, tmp_path, monkeypatch):
    data, options, features = world
    monkeypatch.setattr("featx.export.features._SLAB_BYTES", 100_000)
    featx.export_features(data, tmp_path / "f.npz", **options)
    arrays = np.load(tmp_path / "f.npz")  # without pickles
    assert arrays["features"].dtype == features.X.dtype
    np.testing.assert_array_equal(arrays["features"], features.X)
    check_columns(arrays, features)
    done = featx.export_features(data, tmp_path / "g.npy", **options)
    assert done.paths == (tmp_path / "g.npy", tmp_path / "g.csv")
    X = np.load(tmp_path / "g.npy", mmap_mode="r")
    assert X.dtype == features.X.dtype
    np.testing.assert_array_equal(X, features.X)
    check_columns(pd.read_csv(tmp_path / "g.csv"), features)


def test_csv(world, tmp_path):
    data, options, features = world
    featx.export_features(data, tmp_path / "f.csv", **options)
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    width = features.X[0].size
    assert header == [*COLUMNS, *(f"f{number}" for number in range(width))]
    X = np.array([[float(cell) for cell in row[4:]] for row in rows]).astype(features.X.dtype)
    np.testing.assert_array_equal(X.view(np.uint8), features.X.reshape(-1, width).view(np.uint8))
    check_columns({name: [row[column] for row in rows] for column, name in enumerate(COLUMNS)}, features)


def test_a_map_brings_the_same_images_together_each_time(world, tmp_path):
    data, options, _ = world
    for name in ("one", "two"):
        featx.export_features(data, tmp_path / f"{name}.parquet", projection=True, **options)
    one, two = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    assert one.equals(two)
    assert one.column_names == [*COLUMNS, "projection_x", "projection_y", "features"]
    for name in ("projection_x", "projection_y"):
        places = one[name].to_numpy()
        assert places.min() == 0
        assert places.max() == 1


def test_what_cannot_be_exported(world, tmp_path, monkeypatch):
    data, options, _ = world
    with pytest.raises(FeatxError, match=r"ends in \.parquet, \.npy, \.npz, \.csv\. Received: .*f\.txt"):
        featx.export_features(data, tmp_path / "f.txt", **options)
    with pytest.raises(FeaturesMissingError, match=r"22 of 22 images.*featx extract"):
        featx.export_features(data, tmp_path / "f.npz", **{**options, "cache_dir": tmp_path / "none"})
    (tmp_path / "g.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(FeatxError, match=r"g\.csv already exists"):
        featx.export_features(data, tmp_path / "g.npy", **options)
    assert (tmp_path / "g.csv").read_text(encoding="utf-8") == "mine"
    monkeypatch.setattr("featx.export.features.MAX_ON_MAP", 20)
    with pytest.raises(FeatxError, match="more than 20 images takes hours"):
        featx.export_features(data, tmp_path / "f.npz", projection=True, **options)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["g.csv"]


def test_images_without_labels_and_names_that_are_no_utf8(world, tmp_path):
    data, options, _ = world
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(data.rglob("*.jpg"))[:4]):
        (flat / f"{number}\udcff.jpg").write_bytes(path.read_bytes())
    featx.extract_features(flat, **options)
    with pytest.raises(FeatxError, match=r"not valid UTF-8.*\.npz or \.csv"):
        featx.export_features(flat, tmp_path / "f.parquet", **options)
    featx.export_features(flat, tmp_path / "f.npz", **options)
    arrays = np.load(tmp_path / "f.npz")
    assert arrays["path"].tolist() == [f"{number}\udcff.jpg" for number in range(4)]
    assert set(arrays["label"]) == {""}


def test_more_than_memory(world, tmp_path, monkeypatch):
    data, options, features = world
    monkeypatch.setattr("featx.export.features._SLAB_BYTES", features.X[0].nbytes)
    featx.export_features(data, tmp_path / "warm.npy", **options)
    tracemalloc.start()
    featx.export_features(data, tmp_path / "f.npy", **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < features.X.nbytes + 2_000_000  # what HDF5 and the lists of names take


def test_command(world, featx, tmp_path):
    data, options, features = world
    words = [data, "--cache-dir", options["cache_dir"], "--dtype", options["dtype"], *WORDS]
    text = featx("cache", "export", *words, "--to", tmp_path / "f.npz").stdout
    assert "vgg16 features of 22 images, 8×8×128 each" in text
    found = json.loads(featx("cache", "export", *words, "--to", tmp_path / "g.npy", "--json", "--quiet").stdout)
    assert found["paths"] == [str(tmp_path / "g.npy"), str(tmp_path / "g.csv")]
    assert found["recipe_key"] == features.recipe.key
    assert "already exists" in featx("cache", "export", *words, "--to", Path(found["paths"][0]), exit_code=2).stderr
