"""Unpacks zip files that may be hostile: writes nothing outside the folder, no links, no file larger than announced."""

import errno
import logging
import lzma
import shutil
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from featx.dataset.kaggle.download import MAKE_ROOM
from featx.errors import FeatxError
from featx.storage import (
    IS_WINDOWS,
    TEMPORARY_PREFIX,
    ArchiveError,
    check_space,
    name_zip_members,
    windows_paths,
)
from featx.system import progress_bar, size
from featx.text import printable

log = logging.getLogger("featx")

#: Zip files in zip files in zip files are unpacked, and not those in them.
MAX_DEPTH = 3

#: More files than the largest collections of images have.
MAX_FILES = 5_000_000

#: Images hardly shrink, tables by ten. Deflate makes a thousandth of zeros.
MAX_RATIO = 200

#: What may come of a small archive, whatever its ratio.
ALWAYS_ALLOWED_BYTES = 1 << 30

_CHUNK_BYTES = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression method that Python lacks
    RuntimeError,
    ValueError,  # also a letter that the file system has not
)


@dataclass
class _Allowance:
    """How much may still be unpacked from one archive and all those in it."""

    n_bytes: int
    n_files: int = MAX_FILES


def unpack(archive: Path, folder: Path, *, zip_encoding: str | None = None, show: bool = False) -> list[str]:
    """Unpack `archive` into `folder`, which is made; zip files in it too, each into a folder of its name.

    What is unpacked, and how it is named, is as `name_zip_members` says. A zip file in it that cannot be unpacked stays
    packed.

    Args:
        archive: a zip file.
        folder: not there yet.
        zip_encoding: of names that do not say which they are in.
        show: whether to show progress.

    Returns:
        What was left out or left packed, one sentence each.

    Raises:
        ArchiveError: the archive is broken, needs a password, has entries that lead out of the folder, more than
            `MAX_FILES` of them, or more bytes than an honest archive of its size, or names in another encoding.
        FeatxError: there is not enough room on the disk.
        OSError: the folder cannot be written.
    """
    allowance = _Allowance(max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * archive.stat().st_size))
    try:
        return _unpack(archive, folder, allowance, zip_encoding, depth=0, show=show)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _unpack(
    archive: Path, folder: Path, allowance: _Allowance, encoding: str | None, *, depth: int, show: bool
) -> list[str]:
    with open_zip(archive) as zip_file:
        warnings = name_zip_members(zip_file, encoding)
        entries = zip_file.infolist()
        warnings += _name_for_windows(entries) if IS_WINDOWS else []
        n_bytes = sum(entry.file_size for entry in entries)
        _spend(allowance, len(entries), n_bytes)
        log.info("Unpacking %s: %s files, %s.", printable(archive.name), f"{len(entries):,}", size(n_bytes))
        unpack_members(zip_file, entries, folder, "unpacking", show=show)
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.suffix.lower() == ".zip" and not entry.is_dir():
            warnings += _unpack_inner(folder, name, allowance, encoding, depth=depth + 1, show=show)
    return warnings


def _name_for_windows(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Give entries names that Windows takes; return the sentence that says so, if any name is another one now.

    Raises:
        ArchiveError: two of them would have one name.
    """
    changed = windows_paths(entry.filename for entry in entries)
    for entry in entries:
        entry.filename = changed.get(entry.filename, entry.filename)
    if not changed:
        return []
    old, new = next(iter(changed.items()))
    return [
        f"Renamed, because Windows does not allow the names: {len(changed):,}, such as {printable(old)} to "
        f"{printable(new)}."
    ]


def unpack_members(
    zip_file: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], folder: Path, what: str, *, show: bool
) -> None:
    """Write some members of a zip file, whose names are those of `name_zip_members`, to `folder`, which is made.

    Raises:
        ArchiveError: the archive is broken.
        FeatxError: there is not enough room on the disk.
        OSError: the folder cannot be written.
    """
    folder.mkdir()
    n_bytes = sum(entry.file_size for entry in entries)
    check_space(folder, n_bytes, f"Unpacking {len(entries):,} files", MAKE_ROOM)
    with progress_bar(n_bytes, what, "B", show=show) as bar:
        for entry in entries:
            _write(zip_file, entry, folder / entry.filename, bar)


def _unpack_inner(
    folder: Path, name: PurePosixPath, allowance: _Allowance, encoding: str | None, *, depth: int, show: bool
) -> list[str]:
    """Replace a zip file in what was unpacked by what is in it; if that cannot be done, leave it and say why."""
    archive = folder / name
    target = archive.with_suffix("")
    temporary = archive.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    if depth > MAX_DEPTH:
        return [_left_packed(name, f"zip files are nested more than {MAX_DEPTH} deep")]
    if target.exists():
        return [_left_packed(name, f"there is a {printable(target.name)} beside it")]
    try:
        warnings = _unpack(archive, temporary, allowance, encoding, depth=depth, show=show)
    except ArchiveError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        return [_left_packed(name, str(error).removesuffix("."))]
    same = temporary / target.name  # train.zip with all in train/, as Kaggle has it
    if [path.name for path in temporary.iterdir()] == [target.name] and same.is_dir():
        same.rename(target)
        temporary.rmdir()
    else:
        temporary.rename(target)
    archive.unlink()
    return warnings


def _left_packed(name: PurePosixPath, reason: str) -> str:
    return f"Left packed: {printable(str(name))}, because {reason}."


def open_zip(archive: Path | IO[bytes]) -> zipfile.ZipFile:
    """Return an open zip file.

    Raises:
        ArchiveError: it is none.
    """
    try:
        return zipfile.ZipFile(archive)
    except _BROKEN as error:
        raise _broken(error) from error


def _spend(allowance: _Allowance, n_files: int, n_bytes: int) -> None:
    """Take files and bytes off what is allowed.

    Raises:
        ArchiveError: that is too much.
    """
    if n_files > allowance.n_files:
        raise ArchiveError(f"it holds more than {MAX_FILES:,} files.")
    if n_bytes > allowance.n_bytes:
        raise ArchiveError(
            f"it would unpack to {size(n_bytes)}, far more than an archive of images of its size can hold."
        )
    allowance.n_files -= n_files
    allowance.n_bytes -= n_bytes


def _write(zip_file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, bar: Any) -> None:
    """Make a folder, or write one entry to a file that was not there; `zipfile` sees to its checksum.

    Raises:
        ArchiveError: its bytes are not what it says they are, or its path is a folder's or goes through a file.
        FeatxError: its name is too long for the file system.
    """
    try:
        if entry.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{printable(entry.filename)} in it is both a file and a folder.") from error
    except ValueError as error:  # a letter that the file system has not
        raise _broken(error) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise FeatxError(
            f"A name in the archive is longer than this file system allows: {printable(entry.filename[:80])}… Download "
            f"the archive yourself and name it in place of a folder: featx reads archives without unpacking them."
        ) from error
    with file:
        for piece in _pieces(zip_file, entry):
            file.write(piece)
            bar.update(len(piece))
        if file.tell() != entry.file_size:
            raise ArchiveError(f"{printable(entry.filename)} in it does not have the size that it claims.")


def _pieces(zip_file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield an entry's bytes; `zipfile` gives no more of them than announced."""
    try:
        with zip_file.open(entry) as stream:
            yield from iter(lambda: stream.read(_CHUNK_BYTES), b"")
    except OSError as error:
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise _broken(error) from error  # bz2's word for a broken stream; an offset before the first byte
    except _BROKEN as error:
        raise _broken(error) from error


def _broken(error: Exception) -> ArchiveError:
    return ArchiveError(f"it is broken ({printable(str(error))}).")
