"""Logistic regression on more features than fit in memory: the exact solver's objective, in a few passes over the disk.

A sample that does fit goes to the exact solver. It gives the regularization, a place to start from, and the directions
in which the objective is steepest. In coordinates that are stretched along these, L-BFGS (Liu and Nocedal, On the
limited memory BFGS method for large scale optimization, 1989) needs about ten passes instead of eighty; a pass reads
all rows once, as they lie on disk. On features of 8000 cats and dogs, VGG16's and ResNet50's, it ends where the exact
solver does: the same C, and the same or one more of 2000 test images right.
"""
# ruff: noqa: N803, N806 - X, Z and C are what the books call them

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.logistic import Fitted, Scaled, fit_logreg, folds_of
from featx.heads.slabs import in_order
from featx.heads.training_loop import Targets, Training
from featx.store import FeatureArray, row_bytes
from featx.system import in_threads, prefetched, progress_bar, waiting

_Floats = npt.NDArray[np.float64]

#: Rows of the sample, at most; they may take this share of the bytes that may be held at a time.
SAMPLE_ROWS, SAMPLE_SHARE = 3000, 0.5

#: Directions that are stretched, at most, and the rows of the sample that it takes to know one.
N_DIRECTIONS, ROWS_PER_DIRECTION = 256, 10

#: Passes at most, and the gain in the mean loss that is not worth one more.
MAX_PASSES, TOLERANCE = 100, 1e-6

#: Gradients that L-BFGS remembers.
N_REMEMBERED = 20

#: Bytes of float32 rows that are multiplied at a time: they stay in the processor's cache.
_TILE_BYTES = 1 << 20


def sample_rows(X: FeatureArray) -> npt.NDArray[np.int64]:
    """Return which rows stand for all, `(m,)` int64, ascending; the same ones every time."""
    n = min(len(X), SAMPLE_ROWS, max(2, int(SAMPLE_SHARE * X.buffer_bytes) // row_bytes(X)))
    return np.sort(np.random.default_rng(0).permutation(len(X))[:n])


def fit_logreg_streamed(
    features: Scaled,
    y: Targets,
    digests: npt.NDArray[np.uint8],
    training: Training,
    *,
    n_images: int,
    n_classes: int,
    class_weights: _Floats | None = None,
) -> Fitted:
    """Fit L2-regularized logistic regression to features on disk, all rows; C from cross-validation on a sample.

    Args:
        features: of `n_images` images first, and then of views of them.
        y: `(n,)` labels, or `(n, n_classes)` bool.
        digests: `(n, 32)` uint8, SHA-256 of the images.
        training: has the seed of the folds, and whether to show progress.
        n_images: how many images there are; the sample is of these.
        n_classes: number of classes.
        class_weights: `(n_classes,)`, how much a row of each class counts; None if all count the same.

    Raises:
        TrainingError: a class has too few images in the sample.
    """
    images = sample_rows(features.X.take(slice(0, n_images)))
    sample = replace(features, X=features.X[images])
    folds = folds_of(y[images], digests[images], n_classes, training.seed)
    with waiting("logreg", show=training.show) as note:
        of_sample = fit_logreg(sample, y[images], folds, len(images), note, class_weights)
    C = float(of_sample.details["C"])
    coef, bias, converged, n_passes = minimize_over_rows(
        "logreg", Objective(features, y, C, LOGISTIC, class_weights), sample, y[images], of_sample, show=training.show
    )
    details: dict[str, float | int | str] = {
        **of_sample.details,
        "converged": converged,
        "solver": "streaming",
        "cv_images": len(images),
        "passes": n_passes,
    }
    return Fitted(coef, bias, None, details)


@dataclass(frozen=True)
class Loss:
    """The loss of a linear model, from its outputs `(n, k)`; k is 1, for class 1, or the number of classes.

    Attributes:
        sum: returns the sum of the losses of rows with labels `(n,)`, and its derivatives by the outputs, `(n, k)`;
            weighted by class weights, `(n_classes,)`, unless they are None.
        curvature: returns the second derivatives, `(n, k)`.
        bias_penalty: how much the bias is penalized: 0 or, as a coefficient is, 1.
    """

    sum: Callable[[_Floats, npt.NDArray[np.int64], _Floats | None], tuple[float, _Floats]]
    curvature: Callable[[_Floats, npt.NDArray[np.int64]], _Floats]
    bias_penalty: float = 0.0


def minimize_over_rows(
    name: str,
    objective: "Objective",
    sample: Scaled,
    y_sample: npt.NDArray[np.int64],
    of_sample: Fitted,
    *,
    show: bool,
) -> tuple[_Floats, _Floats, str, int]:
    """Return coefficients and bias at the minimum over all rows, whether it was reached (yes or no), and the passes.

    Args:
        name: of the head.
        objective: what is minimized.
        sample: some of the rows, in memory.
        y_sample: `(m,)` their labels.
        of_sample: what was fitted to them; the start.
        show: show progress on stderr.
    """
    Z = (sample.X.reshape(len(sample.X), -1) - sample.mean) * sample.scale
    return _minimize(objective, _stretch(Z, y_sample, of_sample, objective), of_sample, name, show=show)


@dataclass(frozen=True)
class Objective:
    """The mean over all rows of the loss, and of C⁻¹ ½ ‖coef‖²: scikit-learn's objective, divided by C n.

    With `class_weights`, `(n_classes,)`, the loss of a row counts as much as its class.
    """

    features: Scaled
    y: Targets
    C: float
    loss: Loss
    class_weights: _Floats | None = None

    def at(self, coef: _Floats, bias: _Floats) -> tuple[float, _Floats, _Floats]:
        """Return the value at `coef`, `(k, n_features)`, and `bias`, `(k,)`, and the derivatives by both: one pass."""
        mean, scale = self.features.mean, self.features.scale
        weights = (coef * scale).astype(np.float32)
        offset = bias - weights.astype(np.float64) @ mean
        total = _Sums(0.0, np.zeros(coef.shape), np.zeros(len(bias)))
        with closing(prefetched(in_order(self.features.X))) as parts:
            for sums in in_threads(partial(self._of_part, weights, offset), parts):
                total = total + sums
        n = len(self.features.X)
        by_coef = scale * (total.by_weights - total.by_bias[:, np.newaxis] * mean) + coef / self.C
        penalty = self.loss.bias_penalty
        value = total.loss + (float(np.vdot(coef, coef)) + penalty * float(bias @ bias)) / (2 * self.C)
        return value / n, by_coef / n, (total.by_bias + penalty * bias / self.C) / n

    def _of_part(
        self, weights: npt.NDArray[np.float32], offset: _Floats, part: tuple[npt.NDArray[np.int64], npt.NDArray[Any]]
    ) -> "_Sums":
        """Return the sums over some rows: which ones, and their features."""
        labels, rows = self.y[part[0]], part[1].reshape(len(part[0]), -1)
        total = _Sums(0.0, np.zeros(weights.shape), np.zeros(len(offset)))
        rows_at_once = max(1, _TILE_BYTES // (4 * rows.shape[1]))
        for start in range(0, len(rows), rows_at_once):
            tile = rows[start : start + rows_at_once].astype(np.float32)
            some = labels[start : start + rows_at_once]
            loss, residuals = self.loss.sum(tile @ weights.T + offset, some, self.class_weights)
            total = total + _Sums(loss, residuals.T.astype(np.float32) @ tile, residuals.sum(axis=0))
        return total


@dataclass(frozen=True)
class _Sums:
    """Sums over rows: of the loss, and of its derivatives by the weights, `(k, n_features)`, and the bias, `(k,)`."""

    loss: float
    by_weights: npt.NDArray[Any]
    by_bias: npt.NDArray[Any]

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.loss + other.loss, self.by_weights + other.by_weights, self.by_bias + other.by_bias)


def _loss(logits: _Floats, y: Targets, class_weights: _Floats | None) -> tuple[float, _Floats]:
    """Return the sum of the crossentropies, and its derivatives by the logits, `(n, 1)` or `(n, n_classes)`."""
    from scipy.special import expit, log_softmax

    if y.ndim == 2:
        return float(np.logaddexp(0, np.where(y, -logits, logits)).sum()), expit(logits) - y
    if logits.shape[1] == 1:
        signed = np.where(y == 1, -logits[:, 0], logits[:, 0])
        losses, residuals = np.logaddexp(0, signed), expit(logits) - y[:, np.newaxis]
    else:
        logs = log_softmax(logits, axis=1)
        losses, residuals = -logs[np.arange(len(y)), y], np.exp(logs)
        residuals[np.arange(len(y)), y] -= 1
    if class_weights is not None:
        losses, residuals = losses * class_weights[y], residuals * class_weights[y, np.newaxis]
    return float(losses.sum()), residuals


@dataclass(frozen=True)
class _Stretch:
    """Coordinates in which the objective is about as steep in all directions: H^½ times the old ones.

    H is taken as `base² I` but for some orthonormal `directions`, `(r, n_features)`, in which it is `along²`, `(r,)`.
    `of_bias` is the same for the bias.
    """

    directions: _Floats
    along: _Floats
    base: float
    of_bias: float

    def there(self, coef: _Floats, bias: _Floats) -> _Floats:
        """Return `coef`, `(k, n_features)`, and `bias`, `(k,)`, in the new coordinates, as one vector."""
        return np.concatenate([self._times(coef, self.along, self.base).ravel(), bias * self.of_bias])

    def back(self, vector: _Floats, n_outputs: int) -> tuple[_Floats, _Floats]:
        """Return the coefficients and the bias that `vector` stands for."""
        coef = vector[:-n_outputs].reshape(n_outputs, -1)
        return self._times(coef, 1 / self.along, 1 / self.base), vector[-n_outputs:] / self.of_bias

    def gradient(self, by_coef: _Floats, by_bias: _Floats) -> _Floats:
        """Return the derivatives by the new coordinates, given those by the old ones."""
        return np.concatenate([self._times(by_coef, 1 / self.along, 1 / self.base).ravel(), by_bias / self.of_bias])

    def _times(self, rows: _Floats, along: _Floats, base: float) -> _Floats:
        return rows * base + ((rows @ self.directions.T) * (along - base)) @ self.directions


def _logistic_curvature(logits: _Floats, y: Targets) -> _Floats:
    from scipy.special import expit, softmax

    p: _Floats = expit(logits) if logits.shape[1] == 1 or y.ndim == 2 else softmax(logits, axis=1)
    return p * (1 - p)


LOGISTIC = Loss(_loss, _logistic_curvature)


def _stretch(Z: _Floats, y: Targets, fitted: Fitted, objective: Objective) -> _Stretch:
    """Return the coordinates that the rows `Z`, `(m, n_features)`, centred and scaled, and their solution suggest.

    The second derivatives are I / C + Σ w z zᵀ with w those of the loss, with class weights, of all rows n / m times
    what they are of the sample. Its largest eigenvalues are known well, with their directions; of the others, only the
    mean is.
    """
    from scipy.linalg import eigh

    w = objective.loss.curvature(Z @ fitted.coef.T + fitted.bias, y).mean(axis=1)
    w = w * (1 if objective.class_weights is None else objective.class_weights[y])
    A = Z * np.sqrt(w)[:, np.newaxis]
    gram = A @ A.T
    n_directions = max(1, min(N_DIRECTIONS, len(Z) // ROWS_PER_DIRECTION, Z.shape[1] - 1))
    eigenvalues, vectors = eigh(gram, subset_by_index=[len(Z) - n_directions, len(Z) - 1])
    eigenvalues = np.maximum(eigenvalues, np.finfo(np.float64).tiny)
    rest = max(0.0, float(np.trace(gram) - eigenvalues.sum())) / (Z.shape[1] - n_directions)
    to_all = objective.C * len(objective.y) / len(Z)
    return _Stretch(
        directions=(vectors / np.sqrt(eigenvalues)).T @ A,
        along=np.sqrt(1 + to_all * eigenvalues),
        base=float(np.sqrt(1 + to_all * rest)),
        of_bias=float(np.sqrt(1 + to_all * w.sum())),
    )


def _minimize(
    objective: Objective, stretch: _Stretch, start: Fitted, name: str, *, show: bool
) -> tuple[_Floats, _Floats, str, int]:
    """Return coefficients and bias at the minimum, `"yes"` or `"no"`: whether it was reached, and the passes."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

    n_outputs = len(start.bias)
    # Parts are shared out among threads already.
    with threadpool_limits(1), progress_bar(MAX_PASSES, name, "passes", show=show) as bar:

        def value_and_gradient(vector: _Floats) -> tuple[float, _Floats]:
            value, by_coef, by_bias = objective.at(*stretch.back(vector, n_outputs))
            bar.set_postfix_str(f"loss {value:.5f}", refresh=False)
            bar.update()
            return value, stretch.gradient(by_coef, by_bias)

        options: dict[str, Any] = {"maxcor": N_REMEMBERED, "maxfun": MAX_PASSES, "ftol": TOLERANCE, "gtol": 0.0}
        start_vector = stretch.there(start.coef, start.bias)
        result = minimize(value_and_gradient, start_vector, jac=True, method="L-BFGS-B", options=options)
    coef, bias = stretch.back(result.x, n_outputs)
    return coef, bias, "yes" if result.success else "no", int(result.nfev)
