import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from featx.compare.result import MAX_ROWS, Approach, Comparison, with_p_values
from featx.errors import FeatxError
from featx.heads.training_loop import Epoch
from featx.system.arguments import duration
from featx.train.metrics import confusion_matrix, measure


def comparison(
    skills={"vgg16 + logreg": 2.0, "report-cnn": 1.2},
    class_names=("cats", "dogs"),
    n_test=400,
    warnings=(),
    seconds={},
    dataset="cats-dogs",
) -> Comparison:
    """A comparison of seeded noise with real metrics: `skills` is how far the true class's logit is raised."""
    rng = np.random.default_rng(0)
    n_classes = len(class_names)
    y = np.arange(n_test) % n_classes
    approaches, correct = [], {}
    for name, skill in skills.items():
        logits = rng.normal(size=(n_test, n_classes))
        logits[np.arange(n_test), y] += skill
        rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        predicted = rows.argmax(axis=1)
        correct[name] = predicted == y
        matrix = confusion_matrix(y, predicted, n_classes)
        scratch = "+" not in name
        representations_s, top_s = seconds.get(name, (0.0, 612.4) if scratch else (123.0, 4.06))
        approaches.append(
            Approach(
                name=name,
                kind="scratch" if scratch else "features",
                metrics=measure(y, rows),
                representations_s=representations_s,
                top_s=top_s,
                n_parameters=1_212_513 if scratch else 8_193,
                peak_memory_bytes=1_500_000_000,
                history=() if "logreg" in name else _history(rng, n_classes),
                kept_epoch=None if "logreg" in name else 9,
                confusion=matrix,
                p_value=None,
                image_size=(64, 64),
                details={} if scratch else {"C": 0.01, "recipe": "1f3a9c02"},
                notes=(),
            )
        )
    return Comparison(
        dataset=dataset,
        dataset_digest="9b" * 32,
        class_names=tuple(class_names),
        n_train=1600,
        n_validation=400,
        n_test=n_test,
        seed=0,
        approaches=with_p_values(approaches, correct),
        recipes=({"backbone": "vgg16", "image_size": [64, 64]},),
        warnings=tuple(warnings),
        versions={"keras": "3.10.0", "numpy": "2.4.6"},
        hardware={"processor": "two cores", "memory_bytes": 8 * 1024**3},
        command="featx compare data --backbone vgg16 --with-scratch-cnn",
        created_at="2025-01-02T03:04:05+00:00",
    )


def _history(rng, n_classes) -> tuple[Epoch, ...]:
    epochs = np.arange(1, 13)
    loss = math.log(n_classes) * np.exp(-epochs / 5) + rng.normal(scale=0.01, size=12)
    val_loss = math.log(n_classes) * (np.exp(-epochs / 5) + 0.1 + 0.02 * np.maximum(epochs - 9, 0))
    accuracy, val_accuracy = np.exp(-loss), np.exp(-val_loss)
    rows = zip(epochs, loss, accuracy, val_loss, val_accuracy, strict=True)
    return tuple(Epoch(int(e), *(float(v) for v in values)) for e, *values in rows)


def test_json_gives_back_an_equal_comparison():
    for c in (comparison(warnings=("random",)), comparison({"a": 1.0}), comparison({"a + b": 3.0}, ("x", "y", "z"))):
        assert Comparison.from_json(c.to_json()) == c


def test_json_says_who_is_best_and_who_is_clearly_worse_with_the_mean_over_the_seeds():
    c = comparison({"good + x": 3.0, "poor": 0.5, "good too": 3.0})
    repeated = replace(c.approaches[2], repeats=(0.9, 0.8, 0.85))
    results = json.loads(replace(c, approaches=(*c.approaches[:2], repeated)).to_json())
    assert results["best"] == "good + x"
    assert [one["differs_from_best"] for one in results["approaches"]] == [False, True, False]
    assert [one["accuracy_sd"] for one in results["approaches"]] == [None, None, pytest.approx(0.05)]
    assert [one["accuracy"] for one in results["approaches"]] == [one.accuracy for one in (*c.approaches[:2], repeated)]


def test_p_values_that_an_older_featx_did_not_correct_are_corrected_when_read():
    c = comparison({"good": 3.0, "poor": 0.5, "good too": 3.0})
    results = json.loads(c.to_json())
    del results["best"], results["claims"]
    for one in results["approaches"]:
        for name in ("p_holm", "accuracy", "accuracy_sd", "accuracy_interval", "differs_from_best"):
            del one[name]
    read = Comparison.from_json(json.dumps(results))
    for old, new in zip(c.approaches, read.approaches, strict=True):
        assert new.p_value == old.p_value
        assert new.p_holm == (None if old.p_value is None else min(3 * old.p_value, 1))
        assert new.p_holm is None or new.p_holm >= old.p_holm


def test_a_diverged_history_survives_strict_json():
    c = comparison()
    diverged = Epoch(1, math.nan, 0.5, math.inf, 0.5)
    approach = replace(c.approaches[1], history=(diverged,))
    text = replace(c, approaches=(c.approaches[0], approach)).to_json()
    assert "NaN," not in text.replace('"NaN"', "")
    epoch = Comparison.from_json(text).approaches[1].history[0]
    assert math.isnan(epoch.loss)
    assert epoch.val_loss == math.inf


def test_numpy_scalars_are_written_as_plain_numbers():
    c = comparison()
    approach = replace(c.approaches[0], details={"C": np.float64(0.5), "n": np.int64(3)})
    assert Comparison.from_json(replace(c, approaches=(approach,)).to_json()).approaches[0].details == {
        "C": 0.5,
        "n": 3,
    }


@pytest.mark.parametrize("value", [object(), math.nan])
def test_what_json_cannot_hold_is_an_error(value):
    with pytest.raises(FeatxError, match="cannot be written as JSON"):
        replace(comparison(), hardware={"x": value}).to_json()


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"format": "featx-comparison"}'])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(FeatxError, match="not a featx comparison"):
        Comparison.from_json(text)


def test_another_version_of_the_format_is_refused_by_its_number():
    with pytest.raises(FeatxError, match="Received: featx-comparison 5"):
        Comparison.from_json(comparison().to_json().replace('"format_version": 3', '"format_version": 5'))


def test_an_unknown_or_missing_field_is_refused():
    text = comparison().to_json()
    for damaged in (text.replace('"n_test"', '"n_tests"'), text.replace('"macro_f1"', '"f1"')):
        with pytest.raises(FeatxError, match="not a featx comparison"):
            Comparison.from_json(damaged)


def test_the_best_has_the_highest_accuracy_and_of_equals_the_lowest_loss():
    c = comparison({"poor": 0.5, "good": 3.0})
    assert c.best.name == "good"
    twin = replace(c.best, name="twin", metrics=replace(c.best.metrics, loss=c.best.metrics.loss - 0.001))
    assert replace(c, approaches=(*c.approaches, twin)).best.name == "twin"


def test_the_baseline_is_the_best_of_the_other_kind():
    c = comparison({"a + b": 3.0, "c + d": 2.5, "cnn": 1.0, "dnn": 0.3})
    assert (c.best.name, c.counterpart.name) == ("a + b", "cnn")
    assert replace(c, approaches=c.approaches[:2]).counterpart.name == "c + d"
    assert replace(c, approaches=c.approaches[:1]).counterpart is None


def test_p_values_are_paired_against_the_best_alone():
    c = comparison({"good": 3.0, "poor": 0.5, "good too": 3.0})
    by_name = {a.name: a for a in c.approaches}
    assert [a.name for a in c.approaches] == ["good", "poor", "good too"]
    assert c.best.p_value is None
    assert by_name["poor"].p_value < 1e-6
    assert sum(a.p_value is None for a in c.approaches) == 1


def test_answers_that_do_not_belong_to_the_metrics_are_refused():
    c = comparison()
    right = {a.name: np.arange(400) < a.metrics.n_correct for a in c.approaches}
    assert with_p_values(c.approaches, right)
    for answers in (
        {},
        {**right, "report-cnn": right["report-cnn"][:-1]},
        {**right, "report-cnn": ~right["report-cnn"]},
    ):
        with pytest.raises(FeatxError, match="report-cnn|vgg16"):
            with_p_values(c.approaches, answers)


def test_names_must_be_unique_and_there_must_be_one():
    c = comparison()
    for approaches in ((), (c.best, c.best)):
        with pytest.raises(FeatxError, match="unique names"):
            replace(c, approaches=approaches)


def test_a_confusion_matrix_of_another_size_is_refused():
    with pytest.raises(FeatxError, match="3×3"):
        replace(comparison(), class_names=("a", "b", "c"))


def test_a_confusion_matrix_that_is_not_square_is_refused():
    with pytest.raises(FeatxError, match="as many columns as rows, which are 2"):
        replace(comparison().best, confusion=((1, 2), (3,)))


def test_the_rows_of_a_matrix_and_its_cells_are_the_same():
    rows = ((3, 0, 1), (0, 0, 0), (2, 0, 5))
    approach = replace(comparison().best, confusion=rows)
    assert tuple(approach.confusion) == rows
    assert approach.confusion[2][0] == approach.confusion[-1][0] == 2
    assert approach.confusion.cells == ((0, 0, 3), (0, 2, 1), (2, 0, 2), (2, 2, 5))
    with pytest.raises(IndexError):
        approach.confusion[3]


@pytest.mark.parametrize(("n_classes", "version"), [(MAX_ROWS, 3), (MAX_ROWS + 1, 4)])
def test_many_classes_have_their_cells_in_json_and_few_their_rows(n_classes, version):
    c = comparison(class_names=[f"class {n}" for n in range(n_classes)])
    fields = json.loads(c.to_json())
    assert fields["format_version"] == version
    written = fields["approaches"][0]["confusion"]
    cells = [[true, guess, n] for true, row in enumerate(c.approaches[0].confusion) for guess, n in enumerate(row) if n]
    assert written == (cells if version == 4 else list(map(list, c.approaches[0].confusion)))
    assert Comparison.from_json(c.to_json()) == c


def test_thousands_of_classes_take_no_more_memory_than_their_images():
    n_classes = 3000
    tracemalloc.start()
    try:
        c = replace(
            comparison({"a + b": 1.0}, n_test=50),
            class_names=tuple(map(str, range(n_classes))),
            approaches=(
                replace(
                    comparison({"a + b": 1.0}).best,
                    confusion=confusion_matrix(range(n_classes), np.roll(range(n_classes), 1), n_classes),
                ),
            ),
        )
        text = c.to_json()
        assert Comparison.from_json(text) == c
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert len(text) < 200_000
    assert c.best.confusion[7] == (0,) * 6 + (1,) + (0,) * (n_classes - 7)


def test_chance_is_the_commonest_class():
    c = comparison()
    approach = replace(c.best, confusion=((30, 10), (5, 15)))
    assert replace(c, approaches=(approach,)).commonest_share == pytest.approx(40 / 60)
    assert replace(c, approaches=(approach,)).commonest_class == c.class_names[0]
    approach = replace(c.best, confusion=((5, 5), (5, 25)))
    assert replace(c, approaches=(approach,)).commonest_class == c.class_names[1]


def test_durations_never_show_sixty():
    for seconds in np.arange(0, 90_000, 0.5):
        assert "60" not in duration(float(seconds)), seconds
