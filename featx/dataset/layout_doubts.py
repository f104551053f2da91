"""Reasons why folders may not be classes, although their names allow it, and the error that shows them."""

import os
from collections import Counter
from collections.abc import Collection, Iterable

from featx.dataset.folders import Folders
from featx.dataset.names import (
    are_parts,
    class_prefixes,
    holds_out,
    may_be_annotations,
    n_annotations,
    role_of,
    says_annotations,
    says_images,
    says_pictures,
    says_same_mask,
)
from featx.errors import DatasetError
from featx.text import printable

_TELL = (
    "Say what you mean: with --train-folder FOLDER, name the folder whose sub-folders are the classes (. is {root} "
    "itself); with --test-folder FOLDER, the same for the test split. Move folders that are not classes out of it."
)
_MAX_SHOWN = 4  # folders of a tree, at each level


def find_doubt(folders: Folders, train: dict[str, str], test: dict[str, str] | None) -> str | None:
    """Return why these folders may not be classes; None if there is no such reason.

    Args:
        folders: what lies in them.
        train: class folders by class name.
        test: the same of the test split, if there is one.
    """
    classes = {name: path for name, path in train.items() if folders.holders(path)}
    if why := _parts(classes) or _split_classes(classes):
        return why
    doubts = [_masks, _masks_inside, _flat_tests]
    # Where a train and a test split have the same classes, the folders have been sorted on purpose.
    are_sorted = len(classes.keys() & (test or {}).keys()) > 1
    if not are_sorted:
        doubts += [_index, _same_folders, _same_prefixes, _one_is_deep]
    why = next((why for doubt in doubts if (why := doubt(folders, classes))), None)
    return why if why or are_sorted else _pictures(classes)


def _masks(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if folders of masks lie among the classes."""
    masks = [name for name in classes if may_be_annotations(name) and _speaks_of_others(folders, name, classes)]
    if not masks or len(masks) == len(classes):
        return None
    return f"{quoted(masks)} may hold masks or other annotations instead of a class"


def _speaks_of_others(folders: Folders, masks: str, classes: dict[str, str]) -> bool:
    """Return whether a folder that may hold masks does, by its name, its neighbours, or the names of its files."""
    others = [name for name in classes if name != masks]
    if any(says_same_mask(masks, other) for other in others):  # `mask` beside `no_mask`
        return False
    if says_annotations(masks) or any(says_images(other) for other in others):
        return True
    stems = _stems(folders, classes[masks])
    return any(len(stems & _stems(folders, classes[other])) > len(stems) / 2 for other in others)


def _stems(folders: Folders, folder: str) -> set[str]:
    """Return the names of files without their suffixes; numbers are the same everywhere and say nothing."""
    return {stem for name in folders.file_names(folder) if not (stem := name.rpartition(".")[0]).isdigit()}


def _masks_inside(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if masks lie among the images of a class, in a folder or beside them."""
    for name, path in classes.items():
        if may_be_annotations(name):
            continue
        for holder in folders.holders(path):
            below = os.path.relpath(holder, path)
            if below != "." and may_be_annotations(os.path.basename(holder)):  # noqa: PTH119 - text
                return f"{printable(f'{name}/{below}')}/ may hold masks or other annotations instead of images"
            if (n := n_annotations(folders.contents(holder).images)) > 1:
                return f"{n:,} files in {printable(name)}/ are named like another file there, plus a word for a mask"
    return None


def _parts(classes: Iterable[str]) -> str | None:
    return f"{quoted(classes)} may be parts of one set instead of classes" if are_parts(classes) else None


def _flat_tests(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if a folder of images for testing lies among the classes."""
    tests = [name for name, path in classes.items() if holds_out(name) and _is_flat(folders, path)]
    if not tests or len(classes) - len(tests) < 2:
        return None
    return f"{quoted(tests)} may hold test images without labels instead of a class"


def _split_classes(classes: Iterable[str]) -> str | None:
    """Return the doubt if each class has a folder for each split: `train_cats`, `test_cats`."""
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}
    for name in classes:
        if (role := role_of(name)) and role.rest:
            by_rest.setdefault(role.rest, {})[role.name] = name
    pairs = [list(names.values()) for names in by_rest.values() if "train" in names and len(names) > 1]
    return f"{quoted(pairs[0])} may be one class in two splits" if pairs else None


def _same_folders(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if the same names lie in several classes, like `cats/day` and `dogs/day`."""
    inside = {
        name: {os.path.basename(folder) for folder in folders.holders(path)}  # noqa: PTH119 - text
        for name, path in classes.items()
        if path not in folders.holders(path)
    }
    same = _shared(inside.values())
    is_wrapper = len(same) == 1 and all(names == same for names in inside.values())  # `n01440764/images` each
    if not same or is_wrapper or (len(same) == 1 and len(inside) < len(classes)):
        return None
    holders = [name for name, names in inside.items() if names & same]
    return f"{quoted(holders)} hold folders of the same names, so {quoted(same)} may be the classes instead"


def _same_prefixes(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if file names in several classes begin with the same words: `a/cat.1.jpg`, `b/cat.2.jpg`."""
    prefixes = {name: set(class_prefixes(folders.contents(path).images)) for name, path in classes.items()}
    same = _shared(prefixes.values())
    if len(same) < 2:
        return None
    holders = [name for name, names in prefixes.items() if names & same]
    begin = ", ".join(map(printable, sorted(same)[:_MAX_SHOWN]))
    return f"file names in each of {quoted(holders)} begin with {begin}, which may be the classes instead"


def _one_is_deep(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if one class holds all its images in folders, and every other in one."""
    deep = [name for name, path in classes.items() if folders.is_spread(path)]
    flat = [name for name, path in classes.items() if len(folders.holders(path)) == 1]
    if len(deep) != 1 or len(flat) != len(classes) - 1 or not flat:
        return None
    inside = quoted(folders.filled(classes[deep[0]]))
    return f"only {quoted(deep)} holds its images in several folders ({inside}), which may be the classes instead"


def _index(folders: Folders, classes: dict[str, str]) -> str | None:
    """Return the doubt if the folders are an index by first letters: `a/abbey`, `b/bakery`."""
    is_index = len(classes) > 1 and all(
        len(name) == 1
        and name.isalpha()
        and not folders.contents(path).images
        and all(inside.casefold().startswith(name.casefold()) for inside in folders.filled(path))
        for name, path in classes.items()
    )
    return f"{quoted(classes)} may be an index by first letters; if so, move their folders up" if is_index else None


def unclear(folders: Folders, top: str, why: str) -> DatasetError:
    """Return the error that shows the tree below `top` as it was read."""
    return DatasetError(
        f"It is not clear what the folders in {printable(top)} mean: {why}. "
        f"Folders, with their numbers of images: {_drawn(folders, top, why)}. {_TELL.format(root=printable(top))}"
    )


def _drawn(folders: Folders, folder: str, why: str, depth: int = 3) -> str:
    """Return the tree below `folder` on one line, what `why` speaks of first: `train/{cats/ 40, dogs/ 38}`."""
    filled = sorted(folders.filled(folder).items(), key=lambda item: f"{printable(item[0])}/" not in why)
    shown = []
    for name, path in filled[:_MAX_SHOWN]:
        inside = _drawn(folders, path, why, depth - 1) if depth > 1 else ""
        images = folders.contents(path).images
        number = f" {folders.n_images(path):,}" if images or not inside else ""
        begin = class_prefixes(images)[:_MAX_SHOWN]
        names = f" (names begin with {', '.join(map(printable, begin))})" if begin else ""
        shown.append(f"{printable(name)}/{f'{{{inside}}}' if inside else ''}{number}{names}")
    return ", ".join([*shown, *(["…"] if len(filled) > _MAX_SHOWN else [])])


def _pictures(classes: Collection[str]) -> str | None:
    """Return the doubt if a folder called `images` lies among the classes."""
    pictures = [name for name in classes if says_pictures(name)]
    return f"{quoted(pictures)} may not be a class" if pictures and len(classes) - len(pictures) > 1 else None


def _is_flat(folders: Folders, path: str) -> bool:
    """Return whether all images of a folder lie in it, or in one that is called no more than `images`."""
    return all(holder == path or says_images(os.path.basename(holder)) for holder in folders.holders(path))  # noqa: PTH119


def _shared(sets: Iterable[set[str]]) -> set[str]:
    """Return what is in two or more of the sets."""
    counts = Counter(item for one in sets for item in one)
    return {item for item, count in counts.items() if count > 1}


def quoted(names: Iterable[str]) -> str:
    """Return names of folders with the first of them.

    >>> quoted(["b", "a"])
    'a/, b/'
    """
    ordered = sorted(names)
    more = ["…"] if len(ordered) > _MAX_SHOWN else []
    return ", ".join([f"{printable(name)}/" for name in ordered[:_MAX_SHOWN]] + more)
