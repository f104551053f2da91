"""Which workers a cluster has room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featx.engines import AUTO, ENGINES, EngineOptions, engines_for
from featx.recipe import Recipe

#: Cores of a worker without a GPU. With many, decoding threads would wait for Python's lock; each worker has the
#: network in memory once.
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class Room:
    """Room for one worker.

    Attributes:
        node_id: Ray's name of the node.
        node: what it is called in messages.
        n_cores: processor cores that Ray is asked for.
        n_gpus: GPUs that Ray is asked for, 0 or 1.
    """

    node_id: str
    node: str
    n_cores: int
    n_gpus: int


def cluster_engine(options: EngineOptions, recipe: Recipe, nodes: Sequence[dict[str, Any]]) -> str:
    """Return the one engine that all workers run, so that all rows are made alike: `"keras"` or `"openvino"`.

    `nodes` is what `ray.nodes()` returns. `"auto"` is `keras` where the cluster has a GPU; nodes without one then have
    nothing to do.
    """
    names = engines_for(recipe.precision)
    if options.engine != AUTO and options.engine in names:
        return options.engine
    has_gpu = any(_amount(node, "GPU") for node in nodes if node["Alive"])
    return next((name for name in names if ENGINES[name].uses_gpu == has_gpu), names[0])


def rooms(nodes: Sequence[dict[str, Any]], engine: str, cores_per_worker: int | None) -> list[Room]:
    """Return room for a worker for each GPU if `engine` is `keras` and there are some, else for every few cores.

    Args:
        nodes: what `ray.nodes()` returns.
        engine: `"keras"` or `"openvino"`.
        cores_per_worker: `CORES_PER_WORKER` if None; nodes with fewer have one worker with these.
    """
    alive = sorted((node for node in nodes if node["Alive"]), key=lambda node: str(node["NodeID"]))
    on_gpus = ENGINES[engine].uses_gpu and any(_amount(node, "GPU") for node in alive)
    return [
        Room(node["NodeID"], _name(node), n_cores, int(on_gpus))
        for node in alive
        for n_cores in (_cores_of_gpus(node) if on_gpus else _shares(_amount(node, "CPU"), cores_per_worker))
    ]


def described(found: Sequence[Room]) -> str:
    """Return in words what there is room for.

    >>> described([Room("a", "a", 4, 0), Room("a", "a", 3, 0), Room("b", "b", 4, 0)])
    '3 workers on 2 nodes, 11 cores'
    >>> described([Room("a", "a", 8, 1)])
    '1 worker on 1 node, 1 GPU, 8 cores'
    """
    counts = {
        "worker": len(found),
        "node": len({room.node_id for room in found}),
        "GPU": sum(room.n_gpus for room in found),
        "core": sum(room.n_cores for room in found),
    }
    workers, nodes, gpus, cores = (f"{n:,} {word}{'s' * (n != 1)}" for word, n in counts.items())
    return f"{workers} on {nodes}, {gpus + ', ' if counts['GPU'] else ''}{cores}"


def _cores_of_gpus(node: dict[str, Any]) -> list[int]:
    """Return the cores that go with each GPU of a node, to decode for it."""
    n_gpus = _amount(node, "GPU")
    return [_amount(node, "CPU") // max(1, n_gpus)] * n_gpus


def _shares(n_cores: int, cores_per_worker: int | None) -> list[int]:
    """Return how `n_cores` are shared out evenly.

    >>> _shares(10, None), _shares(2, None), _shares(3, 1), _shares(0, 2)
    ([4, 3, 3], [2], [1, 1, 1], [])
    """
    n_workers = -(-n_cores // (cores_per_worker or CORES_PER_WORKER))
    return [n_cores // n_workers + (number < n_cores % n_workers) for number in range(n_workers)]


def _amount(node: dict[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
