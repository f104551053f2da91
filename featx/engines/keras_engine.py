"""The `keras` engine: the backend that `KERAS_BACKEND` names, on the GPU if there is one.

Two layers above the networks that each backend compiles: a thread that keeps the device busy with batches and makes
them smaller when memory runs out; and the engine, which hands out futures.
"""

import contextlib
import importlib
import logging
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from featx.backbones import DTYPE_POLICIES, Weights, build_model
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.system import import_keras, keras_backend

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


#: What computes a Keras model fastest on each backend, no less exactly than in the precision that it is given.
_NETWORKS: dict[str, Callable[[Any, str], CompiledNetwork]] = {
    "tensorflow": _TensorFlowNetwork,
    "jax": _JaxNetwork,
    "torch": _TorchNetwork,
}


class KerasEngine:
    """Runs a backbone with Keras in batches of one fixed size, on a thread of its own.

    On a GPU, the next batch travels and the last one returns while one is computed. If a batch does not fit into the
    GPU's memory, its size is halved, and the work continues.

    Attributes:
        depth: how many submitted batches keep the device busy: those on the device, and one to follow at once.
        feature_shape: the shape of one image's features.
        n_fallback: 0: it has no int8.
    """

    n_fallback = 0

    def __init__(self, recipe: Recipe, weights: Weights, batch_size: int) -> None:
        """Build and compile the network.

        Raises:
            BackboneError: the layer does not exist, or the images are too small for the network.
            WeightsError: the file does not fit the network.
            FeatxError: Keras does not support the precision, or one image is too large for the device's memory.
        """
        if recipe.precision not in DTYPE_POLICIES:
            raise FeatxError(
                f"The keras engine computes in {' or '.join(DTYPE_POLICIES)}. Received: {recipe.precision!r}"
            )
        import_keras()
        model = build_model(recipe, weights.path, recipe.precision)
        self.feature_shape: tuple[int, ...] = tuple(model.output_shape[1:])
        network = _NETWORKS[keras_backend()](model, recipe.precision)
        self._worker = _Worker(network, recipe, batch_size)
        self.depth = self._worker.n_in_flight + 1
        # The thread knows the worker, not the engine: it ends with the engine, also if nobody closes it, and before the
        # process, which would crash if it ended while a thread is inside a backend's C++ code.
        self._end = weakref.finalize(self, self._worker.end)
        try:
            # The first batch compiles the network: done here, so that it counts as start-up and not as forward time.
            self.features(np.zeros((batch_size, *recipe.image_size, 3), np.uint8))
        except BaseException:
            self.close()
            raise

    @property
    def batch_size(self) -> int:
        """How many images are computed at once: the number requested, or fewer if only those fit into memory."""
        return self._worker.batch_size

    def submit(self, images: np.ndarray) -> "Future[np.ndarray]":
        """Begin with `images`, `(n, height, width, 3)` uint8 RGB, and return the future of their features.

        These are `(n, *feature_shape)` float32. The array must not change before the future is done. Submitted arrays
        are processed in order. The future raises FeatxError if not even one image fits into the device's memory.
        """
        future: Future[np.ndarray] = Future()
        if not self._end.alive:
            raise RuntimeError("The engine is closed.")
        if len(images):
            self._worker.add(_Job(images, future))
        else:
            future.set_result(np.empty((0, *self.feature_shape), np.float32))
        return future

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features `(n, *feature_shape)` float32 of `images`, `(n, height, width, 3)` uint8 RGB."""
        return self.submit(images).result()

    def close(self) -> None:
        """End the thread after its current batch; unfinished batches are cancelled."""
        self._end()


@dataclass
class _Job:
    """What was submitted at once, and how far it has got.

    Attributes:
        images: `(n, height, width, 3)` uint8.
        future: of their features.
        parts: features that have come back, in order.
        n_started: how many of the images have been given to the device.
    """

    images: np.ndarray
    future: "Future[np.ndarray]"
    parts: list[np.ndarray] = field(default_factory=list)
    n_started: int = 0

    @property
    def is_started(self) -> bool:
        return self.n_started == len(self.images)

    def add_part(self, features: np.ndarray) -> None:
        self.parts.append(features)
        if sum(map(len, self.parts)) == len(self.images):
            self.future.set_result(self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts))

    def start_again(self) -> None:
        """Forget what was given to the device and has not come back."""
        self.n_started = sum(map(len, self.parts))


class _Worker:
    """Owns the device: starts batches, finishes them in order, and makes them smaller when memory runs out."""

    def __init__(self, network: CompiledNetwork, recipe: Recipe, batch_size: int) -> None:
        self.batch_size = batch_size
        #: While the device computes one batch, the next is on its way. A CPU computes one at a time.
        self.n_in_flight = 2 if network.on_gpu else 1
        self._network = network
        self._recipe = recipe
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._jobs: deque[_Job] = deque()  # begun and unfinished, the oldest first
        self._flying: deque[tuple[_Job, int, Any]] = deque()  # batches on the device: job, images, what start returned
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="featx-keras", daemon=True)
        self._thread.start()

    def add(self, job: _Job) -> None:
        self._waiting.put(job)

    def end(self) -> None:
        """Cancel what is unfinished, and end the thread."""
        self._is_ending.set()
        self._waiting.put(None)
        if threading.current_thread() is not self._thread:  # which may be the one that collects the engine as garbage
            self._thread.join()

    def _run(self) -> None:
        while not self._is_ending.is_set():
            job = self._next_job() if len(self._flying) < self.n_in_flight else None
            if job:
                self._attempt(job, self._start_batch)
            elif self._flying:
                self._attempt(self._flying[0][0], self._finish_batch)
        self._flying.clear()
        while not self._waiting.empty():
            waiting = self._waiting.get()
            if waiting:
                waiting.future.cancel()
        for job in self._jobs:
            job.future.set_exception(CancelledError())

    def _next_job(self) -> _Job | None:
        """Return the oldest job with images to start; if the device has nothing to do, wait for one."""
        job = next((job for job in self._jobs if not job.is_started), None)
        if job is None:
            with contextlib.suppress(Empty):
                job = self._waiting.get(block=not self._flying)
            if job and job.future.set_running_or_notify_cancel():
                self._jobs.append(job)
                return job
            return None
        return job

    def _attempt(self, job: _Job, step: Callable[[_Job], None]) -> None:
        try:
            step(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for this job
            if not (isinstance(error, MemoryError) or self._network.is_out_of_memory(error)):
                self._fail(job, error)
            elif self.batch_size == 1:
                self._fail(job, self._memory_error())
            else:
                self._halve()

    def _start_batch(self, job: _Job) -> None:
        images = job.images[job.n_started : job.n_started + self.batch_size]
        self._flying.append((job, len(images), self._network.start(self._padded(images))))
        job.n_started += len(images)

    def _finish_batch(self, job: _Job) -> None:
        _, n, started = self._flying[0]
        features = self._network.finish(started)[:n]
        self._flying.popleft()
        job.add_part(features)
        if job.future.done():
            self._jobs.remove(job)

    def _padded(self, images: np.ndarray) -> np.ndarray:
        """Return a full batch.

        A short batch is filled up: one shape is compiled once, and the libraries underneath choose the same algorithm
        for it every time, so that an image's features do not depend on how many there were.
        """
        n_missing = self.batch_size - len(images)
        return np.pad(images, [(0, n_missing), (0, 0), (0, 0), (0, 0)]) if n_missing else images

    def _fail(self, job: _Job, error: Exception) -> None:
        self._flying = deque(flight for flight in self._flying if flight[0] is not job)
        self._jobs.remove(job)
        job.future.set_exception(error)

    def _halve(self) -> None:
        """Free the device, and go on with smaller batches where features have not come back."""
        before, self.batch_size = self.batch_size, self.batch_size // 2
        log.info("Out of %s at %d images a batch: continuing with %d.", self._memory, before, self.batch_size)
        self._flying.clear()
        for job in self._jobs:
            job.start_again()

    def _memory_error(self) -> FeatxError:
        height, width = self._recipe.image_size
        return FeatxError(
            f"Out of {self._memory} with one image at a time: {self._recipe.backbone} up to {self._recipe.layer} at "
            f"{height}x{width} does not fit. Use smaller images, an earlier layer or more memory."
        )

    @property
    def _memory(self) -> str:
        return "GPU memory" if self._network.on_gpu else "memory"
