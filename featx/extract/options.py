"""Turns a user's options into the recipe that they mean on this machine, and a recipe into the command for it."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack, cast, get_type_hints

import numpy as np

from featx.backbones import (
    BACKBONES,
    CLASSIFIER_LAYER,
    NetworkFile,
    Weights,
    as_preprocessing,
    check_fit,
    check_weights,
    describe_network,
    find_backbone,
    find_block,
    find_weights,
    is_network_file,
    is_network_name,
    preprocessing_help,
)
from featx.dataset import Data, ImageDataset, ImageFolders
from featx.engines import (
    AUTO,
    ENGINES,
    FAST,
    EngineChoices,
    EngineOptions,
    auto_precision,
    best_calibration,
    calibration_digest,
    check_engine,
    engines_for,
    fast_precision,
    kept_calibrations,
    say_fast,
)
from featx.errors import BackboneError, FeatxError
from featx.images import ASPECT_RATIOS, Views
from featx.recipe import DTYPES, FALLBACK, LAYOUTS, POOLINGS, PRECISIONS, Recipe, as_image_size
from featx.storage import RemotePath, StoragePath, as_cache_dir, as_storage_path, expanded
from featx.system import (
    as_argument,
    as_workers,
    check_name,
    did_you_mean,
    names,
    shell_line,
    shown,
)
from featx.text import printable

log = logging.getLogger("featx")

#: What preprocessings of the table are called by users.
_TABLE_WORDS = {"caffe": "caffe", "tf": "tf", "torch": "imagenet", "none": "none", "efficientnet": "efficientnet"}

#: Where stores lie unless told otherwise.
DEFAULT_CACHE_DIR = "cache"

#: What may be done with an image of another aspect ratio, the default first; the others are in the recipe by name.
RESIZES = ("stretch", *ASPECT_RATIOS)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a recipe, wherever it is given: in Python, on the command line, by a variable, in advice.

    Attributes:
        help: what `--help` says.
        default: what None means; None if that depends on the backbone or the layer.
        default_words: what `--help` says then.
        choices: the values there are; empty if any text may be one.
        listed_by: the command that lists the values, if they are too many for `--help`.
        rule: what the error says about another value; empty if who uses the value finds out.
        parse: returns the value from the text that is typed, which the command line calls `metavar`.
        metavar: see `parse`.
    """

    help: str
    default: str | None = None
    default_words: str = ""
    choices: tuple[str, ...] = ()
    listed_by: str = ""
    rule: str = ""
    parse: Callable[[str], object] | None = None
    metavar: str = "text"

    @property
    def full_help(self) -> str:
        """What `--help` says, with the default."""
        default = self.default or self.default_words
        return f"{self.help}  [default: {default}]" if default else self.help


class RecipeOptions(TypedDict, total=False):
    """The options of a recipe: the only table of them.

    Every function that takes a recipe takes these by name. An option that is left out, or None, means the default.

    backbone: name in `featx.backbones.table.BACKBONES`, or the path of a network file (`.onnx`, `.keras`).
    weights: see `featx.backbones.weights.find_weights`.
    layer: name of the layer whose output is stored; the backbone's last one if None; `"predictions"` for the class
        probabilities of the whole classifier, whose weights are in another file. In a network file, the name of an
        output or of its node; if None, what its classifier takes.
    preprocess: what a network file wants of pixels, see `featx.backbones.as_preprocessing`: `"imagenet"`, `"caffe"`,
        `"tf"`, `"clip"`, `"none"`, or text like `"mean=127,std=128"`. It must be given for a network file.
    layout: `"nchw"` or `"nhwc"`, if the shape of a network file's input does not tell.
    pooling: `"avg"` or `"max"`, for the mean or the maximum of each channel; the complete output if None.
    image_size: in pixels, `(height, width)`, one number for both, or text like `"120x160"`; the backbone's own if None.
    resize: how images get that size: `"stretch"`, `"crop"` to the aspect ratio first, or `"pad"` to it with black bars.
    precision: `"float32"`, `"bfloat16"`, `"int8"`, or `"auto"`: bfloat16 where the hardware is fast, else float32; or
        `"fast"`: int8 where the processor is fast at it and there is a data set to calibrate it on, else as `"auto"`.
    dtype: storage dtype, `"float16"` or `"float32"`; if None, float32 for class probabilities, float16 for the rest.
    """

    backbone: Annotated[
        Path | str | None,
        Option(
            help="Pretrained network, such as vgg16, resnet50, efficientnetv2b0 or convnexttiny; featx backbones lists "
            "all. Or a network file, .onnx or .keras.",
            default="vgg16",
            choices=tuple(BACKBONES),
            listed_by="featx backbones",
        ),
    ]
    weights: Annotated[
        Path | str | None,
        Option(
            help="imagenet (from FEATX_WEIGHTS_DIR, else downloaded by Keras), a file in the layout of Keras's "
            "official ones (…_notop.h5), random or random:SEED for tests, or imagenet-or-random for demonstrations.",
            default="imagenet",
        ),
    ]
    layer: Annotated[str | None, Option(help="Layer whose output to store.", default_words="the backbone's last")]
    preprocess: Annotated[
        str | None,
        Option(
            help="What a network file wants of pixels: imagenet, caffe, tf, clip, none, or numbers for pixels from 0 "
            "to 255, like mean=127,std=128.",
            parse=as_preprocessing,
            metavar="preprocessing",
        ),
    ]
    layout: Annotated[
        str | None,
        Option(
            help="Order of the axes of a network file's input, if its shape does not tell.",
            choices=LAYOUTS,
            rule=f"A layout is {' or '.join(LAYOUTS)}.",
        ),
    ]
    pooling: Annotated[
        str | None,
        Option(
            help="Store only the mean or the maximum of each channel.",
            choices=POOLINGS,
            rule=f"Features are pooled by {' or '.join(POOLINGS)}.",
        ),
    ]
    image_size: Annotated[
        tuple[int, int] | int | str | None,
        Option(
            help="Image size in pixels, 224 or HEIGHTxWIDTH.",
            default_words="the backbone's own",
            parse=as_image_size,
            metavar="size",
        ),
    ]
    resize: Annotated[
        str | None,
        Option(
            help="How images get that size: stretch them, crop the middle, or pad with black bars.",
            default=RESIZES[0],
            choices=RESIZES,
            rule=f"Images are resized by {', '.join(RESIZES[:-1])} or {RESIZES[-1]}.",
        ),
    ]
    precision: Annotated[
        str | None,
        Option(
            help="Arithmetic of the network; auto is bfloat16 where the hardware is fast at it, else float32; fast is "
            "int8 where the processor is fast at it, else auto.",
            default=AUTO,
            choices=(AUTO, FAST, *PRECISIONS),
            rule=f"A precision is auto, fast, {', '.join(PRECISIONS)}.",
        ),
    ]
    dtype: Annotated[
        str | None,
        Option(
            help="Number format of stored features.",
            default_words=f"{DTYPES[0]}, class probabilities as {DTYPES[1]}",
            choices=DTYPES,
            rule=f"Features are stored as {' or '.join(DTYPES)}.",
        ),
    ]


#: The options of a recipe by name, in the order in which advice names them.
RECIPE_OPTIONS: dict[str, Option] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(RecipeOptions, include_extras=True).items()
}

#: What is meant by an option that is not given. None depends on the backbone, or on the layer.
RECIPE_DEFAULTS: dict[str, Any] = {name: option.default for name, option in RECIPE_OPTIONS.items()}


class ExtractionOptions(RecipeOptions, EngineChoices, total=False):
    """The options of an extraction: of the recipe, and of how the backbone is run.

    Every function that extracts takes these by name; see `RecipeOptions` and `featx.engines.EngineOptions`.
    """


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """How features are computed, from the command to the pipeline; none of it decides what they are.

    Attributes:
        engine_options: how the backbone is run.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        show: show progress on stderr.
        ray_address: the Ray cluster that computes them, as `ray.init` knows it; this process if None.
        keep_pixels: keep the images that are decoded, see `featx.store.KeptPixels`. What is kept is used in any case.

    Raises:
        FeatxError: one has the wrong type, or `workers` is no whole number of 1 or more.
    """

    engine_options: EngineOptions = field(default_factory=EngineOptions)
    workers: int | None = None
    strict: bool = False
    show: bool = False
    ray_address: str | None = None
    keep_pixels: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", as_workers(self.workers))
        if not isinstance(self.ray_address, str | None):
            raise FeatxError(f"The address of a Ray cluster is text, such as auto. Received: {shown(self.ray_address)}")


def split_options(options: ExtractionOptions) -> tuple[RecipeOptions, EngineOptions]:
    """Return what `options` say about the recipe, with the defaults, and about how the backbone is run.

    Raises:
        FeatxError: there is no such engine, it lacks the precision, or an option has the wrong type.
        TypeError: there is no such option.
    """
    _check_names(options, ExtractionOptions)
    engine = {name: value for name, value in options.items() if name not in RECIPE_OPTIONS}
    recipe = {name: value for name, value in options.items() if name in RECIPE_OPTIONS}
    chosen, how = with_defaults(cast(RecipeOptions, recipe)), EngineOptions.of(cast(EngineChoices, engine))
    if chosen["precision"] == FAST and how.engine not in {AUTO, *engines_for("int8", str(chosen["backbone"]))}:
        chosen["precision"] = AUTO
    if chosen["precision"] == AUTO and how.engine != AUTO and len(ENGINES[how.engine].precisions) == 1:
        (chosen["precision"],) = ENGINES[how.engine].precisions
    check_engine(how.engine, str(chosen["precision"]), str(chosen["backbone"]))
    return chosen, how


def _check_names(options: Mapping[str, object], known: type) -> None:
    """Raise as Python does for a misspelled argument: left alone, it would mean the default, without a word."""
    for name in options.keys() - get_type_hints(known).keys():
        there_are = sorted(get_type_hints(known))
        raise TypeError(f"there is no option {name!r}. Options: {', '.join(there_are)}.{did_you_mean(name, there_are)}")


def with_defaults(options: RecipeOptions) -> RecipeOptions:
    """Return all options of a recipe, those that are not given or None as `RECIPE_DEFAULTS` has them.

    Raises:
        FeatxError: one has the wrong type, or there is no such value.
        TypeError: there is no such option.
    """
    _check_names(options, RecipeOptions)
    given: dict[str, Any] = {**RECIPE_DEFAULTS, **{name: value for name, value in options.items() if value is not None}}
    for name in ("backbone", "weights"):
        if isinstance(given[name], os.PathLike):
            given[name] = os.fspath(given[name])
    if isinstance(given["dtype"], type | np.dtype):
        given["dtype"] = np.dtype(given["dtype"]).name
    if given["image_size"] is not None:
        given["image_size"] = as_image_size(given["image_size"])
    for name, value in given.items():
        option = RECIPE_OPTIONS[name]
        if name != "image_size" and not isinstance(value, str | None):
            raise FeatxError(f"The option {name} is text. Received: {shown(value)}")
        if option.rule and value is not None:
            check_name(value, option.choices, option.rule)
    return cast(RecipeOptions, given)


def check_options(cache_dir: StoragePath | str = DEFAULT_CACHE_DIR, **options: Unpack[RecipeOptions]) -> dict[str, Any]:
    """Return all options of a recipe, also those whose default depends on the backbone or the layer.

    It takes no time: call it before images are looked for, and weights are downloaded. Only a network file is read,
    the first time.

    Args:
        cache_dir: remembers what there is in network files.
        options: see `RecipeOptions`.

    Returns:
        The options; `preprocess` is that of the backbone, as recipes have it.

    Raises:
        BackboneError: there is no such backbone or layer, or it does not take images of this size.
        WeightsError: there is no such file of weights.
        FeatxError: one has the wrong type, or there is no such value.
        TypeError: there is no such option.
    """
    chosen: dict[str, Any] = {**with_defaults(options)}
    complete = _of_network_file if is_network_file(chosen["backbone"]) else _of_table
    chosen |= complete(chosen, as_cache_dir(cache_dir))
    chosen["dtype"] = chosen["dtype"] or ("float32" if chosen["layer"] == CLASSIFIER_LAYER else DTYPES[0])
    return chosen


def _of_table(chosen: Mapping[str, Any], _cache_dir: StoragePath) -> dict[str, Any]:
    """Return what the options mean for a backbone of the table, as far as that depends on it."""
    name, entry = chosen["backbone"], find_backbone(chosen["backbone"])
    layer, image_size = chosen["layer"] or entry.layer, chosen["image_size"] or as_image_size(entry.image_size)
    check_fit(name, layer, image_size, chosen["pooling"])
    check_weights(chosen["weights"], name)
    if (given := chosen["preprocess"]) is not None and as_preprocessing(given) != _TABLE_WORDS[entry.preprocessing]:
        raise BackboneError(
            f"{name} has its own preprocessing, {entry.preprocessing}: leave --preprocess out. Received: {given!r}"
        )
    if chosen["layout"] is not None:
        raise BackboneError(f"--layout is for network files: leave it out for {name}. Received: {chosen['layout']!r}")
    return {"layer": layer, "image_size": image_size, "preprocess": entry.preprocessing}


def _of_network_file(chosen: Mapping[str, Any], cache_dir: StoragePath) -> dict[str, Any]:
    """Return what the options mean for a network file, as far as that depends on the file."""
    path = expanded(chosen["backbone"])
    if not is_network_name(path.name):
        raise BackboneError(
            f"The name of the network file has characters that cannot be shown: rename it. Received: {printable(path)}"
        )
    check_weights(chosen["weights"], chosen["backbone"])
    if chosen["preprocess"] is None:
        raise BackboneError(
            f"{printable(path.name)} does not say what it wants of pixels: choose what it was trained with by "
            f"--preprocess: {preprocessing_help()}."
        )
    preprocessing = as_preprocessing(chosen["preprocess"])
    network = describe_network(path, cache_dir)
    network.check_preprocessing(preprocessing)
    layout = network.choose_layout(chosen["layout"])
    image_size = network.choose_image_size(chosen["image_size"], layout)
    layer = network.choose_layer(chosen["layer"], chosen["pooling"])
    if chosen["layer"] is None:
        _say_layer(network, layer)
    return {"layer": layer, "image_size": image_size, "preprocess": preprocessing, "layout": layout}


@cache  # so that it is said once
def _say_layer(network: NetworkFile, layer: str) -> None:
    name, shape = printable(network.name), network.find_layer(layer).shape_text
    log.info(
        "You gave no --layer: using %s of %s (%s). featx backbones %s lists all layers.",
        *(printable(layer), name, shape, name),
    )


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
        BackboneError: there is no such backbone or layer, or it does not take images of this size.
        WeightsError: there are no such weights.
        FeatxError: there is no such storage dtype, pooling or precision, or int8 has no data set.
        TypeError: there is no such option.
    """
    cache_dir = as_cache_dir(cache_dir)
    chosen = check_options(cache_dir, **options)
    is_whole = chosen["layer"] == CLASSIFIER_LAYER
    if chosen["precision"] == FAST and dataset is not None:
        chosen["precision"] = fast_precision(chosen["backbone"])
        say_fast(chosen["precision"])
    elif chosen["precision"] in {AUTO, FAST}:  # int8 would need a data set
        chosen["precision"] = auto_precision(chosen["backbone"])
    chosen["aspect_ratio"] = kept_aspect_ratio(chosen.pop("resize"))
    weights = find_weights(chosen["backbone"], chosen["weights"], cache_dir, whole=is_whole)
    preprocessing = chosen.pop("preprocess")
    if is_network_file(chosen["backbone"]):
        chosen["backbone"] = Path(chosen["backbone"]).name
    recipe = Recipe(**{**chosen, "weights": weights.digest}, preprocessing=preprocessing)
    return (_calibrated(recipe, cache_dir, dataset) if recipe.precision == "int8" else recipe), weights


def layers_of(layers: Sequence[str] | str, options: RecipeOptions) -> list[RecipeOptions]:
    """Return the options of each of several layers, each once; `options` themselves if there are none.

    Raises:
        FeatxError: `layers` are no names, `options` name a layer, too, or one of several is the whole classifier.
    """
    chosen = tuple(dict.fromkeys(names("layers", layers)))
    if chosen and options.get("layer"):
        raise FeatxError(f"Name layers by layer or by layers, not by both. Received: {shown(options['layer'])}")
    if CLASSIFIER_LAYER in chosen and len(chosen) > 1:
        raise FeatxError(
            f"The layer {CLASSIFIER_LAYER} belongs to the complete classifier, which has other weights: name it alone, "
            f"without other layers."
        )
    return [{**options, "layer": layer} for layer in chosen] or [options]


def resolve_layers(
    cache_dir: StoragePath, dataset: ImageDataset | None, of_layers: Sequence[RecipeOptions]
) -> tuple[list[Recipe], Weights]:
    """Return the recipes of several layers, see `layers_of`, and their weights; errors as for `resolve_recipe`."""
    first, weights = resolve_recipe(cache_dir, dataset, **of_layers[0])
    found: RecipeOptions = {}
    if not is_network_file(str(with_defaults(of_layers[0])["backbone"])):  # which has them in it
        # Weights are found once: looking for imagenet-or-random again would warn again.
        found = {"weights": str(weights.path or weights.digest.replace("random-", "random:"))}
    others: list[RecipeOptions] = [{**one, **found} for one in of_layers[1:]]
    return [first, *(resolve_recipe(cache_dir, dataset, **one)[0] for one in others)], weights


def kept_aspect_ratio(resize: str | None) -> str | None:
    """Return what `Recipe.aspect_ratio` is for the option `resize`.

    >>> kept_aspect_ratio("stretch"), kept_aspect_ratio("crop")
    (None, 'crop')
    """
    return None if resize == RESIZES[0] else resize


def _calibrated(recipe: Recipe, cache_dir: StoragePath, dataset: ImageDataset | None) -> Recipe:
    """Return an int8 recipe with the images that it is calibrated on."""
    if dataset is None:
        raise FeatxError("int8 needs a data set for calibration: name one, or choose another precision.")
    recipe = replace(recipe, fallback=FALLBACK)
    chosen = best_calibration(kept_calibrations(recipe, cache_dir), dataset)
    return replace(recipe, calibration=calibration_digest(chosen))


def options_before(
    block: str, cache_dir: StoragePath | str = DEFAULT_CACHE_DIR, **options: Unpack[RecipeOptions]
) -> tuple[str, RecipeOptions]:
    """Return the name of a block of the backbone, and the options of the features that it is tuned on.

    These are the output of the layer before the block, whatever the layer and pooling of `options`, which the head
    stands on.

    Args:
        block: see `featx.backbones.find_block`.
        cache_dir: remembers what there is in network files.
        options: see `RecipeOptions`.

    Raises:
        BackboneError: there is no such block, or no layer stays frozen.
        FeatxError: as for `check_options`.
    """
    chosen = check_options(cache_dir, **options)
    if is_network_file(chosen["backbone"]):
        raise BackboneError(
            f"Only a Keras application has blocks to tune: leave --tune out, or choose another --backbone. "
            f"Received: {printable(chosen['backbone'])}"
        )
    if not isinstance(block, str):
        raise FeatxError(f"A block to tune is text, such as block5. Received: {shown(block)}")
    name, layer = find_block(chosen["backbone"], block, chosen["layer"])
    return name, {**options, "layer": layer, "pooling": None}


def option_flag(name: str) -> str:
    """Return what an option is called on the command line.

    >>> option_flag("image_size")
    '--image-size'
    """
    return f"--{name.replace('_', '-')}"


def option_variable(flag: str) -> str:
    """Return the environment variable that gives an option of the command line.

    >>> option_variable("--image-size")
    'FEATX_IMAGE_SIZE'
    """
    return f"FEATX_{flag.removeprefix('--').replace('-', '_').upper()}"


#: The options of `featx extract` that decide which features lie where; the others are about how they are computed.
DECIDING = (
    *map(option_flag, RECIPE_OPTIONS),
    *("--train-folder", "--test-folder", "--zip-encoding", "--cache-dir"),
    *("--labels", "--label-regex", "--path-column", "--label-column", "--split-column"),
    *("--group-column", "--label-separator", "--unlabelled"),
    *("--views", "--augment", "--flip", "--rotation", "--zoom", "--shear", "--test-views"),
)


def extract_command(
    data_dir: Data, cache_dir: StoragePath, views: Views | None = None, **options: Unpack[RecipeOptions]
) -> str:
    """Return the command line that extracts these features, as one would type it.

    Where a variable of the environment would stand for an option that is left out, the command unsets it.
    """
    named = ImageFolders.of(data_dir)
    root = as_storage_path(named.root)
    words = ["featx", "extract", as_argument(root)]
    if isinstance(root, RemotePath) and root.zip_encoding:
        words += ["--zip-encoding", root.zip_encoding]
    for flag, folder in (("--train-folder", named.train), ("--test-folder", named.test)):
        words += [] if folder is None else [flag, folder]
    words += [] if named.labels is None else named.labels.words()
    for name, value in with_defaults(options).items():
        if value != RECIPE_DEFAULTS[name]:
            words += [option_flag(name), as_typed(value)]
    if views:
        words += ["--views", str(views.n), *str(views.augmentation).split()]
        words += ["--test-views"] if views.of_test else []
    if cache_dir != Path(DEFAULT_CACHE_DIR):
        words += ["--cache-dir", str(cache_dir)]
    variables = [option_variable(flag) for flag in DECIDING if flag not in words]
    unset = [word for variable in variables if os.environ.get(variable) for word in ("-u", variable)]
    return shell_line(["env", *unset, *words] if unset else words)


def as_typed(value: object) -> str:
    """Return an option's value as one would type it.

    >>> as_typed((64, 64)), as_typed((120, 160)), as_typed("vgg16")
    ('64', '120x160', 'vgg16')
    """
    return "x".join(map(str, dict.fromkeys(value))) if isinstance(value, tuple) else str(value)
