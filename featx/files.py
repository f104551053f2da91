"""Files that are whole or not there: written under a temporary name in the same folder, synced, renamed."""

import datetime as dt
import itertools
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.errors import FeatxError, printable

#: Begins the name of everything unfinished.
TEMPORARY_PREFIX = ".tmp-"

#: A temporary file older than this belongs to nobody: none takes more than minutes to write.
ABANDONED_AFTER_S = 3600.0

#: Lies in a folder of what featx has made, which is never taken for a folder of images.
OUTPUT_MARK = ".featx-output"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; if the block succeeds, what was written there becomes `path`.

    Whatever happens, `path` is either what it was before or the whole new file. The folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_abandoned_files(folder: Path) -> None:
    """Remove what killed processes have left unfinished in `folder`."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # another process was quicker, or may do more here
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink()


@contextmanager
def new_folder(path: Path | None, parent: Path) -> Iterator[Path]:
    """Make and yield the folder `path`, or one named after the time in `parent`: before the work, not after it.

    If the work fails and has left nothing in it, the folder goes again.

    Raises:
        FeatxError: it exists and has something in it, or cannot be made.
    """
    try:
        if path is None:
            parent.mkdir(parents=True, exist_ok=True)
            (parent / OUTPUT_MARK).touch()
            path = _make_new(parent, dt.datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S"))
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FeatxError(f"The folder {printable(path)} is not empty; choose another one.")
    except OSError as error:
        raise FeatxError(f"The folder {printable(path or parent)} cannot be made: {error.strerror}.") from error
    try:
        yield path
        (path / OUTPUT_MARK).touch()
    except BaseException:
        with suppress(OSError):  # there is something in it
            path.rmdir()
        raise


def _make_new(parent: Path, name: str) -> Path:
    """Make and return a folder in `parent` that was not there: two runs may begin in the same second."""
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("there is always a next number")
