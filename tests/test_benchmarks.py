"""The benchmark runs, compares like with like, and its figures follow from its turns."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"

#: VGG16's convolutions: channels in and out, and by how much the image has been halved before.
VGG16 = [
    *((3, 64, 0), (64, 64, 0), (64, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 2), (256, 256, 2)),
    *((256, 512, 3), (512, 512, 3), (512, 512, 3), (512, 512, 4), (512, 512, 4), (512, 512, 4)),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> tuple[str, dict[str, Any]]:
    """What the benchmark prints, and its figures: two rounds over 36 tiny photographs with random weights."""
    folder = tmp_path_factory.mktemp("bench")
    for number in range(36):
        path = folder / "photos" / ("sea", "wood")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 36)).save(path)
    words = [str(folder / "photos"), "--quick", "--backbone", "vgg16", "--precision", "float32", "--no-other-stages"]
    command = [sys.executable, str(BENCHMARKS / "bench.py"), *words, "--json", str(folder / "bench.json")]
    environment = {name: value for name, value in os.environ.items() if name != "FEATX_WEIGHTS_DIR"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "bench.json").read_text())


def test_contenders_compute_the_same_features_of_the_same_images(bench):
    (case,) = bench[1]["cases"]
    assert list(case["contenders"]) == ["Keras float32", "featx float32"]
    for figures in case["contenders"].values():
        assert figures["agreement"]["min_cosine"] == pytest.approx(1, abs=1e-5)
        assert {turn["n_images"] for turn in figures["turns"]["end_to_end"]} == {36}
        assert {turn["n_images"] for turn in figures["turns"]["alone"]} == {12}


def test_ratios_are_those_of_the_turns_of_a_round(bench):
    _, figures = bench
    contenders = figures["cases"][0]["contenders"]
    keras, featx = (contenders[name]["turns"]["end_to_end"] for name in ("Keras float32", "featx float32"))
    assert len(keras) == len(featx) == figures["plan"]["repeats"] == 2
    ratios = [a["elapsed_s"] / b["after_start_s"] for a, b in zip(keras, featx, strict=True)]
    said = contenders["featx float32"]["end_to_end"]
    assert said["ratio"] == pytest.approx({"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)})
    whole = [a["elapsed_s"] / b["elapsed_s"] for a, b in zip(keras, featx, strict=True)]
    assert said["whole_call_ratio"]["median"] == pytest.approx(statistics.median(whole))


def test_no_more_than_the_start_is_taken_off_a_whole_call(bench):
    featx = bench[1]["cases"][0]["contenders"]["featx float32"]
    for turn in featx["turns"]["end_to_end"]:
        ahead = featx["facts"]["look_ahead_s"]
        assert turn["elapsed_s"] - turn["after_start_s"] == pytest.approx(max(0, turn["phases"]["start_s"] - ahead))


def test_featx_runs_without_tensorflow_while_it_is_measured(bench):
    assert bench[1]["cases"][0]["contenders"]["featx float32"]["facts"]["loaded_tensorflow"] is False


def test_arithmetic_is_counted_from_the_layers(bench):
    (case,) = bench[1]["cases"]
    side = case["image_size"]
    flops = sum(2 * 9 * n_in * n_out * (side >> halved) ** 2 for n_in, n_out, halved in VGG16)
    assert case["contenders"]["featx float32"]["flops_per_image"] == flops


def test_limits_are_measured_for_each_precision(bench):
    for turn in bench[1]["cases"][0]["limits"]:
        assert {"float32, NumPy", "float32", "int8"} <= set(turn["flop_per_s"])
        assert min(turn["flop_per_s"].values()) > 0


def test_a_busy_machine_is_said_to_be_one(bench, benchmark_module):
    table = benchmark_module("bench_table")
    (case,) = bench[1]["cases"]
    for share, is_said in ((0.5, True), (0.01, False)):
        for figures in case["contenders"].values():
            figures["end_to_end"]["others_share"] = share
        assert ("NOT QUIET" in table.case_text(case)) is is_said


def test_the_table_fits_a_terminal_and_names_what_it_compares(bench):
    text, _ = bench
    assert max(map(len, text.splitlines())) <= 100
    assert "Keras float32" in text
    assert "random weights" in text


def test_made_photos_are_all_different_and_chosen_ones_come_from_every_class(benchmark_module, tmp_path):
    photos = benchmark_module("photos")
    made = photos.make_photos(tmp_path / "made", 450)
    assert len({path.read_bytes() for path in made.rglob("*.jpg")}) == 450
    chosen = photos.choose_photos(made, tmp_path / "chosen", 5)
    assert [len(list((chosen / name).iterdir())) for name in ("china", "flower")] == [3, 2]
    with pytest.raises(ValueError, match="has not 451 JPEGs"):
        photos.choose_photos(made, tmp_path / "more", 451)


def test_a_contender_that_fails_is_said_to_have_failed(benchmark_module, tmp_path, capfd):
    turns = benchmark_module("turns")
    task = turns.Task(contender="featx", data_dir=str(tmp_path / "nowhere"), work_dir=str(tmp_path))
    with pytest.raises(RuntimeError, match="contender featx ended with code 1"):
        turns.Contender(task)
    assert "Error" in capfd.readouterr().err
