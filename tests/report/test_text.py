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
from featx.report.folder import draw, write_report
from featx.report.plots import page
from featx.report.plots.diagnostics import confusion_chart, confusion_file_names, training_curves_chart
from featx.report.plots.results import _overlap, accuracy_chart, summary_chart, time_chart
from featx.report.text import table, verdict
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
        confusion=tuple(tuple(row) for row in confusion_matrix(y, predicted, n_classes).tolist()),
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
    sentence = verdict(comparison(approach("vgg16 + logreg", 850), approach("report-cnn", 760)))
    assert sentence.startswith("vgg16 + logreg got 85.0 % (95 % interval 82.7 to 87.1 %) of 1,000 test images right")
    assert "by the best trained from scratch, report-cnn: 9.0 points more, a difference beyond chance" in sentence
    assert "p < 0.001" in sentence
    assert "took 1 min 44 s against 1 min 44 s" in sentence


def test_verdict_when_scratch_wins():
    sentence = verdict(comparison(approach("vgg16 + logreg", 760), approach("report-cnn", 850)))
    assert sentence.startswith("report-cnn got 85.0 %")
    assert "by the best on bottleneck features, vgg16 + logreg: 9.0 points more, a difference beyond chance" in sentence


def test_verdict_when_nothing_differs_beyond_chance():
    made = approach("vgg16 + logreg", 850), approach("report-cnn", 845, first_wrong=500)
    sentence = verdict(comparison(*made))
    assert "a difference of 0.5 points that may be chance (McNemar, p = " in sentence
    assert "beyond chance" not in sentence


def test_verdict_names_others_that_may_be_as_good():
    made = approach("a + dense", 850), approach("b + dense", 848, first_wrong=500), approach("report-cnn", 700)
    assert "b + dense may be as good as the best." in verdict(comparison(*made))


def test_verdict_says_what_is_as_good_and_quicker():
    best, quick = approach("a + dense", 850), approach("b + dense", 848, first_wrong=500, times=(30.0, 4.0))
    slow, scratch = approach("c + dense", 847, first_wrong=300, times=(300.0, 4.0)), approach("report-cnn", 700)
    assert "b + dense may be as good as the best, after 34 s." in verdict(comparison(best, quick, scratch))
    assert "the best, the quickest of them, b + dense, after 34 s." in verdict(comparison(best, quick, slow, scratch))
    assert "c + dense may be as good as the best." in verdict(comparison(best, slow, scratch))


def test_verdict_on_one_kind_is_against_the_runner_up():
    assert "by the runner-up, a + logreg" in verdict(
        comparison(approach("a + dense", 900), approach("a + logreg", 800))
    )


def test_verdict_on_a_single_approach_claims_no_difference():
    sentence = verdict(comparison(approach("vgg16 + logreg", 850)))
    assert "nothing to compare it with" in sentence
    assert "chance" not in sentence


def test_verdict_without_a_test_does_not_claim_one():
    c = comparison(approach("a + b", 850), approach("cnn", 760))
    untested = replace(c, approaches=tuple(replace(a, p_value=None) for a in c.approaches))
    assert "not tested for chance" in verdict(untested)


def test_verdict_says_when_nothing_has_learned():
    assert "no approach is clearly better" in verdict(comparison(approach("a + b", 510), approach("cnn", 500)))
    assert "learned" not in verdict(comparison(approach("a + b", 560), approach("cnn", 500)))


def test_verdict_names_those_that_do_no_better_than_one_answer_for_all():
    sentence = verdict(comparison(approach("a + b", 560), approach("cnn", 500)))
    assert sentence.endswith("; always answering cats, the commonest class, gets 50.0 %; not clearly better: cnn.")
    assert "commonest" not in verdict(comparison(approach("a + b", 760), approach("cnn", 700)))


def test_verdict_is_one_sentence_that_points_to_the_warnings():
    sentence = verdict(comparison(approach("a + b", 850), approach("cnn", 760), warnings=(WARNING,)))
    assert sentence.endswith("subject to the warning shown with it.")
    assert len(re.findall(r"\.( |$)", sentence)) == 1


def test_the_table_puts_warnings_first_and_the_best_on_top():
    text = table(comparison(approach("cnn", 760), approach("vgg16 + logreg", 850), warnings=(WARNING,)))
    assert text.startswith(f"WARNING: {WARNING}")
    rows = [line for line in text.splitlines() if "cnn" in line or "logreg" in line]
    assert [row[:5] for row in rows] == ["* vgg", "  cnn", "* vgg", "  cnn"]
    assert "85.0 % (82.7 – 87.1)" in rows[0]
    assert rows[0].endswith("best")
    assert rows[1].endswith("<0.001")
    assert "1 min 40 s" in rows[2]
    assert "4.0 s" in rows[2]
    assert "1 min 44 s" in rows[2]
    assert "4.2 million" in rows[2]
    assert "1.4 GiB" in rows[2]


def test_the_table_fits_a_terminal_whatever_the_names_are():
    c = hostile_comparison()
    noted = replace(c, approaches=tuple(replace(a, notes=("long " * 60,)) for a in c.approaches))
    text = table(noted)
    assert max(len(line) + sum(ord(char) > 0x2E80 for char in line) for line in text.splitlines()) <= 120
    assert all(char.isprintable() or char == "\n" for char in text)


def test_columns_are_aligned_also_after_wide_letters():
    c = comparison(approach("猫 + logreg", 850), approach("cnn", 760))
    rows = [line for line in table(c).splitlines() if line.endswith((" best", "<0.001"))][1:]
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


def test_the_report_holds_every_file_its_page_names_and_no_other(tmp_path):
    c = comparison(approach("vgg16 + logreg", 850), approach("report-cnn", 760), warnings=(WARNING,))
    write_report(c, tmp_path / "new" / "report")
    files = {path.name for path in (tmp_path / "new" / "report").iterdir()}
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


def test_writing_again_replaces_the_report(tmp_path):
    write_report(comparison(approach("a + logreg", 850)), tmp_path)
    write_report(comparison(approach("a + logreg", 700)), tmp_path)
    assert "70.0 %" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatxError, match="name a folder that can be written"):
        write_report(comparison(approach("a + logreg", 850)), tmp_path / "file" / "report")


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
