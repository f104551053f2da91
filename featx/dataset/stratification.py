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
    labels: npt.NDArray[np.bool_],
    units: npt.NDArray[np.int64],
    lots: npt.NDArray[np.generic],
    fraction: float,
    *,
    sides: npt.NDArray[np.int8] | None = None,
    n_kept: int = 1,
) -> npt.NDArray[np.bool_]:
    """Return `(n,)` bool: a part with this share of the images of each label.

    Of each label that more than `n_kept` units have, it gets one image or more, and leaves `n_kept` or more, where the
    other labels of these images and the sides allow it.

    Args:
        labels: as for `iterative_parts`, as are `units` and `lots`.
        units: see there.
        lots: see there.
        fraction: the share.
        sides: `(n,)`: 1 or 0 for images that are in the part already, or not; -1 for others; the same for all of a
            unit. None if all are open.
        n_kept: units of each label that stay outside.
    """
    deal = _Deal(labels, units, lots, sides)
    totals, n_units = deal.counts.sum(axis=0), deal.has.sum(axis=0)
    wanted = np.round(fraction * totals)
    wanted[:-1] = np.where(n_units > n_kept, np.clip(wanted[:-1], 1, totals[:-1] - n_kept), 0)
    part = deal.out(np.stack([totals - wanted, wanted]))
    for label in np.flatnonzero(n_units > n_kept):
        having = deal.order[deal.has[deal.order, label]]
        for needed, least in ((1, 1), (0, n_kept)):  # the learning part last: there, the label matters most
            n_short = max(least - int((part[having] == needed).sum()), 0)
            movable = [unit for unit in having if n_short and part[unit] != needed and deal.sides[unit] < 0]
            spare = [unit for unit in movable if _can_leave(deal.has, part, unit)]
            chosen = dict.fromkeys([*spare, *(movable if needed == 0 else [])])
            part[list(chosen)[:n_short]] = needed
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
        sides: `(n_units,)`, the part of those that are in one already, else -1.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.bool_],
        units: npt.NDArray[np.int64],
        lots: npt.NDArray[np.generic],
        sides: npt.NDArray[np.int8] | None = None,
    ) -> None:
        distinct, first = np.unique(units, return_index=True)
        self.counts = np.zeros((len(distinct), labels.shape[1] + 1))
        np.add.at(self.counts, units, np.column_stack([labels, np.ones(len(labels))]))
        self.has = self.counts[:, :-1] > 0
        self.order = np.argsort(lots[first], kind="stable")
        self.sides = np.full(len(distinct), -1) if sides is None else sides[first].astype(np.int64)

    def out(self, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the part of each unit, `(n_units,)`; `wanted` is `(n_parts, n_labels + 1)`, as `counts`."""
        part = self.sides.copy()
        dealt = [self.counts[part == number].sum(axis=0) for number in range(len(wanted))]
        needs: list[list[float]] = (wanted - np.stack(dealt)).tolist()

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
