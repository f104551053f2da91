"""The heads by name: all that can be chosen, and what trains each.

Every head ends up as a Keras model, features in and probabilities out, so that there is one file format and one way to
predict. A new head is one file and one entry in `_KINDS`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from featx.errors import FeatxError, NotEnoughMemoryError, TrainingError
from featx.heads.dense import Task, TrainingSet, train_dense, train_logreg, train_softmax
from featx.heads.knn import knn_bytes, train_knn
from featx.heads.logistic import logreg_bytes
from featx.heads.prototypes import prototypes_bytes, train_prototypes
from featx.heads.svm import svm_bytes, train_svm
from featx.heads.training_loop import Trained, Training
from featx.heads.tuned import TUNED
from featx.store import Rows
from featx.system import check_name, free_memory_bytes, import_keras, names, size


class _CountBytes(Protocol):
    """Returns about how much memory a head takes besides its features."""

    def __call__(self, n_rows: int, n_features: int, n_classes: int, /, *, in_memory: bool) -> int: ...


@dataclass(frozen=True)
class _Kind:
    """What trains a head.

    Attributes:
        train: trains it.
        n_bytes: counts the memory that takes; None if it is little.
        is_multilabel: whether it can decide about several labels of each image.
        needs_temperature: whether its probabilities are still to be calibrated by held-out images.
    """

    train: Callable[[Task], Trained]
    n_bytes: _CountBytes | None = None
    is_multilabel: bool = False
    needs_temperature: bool = False


_KINDS = {
    "dense": _Kind(train_dense, is_multilabel=True, needs_temperature=True),
    "logreg": _Kind(train_logreg, logreg_bytes, is_multilabel=True, needs_temperature=True),
    "knn": _Kind(train_knn, knn_bytes),
    "prototypes": _Kind(train_prototypes, prototypes_bytes),
    "svm": _Kind(train_svm, svm_bytes),
    "softmax": _Kind(train_softmax, is_multilabel=True),
}

#: The report's second experiment has a head of its own, which is not to be chosen.
_OF_BASELINE = "softmax"

#: The heads that can be chosen, and those that are trained if none is.
HEADS = tuple(name for name in _KINDS if name != _OF_BASELINE)
DEFAULT_HEADS = ("dense", "logreg")


def train_head(name: str, images: TrainingSet, training: Training) -> Trained:
    """Return the head `name`, trained on the features of the training split.

    Args:
        name: one of `HEADS`, or `"softmax"`, the head of the report's ResNet50.
        images: the training split.
        training: training options; only `dense` uses more than the seed.

    Raises:
        TrainingError: there is no such head, or it cannot be trained on this data.
    """
    _check_head(name)
    import_keras()  # its start is no part of training
    start_s = time.perf_counter()
    head = train_task(name, Task.of(images, training))
    return replace(head, fit_s=time.perf_counter() - start_s, details={**head.details, **images.details})


def train_task(name: str, task: Task) -> Trained:
    """Return the head `name`, trained for a task; see `train_head`."""
    return _KINDS[name].train(task)


def needs_temperature(name: str) -> bool:
    """Return whether the probabilities of the model `name` are to be calibrated; not so of baselines.

    `knn`, `prototypes` and `svm` choose their settings by images that they have not seen, so theirs are calibrated.
    """
    return name == TUNED or (name in _KINDS and _KINDS[name].needs_temperature)


def check_memory(name: str, X: Rows, n_rows: int, n_classes: int) -> None:
    """Raise NotEnoughMemoryError if training the head `name` would take more memory than is free.

    The system gives memory that it has not got, and ends the process when that is used: so this is asked before.

    Args:
        name: of the head.
        X: `(n, ...)` features.
        n_rows: how many of them are trained on, and of views.
        n_classes: number of classes.
    """
    count, n_features = _KINDS[name].n_bytes, math.prod(X.shape[1:])
    needed = count(n_rows, n_features, n_classes, in_memory=isinstance(X, np.ndarray)) if count else 0
    if needed > (free := free_memory_bytes()):
        of_rows = f"{n_rows:,} rows" if name == "knn" else f"{n_classes:,} classes"
        raise NotEnoughMemoryError(
            f"{name} needs about {size(needed)} of memory for {of_rows} and {n_features:,} features, and "
            f"{size(free)} are free. Extract fewer features with --pooling avg, or choose other heads, such as "
            f"--head dense."
        )


def head_names(heads: Sequence[str] | str) -> tuple[str, ...]:
    """Return the names of heads, each once; one name alone is a list of one.

    Raises:
        TrainingError: there is no such head.
        FeatxError: it is not a list of names, or is empty.
    """
    chosen = tuple(dict.fromkeys(names("heads", heads)))
    if not chosen:
        raise FeatxError(f"There is nothing to train: name a head, {' or '.join(HEADS)}.")
    for name in chosen:
        _check_head(name)
    return chosen


def check_multilabel_heads(heads: Sequence[str]) -> None:
    """Raise TrainingError unless all of `heads` can decide about several labels of each image."""
    if wrong := [name for name in heads if not _KINDS[name].is_multilabel]:
        able = [name for name in HEADS if _KINDS[name].is_multilabel]
        raise TrainingError(
            f"The head {wrong[0]} chooses one class for each image, and these images can have several labels: choose "
            f"{' or '.join(f'--head {name}' for name in able)}."
        )


def _check_head(name: str) -> None:
    check_name(name, _KINDS, f"A head must be one of {', '.join(HEADS)}.", TrainingError)
