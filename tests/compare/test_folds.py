"""Comparisons in cross-validation: the figures are those of models that saw nothing, and so is the test."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.compare.compare import compare_approaches
from featx.compare.result import Comparison
from featx.compare.significance import resampled_p_value
from featx.dataset import ImageFolders, Labels
from featx.errors import FeatxError
from featx.heads.training_loop import Training
from featx.report.folder import write_report
from featx.report.text import quality_note, table, verdict
from featx.train.folds import make_folds
from tests.conftest import SMALL, write_patients, write_photos
from tests.train.test_folds import NONE, dataset_of

# The test


def test_the_p_value_is_nadeau_and_bengios():
    """Bouckaert and Frank's formula, computed here by hand: 2 folds, 3 repetitions."""
    a, b = [0.8, 0.9, 0.85, 0.8, 0.95, 0.9], [0.7, 0.8, 0.8, 0.75, 0.8, 0.85]
    from scipy.stats import t

    differences = np.subtract(a, b)
    statistic = differences.mean() / np.sqrt((1 / 6 + 1) * differences.var(ddof=1))
    assert resampled_p_value(a, b, 2) == pytest.approx(2 * t.sf(statistic, 5))
    assert resampled_p_value(a, a, 2) == 1
    assert resampled_p_value([0.5] * 6, [0.4] * 6, 2) == pytest.approx(2**-5)
    with pytest.raises(FeatxError, match="same two or more folds"):
        resampled_p_value(a, b[1:], 2)


def test_equal_classifiers_are_seldom_told_apart():
    """Two classifiers that learn a threshold from 80 numbers, cross-validated in five folds."""
    n_wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = np.repeat([0, 1], 40)
        X = rng.normal(0, 1, (80, 2)) + 0.8 * y[:, np.newaxis]  # the second column tells as much as the first
        (fold_of,) = make_folds(dataset_of(y), NONE, 5, 1, seed=seed).of(dataset_of(y))
        accuracies = [[accuracy_of_threshold(x, y, fold_of == fold) for fold in range(5)] for x in X.T]
        n_wrong += resampled_p_value(*accuracies, n_folds=5) < 0.05
    assert n_wrong <= 16  # 10 are expected at most; more than 16 in 200 have a probability of 0.02


def accuracy_of_threshold(x: np.ndarray, y: np.ndarray, is_test: np.ndarray) -> float:
    """Return the accuracy, on the test images, of calling 1 what is above the middle of the training means."""
    threshold = (x[(y == 0) & ~is_test].mean() + x[(y == 1) & ~is_test].mean()) / 2
    return float(((x[is_test] > threshold) == y[is_test]).mean())


# A comparison


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, new_cache) -> Comparison:
    folder = tmp_path_factory.mktemp("folds")
    data = write_photos(folder / "data", n_train=12, n_test=8)
    return compare_approaches(
        data,
        heads="logreg",
        baselines=["report-dnn"],
        cache_dir=new_cache(folder / "cache"),
        training=Training(epochs=1),
        folds=4,
        fold_repeats=2,
        **SMALL,
    )


def test_every_image_counts_once_and_every_fold_has_its_accuracy(comparison):
    assert (comparison.n_test, comparison.n_train, comparison.n_folds) == (40, 30, 4)
    for approach in comparison.approaches:
        assert len(approach.folds) == 8
        assert len(approach.repeats) == 2
        assert approach.metrics.n_samples == 40
        assert approach.repeats[0] == pytest.approx(np.mean(approach.folds[:4]))  # the folds are equally large
        assert approach.metrics.accuracy == approach.repeats[0]
        assert sum(approach.confusion.n_true) == 40
    best, *others = sorted(comparison.approaches, key=lambda approach: -approach.accuracy)
    assert all(approach.p_value is not None for approach in others)
    assert others[0].p_value == pytest.approx(resampled_p_value(best.folds, others[0].folds, 4))
    assert comparison.error_analysis is not None


def test_it_survives_json_and_the_report_speaks_of_folds(comparison, tmp_path):
    assert Comparison.from_json(comparison.to_json()) == comparison
    write_report(comparison, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in (page, (tmp_path / "results.md").read_text(encoding="utf-8")):
        assert "Images: 40, tested in 4 folds." in text
        assert "corrected resampled t-test" in text
    assert "of 40 images right (mean and standard deviation of 8 folds; 95 % interval" in verdict(comparison)
    assert "Folds" in table(comparison)
    assert quality_note(comparison).startswith("Cross-validation:")


def test_patients_that_are_known_do_not_help(tmp_path, new_cache):
    """The same as for one split: pixels tell the patient, and nothing tells the class."""
    images, table = write_patients(tmp_path)
    cache = new_cache(tmp_path / "cache")
    found = {}
    for column in (None, "patient"):
        data = ImageFolders(images, labels=Labels(table, group_column=column))
        comparison = compare_approaches(data, cache_dir=cache, heads="logreg", folds=5, **SMALL)
        found[column] = {approach.name: approach.accuracy for approach in comparison.approaches}["vgg16 + logreg"]
    assert found[None] > 0.85
    assert found["patient"] < 0.75


def test_the_command_cross_validates(tmp_path, new_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, cache = write_photos(tmp_path / "data", n_train=8, n_test=4), new_cache(tmp_path / "cache")
    shutil.copy(data / "train/sea/sea.0.jpg", data / "test/sea/copy.jpg")
    words = ["compare", str(data), "--weights", "random", "--image-size", "32", "--layer", "block2_pool"]
    words += ["--precision", "float32", "--pooling", "avg", "--cache-dir", str(cache), "--epochs", "1"]
    result = CliRunner().invoke(main, [*words, "--folds", "3", "--quiet", "--report-dir", "r"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    results = json.loads(Path("r/results.json").read_text())
    assert results["n_test"] == 25
    assert all(len(approach["folds"]) == 3 for approach in results["approaches"])
    for more, message in ((["--repeats", "2"], "use fold_repeats"), (["--learning-curve"], "learning_curve")):
        result = CliRunner().invoke(main, [*words, "--folds", "3", *more])
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_layers_are_compared_on_the_same_folds(tmp_path, new_cache):
    data, cache = write_photos(tmp_path / "data", n_train=8, n_test=4), new_cache(tmp_path / "cache")
    options = {name: value for name, value in SMALL.items() if name != "layer"}
    options |= {"cache_dir": cache, "training": Training(epochs=1), "heads": "logreg"}
    layers = ["block1_pool", "block2_pool"]
    found = compare_approaches(data, layers=layers, folds=3, baselines=["report-dnn"], **options)
    names = [f"vgg16 {layer} + logreg" for layer in layers]
    assert [approach.name for approach in found.approaches] == [*names, "report-dnn"]
    assert [approach.details.get("layer") for approach in found.approaches] == [*layers, None]
    assert all(len(approach.folds) == 3 for approach in found.approaches)
    assert len(found.recipes) == 2
    assert "Of the layers, block" in verdict(found)
    assert Comparison.from_json(found.to_json()) == found
    # The folds are those of the features of the first layer, so the first layer alone has the same figures.
    alone = compare_approaches(data, layers=layers[:1], folds=3, **options)
    assert [approach.folds for approach in alone.approaches] == [approach.folds for approach in found.approaches[:1]]
