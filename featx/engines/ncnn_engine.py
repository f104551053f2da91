"""The `ncnn` engine: VGG16 and VGG19 in float32, where Winograd's algorithm saves half of the multiplications.

Keras converts the network once, as for OpenVINO. ncnn runs its chain of convolutions. OpenVINO runs what is before it,
the preprocessing, and what is after it, such as pooling.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np

from featx.backbones import Weights
from featx.engines.joined import split_features
from featx.engines.ncnn_network import chain_of, load_chain
from featx.engines.openvino_engine import load_network
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import import_ncnn, import_openvino, kept_signal_stack, n_cores

#: The backbones that are such a chain from beginning to end.
BACKBONES = ("vgg16", "vgg19")

#: Smaller images are faster with OpenVINO: ncnn computes one image at a time, and reads all weights for it, a quarter
#: of a gigabyte. On two cores, it is faster from 96×96 on; more than four need more from the memory.
MIN_PIXELS_PER_CORE, MIN_CORES = 96 * 96 // 4, 4


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
            threads: processor cores to use; all if None.
            streams: images that are computed at the same time; one for each core if None.
            show: show progress on stderr.
            others: recipes of other layers of the same backbone, whose features are computed, too; see `split`.

        Raises:
            FeatxError: the network cannot be converted, or ncnn is not installed.
        """
        import_ncnn()  # if it is not installed, fail before the network is converted
        models = [load_network(one, weights, cache_dir, None, show=show) for one in (recipe, *others)]
        n_threads = min(threads or n_cores(), n_cores())
        n_streams = min(streams or n_threads, n_threads)
        for model in models:
            model.reshape([1, *recipe.image_size, 3])
        chains = [chain_of(model) for model in models]
        self._network = load_chain(max(chains, key=lambda chain: len(chain.layers)), n_threads // n_streams)
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


def _compiled(model: Any, n_streams: int) -> Any:
    number = str(n_streams)
    config = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": number, "INFERENCE_NUM_THREADS": number}
    return import_openvino().Core().compile_model(model, "CPU", {**config, "ENABLE_CPU_PINNING": "NO"})
