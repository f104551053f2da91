"""Rows of features that are read some at a time, whether they are in memory or on disk."""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.heads.logistic import Scaled
from featx.store import in_order
from featx.system import prefetched, progress_bar

#: Bytes of centred rows that are held at a time.
_SLAB_BYTES = 4 << 20


def scaled_slabs(
    features: Scaled, what: str, *, show: bool
) -> Generator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield all rows, centred and scaled: which ones, `(k,)`, and the rows, `(k, n_features)`; with a progress bar.

    Args:
        features: the rows.
        what: the name of the head that reads them.
        show: show progress on stderr.
    """
    with (
        closing(prefetched(in_order(features.X))) as parts,
        progress_bar(len(features.X), what, "rows", show=show) as bar,
    ):
        for which, some in parts:
            size = max(1, _SLAB_BYTES // (4 * features.mean.size))
            for start in range(0, len(which), size):
                rows = some[start : start + size].reshape(-1, features.mean.size)
                yield which[start : start + size], scaled_rows(features, rows)
                bar.update(len(rows))


def scaled_rows(features: Scaled, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return some rows `(k, ...)` centred and scaled like `features`: `(k, n_features)`."""
    flat = rows.reshape(len(rows), -1)
    return ((flat - features.mean) * features.scale).astype(np.float32)
