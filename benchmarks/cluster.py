"""A Ray cluster of two nodes on this machine against a single process: the same rows, and at what speed.

    python benchmarks/cluster.py data/ --weights weights/vgg16_notop.h5 --image-size 64

The single process has all cores that the two nodes have together, one each; a third node, the head, has none. They take
turns on fresh caches that have nothing but the converted network. Each turn is a whole `featx extract`, first of a few
images and then of all: what the few take is the start, and the rest of the images share the rest of the time. At the
end, a node is killed half-way. Every store is held against the first, bit for bit.

Images per second count every moment in which a core had nothing to do, but also what else the machine was busy with, of
which processes get unequal shares. Images per processor second, Ray's own processes included, count neither.
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
from main_job import linked_copy, rows_of
from ray_nodes import LocalCluster

#: Nodes with a core each.
N_CORES = 2

#: How often processes are asked what they have used.
POLL_S = 0.2


@dataclass(frozen=True)
class Run:
    """One `featx extract`.

    Attributes:
        n: images computed.
        elapsed_s: the whole command, in seconds.
        cpu_s: processor seconds, of the cluster's processes, too.
        store: the folder of the features.
    """

    n: int
    elapsed_s: float
    cpu_s: float
    store: Path


@dataclass(frozen=True)
class Turn:
    """What one contender did in one round: `few` images, which tell what the start costs, and `all` of them."""

    few: Run
    all: Run

    @property
    def images_per_s(self) -> float:
        """Of the whole command."""
        return self.all.n / self.all.elapsed_s

    @property
    def images_per_s_after_start(self) -> float:
        """Of what the images after the first few take."""
        return (self.all.n - self.few.n) / (self.all.elapsed_s - self.few.elapsed_s)

    @property
    def images_per_cpu_s_after_start(self) -> float:
        """The same per second of a processor."""
        return (self.all.n - self.few.n) / (self.all.cpu_s - self.few.cpu_s)


@dataclass(frozen=True)
class Bench:
    """Extracts with the same options, here or on a cluster.

    Attributes:
        data: all images.
        few: a few of them.
        networks: the converted network.
        words: options of the command.
        work_dir: for caches.
        cluster: whose processes' time is counted; None if there is none yet.
    """

    data: Path
    few: Path
    networks: Path
    words: list[str]
    work_dir: Path
    cluster: LocalCluster | None = None

    def turn(self, name: str, where: list[str]) -> Turn:
        """Let a contender have its turn."""
        return Turn(self.extract(self.few, f"{name}-few", where), self.extract(self.data, name, where))

    def extract(self, data: Path, name: str, where: list[str]) -> Run:
        """Run the command with a fresh cache."""
        cache = self.work_dir / name
        shutil.copytree(self.networks, cache / "networks")
        words = [str(data), "--cache-dir", str(cache), "--json", "--quiet", *self.words, *where]
        started_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with self._cluster_cpu_s() as in_cluster:
            command = [sys.executable, "-m", "featx", "extract", *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        elapsed_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + sum(in_cluster.values())
        summary = json.loads(done.stdout)
        return Run(summary["n_computed"], elapsed_s, cpu_s, Path(summary["store_dir"]))

    @contextmanager
    def _cluster_cpu_s(self) -> Iterator[dict[int, float]]:
        """Yield what holds, in the end, the processor seconds of each process of the cluster during the block.

        Workers end with the command, and are gone before they could be asked: they are asked all the time.
        """
        used: dict[int, float] = {}
        if not self.cluster:
            yield used
            return
        while self.cluster.workers():  # of the command before
            time.sleep(POLL_S)
        before, is_over = self.cluster.cpu_s(), threading.Event()

        def keep_asking() -> None:
            while not is_over.wait(POLL_S):
                used.update({pid: s - before.get(pid, 0.0) for pid, s in self.cluster.cpu_s().items()})

        thread = threading.Thread(target=keep_asking)
        thread.start()
        try:
            yield used
        finally:
            is_over.set()
            thread.join()


def print_turn(name: str, turn: Turn) -> None:
    """Print the figures of a turn."""
    print(
        f"{name:>9}: {turn.all.n:,} images in {turn.all.elapsed_s:.1f} s, {turn.images_per_s:.0f} images/s; start "
        f"{turn.few.elapsed_s:.1f} s, then {turn.images_per_s_after_start:.0f} images/s, "
        f"{turn.images_per_s_after_start / N_CORES:.1f} per core, {turn.images_per_cpu_s_after_start:.1f} per "
        f"processor second",
        flush=True,
    )


def kill_half_way(bench: Bench, cluster: LocalCluster, reference: Run) -> None:
    """Kill a node as soon as a third of the rows is stored, and print what comes of it."""
    cache = bench.work_dir / "killed"

    def wait_and_kill() -> None:
        while n_rows(cache) < reference.n / 3:
            time.sleep(0.2)
        cluster.nodes[1].kill()
        print(f"   killed: a node, with {n_rows(cache):,} rows stored", flush=True)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    run = bench.extract(bench.data, "killed", ["--ray", cluster.address])
    thread.join()
    rows = rows_of(run.store)
    print(
        f"   killed: {run.n:,} images in {run.elapsed_s:.1f} s; rows {len(rows):,}, bit for bit equal to the single "
        f"process: {rows == rows_of(reference.store)}"
    )


def n_rows(cache: Path) -> int:
    """Return how many rows a store has in its segments."""
    import h5py

    n = 0
    for path in cache.glob("*/seg-*.h5"):
        with h5py.File(path) as file:
            n += len(file["digest"])
    return n


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", required=True)
@click.option("--backbone", default="vgg16", show_default=True)
@click.option("--image-size", default="64", show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--part", default=1.0, show_default=True, help="Share of the images to use.")
@click.option("--kill/--no-kill", default=True, help="Also kill a node half-way.")
def main(data: Path, weights: str, backbone: str, image_size: str, rounds: int, part: float, kill: bool) -> None:
    """Measure a cluster against a single process."""
    words = ["--weights", weights, "--backbone", backbone, "--image-size", image_size]
    with tempfile.TemporaryDirectory(prefix="featx-cluster-") as folder:
        work_dir = Path(folder)
        images = linked_copy(data, work_dir / "data", part=slice(0, None, round(1 / part)))
        few = linked_copy(data, work_dir / "few", part=slice(0, 16))
        (work_dir / "none").mkdir()
        bench = Bench(images, few, work_dir / "none", words, work_dir)
        bench.extract(few, "converted", [])
        bench = Bench(images, few, work_dir / "converted" / "networks", words, work_dir)
        cluster = LocalCluster()
        try:
            measure(replace(bench, cluster=cluster), cluster, rounds, kill=kill)
        finally:
            cluster.remove()


def measure(bench: Bench, cluster: LocalCluster, rounds: int, *, kill: bool) -> None:
    """Let both have their turns; print the figures of each, and the medians."""
    contenders = {"alone": ["--threads", str(N_CORES)], "cluster": ["--ray", cluster.address]}
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            turns[name].append(bench.turn(f"{name}-{number}", contenders[name]))
            print_turn(name, turns[name][-1])
    stores = [rows_of(turn.all.store) for some in turns.values() for turn in some]
    are_equal = all(rows == stores[0] for rows in stores)
    print(f"all {len(stores)} stores have the same {len(stores[0]):,} rows: {are_equal}", flush=True)
    for what in ("images_per_cpu_s_after_start", "images_per_s_after_start", "images_per_s"):
        ratios = [getattr(b, what) / getattr(a, what) for a, b in zip(turns["alone"], turns["cluster"], strict=True)]
        words = " to ".join(f"{100 * ratio:.0f} %" for ratio in (min(ratios), max(ratios)))
        print(f"{what}, cluster / alone: median {100 * statistics.median(ratios):.0f} %, {words}")
    if kill:
        kill_half_way(bench, cluster, turns["alone"][0].all)


if __name__ == "__main__":
    main()
