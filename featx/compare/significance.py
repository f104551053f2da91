"""Whether one classifier is better than another beyond chance, also with several seeds and several approaches."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.train import resampled_variance, wilson_interval

#: P values below this are called differences beyond chance.
SIGNIFICANCE = 0.05


def paired_p_value(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """Return the two-sided p value of the hypothesis that two classifiers are equally good, from the same test images.

    If the answers of neither depend on the seed, in particular with one seed each, it is `mcnemar_p_value`; else
    `repeated_p_value`.

    Args:
        correct_a: `(n_seeds, n)` bool, whether the first classifier was right on each image, by seed.
        correct_b: the same images in the same order for the second; it may have another number of seeds.

    Returns:
        From 0 to 1.

    Raises:
        FeatxError: the two are not boolean matrices with as many images.
    """
    a, b = np.atleast_2d(correct_a), np.atleast_2d(correct_b)
    is_fixed = all((each == each[:1]).all() for each in (a, b))
    return mcnemar_p_value(a[0], b[0]) if is_fixed else repeated_p_value(a, b)


def mcnemar_p_value(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """Return the p value of McNemar's exact two-sided test that two classifiers are equally often right.

    Only the images that one got right and the other wrong count; were the classifiers equally good, each would win
    half of these (McNemar, 1947, in its binomial form).

    Args:
        correct_a: `(n,)` bool, whether the first classifier was right on each image.
        correct_b: `(n,)` bool, the same images in the same order for the second.

    Returns:
        From 0 to 1; 1 if both are right on the same images.

    Raises:
        FeatxError: the two are not boolean vectors of the same length.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or a.dtype != bool or b.dtype != bool:
        raise FeatxError(
            f"McNemar's test needs two boolean vectors of the same length. "
            f"Received: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def repeated_p_value(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """Return the p value of a two-sided t-test that the mean accuracies of two classifiers, over seeds, are equal.

    Other seeds would give other accuracies, and so would other test images. Both are samples, and every seed meets
    every image, as several readers judge the same cases in radiology. This is that test (Obuchowski and Rockette,
    1995): the variance of the difference is that between images, paired, plus that between the seeds of each
    classifier. Few seeds that differ much leave few degrees of freedom (Satterthwaite, 1946; Hillis, 2007).

    Why no other test: a permutation test over images takes the seeds as fixed. With many images, it finds nearly any
    two trainings different, even of the same network. A permutation test over seeds cannot go below 0.1 with three
    seeds each. The corrected resampled t-test (Nadeau and Bengio, 2003) needs another test set for each training. Here
    all share one, so the spread between seeds does not show how much the choice of its images matters.

    The p value tends to be too high rather than too low: the noise of single answers is in both variances, and the
    seeds of the two count as independent, although equal seeds select the same validation images.

    References:
        Obuchowski and Rockette, "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests: an
        ANOVA approach with dependent observations", Communications in Statistics B 24, 1995.
        Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis", Statistics
        in Medicine 26, 2007.
        Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 2021.

    Args:
        correct_a: `(n_seeds, n)` bool, whether the first classifier was right on each image, by seed.
        correct_b: the same images in the same order for the second; it may have another number of seeds. One seed, or
            the same answers with every seed, adds no variance between seeds.

    Returns:
        From 0 to 1; 1 if both have the same mean accuracy, or if there is only one image.

    Raises:
        FeatxError: the two are not boolean matrices with as many images.
    """
    from scipy.stats import t

    a, b = np.atleast_2d(correct_a), np.atleast_2d(correct_b)
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or a.dtype != bool or b.dtype != bool:
        raise FeatxError(
            f"This test needs two boolean matrices (n_seeds, n_samples) of the same images. "
            f"Received: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    of_images = a.mean(axis=0) - b.mean(axis=0)
    n, difference = of_images.size, float(of_images.mean())
    if difference == 0 or n < 2:
        return 1.0
    terms = [(of_images.var(ddof=1) / n, n - 1)]
    terms += [(each.mean(axis=1).var(ddof=1) / len(each), len(each) - 1) for each in (a, b) if len(each) > 1]
    variance = sum(float(value) for value, _ in terms)
    if variance < 1e-20:  # the difference is the same on every image: a coin that falls on the same side n times
        return float(2.0 ** (1 - n))
    freedom = variance**2 / sum(float(value) ** 2 / degrees for value, degrees in terms)
    return float(2 * t.sf(abs(difference) / np.sqrt(variance), freedom))


def interval_of_mean(accuracies: Sequence[float], n_samples: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a mean accuracy over seeds, for the choice of images and of seeds.

    Each end is as far from the mean as the root of two squares: the distance of the end of Wilson's interval, for the
    images, and that of Student's t, for the seeds (Newcombe's hybrid of intervals, as in Zou and Donner, "Construction
    of confidence limits about effect measures: a general approach", Statistics in Medicine 27, 2008). If the seeds do
    not differ, it is Wilson's interval of one training.

    Args:
        accuracies: with each seed, two or more, from 0 to 1.
        n_samples: number of test images.
    """
    from scipy.stats import t

    n_seeds, mean = len(accuracies), float(np.mean(accuracies))
    low, high = wilson_interval(round(mean * n_samples), n_samples)
    of_seeds = float(t.ppf(0.975, n_seeds - 1)) * float(np.std(accuracies, ddof=1)) / math.sqrt(n_seeds)
    return max(mean - math.hypot(mean - low, of_seeds), 0.0), min(mean + math.hypot(high - mean, of_seeds), 1.0)


def resampled_p_value(accuracies_a: Sequence[float], accuracies_b: Sequence[float], n_folds: int) -> float:
    """Return the p value of the corrected resampled t-test that two classifiers are equally good in cross-validation.

    The training images of two folds are mostly the same, so their accuracies are not independent, and an ordinary
    t-test finds differences too often. This one uses the variance of `featx.train.resampled_variance`.

    Args:
        accuracies_a: of the first classifier on each fold, of all repetitions.
        accuracies_b: of the second on the same folds.
        n_folds: number of folds of a repetition, 2 or more.

    Returns:
        From 0 to 1; 1 if both have the same mean.

    Raises:
        FeatxError: they have not as many folds each, or fewer than two.
    """
    from scipy.stats import t

    if len(accuracies_a) != len(accuracies_b):
        raise FeatxError(
            f"This test needs the accuracies of the same two or more folds. "
            f"Received: {len(accuracies_a)} and {len(accuracies_b)}"
        )
    differences = np.subtract(accuracies_a, accuracies_b)
    mean, variance = float(differences.mean()), resampled_variance(differences.tolist(), n_folds)
    if mean == 0:
        return 1.0
    if variance < 1e-20:  # the difference is the same on every fold: a coin that falls on the same side each time
        return float(2.0 ** (1 - len(differences)))
    return float(2 * t.sf(abs(mean) / math.sqrt(variance), len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the order given, by Holm's method.

    If all hypotheses are true, one of the corrected values is below 0.05 with a probability of at most 0.05 (Holm, "A
    simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    weighted = np.arange(len(order), 0, -1) * np.asarray(p_values, np.float64)[order]
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(weighted), 1)
    return [float(p) for p in corrected]
