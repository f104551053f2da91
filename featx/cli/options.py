"""What several commands share: options, each defined once, and the way in which results are printed."""

import functools
import inspect
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from featx.cli.terminal import say, say_data
from featx.dataset import ImageFolders, chosen_data, has_data
from featx.engines import ENGINE_CHOICES, EngineOptions
from featx.errors import FeatxError
from featx.extract import DEFAULT_CACHE_DIR, RECIPE_OPTIONS, option_flag, option_variable
from featx.images import AUGMENTATIONS, MAX_VIEWS, choose_views
from featx.storage import StoragePath, as_data, as_storage_path, text_encoding
from featx.system import MemoryLimit, did_you_mean, parse_duration, parse_size
from featx.text import Shown, redacted_address
from featx.train import Training

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
    """One of some words; the error about another one names the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message}{did_you_mean(value, self.choices)}", ctx, param) from None


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
    """Return what a usage error says; of an unknown command or option, also the nearest that there is."""
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
    """An option that says so where its value came from the environment and is wrong."""

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
    kind = Choice(entry.choices) if entry.choices else entry.parse and Parsed(entry.metavar, entry.parse)
    return option(option_flag(name), type=kind, help=help or entry.full_help)


ZIP_ENCODING = option(
    "--zip-encoding",
    type=Parsed("encoding", text_encoding),
    help="Encoding of names for which a zip or tar file states none, such as gbk, shift_jis or cp866.  "
    "[default: utf-8 if all are valid in it]",
)


def _data(
    data: StoragePath | None,
    zip_encoding: str | None,
    train_folder: str | None,
    test_folder: str | None,
    cache_dir: StoragePath,
) -> dict[str, Any]:
    """Return the data set that is named, or else the default one, as `data`."""
    named = as_data(data, zip_encoding) if data and zip_encoding else data
    return {"data": ImageFolders(chosen_data(named, cache_dir), train_folder, test_folder), "cache_dir": cache_dir}


def _data_or_demo(
    data: StoragePath | None,
    zip_encoding: str | None,
    train_folder: str | None,
    test_folder: str | None,
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

    if data and demo:
        raise click.UsageError("--demo brings its own data: leave out DATA, or --demo.")
    settings = {"image_size": image_size, "weights": weights, "baselines": baselines}
    if not demo and (data or has_data()):
        return {**_data(data, zip_encoding, train_folder, test_folder, cache_dir), **settings, "quiet": quiet}
    if not demo:
        log.info("No data named, and nothing in data: this is the demo, as with --demo.")
    found = demo_data(cache_dir, show=not quiet)
    source = click.get_current_context().get_parameter_source
    settings |= {name: value for name, value in found.options.items() if source(name) is ParameterSource.DEFAULT}
    return {"data": ImageFolders(found.folder), "cache_dir": cache_dir, **settings, "quiet": quiet}


_DATA_OPTIONS = (
    click.argument("data", required=False, type=StoragePathType(path_type=Path)),
    option(
        "--train-folder",
        metavar="FOLDER",
        help="Folder in DATA whose sub-folders are the classes of the training split; . is DATA itself.  "
        "[default: found by its name]",
    ),
    option("--test-folder", metavar="FOLDER", help="The same for the test split; needs --train-folder."),
    ZIP_ENCODING,
)
DATA = combined(_data, *_DATA_OPTIONS)
DATA_OR_DEMO = combined(
    _data_or_demo,
    *_DATA_OPTIONS,
    click.option(
        "--demo",
        is_flag=True,
        help="Compare on the demo's data: photographs of cats and dogs from Kaggle, or without a network the built-in "
        "handwritten digits.  [default: without DATA, if there is no folder data]",
    ),
)
BACKBONE = recipe_option("backbone")
BACKBONE_LIST = option(
    "--backbone",
    "backbones",
    type=Choice(RECIPE_OPTIONS["backbone"].choices),
    multiple=True,
    default=[RECIPE_OPTIONS["backbone"].default],
    show_default=True,
    help="Pretrained network; repeat the option for several.",
)
RECIPE = options(*map(recipe_option, ("image_size", "weights", "layer", "pooling", "precision", "dtype")))


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


TRAIN_VIEWS = combined(
    _views,
    option(
        "--views",
        "n_views",
        type=click.IntRange(0, MAX_VIEWS),
        default=0,
        help="Augmented views of each training image, besides the image itself.",
    ),
    option(
        "--augment",
        type=Choice(list(AUGMENTATIONS)),
        help="How views are made: as in the report, --flip --rotation 20 --zoom 0.2 --shear 0.3.  "
        "[default: report, unless one of these is given]",
    ),
    option("--flip", is_flag=True, help="Swap left and right in one view of two."),
    option("--rotation", type=float, help="Rotate views by up to this many degrees, either way."),
    option("--zoom", type=float, help="Scale height and width of views, each by up to 1 ± this much."),
    option("--shear", type=float, help="Shear views by up to this many degrees, either way."),
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
        help="What runs the backbone; auto is keras if it can use a GPU, or for bfloat16 where OpenVINO has none; "
        "else openvino.",
    ),
    option("--batch-size", type=click.IntRange(1, 4096), help="Images in a batch.  [default: for the machine]"),
    option("--threads", type=click.IntRange(1), help="Processor cores for openvino.  [default: all]"),
    option("--streams", type=click.IntRange(1), help="Batches openvino runs side by side.  [default: for the machine]"),
    option(
        "--workers",
        type=click.IntRange(1),
        help="Decoding threads.  [default: one for each core, more for images elsewhere]",
    ),
    option("--strict", is_flag=True, help="Stop at the first image that cannot be read, instead of skipping it."),
)


def _training(seed: int, epochs: int, memory: int | None, *, quiet: bool) -> dict[str, Any]:
    """Return how models are trained as `training`."""
    return {"training": Training(seed=seed, epochs=epochs, show=not quiet, memory=MemoryLimit(memory)), "quiet": quiet}


STAGE_TWO = combined(
    _training,
    option("--seed", type=click.IntRange(0), default=Training.seed, help="Seed of all training."),
    option(
        "--epochs",
        type=click.IntRange(1),
        default=Training.epochs,
        help="Largest number of passes over the training images.",
    ),
    option(
        "--memory",
        type=Parsed("size", parse_size),
        help="Memory for training, like 4GiB; larger features are read from disk.  [default: half of what is free]",
    ),
)
DEADLINE = option(
    "--deadline",
    "deadline_s",
    type=Parsed("time", parse_duration),
    help="Deadline, like 90m, 8h or 1d12h: says how many machines meet it.",
)
MAP = options(
    option(
        "--map",
        "maps",
        multiple=True,
        metavar="CLASS=NUMBERS|FILE",
        help="Which classes of a pretrained classifier make a class, numbered from 0, like cats=281-285; give the "
        "option again for another class, or a JSON file.  [default: cats and dogs of ImageNet]",
    ),
    option(
        "--class-list",
        type=LocalPath(path_type=Path),
        help="JSON file with the names of a pretrained classifier's classes.",
    ),
)


@dataclass(frozen=True)
class Output:
    """How a command speaks.

    Attributes:
        show: show progress, and a summary at the end.
        as_json: print the result as JSON instead.
    """

    show: bool
    as_json: bool

    def say(self, result: Any, to_text: Callable[[Any], Shown], to_json: Callable[[Any], Any]) -> None:
        """Print a result on standard output: as JSON, as text, or not at all."""
        if self.as_json:
            say_data(json.dumps(to_json(result), indent=2))
        elif self.show:
            say(to_text(result))


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
        help="No progress, no summary; warnings and errors only.",
    ),
    option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_log_from(logging.DEBUG),
        help="Log decisions on standard error.",
    ),
    option("--json", "as_json", is_flag=True, help="Results as JSON on standard output."),
)
