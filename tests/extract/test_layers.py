"""Several layers in one pass: each has the bits that it gets alone, in a store of its own, with all its promises."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx import load_features
from featx.backbones import Weights
from featx.engines.engine import EngineOptions, create_joined_engine
from featx.errors import FeatxError
from featx.extract import pipeline
from featx.extract.extract import extract_features
from featx.recipe import Recipe
from featx.system import openvino_has_bfloat16
from tests.onnx_networks import POOLED, SPATIAL, write_network

OPTIONS = {"weights": "random", "image_size": 32, "precision": "float32"}
ROOT = Path(__file__).parents[2]
LAYERS = ("block1_pool", "block2_pool", "block3_pool")


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    return make_photos(tmp_path / "data", n_train=20, n_test=12)


def features_of(data: Path, cache: Path, layer: str, **options: object) -> np.ndarray:
    return load_features(data, cache_dir=cache, layer=layer, **{**OPTIONS, **options}).X


@pytest.fixture
def passes(monkeypatch) -> list[list[int]]:
    """For each engine that computes images: how many it was given, batch by batch; noise is tried before."""
    counts: list[list[int]] = []
    submit = pipeline._UnderWay.submit

    def noted(self, batch):
        engine = self.engine
        if not hasattr(engine, "noted"):
            engine.noted = []
            counts.append(engine.noted)
        engine.noted.append(len(batch.images))
        return submit(self, batch)

    monkeypatch.setattr(pipeline._UnderWay, "submit", noted)
    return counts


@pytest.mark.parametrize(
    ("backbone", "layers", "options"),
    [
        ("vgg16", LAYERS, {}),
        ("vgg16", ("block3_pool", "block1_pool"), {"pooling": "max", "dtype": "float32"}),
        ("mobilenetv2", ("block_5_add", "block_2_add"), {}),
        ("vgg16", ("block2_pool", "block3_pool"), {"precision": "bfloat16"}),
        ("mobilenetv2", ("block_2_add", "block_5_add"), {"precision": "bfloat16"}),
        ("resnet50", ("conv2_block3_out", "conv3_block2_out"), {"precision": "bfloat16"}),
    ],
    ids=str,
)
def test_each_layer_has_the_bits_that_it_gets_alone(
    data, cache, new_cache, tmp_path, passes, backbone, layers, options
):
    """In one pass, also in bfloat16, where an output in the middle would change what OpenVINO rounds."""
    if options.get("precision") == "bfloat16" and not openvino_has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    how = {**OPTIONS, "backbone": backbone, **options}
    together = extract_features(data, cache_dir=cache, layers=layers, **how)
    assert [sum(batches) for batches in passes] == [64]
    alone = new_cache(tmp_path / "alone")
    for layer, extraction in zip(layers, [together, *together.others], strict=True):
        single = extract_features(data, cache_dir=alone, layer=layer, **how)
        assert extraction.recipe == single.recipe
        assert extraction.store_dir.name == single.store_dir.name
        assert (extraction.n_computed, extraction.n_cached) == (64, 0)
        X = features_of(data, cache, layer, backbone=backbone, **options)
        assert np.array_equal(X, features_of(data, alone, layer, backbone=backbone, **options))


def test_the_network_runs_once_for_all_layers(data, cache, passes):
    together = extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    assert [sum(batches) for batches in passes] == [64]
    for extraction in (together, *together.others):
        timings = extraction.timings
        assert timings.n_images == 64
        assert timings.forward_s > 0
        assert timings.start_s > 0
        assert timings.elapsed_s >= timings.start_s + timings.decode_s + timings.forward_s
    again = extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    assert [one.n_cached for one in (again, *again.others)] == [64, 64, 64]
    assert len(passes) == 1


def test_an_image_is_computed_only_for_the_stores_that_lack_it(data, cache, passes, make_photos, tmp_path):
    first = make_photos(tmp_path / "first", n_train=20, n_test=12)
    for path in sorted(first.glob("train/*/*.1?.jpg")):
        path.unlink()  # 10 of each class are left, and all test images
    extract_features(first, cache_dir=cache, layer="block2_pool", **OPTIONS)
    n_first = 2 * (10 + 12)
    passes.clear()
    done = extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    assert sorted(sum(batches) for batches in passes) == [64 - n_first, n_first]
    assert [one.n_computed for one in (done, *done.others)] == [64, 64 - n_first, 64]
    assert [one.n_cached for one in (done, *done.others)] == [0, n_first, 0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_was_finished_is_kept_in_every_store(data, cache, new_cache, tmp_path, monkeypatch, error):
    add, n_left = pipeline.SegmentWriter.add, [7]

    def fails(self, *arguments):
        n_left[0] -= 1
        if n_left[0] < 0:
            raise error
        return add(self, *arguments)

    monkeypatch.setattr(pipeline.SegmentWriter, "add", fails)
    with pytest.raises(error):
        extract_features(data, cache_dir=cache, layers=LAYERS, batch_size=8, **OPTIONS)
    monkeypatch.setattr(pipeline.SegmentWriter, "add", add)
    done = extract_features(data, cache_dir=cache, layers=LAYERS, batch_size=8, **OPTIONS)
    assert [one.n_cached for one in (done, *done.others)] == [24, 16, 16]
    assert [one.n_computed for one in (done, *done.others)] == [40, 48, 48]
    alone = new_cache(tmp_path / "alone")
    for layer in LAYERS:
        extract_features(data, cache_dir=alone, layer=layer, **OPTIONS)
        assert np.array_equal(features_of(data, cache, layer), features_of(data, alone, layer))


def test_a_damaged_segment_is_mended_in_its_store_alone(data, cache, passes):
    extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    expected = {layer: features_of(data, cache, layer) for layer in LAYERS}
    (segment,) = cache.glob("vgg16-block2_pool-*/seg-*.h5")
    segment.write_bytes(segment.read_bytes()[:5000])
    passes.clear()
    done = extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    assert [one.n_computed for one in (done, *done.others)] == [0, 64, 0]
    assert [sum(batches) for batches in passes] == [64]
    for layer in LAYERS:
        assert np.array_equal(features_of(data, cache, layer), expected[layer])


def test_an_unreadable_image_is_remembered_by_every_store(data, cache, caplog):
    (data / "train" / "sea" / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    done = extract_features(data, cache_dir=cache, layers=LAYERS, **OPTIONS)
    for one in (done, *done.others):
        assert [Path(image.path).name for image in one.skipped] == ["bad.jpg"]
        assert "bad.jpg" in (one.store_dir / "skipped.csv").read_text()
        assert one.n_computed == 64


def test_views_are_computed_for_every_layer(data, cache, passes):
    done = extract_features(data, cache_dir=cache, layers=LAYERS[:2], views=2, **OPTIONS)
    assert [one.views.n_computed for one in (done, *done.others)] == [80, 80]
    assert [sum(batches) for batches in passes] == [64, 80]


def test_the_keras_engine_computes_one_layer_after_the_other_and_says_so(data, cache, passes, caplog):
    caplog.set_level(logging.INFO, "featx")
    done = extract_features(data, cache_dir=cache, layers=LAYERS[:2], engine="keras", **OPTIONS)
    assert [one.n_computed for one in (done, *done.others)] == [64, 64]
    assert "one after the other: block1_pool, block2_pool." in caplog.text
    assert [sum(batches) for batches in passes] == [64, 64]


def test_layers_that_cannot_be_computed_together_are_refused_before_any_work(data, cache):
    with pytest.raises(FeatxError, match="belongs to the complete classifier"):
        extract_features(data, cache_dir=cache, layers=["block2_pool", "predictions"], **OPTIONS)
    with pytest.raises(FeatxError, match="by layer or by layers, not by both"):
        extract_features(data, cache_dir=cache, layers=["block2_pool"], layer="block3_pool", **OPTIONS)
    with pytest.raises(FeatxError, match="has no layer of this name"):
        extract_features(data, cache_dir=cache, layers=["block2_pool", "block9_pool"], **OPTIONS)
    assert not list(cache.glob("vgg16-*"))


def test_the_command_takes_the_option_again_for_each_layer(data, cache, featx):
    words = ["extract", data, "--weights", "random", "--image-size", 32, "--precision", "float32", "--cache-dir", cache]
    words += [word for layer in LAYERS[:2] for word in ("--layer", layer)]
    said = json.loads(featx(*words, "--quiet", "--json").output)
    assert [said["layer"], *(other["layer"] for other in said["others"])] == list(LAYERS[:2])
    assert said["others"][0]["n_computed"] == 64
    text = featx(*words).output
    assert "block2_pool: 0 computed, 64 from the cache." in text
    assert text.count("Features: ") == 2


def test_a_killed_extraction_goes_on_in_each_store_from_what_it_has(cache, new_cache, tmp_path):
    """The first layer has features twice as large, so that its first segment is on disk before any of the other."""
    n_images = 1900
    for number in range(n_images):
        folder = tmp_path / "many" / ("sea", "wood")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["extract", tmp_path / "many", "--cache-dir", cache, "--weights", "random", "--image-size", "32", "--quiet"]
    words += ["--precision", "float32", "--engine", "openvino", "--layer", "block1_pool", "--layer", "block2_pool"]
    command = [sys.executable, "-m", "featx", *map(str, words)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path) as process:
        while process.poll() is None and not list(cache.glob("vgg16-block1_pool-*/seg-*.h5")):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not list(cache.glob("vgg16-block2_pool-*/seg-*.h5"))
    layers = ("block1_pool", "block2_pool")
    first = extract_features(tmp_path / "many", cache_dir=cache, layers=layers, **OPTIONS)
    (second,) = first.others
    assert first.n_cached == 1024  # the rows of one segment
    assert (first.n_computed, second.n_computed, second.n_cached) == (n_images - 1024, n_images, 0)
    alone = new_cache(tmp_path / "alone")
    for layer in layers:
        extract_features(tmp_path / "many", cache_dir=alone, layer=layer, **OPTIONS)
        there = load_features(first.dataset, cache_dir=cache, layer=layer, **OPTIONS).X
        assert np.array_equal(there, load_features(first.dataset, cache_dir=alone, layer=layer, **OPTIONS).X)


def test_int8_layers_are_no_common_network(tmp_path):
    """Each is calibrated on its own: nothing is loaded to find that out."""
    recipe = Recipe(
        backbone="vgg16",
        weights="random-0",
        layer="block2_pool",
        image_size=(32, 32),
        preprocessing="caffe",
        precision="int8",
        calibration="ab" * 32,
    )
    both = [recipe, replace(recipe, layer="block3_pool")]
    assert create_joined_engine(both, Weights("random-0", None), tmp_path, EngineOptions(engine="openvino")) is None


def test_layers_of_a_network_file_share_a_pass(data, cache, new_cache, tmp_path, passes):
    path = write_network(tmp_path / "small.onnx")
    how = {"backbone": path, "preprocess": "mean=127,std=128", "precision": "float32"}
    together = extract_features(data, cache_dir=cache, layers=[POOLED, SPATIAL], **how)
    assert [sum(batches) for batches in passes] == [64]
    alone = new_cache(tmp_path / "alone")
    for layer, extraction in zip([POOLED, SPATIAL], [together, *together.others], strict=True):
        assert extract_features(data, cache_dir=alone, layer=layer, **how).recipe == extraction.recipe
        X = [load_features(data, cache_dir=folder, layer=layer, **how).X for folder in (cache, alone)]
        assert np.array_equal(*X)
