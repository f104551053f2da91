"""The comparison, on real JPEG files."""

import json
import shutil

import numpy as np
import pytest
from markupsafe import escape

from featx.compare.candidates import run_name
from featx.compare.compare import _sample_warnings, compare_approaches
from featx.compare.result import Comparison
from featx.compare.significance import mcnemar_p_value
from featx.dataset.sample import write_sample
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.report.folder import write_report
from featx.report.text import table, verdict
from featx.store.feature_store import FeatureStore
from featx.system.tables import escape_markdown
from featx.train.train import train_top

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
WORDS = ("--weights", "random", "--image-size", 32, "--layer", "block2_pool", "--pooling", "avg", "--epochs", 1)
FAST = Training(epochs=2)


@pytest.fixture
def data(make_photos, tmp_path):
    return make_photos(tmp_path / "data", n_train=20, n_test=10)


def test_all_approaches_stand_on_the_same_test_images(data, cache, tmp_path):
    (data / "test" / "sea" / "sea.0.jpg").write_bytes(b"no image")
    comparison = compare_approaches(
        data,
        backbones=["vgg16", "mobilenetv2"],
        baselines=["report-cnn"],
        cache_dir=cache,
        training=FAST,
        weights="random",
        image_size=(32, 32),
    )
    assert [approach.name for approach in comparison.approaches] == [
        "vgg16 + dense",
        "vgg16 + logreg",
        "mobilenetv2 + dense",
        "mobilenetv2 + logreg",
        "report-cnn",
    ]
    assert {approach.metrics.n_samples for approach in comparison.approaches} == {19}
    assert (comparison.n_train, comparison.n_validation, comparison.n_test) == (36, 4, 19)
    assert sum("random weights" in warning for warning in comparison.warnings) == 2
    assert "random weights" in table(comparison)
    best = comparison.best
    assert [approach.name for approach in comparison.approaches if approach.p_value is None] == [best.name]
    write_report(comparison, tmp_path / "report")
    assert "random weights" in (tmp_path / "report" / "results.md").read_text()
    assert not [path for path in cache.iterdir() if path.name.startswith("tmp")]


def test_representations_cost_the_same_from_the_cache(data, cache):
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, **OPTIONS)
    for approach in comparison.approaches:
        assert approach.representations_s == pytest.approx(extraction.timings.elapsed_s)


def test_figures_are_those_of_train_top(data, cache, tmp_path):
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, **OPTIONS)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)
    assert [approach.metrics for approach in comparison.approaches] == [result.metrics for result in run.results]
    right = [
        r.probabilities.argmax(axis=1) == run.features.dataset.labels[run.features.dataset.is_test] for r in run.results
    ]
    p_values = {approach.p_value for approach in comparison.approaches}
    assert p_values == {None, mcnemar_p_value(*right)}


def test_damaged_segment_is_computed_again_within_the_comparison(data, cache):
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    segment = next(extraction.store_dir.glob("seg-*.h5"))
    digests = extraction.dataset.digests
    expected = FeatureStore(cache, extraction.recipe).read(digests)
    content = bytearray(segment.read_bytes())
    at = content.find(expected[0].tobytes())
    content[at] ^= 1
    segment.write_bytes(content)
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, **OPTIONS)
    assert comparison.n_test == 20
    assert np.array_equal(FeatureStore(cache, extraction.recipe).read(digests), expected)


def test_test_images_seen_in_training_are_said_on_the_report(data, cache):
    content = (data / "train" / "sea" / "sea.0.jpg").read_bytes()
    (data / "test" / "sea" / "leak.jpg").write_bytes(content)
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, **OPTIONS)
    assert sum("also in the train split" in warning for warning in comparison.warnings) == 1
    assert not [warning for warning in comparison.warnings if "among the training images" in warning]


@pytest.mark.usefixtures("without_rendering")
def test_what_is_wrong_with_the_data_is_said_wherever_its_results_are(data, cache, tmp_path, featx):
    shutil.copy(data / "train" / "sea" / "sea.0.jpg", data / "train" / "wood" / "copy.jpg")
    shutil.copy(data / "train" / "sea" / "sea.1.jpg", data / "test" / "sea" / "leak.jpg")
    (data / "train" / "wood" / "notes.txt").touch()
    (data / "test" / "wood" / "bad.jpg").write_bytes(b"no image")
    of_data = scan(data, cache).warnings
    assert len(of_data) >= 3
    words = ["compare", data, "--cache-dir", cache, *WORDS]
    report_dir = tmp_path / "report"
    printed = json.loads(featx(*words, "--report-dir", report_dir, "--json", "--quiet").stdout)
    left_out = "Left out because they cannot be read: 1 of 63 images, such as test/wood/bad.jpg."
    assert printed["warnings"][1:] == [*of_data, left_out]
    comparison = Comparison.from_json((report_dir / "results.json").read_text())
    assert list(comparison.warnings) == printed["warnings"]
    for warning in comparison.warnings:
        assert escape(warning) in (report_dir / "index.html").read_text()
        assert escape_markdown(warning) in (report_dir / "results.md").read_text()
        assert warning in " ".join(table(comparison).split())
    assert verdict(comparison).endswith(f"See the {len(comparison.warnings)} warnings shown with these results.")


def test_baselines_alone_can_be_compared(data, cache):
    comparison = compare_approaches(data, backbones=[], baselines=["report-dnn"], cache_dir=cache, training=FAST)
    assert [approach.name for approach in comparison.approaches] == ["report-dnn"]
    assert comparison.approaches[0].representations_s == 0


@pytest.mark.usefixtures("without_rendering")
def test_an_error_analysis_that_fails_costs_nothing_that_was_trained(data, cache, tmp_path, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise MemoryError("Unable to allocate 91.6 MiB")

    monkeypatch.setattr("featx.compare.compare.analyse_errors", fail)
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, runs_dir=tmp_path / "runs", **OPTIONS)
    assert comparison.error_analysis is None
    assert "The comparison has no error analysis, because it failed: not enough memory." in caplog.text
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {"vgg16-dense", "vgg16-logreg"}
    write_report(comparison, tmp_path / "report", data)
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.usefixtures("without_rendering")
@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("featx.report.folder.page_html", MemoryError("Unable to allocate 9.31 GiB")),
        ("featx.report.folder.summary_chart", ValueError("no such colour")),
    ],
)
def test_a_page_that_fails_costs_nothing_that_was_trained(data, cache, tmp_path, monkeypatch, featx, error, target):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(target, fail)
    words = ["compare", data, "--cache-dir", cache, *WORDS]
    report_dir = tmp_path / "report"
    output = featx(*words, "--report-dir", report_dir, "--quiet", exit_code=2).output
    reason = "not enough memory" if isinstance(error, MemoryError) else "ValueError: no such colour"
    assert f"featx: The pictures and the page of the report cannot be made: {reason}." in output
    assert f"Finished results are in {report_dir}." in output
    comparison = Comparison.from_json((report_dir / "results.json").read_text())
    assert len(comparison.approaches) == 2
    assert not (report_dir / "index.html").exists()
    featx("predict", report_dir, data / "test" / "sea" / "sea.0.jpg", "--cache-dir", cache)


def test_a_head_that_memory_does_not_hold_is_left_out_and_the_others_go_on(data, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.heads.registry.free_memory_bytes", lambda: 1000)
    comparison = compare_approaches(data, cache_dir=cache, training=FAST, **OPTIONS)
    assert [approach.name for approach in comparison.approaches] == ["vgg16 + dense"]
    (warning,) = (warning for warning in comparison.warnings if "left out" in warning)
    assert warning.startswith("vgg16 + logreg is left out: logreg needs about 9.7 KiB of memory for 2 classes")
    with pytest.raises(FeatxError, match="choose other heads, such as --head dense"):
        train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_nothing_to_compare_is_an_error(data, cache):
    with pytest.raises(FeatxError, match="nothing to compare"):
        compare_approaches(data, backbones=[], cache_dir=cache)
    with pytest.raises(FeatxError, match="A baseline must be one of report-cnn"):
        compare_approaches(data, baselines=["report-rnn"], cache_dir=cache)


def test_what_fits_one_backbone_is_refused_for_two_before_anything_is_computed(data, tmp_path):
    untouched = tmp_path / "untouched"
    for options in ({"weights": "vgg16_mine_notop.h5"}, {"layer": "block4_pool"}):
        with pytest.raises(FeatxError, match="only one backbone"):
            compare_approaches(data, backbones=["vgg16", "resnet50"], cache_dir=untouched, **options)
    assert not untouched.exists()


def test_runs_are_not_written_over(data, cache, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "vgg16-dense").mkdir()
    with pytest.raises(FeatxError, match="is not empty"):
        compare_approaches(data, cache_dir=cache, training=FAST, runs_dir=tmp_path / "runs", **OPTIONS)


def test_the_built_in_digits_are_said_to_show_little(data, tmp_path):
    digits = scan(write_sample(tmp_path / "digits"), tmp_path / "cache")
    (warning,) = _sample_warnings(digits)
    assert "8×8 pixels" in warning
    assert "CNN trained from scratch may win" in warning
    assert _sample_warnings(scan(data, tmp_path / "cache")) == ()


def test_each_layer_has_a_row_for_each_head_and_a_run(data, cache, tmp_path):
    options = {**OPTIONS, "layer": None, "precision": "float32"}
    layers = ["block1_pool", "block2_pool"]
    runs = tmp_path / "runs"
    made = compare_approaches(data, layers=layers, cache_dir=cache, training=FAST, runs_dir=runs, views=1, **options)
    names = [
        f"vgg16 {layer} + {head}{views}" for layer in layers for views in ("", ", 1 views") for head in DEFAULT_HEADS
    ]
    assert [approach.name for approach in made.approaches] == names
    assert [approach.details["layer"] for approach in made.approaches] == [name.split()[1] for name in names]
    assert sorted(path.name for path in runs.iterdir()) == sorted(map(run_name, names))
    assert {recipe["layer"] for recipe in made.recipes} == set(layers)
    assert "Of the layers, block" in verdict(made)
    alone = compare_approaches(data, cache_dir=cache, training=FAST, views=1, **{**options, "layer": "block2_pool"})
    assert [one.metrics for one in alone.approaches] == [one.metrics for one in made.approaches[4:]]
    assert "Of the layers" not in verdict(alone)


def test_layers_are_those_of_one_backbone_and_stand_alone(data, cache):
    options = {"cache_dir": cache, "weights": "random", "image_size": 32}
    layers = ["block1_pool", "block2_pool"]
    with pytest.raises(FeatxError, match="A layer belongs to only one backbone"):
        compare_approaches(data, backbones=["vgg16", "resnet50"], layers=layers, **options)
    with pytest.raises(FeatxError, match="Only one layer at a time can be compared with a tuned block"):
        compare_approaches(data, layers=layers, tune="last", **options)
