"""A file system that fsspec opens, when it is first asked for something: paths, listings and whole files."""

import datetime as dt
import errno
import hashlib
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from featx.errors import FeatxError, printable, redacted
from featx.storage.archives import ARCHIVE_PROTOCOLS, Archive, archive_kind, open_archive
from featx.storage.member_names import plain_path

#: Packages for file systems, by the beginning of an address, as one would type them after `pip install`.
PACKAGES = {
    "s3": "'featx[s3]'",
    "s3a": "'featx[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
    "s3a": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "set HF_TOKEN",
}

_MAX_WORDS = 240  # characters of what a library says
#: Object stores, which put a whole file or nothing under a name. What else there is writes in pieces.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"}

_BLOCK_BYTES = 8 << 20

#: What says something of a file's content, and when it was written, in the words of different file systems.
_TAGS = (
    *(
        "ETag",
        "etag",
        "md5Hash",
        "crc32c",
        "generation",
        "version_id",
        "VersionId",
        "CRC",
        "chksum",
        "blob_id",
        "sha256",
    ),
    *("content_settings", "Content-MD5", "Digest", "lfs", "last_commit"),
)
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified", "date_time")

#: Where only the time tells that a file has changed, one as young as this may change again without it. It tells of that
#: on object stores only, which set it themselves; elsewhere whoever writes a file may set it, as `rsync -t` does.
_RACY_NS = 2_000_000_000


class StorageError(FeatxError, OSError):
    """A file system elsewhere cannot do what was asked for. `strerror` says why and what to do, the message where, too.

    It is an `OSError` to whoever handles those of the disk, and a sentence to the user where nobody does.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{printable(where)}: {reason}.")
        self.strerror = reason
        self.filename = where


@contextmanager
def told(protocol: str, where: str) -> Iterator[None]:
    """Let nothing out of the block but `FileNotFoundError`, with a `strerror`, and `StorageError`.

    Args:
        protocol: the beginning of the address, such as `s3`.
        where: what the file is called in messages.
    """
    try:
        yield
    except StorageError:
        raise
    except FeatxError as error:
        raise StorageError(str(error).removesuffix("."), where) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, _missing(error), where) from error
    except Exception as error:  # of any library
        raise StorageError(_reason(error, protocol), where) from error


def _missing(error: FileNotFoundError) -> str:
    """Return what is missing: libraries say it of a bucket, and else give the path alone."""
    return "the bucket does not exist" if "bucket" in str(error) and "not exist" in str(error) else "no such file"


def _reason(error: Exception, protocol: str) -> str:
    """Return in one line why, and what to do."""
    words = textwrap.shorten(redacted(printable(" ".join(str(error).split()))), _MAX_WORDS, placeholder=" …")
    kind = type(error).__name__
    if isinstance(error, ImportError):
        package = f"pip install {PACKAGES[protocol]}" if protocol in PACKAGES else words
        return f"{protocol}:// needs a package that is not installed: {package}"
    if isinstance(error, ValueError) and "Protocol not known" in words:
        return f"there is no kind of file system called {protocol}"
    how = _CREDENTIALS.get(protocol, "see the documentation of its fsspec package")
    if "Credential" in kind or "credentials" in words.lower():
        return f"no valid credentials were found; {how}"
    if isinstance(error, PermissionError):
        return f"permission denied ({words}); other credentials may help: {how}"
    if isinstance(error, TimeoutError) or "Timeout" in kind or "Connect" in kind:
        return f"no connection ({words or kind}); check the network and the address, and run it again"
    return f"{words or kind}" if isinstance(error, OSError) else f"{kind}: {words}"


class FileState(NamedTuple):
    """What a file must still be for what was read of it to hold.

    Attributes:
        size: bytes.
        modified_ns: when it was written, as far as that is known.
        tag: 64 bits of whatever else the file system says of its content, an ETag above all.
    """

    size: int
    modified_ns: int
    tag: int


class _Opened(NamedTuple):
    system: Any  # an fsspec file system
    root: str  # the path of the root in it
    archive: Archive | None


class FileSystem:
    """The files below one address.

    Attributes:
        address: what fsspec opens, credentials included. Never shown.
        protocol: its beginning, such as `s3`.
        zip_encoding: of names in an archive that do not say theirs; None to find out.
    """

    def __init__(self, address: str, archive_path: Path | None = None, zip_encoding: str | None = None) -> None:
        """Name the files below `address`, or those in the archive on this machine at `archive_path`."""
        self.address = address
        self.zip_encoding = zip_encoding
        self._archive_path = archive_path
        self._open: _Opened | None = None
        self._opening, self._one_at_a_time = threading.Lock(), threading.Lock()
        protocol, _, rest = address.partition("://")
        self.protocol = "zip or tar" if archive_path else protocol
        self._inside, self._archive_address = "", ""
        if archive_path is None and protocol in ARCHIVE_PROTOCOLS:
            self._inside, _, self._archive_address = rest.partition("::")
        elif archive_path is None and archive_kind(address) and "::" not in address:
            self._archive_address = address
        shown = redacted(address.rstrip("/") if "::" not in address else address)
        head, chain, chained = (shown, "", "") if archive_path else shown.partition("::")
        self._shown = (head if head.endswith("://") else f"{head}/", chain + chained)

    def __reduce__(self) -> tuple[type["FileSystem"], tuple[str, Path | None, str | None]]:
        """Say how to make the same one in another process, on another machine too: it is opened there."""
        return FileSystem, (self.address, self._archive_path, self.zip_encoding)

    def with_zip_encoding(self, zip_encoding: str) -> "FileSystem":
        """Return the same, not opened yet, with this encoding."""
        return FileSystem(self.address, self._archive_path, zip_encoding)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the names in an archive, which is opened for that; one sentence each."""
        return self._opened.archive.warnings if self._opened.archive else ()

    @property
    def is_distant(self) -> bool:
        """Whether whoever reads from it waits for a network."""
        return self._archive_path is None

    @property
    def name(self) -> str:
        """What the root is called."""
        return redacted(self._inside or self._archive_address or self.address).rstrip("/")

    def shown(self, tail: str) -> str:
        """Return the address of the file `tail` without credentials."""
        head, chain = self._shown
        return f"{head}{tail}{chain}" if tail else f"{head if head.endswith('://') else head[:-1]}{chain}"

    @property
    def _opened(self) -> _Opened:
        with self._opening:
            if self._open is None:
                self._open = self._opened_now()
            return self._open

    def _opened_now(self) -> _Opened:
        import fsspec

        if self._archive_path is not None:
            archive = open_archive(self._archive_path, encoding=self.zip_encoding)
            return _Opened(archive.system, "", archive)
        if self._archive_address:
            kind = ARCHIVE_PROTOCOLS.get(self.address.partition("://")[0])
            archive = open_archive(self._archive_address, kind, self.zip_encoding)
            return _Opened(archive.system, plain_path(self._inside), archive)
        system, root = fsspec.url_to_fs(self.address, use_listings_cache=False)
        return _Opened(system, str(root).rstrip("/"), None)

    @property
    def _lock(self) -> AbstractContextManager[object]:
        """Keeps threads from reading one tar file at the same time: its file has one position for all."""
        archive = self._opened.archive
        return self._one_at_a_time if archive and not archive.is_for_threads else nullcontext()

    def _key(self, tail: str) -> str:
        """Return the path that fsspec knows the file `tail` by."""
        root = self._opened.root
        return f"{root}/{tail}" if root and tail else root or tail

    def _tail(self, key: str) -> str:
        root = self._opened.root.lstrip("/")
        return key.lstrip("/").removeprefix(root).removeprefix("/")

    def info(self, tail: str) -> dict[str, Any]:
        """Return what is known of a file or folder."""
        with told(self.protocol, self.shown(tail)), self._lock:
            return dict(self._opened.system.info(self._key(tail)))

    def ls(self, tail: str) -> dict[str, dict[str, Any]]:
        """Return what is in a folder: what is known of it by path."""
        with told(self.protocol, self.shown(tail)):
            key = self._key(tail)
            entries = self._opened.system.ls(key, detail=True)
            found = {self._tail(entry["name"]).rstrip("/"): entry for entry in entries}
        return {path: info for path, info in found.items() if path != tail}

    def find(self, tail: str) -> dict[str, dict[str, Any]]:
        """Return what is known of everything below a folder, by path below it; a folder's path ends in a slash.

        A file is below itself, under an empty path.
        """
        with told(self.protocol, self.shown(tail)):
            found = self._opened.system.find(self._key(tail), withdirs=True, detail=True)
            prefix = f"{tail}/" if tail else ""
            below = {self._tail(key).removeprefix(prefix): info for key, info in found.items()}
        return {
            f"{path.rstrip('/')}/" if info["type"] == "directory" else path: info
            for path, info in below.items()
            if path or info["type"] == "file"
        }

    def state(self, info: dict[str, Any]) -> FileState | None:
        """Return what tells whether the file that `info` was said of has changed; None if nothing does."""
        tags = [info[name] for name in _TAGS if info.get(name)]
        times = [info[name] for name in _TIMES if info.get(name)]
        modified_ns = next((_nanoseconds(value) for value in times), 0)
        archive = self._opened.archive
        if archive and archive.state is None:
            return None
        is_timed = self.protocol in _OBJECT_STORES and abs(time.time_ns() - modified_ns) > _RACY_NS and times
        if not archive and not tags and not is_timed:
            return None
        said = hashlib.sha256(repr((archive.state if archive else None, tags, times)).encode()).digest()
        return FileState(int(info.get("size") or 0), modified_ns, int.from_bytes(said[:8], "big", signed=True))

    def read(self, tail: str) -> bytes:
        """Return all of a file."""
        with told(self.protocol, self.shown(tail)), self._lock:
            return bytes(self._opened.system.cat_file(self._key(tail)))

    def read_up_to(self, tail: str, n_bytes: int) -> bytes:
        """Return the first `n_bytes` of a file, or all of a shorter one, in one request."""
        with told(self.protocol, self.shown(tail)), self._lock:
            system, key = self._opened.system, self._key(tail)
            try:
                return bytes(system.cat_file(key, start=0, end=n_bytes))
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:  # an empty file has not even a first byte
                if system.info(key)["size"] == 0:
                    return b""
                raise

    def read_ends(self, tail: str, size: int, n_head: int, n_tail: int) -> tuple[bytes, bytes, int]:
        """Return the first and the last bytes of a file that has `size`, and the size."""
        with told(self.protocol, self.shown(tail)):
            key, start = self._key(tail), max(0, size - n_tail)
            system = self._opened.system
            head, end = system.cat_ranges([key] * 2, [0, start], [min(n_head, size), size], on_error="raise")
        return bytes(head), bytes(end), size

    def read_range(self, tail: str, start: int, n_bytes: int) -> bytes:
        """Return some bytes of a file, fewer where it ends."""
        with told(self.protocol, self.shown(tail)), self._lock:
            return bytes(self._opened.system.cat_file(self._key(tail), start=start, end=start + n_bytes))

    def blocks(self, tail: str) -> Iterator[bytes]:
        """Yield a file's bytes in portions: a small file's, all at once, in one request."""
        start = self.read_up_to(tail, _BLOCK_BYTES)
        if len(start) < _BLOCK_BYTES:
            yield start
            return
        with told(self.protocol, self.shown(tail)), self._lock:
            file = self._opened.system.open(self._key(tail), "rb")
        try:
            while True:
                with told(self.protocol, self.shown(tail)), self._lock:
                    block = bytes(file.read(_BLOCK_BYTES))
                if not block:
                    return
                yield block
        finally:
            file.close()

    def write(self, tail: str, data: bytes) -> None:
        """Write a whole file, which is there in full or not at all.

        Raises:
            StorageError: it cannot be written, or the file system writes in pieces.
        """
        with self._writing(tail):
            self._opened.system.pipe_file(self._key(tail), data)

    def copy(self, tail: str, target: str) -> None:
        """Copy a whole file."""
        with told(self.protocol, self.shown(tail)):
            self._opened.system.cp_file(self._key(tail), self._key(target))

    def remove(self, tail: str) -> None:
        """Remove a file."""
        with told(self.protocol, self.shown(tail)):
            self._opened.system.rm_file(self._key(tail))

    def remove_tree(self, tail: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        with told(self.protocol, self.shown(tail)):
            self._opened.system.rm(self._key(tail), recursive=True)

    @contextmanager
    def _writing(self, tail: str) -> Iterator[None]:
        """Refuse what would write in pieces; a file that is missing while one is written is trouble, a bucket's say."""
        where = self.shown(tail)
        if self.protocol not in _OBJECT_STORES or self._archive_address:
            stores = "object stores only (s3, gs, abfs, …)"
            raise StorageError(f"files are written whole to {stores}; name one of these or a local folder", where)
        try:
            with told(self.protocol, where):
                yield
        except FileNotFoundError as error:
            raise StorageError(str(error.strerror), where) from error


def _nanoseconds(value: object) -> int:
    """Return a time as nanoseconds since 1970, 0 if it is in words of its own."""
    if isinstance(value, dt.datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, int | float):
        return int(value * 1e9)
    return 0
