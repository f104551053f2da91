"""Classifies images with a whole pretrained network, without training anything."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self, Unpack

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, ClassMap, Weights, count_network_classes, make_class_map, read_class_list
from featx.engines import EngineOptions
from featx.errors import FeatxError
from featx.extract import DEFAULT_CACHE_DIR, ExtractionOptions, RecipeOptions, resolve_recipe, split_options
from featx.predict.classifier import DEFAULT_ENGINE, ImageClassifier
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir, as_path
from featx.system import names

log = logging.getLogger("featx")


class DirectClassifier(ImageClassifier):
    """A whole pretrained network, with the classifier that it was trained with.

    >>> classifier = DirectClassifier.load(backbone="resnet50")  # doctest: +SKIP
    >>> classifier.predict(["cat.jpg", "dog.jpg"]).labels  # doctest: +SKIP
    ['cats', 'dogs']

    Attributes:
        class_map: which of the network's classes each class consists of.
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        class_map: ClassMap,
        cache_dir: StoragePath,
        engine_options: EngineOptions = DEFAULT_ENGINE,
    ) -> None:
        """Put a classifier together; `DirectClassifier.load` is the usual way."""
        super().__init__(recipe, class_map.class_names, cache_dir, engine_options)
        self.class_map = class_map
        self._weights = weights

    @classmethod
    def load(
        cls,
        *,
        maps: Sequence[str] | str = (),
        class_list: Path | str | None = None,
        cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
        **options: Unpack[ExtractionOptions],
    ) -> Self:
        """Return a pretrained classifier. Keras and the network start only when they are needed.

        Args:
            maps: which network classes make which class, like `["cats=281-285", "dogs=151-268"]`, or a JSON file; see
                `featx.backbones.make_class_map`. Without it: cats and dogs, for a network with ImageNet's 1000
                classes; with a class list, all of the network's own classes.
            class_list: JSON file with the network's classes; see `featx.backbones.class_map.read_class_list`.
            cache_dir: the cache; features in it are not computed again.
            options: by name, see `featx.extract.RecipeOptions` and `featx.engines.EngineOptions`; `weights` are those
                of the whole classifier. There is no layer, pooling or int8 to choose.

        Raises:
            BackboneError: there is no such backbone, or it does not take images of this size.
            WeightsError: there are no such weights, or the file holds no classifier.
            FeatxError: the classes cannot be mapped.
        """
        if options.get("precision") == "int8":
            raise FeatxError("int8 needs a data set for calibration: choose float32, bfloat16 or auto.")
        recipe_options, engine_options = split_options(options)
        if recipe_options["layer"] not in {None, CLASSIFIER_LAYER} or recipe_options["pooling"]:
            raise FeatxError("A pretrained classifier takes no layer or pooling: leave them out.")
        wanted: RecipeOptions = {**recipe_options, "layer": CLASSIFIER_LAYER, "pooling": None}
        recipe, weights = resolve_recipe(as_cache_dir(cache_dir), **wanted)
        n_network_classes = count_network_classes(recipe.backbone, weights.path, as_cache_dir(cache_dir))
        network_classes = read_class_list(as_path(class_list)) if class_list else ()
        class_map = make_class_map(names("maps", maps), n_network_classes, class_list=network_classes)
        if not maps and not class_list:
            log.info("You gave no --map: using these classes of ImageNet: %s.", class_map)
        return cls(recipe, weights, class_map, as_cache_dir(cache_dir), engine_options)

    def __repr__(self) -> str:
        return f"<DirectClassifier {self._recipe.backbone}: {len(self.class_names)} classes>"

    def _find_weights(self) -> Weights:
        return self._weights

    def _from_features(self, X: np.ndarray) -> np.ndarray:
        return self.class_map.probabilities(X)

    def _threshold(self, max_error: float) -> float:
        raise FeatxError(
            f"A pretrained classifier has no held-out images that show how sure it must be for at most "
            f"{100 * max_error:g} % wrong answers: leave out max_error, or train a head."
        )

    def _is_unlike(self, X: np.ndarray) -> np.ndarray:
        return np.zeros(len(X), bool)
