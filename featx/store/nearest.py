"""Exact nearest neighbours among rows of features, some rows at a time: they need not fit in memory."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from featx.store.feature_array import Rows, in_order

_Floats = npt.NDArray[np.float32]

#: Cosines are compared in steps of this, far above the rounding of float32, so that copies are equally near.
_STEP = 1e-6


def unit_rows(features: npt.ArrayLike) -> _Floats:
    """Return one row of length 1 for each of the features `(n, …, c)`: `(n, c)` float32.

    Positions are averaged. A row of zeros stays one, and has a cosine of 0 with every other.
    """
    rows = np.asarray(features, np.float32)
    rows = rows.reshape(len(rows), -1, rows.shape[-1]).mean(axis=1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: _Floats = rows / np.where(lengths > 0, lengths, 1)
    return unit


def nearest_rows(
    queries: _Floats,
    X: Rows,
    k: int,
    *,
    own: npt.NDArray[np.int64] | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Return the `k` rows of `X` nearest to each query by cosine, the nearest first, of equally near ones the first.

    Every row is compared with every query, so none is missed.

    Args:
        queries: `(q, c)`, from `unit_rows`.
        X: `(n, …, c)` features, in memory or on disk.
        k: how many; all of them if `n` is less.
        own: `(q,)`, the row that each query is itself, and that is no answer to it; -1 of none.
        done: called with the number of rows that were looked at since the last call.

    Returns:
        The rows, `(q, k)`, and their cosines. Where there are fewer, the row is -1 and the cosine NaN.
    """
    k = min(k, len(X))
    best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
    for which, features in in_order(X):
        for query, cosine in enumerate(queries @ unit_rows(features).T):
            others = slice(None) if own is None else which != own[query]
            rows, near = best[query]
            best[query] = _best(np.concatenate([rows, which[others]]), np.concatenate([near, cosine[others]]), k)
        done(len(which))
    found, cosine = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan, np.float32)
    for query, (rows, near) in enumerate(best):
        found[query, : len(rows)], cosine[query, : len(rows)] = rows, near
    return found, cosine


def _best(rows: npt.NDArray[np.int64], cosine: _Floats, k: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Return the `k` nearest of some rows, sorted."""
    steps = np.rint(cosine / np.float32(_STEP))
    if len(rows) > k:
        near = np.flatnonzero(steps >= np.partition(steps, len(rows) - k)[len(rows) - k])  # and all as near as the last
        rows, cosine, steps = rows[near], cosine[near], steps[near]
    order = np.lexsort([rows, -steps])[:k]
    return rows[order], cosine[order]
