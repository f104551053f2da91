"""The process that talks to Ray, for the one that was called; they talk through a pipe."""

import logging
import os
import re
import socket
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from featx.engines import EngineOptions
from featx.errors import FeatxError, printable
from featx.extract.cluster.hand_out import HandOut
from featx.extract.cluster.messages import STOP, Connected, Finished, Job
from featx.extract.cluster.rooms import cluster_engine, described, rooms
from featx.recipe import Recipe
from featx.system import Timings

#: Ray tries an address where nobody is for two minutes; a machine that is there answers at once.
CONNECT_S = 10.0


def main() -> None:
    """Do what the other end of the pipe asks for; the file descriptor is the first word of the command line."""
    _Driver(Connection(int(sys.argv[1]))).run()


class _Driver:
    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._asked: SimpleQueue[Any] = SimpleQueue()
        self._is_stopped = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            finished = self._work(*self._asked.get())
        except FeatxError as error:
            finished = Finished(Timings(), [], [], error)
        except Exception as error:  # noqa: BLE001 - of Ray's, if not ours; nobody sees a traceback here
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            finished = Finished(
                Timings(), [], [], FeatxError(f"The driver of the Ray cluster failed: {printable(reason)}")
            )
        self._parent.send(finished)

    def _work(self, address: str, options: EngineOptions, recipe: Recipe) -> Finished:
        ray = connect(address)
        nodes = ray.nodes()
        engine = cluster_engine(options, recipe, nodes)
        self._parent.send(Connected(engine, described(rooms(nodes, engine, options.threads))))
        job: Job = self._asked.get()
        return HandOut(ray, engine, job, self._tell, self._is_stopped.is_set).run()

    def _tell(self, what: object) -> None:
        self._parent.send(what)

    def _listen(self) -> None:
        """Take in what is asked for. When the other process ends, however it does, so do this one and its workers."""
        while True:
            try:
                asked = self._parent.recv()
            except (EOFError, OSError):
                os._exit(1)
            if asked == STOP:
                self._is_stopped.set()
            else:
                self._asked.put(asked)


def connect(address: str) -> Any:
    """Return the `ray` module, connected to the cluster at `address`.

    Raises:
        FeatxError: Ray is not installed, or there is no such cluster.
    """
    _check_listening(address)
    try:
        import ray
    except ImportError as error:
        raise FeatxError(f"Ray does not load ({error}). Install it with pip install 'featx[ray]'.") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError: Ray says what it likes
        reason = " ".join(str(error).split())[:400].removesuffix(".")
        raise FeatxError(f"The Ray cluster {printable(address)} cannot be used: {printable(reason)}.") from error
    return ray


def _check_listening(address: str) -> None:
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if not match:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise FeatxError(
            f"There is no Ray cluster at {printable(address)} ({getattr(error, 'strerror', None) or error}). Start one "
            f"with ray start --head, and name its address, or auto on one of its machines."
        ) from error
