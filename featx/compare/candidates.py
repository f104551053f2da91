"""The features that a comparison needs: extracted where they are missing, and joined with the data set."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, ClassMap, Weights, count_network_classes, find_backbone, find_weights
from featx.compare.baselines import BASELINES, HEAD, REPORT_RESNET50, train_on_pixels
from featx.compare.result import Approach
from featx.dataset import Data, ImageDataset
from featx.errors import DamagedSegmentError, WeightsError
from featx.extract import (
    Extraction,
    ExtractionSettings,
    RecipeOptions,
    extract_command,
    extract_dataset,
    resolve_recipe,
    with_defaults,
)
from featx.heads import HEADS
from featx.images import Views
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore
from featx.system import MemoryLimit, Timings, peak_memory_bytes, reset_peak_memory
from featx.train import (
    Features,
    Result,
    Training,
    averaged_over_views,
    confusion_matrix,
    evaluate,
    join_features,
    train_on_features,
    with_views,
)

log = logging.getLogger("featx")


@dataclass(frozen=True)
class Contender:
    """One way to get a classifier.

    Attributes:
        name: unique in its comparison.
        kind: see `featx.compare.result.Approach`.
        image_size: `(height, width)` in pixels that it sees.
        train: returns what becomes of it when it is trained on the images of the data set where a mask, `(n,)` bool, is
            true; the mask has all test images.
        representations: what its features cost.
        recipe: of its features; None from scratch.
        average: returns a trained one's result with its probabilities averaged over views of the test images; None
            without such views. `average_cost` is what those views cost.
    """

    name: str
    kind: Literal["features", "scratch", "direct"]
    image_size: tuple[int, int]
    train: Callable[[np.ndarray, Training], Result]
    representations: Timings
    recipe: Recipe | None = None
    average: Callable[[Result], Result] | None = None
    average_cost: Timings = field(default_factory=Timings)

    @property
    def is_trained(self) -> bool:
        """Whether there is something to learn, from more images or with another seed."""
        return self.kind != "direct"


def head_contenders(features: Features) -> Iterator[Contender]:
    """Yield the heads on the features of one recipe, with its views if it has any."""
    views = "" if features.train_views is None else f", {features.train_views.shape[1]} views"
    for head in HEADS:
        yield _on_features(features, head, f"{features.recipe.backbone} + {head}{views}")


def report_resnet50_contender(features: Features) -> Contender:
    """Return the report's second experiment, on the features that it describes."""
    return _on_features(features, HEAD, REPORT_RESNET50)


def direct_contender(features: Features, class_map: ClassMap) -> Contender:
    """Return a pretrained network with its own classifier: `features` are its probabilities, and nothing is trained."""
    dataset = features.dataset
    X_test, y_test = features.X[dataset.is_test], dataset.labels[dataset.is_test]  # one number for each class

    def apply(_mask: np.ndarray, _training: Training) -> Result:
        reset_peak_memory()
        probabilities = class_map.probabilities(X_test)
        return Result(
            name="direct",
            model=None,
            probabilities=probabilities,
            metrics=evaluate(y_test, probabilities),
            fit_s=0.0,
            n_parameters=0,
            peak_memory_bytes=peak_memory_bytes(),
            details={"classes": str(class_map)},
        )

    recipe = features.recipe
    return Contender(f"{recipe.backbone} direct", "direct", recipe.image_size, apply, features.timings, recipe=recipe)


def baseline_contender(dataset: ImageDataset, baseline: str, cache_dir: StoragePath, workers: int | None) -> Contender:
    """Return the network named `baseline`, trained from scratch."""

    def train(mask: np.ndarray, training: Training) -> Result:
        return train_on_pixels(dataset.subset(mask), baseline, training, cache_dir, workers)

    return Contender(baseline, "scratch", BASELINES[baseline].image_size, train, Timings())


def _on_features(features: Features, head: str, name: str) -> Contender:
    def train(mask: np.ndarray, training: Training) -> Result:
        return train_on_features(features.subset(mask), head, training)

    average = None
    if features.test_views is not None:
        average = partial(averaged_over_views, views=features.test_views, y_test=features.y[features.dataset.is_test])
    return Contender(
        name=name,
        kind="features",
        image_size=features.recipe.image_size,
        train=train,
        representations=features.timings,
        recipe=features.recipe,
        average=average,
        average_cost=features.test_views_timings,
    )


@dataclass(frozen=True)
class Entry:
    """A contender that has been measured, with what it says of the test images.

    Attributes:
        approach: what goes into the comparison.
        probabilities: `(n_test, n_classes)`.
        correct: `(n_test,)` bool, where it is right.
        recipe: of its features; None from scratch.
        out_of_fold: see `featx.train.result.Result`.
    """

    approach: Approach
    probabilities: np.ndarray
    correct: np.ndarray
    recipe: Recipe | None
    out_of_fold: np.ndarray | None


def enter(contender: Contender, dataset: ImageDataset, training: Training, repeats: int) -> Iterator[Entry]:
    """Yield a contender, trained and measured; and once more with its probabilities averaged over views, if it can be.

    Args:
        contender: the contender.
        dataset: the images, all of which it is trained and measured on.
        training: how it is trained.
        repeats: how often, each time with the next seed. The first one's figures count.
    """
    everything = np.ones(dataset.n_images, bool)
    seeds = range(training.seed, training.seed + (repeats if contender.is_trained else 1))
    results = [contender.train(everything, replace(training, seed=seed)) for seed in seeds]
    yield _entry(contender, contender.name, contender.representations, results, dataset)
    if contender.average:
        averaged = [contender.average(result) for result in results]
        cost = contender.representations + contender.average_cost
        yield _entry(contender, f"{contender.name}, averaged", cost, averaged, dataset)


def _entry(
    contender: Contender, name: str, representations: Timings, results: list[Result], dataset: ImageDataset
) -> Entry:
    y, result = dataset.labels[dataset.is_test], results[0]
    predicted = result.probabilities.argmax(axis=1)
    confusion = confusion_matrix(y, predicted, len(dataset.class_names))
    approach = Approach(
        name=name,
        kind=contender.kind,
        metrics=result.metrics,
        representations_s=representations.elapsed_s,
        top_s=result.fit_s,
        n_parameters=result.n_parameters,
        peak_memory_bytes=max(result.peak_memory_bytes, representations.peak_memory_bytes),
        history=result.history,
        kept_epoch=result.kept_epoch,
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        p_value=None,
        image_size=contender.image_size,
        details=result.details,
        notes=(),
        repeats=tuple(result.metrics.accuracy for result in results) if len(results) > 1 else (),
    )
    return Entry(approach, result.probabilities, predicted == y, contender.recipe, result.out_of_fold)


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
    backbones: Sequence[str], options: RecipeOptions, map_to: Callable[[int], ClassMap], cache_dir: StoragePath
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
        self,
        wanted: Wanted,
        dataset: ImageDataset,
        data_dir: Data,
        cache_dir: StoragePath,
        settings: ExtractionSettings,
    ) -> None:
        """Find the weights; `settings` say how features are computed.

        Raises:
            FeatxError: there is no such recipe, or there are no weights.
        """
        self.recipe: Recipe
        self._weights: Weights
        self.recipe, self._weights = resolve_recipe(cache_dir, dataset, **wanted.options)
        self._wanted, self._cache_dir, self._settings = wanted, cache_dir, settings
        self._command = extract_command(data_dir, cache_dir, wanted.views, **wanted.options)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of the images' features, and of the views' if there are any."""
        views = self._wanted.views
        return (self.recipe, *([replace(self.recipe, augmentation=views.augmentation)] if views else []))

    def extract(self, dataset: ImageDataset) -> Extraction:
        """Compute what the store lacks."""
        return extract_dataset(
            dataset, self.recipe, self._weights, self._cache_dir, self._settings, views=self._wanted.views
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
