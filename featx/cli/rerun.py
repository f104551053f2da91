"""`featx rerun`: a run or a report, made again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.text import Shown, shown_text

if TYPE_CHECKING:
    from featx.repeat import Rerun


@click.command()
@click.argument("folder", type=opt.LocalPath(path_type=Path))
@click.option("--to", type=opt.LocalPath(path_type=Path), help="New folder.  [default: a new one in runs/ or reports/]")
@opt.OUTPUT
def rerun(folder: Path, to: Path | None, output: opt.Output) -> None:
    """Make a run or a report again, with the settings in its featx.toml, and say what is different.

    FOLDER is a run folder of featx train-top, or a report folder of featx compare.

    \b
    Example:
      featx rerun runs/first
    """
    from featx.repeat import rerun as make_again

    output.say(make_again(folder, to, show=output.show), _to_text, _to_json)


def _to_text(made: "Rerun") -> Shown:
    return shown_text([str(made), f"Folder: {made.dir}"])


def _to_json(made: "Rerun") -> dict[str, Any]:
    return {
        "dir": str(made.dir),
        "same_results": made.is_same,
        "differences": made.differences,
        "accuracy": {name: {"before": old, "now": new} for name, (old, new) in made.results.items()},
    }
