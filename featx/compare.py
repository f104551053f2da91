"""The comparison: all approaches on one split, with the same seed, and what each of them cost."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from featx import provenance
from featx.comparison import Approach, Comparison, CurvePoint, ranked, with_p_values
from featx.dataset import ImageDataset, scan
from featx.engines import EngineOptions
from featx.errors import DamagedSegmentError, FeatxError, printable
from featx.examination import Examination
from featx.examine import examine
from featx.extract import Extraction, extract_command, extract_dataset
from featx.heads import HEADS
from featx.join import Features, join_features
from featx.learning_curve import head_curve, rival_curve
from featx.metrics import confusion_matrix
from featx.recipe import Recipe
from featx.resolve import RecipeOptions, resolve_recipe
from featx.results import Result, Training, validation_part
from featx.rivals import check_rival, train_on_pixels
from featx.scratch import RIVALS
from featx.skipped import SkippedImage
from featx.store import FeatureStore
from featx.train import DEFAULT_TRAINING, train_on_features
from featx.weights import Weights


def compare_approaches(
    data_dir: Path,
    *,
    backbones: Sequence[str] = ("vgg16",),
    rivals: Sequence[str] = (),
    cache_dir: Path = Path("cache"),
    training: Training = DEFAULT_TRAINING,
    engine: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    streams: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    learning_curve: bool = False,
    **options: Unpack[RecipeOptions],
) -> Comparison:
    """Return how the heads on each backbone's features, and the rivals, do on the images in `data_dir`.

    Features that are missing are extracted first; what they cost is counted also when they come from the cache.

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`.
        backbones: names in `featx.backbones.BACKBONES`.
        rivals: names in `featx.scratch.RIVALS`.
        cache_dir: where stores lie.
        training: how heads and rivals are trained; `batch_size` of a rival is its own.
        engine: what runs the backbones in stage one: `"auto"`, `"keras"` or `"openvino"`; see
            `featx.engines.EngineOptions`, also for the next three.
        batch_size: images in a batch of stage one.
        threads: processor cores for `openvino`.
        streams: batches that `openvino` runs side by side.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        learning_curve: also train every approach on smaller parts of the training images, see `featx.learning_curve`.
        options: see `featx.resolve.RecipeOptions`; without `backbone`.

    Raises:
        FeatxError: the data set, a backbone, the weights or the store is not fit; the message says what to do.
    """
    if not backbones and not rivals:
        raise FeatxError("There is nothing to compare: name a backbone or a rival.")
    for rival in rivals:
        check_rival(rival)
    if len(set(backbones)) > 1:
        _check_fits_all(options)
    dataset = scan(data_dir, cache_dir, show=training.show)
    recipes = [resolve_recipe(cache_dir, dataset, **_for_backbone(name, options)) for name in dict.fromkeys(backbones)]
    engine_options = EngineOptions(engine=engine, batch_size=batch_size, threads=threads, streams=streams)
    stage_one = partial(
        extract_dataset, engine_options=engine_options, workers=workers, strict=strict, show=training.show
    )
    entries: list[_Entry] = []
    curve: list[CurvePoint] = []
    skipped = [SkippedImage.of(dataset.root.absolute() / path, b"", reason) for path, reason in dataset.unreadable]
    for recipe, weights in recipes:
        command = extract_command(data_dir, cache_dir, **_for_backbone(recipe.backbone, options))
        extraction = stage_one(dataset, recipe, weights, cache_dir)
        skipped += [image for image in extraction.skipped if image not in skipped]
        features = _features(dataset, recipe, weights, cache_dir, stage_one, command)
        dataset = features.dataset  # what cannot be read is left out for everybody
        entries += [_features_entry(features, train_on_features(features, head, training)) for head in HEADS]
        if learning_curve:
            curve += [point for head in HEADS for point in head_curve(features, head, training)]
    for rival in dict.fromkeys(rivals):
        entries.append(_scratch_entry(dataset, train_on_pixels(dataset, rival, training, cache_dir, workers)))
        if learning_curve:
            curve += rival_curve(dataset, rival, training, cache_dir, workers)
    comparison = _comparison(dataset, [recipe for recipe, _ in recipes], entries, training.seed)
    examination = _examine(comparison, dataset, entries, skipped, cache_dir)
    return replace(comparison, examination=examination, learning_curve=tuple(curve))


@dataclass(frozen=True)
class _Entry:
    """An approach with what it says of the test images.

    Attributes:
        approach: what goes into the comparison.
        probabilities: `(n_test, n_classes)`.
        correct: `(n_test,)` bool, where it is right.
        recipe: of its features; None from scratch.
        out_of_fold: see `Result`.
    """

    approach: Approach
    probabilities: np.ndarray
    correct: np.ndarray
    recipe: Recipe | None = None
    out_of_fold: np.ndarray | None = None


def _examine(
    comparison: Comparison,
    dataset: ImageDataset,
    entries: Sequence[_Entry],
    skipped: Sequence[SkippedImage],
    cache_dir: Path,
) -> Examination:
    """Look at the comparison image by image, with the features of the backbone that does best."""
    entry_of = {entry.approach.name: entry for entry in entries}
    on_features = [approach for approach in ranked(comparison.approaches) if entry_of[approach.name].recipe]
    recipe = entry_of[on_features[0].name].recipe if on_features else None
    judge = next((entry for entry in entries if entry.recipe == recipe and entry.out_of_fold is not None), None)
    return examine(
        dataset,
        {name: entry.probabilities for name, entry in entry_of.items()},
        comparison.best.name,
        comparison.seed,
        backbone=recipe.backbone if recipe else None,
        X=FeatureStore(cache_dir, recipe).read(dataset.digests) if recipe else None,
        out_of_fold=judge.out_of_fold if judge else None,
        judge=judge.approach.name if judge else None,
        skipped=[(image.path, image.reason) for image in skipped],
    )


def _comparison(dataset: ImageDataset, recipes: Sequence[Recipe], entries: Sequence[_Entry], seed: int) -> Comparison:
    is_validation = validation_part(dataset, seed)
    correct = {entry.approach.name: entry.correct for entry in entries}
    return Comparison(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        class_names=dataset.class_names,
        n_train=int((~is_validation).sum()),
        n_validation=int(is_validation.sum()),
        n_test=dataset.n_test,
        seed=seed,
        approaches=with_p_values([entry.approach for entry in entries], correct),
        recipes=tuple(json.loads(recipe.to_json()) for recipe in recipes),
        warnings=(*_random_weights_warnings(recipes), *_leak_warnings(dataset)),
        versions=provenance.versions(),
        hardware=dict(provenance.hardware()),
        command=provenance.command_line(),
        created_at=provenance.now(),
    )


def _check_fits_all(options: RecipeOptions) -> None:
    """Raise for an option that can only be meant for one backbone."""
    weights = options.get("weights", "imagenet")
    if not re.fullmatch(r"imagenet|random(:\d+)?|imagenet-or-random", weights):
        raise FeatxError(
            f"A weights file belongs to one backbone: compare them one by one, or put a file for each into a folder "
            f"and set FEATX_WEIGHTS_DIR to it. Received: --weights {printable(weights)}"
        )
    if options.get("layer"):
        raise FeatxError(
            f"A layer belongs to one backbone: compare them one by one. Received: --layer {options['layer']}"
        )


def _for_backbone(name: str, options: RecipeOptions) -> RecipeOptions:
    return {**options, "backbone": name}


def _features(
    dataset: ImageDataset,
    recipe: Recipe,
    weights: Weights,
    cache_dir: Path,
    stage_one: Callable[..., Extraction],
    command: str,
) -> Features:
    """Return the features of `dataset`; a segment that turns out to be damaged is computed again.

    `command` is named if features are missing even then.
    """
    try:
        return join_features(dataset, FeatureStore(cache_dir, recipe), command)
    except DamagedSegmentError:  # it has been set aside, with a warning
        stage_one(dataset, recipe, weights, cache_dir)
        return join_features(dataset, FeatureStore(cache_dir, recipe), command)


def _features_entry(features: Features, result: Result) -> _Entry:
    recipe, timings = features.recipe, features.timings
    return _entry(
        features.dataset,
        result,
        recipe,
        name=f"{recipe.backbone} + {result.name}",
        kind="features",
        representations_s=timings.elapsed_s,
        peak_memory_bytes=max(result.peak_memory_bytes, timings.peak_memory_bytes),
        image_size=recipe.image_size,
    )


def _scratch_entry(dataset: ImageDataset, result: Result) -> _Entry:
    return _entry(
        dataset,
        result,
        None,
        name=result.name,
        kind="scratch",
        representations_s=0.0,
        peak_memory_bytes=result.peak_memory_bytes,
        image_size=RIVALS[result.name].image_size,
    )


def _entry(dataset: ImageDataset, result: Result, recipe: Recipe | None, **fields: Any) -> _Entry:
    """Return an approach, made of the `fields` that depend on its kind and of what `result` says of any."""
    y = dataset.labels[dataset.is_test]
    predicted = result.probabilities.argmax(axis=1)
    confusion = confusion_matrix(y, predicted, len(dataset.class_names))
    approach = Approach(
        metrics=result.metrics,
        top_s=result.fit_s,
        n_parameters=result.n_parameters,
        history=result.history,
        kept_epoch=result.kept_epoch,
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        p_value=None,
        details=result.details,
        notes=(),
        **fields,
    )
    return _Entry(approach, result.probabilities, predicted == y, recipe, result.out_of_fold)


def _random_weights_warnings(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    return tuple(
        f"{recipe.backbone} has random weights (seed {recipe.weights.removeprefix('random-')}): it was never trained, "
        f"and its figures say nothing about transfer learning."
        for recipe in recipes
        if recipe.has_random_weights
    )


def _leak_warnings(dataset: ImageDataset) -> tuple[str, ...]:
    n_leaks = len(dataset.leaks())
    if not n_leaks:
        return ()
    return (f"{n_leaks} of {dataset.n_test} test images are also among the training images: accuracy is overstated.",)
