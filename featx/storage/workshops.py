"""Hidden folders to build something in: each is held by one process, and swept by the next if that one was killed."""

import errno
import os
import shutil
import socket
import stat
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from operator import or_
from pathlib import Path

from featx.errors import FeatxError
from featx.storage.paths import StoragePath
from featx.storage.windows import IS_WINDOWS, sync_folder
from featx.text import printable

#: Begins the name of everything unfinished.
TEMPORARY_PREFIX = ".tmp-"

#: Something unfinished that has no lock, and is older than this, belongs to nobody: none takes more than minutes.
ABANDONED_AFTER_S = 3600.0

#: The locks of other machines may not be seen here. What one of them began longer ago than this is taken for abandoned.
ABANDONED_ELSEWHERE_AFTER_S = 7 * 24 * 3600.0

#: The file in a workshop that its process has locked; in it is the name of the machine.
LOCK_NAME = "lock"

#: Lies in a workshop whose content could not be put in place: it stays for its owner.
KEPT_NAME = "kept"

#: A process that sweeps holds the lock of what it looks at, for a moment.
_PATIENCE_S = 0.3
_PAUSE_S = 0.02

_SYNC_THREADS = 16

#: Neither a link nor a FIFO that somebody has put there is followed, or waited for.
_LOCK_FLAGS = reduce(
    or_, (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")), os.O_RDWR | os.O_CREAT
)
#: What a file system says that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class HeldError(FeatxError):
    """Another process has the workshop."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        NotADirectoryError: it, or one above it, is a file.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def temporary_path(path: Path, suffix: str = "") -> Path:
    """Return a new hidden path beside `path`, by which something unfinished is known."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{suffix}")


@contextmanager
def workshop(folder: Path, stays: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """Hold a folder that only this user may enter, and yield it. In the end it goes, unless `stays` says otherwise.

    What a killed process has left in it is still there, so that work can go on.

    Raises:
        HeldError: another process has it.
        FeatxError: it is a link, somebody else's, or others may write to it: what is in it may be anybody's.
        OSError: it cannot be made.
    """
    descriptor = _take(folder)
    try:
        yield folder
    finally:
        with ExitStack() as stack, suppress(OSError):  # it has been removed, or another process has taken it
            stack.callback(os.close, descriptor)
            if not stays(folder):
                for path in folder.iterdir():
                    if path.name != LOCK_NAME:
                        _remove(path)
                if IS_WINDOWS:  # which removes no open file
                    stack.close()
                # The lock goes last: nobody takes the folder while there is something in it.
                (folder / LOCK_NAME).unlink()
                folder.rmdir()


def _take(folder: Path) -> int:
    """Make the folder if need be, lock it, and return the descriptor of its lock."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            _check_private(folder)
            descriptor = os.open(folder / LOCK_NAME, _LOCK_FLAGS, 0o600)
        except FileNotFoundError:
            if not folder.parent.exists():
                raise
            continue  # its holder has just removed it
        try:
            is_locked = _lock(descriptor) is not False
            if is_locked and _is_at(descriptor, folder / LOCK_NAME):
                with suppress(OSError):  # a full disk
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, os.fsencode(socket.gethostname()))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # if it was locked, its holder has removed it between our opening and our locking
        if not is_locked:
            if time.monotonic() > deadline:
                raise HeldError(f"Another featx command is using {printable(folder)}; wait until it is done.")
            time.sleep(_PAUSE_S)


def _check_private(folder: Path) -> None:
    """Raise FeatxError if anybody else may have put something into a folder that was there before us."""
    status = folder.lstat()
    trouble = ""
    if not stat.S_ISDIR(status.st_mode):
        trouble = "it is not a folder"
    elif hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        trouble = "it belongs to another user"
    elif status.st_mode & 0o022 and not IS_WINDOWS:
        # Where rights cannot be changed, there are none: a FAT disk, or a folder of Windows.
        folder.chmod(0o700)
        if not folder.stat().st_mode & 0o022:
            folder.chmod(stat.S_IMODE(status.st_mode))
            trouble = "other users can write to it"
    if trouble:
        raise FeatxError(
            f"featx does not use {printable(folder)}, because {trouble}: remove it, or choose another folder."
        )


if sys.platform == "win32":  # pragma: no cover - featx is not tested on Windows

    def _lock(descriptor: int) -> bool | None:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return False if error.errno in {errno.EACCES, errno.EDEADLK} else None
        return True

else:

    def _lock(descriptor: int) -> bool | None:
        """Lock a file; return False if another process has, None if that cannot be told here."""
        try:
            import fcntl
        except ModuleNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            if error.errno in _NO_LOCKS:
                return None
            raise
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sweep(folder: StoragePath) -> None:
    """Remove what killed processes have left unfinished in `folder`, and nothing that anybody still works on."""
    if not isinstance(folder, Path):  # nothing is ever unfinished there
        return
    with suppress(OSError):  # another process was quicker, or may do more here
        for path in list(folder.glob(f"{TEMPORARY_PREFIX}*")):
            with suppress(OSError, FeatxError):
                _sweep_one(path)


def _sweep_one(path: Path) -> None:
    if not (path / LOCK_NAME).exists():
        if time.time() - path.lstat().st_mtime > ABANDONED_AFTER_S:
            _remove(path)
    elif _is_abandoned(path) and not (path / KEPT_NAME).exists():
        with workshop(path):
            pass  # it goes with all that is in it


def is_held(path: StoragePath) -> bool:
    """Return whether somebody may be at work in a workshop, as far as can be told; nothing is changed."""
    try:
        return isinstance(path, Path) and (path / LOCK_NAME).exists() and not _is_abandoned(path)
    except OSError:
        return True


def _is_abandoned(folder: Path) -> bool:
    """Return whether nobody works in a workshop any more: whoever did was killed.

    Raises:
        OSError: it cannot be looked at.
    """
    descriptor = os.open(folder / LOCK_NAME, _LOCK_FLAGS & ~os.O_CREAT)
    try:
        is_free = _lock(descriptor)
        is_ours = os.read(descriptor, 1024) in {b"", os.fsencode(socket.gethostname())}
        age_s = time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    return is_free is not False and ((is_ours and is_free is True) or age_s > ABANDONED_ELSEWHERE_AFTER_S)


def sync_tree(folder: Path) -> None:
    """Make all files in a folder, at any depth, and their names survive a power cut."""
    found = list(os.walk(folder))
    # A disk syncs several files in one go: one after the other, 1,800 small ones take 13 s instead of 0.4.
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        deque(pool.map(sync_file, (Path(above, name) for above, _, names in found for name in names)), maxlen=0)
    for above, *_ in found:
        sync_folder(Path(above))


def sync_file(path: Path) -> None:
    """Make what is in a file survive a power cut."""
    with path.open("r+b") as file:  # Windows syncs only what is open to write
        os.fsync(file.fileno())
