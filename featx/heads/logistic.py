"""Logistic regression on features: scikit-learn's, at the size and in the space in which it is fast."""
# ruff: noqa: N803, N806 - X and Z are what the books call them

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.dataset import iterative_parts
from featx.errors import TrainingError
from featx.heads.training_loop import SMALLEST_PROBABILITY, Targets, is_right, probability_of_truth
from featx.system import DaemonThreads, n_cores

_Floats = npt.NDArray[np.float64]

#: Takes what is being done just now.
Note = Callable[[str], None]

#: Values of C times the number of features. In these units the best is near 1 to 10, whatever the features.
C_GRID = tuple(float(10**exponent) for exponent in np.arange(-2, 4.1, 0.5))

#: Folds; from `MANY_ROWS` on, three choose as well as five.
N_FOLDS, N_FOLDS_MANY_ROWS, MANY_ROWS = 5, 3, 4000

#: Folds that are fitted at a time, each on one core and with a copy of the rows that it sees; `--memory` counts on two.
#: It is one if the solver takes more memory than the rows, as with very many classes.
FOLDS_AT_ONCE = 2

#: C times the number of features where no image can be held out to choose it.
DEFAULT_C = 1.0

#: The most rows whose Gram matrix is worth decomposing.
MAX_GRAM_ROWS = 3000

#: Looser in cross-validation, where the fourth digit of a loss decides nothing.
CV_TOLERANCE, TOLERANCE = 3e-3, 1e-4

MAX_ITERATIONS = 1000

#: L-BFGS holds so many float64 for each coefficient: two for each step that it remembers, which are 10, or 20 where the
#: rows are on disk, and some more.
BYTES_PER_COEFFICIENT, STREAMED_BYTES_PER_COEFFICIENT = 8 * 31, 8 * 55

_SLAB_ROWS, _SLAB_FEATURES = 256, 4096


@dataclass(frozen=True)
class Scaled:
    """Features as logistic regression sees them: `(X - mean) * scale`, with a root mean square of about 1.

    Attributes:
        X: `(n, ...)` float16 or float32, in memory or on disk.
        mean: `(n_features,)`.
        scale: one number for all features.
    """

    X: Any
    mean: _Floats
    scale: float


@dataclass(frozen=True)
class Fitted:
    """Logistic regression that has been fitted, to features that were centred and scaled.

    Attributes:
        coef: `(k, n_features)`, with one row for two classes, or one for each class.
        bias: `(k,)`.
        out_of_fold: `(n_images, n_classes)`, the probabilities of held-out images, NaN of others; None without any.
        details: see `featx.heads.training_loop.Trained`.
    """

    coef: _Floats
    bias: _Floats
    out_of_fold: npt.NDArray[np.float32] | None
    details: dict[str, float | int | str]


def folds_of(
    y: Targets, digests: npt.NDArray[np.uint8], n_classes: int, seed: int, *, n_folds: int | None = None
) -> npt.NDArray[np.int64]:
    """Return the fold of every row: equal images together, classes spread evenly, whatever the order of rows.

    A class that has only one image, or copies of one, is in fold -1: it is never held out. So are all if fewer than two
    classes have more. With several labels for an image, a label that few images have may be missing in a fold.

    There are `n_folds`, if given, and each leaves an image of every class to train on. By default, there are as many as
    choosing C needs, or fewer, so that every fold has every class.

    Raises:
        TrainingError: a class has no image.
    """
    _, first, image = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    label = y[first]
    rng = np.random.default_rng(seed)
    most = N_FOLDS if len(y) < MANY_ROWS else N_FOLDS_MANY_ROWS
    if y.ndim == 2:
        n_with = np.count_nonzero(label, axis=0)
        n_folds = n_folds or max(2, min(most, int(np.minimum(n_with, len(label) - n_with).min())))
        lots = rng.permutation(len(first))
        return iterative_parts(label, np.arange(len(first)), lots, n_folds)[image.reshape(-1)]
    counts = np.bincount(label, minlength=n_classes)
    if not counts.all():
        raise TrainingError(f"There is no image of class number {counts.argmin()} to train on; add images.")
    fold = np.full(len(first), -1)
    if (counts > 1).sum() > 1:
        n_folds = n_folds or min(most, int(counts[counts > 1].min()))
        shuffled = [rng.permutation(np.flatnonzero(label == number)) for number in np.flatnonzero(counts > 1)]
        by_class = np.concatenate(shuffled)
        fold[by_class] = np.arange(len(by_class)) % n_folds
    return fold[image.reshape(-1)]


def logreg_bytes(n_rows: int, n_features: int, n_classes: int, *, in_memory: bool) -> int:
    """Return about how much memory the solver takes for rows in memory, or on disk.

    >>> logreg_bytes(2000, 25088, 2, in_memory=True), logreg_bytes(7000, 25088, 3500, in_memory=True) >> 30
    (496000, 20)
    """
    n_outputs = 1 if n_classes == 2 else n_classes
    if not in_memory:
        return STREAMED_BYTES_PER_COEFFICIENT * n_outputs * n_features
    is_spanned = n_rows <= min(MAX_GRAM_ROWS, n_features // 2)
    return BYTES_PER_COEFFICIENT * n_outputs * (n_rows if is_spanned else n_features)


def fit_logreg(
    features: Scaled,
    y: Targets,
    folds: npt.NDArray[np.int64],
    n_images: int,
    note: Note,
    class_weights: _Floats | None = None,
) -> Fitted:
    """Fit L2-regularized logistic regression to features in memory, with C chosen by cross-validation.

    With several labels for an image, it is one regression for each label, with one C for all.

    Args:
        features: of `n_images` images first, and then of views of them.
        y: `(n,)` labels, or `(n, n_classes)` bool.
        folds: `(n,)`, see `folds_of`.
        n_images: how many images there are; they are what is held out.
        note: called with a description of each step.
        class_weights: `(n_classes,)`, how much a row of each class counts, also in the choice of C; None if all count
            the same.
    """
    n_features = features.mean.size
    return fit_in_span(features, lambda Z: _fit_rows(Z, y, folds, n_features, n_images, note, class_weights))


def fit_in_span(features: Scaled, fit: Callable[[npt.NDArray[np.float32]], Fitted]) -> Fitted:
    """Fit a linear model with an L2 penalty to features in memory; `fit` does it for float32 rows `(n, r)`.

    The rows are the features, centred and scaled, or fewer numbers that say the same if there are few rows.
    """
    n_features = features.mean.size
    if len(features.X) > min(MAX_GRAM_ROWS, n_features // 2):
        return fit(_all_rows(features))
    Z, back = _rows_in_their_span(features)
    fitted = fit(Z)
    weights = fitted.coef @ back
    slabs = [weights @ _columns(features, start) for start in range(0, n_features, _SLAB_FEATURES)]
    return replace(fitted, coef=np.hstack(slabs))


def _all_rows(features: Scaled) -> npt.NDArray[np.float32]:
    """Return the scaled rows as `(n, n_features)` float32."""
    Z = np.empty((len(features.X), features.mean.size), np.float32)
    for start in range(0, len(Z), _SLAB_ROWS):
        slab = features.X[start : start + _SLAB_ROWS].reshape(-1, features.mean.size)
        Z[start : start + len(slab)] = (slab - features.mean) * features.scale
    return Z


def _columns(features: Scaled, start: int) -> _Floats:
    """Return `(n, m)`, the scaled features from `start` on, as many as make a slab."""
    those = slice(start, start + _SLAB_FEATURES)
    columns: _Floats = (features.X.reshape(len(features.X), -1)[:, those] - features.mean[those]) * features.scale
    return columns


def _rows_in_their_span(features: Scaled) -> tuple[npt.NDArray[np.float32], _Floats]:
    """Return the scaled rows in an orthonormal basis of their span, `(n, r)`, and the way back, `(r, n)`.

    With fewer rows than features this loses nothing: the coefficients that an L2 penalty leaves lie in the span of the
    rows (the representer theorem), and lengths and angles are the same in both bases.
    """
    from scipy.linalg import eigh

    gram = np.zeros((len(features.X), len(features.X)))
    for start in range(0, features.mean.size, _SLAB_FEATURES):
        columns = _columns(features, start)
        gram += columns @ columns.T
    eigenvalues, vectors = eigh(gram, driver="evd", overwrite_a=True)
    spanned = eigenvalues >= 1e-10 * eigenvalues[-1]
    lengths = np.sqrt(np.maximum(eigenvalues[spanned], np.finfo(np.float64).tiny))
    return (vectors[:, spanned] * lengths).astype(np.float32), (vectors[:, spanned] / lengths).T


def _fit_rows(
    Z: npt.NDArray[np.float32],
    y: Targets,
    folds: npt.NDArray[np.int64],
    n_features: int,
    n_images: int,
    note: Note,
    class_weights: _Floats | None,
) -> Fitted:
    """Choose C and fit all rows `(n, r)` with it; the first `n_images` are images, the others views of them."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

    # One thread for each fit: these products wait for memory, and threads that wait for each other beside TensorFlow's
    # took 30 times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the details, not on the user's screen
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        C, out_of_fold, details = DEFAULT_C / n_features, None, dict[str, float | int | str]()
        if (is_rated := folds[:n_images] >= 0).any():
            C, held_out = _choose_c(Z, y, folds, n_features, n_images, note, class_weights)
            details["cv_accuracy"] = float(is_right(held_out, y[:n_images])[is_rated].mean())
            details["cv_folds"] = int(folds.max()) + 1
            out_of_fold = held_out
        note("fitting to all images")
        options = {"C": C, "tol": TOLERANCE, "max_iter": MAX_ITERATIONS, "class_weight": _by_class(class_weights)}
        final = _regression(y, **options).fit(Z, y)
    details = {
        "C": C,
        **details,
        "converged": "yes" if final.n_iter_.max() < MAX_ITERATIONS else "no",
    }
    return Fitted(final.coef_.astype(np.float64), final.intercept_.astype(np.float64), out_of_fold, details)


def _choose_c(
    Z: npt.NDArray[np.float32],
    y: Targets,
    folds: npt.NDArray[np.int64],
    n_features: int,
    n_images: int,
    note: Note,
    class_weights: _Floats | None,
) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the C with the lowest cross-validated log loss, and the probabilities of held-out images.

    These are `(n_images, n_classes)`, NaN for those in fold -1. Views are trained on, but only images are held out:
    they are what the model is for. Images and their views are in one fold.

    The loss, because it ranks values of C with less noise than the accuracy and keeps probabilities honest. Goes up the
    grid, each fit from where the last one ended, and stops where the loss no longer falls: beyond, fits take longest.
    """
    from threadpoolctl import threadpool_limits

    weights = _by_class(class_weights)
    options = {"class_weight": weights, "tol": CV_TOLERANCE, "max_iter": MAX_ITERATIONS, "warm_start": True}
    models = [_regression(y, **options) for _ in range(folds.max() + 1)]
    of_images, y_images = folds[:n_images], y[:n_images]
    is_rated = of_images >= 0
    n_classes = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    probabilities = np.full((n_images, n_classes), np.nan, np.float32)
    best = (np.inf, 0.0, probabilities)

    def fit(fold: int, C: float) -> None:
        seen, held_out = folds != fold, np.flatnonzero(of_images == fold)
        with threadpool_limits(1):  # some BLAS libraries take it for the thread that asks
            probabilities[held_out] = models[fold].set_params(C=C).fit(Z[seen], y[seen]).predict_proba(Z[held_out])

    n_outputs = 1 if n_classes == 2 else n_classes
    is_small = n_outputs * Z.shape[1] * BYTES_PER_COEFFICIENT <= Z.nbytes
    n_threads = min(FOLDS_AT_ONCE, n_cores()) if is_small else 1
    for number, C in enumerate(value / n_features for value in C_GRID):
        with DaemonThreads(n_threads, "featx-fold") as pool:
            fits = [pool.submit(fit, fold, C) for fold in range(len(models))]
            for n_begun, fitted in enumerate(fits, number * len(models) + 1):
                note(f"cross-validation, fit {n_begun} of at most {len(C_GRID) * len(models)}")
                fitted.result()
        of_truth = probability_of_truth(probabilities[is_rated], y_images[is_rated])
        logs = np.log(np.maximum(of_truth, SMALLEST_PROBABILITY))
        weighted = logs if class_weights is None else logs * class_weights[y_images[is_rated]]
        loss = -float(weighted.sum(dtype=np.float64))
        if loss >= best[0]:
            break
        best = (loss, C, probabilities.copy())
    return best[1], best[2]


def _regression(y: Targets, **options: Any) -> Any:
    """Return scikit-learn's logistic regression; with several labels for an image, one for each label."""
    from sklearn.linear_model import LogisticRegression

    if y.ndim == 1:
        return LogisticRegression(**options)
    return _LabelRegressions([LogisticRegression(**options) for _ in range(y.shape[1])])


class _LabelRegressions:
    """A logistic regression for each label, with the interface of scikit-learn's.

    Attributes:
        coef_: `(n_labels, r)`.
        intercept_: `(n_labels,)`.
        n_iter_: `(n_labels,)`.
    """

    def __init__(self, models: list[Any]) -> None:
        self._models = models

    def set_params(self, C: float) -> Self:
        """Use another C for all labels."""
        for model in self._models:
            model.set_params(C=C)
        return self

    def fit(self, Z: npt.NDArray[np.float32], y: npt.NDArray[np.bool_]) -> Self:
        """Fit every label.

        Of one that all rows have, or none, nothing can be learned: then its probability is its share, drawn a little
        towards a half, as Krichevsky and Trofimov do ("The performance of universal encoding", 1981).
        """
        n_with = np.count_nonzero(y, axis=0)
        self.coef_ = np.zeros((y.shape[1], Z.shape[1]))
        self.intercept_ = np.log((n_with + 0.5) / (len(y) - n_with + 0.5))
        self.n_iter_ = np.zeros(y.shape[1], np.int64)
        for label in np.flatnonzero((n_with > 0) & (n_with < len(y))):
            model = self._models[label].fit(Z, y[:, label])
            self.coef_[label], self.intercept_[label] = model.coef_[0], model.intercept_[0]
            self.n_iter_[label] = model.n_iter_[0]
        return self

    def predict_proba(self, Z: npt.NDArray[np.float32]) -> _Floats:
        """Return `(n, n_labels)`, the probability of each label."""
        from scipy.special import expit

        probabilities: _Floats = expit(Z @ self.coef_.T + self.intercept_)
        return probabilities


def _by_class(class_weights: _Floats | None) -> dict[int, float] | None:
    return None if class_weights is None else dict(enumerate(class_weights.tolist()))
