"""Images that are nearly the same, found by their features: copies that a digest does not see."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.rows import Rows

#: Two images whose centred features have at least this cosine are called near-duplicates. Resized, recompressed and
#: slightly cropped copies reach 0.95 to 1; different images of one class stay far below on a trained backbone.
NEAR_DUPLICATE = 0.95

#: Bytes of float32 features that are held at a time, on each side.
_BLOCK_BYTES = 64 << 20


#: Multiplications and additions after which it is not done any more: about ten minutes.
MAX_OPERATIONS = 2e14


def is_feasible(n_train: int, n_test: int, feature_shape: tuple[int, ...]) -> bool:
    """Return whether comparing each test image with each training image ends within minutes."""
    return 2.0 * n_train * n_test * float(np.prod(feature_shape)) <= MAX_OPERATIONS


@dataclass(frozen=True)
class NearestTraining:
    """The training image that is most like each test image.

    Attributes:
        rows: `(n_test,)` int64, its row among the training images.
        cosine: `(n_test,)` float32, of the two images' features, centred on the training images' mean; from -1 to 1.
    """

    rows: npt.NDArray[np.int64]
    cosine: npt.NDArray[np.float32]


def nearest_training_images(X_train: Rows, X_test: Rows) -> NearestTraining:
    """Return the nearest of `X_train (n_train, …)` to each of `X_test (n_test, …)`, by the cosine of centred features.

    Centred, because features are never negative: uncentred, any two images have a cosine far above zero.
    """
    n_features = int(np.prod(X_train.shape[1:]))
    step = max(1, _BLOCK_BYTES // (4 * max(1, n_features)))
    total = np.zeros(n_features)
    for start in range(0, len(X_train), step):
        total += X_train[start : start + step].reshape(-1, n_features).sum(axis=0, dtype=np.float64)
    mean = (total / len(X_train)).astype(np.float32)
    rows = np.zeros(len(X_test), np.int64)
    cosine = np.full(len(X_test), -1, np.float32)
    for start in range(0, len(X_train), step):
        block = _unit_rows(X_train[start : start + step], mean)
        for test_start in range(0, len(X_test), step):
            similar = _unit_rows(X_test[test_start : test_start + step], mean) @ block.T
            best = similar.argmax(axis=1)
            value = similar[np.arange(len(best)), best]
            these = slice(test_start, test_start + len(best))
            better = value > cosine[these]
            rows[these] = np.where(better, start + best, rows[these])
            cosine[these] = np.where(better, value, cosine[these])
    return NearestTraining(rows, cosine.clip(-1, 1))


def _unit_rows(X: npt.NDArray[np.generic], mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return centred rows of length 1, or 0 where there is nothing but the mean."""
    rows = X.reshape(len(X), -1).astype(np.float32) - mean
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows
