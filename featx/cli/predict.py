"""`featx predict`: images in, classes out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featx.cli import options as opt

if TYPE_CHECKING:
    from featx.predict import ImageClassifier

#: Options that mean something for a run only, and for the direct application only.
_OF_RUN = ("head",)
_OF_DIRECT = ("maps", "class_list", "backbone", "image_size", "precision")


@click.command()
@click.argument("run", default="", type=click.Path())
@click.argument("images", nargs=-1)
@opt.ZIP_ENCODING
@click.option("--head", type=click.Choice(["dense", "logreg"]), help="Head to use.  [default: dense]")
@click.option("--direct", is_flag=True, help="Apply a pretrained classifier as it is; there is no RUN then.")
@opt.MAP
@opt.BACKBONE
@opt.recipe_option("image_size", help="With --direct: pixels, 224 or HEIGHTxWIDTH.")
@opt.recipe_option("precision", help="With --direct: arithmetic of the forward pass, but for int8.  [default: auto]")
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Classes to name for each image.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    help="How to print them.  [default: table on a terminal, else csv]",
)
@click.option(
    "--weights",
    help="File of the backbone's weights, if it was moved; with --direct the whole classifier's: imagenet, a file, or "
    "random for tests.",
)
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.OUTPUT
def predict(
    run: str,
    images: tuple[str, ...],
    zip_encoding: str | None,
    direct: bool,
    top_k: int,
    form: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Classify images with a trained run: files, folders, patterns, or - for a list of files on standard input.

    With --direct, a pretrained classifier is applied as it is, and nothing is trained. An image that cannot be read is
    a line with the reason. What was computed before comes from the cache.

    \b
    Example:
      featx predict runs/first photo.jpg holidays/ --top-k 2
      featx predict --direct photo.jpg --backbone resnet50 --map cats=281-285 --map dogs=151-268
    """
    from featx.predict import find_files, format_predictions

    on_terminal = sys.stdout.isatty()
    form = "jsonl" if as_json else form or ("table" if on_terminal else "csv")
    how = {name: options.pop(name) for name in ("workers", "strict")}
    files = find_files(_image_words(run, images, direct=direct), sys.stdin, zip_encoding)
    classifier = _direct(**options) if direct else _trained(run, **options)
    predictions = classifier.predict(files, show=not quiet, **how)
    text = format_predictions(predictions, form, top_k, on_terminal=on_terminal)
    # Bytes: a program that reads them gets names as they are, whatever the terminal's letters.
    click.echo(text if on_terminal else text.encode("utf-8", "surrogateescape"))


def _image_words(run: str, images: tuple[str, ...], *, direct: bool) -> tuple[str, ...]:
    """Return the words that name images: with --direct, the first word does, too."""
    if not run and not direct:
        raise click.UsageError("Missing argument 'RUN'.")
    return (run, *images) if run and direct else images


def _trained(run: str, **options: Any) -> "ImageClassifier":
    """Return the classifier in a run folder."""
    from featx.predict import Classifier

    return Classifier.load(Path(run), **_without(_OF_DIRECT, options, "are for --direct"))


def _direct(*, weights: str | None, **options: Any) -> "ImageClassifier":
    """Return a pretrained classifier."""
    from featx.predict import DirectClassifier

    return DirectClassifier.load(
        weights=weights,
        **_without(_OF_RUN, options, "are for a RUN, and --direct has none"),
    )


def _without(names: tuple[str, ...], options: dict[str, Any], why: str) -> dict[str, Any]:
    """Return `options` without `names`; fail if one of these was typed."""
    ctx = click.get_current_context()
    flags = {param.name: param.opts[0] for param in ctx.command.params}
    if typed := [flags[name] for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        raise click.UsageError(f"{', '.join(typed)}: such options {why}.")
    return {name: value for name, value in options.items() if name not in names}
