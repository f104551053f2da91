"""What Linux and macOS allow but Windows does not: renaming open files, syncing folders, some letters in names."""

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import reduce
from operator import or_
from pathlib import Path

from featx.storage.file_system import StorageError
from featx.storage.member_names import ArchiveError
from featx.text import printable

IS_WINDOWS = os.name == "nt"

#: How a file is opened to be read: without waiting for a FIFO's writer, without becoming a terminal's process, and on
#: Windows as bytes instead of text. No system has all of these.
READ_FLAGS = reduce(
    or_, (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")), os.O_RDONLY
)

#: What Windows says where a program has a file open: "access denied", "sharing violation", "lock violation". The first
#: also means that the file is protected.
_HELD = {5, 32, 33}

#: Virus scanners and indexers open every new file, and let go of it within seconds.
PATIENCE_S = 5.0
_PAUSE_S = 0.05

#: Letters that no name may hold on Windows, and what none may end in.
_REFUSED = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]+(?=/|$)')
#: Names that Windows has given to devices, also with a suffix.
_DEVICE = re.compile(r"(?<![^/])(CON|PRN|AUX|NUL|COM\d|LPT\d)(?=[./]|$)", re.IGNORECASE)


class FileHeldError(StorageError):
    """Windows cannot rename or remove a file, because a program has it open."""

    def __init__(self, path: Path) -> None:
        super().__init__("another program has it open, or it is protected; close that program", str(path))


def patiently(change: Callable[[], object], path: Path, patience_s: float = PATIENCE_S) -> None:
    """Rename or remove a file or folder by calling `change`, again and again while another program has it open.

    Args:
        change: what to do.
        path: what it changes.
        patience_s: seconds to wait before giving up.

    Raises:
        FileHeldError: it is still open.
        OSError: whatever else `change` raises.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            change()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD:
                raise
            if time.monotonic() >= deadline:
                raise FileHeldError(path) from error
            time.sleep(_PAUSE_S)
        else:
            return


def rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder to `target`, where at most an empty folder is. Linux and macOS replace that one themselves.

    Raises:
        FileExistsError: there is something else.
        OSError: it cannot be renamed.
    """
    try:
        patiently(lambda: folder.rename(target), folder)
    except FileExistsError as error:
        with suppress(OSError):
            target.rmdir()
            patiently(lambda: folder.rename(target), folder)
            return
        raise error from None


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut. Windows has no call for that: its file system keeps a journal."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def windows_path(path: str) -> str:
    """Return a path, with slashes, whose parts are valid names on Windows.

    >>> windows_path("what?/a:b. /nul.jpg")
    'what_/a_b_/nul_.jpg'
    """
    return _DEVICE.sub(r"\1_", _REFUSED.sub("_", path))


def windows_paths(paths: Iterable[str]) -> dict[str, str]:
    """Return the paths in an archive that need other names on Windows, each with its new path.

    Raises:
        ArchiveError: two files or folders would get the same name; Windows also ignores upper and lower case.
    """
    changed: dict[str, str] = {}
    owners: dict[str, str] = {}
    for path in paths:
        parts = path.rstrip("/").split("/")
        for n in range(1, len(parts) + 1):
            above = "/".join(parts[:n])
            owner = owners.setdefault(windows_path(above).casefold(), above)
            if owner != above:
                raise ArchiveError(
                    f"{printable(owner)} and {printable(above)} in it have the same name on Windows; unpack it on "
                    f"Linux or macOS, and rename one of them."
                )
        if (new := windows_path(path)) != path:
            changed[path] = new
    return changed
