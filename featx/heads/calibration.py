"""Scores of a head turned into probabilities that can be trusted, by images that the head has not seen."""

import numpy as np
import numpy.typing as npt

#: What choosing a temperature takes for each score, and the probabilities of all images with it.
SCORE_BYTES = 48

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
