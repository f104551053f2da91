"""How much data is enough: nested samples of the training images, every seed another one, and one sentence."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.compare.candidates import MIN_PER_CLASS, SHOTS, Curve
from featx.compare.compare import compare_approaches
from featx.compare.result import Comparison, CurvePoint
from featx.dataset.image_dataset import sample_mask
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from featx.heads.registry import HEADS
from featx.heads.training_loop import Training
from featx.report.folder import write_report
from featx.report.html.page import page_html
from featx.report.plots.diagnostics import learning_curve_chart
from featx.report.text import curve_verdict
from tests.conftest import SMALL, write_photos


@pytest.fixture
def digests():
    return np.random.default_rng(0).integers(0, 256, (300, 32), np.uint8)


def test_samples_are_nested_and_take_the_same_share_of_every_class(digests):
    labels = np.repeat([0, 1, 2], [200, 60, 40])
    before = np.zeros(300, bool)
    for fraction in (0.1, 0.2, 0.5, 1.0):
        mask = sample_mask(digests, labels, seed=3, fraction=fraction)
        assert np.bincount(labels[mask]).tolist() == [round(fraction * n) for n in (200, 60, 40)]
        assert (mask | before == mask).all()
        before = mask
    assert before.all()


def test_samples_depend_on_the_seed_and_the_images_alone(digests):
    labels = np.arange(300) % 2
    one = sample_mask(digests, labels, seed=0, fraction=0.2)
    other = sample_mask(digests, labels, seed=1, fraction=0.2)
    assert 0 < (one & other).sum() < 30
    order = np.random.default_rng(1).permutation(300)
    assert np.array_equal(sample_mask(digests[order], labels[order], seed=0, fraction=0.2), one[order])


def test_small_classes_give_what_they_have(digests):
    labels = np.repeat([0, 1], [297, 3])
    assert np.bincount(labels[sample_mask(digests, labels, seed=0, fraction=0.01, at_least=4)]).tolist() == [4, 3]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, new_cache) -> Comparison:
    folder = tmp_path_factory.mktemp("curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.compare.compare.N_SEEDS", 2)  # a third one takes half as long again, and shows no more
        return compare_approaches(
            write_photos(folder / "data", n_train=16, n_test=10),
            baselines=["report-dnn"],
            cache_dir=new_cache(folder / "cache"),
            training=Training(epochs=1),
            learning_curve=True,
            **SMALL,
        )


def test_sizes_are_numbers_of_training_images(tmp_path):
    dataset = scan(write_photos(tmp_path / "data", n_train=16, n_test=3), tmp_path / "cache")

    def numbers(curve):
        return [int(part.of(dataset, 0).sum()) for part in curve.parts(dataset)]

    assert numbers(Curve((32, 10, 20))) == [10, 20, 32]
    assert numbers(Curve((1, 2, 3))) == [2 * MIN_PER_CLASS]
    assert numbers(Curve(shots=(5, 1, 5, 16))) == [2, 10, 32]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([33], "A learning curve has at most as many images as there are for training, 32: .* Received: 33"),
        ([0, 10], "a size of learning_curve must be a whole number of 1 or more. Received: 0"),
        ("50", r"learning_curve is True, False, or numbers of training images, like \[50, 500\]. Received: '50'"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_computed(tmp_path, sizes, message):
    data = write_photos(tmp_path / "data", n_train=16, n_test=3)
    with pytest.raises(FeatxError, match=message):
        compare_approaches(data, learning_curve=sizes, cache_dir=tmp_path / "cache", **SMALL)
    assert not list(tmp_path.glob("cache/*/*.h5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": [1, 17]}, r"The class cats has 16 training images: .* \(--shots\)\. Received: 17"),
        ({"shots": [0]}, "a size of shots must be a whole number of 1 or more. Received: 0"),
        ({"shots": "5"}, r"shots is True, False, or numbers of images of each class, like \[1, 5, 10\]"),
        ({"shots": True, "learning_curve": [8]}, r"--curve-sizes.* or .*--shots"),
    ],
)
def test_shots_that_cannot_be_are_refused_before_anything_is_computed(tmp_path, options, message):
    data = write_photos(tmp_path / "data", n_train=16, n_test=3, classes=("cats", "dogs"))
    with pytest.raises(FeatxError, match=message):
        compare_approaches(data, cache_dir=tmp_path / "cache", **options, **SMALL)
    assert not list(tmp_path.glob("cache/*/*.h5"))


def test_few_images_of_each_class(tmp_path, new_cache, monkeypatch):
    monkeypatch.setattr("featx.compare.compare.N_SEEDS_OF_SHOTS", 3)
    data = write_photos(tmp_path / "data", n_train=16, n_test=10)
    made = compare_approaches(
        data, heads=HEADS, shots=[1, 4], cache_dir=new_cache(tmp_path / "cache"), training=Training(epochs=2), **SMALL
    )
    assert [approach.name for approach in made.approaches] == [f"vgg16 + {head}" for head in HEADS]
    for head in HEADS:
        points = [point for point in made.learning_curve if point.approach == f"vgg16 + {head}"]
        assert [(point.per_class, point.n_train, len(point.accuracies)) for point in points] == [(1, 2, 3), (4, 8, 3)]
    assert Comparison.from_json(made.to_json()) == made
    sentence = curve_verdict(made)
    best = max((point for point in made.learning_curve if point.per_class == 4), key=lambda point: point.mean)
    assert sentence.startswith("With 1 image of each class, vgg16 + ")
    assert f" With 4 images of each class, {best.approach} is the most accurate" in sentence
    assert "means and ranges of 3 seeds" in sentence
    assert "networks train for all epochs" in sentence


def test_the_sentence_says_who_is_as_good_with_few_images(comparison):
    best, tied, worse = (approach.name for approach in comparison.approaches[:3])
    curve = (
        CurvePoint(best, 0.1, 10, (0.80, 0.70, 0.75), per_class=5),
        CurvePoint(tied, 0.1, 10, (0.81, 0.66, 0.74), per_class=5),
        CurvePoint(worse, 0.1, 10, (0.70, 0.61, 0.66), per_class=5),
    )
    assert curve_verdict(replace(comparison, learning_curve=curve)) == (
        f"With 5 images of each class, {best} is the most accurate (75 %, 70 to 80 %; not clearly worse: {tied}). "
        "These are means and ranges of 3 seeds, each with other training images."
    )
    (axes,) = learning_curve_chart(replace(comparison, learning_curve=curve)).axes
    assert axes.get_xlabel() == "training images of each class (log scale)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5"]


def test_the_command_line_takes_shots(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "featx.report.folder.compare_approaches", lambda _data, **options: asked.update(options) or 1 / 0
    )
    data = write_photos(tmp_path / "data", n_train=4, n_test=3)
    for words, shots in ((["--shots", "1,3"], (1, 3)), (["--learning-curve", "--shots"], SHOTS), ([], False)):
        CliRunner().invoke(main, ["compare", str(data), "--report-dir", str(tmp_path / "report"), *words])
        assert asked["shots"] == shots
    result = CliRunner().invoke(main, ["compare", "--shots", str(data)])
    assert result.exit_code == 2
    assert "with commas between them, like 1,5,10" in result.output


def test_the_command_line_takes_sizes(tmp_path):
    data = write_photos(tmp_path / "data", n_train=16, n_test=3)
    words = ["compare", str(data), "--weights", "random", "--cache-dir", str(tmp_path / "cache"), "--curve-sizes"]
    result = CliRunner().invoke(main, [*words, "10,ten"])
    assert result.exit_code == 2
    assert "like 50,500. Received: '10,ten'" in result.output
    result = CliRunner().invoke(main, [*words, "10,40"])
    assert result.exit_code == 2
    assert "Received: 40" in result.output


def test_every_approach_has_a_point_for_every_share(comparison):
    names = [approach.name for approach in comparison.approaches]
    for name in names:
        points = [point for point in comparison.learning_curve if point.approach == name]
        # 1 to 20 % of 16 are less than the least of a class.
        assert [point.n_train for point in points] == [2 * MIN_PER_CLASS, 16, 32]
        assert [point.fraction for point in points] == [0.25, 0.5, 1]
        assert all(len(point.accuracies) == 2 for point in points)
        assert all(0 <= accuracy <= 1 for point in points for accuracy in point.accuracies)


def test_the_last_point_of_the_first_seed_is_the_comparison_itself(comparison):
    for approach in comparison.approaches:
        last = [point for point in comparison.learning_curve if point.approach == approach.name][-1]
        assert last.accuracies[0] == approach.metrics.accuracy


def test_curve_survives_json_and_is_shown(comparison, tmp_path):
    assert Comparison.from_json(comparison.to_json()) == comparison
    write_report(comparison, tmp_path)
    assert (tmp_path / "learning-curve.png").stat().st_size > 10_000
    assert "learning-curve.png" in (tmp_path / "results.md").read_text()
    html = page_html(comparison)
    assert "how much data is enough" in html


def test_seeds_that_agree_can_be_drawn(comparison):
    """The mean of five times 0.9725 is rounded to less than 0.9725: the bar would begin above the point."""
    accuracies = (0.9725,) * 5
    assert sum(accuracies) / 5 < min(accuracies)
    point = CurvePoint("vgg16 + dense", 1, 32, accuracies)
    assert learning_curve_chart(replace(comparison, learning_curve=(point,))).axes


@pytest.mark.usefixtures("without_rendering")
def test_without_a_curve_the_page_says_nothing_of_one(comparison):
    assert "how much data is enough" not in page_html(replace(comparison, learning_curve=()))


def points(name: str, means: dict[int, float]) -> list[CurvePoint]:
    return [CurvePoint(name, n / 1000, n, (mean - 0.01, mean + 0.01)) for n, mean in means.items()]


def test_the_sentence_says_how_many_images_transfer_saves(comparison):
    head, baseline = "vgg16 + logreg", "report-dnn"
    better = points(head, {10: 0.6, 100: 0.7, 1000: 0.9}) + points(baseline, {10: 0.5, 100: 0.55, 1000: 0.68})
    assert curve_verdict(replace(comparison, learning_curve=tuple(better))) == (
        "With 100 training images (10 %), vgg16 + logreg is as accurate as report-dnn trained on all 1,000 images: "
        "70 % (69 to 71 %) against 68 % (67 to 69 %), means and ranges of 2 seeds."
    )
    worse = points(head, {10: 0.6, 1000: 0.65}) + points(baseline, {10: 0.5, 1000: 0.68})
    assert "Transfer learning does not pay off here." in curve_verdict(replace(comparison, learning_curve=tuple(worse)))
    assert curve_verdict(replace(comparison, learning_curve=tuple(points(head, {10: 0.6})))) == ""
