"""Zip and tar files, opened like folders: nothing of them is unpacked but the members that are asked for.

A zip file has a list of what is in it at its end. A tar file has none and can only be read from start to end: a
compressed or a distant one is first copied, uncompressed, to a temporary file without a name.
"""

import os
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from featx.storage.member_names import name_tar_members, name_zip_members
from featx.storage.stat_key import StatKeys

ARCHIVE_PROTOCOLS = {"zip": "zip", "tar": "tar"}

_SUFFIXES = {
    "zip": (".zip",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
}

#: What a store or a server says of a file's content, or of when it got it. A time that whoever wrote the file may have
#: set, such as mtime or Last-Modified, tells nothing.
_TELLING = {"ETag", "etag", "LastModified", "updated", "last_modified"}


@dataclass(frozen=True)
class Archive:
    """An archive that is open.

    Attributes:
        system: the fsspec file system of its members.
        state: what tells whether the archive has changed; None if nothing does.
        is_for_threads: whether several may read from it at once.
        warnings: what the user should know of its members, one sentence each.
    """

    system: Any
    state: object
    is_for_threads: bool
    warnings: tuple[str, ...]


def archive_kind(name: str) -> str | None:
    """Return `"zip"` or `"tar"` for the name of an archive, else None.

    >>> archive_kind("photos.zip"), archive_kind("s3://bucket/Photos.TGZ"), archive_kind("photos")
    ('zip', 'tar', None)
    """
    lower = name.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if lower.endswith(suffixes)), None)


def open_archive(source: Path | str, kind: str | None = None, encoding: str | None = None) -> Archive:
    """Return the archive at a path on this machine, or at an address; what it is its name says, unless `kind` does.

    Its members have the paths that they would have in a folder; `encoding` is that of names that do not say theirs.

    Raises:
        ArchiveError: its members cannot be in a folder.
        Exception: of fsspec, zipfile or tarfile.
    """
    file, state = _open_file(source)
    kind = kind or archive_kind(str(source))
    if kind == "tar" and not (isinstance(source, Path) and source.suffix.lower() == ".tar"):
        file = _copied(file, str(source))
    system, warnings = _members(file, kind, encoding)
    weakref.finalize(system, file.close)
    return Archive(system, state, kind == "zip", tuple(warnings))


def _open_file(source: Path | str) -> tuple[IO[bytes], object]:
    """Return the archive's file, and what tells whether it has changed."""
    if isinstance(source, Path):
        now_ns = time.time_ns()
        opened = source.open("rb")
        key = StatKeys().of(os.fsencode(source.absolute()), os.fstat(opened.fileno()))
        return opened, tuple(key) if key.is_settled(now_ns) else None
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    system, path = fsspec.url_to_fs(source, use_listings_cache=False)
    if isinstance(system, LocalFileSystem):
        return _open_file(Path(path))
    info = system.info(path)
    said = {name: str(value) for name, value in info.items() if name not in {"name", "Key", "url"}}
    state = sorted(said.items()) if said.keys() & _TELLING else None
    return cast("IO[bytes]", system.open(path, "rb")), state


def _copied(file: IO[bytes], name: str) -> IO[bytes]:
    """Return a temporary file with the bytes of `file`, uncompressed; close `file`."""
    import fsspec

    compression = fsspec.utils.infer_compression(name.lower()) or _COMPRESSIONS.get(name.lower().rpartition(".")[2])
    copy = tempfile.TemporaryFile(prefix="featx-")  # noqa: SIM115 - it is open as long as the archive is
    try:
        with file:
            plain = fsspec.compression.compr[compression](file, mode="rb") if compression else file
            shutil.copyfileobj(plain, copy, 1 << 20)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


_COMPRESSIONS = {"tgz": "gzip", "tbz2": "bz2", "txz": "xz"}


def _members(file: IO[bytes], kind: str | None, encoding: str | None) -> tuple[Any, list[str]]:
    """Return the file system of the members, and what the user should know of them."""
    from fsspec.implementations.tar import TarFileSystem
    from fsspec.implementations.zip import ZipFileSystem

    try:
        if kind == "zip":
            system = ZipFileSystem(fo=file)
            return system, name_zip_members(system.zip, encoding)
        # fsspec goes by a name, this one rather than the file's own, whether there is something to uncompress.
        setattr(file, "original", "plain.tar")  # noqa: B010 - it is no attribute that a file is known to have
        system = TarFileSystem(fo=file)
        warnings = name_tar_members(system.tar, encoding)
        system._index()  # noqa: SLF001 - lists the members again, by their new names
    except BaseException:
        file.close()
        raise
    return system, warnings
