"""`featx export`: a run as one artefact that needs no featx."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.system import size
from featx.text import Shown, shown_text

if TYPE_CHECKING:
    from featx.export import Export


@click.command()
@click.argument("run", type=opt.LocalPath(path_type=Path))
@click.option(
    "--format",
    "form",
    type=opt.Choice(["keras", "savedmodel", "onnx"]),
    default="keras",
    show_default=True,
    help="A Keras file, a folder for TensorFlow and TensorFlow Serving, or an ONNX file.",
)
@click.option(
    "--to",
    type=opt.LocalPath(path_type=Path),
    help="File or folder to write; must not exist.  [default: RUN/model-HEAD.keras, .onnx, or no suffix]",
)
@opt.HEAD
@click.option("--weights", type=opt.LocalPath(path_type=Path), help="File of the backbone's weights, if you moved it.")
@opt.CACHE_DIR
@opt.OUTPUT
def export(run: Path, form: str, to: Path | None, output: opt.Output, **options: Any) -> None:
    """Export a trained run, for use without featx.

    The file or folder takes images of any size, and returns probabilities and class names.

    \b
    Example:
      featx export runs/first --format onnx --to pets.onnx
    """
    from featx.export import export_run

    output.say(export_run(run, to, format=form, show=output.show, **options), _to_text, _to_json)


def _to_text(done: "Export") -> Shown:
    classes = "labels" if done.is_multilabel else "classes"
    untrained = " Its backbone has random weights: it was never trained." if done.recipe.has_random_weights else ""
    return shown_text(
        [
            f"{done.path}: {done.recipe.backbone} with the head {done.head}, {len(done.class_names)} {classes}, "
            f"{size(done.size_bytes)}, in {done.elapsed_s:.1f} s.{untrained}"
        ]
    )


def _to_json(done: "Export") -> dict[str, Any]:
    return {
        "path": str(done.path),
        "format": done.format,
        "head": done.head,
        "class_names": done.class_names,
        "multilabel": done.is_multilabel,
        "recipe_key": done.recipe.key,
        "random_weights": done.recipe.has_random_weights,
        "size_bytes": done.size_bytes,
        "elapsed_s": done.elapsed_s,
    }
