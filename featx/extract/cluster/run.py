"""Stage one on a cluster, as seen from the process that was called."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import featx
from featx.dataset import Images
from featx.engines import AUTO, ENGINES, choose_engine, cpu_engine
from featx.errors import FeatxError, printable
from featx.extract.cluster.messages import STOP, Connected, Counted, Finished, Job, Said, Sample, Terms
from featx.extract.cluster.worker import digest_of
from featx.extract.pipeline import StageOne, StageResult
from featx.storage import TEMPORARY_PREFIX, StoragePath
from featx.system import Timings, held_interrupts, keras_backend, progress_bar, versions

log = logging.getLogger("featx")

#: Ray answers within seconds, or its address leads nowhere.
CONNECT_S = 60.0

#: So long a run goes on waiting for a worker when the last one was lost.
PATIENCE_S = 60.0

#: The driver says something twice a second. Ray ends it when the cluster has not answered for a minute.
SILENCE_S = 180.0

#: What decides a bit of a feature and may differ between nodes.
_VERSIONS = ("featx", "numpy", "pillow", "openvino", "keras")

#: So many images are looked at for one that workers may be asked to see.
_SAMPLES = 20


def run_on_cluster(stage: StageOne, images: Images) -> StageResult:
    """Have a Ray cluster do what `stage.run` does; timings are those of the clock on the wall.

    Args:
        stage: what is to be done with the images, and in its settings the address of the cluster: `"HOST:PORT"`,
            `"ray://HOST:PORT"`, or `"auto"` on a machine of the cluster.
        images: whose features are wanted.

    Raises:
        FeatxError: the cluster is not to be had, is not fit, or is lost. What was computed before is kept.
    """
    address, options, show = str(stage.settings.ray_address), stage.settings.engine_options, stage.settings.show
    if stage.recipe.precision == "int8":
        choose_engine(options, stage.recipe)  # raises what it would raise on a node
    if importlib.util.find_spec("ray") is None:
        raise FeatxError("Ray is not installed: install it with pip install 'featx[ray]'.")
    with _DriverProcess(address) as driver:
        driver.send((address, options, stage.recipe))
        connected = driver.connected()
        log.log(logging.INFO if show else logging.DEBUG, "Ray cluster %s: %s.", printable(address), connected.room)
        engine = connected.engine
        if options.engine == AUTO and not ENGINES[engine].uses_gpu:
            engine = cpu_engine(stage.recipe.precision)  # of this machine, for all nodes: rows are made alike
        if ENGINES[engine].converts:
            _convert(stage, show=show)
        bar = progress_bar(len(images), stage.recipe.backbone, stage.unit, show=show)
        finished = Finished(Timings(), [], [], None)
        try:
            with bar, _mark(stage.store.dir.absolute()) as mark, held_interrupts() as interrupted:
                driver.send(_job(stage, images, engine, mark))
                finished = driver.finished(bar.update, interrupted)
        except BaseException as error:  # noqa: BLE001 - raised again when what was skipped is remembered
            return StageResult(Timings(), finished.skipped, finished.dim, finished.error or error)
        return StageResult(finished.timings, finished.skipped, finished.dim, finished.error)


def _convert(stage: StageOne, *, show: bool) -> None:
    """See to it that a sound network is in the cache, once, before all workers look for it."""
    from featx.engines import load_network

    load_network(stage.recipe, stage.weights, stage.cache_dir, stage.dataset, show=show)


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


def _job(stage: StageOne, images: Images, engine: str, mark: StoragePath) -> Job:
    sources = [source if isinstance(source, np.ndarray) else source.absolute() for source in images.sources]
    images = Images(sources, images.digests, images.views)
    path = stage.weights.path
    backend = keras_backend()
    here = versions()
    terms = Terms(
        recipe=stage.recipe,
        weights=replace(stage.weights, path=path and path.absolute()),
        cache_dir=stage.cache_dir.absolute(),
        engine_options=replace(stage.settings.engine_options, engine=engine),
        workers=stage.settings.workers,
        strict=stage.settings.strict,
        keras_backend=backend,
        versions={name: here[name] for name in (*_VERSIONS, backend) if name in here},
        mark=mark,
        sample=_sample(images),
    )
    return Job(images, terms, PATIENCE_S)


def _sample(images: Images) -> Sample | None:
    """Return one of the first images that is what it was when it was digested."""
    for source, digest in zip(images.sources[:_SAMPLES], images.digests, strict=False):
        sha256 = digest.tobytes().hex()
        if not isinstance(source, np.ndarray) and digest_of(source) == sha256:
            return Sample(source, sha256)
    return None


class _DriverProcess:
    """The process that talks to Ray."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._pipe, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        # Its folder is where Ray's workers look for modules first: there shall be none but featx's own.
        folder = Path(featx.__file__).parents[1]
        code = "from featx.extract.cluster.driver import main; main()"
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own code, and no shell
                [sys.executable, "-c", code, str(theirs.fileno())],
                cwd=folder,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C on the terminal is for us alone
            )

    def send(self, what: object) -> None:
        """Ask for something."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended; what it said is read next
            self._pipe.send(what)

    def connected(self) -> Connected:
        """Wait until the cluster has been found.

        Raises:
            FeatxError: it has not.
        """
        deadline = time.monotonic() + CONNECT_S
        while not self._pipe.poll(0.1):
            if time.monotonic() > deadline:
                raise FeatxError(
                    f"The Ray cluster {printable(self._address)} does not answer; see ray status on its first machine."
                )
        answer = self._receive()
        if isinstance(answer, Connected):
            return answer
        raise answer.error

    def finished(self, count: Callable[[int], object], interrupted: Callable[[], bool]) -> Finished:
        """Wait until all is done; count and log meanwhile, and have it end early when interrupted."""
        is_stopped = False
        heard_s = time.monotonic()
        while True:
            if interrupted() and not is_stopped:
                self.send(STOP)
                is_stopped = True
            if not self._pipe.poll(0.2):
                if time.monotonic() - heard_s > SILENCE_S:
                    raise self._lost()
                continue
            said = self._receive()
            heard_s = time.monotonic()
            if isinstance(said, Counted):
                count(said.n)
            elif isinstance(said, Said):
                log.log(said.level, "%s", said.text)
            else:
                assert isinstance(said, Finished)
                return said

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> FeatxError:
        return FeatxError(
            f"The Ray cluster {printable(self._address)} is lost{self._last_words()}. What was computed is kept: start "
            f"it again, and run the same command to go on."
        )

    def _last_words(self) -> str:
        """Return the first sentence of the last line that the process has printed, in brackets.

        Ray's lines begin with the time, in brackets, and with a place in its code.
        """
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return ""
        words = re.sub(r"^\[[^]]*\] *(?:\S+:\d+: )?", "", lines[-1]).split(". ")[0].removesuffix(".")
        return f" ({printable(words[:200])})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()  # which ends it, if nothing else has
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
