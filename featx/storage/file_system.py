"""A file system that fsspec opens when it is first asked for something, and what goes wrong with it, in words."""

import datetime as dt
import errno
import hashlib
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, printable, redacted
from featx.storage.archives import ARCHIVE_PROTOCOLS, Archive, archive_kind, open_archive
from featx.storage.member_names import plain_path
from featx.storage.stat_key import RACY_NS, StatKey

#: Packages for file systems, by the beginning of an address, as one would type them after `pip install`.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "'featx[s3]'"),
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

#: Object stores put a whole file under a name, or nothing. Other file systems write in pieces.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"}

#: What says something of a file's content, and when it was written, in the words of different file systems.
_TAGS = (
    *("ETag", "etag", "md5Hash", "crc32c", "generation", "version_id", "VersionId", "CRC", "chksum", "blob_id"),
    *("sha256", "content_settings", "Content-MD5", "Digest", "lfs", "last_commit"),
)
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified", "date_time")


class StorageError(FeatxError, OSError):
    """A file system elsewhere cannot do what was asked for. `strerror` says why and what to do, the message also where.

    Code that handles the `OSError`s of a disk handles this one too. Where nobody does, the user reads the message.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{printable(where)}: {reason}.")
        self.strerror = reason
        self.filename = where


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
        self._open: tuple[Any, str, Archive | None] | None = None
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
        """What the user should know of the names in an archive, one sentence each. Opens the archive."""
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
    def name(self) -> str:
        """What the root is called."""
        return redacted(self._inside or self._archive_address or self.address).rstrip("/")

    def shown(self, tail: str) -> str:
        """Return the address of the file `tail` without credentials."""
        head, chain = self._shown
        return f"{head}{tail}{chain}" if tail else f"{head if head.endswith('://') else head[:-1]}{chain}"

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
            raise StorageError(str(error).removesuffix("."), self.shown(tail)) from error
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, _missing(error), self.shown(tail)) from error
        except Exception as error:  # of any library
            raise StorageError(_reason(error, self.protocol), self.shown(tail)) from error

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

    def _opened(self) -> tuple[Any, str, Archive | None]:
        """Return the fsspec file system, the path of the root in it, and the archive if it is one."""
        with self._opening:
            if self._open is None:
                self._open = self._opened_now()
            return self._open

    def _opened_now(self) -> tuple[Any, str, Archive | None]:
        import fsspec

        if self._archive_path is not None:
            archive = open_archive(self._archive_path, encoding=self.zip_encoding)
            return archive.system, "", archive
        if self._archive_address:
            kind = ARCHIVE_PROTOCOLS.get(self.address.partition("://")[0])
            archive = open_archive(self._archive_address, kind, self.zip_encoding)
            return archive.system, plain_path(self._inside), archive
        system, root = fsspec.url_to_fs(self.address, use_listings_cache=False)
        return system, str(root).rstrip("/"), None


def _missing(error: FileNotFoundError) -> str:
    """Return what is missing: libraries name a bucket as such, and else give the path alone."""
    return "the bucket does not exist" if "bucket" in str(error) and "not exist" in str(error) else "no such file"


def _reason(error: Exception, protocol: str) -> str:
    """Return in one line why, and what to do."""
    words = textwrap.shorten(redacted(printable(" ".join(str(error).split()))), _MAX_WORDS, placeholder=" …")
    kind = type(error).__name__
    if isinstance(error, ImportError):
        package = f"pip install {_PACKAGES[protocol]}" if protocol in _PACKAGES else words
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


def _nanoseconds(value: object) -> int:
    """Return a time as nanoseconds since 1970, 0 if it is in words of its own."""
    if isinstance(value, dt.datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, int | float):
        return int(value * 1e9)
    return 0
