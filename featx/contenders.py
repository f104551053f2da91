"""What is compared: ways to get a classifier for one data set, each trained and measured in the same manner."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from featx import report_resnet50
from featx.class_map import ClassMap
from featx.comparison import Approach
from featx.dataset import ImageDataset
from featx.heads import HEADS
from featx.join import Features
from featx.memory import peak_memory_bytes, reset_peak_memory
from featx.metrics import confusion_matrix, evaluate
from featx.places import Place
from featx.recipe import Recipe
from featx.results import Result, Training, averaged_over_views
from featx.rivals import train_on_pixels
from featx.scratch import RIVALS
from featx.timings import Timings
from featx.train import train_on_features


@dataclass(frozen=True)
class Contender:
    """One way to get a classifier.

    Attributes:
        name: unique in its comparison.
        kind: see `featx.comparison.Approach`.
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
    return _on_features(features, report_resnet50.HEAD, report_resnet50.NAME)


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


def rival_contender(dataset: ImageDataset, rival: str, cache_dir: Place, workers: int | None) -> Contender:
    """Return the network named `rival`, trained from scratch."""

    def train(mask: np.ndarray, training: Training) -> Result:
        return train_on_pixels(dataset.subset(mask), rival, training, cache_dir, workers)

    return Contender(rival, "scratch", RIVALS[rival].image_size, train, Timings())


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
        out_of_fold: see `featx.results.Result`.
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
