"""The `keras` engine: whatever backend `KERAS_BACKEND` names, the GPU if there is one.

Two layers above the networks that each backend compiles: a thread that keeps the device busy with batches and makes
them smaller when memory runs out; and the engine, which hands out futures.
"""

import contextlib
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from featx.backbones import DTYPE_POLICIES, build_model
from featx.engines.keras_networks import CompiledNetwork, compiled_network
from featx.errors import FeatxError
from featx.keras_import import import_keras
from featx.recipe import Recipe
from featx.weights import Weights

log = logging.getLogger("featx")


class KerasEngine:
    """Runs a backbone with Keras in batches of one fixed size, on a thread of its own.

    On a GPU, the next batch travels and the last one returns while one is computed. If the GPU's memory does not hold
    a batch, its size is halved, and the work goes on.

    Attributes:
        depth: how many submitted batches keep the device busy: those on the device, and one to follow at once.
        feature_shape: the shape of one image's features.
    """

    def __init__(self, recipe: Recipe, weights: Weights, batch_size: int) -> None:
        """Build and compile the network.

        Raises:
            BackboneError: the layer does not exist, or the images are too small for the network.
            WeightsError: the file does not fit the network.
            FeatxError: the precision is none of Keras's, or one image is too large for the device's memory.
        """
        if recipe.precision not in DTYPE_POLICIES:
            raise FeatxError(
                f"The keras engine computes in {' or '.join(DTYPE_POLICIES)}. Received: {recipe.precision!r}"
            )
        import_keras()
        model = build_model(recipe, weights.path, recipe.precision)
        self.feature_shape: tuple[int, ...] = tuple(model.output_shape[1:])
        network = compiled_network(model, recipe.precision)
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
        """How many images are computed at once: what was asked for, or what fits into memory if that is less."""
        return self._worker.batch_size

    def submit(self, images: np.ndarray) -> "Future[np.ndarray]":
        """Begin with `images`, `(n, height, width, 3)` uint8 RGB, and return the future of their features.

        These are `(n, *feature_shape)` float32. The array must not change before the future is done. Submitted arrays
        are worked off in order. The future raises FeatxError if not even one image fits into the device's memory.
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
        """End the thread once the batch that it is at is done; what is unfinished then is cancelled."""
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
        if len(images) == self.batch_size:
            return images
        padded = np.zeros((self.batch_size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        return padded

    def _fail(self, job: _Job, error: Exception) -> None:
        self._flying = deque(flight for flight in self._flying if flight[0] is not job)
        self._jobs.remove(job)
        job.future.set_exception(error)

    def _halve(self) -> None:
        """Free the device, and go on with smaller batches where features have not come back."""
        before, self.batch_size = self.batch_size, self.batch_size // 2
        log.info("Out of %s at %d images a batch: going on with %d.", self._memory, before, self.batch_size)
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
