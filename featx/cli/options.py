"""What several commands share: options, each defined once, and how results are printed."""

import functools
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from featx.backbones import LAST_BLOCK, is_network_file
from featx.cli.terminal import say, say_data
from featx.dataset import ImageFolders, Labels, chosen_data, has_data
from featx.engines import ENGINE_CHOICES, EngineOptions
from featx.errors import FeatxError
from featx.extract import DEFAULT_CACHE_DIR, RECIPE_OPTIONS, option_flag, option_variable
from featx.heads import DEFAULT_HEADS, HEADS, MAX_EPOCHS, MAX_SEED
from featx.images import AUGMENTATIONS, MAX_VIEWS, Augmentation, choose_views
from featx.storage import StoragePath, as_data, as_storage_path, text_encoding
from featx.system import MAX_THREADS, MemoryLimit, did_you_mean, parse_duration, parse_size
from featx.text import Shown, printable, redacted_address
from featx.train import MAX_FOLDS, MAX_REPEATS, RUN_HEADS, Training

log = logging.getLogger("featx")

#: What options were called before. A command that takes these names does not show them.
FORMER_NAMES = {"rival": "baseline", "set-aside": "quarantined"}
TAKES_FORMER_NAMES = {"token_normalize_func": lambda name: FORMER_NAMES.get(name, name)}

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Parsed(click.ParamType[Any]):
    """What a function makes of the text: `224` becomes `(224, 224)`, `4GiB` a number of bytes, `8h` seconds."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text says; a default is a value already."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except FeatxError as error:
            self.fail(str(error), param, ctx)


class Choice(click.Choice[str]):
    """One of some words; the error about another one names the nearest.

    Attributes:
        listed_by: the command that lists the words, where they are too many for `--help` and for an error.
    """

    def __init__(self, choices: Iterable[str], listed_by: str = "") -> None:
        super().__init__(list(choices))
        self.listed_by = listed_by

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return what `--help` shows for the word."""
        return "NAME" if self.listed_by else super().get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            message = f"{value!r} is not in the list of {self.listed_by}." if self.listed_by else error.message
            raise click.BadParameter(f"{message}{did_you_mean(value, self.choices)}", ctx, param) from None


class BackboneType(Choice):
    """A name of the table, or the path of a network file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name or the path."""
        return str(value) if is_network_file(value) else super().convert(value, param, ctx)


class StoragePathType(click.Path):
    """A path on the command line, or an address; a `featx.storage.StoragePath` in Python."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the address."""
        return as_storage_path(value) if "://" in str(value) else super().convert(value, param, ctx)


class LocalPath(click.Path):
    """A file or folder on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if "://" in str(value):
            self.fail(f"name a path on this machine. Received: {redacted_address(str(value))}", param, ctx)
        return super().convert(value, param, ctx)


def with_nearest(error: click.UsageError) -> str:
    """Return the message of a usage error; for an unknown command or option, with the nearest one that exists."""
    command = error.ctx.command if error.ctx else click.Command(None)
    if isinstance(error, click.NoSuchOption):
        flags = [flag for param in command.params for flag in param.opts]
        former = {f"--{old}": f"--{new}" for old, new in FORMER_NAMES.items() if f"--{new}" in flags}
        meant = did_you_mean(error.option_name, [*flags, *former])
        for old, new in former.items():
            meant = meant.replace(f" {old}?", f" {new}?")
        return f"{error.message}{meant}"
    if (name := getattr(error, "command_name", None)) and isinstance(command, click.Group):  # since click 8.4
        return f"{error.message}{did_you_mean(name, command.commands)}"
    return error.format_message()


def options(*decorators: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return one decorator that adds all of `decorators`, in the order in which `--help` shows them."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def combined(
    make: Callable[..., dict[str, Any]], *decorators: Callable[[_Command], _Command]
) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options and gives the command what `make` makes of their values.

    `make` takes values by their parameters' names, and returns the parameters that the command gets in their place.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_made(**values: Any) -> Any:
            taken = {name: values.pop(name) for name in inspect.signature(make).parameters if name in values}
            return command(**make(**taken), **values)

        return options(*decorators)(cast("_Command", with_made))

    return decorate


class _Option(click.Option):
    """An option whose error says if the wrong value came from an environment variable."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what the option is called in an error."""
        hint = super().get_error_hint(ctx)
        if not ctx or ctx.get_parameter_source(self.name or "") is not ParameterSource.ENVIRONMENT:
            return hint
        return f"{hint} (environment variable {next(filter(os.environ.get, self.envvar or ()))})"


def option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return `click.option(...)` that an environment variable gives as well: for `--image-size`, `FEATX_IMAGE_SIZE`.

    The variable of a former name counts, too. A default is shown.
    """
    long_name = next(name for name in names if name.startswith("--"))
    former = [old for old, new in FORMER_NAMES.items() if f"--{new}" == long_name]
    variables = list(map(option_variable, [long_name, *former]))
    settings.setdefault("show_default", "default" in settings)
    return click.option(*names, cls=_Option, envvar=variables, **settings)


def recipe_option(name: str, *, help: str | None = None) -> Callable[[_Command], _Command]:  # noqa: A002
    """Return an option of the recipe, by its name in Python; `help` is instead of the table's."""
    entry = RECIPE_OPTIONS[name]
    of_words = BackboneType if name == "backbone" else Choice
    of_text = entry.parse and Parsed(entry.metavar, entry.parse)
    kind = of_words(entry.choices, entry.listed_by) if entry.choices else of_text
    return option(option_flag(name), type=kind, help=help or entry.full_help)


ZIP_ENCODING = option(
    "--zip-encoding",
    type=Parsed("encoding", text_encoding),
    help="Encoding of file names in a zip or tar file that does not state it, such as gbk, shift_jis or cp866.  "
    "[default: utf-8 if all names are valid in it]",
)


def _labels(
    table: StoragePath | None,
    label_regex: str | None,
    path_column: str | None,
    label_column: str | None,
    split_column: str | None,
    group_column: str | None,
    label_separator: str | None,
    unlabelled: str,
) -> dict[str, Any]:
    """Return where the labels are as `labels`; None if the names of folders are the labels."""
    columns = {"path_column": path_column, "label_column": label_column, "split_column": split_column}
    columns["group_column"] = group_column
    if table is None and label_regex is None:
        if named := [name for name, column in columns.items() if column is not None]:
            raise click.UsageError(
                f"--{named[0].replace('_', '-')} names a column of a table: name that with --labels."
            )
        if label_separator is not None:
            raise click.UsageError(
                "--label-separator divides the labels of a table or of file names: name these with --labels or "
                "--label-regex."
            )
        return {"labels": None}
    skip, keep = unlabelled == "skip", unlabelled == "keep"
    how: dict[str, Any] = {**columns, "separator": label_separator, "skip_unlabelled": skip, "keep_unlabelled": keep}
    return {"labels": Labels(table, label_regex, **how)}


def _data(
    data: StoragePath | None,
    zip_encoding: str | None,
    train_folder: str | None,
    test_folder: str | None,
    labels: Labels | None,
    cache_dir: StoragePath,
) -> dict[str, Any]:
    """Return the data set that is named, or else the default one, as `data`."""
    if data is None and labels and isinstance(labels.table, StoragePath):
        data = labels.table.parent
        log.info("You named no data: using the images in %s, the folder of the labels.", printable(data))
    named = as_data(data, zip_encoding) if data and zip_encoding else data
    folders = ImageFolders(chosen_data(named, cache_dir), train_folder, test_folder, labels)
    return {"data": folders, "cache_dir": cache_dir}


def _data_or_demo(
    data: StoragePath | None,
    zip_encoding: str | None,
    train_folder: str | None,
    test_folder: str | None,
    labels: Labels | None,
    cache_dir: StoragePath,
    *,
    demo: bool,
    quiet: bool,
    image_size: tuple[int, int] | None,
    weights: str,
    baselines: tuple[str, ...],
) -> dict[str, Any]:
    """Return the data set that is named, or the folder `data`, or else the demo's, with what the demo sets."""
    from featx.dataset.kaggle import demo_data

    if (data or labels) and demo:
        raise click.UsageError(f"--demo has its own data: leave out {'DATA' if data else 'the labels'}, or --demo.")
    settings = {"image_size": image_size, "weights": weights, "baselines": baselines}
    if not demo and (data or labels or has_data()):
        return {**_data(data, zip_encoding, train_folder, test_folder, labels, cache_dir), **settings, "quiet": quiet}
    if not demo:
        log.info("You named no data, and there is nothing in data/: running the demo, as with --demo.")
    found = demo_data(cache_dir, show=not quiet)
    source = click.get_current_context().get_parameter_source
    settings |= {name: value for name, value in found.options.items() if source(name) is ParameterSource.DEFAULT}
    return {"data": ImageFolders(found.folder), "cache_dir": cache_dir, **settings, "quiet": quiet}


_LABELS = combined(
    _labels,
    option(
        "--labels",
        "table",
        metavar="FILE",
        type=StoragePathType(path_type=Path),
        help="CSV, TSV, JSON lines or Parquet file with the columns path, label, and perhaps split and group. Paths "
        "are relative to DATA.  [default: the names of folders are the labels]",
    ),
    option("--path-column", metavar="NAME", help="Column of the table with the paths.  [default: path]"),
    option("--label-column", metavar="NAME", help="Column of the table with the labels.  [default: label]"),
    option(
        "--split-column",
        metavar="NAME",
        help="Column of the table with the splits, like train and test.  [default: split, if there is one]",
    ),
    option(
        "--group-column",
        metavar="NAME",
        help="Column of the table with groups, like patients, which are never split.  [default: group, if there is "
        "one]",
    ),
    option(
        "--label-regex",
        metavar="REGEX",
        help="Find labels in paths instead: a regular expression with a group label, like "
        "'(?P<label>[^/.]+)\\.\\d+\\.jpg'.",
    ),
    option(
        "--label-separator",
        metavar="TEXT",
        help="Text between the labels of an image that has several, like | in cat|dark: heads then decide about each "
        "label by itself.  [default: each image has one label]",
    ),
    option(
        "--unlabelled",
        type=Choice(["error", "skip", "keep"]),
        default="error",
        help="What to do with images whose label is empty or not found: stop, leave them out, or, with several labels "
        "for an image, keep them as images with none.",
    ),
)
_DATA_OPTIONS = (
    click.argument("data", required=False, type=StoragePathType(path_type=Path)),
    option(
        "--train-folder",
        metavar="FOLDER",
        help="Folder in DATA whose sub-folders are the classes of the training split; . is DATA itself.  "
        "[default: found by its name]",
    ),
    option("--test-folder", metavar="FOLDER", help="The same for the test split; needs --train-folder."),
    _LABELS,
    ZIP_ENCODING,
)
DATA = combined(_data, *_DATA_OPTIONS)
DATA_OR_DEMO = combined(
    _data_or_demo,
    *_DATA_OPTIONS,
    click.option(
        "--demo",
        is_flag=True,
        help="Use the demo's data: photographs of cats and dogs from Kaggle; without a network, handwritten digits.  "
        "[default: if you leave out DATA and there is no folder data]",
    ),
)
BACKBONE = recipe_option("backbone")
BACKBONE_LIST = option(
    "--backbone",
    "backbones",
    type=BackboneType(RECIPE_OPTIONS["backbone"].choices, RECIPE_OPTIONS["backbone"].listed_by),
    multiple=True,
    default=[RECIPE_OPTIONS["backbone"].default],
    show_default=True,
    help=f"{RECIPE_OPTIONS['backbone'].help} Repeat the option for several.",
)
_BEFORE_LAYER, _AFTER_LAYER = (
    ("image_size", "resize", "weights"),
    ("preprocess", "layout", "pooling", "precision", "dtype"),
)
RECIPE = options(*map(recipe_option, (*_BEFORE_LAYER, "layer", *_AFTER_LAYER)))
RECIPE_OF_LAYERS = options(
    *map(recipe_option, _BEFORE_LAYER),
    option(
        "--layer",
        "layers",
        multiple=True,
        help="Layer whose output to store; repeat the option for several, which the network computes in one pass.  "
        f"[default: {RECIPE_OPTIONS['layer'].default_words}]",
    ),
    *map(recipe_option, _AFTER_LAYER),
)


def _views(
    n_views: int,
    augment: str | None,
    *,
    flip: bool,
    rotation: float | None,
    zoom: float | None,
    shear: float | None,
    test_views: bool = False,
) -> dict[str, Any]:
    """Return the augmented views that are asked for as `views`."""
    settings = {"flip": flip or None, "rotation": rotation, "zoom": zoom, "shear": shear}
    return {"views": choose_views(n_views, augment, of_test=test_views, **settings)}


def _setting(name: str) -> Parsed:
    """Return the type of a number of `Augmentation`, refused before anything is looked for if it is out of range."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise FeatxError(f"{text!r} is not a number.") from None
        replace(Augmentation(), **{name: number})  # type: ignore[arg-type]  # flip is a bool
        return number

    return Parsed("float", parse)


TRAIN_VIEWS = combined(
    _views,
    option(
        "--views",
        "n_views",
        type=click.IntRange(0, MAX_VIEWS),
        default=0,
        help="Number of augmented views of each training image, besides the image itself.",
    ),
    option(
        "--augment",
        type=Choice(list(AUGMENTATIONS)),
        help="How to make views; report means --flip --rotation 20 --zoom 0.2 --shear 0.3.  "
        "[default: report, unless you give one of these]",
    ),
    option("--flip", is_flag=True, help="Swap left and right in half of the views."),
    option("--rotation", type=_setting("rotation"), help="Rotate each view by up to this many degrees, either way."),
    option(
        "--zoom", type=_setting("zoom"), help="Scale height and width of each view by up to ± this share, like 0.2."
    ),
    option("--shear", type=_setting("shear"), help="Shear each view by up to this many degrees, either way."),
)
VIEWS = options(
    TRAIN_VIEWS,
    option(
        "--test-views", is_flag=True, help="Make views of the test images, too, to average probabilities over them."
    ),
)
CACHE_DIR = option(
    "--cache-dir",
    type=StoragePathType(path_type=Path, file_okay=False),
    default=Path(DEFAULT_CACHE_DIR),
    help="Where featx keeps features: a folder, or an address like s3://bucket/features.",
)
STAGE_ONE = options(
    option(
        "--engine",
        type=Choice(ENGINE_CHOICES),
        default=EngineOptions.engine,
        show_default=True,
        help="What runs the backbone; auto is keras if it can use a GPU, or for bfloat16 if OpenVINO lacks it here; "
        "else ncnn, if installed, for VGG in float32 on images of 96×96 pixels or more; else openvino.",
    ),
    option("--batch-size", type=click.IntRange(1, 4096), help="Images in a batch.  [default: for this machine]"),
    option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        help="Processor cores for openvino and ncnn.  [default: all]",
    ),
    option(
        "--streams",
        type=click.IntRange(1, MAX_THREADS),
        help="How many batches (openvino) or images (ncnn) run in parallel.  [default: for this machine]",
    ),
    option(
        "--workers",
        type=click.IntRange(1, MAX_THREADS),
        help="Threads that decode images.  [default: one for each core, more for remote images]",
    ),
    option("--strict", is_flag=True, help="Stop at the first image that cannot be read, instead of skipping it."),
)


def _training(
    seed: int, epochs: int, memory: int | None, class_weights: str | None, *, calibrate: bool, quiet: bool
) -> dict[str, Any]:
    """Return how models are trained as `training`."""
    rest: dict[str, Any] = {"class_weights": class_weights, "calibrate": calibrate, "show": not quiet}
    how = Training(seed, epochs, memory=MemoryLimit(memory), **rest)
    return {"training": how, "quiet": quiet}


STAGE_TWO = combined(
    _training,
    option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        default=Training.seed,
        help="Seed for everything random in training.",
    ),
    option(
        "--epochs",
        type=click.IntRange(1, MAX_EPOCHS),
        default=Training.epochs,
        help="Largest number of passes over the training images; early stopping may end sooner.",
    ),
    option(
        "--memory",
        type=Parsed("size", parse_size),
        help="Memory for training, like 4GiB; larger features are read from disk.  [default: half of the free memory]",
    ),
    option(
        "--class-weights",
        metavar="balanced|FILE",
        help="How much images of each class count in training: balanced makes rare classes count as much as common "
        "ones; or a CSV or JSON file of classes and weights.  [default: all images count the same]",
    ),
    option(
        "--calibrate/--no-calibrate",
        default=Training.calibrate,
        show_default=False,
        help="Calibrate the probabilities of heads with held-out training images.  [default: calibrate]",
    ),
)
TUNE = option(
    "--tune",
    metavar="[BLOCK]",
    is_flag=False,
    flag_value=LAST_BLOCK,
    help="Tune a block of the backbone, such as block5, with the head, on cached features of the layer before it.  "
    "[default without a name: the last block]",
)
HEADS_TO_TRAIN = click.option(
    "--head",
    "heads",
    type=Choice(HEADS),
    multiple=True,
    default=DEFAULT_HEADS,
    help=f"Head to train; repeat the option for several.  [default: {' and '.join(DEFAULT_HEADS)}]",
)
FOLDS = options(
    option(
        "--folds",
        type=click.IntRange(2, MAX_FOLDS),
        help="Divide all images into this many folds, and test each fold with models trained on the others.  "
        "[default: one test split]",
    ),
    option(
        "--fold-repeats",
        type=click.IntRange(1, MAX_REPEATS),
        default=1,
        help="Divide the images this many times, each time otherwise.",
    ),
)
HEAD = click.option(
    "--head",
    type=Choice(RUN_HEADS),
    help=f"Head to use.  [default: the first of {', '.join(RUN_HEADS)} that the run has]",
)
DEADLINE = option(
    "--deadline",
    "deadline_s",
    type=Parsed("time", parse_duration),
    help="Deadline, like 90m, 8h or 1d12h; the plan then says how many machines meet it.",
)
MAP = options(
    option(
        "--map",
        "maps",
        multiple=True,
        metavar="CLASS=NUMBERS|FILE",
        help="The network's classes that make one of yours, numbered from 0, like cats=281-285; repeat the option for "
        "each class, or name a JSON file.  [default: cats and dogs of ImageNet]",
    ),
    option(
        "--class-list",
        type=LocalPath(path_type=Path),
        help="JSON file with the names of the network's classes.",
    ),
)


@dataclass(frozen=True)
class Output:
    """What a command prints.

    Attributes:
        show: whether to show progress, and a summary at the end.
        as_json: whether to print the result as JSON instead.
    """

    show: bool
    as_json: bool

    def say(self, result: Any, to_text: Callable[[Any], Shown], to_json: Callable[[Any], Any]) -> None:
        """Print a result on standard output: as JSON, as text, or not at all."""
        if self.as_json:
            say_data(json.dumps(to_json(result), indent=2))
        elif self.show and (text := to_text(result)):
            say(text)


def _output(*, quiet: bool, as_json: bool) -> dict[str, Any]:
    return {"output": Output(show=not quiet, as_json=as_json)}


def _log_from(level: int) -> Callable[[click.Context, click.Parameter, bool], bool]:
    """Return the callback of an option that decides how much is said on standard error."""

    def set_level(_ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
        if value:
            logging.getLogger("featx").setLevel(level)
        return value

    return set_level


OUTPUT = combined(
    _output,
    option(
        "--quiet",
        is_flag=True,
        callback=_log_from(logging.WARNING),
        help="Print no progress and no summary, only warnings and errors.",
    ),
    option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_log_from(logging.DEBUG),
        help="Also print details on standard error, such as the recipe and the engine.",
    ),
    option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
)
