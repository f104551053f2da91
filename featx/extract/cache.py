"""What lies in a cache folder: listed, checked and mended, tidied, removed."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featx.dataset import DATA_NAMES, DATABASE_NAME, check_database, quarantine_database
from featx.engines import check_network
from featx.errors import FeatxError, printable, system_errors
from featx.storage import TEMPORARY_PREFIX, StoragePath, as_cache_dir, is_held, local_dir, remove_whole, sweep
from featx.store import (
    Compaction,
    Damage,
    FeatureStore,
    StoreCheck,
    StoreListing,
    check_store,
    compact,
    list_store,
    mend_store,
)
from featx.system import brief, did_you_mean, progress_bar, size
from featx.system import names as as_names

NETWORKS_NAME = "networks"


@dataclass(frozen=True)
class CacheEntry:
    """One thing in a cache folder.

    Attributes:
        name: the name of the file or folder, by which it can be checked, compacted or removed.
        path: where it is.
        kind: `"store"`, `"networks"`, `"digests"`, `"data"` (the sample or the demo's photographs), `"unfinished"`
            (what a process is building, or was when it was killed), `"quarantined"`, or `"other"`: what featx did not
            make.
        size_bytes: of all files in it.
        unfinished_bytes: of those that a process is writing, or was when it was killed.
        store: what a store holds; else None.
    """

    name: str
    path: StoragePath
    kind: str
    size_bytes: int
    store: StoreListing | None = None
    unfinished_bytes: int = 0

    def __repr__(self) -> str:
        return f"<CacheEntry {brief(self.name)}: {self.kind}, {size(self.size_bytes)}>"


@dataclass(frozen=True)
class CacheCheck:
    """What checking entries of a cache has found.

    Attributes:
        stores: of each store that was checked.
        damages: of what is no store: converted networks and the digest cache. They are made again when they are needed.
    """

    stores: tuple[StoreCheck, ...]
    damages: tuple[Damage, ...]

    def __repr__(self) -> str:
        n_damages = len(self.damages) + sum(len(store.damages) for store in self.stores)
        found = f"{n_damages:,} damages" if n_damages else "no damage found"
        return f"<CacheCheck of {len(self.stores):,} stores: {found}>"

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages and not any(store.damages for store in self.stores)


def list_cache(cache_dir: StoragePath | str) -> list[CacheEntry]:
    """Return what is in a cache folder, stores first, sorted by name. Nothing in it is changed.

    Of a cache elsewhere, what is kept of it on this machine is listed, too.

    Raises:
        FeatxError: the folder cannot be read.
    """
    cache_dir = as_cache_dir(cache_dir)
    entries = [_entry(path) for folder in dict.fromkeys((cache_dir, local_dir(cache_dir))) for path in _listed(folder)]
    return sorted(entries, key=lambda entry: (_KINDS.index(entry.kind), entry.name))


def check_cache(
    cache_dir: StoragePath | str, names: Sequence[str] | str = (), *, mend: bool = False, show: bool = False
) -> CacheCheck:
    """Read and check everything in a cache folder.

    Args:
        cache_dir: the folder.
        names: of entries; all if empty.
        mend: quarantine damaged segments and a damaged digest cache, remove damaged networks, and write derived files
            again. Otherwise nothing is changed.
        show: show progress on stderr.

    Returns:
        What was found, before it was mended.

    Raises:
        FeatxError: there is no such entry, or the system cannot read or write one.
    """
    cache_dir = as_cache_dir(cache_dir)
    entries = _chosen(cache_dir, names)
    stores: list[StoreCheck] = []
    damages: list[Damage] = []
    with progress_bar(sum(e.size_bytes for e in entries) >> 20, "verify", "MiB", show=show) as bar:
        read = _Megabytes(bar.update)
        for entry in entries:
            if entry.kind == "store":
                stores.append(check_store(entry.path, read))
            elif entry.kind in _CHECKS and isinstance(entry.path, Path):
                damages += _CHECKS[entry.kind](entry.path)
                read(entry.size_bytes)
    if mend:
        _mend(stores, damages, cache_dir)
    return CacheCheck(tuple(stores), tuple(damages))


def compact_cache(
    cache_dir: StoragePath | str, names: Sequence[str] | str = (), *, show: bool = False
) -> dict[str, Compaction]:
    """Merge small segments in the stores of a cache folder, and return by name what was done.

    Args:
        cache_dir: the folder.
        names: of stores; all if empty.
        show: show progress on stderr.

    Raises:
        FeatxError: there is no such store, or the system cannot read or write one.
    """
    cache_dir = as_cache_dir(cache_dir)
    stores = {entry.name: entry.store for entry in _chosen(cache_dir, names) if entry.store}
    recipes = {name: store.recipe for name, store in stores.items() if store.recipe}
    return {name: compact(FeatureStore(cache_dir, recipe), show=show) for name, recipe in recipes.items()}


def removable(cache_dir: StoragePath, names: Sequence[str], *, quarantined: bool = False) -> list[StoragePath]:
    """Return the paths that `remove` is to be given: of the entries called `names`, and of what was quarantined.

    Raises:
        FeatxError: there is no such entry, or featx has not made it.
    """
    chosen = _chosen(cache_dir, names) if names else []
    if others := [entry for entry in chosen if entry.kind == "other"]:
        raise FeatxError(
            f"featx did not make {printable(others[0].path)}, and does not remove it: remove it yourself if you want."
        )
    for entry in chosen:
        if entry.kind == "unfinished" and is_held(entry.path):
            raise FeatxError(f"Another featx is at work in {printable(entry.path)}: wait until it is done.")
    paths = [entry.path for entry in chosen]
    if quarantined:
        entries = list_cache(cache_dir)
        paths += [path for entry in entries if entry.store for path in entry.store.quarantined]
        paths += [entry.path for entry in entries if entry.kind == "quarantined"]
    return list(dict.fromkeys(paths))


def remove(paths: Iterable[StoragePath]) -> None:
    """Remove files and folders of a cache. On a disk, a folder goes as a whole: no half of a store is left.

    Raises:
        FeatxError: one of them cannot be removed.
    """
    for path in paths:
        with system_errors(printable(path), "removed"):
            remove_whole(path)
            sweep(path.parent)


def _listed(folder: StoragePath) -> list[StoragePath]:
    """Return what is in a cache folder: all that is visible, and what is unfinished."""
    with system_errors(f"The cache {printable(folder)}", "read"), suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX) or path.name[0] != "."]
    return []


def size_bytes(path: StoragePath) -> int:
    """Return the bytes of a file, or of all files in a folder; links count as nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(size_bytes(below) for below in path.iterdir())
    return 0 if path.is_symlink() else path.stat().st_size


def _entry(path: StoragePath) -> CacheEntry:
    size = size_bytes(path)
    if path.name.startswith(TEMPORARY_PREFIX):
        return CacheEntry(path.name, path, "unfinished", size, unfinished_bytes=size)
    if path.is_dir():
        unfinished = sum(map(size_bytes, path.glob(f"{TEMPORARY_PREFIX}*")))
        store = list_store(path)
        if store.segments or store.recipe or store.quarantined:
            return CacheEntry(path.name, path, "store", size, store, unfinished)
        if path.name == NETWORKS_NAME and isinstance(path, Path):
            return CacheEntry(path.name, path, "networks", size, None, unfinished)
        if path.name in DATA_NAMES:
            return CacheEntry(path.name, path, "data", size)
    kind = "other"
    if isinstance(path, Path) and path.is_file():
        kind = "digests" if path.name == DATABASE_NAME else kind
        kind = "quarantined" if path.name.startswith(f"{DATABASE_NAME}.damaged-") else kind
    return CacheEntry(path.name, path, kind, size)


def _chosen(cache_dir: StoragePath, names: Sequence[str] | str) -> list[CacheEntry]:
    """Return the entries called `names`, or whose name begins so if only one does; all if `names` is empty."""
    entries, names = list_cache(cache_dir), as_names("names", names)
    if not names:
        return entries
    return [_named(name, entries, cache_dir) for name in dict.fromkeys(names)]


def _named(name: str, entries: Sequence[CacheEntry], cache_dir: StoragePath) -> CacheEntry:
    if not name:
        raise FeatxError("The name of an entry is empty: name one as featx cache ls shows it.")
    found = [entry for entry in entries if entry.name == name] or [
        entry for entry in entries if entry.name.startswith(name) and entry.kind not in {"other", "unfinished"}
    ]
    if len(found) == 1:
        return found[0]
    listing = ", ".join(printable(entry.name) for entry in found or entries) or "nothing"
    problem = "has several entries that begin with" if found else "has no"
    meant = "" if found else did_you_mean(name, (entry.name for entry in entries))
    raise FeatxError(f"The cache {printable(cache_dir)} {problem} {printable(name)}. There is: {listing}.{meant}")


def _check_networks(folder: Path) -> list[Damage]:
    with system_errors(printable(folder), "read"):
        found = {path: check_network(path) for path in sorted(folder.glob("*.zip"))}
    return [Damage(path, reason) for path, reason in found.items() if reason]


def _check_digests(path: Path) -> list[Damage]:
    reason = check_database(path)
    return [Damage(path, reason)] if reason else []


def _mend(stores: Sequence[StoreCheck], damages: Sequence[Damage], cache_dir: StoragePath) -> None:
    for store in stores:
        if store.damages:
            mend_store(store, cache_dir)
    for damage in damages:
        with system_errors(printable(damage.path), "mended"):
            if damage.path.name == DATABASE_NAME and isinstance(damage.path, Path):
                quarantine_database(damage.path)
            else:
                damage.path.unlink(missing_ok=True)


class _Megabytes:
    """Counts bytes and tells of every whole MiB."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        self._tell = tell
        self._n_bytes = 0

    def __call__(self, n_bytes: int) -> None:
        before = self._n_bytes >> 20
        self._n_bytes += n_bytes
        self._tell((self._n_bytes >> 20) - before)


_KINDS = ("store", "networks", "digests", "data", "quarantined", "unfinished", "other")
_CHECKS: dict[str, Callable[[Path], list[Damage]]] = {"networks": _check_networks, "digests": _check_digests}
