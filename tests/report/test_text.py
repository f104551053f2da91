"""What a comparison looks like on a terminal, on a page and in pictures."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.compare.result import Approach, Comparison, with_p_values
from featx.errors import FeatxError
from featx.heads.training_loop import Epoch
from featx.report.folder import draw, results_page, write_report
from featx.report.plots import page
from featx.report.plots.diagnostics import confusion_chart, confusion_file_names, training_curves_chart
from featx.report.plots.results import _overlap, accuracy_chart, summary_chart, time_chart
from featx.report.text import few_images_note, table, title, verdict, verdict_lines
from featx.system.tables import n_columns
from featx.train.metrics import confusion_matrix, measure

WARNING = "The backbone's weights are random (seed 0): these figures say nothing about transfer learning."
HOSTILE = [
    "$x^2$ \\frac{",
    "$",
    "cat\n# dog",
    "猫",
    "🐈",
    "a" * 200 + "1",
    "a" * 200 + "2",
    "|`<b>*_[x](y)",
    "\x1b[31m",
    "",
]


def approach(name, n_correct, n_test=1000, n_classes=2, times=(100.0, 4.0), first_wrong=None):
    """An approach that is right on `n_correct` images, the wrong ones in one stretch, and how sure it was."""
    scratch = "+" not in name
    wrong = np.zeros(n_test, bool)
    wrong[
        slice(*((0, n_test - n_correct) if first_wrong is None else (first_wrong, first_wrong + n_test - n_correct)))
    ] = True
    y = np.arange(n_test) % n_classes
    predicted = np.where(wrong, (y + 1) % n_classes, y)
    rows = np.full((n_test, n_classes), 0.2 / (n_classes - 1))
    rows[np.arange(n_test), predicted] = 0.8
    history = (Epoch(1, 0.9, 0.5, math.nan, 0.5), Epoch(2, 0.7, 0.6, 0.8, 0.55)) if "logreg" not in name else ()
    made = Approach(
        name=name,
        kind="scratch" if scratch else "features",
        metrics=measure(y, rows),
        representations_s=0.0 if scratch else times[0],
        top_s=sum(times) if scratch else times[1],
        n_parameters=4_195_000,
        peak_memory_bytes=1_500_000_000,
        history=history,
        kept_epoch=2 if history else None,
        confusion=confusion_matrix(y, predicted, n_classes),
        p_value=None,
        image_size=(64, 48),
        details={"C": 0.01},
        notes=(),
    )
    return made, ~wrong


def comparison(*made, class_names=("cats", "dogs"), warnings=(), dataset="pets"):
    approaches = with_p_values([one for one, _ in made], {one.name: correct for one, correct in made})
    return Comparison(
        dataset=dataset,
        dataset_digest="9b" * 32,
        class_names=tuple(class_names),
        n_train=800,
        n_validation=200,
        n_test=approaches[0].metrics.n_samples,
        seed=0,
        approaches=approaches,
        recipes=({"backbone": "vgg16"},),
        warnings=tuple(warnings),
        versions={"keras": "3.10.0"},
        hardware={"processor": "two cores"},
        command="featx compare data --with-scratch-cnn",
        created_at="2025-01-02T03:04:05+00:00",
    )


def hostile_comparison():
    names = [*HOSTILE, *(f"class {i}" for i in range(20))]
    made = [approach(name, right, n_classes=30) for name, right in ((HOSTILE[7] + " + logreg", 900), ("猫" * 50, 700))]
    return comparison(*made, class_names=names, warnings=("$\\frac{ 猫\n| `x`",), dataset="a|b\n# `c`")


def test_verdict_when_features_win():
    lines = verdict_lines(comparison(approach("vgg16 + logreg", 850), approach("report-cnn", 760)))
    assert lines == (
        "vgg16 + logreg got 85.0 % of 1,000 test images right (95 % interval 82.7 to 87.1 %). "
        "report-cnn, the best trained from scratch, got 76.0 % (73.3 to 78.5 %).",
        "The difference of 9.0 points is statistically significant (McNemar's test, p < 0.001).",
        "vgg16 + logreg and report-cnn both took 1 min 44 s.",
    )


def test_verdict_when_scratch_wins():
    c = comparison(approach("vgg16 + logreg", 760, times=(20.0, 4.0)), approach("report-cnn", 850))
    accuracy, significance, times = verdict_lines(c)
    assert accuracy.startswith("report-cnn got 85.0 %")
    assert "vgg16 + logreg, the best on pretrained features, got 76.0 %" in accuracy
    assert "statistically significant" in significance
    assert times == "report-cnn took 4.3 times as long as vgg16 + logreg: 1 min 44 s against 24 s."


def test_verdict_when_nothing_differs_beyond_chance():
    made = approach("vgg16 + logreg", 850), approach("report-cnn", 845, first_wrong=500)
    sentence = verdict(comparison(*made))
    assert "They tied: the difference of 0.5 points is not statistically significant (McNemar's test, p = " in sentence
    even = comparison(approach("vgg16 + logreg", 850), approach("report-cnn", 850, first_wrong=500))
    assert "They tied (McNemar's test, p = 1.00)." in verdict(even)


def test_verdict_names_others_that_are_not_clearly_worse():
    made = approach("a + dense", 850), approach("b + dense", 848, first_wrong=500), approach("report-cnn", 700)
    assert "b + dense is not clearly worse." in verdict(comparison(*made))


def test_verdict_says_what_is_as_good_and_faster():
    best, quick = approach("a + dense", 850), approach("b + dense", 848, first_wrong=500, times=(30.0, 4.0))
    slow, scratch = approach("c + dense", 847, first_wrong=300, times=(300.0, 4.0)), approach("report-cnn", 700)
    assert "b + dense is not clearly worse, and took 34 s." in verdict(comparison(best, quick, scratch))
    both = "b + dense and c + dense are not clearly worse; the fastest, b + dense, took 34 s."
    assert both in verdict(comparison(best, quick, slow, scratch))
    assert "c + dense is not clearly worse." in verdict(comparison(best, slow, scratch))


def test_verdict_on_one_kind_is_against_the_runner_up():
    assert "a + logreg, the runner-up, got 80.0 %" in verdict(
        comparison(approach("a + dense", 900), approach("a + logreg", 800))
    )


def test_verdict_on_a_single_approach_claims_no_difference():
    sentence = verdict(comparison(approach("vgg16 + logreg", 850)))
    assert sentence.endswith(
        "right (95 % interval 82.7 to 87.1 %), in 1 min 44 s. There is nothing to compare it with."
    )


def test_verdict_without_a_test_does_not_claim_one():
    c = comparison(approach("a + b", 850), approach("cnn", 760))
    untested = replace(c, approaches=tuple(replace(a, p_value=None, p_holm=None) for a in c.approaches))
    assert "was not tested for significance" in verdict(untested)
    assert title(untested) == "a + b: 85.0 % right, 9.0 points above cnn"


def test_verdict_says_when_nothing_has_learned():
    c = comparison(approach("a + b", 510), approach("cnn", 500))
    assert "No approach is clearly better than always answering cats, the most common class (50.0 %)." in verdict(c)
    assert title(c) == "No approach is clearly better than always answering cats (50.0 %)"
    assert "No approach" not in verdict(comparison(approach("a + b", 560), approach("cnn", 500)))


def test_verdict_names_those_that_do_no_better_than_one_answer_for_all():
    sentence = verdict(comparison(approach("a + b", 560), approach("cnn", 500)))
    assert "cnn is not clearly better than always answering cats, the most common class (50.0 %)." in sentence
    assert "most common" not in verdict(comparison(approach("a + b", 760), approach("cnn", 700)))


def test_verdict_points_to_the_warnings():
    sentence = verdict(comparison(approach("a + b", 850), approach("cnn", 760), warnings=(WARNING,)))
    assert sentence.endswith("See the warning shown with these results.")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            [("vgg16 + dense", 965), ("report-cnn", 665)],
            "vgg16 + dense: 96.5 % right, 30 points above the CNN from scratch",
        ),
        ([("a + dense", 900), ("a + logreg", 800)], "a + dense: 90.0 % right, 10 points above a + logreg"),
        ([("report-cnn", 850), ("a + b", 760)], "report-cnn: 85.0 % right, 9.0 points above a + b"),
        ([("a + b", 850), ("report-cnn", 850, 500)], "a + b and the CNN from scratch tied: 85.0 % right"),
        ([("report-cnn", 851), ("a + b", 850, 500)], "a + b and the CNN from scratch tied: 85.0 % and 85.1 % right"),
        ([("a + b", 850)], "a + b: 85.0 % right"),
    ],
)
def test_the_title_is_the_result(made, expected):
    approaches = [approach(name, right, first_wrong=first[0] if first else None) for name, right, *first in made]
    assert title(comparison(*approaches)) == expected


@pytest.mark.parametrize(
    "names", [("resnet50 + logreg, 8 views, averaged", "b + logreg, 8 views, averaged"), HOSTILE[5:7]]
)
@pytest.mark.parametrize("second", [760, 850])
def test_a_title_has_fifteen_words_at_most(names, second):
    c = comparison(approach(f"{names[0]} + x", 850), approach(f"{names[1]} + y", second, first_wrong=500))
    assert len(title(c).split()) <= 15
    assert len(title(c)) < 130


def test_no_percentage_has_a_tenth_where_images_are_few():
    c = comparison(approach("a + b", 10, n_test=10), approach("report-cnn", 5, n_test=10))
    for text in (title(c), verdict(c), table(c)):
        assert re.search(r"\d %", text)
        assert not re.search(r"\d\.\d+ (%|points)", text)
    assert title(c) == "No clear winner: a + b 100 %, the CNN from scratch 50 % right"
    assert "The difference of 50 points is not statistically significant" in verdict(c)


def test_with_several_seeds_the_means_are_compared():
    """The first seed of one is beyond the other's, and its mean is not."""
    shares = {"vgg16 + dense": (840, 810, 822), "report-cnn": (815, 825, 825)}
    rng = np.random.default_rng(0)
    made, correct = [], {}
    for name, counts in shares.items():
        seeds = np.array([rng.permutation(np.arange(1000) < count) for count in counts])
        first, right = approach(name, counts[0])
        correct[name] = np.concatenate([[right], seeds[1:]])
        made.append(replace(first, repeats=tuple(count / 1000 for count in counts)))
    c = replace(comparison(approach("x", 500)), approaches=with_p_values(made, correct))
    assert title(c) == "vgg16 + dense and the CNN from scratch tied: 82.4±1.5 % and 82.2±0.6 % right"
    assert verdict(c).startswith(
        "vgg16 + dense got 82.4±1.5 % of 1,000 test images right (mean and standard deviation of 3 seeds; "
        "95 % interval 77.9 to 86.8 %). report-cnn, the best trained from scratch, got 82.2±0.6 % (79.3 to 84.9 %). "
        "They tied: the difference of 0.2 points is not statistically significant (paired test over images and seeds, "
        "p = 0.8"
    )
    assert "vgg16 + dense (82.4±1.5 %) leads, but report-cnn is not clearly worse" in _titles(c)
    rows = [line for line in table(c).splitlines() if "report-cnn" in line]
    assert "82.2 % (79.3–84.9)" in rows[0]
    assert rows[2].split() == ["report-cnn", "3", "82.2", "%", "0.6", "%", "81.5", "%", "82.5", "%"]
    swapped = [
        replace(one, repeats=tuple(share - 0.01 * (one.kind == "features") for share in one.repeats)) for one in made
    ]
    assert replace(c, approaches=tuple(swapped)).best.name == "report-cnn"


def test_with_several_seeds_no_picture_shows_the_first_one_as_the_result():
    made, right = approach("vgg16 + dense", 840)
    other, wrong = approach("report-cnn", 700)
    repeated = [replace(made, repeats=(0.84, 0.81, 0.9)), replace(other, repeats=(0.7, 0.7, 0.7))]
    c = replace(comparison((made, right), (other, wrong)), approaches=tuple(repeated))
    for chart in (accuracy_chart, summary_chart):
        figure = chart(c)
        assert "Small dots: the seeds. ±: their standard deviation." in " ".join(t.get_text() for t in figure.texts)
        drawn = {tuple(np.round(values, 6)) for line in figure.axes[0].lines for values in line.get_data()}
        assert {(84.0, 81.0, 90.0), (85.0,)} <= drawn
        low, high = sorted(figure.axes[0].get_xlim() if chart is accuracy_chart else figure.axes[0].get_ylim())
        assert low < 70
        assert high > 90
    labels = [label.get_text() for label in summary_chart(c).axes[0].texts]
    assert any("85.0±4.6 % in" in label for label in labels)
    for figure in (training_curves_chart(c), confusion_chart(c, c.best)):
        assert "first seed" in " ".join(text.get_text() for text in figure.texts)
    assert "first seed" not in " ".join(t.get_text() for t in confusion_chart(c, made).texts)


def test_p_values_of_three_approaches_are_said_to_be_corrected_and_those_of_two_are_not_changed():
    two = approach("a + dense", 850), approach("report-cnn", 825)
    [raw] = [one.p_value for one in comparison(*two).approaches if one.p_value is not None]
    assert [one.p_holm for one in comparison(*two).approaches] == [None, raw]
    assert "(McNemar's test, p < 0.001)" in verdict(comparison(*two))
    three = comparison(*two, approach("b + dense", 845, first_wrong=500))
    assert "(McNemar's test with Holm's correction, p < 0.001)" in verdict(three)
    assert table(three).splitlines()[0].endswith("p (Holm)")


def _titles(c):
    return {chart(c).get_label() for chart in (accuracy_chart, summary_chart, time_chart)}


def test_the_table_puts_warnings_first_and_the_best_on_top():
    text = table(comparison(approach("cnn", 760), approach("vgg16 + logreg", 850), warnings=(WARNING,)))
    assert text.replace("\n", " ").startswith(f"WARNING: {WARNING}")
    rows = [line for line in text.splitlines() if "cnn" in line or "logreg" in line]
    assert [row[:5] for row in rows] == ["* vgg", "  cnn", "* vgg", "  cnn"]
    assert "85.0 % (82.7–87.1)" in rows[0]
    assert rows[0].endswith("best")
    assert rows[1].endswith("<0.001")
    assert "1 min 40 s" in rows[2]
    assert "4.0 s" in rows[2]
    assert "1 min 44 s" in rows[2]
    assert "4,195,000" in rows[2]
    assert "1.4 GiB" in rows[2]


def test_the_table_fits_a_terminal_whatever_the_names_are():
    c = hostile_comparison()
    noted = replace(c, approaches=tuple(replace(a, notes=("long " * 60,)) for a in c.approaches))
    text = table(noted)
    assert max(map(n_columns, text.splitlines())) <= 80
    assert all(char.isprintable() or char == "\n" for char in text)


def test_the_table_fits_a_terminal_and_no_word_of_a_name_is_broken():
    names = [
        "resnet50 + logreg, 8 views, averaged",
        "efficientnetv2b0 + dense",
        "mobilenetv3large + logreg",
        "report-cnn-gray",
    ]
    long = {"times": (100_000.0, 4000.0)}
    c = comparison(*(approach(name, 900 - 40 * n, **long) for n, name in enumerate(names)))
    big = tuple(
        replace(one, n_parameters=33_554_433, peak_memory_bytes=1023 << 20, repeats=(one.metrics.accuracy,) * 2)
        for one in c.approaches
    )
    text = table(replace(c, approaches=big))
    assert max(map(n_columns, text.splitlines())) <= 80
    assert {word for name in names for word in name.split()} <= set(text.split())


def test_columns_are_aligned_also_after_wide_letters():
    c = comparison(approach("猫 + logreg", 850), approach("cnn", 760))
    rows = [line for line in table(c).splitlines() if line.endswith((" best", "<0.001"))]
    assert [row[:3] for row in rows] == ["* 猫", "  c"]
    assert len(rows[0]) + 1 == len(rows[1])


def test_a_markdown_row_has_as_many_cells_as_its_header_whatever_the_names_are():
    blocks = table(hostile_comparison(), markdown=True).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("| ")]
    assert len(tables) == 2
    for lines in tables:
        assert len(lines) == 2 + 2
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory) -> Path:
    """The folder of a report with hostile names; a warning about a missing letter would fail this."""
    folder = tmp_path_factory.mktemp("hostile")
    write_report(hostile_comparison(), folder)
    return folder


def test_markdown_holds_no_markup_from_names(hostile_report):
    text = (hostile_report / "results.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<b>", text)
    assert not re.search(r"^# (dog|`c`)", text, re.MULTILINE)
    assert "\x1b" not in text
    assert "\\[x\\](y)" in text


@pytest.mark.usefixtures("without_rendering")
def test_the_report_holds_every_file_its_page_names_and_no_other(tmp_path):
    c = comparison(approach("vgg16 + logreg", 850), approach("report-cnn", 760), warnings=(WARNING,))
    write_report(c, tmp_path / "new" / "report")
    files = {path.name for path in (tmp_path / "new" / "report").iterdir() if not path.name.startswith(".")}
    page = (tmp_path / "new" / "report" / "results.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"!\[.*\]\((.*?)\)", page))
    assert shown == {
        "summary.png",
        "accuracy.png",
        "time.png",
        "training-curves.png",
        "confusion-vgg16-logreg.png",
        "confusion-report-cnn.png",
    }
    assert files == {"index.html", "results.json", "results.md", *shown}
    for part in (WARNING, c.command, c.dataset_digest, "keras 3.10.0", "two cores", '"backbone": "vgg16"'):
        assert part in page.replace("\\", "")
    text = (tmp_path / "new" / "report" / "results.json").read_text(encoding="utf-8")
    assert Comparison.from_json(text).to_json() == c.to_json()


@pytest.mark.usefixtures("without_rendering")
def test_writing_again_replaces_the_report(tmp_path):
    write_report(comparison(approach("a + logreg", 850)), tmp_path)
    write_report(comparison(approach("a + logreg", 700)), tmp_path)
    assert "70.0 %" in (tmp_path / "results.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_rendering")
def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatxError, match="Choose a folder that you can write to"):
        write_report(comparison(approach("a + logreg", 850)), tmp_path / "file" / "report")


@pytest.mark.usefixtures("without_rendering")
def test_nothing_half_written_is_left_when_writing_fails(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(FeatxError, match="cannot be written"):
        write_report(comparison(approach("a + logreg", 850)), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_pictures_are_drawn_whatever_the_names_are_and_twice_the_size_of_a_page(hostile_report):
    with Image.open(hostile_report / "summary.png") as picture:
        assert picture.width == 1800
    assert len(list(hostile_report.glob("confusion-*.png"))) == 2


def test_pictures_have_no_training_curves_without_a_history():
    assert "training-curves.png" not in draw(comparison(approach("a + logreg", 850)))


def test_names_that_look_alike_get_pictures_of_their_own():
    c = comparison(approach("a + b", 850), approach("a+b", 840), approach("猫 + 犬", 830), approach("犬 + 猫", 820))
    assert len(set(confusion_file_names(c))) == 4


def test_long_names_keep_the_end_where_they_differ():
    shown = {page.short(name, 18) for name in HOSTILE[5:7]}
    assert len(shown) == 2
    assert max(map(len, shown)) == 18


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_kept_epoch_is_in_the_picture_also_if_no_epoch_of_tuning_was_better(kept):
    made, correct = approach("vgg16 + tuned", 850)
    c = comparison((replace(made, kept_epoch=kept), correct), approach("cnn", 760))
    figure = training_curves_chart(c)
    for axes in figure.axes[:2]:
        (line,) = (line for line in axes.lines if line.get_label() == f"kept: epoch {kept}")
        assert axes.get_xlim()[0] < line.get_xdata()[0] < axes.get_xlim()[1]
    assert f"epoch kept: {kept} of 2" in results_page(c, has_curves=True)


def test_every_picture_carries_the_warnings():
    c = comparison(approach("a + dense", 850), approach("cnn", 760), warnings=(WARNING,))
    figures = [summary_chart(c), accuracy_chart(c), time_chart(c), training_curves_chart(c)]
    for figure in (*figures, confusion_chart(c, c.best)):
        text = " ".join(line.get_text() for line in figure.texts).replace("\n", " ")
        assert WARNING in text
        assert "pets: 1,000 test images" in text


def test_the_stacked_times_stand_on_a_linear_axis_from_zero():
    made = approach("a + logreg", 850, times=(1.0, 0.1)), approach("cnn", 760, times=(0.0, 7200.0))
    axes = time_chart(comparison(*made)).axes[0]
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0
    ends = sorted(patch.get_x() + patch.get_width() for patch in axes.patches)
    assert ends[-1] == pytest.approx(7200)


def test_the_legend_of_all_kinds_fits_beside_long_names():
    made, correct = approach("vgg16 direct", 600)
    names = ("resnet50 + logreg, 8 views, averaged over views", "report-cnn")
    c = comparison((replace(made, kind="direct"), correct), *(approach(name, 700) for name in names))
    for chart in (accuracy_chart, summary_chart, time_chart):
        figure = chart(c)
        figure.draw_without_rendering()
        box = figure.axes[0].get_legend().get_window_extent()
        assert box.x0 >= 0, chart
        assert box.x1 <= figure.bbox.x1, chart


@pytest.mark.parametrize("seed", range(6))
def test_labels_of_the_summary_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    kinds = ("vgg16 + dense", "vgg16 + logreg", "resnet50 + dense", "resnet50 + logreg", "report-cnn", "report-dnn")
    times = np.exp(rng.uniform(2, 4 + seed, size=6))
    made = [approach(n, int(rng.integers(800, 860)), times=(float(t), 1.0)) for n, t in zip(kinds, times, strict=True)]
    figure = summary_chart(comparison(*made))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [super(type(label), label).get_window_extent() for label in axes.texts]
    assert len(boxes) == 6
    area = axes.get_window_extent()
    for a, b in itertools.combinations(boxes, 2):
        assert _overlap(a, b) == 0
    assert all(_overlap(box, area) > 0.98 * box.width * box.height for box in boxes)


def test_a_small_test_split_says_what_it_is_worth_and_what_says_more():
    small, large = (comparison(approach("a + logreg", round(0.9 * n), n_test=n)) for n in (499, 500))
    low, high = (round(100 * end) for end in small.best.accuracy_interval)
    assert few_images_note(small) == (
        "With only 499 test images, the accuracy of a + logreg is known only roughly: it is probably between "
        f"{low} and {high} %. Add --folds 5 to test on all 1,499 images."
    )
    assert not few_images_note(large)


def of_layer(layer, n_correct, **how):
    made, correct = approach(f"vgg16 {layer} + logreg", n_correct, **how)
    return replace(made, details={"layer": layer, **made.details}), correct


def test_the_best_layer_is_named_with_how_sure_that_is():
    def said(*made):
        return verdict_lines(comparison(*made))[1]

    clear = said(of_layer("block5_pool", 900), of_layer("block3_pool", 700), of_layer("block4_pool", 650))
    assert "Of the layers, block5_pool is the best for these images (90.0 %); the difference is statis" in clear
    close = said(of_layer("block5_pool", 900), of_layer("block3_pool", 898), of_layer("block4_pool", 650))
    assert "Of the layers, block5_pool is the best for these images (90.0 %); block3_pool is not clearly" in close
    beaten = said(of_layer("block5_pool", 800), of_layer("block3_pool", 700), approach("report-cnn", 900))
    assert "block5_pool is the best for these images (80.0 %), but the difference between layers was not" in beaten
    assert "Of the layers" not in said(of_layer("block5_pool", 900), approach("report-cnn", 800))
