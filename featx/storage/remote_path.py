"""All folders and files below a place elsewhere, from one listing: what `os.scandir` says of a folder on the disk."""

import fnmatch
from collections.abc import Iterator
from typing import Any, NamedTuple

from featx.storage.file_system import FileState, FileSystem


class _Stat(NamedTuple):
    st_size: int
    st_mtime: float


class RemotePath:
    """Where something is, by the file system and the path below the system's root.

    What a listing said of a file is kept in the paths that the listing gave, and not asked for again; `exists` always
    asks.
    """

    __slots__ = ("_info", "_state", "_system", "_tail")

    def __init__(
        self,
        system: FileSystem,
        tail: str = "",
        info: dict[str, Any] | None = None,
        state: FileState | None = None,
    ) -> None:
        """Name the file `tail` of `system`; `info` is what a listing said of it, or only its `state`."""
        self._system = system
        self._tail = tail
        self._info = info
        self._state = state

    def __str__(self) -> str:
        """Return the address, fit to be shown: without credentials."""
        return self._system.shown(self._tail)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __lt__(self, other: "RemotePath") -> bool:
        return self._identity < other._identity

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self._system, self._below(name))

    def _below(self, name: str) -> str:
        return f"{self._tail}/{name}" if self._tail else name

    @property
    def _identity(self) -> tuple[str, str]:
        return self._system.address, self._tail

    @property
    def name(self) -> str:
        """The last part of the path."""
        return (self._tail or self._system.name).rpartition("/")[2]

    @property
    def is_distant(self) -> bool:
        """Whether whoever reads it waits for a network: not in an archive on this machine."""
        return self._system.is_distant

    @property
    def zip_encoding(self) -> str | None:
        """The encoding of names in its archive that do not say theirs, if the user has named one."""
        return self._system.zip_encoding

    def with_zip_encoding(self, zip_encoding: str) -> "RemotePath":
        """Return the same place, in whose archive names that do not say their encoding are in this one."""
        return RemotePath(self._system.with_zip_encoding(zip_encoding), self._tail)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the names in its archive, one sentence each."""
        return self._system.warnings

    @property
    def parent(self) -> "RemotePath":
        """The folder it is in; of the root, itself."""
        return RemotePath(self._system, self._tail.rpartition("/")[0])

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
    def info(self) -> dict[str, Any]:
        """What the file system says of the file, at its last listing if it came from one.

        Raises:
            OSError: it is not there, or the file system cannot be asked.
        """
        return self._info if self._info is not None else self._system.info(self._tail)

    def exists(self) -> bool:
        """Return whether it is there now."""
        try:
            self._system.info(self._tail)
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        """Return whether it is there, and no folder."""
        return self._has_type("file")

    def is_dir(self) -> bool:
        """Return whether it is a folder; on an object store, one with something in it."""
        return self._has_type("directory")

    def is_symlink(self) -> bool:
        """Return False: links are nothing that a file system elsewhere shows."""
        return False

    def _has_type(self, kind: str) -> bool:
        try:
            return bool(self.info["type"] == kind)
        except FileNotFoundError:
            return False

    def stat(self) -> _Stat:
        """Return size and time of the last change in seconds, 0 where it is not known."""
        state = self.state()
        return _Stat(int(self.info.get("size") or 0), state.modified_ns / 1e9 if state else 0.0)

    def state(self) -> FileState | None:
        """Return what tells whether the file has changed; None if the file system says nothing of the kind."""
        return self._state or self.state_of(self.info)

    @property
    def listed_state(self) -> FileState | None:
        """What the listing that the path comes from told of the file's state, without asking."""
        return self._state

    def with_state(self, path: str, state: FileState | None) -> "RemotePath":
        """Return the file `path` below this folder, which had this state when it was listed."""
        return RemotePath(self._system, self._below(path), state=state)

    def state_of(self, info: dict[str, Any]) -> FileState | None:
        """Return the state of the file on the same file system that `info` was said of."""
        return self._system.state(info)

    def iterdir(self) -> Iterator["RemotePath"]:
        """Yield what is in the folder."""
        for tail, info in self._system.ls(self._tail).items():
            yield RemotePath(self._system, tail, info)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what is in the folder and fits `pattern`, which has no slash; nothing if there is no such folder."""
        try:
            yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
        except FileNotFoundError:
            return

    def find(self) -> dict[str, dict[str, Any]]:
        """Return what the file system says of everything below the folder, by path below it; one listing for all.

        Raises:
            OSError: the file system cannot be asked.
        """
        return self._system.find(self._tail)

    def read_bytes(self) -> bytes:
        """Return all of the file."""
        return self._system.read(self._tail)

    def read_up_to(self, n_bytes: int) -> bytes:
        """Return the first `n_bytes` of the file, or all of a shorter one; the fastest way to read a small file."""
        return self._system.read_up_to(self._tail, n_bytes)

    def read_ends(self, n_head: int, n_tail: int) -> tuple[bytes, bytes, int]:
        """Return the first `n_head` bytes of the file, its last `n_tail`, and its size; both at the same time."""
        return self._system.read_ends(self._tail, int(self.info["size"]), n_head, n_tail)

    def read_range(self, start: int, n_bytes: int) -> bytes:
        """Return `n_bytes` of the file from `start` on, or fewer where it ends."""
        return self._system.read_range(self._tail, start, n_bytes)

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes in portions of some megabytes."""
        return self._system.blocks(self._tail)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the file's text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes | memoryview) -> int:
        """Write the whole file, which is there in full or not at all; return the number of bytes."""
        self._system.write(self._tail, bytes(data))
        return len(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        """Write the whole file as text."""
        return self.write_bytes(text.encode(encoding))

    def touch(self) -> None:
        """Make an empty file."""
        self.write_bytes(b"")

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: on an object store, folders are there as soon as something is in them."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self._system.remove(self._tail)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: "RemotePath") -> "RemotePath":
        """Copy the file to `target` and remove it, which is all that an object store can do."""
        self._system.copy(self._tail, target._tail)  # noqa: SLF001 - of the same class
        self.unlink(missing_ok=True)
        return target

    def remove_tree(self) -> None:
        """Remove the file, or the folder with all that is in it."""
        self._system.remove_tree(self._tail)


class Entry(NamedTuple):
    """One thing in a folder, with as much of `os.DirEntry` as is wanted.

    Attributes:
        name: what it is called in the folder.
        path: the whole of its path, as text.
    """

    name: str
    path: str
    is_folder: bool

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.is_folder


class RemoteTree:
    """What a listing of everything below a place has shown.

    Attributes:
        root: the place.
        is_file: whether it is a file itself.
        states: what tells whether a file has changed, by path below the root; None if nothing does.
    """

    def __init__(self, root: RemotePath) -> None:
        """List what is below `root`.

        Raises:
            OSError: the file system cannot be asked.
        """
        self.root = root
        self.states: dict[str, FileState | None] = {}
        self._folders: dict[str, dict[tuple[str, bool], Entry]] = {}
        self.is_file = False
        for path, info in root.find().items():
            if not path:
                self.is_file = True
            elif path.endswith("/"):
                self._add_folder(path[:-1])
            elif info["type"] == "file":  # no device, and no link that an archive holds
                self.states[path] = root.state_of(info)
                self._add(path, is_folder=False)

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self._folders)

    def entries(self, folder: str) -> list[Entry]:
        """Return what is in a folder, named by its whole path; nothing if there is no such folder."""
        return list(self._folders.get(self._below(folder), {}).values())

    def has_file(self, folder: str, name: str) -> bool:
        """Return whether there is a file of this name in a folder, named by its whole path."""
        return (name, False) in self._folders.get(self._below(folder), {})

    def _below(self, path: str) -> str:
        return path.removeprefix(str(self.root)).removeprefix("/")

    def _add_folder(self, path: str) -> None:
        if path not in self._folders:
            self._folders[path] = {}
            if path:
                self._add(path, is_folder=True)

    def _add(self, path: str, *, is_folder: bool) -> None:
        above, _, name = path.rpartition("/")
        self._add_folder(above)
        self._folders[above][name, is_folder] = Entry(name, f"{self.root}/{path}", is_folder)
