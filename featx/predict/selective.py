"""How sure a head must be, so that at most a given share of its answers is wrong."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError

#: How likely the promise is to be broken, by a bad choice of held-out images.
DELTA = 0.05


@dataclass(frozen=True)
class Threshold:
    """How sure a head must be.

    Attributes:
        probability: the smallest probability of the predicted class with which the answer counts.
        n_accepted: how many of the held-out images are at least as sure.
        n_wrong: how many of these are wrong.
        bound: the share of wrong answers that is not exceeded, with a confidence of 95 %.
    """

    probability: float
    n_accepted: int
    n_wrong: int
    bound: float


def find_threshold(
    probability: npt.NDArray[np.float64], is_right: npt.NDArray[np.bool_], max_error: float
) -> Threshold:
    """Return the threshold that accepts most images and promises that at most `max_error` of the answers are wrong.

    This is selection with guaranteed risk (Geifman and El-Yaniv, Selective classification for deep neural networks,
    2017, algorithm 1): a binary search over the number of images that are accepted, with the surest first. Each number
    is tested by the exact upper limit of the share of mistakes, from the tail of the binomial distribution (Clopper and
    Pearson, 1934). The limits of all tests hold together with a confidence of 95 % (Bonferroni). Unlike there, the
    search begins with all images, and ends at the smallest number that could pass without a mistake.

    The promise is for new images that are like the held-out ones and independent of each other.

    Args:
        probability: `(n,)` probabilities of the predicted classes of images that the head has not seen.
        is_right: `(n,)` bool, whether each prediction is right.
        max_error: above 0 and below 1.

    Raises:
        FeatxError: no threshold can promise it.
    """
    n, probability = len(probability), as_sure(probability)
    order = np.argsort(-probability, kind="stable")
    surest, n_wrong = probability[order], np.cumsum(~is_right[order], dtype=np.int64)
    delta, best = DELTA / _n_tests(n), None
    few, many = _fewest(max_error, delta), n
    n_tried = n
    while few <= many:
        threshold = _tested(surest, n_wrong, n_tried, delta)
        if threshold.bound <= max_error:
            best, few = threshold, n_tried + 1
        else:
            many = n_tried - 1
        n_tried = (few + many) // 2
    if best is None:
        raise FeatxError(_why_not(n, int(is_right.sum()), max_error))
    return best


def as_sure(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return probabilities in steps of a millionth: those that differ by rounding are as sure as each other.

    Of nearest neighbours that all agree, many images have the same probability, and what was held out was computed in
    another way than what is predicted.
    """
    return probabilities.astype(np.float64).round(6)


def error_bound(n_wrong: int, n: int, delta: float) -> float:
    """Return the share of mistakes that is exceeded with a probability of at most `delta`, after `n_wrong` of `n`.

    >>> round(error_bound(0, 59, 0.05), 4), round(error_bound(3, 100, 0.05), 4)
    (0.0495, 0.0757)
    """
    from scipy.special import betaincinv

    return 1.0 if n_wrong >= n else float(betaincinv(n_wrong + 1, n - n_wrong, 1 - delta))


def _tested(surest: npt.NDArray[np.float64], n_wrong: npt.NDArray[np.int64], n: int, delta: float) -> Threshold:
    """Return the threshold that accepts the `n` surest images, and all that are as sure as the last of them."""
    smallest = float(surest[n - 1])
    n_accepted = int(np.searchsorted(-surest, -smallest, side="right"))
    wrong = int(n_wrong[n_accepted - 1])
    return Threshold(smallest, n_accepted, wrong, error_bound(wrong, n_accepted, delta))


def _n_tests(n: int) -> int:
    """Return how many tests the search makes at most: of all n images, and then of the middle of what is left."""
    return 1 + n.bit_length()


def _fewest(max_error: float, delta: float) -> int:
    """Return how many images can pass a test, if all answers are right."""
    return math.ceil(math.log(delta) / math.log1p(-max_error))


def _why_not(n: int, n_right: int, max_error: float) -> str:
    """Return why no threshold passes, in a sentence."""
    needed = 1
    while needed < (fewest := _fewest(max_error, DELTA / _n_tests(needed))):
        needed = fewest
    promise = f"no threshold promises at most {100 * max_error:g} % wrong answers"
    if n < needed:
        return (
            f"With {n:,} held-out images, {promise}: even without a wrong answer, at least {needed:,} images are "
            f"needed. Train with more images, or allow more wrong answers."
        )
    return (
        f"With {n_right:,} of {n:,} held-out images right, {promise}: some of the surest answers are wrong, too. "
        f"Allow more wrong answers, or train with more images."
    )
