"""From a Keras model to the network that OpenVINO runs: converted once, and kept in the cache."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from featx.backbones import build_model
from featx.dataset import ImageDataset
from featx.engines.networks import (
    Network,
    network_path,
    network_recipe,
    read_network,
    say_damaged,
    serialized,
    write_network,
)
from featx.engines.openvino_import import import_openvino
from featx.places import Place
from featx.recipe import Recipe
from featx.weights import Weights

log = logging.getLogger("featx")


def is_converted(recipe: Recipe, cache_dir: Place) -> bool:
    """Return whether the network of `recipe` is in the cache, so that Keras need not be started to run it."""
    return network_path(recipe, cache_dir).is_file()


def load_network(
    recipe: Recipe, weights: Weights, cache_dir: Place, dataset: ImageDataset | None, *, show: bool = False
) -> Any:
    """Return the `openvino.Model` of a recipe: from the cache, or converted now and kept there.

    It takes `(n, height, width, 3)` uint8 RGB and gives `(n, …)` float32, for any n.

    Args:
        recipe: what to run.
        weights: the weights that the recipe names.
        cache_dir: where converted networks lie.
        dataset: has the images that an int8 network is calibrated on; None if there are none to calibrate on.
        show: show progress on stderr.

    Raises:
        BackboneError: the layer does not exist, or the images are too small for the network.
        WeightsError: the file does not fit the network.
        FeatxError: the network is not in the cache and cannot be made or kept there.
    """
    network = read_network(recipe, cache_dir)
    if network is not None:
        try:
            return _openvino_model(network)
        except RuntimeError as error:  # OpenVINO raises nothing else
            say_damaged(recipe, cache_dir, " ".join(str(error).split()))
    if recipe.precision == "int8":
        from featx.engines.quantization import quantize  # NNCF is needed by few

        floats = replace(recipe, precision="float32", calibration=None)
        floating = load_network(floats, weights, cache_dir, dataset, show=show)
        network = quantize(floating, recipe, dataset, cache_dir, show=show)
    else:
        network = _converted(recipe, weights, show=show)
    write_network(network, recipe, cache_dir)
    return _openvino_model(network)


def _openvino_model(network: Network) -> Any:
    model = import_openvino().Core().read_model(network.xml, network.weights)
    if len(model.outputs) != 1:
        raise RuntimeError("it has several outputs")
    return model


def _converted(recipe: Recipe, weights: Weights, *, show: bool) -> Network:
    """Have Keras convert the model of `recipe`, on whatever backend it runs."""
    import_openvino()  # first, without its telemetry: Keras would import it, too
    if show:
        log.info("Converting %s for OpenVINO, once for all.", recipe.backbone)
    model = build_model(network_recipe(recipe), weights.path)
    with tempfile.TemporaryDirectory(prefix="featx-network-") as folder, _untouched_logging():
        xml_path = Path(folder, "network.xml")
        model.export(str(xml_path), format="openvino", verbose=False)
        return Network(*serialized(_with_one_output(import_openvino().Core().read_model(xml_path))))


def _with_one_output(model: Any) -> Any:
    """Return an `openvino.Model` that gives features and nothing else.

    Where TensorFlow has a gradient of its own for an activation, as for EfficientNet's swish, every use of it becomes
    another output. The features are the first.
    """
    return import_openvino().Model([model.outputs[0]], model.get_parameters())


@contextmanager
def _untouched_logging() -> Iterator[None]:
    """Give the root logger back as it was: OpenVINO's converter makes it mute, and adds a handler of its own."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
