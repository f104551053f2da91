"""The features of one recipe on disk: segments, found by the content of the image."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from featx.errors import DamagedSegmentError, FeaturesMissingError, StoreError, printable
from featx.files import check_writable, move, remove_abandoned_files, replacing, write_text
from featx.places import Place, PlaceError
from featx.recipe import Recipe
from featx.store.listing import PATIENCE_S, look_at_segments, segment_paths
from featx.store.segment_file import (
    ROW_NAME,
    Segment,
    SegmentDamageError,
    read_index,
    read_rows,
    row_names,
    write_segment_file,
)
from featx.store.virtual_dataset import shown_segments, write_virtual_dataset
from featx.timings import Timings

log = logging.getLogger("featx")

#: Begins the name of a segment that has been set aside.
DAMAGED_PREFIX = "damaged-"


def recipe_text(recipe: Recipe) -> str:
    """Return what `recipe.json` holds."""
    return recipe.to_json() + "\n"


def timings_text(segments: Sequence[Segment]) -> str:
    """Return what `timings.json` holds: what the rows of all segments have cost."""
    return json.dumps(sum((segment.timings for segment in segments), Timings()).to_dict(), indent=2) + "\n"


def odd_shaped(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments whose features have another shape than most rows have."""
    n_rows: Counter[tuple[int, ...]] = Counter()
    for segment in segments:
        n_rows[segment.feature_shape] += len(segment)
    common = max(n_rows, key=n_rows.__getitem__, default=None)
    return [segment for segment in segments if segment.feature_shape != common]


class FeatureStore:
    """The features of one recipe, found by the digest of the image file.

    Opening reads the names of all rows and none of their features. Nothing is written before the first segment.
    """

    def __init__(self, cache_dir: Place, recipe: Recipe) -> None:
        """Open the store of `recipe` below `cache_dir`; damaged segments are set aside with a warning.

        Raises:
            StoreError: the folder cannot be read, or was written by a newer featx.
        """
        self.recipe = recipe
        self.dir = cache_dir / recipe.slug
        self.segments: list[Segment] = []
        self._looked_at: dict[Place, Segment | None] = {}  # None: damaged, and could not be renamed
        self.reload()

    def reload(self) -> None:
        """Read the names of all rows again, those that other processes have added included."""
        self._looked_at = look_at_segments(self.dir, self._open_segment, self._looked_at)
        opened = [segment for segment in self._looked_at.values() if segment]
        odd = odd_shaped(opened)
        for segment in odd:
            self.set_aside(segment.path, f"its features have the shape {segment.feature_shape}")
        self.segments = [segment for segment in opened if segment not in odd]
        names = [segment.row_names for segment in self.segments]
        lengths = [len(segment) for segment in self.segments]
        all_names = np.concatenate([np.empty(0, ROW_NAME), *names])
        # Two processes may both have computed an image: unique keeps the first of them.
        self._names, first = np.unique(all_names, return_index=True)
        self._segment_of = np.repeat(np.arange(len(lengths)), lengths)[first]
        self._row_of = np.concatenate([np.empty(0, np.int64), *map(np.arange, lengths)])[first]

    def __len__(self) -> int:
        """Return the number of different rows."""
        return len(self._names)

    def contains(self, digests: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return `(n,)` bool: which of the images with `digests`, `(n, 32)` uint8, have features.

        `views` is the number of each one's view, `(n,)`, or one number for all.
        """
        return self._positions(digests, views) >= 0

    def read(self, digests: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Return the features `(n, …)` of the images with `digests`, `(n, 32)` uint8, in that order.

        `views` is the number of each one's view, `(n,)`, or one number for all. Every row is held against its checksum.
        The dtype is the recipe's.

        Raises:
            FeaturesMissingError: some are not in the store.
            DamagedSegmentError: some failed their checksum; their segment has been set aside.
        """
        views = np.broadcast_to(views, len(digests))
        self._check_present(digests, views)
        if not len(digests):
            return np.empty((0, *self.segments[0].feature_shape) if self.segments else (0,), self.recipe.dtype)
        out = np.empty((len(digests), *self.segments[0].feature_shape), self.recipe.dtype)
        left, deadline = np.arange(len(digests)), time.monotonic() + PATIENCE_S
        while len(still_left := self._read_into(out, digests, left, views)):
            # Another process has merged segments meanwhile: the rows are in a new one.
            if len(still_left) < len(left):
                left, deadline = still_left, time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise StoreError(f"The segments of {printable(self.dir)} go faster than they can be read; try later.")
            self.reload()
            self._check_present(digests[left], views[left])
        return out

    def _check_present(self, digests: np.ndarray, views: np.ndarray) -> None:
        n_missing = int((~self.contains(digests, views)).sum())
        if n_missing:
            raise FeaturesMissingError(f"{n_missing} of {len(digests)} images have no features in {self.dir}.")

    def _read_into(self, out: np.ndarray, digests: np.ndarray, which: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Read the features of the images `which`, `(n,)` int64, to their places in `out`.

        Returns those of `which` whose segment has gone.
        """
        positions = self._positions(digests[which], views[which])
        segment_of = self._segment_of[positions]
        gone: list[np.ndarray] = []
        for number in np.unique(segment_of):
            these = segment_of == number
            rows = self._row_of[positions[these]]
            order = np.argsort(rows, kind="stable")
            try:
                self._read_segment(self.segments[number], rows[order], out, which[these][order])
            except FileNotFoundError:
                gone.append(which[these])
        return np.concatenate([np.empty(0, np.int64), *gone])

    def cost(self, digests: np.ndarray, views: np.ndarray | int = 0) -> Timings:
        """Return what the features of the images with `digests`, `(n, 32)` uint8, cost when they were made.

        `views` is the number of each one's view, `(n,)`, or one number for all.
        """
        positions = np.unique(self._positions(digests, views))
        used = np.bincount(self._segment_of[positions[positions >= 0]], minlength=len(self.segments))
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
        with self._writing(), replacing(self.dir / name) as temporary:
            return write_segment_file(temporary, self.recipe, features, digests, numbers, cost)

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written here, before hours of work show it."""
        with self._writing():
            check_writable(self.dir)

    def publish(self, *, again: bool = False) -> None:
        """Bring everything that is derived from the segments up to date: `features.h5`, `recipe.json`, `timings.json`.

        Does nothing for a store without segments, and next to nothing if all is up to date, unless it is to be done
        `again` in any case.
        """
        seen: list[str] | None = None if again else self._published()
        # Another process may add a segment meanwhile: whoever is last has seen all.
        while (listing := self._listing()) != seen:
            self.reload()
            with self._writing():
                self._write_derived_files(self.segments)
            seen = listing
        remove_abandoned_files(self.dir)

    def remove_merged(self, segments: Sequence[Segment]) -> None:
        """Remove segments whose rows the caller has all written again, to segments that are on disk by now.

        No segment of another process will do: that process may be removing it in turn, for the sake of these.

        Raises:
            StoreError: the folder cannot be written.
        """
        removed = {segment.path for segment in segments}
        self.reload()
        with self._writing():
            # Readers of features.h5 are to see the rows in their new place before they lose the old one.
            self._write_derived_files([segment for segment in self.segments if segment.path not in removed])
            for path in removed:
                path.unlink(missing_ok=True)
        self.reload()

    def set_aside(self, path: Place, reason: str) -> None:
        """Rename the damaged segment at `path`, so that its rows count as missing, and say so."""
        aside = path.with_name(f"{DAMAGED_PREFIX}{path.name}")
        self._looked_at[path] = None
        try:
            move(path, aside)
        except FileNotFoundError:  # another process was quicker
            return
        except OSError as error:
            log.warning(
                "%s is damaged (%s) and is not used; it cannot be renamed: %s.",
                printable(path),
                printable(reason),
                error.strerror,
            )
            return
        log.warning(
            "%s is damaged (%s). It was renamed to %s; its images are computed again.",
            printable(path),
            printable(reason),
            aside.name,
        )

    def _write_derived_files(self, segments: list[Segment]) -> None:
        virtual_path = self.dir / "features.h5"
        if not segments:
            virtual_path.unlink(missing_ok=True)
            return
        write_text(self.dir / "recipe.json", recipe_text(self.recipe))
        write_text(self.dir / "timings.json", timings_text(segments))
        with replacing(virtual_path) as temporary:
            write_virtual_dataset(temporary, self.recipe, segments)

    def _listing(self) -> list[str]:
        return [path.name for path in segment_paths(self.dir)]

    def _published(self) -> list[str]:
        """Return the names of the segments that are published; none if a derived file is missing or damaged."""
        if not all((self.dir / name).is_file() for name in ("recipe.json", "timings.json")):
            return []
        return shown_segments(self.dir / "features.h5")

    def _positions(self, digests: np.ndarray, views: np.ndarray | int) -> np.ndarray:
        """Return `(n,)` int64: where each image stands in the index, -1 if nowhere."""
        if not len(self._names):
            return np.full(len(digests), -1, np.int64)
        wanted = row_names(digests, np.broadcast_to(views, len(digests)).astype(np.uint16))
        found = np.minimum(np.searchsorted(self._names, wanted), len(self._names) - 1)
        return np.where(self._names[found] == wanted, found, -1)

    def _open_segment(self, path: Place) -> Segment | None:
        """Return the segment at `path`; None if it is damaged, and was set aside."""
        try:
            return read_index(path, self.recipe)
        except SegmentDamageError as error:
            self.set_aside(path, str(error))
            return None

    def _read_segment(self, segment: Segment, rows: np.ndarray, out: np.ndarray, into: np.ndarray) -> None:
        """Read the sorted `rows` of `segment` to the positions `into` of `out`."""
        try:
            for which, features in read_rows(segment, rows):
                out[into[which]] = features
        except SegmentDamageError as error:
            self.set_aside(segment.path, str(error))
            raise DamagedSegmentError(
                f"A segment of {printable(self.dir)} was damaged ({printable(str(error))}) and has been set aside; "
                f"run the extraction again: only its {len(segment)} images are computed."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except PlaceError as error:
            raise self._write_error(str(error.strerror)) from error
        except OSError as error:
            # HDF5's own words are long and for programmers; where the system gave a reason, it is enough.
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            raise self._write_error(reason) from error

    def _write_error(self, reason: str) -> StoreError:
        return StoreError(
            f"Writing to the store {printable(self.dir)} failed: {reason}. What it held before is still good; "
            f"mend this and run the same command again to go on."
        )
