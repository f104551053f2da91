"""The `keras` engine: whatever backend `KERAS_BACKEND` names, the GPU if there is one."""

import numpy as np

from featx.backbones import build_model
from featx.recipe import Recipe
from featx.weights import Weights


class KerasEngine:
    """Runs a backbone with Keras in batches of one fixed size."""

    def __init__(self, recipe: Recipe, weights: Weights, batch_size: int) -> None:
        self.batch_size = batch_size
        self._model = build_model(recipe, weights.path)
        self.feature_shape: tuple[int, ...] = tuple(self._model.output_shape[1:])
        # The first batch compiles the model: done here, so that it counts as start-up and not as forward time.
        self._forward(np.zeros((batch_size, *recipe.image_size, 3), np.uint8))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, *feature_shape)` float32 of `images`, `(n, height, width, 3)` uint8 RGB."""
        features = np.empty((len(images), *self.feature_shape), np.float32)
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            features[start : start + len(batch)] = self._features_of_batch(batch)
        return features

    def _features_of_batch(self, images: np.ndarray) -> np.ndarray:
        """Return the features of at most one batch.

        A short batch is filled up: one shape is compiled once, and the libraries underneath choose the same algorithm
        for it every time, so that a run that was broken off and resumed gives the same bits.
        """
        n = len(images)
        if n == self.batch_size:
            return self._forward(images)
        padded = np.zeros((self.batch_size, *images.shape[1:]), np.uint8)
        padded[:n] = images
        return self._forward(padded)[:n]

    def _forward(self, images: np.ndarray) -> np.ndarray:
        # predict_on_batch runs the compiled function on every backend; predict() would set up a data pipeline for
        # each call, and leaks memory when called in a loop.
        return np.asarray(self._model.predict_on_batch(images), np.float32)
