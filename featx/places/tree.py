"""All folders and files below a place elsewhere, from one listing: what `os.scandir` says of a folder on the disk."""

from typing import NamedTuple

from featx.places.file_system import FileState
from featx.places.remote_path import RemotePath


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
