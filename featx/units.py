"""Numbers with units, for people."""

import re

from featx.errors import FeatxError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


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
    """Return the bytes that a size is; units are binary, with or without their letters.

    >>> [parse_size(text) for text in ("4GiB", "512 MB", "1.5g", "1048576")]
    [4294967296, 536870912, 1610612736, 1048576]

    Raises:
        FeatxError: `text` is no size.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise FeatxError(f"A size is a number of bytes, or one with a unit, like 4GiB or 512MiB. Received: {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_duration(text: str) -> float:
    """Return the seconds in a time like `"90m"`, `"8h"` or `"1d12h"`: days, hours, minutes and seconds.

    >>> [parse_duration(text) for text in ("90m", "8h", "1d12h", "1.5h", "45 s")]
    [5400.0, 28800.0, 129600.0, 5400.0, 45.0]

    Raises:
        FeatxError: it is no such time, or none at all.
    """
    units = "".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in _SECONDS)
    found = re.fullmatch(units, re.sub(r"\s", "", text.lower()), re.ASCII)
    seconds = sum(float(found[unit] or 0) * size_s for unit, size_s in _SECONDS.items()) if found else 0.0
    if seconds <= 0:
        raise FeatxError(f"A time is a number of days, hours or minutes, like 90m, 8h or 1d12h. Received: {text!r}")
    return seconds
