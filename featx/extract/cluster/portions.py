"""Work cut into portions: large enough to be worth a segment, small enough to lose, and smaller towards the end."""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

#: A portion is work for so long. A worker that is killed takes no more with it; and once for each portion, its engine
#: waits for the first images and for the last segment.
PORTION_S = 20.0

#: Towards the end, when portions are made smaller so that all workers end together, none is smaller than this.
LEAST_S = 1.0

#: Of how fast a worker is, its first portion tells: so many batches.
FIRST_BATCHES = 4

#: A portion is no larger, however fast the worker: its names have to travel, and its rows may be computed again.
MAX_IMAGES = 8192


@dataclass(frozen=True)
class Portion:
    """Work for one worker.

    Attributes:
        rows: `(n,)` int64, which of the images.
        n_lost: workers that were lost with them so far.
    """

    rows: np.ndarray
    n_lost: int = 0


class Portions:
    """All that is still to be handed out, in its order: views of one image are side by side, and stay so."""

    def __init__(self, n_rows: int, batch_size: int) -> None:
        """Begin with all rows of `n_rows`, which workers compute in batches of `batch_size`."""
        self._waiting = deque([Portion(np.arange(n_rows))])
        self._batch_size = batch_size

    @property
    def n_left(self) -> int:
        """Rows that are not handed out."""
        return sum(len(portion.rows) for portion in self._waiting)

    def take(self, images_per_s: float | None, n_workers: int) -> Portion:
        """Return the next portion, for one of `n_workers`, which computes `images_per_s`; None if nobody knows yet.

        There must be rows left.
        """
        size = _size(images_per_s, self.n_left, n_workers, self._batch_size)
        portion = self._waiting.popleft()
        if len(portion.rows) > size:
            self._waiting.appendleft(replace(portion, rows=portion.rows[size:]))
        return replace(portion, rows=portion.rows[:size])

    def give_back(self, portion: Portion) -> None:
        """Have a portion handed out again, before all others."""
        if len(portion.rows):
            self._waiting.appendleft(portion)


def _size(images_per_s: float | None, n_left: int, n_workers: int, batch_size: int) -> int:
    """Return how many images the next portion has: whole batches.

    >>> [_size(rate, n_left, 4, 32) for rate, n_left in ((None, 10**6), (150, 10**6), (150, 8000), (150, 300), (1, 99))]
    [128, 2976, 992, 128, 32]
    """
    if images_per_s is None:
        wanted = float(FIRST_BATCHES * batch_size)
    else:
        fair = max(n_left / (2 * n_workers), LEAST_S * images_per_s)
        wanted = min(PORTION_S * images_per_s, fair, MAX_IMAGES)
    return batch_size * max(1, int(wanted / batch_size))
