"""A path elsewhere or in an archive, with the methods of `pathlib.Path` that featx uses."""

import fnmatch
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from featx.storage.file_system import FileSystem, StorageError
from featx.storage.stat_key import StatKey

_BLOCK_BYTES = 8 << 20

#: A server may list folders in folders without end, such as where a link leads back up. More than the largest
#: collections of images have is refused.
MAX_ENTRIES, MAX_FOLDERS, MAX_DEPTH = 5_000_000, 200_000, 64


class _Stat(NamedTuple):
    st_size: int
    st_mtime: float


class RemotePath:
    """The path of a file elsewhere or in an archive: its file system, and the path below the system's root.

    It has the methods of `pathlib.Path` that featx uses. Paths from a listing keep what it said about the file, so that
    it is not asked again; `exists` always asks.

    Attributes:
        system: the file system that it is on.
    """

    __slots__ = ("_info", "_key", "_tail", "system")

    def __init__(
        self, system: FileSystem, tail: str = "", info: dict[str, Any] | None = None, key: StatKey | None = None
    ) -> None:
        """Name the file `tail` of `system`; `info` is what a listing said of it, or only its `key`."""
        self.system = system
        self._tail = tail
        self._info = info
        self._key = key

    def __str__(self) -> str:
        """Return the address without credentials, to be shown."""
        return self.system.shown(self._tail)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __lt__(self, other: "RemotePath") -> bool:
        return self._identity < other._identity

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self.system, self._below(name))

    def _below(self, name: str) -> str:
        return f"{self._tail}/{name}" if self._tail else name

    @property
    def _identity(self) -> tuple[str, str]:
        return self.system.address, self._tail

    # What its name says

    @property
    def name(self) -> str:
        """The last part of the path."""
        return (self._tail or self.system.name).rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder it is in; of the root, itself."""
        return RemotePath(self.system, self._tail.rpartition("/")[0])

    def with_name(self, name: str) -> "RemotePath":
        """Return the path beside this one that ends in `name`."""
        return self.parent / name

    def absolute(self) -> "RemotePath":
        """Return itself."""
        return self

    def resolve(self) -> "RemotePath":
        """Return itself: there are no links."""
        return self

    @property
    def zip_encoding(self) -> str | None:
        """The encoding of names in its archive that do not say theirs, if the user has named one."""
        return self.system.zip_encoding

    def with_zip_encoding(self, zip_encoding: str) -> "RemotePath":
        """Return the same path, in whose archive names that do not say their encoding are in this one."""
        return RemotePath(self.system.with_zip_encoding(zip_encoding), self._tail)

    # What is there

    def _asking(self) -> AbstractContextManager[tuple[Any, str]]:
        return self.system.ask(self._tail)

    def _ask(self) -> dict[str, Any]:
        with self._asking() as (system, key):
            return dict(system.info(key))

    @property
    def info(self) -> dict[str, Any]:
        """What the file system says of the file, at its last listing if it came from one.

        Raises:
            OSError: it is not there, or the file system cannot be asked.
        """
        return self._info if self._info is not None else self._ask()

    def exists(self) -> bool:
        """Return whether it is there now."""
        try:
            self._ask()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether it is a folder; on an object store, one with something in it."""
        return self._has_type("directory")

    def is_file(self) -> bool:
        """Return whether it is there and is not a folder."""
        return self._has_type("file")

    def _has_type(self, kind: str) -> bool:
        try:
            return bool(self.info["type"] == kind)
        except FileNotFoundError:
            return False

    def is_symlink(self) -> bool:
        """Return False: a file system elsewhere shows no links."""
        return False

    def stat(self) -> _Stat:
        """Return size and time of the last change in seconds, 0 where it is not known."""
        key = self.stat_key()
        return _Stat(int(self.info.get("size") or 0), key.mtime_ns / 1e9 if key else 0.0)

    def stat_key(self) -> StatKey | None:
        """Return what tells whether the file has changed; None if the file system says nothing of the kind."""
        return self._key or self.system.stat_key(self.info)

    @property
    def listed_key(self) -> StatKey | None:
        """The `stat_key` that is known from a listing, without asking."""
        return self._key

    def with_key(self, path: str, key: StatKey | None) -> "RemotePath":
        """Return the file `path` below this folder, which had this key when it was listed."""
        return RemotePath(self.system, self._below(path), key=key)

    def iterdir(self) -> Iterator["RemotePath"]:
        """Yield what is in the folder."""
        with self._asking() as (system, key):
            found = {self.system.tail(info["name"]).rstrip("/"): info for info in system.ls(key, detail=True)}
        for tail, info in found.items():
            if tail != self._tail:
                yield RemotePath(self.system, tail, info)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what is in the folder and fits `pattern`, which has no slash; nothing if there is no such folder."""
        try:
            yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
        except FileNotFoundError:
            return

    def find(self) -> Iterator[tuple[str, bool, StatKey | None]]:
        """Yield all files and folders below the folder, from one listing.

        Each is its path from here, whether it is a folder, and the `stat_key` of a file. A file is below itself, under
        an empty path. Devices, and links in an archive, are left out.

        Raises:
            OSError: the file system cannot be asked.
        """
        with self._asking() as (system, key):
            if self.system.lists_all_at_once:
                # Of a single file, some file systems say nothing but its name.
                listed = system.find(key, withdirs=True, detail=True).items()
                found = [(path, info or system.info(path)) for path, info in listed]
            else:
                found = [(info["name"], info) for info in self._folder_by_folder(system, key)]
        for fsspec_path, info in found:
            path = self.system.tail(fsspec_path).removeprefix(f"{self._tail}/" if self._tail else "")
            if info["type"] == "directory" and path:
                yield path.rstrip("/"), True, None
            elif info["type"] == "file":
                yield path, False, self.system.stat_key(info)

    def _folder_by_folder(self, system: Any, key: str) -> Iterator[dict[str, Any]]:
        """Yield what the fsspec file system says of all that is below a folder, or of itself if it is a file.

        fsspec's own `find` leaves out folders that cannot be listed, and follows any tree to its end.
        """
        root = key.rstrip("/")
        known, pending = {root}, [root]
        while pending:
            folder = pending.pop()
            for info in _listed(system, folder):
                name = info["name"].rstrip("/")
                if name in known:
                    continue
                known.add(name)
                if info["type"] == "directory":
                    pending.append(name)
                depth = name.removeprefix(root).count("/")
                if depth > MAX_DEPTH or len(known) > MAX_ENTRIES or len(pending) > MAX_FOLDERS:
                    raise StorageError(
                        f"there are more than {MAX_ENTRIES:,} files, {MAX_FOLDERS:,} folders or {MAX_DEPTH} folders in "
                        f"one another; name a folder that has only the images",
                        str(self),
                    )
                yield info
        if len(known) == 1:
            yield {**system.info(key), "name": key}

    # What is in it

    def read_bytes(self) -> bytes:
        """Return all of the file."""
        with self._asking() as (system, key):
            return bytes(system.cat_file(key))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the file's text."""
        return self.read_bytes().decode(encoding)

    def read_up_to(self, n_bytes: int) -> bytes:
        """Return the first `n_bytes` of the file, or all of a shorter one: one request, so the fastest way."""
        with self._asking() as (system, key):
            try:
                return bytes(system.cat_file(key, start=0, end=n_bytes))
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:  # an empty file has not even a first byte
                if system.info(key)["size"] == 0:
                    return b""
                raise

    def read_range(self, start: int, n_bytes: int) -> bytes:
        """Return `n_bytes` of the file from `start` on, or fewer where it ends."""
        with self._asking() as (system, key):
            return bytes(system.cat_file(key, start=start, end=start + n_bytes))

    def read_ends(self, n_head: int, n_tail: int) -> tuple[bytes, bytes, int]:
        """Return the first `n_head` bytes of the file, its last `n_tail`, and its size; both at the same time."""
        size = int(self.info["size"])
        with self._asking() as (system, key):
            starts, stops = [0, max(0, size - n_tail)], [min(n_head, size), size]
            head, tail = system.cat_ranges([key] * 2, starts, stops, on_error="raise")
        return bytes(head), bytes(tail), size

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes in pieces of some megabytes: a small file's all at once, in one request."""
        if self.system.is_web:  # in one request too: without blocks, or a size, fsspec does not ask for the size first
            options = {"block_size": 0, "size": 1}
        else:
            options = {}
            start = self.read_up_to(_BLOCK_BYTES)
            if len(start) < _BLOCK_BYTES:
                yield start
                return
        with self._asking() as (system, key):
            file = system.open(key, "rb", **options)
        try:
            while True:
                with self._asking():
                    block = bytes(file.read(_BLOCK_BYTES))
                if not block:
                    return
                yield block
        finally:
            file.close()

    def write_bytes(self, data: bytes | memoryview) -> int:
        """Write the whole file, as a whole or not at all; return the number of bytes.

        Raises:
            StorageError: it cannot be written, or the file system writes in pieces.
        """
        if not self.system.writes_whole_files:
            reason = "featx writes only to object stores (s3, gs, abfs, …) and local folders; choose one of these"
            raise StorageError(reason, str(self))
        try:
            with self._asking() as (system, key):
                system.pipe_file(key, bytes(data))
        except FileNotFoundError as error:  # the bucket, say: no file is missing that is about to be written
            raise StorageError(str(error.strerror), str(self)) from error
        return len(data)

    def touch(self) -> None:
        """Make an empty file."""
        self.write_bytes(b"")

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: on an object store, folders are there as soon as something is in them."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            with self._asking() as (system, key):
                system.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: "RemotePath") -> "RemotePath":
        """Copy the file to `target` and remove it: an object store can do no more."""
        with target._asking() as (_, target_key):  # noqa: SLF001 - of the same class
            pass
        with self._asking() as (system, key):
            system.cp_file(key, target_key)
        self.unlink(missing_ok=True)
        return target

    def remove_tree(self) -> None:
        """Remove the file, or the folder with all that is in it."""
        with self._asking() as (system, key):
            system.rm(key, recursive=True)


def _listed(system: Any, folder: str) -> list[dict[str, Any]]:
    """Return what a file system lists in a folder; nothing if it is a file."""
    try:
        return list(system.ls(folder, detail=True))
    except NotADirectoryError:
        return []


def is_distant(path: object) -> bool:
    """Return whether who reads `path` waits for a network: not on this machine, nor in an archive on it."""
    return isinstance(path, RemotePath) and path.system.is_distant
