"""Maps a network's classes to those of a data set: each of these is the sum of some network classes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import FeatxError
from featx.storage import read_json
from featx.system import did_you_mean
from featx.text import printable

#: Network classes of the 1000 of ImageNet, as Keras numbers them, from 0.
_IMAGENET_CATS = tuple(range(281, 286))
_IMAGENET_DOGS = tuple(range(151, 269))
_BUILT_IN = {"cat": _IMAGENET_CATS, "cats": _IMAGENET_CATS, "dog": _IMAGENET_DOGS, "dogs": _IMAGENET_DOGS}
_N_IMAGENET = 1000

#: A number, a range or a WordNet id.
_PART = re.compile(r"(?P<first>\d{1,9})(?:\s*-\s*(?P<last>\d{1,9}))?|(?P<id>n\d{8})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class NetworkClass:
    """A class that a network was trained on.

    Attributes:
        name: as the class list has it, e.g. `"tabby, tabby cat"`.
        wordnet_id: e.g. `"n02123045"`; None if the list has none.
    """

    name: str
    wordnet_id: str | None = None


@dataclass(frozen=True)
class ClassMap:
    """Which of a network's classes each class of a data set consists of.

    Attributes:
        class_names: the classes of the data set.
        indices: for each of them the numbers of its network classes, from 0, sorted; no number occurs twice.
    """

    class_names: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return `(n, n_classes)` float64 for the network's probabilities `X`, `(n, n_network_classes)`.

        A class has the sum of its network classes' probabilities, divided by the sum of all that are mapped: a row
        sums to 1. Where every mapped probability is 0, the network has said nothing, and all classes get the same.

        >>> ClassMap(("cats", "dogs"), ((0, 1), (3,))).probabilities(np.array([[0.2, 0.1, 0.6, 0.1], [0, 0, 1, 0]]))
        array([[0.75, 0.25],
               [0.5 , 0.5 ]])
        """
        summed = np.stack([X[:, indices].sum(axis=1, dtype=np.float64) for indices in self.indices], axis=1)
        total = summed.sum(axis=1, keepdims=True)
        uniform = np.full_like(summed, 1 / len(self.class_names))
        probabilities: np.ndarray = np.divide(summed, total, out=uniform, where=total > 0)
        return probabilities

    def __str__(self) -> str:
        """Return the map as it is typed.

        >>> str(ClassMap(("cats", "dogs"), ((281, 282, 283, 290), (151,))))
        'cats=281-283,290 dogs=151'
        """
        pairs = zip(self.class_names, self.indices, strict=True)
        return " ".join(f"{name}={_ranges(indices)}" for name, indices in pairs)


def read_class_list(path: Path) -> tuple[NetworkClass, ...]:
    """Return the classes of a network, in the order of its outputs, from a JSON file.

    The file holds a list with one of these for each class: a name; `[WordNet id, name]`; or an object with `"name"`
    and perhaps `"wordnet_id"`, `"wnid"` or `"id"`. Keras's own `imagenet_class_index.json`, an object with
    `[WordNet id, name]` for every number, will do, too.

    Raises:
        FeatxError: it cannot be read, or holds something else.
    """
    content = read_json(path, "class list")
    if isinstance(content, dict):
        content = [content.get(str(number)) for number in range(len(content))]
    if not isinstance(content, list) or not content:
        raise FeatxError(f"The class list {printable(path)} contains no list of classes.")
    return tuple(_network_class(item, number, path) for number, item in enumerate(content))


def make_class_map(
    words: Sequence[str],
    n_network_classes: int,
    *,
    class_list: Sequence[NetworkClass] = (),
    class_names: Sequence[str] | None = None,
) -> ClassMap:
    """Return the map that `words` describe.

    Args:
        words: each `CLASS=CLASSES` or the name of a JSON file, `{CLASS: CLASSES, …}`. CLASSES are numbers and ranges
            of numbers, from 0, like `281-285,290`; with a class list also WordNet ids, or the whole name of one class,
            as the list has it but for capitals. In a file a list of these is possible as well. Without words: cats and
            dogs for a network with ImageNet's 1000 classes; or, if there is a class list and no `class_names`, all
            network classes as they are.
        n_network_classes: how many classes the network has.
        class_list: the network's classes, in the order of its outputs; see `read_class_list`.
        class_names: the classes of the data set, in their order; those that are mapped, sorted, if None.

    Raises:
        FeatxError: a word cannot be understood, a network class does not exist or occurs twice, or the classes are
            not those of the data set.
    """
    if class_list and len(class_list) != n_network_classes:
        raise FeatxError(
            f"The network has {n_network_classes} classes, and the class list another number. "
            f"Received: {len(class_list)}"
        )
    if words:
        mapped = _mapped(words, n_network_classes, class_list)
    elif class_list and class_names is None:
        mapped = {name: (number,) for number, name in enumerate(_distinct_names(class_list))}
        class_names = tuple(mapped)
    else:
        mapped = _built_in(n_network_classes, class_names)
    names = tuple(sorted(mapped)) if class_names is None else tuple(class_names)
    _check_names(mapped, names)
    _check_once(mapped)
    return ClassMap(names, tuple(tuple(sorted(mapped[name])) for name in names))


def _mapped(
    words: Sequence[str], n_network_classes: int, class_list: Sequence[NetworkClass]
) -> dict[str, tuple[int, ...]]:
    """Return the network classes that each class consists of, by its name."""
    mapped: dict[str, tuple[int, ...]] = {}
    for word in words:
        for name, texts in _entries(word):
            if name in mapped:
                raise FeatxError(f"The class {printable(name)} is mapped twice; name all its network classes at once.")
            mapped[name] = tuple(
                number for text in texts for number in _numbers(text, name, n_network_classes, class_list)
            )
    return mapped


def _entries(word: str) -> list[tuple[str, list[str]]]:
    """Return the classes that a word maps, each with the texts that name its network classes."""
    name, equals, text = word.partition("=")
    if not equals or word.lower().endswith(".json"):
        return _entries_of_file(Path(word))
    if not name.strip():
        raise FeatxError(f"A map is CLASS=NUMBERS, like cats=281-285, or a JSON file. Received: {printable(word)}")
    return [(name.strip(), [text])]


def _entries_of_file(path: Path) -> list[tuple[str, list[str]]]:
    content = read_json(path, "map of classes")
    if not isinstance(content, dict) or not content:
        raise FeatxError(f'The map of classes {printable(path)} contains no {{"CLASS": "281-285", …}}.')
    entries = []
    for name, value in content.items():
        if not name.strip():
            raise FeatxError(f"In {printable(path)}, a class has an empty name.")
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(type(text) in {str, int} for text in texts):
            raise FeatxError(
                f"In {printable(path)}, the class {printable(name)} has neither numbers nor texts like 281-285."
            )
        entries.append((name, [str(text) for text in texts]))
    return entries


def _numbers(text: str, class_name: str, n_network_classes: int, class_list: Sequence[NetworkClass]) -> tuple[int, ...]:
    """Return the numbers of the network classes that `text` names."""
    parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
    numbers: list[int] = []
    for part in parts:
        if part is None:
            return (_number_of_class(text, class_name, class_list),)
        if part["id"]:
            numbers.append(_number_of_class(part["id"], class_name, class_list))
            continue
        first, last = int(part["first"]), int(part["last"] or part["first"])
        if first > last:
            raise FeatxError(
                f"A range of network classes begins with the smaller number. Received: {printable(part[0])}"
            )
        if last >= n_network_classes:
            raise FeatxError(
                f"The network's classes are numbered from 0 to {n_network_classes - 1}. Received: {last} for "
                f"{printable(class_name)}"
            )
        numbers += range(first, last + 1)
    return tuple(numbers)


def _number_of_class(text: str, class_name: str, class_list: Sequence[NetworkClass]) -> int:
    """Return the number of the network class that has the WordNet id or the name `text`."""
    wanted = text.strip().casefold()
    if not wanted:
        raise FeatxError(f"The class {printable(class_name)} has no network classes: name some, like 281-285.")
    if not class_list:
        raise FeatxError(
            f"Network classes are numbers and ranges, like 281-285,290; with a class list (--class-list) also WordNet "
            f"ids and names. Received: {printable(text)} for {printable(class_name)}"
        )
    found = [
        number
        for number, network_class in enumerate(class_list)
        if wanted in {network_class.name.casefold(), (network_class.wordnet_id or "").casefold()}
    ]
    if len(found) > 1:
        numbers = ", ".join(map(str, found))
        raise FeatxError(f"Several network classes have this name: {numbers}. Received: {printable(text)}")
    if not found:
        meant = did_you_mean(text.strip(), (network_class.name for network_class in class_list))
        raise FeatxError(
            f"The class list has no network class with this name or WordNet id. Received: {printable(text)} for "
            f"{printable(class_name)}.{meant}"
        )
    return found[0]


def _built_in(n_network_classes: int, class_names: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    names = ("cats", "dogs") if class_names is None else class_names
    known = {name: _BUILT_IN[name.casefold()] for name in names if name.casefold() in _BUILT_IN}
    if n_network_classes != _N_IMAGENET:
        raise FeatxError(
            f"This network has {n_network_classes} classes of its own, not the {_N_IMAGENET} of ImageNet: map them "
            f"to your classes with --map CLASS=NUMBERS."
        )
    if len(known) < len(names):
        unknown = ", ".join(printable(name) for name in names if name not in known)
        raise FeatxError(f"Only cats and dogs have a built-in map: add --map CLASS=NUMBERS for {unknown}.")
    return known


def _check_names(mapped: Mapping[str, object], class_names: Sequence[str]) -> None:
    """Raise FeatxError unless the classes of a map are those of the data set, two or more."""
    listed = ", ".join(printable(name) for name in class_names)
    if unknown := [name for name in mapped if name not in class_names]:
        meant = did_you_mean(unknown[0], class_names)
        raise FeatxError(f"The data set has the classes {listed}. Received a map of {printable(unknown[0])}.{meant}")
    if missing := [name for name in class_names if name not in mapped]:
        raise FeatxError(
            f"The class {printable(missing[0])} has no network classes: add --map {printable(missing[0])}=NUMBERS."
        )
    if len(class_names) < 2:
        raise FeatxError(f"Map at least two classes. Received: {listed} only")


def _check_once(mapped: Mapping[str, Sequence[int]]) -> None:
    """Raise FeatxError if a network class would be counted twice."""
    owners = [(number, name) for name, numbers in mapped.items() for number in numbers]
    counts = Counter(number for number, _ in owners)
    for number, n_times in counts.items():
        if n_times > 1:
            names = sorted({printable(name) for owner, name in owners if owner == number})
            raise FeatxError(f"The network class {number} may occur only once. Received: in {' and '.join(names)}")


def _network_class(item: Any, number: int, path: Path) -> NetworkClass:
    name, wordnet_id = item, None
    if isinstance(item, list) and len(item) == 2:
        wordnet_id, name = item
    elif isinstance(item, dict):
        name = item.get("name")
        wordnet_id = next((item[key] for key in ("wordnet_id", "wnid", "id") if key in item), None)
    if not isinstance(name, str) or not name.strip() or not isinstance(wordnet_id, str | None):
        raise FeatxError(
            f"In the class list {printable(path)}, number {number} is neither a name nor [WordNet id, name] nor "
            f'{{"wordnet_id": …, "name": …}}.'
        )
    return NetworkClass(name.strip(), wordnet_id)


def _distinct_names(class_list: Sequence[NetworkClass]) -> list[str]:
    """Return a name for each class; ImageNet has two cranes, the bird and the machine, so these get their numbers."""
    counts = Counter(network_class.name for network_class in class_list)
    return [
        network_class.name if counts[network_class.name] == 1 else f"{network_class.name} ({number})"
        for number, network_class in enumerate(class_list)
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text: `281-283,290`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
