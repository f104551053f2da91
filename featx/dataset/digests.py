"""The SHA-256 of every image file, from the stat cache where the file has not changed since it was last read.

A digest identifies an image in featx; its path only says where it is. Reading 10,000 images to learn their digests
takes seconds, asking whether they have changed takes milliseconds, so `cache/digests.sqlite` remembers
(path, size, mtime_ns, ctime_ns, inode) → digest. It is a cache and no more: without it, everything works, only slower.

A file elsewhere has no inode: what its file system says of its content, an ETag above all, stands for it.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from featx.dataset.statcache import StatCache, StatEntry
from featx.images import MAX_FILE_MIB
from featx.storage import (
    READ_FLAGS,
    RemotePath,
    StatKey,
    StatKeys,
    StoragePath,
    as_storage_path,
    is_distant,
    local_dir,
    working_folder,
)
from featx.system import DaemonThreads, progress_bar

#: How often digests are committed, so that an interrupted first run keeps what it has read.
COMMIT_EVERY_S = 2.0
_THREADS = 8  # more than cores: on a network folder the time goes into waiting
_REMOTE_THREADS = 32  # elsewhere, all of it
#: Files whose entries are in memory at a time.
PORTION = 20_000
_FILES_PER_TASK = 16  # keeps the cost of a task small against the files in it
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3

#: A file as `digest_files` was given it.
_File: TypeAlias = Path | RemotePath | str | bytes


class _Hashed(NamedTuple):
    """What reading one file gave: its digest and the state it was in, or the reason why there is none."""

    digest: bytes = bytes(32)
    key: StatKey | None = None  # None: not to be remembered
    reason: str | None = None


class _ToRead(NamedTuple):
    """A file to read: its row, its name in the stat cache, its path if it is remote, and what is remembered of it."""

    row: int
    name: bytes
    remote: RemotePath | None = None
    known: StatEntry | None = None


def digest_files(
    paths: Sequence[_File],
    cache_dir: StoragePath,
    *,
    folder: bytes | None = None,
    show: bool = False,
    before_reading: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the SHA-256 digest of every file's bytes, and the reason for each file that has none.

    Only files that are new or have changed are read. A FIFO, socket, device or folder is never opened. Besides what it
    returns and `paths`, memory does not grow with the number of files.

    Args:
        paths: files, on this machine (absolute, or relative to `folder`; any name the system allows, bytes are fastest)
            or elsewhere.
        cache_dir: the folder of `digests.sqlite`, made if it is missing. If it cannot be used, one warning is logged.
        folder: what paths are relative to; the working folder if None.
        show: whether to show progress.
        before_reading: called before files are read that are new or have changed; it may raise.

    Returns:
        `(n, 32)` uint8, row `i` for `paths[i]`, zeros where the file could not be read; and the reasons by row.
    """
    here = os.fsencode(working_folder()) if folder is None else folder
    threads = _REMOTE_THREADS if len(paths) and is_distant(paths[0]) else _THREADS
    with (
        closing(StatCache(local_dir(cache_dir))) as cache,
        progress_bar(len(paths), "digests", "files", show=show) as bar,
        DaemonThreads(threads, "featx-digest") as pool,
    ):
        digesting = _Digesting(cache, pool, bar, len(paths), before_reading)
        for start in range(0, len(paths), PORTION):
            digesting.portion(start, paths[start : start + PORTION], here)
    return digesting.digests, digesting.reasons


class _Digesting:
    """The digests and reasons of all files, filled in a portion at a time."""

    def __init__(
        self, cache: StatCache, pool: Executor, bar: Any, n_files: int, before_reading: Callable[[], object]
    ) -> None:
        self.digests = np.zeros((n_files, 32), np.uint8)
        self.reasons: dict[int, str] = {}
        self._cache = cache
        self._pool = pool
        self._bar = bar
        self._before_reading = before_reading
        self._keys = StatKeys()

    def portion(self, start: int, files: Sequence[_File], here: bytes) -> None:
        """Find the digests of `files`, whose first row is `start`."""
        names = [_name(file, here) for file in files]
        known = self._cache.lookup(names)
        to_read: list[_ToRead] = []
        rows: list[int] = []  # of files that have not changed
        digests: list[bytes] = []
        for row, (file, name) in enumerate(zip(files, names, strict=True), start):
            entry = known.get(name)
            remote = file if isinstance(file, RemotePath) else None
            # Of a remote file without a listed key, the thread that reads it asks.
            key = self._key(row, name) if remote is None else remote.listed_key
            if entry and entry.key == key:
                rows.append(row)
                digests.append(entry.digest)
            elif remote or key:
                to_read.append(_ToRead(row, name, remote, entry))
        self.digests[rows] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        self._bar.update(len(files) - len(to_read))
        if to_read:
            self._before_reading()
        self._read(to_read)

    def _key(self, row: int, name: bytes) -> StatKey | None:
        """Return the state that a file is in; note the reason, and return None, if it is none that can be read."""
        try:
            status = os.stat(name)  # noqa: PTH116 - a Path cannot hold bytes
        except (OSError, ValueError) as error:
            self.reasons[row] = _why(error)
            return None
        if not stat.S_ISREG(status.st_mode):
            self.reasons[row] = _not_regular(status.st_mode)
            return None
        return self._keys.of(name, status)

    def _read(self, files: Sequence[_ToRead]) -> None:
        """Read files; what may be remembered goes to the cache, also on Ctrl-C."""
        fresh: list[tuple[bytes, StatKey, bytes]] = []
        committed_at = time.monotonic()
        tasks = [files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK)]
        try:
            for task, several in zip(tasks, self._pool.map(partial(_hash_several, self._keys), tasks), strict=True):
                for file, hashed in zip(task, several, strict=True):
                    if hashed.key is not None:
                        fresh.append((file.name, hashed.key, hashed.digest))
                    self.digests[file.row] = np.frombuffer(hashed.digest, np.uint8)
                    if hashed.reason is not None:
                        self.reasons[file.row] = hashed.reason
                self._bar.update(len(several))
                if time.monotonic() - committed_at > COMMIT_EVERY_S:
                    self._cache.remember(fresh)
                    fresh = []
                    committed_at = time.monotonic()
        except BaseException:
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            self._cache.remember(fresh)


def forget_digests(names: Sequence[str], cache_dir: StoragePath) -> None:
    """Have the files called `names` read again next time: what their state said of their content was wrong."""
    if names:
        here = os.fsencode(working_folder())
        with closing(StatCache(local_dir(cache_dir))) as cache:
            cache.forget(_name(as_storage_path(name), here) for name in names)


def _name(file: _File, here: bytes) -> bytes:
    """Return what a file is called in the stat cache: its absolute path, or its address."""
    if isinstance(file, RemotePath):
        return str(file).encode("utf-8", "surrogateescape")
    return os.path.join(here, os.fsencode(file))  # noqa: PTH118 - a Path cannot hold bytes


def _hash_several(keys: StatKeys, files: Sequence[_ToRead]) -> list[_Hashed]:
    return [_hash_remote(file.remote, file.known) if file.remote else _hash_file(file.name, keys) for file in files]


def _hash_remote(file: RemotePath, known: StatEntry | None) -> _Hashed:
    """Read one file elsewhere, unless what its file system says of it now is what is remembered."""
    try:
        key = file.stat_key()
        if known and known.key == key:
            return _Hashed(known.digest)
        if key and key.size > MAX_FILE_MIB << 20:
            return _Hashed(reason=f"larger than {MAX_FILE_MIB} MiB")
        return _hash_blocks(file, key)
    except OSError as error:
        return _Hashed(reason=_why(error))


def _hash_blocks(file: RemotePath, key: StatKey | None) -> _Hashed:
    """Read a file whose server may not know, or not tell, how large it is."""
    digest, n_bytes = hashlib.sha256(), 0
    for block in file.blocks():
        n_bytes += len(block)
        if n_bytes > MAX_FILE_MIB << 20:
            return _Hashed(reason=f"larger than {MAX_FILE_MIB} MiB")
        digest.update(block)
    return _Hashed(digest.digest(), key)


def _hash_file(name: bytes, keys: StatKeys) -> _Hashed:
    """Read one file; read it again if something wrote to it during the first time."""
    try:
        # A FIFO may have taken the file's place since it was looked at, and must not hold us up.
        descriptor = os.open(name, READ_FLAGS)
    except (OSError, ValueError) as error:
        return _Hashed(reason=_why(error))
    try:
        for _ in range(_ATTEMPTS):
            started_ns = time.time_ns()
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return _Hashed(reason=_not_regular(before.st_mode))
            digest = _sha256(descriptor)
            key = keys.of(name, before)
            if key == keys.of(name, os.fstat(descriptor)):
                return _Hashed(digest, key if key.is_settled(started_ns) else None)
    except OSError as error:
        return _Hashed(reason=_why(error))
    finally:
        os.close(descriptor)
    return _Hashed(reason="it is being written to")


def _sha256(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    digest = hashlib.sha256()
    while block := os.read(descriptor, _BLOCK_BYTES):
        digest.update(block)
    return digest.digest()


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _not_regular(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
    return f"a {kinds.get(stat.S_IFMT(mode), 'device')}, not a file"
