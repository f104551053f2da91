"""Classes that are only in the names of files: `train/cat.0.jpg` becomes `train/cat/cat.0.jpg`."""

import os
import re
from pathlib import Path

from featx.images import IMAGE_SUFFIXES

#: What a file's name without its suffix looks like: a word, a dot, a number.
_PREFIX = re.compile(r"([^\W\d_][\w -]*)\.\d+")


def sort_by_prefix(root: Path) -> dict[Path, list[str]]:
    """Move images into class folders wherever their names tell the class; return the class names by folder.

    That is in a folder in which every image is named `PREFIX.NUMBER.SUFFIX`, with two prefixes or more, and in which
    nothing bears the name of a class yet. All other folders stay as they are: `test1/1.jpg` has no class.
    """
    found = {}
    for folder, subfolders, names in os.walk(root, topdown=False):
        class_of = _classes(names)
        class_names = sorted(set(class_of.values()))
        if len(class_names) < 2 or set(class_names) & {*subfolders, *names}:
            continue
        for class_name in class_names:
            Path(folder, class_name).mkdir()
        for name, class_name in class_of.items():
            Path(folder, name).rename(Path(folder, class_name, name))
        found[Path(folder)] = class_names
    return found


def _classes(names: list[str]) -> dict[str, str]:
    """Return the class of each image, or nothing if one of them does not tell it.

    >>> _classes(["cat.0.jpg", "dog.0.jpg", "notes.txt"])
    {'cat.0.jpg': 'cat', 'dog.0.jpg': 'dog'}
    >>> _classes(["cat.0.jpg", "1.jpg"])
    {}
    """
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    matches = {name: _PREFIX.fullmatch(Path(name).stem) for name in images}
    classes = {name: match[1] for name, match in matches.items() if match}
    return classes if len(classes) == len(images) else {}
