"""The last block of a backbone, tuned with the dense head on top: on cached features of the layer before the block.

No image passes the frozen part of the network again. The block is tuned as in Chollet, Deep Learning with Python, 2nd
edition, 8.3.2: first the head is trained on the frozen block, then both together at a low rate. A head with random
weights would send large gradients into the block, and destroy what it has learned.
"""

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.dense import DENSE_UNITS, Task, TrainingSet, dense_layers, train_dense
from featx.heads.inference import (
    WEIGHTS_NAME,
    DenseLayer,
    Head,
    check_probabilities,
    check_shape,
    check_size,
    damage_said,
    head_of,
    opened_head,
)
from featx.heads.training_loop import Trained, Training, layer_seeds, predict_proba, predicted
from featx.storage import StoragePath, scratch_array
from featx.store import Rows, check_own_file
from featx.system import has_fast_bfloat16, import_keras, keras_sees_gpu, progress_bar

TUNED = "tuned"

#: How the block is tuned: rows per step and Adam's learning rate.
TUNED_BATCH_SIZE, TUNED_LEARNING_RATE = 32, 1e-5

#: Keras's policy that multiplies in bfloat16, and keeps weights in float32.
MIXED = "mixed_bfloat16"

#: Rows that go through the block at a time in a prediction.
_BATCH_SIZE = 32


def train_tuned(
    tail: Any, images: TrainingSet, training: Training, scratch_dir: StoragePath
) -> tuple[Trained, Trained]:
    """Return the dense head on the frozen block, and the same with the block tuned: models from `X` to probabilities.

    The second is never worse than the first on the validation rows: early stopping may keep it as it started. On a GPU,
    where the block is tuned in mixed precision, that is so up to rounding.

    Args:
        tail: Keras model of the block, from a row of features to its output, see `featx.backbones.build_tail`; it is
            not changed.
        images: the training split; its features are of the layer before the block.
        training: how; both stop early, each after at most so many epochs.
        scratch_dir: the cache, which holds the features of the frozen block meanwhile if they do not fit in memory.

    Raises:
        TrainingError: it cannot be trained on this.
        FeatxError: the disk is full.
    """
    keras = import_keras()
    start_s = time.perf_counter()
    task = Task.of(images, training)
    with _put_out(tail, task.X, training, scratch_dir) as outputs:
        dense = train_dense(replace(task, X=outputs))
    frozen = replace(
        dense,
        model=_on_block(keras, tail, dense.model.layers[1:]),
        fit_s=time.perf_counter() - start_s,
        details={**dense.details, **images.details},
    )
    task = replace(task, batch_size=training.batch_size or TUNED_BATCH_SIZE)
    # A power of two, so that nothing is rounded when it goes into the weights and out of them.
    scale = 2.0 ** round(math.log2(float(dense.details["feature_scale"])))
    trainee = trainable_copy(frozen.model, training.seed, scale, MIXED if _is_mixed_faster() else "float32")
    tuned = task.fit(trainee, keras.optimizers.Adam(TUNED_LEARNING_RATE), keep_start=True)
    model = trainable_copy(frozen.model, training.seed)  # without the scale, and without an optimizer in its file
    *weights, kernel, bias, last_kernel, last_bias = trainee.get_weights()
    model.set_weights([*weights, kernel * scale, bias, last_kernel, last_bias])
    return frozen, replace(tuned, model=model, fit_s=time.perf_counter() - start_s, details=images.details)


@contextmanager
def _put_out(tail: Any, X: Rows, training: Training, scratch_dir: StoragePath) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the features of the frozen block for all rows of `X`, float32: on disk if they do not fit in memory."""
    shape = (len(X), *tail.output_shape[1:])
    if training.memory.holds(4 * math.prod(shape)):
        outputs = np.empty(shape, np.float32)
        _fill(outputs, tail, X, show=training.show)
        yield outputs
        return
    with scratch_array(scratch_dir, shape, np.float32, "Tuning", "features of the frozen block") as on_disk:
        _fill(on_disk, tail, X, show=training.show)
        yield on_disk


def _fill(outputs: npt.NDArray[np.float32], tail: Any, X: Rows, *, show: bool) -> None:
    with progress_bar(len(X), "frozen block", "rows", show=show) as bar:
        for which, some in predicted(tail, X, np.arange(len(X))):
            outputs[which] = some
            bar.update(len(which))


def _on_block(keras: Any, tail: Any, layers: Iterable[Any]) -> Any:
    """Return one chain of the layers of a block and those of a head; other models keep them, too."""
    outputs = tail.outputs[0]
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(tail.inputs, outputs, name="dense")


def _is_mixed_faster() -> bool:
    """Return whether this machine tunes faster in mixed precision: it has a GPU that multiplies bfloat16."""
    return has_fast_bfloat16() and keras_sees_gpu()


def trainable_copy(model: Any, seed: int, scale: float = 1.0, policy: str = "float32") -> Any:
    """Return a copy of a head on a frozen block that can be trained: in float32, it computes the same, bit for bit.

    Batch normalization stays frozen: it goes on with the statistics that the network was trained with. Dropout inside
    the block, which the backbone has without a seed, gets one from `seed`.

    Args:
        model: Keras model of the block and the dense head.
        seed: of the dropout.
        scale: a power of two that the features of the block are multiplied by, and the head's first kernel divided by.
            Features of VGG16 are large, so this kernel is small: steps of Adam, which are as large for all weights,
            would change it by much. With 2000 images of cats and dogs at 150×150 pixels, the validation loss
            rose from 0.040 to 0.090 in the first epoch; with the scale it rose to 0.048.
        policy: Keras's dtype policy of the block, `float32` or `MIXED`. The head computes in float32.
    """
    keras, seeds = import_keras(), layer_seeds(seed)
    # In the head, small differences of large sums count: it is not for bfloat16.
    head_begins = next((n for n, layer in enumerate(model.layers) if type(layer).__name__ == "Flatten"), None)
    block = model.layers[:head_begins]

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.Layer):  # or else an operation, such as the sum of a residual block
            config["trainable"] = type(layer).__name__ != "BatchNormalization"
            config["dtype"] = policy if layer in block else "float32"
        if config.get("seed", 0) is None:
            config["seed"] = next(seeds)
        return type(layer).from_config(config)

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        is_last_of_block = type(layer).__name__ == "Flatten" and scale != 1
        return keras.layers.Rescaling(scale)(outputs) if is_last_of_block else outputs

    copy = keras.models.clone_model(model, clone_function=copied, call_function=called)
    copy.name = TUNED
    *weights, kernel, bias, last_kernel, last_bias = model.get_weights()
    copy.set_weights([*weights, kernel / scale, bias, last_kernel, last_bias])
    return copy


@dataclass(frozen=True)
class TunedHead:
    """A head with the block that it stands on: features of the layer before the block in, probabilities out.

    Attributes:
        feature_shape: of one image's features.
        n_classes: 2 or more.
    """

    feature_shape: tuple[int, ...]
    n_classes: int
    _model: Any

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return `(n, n_classes)` float64 probabilities for the features `X`, `(n, …)`.

        Every row sums to 1, unless images can have several labels.

        Raises:
            FeatxError: the features have another shape, or the weights are so large that there are no probabilities.
        """
        check_shape(X, self.feature_shape)
        probabilities = predict_proba(self._model, X, batch_size=max(1, min(len(X), _BATCH_SIZE)))
        check_probabilities(probabilities)
        return probabilities

    @cached_property
    def split(self) -> tuple[Callable[[np.ndarray], np.ndarray], Head]:
        """The block, from features `(n, …)` to its output `(n, …)` float32, and the dense head on that."""
        flatten, hidden, _, output = self._model.layers[-4:]
        block = import_keras().Model(self._model.inputs, flatten.input)
        layers = []
        for layer in (hidden, output):
            kernel, bias = layer.get_weights()
            layers.append(DenseLayer(kernel, bias, layer.activation.__name__))

        def outputs(X: np.ndarray) -> np.ndarray:
            parts = predicted(block, X, np.arange(len(X)), batch_size=max(1, min(len(X), _BATCH_SIZE)))
            return np.concatenate([some for _, some in parts])

        return outputs, Head(tuple(flatten.input.shape[1:]), self.n_classes, tuple(layers))

    def to_keras(self) -> Any:
        """Return the Keras model: features `(n, …)` to a sigmoid `(n, 1)`, or a softmax."""
        return self._model


def trained_head(trained: Trained, n_classes: int) -> Head | TunedHead:
    """Return a head that was just trained as one that is read from a run."""
    if trained.name == TUNED:
        return TunedHead(tuple(trained.model.input_shape[1:]), n_classes, trained.model)
    return head_of(trained.model)


def read_tuned(path: Path, tail: Any, n_classes: int, *, is_multilabel: bool = False) -> TunedHead:
    """Return the head in the `.keras` file `path`, with its block.

    Only weights are read. Its layers are those of `tail` and of the dense head, whatever the file says.

    Args:
        path: the file.
        tail: Keras model of the block, see `featx.backbones.build_tail`; its weights do not matter, and change.
        n_classes: number of classes, 2 or more.
        is_multilabel: whether it has a sigmoid for each class.

    Raises:
        FeatxError: it is missing, cannot be read, is damaged, or is no such head.
    """
    keras = import_keras()
    with damage_said(path), tempfile.TemporaryDirectory(prefix="featx-head-") as folder:
        n_outputs = 1 if n_classes == 2 and not is_multilabel else n_classes
        n_hidden = (math.prod(tail.output_shape[1:]) + 1) * DENSE_UNITS
        with opened_head(path) as file:
            check_size(file, 4 * (tail.count_params() + n_hidden + (DENSE_UNITS + 1) * n_outputs))
            weights = Path(file.extract(WEIGHTS_NAME, folder))
        check_own_file(weights, weights.stat().st_size)
        model = _on_block(keras, tail, dense_layers(keras, n_classes, seed=0, is_multilabel=is_multilabel))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of every layer before it raises
            model.load_weights(weights)
        if not all(np.isfinite(values).all() for values in model.get_weights()):
            raise ValueError("its weights are not finite")
    return TunedHead(tuple(tail.input_shape[1:]), n_classes, model)
