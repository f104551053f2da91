"""How sure a head must be, so that at most a stated share of its answers is wrong."""

import numpy as np
import pytest
from scipy.stats import binom

from featx.errors import FeatxError
from featx.predict.selective import DELTA, as_sure, error_bound, find_threshold


def test_the_bound_is_where_so_few_mistakes_have_a_probability_of_delta():
    for n_wrong, n in ((0, 59), (3, 100), (40, 2000)):
        bound = error_bound(n_wrong, n, DELTA)
        assert binom.cdf(n_wrong, n, bound) == pytest.approx(DELTA)
    assert error_bound(5, 5, DELTA) == 1


def head(n, rng, sharpness=10.0):
    """A head with two classes whose probabilities are true, and so is what it gets wrong."""
    p = 0.5 + 0.5 * rng.random(n) ** (1 / sharpness)
    return p, rng.random(n) < p


def test_the_promise_is_kept_for_19_of_20_heads():
    rng = np.random.default_rng(0)
    new, new_is_right = head(200_000, rng)
    n_broken, shares = 0, []
    for _ in range(300):
        p, is_right = head(2000, rng)
        found = find_threshold(p, is_right, 0.05)
        accepted = new >= found.probability
        shares.append(accepted.mean())
        n_broken += (~new_is_right[accepted]).mean() > 0.05
        assert found.bound <= 0.05
        assert found.n_accepted == (as_sure(p) >= found.probability).sum()
        assert found.n_wrong == (~is_right[as_sure(p) >= found.probability]).sum()
    assert n_broken <= 300 * DELTA
    assert np.mean(shares) > 0.85


def test_a_head_that_is_good_enough_is_always_sure():
    found = find_threshold(np.full(1000, 0.8), np.arange(1000) % 100 > 0, 0.05)
    assert (found.probability, found.n_accepted, found.n_wrong) == (0.8, 1000, 10)


def test_equally_sure_images_are_accepted_together():
    p = np.repeat([0.9, 0.6], 500)
    is_right = np.arange(1000) % 500 >= np.where(p > 0.8, 2, 100)
    found = find_threshold(p, is_right, 0.05)
    assert (found.probability, found.n_accepted) == (0.9, 500)


def test_too_few_images_can_promise_nothing():
    for n in (40, 96):
        needs = "even without a wrong answer, at least 99 images are needed"
        with pytest.raises(FeatxError, match=rf"^With {n} held-out images, .* 5 % wrong answers: {needs}"):
            find_threshold(np.full(n, 0.9), np.ones(n, bool), 0.05)
    assert find_threshold(np.full(99, 0.9), np.ones(99, bool), 0.05).n_accepted == 99


def test_a_head_that_is_surest_of_its_mistakes_can_promise_nothing():
    p = np.linspace(0.5, 1, 1000)
    with pytest.raises(FeatxError, match="^With 800 of 1,000 held-out images right, .* surest answers are wrong, too"):
        find_threshold(p, p < 0.9, 0.05)


def test_rounding_tells_no_images_apart_that_are_as_sure():
    """As of nearest neighbours that all agree: what was held out and what is predicted differ in the last digit."""
    held_out = np.full(400, np.float32(0.9876543219))
    threshold = find_threshold(held_out, np.ones(400, bool), 0.05)
    predicted = np.float64(held_out[0]) + np.array([-3e-8, 0, 3e-8])
    assert (as_sure(predicted) >= threshold.probability).all()
    assert threshold.n_accepted == 400
