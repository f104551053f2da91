"""`featx compare`: all approaches on one split, as a table and as a report folder."""

import json
import logging
import os
import shutil
import sys
import textwrap
import webbrowser
from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.compare import BASELINE_NAMES, SHOTS, Comparison
from featx.dataset import ImageFolders
from featx.errors import FeatxError
from featx.extract import DEFAULT_CACHE_DIR
from featx.storage import StoragePath
from featx.system import as_argument, shell_line, whole_number
from featx.text import Shown, shown_text
from featx.train import MAX_REPEATS, RUNS_NAME

log = logging.getLogger("featx")


def _numbers(example: str) -> opt.Parsed:
    """Return the type of a list of numbers like the `example`, `50,500`."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(whole_number("a number of images", int(part)) for part in text.split(","))
        except ValueError:
            raise FeatxError(
                f"These are numbers of images with commas between them, like {example}. Received: {text!r}"
            ) from None

    return opt.Parsed("numbers", parse)


def _curve(curve_sizes: tuple[int, ...], shots: tuple[int, ...], *, learning_curve: bool) -> dict[str, Any]:
    """Return the learning curve that is asked for as `learning_curve` and `shots`."""
    return {"learning_curve": curve_sizes or learning_curve, "shots": shots or False}


_CURVE = opt.combined(
    _curve,
    click.option(
        "--learning-curve",
        is_flag=True,
        help="Also train on 1, 2, 5, 10, 20 and 50 % of the training images; takes longer.",
    ),
    opt.option(
        "--curve-sizes",
        type=_numbers("50,500"),
        default=(),
        show_default=False,
        help="Numbers of training images for the learning curve, like 50,500,5000, instead of these shares.",
    ),
    opt.option(
        "--shots",
        metavar="[NUMBERS]",
        is_flag=False,
        flag_value=",".join(map(str, SHOTS)),
        type=_numbers("1,5,10"),
        default=(),
        show_default=False,
        help="Numbers of training images of each class for the learning curve, like 1,5,10.  "
        f"[default without numbers: {','.join(map(str, SHOTS))}]",
    ),
)


@click.command(context_settings=opt.TAKES_FORMER_NAMES)
@opt.DATA_OR_DEMO
@opt.BACKBONE_LIST
@opt.HEADS_TO_TRAIN
@opt.option("--with-scratch-cnn", is_flag=True, help="Add report-cnn, a CNN trained from scratch.")
@opt.option(
    "--baseline",
    "baselines",
    type=opt.Choice(BASELINE_NAMES),
    multiple=True,
    help="Add a baseline of the report of 2020; repeat the option for several.",
)
@opt.RECIPE_OF_LAYERS
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.STAGE_TWO
@opt.VIEWS
@opt.TUNE
@click.option("--direct", is_flag=True, help="Add each backbone's complete pretrained network, without training.")
@opt.MAP
@opt.option(
    "--repeats",
    type=click.IntRange(1, MAX_REPEATS),
    default=1,
    help="Train each approach this many times with different seeds, and show the spread.",
)
@opt.FOLDS
@_CURVE
@click.option(
    "--claims",
    is_flag=True,
    help="Show what the report of 2020 and others claim, even if it is about other images.",
)
@click.option(
    "--report-dir", type=opt.LocalPath(path_type=Path), help="Report folder.  [default: a new one in reports/]"
)
@click.option("--open", "open_page", is_flag=True, help="Open the report's page in the browser.")
@opt.OUTPUT
def compare(
    data: ImageFolders,
    report_dir: Path | None,
    with_scratch_cnn: bool,
    baselines: tuple[str, ...],
    open_page: bool,
    claims: bool,
    output: opt.Output,
    **options: Any,
) -> None:
    """Compare all approaches on one split, and write a report.

    It prints a table and a verdict. The report folder has a page, the results, plots and the trained heads.

    \b
    Example:
      featx compare data/ --backbone vgg16 --backbone resnet50 --with-scratch-cnn
    """
    from featx.report import make_report

    options["baselines"] = ("report-cnn", *baselines) if with_scratch_cnn else baselines
    comparison, folder = make_report(data, report_dir, claims=claims, show=output.show, **options)
    predict = predict_command(folder, options["cache_dir"])
    output.say(comparison, lambda done: comparison_text(done, folder, predict), lambda done: json.loads(done.to_json()))
    if open_page:
        open_in_browser(folder / "index.html")


def comparison_text(comparison: Comparison, report_dir: Path, predict: str = "") -> Shown:
    """Return the table and the verdict, for a terminal; `predict` is the command that uses the best head, if any."""
    from featx.report import curve_verdict, few_images_note, table, verdict

    width = min(118, shutil.get_terminal_size((80, 24)).columns)
    sentences = filter(None, (verdict(comparison), curve_verdict(comparison), few_images_note(comparison)))
    words = [line for sentence in sentences for line in textwrap.wrap(sentence, width)]
    use = [f"Classify images with the best head: {predict}"] if predict else []
    page = (report_dir / "index.html").absolute().as_uri()
    return shown_text([*table(comparison).split("\n"), *words, "", *use, f"Report: {report_dir}", page])


def predict_command(report_dir: Path, cache_dir: StoragePath) -> str:
    """Return the command that classifies images with the best head in a report folder; empty if it has none."""
    if not (report_dir / RUNS_NAME).exists():
        return ""
    cache = [] if str(cache_dir) == DEFAULT_CACHE_DIR else ["--cache-dir", str(cache_dir)]
    return f"{shell_line(['featx', 'predict', as_argument(report_dir), *cache])} IMAGE…"


def open_in_browser(page: Path) -> None:
    """Open a page in the browser of this machine's desktop; without a desktop, say so and open nothing."""
    has_display = sys.platform in {"darwin", "win32"} or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not has_display or not webbrowser.open(page.absolute().as_uri()):
        log.warning("Could not open the page: there is no display, or no browser.")
