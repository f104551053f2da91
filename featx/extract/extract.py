"""Stage one of a data set: its images, and augmented views of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from featx.backbones import Weights
from featx.dataset import Data, ImageDataset, SkippedImage, images_of, scan, views_of
from featx.engines import ENGINES, EngineOptions, choose_engine, fast_precision, speedup
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    ExtractionOptions,
    ExtractionSettings,
    check_options,
    layers_of,
    resolve_layers,
    split_options,
)
from featx.extract.pipeline import Computed, compute_missing
from featx.images import Views, as_views
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir
from featx.store import FeatureStore

DEFAULT_SETTINGS = ExtractionSettings()

#: An extraction that took so many seconds says what a faster precision would have taken.
WORTH_SAYING_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ExtractedViews(Computed):
    """What an extraction did with augmented views; see also `Computed`.

    Attributes:
        views: the views that were asked for.
        n_images: images that have views.
    """

    views: Views
    n_images: int

    def __repr__(self) -> str:
        return (
            f"<{self.views.n} views of each of {self.n_images:,} images: {self.n_computed:,} computed, "
            f"{self.n_cached:,} from the cache>"
        )


@dataclass(frozen=True, kw_only=True)
class Faster:
    """What an extraction would have taken with `--precision fast`.

    Attributes:
        precision: what that is on this machine.
        elapsed_s: seconds, about; without the start, as a short timing of the processor says.
    """

    precision: str
    elapsed_s: float


@dataclass(frozen=True, kw_only=True)
class Extraction(Computed):
    """What an extraction did; see also `Computed`.

    Attributes:
        dataset: the images.
        elapsed_s: seconds that the whole call took.
        views: what it did with augmented views; None if there are none. The other attributes are about the images
            themselves.
        others: the same for each further layer that was computed in the same pass.
        faster: what it would have taken with `--precision fast`; None if that is no faster, or if it was short.
    """

    dataset: ImageDataset
    elapsed_s: float
    views: ExtractedViews | None = None
    others: tuple["Extraction", ...] = ()
    faster: Faster | None = None

    def __repr__(self) -> str:
        return (
            f"<Extraction of {self.dataset.n_images:,} images with {self.recipe.backbone}: {self.n_computed:,} "
            f"computed, {self.n_cached:,} from the cache, {len(self.skipped):,} skipped>"
        )


def extract_features(
    data_dir: Data,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    views: Views | int | None = None,
    ray_address: str | None = None,
    keep_pixels: bool = False,
    layers: Sequence[str] | str = (),
    **options: Unpack[ExtractionOptions],
) -> Extraction:
    """Compute the features of images that the store does not have yet, and of augmented views of these images.


    >>> from pathlib import Path
    >>> extraction = extract_features(Path("data"), backbone="vgg16", image_size=(150, 150))  # doctest: +SKIP

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`: a folder, a zip or tar file, or an address that
            fsspec opens, as text, such as `"s3://bucket/photos"`; or an `ImageFolders`, which names its splits.
        cache_dir: the cache: a folder, or the address of one on an object store.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        show: show progress on stderr.
        views: augmented views of the training images; of the test images, too, if it says so. A number means that many
            views as in the report. Views have their own store.
        ray_address: the Ray cluster that computes the features, like `"auto"` or `"HOST:PORT"`; this process if None.
            On a cluster, `threads` are the cores of each worker.
        keep_pixels: also keep the images that are decoded, `height * width * 3` bytes each. Networks with the same
            image size and resizing, and views, then decode nothing. Pixels that are kept are used in any case.
        layers: several layers instead of the option `layer`, such as `["block3_pool", "block5_pool"]`. The network runs
            once, and each layer has its own store; `Extraction.others` are those after the first. The network runs once
            for each layer in int8, on a cluster, and with the `keras` engine.
        options: what the features are and how the backbone is run, by name; see `featx.extract.RecipeOptions` and
            `featx.engines.EngineOptions`.

    Raises:
        FeatxError: the data set, the backbone, the weights or the store cannot be used; the message says what to do.
    """
    recipe_options, engine_options = split_options(options)
    of_layers = layers_of(layers, recipe_options)
    settings = ExtractionSettings(
        engine_options=engine_options,
        workers=workers,
        strict=strict,
        show=show,
        ray_address=ray_address,
        keep_pixels=keep_pixels,
    )
    cache_dir, views = as_cache_dir(cache_dir), as_views(views)
    for one in of_layers:
        check_options(cache_dir, **one)
    dataset = scan(data_dir, cache_dir, to_train=False, show=show)
    recipes, weights = resolve_layers(cache_dir, dataset, of_layers)
    first, *others = extract_layers(dataset, recipes, weights, cache_dir, settings, views=views)
    return replace(
        first,
        others=tuple(others),
        faster=_faster(first, settings.engine_options) if show and not ray_address else None,
    )


def _faster(extraction: Extraction, options: EngineOptions) -> Faster | None:
    """Return what the images of `extraction` would have taken in the fastest precision, if that is worth saying.

    What was computed by another engine than the fast one cannot be compared.
    """
    timings, precision = extraction.timings, fast_precision(extraction.recipe.backbone)
    if timings.elapsed_s < WORTH_SAYING_S or precision != "int8" or extraction.recipe.precision == precision:
        return None
    if precision not in ENGINES[choose_engine(options, extraction.recipe)].precisions:
        return None
    saved_s = timings.forward_s * (1 - 1 / speedup(precision, extraction.recipe.precision))
    return (
        Faster(precision=precision, elapsed_s=timings.elapsed_s - saved_s) if saved_s > timings.elapsed_s / 5 else None
    )


def extract_dataset(
    dataset: ImageDataset,
    recipe: Recipe,
    weights: Weights,
    cache_dir: StoragePath,
    settings: ExtractionSettings = DEFAULT_SETTINGS,
    *,
    views: Views | None = None,
) -> Extraction:
    """Compute the features of `dataset` that the store of `recipe` does not have yet, and of `views` of its images.

    Raises:
        DtypeOverflowError: a feature does not fit the storage dtype. What was computed before is kept.
        ImageError: an image cannot be read, and `settings` are strict. What was computed before is kept.
        StoreError: the store cannot be read or written.
    """
    (extraction,) = extract_layers(dataset, [recipe], weights, cache_dir, settings, views=views)
    return extraction


def extract_layers(
    dataset: ImageDataset,
    recipes: Sequence[Recipe],
    weights: Weights,
    cache_dir: StoragePath,
    settings: ExtractionSettings = DEFAULT_SETTINGS,
    *,
    views: Views | None = None,
) -> list[Extraction]:
    """Do as `extract_dataset` for recipes that differ in their layer, pooling and storage dtype, in one pass."""
    started = time.perf_counter()
    root = dataset.root.absolute()
    unreadable = [SkippedImage.of(root / path, b"", reason) for path, reason in dataset.unreadable]
    all_computed = compute_missing(
        images_of(dataset),
        recipes,
        lambda: weights,
        cache_dir,
        settings,
        dataset=dataset,
        unreadable=unreadable,
        whole_folder=root,
    )
    extracted: Sequence[ExtractedViews | None] = [None] * len(recipes)
    if views:
        extracted = _extract_views(dataset, recipes, weights, cache_dir, settings, views)
    elapsed_s = time.perf_counter() - started
    return [
        Extraction(**vars(computed), dataset=dataset, elapsed_s=elapsed_s, views=of_views)
        for computed, of_views in zip(all_computed, extracted, strict=True)
    ]


def _extract_views(
    dataset: ImageDataset,
    recipes: Sequence[Recipe],
    weights: Weights,
    cache_dir: StoragePath,
    settings: ExtractionSettings,
    views: Views,
) -> list[ExtractedViews]:
    """Make the stores of the views hold those of every image whose own features are there."""
    is_readable = FeatureStore(cache_dir, recipes[0]).contains(dataset.digests)
    viewed = dataset.subset(is_readable & (views.of_test | ~dataset.is_test))
    all_computed = compute_missing(
        views_of(viewed, views.n),
        [replace(recipe, augmentation=views.augmentation) for recipe in recipes],
        lambda: weights,
        cache_dir,
        settings,
        dataset=dataset,
        whole_folder=dataset.root.absolute(),
    )
    return [ExtractedViews(**vars(one), views=views, n_images=viewed.n_images) for one in all_computed]
