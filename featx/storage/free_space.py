"""Room on a disk: looked at before something is written, or meanwhile if nobody knows how large it will be."""

import shutil
from pathlib import Path

from featx.errors import FeatxError
from featx.system import size
from featx.text import printable

#: What is left free for everybody else.
RESERVE_BYTES = 64 << 20


def check_space(folder: Path, n_bytes: int, what: str, advice: str) -> None:
    """Check that `n_bytes` more fit on the disk that `folder` is on.

    Args:
        folder: on the disk.
        n_bytes: to be written.
        what: begins the sentence if they do not fit.
        advice: ends it.

    Raises:
        FeatxError: they do not fit.
    """
    free_bytes = shutil.disk_usage(folder).free
    if n_bytes + RESERVE_BYTES > free_bytes:
        raise FeatxError(
            f"{what} takes {size(n_bytes)}, and only {size(free_bytes)} are free on the disk of "
            f"{printable(folder)}; {advice}."
        )


def check_reserve(folder: Path, what: str, advice: str) -> None:
    """Check, while something grows on the disk that `folder` is on, that others still have room there.

    Raises:
        FeatxError: they have not; the sentence begins with `what`, and ends with `advice`.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < RESERVE_BYTES:
        raise FeatxError(
            f"{what} does not fit: only {size(free_bytes)} are left on the disk of {printable(folder)}; {advice}."
        )
