"""The SHA-256 of every image file, from the stat cache where the file has not changed since it was last read.

A digest is what an image *is* in featx; its path is only where it lies. Reading 10,000 images to learn their digests
takes seconds, asking whether they have changed takes milliseconds, so `cache/digests.sqlite` remembers
(path, size, mtime_ns, inode) → digest. It is a cache and no more: without it, everything works, only slower.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featx.progress import progress_bar
from featx.statcache import StatCache, StatKey

#: A file modified less than this long before it was read may change again without its mtime showing it (FAT keeps
#: two seconds), so its digest is not remembered. Git calls such a file racily clean.
RACY_NS = 2_000_000_000
#: How often digests are committed, so that an interrupted first run keeps what it has read.
COMMIT_EVERY_S = 2.0
_THREADS = 8  # more than cores: on a network folder the time goes into waiting
_FILES_PER_TASK = 16  # keeps the cost of a task small against the files in it
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3


class _Hashed(NamedTuple):
    """What reading one file gave: its digest and the state it was in, or the reason why there is none."""

    digest: bytes = bytes(32)
    key: StatKey | None = None  # None: not to be remembered
    reason: str | None = None


def digest_files(
    paths: Sequence[Path | str | bytes], cache_dir: Path, *, show: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the SHA-256 digest of every file's bytes, and the reason for each file that has none.

    Only files that are new or have changed are read. A FIFO, socket, device or folder is never opened.

    Args:
        paths: files, absolute or relative to the working folder; any name the system allows, bytes are fastest.
        cache_dir: the folder of `digests.sqlite`, made if need be. If it cannot be used, one warning is logged.
        show: whether to show the progress of reading files.

    Returns:
        `(n, 32)` uint8, row `i` for `paths[i]`, zeros where the file could not be read; and the reasons by row.
    """
    here = os.fsencode(Path.cwd())
    names = [os.path.join(here, os.fsencode(path)) for path in paths]  # noqa: PTH118 - a Path cannot hold bytes
    digests = [bytes(32)] * len(names)
    reasons: dict[int, str] = {}
    with closing(StatCache(cache_dir)) as cache:
        known = cache.lookup(names)
        to_read: list[int] = []
        for row, name in enumerate(names):
            try:
                status = os.stat(name)  # noqa: PTH116 - a Path cannot hold bytes
            except (OSError, ValueError) as error:
                reasons[row] = _why(error)
                continue
            if not stat.S_ISREG(status.st_mode):
                reasons[row] = _not_regular(status.st_mode)
            elif (entry := known.get(name)) and entry.key == StatKey.of(status):
                digests[row] = entry.digest
            else:
                to_read.append(row)
        for row, hashed in zip(to_read, _hash_all([names[row] for row in to_read], cache, show=show), strict=True):
            digests[row] = hashed.digest
            if hashed.reason is not None:
                reasons[row] = hashed.reason
    return np.frombuffer(bytearray().join(digests), dtype=np.uint8).reshape(-1, 32), reasons


def forget_digests(paths: Sequence[Path], cache_dir: Path) -> None:
    """Have the files at `paths` read again next time: what their state said of their content was wrong."""
    if paths:
        with closing(StatCache(cache_dir)) as cache:
            cache.forget(os.fsencode(path.absolute()) for path in paths)


def _hash_all(names: Sequence[bytes], cache: StatCache, *, show: bool) -> list[_Hashed]:
    """Return what reading each file gave, in order; what may be remembered goes to `cache`, also on Ctrl-C."""
    if not names:
        return []
    results: list[_Hashed] = []
    fresh: list[tuple[bytes, StatKey, bytes]] = []
    committed_at = time.monotonic()
    with progress_bar(len(names), "digests", "files", show=show) as bar, ThreadPoolExecutor(_THREADS) as pool:
        try:
            for portion in pool.map(_hash_several, _portions(names)):
                for hashed in portion:
                    if hashed.key is not None:
                        fresh.append((names[len(results)], hashed.key, hashed.digest))
                    results.append(hashed)
                bar.update(len(portion))
                if time.monotonic() - committed_at > COMMIT_EVERY_S:
                    cache.remember(fresh)
                    fresh = []
                    committed_at = time.monotonic()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            cache.remember(fresh)
    return results


def _portions(names: Sequence[bytes]) -> Iterator[list[bytes]]:
    rest = iter(names)
    while portion := list(islice(rest, _FILES_PER_TASK)):
        yield portion


def _hash_several(names: Sequence[bytes]) -> list[_Hashed]:
    return [_hash_file(name) for name in names]


def _hash_file(name: bytes) -> _Hashed:
    """Read one file; again if it was written to meanwhile."""
    try:
        # O_NONBLOCK: a FIFO may have taken the file's place since it was looked at, and must not hold us up.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        return _Hashed(reason=_why(error))
    try:
        for _ in range(_ATTEMPTS):
            started_ns = time.time_ns()
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return _Hashed(reason=_not_regular(before.st_mode))
            digest = _sha256(descriptor)
            key = StatKey.of(before)
            if key == StatKey.of(os.fstat(descriptor)):
                return _Hashed(digest, key if started_ns - before.st_mtime_ns >= RACY_NS else None)
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
