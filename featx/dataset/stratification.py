"""Divides images with several labels each so that every part gets its share of each label.

This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML
PKDD 2011): the images of the rarest label are dealt out first, each to the part that needs this label most. Here,
images that belong together are dealt out together.
"""

import numpy as np
import numpy.typing as npt


def iterative_parts(
    labels: npt.NDArray[np.bool_], units: npt.NDArray[np.int64], lots: npt.NDArray[np.generic], n_parts: int
) -> npt.NDArray[np.int64]:
    """Return `(n,)` int64 from 0 to `n_parts - 1`: parts of about the same size, with about as much of each label.

    Args:
        labels: `(n, n_labels)`, which labels each image has.
        units: `(n,)` from 0, without gaps, the same for images that no two parts may share.
        lots: `(n,)`, the same for all images of a unit: the lower, the sooner a unit is dealt out.
        n_parts: number of parts.
    """
    deal = _Deal(labels, units, lots)
    return deal.out(np.repeat(deal.counts.sum(axis=0)[np.newaxis] / n_parts, n_parts, axis=0))[units]


def iterative_mask(
    labels: npt.NDArray[np.bool_], units: npt.NDArray[np.int64], lots: npt.NDArray[np.generic], fraction: float
) -> npt.NDArray[np.bool_]:
    """Return `(n,)` bool: a part with this share of the images of each label.

    Of each label that two units or more have, it gets one image or more, and leaves one or more, where the other labels
    of these images allow it. Arguments as for `iterative_parts`.
    """
    deal = _Deal(labels, units, lots)
    totals = deal.counts.sum(axis=0)
    wanted = np.round(fraction * totals)
    wanted[:-1] = np.maximum(wanted[:-1], deal.has.sum(axis=0) > 1)
    part = deal.out(np.stack([totals - wanted, wanted]))
    for label in np.flatnonzero(deal.has.sum(axis=0) > 1):
        having = deal.order[deal.has[deal.order, label]]
        for needed in (1, 0):  # the learning part last: there, the label matters most
            if not (part[having] == needed).any():
                spare = [unit for unit in having if _can_leave(deal.has, part, unit)]
                part[(spare or having[: 1 - needed])[:1]] = needed
    mask: npt.NDArray[np.bool_] = (part == 1)[units]
    return mask


def _can_leave(has: npt.NDArray[np.bool_], part: npt.NDArray[np.int64], unit: int) -> bool:
    """Return whether another unit of the same part has each label of this one."""
    n_there = has[part == part[unit]].sum(axis=0)
    return bool((n_there[has[unit]] > 1).all())


class _Deal:
    """Units that are dealt out.

    Attributes:
        counts: `(n_units, n_labels + 1)`, the number of images with each label, and of all.
        has: `(n_units, n_labels)`, which labels there are.
        order: `(n_units,)`, the units in the order of their lots.
    """

    def __init__(
        self, labels: npt.NDArray[np.bool_], units: npt.NDArray[np.int64], lots: npt.NDArray[np.generic]
    ) -> None:
        distinct, first = np.unique(units, return_index=True)
        self.counts = np.zeros((len(distinct), labels.shape[1] + 1))
        np.add.at(self.counts, units, np.column_stack([labels, np.ones(len(labels))]))
        self.has = self.counts[:, :-1] > 0
        self.order = np.argsort(lots[first], kind="stable")

    def out(self, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the part of each unit, `(n_units,)`; `wanted` is `(n_parts, n_labels + 1)`, as `counts`."""
        part = np.full(len(self.counts), -1)
        needs: list[list[float]] = wanted.tolist()

        def deal(units: npt.NDArray[np.int64], column: int) -> None:
            for unit in units[part[units] < 0].tolist():
                best = max(range(len(needs)), key=lambda one: (needs[one][column], needs[one][-1]))
                part[unit] = best
                for label in np.flatnonzero(self.counts[unit]).tolist():
                    needs[best][label] -= self.counts[unit, label]

        while (n_left := self.has[part < 0].sum(axis=0)).any():
            label = int(np.where(n_left > 0, n_left, np.inf).argmin())
            deal(self.order[self.has[self.order, label]], label)
        deal(self.order, -1)
        return part
