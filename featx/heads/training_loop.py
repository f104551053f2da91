"""The one training loop: rows of an array in, the weights of the best epoch out.

Both the dense head (rows are features) and the baselines (rows are pixels) go through `fit` and `predict_proba`, so
early stopping, shuffling and probabilities mean the same for all of them. Rows stay in their array, memory map or
store. Some at a time are read, and cast inside the graph.
"""

import importlib
import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError, TrainingError
from featx.heads.class_weights import ClassWeights, as_class_weights
from featx.store import Rows, row_bytes
from featx.system import (
    HALF_OF_FREE,
    MemoryLimit,
    as_memory_limit,
    import_keras,
    prefetched,
    progress_bar,
    shown,
    whole_number,
)

#: Some rows at a time: which ones, `(k,)`, and the rows themselves, `(k, …)`.
_Parts = Generator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]], None, None]

#: Keras and NumPy take seeds of 32 bits; repeats count on from the first.
MAX_SEED = 2**32 - 2**16

#: More passes than any training has use for, and more rows in one step than any data set has.
MAX_EPOCHS, _MOST = 1_000_000, 2**31 - 1

#: Batches per call into TensorFlow: a head's step is so short that calling it from Python costs as much as running it.
#: An epoch of few batches has them one by one: to trace a loop over them takes longer than to train.
STEPS_PER_EXECUTION = 16
FEW_BATCHES = 4

#: Bytes of shuffled rows that Keras is given at a time: it asks Python for each of them, not for each batch.
FEED_BYTES = 32 << 20

#: Bytes read at once where batches do not matter, in prediction: enough to keep the processor busy.
SLAB_BYTES = 4 << 20

#: Probabilities below this are taken for this in the loss, as Keras does.
SMALLEST_PROBABILITY = 1e-7

#: If images can have several labels, those whose probability is above this are predicted.
THRESHOLD = 0.5

#: The classes of images, `(n,)` int64; or which labels each of them has, `(n, n_classes)` bool.
Targets = npt.NDArray[Any]


@dataclass(frozen=True)
class Training:
    """How models are trained; the same for heads and baselines.

    Attributes:
        seed: of the initial weights, the order of images, dropout, and the choice of the validation part.
        epochs: the maximum number of passes over the training images.
        patience: epochs without a better validation loss after which training stops.
        batch_size: images in one step of the dense head's optimizer, chosen by their number if None. A baseline has its
            own.
        show: show progress on stderr.
        memory: how much memory training may use: a `featx.system.machine.MemoryLimit`, bytes, or text like `"4GiB"`.
        class_weights: how much an image of each class counts: `"balanced"`, a number for each class by its name, or a
            CSV or JSON file of these. Only their ratios matter. If None, all images count the same.
        calibrate: whether the probabilities of heads are calibrated with held-out training images, if there are at
            least 100; see `featx.heads.held_out.calibrate`.

    Raises:
        FeatxError: a number is not whole, or is too small or too large; or class weights cannot be read.
    """

    seed: int = 0
    epochs: int = 50
    patience: int = 5
    batch_size: int | None = None
    show: bool = False
    memory: MemoryLimit = HALF_OF_FREE
    class_weights: ClassWeights = field(default=None, repr=False)
    calibrate: bool = True

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, MAX_SEED),
            "epochs": (1, MAX_EPOCHS),
            "patience": (0, MAX_EPOCHS),
            "batch_size": (1, _MOST),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None or name != "batch_size":
                object.__setattr__(self, name, whole_number(name, value, least, most))
        if not isinstance(self.calibrate, bool):
            raise FeatxError(f"calibrate is True or False. Received: {shown(self.calibrate)}")
        object.__setattr__(self, "memory", as_memory_limit(self.memory))
        object.__setattr__(self, "class_weights", as_class_weights(self.class_weights))


def check_training(training: Training) -> None:
    """Raise FeatxError unless `training` is a `Training`."""
    if not isinstance(training, Training):
        raise FeatxError(f"Training options are a featx.Training(seed=…, epochs=…). Received: {shown(training)}")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    `loss` and `val_loss` are in nats, with class weights if there are any, and may be NaN when training diverged. The
    accuracies are without weights. Without validation images, `val_loss` and `val_accuracy` are NaN.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Samples:
    """Some of many rows, without copying them.

    Attributes:
        X: `(n, ...)` float16, float32 or uint8: an array, a memory map, or rows that are on disk.
        y: `(n,)` int64 labels, `0` to `n_classes - 1`; or `(n, n_classes)` bool, which labels each image has.
        rows: `(n_samples,)` int64 indices into both; or `(n_samples, k)`, of which an epoch takes one for each sample.
        class_weights: `(n_classes,)`, how much a sample of each class counts; None if all count the same.
    """

    X: Rows
    y: Targets
    rows: npt.NDArray[np.int64]
    class_weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def weights_of(self, y: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Return how much samples with the labels `y`, `(k,)`, count, so that the mean over all samples is 1."""
        return None if self._scaled_weights is None else self._scaled_weights[y]

    @cached_property
    def _scaled_weights(self) -> npt.NDArray[np.float32] | None:
        if self.class_weights is None:
            return None
        mean = float(self.class_weights[self.y[self.rows]].mean())
        return (self.class_weights / mean).astype(np.float32)


@dataclass(frozen=True)
class Trained:
    """A model that has been trained: a head, or a baseline.

    Attributes:
        name: of the head or the baseline.
        model: a Keras model from raw features `(n, ...)` float16 or float32, or from pixels
            `(n, height, width, 3)` uint8 RGB, to a sigmoid `(n, 1)`, the probability of class 1, a softmax
            `(n, n_classes)`, or, for images with several labels, a sigmoid for each label `(n, n_classes)`; None for a
            pretrained network, of which nothing was trained here.
        history: the epochs; empty for `logreg`.
        kept_epoch: the epoch, from 1, whose weights the model has; 0 if no epoch of tuning made it better; None for
            `logreg`.
        fit_s: seconds of training, without the start of Keras.
        details: what training chose. `feature_scale` is already in a head's kernel; `logreg` also has `C` as
            scikit-learn counts it on centred features times that scale, `cv_accuracy`, `cv_folds`, and `converged`,
            yes or no. A head that was calibrated has `temperature`, and `calibration_images`, how many were held out.
        out_of_fold: `(n_train, n_classes)` float32, probabilities of the training images from heads that have not seen
            them, calibrated as the model is; NaN of images that were not held out, and None without any.
    """

    name: str
    model: Any
    history: tuple[Epoch, ...] = ()
    kept_epoch: int | None = None
    fit_s: float = 0.0
    details: dict[str, float | int | str] = field(default_factory=dict)
    out_of_fold: npt.NDArray[np.float32] | None = None

    @property
    def n_parameters(self) -> int:
        """How many parameters were trained."""
        return 0 if self.model is None else count_parameters(self.model)


def split(
    X: Rows,
    y: Targets,
    is_validation: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64] | None = None,
    class_weights: npt.NDArray[np.float64] | None = None,
) -> tuple[Samples, Samples]:
    """Return the training and the validation samples of `X (n, ...)`, `y (n,)` by `is_validation (n_images,)`.

    `rows`, `(n_images, k)` int64, are those that show each image, the image itself first and then its views: it is
    trained on all of them, and validated on itself. If None, each row is an image. Both losses count samples by
    `class_weights`, `(n_classes,)`, if there are any.

    Raises:
        TrainingError: the lengths differ.
    """
    n_images = len(X) if rows is None else len(rows)
    if not (len(X) == len(y) and n_images == len(is_validation)):
        raise TrainingError(
            "X, y and is_validation must have one entry per image. "
            f"Received: {len(X)}, {len(y)} and {len(is_validation)} entries"
        )
    parts = [np.flatnonzero(part) if rows is None else rows[part] for part in (~is_validation, is_validation)]
    train, validation = (Samples(X, y, part, class_weights) for part in parts)
    return train, validation if rows is None else replace(validation, rows=validation.rows[:, 0])


def output_layer(
    keras: Any, n_classes: int, seed: int, *, always_softmax: bool = False, is_multilabel: bool = False
) -> Any:
    """Return a dense layer that ends in probabilities: one sigmoid for two classes, unless it is always a softmax.

    If images can have several labels, it is a sigmoid for each label.
    """
    is_sigmoid = n_classes == 2 and not always_softmax
    return keras.layers.Dense(
        1 if is_sigmoid and not is_multilabel else n_classes,
        activation="sigmoid" if is_sigmoid or is_multilabel else "softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        name="probabilities",
    )


def has_label_outputs(model: Any) -> bool:
    """Return whether a Keras model ends in a sigmoid for each of several labels, see `output_layer`."""
    return bool(model.output_shape[-1] > 1 and model.layers[-1].get_config().get("activation") == "sigmoid")


def probability_of_truth(probabilities: npt.NDArray[Any], y: Targets) -> npt.NDArray[Any]:
    """Return the probability of what is true: `(n,)`, of each class; with several labels, `(n, n_classes)`, of each.

    Args:
        probabilities: `(n, n_classes)`.
        y: see `Samples`.
    """
    if y.ndim == 2:
        return np.where(y, probabilities, 1 - probabilities)
    of_class: npt.NDArray[Any] = probabilities[np.arange(len(y)), y]
    return of_class


def is_right(probabilities: npt.NDArray[Any], y: Targets) -> npt.NDArray[np.bool_]:
    """Return `(n,)` bool: whether the most probable class is the true one; with several labels, whether all are right.

    A label is predicted if its probability is above `THRESHOLD`. Arguments as for `probability_of_truth`.
    """
    right: npt.NDArray[np.bool_] = probabilities.argmax(axis=1) == y if y.ndim == 1 else probabilities > THRESHOLD
    return right if y.ndim == 1 else (right == y).all(axis=1)


def layer_seeds(seed: int) -> Iterator[int]:
    """Yield a seed for each layer, all from `seed`: layers with the same shape and seed would start equal."""
    for word in np.random.SeedSequence(seed).generate_state(64):
        yield int(word >> 1)  # some backends keep seeds as signed 32-bit integers


def fit(
    model: Any,
    train: Samples,
    validation: Samples,
    training: Training,
    *,
    n_classes: int,
    batch_size: int = 32,
    optimizer: Any = "rmsprop",
    keep_start: bool = False,
) -> Trained:
    """Train a Keras `model` on crossentropy and leave it with the weights of the epoch with the lowest validation loss.

    Without validation rows, as with one image of each class, it trains for all epochs and keeps the last one.

    The model ends in a layer of `output_layer`. On a CPU the same seed, data and model give the same weights, bit for
    bit. `loss` and `accuracy` in the history are Keras's running means over
    the epoch, with dropout and augmentation; `val_loss` and `val_accuracy` are measured at its end, without.

    Args:
        model: a built Keras model; its optimizer and loss are set here.
        train: the rows to learn from, shuffled anew every epoch by (`training.seed`, epoch).
        validation: the rows that decide when to stop; may be none.
        training: seed, epochs and patience; its batch size is not used.
        n_classes: number of classes.
        batch_size: rows per step.
        optimizer: a Keras optimizer or its name; None if `compile_model` has compiled the model.
        keep_start: whether the weights that the model has now may be the ones that are kept, as epoch 0.

    Raises:
        TrainingError: no rows to train on, labels out of range, or weights that are no longer finite.
    """
    _check(model, train, validation, n_classes)
    keras = import_keras()
    if optimizer is not None:
        compile_model(keras, model, optimizer, math.ceil(len(train.rows) / batch_size))
    history: list[Epoch] = []
    start_loss = _validated(model, validation)[0] if keep_start else math.inf
    kept = (start_loss, 0, model.get_weights())
    with progress_bar(training.epochs, model.name, "epochs", show=training.show) as bar:
        for number in range(1, training.epochs + 1):
            loss, accuracy = _train_one_epoch(keras, model, train, batch_size, (training.seed, number))
            epoch, weights = Epoch(number, loss, accuracy, *_validated(model, validation)), model.get_weights()
            _check_finite(epoch, weights, is_validated=len(validation) > 0)
            history.append(epoch)
            bar.set_postfix_str(f"val. {epoch.val_accuracy:.1%}", refresh=False)
            bar.update()
            if epoch.val_loss < kept[0] or not len(validation):
                kept = (epoch.val_loss, number, weights)
            if number - kept[1] >= training.patience:
                break
    model.set_weights(kept[2])
    return Trained(model.name, model, tuple(history), kept[1])


def predict_proba(
    model: Any, X: Rows, rows: npt.NDArray[np.int64] | None = None, *, batch_size: int | None = None
) -> npt.NDArray[np.float64]:
    """Return `(n, n_classes)` float64 probabilities for the rows of `X (n, ...)`; every row sums to 1.

    A sigmoid's single output `p`, the probability of class 1, becomes the two columns `[1 - p, p]`. Those of several
    labels stay as they are: their sum has no meaning. `X` is read `batch_size` rows at a time, by default 4 MiB. If
    given, only its `rows`, `(k,)` int64, are predicted.
    """
    rows = np.arange(len(X)) if rows is None else rows
    outputs = np.empty((len(rows), model.output_shape[-1]), np.float64)
    for which, some in predicted(model, X, rows, batch_size=batch_size):
        outputs[which] = some
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    if not has_label_outputs(model):
        outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs


def predicted(model: Any, X: Rows, rows: npt.NDArray[np.int64], *, batch_size: int | None = None) -> _Parts:
    """Yield what a Keras model puts out for the rows `rows`, `(k,)` int64, of `X (n, ...)`: which of them, and that.

    `X` is read `batch_size` rows at a time, by default 4 MiB.
    """
    keras = import_keras()
    size = batch_size or min(1024, max(32, SLAB_BYTES // row_bytes(X)))
    with closing(_slabs(X, rows, size)) as slabs:
        for which, features in slabs:
            # A short slab is filled up: another shape would be another graph to trace.
            slab = np.zeros((size, *X.shape[1:]), X.dtype)
            slab[: len(features)] = features
            yield which, keras.ops.convert_to_numpy(model.predict_on_batch(slab))[: len(features)]


def count_parameters(model: Any) -> int:
    """Return how many parameters of a Keras `model` are trained."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def _slabs(X: Rows, rows: npt.NDArray[np.int64], size: int) -> _Parts:
    """Yield the rows `rows` of `X`, at most `size` at a time: which of them, and their features."""
    if not isinstance(X, np.ndarray):
        for which, features in prefetched(X.take(rows).in_order()):
            for start in range(0, len(features), size):
                yield which[start : start + size], features[start : start + size]
        return
    for start in range(0, len(rows), size):
        which = np.arange(start, min(start + size, len(rows)))
        yield which, X[rows[which]]


def _check(model: Any, train: Samples, validation: Samples, n_classes: int) -> None:
    """Raise `TrainingError` for what cannot be trained on."""
    if not len(train):
        raise TrainingError("There is no image to learn from; add images.")
    is_multilabel = train.y.ndim == 2
    if not is_multilabel:
        labels = np.concatenate([train.y[train.rows].ravel(), validation.y[validation.rows]])
        if labels.min() < 0 or labels.max() >= n_classes:
            raise TrainingError(
                f"Labels must be 0 to {n_classes - 1}. Received: labels from {labels.min()} to {labels.max()}"
            )
    if model.output_shape[-1] not in ({1, 2} if n_classes == 2 and not is_multilabel else {n_classes}):
        raise TrainingError(
            f"The network has {model.output_shape[-1]} outputs, which does not fit {n_classes} classes."
        )


def compile_model(keras: Any, model: Any, optimizer: Any, n_batches: int) -> None:
    """Give the model the loss that fits its output, and make it ready for epochs of so many batches."""
    is_multilabel = has_label_outputs(model)
    is_sigmoid = model.output_shape[-1] == 1 or is_multilabel
    metrics = keras.metrics.BinaryAccuracy if is_sigmoid else keras.metrics.SparseCategoricalAccuracy
    if is_multilabel:
        metrics = partial(keras.metrics.MeanMetricWrapper, partial(_all_labels_right, keras.ops))
    # XLA compiles for longer than a head trains, and its convolutions are slow on a CPU. JAX knows nothing else, and
    # torch takes one step at a time.
    options: dict[str, Any] = {}
    if keras.config.backend() == "tensorflow":
        options = {"jit_compile": False, "steps_per_execution": STEPS_PER_EXECUTION if n_batches > FEW_BATCHES else 1}
    model.compile(
        optimizer=optimizer,
        loss="binary_crossentropy" if is_sigmoid else "sparse_categorical_crossentropy",
        metrics=[metrics(name="accuracy")],
        **options,
    )
    # Its variables are made now: made in the first step, they would have Keras trace the step twice.
    model.optimizer.build(model.trainable_variables)


def rmsprop(keras: Any, learning_rate: float) -> Any:
    """Return Keras's RMSprop, which on TensorFlow updates a layer's weights in one operation instead of about ten.

    With few rows in a step, the update of a large layer takes longer than its matrix products: it is limited by the
    speed of the memory. The formula is the same, v ← ρ v + (1 − ρ) g² and w ← w − rate · g / √(v + ε) (Tieleman and
    Hinton, Lecture 6.5, 2012), and so are the numbers but for rounding.
    """
    if keras.config.backend() != "tensorflow":
        return keras.optimizers.RMSprop(learning_rate)
    tensorflow = importlib.import_module("tensorflow")

    class RMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]
        def build(self, variables: Any) -> None:
            if not self.built:
                super().build(variables)
                self._steps = self.add_optimizer_variables(variables, "step")  # for momentum: needed without it, too

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            number = self._get_variable_index(variable)
            kept = (variable, self._velocities[number], self._steps[number])
            handles = zip(("var", "ms", "mom"), (one.handle for one in kept), strict=True)
            options = {"rho": self.rho, "momentum": 0.0, "epsilon": self.epsilon}
            rate = tensorflow.cast(learning_rate, variable.dtype)
            tensorflow.raw_ops.ResourceApplyRMSProp(**dict(handles), lr=rate, grad=gradient, **options)

    return RMSprop(learning_rate)


def _all_labels_right(ops: Any, y: Any, probabilities: Any) -> Any:
    """Return `(n,)`, 1.0 where all labels of an image are right: what `is_right` says, for Keras."""
    return ops.cast(ops.all(ops.equal(y > THRESHOLD, probabilities > THRESHOLD), axis=-1), "float32")


def _train_one_epoch(
    keras: Any, model: Any, samples: Samples, batch_size: int, seed: tuple[int, int]
) -> tuple[float, float]:
    """Pass over the rows once, in an order that `seed` decides; return the running means of loss and accuracy."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(samples.rows)
    if order.ndim == 2:
        order = order[np.arange(len(order)), rng.integers(order.shape[1], size=len(order))]
    totals = np.zeros(2)
    with closing(_portions(samples.X, order, batch_size, rng)) as portions:
        for rows, X in portions:
            y = samples.y[rows]
            fed = _feed(keras, X, y, samples.weights_of(y), batch_size)
            logs = model.fit(**fed, shuffle=False, verbose=0).history
            totals += len(rows) * np.array([logs["loss"][-1], logs["accuracy"][-1]])
    loss, accuracy = (totals / len(order)).tolist()
    return loss, accuracy


def _portions(X: Rows, order: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator) -> _Parts:
    """Yield the rows `order`, `(n,)`, some megabytes at a time: which ones, and `(k, …)`, in the order to train in.

    Of rows in memory, that is `order` itself; of rows on disk, another that is random, too, and kind to the disk. All
    but the last are whole batches, so that no other of the epoch is short.
    """
    if not isinstance(X, np.ndarray):
        for which, features in prefetched(X.take(order).shuffled(rng, batch_size)):
            yield order[which], features
        return
    n_fed = batch_size * max(1, FEED_BYTES // (batch_size * row_bytes(X)))
    parts = (order[start : start + n_fed] for start in range(0, len(order), n_fed))
    portions = ((rows, _rows_of(X, rows)) for rows in parts)
    yield from prefetched(portions) if len(order) > n_fed else portions


def _rows_of(X: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return `X[rows]`."""
    if not isinstance(X, np.memmap):
        return X[rows]
    ascending, back = np.unique(rows, return_inverse=True)  # reads in this order are kind to a memory map
    return np.asarray(X[ascending])[back]


def _feed(
    keras: Any,
    X: npt.NDArray[Any],
    y: npt.NDArray[Any],
    weights: npt.NDArray[np.float32] | None,
    batch_size: int,
) -> dict[str, Any]:
    """Return the arguments that make Keras's `fit` take the rows of `X` in batches, in their order."""
    y = y.astype(np.float32) if y.ndim == 2 else y
    if keras.config.backend() != "tensorflow":
        return {"x": X, "y": y, "sample_weight": weights, "batch_size": batch_size}
    # Batches are cut here: Keras, and tf.data given rows, would make each from its rows, one by one, which takes longer
    # than the head's own step.
    data = importlib.import_module("tensorflow").data
    n_whole = len(X) - len(X) % batch_size
    arrays = (X, y) if weights is None else (X, y, weights)
    whole = tuple(rows[:n_whole].reshape(-1, batch_size, *rows.shape[1:]) for rows in arrays)
    # The last batch of an epoch may be short. It is joined on also where there is none, so that all portions have
    # batches of no certain length: another kind would be another graph to trace.
    rest = data.Dataset.from_tensors(tuple(rows[n_whole:] for rows in arrays)).take(int(n_whole < len(X)))
    return {"x": data.Dataset.from_tensor_slices(whole).concatenate(rest).prefetch(data.AUTOTUNE)}


def _validated(model: Any, validation: Samples) -> tuple[float, float]:
    """Return the loss of a model on the validation samples, with class weights, and its accuracy, without.

    Both are NaN if there are none.
    """
    if not len(validation):
        return math.nan, math.nan
    probabilities = predict_proba(model, validation.X, validation.rows)
    y = validation.y[validation.rows]
    losses = -np.log(np.maximum(probability_of_truth(probabilities, y), SMALLEST_PROBABILITY))
    loss = float(np.average(losses, weights=validation.weights_of(y)))
    return loss, float(is_right(probabilities, y).mean())


def _check_finite(epoch: Epoch, weights: list[npt.NDArray[Any]], *, is_validated: bool) -> None:
    """Raise `TrainingError` if training has diverged.

    Losses alone do not tell: TensorFlow's relu turns what is not a number into 0, and the loss stays finite.
    """
    losses = np.array([epoch.loss, epoch.val_loss if is_validated else 0.0])
    if not all(np.isfinite(values).all() for values in (losses, *weights)):
        raise TrainingError(
            "Training diverged: look for features that are infinite or not numbers, or try another --seed. "
            f"Received: training loss {epoch.loss}, validation loss {epoch.val_loss} in epoch "
            f"{epoch.epoch}"
        )
