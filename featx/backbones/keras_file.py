"""Opens a `.keras` file with Keras, and finds its layers, their shapes, and those that are usually wanted."""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.backbones.keras_config import check_own_weights, prepare_config, read_keras_config
from featx.backbones.network_file import CLASSIFIER_LAYER, NetworkFile, NetworkLayer
from featx.errors import BackboneError, FeatxError, system_errors
from featx.recipe import Recipe
from featx.store import private_copy
from featx.system import brief, import_keras, size
from featx.text import printable

#: The weights of a network may take so much, as those of the table's.
_MAX_BYTES = 4 << 30

#: What OpenVINO calls the types of an input that pixels can be put into, as descriptions of files have them.
_INPUT_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64", "uint8": "u8"}

#: Layers that only pass on what they get, or give it another shape.
_PASSING = {"Dropout", "SpatialDropout2D", "Flatten", "Reshape", "Identity"}

#: Layers of a classifier.
_WEIGHTED = {"Dense", "Conv2D"}

#: What makes probabilities of scores, by the name of the function.
_ACTIVATIONS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}


@dataclass(frozen=True)
class _Called:
    """A layer of a network, called on symbolic tensors.

    Attributes:
        name: of the layer, after those of the networks that it is nested in, with slashes between.
        layer: the layer, or the operation.
        inputs: the tensors that it took.
        output: what it gave.
    """

    name: str
    layer: Any
    inputs: Sequence[Any]
    output: Any

    @property
    def kind(self) -> str:
        return type(self.layer).__name__

    @property
    def activation(self) -> str | None:
        """What makes probabilities in it, `"Softmax"` or `"Sigmoid"`; else None."""
        if self.kind in _ACTIVATIONS.values():
            return self.kind
        function = getattr(self.layer, "activation", None)
        return _ACTIVATIONS.get(getattr(function, "__name__", ""))


def describe_keras(path: Path, digest: str) -> NetworkFile:
    """Return what there is in a `.keras` file. Its layers are created, but no weights.

    Raises:
        BackboneError: it is no such file, or none that can be a backbone; or it is not the one with this `digest`.
    """
    model = _open(path, digest, "float32", with_weights=False)
    images = _only_input(model, path)
    called, output = _called_layers(model, import_keras().Input(batch_shape=images.shape, dtype=images.dtype))
    layers = _described(called)
    if len(output) != 1:
        raise BackboneError(f"{printable(path.name)} has {len(output)} outputs: featx needs a network with one.")
    return NetworkFile(
        name=path.name,
        digest=digest,
        input_name=images.name,
        input_type=_INPUT_TYPES[str(images.dtype)],
        input_shape=tuple(images.shape),
        layers=tuple(layers.values()),
        **_usual(called, output[0], {name: layer for name, layer in layers.items() if not layer.problem}),
    )


def build_keras_trunk(recipe: Recipe, path: Path, dtype_policy: str) -> Any:
    """Return the Keras model from preprocessed pixels, float32, to the output of the recipe's layer, not pooled.

    Args:
        recipe: of the file.
        path: the file.
        dtype_policy: Keras's, for its layers.

    Raises:
        BackboneError: the file is not the one that the recipe names, or has no such layer.
    """
    keras = import_keras()
    model = _open(path, recipe.weights, dtype_policy, with_weights=True)
    images = keras.Input((*recipe.image_size, 3))
    if recipe.layer == CLASSIFIER_LAYER:
        model.layers[-1].dtype_policy = "float32"
    called, outputs = _called_layers(model, keras.ops.cast(images, _only_input(model, path).dtype))
    if recipe.layer != CLASSIFIER_LAYER:
        outputs = [one.output for one in called if one.name == recipe.layer]
        if len(outputs) != 1:
            raise BackboneError(f"{printable(path.name)} has no layer {brief(repr(recipe.layer))}.")
        return keras.Model(images, outputs[0])
    scores = keras.ops.cast(outputs[0], "float32")
    has_probabilities = next(one for one in called if one.output is outputs[0]).activation is not None
    return keras.Model(images, scores if has_probabilities else keras.ops.softmax(scores))


def _open(path: Path, digest: str, dtype_policy: str, *, with_weights: bool) -> Any:
    """Return the Keras model in a file: the bytes that are read are those that were digested."""
    keras, name = import_keras(), printable(path.name)
    what = f"The network file {name}"
    with system_errors(what, "read", kind=BackboneError), private_copy(path) as (copy, found):
        if found != digest:
            raise BackboneError(f"{what} changed while featx was running; run the same command again.")
        named = copy.rename(copy.with_name("network.keras"))  # a file that was moved may be called otherwise
        config = read_keras_config(named, path.name)
        with _without_values(keras):
            model = _deserialized(keras, prepare_config(config, path.name, dtype_policy), name)
        _only_input(model, path)
        if (n_bytes := 4 * model.count_params()) > _MAX_BYTES:
            raise BackboneError(f"{name} has {size(n_bytes)} of weights: featx takes {size(_MAX_BYTES)} at most.")
        if with_weights:
            model = _deserialized(keras, prepare_config(config, path.name, dtype_policy), name)
            _load_weights(model, named, name)
    return model


@contextmanager
def _without_values(keras: Any) -> Iterator[None]:
    """Build layers whose variables get no values: as large as they may be, this takes no memory.

    Keras would keep them, and give them values as soon as any other network is traced: so it is made to forget them.
    """
    state: Any = importlib.import_module("keras.src.backend.common.global_state")
    before = list(state.get_global_attribute("uninitialized_variables") or ())
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        state.set_global_attribute("uninitialized_variables", before)


def _deserialized(keras: Any, config: Any, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever the layers of a foreign file end in
        raise BackboneError(f"Keras cannot build the network of {name}: {_reason(error)}.") from error
    if not isinstance(model, keras.Model):
        raise BackboneError(f"{name} contains no network, but a {brief(type(model).__name__)}.")
    return model


def _load_weights(model: Any, copy: Path, name: str) -> None:
    try:
        check_own_weights(copy, _MAX_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of every layer before it raises
            model.load_weights(copy)
    except (MemoryError, FeatxError):
        raise
    except Exception as error:  # zipfile's, h5py's, Keras's
        raise BackboneError(f"The weights in {name} do not fit its network: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return brief(" ".join((lines or [type(error).__name__])[-1].split()).rstrip("."))


def _only_input(model: Any, path: Path) -> Any:
    """Return the symbolic input of a model."""
    name = printable(path.name)
    inputs = getattr(model, "inputs", None) or []
    if not inputs:
        raise BackboneError(f"{name} does not say what it takes: begin the network with an Input, and save it again.")
    if len(inputs) != 1:
        named = brief(", ".join(one.name for one in inputs))
        raise BackboneError(f"{name} has {len(inputs)} inputs ({named}): featx needs a network with one, the images.")
    (images,) = inputs
    received = f"Its input {printable(images.name)} is {images.dtype} {tuple(images.shape)}"
    if len(images.shape) != 4 or str(images.dtype) not in _INPUT_TYPES:
        raise BackboneError(f"{name} does not take images, (n, height, width, 3) of floats or bytes. {received}.")
    if images.shape[3] != 3:
        raise BackboneError(f"{name} does not take images of three colours on the last axis. {received}.")
    return images


def _called_layers(model: Any, images: Any) -> tuple[list[_Called], list[Any]]:
    """Return the layers of a model and of those nested in it, called on `images`, and the outputs."""
    called: list[_Called] = []
    return called, _call(import_keras(), model, [images], "", called)


def _call(keras: Any, model: Any, inputs: Sequence[Any], before: str, called: list[_Called]) -> list[Any]:
    """Return the outputs of a model for symbolic inputs; add each layer to `called`."""

    def call(layer: Any, *args: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model) and len(args) == 1:
            return _call(keras, layer, keras.tree.flatten(args), f"{before}{layer.name}/", called)
        output = layer(*args, **options)
        called.append(_Called(f"{before}{layer.name}", layer, keras.tree.flatten(args), output))
        return output

    if isinstance(model, keras.Sequential):
        output = inputs[0]
        for layer in model.layers:
            (output,) = keras.tree.flatten(call(layer, output))
        return [output]
    # As `keras.models.clone_model` does it, but without a new model, whose tensors would be others.
    given = keras.tree.pack_sequence_as(model.input, list(inputs))
    run = model._run_through_graph  # noqa: SLF001
    outputs: list[Any] = keras.tree.flatten(run(given, operation_fn=lambda layer: layer, call_fn=call))
    return outputs


def _described(called: Sequence[_Called]) -> dict[str, NetworkLayer]:
    names = [one.name for one in called]
    layers = {}
    for one in called:
        shape = getattr(one.output, "shape", None)
        problem = ""
        if shape is None:
            problem = "it has several outputs"
        elif not str(one.output.dtype).startswith(("float", "bfloat")):
            problem = f"its numbers are {one.output.dtype}, not floats"
        elif len(shape) < 2 or shape[0] is not None:
            problem = "its first axis is not that of the images"
        elif names.count(one.name) > 1:
            problem = "the network uses it several times"
        sides = tuple(shape or ())[1:]
        layers[one.name] = NetworkLayer(
            name=one.name,
            node=one.layer.name,
            kind=one.kind,
            shape=sides,
            channels=2 if len(sides) == 3 else None,
            problem=problem,
        )
    return layers


def _usual(called: Sequence[_Called], output: Any, layers: dict[str, NetworkLayer]) -> dict[str, Any]:
    """Return which layers are usually wanted: `scores`, `scores_kind`, `pooled` and `spatial` of a `NetworkFile`."""
    makers = {id(one.output): one for one in called}
    last = makers.get(id(output))
    if last is None or last.name not in layers:
        return {}
    if len(layers[last.name].shape) != 1:
        return {"spatial": last.name} if _is_spatial(layers[last.name]) else {}
    scored = last
    if last.activation and last.kind not in _WEIGHTED:
        last = _maker(makers, last.inputs[0])
    pooled: str | None = None
    if last and last.kind in _WEIGHTED:
        source = _maker(makers, last.inputs[0])
        pooled = source.name if source and source.name in layers and _is_vector(layers[source.name]) else None
    elif not scored.activation:
        pooled = scored.name
    end = [one.name for one in called].index(pooled or scored.name)
    spatial = [one.name for one in called[: end + 1] if one.name in layers and _is_spatial(layers[one.name])]
    return {
        "scores": scored.name,
        "scores_kind": scored.activation or scored.kind,
        "pooled": pooled,
        "spatial": spatial[-1] if spatial else None,
    }


def _maker(makers: dict[int, _Called], tensor: Any) -> _Called | None:
    """Return the layer that computes a tensor, before layers that only pass it on."""
    one = makers.get(id(tensor))
    while one and one.kind in _PASSING:
        one = makers.get(id(one.inputs[0]))
    return one


def _is_vector(layer: NetworkLayer) -> bool:
    return bool(layer.shape) and all(side == 1 for side in layer.shape[:-1])


def _is_spatial(layer: NetworkLayer) -> bool:
    return len(layer.shape) == 3 and all(side != 1 for side in layer.shape[:2])
