"""Stage two: trains the heads on the features of a data set, and measures them on its test split or in folds."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from featx.dataset import Data, ImageDataset, scan, validation_mask
from featx.errors import FeatxError, system_errors
from featx.extract import (
    DEFAULT_CACHE_DIR,
    RecipeOptions,
    check_options,
    extract_command,
    options_before,
    resolve_recipe,
)
from featx.heads import (
    DEFAULT_HEADS,
    Trained,
    Training,
    TrainingSet,
    calibrate,
    calibrated_by,
    check_class_weights,
    check_memory,
    check_multilabel_heads,
    check_training,
    head_names,
    predict_proba,
    train_head,
    train_tuned,
    weigh_classes,
)
from featx.images import Views, as_views
from featx.storage import StoragePath, as_cache_dir, as_path, new_folder
from featx.store import FeatureStore, take
from featx.system import brief, peak_memory_bytes, reset_peak_memory, waiting, whole_number
from featx.text import printable
from featx.train.cross_validation import CrossValidation, cross_validate, divide
from featx.train.features import Features, data_warnings, stored_features, with_views
from featx.train.folds import MAX_FOLDS, MAX_REPEATS
from featx.train.imbalance import accuracy_warnings
from featx.train.metrics import Result
from featx.train.near_duplicates import crossing_copies
from featx.train.reference import Reference
from featx.train.run_folder import METRICS_NAME, RUNS_NAME, write_run
from featx.train.settings import settings_of
from featx.train.tuning import Tuning

log = logging.getLogger("featx")

DEFAULT_TRAINING = Training()

#: The share of the training split that decides when to stop.
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Run:
    """A finished run of stage two.

    Attributes:
        dir: the run folder.
        features: what was trained on. After cross-validation, its test split is all images.
        results: one for each head. After cross-validation, the model is trained on all images, and the probabilities
            and metrics are those of the folds' models, see `CrossValidation`.
        warnings: what the user should know about the data, one sentence each.
        cross_validation: the folds, and each head's accuracy on them; None if there was a test split.
    """

    dir: Path
    features: Features
    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()
    cross_validation: CrossValidation | None = None

    def __repr__(self) -> str:
        right = ", ".join(f"{result.name} {result.metrics.accuracy:.1%}" for result in self.results)
        images = "images in cross-validation" if self.cross_validation else "test images"
        return f"<Run {brief(self.dir)}: {right} of {self.features.dataset.n_test:,} {images}>"


def train_top(
    data_dir: Data,
    *,
    heads: Sequence[str] | str = DEFAULT_HEADS,
    run_dir: Path | str | None = None,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    training: Training = DEFAULT_TRAINING,
    views: Views | int | None = None,
    tune: str | None = None,
    folds: int | None = None,
    fold_repeats: int = 1,
    **options: Unpack[RecipeOptions],
) -> Run:
    """Train heads on the cached features of the images in `data_dir` and write the run folder `run_dir`, whole.

    Args:
        data_dir: as for `extract_features`.
        heads: names in `featx.heads.registry.HEADS`, or one of them.
        run_dir: an empty or new folder; a new one in `runs` if None.
        cache_dir: where the feature stores are.
        training: how the heads are trained.
        views: the augmented views to train on as well, at most as many as are stored.
        tune: a block of the backbone to tune, such as `"block5"`, or `"last"`. The heads are then `tuned`, and `dense`
            on the frozen block. The features are those of the layer before the block.
        folds: instead of using a test split, divide all images into this many folds, and test each fold with heads that
            were trained on the others. Groups and copies of an image, also near-duplicates, are not divided. The heads
            of the run are then trained on all images.
        fold_repeats: how often the images are divided, each time otherwise.
        options: the recipe, see `featx.extract.options.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that computes them.
        FeatxError: the data set, the weights or the store cannot be used; the message says what to do.
    """
    given = {**locals()}  # before any of it is changed
    cache_dir, views = as_cache_dir(cache_dir), as_views(views)
    check_training(training)
    names = head_names(heads)
    if tune is not None and names != DEFAULT_HEADS:
        raise FeatxError("A block is tuned with the heads dense and tuned: leave heads (--head) out.")
    n_folds, n_repeats = check_folds(folds, fold_repeats, views)
    with new_folder(as_path(run_dir) if run_dir else None, Path(RUNS_NAME), last=METRICS_NAME) as making:
        check_options(cache_dir, **options)
        block, of_features = ("", options) if tune is None else options_before(tune, cache_dir, **options)
        dataset = scan(data_dir, cache_dir, to_test=not n_folds, show=training.show)
        check_class_weights(training.class_weights, dataset.class_names, is_multilabel=dataset.is_multilabel)
        if dataset.is_multilabel:
            check_multilabel_heads(names)
        recipe, weights = resolve_recipe(cache_dir, dataset, **of_features)
        tuning = Tuning.of(block, options, recipe, weights, cache_dir) if block else None
        store = FeatureStore(cache_dir, recipe)
        command = extract_command(data_dir, cache_dir, views, **of_features)
        images = without_test(dataset) if n_folds else dataset
        with waiting("read the features", show=training.show):
            features = stored_features(images, store, command, training.memory)
            if views:
                features = with_views(features, views, cache_dir, command, training.memory)
        crossing = ""
        if features.dataset.groups is None and not n_folds:
            crossing = crossing_copies(features.dataset, features.X, show=training.show)
        reference = Reference.of(features, show=training.show)
        if n_folds:
            features, results, crossed = _cross_validated(features, names, tuning, training, n_folds, n_repeats)
        else:
            results, crossed = _train_all(features, names, tuning, training), None
        measured = {result.name: result.metrics for result in results}
        is_weighted = training.class_weights is not None
        warnings = (
            *data_warnings(dataset, features.dataset, [store.dir]),
            *filter(None, [crossing]),
            *accuracy_warnings(features.dataset, measured, is_weighted=is_weighted),
        )
        for warning in warnings[len(dataset.warnings) :]:  # the others were said when the images were found
            log.warning("%s", warning)
        with system_errors(f"The run folder {printable(making.path)}", "written"):
            settings = settings_of("train-top", given, features.dataset, [recipe])
            rest = (warnings, cache_dir, crossed, settings, reference)
            write_run(making.built, features, results, training, weights, *rest)
    return Run(making.path, features, results, warnings, crossed)


def check_folds(folds: object, fold_repeats: object, views: Views | None) -> tuple[int, int]:
    """Return the numbers of folds, 0 without cross-validation, and of repetitions.

    Raises:
        FeatxError: they are no such numbers, or there are views, which only the training images of one split have.
    """
    n_repeats = whole_number("fold_repeats", fold_repeats, most=MAX_REPEATS)
    if folds is None:
        return 0, n_repeats
    if views is not None:
        raise FeatxError(
            "Cross-validation (folds, --folds) cannot be combined with views (--views): only the training images of "
            "one split have views."
        )
    return whole_number("folds", folds, least=2, most=MAX_FOLDS), n_repeats


def without_test(dataset: ImageDataset) -> ImageDataset:
    """Return the same images without a test split: all are for training."""
    return replace(dataset, is_test=np.zeros(dataset.n_images, bool))


def _cross_validated(
    features: Features, heads: Sequence[str], tuning: Tuning | None, training: Training, n_folds: int, n_repeats: int
) -> tuple[Features, tuple[Result, ...], CrossValidation]:
    """Return the features with all images as test images, heads trained on all, and what the folds say of each."""
    dataset = features.dataset
    folds = divide(dataset, features.X, n_folds, n_repeats, training)

    def train(is_test: npt.NDArray[np.bool_], seeded: Training) -> tuple[Result, ...]:
        return _train_all(features.with_test(is_test), heads, tuning, seeded)

    class_weights = weigh_classes(training.class_weights, dataset.labels, dataset.class_names)
    found = cross_validate(train, folds.of(dataset), dataset.labels, training, "folds", class_weights)
    results = []
    uncalibrated = _trained(features, heads, tuning, replace(training, calibrate=False))
    for plain, head in zip(uncalibrated, found, strict=True):
        trained = replace(plain, out_of_fold=head.out_of_fold.astype(np.float32))
        if training.calibrate:
            trained = calibrated_by(head.out_of_fold, plain, dataset.labels, class_weights)
        of_folds = head.results[0]
        low, high = head.accuracy_interval
        metrics = replace(of_folds.metrics, accuracy=head.accuracy, accuracy_low=low, accuracy_high=high)
        peak = max(of_folds.peak_memory_bytes, peak_memory_bytes())
        results.append(
            Result(**vars(trained), probabilities=of_folds.probabilities, metrics=metrics, peak_memory_bytes=peak)
        )
    tested = features.with_test(np.ones(dataset.n_images, bool))
    return tested, tuple(results), CrossValidation(folds, found)


def _train_all(
    features: Features, heads: Sequence[str], tuning: Tuning | None, training: Training
) -> tuple[Result, ...]:
    return tuple(_measured(trained, features) for trained in _trained(features, heads, tuning, training))


def _trained(features: Features, heads: Sequence[str], tuning: Tuning | None, training: Training) -> Iterator[Trained]:
    """Yield each head, trained on the training split."""
    for head in () if tuning else heads:  # before the first of them is trained, for minutes
        check_head_memory(features, head)
    images = _training_set(features, training)
    if tuning:
        reset_peak_memory()
        for trained in train_tuned(tuning.tail, images, training, tuning.scratch_dir):
            yield replace(trained, details={**tuning.details, **trained.details})
        return
    for head in heads:
        reset_peak_memory()
        trained = train_head(head, images, training)
        yield calibrate(trained, images, training) if training.calibrate else trained


def check_head_memory(features: Features, head: str) -> None:
    """Raise NotEnoughMemoryError if the head named `head` cannot be trained on the training split."""
    views, dataset = features.train_views, features.dataset
    n_rows = dataset.n_train * (1 if views is None else 1 + views.shape[1])
    check_memory(head, features.X, n_rows, len(dataset.class_names))


def train_on_features(features: Features, head: str, training: Training) -> Result:
    """Return the head named `head`, trained on the training split and measured on the test split.

    Raises:
        NotEnoughMemoryError: it would take more memory than is free.
        TrainingError: it cannot be trained on this.
    """
    (result,) = _train_all(features, [head], None, training)
    return result


def tune_on_features(features: Features, tuning: Tuning, training: Training) -> tuple[Result, Result]:
    """Return the dense head on the frozen block, and the same with the block tuned, measured on the test split.

    Args:
        features: of the layer before the block.
        tuning: the block.
        training: how both are trained.

    Raises:
        TrainingError: they cannot be trained on this.
        FeatxError: the disk is full.
    """
    frozen, tuned = _train_all(features, (), tuning, training)
    return frozen, tuned


def _training_set(features: Features, training: Training) -> TrainingSet:
    dataset, is_train = features.dataset, ~features.dataset.is_test
    y = dataset.labels[is_train]
    return TrainingSet(
        take(features.X, is_train),
        y,
        dataset.units[is_train],
        validation_part(dataset, training.seed),
        n_classes=len(dataset.class_names),
        views=features.train_views,
        class_weights=weigh_classes(training.class_weights, y, dataset.class_names),
    )


def _measured(trained: Trained, features: Features) -> Result:
    is_test = features.dataset.is_test
    return Result.of(trained, predict_proba(trained.model, take(features.X, is_test)), features.y[is_test])


def validation_part(dataset: ImageDataset, seed: int) -> npt.NDArray[np.bool_]:
    """Return `(n_train,)` bool: which training images decide when to stop. The same for heads and baselines."""
    train = ~dataset.is_test
    return validation_mask(dataset.units[train], dataset.labels[train], seed=seed, fraction=VALIDATION_FRACTION)
