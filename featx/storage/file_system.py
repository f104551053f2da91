"""A file system that fsspec opens on first use: elsewhere, or the members of an archive.

Only the requested members of an archive are unpacked. A zip file has a list of what is in it at its end. A tar file has
none and can only be read from start to end: a compressed or a distant one is first copied, uncompressed, to a temporary
file without a name.
"""

import datetime as dt
import errno
import hashlib
import os
import tempfile
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from featx.errors import FeatxError, system_errors
from featx.storage.free_space import check_reserve
from featx.storage.member_names import name_tar_members, name_zip_members, plain_path
from featx.storage.stat_key import RACY_NS, StatKey, StatKeys
from featx.storage.web import web_options
from featx.system import install_command
from featx.text import one_line, printable, redacted_address, without_secrets

#: Packages for file systems, by the beginning of an address, as pip names them.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "featx[s3]"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface_hub",
}

_CREDENTIALS = {
    **dict.fromkeys(
        ("s3", "s3a"), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE"
    ),
    **dict.fromkeys(("gs", "gcs"), "set GOOGLE_APPLICATION_CREDENTIALS"),
    "hf": "set HF_TOKEN",
}

_MAX_WORDS = 240  # characters of what a library says

_COPY_BYTES = 1 << 20
_UNPACK_IT = "unpack it yourself, or name a folder on another disk with TMPDIR"

#: Object stores put a whole file under a name, or nothing. Other file systems write in pieces.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"}

#: What says something of a file's content, and when it was written, in the words of different file systems.
_TAGS = (
    *("ETag", "etag", "md5Hash", "crc32c", "generation", "version_id", "VersionId", "CRC", "chksum", "blob_id"),
    *("sha256", "content_settings", "Content-MD5", "Digest", "lfs", "last_commit"),
)
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified", "date_time")

_ARCHIVE_PROTOCOLS = {"zip", "tar"}
_ARCHIVE_SUFFIXES = {
    "zip": (".zip",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
}

#: What a store or a server says of a file's content, or of when it got it. A time that whoever wrote the file may have
#: set, such as mtime or Last-Modified, tells nothing.
_TELLING = {"ETag", "etag", "LastModified", "updated", "last_modified"}
_COMPRESSIONS = {"tgz": "gzip", "tbz2": "bz2", "txz": "xz"}


class StorageError(FeatxError, OSError):
    """A file system elsewhere cannot do what was requested. `strerror` says why and what to do, the message also where.

    Code that handles the `OSError`s of a disk handles this one, too. If none does, the user reads the message.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{printable(where)}: {reason}.")
        self.strerror = one_line(reason)
        self.filename = where


@dataclass(frozen=True)
class _Archive:
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


class FileSystem:
    """The files below one address.

    Attributes:
        address: what fsspec opens, credentials included. Never shown.
        protocol: its beginning, such as `s3`.
        zip_encoding: of names in an archive that do not state theirs; None to detect it.
    """

    def __init__(self, address: str, archive_path: Path | None = None, zip_encoding: str | None = None) -> None:
        """Name the files below `address`, or those in the archive on this machine at `archive_path`."""
        self.address = address
        self.zip_encoding = zip_encoding
        self._archive_path = archive_path
        self._open: tuple[Any, str, _Archive | None] | None = None
        self._opening, self._one_at_a_time = threading.Lock(), threading.Lock()
        first, _, behind = address.partition("::")
        protocol, _, inside = first.partition("://")
        self.protocol = "zip or tar" if archive_path else protocol
        self._inside, self._archive_address = "", ""
        if archive_path is None and protocol in _ARCHIVE_PROTOCOLS:
            self._inside, self._archive_address = inside, behind
        elif archive_path is None and archive_kind(address) and "::" not in address:
            self._archive_address = address
        self._shown = (address, "") if archive_path else _around_tail(address)

    def __reduce__(self) -> tuple[type["FileSystem"], tuple[str, Path | None, str | None]]:
        """Say how to make the same one in another process, on another machine too: it is opened there."""
        return FileSystem, (self.address, self._archive_path, self.zip_encoding)

    def with_zip_encoding(self, zip_encoding: str) -> "FileSystem":
        """Return the same, not opened yet, with this encoding."""
        return FileSystem(self.address, self._archive_path, zip_encoding)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the names in an archive, one sentence each. Opens the archive."""
        _, _, archive = self._opened()
        return archive.warnings if archive else ()

    @property
    def is_distant(self) -> bool:
        """Whether reading from it waits for a network."""
        return self._archive_path is None

    @property
    def writes_whole_files(self) -> bool:
        """Whether a file that it writes is there in full or not at all."""
        return self.protocol in _OBJECT_STORES and not self._archive_address

    @property
    def lists_all_at_once(self) -> bool:
        """Whether one listing has all that is below a folder; else each folder is listed by itself."""
        return self.protocol in _OBJECT_STORES or bool(self._archive_path or self._archive_address)

    @property
    def is_web(self) -> bool:
        """Whether its files come from a web server."""
        return self.protocol in {"http", "https"} and not self._archive_address

    @property
    def name(self) -> str:
        """What the root is called."""
        return (self._inside or redacted_address(self._archive_address or self.address)).rstrip("/")

    def shown(self, tail: str) -> str:
        """Return the address of the file `tail` without credentials."""
        head, chain = self._shown
        if not tail:
            return head + chain
        return f"{head}{'' if head.endswith('://') else '/'}{tail}{chain}"

    @contextmanager
    def ask(self, tail: str) -> Iterator[tuple[Any, str]]:
        """Yield the fsspec file system, and the path by which it knows the file `tail`.

        Threads read one tar file one after the other: its file has one position for all.

        Raises:
            FileNotFoundError: the file is not there; its `strerror` says what is missing.
            StorageError: whatever else goes wrong in the block.
        """
        try:
            system, root, archive = self._opened()
            with self._one_at_a_time if archive and not archive.is_for_threads else nullcontext():
                yield system, f"{root}/{tail}" if root and tail else root or tail
        except StorageError:
            raise
        except FeatxError as error:
            raise StorageError(without_secrets(str(error), self.address).removesuffix("."), self.shown(tail)) from error
        except FileNotFoundError as error:
            if self.is_web and (cause := error.__cause__) and getattr(cause, "status", None) not in {404, 410}:
                # fsspec says so whatever happens when it asks a server about a file.
                raise StorageError(_reason(cast("Exception", cause), self.protocol), self.shown(tail)) from error
            raise FileNotFoundError(errno.ENOENT, _missing(error), self.shown(tail)) from error
        except Exception as error:  # of any library
            raise StorageError(_reason(error, self.address), self.shown(tail)) from error

    def tail(self, key: str) -> str:
        """Return the path below the root of what fsspec knows by the path `key`."""
        _, root, _ = self._opened()
        return key.lstrip("/").removeprefix(root.lstrip("/")).removeprefix("/")

    def stat_key(self, info: dict[str, Any]) -> StatKey | None:
        """Return what tells whether the file that `info` was said of has changed; None if nothing does.

        Only an object store sets the time itself. Elsewhere whoever writes a file may set it, as `rsync -t` does.
        """
        tags = [info[name] for name in _TAGS if info.get(name)]
        times = [info[name] for name in _TIMES if info.get(name)]
        modified_ns = next((_nanoseconds(value) for value in times), 0)
        _, _, archive = self._opened()
        if archive and archive.state is None:
            return None
        is_timed = self.protocol in _OBJECT_STORES and abs(time.time_ns() - modified_ns) > RACY_NS and times
        if not archive and not tags and not is_timed:
            return None
        said = hashlib.sha256(repr((archive.state if archive else None, tags, times)).encode()).digest()
        return StatKey(int(info.get("size") or 0), modified_ns, 0, int.from_bytes(said[:8], "big", signed=True))

    def _opened(self) -> tuple[Any, str, _Archive | None]:
        """Return the fsspec file system, the path of the root in it, and the archive if it is one."""
        with self._opening:
            if self._open is None:
                self._open = self._opened_now()
            return self._open

    def _opened_now(self) -> tuple[Any, str, _Archive | None]:
        if self._archive_path is not None:
            archive = _open_archive(self._archive_path, encoding=self.zip_encoding)
            return archive.system, "", archive
        if self._archive_address:
            kind = self.protocol if self.protocol in _ARCHIVE_PROTOCOLS else None
            archive = _open_archive(self._archive_address, kind, self.zip_encoding)
            return archive.system, plain_path(self._inside), archive
        system, root = _file_system(self.address)
        return system, root.rstrip("/"), None


def _file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it."""
    import fsspec

    system, path = fsspec.url_to_fs(address, use_listings_cache=False, **web_options(address))
    return system, str(path)


def _around_tail(address: str) -> tuple[str, str]:
    """Return what of an address is shown before and behind the path of a file in it.

    A path belongs to the first link of a chain that has one: `zip://PATH::s3://…`, `simplecache::s3://…/PATH`.

    >>> _around_tail("zip://::s3://b/x.zip"), _around_tail("simplecache::http://me:word@h/photos/")
    (('zip://', '::s3://b/x.zip'), ('simplecache::http://***@h/photos', ''))
    """
    links = redacted_address(address).split("::")
    number = next((number for number, link in enumerate(links) if "://" in link), 0)
    head = "::".join(links[: number + 1])
    return head if head.endswith("://") else head.rstrip("/"), "".join(f"::{link}" for link in links[number + 1 :])


def archive_kind(name: str) -> str | None:
    """Return `"zip"` or `"tar"` for the name of an archive, else None.

    >>> archive_kind("photos.zip"), archive_kind("s3://bucket/Photos.TGZ"), archive_kind("photos")
    ('zip', 'tar', None)
    """
    lower = name.lower()
    return next((kind for kind, suffixes in _ARCHIVE_SUFFIXES.items() if lower.endswith(suffixes)), None)


def _missing(error: FileNotFoundError) -> str:
    """Return what is missing: libraries name a bucket as such, and else give the path alone."""
    return "the bucket does not exist" if "bucket" in str(error) and "not exist" in str(error) else "no such file"


def _reason(error: Exception, address: str) -> str:
    """Return in one line why what is at `address` cannot be used, and what to do."""
    protocol, is_address, _ = address.rpartition("::")[2].partition("://")
    protocol = protocol if is_address else "zip or tar"
    said = without_secrets(" ".join(str(error).split()), address)
    words = textwrap.shorten(printable(said), _MAX_WORDS, placeholder=" …")
    kind = type(error).__name__
    if isinstance(error, ImportError):
        package = install_command(_PACKAGES[protocol]) if protocol in _PACKAGES else words
        return f"{protocol}:// needs a package that is not installed: {package}"
    if isinstance(error, ValueError) and "Protocol not known" in words:
        return f"unknown kind of file system: {words.rpartition(': ')[2]}"
    how = _CREDENTIALS.get(protocol, "see the documentation of its fsspec package")
    if "Credential" in kind or "credentials" in words.lower():
        return f"no valid credentials were found; {how}"
    if isinstance(error, PermissionError):
        return f"permission denied ({words}); other credentials may help: {how}"
    if isinstance(error, TimeoutError) or "Timeout" in kind or "Connect" in kind:
        return f"no connection ({words or kind}); check the network and the address, and run it again"
    return f"{words or kind}" if isinstance(error, OSError) else f"{kind}: {words}"


def _nanoseconds(value: object) -> int:
    """Return a time as nanoseconds since 1970; 0 if it is in words of its own, or no clock shows it."""
    if isinstance(value, dt.datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, int | float):
        nanoseconds = value * 1e9
        return int(nanoseconds) if abs(nanoseconds) < 1 << 62 else 0  # whoever packs a tar file may write infinity
    return 0


# Archives


def _open_archive(source: Path | str, kind: str | None = None, encoding: str | None = None) -> _Archive:
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
    return _Archive(system, state, kind == "zip", tuple(warnings))


def _open_file(source: Path | str) -> tuple[IO[bytes], object]:
    """Return the archive's file, and what tells whether it has changed."""
    if isinstance(source, Path):
        now_ns = time.time_ns()
        opened = source.open("rb")
        key = StatKeys().of(os.fsencode(source.absolute()), os.fstat(opened.fileno()))
        return opened, tuple(key) if key.is_settled(now_ns) else None
    from fsspec.implementations.local import LocalFileSystem

    system, path = _file_system(source)
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
    with system_errors("A temporary file", "made", " Free some space, or name another folder with TMPDIR."):
        copy = tempfile.TemporaryFile(prefix="featx-")  # noqa: SIM115 - it is open as long as the archive is
    try:
        with file:
            plain = fsspec.compression.compr[compression](file, mode="rb") if compression else file
            while block := plain.read(_COPY_BYTES):
                check_reserve(Path(tempfile.gettempdir()), f"A copy of {printable(name)}", _UNPACK_IT)
                copy.write(block)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _members(file: IO[bytes], kind: str | None, encoding: str | None) -> tuple[Any, list[str]]:
    """Return the file system of the members, and what the user should know of them."""
    from fsspec.implementations.tar import TarFileSystem
    from fsspec.implementations.zip import ZipFileSystem

    warnings: list[str] = []

    class Members(TarFileSystem):  # type: ignore[misc]  # fsspec has no types
        """A tar file whose members are named before fsspec lists them: it takes hours to follow thousands of links."""

        def _index(self) -> None:
            warnings.extend(name_tar_members(self.tar, encoding))
            super()._index()

    try:
        if kind == "zip":
            system = ZipFileSystem(fo=file)
            return system, name_zip_members(system.zip, encoding)
        # fsspec goes by a name, this one rather than the file's own, whether there is something to uncompress.
        setattr(file, "original", "plain.tar")  # noqa: B010 - it is no attribute that a file is known to have
        system = Members(fo=file)
    except BaseException:
        file.close()
        raise
    return system, warnings
