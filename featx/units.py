"""Numbers with units, for people."""

import re

from featx.errors import FeatxError

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
