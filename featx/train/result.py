"""How a model is trained, and what became of it: the same for heads and baselines."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from featx.dataset import ImageDataset, validation_mask
from featx.errors import FeatxError
from featx.heads import Epoch, TrainedHead, count_parameters, predict_proba
from featx.store import Rows, ViewRows, one_view
from featx.system import HALF_OF_FREE, MemoryLimit, as_memory_limit, peak_memory_bytes, shown, whole_number
from featx.train.metrics import Metrics, evaluate

#: Keras and NumPy take seeds of 32 bits; repeats count on from the first.
MAX_SEED = 2**32 - 2**16

#: The share of the training split that decides when to stop.
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Training:
    """How models are trained; the same for heads and baselines.

    Attributes:
        seed: of the initial weights, the order of images, dropout, and the choice of the validation part.
        epochs: at most so many passes over the training images.
        patience: epochs without a better validation loss after which training stops.
        batch_size: images in one step of the dense head's optimizer, chosen by their number if None. A baseline has its
            own.
        show: show progress on stderr.
        memory: how much features may take: a `featx.system.machine.MemoryLimit`, bytes, or text like `"4GiB"`.

    Raises:
        FeatxError: a number is no whole one, or too small.
    """

    seed: int = 0
    epochs: int = 50
    patience: int = 5
    batch_size: int | None = None
    show: bool = False
    memory: MemoryLimit = HALF_OF_FREE

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("epochs", 1), ("patience", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None or name != "batch_size":
                object.__setattr__(self, name, whole_number(name, value, least, MAX_SEED if name == "seed" else None))
        object.__setattr__(self, "memory", as_memory_limit(self.memory))


def check_training(training: Training) -> None:
    """Raise FeatxError unless `training` is what its name says."""
    if not isinstance(training, Training):
        raise FeatxError(f"Training options are a featx.Training(seed=…, epochs=…). Received: {shown(training)}")


@dataclass(frozen=True)
class TrainedBaseline:
    """A baseline that has been trained.

    Attributes:
        name: its key in `BASELINES`.
        model: a Keras model from `(n, height, width, 3)` uint8 RGB to a sigmoid `(n, 1)` or a softmax `(n, n_classes)`.
        history: the epochs.
        kept_epoch: the epoch, from 1, whose weights the model has.
        fit_s: seconds of training, without the start of Keras.
    """

    name: str
    model: Any
    history: tuple[Epoch, ...]
    kept_epoch: int
    fit_s: float


@dataclass(frozen=True)
class Result:
    """A trained model and what it achieved on the test split.

    Attributes:
        name: of the head or baseline.
        model: a Keras model from features, or from pixels, to probabilities.
        probabilities: `(n_test, n_classes)` float64, in the order of the data set's test images.
        metrics: measured on the test split.
        fit_s: what training took, in seconds.
        n_parameters: trained ones.
        peak_memory_bytes: largest resident memory of the process while it was trained.
        history: one entry an epoch; empty for `logreg`.
        kept_epoch: the epoch whose weights were kept; None for `logreg`.
        details: what training chose, e.g. the regularization.
        out_of_fold: `(n_train, n_classes)` float32, probabilities of the training images from heads that have not seen
            them; None without cross-validation.
    """

    name: str
    model: Any
    probabilities: np.ndarray
    metrics: Metrics
    fit_s: float
    n_parameters: int
    peak_memory_bytes: int
    history: tuple[Epoch, ...] = ()
    kept_epoch: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    out_of_fold: np.ndarray | None = None


def measured(
    trained: TrainedHead | TrainedBaseline,
    X_test: Rows,
    y_test: np.ndarray,
    *,
    fit_s: float,
    details: dict[str, Any],
) -> Result:
    """Return what a head or baseline achieves on the test split.

    Args:
        trained: the head or baseline.
        X_test: `(n_test, …)` features or `(n_test, height, width, 3)` uint8 pixels, whichever its model takes.
        y_test: `(n_test,)` int64 labels.
        fit_s: what training took, in seconds.
        details: what training chose.
    """
    probabilities = predict_proba(trained.model, X_test)
    return Result(
        name=trained.name,
        model=trained.model,
        probabilities=probabilities,
        metrics=evaluate(y_test, probabilities),
        fit_s=fit_s,
        n_parameters=count_parameters(trained.model),
        peak_memory_bytes=peak_memory_bytes(),
        history=trained.history,
        kept_epoch=trained.kept_epoch,
        details=details,
    )


def averaged_over_views(result: Result, views: ViewRows, y_test: np.ndarray) -> Result:
    """Return what a trained head achieves if its probabilities are averaged over each test image and its views.

    Args:
        result: of the head, from the images alone.
        views: `(n_test, n_views, …)` features of the views.
        y_test: `(n_test,)` int64 labels.
    """
    of_views = [predict_proba(result.model, one_view(views, number)) for number in range(views.shape[1])]
    probabilities = np.mean([result.probabilities, *of_views], axis=0)
    return replace(result, probabilities=probabilities, metrics=evaluate(y_test, probabilities))


def validation_part(dataset: ImageDataset, seed: int) -> np.ndarray:
    """Return `(n_train,)` bool: which training images decide when to stop. The same for heads and baselines."""
    train = ~dataset.is_test
    return validation_mask(dataset.digests[train], dataset.labels[train], seed=seed, fraction=VALIDATION_FRACTION)
