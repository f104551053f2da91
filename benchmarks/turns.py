"""Contenders that take turns: each in a process of its own, none running while another is measured.

A machine that slows down for a while slows all of them: what is compared are the ratios within a round.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from featx.system.machine import cpu_seconds, peak_memory_bytes, reset_peak_memory

#: What a contender or its turn came to, as JSON knows it.
Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a contender is to do.

    Attributes:
        contender: name in `contenders.CONTENDERS`.
        backbone: name in `featx.backbones.table.BACKBONES`.
        image_size: side of the square images, in pixels.
        precision: `"float32"`, `"bfloat16"` or `"int8"`.
        weights: as for `featx.extract_features`.
        data_dir: the images, `CLASS/*`.
        work_dir: a folder for what is written; the contenders of one case share it.
        n_alone: images that the network is given from memory, to see how fast it is alone.
        matrix_size: rows and columns of the largest matrices that are multiplied.
    """

    contender: str
    backbone: str = "vgg16"
    image_size: int = 224
    precision: str = "float32"
    weights: str = "random"
    data_dir: str = ""
    work_dir: str = ""
    n_alone: int = 96
    matrix_size: int = 2048

    @property
    def pixels_path(self) -> Path:
        """The images, decoded, that the network is given from memory: `(n_alone, height, width, 3)` uint8 RGB."""
        return Path(self.work_dir, "pixels.npy")

    @property
    def features_path(self) -> Path:
        """What this contender's network makes of them."""
        return Path(self.work_dir, f"features-{self.contender}-{self.precision}.npy")


@contextmanager
def measuring() -> Iterator[Figures]:
    """Yield figures to which the block's wall-clock time, processor time and peak memory are added.

    `others_share` is the part of the machine's processors, 0 to 1, that was busy with other processes meanwhile.
    """
    figures: Figures = {}
    reset_peak_memory()
    busy_before, cpu_started, started = cpu_seconds(), _own_cpu_s(), time.perf_counter()
    yield figures
    figures["elapsed_s"] = time.perf_counter() - started
    figures["cpu_s"] = _own_cpu_s() - cpu_started
    others_cpu_s = max(0.0, cpu_seconds() - busy_before - figures["cpu_s"])
    figures["others_share"] = others_cpu_s / (figures["elapsed_s"] * (os.cpu_count() or 1))
    figures["peak_memory_bytes"] = peak_memory_bytes()


def _own_cpu_s() -> float:
    """Return the processor time of this process, and of those that it started and that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


class Contender:
    """A process that has warmed up, and does nothing until it is its turn.

    Attributes:
        facts: what it said when it was ready.
        turns: the figures of its turns, by what was to be done.
    """

    def __init__(self, task: Task) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, str(Path(__file__).with_name("contenders.py")), json.dumps(asdict(task))]
        # The CPU is what is measured here, also on a machine with a GPU.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        self.task = task
        self.turns: dict[str, list[Figures]] = {}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        started = time.perf_counter()
        self.facts = {**self._answer(), "ready_s": time.perf_counter() - started}

    def turn(self, what: str) -> Figures:
        """Let it do `what`, `"end_to_end"`, `"alone"` or `"limits"`, and return the figures of this turn."""
        figures = self.ask(what)
        self.turns.setdefault(what, []).append(figures)
        return figures

    def ask(self, what: str) -> Figures:
        """Let it do `what`, and return what it says; this is no turn."""
        assert self._process.stdin
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Figures:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            raise RuntimeError(f"The contender {self.task.contender} ended with code {self._process.returncode}.")
        answer: Figures = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its standard input, which ends it


def take_turns(contenders: Sequence[Contender], what: str, round_number: int) -> None:
    """Let each contender have its turn; there and back again in every other round, so that none is always first."""
    for contender in contenders if round_number % 2 == 0 else contenders[::-1]:
        contender.turn(what)


@dataclass(frozen=True)
class Spread:
    """Figures of several rounds in short."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the median and the extremes of `values`."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Self:
        """Return the spread of the ratios, round by round."""
        return cls.of([a / b for a, b in zip(numerators, denominators, strict=True)])
