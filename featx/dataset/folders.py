"""The content of the folders of a data set, on this machine or remote. featx lists each folder once."""

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from featx.dataset.path_table import PathTable
from featx.errors import DatasetError, FeatxError
from featx.images import IMAGE_SUFFIXES
from featx.storage import OUTPUT_MARK, RemotePath, StatKey, StoragePath, nearest_folder
from featx.system import OnDemand
from featx.text import printable

log = logging.getLogger("featx")

#: How a data set's folder should look, for errors.
EXPECTED = "Lay the images out as train/CLASS/* with test/CLASS/*, or just CLASS/*."

#: One thing in a folder: its name there, and whether it is a folder.
_Entry: TypeAlias = tuple[str, bool]

#: The digests of image files in a cache.
DATABASE_NAME = "digests.sqlite"

#: Of these files, one is in each folder that featx has made, but for a folder of such folders.
_TELLING = ("recipe.json", "metrics.json", "results.json", DATABASE_NAME)

#: What tells a report and a run; the former has pictures, as has the folder of a picture of views.
_WITH_PICTURES = ({"results.json", "index.html"}, {"results.json", "results.md"}, {"views.png"})
_KINDS = (*_WITH_PICTURES[:2], {"metrics.json", "class_names.json", "recipe.json"})

#: Folders of images that featx keeps in a cache, by name: the built-in sample, and the demo's photographs.
SAMPLE_NAME, DEMO_NAME = DATA_NAMES = ("sample-digits", "cats-and-dogs")

#: Folders in a cache that hold no features, by name.
_CACHE_FOLDERS = {"networks", *DATA_NAMES}

_MAX_KINDS = 6  # of files that are no images

#: What images in formats that featx does not read are called, by suffix.
_OTHER_FORMATS = {
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef"), "camera raw"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "Netpbm"),
    **dict.fromkeys((".pdf", ".eps"), "PDF and EPS"),
    **{suffix: suffix[1:].upper() for suffix in (".svg", ".psd", ".exr", ".tga", ".ico", ".jxl", ".dcm")},
}


class Contents(NamedTuple):
    """What is in one folder, sorted. Hidden entries, `__MACOSX` and what featx itself has written are passed over.

    Attributes:
        subfolders: path by name.
        images: names of files with an image's suffix, whatever they are.
        others: names of files without one.
        reason: why the folder could not be listed; empty if it could.
        outputs: paths of folders that featx has made.
    """

    subfolders: dict[str, str]
    images: PathTable
    others: tuple[str, ...]
    reason: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderListing:
    """The files below one folder, at any depth: paths that begin with the folder's own, sorted.

    Attributes:
        images: files with an image's suffix, whatever they are.
        others: files without one.
        unreadable: (folder, reason) for folders that could not be listed.
    """

    images: PathTable
    others: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


class Folders:
    """Folders on this machine by their paths as text, with slashes, each looked at when it is asked for.

    Attributes:
        warnings: what the user should know of the names in them, one sentence each.
    """

    warnings: tuple[str, ...] = ()

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
                yield current, Contents({}, PathTable(), (), error.strerror or str(error))
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

    def outputs(self) -> list[str]:
        """Return the folders that featx has made, of those that it has come across, sorted."""
        return sorted(path for contents in self._known.values() for path in contents.outputs)

    def has_only_outputs(self, folder: str) -> bool:
        """Return whether there is nothing below `folder` but folders that featx has made."""
        below = [contents for _, contents in self.walk(folder)]
        is_empty = not any(contents.images or contents.others or contents.reason for contents in below)
        return is_empty and any(contents.outputs for contents in below)

    def has_own_images(self, folder: str) -> bool:
        """Return whether there are images in a folder of featx's that featx has not written: its own are PNG files."""
        return any(
            not is_folder and _suffix(name) in IMAGE_SUFFIXES - {".png"} for name, is_folder in self._entries(folder)
        )

    def files(self, paths: Sequence[str]) -> Sequence[str] | Sequence[RemotePath]:
        """Return the files with these paths below the data set's folder, as `digest_files` takes them."""
        return paths

    def _list(self, folder: str) -> Contents:
        names: dict[bool, list[str]] = {False: [], True: []}
        try:
            for name, is_folder in self._entries(folder):
                if not (name.startswith(".") or name == "__MACOSX"):
                    names[is_folder].append(name)
        except OSError as error:
            return Contents({}, PathTable(), (), error.strerror or str(error))
        files, paths = sorted(names[False]), {name: self._path(folder, name) for name in sorted(names[True])}
        outputs = tuple(path for path in paths.values() if self._is_output(path))
        return Contents(
            {name: path for name, path in paths.items() if path not in outputs},
            PathTable(name for name in files if _suffix(name) in IMAGE_SUFFIXES),
            tuple(name for name in files if _suffix(name) not in IMAGE_SUFFIXES),
            outputs=outputs,
        )

    def _is_output(self, folder: str) -> bool:
        """Return whether featx has made a folder: by the mark that it wrote, or else by what is in it.

        Earlier versions wrote no mark, or an empty one, and that also into folders of others. There, a folder is
        featx's if nothing in it can be anybody else's.
        """
        if mark := self._size(f"{folder}/{OUTPUT_MARK}"):
            return True
        if mark is None and not any(self._size(f"{folder}/{name}") is not None for name in _TELLING):
            return False
        try:
            entries = [entry for entry in self._entries(folder) if not entry[0].startswith(".")]
        except OSError:
            return False
        files = {name for name, is_folder in entries if not is_folder}
        subfolders = {name: self._path(folder, name) for name, is_folder in entries if is_folder}
        images = {name for name in files if _suffix(name) in IMAGE_SUFFIXES}
        if images or any(kind <= files for kind in _KINDS):
            kinds = _WITH_PICTURES if images else _KINDS
            return all(name.endswith(".png") for name in images) and any(kind <= files for kind in kinds)
        is_store = "recipe.json" in files and any(map(_is_segment, files))
        is_above = mark is not None or DATABASE_NAME in files
        return is_store or (is_above and not any(self._has_others(*one) for one in subfolders.items()))

    def _has_others(self, name: str, folder: str) -> bool:
        """Return whether there are images in a folder of a cache, or of reports or runs, that are not featx's."""
        return name not in _CACHE_FOLDERS and not self._is_output(folder) and bool(self.holders(folder))

    def _entries(self, folder: str) -> Iterable[_Entry]:
        """Yield what is in a folder.

        Raises:
            OSError: it cannot be listed.
        """
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name, _is_folder(entry)

    def _path(self, folder: str, name: str) -> str:
        return f"{folder.rstrip('/')}/{name}"

    def _size(self, path: str) -> int | None:
        """Return the bytes of a file; None if there is none."""
        try:
            return os.stat(path).st_size  # noqa: PTH116 - it is asked for each folder
        except (OSError, ValueError):
            return None

    def _identity(self, folder: str) -> Hashable:
        """Return what a folder is, by whatever path.

        Raises:
            OSError: it cannot be looked at.
        """
        status = os.stat(folder)  # noqa: PTH116
        return status.st_dev, status.st_ino

    def _above(self, folder: str) -> frozenset[Hashable]:
        """Return what the folders are that a folder is in, by its own path and by where links lead."""
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
    """Folders elsewhere or in an archive, from one listing of all that is below `root`. There are no links.

    Attributes:
        is_empty: whether there is nothing below `root`, which may be a file.
        is_file: whether `root` is a file.
        keys: what tells whether a file has changed, by its path below `root`; None if nothing does.
    """

    def __init__(self, root: RemotePath) -> None:
        """List what is below `root`.

        Raises:
            OSError: the file system cannot be asked.
        """
        super().__init__()
        self.is_file = False
        self.keys: dict[str, StatKey | None] = {}
        self._root = root
        self._in: dict[str, set[_Entry]] = {}  # by path below the root
        for path, is_folder, key in root.find():
            if is_folder:
                self._add_folder(path)
            elif path:
                self.keys[path] = key
                self._add(path, is_folder=False)
            else:
                self.is_file = True
        self.is_empty = not self._in
        self.warnings = root.system.warnings

    def files(self, paths: Sequence[str]) -> Sequence[str] | Sequence[RemotePath]:
        """Return the files with these paths below the root, with their keys: none of them is asked about again."""
        return OnDemand(paths, lambda path: self._root.with_key(path, self.keys[path]))

    def _add_folder(self, path: str) -> None:
        if path not in self._in:
            self._in[path] = set()
            if path:
                self._add(path, is_folder=True)

    def _add(self, path: str, *, is_folder: bool) -> None:
        above, _, name = path.rpartition("/")
        self._add_folder(above)
        self._in[above].add((name, is_folder))

    def _entries(self, folder: str) -> Iterable[_Entry]:
        return self._in.get(folder.removeprefix(str(self._root)).removeprefix("/"), ())

    def _path(self, folder: str, name: str) -> str:
        return f"{folder}/{name}"

    def _size(self, path: str) -> int | None:
        below = path.removeprefix(str(self._root)).removeprefix("/")
        if below not in self.keys:
            return None
        key = self.keys[below]
        return 0 if key is None else key.size

    def _identity(self, folder: str) -> Hashable:
        return folder

    def _above(self, folder: str) -> frozenset[Hashable]:  # noqa: ARG002 - as on this machine
        return frozenset()


def check_cache_dir(folder: Path) -> None:
    """Raise DatasetError if images of somebody else's lie in `folder`, which is to be a cache."""
    with suppress(OSError), os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size if entry.name == OUTPUT_MARK else 0 for entry in entries}
        image = min((name for name in sizes if _suffix(name) in IMAGE_SUFFIXES), default=None)
        if image and DATABASE_NAME not in sizes and not sizes.get(OUTPUT_MARK):
            raise DatasetError(
                f"The cache cannot be in {printable(folder)}, where images lie, such as {printable(image)}: choose "
                f"another --cache-dir, a folder that is empty or not there yet."
            )


def as_text(folder: StoragePath) -> str:
    """Return the whole path of a folder as text, with slashes on every system."""
    return folder.resolve().as_posix() if isinstance(folder, Path) else str(folder)


def folders_below(root: StoragePath) -> Folders:
    """Return the folders below `root`.

    Raises:
        DatasetError: `root` is no folder that can be listed.
    """
    missing = f"There is no folder {printable(root)}"
    folders: Folders
    try:
        if isinstance(root, Path):
            folders = Folders()
            is_there, is_file = root.exists(), not root.is_dir()
        else:
            folders = elsewhere = Elsewhere(root)
            is_there, is_file = elsewhere.is_file or not elsewhere.is_empty, elsewhere.is_empty
            missing += "" if is_there else ", or there is nothing in it"
    except FileNotFoundError:
        is_there = is_file = False
    except OSError as error:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {error.strerror}.") from error
    if not is_there:
        raise DatasetError(f"{missing}.{nearest_folder(root)} {EXPECTED}")
    if is_file:
        raise DatasetError(f"{printable(root)} is a file; name the folder of the data set. {EXPECTED}")
    if reason := folders.contents(as_text(root)).reason:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {reason}.")
    return folders


def list_folder(folder: str, folders: Folders | None = None) -> FolderListing:
    """Return the files in `folder` and its sub-folders, one of `folders` or, without them, one on this machine.

    Links are followed, except where they lead back up. A folder named `x.jpg` is a folder.
    """
    images: list[str] = []
    others: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for path, contents in (folders or Folders()).walk(folder):
        images += [f"{path}/{name}" for name in contents.images]
        others += [f"{path}/{name}" for name in contents.others]
        if contents.reason:
            unreadable.append((path, contents.reason))
    images.sort()
    return FolderListing(PathTable(images), tuple(sorted(others)), tuple(sorted(unreadable)))


def files_of(path: StoragePath) -> list[StoragePath]:
    """Return the image files that a path stands for: those in a folder or an archive, sorted; else the file itself.

    A folder in it that cannot be listed is one of them: reading it will say why.

    Raises:
        FeatxError: there is no image in the folder, or it cannot be listed.
    """
    if isinstance(path, RemotePath):
        return _files_elsewhere(path)
    if not path.is_dir():
        return [path]
    listing = list_folder(str(path))
    found = [*listing.images, *(name for name, _ in listing.unreadable)]
    if not found:
        raise _no_images(path, listing.others)
    _warn_of_others(listing)
    return list(map(Path, found))


def _files_elsewhere(path: RemotePath) -> list[StoragePath]:
    try:
        folders = Elsewhere(path)
    except FileNotFoundError:
        return [path]
    except OSError as error:
        raise FeatxError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    if folders.is_empty:
        return [path]  # a file, or nothing: reading it will say so
    for warning in folders.warnings:
        log.warning("%s", warning)
    listing = list_folder(str(path), folders)
    if not listing.images:
        raise _no_images(path, listing.others)
    _warn_of_others(listing)
    names = (name.removeprefix(f"{path}/") for name in listing.images)
    return [path.with_key(name, folders.keys[name]) for name in names]


def _warn_of_others(listing: FolderListing) -> None:
    if sentence := not_images(listing.others):
        log.warning("%s", sentence)


def _no_images(folder: StoragePath | str, others: Sequence[str]) -> FeatxError:
    found = f": {by_suffix(others)}" if others else ""
    return FeatxError(f"{printable(folder)} has no images that featx can read{found}.")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: reading it will say so


def _is_segment(name: str) -> bool:
    return name.startswith("seg-") or name == "features.h5"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file is too slow


def not_images(paths: Sequence[str]) -> str:
    """Return the sentence that counts the files of a folder that are left out by their suffix; empty if none is."""
    return f"Left out, because featx does not read files with these suffixes: {by_suffix(paths)}." if paths else ""


def by_suffix(paths: Sequence[str]) -> str:
    """Return how many files there are of each suffix, with an example, and what to do about images among them.

    >>> by_suffix(["cats/1.JP2", "cats/2.jp2", "cats/Thumbs.db", "cats/notes"])
    '2 .jp2, 1 .db, 1 without suffix, such as cats/1.JP2; save JPEG 2000 images as JPEG or PNG'
    """
    counts = Counter(map(_suffix, paths))
    kinds = [f"{count:,} {printable(suffix) if suffix else 'without suffix'}" for suffix, count in counts.most_common()]
    formats = dict.fromkeys(_OTHER_FORMATS[suffix] for suffix, _ in counts.most_common() if suffix in _OTHER_FORMATS)
    more = [f"{len(kinds) - _MAX_KINDS:,} other kinds"] if len(kinds) > _MAX_KINDS else []
    advice = f"; save {' and '.join(formats)} images as JPEG or PNG" if formats else ""
    return f"{', '.join([*kinds[:_MAX_KINDS], *more])}, such as {printable(paths[0])}{advice}"
