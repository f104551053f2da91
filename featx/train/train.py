"""Stage two: trains the heads on the features of a data set, and measures them on its test split."""

import logging
from collections.abc import Sequence
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
    HEADS,
    Trained,
    Training,
    TrainingSet,
    check_class_weights,
    check_memory,
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
from featx.system import brief, reset_peak_memory, waiting
from featx.text import printable
from featx.train.features import Features, data_warnings, stored_features, with_views
from featx.train.imbalance import accuracy_warnings
from featx.train.metrics import Result
from featx.train.run_folder import METRICS_NAME, RUNS_NAME, write_run
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
        features: what was trained on.
        results: one for each head.
        warnings: what the user should know about the data, one sentence each.
    """

    dir: Path
    features: Features
    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        right = ", ".join(f"{result.name} {result.metrics.accuracy:.1%}" for result in self.results)
        return f"<Run {brief(self.dir)}: {right} of {self.features.dataset.n_test:,} test images>"


def train_top(
    data_dir: Data,
    *,
    heads: Sequence[str] | str = HEADS,
    run_dir: Path | str | None = None,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    training: Training = DEFAULT_TRAINING,
    views: Views | int | None = None,
    tune: str | None = None,
    **options: Unpack[RecipeOptions],
) -> Run:
    """Train heads on the cached features of the images in `data_dir` and write the run folder `run_dir`, whole.

    Args:
        data_dir: as for `extract_features`.
        heads: names in `featx.heads.dense.HEADS`, or one of them.
        run_dir: an empty or new folder; a new one in `runs` if None.
        cache_dir: where the feature stores are.
        training: how the heads are trained.
        views: the augmented views to train on as well, at most as many as are stored.
        tune: a block of the backbone to tune, such as `"block5"`, or `"last"`. The heads are then `tuned`, and `dense`
            on the frozen block. The features are those of the layer before the block.
        options: the recipe, see `featx.extract.options.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that computes them.
        FeatxError: the data set, the weights or the store cannot be used; the message says what to do.
    """
    cache_dir, views = as_cache_dir(cache_dir), as_views(views)
    check_training(training)
    names = head_names(heads)
    if tune is not None and names != HEADS:
        raise FeatxError("A block is tuned with the heads dense and tuned: leave heads out.")
    with new_folder(as_path(run_dir) if run_dir else None, Path(RUNS_NAME), last=METRICS_NAME) as making:
        check_options(cache_dir, **options)
        block, of_features = ("", options) if tune is None else options_before(tune, cache_dir, **options)
        dataset = scan(data_dir, cache_dir, show=training.show)
        check_class_weights(training.class_weights, dataset.class_names)
        recipe, weights = resolve_recipe(cache_dir, dataset, **of_features)
        tuning = Tuning.of(block, options, recipe, weights, cache_dir) if block else None
        store = FeatureStore(cache_dir, recipe)
        command = extract_command(data_dir, cache_dir, views, **of_features)
        with waiting("read the features", show=training.show):
            features = stored_features(dataset, store, command, training.memory)
            if views:
                features = with_views(features, views, cache_dir, command, training.memory)
        results = _train_all(features, names, tuning, training)
        measured = {result.name: result.metrics for result in results}
        warnings = (
            *data_warnings(dataset, features.dataset, [store.dir]),
            *accuracy_warnings(features.dataset, measured, is_weighted=training.class_weights is not None),
        )
        for warning in warnings[len(dataset.warnings) :]:  # the others were said when the images were found
            log.warning("%s", warning)
        with system_errors(f"The run folder {printable(making.path)}", "written"):
            write_run(making.built, features, results, training, weights, warnings, cache_dir)
    return Run(making.path, features, results, warnings)


def _train_all(
    features: Features, heads: Sequence[str], tuning: Tuning | None, training: Training
) -> tuple[Result, ...]:
    if tuning:
        return tune_on_features(features, tuning, training)
    for head in heads:  # before the first of them is trained, for minutes
        check_head_memory(features, head)
    return tuple(train_on_features(features, head, training) for head in heads)


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
    dataset, is_test = features.dataset, features.dataset.is_test
    check_head_memory(features, head)
    reset_peak_memory()
    trained = train_head(head, _training_set(features, training), training)
    return Result.of(trained, predict_proba(trained.model, take(features.X, is_test)), dataset.labels[is_test])


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
    reset_peak_memory()
    frozen, tuned = train_tuned(tuning.tail, _training_set(features, training), training, tuning.scratch_dir)
    return _measured(frozen, features, tuning), _measured(tuned, features, tuning)


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


def _measured(trained: Trained, features: Features, tuning: Tuning) -> Result:
    is_test = features.dataset.is_test
    noted = replace(trained, details={**tuning.details, **trained.details})
    return Result.of(noted, predict_proba(trained.model, take(features.X, is_test)), features.y[is_test])


def validation_part(dataset: ImageDataset, seed: int) -> npt.NDArray[np.bool_]:
    """Return `(n_train,)` bool: which training images decide when to stop. The same for heads and baselines."""
    train = ~dataset.is_test
    return validation_mask(dataset.units[train], dataset.labels[train], seed=seed, fraction=VALIDATION_FRACTION)
