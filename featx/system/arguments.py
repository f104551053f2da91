"""Checks what functions and commands receive: names, numbers, sizes, times and JSON; and formats these."""

import difflib
import operator
import re
from collections.abc import Collection, Iterable
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.text import printable

#: Characters of a value that an error shows.
_MAX_SHOWN = 80
#: More threads than any machine has cores, and than decoding has use for.
MAX_THREADS = 4096

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def shown(value: object) -> str:
    """Return the received value and its type in one short line, for the end of an error.

    >>> shown(64), shown([1, 2])
    ('64 (int)', '[1, 2] (list)')
    """
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '…'} ({type(value).__name__})"


def brief(value: object) -> str:
    """Return a name or path for a repr: in one line, its middle left out if it is long.

    >>> brief("data/cats"), len(brief("x" * 1000))
    ('data/cats', 80)
    """
    text = printable(value)
    half = _MAX_SHOWN // 2
    return text if len(text) <= _MAX_SHOWN else f"{text[: half - 1]}…{text[-half:]}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: a question with the nearest known one, or nothing.

    >>> did_you_mean("VGG61", ["vgg16", "vgg19", "resnet50"]), did_you_mean("abacus", ["vgg16", "resnet50"])
    (' Did you mean vgg16?', '')
    """
    by_folded = {name.casefold(): name for name in known}
    nearest = difflib.get_close_matches(word.casefold(), by_folded) if isinstance(word, str) else []
    swapped = [name for name in nearest if sorted(name) == sorted(str(word).casefold())]  # vgg61 is vgg16, not vgg19
    return f" Did you mean {printable(by_folded[(swapped or nearest)[0]])}?" if nearest else ""


def check_name(value: object, known: Collection[str], rule: str, error: type[FeatxError] = FeatxError) -> None:
    """Raise `error` unless `value` is one of the `known` names, with `rule`, the value, and the nearest name.

    >>> check_name("vgg61", ["vgg16", "resnet50"], "A backbone must be vgg16 or resnet50.")
    Traceback (most recent call last):
    featx.errors.FeatxError: A backbone must be vgg16 or resnet50. Received: 'vgg61'. Did you mean vgg16?
    """
    if isinstance(value, str) and value in known:
        return
    received = repr(value) if isinstance(value, str) else shown(value)
    meant = did_you_mean(value, known)
    raise error(f"{rule} Received: {received}{f'.{meant}' if meant else ''}")


def whole_number(what: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Return `value`, a whole number of any type, as an `int`.

    >>> whole_number("epochs", 5)
    5

    Raises:
        FeatxError: it is not a whole number, or is below `least` or above `most`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # what it raises for is answered here
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        limits = f"from {least:,} to {most:,}" if most is not None else f"of {least} or more"
        raise FeatxError(f"{what} must be a whole number {limits}. Received: {shown(value)}")
    return number


def as_workers(workers: int | None) -> int | None:
    """Return a number of threads, from 1 to `MAX_THREADS`; None for as many as cores.

    Raises:
        FeatxError: it is neither.
    """
    return None if workers is None else whole_number("workers", workers, most=MAX_THREADS)


def names(what: str, given: object) -> tuple[str, ...]:
    """Return the names in `given`; one name alone is a tuple of one.

    >>> names("backbones", "vgg16"), names("backbones", ["vgg16", "resnet50"])
    (('vgg16',), ('vgg16', 'resnet50'))

    Raises:
        FeatxError: it is neither text nor a list of texts.
    """
    listed = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise FeatxError(f"{what} must be a list of names. Received: {shown(given)}")
    return listed


def as_mask(given: npt.ArrayLike, n: int) -> npt.NDArray[np.bool_]:
    """Return `given` as an array `(n,)` bool.

    Raises:
        FeatxError: it has another shape or dtype.
    """
    mask = np.asarray(given)
    if mask.shape != (n,) or mask.dtype != bool:
        raise FeatxError(
            f"A mask must have true or false for each of {n} images. Received: {mask.shape} of {mask.dtype}"
        )
    return mask


def as_rows(given: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    """Return which of n rows a mask `(n,)` bool or numbers `(k,)` choose, as an array of their kind.

    Raises:
        IndexError: there is no such row.
        TypeError: it is neither.
    """
    rows = np.asarray(given)
    if rows.shape == (0,):
        return np.empty(0, np.int64)
    if rows.ndim != 1 or not (rows.dtype == bool or np.issubdtype(rows.dtype, np.integer)):
        raise TypeError(f"choose rows by a number, a slice, a mask, or a list of numbers. Received: {shown(given)}")
    if rows.dtype == bool and len(rows) != n:
        raise IndexError(f"a mask must have true or false for each of {n} rows. Received: {len(rows)}")
    return rows


def size(size_bytes: int) -> str:
    """Return a size in binary units, to three digits at most.

    >>> [size(n) for n in (0, 1000, 1536, 1023 * 1024**2, 5 * 1024**3 // 4)]
    ['0 B', '1000 B', '1.5 KiB', '1023 MiB', '1.2 GiB']
    """
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:
            return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def parse_size(text: str) -> int:
    """Return a size in bytes; units are binary, with or without the letters `i` and `B`.

    >>> [parse_size(text) for text in ("4GiB", "512 MB", "1.5g", "1048576")]
    [4294967296, 536870912, 1610612736, 1048576]

    Raises:
        FeatxError: `text` is not a size.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise FeatxError(
            f"A size must be a number of bytes, or a number with a unit, such as 4GiB or 512MiB. Received: {text!r}"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_duration(text: str) -> float:
    """Return the seconds in a time like `"90m"`, `"8h"` or `"1d12h"`: days, hours, minutes and seconds.

    >>> [parse_duration(text) for text in ("90m", "8h", "1d12h", "1.5h", "45 s")]
    [5400.0, 28800.0, 129600.0, 5400.0, 45.0]

    Raises:
        FeatxError: it is not such a time, or is zero.
    """
    units = "".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in _SECONDS)
    found = re.fullmatch(units, re.sub(r"\s", "", text.lower()), re.ASCII)
    seconds = sum(float(found[unit] or 0) * size_s for unit, size_s in _SECONDS.items()) if found else 0.0
    if seconds <= 0:
        raise FeatxError(
            f"A time must be a number of days, hours or minutes, such as 90m, 8h or 1d12h. Received: {text!r}"
        )
    return seconds


def duration(seconds: float) -> str:
    """Return a time for people, as precise as necessary.

    >>> [duration(s) for s in (0, 0.0042, 4.06, 41.2, 59.7, 123, 3900, 180_000)]
    ['0 s', '<0.01 s', '4.1 s', '41 s', '1 min 00 s', '2 min 03 s', '1 h 05 min', '2 d 02 h']
    """
    if seconds < 9.95:
        if seconds < 0.01:
            return "<0.01 s" if seconds > 0 else "0 s"
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds) < 3600:
        return "{} min {:02} s".format(*divmod(round(seconds), 60))
    if round(seconds / 60) < 24 * 60:
        return "{} h {:02} min".format(*divmod(round(seconds / 60), 60))
    return "{} d {:02} h".format(*divmod(round(seconds / 3600), 24))


def from_json_value(kind: Any, value: Any) -> Any:
    """Return `value`, as JSON has it, as a value of the type `kind`: a dataclass, tuple, path or float, or what it is.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is none.
    """
    if get_origin(kind) is UnionType:
        return None if value is None else from_json_value(get_args(kind)[0], value)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: from_json_value(types[name], member) for name, member in value.items()})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return tuple(from_json_value(inner[0 if inner[-1] is ... else i], item) for i, item in enumerate(value))
    return kind(value) if kind in {float, Path} else value
