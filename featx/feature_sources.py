"""The features that a comparison needs: extracted where they are missing, and joined with the data set."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from featx.augmentation import Views
from featx.backbones import count_network_classes, find_backbone
from featx.class_map import ClassMap
from featx.contenders import Contender, direct_contender
from featx.dataset import Data, ImageDataset
from featx.errors import DamagedSegmentError, WeightsError
from featx.extract import Extraction, extract_command, extract_dataset
from featx.join import Features, join_features, with_views
from featx.memory import MemoryLimit
from featx.places import Place
from featx.recipe import Recipe
from featx.resolve import RecipeOptions, resolve_recipe, with_defaults
from featx.store import FeatureStore
from featx.weights import Weights, find_weights
from featx.weights_file import CLASSIFIER_LAYER

log = logging.getLogger("featx")


@dataclass(frozen=True)
class Wanted:
    """Features that a comparison is to be made on.

    Attributes:
        options: what they are.
        views: the augmented views that are wanted with them.
        contenders: makes contenders of the features of the images and, if there are views, of those with views.
    """

    options: RecipeOptions
    views: Views | None
    contenders: Callable[[Features, Features | None], Iterable[Contender]]


def direct_applications(
    backbones: Sequence[str], options: RecipeOptions, map_to: Callable[[int], ClassMap], cache_dir: Place
) -> tuple[list[Wanted], list[str]]:
    """Return what the direct application of each backbone needs, and a warning for each that has to be left out.

    Args:
        backbones: their names.
        options: of the comparison; the layer, pooling and storage dtype are the whole classifier's own.
        map_to: returns which network classes make the data set's, from the number of the network's classes.
        cache_dir: remembers digests of files.

    Raises:
        WeightsError: not one of them has weights with its classifier.
        FeatxError: the classes cannot be mapped.
    """
    options = with_defaults(options)
    wanted: list[Wanted] = []
    missing: dict[str, WeightsError] = {}
    for name in dict.fromkeys(backbones):
        entry = find_backbone(name)
        try:
            weights = find_weights(name, str(options["weights"]), cache_dir, whole=True)
            class_map = map_to(count_network_classes(name, weights.path))
        except WeightsError as error:
            missing[name] = error
            continue
        image_size = options.get("image_size") if entry.takes_any_size else None
        of_classifier: RecipeOptions = {"layer": CLASSIFIER_LAYER, "pooling": None, "image_size": image_size}
        all_options: RecipeOptions = {**options, **of_classifier, "backbone": name, "dtype": None}
        wanted.append(Wanted(all_options, None, partial(_direct, class_map=class_map)))
    if not wanted and missing:
        raise next(iter(missing.values()))
    for advice in missing.values():
        log.warning("%s", advice)  # what to do about it; the report says no more than what is missing in it
    return wanted, [f"{name} is not applied directly: there were no weights with its classifier." for name in missing]


def _direct(features: Features, _viewed: Features | None, class_map: ClassMap) -> Iterator[Contender]:
    yield direct_contender(features, class_map)


class FeatureSource:
    """Where such features come from.

    Attributes:
        recipe: of the images' features.
    """

    def __init__(
        self, wanted: Wanted, dataset: ImageDataset, data_dir: Data, cache_dir: Place, how: dict[str, Any]
    ) -> None:
        """Find the weights; `how` are the options of `featx.extract.extract_dataset`.

        Raises:
            FeatxError: there is no such recipe, or there are no weights.
        """
        self.recipe: Recipe
        self._weights: Weights
        self.recipe, self._weights = resolve_recipe(cache_dir, dataset, **wanted.options)
        self._wanted, self._cache_dir, self._how = wanted, cache_dir, how
        self._command = extract_command(data_dir, cache_dir, wanted.views, **wanted.options)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of the images' features, and of the views' if there are any."""
        views = self._wanted.views
        return (self.recipe, *([replace(self.recipe, augmentation=views.augmentation)] if views else []))

    def extract(self, dataset: ImageDataset) -> Extraction:
        """Compute what the store lacks."""
        return extract_dataset(
            dataset, self.recipe, self._weights, self._cache_dir, views=self._wanted.views, **self._how
        )

    def join(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        """Return the features of `dataset`, without and with views; what turns out to be damaged is computed again."""
        try:
            return self._join(dataset, memory)
        except DamagedSegmentError:  # it has been set aside, with a warning
            self.extract(dataset)
            return self._join(dataset, memory)

    def _join(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        features = join_features(dataset, FeatureStore(self._cache_dir, self.recipe), self._command, memory)
        views = self._wanted.views
        return features, with_views(features, views, self._cache_dir, self._command, memory) if views else None

    def contenders(self, features: Features, viewed: Features | None) -> Iterable[Contender]:
        """Return who competes with these features."""
        return self._wanted.contenders(features, viewed)
