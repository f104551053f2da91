"""Scores of a head turned into probabilities that can be trusted, by images that the head has not seen."""

from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.training_loop import Targets

#: What choosing a temperature takes for each score, and the probabilities of all images with it.
SCORE_BYTES = 48

#: With fewer held-out images than this, probabilities stay as they are.
FEWEST_IMAGES = 100

#: What counts as left to a probability that float32 cannot tell from 1.
LEAST_REST = 2.0**-25

#: How far the temperature is expected to be from the default, as a standard deviation of its natural logarithm.
_LOG_SPREAD = 2.0

#: The lowest and the highest temperature, as a multiple of the default, as natural logarithms.
_LOG_RANGE = (-12.0, 12.0)


def fit_temperature(
    scores: npt.NDArray[np.floating],
    y: npt.NDArray[np.int64],
    default: float,
    class_weights: npt.NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Return the temperature T for which softmax(scores / T) fits the labels best, and the mean loss in nats.

    This is temperature scaling (Guo et al., On calibration of modern neural networks, 2017). It changes no answer. The
    scores must be of held-out images. Few of them could all be right by luck, and the best T would be near 0. So two
    things make probabilities of few images cautious. One of n + 2 images counts as wrong, as Platt has it
    (Probabilistic outputs for support vector machines, 1999). And T is the most likely one if log T has a normal
    distribution around the default beforehand, with a standard deviation of 2. With many images, neither matters.

    Args:
        scores: `(n, n_classes)`; with n = 0, T is the default and the loss 0.
        y: `(n,)` labels.
        default: the temperature that is expected.
        class_weights: `(n_classes,)`, how much an image of each class counts; None if all count the same.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(y):
        return default, 0.0
    z = scores.astype(np.float64) / default
    z -= z.mean(axis=1, keepdims=True)
    doubt = 1 / (len(z) + 2)
    # The others share the doubt: the mean of their centred scores is -1 / (n_classes - 1) times the truth's.
    weights = None if class_weights is None else class_weights[y]
    expected = (1 - doubt - doubt / (z.shape[1] - 1)) * z[np.arange(len(z)), y]

    def loss(log_t: float) -> float:
        sharpness = np.exp(-log_t)
        return float(np.average(logsumexp(sharpness * z, axis=1) - sharpness * expected, weights=weights))

    found = minimize_scalar(
        lambda log_t: loss(log_t) + (log_t / _LOG_SPREAD) ** 2 / (2 * len(z)), bounds=_LOG_RANGE, method="bounded"
    )
    return default * float(np.exp(found.x)), loss(found.x)


def as_probabilities(scores: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float32]:
    """Return softmax(scores / temperature), `(n, n_classes)`."""
    from scipy.special import softmax

    probabilities: npt.NDArray[np.float32] = softmax(scores.astype(np.float64) / temperature, axis=1).astype(np.float32)
    return probabilities


def temperature_of(
    probabilities: npt.NDArray[np.floating], y: Targets, class_weights: npt.NDArray[np.float64] | None = None
) -> tuple[float, int] | None:
    """Return the temperature that fits probabilities to the labels best, and by how many images; None if by too few.

    Args:
        probabilities: `(n, n_classes)`, of images that the head has not seen; NaN of the others.
        y: see `featx.heads.training_loop.Samples`. With several labels for an image, one temperature is fitted to the
            decisions about all of them.
        class_weights: as for `fit_temperature`.
    """
    is_rated = ~np.isnan(probabilities[:, 0])
    n_images = int(is_rated.sum())
    if n_images < FEWEST_IMAGES:
        return None
    scores, labels = _scores(probabilities[is_rated], is_multilabel=y.ndim == 2), y[is_rated]
    if labels.ndim == 2:
        scores, labels = np.stack([-scores / 2, scores / 2], axis=-1).reshape(-1, 2), labels.ravel().astype(np.int64)
    return fit_temperature(scores, labels, 1.0, class_weights)[0], n_images


def at_temperature(
    probabilities: npt.NDArray[np.floating], temperature: float | npt.NDArray[np.float64], *, is_multilabel: bool
) -> npt.NDArray[np.float64]:
    """Return `(n, n_classes)`: softmax(log p / T) of probabilities p, or with several labels sigmoid(logit p / T).

    It is what a head gives whose last layer is divided by T. With 1 / T, it is what it gave before.

    Args:
        probabilities: `(n, n_classes)`.
        temperature: T; one number, or one for each row, `(n,)`.
        is_multilabel: whether images can have several labels.
    """
    from scipy.special import expit, softmax

    scores = _scores(probabilities, is_multilabel=is_multilabel) / np.reshape(temperature, (-1, 1))
    changed: npt.NDArray[np.float64] = expit(scores) if is_multilabel else softmax(scores, axis=1)
    return changed


def divide_scores(model: Any, temperature: float) -> None:
    """Divide the scores of a Keras model by a temperature: the kernel and the bias of its last layer."""
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel / temperature, bias / temperature])


def _scores(probabilities: npt.NDArray[np.floating], *, is_multilabel: bool) -> npt.NDArray[np.float64]:
    """Return `(n, n_classes)` scores: log p, or with several labels logit p.

    A sigmoid in float32 gives 1 for all scores above 17. What is left to 1 is then 0, and counts as the half of what
    float32 can tell from 1. A softmax has small probabilities as they are, down to what float32 can hold.
    """
    p = probabilities.astype(np.float64)
    if is_multilabel:
        return _log(p, LEAST_REST) - _log(1 - p, LEAST_REST)
    return _log(p, LEAST_REST if p.shape[1] == 2 else float(np.finfo(np.float32).tiny))


def _log(p: npt.NDArray[np.float64], of_zero: float) -> npt.NDArray[np.float64]:
    logs: npt.NDArray[np.float64] = np.log(np.where(p == 0, of_zero, p))
    return logs
