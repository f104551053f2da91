"""Stage one: computes the features that the store lacks, and nothing else."""

import os
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from featx.backbones import Weights
from featx.dataset import Data, ImageDataset, ImageFolders, SkippedImage, images_of, scan, views_of
from featx.engines import EngineOptions
from featx.errors import FeatxError
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    RECIPE_DEFAULTS,
    ExtractionOptions,
    RecipeOptions,
    option_variable,
    resolve_recipe,
    split_options,
    with_defaults,
)
from featx.extract.pipeline import compute_missing
from featx.images import Views, as_views
from featx.recipe import Recipe
from featx.storage import RemotePath, StoragePath, as_storage_path
from featx.store import FeatureStore
from featx.system import Timings, as_workers, shown

DEFAULT_ENGINE = EngineOptions()

#: The options of `featx extract` that decide which features lie where; the others are about how they are computed.
DECIDING = (
    *(f"--{name.replace('_', '-')}" for name in RECIPE_DEFAULTS),
    *("--train-folder", "--test-folder", "--zip-encoding", "--cache-dir"),
    *("--views", "--augment", "--flip", "--rotation", "--zoom", "--shear", "--test-views"),
)


@dataclass(frozen=True)
class ExtractedViews:
    """What an extraction did about augmented views.

    Attributes:
        views: what was asked for.
        recipe: what the features of the views are.
        store_dir: where they are.
        n_images: images that have views.
        n_computed: views computed now.
        n_cached: views whose features were there.
        timings: what was computed now has cost.
    """

    views: Views
    recipe: Recipe
    store_dir: StoragePath
    n_images: int
    n_computed: int
    n_cached: int
    timings: Timings


@dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    Attributes:
        dataset: the images.
        recipe: what their features are.
        store_dir: where they are.
        n_computed: images computed now.
        n_cached: images whose features were there.
        skipped: images that could not be read.
        timings: what was computed now has cost.
        elapsed_s: the whole call, in seconds.
        views: the same of augmented views; None if none were asked for. All else here is about the images themselves.
    """

    dataset: ImageDataset
    recipe: Recipe
    store_dir: StoragePath
    n_computed: int
    n_cached: int
    skipped: tuple[SkippedImage, ...]
    timings: Timings
    elapsed_s: float
    views: ExtractedViews | None = None


def extract_features(
    data_dir: Data,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    views: Views | int | None = None,
    ray_address: str | None = None,
    **options: Unpack[ExtractionOptions],
) -> Extraction:
    """Make the store hold the features of every image in `data_dir`, and of augmented views if there are to be any.

    >>> from pathlib import Path
    >>> extraction = extract_features(Path("data"), backbone="vgg16", image_size=(150, 150))  # doctest: +SKIP

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`: a folder, a zip or tar file, or an address that
            fsspec opens, as text, such as `"s3://bucket/photos"`; or an `ImageFolders`, which names its splits.
        cache_dir: where stores lie: a folder, or the address of one on an object store.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        show: show progress on stderr.
        views: augmented views, of training images only unless it says otherwise; they have a store of their own. A
            number means so many as in the report.
        ray_address: the Ray cluster that computes them, like `"auto"` or `"HOST:PORT"`; this process if None. There,
            `threads` are the cores of each worker.
        options: what the features are and how the backbone is run, by name; see `featx.extract.RecipeOptions` and
            `featx.engines.EngineOptions`.

    Raises:
        FeatxError: the data set, the backbone, the weights or the store is not fit; the message says what to do.
    """
    recipe_options, engine_options = split_options(options)
    cache_dir, views, workers = as_storage_path(cache_dir), as_views(views), as_workers(workers)
    if not isinstance(ray_address, str | None):
        raise FeatxError(f"The address of a Ray cluster is text, such as auto. Received: {shown(ray_address)}")
    dataset = scan(data_dir, cache_dir, to_train=False, show=show)
    recipe, weights = resolve_recipe(cache_dir, dataset, **recipe_options)
    return extract_dataset(
        dataset,
        recipe,
        weights,
        cache_dir,
        engine_options,
        views=views,
        workers=workers,
        strict=strict,
        show=show,
        ray_address=ray_address,
    )


def extract_dataset(
    dataset: ImageDataset,
    recipe: Recipe,
    weights: Weights,
    cache_dir: StoragePath,
    engine_options: EngineOptions = DEFAULT_ENGINE,
    *,
    views: Views | None = None,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    ray_address: str | None = None,
) -> Extraction:
    """Make the store of `recipe` hold the features of every image of `dataset`; arguments as for `extract_features`.

    Raises:
        DtypeOverflowError: a feature does not fit the storage dtype. What was computed before is kept.
        ImageError: `strict`, and an image cannot be read. What was computed before is kept.
        StoreError: the store cannot be read or written.
    """
    started = time.perf_counter()
    root = dataset.root.absolute()
    how: dict[str, Any] = {
        "dataset": dataset,
        "workers": workers,
        "strict": strict,
        "show": show,
        "ray_address": ray_address,
        "whole_folder": root,
    }
    computed = compute_missing(
        images_of(dataset),
        recipe,
        lambda: weights,
        cache_dir,
        engine_options,
        unreadable=[SkippedImage.of(root / path, b"", reason) for path, reason in dataset.unreadable],
        **how,
    )
    extracted = _extract_views(dataset, recipe, weights, cache_dir, engine_options, views, how) if views else None
    return Extraction(
        dataset=dataset,
        recipe=recipe,
        store_dir=cache_dir / recipe.slug,
        n_computed=computed.timings.n_images,
        n_cached=int(computed.is_cached.sum()),
        skipped=computed.skipped,
        timings=computed.timings,
        elapsed_s=time.perf_counter() - started,
        views=extracted,
    )


def _extract_views(
    dataset: ImageDataset,
    recipe: Recipe,
    weights: Weights,
    cache_dir: StoragePath,
    engine_options: EngineOptions,
    views: Views,
    how: dict[str, Any],
) -> ExtractedViews:
    """Make the store of the views hold those of every image whose own features are there."""
    is_readable = FeatureStore(cache_dir, recipe).contains(dataset.digests)
    viewed = dataset.subset(is_readable & (views.of_test | ~dataset.is_test))
    recipe = replace(recipe, augmentation=views.augmentation)
    computed = compute_missing(views_of(viewed, views.n), recipe, lambda: weights, cache_dir, engine_options, **how)
    return ExtractedViews(
        views=views,
        recipe=recipe,
        store_dir=cache_dir / recipe.slug,
        n_images=viewed.n_images,
        n_computed=computed.timings.n_images,
        n_cached=int(computed.is_cached.sum()),
        timings=computed.timings,
    )


def extract_command(
    data_dir: Data, cache_dir: StoragePath, views: Views | None = None, **options: Unpack[RecipeOptions]
) -> str:
    """Return the command line that extracts these features, as one would type it.

    Where a variable of the environment would stand for an option that is left out, the command unsets it.
    """
    named = ImageFolders.of(data_dir)
    root = as_storage_path(named.root)
    words = ["featx", "extract", f"./{root}" if str(root).startswith("-") else str(root)]
    if isinstance(root, RemotePath) and root.zip_encoding:
        words += ["--zip-encoding", root.zip_encoding]
    for option, folder in (("--train-folder", named.train), ("--test-folder", named.test)):
        words += [] if folder is None else [option, folder]
    for name, value in with_defaults(options).items():
        if value != RECIPE_DEFAULTS.get(name):
            words += [f"--{name.replace('_', '-')}", as_typed(value)]
    if views:
        words += [
            "--views",
            str(views.n),
            *str(views.augmentation).split(),
            *(["--test-views"] if views.of_test else []),
        ]
    if cache_dir != Path(DEFAULT_CACHE_DIR):
        words += ["--cache-dir", str(cache_dir)]
    variables = [option_variable(option) for option in DECIDING if option not in words]
    unset = [word for variable in variables if os.environ.get(variable) for word in ("-u", variable)]
    return shlex.join(["env", *unset, *words] if unset else words)


def as_typed(value: object) -> str:
    """Return an option's value as one would type it.

    >>> as_typed((64, 64)), as_typed((120, 160)), as_typed("vgg16")
    ('64', '120x160', 'vgg16')
    """
    if isinstance(value, tuple):
        return "x".join(map(str, dict.fromkeys(value)))
    return str(value)
