"""What users give to the functions of the library: one name where several are expected, numbers, other types."""

import operator
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError

#: Characters of a value that an error shows.
_MAX_SHOWN = 80


def shown(value: object) -> str:
    """Return what was received, for the end of an error: the value and its type, in one short line.

    >>> shown(64), shown([1, 2])
    ('64 (int)', '[1, 2] (list)')
    """
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '…'} ({type(value).__name__})"


def whole_number(what: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Return `value`, a whole number of any type, as an `int`.

    >>> whole_number("epochs", 5)
    5

    Raises:
        FeatxError: it is no whole number, or below `least`, or above `most`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # what it raises for is answered here
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        limits = f"from {least:,} to {most:,}" if most is not None else f"of {least} or more"
        raise FeatxError(f"{what} is a whole number {limits}. Received: {shown(value)}")
    return number


def as_workers(workers: int | None) -> int | None:
    """Return a number of threads, 1 or more; None for as many as cores.

    Raises:
        FeatxError: it is neither.
    """
    return None if workers is None else whole_number("workers", workers)


def names(what: str, given: object) -> tuple[str, ...]:
    """Return the names in `given`; one name alone is a tuple of one.

    >>> names("backbones", "vgg16"), names("backbones", ["vgg16", "resnet50"])
    (('vgg16',), ('vgg16', 'resnet50'))

    Raises:
        FeatxError: it is neither text nor a list of texts.
    """
    listed = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise FeatxError(f"{what} is a list of names. Received: {shown(given)}")
    return listed


def as_mask(given: npt.ArrayLike, n: int) -> npt.NDArray[np.bool_]:
    """Return `given` as an array `(n,)` bool.

    Raises:
        FeatxError: it has another shape or dtype.
    """
    mask = np.asarray(given)
    if mask.shape != (n,) or mask.dtype != bool:
        raise FeatxError(f"A mask has true or false for each of {n} images. Received: {mask.shape} of {mask.dtype}")
    return mask
