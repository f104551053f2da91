"""Named points in the life of a featx process, and the faults that a test injects there.

A hook wraps a real function of featx, of h5py or of the system in this process. It leaves a crumb at each call, so that
another process knows how far this one has come, and injects a fault at the call it was told.

The names of featx that the suite hooks or replaces stand in this module alone. `test_fault_points.py` checks them.
"""

import functools
import importlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CRUMB_BYTES = 32


@dataclass(frozen=True)
class FaultPoint:
    """A function that is called in some phase: something may happen before or after each call.

    Attributes:
        phase: the word for the table.
        target: `module:name` or `module:Class.name`, where the caller looks it up.
    """

    phase: str
    target: str

    @property
    def whens(self) -> tuple[str, ...]:
        """When a fault may happen: `before` a call, `after` it, or `during` it, if half of it can be done."""
        return ("before", "during", "after") if self.target in _WRITES else ("before", "after")


#: Functions that write data to a path: a process may be killed when half of the data is written.
_WRITES = ("pathlib:Path.write_bytes", "pathlib:Path.write_text")

FIND_LAYOUT = FaultPoint("scan", "featx.dataset.scanning:find_layout")
LIST_FOLDER = FaultPoint("scan", "featx.dataset.scanning:list_folder")
HASH = FaultPoint("digest", "featx.dataset.digests:_hash_several")
LOOKUP = FaultPoint("digest", "featx.dataset.statcache:StatCache.lookup")
REMEMBER = FaultPoint("digest", "featx.dataset.statcache:StatCache.remember")
RELOAD = FaultPoint("open", "featx.store.feature_store:FeatureStore.reload")
READ_NETWORK = FaultPoint("start", "featx.engines.openvino_engine:read_network")
COMPILE = FaultPoint("start", "featx.engines.openvino_engine:_compile")
DECODE = FaultPoint("decode", "featx.dataset.loader:_decode")
SUBMIT = FaultPoint("forward", "featx.engines.openvino_engine:OpenVinoEngine.submit")
TAKE = FaultPoint("forward", "featx.engines.openvino_engine:_Batch.take")
ADD = FaultPoint("forward", "featx.store.segment_writer:SegmentWriter.add")
WRITE_SEGMENT = FaultPoint("segment write", "featx.store.feature_store:write_segment_file")
CREATE_DATASET = FaultPoint("segment write", "h5py:Group.create_dataset")
WRITE_BYTES = FaultPoint("segment write", "pathlib:Path.write_bytes")
FSYNC = FaultPoint("fsync", "os:fsync")
RENAME = FaultPoint("rename", "pathlib:Path.replace")
PUBLISH = FaultPoint("derived files", "featx.store.feature_store:FeatureStore.publish")
WRITE_JSON = FaultPoint("derived files", "featx.store.feature_store:write_text")
WRITE_VIRTUAL = FaultPoint("derived files", "featx.store.feature_store:write_virtual_dataset")
CREATE_VIRTUAL = FaultPoint("derived files", "h5py:Group.create_virtual_dataset")
WRITE_TEXT = FaultPoint("derived files", "pathlib:Path.write_text")
WRITE_SKIPPED = FaultPoint("skipped.csv", "featx.dataset.skipped:write_text")

EXTRACTION = (
    *(FIND_LAYOUT, LIST_FOLDER, HASH, LOOKUP, REMEMBER, RELOAD, READ_NETWORK, COMPILE, DECODE, SUBMIT, TAKE, ADD),
    *(WRITE_SEGMENT, CREATE_DATASET, WRITE_BYTES, FSYNC, RENAME),
    *(PUBLISH, WRITE_JSON, WRITE_VIRTUAL, CREATE_VIRTUAL, WRITE_TEXT, WRITE_SKIPPED),
)

COMPACTION = tuple(
    FaultPoint("compaction", target)
    for target in (
        "featx.store.compaction:_merge",
        "featx.store.compaction:_check",
        WRITE_SEGMENT.target,
        "featx.store.feature_store:FeatureStore.remove_merged",
        "featx.store.feature_store:FeatureStore._write_derived_files",
        PUBLISH.target,
        WRITE_VIRTUAL.target,
        WRITE_BYTES.target,
        "pathlib:Path.unlink",
        RENAME.target,
        FSYNC.target,
    )
)

#: Constants that the suite replaces, so that a few small images make many segments.
SEGMENT_BYTES = "featx.store.segment_writer:SEGMENT_BYTES"
TARGET_BYTES = "featx.store.compaction:TARGET_BYTES"
SMALL_BYTES = "featx.store.compaction:SMALL_BYTES"


def kill_self() -> None:
    """End this process at once: no handler runs, no buffer is written."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Fault:
    """What happens at a fault point.

    Attributes:
        point: at which function.
        nth: at which of its calls, from 1.
        when: `before` the call, `after` it, or `during` it: see `FaultPoint.whens`.
        delay_s: seconds later; other threads, and the function's caller, go on meanwhile.
        action: what happens.
    """

    point: FaultPoint
    nth: int = 1
    when: str = "before"
    delay_s: float = 0.0
    action: Callable[[], None] = kill_self

    def fire(self) -> None:
        """Do it, now or later."""
        if self.delay_s:
            threading.Thread(target=self._later, daemon=True).start()
        else:
            self.action()

    def _later(self) -> None:
        time.sleep(self.delay_s)
        self.action()


class Hooks:
    """The hooks of this process."""

    def __init__(self, points: tuple[FaultPoint, ...], crumb_path: Path | None, *faults: Fault) -> None:
        """Wrap the functions of all `points`, for good; the last one reached is written to `crumb_path`."""
        self.calls = dict.fromkeys(points, 0)
        self._faults = {(fault.point, fault.nth, fault.when): fault for fault in faults}
        self._crumb = os.open(crumb_path, os.O_RDWR | os.O_CREAT, 0o600) if crumb_path else None
        for point in points:
            self._wrap(point)

    def _wrap(self, point: FaultPoint) -> None:
        owner, name = owner_of(point.target)
        real = getattr(owner, name)
        count = itertools.count(1)  # next() is atomic: several threads call some of these
        crumb = point.phase.encode().ljust(CRUMB_BYTES)

        @functools.wraps(real)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            number = self.calls[point] = next(count)
            if self._crumb is not None:
                os.pwrite(self._crumb, crumb, 0)
            if fault := self._faults.get((point, number, "before")):
                fault.fire()
            if fault := self._faults.get((point, number, "during")):
                path, data, *rest = args
                real(path, data[: len(data) // 2], *rest, **kwargs)
                fault.fire()
            try:
                return real(*args, **kwargs)
            finally:
                if fault := self._faults.get((point, number, "after")):
                    fault.fire()

        setattr(owner, name, hooked)


def owner_of(target: str) -> tuple[Any, str]:
    """Return the module or class that a target is looked up in, and its name there.

    Raises:
        LookupError: featx has no such name any more.
    """
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    try:
        owner = functools.reduce(getattr, parents, importlib.import_module(module))
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"There is no {target} any more: mend tests/chaos/fault_points.py") from error
    return owner, name


def replace(target: str, value: Any) -> Any:
    """Put `value` in the place of what `target` names, in this process and for good; return what was there."""
    owner, name = owner_of(target)
    before = getattr(owner, name)
    setattr(owner, name, value)
    return before
