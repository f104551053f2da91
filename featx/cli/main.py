"""The command line: parses, calls one function of the library, prints."""

import io
import json
import logging
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from featx.cli import options as opt
from featx.cli.cache import cache
from featx.cli.export import export
from featx.cli.fetch import fetch
from featx.cli.options import say
from featx.cli.plan import plan
from featx.cli.predict import predict
from featx.errors import FeatxError, printable, redacted
from featx.storage import StoragePath, new_folder
from featx.system import MemoryLimit, Terminated, ignore_interrupts, raise_terminated

if TYPE_CHECKING:
    from featx.dataset import ImageFolders

log = logging.getLogger("featx")


class Commands(click.Group):
    """The commands of featx: errors are one line on stderr, never a traceback."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the words; click itself would end with 1 on Ctrl-C, and say no more than that it was aborted."""
        try:
            return super().make_context(*args, **options)
        except KeyboardInterrupt as interrupt:
            _stop(interrupt)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with 2 on an error, 130 on Ctrl-C, 143 on SIGTERM."""
        signal.signal(signal.SIGTERM, raise_terminated)
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(redacted(error.format_message()), error.ctx) from None  # what was typed is in it
        except FeatxError as error:
            _fail(str(error), 2)
        except KeyboardInterrupt as interrupt:
            _stop(interrupt)
        except BrokenPipeError:
            raise
        except MemoryError as error:
            _fail(f"not enough memory: {error}. Choose smaller images, a later layer or smaller batches.", 2)
        except OSError as error:
            _fail(f"{error.strerror or error}: {printable(error.filename or '')}", 2)


def _stop(interrupt: KeyboardInterrupt) -> NoReturn:
    ignore_interrupts()
    _fail(
        "stopped; what was finished is kept. Run the same command again to go on.",
        143 if isinstance(interrupt, Terminated) else 130,
    )


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"featx: {message}", err=True)
    sys.exit(exit_code)


class _Handler(logging.Handler):
    """Shows what the library has to say, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        with tqdm.external_write_mode(file=sys.stderr) if sys.stderr.isatty() else nullcontext():
            click.echo(f"featx: {prefix}{printable(record.getMessage())}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="featx", message="%(prog)s %(version)s")
def main() -> None:
    """Transfer learning on your own images: features extracted once, cached for ever, compared honestly.

    \b
    DATA is a folder: train/CLASS/* with test/CLASS/*, or just CLASS/*; also a
    zip or tar file, or an address like s3://bucket/photos.
    Without DATA: data/ if there is one, else the built-in sample.

    \b
    Example:
      featx compare data/ --backbone vgg16 --with-scratch-cnn
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack letters; the work must not be lost for them
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files, which need not be text
    if not log.handlers:
        log.addHandler(_Handler())
        log.propagate = False
    log.setLevel(logging.INFO)


main.add_command(cache)
main.add_command(export)
main.add_command(fetch)
main.add_command(plan)
main.add_command(predict)


@main.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.RAY
@opt.VIEWS
@click.option("--preview", is_flag=True, help="Only draw some images with their views, to look at; extract nothing.")
@opt.OUTPUT
def extract(
    data: "ImageFolders", cache_dir: StoragePath, preview: bool, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Stage one: compute the features that the store lacks, and nothing else.

    \b
    Example:
      featx extract data/ --backbone vgg16 --image-size 150
      featx extract data/ --views 8 --flip --rotation 20 --preview
      featx extract data/ --ray auto
    """
    from featx.cli.summaries import extraction_json, extraction_text
    from featx.extract import extract_features
    from featx.report import draw_preview

    if preview:
        chosen = {name: options[name] for name in ("views", "backbone", "image_size")}
        with new_folder(None, Path("reports")) as folder:
            picture = draw_preview(data, folder, cache_dir=cache_dir, **chosen)
        say(lambda: f"Views: {printable(picture)}", lambda: {"preview": str(picture)}, quiet=quiet, as_json=as_json)
        return
    extraction = extract_features(data, cache_dir=cache_dir, show=not quiet, **options)
    say(lambda: extraction_text(extraction), lambda: extraction_json(extraction), quiet=quiet, as_json=as_json)


@main.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_TWO
@opt.TRAIN_VIEWS
@click.option("--run-dir", type=opt.LocalFolder(path_type=Path), help="Run folder.  [default: a new one in runs/]")
@opt.OUTPUT
def train_top(
    data: "ImageFolders",
    cache_dir: StoragePath,
    run_dir: Path | None,
    seed: int,
    epochs: int,
    memory: int | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Stage two: train the dense top model and the logistic-regression baseline on cached features.

    \b
    Example:
      featx train-top data/ --backbone vgg16 --image-size 150 --run-dir runs/first
    """
    from featx.cli.summaries import run_json, run_text
    from featx.train import Training
    from featx.train import train_top as train

    training = Training(seed=seed, epochs=epochs, show=not quiet, memory=MemoryLimit(memory))
    with new_folder(run_dir, Path("runs")) as folder:
        run = train(data, run_dir=folder, cache_dir=cache_dir, training=training, **options)
    say(lambda: run_text(run), lambda: run_json(run), quiet=quiet, as_json=as_json)


@main.command()
@opt.DATA
@opt.BACKBONE_LIST
@opt.BASELINE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.STAGE_TWO
@opt.VIEWS
@click.option("--direct", is_flag=True, help="Add each backbone's whole pretrained network, applied as it is.")
@opt.MAP
@opt.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train each approach so often, with one seed after the other, and show how much that changes.",
)
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Also train on 1, 2, 5, 10, 20 and 50 % of the training images; takes longer.",
)
@click.option(
    "--report-dir", type=opt.LocalFolder(path_type=Path), help="Report folder.  [default: a new one in reports/]"
)
@opt.OUTPUT
def compare(
    data: "ImageFolders",
    cache_dir: StoragePath,
    report_dir: Path | None,
    seed: int,
    epochs: int,
    memory: int | None,
    with_scratch_cnn: bool,
    baselines: tuple[str, ...],
    rivals: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare all approaches on one split: a table, and a report folder with results and plots.

    \b
    Example:
      featx compare data/ --backbone vgg16 --backbone resnet50 --with-scratch-cnn
    """
    from featx.cli.summaries import comparison_text
    from featx.compare import compare_approaches
    from featx.report import write_report
    from featx.train import Training

    training = Training(seed=seed, epochs=epochs, show=not quiet, memory=MemoryLimit(memory))
    baselines = (*(["report-cnn"] if with_scratch_cnn else []), *baselines, *rivals)
    with new_folder(report_dir, Path("reports")) as folder:
        comparison = compare_approaches(data, baselines=baselines, cache_dir=cache_dir, training=training, **options)
        write_report(comparison, folder, data.root)
    as_data = partial(json.loads, comparison.to_json())
    say(lambda: comparison_text(comparison, folder), as_data, quiet=quiet, as_json=as_json)
