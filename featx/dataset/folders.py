"""What lies in the folders of a data set, on this machine or elsewhere. Each folder is listed once."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from featx.errors import printable
from featx.images import IMAGE_SUFFIXES
from featx.storage import OUTPUT_MARK, Entry, RemoteTree

#: What a folder's entry is: the system's own, or one of the listing of a place elsewhere.
_Entry: TypeAlias = "os.DirEntry[str] | Entry"

_MAX_KINDS = 6  # of files that are no images

#: What images in formats that featx does not read are called, by suffix.
_OTHER_FORMATS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef"), "camera raw"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "Netpbm"),
    **dict.fromkeys((".pdf", ".eps"), "PDF and EPS"),
    **{suffix: suffix[1:].upper() for suffix in (".avif", ".svg", ".psd", ".exr", ".tga", ".ico", ".jxl", ".dcm")},
}


class Contents(NamedTuple):
    """What is in one folder, sorted. Hidden entries, `__MACOSX` and what featx itself has written are passed over.

    Attributes:
        subfolders: path by name.
        images: names of files with an image's suffix, whatever they are.
        others: names of files without one.
        reason: why the folder could not be listed; empty if it could.
    """

    subfolders: dict[str, str]
    images: tuple[str, ...]
    others: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class FolderListing:
    """The files below one folder, at any depth: paths that begin with the folder's own, sorted.

    Attributes:
        images: files with an image's suffix, whatever they are.
        others: files without one.
        unreadable: (folder, reason) for folders that could not be listed.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


class Folders(ABC):
    """Folders by their paths as text."""

    def __init__(self) -> None:
        self._known: dict[str, Contents] = {}
        self._holders: dict[str, tuple[str, ...]] = {}
        self._above_known: dict[str, frozenset[Hashable]] = {}

    def contents(self, folder: str) -> Contents:
        """Return what is in a folder; what it was, if it has been asked for before."""
        if folder not in self._known:
            self._known[folder] = self._list(folder)
        return self._known[folder]

    def walk(self, folder: str) -> Iterator[tuple[str, Contents]]:
        """Yield `folder` and each folder below it once. Links are followed, except where they lead back up."""
        # A link to a folder above would otherwise bring every other class into this one.
        visited = set(self._above(folder))
        to_visit = [folder]
        while to_visit:
            current = to_visit.pop()
            try:
                if (identity := self._identity(current)) in visited:
                    continue
            except OSError as error:
                yield current, Contents({}, (), (), error.strerror or str(error))
                continue
            visited.add(identity)
            contents = self.contents(current)
            yield current, contents
            to_visit += contents.subfolders.values()

    def holders(self, folder: str) -> tuple[str, ...]:
        """Return which of `folder` and the folders below it hold images themselves."""
        if folder not in self._holders:
            self._holders[folder] = tuple(path for path, contents in self.walk(folder) if contents.images)
        return self._holders[folder]

    def filled(self, folder: str) -> dict[str, str]:
        """Return those of the folders in `folder` that have images, at any depth: path by name."""
        return {name: path for name, path in self.contents(folder).subfolders.items() if self.holders(path)}

    def is_spread(self, folder: str) -> bool:
        """Return whether all images below `folder` lie in several folders in it."""
        holders = self.holders(folder)
        return folder not in holders and len(holders) > 1

    def file_names(self, folder: str) -> list[str]:
        """Return the names of all images in `folder` and below it, sorted."""
        return sorted(name for path in self.holders(folder) for name in self.contents(path).images)

    def n_images(self, folder: str) -> int:
        """Return how many images there are in `folder` and below it."""
        return sum(len(self.contents(path).images) for path in self.holders(folder))

    def _list(self, folder: str) -> Contents:
        subfolders: dict[str, str] = {}
        images: list[str] = []
        others: list[str] = []
        try:
            entries = self._entries(folder)
        except OSError as error:
            return Contents({}, (), (), error.strerror or str(error))
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if _is_folder(entry):
                if not self._has_mark(entry.path):
                    subfolders[entry.name] = entry.path
            else:
                (images if _has_image_suffix(entry.name) else others).append(entry.name)
        return Contents(subfolders, tuple(images), tuple(others))

    @abstractmethod
    def _entries(self, folder: str) -> Sequence[_Entry]:
        """Return what is in a folder.

        Raises:
            OSError: it cannot be listed.
        """

    @abstractmethod
    def _has_mark(self, folder: str) -> bool:
        """Return whether featx has made the folder."""

    @abstractmethod
    def _identity(self, folder: str) -> Hashable:
        """Return what a folder is, by whatever path.

        Raises:
            OSError: it cannot be looked at.
        """

    @abstractmethod
    def _above(self, folder: str) -> frozenset[Hashable]:
        """Return what the folders are that a folder is in, by its own path and by where links lead."""


class Disk(Folders):
    """Folders on this machine, each looked at when it is asked for."""

    def _entries(self, folder: str) -> Sequence[_Entry]:
        with os.scandir(folder) as entries:
            return list(entries)

    def _has_mark(self, folder: str) -> bool:
        return os.path.exists(f"{folder}/{OUTPUT_MARK}")  # noqa: PTH110 - a Path would raise where it may not look

    def _identity(self, folder: str) -> Hashable:
        status = os.stat(folder)  # noqa: PTH116
        return status.st_dev, status.st_ino

    def _above(self, folder: str) -> frozenset[Hashable]:
        if folder not in self._above_known:
            path = Path(folder)
            if path.is_symlink() or path.parent == path:
                all_above = [above for start in (path, path.resolve()) for above in start.parents]
                self._above_known[folder] = frozenset(self._identity(str(above)) for above in all_above)
            else:
                above = str(path.parent)
                self._above_known[folder] = self._above(above) | {self._identity(above)}
        return self._above_known[folder]


class Elsewhere(Folders):
    """Folders of a place elsewhere, from the one listing that was made of it. There are no links."""

    def __init__(self, tree: RemoteTree) -> None:
        """Show the folders of `tree`."""
        super().__init__()
        self._tree = tree

    def _entries(self, folder: str) -> Sequence[_Entry]:
        return self._tree.entries(folder)

    def _has_mark(self, folder: str) -> bool:
        return self._tree.has_file(folder, OUTPUT_MARK)

    def _identity(self, folder: str) -> Hashable:
        return folder

    def _above(self, folder: str) -> frozenset[Hashable]:  # noqa: ARG002 - as of a disk
        return frozenset()


def list_folder(folder: str, folders: Folders | None = None) -> FolderListing:
    """Return the files in `folder` and its sub-folders, one of `folders` or, without them, one on this machine.

    Links are followed, except where they lead back up. A folder named `x.jpg` is a folder.
    """
    images: list[str] = []
    others: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for path, contents in (folders or Disk()).walk(folder):
        images += [f"{path}/{name}" for name in contents.images]
        others += [f"{path}/{name}" for name in contents.others]
        if contents.reason:
            unreadable.append((path, contents.reason))
    return FolderListing(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(unreadable)))


def _is_folder(entry: _Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: reading it will say so


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path per file is too slow


def by_suffix(paths: Sequence[str]) -> str:
    """Return how many files there are of each suffix, with an example, and what to do about images among them.

    >>> by_suffix(["cats/1.HEIC", "cats/2.heic", "cats/Thumbs.db", "cats/notes"])
    '2 .heic, 1 .db, 1 without suffix, such as cats/1.HEIC; save HEIC images as JPEG or PNG'
    """
    counts = Counter(os.path.splitext(path)[1].lower() for path in paths)  # noqa: PTH122 - a Path per file is too slow
    kinds = [f"{count:,} {printable(suffix) if suffix else 'without suffix'}" for suffix, count in counts.most_common()]
    formats = dict.fromkeys(_OTHER_FORMATS[suffix] for suffix, _ in counts.most_common() if suffix in _OTHER_FORMATS)
    more = [f"{len(kinds) - _MAX_KINDS:,} other kinds"] if len(kinds) > _MAX_KINDS else []
    advice = f"; save {' and '.join(formats)} images as JPEG or PNG" if formats else ""
    return f"{', '.join([*kinds[:_MAX_KINDS], *more])}, such as {printable(paths[0])}{advice}"
