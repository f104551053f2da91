"""What a command says when it is done, on standard output: for people, as JSON, or nothing."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from featx.compare import BASELINE_NAMES
from featx.engines import ENGINE_CHOICES, EngineOptions
from featx.errors import FeatxError, printable, redacted
from featx.extract import DEFAULT_CACHE_DIR, RECIPE_OPTIONS, option_flag, option_variable
from featx.images import AUGMENTATIONS, MAX_VIEWS, choose_views
from featx.storage import StoragePath, as_data, as_storage_path, text_encoding
from featx.system import parse_duration, parse_size
from featx.train import Training

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Parsed(click.ParamType[Any]):
    """What a function makes of the text: `224` becomes `(224, 224)`, `4GiB` a number of bytes, `8h` seconds."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text says; a default is none."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except FeatxError as error:
            self.fail(str(error), param, ctx)


def options(*decorators: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return one decorator that adds all of `decorators`, in the order in which `--help` is to show them."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


class _Option(click.Option):
    """An option that says so where its value came from the environment and is wrong."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what the option is called in an error."""
        hint = super().get_error_hint(ctx)
        from_environment = ctx and ctx.get_parameter_source(self.name or "") is ParameterSource.ENVIRONMENT
        return f"{hint} (environment variable {self.envvar})" if from_environment else hint


def option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return `click.option(...)` that an environment variable gives as well: for `--image-size`, `FEATX_IMAGE_SIZE`."""
    long_name = next(name for name in names if name.startswith("--"))
    return click.option(*names, cls=_Option, envvar=option_variable(long_name), **settings)


def recipe_option(name: str, *, help: str | None = None) -> Callable[[_Command], _Command]:  # noqa: A002
    """Return an option of the recipe, by its name in Python; `help` is instead of the table's."""
    entry = RECIPE_OPTIONS[name]
    kind = click.Choice(entry.choices) if entry.choices else entry.parse and Parsed(entry.metavar, entry.parse)
    return option(option_flag(name), type=kind, help=help or entry.full_help)


def _log_from(level: int) -> Callable[[click.Context, click.Parameter, bool], bool]:
    """Return what an option does that decides how much is said on standard error."""

    def set_level(_ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
        if value:
            logging.getLogger("featx").setLevel(level)
        return value

    return set_level


class StoragePathType(click.Path):
    """A path on the command line, or an address; a `featx.storage.StoragePath` in Python."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place."""
        return as_storage_path(value) if "://" in str(value) else super().convert(value, param, ctx)


class LocalFolder(click.Path):
    """A folder that featx writes on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if "://" in str(value):
            self.fail(f"name a folder on this machine. Received: {printable(redacted(str(value)))}", param, ctx)
        return super().convert(value, param, ctx)


ZIP_ENCODING = option(
    "--zip-encoding",
    type=Parsed("encoding", text_encoding),
    help="Encoding of names for which a zip or tar file states none, such as gbk, shift_jis or cp866.  "
    "[default: utf-8 if all are valid in it]",
)


def DATA(command: _Command) -> _Command:  # noqa: N802 - used as the other options are
    """Give `command` the argument DATA and the options of its names and splits, as one parameter, `data`.

    It is a `featx.dataset.image_dataset.ImageFolders`, whose root is the default one if none was named.
    """

    @functools.wraps(command)
    def with_data(
        *args: Any,
        data: StoragePath | None,
        cache_dir: StoragePath,
        zip_encoding: str | None,
        train_folder: str | None,
        test_folder: str | None,
        **others: Any,
    ) -> Any:
        from featx.dataset import ImageFolders, chosen_data

        named = as_data(data, zip_encoding) if data and zip_encoding else data
        folders = ImageFolders(chosen_data(named, cache_dir), train_folder, test_folder)
        return command(*args, data=folders, cache_dir=cache_dir, **others)

    return cast("_Command", _DATA(with_data))


_DATA = options(
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
BACKBONE = recipe_option("backbone")
BACKBONE_LIST = option(
    "--backbone",
    "backbones",
    type=click.Choice(RECIPE_OPTIONS["backbone"].choices),
    multiple=True,
    default=[RECIPE_OPTIONS["backbone"].default],
    show_default=True,
    help="Pretrained network; give the option again for another one.",
)
RECIPE = options(*map(recipe_option, ("image_size", "weights", "layer", "pooling", "precision", "dtype")))
_VIEWS = options(
    option(
        "--views",
        "n_views",
        type=click.IntRange(0, MAX_VIEWS),
        default=0,
        show_default=True,
        help="Augmented views of each training image, besides the image itself.",
    ),
    option(
        "--augment",
        type=click.Choice(list(AUGMENTATIONS)),
        help="How views are made: as in the report, --flip --rotation 20 --zoom 0.2 --shear 0.3.  "
        "[default: report, unless one of these is given]",
    ),
    option("--flip", is_flag=True, help="Swap left and right in one view of two."),
    option("--rotation", type=float, help="Turn views by as many degrees at most, either way."),
    option("--zoom", type=float, help="Scale height and width of views, each by 1 ± as much at most."),
    option("--shear", type=float, help="Slant views by as many degrees at most, either way."),
)
_TEST_VIEWS = option(
    "--test-views", is_flag=True, help="Make views of the test images, too, to average probabilities over them."
)


def _with_views(command: _Command, *, has_test_views: bool) -> _Command:
    @functools.wraps(command)
    def with_views(*args: Any, n_views: int, augment: str | None, flip: bool, **options: Any) -> Any:
        settings = {name: options.pop(name) for name in ("rotation", "zoom", "shear")}
        of_test = options.pop("test_views") if has_test_views else False
        views = choose_views(n_views, augment, of_test=of_test, flip=flip or None, **settings)
        return command(*args, views=views, **options)

    with_views = _TEST_VIEWS(with_views) if has_test_views else with_views
    return cast("_Command", _VIEWS(with_views))


def VIEWS(command: _Command) -> _Command:  # noqa: N802 - used as the other options are
    """Give `command` the options of augmented views, as one parameter, `views`."""
    return _with_views(command, has_test_views=True)


def TRAIN_VIEWS(command: _Command) -> _Command:  # noqa: N802 - used as the other options are
    """Give `command` the options of augmented views of training images, as one parameter, `views`."""
    return _with_views(command, has_test_views=False)


CACHE_DIR = option(
    "--cache-dir",
    type=StoragePathType(path_type=Path, file_okay=False),
    default=Path(DEFAULT_CACHE_DIR),
    show_default=True,
    help="Where features lie: a folder, or an address like s3://bucket/features.",
)
STAGE_ONE = options(
    option(
        "--engine",
        type=click.Choice(ENGINE_CHOICES),
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
RAY = option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Compute on a Ray cluster: auto on one of its machines, HOST:PORT, or ray://HOST:PORT. All of them must see "
    "DATA and the cache under the same path.  [default: this machine alone]",
)
STAGE_TWO = options(
    option("--seed", type=click.IntRange(0), default=Training.seed, show_default=True, help="Seed of all training."),
    option(
        "--epochs",
        type=click.IntRange(1),
        default=Training.epochs,
        show_default=True,
        help="At most so many passes over the training images.",
    ),
    option(
        "--memory",
        type=Parsed("size", parse_size),
        help="Features that take more, like 4GiB, are read from disk while training.  [default: half of what is free]",
    ),
)
DEADLINE = option(
    "--deadline",
    "deadline_s",
    type=Parsed("time", parse_duration),
    help="Time in which all is to be done, like 90m, 8h or 1d12h: how many machines does that take?",
)
BASELINE = options(
    option("--with-scratch-cnn", is_flag=True, help="Add report-cnn, a CNN trained from scratch."),
    option(
        "--baseline",
        "baselines",
        type=click.Choice(BASELINE_NAMES),
        multiple=True,
        help="Add a system of the report; give the option again for another one.",
    ),
    option("--rival", "rivals", type=click.Choice(BASELINE_NAMES), multiple=True, hidden=True, help="As --baseline."),
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
        type=click.Path(path_type=Path),
        help="JSON file with the names of a pretrained classifier's classes.",
    ),
)
OUTPUT = options(
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
        help="Say on standard error what is decided on the way.",
    ),
    option("--json", "as_json", is_flag=True, help="Results as JSON on standard output."),
)


def say(text: Callable[[], str], data: Callable[[], Any], *, quiet: bool, as_json: bool) -> None:
    """Print `data()` as JSON if that is asked for; else `text()`, unless it is to be `quiet`."""
    if as_json:
        click.echo(json.dumps(data(), indent=2))
    elif not quiet:
        click.echo(text())
