"""The entries of a cache folder: lists, checks, repairs, compacts and removes them."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from featx.dataset import (
    DATA_NAMES,
    DATABASE_NAME,
    RECORD_NAME,
    check_database,
    check_record,
    quarantine_database,
    quarantine_record,
)
from featx.engines import check_network, network_files
from featx.errors import FeatxError, system_errors
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
from featx.text import printable

#: How the name of a store ends: in eight digits of its recipe's key.
_STORE_NAME = re.compile(r"-[0-9a-f]{8}$")

NETWORKS_NAME = "networks"


@dataclass(frozen=True)
class CacheEntry:
    """One thing in a cache folder.

    Attributes:
        name: the name of the file or folder, by which it can be checked, compacted or removed.
        path: where it is.
        kind: `"store"`, `"networks"`, `"digests"`, `"splits"` (the test images that featx has chosen), `"data"` (the
            sample or the demo's photographs), `"unfinished"` (a process is building it, or was killed),
            `"quarantined"`, or `"other"`: featx did not make it.
        size_bytes: of all files in it, as far as they can be seen.
        unfinished_bytes: of those that a process is writing, or was writing when it was killed.
        store: what a store holds; else None.
        problem: why what it holds cannot be told, a sentence; empty if it can.
    """

    name: str
    path: StoragePath
    kind: str
    size_bytes: int
    store: StoreListing | None = None
    problem: str = ""
    unfinished_bytes: int = 0

    def __repr__(self) -> str:
        return f"<CacheEntry {brief(self.name)}: {self.kind}, {size(self.size_bytes)}>"


@dataclass(frozen=True)
class CacheCheck:
    """What checking entries of a cache has found.

    Attributes:
        stores: of each store that was checked.
        damages: of converted networks, the digest cache and records of splits. featx makes these again when it needs
            them; a record of splits may then be another one.
        problems: why other entries could not be checked or mended, a sentence each: a newer featx wrote them, or the
            system cannot read them. That is no damage.
    """

    stores: tuple[StoreCheck, ...]
    damages: tuple[Damage, ...]
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        damages = [*self.damages, *(damage for store in self.stores for damage in store.damages)]
        found = f"{len(damages):,} damaged: {damages[0]}" + ", …" * (len(damages) > 1) if damages else "no damage found"
        unchecked = f", {len(self.problems):,} not checked" if self.problems else ""
        return f"<CacheCheck of {len(self.stores):,} stores: {found}{unchecked}>"

    @property
    def is_sound(self) -> bool:
        """Whether nothing that was checked is damaged."""
        return not self.damages and not any(store.damages for store in self.stores)


def list_cache(cache_dir: StoragePath | str) -> list[CacheEntry]:
    """Return what is in a cache folder, stores first, sorted by name. Change nothing.

    For a remote cache, this includes what featx keeps of it on this machine. An entry that cannot be read has the
    reason. Entries that another process removes meanwhile are left out.

    Raises:
        FeatxError: the folder cannot be read.
    """
    cache_dir = as_cache_dir(cache_dir)
    folders = dict.fromkeys((cache_dir, local_dir(cache_dir)))
    entries = [entry for folder in folders for path in _listed(folder) if (entry := _entry(path))]
    return sorted(entries, key=lambda entry: (_KINDS.index(entry.kind), entry.name))


def check_cache(
    cache_dir: StoragePath | str, names: Sequence[str] | str = (), *, mend: bool = False, show: bool = False
) -> CacheCheck:
    """Read and check everything in a cache folder.

    Args:
        cache_dir: the folder.
        names: of entries; all if empty.
        mend: whether to quarantine damaged segments and a damaged digest cache, remove damaged networks, and write
            derived files again. If not, change nothing.
        show: show progress on stderr.

    Returns:
        What was found, before it was mended. If one entry cannot be checked or mended, the others still are.

    Raises:
        FeatxError: there is no such entry, or the folder cannot be read.
    """
    cache_dir = as_cache_dir(cache_dir)
    entries = _chosen(cache_dir, names)
    stores: list[StoreCheck] = []
    damages: list[Damage] = []
    problems: list[str] = []
    with progress_bar(sum(e.size_bytes for e in entries) >> 20, "verify", "MiB", show=show) as bar:
        read = _Megabytes(bar.update)
        for entry in entries:
            with _noted(entry.path, problems):
                if entry.kind == "store":
                    stores.append(check_store(entry.path, read))
                elif entry.kind in _CHECKS:
                    damages += _CHECKS[entry.kind](entry.path)
                    read(entry.size_bytes)
    if mend:
        _mend(stores, damages, problems)
    return CacheCheck(tuple(stores), tuple(damages), tuple(problems))


def compact_cache(
    cache_dir: StoragePath | str, names: Sequence[str] | str = (), *, show: bool = False
) -> dict[str, Compaction]:
    """Merge small segments in the stores of a cache folder. Return what was done, by the name of the store.

    Args:
        cache_dir: the folder.
        names: of stores; all if empty.
        show: show progress on stderr.

    Raises:
        FeatxError: there is no such store, or some could not be compacted; all others have been.
    """
    cache_dir = as_cache_dir(cache_dir)
    done: dict[str, Compaction] = {}
    problems: list[str] = []
    for entry in _chosen(cache_dir, names):
        problems += [entry.problem] if entry.problem else []
        if entry.store and entry.store.recipe:
            with _noted(entry.path, problems):
                done[entry.name] = compact(FeatureStore(entry.path.parent, entry.store.recipe), show=show)
    if problems:
        raise FeatxError(" ".join((*problems, f"Compacted: {', '.join(map(printable, done)) or 'nothing'}.")))
    return done


def removable(cache_dir: StoragePath, names: Sequence[str], *, quarantined: bool = False) -> list[StoragePath]:
    """Return the paths to pass to `remove`: of the entries called `names`, and of quarantined files.

    Raises:
        FeatxError: there is no such entry, or featx has not made it.
    """
    chosen = _chosen(cache_dir, names) if names else []
    if others := [entry for entry in chosen if not _is_made_by_featx(entry)]:
        raise FeatxError(
            f"featx did not make {printable(others[0].path)}, and does not remove it: remove it yourself if you want."
        )
    for entry in chosen:
        if entry.kind == "unfinished" and is_held(entry.path):
            raise FeatxError(f"Another featx command is using {printable(entry.path)}: wait until it is done.")
    paths = [entry.path for entry in chosen]
    if quarantined:
        entries = list_cache(cache_dir)
        paths += [path for entry in entries if entry.store for path in entry.store.quarantined]
        paths += [entry.path for entry in entries if entry.kind == "quarantined"]
    return list(dict.fromkeys(paths))


def remove(paths: Iterable[StoragePath]) -> None:
    """Remove files and folders of a cache. On a disk, a folder is removed as a whole: no half of a store remains.

    Raises:
        FeatxError: one of them cannot be removed.
    """
    for path in paths:
        with system_errors(printable(path), "removed"), suppress(FileNotFoundError):  # another process was quicker
            remove_whole(path)
            sweep(path.parent)


def _listed(folder: StoragePath) -> list[StoragePath]:
    """Return what is in a cache folder: all that is visible, and what is unfinished."""
    with system_errors(f"The cache {printable(folder)}", "read"), suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX) or path.name[0] != "."]
    return []


def size_bytes(path: StoragePath) -> int:
    """Return the bytes of a file, or of all files in a folder that can be seen; links count as nothing."""
    total, left = 0, [path]
    while left:
        here = left.pop()
        with suppress(OSError):  # it has gone, or may not be looked at
            if here.is_symlink():
                continue
            if here.is_dir():
                left += here.iterdir()
            else:
                total += here.stat().st_size
    return total


def _entry(path: StoragePath) -> CacheEntry | None:
    """Return what `path` is; None if it has gone."""
    kind, store, unfinished, problems = "other", None, 0, list[str]()
    size = size_bytes(path)
    if path.name.startswith(TEMPORARY_PREFIX):
        return CacheEntry(path.name, path, "unfinished", size, unfinished_bytes=size)
    if path.is_dir():
        with _noted(path, problems):
            store = list_store(path)
            unfinished = sum(map(size_bytes, path.glob(f"{TEMPORARY_PREFIX}*")))
        if problems or (store and (store.segments or store.recipe or store.quarantined)):
            kind = "store"
        else:
            store = None
            kind = "data" if path.name in DATA_NAMES else kind
            kind = "networks" if path.name == NETWORKS_NAME and isinstance(path, Path) else kind
    elif path.name == DATABASE_NAME and isinstance(path, Path):
        kind = "digests"
    elif RECORD_NAME.fullmatch(path.name):
        kind = "splits"
    elif path.name.startswith(f"{DATABASE_NAME}.damaged-") or RECORD_NAME.fullmatch(
        path.name.partition(".damaged-")[0]
    ):
        kind = "quarantined"
    if not (path.exists() or path.is_symlink()):
        return None
    return CacheEntry(path.name, path, kind, size, store, "".join(problems), unfinished)


def _is_made_by_featx(entry: CacheEntry) -> bool:
    """Return whether featx made an entry; one that cannot be read is known by its name."""
    return entry.kind != "other" and not (entry.problem and not _STORE_NAME.search(entry.name))


@contextmanager
def _noted(path: StoragePath, problems: list[str]) -> Iterator[None]:
    """Note in `problems`, as a sentence, why the block could not do its work on `path`; others go on."""
    try:
        yield
    except FeatxError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{printable(path)} cannot be read: {error.strerror or error}.")
    except MemoryError:
        problems.append(f"{printable(path)} cannot be read: not enough memory.")


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
    raise FeatxError(f"The cache {printable(cache_dir)} {problem} {printable(name)}. It has: {listing}.{meant}")


def _check_networks(folder: StoragePath) -> list[Damage]:
    assert isinstance(folder, Path)
    damages = []
    for path in network_files(folder):
        with system_errors(printable(path), "read"), suppress(FileNotFoundError):
            if reason := check_network(path):
                damages.append(Damage(path, reason))
    return damages


def _check_digests(path: StoragePath) -> list[Damage]:
    assert isinstance(path, Path)
    reason = check_database(path)
    return [Damage(path, reason)] if reason else []


def _check_splits(path: StoragePath) -> list[Damage]:
    reason = check_record(path)
    return [Damage(path, reason)] if reason else []


def _mend(stores: Sequence[StoreCheck], damages: Sequence[Damage], problems: list[str]) -> None:
    for store in stores:
        if store.damages:
            with _noted(store.dir, problems):
                mend_store(store)
    for damage in damages:
        with _noted(damage.path, problems), system_errors(printable(damage.path), "mended"):
            if damage.path.name == DATABASE_NAME and isinstance(damage.path, Path):
                quarantine_database(damage.path)
            elif RECORD_NAME.fullmatch(damage.path.name):
                quarantine_record(damage.path)
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


_KINDS = ("store", "networks", "digests", "splits", "data", "quarantined", "unfinished", "other")
_CHECKS: dict[str, Callable[[StoragePath], list[Damage]]] = {
    "networks": _check_networks,
    "digests": _check_digests,
    "splits": _check_splits,
}
