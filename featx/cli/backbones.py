"""`featx backbones`: the pretrained networks there are, or the layers of a network file, as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from featx.backbones import BackboneInfo, NetworkFile, describe_network, list_backbones
from featx.cli import options as opt
from featx.extract import as_typed
from featx.storage import StoragePath
from featx.system import size, text_table
from featx.text import Shown, printable, shown_text

_NOTES = """
Features, parameters and weights are those without the classifier, for images of this size.
Top-1: how often the complete network names the right one of ImageNet's 1000 classes, as published by Keras.
Here: the weights are on this machine. featx downloads others when you first use them.
"""


@click.command()
@click.argument("file", required=False, type=opt.LocalPath(path_type=Path))
@opt.CACHE_DIR
@opt.OUTPUT
def backbones(file: Path | None, cache_dir: StoragePath, output: opt.Output) -> None:
    """List the networks that --backbone takes: features, size, accuracy. With --quiet, print only names.

    With FILE, list the layers of this network file (.onnx, .keras) that --layer takes.

    \b
    Example:
      featx backbones
      featx backbones network.onnx
    """
    say = replace(output, show=True).say
    if file:
        network_text = layers_text if output.show else _layer_names_text
        say(describe_network(file, cache_dir), network_text, _network_json)
    else:
        say(list_backbones(), backbones_text if output.show else _names_text, _backbones_json)


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


def layers_text(network: NetworkFile) -> Shown:
    """Return what there is in a network file, for a terminal: its input, and its layers."""
    sides = "×".join("any" if side is None else str(side) for side in network.input_shape[1:])
    n_images = "any number of images" if network.batch is None else f"{network.batch} images at a time"
    layouts = " or ".join(network.layouts)
    usual = {name: what for what, name in network.usual_layers()}
    rows = [
        (f"  {printable(layer.name)}", layer.kind, layer.shape_text, usual.get(layer.name, ""))
        for layer in network.layers
        if not layer.problem
    ]
    n_others = len(network.layers) - len(rows)
    others = f"{n_others} other outputs cannot be stored: they have no axis of images, or are not floats."
    return shown_text(
        [
            f"{network.name}: input {network.input_name}, {n_images}, {sides} ({layouts}, {network.input_type}).",
            "",
            text_table(("Layer", "Operator", "Features", "Usual"), rows, n_left=4),
            "",
            _default_line(network),
            *([others] if n_others else []),
        ]
    )


def _default_line(network: NetworkFile) -> str:
    if network.default_layer is None:
        return "Choose a layer with --layer: the network has several outputs."
    return f"Without --layer, featx takes {network.default_layer}."


def _layer_names_text(network: NetworkFile) -> Shown:
    return shown_text(layer.name for layer in network.layers if not layer.problem)


def _network_json(network: NetworkFile) -> dict[str, Any]:
    return {**asdict(network), "layouts": network.layouts, "default_layer": network.default_layer}
