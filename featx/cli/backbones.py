"""`featx backbones`: the pretrained networks there are, as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from featx.backbones import BackboneInfo, list_backbones
from featx.cli import options as opt
from featx.extract import as_typed
from featx.system import size, text_table
from featx.text import Shown, shown_text

_NOTES = """
Features, parameters and weights are those without the classifier, for images of this size.
Top-1: how often the complete network names the right one of ImageNet's 1000 classes, as published by Keras.
Here: the weights are on this machine. featx downloads others when you first use them.
"""


@click.command()
@opt.OUTPUT
def backbones(output: opt.Output) -> None:
    """List the networks that --backbone takes: features, size, accuracy. With --quiet, print only names.

    \b
    Example:
      featx backbones
    """
    to_text = backbones_text if output.show else _names_text
    replace(output, show=True).say(list_backbones(), to_text, _backbones_json)


def backbones_text(infos: Sequence[BackboneInfo]) -> Shown:
    """Return the table of backbones for a terminal."""
    header = ("Backbone", "Image size", "Features", "Parameters", "Weights", "Top-1", "Here")
    return shown_text([text_table(header, list(map(_cells, infos))), *_NOTES.splitlines()])


def _cells(info: BackboneInfo) -> tuple[str, ...]:
    return (
        f"  {info.name}",
        as_typed(info.image_size),
        "×".join(map(str, info.feature_shape)),
        f"{info.n_parameters / 1e6:.1f} M",
        size(info.weights_bytes),
        f"{info.top1} %",
        "yes" if info.has_weights_here else "",
    )


def _names_text(infos: Sequence[BackboneInfo]) -> Shown:
    return shown_text(info.name for info in infos)


def _backbones_json(infos: Sequence[BackboneInfo]) -> list[dict[str, Any]]:
    return [asdict(info) for info in infos]
