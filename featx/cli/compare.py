"""`featx compare`: all approaches on one split, as a table and as a report folder."""

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.compare import BASELINE_NAMES, Comparison, compare_approaches
from featx.dataset import ImageFolders
from featx.errors import printable
from featx.storage import new_folder


@click.command(context_settings=opt.TAKES_FORMER_NAMES)
@opt.DATA
@opt.BACKBONE_LIST
@opt.option("--with-scratch-cnn", is_flag=True, help="Add report-cnn, a CNN trained from scratch.")
@opt.option(
    "--baseline",
    "baselines",
    type=click.Choice(BASELINE_NAMES),
    multiple=True,
    help="Add a system of the report; give the option again for another one.",
)
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
    help="Train each approach so often, with one seed after the other, and show how much that changes.",
)
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Also train on 1, 2, 5, 10, 20 and 50 % of the training images; takes longer.",
)
@click.option(
    "--claims",
    is_flag=True,
    help="Show what the report of 2020 claimed, also if these are not its images.",
)
@click.option(
    "--report-dir", type=opt.LocalFolder(path_type=Path), help="Report folder.  [default: a new one in reports/]"
)
@opt.OUTPUT
def compare(
    data: ImageFolders,
    report_dir: Path | None,
    with_scratch_cnn: bool,
    baselines: tuple[str, ...],
    claims: bool,
    output: opt.Output,
    **options: Any,
) -> None:
    """Compare all approaches on one split: a table, and a report folder with results and plots.

    \b
    Example:
      featx compare data/ --backbone vgg16 --backbone resnet50 --with-scratch-cnn
    """
    from featx.report import write_report

    baselines = ("report-cnn", *baselines) if with_scratch_cnn else baselines
    with new_folder(report_dir, Path("reports")) as folder:
        comparison = compare_approaches(data, baselines=baselines, **options)
        write_report(comparison, folder, data.root, claims=claims)
    output.say(comparison, lambda done: comparison_text(done, folder), lambda done: json.loads(done.to_json()))


def comparison_text(comparison: Comparison, report_dir: Path) -> str:
    """Return the table and the verdict, for a terminal."""
    from featx.report import curve_verdict, table, verdict

    width = min(118, shutil.get_terminal_size((80, 24)).columns)
    sentences = filter(None, (verdict(comparison), curve_verdict(comparison)))
    words = "\n".join(textwrap.fill(sentence, width) for sentence in sentences)
    page = printable(report_dir / "index.html")
    return f"{table(comparison)}\n{words}\n\nReport: {printable(report_dir)}; open {page} in a browser"
