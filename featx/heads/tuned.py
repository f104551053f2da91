"""The last block of a backbone, tuned with the dense head on top: on cached features of the layer before the block.

No image passes the frozen part of the network again, so two stages stay two stages. The block is tuned as in Chollet,
Deep Learning with Python, 2nd edition, 8.3.2: first the head is trained on the frozen block, then both together at a low
rate. A head with random weights would send gradients into the block that destroy what it has learned.
"""

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.dense import Task, train_dense
from featx.heads.training_loop import Trained, Training, predict
from featx.store import Rows, ViewRows
from featx.system import import_keras

TUNED = "tuned"

#: How the block is tuned: rows per step and Adam's learning rate.
TUNED_BATCH_SIZE, TUNED_LEARNING_RATE = 32, 1e-5


def train_tuned(
    tail: Any,
    X: Rows,
    y: npt.NDArray[np.int64],
    digests: npt.NDArray[np.uint8],
    is_validation: npt.NDArray[np.bool_],
    training: Training,
    *,
    n_classes: int,
    views: ViewRows | None = None,
    outputs: AbstractContextManager[npt.NDArray[np.float32]] | None = None,
) -> tuple[Trained, Trained]:
    """Return the dense head on the frozen block, and that head with the block tuned: models from `X` to probabilities.

    Args:
        tail: Keras model of the block, from a row of `X` to features, see `featx.backbones.build_tail`; it is not
            changed.
        X: `(n, …)` float16 or float32 features of the layer before the block; as in `train_head`, so are the others.
        y: `(n,)` int64 labels.
        digests: `(n, 32)` uint8.
        is_validation: `(n,)`, the rows that decide when to stop.
        training: how; early stopping may keep epoch 0, the head on the frozen block.
        n_classes: 2 or more.
        views: `(n, n_views, …)` features of augmented views.

    Raises:
        TrainingError: it cannot be trained on this.
    """
    keras = import_keras()
    start_s = time.perf_counter()
    task = Task.of(X, y, digests, is_validation, training, n_classes=n_classes, views=views)
    dense = train_dense(replace(task, X=predict(tail, task.X).astype(np.float32)))
    features = keras.Input(task.X.shape[1:], name="features")
    model = keras.Model(features, dense.model(tail(features)), name="dense")
    tuned = keras.models.clone_model(model)
    tuned.name = TUNED
    tuned.set_weights(model.get_weights())
    frozen = replace(dense, model=model, fit_s=time.perf_counter() - start_s)
    task = replace(task, batch_size=training.batch_size or TUNED_BATCH_SIZE)
    trained = task.fit(tuned, keras.optimizers.Adam(TUNED_LEARNING_RATE), keep_start=True)
    return frozen, replace(trained, fit_s=time.perf_counter() - start_s)
