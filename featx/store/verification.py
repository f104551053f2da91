"""Reads everything in a store and holds it against its checksums, without changing anything.

Opening a store for work quarantines damaged segments; this only looks, so that it works on a store that cannot be
written, and tells beforehand what mending will cost.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from featx.dataset import read_skipped
from featx.errors import FeatxError, StoreError
from featx.recipe import Recipe, UnknownRecipeError
from featx.storage import TEMPORARY_PREFIX, OddFileError, StoragePath, check_readable, check_regular, read_small
from featx.store.feature_store import DAMAGED_PREFIX, FeatureStore, damage_of, misfits, outdated_texts
from featx.store.index_file import INDEX_NAME, can_have_index, read_index_file
from featx.store.row_index import RowIndex, look_at_segments, segment_paths
from featx.store.segment_file import Segment, SegmentDamageError, check_rows, read_index, row_names, stated_recipe
from featx.store.virtual_dataset import is_virtual_dataset_of, shown_segments
from featx.system import Timings, brief
from featx.text import printable

#: What the segments say, told once more. A store that is being written is behind with them for a while.
_DERIVED = ("recipe.json", "timings.json", "features.h5", INDEX_NAME)

#: Seconds after which another process is no longer waited for that is about to bring them up to date.
_PATIENCE_S, _PAUSE_S = 2.0, 0.05


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be.

    Attributes:
        path: where it is.
        reason: what is wrong with it, in a few words.
        n_images: images that are lost with it and must be computed again; None if unknown.
    """

    path: StoragePath
    reason: str
    n_images: int | None = 0

    def __repr__(self) -> str:
        return f"<Damage to {brief(self.path)}: {self.reason}>"


@dataclass(frozen=True)
class StoreCheck:
    """What was found in one store.

    Attributes:
        dir: the store.
        recipe: its recipe; None if it is unknown.
        n_rows: number of different rows without damage.
        damages: damaged segments and derived files.
        timings: what it took to compute the rows without damage.
    """

    dir: StoragePath
    recipe: Recipe | None
    n_rows: int = 0
    damages: tuple[Damage, ...] = ()
    timings: Timings = field(default_factory=Timings)

    def __repr__(self) -> str:
        return f"<StoreCheck of {brief(self.dir)}: {self.n_rows:,} good rows, {len(self.damages):,} problems>"

    @property
    def has_derived_damage(self) -> bool:
        """Whether a file that can be made from the segments is damaged."""
        return self.of_segments != self

    @property
    def of_segments(self) -> "StoreCheck":
        """The same without what is wrong with files that can be made from the segments."""
        return replace(self, damages=tuple(damage for damage in self.damages if damage.path.name not in _DERIVED))

    @property
    def mending_s(self) -> float | None:
        """Seconds that computing the lost images again will take, at the rate of the others; None if unknown."""
        counts = [damage.n_images for damage in self.damages]
        if None in counts or (any(counts) and not self.timings.n_images):
            return None
        return sum(filter(None, counts)) * self.timings.elapsed_s / max(1, self.timings.n_images)


@dataclass(frozen=True)
class StoreListing:
    """What a folder holds, if it is a store's.

    Attributes:
        recipe: what the folder's name and something in it agree on; None if nothing does.
        segments: paths of the segments, sorted.
        quarantined: paths of damaged segments that were quarantined, sorted.
        n_images: different rows in segments that are sound as far as can be told without reading their features.
    """

    recipe: Recipe | None
    segments: tuple[StoragePath, ...]
    quarantined: tuple[StoragePath, ...]
    n_images: int


def list_store(store_dir: StoragePath) -> StoreListing:
    """Return what is in the folder of a store. Nothing in it is changed.

    Raises:
        StoreError: the system cannot read it, or it was written by a newer featx.
    """
    recipe = _recipe_of(store_dir)

    def open_segment(path: StoragePath) -> Segment | None:
        with suppress(SegmentDamageError):
            return read_index(path, recipe) if recipe else None
        return None

    seen = look_at_segments(store_dir, open_segment)
    quarantined: list[StoragePath] = [*store_dir.glob(f"{DAMAGED_PREFIX}*")]
    quarantined.sort(key=lambda path: path.name)
    opened = [segment for segment in seen.values() if segment]
    unfit = misfits(opened, None, damage_of)
    n_images = len(RowIndex([segment for segment in opened if segment not in unfit]))
    return StoreListing(recipe, tuple(seen), tuple(quarantined), n_images)


def check_store(store_dir: StoragePath, advance: Callable[[int], object] = lambda _n_bytes: None) -> StoreCheck:
    """Read and check everything in the folder of a store; `advance` is called with the bytes of what was read.

    Raises:
        StoreError: the system cannot read it, or it was written by a newer featx.
    """
    recipe = _recipe_of(store_dir)
    if recipe is None:
        reason = "neither recipe.json nor a segment says which recipe these features have"
        return StoreCheck(store_dir, None, damages=(Damage(store_dir, reason, None),))
    # Few at once: of a store elsewhere, all of a segment is in memory while it is checked.
    check = partial(_check_segment, recipe=recipe, advance=advance)
    seen: Mapping[StoragePath, tuple[Segment | None, str]] = look_at_segments(store_dir, check, at_once=2)
    found, deadline = _judged(store_dir, recipe, seen), time.monotonic() + _PATIENCE_S
    # Another process may be writing: what is damaged is so again at the next look, when nothing else has changed.
    is_same = False
    while found.has_derived_damage and not (is_same and not _is_being_written(store_dir)):
        if time.monotonic() > deadline:
            return found if is_same else found.of_segments
        time.sleep(_PAUSE_S)
        before, known = found, seen
        seen = look_at_segments(store_dir, check, known, at_once=2)
        found = _judged(store_dir, recipe, seen)
        is_same = found.damages == before.damages and seen.keys() == known.keys()
    return found


def _judged(
    store_dir: StoragePath, recipe: Recipe, seen: Mapping[StoragePath, tuple[Segment | None, str]]
) -> StoreCheck:
    """Return what is wrong in a store, given what is in each of its segments, and what is wrong with it."""
    sound = [segment for segment, reason in seen.values() if segment and not reason]
    unfit = misfits(sound, None, lambda _segment: "")  # all have been read
    sound = [segment for segment in sound if segment not in unfit]
    broken = [(path, *found) for path, found in seen.items() if found[1]]
    broken += [(segment.path, segment, reason) for segment, reason in unfit.items()]
    there = RowIndex(sound)
    damages = [Damage(path, reason, _n_lost(segment, there)) for path, segment, reason in broken]
    damages += _derived_damages(store_dir, recipe, sound, complete=not broken)
    timings = sum((segment.timings for segment in sound), Timings())
    return StoreCheck(store_dir, recipe, len(there), tuple(damages), timings)


def _is_being_written(store_dir: StoragePath) -> bool:
    """Return whether another process is writing a file, or was killed while it was."""
    return next(iter(store_dir.glob(f"{TEMPORARY_PREFIX}*")), None) is not None


def _check_segment(path: StoragePath, recipe: Recipe, advance: Callable[[int], object]) -> tuple[Segment | None, str]:
    """Read all of a segment; return what its index says, if it can be read, and what is wrong, if anything is."""
    size_bytes = path.stat().st_size
    segment: Segment | None = None
    try:
        segment = read_index(path, recipe)
        check_rows(segment)
    except SegmentDamageError as error:
        return segment, str(error) or "it cannot be read"
    finally:
        advance(size_bytes)
    return segment, ""


def mend_store(check: StoreCheck) -> None:
    """Quarantine the damaged segments of a store, and write its derived files again.

    Raises:
        StoreError: it cannot be written.
    """
    if check.recipe is None:
        return
    store = FeatureStore(check.dir.parent, check.recipe)
    for damage in check.damages:
        if damage.path.name.startswith("seg-") and damage.path.exists():
            store.quarantine(damage.path, damage.reason)
        elif damage.path.name in {"skipped.csv", INDEX_NAME}:
            damage.path.unlink(missing_ok=True)  # a memory and no more: these images are tried again, or looked up
    store.reload()
    store.publish(again=True)


def _recipe_of(store_dir: StoragePath) -> Recipe | None:
    """Return the recipe of the store in the folder, which its name confirms; None if nothing in it tells.

    Neither a derived file nor a single segment is trusted: the folder's name ends in a digest of the recipe.

    Raises:
        StoreError: the recipe is one of another featx, with a member that this one does not know. That is no damage.
    """
    for path in (store_dir / "recipe.json", *segment_paths(store_dir)):
        text = ""
        try:
            is_text = path.name == "recipe.json"
            text = read_small(path).decode().removesuffix("\n") if is_text else stated_recipe(path)
            recipe = Recipe.from_json(text)
            if recipe.slug == store_dir.name:
                return recipe
        except UnknownRecipeError as error:
            if store_dir.name.endswith(f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"):
                raise StoreError(
                    f"{printable(store_dir)} is a store of another featx: this one does not know {error.member} in a "
                    f"recipe. Use the featx that wrote it."
                ) from error
        except (OSError, UnicodeError, FeatxError, SegmentDamageError):
            continue
    return None


def _n_lost(segment: Segment | None, there: RowIndex) -> int | None:
    """Return how many rows of a damaged segment are in no other; None if it does not even say which it had."""
    if segment is None:
        return None
    is_lost = there.find(segment.digests, segment.views) < 0
    return len(np.unique(row_names(segment.digests[is_lost], segment.views[is_lost])))


def _derived_damages(store_dir: StoragePath, recipe: Recipe, sound: list[Segment], *, complete: bool) -> list[Damage]:
    """Return what is wrong with the files that can be made from the segments: next to nothing to mend.

    One that is missing, or says what some of the segments say, is not damaged: it is brought up to date at the end of
    an extraction.

    Raises:
        StoreError: the system cannot read one.
    """
    damages: list[Damage] = []
    there: set[str] = set()
    for name in (*_DERIVED, "skipped.csv"):
        with suppress(FileNotFoundError):
            try:
                check_regular(store_dir / name)
            except OddFileError as error:
                damages.append(Damage(store_dir / name, str(error.strerror)))
                continue
            check_readable(store_dir / name)
            there.add(name)
    if sound and complete:
        path = store_dir / "features.h5"
        segments, names = {segment.path.name: segment for segment in sound}, shown_segments(path)
        of_past = [segments[name] for name in names if name in segments]
        if path.name in there and not (len(of_past) == len(names) and is_virtual_dataset_of(path, of_past)):
            damages.append(Damage(path, "it does not show the rows of the segments"))
        told = {*outdated_texts(store_dir, recipe, sound)} & {*outdated_texts(store_dir, recipe, of_past)}
        damages += [Damage(store_dir / name, "it does not match the segments") for name in sorted(told & there)]
    if INDEX_NAME in there and can_have_index(store_dir) and read_index_file(store_dir, recipe) is None:
        damages.append(Damage(store_dir / INDEX_NAME, "it is not as it was written"))
    if "skipped.csv" in there:
        with suppress(FileNotFoundError):
            damages += _skipped_damages(store_dir / "skipped.csv")
    return damages


def _skipped_damages(path: StoragePath) -> list[Damage]:
    try:
        read_skipped(path)
    except (ValueError, OddFileError) as error:
        return [Damage(path, str(error.strerror if isinstance(error, OSError) else error))]
    return []
