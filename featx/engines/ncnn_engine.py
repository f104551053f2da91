"""The `ncnn` engine: VGG16 and VGG19 in float32, where Winograd's algorithm saves half of the multiplications.

Keras converts the network once, as for OpenVINO. ncnn runs its chain of convolutions. OpenVINO runs what is before it,
the preprocessing, and what is after it, such as pooling.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from featx.backbones import Weights
from featx.dataset import ImageDataset
from featx.engines.joined import split_features
from featx.engines.openvino_engine import load_network
from featx.errors import FeatxError, system_errors
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import import_ncnn, import_openvino, kept_signal_stack, n_cores

#: The backbones that are such a chain from beginning to end.
BACKBONES = ("vgg16", "vgg19")

#: Smaller images are faster with OpenVINO: ncnn computes one image at a time, and reads all weights for it, a quarter
#: of a gigabyte. On two cores, it is faster from 96×96 on; more than four need more from the memory.
MIN_PIXELS_PER_CORE, MIN_CORES = 96 * 96 // 4, 4

#: The first line of a network in ncnn's text format, https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
_MAGIC = 7767517

#: Before the weights of a convolution: they are float32, not compressed.
_FLOAT32_TAG = bytes(4)

#: What would make float32 less precise.
_HALF_PRECISION = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")


class NcnnEngine:
    """Runs a converted network on the CPU: one image on each core.

    An image's features are the same, bit for bit, whatever batch it comes in.
    """

    #: Batches under way at once.
    depth = 2

    #: Images in one pass.
    request_size = 1

    #: No image is computed in another precision.
    n_fallback = 0

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        cache_dir: StoragePath,
        dataset: ImageDataset | None = None,
        *,
        threads: int | None = None,
        streams: int | None = None,
        show: bool = False,
        others: Sequence[Recipe] = (),
    ) -> None:
        """Load the network, converted first if necessary.

        Args:
            recipe: what to run.
            weights: the weights that the recipe names.
            cache_dir: where converted networks lie.
            dataset: not used.
            threads: processor cores to use; all if None.
            streams: images that are computed at the same time; one for each core if None.
            show: show progress on stderr.
            others: recipes of other layers of the same backbone, whose features are computed, too; see `split`.

        Raises:
            FeatxError: the network cannot be converted, or ncnn is not installed.
        """
        import_ncnn()  # if it is not installed, fail before the network is converted
        models = [load_network(one, weights, cache_dir, dataset, show=show) for one in (recipe, *others)]
        n_threads = min(threads or n_cores(), n_cores())
        n_streams = min(streams or n_threads, n_threads)
        for model in models:
            model.reshape([1, *recipe.image_size, 3])
        chains = [_chain_of(model) for model in models]
        self._network = _load(max(chains, key=lambda chain: len(chain.layers)), n_threads // n_streams)
        with kept_signal_stack():
            head = _compiled(chains[0].head(models[0]), n_streams)
            tails = [_compiled(chain.tail(model), n_streams) for chain, model in zip(chains, models, strict=True)]
        ends = [(len(chain.layers), tail) for chain, tail in zip(chains, tails, strict=True)]
        self._shapes = [tuple(tail.output(0).shape[1:]) for tail in tails]
        self.feature_shape: tuple[int, ...] = (sum(map(math.prod, self._shapes)),) if others else self._shapes[0]
        self._idle: SimpleQueue[_Stream] = SimpleQueue()
        for _ in range(n_streams):
            self._idle.put(_Stream(self._network, head, ends))
        self._threads = ThreadPoolExecutor(n_streams, "featx-ncnn")
        self._collecting = ThreadPoolExecutor(1, "featx-ncnn-batch")

    def submit(self, images: np.ndarray) -> "Future[np.ndarray]":
        """Begin with `images`, `(n, height, width, 3)` uint8 RGB, and return the future of their features.

        These are `(n, *feature_shape)` float32.
        """
        each = [self._threads.submit(self._forward, image) for image in images]
        return self._collecting.submit(self._collected, each)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, *feature_shape)` float32 of `images`, `(n, height, width, 3)` uint8 RGB."""
        return self.submit(images).result()

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Return `(n, …)` float32 for each recipe, from the `(n, n_features)` of an engine that runs several."""
        return split_features(features, self._shapes)

    def close(self) -> None:
        """Wait for the images in progress; of batches that nobody waits for any more, the others are left out."""
        self._threads.shutdown(cancel_futures=True)
        self._collecting.shutdown()

    def _forward(self, image: np.ndarray) -> np.ndarray:
        stream = self._idle.get()
        try:
            return stream.features(image).reshape(self.feature_shape)
        finally:
            self._idle.put(stream)

    def _collected(self, each: "Sequence[Future[np.ndarray]]") -> np.ndarray:
        features = np.empty((len(each), *self.feature_shape), np.float32)
        for row, future in enumerate(each):
            features[row] = future.result()
        return features


class _Stream:
    """Computes one image at a time; a stream is used by one thread at a time."""

    def __init__(self, network: Any, head: Any, ends: Sequence[tuple[int, Any]]) -> None:
        self._ncnn = import_ncnn()
        self._network = network
        self._head = head.create_infer_request()
        self._tails = [(depth, tail.create_infer_request()) for depth, tail in ends]
        # ncnn frees a tensor once the next layer has read it: tensors are extracted in the order of the chain.
        self._depths = sorted({depth for depth, _ in ends})

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the features of all tails, flattened, `(n_features,)` float32, of an image `(h, w, 3)` uint8 RGB."""
        # ncnn keeps no reference to the array that a Mat is made of: both must live until the last tensor is extracted.
        pixels = next(iter(self._head.infer({0: image[np.newaxis]}).values()))[0]
        mat = self._ncnn.Mat(pixels)
        tensors: dict[int, np.ndarray] = {}
        with self._network.create_extractor() as extractor:
            extractor.input("pixels", mat)
            for depth in self._depths:
                status, tensor = extractor.extract(depth)
                if status:
                    raise FeatxError(
                        f"ncnn cannot compute an image of {image.shape[0]}×{image.shape[1]}: there may be too little "
                        f"memory. Choose --engine openvino."
                    )
                tensors[depth] = np.array(tensor)[np.newaxis]
        parts = [next(iter(tail.infer({0: tensors[depth]}).values())).ravel() for depth, tail in self._tails]
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Layer:
    """A layer as ncnn has it.

    Attributes:
        kind: its type.
        name: of the layer, and of the tensor that it makes.
        parameters: by their numbers.
        arrays: weights, then biases, if it has any.
    """

    kind: str
    name: str
    parameters: dict[int, int] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class _Chain:
    """The convolutions that follow each other from the first one on.

    Attributes:
        layers: what they are in ncnn.
        source: the output, of an operation of OpenVINO, that the first one takes.
        end: the output of the last one.
    """

    layers: list[_Layer]
    source: Any
    end: Any

    def head(self, model: Any) -> Any:
        """Return what of `model` comes before the chain: `(1, height, width, 3)` uint8 to `(1, 3, h, w)` float32."""
        return import_openvino().Model([self.source], model.get_parameters())

    def tail(self, model: Any) -> Any:
        """Return what of `model`, which is changed, comes after the chain: `(1, channels, h, w)` to `(1, …)`, float32.

        The head must have been taken before.
        """
        openvino = import_openvino()
        tensor = openvino.opset13.parameter(self.end.get_shape(), openvino.Type.f32)
        for target in self.end.get_target_inputs():
            target.replace_source_output(tensor.output(0))
        return openvino.Model([one.input_value(0) for one in model.get_results()], [tensor])


def _chain_of(model: Any) -> _Chain:
    """Return the chain of convolutions of an `openvino.Model` of one image.

    Raises:
        FeatxError: there is none that ncnn can run.
    """
    first = next((node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"), None)
    layers: list[_Layer] = []
    end = source = first.input_value(0) if first else None
    while end is not None and (found := _next_layer(end, f"layer{len(layers)}", is_first=not layers)):
        layer, end = found
        layers.append(layer)
    if not layers:
        raise FeatxError("ncnn cannot run this network. Choose --engine openvino.")
    return _Chain(layers, source, end)


def _next_layer(source: Any, name: str, *, is_first: bool) -> tuple[_Layer, Any] | None:
    """Return the layer that takes `source`, and its output; None if several do, or ncnn is not to run it."""
    node = _only_user(source)
    if node is None:
        return None
    if node.get_type_name() == "MaxPool" and not is_first:
        return _pooling(node, name)
    return _convolution(node, name) if node.get_type_name() == "Convolution" else None


def _pooling(node: Any, name: str) -> tuple[_Layer, Any] | None:
    how = node.get_attributes()
    pads, dilations = [*how["pads_begin"], *how["pads_end"]], how.get("dilations", [1])
    if len(how["kernel"]) != 2 or any(pads) or set(dilations) != {1} or how["rounding_type"] != "floor":
        return None
    (height, width), (down, across) = how["kernel"], how["strides"]
    return _Layer("Pooling", name, {0: 0, 1: width, 11: height, 2: across, 12: down, 5: 1}), node.output(0)


def _convolution(node: Any, name: str) -> tuple[_Layer, Any] | None:
    """Return a convolution with the bias and the ReLU that follow it."""
    kernel, how, end = _constant(node, 1), node.get_attributes(), node.output(0)
    if kernel is None or kernel.ndim != 4:
        return None
    (top, left), (bottom, right) = how["pads_begin"], how["pads_end"]
    (down, across), (dilated_down, dilated_across) = how["strides"], how["dilations"]
    parameters = {0: kernel.shape[0], 1: kernel.shape[3], 11: kernel.shape[2], 6: kernel.size}
    parameters |= {2: dilated_across, 12: dilated_down, 3: across, 13: down, 4: left, 15: right, 14: top, 16: bottom}
    arrays = [kernel]
    user = _only_user(end)
    bias = _constant(user, 1) if user is not None and user.get_type_name() == "Add" else None
    if bias is not None and bias.shape == (1, kernel.shape[0], 1, 1):
        parameters[5], end = 1, user.output(0)
        arrays.append(bias)
        user = _only_user(end)
    if user is not None and user.get_type_name() == "Relu":
        parameters[9], end = 1, user.output(0)
    return _Layer("Convolution", name, parameters, tuple(arrays)), end


def _only_user(output: Any) -> Any:
    """Return the operation that takes `output`; None if several do."""
    targets = list(output.get_target_inputs())
    return targets[0].get_node() if len(targets) == 1 else None


def _constant(node: Any, number: int) -> np.ndarray | None:
    """Return the input of an operation with this number, float32; None if it is not constant."""
    given = node.input_value(number).get_node()
    is_float32 = given.get_type_name() == "Constant" and given.get_element_type().get_type_name() == "f32"
    return given.get_data() if is_float32 else None


def _load(chain: _Chain, n_threads: int) -> Any:
    """Return the `ncnn.Net` of a chain, which computes an image on so many cores.

    Raises:
        FeatxError: there is no room for the weights in the folder for temporary files.
    """
    network = import_ncnn().Net()
    network.opt.num_threads = n_threads
    for name in _HALF_PRECISION:
        setattr(network.opt, name, False)
    advice = " Free some space there, or set TMPDIR to another folder."
    with (
        system_errors("A temporary file with the weights", "written", advice),
        tempfile.TemporaryDirectory(prefix="featx-ncnn-") as folder,
    ):
        weights = Path(folder, "weights.bin")
        with weights.open("wb") as file:
            file.writelines(_weights_of(chain))
        failed = network.load_param_mem(_text_of(chain)) or network.load_model(str(weights))
    if failed:
        raise FeatxError("ncnn cannot load this network. Choose --engine openvino.")
    return network


def _text_of(chain: _Chain) -> str:
    """Return the structure in ncnn's text format: a line for each layer, with the tensors that it takes and makes."""
    names = ["pixels", *(layer.name for layer in chain.layers)]
    lines = ["Input pixels 0 1 pixels"]
    for source, layer in zip(names, chain.layers, strict=False):
        how = " ".join(f"{number}={value}" for number, value in sorted(layer.parameters.items()))
        lines.append(f"{layer.kind} {layer.name} 1 1 {source} {layer.name} {how}")
    return "\n".join([str(_MAGIC), f"{len(lines)} {len(lines)}", *lines, ""])


def _weights_of(chain: _Chain) -> Iterator[bytes]:
    for layer in chain.layers:
        for number, array in enumerate(layer.arrays):
            yield (b"" if number else _FLOAT32_TAG) + np.ascontiguousarray(array, "<f4").tobytes()


def _compiled(model: Any, n_streams: int) -> Any:
    number = str(n_streams)
    config = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": number, "INFERENCE_NUM_THREADS": number}
    return import_openvino().Core().compile_model(model, "CPU", {**config, "ENABLE_CPU_PINNING": "NO"})
