"""The time and memory that an extraction took, by phase."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, TypeVar

from featx.system.machine import peak_memory_bytes

_Item = TypeVar("_Item")

#: Images, seconds and bytes; sums of thousands of these are exact enough, and none is infinite.
_LARGEST = 10**15

#: Of the images, those for which something was different; see `Timings`.
_COUNTS = ("n_fallback", "n_kept")


@dataclass(frozen=True)
class Timings:
    """Wall-clock time that features took, split by what the pipeline was waiting for, and the memory it used.

    Decoding and writing overlap with the forward pass; only the time in which the pipeline stood still for them is
    counted, so that the phases add up to `elapsed_s`.

    Attributes:
        n_images: images computed.
        start_s: starting the engine: loading the weights and compiling, without the start of Keras itself, which every
            training needs once.
        decode_s: waiting for decoded images.
        forward_s: running the backbone.
        write_s: waiting for segments to be written: the last one of a run, and each one that was not on disk when the
            next one was full. That wait counts for the next one.
        elapsed_s: everything, in seconds.
        peak_memory_bytes: largest resident memory of the process.
        n_fallback: of the images, those that an int8 network is not made for, so that they were computed in the
            recipe's fallback.
        n_kept: of the images, those that were not decoded, since their pixels were kept from before.
    """

    n_images: int = 0
    start_s: float = 0.0
    decode_s: float = 0.0
    forward_s: float = 0.0
    write_s: float = 0.0
    elapsed_s: float = 0.0
    peak_memory_bytes: int = 0
    n_fallback: int = 0
    n_kept: int = 0

    def __add__(self, other: Self) -> "Timings":
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        sums["peak_memory_bytes"] = max(self.peak_memory_bytes, other.peak_memory_bytes)
        return Timings(**sums)

    def share(self, part: float) -> "Timings":
        """Return the timings of `part` (0 to 1) of the images; the peak memory stays the same."""
        shares = {f.name: getattr(self, f.name) * part for f in fields(self) if f.name.endswith("_s")}
        counts = {name: round(getattr(self, name) * part) for name in ("n_images", *_COUNTS)}
        return replace(self, **counts, **shares)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` wrote; members that this version does not know are ignored.

        Raises:
            ValueError: a member is not a finite number, or larger than any that was ever measured.
        """
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        if not all(type(value) in {int, float} and abs(value) <= _LARGEST for value in known.values()):
            raise ValueError("its timings are not numbers, or too large")
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them. Counts of what did not happen are left out, as in older stores."""
        return {name: value for name, value in asdict(self).items() if value or name not in _COUNTS}


class Stopwatch:
    """Measures the phases of an extraction, lap by lap.

    If `side_by_side` workers compute at the same time, each counts that fraction of every second, so that the times of
    all rows add up to the wall-clock time.
    """

    def __init__(self, side_by_side: int = 1) -> None:
        self._side_by_side = side_by_side
        self._lap_started = time.perf_counter()
        self._phases: dict[str, float] = {}
        self._running: tuple[str, float] | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._read = (self._lap_started, self._phases, self._counts)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name`: `start`, `decode`, `forward` or `write`."""
        self._running = (name, time.perf_counter())
        try:
            yield
        finally:
            self._phases = self._phases_until(time.perf_counter())
            self._running = None

    def waiting(self, name: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield `items`, adding the time spent waiting for each one to the phase `name`."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def lap(self, n_images: int) -> Timings:
        """Return the timings of `n_images` images since the lap began, including the current phase so far."""
        now = time.perf_counter()
        phases = self._phases_until(now)
        # What has come after these images is counted with the next.
        counts = {name: min(n, n_images) for name, n in self._counts.items()}
        self._read = (now, phases, counts)
        costs = {f"{name}_s": elapsed_s / self._side_by_side for name, elapsed_s in phases.items()}
        elapsed_s = (now - self._lap_started) / self._side_by_side
        return Timings(
            n_images,
            elapsed_s=elapsed_s,
            peak_memory_bytes=peak_memory_bytes(),
            n_fallback=counts["n_fallback"],
            n_kept=counts["n_kept"],
            **costs,
        )

    def next_lap(self) -> None:
        """Begin a new lap, between two phases, at the moment when `lap` was called last."""
        self._lap_started, counted, counts = self._read
        self._counts = {name: n - counts[name] for name, n in self._counts.items()}
        self._phases = {name: elapsed_s - counted.get(name, 0.0) for name, elapsed_s in self._phases.items()}

    def add(self, name: str, elapsed_s: float) -> None:
        """Count in this lap what the phase `name` took just before it."""
        self._phases = {**self._phases, name: self._phases.get(name, 0.0) + elapsed_s}
        self._lap_started -= elapsed_s

    def count(self, name: str, n_images: int) -> None:
        """Count so many images in this lap: `n_fallback` or `n_kept`, see `Timings`."""
        self._counts = {**self._counts, name: self._counts[name] + n_images}

    def restart(self) -> None:
        """Forget all that has been measured."""
        self._lap_started = time.perf_counter()
        self._phases = {}

    def _phases_until(self, now: float) -> dict[str, float]:
        if self._running is None:
            return self._phases
        name, started = self._running
        return {**self._phases, name: self._phases.get(name, 0.0) + now - started}


class Stopwatches(Stopwatch):
    """Several stopwatches that measure the same phases, for features that are computed together; each has its laps."""

    def __init__(self, stopwatches: Sequence[Stopwatch]) -> None:
        super().__init__()
        self._each = stopwatches

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name` of each."""
        with ExitStack() as stack:
            for one in self._each:
                stack.enter_context(one.phase(name))
            yield

    def count(self, name: str, n_images: int) -> None:
        """Count images in this lap of each."""
        for one in self._each:
            one.count(name, n_images)

    def restart(self) -> None:
        """Forget all that has been measured."""
        for one in self._each:
            one.restart()
