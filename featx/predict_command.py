"""`featx predict`: images in, classes out."""

import sys
from pathlib import Path
from typing import Any

import click

from featx import options as opt


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option("--head", type=click.Choice(["dense", "logreg"]), help="Head to use.  [default: dense]")
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Classes to name for each image.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    help="How to print them.  [default: table on a terminal, else csv]",
)
@click.option("--weights", type=click.Path(path_type=Path), help="File of the backbone's weights, if it was moved.")
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.OUTPUT
def predict(
    run: Path, images: tuple[str, ...], top_k: int, form: str | None, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Classify images with a trained run: files, folders, patterns, or - for a list of files on standard input.

    An image that cannot be read is a line with the reason. What was computed before comes from the cache.

    \b
    Example:
      featx predict runs/first photo.jpg holidays/ --top-k 2
    """
    from featx.classifier import Classifier
    from featx.predictions import find_files, format_predictions

    form = "jsonl" if as_json else form or ("table" if sys.stdout.isatty() else "csv")
    how = {name: options.pop(name) for name in ("workers", "strict")}
    files = find_files(images, sys.stdin)
    predictions = Classifier.load(run, **options).predict(files, show=not quiet, **how)
    click.echo(format_predictions(predictions, form, top_k))
