"""Reads everything in a store and holds it against its checksums, without changing anything.

Opening a store for work sets damaged segments aside; this only looks, so that it works on a store that cannot be
written, and tells beforehand what mending will cost.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from featx.dataset import read_skipped
from featx.errors import FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath, check_readable
from featx.store.feature_store import DAMAGED_PREFIX, FeatureStore, derived_texts, odd_shaped, text_of
from featx.store.row_index import RowIndex, look_at_segments, segment_paths
from featx.store.segment_file import Segment, SegmentDamageError, read_index, read_rows_by_hdf5, stated_recipe
from featx.store.virtual_dataset import is_virtual_dataset_of, shown_segments
from featx.system import Timings


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be.

    Attributes:
        path: where it is.
        reason: what is wrong with it, in a few words.
        n_images: images that are lost with it and have to be computed again; None if it cannot be told.
    """

    path: StoragePath
    reason: str
    n_images: int | None = 0


@dataclass(frozen=True)
class StoreCheck:
    """What was found in one store.

    Attributes:
        dir: the store.
        recipe: its recipe; None if nothing in it tells.
        n_rows: different rows that are sound.
        damages: segments and derived files that are not.
        timings: what the sound rows have cost.
    """

    dir: StoragePath
    recipe: Recipe | None
    n_rows: int = 0
    damages: tuple[Damage, ...] = ()
    timings: Timings = field(default_factory=Timings)

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
        set_aside: paths of damaged segments that were set aside, sorted.
        n_images: different rows in segments that are sound as far as can be told without reading features.
    """

    recipe: Recipe | None
    segments: tuple[StoragePath, ...]
    set_aside: tuple[StoragePath, ...]
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
    set_aside: list[StoragePath] = [*store_dir.glob(f"{DAMAGED_PREFIX}*")]
    set_aside.sort(key=lambda path: path.name)
    n_images = len(RowIndex([segment for segment in seen.values() if segment]))
    return StoreListing(recipe, tuple(seen), tuple(set_aside), n_images)


def check_store(store_dir: StoragePath, advance: Callable[[int], object] = lambda _n_bytes: None) -> StoreCheck:
    """Read and check everything in the folder of a store; `advance` is called with the bytes of what was read.

    Raises:
        StoreError: the system cannot read it, or it was written by a newer featx.
    """
    recipe = _recipe_of(store_dir)
    if recipe is None:
        reason = "neither recipe.json nor a segment says whose features these are"
        return StoreCheck(store_dir, None, damages=(Damage(store_dir, reason, None),))
    # Few at once: of a store elsewhere, all of a segment is in memory while it is checked.
    seen = look_at_segments(store_dir, partial(_check_segment, recipe=recipe, advance=advance), at_once=2)
    broken = [check for check in seen.values() if check.reason]
    sound = [check.segment for check in seen.values() if check.segment and not check.reason]
    odd = odd_shaped(sound)
    broken += [
        _SegmentCheck(segment.path, segment, f"its features have the shape {segment.feature_shape}") for segment in odd
    ]
    sound = [segment for segment in sound if segment not in odd]
    there = RowIndex(sound)
    damages = [Damage(check.path, check.reason, _n_lost(check.segment, there)) for check in broken]
    damages += _derived_damages(store_dir, recipe, sound, complete=not broken)
    timings = sum((segment.timings for segment in sound), Timings())
    return StoreCheck(store_dir, recipe, len(there), tuple(damages), timings)


@dataclass(frozen=True)
class _SegmentCheck:
    """One segment: what its index says, if it can be read, and what is wrong, if anything is."""

    path: StoragePath
    segment: Segment | None
    reason: str = ""


def _check_segment(path: StoragePath, recipe: Recipe, advance: Callable[[int], object]) -> _SegmentCheck:
    """Read all of a segment."""
    size_bytes = path.stat().st_size
    segment: Segment | None = None
    try:
        segment = read_index(path, recipe)
        for _ in read_rows_by_hdf5(segment, np.arange(len(segment))):
            pass
    except SegmentDamageError as error:
        return _SegmentCheck(path, segment, str(error) or "it cannot be read")
    finally:
        advance(size_bytes)
    return _SegmentCheck(path, segment)


def mend_store(check: StoreCheck, cache_dir: StoragePath) -> None:
    """Set the damaged segments of a store aside, and write its derived files again.

    Raises:
        StoreError: it cannot be written.
    """
    if check.recipe is None:
        return
    store = FeatureStore(cache_dir, check.recipe)
    for damage in check.damages:
        if damage.path.name.startswith("seg-") and damage.path.exists():
            store.set_aside(damage.path, damage.reason)
        elif damage.path.name == "skipped.csv":
            damage.path.unlink(missing_ok=True)  # a memory and no more: these images are tried again
    store.reload()
    store.publish(again=True)


def _recipe_of(store_dir: StoragePath) -> Recipe | None:
    """Return the recipe of the store in the folder, which its name confirms; None if nothing in it tells.

    Neither a derived file nor a single segment is trusted: the folder's name ends in a digest of the recipe.
    """
    texts: list[Callable[[], str]] = [lambda: (store_dir / "recipe.json").read_text(encoding="utf-8")]
    texts += [lambda path=path: stated_recipe(path) for path in segment_paths(store_dir)]  # type: ignore[misc]
    for text in texts:
        try:
            recipe = Recipe.from_json(text())
            if recipe.slug == store_dir.name:
                return recipe
        except (OSError, UnicodeError, FeatxError, SegmentDamageError):
            continue
    return None


def _n_lost(segment: Segment | None, there: RowIndex) -> int | None:
    """Return how many rows of a damaged segment are in no other; None if it does not even say which it had."""
    if segment is None:
        return None
    is_lost = there.find(segment.digests, segment.views) < 0
    return len(np.unique(segment.row_names[is_lost]))


def _derived_damages(store_dir: StoragePath, recipe: Recipe, sound: list[Segment], *, complete: bool) -> list[Damage]:
    """Return what is wrong with the files that can be made from the segments: next to nothing to mend.

    Raises:
        StoreError: the system cannot read one.
    """
    damages: list[Damage] = []
    for name in ("recipe.json", "timings.json", "features.h5", "skipped.csv"):
        with suppress(FileNotFoundError):
            check_readable(store_dir / name)
    if sound and complete:
        damages += [
            Damage(store_dir / name, "not what the segments say")
            for name, text in derived_texts(recipe, sound).items()
            if text_of(store_dir / name) != text
        ]
        virtual_path = store_dir / "features.h5"
        names = [segment.path.name for segment in sound]
        if shown_segments(virtual_path) != names or not is_virtual_dataset_of(virtual_path, sound):
            damages.append(Damage(virtual_path, "it does not show what the segments hold"))
    skipped_path = store_dir / "skipped.csv"
    try:
        read_skipped(skipped_path)
    except FileNotFoundError:
        pass
    except ValueError as error:
        damages.append(Damage(skipped_path, str(error)))
    return damages
