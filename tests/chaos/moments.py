"""Named moments in the life of a featx process, and what a test makes happen there.

A hook wraps a real function of featx, of h5py or of the system in this process. It leaves a crumb at each call, so that
somebody else knows how far this process has come, and acts at the call it was told.
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
class Moment:
    """A function that is called in some phase.

    Attributes:
        phase: the word for the table.
        target: `module:name` or `module:Class.name`, where it is looked up when it is called.
    """

    phase: str
    target: str

    @property
    def whens(self) -> tuple[str, ...]:
        """When something may happen: `before` a call, `after` it, or `during` it, if half of it can be done."""
        return ("before", "during", "after") if self.target in _WRITES else ("before", "after")


#: Functions of a path and of what is to be written there: a process may be killed when half of it is.
_WRITES = ("pathlib:Path.write_bytes", "pathlib:Path.write_text")

EXTRACTION = (
    Moment("scan", "featx.dataset.image_dataset:find_layout"),
    Moment("scan", "featx.dataset.image_dataset:list_folder"),
    Moment("digest", "featx.dataset.digests:_hash_several"),
    Moment("digest", "featx.dataset.statcache:StatCache.lookup"),
    Moment("digest", "featx.dataset.statcache:StatCache.remember"),
    Moment("open", "featx.store.feature_store:FeatureStore.reload"),
    Moment("start", "featx.engines.openvino_engine:read_network"),
    Moment("start", "featx.engines.openvino_engine:_compile"),
    Moment("decode", "featx.dataset.loader:_decode"),
    Moment("forward", "featx.engines.openvino_engine:OpenVinoEngine.submit"),
    Moment("forward", "featx.engines.openvino_engine:_Batch.take"),
    Moment("forward", "featx.store.segment_writer:SegmentWriter.add"),
    Moment("segment write", "featx.store.feature_store:write_segment_file"),
    Moment("segment write", "h5py:Group.create_dataset"),
    Moment("segment write", "pathlib:Path.write_bytes"),
    Moment("fsync", "os:fsync"),
    Moment("rename", "pathlib:Path.replace"),
    Moment("derived files", "featx.store.feature_store:FeatureStore.publish"),
    Moment("derived files", "featx.store.feature_store:write_text"),
    Moment("derived files", "featx.store.feature_store:write_virtual_dataset"),
    Moment("derived files", "h5py:Group.create_virtual_dataset"),
    Moment("derived files", "pathlib:Path.write_text"),
    Moment("skipped.csv", "featx.dataset.skipped:write_text"),
)

COMPACTION = (
    Moment("compaction", "featx.store.compaction:_merge"),
    Moment("compaction", "featx.store.compaction:_check"),
    Moment("compaction", "featx.store.feature_store:write_segment_file"),
    Moment("compaction", "featx.store.feature_store:FeatureStore.remove_merged"),
    Moment("compaction", "featx.store.feature_store:FeatureStore._write_derived_files"),
    Moment("compaction", "featx.store.feature_store:FeatureStore.publish"),
    Moment("compaction", "featx.store.feature_store:write_virtual_dataset"),
    Moment("compaction", "pathlib:Path.write_bytes"),
    Moment("compaction", "pathlib:Path.unlink"),
    Moment("compaction", "pathlib:Path.replace"),
    Moment("compaction", "os:fsync"),
)


def kill_self() -> None:
    """End this process as nothing else does: no handler runs, no buffer is written."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Shot:
    """What is to happen at a moment.

    Attributes:
        moment: at which function.
        nth: at which of its calls, from 1.
        when: `before` the call, `after` it, or `during` it: see `Moment.whens`.
        delay_s: seconds later; other threads, and the function's caller, go on meanwhile.
        action: what happens.
    """

    moment: Moment
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

    def __init__(self, moments: tuple[Moment, ...], crumb_path: Path | None, *shots: Shot) -> None:
        """Wrap the functions of all `moments`, for good; the last one reached is written to `crumb_path`."""
        self.calls = dict.fromkeys(moments, 0)
        self._shots = {(shot.moment, shot.nth, shot.when): shot for shot in shots}
        self._crumb = os.open(crumb_path, os.O_RDWR | os.O_CREAT, 0o600) if crumb_path else None
        for moment in moments:
            self._wrap(moment)

    def _wrap(self, moment: Moment) -> None:
        owner, name = owner_of(moment.target)
        real = getattr(owner, name)
        count = itertools.count(1)  # next() is atomic: several threads call some of these
        crumb = moment.phase.encode().ljust(CRUMB_BYTES)

        @functools.wraps(real)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            number = self.calls[moment] = next(count)
            if self._crumb is not None:
                os.pwrite(self._crumb, crumb, 0)
            if shot := self._shots.get((moment, number, "before")):
                shot.fire()
            if shot := self._shots.get((moment, number, "during")):
                path, data, *rest = args
                real(path, data[: len(data) // 2], *rest, **kwargs)
                shot.fire()
            try:
                return real(*args, **kwargs)
            finally:
                if shot := self._shots.get((moment, number, "after")):
                    shot.fire()

        setattr(owner, name, hooked)


def owner_of(target: str) -> tuple[Any, str]:
    """Return the module or class that a moment's function is looked up in, and its name there."""
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    return functools.reduce(getattr, parents, importlib.import_module(module)), name
