"""The report's heads, dense and logreg, and what a head is trained on.

Both centre the features, scale them by one number, and give that back to their first layer, so that models take raw
features. Dividing each feature by its own standard deviation, as is usual, is worse here: it amplifies features that
are rarely active. Logistic regression on VGG16 features of cats and dogs had a cross-validated accuracy of 79.2 % with
one number against 78.4 % with 500 images, 82.4 against 81.9 % with 2000, 84.0 against 83.9 % with 8000, and a lower
loss each time.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.errors import TrainingError
from featx.heads.class_weights import weights_text
from featx.heads.logistic import Scaled, fit_logreg, folds_of
from featx.heads.streamed_logistic import fit_logreg_streamed, sample_rows
from featx.heads.training_loop import (
    Targets,
    Trained,
    Training,
    compile_model,
    fit,
    layer_seeds,
    output_layer,
    predict_proba,
    rmsprop,
    split,
)
from featx.store import Rows, ViewRows, all_views, below, take, take_views
from featx.system import import_keras, waiting

_Floats = npt.NDArray[np.float64]

#: How the dense head is trained: rows per step, rmsprop's learning rate, and the root mean square of what it sees. Of
#: batches of 32, 128 and 256, rates from 2.5e-4 to 2e-3 and root mean squares from 0.06 to 0.5, these had nearly the
#: lowest validation loss in the fewest epochs. With 8000 images of cats and dogs at 150×150 pixels it was 0.32, against
#: 0.41 with Keras's defaults of 32 rows and 1e-3 at a root mean square of 0.5; with 2000 at 64×64, 0.37 against 0.42.
DENSE_BATCH_SIZE, DENSE_LEARNING_RATE, DENSE_INPUT_RMS = 128, 2.5e-4, 0.25

#: Units of the dense head between the features and the last layer.
DENSE_UNITS = 256

#: Of few rows, a step takes fewer, down to 16: with less than so many steps an epoch, a head would not get far.
DENSE_STEPS_PER_EPOCH = 32

#: Of very many, a step takes more, up to 1024: by then the optimizer's own work is most of a step, and an epoch has a
#: thousand of them all the same.
DENSE_BATCH_SIZE_MANY_ROWS, DENSE_STEPS_PER_EPOCH_MANY_ROWS = 1024, 1024

_SLAB_ROWS = 256


@dataclass(frozen=True)
class TrainingSet:
    """The features of the training split, and what they are of: n images.

    Attributes:
        X: `(n, ...)` float16 or float32 features: an array, a memory map, or rows that are on disk.
        y: `(n,)` int64 labels, `0` to `n_classes - 1`; or `(n, n_classes)` bool, which labels each image has, if images
            can have several.
        digests: `(n, 32)` uint8, see `featx.dataset.ImageDataset.units`: images with the same one are never on both
            sides of a fold, or each other's neighbours when `knn` leaves images out.
        is_validation: `(n,)`, the rows that decide when `dense` stops. The other heads train on all rows.
        n_classes: number of classes, 2 or more.
        views: `(n, n_views, ...)` features of augmented views of the same images. In each epoch `dense` sees one row of
            each image: itself or a view. The other heads see all of them. They choose their settings by images of which
            they have seen no view.
        class_weights: `(n_classes,)`, how much an image of each class counts; None if all count the same.
    """

    X: Rows
    y: Targets
    digests: npt.NDArray[np.uint8]
    is_validation: npt.NDArray[np.bool_]
    n_classes: int
    views: ViewRows | None = None
    class_weights: npt.NDArray[np.float64] | None = None

    def subset(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Return the images where `mask`, `(n,)` bool, is true."""
        return replace(
            self,
            X=take(self.X, mask),
            y=self.y[mask],
            digests=self.digests[mask],
            is_validation=self.is_validation[mask],
            views=None if self.views is None else take_views(self.views, mask),
        )

    @property
    def details(self) -> dict[str, float | int | str]:
        """What a head notes of it: how many views of each image there are, and the class weights, if any."""
        noted: dict[str, float | int | str] = {} if self.views is None else {"views": self.views.shape[1]}
        if self.class_weights is not None:
            noted["class_weights"] = weights_text(self.class_weights)
        return noted


def _batch_size(n_rows: int) -> int:
    """Return how many rows a step takes.

    >>> [_batch_size(n) for n in (100, 1000, 8000, 100_000, 1_000_000, 20_000_000)]
    [16, 31, 128, 128, 976, 1024]
    """
    usual = min(DENSE_BATCH_SIZE, n_rows // DENSE_STEPS_PER_EPOCH)
    of_many = min(DENSE_BATCH_SIZE_MANY_ROWS, n_rows // DENSE_STEPS_PER_EPOCH_MANY_ROWS)
    return max(16, usual, of_many)


@dataclass(frozen=True)
class Task:
    """What a head is trained on, and how: n images, of which `X`, `y` and `digests` have one row or several each.

    Attributes:
        rows: `(n, k)` int64, the rows that show each image, the image itself first and then its views; it is row `i`
            for image `i`.
        is_validation: `(n,)`.
        class_weights: `(n_classes,)`, or None.
    """

    X: Rows
    y: Targets
    digests: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    is_validation: npt.NDArray[np.bool_]
    n_classes: int
    batch_size: int
    training: Training
    class_weights: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, images: TrainingSet, training: Training) -> Self:
        """Put images and their views below each other."""
        X, y, digests, views = images.X, images.y, images.digests, images.views
        numbers = np.arange(len(X))
        rows, batch_size = numbers[:, np.newaxis], training.batch_size or _batch_size(len(X))
        if views is not None:
            X, image_of = below(X, all_views(views)), np.concatenate([numbers, np.repeat(numbers, views.shape[1])])
            rows = np.hstack([rows, np.arange(len(numbers), len(X)).reshape(len(numbers), -1)])
            y, digests = y[image_of], digests[image_of]
        rest = images.is_validation, images.n_classes, batch_size, training, images.class_weights
        return cls(X, y, digests, rows, *rest)

    @property
    def is_multilabel(self) -> bool:
        """Whether images can have several labels."""
        return self.y.ndim == 2

    def fit(self, model: Any, optimizer: Any, *, keep_start: bool = False) -> Trained:
        """Train a Keras model on the images that are not for validation; see `featx.heads.training_loop.fit`."""
        train, validation = split(self.X, self.y, self.is_validation, self.rows, self.class_weights)
        options = {"n_classes": self.n_classes, "batch_size": self.batch_size, "optimizer": optimizer}
        return fit(model, train, validation, self.training, **options, keep_start=keep_start)


def train_dense(task: Task) -> Trained:
    """Train the report's top model: Flatten → Dense(256, relu) → Dropout(0.5) → Dense(1, sigmoid) or Dense(n, softmax).

    With several labels for an image, the last layer is Dense(n, sigmoid).

    Features are centred and brought to one root mean square while it trains, and that goes into the first layer
    afterwards: initial weights and rmsprop's steps are made for inputs around 0 and of about 1 (LeCun et al.,
    Efficient BackProp, 1998). On VGG16 features thirty times as large, accuracy is 3 points lower without the scale; on
    features that are large and much the same for all images, as a random network's are, little is learned without the
    centring: 30 % instead of 100 % of the validation images of handwritten digits.
    """
    keras = import_keras()
    layers, trainee, mean, scale = _dense_trainee(keras, task)
    flatten, hidden, dropout, output = layers
    trained = task.fit(trainee, rmsprop(keras, DENSE_LEARNING_RATE))
    kernel, bias = hidden.get_weights()
    hidden.set_weights([kernel * scale, bias - (scale * mean) @ kernel])
    features = trainee.inputs[0]
    model = keras.Model(features, output(dropout(hidden(flatten(features)))), name="dense")
    return replace(trained, model=model, details={"feature_scale": scale})


def dense_held_out(task: Task, folds: Iterable[npt.NDArray[np.bool_]]) -> Iterator[npt.NDArray[np.float64]]:
    """Yield probabilities `(k, n_classes)` of the images that each mask, `(n,)` bool, holds out of training `dense`.

    Each fold stops early by its own validation images: those that it does not hold out, or the images of the next fold
    if it holds out all of them, as of one group. The features are centred and scaled by all images, which says nothing
    about their labels. So one Keras model, put back to its start, serves all folds: to trace another would take longer
    than to train it on a few hundred images.
    """
    keras = import_keras()
    _, trainee, _, _ = _dense_trainee(keras, task)
    optimizer = rmsprop(keras, DENSE_LEARNING_RATE)
    compile_model(keras, trainee, optimizer, math.ceil(len(task.rows) / task.batch_size))
    variables = [*trainee.variables, *optimizer.variables]
    start = [keras.ops.convert_to_numpy(variable) for variable in variables]
    folds = list(folds)
    for held_out, following in zip(folds, [*folds[1:], *folds[:1]], strict=True):
        is_validation = task.is_validation[~held_out]
        if task.is_validation.any() and not is_validation.any():
            is_validation = following[~held_out]
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        replace(task, rows=task.rows[~held_out], is_validation=is_validation).fit(trainee, None)
        yield predict_proba(trainee, task.X, np.flatnonzero(held_out))


def _dense_trainee(keras: Any, task: Task) -> tuple[tuple[Any, Any, Any, Any], Any, _Floats, float]:
    """Return the layers of the dense head, the model that is trained, and what centres and scales the features in it.

    The layers have their first weights. The mean is `(n_features,)`.
    """
    mean, scale = centre_and_scale(task.X)
    scale *= DENSE_INPUT_RMS
    flatten, hidden, dropout, output = dense_layers(
        keras, task.n_classes, task.training.seed, is_multilabel=task.is_multilabel
    )
    features = keras.Input(task.X.shape[1:], name="features")
    scaled = keras.layers.Rescaling(scale, offset=(-scale * mean).astype(np.float32))(flatten(features))
    trainee = keras.Model(features, output(dropout(hidden(scaled))), name="dense")
    return (flatten, hidden, dropout, output), trainee, mean, scale


def dense_layers(keras: Any, n_classes: int, seed: int, *, is_multilabel: bool = False) -> tuple[Any, Any, Any, Any]:
    """Return the layers of the dense head, untrained: the last one ends in probabilities."""
    seeds = layer_seeds(seed)
    hidden = keras.layers.Dense(DENSE_UNITS, "relu", kernel_initializer=keras.initializers.GlorotUniform(next(seeds)))
    dropout = keras.layers.Dropout(0.5, seed=next(seeds))
    output = output_layer(keras, n_classes, next(seeds), is_multilabel=is_multilabel)
    return keras.layers.Flatten(), hidden, dropout, output


def train_logreg(task: Task) -> Trained:
    """Fit L2-regularized logistic regression to all rows, C from cross-validation, and make it Flatten → Dense.

    The exact solver does it, or the streaming one for rows that are on disk.
    """
    scaled = Scaled(task.X, *centre_and_scale(task.X))
    y, digests, n_images, n_classes, seed = task.y, task.digests, len(task.rows), task.n_classes, task.training.seed
    if isinstance(task.X, np.ndarray):
        with waiting("logreg", show=task.training.show) as note:
            folds = folds_of(y, digests, n_classes, seed)
            fitted = fit_logreg(scaled, y, folds, n_images, note, task.class_weights)
    else:
        weights = task.class_weights
        fitted = fit_logreg_streamed(
            scaled, y, digests, task.training, n_images=n_images, n_classes=n_classes, class_weights=weights
        )
    model = linear_model("logreg", task, scaled, fitted.coef, fitted.bias)
    details = {"feature_scale": scaled.scale, **fitted.details}
    return Trained("logreg", model, details=details, out_of_fold=fitted.out_of_fold)


def held_out_probabilities(
    X: npt.NDArray[Any], y: Targets, units: npt.NDArray[np.uint8], n_classes: int, *, seed: int = 0, show: bool = False
) -> npt.NDArray[np.float32]:
    """Return `(n, n_classes)`: the probabilities of each image, by logistic regression that was trained without it.

    Args:
        X: `(n, ...)` float16 or float32 features.
        y: `(n,)` labels, or `(n, n_classes)` bool.
        units: `(n, k)`, the same for images that are held out together. With one label for each image, every class has
            two different ones or more.
        n_classes: number of classes.
        seed: of the folds.
        show: whether to show progress on stderr.
    """
    scaled = Scaled(X, *centre_and_scale(X))
    with waiting("labels", show=show) as note:
        fitted = fit_logreg(scaled, y, folds_of(y, units, n_classes, seed), len(X), note)
    assert fitted.out_of_fold is not None, "a class has only one image"
    return fitted.out_of_fold


def linear_model(name: str, task: Task, scaled: Scaled, coef: _Floats, bias: _Floats) -> Any:
    """Return the Keras model Flatten → Dense of a head that is linear in features that were centred and scaled.

    Args:
        name: of the head.
        task: what it was trained on.
        scaled: how the features were centred and scaled; the model takes raw ones.
        coef: `(k, n_features)`, k 1 or the number of classes; of two classes, the difference counts.
        bias: `(k,)`.
    """
    if task.n_classes == 2 and len(bias) == 2 and not task.is_multilabel:
        coef, bias = np.diff(coef, axis=0), np.diff(bias)
    keras = import_keras()
    kernel = coef.T * scaled.scale
    output = output_layer(keras, task.n_classes, task.training.seed, is_multilabel=task.is_multilabel)
    features = keras.Input(task.X.shape[1:], name="features")
    model = keras.Model(features, output(keras.layers.Flatten()(features)), name=name)
    output.set_weights([kernel, bias - scaled.mean @ kernel])
    return model


def train_softmax(task: Task) -> Trained:
    """Train what the report put on its frozen ResNet50: Flatten → Dense(n, softmax), adam as Keras has it."""
    keras = import_keras()
    features = keras.Input(task.X.shape[1:], name="features")
    seed = next(layer_seeds(task.training.seed))
    output = output_layer(keras, task.n_classes, seed, always_softmax=True, is_multilabel=task.is_multilabel)
    model = keras.Model(features, output(keras.layers.Flatten()(features)), name="softmax")
    return task.fit(model, keras.optimizers.Adam())


def centre_and_scale(X: Rows) -> tuple[_Floats, float]:
    """Return the mean of every feature, `(n_features,)`, and what brings all to a root mean square of 1 around it.

    Of rows on disk, a sample tells both well enough: they are where training starts from, and no part of a model.
    """
    sample = X if isinstance(X, np.ndarray) else X[sample_rows(X)]
    total = np.zeros(sample[0].size)
    squares = 0.0
    for start in range(0, len(sample), _SLAB_ROWS):
        slab = sample[start : start + _SLAB_ROWS].reshape(-1, total.size).astype(np.float64)
        total += slab.sum(axis=0)
        squares += float(np.vdot(slab, slab))
    if not np.isfinite(squares):
        raise TrainingError("A feature is infinite or not a number; extract the features again.")
    mean = total / len(sample)
    variance = squares / sample.size - float(mean @ mean) / mean.size
    return mean, float(1 / np.sqrt(variance)) if variance > 0 else 1.0
