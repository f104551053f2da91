"""The features that a comparison asks for: extracted where they are missing, and what competes with them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from featx.backbones import CLASSIFIER_LAYER, ClassMap, count_network_classes, find_backbone, find_weights
from featx.compare.candidates import Candidate, Evaluation, evaluate
from featx.dataset import Data, ImageDataset
from featx.errors import DamagedSegmentError, WeightsError
from featx.extract import Extraction, RecipeOptions, extract_command, extract_dataset, resolve_recipe, with_defaults
from featx.heads import Training
from featx.images import Views
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore
from featx.system import MemoryLimit
from featx.train import Features, stored_features, with_views

log = logging.getLogger("featx")


class FeatureRequest:
    """Features of one recipe, with views or without, that a comparison is made on.

    Attributes:
        recipes: of the images' features, and of the views' if there are any.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        data_dir: Data,
        cache_dir: StoragePath,
        how: dict[str, Any],
        options: RecipeOptions,
        views: Views | None,
        candidates: Callable[[Features, Features | None], Iterable[Candidate]],
    ) -> None:
        """Find the weights.

        Args:
            dataset: whose images they are of.
            data_dir: what the user called it.
            cache_dir: where stores lie.
            how: the options of `featx.extract.extract.extract_dataset`.
            options: what the features are.
            views: the augmented views that are wanted with them.
            candidates: makes candidates of the features of the images and, if there are views, of those with views.

        Raises:
            FeatxError: there is no such recipe, or there are no weights.
        """
        self._recipe, self._weights = resolve_recipe(cache_dir, dataset, **options)
        self._command = extract_command(data_dir, cache_dir, views, **options)
        self._cache_dir, self._how, self._views, self._candidates = cache_dir, how, views, candidates
        of_views = [replace(self._recipe, augmentation=views.augmentation)] if views else []
        self.recipes: list[Recipe] = [self._recipe, *of_views]

    def extract(self, dataset: ImageDataset) -> Extraction:
        """Compute what the store lacks."""
        return extract_dataset(dataset, self._recipe, self._weights, self._cache_dir, views=self._views, **self._how)

    def evaluate(
        self, dataset: ImageDataset, training: Training, repeats: int, *, with_curve: bool
    ) -> tuple[ImageDataset, list[Evaluation]]:
        """Evaluate all candidates on these features; when this returns, the features are no longer in memory.

        Also returns the images that could be read: what cannot is left out for everybody.
        """
        features, viewed = self.features(dataset, training.memory)
        found: list[Evaluation] = []
        for candidate in self._candidates(features, viewed):
            found += evaluate(candidate, training, repeats, with_curve=with_curve)
        return features.dataset, found

    def features(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        """Return the features of `dataset`, without and with views; what turns out to be damaged is computed again."""
        try:
            return self._stored(dataset, memory)
        except DamagedSegmentError:  # it has been set aside, with a warning
            self.extract(dataset)
            return self._stored(dataset, memory)

    def _stored(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        plain = stored_features(dataset, FeatureStore(self._cache_dir, self._recipe), self._command, memory)
        views = self._views
        return plain, with_views(plain, views, self._cache_dir, self._command, memory) if views else None


def direct_applications(
    backbones: Sequence[str], options: RecipeOptions, map_to: Callable[[int], ClassMap], cache_dir: StoragePath
) -> tuple[list[tuple[RecipeOptions, ClassMap]], list[str]]:
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
    applications: list[tuple[RecipeOptions, ClassMap]] = []
    missing: dict[str, WeightsError] = {}
    for name in backbones:
        entry = find_backbone(name)
        try:
            weights = find_weights(name, str(options["weights"]), cache_dir, whole=True)
            class_map = map_to(count_network_classes(name, weights.path))
        except WeightsError as error:
            missing[name] = error
            continue
        image_size = options.get("image_size") if entry.takes_any_size else None
        of_classifier: RecipeOptions = {"layer": CLASSIFIER_LAYER, "pooling": None, "image_size": image_size}
        applications.append(({**options, **of_classifier, "backbone": name, "dtype": None}, class_map))
    if not applications and missing:
        raise next(iter(missing.values()))
    for advice in missing.values():
        log.warning("%s", advice)  # what to do about it; the report says no more than what is missing in it
    return applications, [
        f"{name} is not applied directly: there were no weights with its classifier." for name in missing
    ]
