"""int8 on processors without VNNI, and on machines that lack the images a network was calibrated on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featx.cli.main import main
from featx.engines import network_path
from featx.errors import FeatxError
from featx.predict.classifier import Classifier
from featx.train.run_folder import read_run
from tests.engines.test_without_bfloat16 import OLD_PROCESSOR, predicted
from tests.processes import FEATX

WORDS = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--precision", "int8"]

#: Multiplies by int8 weights, as they are and split, and prints where sums are wrong. There are two products of each
#: kind, one of weights as large as they may be.
SUMS = """
import numpy as np, openvino as ov, openvino.opset13 as ops
from featx.engines.saturation import int8_saturates, split_weights

rng = np.random.default_rng(0)

def network(kind, weights, shape, transposed):
    given = ops.parameter(shape, ov.Type.u8)
    quantized = ops.fake_quantize(ops.convert(given, "f32"), *map(np.float32, (0, 255, 0, 255)), 256)
    scaled = ops.multiply(ops.convert(ops.constant(weights), "f32"), np.float32(1))
    if kind == "convolution":
        product = ops.convolution(quantized, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    else:
        product = ops.matmul(quantized, scaled, False, transposed)
    return ov.Model([product.output(0)], [given])

def wrong(model, numbers, expected):
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return int((np.abs(compiled(numbers)[0] - expected) > 1e-6 * np.abs(expected).max()).sum())

print("saturates", int8_saturates())
for kind, low in (("convolution", -128), ("convolution", 100), ("rows", -128), ("columns", 100)):
    shape = (1, 64, 8, 8) if kind == "convolution" else (8, 64)
    numbers = rng.integers(200, 256, shape).astype(np.uint8)
    weights = rng.integers(low, 128, (64, 64, 1, 1) if kind == "convolution" else (64, 64)).astype(np.int8)
    matrix = weights.reshape(64, 64).astype(np.int64)
    matrix = matrix.T if kind == "columns" else matrix  # (out, in)
    rule = "oi,nihw->nohw" if kind == "convolution" else "oi,ni->no"
    expected = np.einsum(rule, matrix, numbers.astype(np.int64))
    model = network(kind, weights, shape, kind == "rows")
    n_wrong = wrong(model, numbers, expected)
    split_weights(model)
    print(kind, low, n_wrong > 0, wrong(model, numbers, expected))
"""


def on_old_processor(code: str, *words: object) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **OLD_PROCESSOR},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="x86 alone cuts off sums")
def test_split_weights_make_sums_exact_where_pairs_are_cut_off():
    saturates, *cases = on_old_processor(SUMS).stdout.splitlines()
    assert saturates == "saturates True"
    assert cases[:2] == ["convolution -128 True 0", "convolution 100 True 0"]
    assert [case.split()[-1] for case in cases] == ["0"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, networks_dir) -> Path:
    """`data`, `cache` and a `run` in int8."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("int8")
    write_photos(folder / "data", n_train=24, n_test=8)
    (folder / "cache").mkdir()
    (folder / "cache" / "networks").symlink_to(networks_dir, target_is_directory=True)
    where = [str(folder / "data"), *WORDS, "--cache-dir", str(folder / "cache"), "--quiet"]
    main(["extract", *where], standalone_mode=False)
    main(["train-top", *where, "--epochs", "5", "--run-dir", str(folder / "run")], standalone_mode=False)
    return folder


def test_a_run_in_int8_predicts_the_same_on_an_old_processor_with_an_empty_cache(folder, tmp_path):
    files = sorted((folder / "data" / "test").rglob("*.jpg"))
    words = ["predict", folder / "run", folder / "data" / "test", "--top-k", "2", "--cache-dir", tmp_path]
    result = on_old_processor(FEATX, *words, "--format", "jsonl")
    assert not [line for line in result.stderr.splitlines() if "warning" in line]
    expected = Classifier.load(folder / "run", cache_dir=folder / "cache").predict_proba(files)
    np.testing.assert_allclose(predicted(result.stdout), expected, atol=1e-6)


@pytest.mark.usefixtures("without_rendering")
def test_the_runs_that_compare_keeps_have_their_network_too(folder, tmp_path):
    where = [str(folder / "data"), *WORDS, "--cache-dir", str(folder / "cache"), "--quiet"]
    main(["compare", *where, "--epochs", "1", "--report-dir", str(tmp_path / "report")], standalone_mode=False)
    network = network_path(read_run(folder / "run").recipe, folder / "cache")
    runs = sorted((tmp_path / "report" / "runs").iterdir())
    assert [run.name for run in runs] == ["vgg16-dense", "vgg16-logreg"]
    assert all((run / network.name).read_bytes() == network.read_bytes() for run in runs)


def test_a_damaged_network_of_a_run_is_named_and_not_used(folder, tmp_path, caplog):
    recipe = read_run(folder / "run").recipe
    path = folder / "run" / network_path(recipe, tmp_path).name
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2] + b"\0" * 64 + whole[len(whole) // 2 + 64 :])
        classifier = Classifier.load(folder / "run", cache_dir=tmp_path)
        with pytest.raises(FeatxError, match="The int8 network of these features is not in the cache"):
            classifier.predict(folder / "data" / "test" / "sea" / "sea.0.jpg")
    finally:
        path.write_bytes(whole)
    assert f"{path} is damaged" in caplog.text
    assert not network_path(recipe, tmp_path).exists()
