"""Tests of differences: right as often as they say where nothing differs, and not blind where something does."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, norm

from featx.compare.result import with_p_values
from featx.compare.significance import (
    SIGNIFICANCE,
    holm,
    interval_of_mean,
    mcnemar_p_value,
    paired_p_value,
    repeated_p_value,
)
from featx.errors import FeatxError
from featx.train.metrics import wilson_interval
from tests.report.test_text import approach

N_COMPARISONS = 200

#: An approach of which only the accuracies are of interest.
TEMPLATE, _ = approach("cnn", 500)


def answers(rng, n_images, n_seeds, accuracies, *, sd_of_seeds=0.0, noise=1.0):
    """Answers `(n, n_seeds, n_images)` of classifiers with these expected accuracies, as trainings give them.

    An image has a difficulty that is the same for all, and another one for each classifier; a seed has a skill; and
    `noise` is how much an answer has of its own. With none, all seeds of a classifier with the same skill answer alike.
    """
    n = len(accuracies)
    logits = rng.normal(size=n_images) + rng.normal(size=(n, 1, n_images))
    logits = logits + rng.normal(scale=sd_of_seeds, size=(n, n_seeds, 1))
    logits += rng.normal(scale=noise, size=(n, n_seeds, n_images))
    thresholds = norm.isf(accuracies, scale=np.sqrt(2 + sd_of_seeds**2 + noise**2))
    return logits > thresholds[:, np.newaxis, np.newaxis]


@pytest.mark.parametrize(
    ("n_images", "n_seeds", "accuracy", "sd_of_seeds", "noise"),
    [
        (1000, 3, 0.8, 0.0, 1.0),  # the images decide alone
        (1000, 3, 0.8, 0.3, 1.0),  # seeds that differ by several points
        (5000, 5, 0.9, 0.2, 1.0),  # so many images that only the seeds are left to chance
        (2000, 2, 0.97, 0.1, 0.5),
        (100, 5, 0.95, 0.1, 0.3),  # few mistakes
        (50, 3, 0.9, 0.0, 0.0),  # the seed changes nothing
    ],
)
def test_equal_classifiers_are_called_different_in_at_most_5_percent(n_images, n_seeds, accuracy, sd_of_seeds, noise):
    rng = np.random.default_rng(n_images)
    pairs = (
        answers(rng, n_images, n_seeds, (accuracy, accuracy), sd_of_seeds=sd_of_seeds, noise=noise)
        for _ in range(N_COMPARISONS)
    )
    n_wrong = sum(paired_p_value(*pair) < SIGNIFICANCE for pair in pairs)
    assert n_wrong <= most_by_chance()


def most_by_chance():
    """The most wrong answers of `N_COMPARISONS` at a rate of 5 %, but for one case in a hundred."""
    return binom.ppf(0.99, N_COMPARISONS, SIGNIFICANCE)


def test_seeds_that_differ_are_not_taken_for_classifiers_that_differ():
    """Two trainings of the same network on 20,000 images: McNemar's test of the first seeds finds most of them."""
    rng = np.random.default_rng(0)
    found = np.array(
        [
            (mcnemar_p_value(a[0], b[0]), paired_p_value(a, b))
            for a, b in (answers(rng, 20_000, 4, (0.8, 0.8), sd_of_seeds=0.2) for _ in range(N_COMPARISONS))
        ]
    )
    n_of_first, n_of_all = (found < SIGNIFICANCE).sum(axis=0)
    assert n_of_first > 0.5 * N_COMPARISONS
    assert n_of_all <= most_by_chance()


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize("n", [3, 6])
def test_of_several_equal_approaches_none_is_called_worse_than_the_best_in_95_percent(n, n_seeds):
    rng = np.random.default_rng(n)
    n_wrong = 0
    for _ in range(N_COMPARISONS):
        several = answers(rng, 400, n_seeds, [0.8] * n, sd_of_seeds=0.1 if n_seeds > 1 else 0)
        n_wrong += any(one.differs_from_best for one in compared(several))
    assert n_wrong <= most_by_chance()


def compared(several):
    """The approaches with these answers, `(n, n_seeds, n_images)`, and their p values."""
    made = {f"{number}": right for number, right in enumerate(several)}
    return with_p_values([of_answers(name, right) for name, right in made.items()], made)


def of_answers(name, right):
    n_correct, n_samples = int(right[0].sum()), right.shape[1]
    accuracies = right.mean(axis=1).tolist()
    metrics = replace(TEMPLATE.metrics, n_correct=n_correct, n_samples=n_samples, accuracy=accuracies[0])
    return replace(TEMPLATE, name=name, metrics=metrics, repeats=tuple(accuracies) if len(right) > 1 else ())


def test_all_pairs_are_corrected_for_because_the_best_is_chosen_by_the_same_images():
    """With only those against the best, equal approaches would differ in more than 5 % of the comparisons."""
    rng = np.random.default_rng(0)
    n_wrong = 0
    for _ in range(1000):
        several = answers(rng, 400, 1, [0.8] * 6)[:, 0]
        best = several.sum(axis=1).argmax()
        against_best = [mcnemar_p_value(several[best], one) for n, one in enumerate(several) if n != best]
        n_wrong += min(holm(against_best)) < SIGNIFICANCE
    assert n_wrong > 0.06 * 1000


def test_what_is_better_is_found():
    """Three points on 2,000 images, with seeds that differ by half a point."""
    rng = np.random.default_rng(0)
    pairs = (answers(rng, 2000, 3, (0.88, 0.85), sd_of_seeds=0.04) for _ in range(N_COMPARISONS))
    assert sum(paired_p_value(*pair) < SIGNIFICANCE for pair in pairs) > 0.7 * N_COMPARISONS


def test_more_seeds_find_more():
    rng = np.random.default_rng(0)
    n_found = {}
    for n_seeds in (2, 10):
        pairs = (answers(rng, 1000, n_seeds, (0.85, 0.81), sd_of_seeds=0.1) for _ in range(N_COMPARISONS))
        n_found[n_seeds] = sum(paired_p_value(*pair) < SIGNIFICANCE for pair in pairs)
    assert n_found[10] > n_found[2] + 0.2 * N_COMPARISONS


def test_the_worse_approach_is_found_among_equal_ones():
    rng = np.random.default_rng(0)
    several = answers(rng, 1000, 3, (0.9, 0.9, 0.9, 0.8))
    assert [one.differs_from_best for one in compared(several)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("n_images", "n_seeds", "accuracy", "sd_of_seeds"),
    [(1000, 3, 0.8, 0.0), (1000, 3, 0.8, 0.3), (5000, 5, 0.9, 0.2), (2000, 2, 0.97, 0.1), (300, 3, 0.99, 0.1)],
)
def test_95_percent_of_the_intervals_hold_the_accuracy_that_all_seeds_and_images_would_give(
    n_images, n_seeds, accuracy, sd_of_seeds
):
    rng = np.random.default_rng(n_images)
    n_missed = 0
    for _ in range(N_COMPARISONS):
        [right] = answers(rng, n_images, n_seeds, [accuracy], sd_of_seeds=sd_of_seeds)
        low, high = interval_of_mean(right.mean(axis=1).tolist(), n_images)
        n_missed += not low <= accuracy <= high
    assert n_missed <= most_by_chance()


def test_of_seeds_that_do_not_differ_the_interval_is_wilsons():
    assert interval_of_mean([0.9, 0.9], 500) == pytest.approx(wilson_interval(450, 500))
    assert interval_of_mean([1.0, 1.0, 1.0], 500) == pytest.approx(wilson_interval(500, 500))
    assert interval_of_mean([0.1, 0.9], 500) == (0.0, 1.0)  # two seeds that differ so much say nothing


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_are_those_of_the_pairs_and_corrected_together():
    rng = np.random.default_rng(2)
    several = answers(rng, 300, 3, [0.8] * 4, sd_of_seeds=0.3)
    found = compared(several)
    pairs = list(combinations(range(4), 2))
    raw = [paired_p_value(several[a], several[b]) for a, b in pairs]
    of_pair = dict(zip(pairs, zip(raw, holm(raw), strict=True), strict=True))
    [best] = [number for number, one in enumerate(found) if one.p_value is None]
    assert found[best].p_holm is None
    for number, one in enumerate(found):
        if number != best:
            assert (one.p_value, one.p_holm) == of_pair[min(number, best), max(number, best)]


def test_mcnemar_by_hand():
    a = np.array([True] * 9 + [False] * 1 + [True] * 50 + [False] * 5)
    b = np.array([False] * 9 + [True] * 1 + [True] * 50 + [False] * 5)
    assert mcnemar_p_value(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_p_value(b, a) == mcnemar_p_value(a, b)


def test_mcnemar_looks_at_pairs_not_at_totals():
    a = np.arange(100) < 60
    assert mcnemar_p_value(a, a) == 1.0
    assert mcnemar_p_value(a, a[::-1]) == 1.0  # 40 against 40
    better = np.arange(100) < 70
    assert mcnemar_p_value(a, better) == pytest.approx(2 / 2**10)


def test_mcnemar_refuses_what_is_not_paired():
    right = np.ones(3, bool)
    for other in (np.ones(4, bool), np.ones(3, int), np.ones((3, 1), bool)):
        with pytest.raises(FeatxError, match="two boolean vectors"):
            mcnemar_p_value(right, other)


def correct_by_seed(rng, n, accuracies):
    return np.array([rng.permutation(n) < round(share * n) for share in accuracies])


def test_means_that_differ_by_less_than_their_seeds_are_not_told_apart():
    rng = np.random.default_rng(0)
    a, b = correct_by_seed(rng, 1000, (0.84, 0.81, 0.822)), correct_by_seed(rng, 1000, (0.815, 0.825, 0.825))
    assert repeated_p_value(a, b) > 0.5
    assert repeated_p_value(a, a) == 1.0
    assert repeated_p_value(b, a) == pytest.approx(repeated_p_value(a, b))
    better = correct_by_seed(rng, 1000, (0.94, 0.945, 0.943))
    assert repeated_p_value(better, b) < 0.001
    assert repeated_p_value(better[:1], b) < 0.01  # one that does not depend on the seed


def test_the_test_of_means_is_wrong_as_seldom_as_it_says():
    """Equal classifiers, whose accuracy varies with the seed and the images: at most 5 % are called different."""
    rng = np.random.default_rng(1)
    n_wrong = 0
    for _ in range(400):
        hard = rng.random(200)
        pair = [
            np.array([rng.random(200) < 0.6 + 0.3 * hard + shift for shift in rng.normal(0, 0.04, 3)]) for _ in range(2)
        ]
        n_wrong += repeated_p_value(*pair) < 0.05
    assert 0 < n_wrong <= 0.05 * 400


def test_the_test_of_means_refuses_what_is_not_paired():
    for pair in ((np.ones((2, 3), bool), np.ones((2, 4), bool)), (np.ones((2, 3)), np.ones((2, 3), bool))):
        with pytest.raises(FeatxError, match="boolean matrices"):
            repeated_p_value(*pair)
