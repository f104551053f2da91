"""Room on the disk: is there enough?"""

import shutil
from pathlib import Path

from featx.errors import FeatxError, printable
from featx.units import size

#: What is left free for everybody else.
RESERVE_BYTES = 64 << 20


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Check that `n_bytes` more fit on the disk that `folder` is on; `what` begins the sentence if they do not.

    Raises:
        FeatxError: they do not.
    """
    free_bytes = shutil.disk_usage(folder).free
    if n_bytes + RESERVE_BYTES > free_bytes:
        raise FeatxError(
            f"{what} takes {size(n_bytes)}, and only {size(free_bytes)} are free on the disk of "
            f"{printable(folder)}; make room, or name a folder on another disk with --to."
        )
