"""Names of classes that people take for one: in another Unicode form or letter case, with a blank at the end."""

import difflib
import unicodedata
from collections.abc import Callable, Sequence

from featx.errors import DatasetError, printable


def _without_unseen(name: str) -> str:
    return "".join(char for char in name if unicodedata.category(char) != "Cf")


#: How names can differ that people take for one, and what takes the difference away.
_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "characters that cannot be seen": _without_unseen,
    "blanks": lambda name: "".join(name.split()),
    "letter case": str.lower,
}


def looks_of(name: str) -> str:
    r"""Return what stays of a name when what cannot be seen, or is easily mistaken, is taken off it.

    Names that people take for one are the same then: in other letter case, with blanks around, or in another
    Unicode form (é as one character or as two).

    >>> looks_of("Cafe\u0301 ") == looks_of("caf\u00e9")
    True
    """
    for simpler in _DIFFERENCES.values():
        name = simpler(name)
    return name


def difference_of(name: str, other: str) -> list[str]:
    r"""Return in what two names differ that have the same looks.

    >>> difference_of("Cats", "cats"), difference_of("cats ", "Cats"), difference_of("cafe\u0301", "caf\u00e9")
    (['letter case'], ['blanks', 'letter case'], ['Unicode form'])
    """

    def without(left_out: str, text: str) -> str:
        for what, simpler in _DIFFERENCES.items():
            text = text if what == left_out else simpler(text)
        return text

    return [what for what in _DIFFERENCES if without(what, name) != without(what, other)]


def alike_warning(names: Sequence[str]) -> str:
    """Return a warning of classes whose names differ in letter case, or in what cannot be seen.

    Raises:
        DatasetError: the names of two classes differ in no more than blanks or Unicode form.
    """
    known: dict[str, str] = {}
    pairs = [(other, name) for name in names if (other := known.setdefault(looks_of(name), name)) != name]
    pairs.sort(key=lambda pair: _is_mistake(*pair), reverse=True)
    if not pairs:
        return ""
    first, second = pairs[0]
    n_more = len(pairs) - 1
    more = {0: "", 1: " There is one more such pair."}.get(n_more, f" There are {n_more:,} more such pairs.")
    sentence = (
        f"Two classes are called '{printable(first)}' and '{printable(second)}': the names differ only in "
        f"{' and '.join(difference_of(first, second))}.{more}"
    )
    if _is_mistake(first, second):
        raise DatasetError(f"{sentence} Rename one of the folders, or move their images into one.")
    return sentence


def _is_mistake(name: str, other: str) -> bool:
    """Return whether nobody would call two classes by these names on purpose."""
    return not {"blanks", "Unicode form"}.isdisjoint(difference_of(name, other))


def near_match(test_only: Sequence[str], known: Sequence[str]) -> str:
    """Return which training class the first of these classes that has one like it may be; empty if none has."""
    by_looks = {looks_of(name): name for name in known}
    for name in test_only:
        if other := by_looks.get(looks_of(name)):
            return (
                f"'{printable(name)}' and the training class '{printable(other)}' differ in "
                f"{' and '.join(difference_of(name, other))}: rename one of the folders. Otherwise "
            )
        close = difflib.get_close_matches(looks_of(name), by_looks, n=1, cutoff=0.8)
        if close and _without_digits(close[0]) != _without_digits(looks_of(name)):
            return f"is '{printable(name)}' the training class '{printable(by_looks[close[0]])}'? Otherwise "
    return ""


def _without_digits(name: str) -> str:
    return "".join(char for char in name if not char.isdigit())
