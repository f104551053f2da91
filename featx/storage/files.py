"""Writes files whole or not at all: on a disk under a temporary name in the same folder, then synced and renamed.

An object store has neither temporary names nor renames. It needs none, because it stores a whole file or nothing.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from featx.errors import FeatxError, StoreError, system_errors
from featx.storage.marks import mark_folder
from featx.storage.paths import StoragePath
from featx.storage.remote_path import RemotePath
from featx.storage.windows import READ_FLAGS, patiently, sync_folder
from featx.storage.workshops import sync_file, temporary_path, workshop
from featx.system import did_you_mean
from featx.text import printable

_AnyPath = TypeVar("_AnyPath", bound=StoragePath)

#: More than any recipe, list, table or page that featx writes and reads again. A file of this kind that is larger is
#: not featx's, and is not read.
TEXT_BYTES = 64 << 20

_BLOCK_BYTES = 1 << 20

#: Seeks the next bytes that are stored, where a file has holes; Windows knows no such seek, and takes it for an error.
_SEEK_DATA = getattr(os, "SEEK_DATA", 3)

#: Why a file on this machine cannot be opened, in few words. Sockets, and devices without a driver, are such files.
_REASONS = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "no such file"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "permission denied"),
    **dict.fromkeys((errno.ENXIO, errno.ENODEV, errno.EISDIR), "not a regular file"),
    errno.ELOOP: "symlink loop",
}


class OddFileError(OSError):
    """A path leads to no regular file (a FIFO, socket, device or folder), or to one of a size that featx never writes.

    `strerror` is the reason in few words. The file itself is to blame, not the system.
    """


def read_small(path: StoragePath, most_bytes: int = TEXT_BYTES) -> bytes:
    """Return all of a file that featx or its user has written. Waits for nothing but the disk, or the network.

    Every file that is read as a whole is read by this function: it may have been put there by anybody.

    Raises:
        OddFileError: it is not a regular file, or larger than `most_bytes`.
        OSError: it cannot be read.
    """
    if isinstance(path, RemotePath):
        data = read_whole(path, most_bytes)
    else:
        with _regular(path) as descriptor:
            data = _all_of(descriptor, most_bytes)
    if data is None:
        raise OddFileError(errno.EFBIG, _too_large(most_bytes))
    return data


def read_json(path: Path, what: str) -> Any:
    """Return what is in a JSON file of the user, which an error calls `what`.

    Raises:
        FeatxError: it cannot be read, is not JSON, or has an object with two members of one name.
    """
    try:
        with system_errors(f"The {what} {printable(path)}", "read"):
            text = read_small(path).decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
        content = json.loads(text, object_pairs_hook=_without_twins)
        json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")  # half a character is no name
    except (ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split())[:200])
        raise FeatxError(f"The {what} {printable(path)} is not a valid JSON file: {reason}.") from error
    return content


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError where `json` would silently keep the last of several equal names."""
    names = Counter(name for name, _ in pairs)
    if twins := [name for name, n_times in names.items() if n_times > 1]:
        raise ValueError(f"{twins[0]} occurs twice")
    return dict(pairs)


def check_regular(path: StoragePath, most_bytes: int | None = None) -> None:
    """Raise unless `path` leads to a regular file: before a library opens it, which might wait for ever.

    Args:
        path: what is to be opened; of files elsewhere, nothing is asked.
        most_bytes: how large it may be.

    Raises:
        OddFileError: it is not a regular file, or larger than `most_bytes`.
        OSError: it is not there, or cannot be asked.
    """
    if isinstance(path, Path):
        try:
            status = path.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OddFileError(errno.ELOOP, _REASONS[errno.ELOOP]) from error
            raise
        _check_status(status)
        if most_bytes is not None and status.st_size > most_bytes:
            raise OddFileError(errno.EFBIG, _too_large(most_bytes))


def _check_status(status: os.stat_result) -> None:
    """Raise OddFileError unless this is the status of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise OddFileError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OddFileError(errno.ENODEV, _REASONS[errno.ENODEV])


@contextmanager
def _regular(path: Path) -> Iterator[int]:
    """Yield the descriptor of a regular file, opened to be read; raise OddFileError for another kind."""
    descriptor = os.open(path, READ_FLAGS)
    try:
        _check_status(os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _all_of(descriptor: int, most_bytes: int) -> bytes | None:
    """Return all of a regular file; None if it is larger than `most_bytes`."""
    n_bytes = os.fstat(descriptor).st_size
    if n_bytes > most_bytes:
        return None
    data = os.read(descriptor, n_bytes)
    while len(data) < n_bytes and (rest := os.read(descriptor, n_bytes - len(data))):
        data += rest
    return data


def _too_large(most_bytes: int) -> str:
    return f"larger than {most_bytes >> 20:,} MiB, too large for such a file of featx"


def read_whole(path: StoragePath, most_bytes: int) -> bytes | None:
    """Return all of a file; None if it is larger than `most_bytes`. Waits only for the disk or the network.

    Raises:
        OSError: it is not a regular file (a FIFO, socket, device or folder), or cannot be read; `strerror` is the short
            reason.
    """
    if isinstance(path, RemotePath):
        data = path.read_up_to(most_bytes + 1)
        return data if len(data) <= most_bytes else None
    with _opened(path) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENODEV, _REASONS[errno.ENODEV])
        return _all_of(descriptor, most_bytes)


def read_start(path: StoragePath, n_bytes: int) -> bytes:
    """Return the first bytes of a file. Waits, and raises OSError, as `read_whole` does."""
    if isinstance(path, RemotePath):
        return path.read_up_to(n_bytes)
    with _opened(path) as descriptor:
        return os.read(descriptor, n_bytes)


def read_blocks(path: StoragePath) -> Iterator[bytes]:
    """Yield all bytes of a file in pieces of some megabytes at most."""
    if isinstance(path, RemotePath):
        yield from path.blocks()
        return
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def file_digest(path: StoragePath) -> bytes:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    for block in read_blocks(path):
        digest.update(block)
    return digest.digest()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield the descriptor of a file that was opened to be read, without waiting for who writes to a FIFO."""
    try:
        descriptor = os.open(path, READ_FLAGS)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except ValueError as error:  # a null character in the name
        raise FileNotFoundError(errno.ENOENT, _REASONS[errno.ENOENT]) from error
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, _REASONS.get(number, os.strerror(number).lower())) from error


@contextmanager
def replacing(path: _AnyPath) -> Iterator[_AnyPath]:
    """Yield a path with the same suffix to write to once; if the block succeeds, what was written there is at `path`.

    Whatever happens, `path` is either unchanged or the whole new file. The folder is created if necessary.
    """
    if isinstance(path, RemotePath):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path, path.suffix)
    try:
        yield cast("_AnyPath", temporary)
        sync_file(temporary)
        patiently(lambda: temporary.replace(path), path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # it has its name, or something worse is being raised
            temporary.unlink()


def move(path: StoragePath, target: StoragePath) -> None:
    """Rename a file in its folder.

    Raises:
        OSError: it has gone, or cannot be renamed.
    """
    # Both are on this machine, or both on one file system elsewhere.
    rename = partial(path.rename, target)  # type: ignore[arg-type]
    patiently(rename, path) if isinstance(path, Path) else rename()


def remove_whole(path: StoragePath) -> None:
    """Remove a file, or a folder with everything in it. On a disk, a folder is removed as a whole, never in part.

    Raises:
        OSError: it cannot be removed.
    """
    if isinstance(path, RemotePath):
        path.remove_tree()
        return
    with workshop(temporary_path(path)) as folder:  # the next command sweeps it, should this one be killed
        gone = folder / "gone"
        patiently(lambda: path.rename(gone), path)
        sync_folder(path.parent)
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink()


def write_text(path: StoragePath, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; what `os.fsdecode` could not decode is the bytes it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def check_writable(folder: StoragePath) -> None:
    """Raise OSError if nothing can be written to `folder`, which need not exist, before hours of work are lost.

    On a disk, nothing is written. An object store reports errors only on a write, so the folder gets the mark that says
    that it contains no images.
    """
    if isinstance(folder, RemotePath):
        mark_folder(folder)
        return
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(errno.EACCES, "no permission to write")


def check_readable(path: StoragePath) -> None:
    """Read all of a file that seems damaged, because libraries do not always pass on the system's error.

    Raises:
        FileNotFoundError: it does not exist.
        StoreError: the system cannot read it, or it is not a regular file.
    """
    try:
        deque(read_blocks(path) if isinstance(path, RemotePath) else _stored_blocks(path), maxlen=0)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def _stored_blocks(path: Path) -> Iterator[bytes]:
    """Yield what a file on this machine really holds: a sparse file can claim terabytes of zeros that it has not."""
    at = 0
    with _regular(path) as descriptor:
        has_size = os.fstat(descriptor).st_size > 0
        while True:
            try:
                at = os.lseek(descriptor, at, _SEEK_DATA)
            except OSError as error:
                if has_size and error.errno == errno.ENXIO:  # nothing but holes up to the end
                    return
            block = os.read(descriptor, _BLOCK_BYTES)  # where the file system knows of no holes, on from the last one
            if not block:
                return
            yield block
            at += len(block)


def nearest_folder(path: StoragePath) -> str:
    """Return the end of an error about a missing folder: the one with the nearest name, or nothing."""
    if not isinstance(path, Path):
        return ""
    with suppress(OSError):
        return did_you_mean(path.name, [str(other.name) for other in path.parent.iterdir() if other.is_dir()])
    return ""
