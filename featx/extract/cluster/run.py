"""Stage one on a cluster, as seen from the process that was called."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

import featx
from featx.dataset import Images
from featx.engines import AUTO, ENGINES, choose_engine, cpu_engine, load_network
from featx.errors import FeatxError
from featx.extract.cluster.driver import ClusterFound, Stop
from featx.extract.cluster.worker import Outcome, WorkerConfig, digest_of
from featx.extract.pipeline import StageOne, StageResult
from featx.storage import TEMPORARY_PREFIX, StoragePath
from featx.system import held_interrupts, install_command, keras_backend, progress_bar, versions
from featx.text import printable

log = logging.getLogger("featx")

#: Ray answers within seconds, or its address leads nowhere.
CONNECT_S = 60.0

#: How long a run waits for another worker when the last one was lost.
PATIENCE_S = 60.0

#: The driver says something twice a second. Ray ends it when the cluster has not answered for a minute.
SILENCE_S = 180.0

#: What decides a bit of a feature and may differ between nodes.
_VERSIONS = ("featx", "numpy", "pillow", "pillow-heif", "openvino", "keras")

#: Images that are tried to find one that workers can check.
_SAMPLES = 20


def run_on_cluster(stage: StageOne, images: Images) -> StageResult:
    """Have a Ray cluster do what `stage.run` does; timings are those of the clock on the wall.

    Args:
        stage: what to do with the images, and in its settings the address of the cluster: `"HOST:PORT"`,
            `"ray://HOST:PORT"`, or `"auto"` on a machine of the cluster.
        images: whose features are wanted.

    Raises:
        FeatxError: the cluster does not answer, or cannot be used.
    """
    address, options, show = str(stage.settings.ray_address), stage.settings.engine_options, stage.settings.show
    if stage.recipe.precision == "int8":
        choose_engine(options, stage.recipe)  # raises what it would raise on a node
    if importlib.util.find_spec("ray") is None:
        raise FeatxError(f"Ray is not installed. Install it with {install_command('featx[ray]')}.")
    with closing(_Driver(address)) as driver:
        cluster = driver.find_cluster(stage)
        log.log(logging.INFO if show else logging.DEBUG, "Ray cluster %s: %s.", printable(address), cluster.description)
        engine = cluster.engine
        if options.engine == AUTO and not ENGINES[engine].uses_gpu:
            engine = cpu_engine(stage.recipe)  # of this machine, for all nodes: rows are made alike
        if ENGINES[engine].converts:  # a sound network is in the cache, once, before all workers look for it
            load_network(stage.recipe, stage.weights, stage.cache_dir, stage.dataset, show=show)
        sources = [source if isinstance(source, np.ndarray) else source.absolute() for source in images.sources]
        images = replace(images, sources=sources)
        bar = progress_bar(len(images), stage.recipe.backbone, stage.unit, show=show)
        outcome = Outcome()
        try:
            with bar, _mark(stage.store.dir.absolute()) as mark, held_interrupts() as interrupted:
                driver.send((images, _worker_config(stage, images, engine, mark), PATIENCE_S))
                outcome = driver.outcome(bar.update, interrupted)
        except KeyboardInterrupt as interrupt:  # what was skipped until then is remembered before it is raised
            outcome.error = outcome.error or interrupt
        return outcome


@contextmanager
def _mark(store_dir: StoragePath) -> Iterator[StoragePath]:
    """Make a file in the store, by which workers know that they see the same folder."""
    mark = store_dir / f"{TEMPORARY_PREFIX}cluster-{uuid.uuid4().hex}"
    store_dir.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield mark
    finally:
        with suppress(OSError):
            mark.unlink()
            if isinstance(store_dir, Path):
                store_dir.rmdir()  # if it is empty


def _worker_config(stage: StageOne, images: Images, engine: str, mark: StoragePath) -> WorkerConfig:
    path = stage.weights.path
    backend = keras_backend()
    here = versions()
    return WorkerConfig(
        recipe=stage.recipe,
        weights=replace(stage.weights, path=path and path.absolute()),
        cache_dir=stage.cache_dir.absolute(),
        engine_options=replace(stage.settings.engine_options, engine=engine),
        workers=stage.settings.workers,
        strict=stage.settings.strict,
        keep_pixels=stage.settings.keep_pixels,
        keras_backend=backend,
        versions={name: here[name] for name in (*_VERSIONS, backend, ENGINES[engine].package) if name in here},
        mark=mark,
        sample=_sample(images),
    )


def _sample(images: Images) -> tuple[StoragePath, str] | None:
    """Return one of the first images that still has the bytes that were digested, and their digest."""
    for source, digest in zip(images.sources[:_SAMPLES], images.digests, strict=False):
        sha256 = digest.tobytes().hex()
        if not isinstance(source, np.ndarray) and digest_of(source) == sha256:
            return source, sha256
    return None


class _Driver:
    """The process that talks to Ray, as seen from here."""

    def __init__(self, address: str) -> None:
        if os.name == "nt":
            raise FeatxError(
                "featx cannot use a Ray cluster from Windows: leave out --ray, or run it on Linux or macOS."
            )
        self._address = address
        self._pipe, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        code = "from featx.extract.cluster.driver import main; main()"
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own code, and no shell
                [sys.executable, "-c", code, str(theirs.fileno())],
                # Where Ray's workers look for modules first: there are none but featx's own.
                cwd=Path(featx.__file__).parents[1],
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C on the terminal is for us alone
            )

    def find_cluster(self, stage: StageOne) -> ClusterFound:
        """Wait until the cluster has been found.

        Raises:
            FeatxError: it has not.
        """
        self.send((self._address, stage.settings.engine_options, stage.recipe))
        if not self._pipe.poll(CONNECT_S):
            self._process.kill()
            raise FeatxError(
                f"The Ray cluster {printable(self._address)} does not answer; see ray status on its first machine."
            )
        answer = self._receive()
        if isinstance(answer, ClusterFound):
            return answer
        raise answer.error

    def outcome(self, count: Callable[[int], object], interrupted: Callable[[], bool]) -> Outcome:
        """Wait until all is done; count and log until then, and stop early on Ctrl-C."""
        while True:
            if not self._pipe.poll(SILENCE_S):
                raise self._lost()
            message = self._receive()
            if isinstance(message, Outcome):
                return message
            count(message.n_done)
            for warning in message.warnings:
                log.warning("%s", warning)
            if interrupted():
                self.send(Stop())  # the driver takes one for each `Progress`

    def send(self, message: object) -> None:
        """Tell the process something."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended; what it said is read next
            self._pipe.send(message)

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> FeatxError:
        """Return the error that the cluster is lost, with the first sentence of the last line that was printed.

        Ray's lines begin with the time, in brackets, and with a place in its code.
        """
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        words = re.sub(r"^\[[^]]*\] *(?:\S+:\d+: )?", "", lines[-1]).split(". ")[0].removesuffix(".") if lines else ""
        reason = f" ({printable(words[:200])})" if words else ""
        return FeatxError(
            f"The Ray cluster {printable(self._address)} was lost{reason}. What was computed is kept: "
            f"start the cluster again, and run the same command to resume."
        )

    def close(self) -> None:
        """End the process."""
        self._pipe.close()  # which ends it, if nothing else has
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
