"""Where a data set's images lie: which folders are its splits, which its classes, and the files in each class.

Understood are `train/CLASS/*` with `test/CLASS/*`, under the names people give them, one level deeper as Kaggle's zips
have it, and `CLASS/*` without splits. Names decide nothing alone: `train` may be a class of vehicles. It is a split
if there are folders in it.
"""

import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from featx.errors import DatasetError, printable
from featx.files import OUTPUT_MARK
from featx.images import IMAGE_SUFFIXES
from featx.places import Entry, Place, RemotePath, RemoteTree

EXPECTED = "Lay the images out as train/CLASS/* with test/CLASS/*, or just CLASS/*."

_ROLES = {
    "train": ("train", "training", "train_set", "training_set"),
    "validation": ("validation", "val", "valid", "validation_set", "val_set", "valid_set"),
    "test": ("test", "testing", "test_set", "testing_set"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}


#: What a folder's entry is: the system's own, or one of the listing of a place elsewhere.
_Entry: TypeAlias = "os.DirEntry[str] | Entry"


class Disk:
    """Folders on this machine, each looked at when it is asked for."""

    def entries(self, folder: str) -> Sequence[_Entry]:
        """Return what is in a folder.

        Raises:
            OSError: it cannot be listed.
        """
        with os.scandir(folder) as entries:
            return list(entries)

    def has_mark(self, folder: str) -> bool:
        """Return whether featx has made the folder."""
        return Path(folder, OUTPUT_MARK).exists()

    def identity(self, folder: str) -> Hashable:
        """Return what a folder is, by whatever path.

        Raises:
            OSError: it cannot be looked at.
        """
        status = os.stat(folder)  # noqa: PTH116
        return status.st_dev, status.st_ino

    def above(self, folder: str) -> list[str]:
        """Return the folders that a folder is in, by its own path and by where links lead."""
        return [str(above) for path in (Path(folder), Path(folder).resolve()) for above in path.parents]


class Elsewhere:
    """Folders of a place elsewhere, from the one listing that was made of it. There are no links."""

    def __init__(self, tree: RemoteTree) -> None:
        """Show the folders of `tree`."""
        self._tree = tree

    def entries(self, folder: str) -> Sequence[_Entry]:
        """Return what is in a folder."""
        return self._tree.entries(folder)

    def has_mark(self, folder: str) -> bool:
        """Return whether featx has made the folder."""
        return self._tree.has_file(folder, OUTPUT_MARK)

    def identity(self, folder: str) -> Hashable:
        """Return the path."""
        return folder

    def above(self, folder: str) -> list[str]:  # noqa: ARG002 - as of a disk
        """Return nothing: no link can lead up."""
        return []


Folders: TypeAlias = Disk | Elsewhere
_DISK = Disk()


@dataclass(frozen=True)
class Layout:
    """The class folders of a data set, as absolute paths.

    Attributes:
        train: class folders by class name; of the whole data set if `test` is None.
        test: class folders by class name, or None if featx has to split the data set itself.
        strays: images that lie beside class folders, not in one, so that their class is not known.
        warnings: one sentence each, on what was left out.
    """

    train: dict[str, str]
    test: dict[str, str] | None
    strays: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class FolderListing:
    """The files in one class folder, at any depth: paths that begin with the folder's own, sorted.

    Attributes:
        images: files with an image's suffix, whatever they are.
        others: files without one.
        unreadable: (folder, reason) for folders that could not be listed.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


def folders_below(root: Place) -> tuple[Folders, RemoteTree | None]:
    """Return the folders below `root`, and the listing that they are from if it is elsewhere.

    Raises:
        DatasetError: `root` is no folder that can be listed.
    """
    if isinstance(root, Path):
        _check_root(root)
        return _DISK, None
    tree = _listed(root)
    return Elsewhere(tree), tree


def find_layout(root: Place, folders: Folders | None = None) -> Layout:
    """Return the class folders under `root`, one of `folders`, which are looked for if they are not given.

    Raises:
        DatasetError: `root` is no folder that can be listed, or its folders can be understood in more ways than one.
    """
    folders = folders or folders_below(root)[0]
    top = str(root.resolve())
    base = _base(folders, top)
    splits = _split_folders(folders, base)
    layout = _with_splits(folders, base, splits) if "train" in splits else _without_splits(folders, base, splits)
    beside = [path for path in _subfolders(folders, top).values() if base not in (path, top)]
    if "train" in splits:
        beside += [path for path in _subfolders(folders, base).values() if path not in splits.values()]
    names = sorted(os.path.relpath(path, top) for path in beside if list_folder(path, folders).images)
    if not names:
        return layout
    warning = f"Left out, being neither a split nor a class folder in one: {', '.join(map(printable, names))}."
    return replace(layout, warnings=(*layout.warnings, warning))


def list_folder(folder: str, folders: Folders = _DISK) -> FolderListing:
    """Return the files in `folder` and its sub-folders; links are followed, except where they lead back up.

    Hidden entries, `__MACOSX` and what featx itself has written are passed over. A folder named `x.jpg` is a folder.
    """
    images: list[str] = []
    others: list[str] = []
    unreadable: list[tuple[str, str]] = []
    # A link to a folder above would otherwise bring every other class into this one.
    visited = {folders.identity(above) for above in folders.above(folder)}
    to_visit = [folder]
    while to_visit:
        current = to_visit.pop()
        try:
            if (identity := folders.identity(current)) in visited:
                continue
            visited.add(identity)
            entries = sorted(
                _visible(folders, current), key=lambda entry: entry.name
            )  # the first of two links to one folder
        except OSError as error:
            unreadable.append((current, error.strerror or str(error)))
            continue
        for entry in entries:
            if _is_folder(entry):
                if not folders.has_mark(entry.path):
                    to_visit.append(entry.path)
            elif _has_image_suffix(entry.name):
                images.append(entry.path)
            else:
                others.append(entry.path)
    return FolderListing(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(unreadable)))


def _with_splits(folders: Folders, base: str, splits: dict[str, str]) -> Layout:
    """The layout of a folder that has a train split."""
    warnings: list[str] = []
    train = _inner(folders, splits["train"], "train")
    role = "test" if "test" in splits else "validation"
    test = _inner(folders, splits[role], role) if role in splits else None
    if test is None:
        warnings.append(
            "There is no test split with class folders: featx takes one from the train split, by a hash of each "
            "image's content."
        )
    elif role == "test" and "validation" in splits:
        name = printable(Path(splits["validation"]).name)
        warnings.append(f"Left out: {name}, as featx takes its own validation part from the train split.")
    return Layout(
        train=_subfolders(folders, train),
        test=None if test is None else _subfolders(folders, test),
        strays=_direct_images(folders, {base, splits["train"], train, splits.get(role, base), test or base}),
        warnings=tuple(warnings),
    )


def _without_splits(folders: Folders, base: str, splits: dict[str, str]) -> Layout:
    """The layout of a folder that has only class folders."""
    if "test" in splits:
        raise DatasetError(f"{printable(base)} has a test split but no train split with class folders. {EXPECTED}")
    classes = _subfolders(folders, base)
    roles = {_role(name) for name in classes}
    if "train" in roles and None not in roles:  # train/*.jpg beside test/*.jpg: these names are no classes
        return Layout({}, None, _direct_images(folders, {base, *classes.values()}), ())
    return Layout(classes, None, _direct_images(folders, {base}), ())


def _base(folders: Folders, root: str) -> str:
    """Return the folder that holds the splits or classes: `root`, or the one folder in it that does."""
    splits = _split_folders(folders, root)
    if "train" in splits:
        return root
    below = list(_subfolders(folders, root).values())
    with_train = [folder for folder in below if "train" in _split_folders(folders, folder)]
    if len(with_train) > 1:
        names = ", ".join(printable(os.path.relpath(folder, root)) for folder in with_train)
        raise DatasetError(f"{printable(root)} holds several folders with a train split; name one of them: {names}.")
    if with_train:
        return with_train[0]
    if (
        "test" not in splits
        and len(below) == 1
        and not _direct_images(folders, {root, below[0]})
        and len(_subfolders(folders, below[0])) > 1
    ):
        return below[0]
    return root


def _split_folders(folders: Folders, base: str) -> dict[str, str]:
    """Return the folders in `base` that are splits, by role: `"train"`, `"validation"`, `"test"`."""
    splits: dict[str, str] = {}
    for name, path in _subfolders(folders, base).items():
        role = _role(name)
        if role is None or not _subfolders(folders, path):
            continue
        if role in splits:
            both = f"{printable(splits[role])} and {printable(path)}"
            raise DatasetError(f"Either of {both} may be the {role} split; move or rename one of them.")
        splits[role] = path
    return splits


def _inner(folders: Folders, split: str, role: str) -> str:
    """Return the folder that holds a split's class folders: `training_set`, or `training_set/training_set`."""
    below = _subfolders(folders, split)
    if len(below) == 1:
        name, path = next(iter(below.items()))
        if _role(name) == role:
            return path
    return split


def _role(name: str) -> str | None:
    return _ROLE_OF.get(name.casefold().replace("-", "_").replace(" ", "_"))


def _check_root(root: Path) -> None:
    try:
        if not root.exists():
            raise DatasetError(f"There is no folder {printable(root)}. {EXPECTED}")
        if not root.is_dir():
            raise DatasetError(f"{printable(root)} is a file; name the folder of the data set. {EXPECTED}")
        _visible(_DISK, str(root))
    except OSError as error:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {error.strerror}.") from None


def _listed(root: RemotePath) -> RemoteTree:
    try:
        tree = RemoteTree(root)
    except FileNotFoundError:
        raise DatasetError(f"There is no folder {printable(root)}. {EXPECTED}") from None
    except OSError as error:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {error.strerror}.") from error
    if tree.is_file and not tree:
        raise DatasetError(f"{printable(root)} is a file; name the folder of the data set. {EXPECTED}")
    if not tree:
        raise DatasetError(f"There is no folder {printable(root)}, or there is nothing in it. {EXPECTED}")
    return tree


def _direct_images(folders: Folders, chosen: Iterable[str]) -> tuple[str, ...]:
    """Return the images that lie in these folders themselves, sorted."""
    return tuple(
        sorted(
            entry.path
            for folder in chosen
            for entry in _visible_or_none(folders, folder)
            if _has_image_suffix(entry.name) and not _is_folder(entry)
        )
    )


def _subfolders(folders: Folders, folder: str) -> dict[str, str]:
    """Return the visible folders in `folder`, path by name, sorted; none if it cannot be listed.

    What featx itself has written, reports with their pictures above all, is passed over.
    """
    entries = _visible_or_none(folders, folder)
    visible = sorted((entry.name, entry.path) for entry in entries if _is_folder(entry))
    return {name: path for name, path in visible if not folders.has_mark(path)}


def _visible(folders: Folders, folder: str) -> list[_Entry]:
    return [entry for entry in folders.entries(folder) if not entry.name.startswith(".") and entry.name != "__MACOSX"]


def _visible_or_none(folders: Folders, folder: str) -> list[_Entry]:
    try:
        return _visible(folders, folder)
    except OSError:
        return []  # the walk over the classes reports it


def _is_folder(entry: _Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: reading it will say so


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path per file is too slow
