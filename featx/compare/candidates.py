"""The candidates of a comparison: the features they use, how each is evaluated, and their learning curves."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from featx.backbones import (
    CLASSIFIER_LAYER,
    ClassMap,
    count_network_classes,
    find_backbone,
    find_weights,
    is_network_file,
)
from featx.compare.baselines import BASELINES, KEPT_PIXELS, REPORT_HEAD, REPORT_RESNET50, train_on_pixels
from featx.compare.mistakes import Reasons, explain_mistakes
from featx.compare.result import Approach, CurvePoint
from featx.dataset import Data, ImageDataset, sample_mask
from featx.errors import DamagedSegmentError, FeatxError, WeightsError, reason_of, system_errors
from featx.extract import (
    Extraction,
    ExtractionSettings,
    RecipeOptions,
    extract_command,
    extract_dataset,
    extract_layers,
    resolve_recipe,
    with_defaults,
)
from featx.heads import TUNED, Trained, Training, is_right, weigh_classes
from featx.images import Views
from featx.recipe import Recipe
from featx.storage import StoragePath, new_folder
from featx.store import FeatureStore
from featx.system import MemoryLimit, Timings, progress_bar, reset_peak_memory, waiting
from featx.text import printable
from featx.train import (
    Confusion,
    Features,
    Folds,
    Reference,
    Result,
    Settings,
    Tuning,
    confusion_matrix,
    cross_validate,
    stored_features,
    train_on_features,
    tune_on_features,
    with_views,
    write_run,
)

log = logging.getLogger("featx")

#: Shares of the training images that a learning curve has.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: The least number of seeds of a learning curve, counted from the comparison's own. Each draws other images, and trains
#: with other initial weights.
N_SEEDS = 3

#: The same with few images of each class, which are drawn more differently.
N_SEEDS_OF_SHOTS = 10

#: Numbers of images of each class that a learning curve of few has.
SHOTS = (1, 2, 5, 10)

#: Of each class, at least so many images, or all if there are fewer: some to learn from, some to validate on.
MIN_PER_CLASS = 4


@dataclass(frozen=True)
class Curve:
    """What a learning curve is made of.

    Attributes:
        sizes: numbers of training images; the `FRACTIONS` of all if empty.
        shots: numbers of training images of each class, instead of these; no sizes if empty.
        n_seeds: how often each is drawn and trained on.
    """

    sizes: tuple[int, ...] = ()
    shots: tuple[int, ...] = ()
    n_seeds: int = N_SEEDS

    def check_fit(self, dataset: ImageDataset) -> None:
        """Raise FeatxError if there are fewer training images than a point of the curve has."""
        if self.sizes and max(self.sizes) > dataset.n_train:
            raise FeatxError(
                f"A learning curve has at most as many images as there are for training, {dataset.n_train:,}: choose "
                f"other sizes (--curve-sizes). Received: {max(self.sizes):,}"
            )
        n_of_class, _ = dataset.class_counts
        if self.shots and max(self.shots) > n_of_class.min():
            fewest = int(n_of_class.argmin())
            raise FeatxError(
                f"The class {printable(dataset.class_names[fewest])} has {n_of_class[fewest]:,} training images: "
                f"choose at most so many of each class (--shots). Received: {max(self.shots):,}"
            )

    def parts(self, dataset: ImageDataset) -> Iterator["_Part"]:
        """Yield the parts of the training images that differ in their number of images."""
        if self.shots:
            yield from (_Part(0.0, shots) for shots in sorted(set(self.shots)))
            return
        before = 0
        for fraction in [size / dataset.n_train for size in sorted(self.sizes)] or FRACTIONS:
            part = _Part(fraction, MIN_PER_CLASS)
            if (n_train := int(part.of(dataset, 0).sum())) > before:
                yield part
            before = n_train


@dataclass(frozen=True)
class _Part:
    """A part of the training images: this share of each class, but so many of it at least, or all if it has fewer."""

    fraction: float
    at_least: int

    def of(self, dataset: ImageDataset, seed: int) -> npt.NDArray[np.bool_]:
        """Return `(n,)` bool: which images of a data set are in it; another seed, other images."""
        train = np.flatnonzero(~dataset.is_test)
        mask = np.zeros(dataset.n_images, bool)
        mask[train] = sample_mask(
            dataset.digests[train], dataset.labels[train], seed=seed, fraction=self.fraction, at_least=self.at_least
        )
        return mask


@dataclass(frozen=True)
class Procedure:
    """How every candidate is trained and measured.

    Attributes:
        training: how it is trained.
        repeats: how often, each time with the next seed. All figures but the accuracies are the first one's.
        curve: also train it on parts of the training images, as this says.
        folds: instead of one split, train and measure it on each of these folds.
        settings: all that decided the comparison; each run folder has them.
    """

    training: Training
    repeats: int = 1
    curve: Curve | None = None
    folds: Folds | None = None
    settings: Settings | None = None


@dataclass(frozen=True)
class Candidate:
    """One way to get a classifier.

    Attributes:
        name: unique in its comparison.
        kind: see `featx.compare.result.Approach`.
        image_size: `(height, width)` in pixels that it sees.
        dataset: the images that it is trained and measured on.
        train: returns what becomes of it when it is trained on the images of the data set where a mask, `(n,)` bool, is
            true; the mask has all test images.
        features: what it is trained on; None from scratch. If they have views of the test images, its probabilities are
            also averaged over these.
        recipe: of the features that the error analysis looks at, if they are not these.
        with_test: returns the same with another test split, the images where a mask, `(n,)` bool, is true.
        layer: of the backbone, if several are compared.
    """

    name: str
    kind: Literal["features", "scratch", "direct"]
    image_size: tuple[int, int]
    dataset: ImageDataset
    train: Callable[[npt.NDArray[np.bool_], Training], Result]
    with_test: Callable[[npt.NDArray[np.bool_]], "Candidate"]
    features: Features | None = None
    recipe: Recipe | None = None
    layer: str | None = None

    @property
    def is_trained(self) -> bool:
        """Whether there is something to learn, from more images or with another seed."""
        return self.kind != "direct"


def head_candidates(
    features: Features, viewed: Features | None, *, heads: Sequence[str], of_layers: bool = False
) -> Iterator[Candidate]:
    """Yield the `heads` on the features of one recipe; then the heads on those with views, if there are any.

    Their names tell the layer if `of_layers`: several are compared.
    """
    layer = features.recipe.layer if of_layers else None
    for some in (features, viewed) if viewed else (features,):
        for head in heads:
            name = " ".join(filter(None, (some.recipe.backbone, layer)))
            yield replace(_on_features(some, head, f"{name} + {head}{_views_in_name(some)}"), layer=layer)


def tuned_candidates(
    tuning: Tuning, analysed: Recipe, features: Features, viewed: Features | None
) -> Iterator[Candidate]:
    """Yield the backbone with a tuned block; then the same with views, if there are any.

    Args:
        tuning: the block.
        analysed: the recipe of the features that the error analysis looks at: those of the last layer.
        features: of the layer before the block.
        viewed: the same with views.
    """
    for some in (features, viewed) if viewed else (features,):
        yield _tuned(tuning, analysed, some)


def _tuned(tuning: Tuning, analysed: Recipe, features: Features) -> Candidate:
    def train(mask: npt.NDArray[np.bool_], training: Training) -> Result:
        return tune_on_features(features.subset(mask), tuning, training)[1]

    recipe = features.recipe
    name = f"{recipe.backbone} + {TUNED}{_views_in_name(features)}"

    def with_test(is_test: npt.NDArray[np.bool_]) -> Candidate:
        return _tuned(tuning, analysed, features.with_test(is_test))

    return Candidate(name, "features", recipe.image_size, features.dataset, train, with_test, features, analysed)


def _views_in_name(features: Features) -> str:
    return "" if features.train_views is None else f", {features.train_views.shape[1]} views"


def report_resnet50_candidates(features: Features, viewed: Features | None) -> Iterator[Candidate]:
    """Yield the report's second experiment, on the features that it describes."""
    yield _on_features(viewed or features, REPORT_HEAD, REPORT_RESNET50)


def _on_features(features: Features, head: str, name: str) -> Candidate:
    def train(mask: npt.NDArray[np.bool_], training: Training) -> Result:
        return train_on_features(features.subset(mask), head, training)

    def with_test(is_test: npt.NDArray[np.bool_]) -> Candidate:
        return _on_features(features.with_test(is_test), head, name)

    return Candidate(name, "features", features.recipe.image_size, features.dataset, train, with_test, features)


def direct_candidates(class_map: ClassMap, features: Features, _viewed: None) -> Iterator[Candidate]:
    """Yield a pretrained network with its own classifier: `features` are its probabilities, and nothing is trained."""
    yield _direct(class_map, features)


def _direct(class_map: ClassMap, features: Features) -> Candidate:
    dataset, recipe = features.dataset, features.recipe
    X_test, y_test = features.X[dataset.is_test], dataset.labels[dataset.is_test]  # one number for each class

    def apply(_mask: npt.NDArray[np.bool_], _training: Training) -> Result:
        reset_peak_memory()
        untrained = Trained("direct", model=None, details={"classes": str(class_map)})
        return Result.of(untrained, class_map.probabilities(X_test), y_test)

    def with_test(is_test: npt.NDArray[np.bool_]) -> Candidate:
        return _direct(class_map, features.with_test(is_test))

    return Candidate(f"{recipe.backbone} direct", "direct", recipe.image_size, dataset, apply, with_test, features)


def baseline_candidate(
    dataset: ImageDataset, name: str, cache_dir: StoragePath, workers: int | None, aspect_ratio: str | None
) -> Candidate:
    """Return the baseline called `name`, trained from scratch; `aspect_ratio` is as for the features."""

    def train(mask: npt.NDArray[np.bool_], training: Training) -> Result:
        return train_on_pixels(dataset.subset(mask), name, training, cache_dir, workers, aspect_ratio)

    def with_test(is_test: npt.NDArray[np.bool_]) -> Candidate:
        return baseline_candidate(replace(dataset, is_test=is_test), name, cache_dir, workers, aspect_ratio)

    return Candidate(name, "scratch", BASELINES[name].image_size, dataset, train, with_test)


def options_of(backbone: str, options: RecipeOptions, backbones: Sequence[str]) -> RecipeOptions:
    """Return the options for one of several backbones.

    Those of the table get no `preprocess` and no `layout` that are meant for network files, and these get no `weights`.
    """
    are_files = [is_network_file(one) for one in backbones]
    if any(are_files) and not all(are_files):
        of_others: RecipeOptions = {"preprocess": None, "layout": None}
        options = {**options, **({"weights": None} if is_network_file(backbone) else of_others)}
    return {**options, "backbone": backbone}


def direct_applications(
    backbones: Sequence[str], options: RecipeOptions, map_to: Callable[[int], ClassMap], cache_dir: StoragePath
) -> tuple[list[tuple[RecipeOptions, ClassMap]], list[str]]:
    """Return what is needed to apply each backbone directly, and a warning for each that is left out.

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
        try:
            named = str(with_defaults(options_of(name, options, backbones))["weights"])
            weights = find_weights(name, named, cache_dir, whole=True)
            class_map = map_to(count_network_classes(name, weights.path, cache_dir))
        except WeightsError as error:
            missing[name] = error
            continue
        takes_any_size = is_network_file(name) or find_backbone(name).takes_any_size
        image_size = options.get("image_size") if takes_any_size else None
        of_classifier: RecipeOptions = {"layer": CLASSIFIER_LAYER, "pooling": None, "image_size": image_size}
        applications.append(({**options_of(name, options, backbones), **of_classifier, "dtype": None}, class_map))
    if not applications and missing:
        raise next(iter(missing.values()))
    for advice in missing.values():
        log.warning("%s", advice)  # what to do about it; the report says no more than what is missing in it
    return applications, [f"{name} direct is left out: featx found no weights with its classifier." for name in missing]


@dataclass(frozen=True)
class Evaluation:
    """A candidate that has been trained and measured, with its predictions for the test images.

    Attributes:
        approach: what goes into the comparison.
        probabilities: `(n_test, n_classes)`, with the first seed.
        correct: `(n_seeds, n_test)` bool, whether it was right on each test image; with several labels, on all of them.
        recipe: of the features that the error analysis looks at; None from scratch.
        out_of_fold: see `featx.heads.training_loop.Trained`.
        temperature: what the probabilities were calibrated with: one number, or one for each test image, `(n_test,)`;
            None if they were not.
        curve: its learning curve; empty without one.
        reasons: what its surest mistakes rest on, by the path of the image.
    """

    approach: Approach
    probabilities: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    recipe: Recipe | None
    out_of_fold: npt.NDArray[np.float32] | None
    temperature: float | npt.NDArray[np.float64] | None = None
    curve: tuple[CurvePoint, ...] = ()
    reasons: Mapping[str, Reasons] = field(default_factory=dict)


def evaluate(
    candidate: Candidate,
    how: Procedure,
    left_out: list[str],
    *,
    keep: Callable[[Candidate, Result], Mapping[str, Reasons]] | None = None,
) -> Iterator[Evaluation]:
    """Yield a candidate, trained and measured; and once more with its probabilities averaged over views, if it can be.

    Args:
        candidate: the candidate.
        how: how that is done.
        left_out: gets a sentence if there is not enough memory for it: the others go on.
        keep: called with the first result, if something was trained on the training split; returns what its surest
            mistakes rest on.
    """
    try:
        if how.folds:
            yield _cross_validated(candidate, how.folds, how.training)
        else:
            yield from _evaluated(candidate, how, keep)
    except MemoryError as error:
        left_out.append(f"{candidate.name} is left out: {reason_of(error)}.")
        log.warning("%s", left_out[-1])


def _evaluated(
    candidate: Candidate, how: Procedure, keep: Callable[[Candidate, Result], Mapping[str, Reasons]] | None
) -> Iterator[Evaluation]:
    dataset, features, training = candidate.dataset, candidate.features, how.training
    everything = np.ones(dataset.n_images, bool)
    seeds = range(training.seed, training.seed + (how.repeats if candidate.is_trained else 1))
    is_averaged = features is not None and features.test_views is not None
    # Of further seeds, only answers count, which a temperature changes only if probabilities are averaged.
    of_seeds = {seed: training.calibrate and (seed == training.seed or is_averaged) for seed in seeds}
    results = [
        candidate.train(everything, replace(training, seed=seed, calibrate=calibrate))
        for seed, calibrate in of_seeds.items()
    ]
    reasons = keep(candidate, results[0]) if keep and candidate.is_trained else {}
    cost = features.timings if features else Timings()
    evaluation = _evaluation(candidate, candidate.name, results, cost)
    points = learning_curve(candidate, training, how.curve) if how.curve and candidate.is_trained else ()
    yield replace(evaluation, curve=points, reasons=reasons)
    if features and features.test_views is not None:
        averaged = [result.averaged_over(features.test_views, features.y[dataset.is_test]) for result in results]
        of_views = _evaluation(candidate, f"{candidate.name}, averaged", averaged, cost + features.test_views_timings)
        yield replace(of_views, temperature=None)  # a mean of calibrated probabilities


def _cross_validated(candidate: Candidate, folds: Folds, training: Training) -> Evaluation:
    """Return a candidate that was trained once for each fold, on all the others, and measured on it.

    The evaluation is of all images, as if they were one test split.
    """
    dataset = candidate.dataset
    everything = np.ones(dataset.n_images, bool)

    def train(is_test: npt.NDArray[np.bool_], seeded: Training) -> list[Result]:
        return [candidate.with_test(is_test).train(everything, seeded)]

    class_weights = weigh_classes(training.class_weights, dataset.labels, dataset.class_names)
    name = f"folds of {candidate.name}"
    (found,) = cross_validate(train, folds.of(dataset), dataset.labels, training, name, class_weights)
    cost = candidate.features.timings if candidate.features else Timings()
    as_tested = replace(candidate, dataset=replace(dataset, is_test=everything))
    evaluation = _evaluation(as_tested, candidate.name, list(found.results), cost)
    approach = replace(evaluation.approach, folds=found.accuracies)
    return replace(evaluation, approach=approach, temperature=found.temperatures)


def _evaluation(candidate: Candidate, name: str, results: list[Result], cost: Timings) -> Evaluation:
    dataset, result = candidate.dataset, results[0]
    y = dataset.labels[dataset.is_test]
    if dataset.is_multilabel:  # which label is taken for which other one, nobody can tell
        confusion = Confusion(len(dataset.class_names), ())
    else:
        confusion = confusion_matrix(y, result.probabilities.argmax(axis=1), len(dataset.class_names))
    approach = Approach(
        name=name,
        kind=candidate.kind,
        metrics=result.metrics,
        representations_s=cost.elapsed_s,
        top_s=result.fit_s,
        n_parameters=result.n_parameters,
        peak_memory_bytes=max(result.peak_memory_bytes, cost.peak_memory_bytes),
        history=result.history,
        kept_epoch=result.kept_epoch,
        confusion=confusion,
        p_value=None,
        image_size=candidate.image_size,
        details={
            **({"layer": candidate.layer} if candidate.layer else {}),
            **({KEPT_PIXELS: cost.n_kept} if cost.n_kept else {}),
            **result.details,
        },
        notes=(),
        repeats=tuple(result.metrics.accuracy for result in results) if len(results) > 1 else (),
    )
    recipe = candidate.recipe or (candidate.features.recipe if candidate.features else None)
    correct = np.array([is_right(one.probabilities, y) for one in results])
    # The heads that calibrate themselves have a temperature, too, which is no part of this.
    temperature = float(result.details["temperature"]) if "calibration_images" in result.details else None
    return Evaluation(approach, result.probabilities, correct, recipe, result.out_of_fold, temperature)


class FeatureRequest:
    """Features that a comparison asks for: those of one recipe, with views or without.

    Attributes:
        recipes: of the images' features, and of the views' if there are any.
        weights: of the backbone.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        data_dir: Data,
        cache_dir: StoragePath,
        settings: ExtractionSettings,
        options: RecipeOptions,
        views: Views | None,
        candidates: Callable[[Features, Features | None], Iterable[Candidate]],
    ) -> None:
        """Find the weights.

        Args:
            dataset: whose images they are of.
            data_dir: the data set as the user named it.
            cache_dir: where the feature stores are.
            settings: how features are computed.
            options: what the features are.
            views: the augmented views that are wanted with them.
            candidates: makes candidates of the features of the images and, if there are views, of those with views.

        Raises:
            FeatxError: there is no such recipe, or there are no weights.
        """
        self._recipe, self.weights = resolve_recipe(cache_dir, dataset, **options)
        self._command = extract_command(data_dir, cache_dir, views, **options)
        self._cache_dir, self._settings, self._views, self._candidates = cache_dir, settings, views, candidates
        of_views = [replace(self._recipe, augmentation=views.augmentation)] if views else []
        self.recipes: list[Recipe] = [self._recipe, *of_views]

    def extract(self, dataset: ImageDataset) -> Extraction:
        """Compute what the store lacks."""
        return extract_dataset(dataset, self._recipe, self.weights, self._cache_dir, self._settings, views=self._views)

    def extract_with(self, dataset: ImageDataset, others: Sequence["FeatureRequest"]) -> None:
        """Compute what the stores lack of this and other layers of the same backbone, in one pass."""
        recipes = [one.recipes[0] for one in (self, *others)]
        extract_layers(dataset, recipes, self.weights, self._cache_dir, self._settings, views=self._views)

    def evaluate(
        self,
        dataset: ImageDataset,
        how: Procedure,
        left_out: list[str],
        *,
        runs_dir: Path | None = None,
    ) -> tuple[ImageDataset, list[Evaluation]]:
        """Evaluate all candidates on these features; when this returns, the features are no longer in memory.

        Each head that is trained on the training split leaves a run folder in `runs_dir`, if that is given. `how` and
        `left_out` are as for the function `evaluate`.

        Also returns the images that could be read: what cannot is left out for everybody.
        """
        training = how.training
        with waiting(f"read the features of {self._recipe.backbone}", show=training.show):
            features, viewed = self.features(dataset, training.memory)

        reference = cache(partial(Reference.of, features, show=training.show))  # one for all heads

        def keep(candidate: Candidate, result: Result) -> Mapping[str, Reasons]:
            if runs_dir and candidate.features:
                runs_dir.mkdir(parents=True, exist_ok=True)  # it is in a report folder, which is marked
                run_dir = runs_dir / run_name(candidate.name)
                rest = (dataset.warnings, self._cache_dir, None, how.settings, reference())
                with system_errors(f"The run folder {printable(run_dir)}", "written"), new_folder(run_dir) as making:
                    write_run(making.built, candidate.features, [result], training, self.weights, *rest)
            return explain_mistakes(candidate.features, result, reference()) if candidate.features else {}

        found: list[Evaluation] = []
        for candidate in self._candidates(features, viewed):
            found += evaluate(candidate, how, left_out, keep=keep)
        return features.dataset, found

    def features(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        """Return the features of `dataset`, without and with views; what turns out to be damaged is computed again."""
        try:
            return self._stored(dataset, memory)
        except DamagedSegmentError:  # it has been quarantined, with a warning
            self.extract(dataset)
            return self._stored(dataset, memory)

    def _stored(self, dataset: ImageDataset, memory: MemoryLimit) -> tuple[Features, Features | None]:
        plain = stored_features(dataset, FeatureStore(self._cache_dir, self._recipe), self._command, memory)
        views = self._views
        return plain, with_views(plain, views, self._cache_dir, self._command, memory) if views else None


def run_name(approach: str) -> str:
    """Return what the run folder of an approach is called.

    >>> run_name("vgg16 + dense, 8 views")
    'vgg16-dense-8-views'
    """
    return "-".join(re.findall(r"[\w-]+", approach))


def learning_curve(candidate: Candidate, training: Training, curve: Curve) -> tuple[CurvePoint, ...]:
    """Return the accuracy of a candidate on the test images after training on parts of the training images.

    Nothing is calibrated: that changes no answer.
    """
    dataset = candidate.dataset
    parts, seeds = list(curve.parts(dataset)), range(training.seed, training.seed + curve.n_seeds)
    points = []
    with progress_bar(len(parts) * len(seeds), f"curve of {candidate.name}", "trainings", show=training.show) as bar:
        for part in parts:
            accuracies = []
            for seed in seeds:
                mask = dataset.is_test | part.of(dataset, seed)
                result = candidate.train(mask, replace(training, seed=seed, show=False, calibrate=False))
                accuracies.append(result.metrics.accuracy)
                bar.update()
            n_train = int(mask.sum()) - dataset.n_test
            of_class = part.at_least if curve.shots else None
            points.append(CurvePoint(candidate.name, n_train / dataset.n_train, n_train, tuple(accuracies), of_class))
    return tuple(points)
