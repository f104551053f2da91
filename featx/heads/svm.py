"""The head `svm`: a linear support vector machine, scikit-learn's, with calibrated probabilities."""
# ruff: noqa: N803, N806 - X, Z and C are what the books call them

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.calibration import SCORE_BYTES, as_probabilities, fit_temperature
from featx.heads.dense import Task, centre_and_scale, linear_model
from featx.heads.logistic import (
    C_GRID,
    CV_TOLERANCE,
    DEFAULT_C,
    Fitted,
    Note,
    Scaled,
    fit_in_span,
    folds_of,
    logreg_bytes,
)
from featx.heads.slabs import scaled_rows
from featx.heads.streamed_logistic import Loss, Objective, minimize_over_rows, sample_rows
from featx.heads.training_loop import Trained
from featx.store import Rows, take
from featx.system import waiting

_Floats = npt.NDArray[np.float64]

#: Passes of scikit-learn's solver, at most.
MAX_ITERATIONS = 2000

#: Images that LinearSVC is fitted to, at most, and at least if they are on disk: fewer choose another C.
SAMPLE_ROWS, FEWEST_SAMPLE_ROWS = 2000, 1000

#: liblinear has 16 bytes for each number, and a copy of the rows as float64.
_BYTES_PER_NUMBER = 24


def svm_bytes(n_rows: int, n_features: int, n_classes: int, *, in_memory: bool) -> int:
    """Return about how much memory the solvers take.

    >>> svm_bytes(2000, 25088, 2, in_memory=True) >> 20, svm_bytes(8000, 25088, 2, in_memory=True) >> 20
    (183, 1541)
    """
    n_sample = min(n_rows, max(SAMPLE_ROWS, 2 * n_classes))
    in_sample = 2 * _BYTES_PER_NUMBER * n_sample * min(n_sample, n_features) + SCORE_BYTES * n_sample * n_classes
    if in_memory and n_rows == n_sample:
        return in_sample
    stretch = (16 * n_sample + (4 * n_rows if in_memory else 0)) * n_features  # and the rows without validation
    return max(in_sample, stretch + logreg_bytes(n_rows, n_features, n_classes, in_memory=False))


def train_svm(task: Task) -> Trained:
    """Fit scikit-learn's LinearSVC, one class against the rest, and make it Flatten → Dense.

    Its decisions, divided by the length of all coefficients, are distances. The temperature that fits those of held-out
    images best makes them probabilities; see `fit_temperature`. With two classes, that is Platt's sigmoid without an
    offset. So an answer is always LinearSVC's own. Decisions themselves would not do: with a small C, they grow with
    the number of images, and folds have fewer. C and the temperature are those with the lowest log loss of held-out
    images, in folds that divide no group. A class with a single image is not held out. If fewer than two classes have
    more, both are defaults.

    LinearSVC itself fits up to 2,000 images in memory. It fits a sample of others, which gives C; then L-BFGS goes on
    to the minimum of the same objective over all rows. There, the temperature comes from the validation images, before
    they are trained on as well: that of the sample would be too high by half.
    """
    scaled = Scaled(task.X, *centre_and_scale(task.X))
    images = _sample(task)
    sample, y = replace(scaled, X=take(task.X, images)[:]), task.y[images]
    folds = folds_of(y, task.digests[images], task.n_classes, task.training.seed)
    with waiting("svm", show=task.training.show) as note:
        fit = partial(_fit_rows, y=y, folds=folds, task=task, n_features=scaled.mean.size, note=note)
        fitted = fit_in_span(sample, fit)
    if not isinstance(task.X, np.ndarray) or len(images) < len(task.X):
        fitted = _over_all_rows(task, scaled, sample, y, fitted)
        fitted.details["cv_images"] = len(images)
    unit = float(fitted.details["temperature"]) * _length(fitted.coef)
    model = linear_model("svm", task, scaled, fitted.coef / unit, fitted.bias / unit)
    details = {"feature_scale": scaled.scale, **fitted.details}
    return Trained("svm", model, details=details, out_of_fold=fitted.out_of_fold)


def _over_all_rows(
    task: Task, scaled: Scaled, sample: Scaled, y_sample: npt.NDArray[np.int64], fitted: Fitted
) -> Fitted:
    """Return what is fitted to all rows, starting from what was `fitted` to a sample; see `train_svm`."""
    C, details = float(fitted.details["C"]), dict(fitted.details)

    def fit(rows: Rows, y: npt.NDArray[np.int64], start: Fitted) -> Fitted:
        objective = Objective(replace(scaled, X=rows), y, C, SQUARED_HINGE, task.class_weights)
        found = minimize_over_rows("svm", objective, sample, y_sample, start, show=task.training.show)
        details["converged"], details["passes"] = found[2], int(details.get("passes", 0)) + found[3]
        return replace(start, coef=found[0], bias=found[1])

    out_of_fold = None
    held_out = np.random.default_rng(task.training.seed).permutation(np.flatnonzero(task.is_validation))[:SAMPLE_ROWS]
    if len(held_out):
        seen = np.sort(task.rows[~task.is_validation].ravel())
        fitted = fit(take(task.X, seen), task.y[seen], fitted)
        held_out = np.sort(held_out)
        decisions = scaled_rows(scaled, take(task.X, held_out)[:]) @ fitted.coef.T + fitted.bias
        scores = _as_columns(decisions / _length(fitted.coef))
        expected = _expected(scaled.mean.size)
        details["temperature"], _ = fit_temperature(scores, task.y[held_out], expected, task.class_weights)
        out_of_fold = np.full((len(task.rows), scores.shape[1]), np.nan, np.float32)
        out_of_fold[held_out] = as_probabilities(scores, float(details["temperature"]))
    fitted = fit(task.X, task.y, fitted)
    return replace(fitted, details={**details, "solver": "streaming"}, out_of_fold=out_of_fold)


def _sample(task: Task) -> npt.NDArray[np.int64]:
    """Return which images LinearSVC is fitted to, ascending: all, or a sample that has two of each class, if it can."""
    n = SAMPLE_ROWS
    if not isinstance(task.X, np.ndarray):
        n = min(n, max(FEWEST_SAMPLE_ROWS, len(sample_rows(task.X.take(slice(0, len(task.rows)))))))
    order = np.random.default_rng(0).permutation(len(task.rows))
    y = task.y[order]
    by_class = np.argsort(y, kind="stable")
    first_of_class = np.searchsorted(y[by_class], y[by_class])
    is_needed = np.zeros(len(y), bool)
    is_needed[by_class] = np.arange(len(y)) - first_of_class < 2
    n = max(n, int(is_needed.sum()))
    return np.sort(np.concatenate([order[is_needed], order[~is_needed]])[:n])


def _fit_rows(
    Z: npt.NDArray[np.float32],
    *,
    y: npt.NDArray[np.int64],
    folds: npt.NDArray[np.int64],
    task: Task,
    n_features: int,
    note: Note,
) -> Fitted:
    """Choose C, fit all rows `(n, r)` with it, and choose the temperature; see `train_svm`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    is_rated = folds >= 0
    weights = None if task.class_weights is None else task.class_weights[y]  # in every output, as if rows were repeated
    # With as many numbers in a row as rows, or nearly, liblinear's dual solver is faster, and closer to the minimum.
    make = partial(LinearSVC, dual=len(Z) < 2 * Z.shape[1], random_state=task.training.seed, max_iter=MAX_ITERATIONS)
    C, scores = DEFAULT_C / n_features, np.empty((len(y), 0), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the details, not on the user's screen
        if is_rated.any():
            C, scores = _choose_c(make, Z, y, folds, task, n_features, note)
        note("fitting to all images")
        final = make(C=C).fit(Z, y, weights)
    temperature, _ = fit_temperature(scores[is_rated], y[is_rated], _expected(n_features), task.class_weights)
    is_converged = np.max(final.n_iter_) < MAX_ITERATIONS
    details: dict[str, float | int | str] = {
        "C": C,
        "temperature": temperature,
        "converged": "yes" if is_converged else "no",
    }
    if is_rated.any():
        details["cv_accuracy"] = float((scores[is_rated].argmax(axis=1) == y[is_rated]).mean())
        details["cv_folds"] = int(folds.max()) + 1
    out_of_fold = as_probabilities(scores, temperature) if is_rated.any() else None
    bias = np.atleast_1d(final.intercept_).astype(np.float64)
    return Fitted(final.coef_.astype(np.float64), bias, out_of_fold, details)


def _choose_c(
    make: Any,
    Z: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    folds: npt.NDArray[np.int64],
    task: Task,
    n_features: int,
    note: Note,
) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the C whose calibrated probabilities of held-out images have the lowest log loss, and their scores.

    Goes up the grid and stops where the loss no longer falls, as `logreg` does: beyond, fits take longest.
    """
    n_folds = int(folds.max()) + 1
    is_rated, class_weights = folds >= 0, task.class_weights
    scores = np.full((len(y), int(y.max()) + 1), np.nan, np.float32)
    best = (np.inf, 0.0, scores)
    for number, C in enumerate(value / n_features for value in C_GRID):
        for fold in range(n_folds):
            note(f"cross-validation, fit {number * n_folds + fold + 1} of at most {len(C_GRID) * n_folds}")
            held_out = folds == fold
            seen = y[~held_out]
            weights = None if class_weights is None else class_weights[seen]
            model = make(C=C, tol=CV_TOLERANCE).fit(Z[~held_out], seen, weights)
            scores[held_out] = _as_columns(model.decision_function(Z[held_out]) / _length(model.coef_))
        _, loss = fit_temperature(scores[is_rated], y[is_rated], _expected(n_features), task.class_weights)
        if loss >= best[0]:
            break
        best = (loss, C, scores.copy())
    return best[1], best[2]


def _expected(n_features: int) -> float:
    """Return the temperature that is expected: about the length of a row of features, whose root mean square is 1."""
    return float(np.sqrt(n_features))


def _length(coef: _Floats) -> float:
    """Return the length of all coefficients together, which is not 0."""
    return float(np.linalg.norm(coef)) or 1.0


def _as_columns(decisions: _Floats) -> _Floats:
    """Return `(n, n_classes)` decisions, also for two classes, for which there is one number: `(n,)` or `(n, 1)`."""
    if decisions.ndim == 2 and decisions.shape[1] > 1:
        return decisions
    return decisions.reshape(-1, 1) * [-0.5, 0.5]


def _squared_hinge(
    decisions: _Floats, y: npt.NDArray[np.int64], class_weights: _Floats | None
) -> tuple[float, _Floats]:
    """Return the sum of the squared hinge losses, and its derivatives by the decisions, `(n, k)`."""
    sign = _signs(decisions, y)
    missing = np.maximum(0, 1 - sign * decisions)
    slopes = -2 * sign * missing
    if class_weights is None:
        return float(np.vdot(missing, missing)), slopes
    weights = class_weights[y, np.newaxis]
    return float((weights * missing**2).sum()), weights * slopes


def _curvature(decisions: _Floats, y: npt.NDArray[np.int64]) -> _Floats:
    """Return `(n, n_outputs)`: the second derivatives."""
    return np.where(_signs(decisions, y) * decisions < 1, 2.0, 0.0)


def _signs(decisions: _Floats, y: npt.NDArray[np.int64]) -> _Floats:
    """Return 1 where an output stands for the class of a row, else -1; one output stands for class 1."""
    labels = np.arange(decisions.shape[1]) if decisions.shape[1] > 1 else np.ones(1, np.int64)
    return np.where(y[:, np.newaxis] == labels, 1.0, -1.0)


#: LinearSVC's objective; it penalizes the bias, too.
SQUARED_HINGE = Loss(_squared_hinge, _curvature, bias_penalty=1.0)
