"""Numbers with units, for people."""


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
