"""Where a data set's images lie: which folders are its splits, which its classes, and what is left out.

Understood are `train/CLASS/*` with `test/CLASS/*`, under the names people give them and one or more folders deeper, as
archives have it, and `CLASS/*` without splits. Names decide nothing alone: `train` may be a class of vehicles, and is
a split only if there are folders in it. Where more than one reading is sensible, none is chosen: the error shows the
tree and how to say what is meant. `tests/public_trees.py` has the trees of public data sets.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from featx.errors import DatasetError, printable
from featx.folder_names import (
    Role,
    are_parts,
    class_prefixes,
    holds_out,
    looks_of,
    may_be_annotations,
    n_annotations,
    role_of,
    says_annotations,
    says_images,
    says_same_mask,
    subject_of,
)
from featx.folders import Disk, Elsewhere, Folders
from featx.places import Place, RemotePath, RemoteTree

EXPECTED = "Lay the images out as train/CLASS/* with test/CLASS/*, or just CLASS/*."

_TELL = (
    "Say what you mean: --train-folder FOLDER names the folder whose sub-folders are the classes (. is {root} itself), "
    "and --test-folder FOLDER does the same for the test split."
)
_MAX_DEPTH = 12  # of the folders that lie between a data set's folder and its classes
_MAX_SHOWN = 4  # folders of a tree, at each level


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


def folders_below(root: Place) -> tuple[Folders, RemoteTree | None]:
    """Return the folders below `root`, and the listing that they are from if it is elsewhere.

    Raises:
        DatasetError: `root` is no folder that can be listed.
    """
    if isinstance(root, Path):
        folders = Disk()
        _check_root(root, folders)
        return folders, None
    tree = _listed(root)
    return Elsewhere(tree), tree


def find_layout(
    root: Place, folders: Folders | None = None, *, train: str | None = None, test: str | None = None
) -> Layout:
    """Return the class folders under `root`.

    Args:
        root: the folder of the data set.
        folders: the folders below it; looked for if None.
        train: the folder whose sub-folders are the classes of the train split, relative to `root`; `"."` is `root`
            itself. If None, names and contents tell.
        test: the same of the test split.

    Raises:
        DatasetError: `root` is no folder that can be listed, or its folders can be understood in more ways than one.
    """
    finder = _Finder(folders or folders_below(root)[0], str(root.resolve()))
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
            raise DatasetError(f"--train-folder and --test-folder are one folder: {printable(train_dir)}.")
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
        if why := self._doubt(layout):
            raise self._unclear(why)
        warnings = (*layout.warnings, *self._two_levels(layout.train), *self._left_out(base, layout, splits))
        return replace(layout, warnings=warnings)

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
        filled = {name: path for name, path in self._filled(base).items() if role_of(name) is None}
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
            warnings.append(
                "There is no test split with class folders: featx takes one from the train split, by a hash of each "
                "image's content."
            )
            self._check_train_is_no_class(base, splits["train"])
        elif role_name == "test" and "validation" in splits:
            name = printable(Path(splits["validation"]).name)
            warnings.append(f"Left out: {name}, as featx takes its own validation part from the train split.")
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
        beside = {name: path for name, path in self._filled(base).items() if path != train}
        others = [name for name in beside if role_of(name) is None and not may_be_annotations(name)]
        like_it = [name for name in others if self._is_deep(beside[name])]
        if like_it or (others and all(role_of(name) is None for name in beside)):
            name = printable(os.path.basename(train))  # noqa: PTH119 - text
            raise self._unclear(f"{name}/ may be the train split, or a class like {printable((like_it or others)[0])}/")

    def _without_splits(self, base: str) -> Layout:
        """The layout of a folder that has only class folders."""
        below = self._below(base)
        filled = self._filled(base)
        tests = [name for name, path in filled.items() if _is_test(role_of(name)) and self._class_folders(path)]
        if tests:
            raise self._unclear(
                f"{_quoted(tests)} is a test split but no train split with the same class folders is there"
            )
        if _are_flat_splits([role_of(name) for name in filled]):
            strays = [path for folder in filled.values() for path in self._images_below(folder)]
            return Layout({}, None, tuple(sorted(strays)), (), base)
        copies = self._copies(filled)
        repeats = [name for name, path in filled.items() if self._filled(path).keys() & (filled.keys() - {name})]
        if len(filled) - len(copies) > 1 and (others := [name for name in repeats if name not in copies]):
            raise self._unclear(f"{_quoted(others)} holds folders with names of classes beside it")
        classes = {name: path for name, path in below.items() if name not in copies}
        return Layout(classes, None, self._direct_images({*self._way_to(base), base}), (), base)

    def _copies(self, filled: dict[str, str]) -> set[str]:
        return {name for name, path in filled.items() if name not in self._filled(path) and self._is_copy(path, filled)}

    def _is_copy(self, folder: str, others: dict[str, str]) -> bool:
        """Return whether all folders in one folder have names and file names of others, as archives have it."""
        inside = self._filled(folder)
        return (
            bool(inside)
            and inside.keys() <= others.keys()
            and all(self._file_names(path) == self._file_names(others[name]) for name, path in inside.items())
        )

    def _file_names(self, folder: str) -> list[str]:
        return sorted(name for path in self._folders.holders(folder) for name in self._folders.contents(path).images)

    def _way_to(self, base: str) -> list[str]:
        """Return the folders from the top to above `base`."""
        return [folder for folder in _and_above(base) if f"{folder}/".startswith(f"{self._top}/") and folder != base]

    def _left_out(self, base: str, layout: Layout, splits: dict[str, str]) -> list[str]:
        """Return a sentence each for folders of images without labels, and for others that nobody asked for."""
        used = {*splits.values(), *layout.train.values(), *(layout.test or {}).values(), base}
        strays = set(map(os.path.dirname, layout.strays)) - {base, *self._way_to(base)}
        kinds: dict[str, list[str]] = {why: [] for why in ("no class folders", "copies of the classes", "neither")}
        for folder in (*self._way_to(base), base):
            for name, path in self._filled(folder).items():
                if path in strays or any(f"{one}/".startswith(f"{path}/") for one in used):
                    continue
                role = role_of(name)
                if (
                    layout.test is None
                    and layout.train_dir != self._top
                    and role
                    and _is_test(role)
                    and self._class_folders(path)
                ):
                    raise self._unclear(f"{printable(os.path.relpath(path, self._top))}/ may be the test split")
                kind = "no class folders" if role and not self._class_folders(path) else "neither"
                kind = "copies of the classes" if self._is_copy(path, layout.train) else kind
                count = _images(self._folders.n_images(path))
                kinds[kind].append(f"{printable(os.path.relpath(path, self._top))}/ ({count})")
        sentences = zip(
            (
                "Left out, having no class folders",
                "Left out, having the same folders and file names as the classes",
                "Left out, being neither a split nor a class",
            ),
            kinds.values(),
            strict=True,
        )
        return [f"{sentence}: {', '.join(names)}." for sentence, names in sentences if names]

    def _two_levels(self, classes: dict[str, str]) -> list[str]:
        """Return the sentence that says that the classes have folders in them, if it is so with each."""
        filled = {name: path for name, path in classes.items() if self._folders.holders(path)}
        if not filled or not all(self._is_deep(path) for path in filled.values()):
            return []
        name, path = next(iter(filled.items()))
        inside = _quoted(self._filled(path))
        return [f"The images of a class include those in its sub-folders: {printable(name)}/ has {inside}."]

    # What is doubtful

    def _doubt(self, layout: Layout) -> str | None:
        """Return why these folders may be no classes; None if nothing speaks against it."""
        classes = {name: path for name, path in layout.train.items() if self._folders.holders(path)}
        doubts = [self._masks, self._masks_inside, self._parts, self._flat_tests, self._split_classes]
        # Where a train and a test split have the same classes, the folders have been sorted on purpose.
        if len(classes.keys() & (layout.test or {}).keys()) < 2:
            doubts += [self._index, self._same_folders, self._same_prefixes, self._one_is_deep]
        return next((why for doubt in doubts if (why := doubt(classes))), None)

    def _masks(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if folders of masks lie among the classes."""
        masks = [name for name in classes if may_be_annotations(name) and self._speaks_of_others(name, classes)]
        if not masks or len(masks) == len(classes):
            return None
        return f"{_quoted(masks)} may hold masks or other annotations instead of a class"

    def _speaks_of_others(self, masks: str, classes: dict[str, str]) -> bool:
        """Return whether a folder that may hold masks does, by its name, its neighbours, or the names of its files."""
        others = [name for name in classes if name != masks]
        if any(says_same_mask(masks, other) for other in others):  # `mask` beside `no_mask`
            return False
        if says_annotations(masks) or any(says_images(other) for other in others):
            return True
        stems = self._stems(classes[masks])
        return any(len(stems & self._stems(classes[other])) > len(stems) / 2 for other in others)

    def _stems(self, folder: str) -> set[str]:
        """Return the names of files without their suffixes; numbers are the same everywhere and say nothing."""
        return {stem for name in self._file_names(folder) if not (stem := name.rpartition(".")[0]).isdigit()}

    def _masks_inside(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if masks lie among the images of a class, in a folder or beside them."""
        for name, path in classes.items():
            if may_be_annotations(name):
                continue
            for holder in self._folders.holders(path):
                below = os.path.relpath(holder, path)
                if below != "." and may_be_annotations(os.path.basename(holder)):  # noqa: PTH119 - text
                    return f"{printable(f'{name}/{below}')}/ may hold masks or other annotations instead of images"
                if (n := n_annotations(self._folders.contents(holder).images)) > 1:
                    return f"{n:,} files in {printable(name)}/ have the name of another one there and a word for a mask"
        return None

    def _parts(self, classes: dict[str, str]) -> str | None:
        return f"{_quoted(classes)} may be parts of one set instead of classes" if are_parts(classes) else None

    def _flat_tests(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if a folder of images for testing lies among the classes."""
        tests = [name for name, path in classes.items() if holds_out(name) and not self._class_folders(path)]
        if not tests or len(classes) - len(tests) < 2:
            return None
        return f"{_quoted(tests)} may hold test images without labels instead of a class"

    def _split_classes(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if each class has a folder for each split: `train_cats`, `test_cats`."""
        by_rest: dict[tuple[str, ...], dict[str, str]] = {}
        for name in classes:
            if (role := role_of(name)) and role.rest:
                by_rest.setdefault(role.rest, {})[role.name] = name
        pairs = [list(names.values()) for names in by_rest.values() if "train" in names and len(names) > 1]
        return f"{_quoted(pairs[0])} may be one class in two splits" if pairs else None

    def _same_folders(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if the same names lie in several classes, like `cats/day` and `dogs/day`."""
        inside = {
            name: {os.path.basename(folder) for folder in self._folders.holders(path)}  # noqa: PTH119 - text
            for name, path in classes.items()
            if path not in self._folders.holders(path)
        }
        same = _shared(inside.values())
        is_wrapper = len(same) == 1 and all(names == same for names in inside.values())  # `n01440764/images` each
        if not same or is_wrapper or (len(same) == 1 and len(inside) < len(classes)):
            return None
        holders = [name for name, names in inside.items() if names & same]
        return f"folders of the same names lie in {_quoted(holders)}, so {_quoted(same)} may be the classes instead"

    def _same_prefixes(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if file names in several classes begin with the same words: `a/cat.1.jpg`, `b/cat.2.jpg`."""
        prefixes = {name: set(class_prefixes(self._folders.contents(path).images)) for name, path in classes.items()}
        same = _shared(prefixes.values())
        if len(same) < 2:
            return None
        holders = [name for name, names in prefixes.items() if names & same]
        begin = ", ".join(map(printable, sorted(same)[:_MAX_SHOWN]))
        return f"file names in each of {_quoted(holders)} begin with {begin}, which may be the classes instead"

    def _one_is_deep(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if one class holds all its images in folders, and every other in one."""
        deep = [name for name, path in classes.items() if self._is_deep(path)]
        flat = [name for name, path in classes.items() if len(self._folders.holders(path)) == 1]
        if len(deep) != 1 or len(flat) != len(classes) - 1 or not flat:
            return None
        inside = _quoted(self._filled(classes[deep[0]]))
        return f"only {_quoted(deep)} holds its images in several folders ({inside}), which may be the classes instead"

    def _index(self, classes: dict[str, str]) -> str | None:
        """Return the doubt if the folders are an index by first letters: `a/abbey`, `b/bakery`."""
        is_index = len(classes) > 1 and all(
            len(name) == 1
            and name.isalpha()
            and not self._folders.contents(path).images
            and all(inside.casefold().startswith(name.casefold()) for inside in self._filled(path))
            for name, path in classes.items()
        )
        return (
            f"{_quoted(classes)} may be an index by first letters; if so, move the folders in them up"
            if is_index
            else None
        )

    def _is_deep(self, path: str) -> bool:
        """Return whether all images below a folder lie in several folders in it."""
        holders = self._folders.holders(path)
        return path not in holders and len(holders) > 1

    def _unclear(self, why: str) -> DatasetError:
        """Return the error that shows the tree as it was read."""
        tell = _TELL.format(root=printable(self._top))
        return DatasetError(
            f"What the folders in {printable(self._top)} mean is not clear: {why}. "
            f"Folders, with their numbers of images: {self._drawn(self._top, why)}. {tell}"
        )

    def _drawn(self, folder: str, why: str, depth: int = 3) -> str:
        """Return the tree below `folder` on one line, what `why` speaks of first: `train/{cats/ 40, dogs/ 38}`."""
        filled = sorted(self._filled(folder).items(), key=lambda item: f"{printable(item[0])}/" not in why)
        shown = []
        for name, path in filled[:_MAX_SHOWN]:
            inside = self._drawn(path, why, depth - 1) if depth > 1 else ""
            images = self._folders.contents(path).images
            number = f" {self._folders.n_images(path):,}" if images or not inside else ""
            begin = class_prefixes(images)[:_MAX_SHOWN]
            names = f" (names begin with {', '.join(map(printable, begin))})" if begin else ""
            shown.append(f"{printable(name)}/{f'{{{inside}}}' if inside else ''}{number}{names}")
        return ", ".join([*shown, *(["…"] if len(filled) > _MAX_SHOWN else [])])

    # Folders

    def _below(self, folder: str) -> dict[str, str]:
        return self._folders.contents(folder).subfolders

    def _filled(self, folder: str) -> dict[str, str]:
        """Return the folders in `folder` that have images, at any depth."""
        return {name: path for name, path in self._below(folder).items() if self._folders.holders(path)}

    def _without_annotations(self, folder: str) -> dict[str, str]:
        """Return the folders in `folder` that have images: just the one with class folders beside annotations of it."""
        filled = self._filled(folder)
        pictures = {name: path for name, path in filled.items() if not may_be_annotations(name)}
        is_one = len(pictures) == 1 and bool(self._filled(next(iter(pictures.values()))))
        return pictures if is_one else filled

    def _named(self, folder: str) -> str:
        """Return the path of a folder that was named relative to the top."""
        if not folder:
            raise DatasetError(f"Name a folder in {printable(self._top)} as a split, or . for itself. Received: ''")
        is_whole = folder.startswith(f"{self._top}/")
        below = os.path.relpath(folder, self._top) if is_whole else os.path.normpath(folder)
        path = self._top if below == "." else f"{self._top.rstrip('/')}/{below}"
        if below.startswith((os.pardir, "/")):
            raise DatasetError(f"{printable(folder)} is outside {printable(self._top)}; name a folder in it.")
        contents = self._folders.contents(path)
        if contents.reason or not (contents.subfolders or contents.images or contents.others):
            there = ", ".join(f"{printable(name)}/" for name in self._below(self._top)) or "no folders"
            raise DatasetError(
                f"{printable(self._top)} has no folder {printable(folder)}, or it is empty. Found: {there}."
            )
        if not contents.subfolders:
            raise DatasetError(
                f"{printable(path)} has no folders in it; name the folder whose sub-folders are the classes."
            )
        return path

    def _images_below(self, folder: str) -> list[str]:
        return [f"{path}/{name}" for path, contents in self._folders.walk(folder) for name in contents.images]

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


def _and_above(path: str) -> list[str]:
    """Return the folders above a path and the path itself, the highest first."""
    parts = path.split("/")
    return ["/".join(parts[:n]) or "/" for n in range(1, len(parts) + 1)]


def _shared(sets: Iterable[set[str]]) -> set[str]:
    """Return what is in two or more of the sets."""
    counts = Counter(item for one in sets for item in one)
    return {item for item, count in counts.items() if count > 1}


def _quoted(names: Iterable[str]) -> str:
    """Return names of folders with the first of them.

    >>> _quoted(["b", "a"])
    'a/, b/'
    """
    ordered = sorted(names)
    more = ["…"] if len(ordered) > _MAX_SHOWN else []
    return ", ".join([f"{printable(name)}/" for name in ordered[:_MAX_SHOWN]] + more)


def _images(n: int) -> str:
    return f"{n:,} image{'' if n == 1 else 's'}"


def _check_root(root: Path, folders: Folders) -> None:
    try:
        if not root.exists():
            raise DatasetError(f"There is no folder {printable(root)}. {EXPECTED}")
        if not root.is_dir():
            raise DatasetError(f"{printable(root)} is a file; name the folder of the data set. {EXPECTED}")
    except OSError as error:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {error.strerror}.") from None
    if reason := folders.contents(str(root)).reason:
        raise DatasetError(f"The folder {printable(root)} cannot be read: {reason}.")


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
