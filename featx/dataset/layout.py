"""Finds a data set's images: which folders are its splits and its classes, and what is left out.

It understands `CLASS/*` without splits, and `train/CLASS/*` with `test/CLASS/*`. These may have other usual names, and
may be some folders deeper, as in archives. A name alone decides nothing: `train` may be a class of vehicles, and is a
split only if there are folders in it. If there is more than one sensible reading, featx chooses none: the error shows
the tree, and how to say what is meant. `tests/dataset/public_trees.py` has the trees of public data sets.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from featx.dataset.folders import Folders, as_text
from featx.dataset.layout_doubts import find_doubt, quoted, unclear
from featx.dataset.names import Role, looks_of, may_be_annotations, role_of, says_images, subject_of
from featx.errors import DatasetError
from featx.storage import StoragePath
from featx.system import did_you_mean
from featx.text import printable

_MAX_DEPTH = 12  # of the folders that lie between a data set's folder and its classes


@dataclass(frozen=True)
class Layout:
    """The class folders of a data set, as absolute paths.

    Attributes:
        train: class folders by class name; of the whole data set if `test` is None.
        test: class folders by class name, or None if featx has to split the data set itself.
        strays: images that lie beside class folders, not in one, so that their class is not known.
        warnings: one sentence each, on what was left out.
        train_dir: the folder that the folders in `train` are in.
        test_dir: the same of `test`.
    """

    train: dict[str, str]
    test: dict[str, str] | None
    strays: tuple[str, ...]
    warnings: tuple[str, ...]
    train_dir: str
    test_dir: str | None = None


def find_layout(root: StoragePath, folders: Folders, *, train: str | None = None, test: str | None = None) -> Layout:
    """Return the class folders under `root`.

    Args:
        root: the folder of the data set.
        folders: the folders below it.
        train: the folder whose sub-folders are the classes of the train split, relative to `root`; `"."` is `root`
            itself. If None, names and contents tell.
        test: the same of the test split.

    Raises:
        DatasetError: its folders can be understood in more ways than one, or there are none with these names.
    """
    finder = _Finder(folders, as_text(root))
    if train is not None:
        return finder.told(train, test)
    if test is not None:
        raise DatasetError("--test-folder needs --train-folder: name the folder of the train split as well.")
    return finder.found()


class _Finder:
    """Reads the folders of one data set."""

    def __init__(self, folders: Folders, top: str) -> None:
        self._folders = folders
        self._top = top

    def told(self, train: str, test: str | None) -> Layout:
        """Return the layout with these folders as the splits."""
        train_dir = self._named(train)
        test_dir = None if test is None else self._named(test)
        if train_dir == test_dir:
            raise DatasetError(f"--train-folder and --test-folder are the same folder: {printable(train_dir)}.")
        layout = Layout(
            train=self._beside(train_dir, test_dir),
            test=None if test_dir is None else self._beside(test_dir, train_dir),
            strays=self._direct_images(filter(None, {train_dir, test_dir})),
            warnings=(),
            train_dir=train_dir,
            test_dir=test_dir,
        )
        warnings = (*self._two_levels(layout.train), *self._left_out(train_dir, layout, {}))
        return replace(layout, warnings=warnings)

    def _beside(self, split: str, other: str | None) -> dict[str, str]:
        """Return the folders in a split, without the one that the other split lies in."""
        below = self._below(split)
        return {name: path for name, path in below.items() if not f"{other}/".startswith(f"{path}/")}

    def found(self) -> Layout:
        """Return the layout that names and contents tell."""
        base = self._base(self._top, _MAX_DEPTH) or self._top
        splits = self._splits(base)
        layout = self._with_splits(base, splits) if "train" in splits else self._without_splits(base)
        if why := find_doubt(self._folders, layout.train, layout.test):
            raise self._unclear(why)
        if layout.test is None and "train" in splits and (test := self._other_test(base, layout)):
            raise self._unclear(f"{printable(test)}/ may be the test split")
        warnings = (*layout.warnings, *self._two_levels(layout.train), *self._left_out(base, layout, splits))
        return replace(layout, warnings=warnings)

    def _other_test(self, base: str, layout: Layout) -> str | None:
        """Return a test split that lies on another level than the train split, relative to the top."""
        for folder in self._way_to(base):
            for name, path in self._folders.filled(folder).items():
                if _is_test(role_of(name)) and self._class_folders(path) and path not in layout.train.values():
                    return os.path.relpath(path, self._top)
        return None

    # Where the splits or classes are

    def _base(self, folder: str, depth: int) -> str | None:
        """Return the folder with splits, or with several classes: `folder`, or the one below that has them."""
        if self._splits(folder):
            return folder
        filled = self._without_annotations(folder)
        copies = self._copies(filled)
        filled = {name: path for name, path in filled.items() if name not in copies}
        if not depth:
            return folder if len(filled) > 1 else None
        if len(filled) == 1:
            ((name, path),) = filled.items()
            return None if _is_test(role_of(name)) else self._base(path, depth - 1)
        inside = [
            base for path in filled.values() if (base := self._base(path, depth - 1)) and "train" in self._splits(base)
        ]
        if len(inside) > 1:
            raise DatasetError(
                f"{printable(folder)} holds several folders with a train split; name one of them: "
                f"{', '.join(printable(os.path.relpath(path, folder)) for path in inside)}."
            )
        if inside:
            return inside[0]
        return folder if len(filled) > 1 else None

    def _splits(self, base: str) -> dict[str, str]:
        """Return the folders in `base` that are splits with class folders, by role; none if there is no train split.

        The train split is `base` itself where the classes lie beside the folder of the test split.
        """
        below = self._below(base)
        roles = {name: role for name in below if (role := role_of(name))}
        labelled = {name: role for name, role in roles.items() if self._class_folders(below[name])}
        pairs = {role.rest for role in roles.values() if role.name != "train"}
        tests = [name for name, role in labelled.items() if _is_test(role)]
        candidates = {
            name: role
            for name, role in labelled.items()
            if not role.rest or role.rest in pairs or any(self._fits(below[test], below[name]) for test in tests)
        }
        train = self._one(candidates, "train", None)
        if train is None:
            return self._splits_beside(base, labelled)
        splits = {"train": below[train]}
        for role_name in ("validation", "test"):
            if name := self._one(labelled, role_name, roles[train].rest):
                splits[role_name] = below[name]
        return splits

    def _splits_beside(self, base: str, labelled: dict[str, Role]) -> dict[str, str]:
        """Return the splits where only the folder of the test split says what it is: `rps` beside `rps-test-set`."""
        below = self._below(base)
        splits: dict[str, str] = {}
        filled = {name: path for name, path in self._folders.filled(base).items() if role_of(name) is None}
        for name, role in labelled.items():
            if role.name not in {"test", "validation"}:
                continue
            whole = [path for other, path in filled.items() if subject_of(other) == role.rest]
            if role.rest and len(whole) == 1 and self._class_folders(whole[0]):
                splits |= {"train": whole[0], role.name: below[name]}
            elif len(filled) > 1 and self._class_folders(below[name]).keys() <= filled.keys():
                splits |= {"train": base, role.name: below[name]}
        return splits

    def _one(self, labelled: dict[str, Role], role_name: str, rest: tuple[str, ...] | None) -> str | None:
        """Return the folder with a role: the one that is called nothing else, or else the one with these other words.

        Raises:
            DatasetError: there are several.
        """
        of_role = {name: role for name, role in labelled.items() if role.name == role_name}
        names = [name for name, role in of_role.items() if not role.rest] or [
            name for name, role in of_role.items() if not rest or role.rest == rest
        ]
        if len(names) > 1:
            both = " and ".join(f"{printable(name)}/" for name in names[:2])
            raise self._unclear(f"either of {both} may be the {role_name} split")
        return names[0] if names else None

    def _inner(self, split: str) -> str:
        """Return the folder that holds a split's class folders: `training_set`, or `training_set/training_set`."""
        role, looks = role_of(os.path.basename(split)), looks_of(os.path.basename(split))  # noqa: PTH119 - text
        while True:
            below = self._without_annotations(split) or self._below(split)
            if len(below) != 1 or self._folders.contents(split).images:
                return split
            ((name, path),) = below.items()
            if not (says_images(name) or (role and role_of(name) == role) or looks_of(name) == looks):
                return split
            split = path

    def _class_folders(self, split: str) -> dict[str, str]:
        return self._below(self._inner(split))

    def _fits(self, test: str, train: str) -> bool:
        """Return whether a test split has two or more classes, all of them in a train split."""
        classes = self._class_folders(test).keys()
        return len(classes) > 1 and classes <= self._class_folders(train).keys()

    # What the splits or classes are

    def _with_splits(self, base: str, splits: dict[str, str]) -> Layout:
        """The layout of a folder that has a train split."""
        warnings: list[str] = []
        train = splits["train"] if splits["train"] == base else self._inner(splits["train"])
        role_name = "test" if "test" in splits else "validation"
        test = self._inner(splits[role_name]) if role_name in splits else None
        if test is None:
            warnings.append("There is no test split with class folders: featx takes one from the train split.")
            self._check_train_is_no_class(base, splits["train"])
        elif role_name == "test" and "validation" in splits:
            name = printable(Path(splits["validation"]).name)
            warnings.append(f"Left out: {name}, because featx takes its own validation images from the train split.")
        classes = {name: path for name, path in self._below(train).items() if path not in splits.values()}
        return Layout(
            train=classes,
            test=None if test is None else self._below(test),
            strays=self._direct_images(
                {*self._way_to(base), base, splits["train"], train, splits.get(role_name, base), test or base}
            ),
            warnings=tuple(warnings),
            train_dir=train,
            test_dir=test,
        )

    def _check_train_is_no_class(self, base: str, train: str) -> None:
        """Raise if folders that may be classes lie beside a train split, and nothing that would be its test split."""
        beside = {name: path for name, path in self._folders.filled(base).items() if path != train}
        others = [name for name in beside if role_of(name) is None and not may_be_annotations(name)]
        like_it = [name for name in others if self._folders.is_spread(beside[name])]
        if like_it or (others and all(role_of(name) is None for name in beside)):
            name = printable(os.path.basename(train))  # noqa: PTH119 - text
            raise self._unclear(f"{name}/ may be the train split, or a class like {printable((like_it or others)[0])}/")

    def _without_splits(self, base: str) -> Layout:
        """The layout of a folder that has only class folders."""
        below = self._below(base)
        filled = self._folders.filled(base)
        tests = [name for name, path in filled.items() if _is_test(role_of(name)) and self._class_folders(path)]
        if tests:
            raise self._unclear(f"{quoted(tests)} is a test split, but no train split has the same class folders")
        if _are_flat_splits([role_of(name) for name in filled]):
            holders = [holder for folder in filled.values() for holder in self._folders.holders(folder)]
            return Layout({}, None, self._direct_images(holders), (), base)
        copies = self._copies(filled)
        repeats = [
            name for name, path in filled.items() if self._folders.filled(path).keys() & (filled.keys() - {name})
        ]
        if len(filled) - len(copies) > 1 and (others := [name for name in repeats if name not in copies]):
            raise self._unclear(f"{quoted(others)} holds folders named like the classes beside it")
        classes = {name: path for name, path in below.items() if name not in copies}
        return Layout(classes, None, self._direct_images({*self._way_to(base), base}), (), base)

    def _copies(self, filled: dict[str, str]) -> set[str]:
        return {
            name
            for name, path in filled.items()
            if name not in self._folders.filled(path) and self._is_copy(path, filled)
        }

    def _is_copy(self, folder: str, others: dict[str, str]) -> bool:
        """Return whether all folders in one folder have names and file names of others, as archives have it."""
        inside = self._folders.filled(folder)
        return (
            bool(inside)
            and inside.keys() <= others.keys()
            and all(
                self._folders.file_names(path) == self._folders.file_names(others[name])
                for name, path in inside.items()
            )
        )

    def _way_to(self, base: str) -> list[str]:
        """Return the folders from the top to above `base`."""
        return [folder for folder in _above(base) if f"{folder}/".startswith(f"{self._top.rstrip('/')}/")]

    def _left_out(self, base: str, layout: Layout, splits: dict[str, str]) -> list[str]:
        """Return a sentence each for folders of images without labels, and for others that nobody asked for."""
        used = {*splits.values(), *layout.train.values(), *(layout.test or {}).values(), base}
        strays = set(map(os.path.dirname, layout.strays)) - {base, *self._way_to(base)}
        no_classes, copy, neither = (
            "without class folders",
            "with the same folders and file names as the classes",
            "neither a split nor a class",
        )
        left_out: dict[str, list[str]] = {no_classes: [], copy: [], neither: []}
        for folder in (*self._way_to(base), base):
            for name, path in self._folders.filled(folder).items():
                if path in used or path in strays or any(one.startswith(f"{path}/") for one in used):
                    continue
                why = no_classes if role_of(name) and not self._class_folders(path) else neither
                why = copy if self._is_copy(path, layout.train) else why
                n_images = self._folders.n_images(path)
                count = f"{n_images:,} image{'' if n_images == 1 else 's'}"
                left_out[why].append(f"{printable(os.path.relpath(path, self._top))}/ ({count})")
        return [f"Left out, {why}: {', '.join(names)}." for why, names in left_out.items() if names]

    def _two_levels(self, classes: dict[str, str]) -> list[str]:
        """Return the sentence that says that the classes have folders in them, if it is so with each."""
        filled = {name: path for name, path in classes.items() if self._folders.holders(path)}
        if not filled or not all(self._folders.is_spread(path) for path in filled.values()):
            return []
        name, path = next(iter(filled.items()))
        inside = quoted(self._folders.filled(path))
        return [f"The images of a class include those in its sub-folders: {printable(name)}/ has {inside}."]

    # Folders

    def _unclear(self, why: str) -> DatasetError:
        return unclear(self._folders, self._top, why)

    def _below(self, folder: str) -> dict[str, str]:
        return self._folders.contents(folder).subfolders

    def _without_annotations(self, folder: str) -> dict[str, str]:
        """Return the folders in `folder` that have images: just the one with class folders beside annotations of it."""
        filled = self._folders.filled(folder)
        pictures = {name: path for name, path in filled.items() if not may_be_annotations(name)}
        is_one = len(pictures) == 1 and bool(self._folders.filled(next(iter(pictures.values()))))
        return pictures if is_one else filled

    def _named(self, folder: str) -> str:
        """Return the path of a folder that was named relative to the top."""
        if not folder:
            raise DatasetError(f"Name a folder in {printable(self._top)} as a split, or . for itself. Received: ''")
        is_whole = folder.replace(os.sep, "/").startswith(f"{self._top}/")
        below = os.path.relpath(folder, self._top) if is_whole else os.path.normpath(folder)
        below = below.replace(os.sep, "/")
        path = self._top if below == "." else f"{self._top.rstrip('/')}/{below}"
        if below.startswith((os.pardir, "/")):
            raise DatasetError(f"{printable(folder)} is outside {printable(self._top)}; name a folder in it.")
        contents = self._folders.contents(path)
        if contents.reason or not (contents.subfolders or contents.images or contents.others):
            names = self._below(self._top)
            there = ", ".join(f"{printable(name)}/" for name in names) or "no folders"
            raise DatasetError(
                f"{printable(self._top)} has no folder {printable(folder)}, or it is empty. Found: {there}."
                f"{did_you_mean(folder, names)}"
            )
        if not contents.subfolders:
            raise DatasetError(
                f"{printable(path)} has no folders in it; name the folder whose sub-folders are the classes."
            )
        return path

    def _direct_images(self, chosen: Iterable[str]) -> tuple[str, ...]:
        """Return the images that lie in these folders themselves, sorted."""
        return tuple(sorted(f"{path}/{name}" for path in chosen for name in self._folders.contents(path).images))


def _is_test(role: Role | None) -> bool:
    """Return whether a folder is called a test split, and nothing else."""
    return role is not None and role.name == "test" and not role.rest


def _are_flat_splits(roles: list[Role | None]) -> bool:
    """Return whether folders without class folders, but for their images, are splits: `train/*.jpg`, `test/*.jpg`."""
    known = [role for role in roles if role]
    if len(known) < len(roles) or "train" not in {role.name for role in known}:
        return False
    has_plain = any(role.name == "train" and not role.rest for role in known)
    is_set = len({role.name for role in known}) > 1 and len({role.rest for role in known}) == 1
    return has_plain or is_set


def _above(path: str) -> list[str]:
    """Return the folders above a path, the highest first.

    >>> _above("/data/pets/train")
    ['/', '/data', '/data/pets']
    """
    parts = path.split("/")
    return ["/".join(parts[:n]) or "/" for n in range(1, len(parts))]
