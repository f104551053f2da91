"""The process that talks to Ray. It does what the command at the other end of a pipe asks for.

Through the pipe go, in this order:

    to the driver   the address, the engine options, the recipe
    to the command  `ClusterFound`
    to the driver   the images, the `WorkerConfig`, how long to wait for a worker
    to the command  `Progress`, twice a second
    to the driver   `Stop`, if the work is to end early
    to the command  `Outcome`, or earlier if something fails
"""

import asyncio
import logging
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from featx.engines import ENGINES, EngineOptions, engines_for, engines_on_cpu
from featx.errors import FeatxError
from featx.extract.cluster.scheduler import Scheduler
from featx.extract.cluster.worker import Outcome, WorkerSlot
from featx.recipe import Recipe
from featx.system import import_failure
from featx.text import printable

#: Ray tries an address where nobody listens for two minutes; a machine that is there answers at once.
CONNECT_S = 10.0

#: Cores of a worker without a GPU. With many, decoding threads would wait for Python's lock; each worker has the
#: network in memory once.
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class ClusterFound:
    """The driver has found the cluster.

    Attributes:
        engine: which runs there, one of `featx.engines.ENGINES`.
        description: how many workers on which nodes, in words.
    """

    engine: str
    description: str


@dataclass(frozen=True)
class Stop:
    """Start nothing more; finish and keep the batches under way."""


def main() -> None:
    """Run the driver; the file descriptor of its pipe is the first word of the command line."""
    command = Connection(int(sys.argv[1]))
    try:
        outcome = _drive(command)
    except FeatxError as error:
        outcome = Outcome(error=error)
    except Exception as error:  # noqa: BLE001 - of Ray's, if not ours; nobody sees a traceback here
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        outcome = Outcome(error=FeatxError(f"The driver of the Ray cluster failed: {printable(reason)}"))
    with suppress(OSError):  # the command has ended
        command.send(outcome)


def _drive(command: Connection) -> Outcome:
    address, options, recipe = command.recv()
    ray = _connect(address)
    engine = cluster_engine(options, recipe, ray.nodes())

    def find_slots() -> list[WorkerSlot]:
        return worker_slots(ray.nodes(), engine, options.threads)

    command.send(ClusterFound(engine, described(find_slots())))
    return asyncio.run(Scheduler(ray, find_slots, command, *command.recv()).run())


def _connect(address: str) -> Any:
    """Return the `ray` module, connected to the cluster at `address`.

    Raises:
        FeatxError: Ray is not installed, or there is no such cluster.
    """
    _check_listening(address)
    try:
        import ray
    except ImportError as error:
        raise FeatxError(f"{import_failure('ray', error, 'featx[ray]')}.") from error
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


def cluster_engine(options: EngineOptions, recipe: Recipe, nodes: Sequence[dict[str, Any]]) -> str:
    """Return the one engine that all workers run, so that all rows are made alike.

    `nodes` is what `ray.nodes()` returns. `"auto"` is `keras` where the cluster has a GPU; nodes without one then have
    nothing to do.
    """
    names = engines_for(recipe.precision, recipe.backbone)
    if options.engine in names:
        return options.engine
    has_gpu = any(node["Resources"].get("GPU") for node in nodes if node["Alive"])
    on_gpu = next((name for name in names if ENGINES[name].uses_gpu), None)
    return on_gpu if has_gpu and on_gpu else engines_on_cpu(recipe)[0]


def worker_slots(nodes: Sequence[dict[str, Any]], engine: str, cores_per_worker: int | None) -> list[WorkerSlot]:
    """Return a slot for each GPU if `engine` is `keras` and there are some, else for every few cores.

    Args:
        nodes: what `ray.nodes()` returns.
        engine: one of `featx.engines.ENGINES`.
        cores_per_worker: `CORES_PER_WORKER` if None; nodes with fewer have one worker with these.
    """
    alive = sorted((node for node in nodes if node["Alive"]), key=lambda node: str(node["NodeID"]))
    on_gpus = ENGINES[engine].uses_gpu and any(node["Resources"].get("GPU") for node in alive)
    slots = []
    for node in alive:
        n_cores, n_gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
        n_workers = n_gpus if on_gpus else -(-n_cores // (cores_per_worker or CORES_PER_WORKER))
        for number in range(n_workers):
            # The cores that a GPU leaves over do nothing; all others are shared out evenly.
            share = n_cores // n_workers + (not on_gpus and number < n_cores % n_workers)
            slots.append(WorkerSlot(node["NodeID"], name, share, int(on_gpus)))
    return slots


def described(slots: Sequence[WorkerSlot]) -> str:
    """Return in words what there is room for.

    >>> described([WorkerSlot("a", "a", 4, 0), WorkerSlot("a", "a", 3, 0), WorkerSlot("b", "b", 4, 0)])
    '3 workers on 2 nodes, 11 cores'
    >>> described([WorkerSlot("a", "a", 8, 1)])
    '1 worker on 1 node, 1 GPU, 8 cores'
    """
    counts = {
        "worker": len(slots),
        "node": len({slot.node_id for slot in slots}),
        "GPU": sum(slot.n_gpus for slot in slots),
        "core": sum(slot.n_cores for slot in slots),
    }
    workers, nodes, gpus, cores = (f"{n:,} {word}{'s' * (n != 1)}" for word, n in counts.items())
    return f"{workers} on {nodes}, {gpus + ', ' if counts['GPU'] else ''}{cores}"
