"""Paths of files and folders, on this machine or elsewhere, and how users may name them."""

import hashlib
import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from featx.errors import FeatxError
from featx.storage.file_system import FileSystem, archive_kind
from featx.storage.member_names import text_encoding
from featx.storage.remote_path import RemotePath
from featx.storage.stat_key import StatKey, StatKeys
from featx.storage.windows import IS_WINDOWS
from featx.system import shown
from featx.text import has_credentials, printable, redacted_address

_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_BROKEN_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
#: Protocols whose servers are sent the user and password in an address; others would take them for a bucket's name.
_WITH_USER = ("http", "https", "ftp", "sftp", "webdav", "webdavs")

#: A folder or file, on this machine or elsewhere. Only what both can do is used without asking which it is.
StoragePath: TypeAlias = Path | RemotePath


def as_storage_path(named: StoragePath | str | os.PathLike[str]) -> StoragePath:
    """Return the storage path that a path or an address names.

    >>> as_storage_path("file:///data/my%20photos"), as_storage_path("s3://bucket/photos") / "cat.jpg"
    (PosixPath('/data/my photos'), RemotePath('s3://bucket/photos/cat.jpg'))

    Raises:
        FeatxError: it is neither; credentials are in the address of a store that takes them from the environment; or it
            was made a `pathlib.Path`, which drops one of its slashes.
    """
    if isinstance(named, RemotePath):
        return named
    text = os.fspath(named) if isinstance(named, str | os.PathLike) else None
    if not isinstance(text, str):
        raise FeatxError(f"Give a path or an address for a file or folder. Received: {shown(named)}")
    if isinstance(named, str) and _ADDRESS.match(text):
        return _at_address(text)
    if (broken := _BROKEN_ADDRESS.match(text)) and not Path(text).exists():
        raise FeatxError(
            f"Give an address as text, because a Path removes a slash from {broken[1]}://. "
            f"Received: {redacted_address(text)}"
        )
    return Path(text)


def as_cache_dir(named: StoragePath | str) -> StoragePath:
    """Return the storage path of a folder that featx creates if necessary.

    Raises:
        FeatxError: it, or a folder above it, is a file; or as for `as_storage_path`.
    """
    path = as_storage_path(named)
    if isinstance(path, Path):
        there = next((above for above in (path, *path.absolute().parents) if above.exists()), None)
        if there and not there.is_dir():
            raise FeatxError(f"The cache cannot be in a file: choose another --cache-dir. Received: {printable(path)}")
    return path


def as_path(named: StoragePath | str) -> Path:
    """Return the path of a file or folder that is on this machine.

    Raises:
        FeatxError: it is elsewhere, or as `as_storage_path`.
    """
    path = as_storage_path(named)
    if isinstance(path, Path):
        return path
    raise FeatxError(f"Name a file or folder on this machine. Received: {printable(path)}")


def as_data(named: StoragePath | str | os.PathLike[str], zip_encoding: str | None = None) -> StoragePath:
    """Return the storage path of a data set. An archive on this machine is opened like a folder.

    Args:
        named: a folder or an archive.
        zip_encoding: the encoding of names in the archive that do not say theirs, such as `"gbk"`. Without it, names
            are read as UTF-8 if all of them fit; else featx warns.

    Raises:
        FeatxError: there is no such encoding, or as for `as_storage_path`.
    """
    path = as_storage_path(named)
    if isinstance(path, Path) and archive_kind(path.name) and path.is_file():
        archive_path, now_ns = path.resolve(), time.time_ns()
        key = StatKeys().of(os.fsencode(archive_path), archive_path.stat())
        is_settled = key.is_settled(now_ns)
        path = _in_archive(archive_path, key) if is_settled else RemotePath(FileSystem(str(archive_path), archive_path))
    if zip_encoding and isinstance(path, RemotePath):
        return path.with_zip_encoding(text_encoding(zip_encoding))
    return path


def expanded(path: Path | str) -> Path:
    """Return a path with the home folder for a ~ at its beginning, as a shell has it; as it is without such a home.

    >>> expanded("~nobody-of-this-name/x"), expanded("a/~")
    (PosixPath('~nobody-of-this-name/x'), PosixPath('a/~'))
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - of pathlib, no home is a RuntimeError


def working_folder() -> Path:
    """Return the folder that featx runs in.

    Raises:
        FeatxError: it has been removed, or cannot be seen any more.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise FeatxError(
            f"The folder that featx runs in cannot be found ({error.strerror}): it was removed or renamed. Change to "
            f"another folder with cd."
        ) from error


def local_dir(cache_dir: StoragePath) -> Path:
    """Return the folder on this machine for files that cannot be on an object store: the cache itself if it is local.

    For a cache elsewhere, it is a folder for each user and cache, named after its address without credentials.
    """
    if isinstance(cache_dir, Path):
        return cache_dir
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else expanded("~") / ".cache"
    address = str(cache_dir)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", address)[:40].strip("-")
    digest = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()
    return base / "featx" / f"{readable}-{digest[:16]}"


def _at_address(text: str) -> StoragePath:
    if text.lower().startswith(("file://", "local://")):
        return _at_file_address(text)
    if has_credentials(text, but_for=_WITH_USER):
        raise FeatxError(
            f"Do not put credentials into an address, where others can see them. Set them in the environment instead "
            f"(such as AWS_ACCESS_KEY_ID). Received: {redacted_address(text)}"
        )
    return RemotePath(FileSystem(text))


def _at_file_address(text: str) -> Path:
    """Return the path in an address of this machine, in which # and ? are letters of a name.

    Raises:
        FeatxError: it names another machine.
    """
    host, slash, path = text.partition("://")[2].partition("/")
    if host.lower() not in {"", "localhost"} or not slash:
        raise FeatxError(f"Begin the address of a file on this machine with three slashes: file:///. Received: {text}")
    path = os.fsdecode(unquote_to_bytes(os.fsencode(f"/{path}")))
    return Path(re.sub(r"^/(?=[A-Za-z]:)", "", path) if IS_WINDOWS else path)


@lru_cache(maxsize=2)
def _in_archive(path: Path, key: StatKey) -> RemotePath:  # noqa: ARG001 - another state is another archive
    return RemotePath(FileSystem(str(path), archive_path=path))
