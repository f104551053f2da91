"""The `openvino` engine, for most networks the fastest on a CPU.

Keras converts a network once, the cache stores it, OpenVINO runs it.
"""

import errno
import importlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones import Weights, build_model, describe_network, is_onnx
from featx.dataset import ImageDataset
from featx.engines.fallback import Fallback
from featx.engines.joined import join, split_features
from featx.engines.networks import (
    Network,
    network_path,
    network_recipe,
    read_fallback,
    read_network,
    say_damaged,
    write_network,
)
from featx.engines.onnx_network import build_onnx
from featx.engines.quantization import check_can_quantize, quantize
from featx.engines.saturation import without_saturation
from featx.errors import FeatxError, WeightsError, system_errors
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.system import (
    import_openvino,
    kept_signal_stack,
    keras_backend,
    n_cores,
    openvino_has_bfloat16,
)
from featx.text import printable

log = logging.getLogger("featx")

#: Pixels in one request, about: enough work to make up for the request's own cost, and small enough to stay in the
#: processor's caches. VGG16 and ResNet50 are fastest with 2 images of 224×224 or 32 of 64×64, by a few per cent.
REQUEST_PIXELS = 1 << 17

#: Requests under way for each stream: one that runs, and one that waits, so that no stream does.
REQUESTS_PER_STREAM = 2

#: What is not quantized in an int8 network runs in float32, so that the numbers are the same on every processor.
_INFERENCE_PRECISION = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}

#: More than the structure of a network takes on disk, besides its constants.
_STRUCTURE_BYTES = 4 << 20

#: OpenVINO's converter sets up the root logger for itself, which two threads could not undo for each other.
_CONVERTING = threading.Lock()


class OpenVinoEngine:
    """Runs a converted network on the CPU: many small requests at once, each on a few cores.

    An image's features are the same, bit for bit, whatever batch it comes in, in float32, bfloat16 and int8: every
    request has the same shape, and images are independent of each other.
    """

    #: Batches under way at once; `submit` itself waits while all requests are busy.
    depth = 2

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        cache_dir: StoragePath,
        dataset: ImageDataset | None = None,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        streams: int | None = None,
        show: bool = False,
        others: Sequence[Recipe] = (),
    ) -> None:
        """Load the network, converted first if necessary, and compile it for this processor.

        Args:
            recipe: what to run.
            weights: the weights that the recipe names.
            cache_dir: where converted networks lie.
            dataset: has the images that an int8 network is calibrated on.
            batch_size: images in one request; chosen by their size if None.
            threads: processor cores to use; all if None.
            streams: requests that run at the same time; OpenVINO chooses if None.
            show: show progress on stderr.
            others: recipes of other layers of the same backbone, not in int8, whose features are computed, too: one
                after the other, flattened, so that `feature_shape` is `(n_features,)`; see `split`.

        Raises:
            FeatxError: the network cannot be converted, or this processor lacks the precision.
        """
        height, width = recipe.image_size
        models = [load_network(one, weights, cache_dir, dataset, show=show) for one in (recipe, *others)]
        self._shapes = [_feature_shape(one) for one in models] if others else []
        model = join(models, recipe.precision) if others else models[0]
        likely = batch_size or max(1, min(32, REQUEST_PIXELS // (height * width)))
        self.request_size = fixed_batch(model) or likely
        self._fallback = Fallback(lambda: _fallback_model(recipe, cache_dir)) if recipe.fallback else None
        if recipe.precision == "int8":
            model = without_saturation(model)
        try:
            model.reshape([self.request_size, height, width, 3])
            with kept_signal_stack():
                compiled = _compile(model, recipe, threads, streams)
        except RuntimeError as error:  # OpenVINO raises nothing else
            reason = printable(" ".join(str(error).split())[-200:])
            other = "" if is_onnx(recipe.backbone) else ", or choose --engine keras"
            raise FeatxError(
                f"OpenVINO cannot run {printable(network_path(recipe, cache_dir))} ({reason}). Remove that "
                f"file to have it made again{other}."
            ) from error
        self.feature_shape: tuple[int, ...] = tuple(compiled.output(0).shape[1:])
        n_requests = REQUESTS_PER_STREAM * compiled.get_property("NUM_STREAMS")
        self._requests = import_openvino().AsyncInferQueue(compiled, n_requests)
        self._requests.set_callback(_Batch.on_finished)

    def submit(self, images: np.ndarray) -> "Future[np.ndarray]":
        """Begin with `images`, `(n, height, width, 3)` uint8 RGB, and return the future of their features.

        These are `(n, *feature_shape)` float32. Waits while all requests are busy.
        """
        batch = _Batch(len(images), self.request_size, self.feature_shape, 2 if self._fallback else 1)
        future = batch.future
        if self._fallback:
            future = self._fallback.submit(images, batch.future, batch.alarms)
        for start in range(0, len(images), self.request_size):
            self._requests.start_async({0: self._filled_up(images[start : start + self.request_size])}, (batch, start))
        return future

    @property
    def n_fallback(self) -> int:
        """How many images were computed in the recipe's fallback."""
        return self._fallback.n_images if self._fallback else 0

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, *feature_shape)` float32 of `images`, `(n, height, width, 3)` uint8 RGB."""
        return self.submit(images).result()

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Return `(n, …)` float32 for each recipe, from the `(n, n_features)` of an engine that runs several."""
        return split_features(features, self._shapes)

    def close(self) -> None:
        """Wait for the requests in progress: OpenVINO must not call back into an interpreter that is ending."""
        self._requests.wait_all()
        if self._fallback:
            self._fallback.close()

    def _filled_up(self, images: np.ndarray) -> np.ndarray:
        n_missing = self.request_size - len(images)
        return np.pad(images, [(0, n_missing), (0, 0), (0, 0), (0, 0)]) if n_missing else images


class _Batch:
    """Collects the features of one batch from the requests it was cut into, which finish in any order."""

    def __init__(self, n_images: int, request_size: int, feature_shape: tuple[int, ...], n_outputs: int = 1) -> None:
        self.n_outputs = n_outputs
        self.future: Future[np.ndarray] = Future()
        self.alarms = np.zeros(n_images, np.float32)  # of a network that raises any
        self._features = np.empty((n_images, *feature_shape), np.float32)
        self._n_missing = -(-n_images // request_size)
        self._lock = threading.Lock()
        if not n_images:
            self.future.set_result(self._features)

    @staticmethod
    def on_finished(request: Any, userdata: "tuple[_Batch, int]") -> None:
        """Take what a request has computed; called by OpenVINO, on a thread of its own.

        An exception in here would go nowhere, and who waits for the batch would wait for ever: it becomes the batch's.
        """
        batch, start = userdata
        try:
            batch.take(start, *(request.get_output_tensor(number).data for number in range(batch.n_outputs)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for this batch
            batch.fail(error)

    def take(self, start: int, features: np.ndarray, alarms: np.ndarray | None = None) -> None:
        """Copy `features` and `alarms` to the rows from `start` on, and be done when all are there."""
        rows = self._features[start : start + len(features)]
        rows[:] = features[: len(rows)]
        if alarms is not None:
            self.alarms[start : start + len(rows)] = alarms[: len(rows)]
        with self._lock:
            self._n_missing -= 1
            is_done = not self._n_missing
        if is_done:
            self.future.set_result(self._features)

    def fail(self, error: Exception) -> None:
        """End the batch with `error`, unless another of its requests has failed before."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def _compile(model: Any, recipe: Recipe, threads: int | None, streams: int | None) -> Any:
    wanted = _INFERENCE_PRECISION[recipe.precision]
    config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": wanted}
    if threads:
        config["INFERENCE_NUM_THREADS"] = str(threads)
        if threads < n_cores():  # several processes with a part of the machine each would all pin the same cores
            config["ENABLE_CPU_PINNING"] = "NO"
    if streams:
        config["NUM_STREAMS"] = str(streams)
    if wanted == "bf16" and not openvino_has_bfloat16():
        other = "choose --engine keras, which computes it more slowly"
        if is_onnx(recipe.backbone):
            other = "use another one, or extract and train again in float32, because nothing else runs ONNX files"
        raise FeatxError(f"OpenVINO has no bfloat16 on this processor; {other}.")
    return import_openvino().Core().compile_model(model, "CPU", config)


def load_network(
    recipe: Recipe, weights: Weights, cache_dir: StoragePath, dataset: ImageDataset | None, *, show: bool = False
) -> Any:
    """Return the `openvino.Model` of a recipe: from the cache, or converted now and stored there.

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
        FeatxError: the network is not in the cache, and cannot be converted or stored there.
    """
    network = read_network(recipe, cache_dir)
    if network is not None:
        try:
            return _openvino_model(network, recipe)
        except RuntimeError as error:  # OpenVINO raises nothing else
            say_damaged(recipe, cache_dir, " ".join(str(error).split()))
    if recipe.precision == "int8":
        check_can_quantize(recipe, cache_dir)  # before the float network is converted
        floating = load_network(recipe.in_float32, weights, cache_dir, dataset, show=show)
        if (fixed := fixed_batch(floating) or 1) > 1:
            raise FeatxError(
                f"{printable(recipe.backbone)} takes {fixed} images at a time, and int8 needs a network that takes "
                f"one: choose another precision, or export the network again for any number of images."
            )
        quantized, calibration = quantize(floating, recipe, dataset, cache_dir, show=show)
        fallback = _serialized(floating) if recipe.fallback else ()
        network = Network(*_serialized(quantized), calibration, fallback)
    elif is_onnx(recipe.backbone):
        network = _converted_onnx(recipe, weights, cache_dir, show=show)
    else:
        network = _converted(recipe, weights, show=show)
    write_network(network, recipe, cache_dir)
    return _openvino_model(network, recipe)


def _fallback_model(recipe: Recipe, cache_dir: StoragePath) -> Any:
    """Return the `openvino.Model` that computes images which the int8 network of `recipe` does not fit."""
    return _openvino_model(read_fallback(recipe, cache_dir), recipe.in_float32)


def _openvino_model(network: Network, recipe: Recipe) -> Any:
    """Return the `openvino.Model` of a network.

    Raises:
        RuntimeError: it is none, or none from images of the recipe's size to features.
    """
    model = import_openvino().Core().read_model(network.xml, network.weights)
    n_outputs = 2 if recipe.fallback else 1
    if (len(model.inputs), len(model.outputs)) != (1, n_outputs):
        raise RuntimeError("it has other inputs or outputs")
    images, features = model.input(0), model.output(0)
    if (images.element_type.get_type_name(), features.element_type.get_type_name()) != ("u8", "f32"):
        raise RuntimeError("it does not turn uint8 into float32")
    model.reshape([fixed_batch(model) or -1, *recipe.image_size, 3])  # which raises if it takes other images
    if features.partial_shape.rank.is_dynamic or features.partial_shape.rank.get_length() < 2:
        raise RuntimeError("its output does not fit the features of images")
    return model


def _feature_shape(model: Any) -> tuple[int, ...]:
    """Return the shape of one image's features."""
    return tuple(side.get_length() for side in list(model.output(0).partial_shape)[1:])


def fixed_batch(model: Any) -> int | None:
    """Return how many images a network takes at a time; None for any number."""
    n_images = model.input(0).partial_shape[0]
    return None if n_images.is_dynamic else int(n_images.get_length())


def _converted_onnx(recipe: Recipe, weights: Weights, cache_dir: StoragePath, *, show: bool) -> Network:
    """Have OpenVINO read the network file of `recipe`."""
    if weights.path is None:
        raise WeightsError(f"The network file {printable(recipe.backbone)} is needed: name it with --weights PATH.")
    if show:
        log.info("Converting %s for OpenVINO; this is needed only once.", printable(recipe.backbone))
    file = describe_network(weights.path, cache_dir)
    if file.digest != recipe.weights:
        raise WeightsError(f"{printable(weights.path)} is not the network file that the recipe names; run it again.")
    return Network(*_serialized(build_onnx(network_recipe(recipe), weights.path, file)))


def _converted(recipe: Recipe, weights: Weights, *, show: bool) -> Network:
    """Have Keras convert the model of `recipe`, on whatever backend it runs."""
    openvino = import_openvino()  # first, without its telemetry: Keras would import it, too
    if show:
        log.info("Converting %s for OpenVINO; this is needed only once.", recipe.backbone)
    model = build_model(network_recipe(recipe), weights.path)
    with _CONVERTING, _untouched_logging():
        if keras_backend() == "tensorflow":  # without Keras's `export`, which traces every layer once more
            import tensorflow as tf

            images = tf.TensorSpec(model.inputs[0].shape, "uint8", name="images")
            function = tf.function(model, autograph=False).get_concrete_function(images)
            with _told_tensorflows_version(tf.__version__), _variables_found_once():
                converted = openvino.convert_model(function)
        else:
            with _temporary_folder(4 * model.count_params()) as folder:
                xml_path = folder / "network.xml"
                model.export(str(xml_path), format="openvino", verbose=False)
                # As bytes: Windows would not remove a file that is mapped into memory.
                converted = openvino.Core().read_model(xml_path.read_bytes(), xml_path.with_suffix(".bin").read_bytes())
        return Network(*_serialized(_with_one_output(converted)))


def _serialized(model: Any) -> tuple[bytes, bytes]:
    """Return an `openvino.Model` in OpenVINO's own format: its structure, and its constants in full precision."""
    openvino = import_openvino()
    n_bytes = sum(node.data.nbytes for node in model.get_ops() if node.get_type_name() == "Constant")
    with _temporary_folder(n_bytes) as folder:
        xml_path = folder / "network.xml"
        openvino.save_model(model, xml_path, compress_to_fp16=False)
        return xml_path.read_bytes(), xml_path.with_suffix(".bin").read_bytes()


@contextmanager
def _temporary_folder(n_bytes: int) -> Iterator[Path]:
    """Yield a folder for a network of so many bytes.

    OpenVINO says next to nothing of a disk that is full, and may crash: so there must be room before it writes.

    Raises:
        FeatxError: no such folder can be made or written to.
    """
    where, advice = "The folder for temporary files", " Free some space there, or name another folder with TMPDIR."
    with system_errors(where, "made", advice):
        where += f" {printable(tempfile.gettempdir())}"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with system_errors(where, "written", advice), tempfile.TemporaryDirectory(prefix="featx-network-") as folder:
        if shutil.disk_usage(folder).free < n_bytes + _STRUCTURE_BYTES:
            raise full
        try:
            yield Path(folder)
        except RuntimeError as error:  # OpenVINO raises nothing else
            if shutil.disk_usage(folder).free < _STRUCTURE_BYTES:
                raise full from error
            raise


def _with_one_output(model: Any) -> Any:
    """Return an `openvino.Model` that gives features and nothing else.

    Where TensorFlow has a gradient of its own for an activation, as for EfficientNet's swish, every use of it becomes
    another output. The features are the first.
    """
    return import_openvino().Model([model.outputs[0]], model.get_parameters())


@contextmanager
def _told_tensorflows_version(version: str) -> Iterator[None]:
    """Tell OpenVINO's converter the version of TensorFlow, which it fails to find out on Python 3.13 and newer.

    It runs `exec("del tensorflow")`, and there `exec` no longer sees what an earlier one has defined (PEP 667).
    """
    utils: Any = importlib.import_module("openvino.frontend.tensorflow.utils")
    find_out = utils.get_environment_setup
    utils.get_environment_setup = lambda _framework: {"tensorflow": version}
    try:
        yield
    finally:
        utils.get_environment_setup = find_out


@contextmanager
def _variables_found_once() -> Iterator[None]:
    """Let OpenVINO's converter find each variable of the network once.

    It looks for each a dozen times, among all the others: more than half of the time that ResNet50 takes.
    """
    decoder: Any = importlib.import_module("openvino.frontend.tensorflow.node_decoder").TFGraphNodeDecoder
    find = decoder.get_variable
    decoder.get_variable = staticmethod(cache(find))
    try:
        yield
    finally:
        decoder.get_variable = staticmethod(find)


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
