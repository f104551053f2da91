"""What Keras says of its applications. `python -m tests.backbones.keras_networks` writes it to `networks.json`."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest

from featx.backbones import build, table
from featx.backbones.table import BACKBONES, OfficialFile, Trunk
from featx.system.late_imports import import_keras


def untrained_network(application: str, image_size: tuple[int, int]):
    """Return the network without its classifier, as featx has Keras build it."""
    with no_numbers_drawn():
        return getattr(import_keras().applications, application)(
            weights=None, include_top=False, input_shape=(*image_size, 3)
        )


@contextmanager
def no_numbers_drawn() -> Iterator[None]:
    """Fill new kernels with zeros: nobody looks at the numbers, and to draw the 138 million of VGG16 takes seconds."""
    initializer = import_keras().initializers.VarianceScaling
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initializer, "__call__", lambda _, shape, dtype=None: import_keras().ops.zeros(shape, dtype))
        yield


def trunk_in_keras(backbone: str) -> Trunk:
    """Return what `featx.backbones.table.trunk_of` should. No weights are made: the network is a plan only."""
    keras = import_keras()
    entry = BACKBONES[backbone]
    with keras.StatelessScope(initialize_variables=False):
        network = untrained_network(entry.application, entry.image_size)
    build._number_layers_from_zero(network)
    return Trunk(tuple(layer.name for layer in network.layers), network.count_params(), network.output_shape[1:])


@dataclass
class Sketch:
    """A network of which no layer was made: what Keras's constructor does besides.

    Attributes:
        input_shape: what the constructor takes, `(height, width, 3)`.
        kinds: names of the classes of its layers, in the order in which they would be called.
        file: the weights that Keras asks for; None if it asks for none.
    """

    input_shape: tuple[int | None, ...] = ()
    kinds: list[str] = field(default_factory=list)
    file: OfficialFile | None = None


def sketch_of(application: str, **arguments) -> Sketch:
    """Return what Keras's constructor does with `arguments`, in milliseconds: every layer returns what it receives.

    Raises:
        ValueError: the constructor does not take them.
    """
    keras = import_keras()
    from keras.src.utils import file_utils

    sketch = Sketch()
    constructor = getattr(keras.applications, application)

    class Layers:
        """What the modules of the applications call `layers`."""

        Input = staticmethod(keras.Input)

        def __getattr__(self, kind):
            sketch.kinds.append(kind)
            return first if kind.islower() else lambda *_args, **_options: first  # add, concatenate

    def first(inputs, *_args, **_options):
        return inputs[0] if isinstance(inputs, list) else inputs

    def made(inputs, *_args, **_options):
        sketch.input_shape = inputs.shape[1:]
        return keras.Model()

    def get_file(name, origin, *, file_hash=None, **_where):
        sketch.file = OfficialFile(origin, file_hash, name)

    layers = Layers()
    stand_ins = {"layers": layers, "Functional": made}
    stand_ins |= {kind: getattr(layers, kind) for kind in ("Sequential", "LayerScale", "CustomScaleLayer")}
    sketch.kinds.clear()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MobileNetV3 says that it was not told the size
        for module in [sys.modules[name] for name in sys.modules if name.startswith("keras.src.applications.")]:
            for name in stand_ins.keys() & vars(module).keys():
                patch.setattr(module, name, stand_ins[name])
        patch.setattr(file_utils, "get_file", get_file)
        patch.setattr(keras.Model, "load_weights", lambda *_args, **_options: None)
        constructor(**arguments)
    return sketch


def start_of(application: str, weights: str | None):
    """Return the model of the layers before the first one that learns: those that preprocess, and pad.

    It takes images of 224×224. For `weights="imagenet"` it is as Keras makes it for these weights.
    """
    keras = import_keras()

    class Reached(Exception):  # noqa: N818 - it is no error
        pass

    def reach(_layer, inputs, **_options):
        raise Reached(inputs)

    constructor = getattr(keras.applications, application)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.layers.Conv2D, "__call__", reach)
        patch.setattr(keras.Sequential, "__call__", reach)  # ConvNeXt has its first convolution in one
        with pytest.raises(Reached) as reached:
            constructor(weights=weights, include_top=False, input_shape=(224, 224, 3))
    (end,) = reached.value.args
    (images,) = keras.utils.get_source_inputs(end)
    return keras.Model(images, end)


def write_networks() -> None:
    """Write `networks.json`, a line for each backbone."""
    trunks = {name: trunk_in_keras(name) for name in BACKBONES}
    as_json = {
        name: {
            "parameters": trunk.n_parameters,
            "features": trunk.feature_shape,
            "layers": folded([layer.split("_") for layer in trunk.layers]),
        }
        for name, trunk in trunks.items()
    }
    lines = [f"{json.dumps(name)}:{json.dumps(members, separators=(',', ':'))}" for name, members in as_json.items()]
    path = Path(table.__file__).with_name("networks.json")
    path.write_text("\n".join(["{", ",\n".join(lines), "}", ""]), encoding="utf-8")


def folded(names: list[list[str]]) -> list[str | list]:
    """Return names, each the words between its underscores, with what they have in common only once.

    `featx.backbones.table` unfolds them. Neighbours that go on in the same way share the list of how.
    """
    items = []
    for (beginning, is_all), group in groupby(names, key=lambda words: (words[0], len(words) == 1)):
        if is_all:
            items += [beginning for _ in group]
            continue
        inside = folded([words[1:] for words in group])
        if len(inside) == 1 and isinstance(inside[0], str):
            items.append(f"{beginning}_{inside[0]}")
        elif items and isinstance(items[-1], list) and items[-1][1:] == inside:
            items[-1][0] += f"|{beginning}"
        else:
            items.append([beginning, *inside])
    return items


if __name__ == "__main__":
    write_networks()
