"""The features of one recipe on disk: segments, found by the content of the image."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from featx.errors import DamagedSegmentError, FeaturesMissingError, StoreError
from featx.recipe import Recipe
from featx.storage import (
    IS_WINDOWS,
    FileHeldError,
    StorageError,
    StoragePath,
    as_storage_path,
    check_writable,
    move,
    patiently,
    read_small,
    replacing,
    sweep,
    write_text,
)
from featx.store.index_file import INDEX_NAME, INDEX_ROWS, can_have_index, read_index_file, write_index_file
from featx.store.row_index import PATIENCE_S, RowIndex, grouped, look_at_segments
from featx.store.segment_file import (
    Segment,
    SegmentDamageError,
    check_rows,
    read_index,
    read_rows,
    write_segment_file,
)
from featx.store.virtual_dataset import shown_segments, write_virtual_dataset
from featx.system import Timings, shown
from featx.text import printable

log = logging.getLogger("featx")

#: Characters that other counts may take in `timings.json`.
_OTHER_COUNTS = 1000

#: Begins the name of a segment that has been quarantined.
DAMAGED_PREFIX = "damaged-"


def derived_texts(recipe: Recipe, segments: Sequence[Segment]) -> dict[str, str]:
    """Return what `recipe.json` and `timings.json` hold: the recipe, and what the rows of all segments have cost."""
    cost = sum((segment.timings for segment in segments), Timings())
    return {"recipe.json": recipe.to_json() + "\n", "timings.json": json.dumps(cost.to_dict(), indent=2) + "\n"}


def outdated_texts(store_dir: StoragePath, recipe: Recipe, segments: Sequence[Segment]) -> list[str]:
    """Return the names of the files of `derived_texts` that say something else, or cannot be read."""
    outdated = []
    for name, expected in derived_texts(recipe, segments).items():
        try:
            content = read_small(store_dir / name, len(expected) + _OTHER_COUNTS).decode()
            # Timings may also say that there were none of what is counted since, or count what a newer featx does.
            is_right = content == expected or (name == "timings.json" and _are_same_timings(content, expected))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            is_right = False
        if not is_right:
            outdated.append(name)
    return outdated


def _are_same_timings(text: str, expected: str) -> bool:
    """Return whether two texts say the same: added in another order, seconds differ in the last digits."""
    one, other = (asdict(Timings.from_dict(json.loads(each))) for each in (text, expected))
    return all(math.isclose(one[name], value, rel_tol=1e-12) for name, value in other.items())


def misfits(
    segments: Sequence[Segment], known_shape: tuple[int, ...] | None, check: Callable[[Segment], str]
) -> dict[Segment, str]:
    """Return the segments that do not fit the others, each with what is wrong with it.

    A shape is only what a segment claims until its rows have matched their checksums. Where claims differ, the segment
    decides that has been in the folder longest, of those whose rows match: nothing that comes later, however large it
    says it is, pushes out what was there.

    Args:
        segments: whose shapes may differ. If they do not, nothing is read.
        known_shape: of the store's features, where this process has computed some itself; it decides.
        check: reads all of a segment, and returns what is wrong with its rows, or nothing.
    """
    found: dict[Segment, str] = {}
    shapes = {segment.feature_shape for segment in segments}
    if len(shapes | ({known_shape} if known_shape else set())) < 2:
        return found
    for segment in sorted(segments, key=_since):
        if known_shape is None:
            if reason := check(segment):
                found[segment] = reason
                continue
            known_shape = segment.feature_shape
        if segment.feature_shape != known_shape:
            found[segment] = f"its features have the shape {segment.feature_shape}, those of the store {known_shape}"
    return found


def _since(segment: Segment) -> tuple[float, str]:
    """Return since when a segment has been where it is, by the system's own time, which nobody else sets; its name."""
    path, since = segment.path, math.inf
    with suppress(FileNotFoundError):
        # An object store sets the time of a file itself; on Windows, the system has none of this kind.
        since = path.stat().st_ctime if isinstance(path, Path) and not IS_WINDOWS else path.stat().st_mtime
    return since, path.name


class FeatureStore:
    """The features of one recipe, found by the digest of the image file.

    Opening reads the names of all rows and none of their features. Nothing is written before the first segment.
    """

    def __init__(
        self, cache_dir: StoragePath | str, recipe: Recipe, feature_shape: tuple[int, ...] | None = None
    ) -> None:
        """Open the store of `recipe` below `cache_dir`; damaged segments are quarantined with a warning.

        Args:
            cache_dir: the cache.
            recipe: what the features are.
            feature_shape: of one row, if that is known; segments with another one are damaged.

        Raises:
            StoreError: the folder cannot be read, or was written by a newer featx.
        """
        if not isinstance(recipe, Recipe):
            raise StoreError(f"A store needs a recipe from resolve_recipe. Received: {shown(recipe)}")
        self.recipe = recipe
        self.dir = as_storage_path(cache_dir) / recipe.slug
        self.segments: list[Segment] = []
        self._index = RowIndex([])
        self._mapped = read_index_file(self.dir, recipe)
        self._shape = feature_shape
        self._looked_at: dict[StoragePath, Segment | None] = {}  # None: damaged, and could not be renamed
        self.reload()

    def reload(self) -> None:
        """Read the names of all rows again, those that other processes have added included."""
        mapped = {segment.path: segment for segment in self._mapped.segments} if self._mapped else {}
        damaged = {path: None for path, segment in self._looked_at.items() if segment is None}
        known = {**self._looked_at, **mapped, **damaged}  # the index file knows nothing of later damage
        self._looked_at = look_at_segments(self.dir, self._open_segment, known)
        opened = [segment for segment in self._looked_at.values() if segment]
        unfit = misfits(opened, self._shape, damage_of)
        for segment, reason in unfit.items():
            self.quarantine(segment.path, reason)
        segments = [segment for segment in opened if segment not in unfit]
        if not mapped.keys() <= {segment.path for segment in segments}:
            self._mapped = None  # some have been merged, or quarantined
        later = [segment for segment in segments if not self._mapped or segment.path not in mapped]
        segments = [*(self._mapped.segments if self._mapped else ()), *later]
        if segments != self.segments:
            self.segments = segments
            self._index = RowIndex(later, after=self._mapped)

    def __len__(self) -> int:
        """Return the number of different rows."""
        return len(self._index)

    def contains(self, digests: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return `(n,)` bool: which of the images with `digests`, `(n, 32)` uint8, have features.

        `views` is the number of each one's view, `(n,)`, or one number for all.
        """
        return self._index.find(digests, views) >= 0

    def read(self, digests: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return the features `(n, …)` of the images with `digests`, `(n, 32)` uint8, in that order.

        `views` is the number of each one's view, `(n,)`, or one number for all. Every row is checked against its
        checksum. The dtype is the recipe's.

        Raises:
            FeaturesMissingError: some are not in the store.
            DamagedSegmentError: some failed their checksum, and are in no other segment; theirs has been quarantined.
        """
        views = np.broadcast_to(views, len(digests))
        numbers, in_segment = self.locate(digests, views)
        if not len(digests):
            return np.empty((0, *self.segments[0].feature_shape) if self.segments else (0,), self.recipe.dtype)
        out = np.empty((len(digests), *self.segments[0].feature_shape), self.recipe.dtype)
        left, deadline = np.arange(len(digests)), time.monotonic() + PATIENCE_S
        while True:
            try:
                still_left = self._read_into(out, left, numbers, in_segment)
            except DamagedSegmentError:
                if not self.has_elsewhere(digests[left], views[left]):
                    raise
                still_left, deadline = left, time.monotonic() + PATIENCE_S
            if not len(still_left):
                break
            # The rows are in another segment: that of another process, which has merged theirs meanwhile, or the copy
            # of one that was damaged.
            if len(still_left) < len(left):
                left, deadline = still_left, time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Other processes remove the segments of {printable(self.dir)} faster than featx can read them; "
                    f"try again later."
                )
            self.reload()
            numbers, in_segment = self.locate(digests[left], views[left])
        return out

    def has_elsewhere(self, digests: np.ndarray, views: np.ndarray | int) -> bool:
        """Return whether all of these rows are in other segments, now that one of theirs has been quarantined."""
        self.reload()
        return bool(self.contains(digests, views).all())

    def _read_into(self, out: np.ndarray, which: np.ndarray, numbers: np.ndarray, in_segment: np.ndarray) -> np.ndarray:
        """Read the features of the images `which`, `(n,)` int64, to their places in `out`, from where `locate` says.

        Returns those of `which` whose segment has gone.
        """
        gone: list[np.ndarray] = []
        for number, these in grouped(numbers):
            order = these[np.argsort(in_segment[these], kind="stable")]
            try:
                for part, features in self.read_segment(self.segments[number], in_segment[order]):
                    out[which[order[part]]] = features
            except FileNotFoundError:
                gone.append(which[these])
        return np.concatenate([np.empty(0, np.int64), *gone])

    def read_segment(self, segment: Segment, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the features of `rows`, `(n,)` int64, sorted, of one of `segments`: which of them, and `(k, …)`.

        Raises:
            DamagedSegmentError: a row failed its checksum; the segment has been quarantined.
            FileNotFoundError: another process has merged it with others.
        """
        try:
            yield from read_rows(segment, rows)
        except SegmentDamageError as error:
            self.quarantine(segment.path, str(error))
            raise DamagedSegmentError(
                f"A segment of {printable(self.dir)} was damaged ({printable(str(error))}) and has been quarantined; "
                f"run the extraction again, which computes only its {len(segment)} images."
            ) from error

    def locate(self, digests: np.ndarray, views: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return where the features of images are: the number of each one's segment, and its row there, `(n,)` int64.

        Raises:
            FeaturesMissingError: some are not in the store.
        """
        rows = self._index.find(digests, views)
        if n_missing := int((rows < 0).sum()):
            raise FeaturesMissingError(f"{n_missing} of {len(digests)} images have no features in {self.dir}.")
        return self._index.locate(rows)

    def cost(self, digests: np.ndarray, views: np.ndarray | int = 0) -> Timings:
        """Return what the features of the images with `digests`, `(n, 32)` uint8, took to compute.

        `views` is the number of each one's view, `(n,)`, or one number for all.
        """
        rows = np.unique(self._index.find(digests, views))
        numbers, _ = self._index.locate(rows[rows >= 0])
        used = np.bincount(numbers, minlength=len(self.segments))
        shares = (segment.timings.share(n / len(segment)) for segment, n in zip(self.segments, used, strict=True) if n)
        return sum(shares, Timings())

    def write_segment(
        self,
        name: str,
        features: np.ndarray,
        digests: np.ndarray,
        cost: Callable[[], Timings],
        views: np.ndarray | int = 0,
    ) -> Timings:
        """Add a segment and return what it cost; it is there as a whole, or not at all.

        Args:
            name: from `new_segment_name`; the same one again for the same rows, if writing was interrupted.
            features: `(n, …)` of the recipe's dtype, n ≥ 1.
            digests: `(n, 32)` uint8.
            cost: called once the rows are laid out and only the disk is left, so that laying them out can be in it.
            views: the number of each one's view, `(n,)`, or one number for all; 0 is the image itself.

        Raises:
            StoreError: the disk is full, or the folder cannot be written.
        """
        numbers = np.broadcast_to(views, len(digests)).astype(np.uint16)
        self._shape = features.shape[1:]
        with self._writing(), replacing(self.dir / name) as temporary:
            return write_segment_file(temporary, self.recipe, features, digests, numbers, cost)

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written here, before hours of work are lost."""
        with self._writing():
            check_writable(self.dir)

    def publish(self, *, again: bool = False) -> None:
        """Update the files derived from the segments: `features.h5`, `recipe.json`, `timings.json`.

        Does nothing for a store without segments, and almost nothing if the files are up to date, unless `again` is
        true.
        """
        self.reload()
        # Another process may add a segment meanwhile, or write what it saw before that last of all, and be killed
        # before it looks again: what is on the disk counts, not who has written it.
        while again or not self._is_published():
            with self._writing():
                if not self._write_derived_files(self.segments):
                    break
            again = False
            self.reload()
        self._write_index_file()
        sweep(self.dir)

    def remove_merged(self, segments: Sequence[Segment]) -> None:
        """Remove segments whose rows the caller has all written again, to segments that are on disk by now.

        A segment of another process does not count: that process may be removing it in favour of these.

        Raises:
            StoreError: the folder cannot be written.
        """
        removed = {segment.path for segment in segments}
        self.reload()
        with self._writing():
            # Readers of features.h5 are to see the rows in their new place before they lose the old one.
            is_shown = self._write_derived_files([segment for segment in self.segments if segment.path not in removed])
            held = [path for path in removed if not (is_shown and _unlink(path))]
        if held:
            log.warning(
                "%d merged segments of %s could not be removed, because another program has them or features.h5 open. "
                "Close that program, then run featx cache compact again.",
                len(held),
                printable(self.dir),
            )
        self.reload()

    def quarantine(self, path: StoragePath, reason: str) -> None:
        """Rename the damaged segment at `path`, so that its rows count as missing, and say so."""
        target = path.with_name(f"{DAMAGED_PREFIX}{path.name}")
        name, why = printable(path), printable(reason)
        self._looked_at[path] = None
        try:
            move(path, target)
        except FileNotFoundError:  # another process was quicker
            return
        except OSError as error:
            log.warning("%s is damaged (%s) and is not used; it cannot be renamed: %s.", name, why, error.strerror)
            return
        log.warning(
            "%s is damaged (%s). It was renamed to %s; its images will be %s again.",
            name,
            why,
            printable(target.name),
            "decoded" if self.recipe.is_of_pixels else "computed",
        )

    def _write_derived_files(self, segments: list[Segment]) -> bool:
        """Return whether it could be done: Windows replaces no file that another program has open, which is logged."""
        virtual_path = self.dir / "features.h5"
        try:
            if not segments:
                return _unlink(virtual_path)
            for name, text in derived_texts(self.recipe, segments).items():
                write_text(self.dir / name, text)
            with replacing(virtual_path) as temporary:
                write_virtual_dataset(temporary, self.recipe, _by_name(segments))
        except FileHeldError as error:
            log.warning(
                "%s could not be updated: %s. No feature is lost, and the next featx extract updates it.",
                printable(error.filename),
                error.strerror,
            )
            return False
        return True

    def _write_index_file(self) -> None:
        """Write the index of a large store again if many rows are not in it: this process maps it from now on.

        The store works without it, as one that may only be read does.
        """
        if not can_have_index(self.dir) or self._index.n_in_memory <= INDEX_ROWS:
            return
        try:
            with replacing(self.dir / INDEX_NAME) as temporary:
                write_index_file(temporary, self.recipe, RowIndex(_by_name(self.segments)))
        except OSError as error:
            log.debug("%s cannot be written: %s.", printable(self.dir / INDEX_NAME), error.strerror or error)
            return
        self._mapped = read_index_file(self.dir, self.recipe)
        self.reload()

    def _is_published(self) -> bool:
        """Return whether all derived files say what the segments say."""
        shown = shown_segments(self.dir / "features.h5")
        if shown != [segment.path.name for segment in _by_name(self.segments)]:
            return False
        return not shown or not outdated_texts(self.dir, self.recipe, self.segments)

    def _open_segment(self, path: StoragePath) -> Segment | None:
        """Return the segment at `path`; None if it is damaged, and was quarantined."""
        try:
            return read_index(path, self.recipe)
        except SegmentDamageError as error:
            self.quarantine(path, str(error))
            return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, StorageError):
                reason = error.strerror
            else:  # HDF5's own words are long and for programmers; where the system gave a reason, it is enough
                reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            raise StoreError(
                f"Writing to the store {printable(self.dir)} failed: {reason}. Features stored before are safe. "
                f"Fix this, then run the same command again to resume."
            ) from error


def damage_of(segment: Segment) -> str:
    """Read all of a segment, and return what is wrong with its rows; nothing also if it has gone."""
    try:
        check_rows(segment)
    except SegmentDamageError as error:
        return str(error)
    except FileNotFoundError:
        return ""
    return ""


def _by_name(segments: Sequence[Segment]) -> list[Segment]:
    return sorted(segments, key=lambda segment: segment.path.name)


def _unlink(path: StoragePath) -> bool:
    """Remove a file, which may have gone; return whether it has: not on Windows while another program has it open."""
    if not isinstance(path, Path):
        path.unlink(missing_ok=True)
        return True
    try:
        patiently(lambda: path.unlink(missing_ok=True), path, patience_s=0)
    except FileHeldError:
        return False
    return True
