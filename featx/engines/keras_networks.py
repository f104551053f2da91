"""A Keras model compiled by the backend that it runs on: it starts a batch, and later finishes it."""

import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from featx.keras_import import keras_backend

log = logging.getLogger("featx")


class CompiledNetwork(Protocol):
    """A backbone compiled by one Keras backend.

    Attributes:
        on_gpu: whether it runs on a GPU: `start` then returns before the batch is computed.
    """

    on_gpu: bool

    def start(self, images: np.ndarray) -> Any:
        """Begin with a batch, `(batch_size, height, width, 3)` uint8; compile the network if the size is new."""
        ...

    def finish(self, started: Any) -> np.ndarray:
        """Wait for what `start` returned, and return the features of the batch, float32."""
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether `error`, raised by one of the above, says that memory has run out."""
        ...


def compiled_network(model: Any, precision: str) -> CompiledNetwork:
    """Return a Keras `model` as the present backend computes it fastest, no less exactly than in `precision`."""
    return _NETWORKS[keras_backend()](model, precision)


class _TensorFlowNetwork:
    """XLA on a GPU. On a CPU, XLA is slower than TensorFlow's own kernels: up to tenfold for ResNet50 at 64 pixels."""

    def __init__(self, model: Any, precision: str) -> None:
        tf = importlib.import_module("tensorflow")
        if precision == "float32":
            tf.config.experimental.enable_tensor_float_32_execution(False)
        self.on_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._tf = tf
        # A new batch size is a new shape, for which tf.function compiles anew by itself; so does jax.jit below.
        self._forward = tf.function(lambda images: model(images, training=False), jit_compile=self.on_gpu)

    def start(self, images: np.ndarray) -> Any:
        return self._forward(self._tf.convert_to_tensor(images))

    def finish(self, started: Any) -> np.ndarray:
        features: np.ndarray = started.numpy()
        return features

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, self._tf.errors.ResourceExhaustedError)


class _JaxNetwork:
    def __init__(self, model: Any, precision: str) -> None:
        jax = importlib.import_module("jax")
        # JAX's default on a GPU is TensorFloat-32, which has 10 bits where float32 has 23.
        arithmetic = "float32" if precision == "float32" else "default"

        def forward(weights: Any, images: Any) -> Any:
            with jax.default_matmul_precision(arithmetic):
                return model.stateless_call(*weights, images, training=False)[0]

        self.on_gpu = jax.default_backend() != "cpu"
        self._jax = jax
        self._forward = jax.jit(forward)
        self._weights = tuple(
            [variable.value for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        )

    def start(self, images: np.ndarray) -> Any:
        features = self._forward(self._weights, self._jax.device_put(images))
        features.copy_to_host_async()
        return features

    def finish(self, started: Any) -> np.ndarray:
        return np.asarray(started)

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, self._jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class _TorchNetwork:
    #: What PyTorch says where it has no class of its own for the error: on a CPU, in cuBLAS, in CUDA itself.
    _OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")

    def __init__(self, model: Any, precision: str) -> None:
        torch = importlib.import_module("torch")
        if precision == "float32":
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False

        self._torch = torch
        self._device = model.variables[0].value.device
        self.on_gpu = self._device.type == "cuda"
        self._way_back = torch.cuda.Stream() if self.on_gpu else None
        self._model: Callable[[Any], Any] = model
        self._forward = self._model
        self._n_compiled = 0

    def start(self, images: np.ndarray) -> Any:
        batch = self._torch.from_numpy(np.require(images, requirements=["C", "W"]))
        with self._torch.inference_mode():
            if self.on_gpu:
                batch = batch.pin_memory()
            batch = batch.to(self._device, non_blocking=True)
            if len(batch) != self._n_compiled:
                self._forward = self._compiled(batch)
                self._n_compiled = len(batch)
            return self._sent_back(self._forward(batch))

    def finish(self, started: Any) -> np.ndarray:
        _, on_host, arrival = started
        if arrival:
            arrival.synchronize()
        features: np.ndarray = on_host.numpy()
        return features

    def is_out_of_memory(self, error: Exception) -> bool:
        if isinstance(error, self._torch.OutOfMemoryError):
            return True
        return isinstance(error, RuntimeError) and any(words in str(error) for words in self._OUT_OF_MEMORY)

    def _compiled(self, batch: Any) -> Callable[[Any], Any]:
        """Return the network compiled for the shape of `batch`; as it is where that fails, for want of a compiler.

        Dynamo cannot follow Keras's own Python code in one piece; the program that torch.export makes of it, it can.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hints for developers, among them to switch TensorFloat-32 on
                program = self._torch.export.export(self._model, (batch,)).module()
                compiled: Callable[[Any], Any] = self._torch.compile(program, dynamic=False)
                compiled(batch)
        except Exception as error:
            if self.is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.info("PyTorch cannot compile the network (%s): running it uncompiled, which is slower.", reason)
            return self._model
        return compiled

    def _sent_back(self, features: Any) -> tuple[Any, Any, Any]:
        """Return features on the device, the same on their way to the host, and the event of their arrival.

        They travel on a stream of their own, beside the next batch's computation. Those on the device are held as
        long, so that the next batch does not get their memory.
        """
        if self._way_back is None:
            return None, features.cpu(), None
        self._way_back.wait_stream(self._torch.cuda.current_stream())
        with self._torch.cuda.stream(self._way_back):
            on_host = features.to("cpu", non_blocking=True)
            return features, on_host, self._way_back.record_event()


_NETWORKS: dict[str, Callable[[Any, str], CompiledNetwork]] = {
    "tensorflow": _TensorFlowNetwork,
    "jax": _JaxNetwork,
    "torch": _TorchNetwork,
}
