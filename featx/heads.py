"""The heads: the models of stage two, trained on features in seconds.

Both end up as Keras models of the same kind, features in and probabilities out, so that there is one file format and
one way to predict. A new head is one function and one entry in `_TRAINERS`.

Both centre the features, scale them by one number, and give that back to their first layer, so that models take raw
features. Dividing each feature by its own standard deviation, as is usual, is worse here: it blows up what hardly
ever fires. Logistic regression on VGG16 features of cats and dogs had a cross-validated accuracy of 79.2 % with one
number against 78.4 % with 500 images, 82.4 against 81.9 % with 2000, 84.0 against 83.9 % with 8000, and a lower loss
each time.
"""
# ruff: noqa: N803, N806 - Z is what the books call it

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.comparison import Epoch
from featx.errors import TrainingError, printable
from featx.fitting import SMALLEST_PROBABILITY, fit, layer_seeds, split
from featx.keras_import import import_keras

_Floats = npt.NDArray[np.float64]

HEADS = ("dense", "logreg")

#: Values of C times the number of features. In these units the best is near 1 to 10, whatever the features.
C_GRID = tuple(float(10**exponent) for exponent in np.arange(-2, 4.1, 0.5))

#: Folds; from `MANY_ROWS` on, three choose as well as five.
N_FOLDS, N_FOLDS_MANY_ROWS, MANY_ROWS = 5, 3, 4000

#: The most rows whose Gram matrix is worth decomposing.
MAX_GRAM_ROWS = 3000

#: Looser in cross-validation, where the fourth digit of a loss decides nothing.
CV_TOLERANCE, TOLERANCE = 3e-3, 1e-4

MAX_ITERATIONS = 1000

#: How the dense head is trained: rows per step, rmsprop's learning rate, and the root mean square of what it sees. Of
#: batches of 32, 128 and 256, rates from 2.5e-4 to 2e-3 and root mean squares from 0.06 to 0.5, these had nearly the
#: lowest validation loss in the fewest epochs. With 8000 images of cats and dogs at 150×150 pixels it was 0.32, against
#: 0.41 with Keras's defaults of 32 rows and 1e-3 at a root mean square of 0.5; with 2000 at 64×64, 0.37 against 0.42.
DENSE_BATCH_SIZE, DENSE_LEARNING_RATE, DENSE_INPUT_RMS = 128, 2.5e-4, 0.25

#: Of few rows, a step takes fewer, down to 16: with less than so many steps an epoch, a head would not get far.
DENSE_STEPS_PER_EPOCH = 32

_SLAB_ROWS, _SLAB_FEATURES = 256, 4096


@dataclass(frozen=True)
class TrainedHead:
    """A head that has been trained.

    Attributes:
        name: one of `HEADS`, or `"softmax"`.
        model: a Keras model from raw features `(n, ...)` float16 or float32 to a sigmoid `(n, 1)`, the probability of
            class 1, for two classes, or a softmax `(n, n_classes)` for more.
        history: the epochs; empty for `logreg`.
        kept_epoch: the epoch, from 1, whose weights the model has; `None` for `logreg`.
        fit_s: seconds of training, without the start of Keras.
        details: `feature_scale`, which is already in the kernel; for `logreg` also `C` as scikit-learn counts it on
            centred features times that scale, `cv_accuracy`, `cv_folds`, and `converged`, yes or no.
        out_of_fold: `(n, n_classes)` float32, probabilities of each row from a head that has not seen it, as `logreg`'s
            cross-validation has them; None for `dense`.
    """

    name: str
    model: Any
    history: tuple[Epoch, ...]
    kept_epoch: int | None
    fit_s: float
    details: dict[str, float | int | str]
    out_of_fold: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Task:
    """What a head is trained on, and how: n images, of which `X`, `y` and `digests` have one row or several each.

    Attributes:
        rows: `(n, k)` int64, the rows that show each image, the image itself first; it is row `i` for image `i`.
        is_validation: `(n,)`.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    is_validation: npt.NDArray[np.bool_]
    n_classes: int
    seed: int
    fit_options: dict[str, Any]


def train_head(
    name: str,
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    digests: npt.NDArray[np.uint8],
    is_validation: npt.NDArray[np.bool_],
    *,
    views: npt.NDArray[Any] | None = None,
    n_classes: int,
    seed: int,
    epochs: int = 50,
    batch_size: int | None = None,
    patience: int = 5,
    show: bool = False,
) -> TrainedHead:
    """Return the head `name`, trained on the features of the training split.

    Args:
        name: one of `HEADS`, or `"softmax"`, the head of the report's ResNet50.
        X: `(n, ...)` float16 or float32 features, an array or a memory map.
        y: `(n,)` int64 labels, `0` to `n_classes - 1`.
        digests: `(n, 32)` uint8, SHA-256 of the images: `logreg` never has one image on both sides of a fold.
        is_validation: `(n,)`, the rows that decide when `dense` stops. `logreg` trains on all rows.
        views: `(n, n_views, ...)` features of augmented views of the same images. In each epoch `dense` sees one of
            each image, itself or a view; `logreg` sees all of them, and chooses by what it says of images themselves
            whose views it has not seen either.
        n_classes: number of classes, 2 or more.
        seed: of everything random.
        epochs: the most passes over the rows; `dense` only, like the rest.
        batch_size: rows per step; `DENSE_BATCH_SIZE`, or fewer where there are few rows, if None.
        patience: epochs without a lower validation loss before training stops.
        show: show progress on stderr.

    Raises:
        TrainingError: there is no such head, or it cannot be trained on this.
    """
    if name not in _TRAINERS:
        raise TrainingError(f"A head is one of {', '.join(HEADS)}. Received: {printable(name)}")
    import_keras()  # its start is no part of training
    start_s = time.perf_counter()
    batch_size = batch_size or max(16, min(DENSE_BATCH_SIZE, len(X) // DENSE_STEPS_PER_EPOCH))
    options = {"epochs": epochs, "batch_size": batch_size, "patience": patience, "show": show}
    data = _with_views(X, y, digests, views)
    head = _TRAINERS[name](_Task(*data, is_validation, n_classes, seed, options))
    n_views = {} if views is None else {"views": views.shape[1]}
    return replace(head, fit_s=time.perf_counter() - start_s, details={**head.details, **n_views})


def _with_views(
    X: npt.NDArray[Any], y: npt.NDArray[np.int64], digests: npt.NDArray[np.uint8], views: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return features, labels and digests of images with those of their views below them, and `_Task.rows`."""
    images = np.arange(len(X))
    if views is None:
        return X, y, digests, images[:, np.newaxis]
    n_views = views.shape[1]
    stacked = np.concatenate([X, views.reshape(-1, *X.shape[1:])])
    image_of = np.concatenate([images, np.repeat(images, n_views)])
    rows = np.arange(len(X), len(stacked)).reshape(-1, n_views)
    return stacked, y[image_of], digests[image_of], np.hstack([images[:, np.newaxis], rows])


def _train_dense(task: _Task) -> TrainedHead:
    """Train the report's top model: Flatten → Dense(256, relu) → Dropout(0.5) → Dense(1, sigmoid) or Dense(n, softmax).

    Features are centred and brought to one root mean square while it trains, and that goes into the first layer
    afterwards: initial weights and rmsprop's steps are made for inputs around 0 and of about 1 (LeCun et al.,
    Efficient BackProp, 1998). On VGG16 features thirty times as large, accuracy is 3 points lower without the scale; on
    features that are large and much the same for all images, as a random network's are, little is learned without the
    centring: 30 % instead of 100 % of the validation images of handwritten digits.
    """
    keras = import_keras()
    train, validation = split(task.X, task.y, task.is_validation, task.rows)
    mean, scale = _centre_and_scale(task.X)
    scale *= DENSE_INPUT_RMS
    seeds = layer_seeds(task.seed)
    hidden = keras.layers.Dense(256, "relu", kernel_initializer=keras.initializers.GlorotUniform(next(seeds)))
    dropout = keras.layers.Dropout(0.5, seed=next(seeds))
    output = _output_layer(keras, task.n_classes, next(seeds))
    features = keras.Input(task.X.shape[1:], name="features")
    flat = keras.layers.Flatten()(features)
    scaled = keras.layers.Rescaling(scale, offset=(-scale * mean).astype(np.float32))(flat)
    trainee = keras.Model(features, output(dropout(hidden(scaled))), name="dense")
    result = fit(
        trainee,
        train,
        validation,
        n_classes=task.n_classes,
        seed=task.seed,
        optimizer=keras.optimizers.RMSprop(DENSE_LEARNING_RATE),
        **task.fit_options,
    )
    kernel, bias = hidden.get_weights()
    hidden.set_weights([kernel * scale, bias - (scale * mean) @ kernel])
    model = keras.Model(features, output(dropout(hidden(flat))), name="dense")
    return TrainedHead("dense", model, result.history, result.kept_epoch, 0.0, {"feature_scale": scale})


def _train_logreg(task: _Task) -> TrainedHead:
    """Fit L2-regularized logistic regression to all rows, C from cross-validation, and make it Flatten → Dense."""
    keras = import_keras()
    folds = _folds(task.y, task.digests, task.n_classes, task.seed)
    mean, scale = _centre_and_scale(task.X)
    if len(task.X) <= min(MAX_GRAM_ROWS, mean.size // 2):
        Z, back = _rows_in_their_span(task.X, mean, scale)
        fitted = _fit_logreg(Z, task.y, folds, mean.size, len(task.rows))
        coef = _times_scaled_rows(fitted.coef @ back, task.X, mean, scale)
    else:
        fitted = _fit_logreg(_scaled(task.X, mean, scale), task.y, folds, mean.size, len(task.rows))
        coef = fitted.coef
    kernel = coef.T * scale
    output = _output_layer(keras, task.n_classes, task.seed)
    features = keras.Input(task.X.shape[1:], name="features")
    model = keras.Model(features, output(keras.layers.Flatten()(features)), name="logreg")
    output.set_weights([kernel, fitted.bias - mean @ kernel])
    return TrainedHead("logreg", model, (), None, 0.0, {"feature_scale": scale, **fitted.details}, fitted.out_of_fold)


def _train_softmax(task: _Task) -> TrainedHead:
    """Train what the report put on its frozen ResNet50: Flatten → Dense(n, softmax), adam as Keras has it."""
    keras = import_keras()
    train, validation = split(task.X, task.y, task.is_validation, task.rows)
    glorot = keras.initializers.GlorotUniform(next(layer_seeds(task.seed)))
    features = keras.Input(task.X.shape[1:], name="features")
    output = keras.layers.Dense(task.n_classes, "softmax", kernel_initializer=glorot, name="probabilities")
    model = keras.Model(features, output(keras.layers.Flatten()(features)), name="softmax")
    result = fit(
        model,
        train,
        validation,
        n_classes=task.n_classes,
        seed=task.seed,
        optimizer=keras.optimizers.Adam(),
        **task.fit_options,
    )
    return TrainedHead("softmax", model, result.history, result.kept_epoch, 0.0, {})


_TRAINERS: dict[str, Callable[[_Task], TrainedHead]] = {
    "dense": _train_dense,
    "logreg": _train_logreg,
    "softmax": _train_softmax,
}


def _output_layer(keras: Any, n_classes: int, seed: int) -> Any:
    """Return a layer that ends in probabilities: one sigmoid for two classes, a softmax for more."""
    return keras.layers.Dense(
        1 if n_classes == 2 else n_classes,
        activation="sigmoid" if n_classes == 2 else "softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        name="probabilities",
    )


def _centre_and_scale(X: npt.NDArray[Any]) -> tuple[_Floats, float]:
    """Return the mean of every feature, `(n_features,)`, and what brings all to a root mean square of 1 around it."""
    total = np.zeros(X[0].size)
    squares = 0.0
    for start in range(0, len(X), _SLAB_ROWS):
        slab = X[start : start + _SLAB_ROWS].reshape(-1, total.size).astype(np.float64)
        total += slab.sum(axis=0)
        squares += float(np.vdot(slab, slab))
    if not np.isfinite(squares):
        raise TrainingError("A feature is infinite or not a number; extract the features again.")
    mean = total / len(X)
    variance = squares / X.size - float(mean @ mean) / mean.size
    return mean, float(1 / np.sqrt(variance)) if variance > 0 else 1.0


def _folds(
    y: npt.NDArray[np.int64], digests: npt.NDArray[np.uint8], n_classes: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the fold of every row: equal images together, every class in every fold, whatever the order of rows."""
    _, first, image = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    label = y[first]
    counts = np.bincount(label, minlength=n_classes)
    if counts.min() < 2:
        raise TrainingError(
            "Logistic regression needs at least 2 different images of every class to train on; add images. "
            f"Received: {counts.min()} of class number {counts.argmin()}"
        )
    n_folds = min(N_FOLDS if len(y) < MANY_ROWS else N_FOLDS_MANY_ROWS, int(counts.min()))
    rng = np.random.default_rng(seed)
    by_class = np.concatenate([rng.permutation(np.flatnonzero(label == number)) for number in range(n_classes)])
    fold = np.empty(len(first), np.int64)
    fold[by_class] = np.arange(len(first)) % n_folds
    return fold[image.reshape(-1)]


def _scaled(X: npt.NDArray[Any], mean: _Floats, scale: float) -> npt.NDArray[np.float32]:
    """Return the centred and scaled rows as `(n, n_features)` float32."""
    Z = np.empty((len(X), mean.size), np.float32)
    for start in range(0, len(X), _SLAB_ROWS):
        slab = X[start : start + _SLAB_ROWS].reshape(-1, mean.size)
        Z[start : start + len(slab)] = (slab - mean) * scale
    return Z


def _scaled_columns(X: npt.NDArray[Any], mean: _Floats, scale: float, start: int) -> _Floats:
    """Return `(n, m)`, the centred and scaled features from `start` on, as many as make a slab."""
    stop = start + _SLAB_FEATURES
    columns: _Floats = (X.reshape(len(X), -1)[:, start:stop] - mean[start:stop]) * scale
    return columns


def _times_scaled_rows(weights: _Floats, X: npt.NDArray[Any], mean: _Floats, scale: float) -> _Floats:
    """Return `weights (k, n)` times the centred and scaled rows, `(k, n_features)`."""
    return np.hstack([weights @ _scaled_columns(X, mean, scale, i) for i in range(0, mean.size, _SLAB_FEATURES)])


def _rows_in_their_span(X: npt.NDArray[Any], mean: _Floats, scale: float) -> tuple[npt.NDArray[np.float32], _Floats]:
    """Return the centred and scaled rows in an orthonormal basis of their span, `(n, r)`, and the way back, `(r, n)`.

    With fewer rows than features this loses nothing: the coefficients that an L2 penalty leaves lie in the span of the
    rows (the representer theorem), and lengths and angles are the same in both bases.
    """
    from scipy.linalg import eigh

    gram = np.zeros((len(X), len(X)))
    for start in range(0, mean.size, _SLAB_FEATURES):
        columns = _scaled_columns(X, mean, scale, start)
        gram += columns @ columns.T
    eigenvalues, vectors = eigh(gram, driver="evd", overwrite_a=True)
    spanned = eigenvalues >= 1e-10 * eigenvalues[-1]
    lengths = np.sqrt(np.maximum(eigenvalues[spanned], np.finfo(np.float64).tiny))
    return (vectors[:, spanned] * lengths).astype(np.float32), (vectors[:, spanned] / lengths).T


@dataclass(frozen=True)
class _Fitted:
    """Logistic regression: `coef (k, r)`, `bias (k,)`, and the probabilities of held-out images."""

    coef: _Floats
    bias: _Floats
    out_of_fold: npt.NDArray[np.float32]
    details: dict[str, float | int | str]


def _fit_logreg(
    Z: npt.NDArray[np.float32], y: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], n_features: int, n_images: int
) -> "_Fitted":
    """Choose C and fit all rows `(n, r)` with it; the first `n_images` are images, the others views of them."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

    # One thread: these products wait for memory, and threads that wait for each other beside TensorFlow's took 30 times
    # as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the details, not on the user's screen
        C, out_of_fold = _choose_c(Z, y, folds, n_features, n_images)
        final = LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS).fit(Z, y)
    details: dict[str, float | int | str] = {
        "C": C,
        "cv_accuracy": float((out_of_fold.argmax(axis=1) == y[:n_images]).mean()),
        "cv_folds": int(folds.max()) + 1,
        "converged": "yes" if final.n_iter_.max() < MAX_ITERATIONS else "no",
    }
    return _Fitted(final.coef_.astype(np.float64), final.intercept_.astype(np.float64), out_of_fold, details)


def _choose_c(
    Z: npt.NDArray[np.float32], y: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], n_features: int, n_images: int
) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the C with the lowest cross-validated log loss, and the probabilities of held-out images.

    These are `(n_images, n_classes)`. Views are trained on, but only images are held out: they are what the model is
    for. Images and their views are in one fold.

    The loss, because it ranks values of C with less noise than the accuracy and keeps probabilities honest. Goes up the
    grid, each fit from where the last one ended, and stops where the loss no longer falls: beyond, fits take longest.
    """
    from sklearn.linear_model import LogisticRegression

    models = [
        LogisticRegression(tol=CV_TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True) for _ in range(folds.max() + 1)
    ]
    of_images, y_images = folds[:n_images], y[:n_images]
    probabilities = np.empty((n_images, int(y.max()) + 1), np.float32)
    best = (np.inf, 0.0, probabilities)
    for C in (value / n_features for value in C_GRID):
        for fold, model in enumerate(models):
            seen, held_out = folds != fold, np.flatnonzero(of_images == fold)
            probabilities[held_out] = model.set_params(C=C).fit(Z[seen], y[seen]).predict_proba(Z[held_out])
        of_truth = probabilities[np.arange(n_images), y_images]
        loss = -float(np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).sum(dtype=np.float64))
        if loss >= best[0]:
            break
        best = (loss, C, probabilities.copy())
    return best[1], best[2]
