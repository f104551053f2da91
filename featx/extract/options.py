"""From what a user asks for to the recipe that it means on this machine, for this data set."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast, get_type_hints

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, Weights, find_backbone, find_weights
from featx.dataset import ImageDataset
from featx.engines import EngineChoices, EngineOptions, best_calibration, calibration_digest, kept_calibrations
from featx.errors import FeatxError
from featx.recipe import DTYPES, POOLINGS, PRECISIONS, Recipe, as_image_size
from featx.storage import StoragePath, as_storage_path
from featx.system import has_fast_bfloat16, shown


class RecipeOptions(TypedDict, total=False):
    """What a user may choose about a recipe; every function that takes one takes these, by name.

    What is not given, or None, is what `RECIPE_DEFAULTS` says.

    backbone: name in `featx.backbones.table.BACKBONES`.
    weights: see `featx.backbones.weights.find_weights`.
    layer: name of the layer whose output is stored; the backbone's last one if None; `"predictions"` for the class
        probabilities of the whole classifier, whose weights are in another file.
    pooling: `"avg"` or `"max"`, for the mean or the largest of each channel alone; all of the output if None.
    image_size: in pixels, `(height, width)`, one number for both, or text like `"120x160"`; the backbone's own if None.
    precision: `"float32"`, `"bfloat16"`, `"int8"`, or `"auto"`: bfloat16 where the hardware speeds it up, else float32.
    dtype: storage dtype, `"float16"` or `"float32"`; if None, float32 for class probabilities, float16 for the rest.
    """

    backbone: str
    weights: Path | str
    layer: str | None
    pooling: str | None
    image_size: tuple[int, int] | int | str | None
    precision: str
    dtype: str | None


#: Where stores lie unless told otherwise.
DEFAULT_CACHE_DIR = "cache"

#: What is meant by an option that is not given: in Python, on the command line and in advice. None depends on the
#: backbone, or on the layer.
RECIPE_DEFAULTS: RecipeOptions = {
    "backbone": "vgg16",
    "weights": "imagenet",
    "layer": None,
    "pooling": None,
    "image_size": None,
    "precision": "auto",
    "dtype": None,
}


class ExtractionOptions(RecipeOptions, EngineChoices, total=False):
    """What a user may choose about an extraction: the recipe, and how the backbone is run.

    Every function that extracts takes these by name; see `RecipeOptions` and `featx.engines.EngineOptions`.
    """


def split_options(options: ExtractionOptions) -> tuple[RecipeOptions, EngineOptions]:
    """Return what `options` say about the recipe, with the defaults, and about how the backbone is run.

    Raises:
        FeatxError: there is no such engine, or an option has the wrong type.
        TypeError: there is no such option.
    """
    _check_names(options, ExtractionOptions)
    engine = {name: value for name, value in options.items() if name in EngineChoices.__annotations__}
    recipe = {name: value for name, value in options.items() if name in RecipeOptions.__annotations__}
    return with_defaults(cast(RecipeOptions, recipe)), EngineOptions.of(cast(EngineChoices, engine))


def _check_names(options: Mapping[str, object], known: type) -> None:
    """Raise as Python does for a misspelled argument: left alone, it would mean the default, without a word."""
    for name in options.keys() - get_type_hints(known).keys():
        raise TypeError(f"there is no option {name!r}; there are {', '.join(sorted(get_type_hints(known)))}")


def with_defaults(options: RecipeOptions) -> RecipeOptions:
    """Return all options of a recipe, those that are not given or None as `RECIPE_DEFAULTS` has them.

    Raises:
        FeatxError: one has the wrong type, or the image size is none.
        TypeError: there is no such option.
    """
    _check_names(options, RecipeOptions)
    given: dict[str, Any] = {**RECIPE_DEFAULTS, **{name: value for name, value in options.items() if value is not None}}
    if isinstance(given["weights"], os.PathLike):
        given["weights"] = os.fspath(given["weights"])
    if isinstance(given["dtype"], type | np.dtype):
        given["dtype"] = np.dtype(given["dtype"]).name
    if given["image_size"] is not None:
        given["image_size"] = as_image_size(given["image_size"])
    for name, value in given.items():
        if name != "image_size" and not isinstance(value, str | None):
            raise FeatxError(f"The option {name} is text. Received: {shown(value)}")
    return cast(RecipeOptions, given)


def option_variable(option: str) -> str:
    """Return the environment variable that gives an option of the command line.

    >>> option_variable("--image-size")
    'FEATX_IMAGE_SIZE'
    """
    return f"FEATX_{option.removeprefix('--').replace('-', '_').upper()}"


def resolve_recipe(
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    dataset: ImageDataset | None = None,
    **options: Unpack[RecipeOptions],
) -> tuple[Recipe, Weights]:
    """Return the recipe that `options` describe, and the weights it names.

    Args:
        cache_dir: remembers digests of files, and the images that int8 networks were calibrated on.
        dataset: whose images these are; only int8 needs to know.
        options: see `RecipeOptions`.

    Raises:
        BackboneError: there is no such backbone.
        WeightsError: there are no such weights.
        FeatxError: there is no such storage dtype, pooling or precision, or int8 lacks a data set.
        TypeError: there is no such option.
    """
    cache_dir, chosen = as_storage_path(cache_dir), with_defaults(options)
    pooling = chosen["pooling"]
    if pooling is not None and pooling not in POOLINGS:
        raise FeatxError(f"Features are pooled by {' or '.join(POOLINGS)}. Received: {pooling!r}")
    precision = _resolve_precision(chosen["precision"])
    entry = find_backbone(chosen["backbone"])
    layer = chosen["layer"] or entry.layer
    is_whole = layer == CLASSIFIER_LAYER
    dtype = _resolve_dtype(chosen["dtype"], default="float32" if is_whole else DTYPES[0])
    weights = find_weights(chosen["backbone"], str(chosen["weights"]), cache_dir, whole=is_whole)
    recipe = Recipe(
        backbone=chosen["backbone"],
        weights=weights.digest,
        layer=layer,
        pooling=pooling,
        image_size=as_image_size(chosen["image_size"] or entry.image_size),
        preprocessing=entry.preprocessing,
        precision=precision,
        dtype=dtype,
    )
    return (_calibrated(recipe, cache_dir, dataset) if precision == "int8" else recipe), weights


def _resolve_dtype(dtype: str | None, default: str) -> str:
    if dtype is not None and dtype not in DTYPES:
        raise FeatxError(f"Features are stored as {' or '.join(DTYPES)}. Received: {dtype!r}")
    return dtype or default


def _resolve_precision(precision: str) -> str:
    if precision == "auto":
        return "bfloat16" if has_fast_bfloat16() else "float32"
    if precision not in PRECISIONS:
        raise FeatxError(f"A precision is auto, {', '.join(PRECISIONS)}. Received: {precision!r}")
    return precision


def _calibrated(recipe: Recipe, cache_dir: StoragePath, dataset: ImageDataset | None) -> Recipe:
    """Return an int8 recipe with the images that it is calibrated on."""
    if dataset is None:
        raise FeatxError(
            "An int8 recipe depends on the images it is calibrated on: name the data set, or choose another precision."
        )
    chosen = best_calibration(kept_calibrations(recipe, cache_dir), dataset)
    return replace(recipe, calibration=calibration_digest(chosen))
