"""What an engine is."""

from typing import Protocol

import numpy as np

from featx.recipe import Recipe
from featx.weights import Weights


class Engine(Protocol):
    """Runs one backbone on this machine."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, …)` float32 of `images`, `(n, height, width, 3)` uint8 RGB.

        An image's features do not depend on the other images of its batch, nor on their number.
        """
        ...


def create_engine(recipe: Recipe, weights: Weights, batch_size: int) -> Engine:
    """Return an engine that is ready to run. This loads Keras and takes seconds.

    Raises:
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network.
    """
    from featx.engines.keras_engine import KerasEngine

    return KerasEngine(recipe, weights, batch_size)
