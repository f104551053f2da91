"""Stage two: trains the heads on the features of a data set, and measures them on its test split."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from featx.dataset import Data, scan
from featx.extract import DEFAULT_CACHE_DIR, RecipeOptions, extract_command, resolve_recipe
from featx.heads import HEADS, head_names, train_head
from featx.images import Views, as_views
from featx.storage import StoragePath, as_path, as_storage_path, check_empty
from featx.store import FeatureStore, take
from featx.system import reset_peak_memory
from featx.train.features import Features, data_warnings, join_features, with_views
from featx.train.result import Result, Training, check_training, measured, validation_part
from featx.train.run_folder import write_run

log = logging.getLogger("featx")

DEFAULT_TRAINING = Training()


@dataclass(frozen=True)
class Run:
    """A finished stage two.

    Attributes:
        dir: the run folder.
        features: what was trained on.
        results: one for each head.
        warnings: what the user should know of the data, one sentence each.
    """

    dir: Path
    features: Features
    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()


def train_top(
    data_dir: Data,
    *,
    heads: Sequence[str] | str = HEADS,
    run_dir: Path | str,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    training: Training = DEFAULT_TRAINING,
    views: Views | int | None = None,
    **options: Unpack[RecipeOptions],
) -> Run:
    """Train heads on the cached features of the images in `data_dir` and write the run folder `run_dir`.

    Args:
        data_dir: what `extract_features` was given.
        heads: names in `featx.heads.dense.HEADS`, or one of them.
        run_dir: an empty folder, or one that does not exist yet.
        cache_dir: where stores lie.
        training: how the heads are trained.
        views: the augmented views to train on as well, at most as many as are stored.
        options: the recipe, see `featx.extract.options.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that makes them.
        FeatxError: the data set, the weights or the store is not fit; the message says what to do.
    """
    cache_dir, views, folder = as_storage_path(cache_dir), as_views(views), as_path(run_dir)
    check_empty(folder)
    check_training(training)
    names = head_names(heads)
    dataset = scan(data_dir, cache_dir, show=training.show)
    recipe, weights = resolve_recipe(cache_dir, dataset, **options)
    store = FeatureStore(cache_dir, recipe)
    command = extract_command(data_dir, cache_dir, views, **options)
    features = join_features(dataset, store, command, training.memory)
    if views:
        features = with_views(features, views, cache_dir, command, training.memory)
    results = tuple(train_on_features(features, head, training) for head in names)
    warnings = data_warnings(dataset, features.dataset, [store.dir])
    for warning in warnings[len(dataset.warnings) :]:  # the others were said when the images were found
        log.warning("%s", warning)
    write_run(folder, features, results, training, weights, warnings)
    return Run(folder, features, results, warnings)


def train_on_features(features: Features, head: str, training: Training) -> Result:
    """Return the head named `head`, trained on the training split and measured on the test split."""
    dataset = features.dataset
    train = ~dataset.is_test
    reset_peak_memory()
    trained = train_head(
        head,
        take(features.X, train),
        dataset.labels[train],
        dataset.digests[train],
        validation_part(dataset, training.seed),
        views=features.train_views,
        n_classes=len(dataset.class_names),
        seed=training.seed,
        epochs=training.epochs,
        batch_size=training.batch_size,
        patience=training.patience,
        show=training.show,
    )
    test = dataset.is_test
    details = dict(trained.details)
    result = measured(trained, take(features.X, test), dataset.labels[test], fit_s=trained.fit_s, details=details)
    return replace(result, out_of_fold=trained.out_of_fold)
