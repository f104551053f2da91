"""Copies of images, and which of them featx suggests to remove: one of each set stays.

featx suggests to remove a file only if nothing is lost, and if nobody has to decide anything: the copy that stays is of
the same class. It is in the same split or, if it has the same bytes, in the test split. For all other copies, featx
suggests to look at them.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from featx.clean.problems import LOOK, REMOVE, Problem
from featx.clean.readable import ReadableImages
from featx.text import printable


def exact_copies(images: ReadableImages) -> tuple[list[Problem], npt.NDArray[np.int64]]:
    """Return the exact copies, and for each image, `(n,)` int64, the row of the one that stands for it and its copies.

    Of copies in one class, one stays: one in the test split if there is any, because results on the test split should
    stay comparable; then the one with the shortest path, which is hardly `cat (1).jpg`. The score is the number of
    files with these bytes. Copies in several classes come first.
    """
    digests = np.ascontiguousarray(images.dataset.digests).view("S32")[:, 0]
    order = np.argsort(digests, kind="stable")
    ends = np.flatnonzero(digests[order[1:]] != digests[order[:-1]]) + 1
    stands_for = np.arange(len(digests))
    conflicts: list[Problem] = []
    others: list[Problem] = []
    for rows in map(np.ndarray.tolist, np.split(order, ends)):
        if len(rows) > 1:
            kept = min(rows, key=lambda row: (not images.dataset.is_test[row], *_by_path(images, row)))
            stands_for[rows] = kept
            is_conflict = len({images.labels[row] for row in rows}) > 1
            of_set = [_exact_copy(images, row, kept, len(rows), is_conflict) for row in rows if row != kept]
            (conflicts if is_conflict else others).extend(of_set)
    others.sort(key=lambda problem: -(problem.score or 0))
    return [*conflicts, *others], stands_for


def _by_path(images: ReadableImages, row: int) -> tuple[int, str]:
    path = images.dataset.paths[row]
    return len(path), path


def _exact_copy(images: ReadableImages, row: int, kept: int, n_copies: int, is_conflict: bool) -> Problem:
    suggestion, other = LOOK, images.name(kept)
    if not images.are_of_one_class(row, kept):
        reason = f"the same bytes as {other} of the class {printable(images.labels[kept])}: one of the labels is wrong"
    elif is_conflict:
        reason = f"the same bytes as {other}; another copy is in another class, so one of the labels is wrong"
    elif images.are_one_file(row, kept):
        reason = f"a link to the same file as {other}"
    else:
        suggestion, reason = REMOVE, f"the same bytes as {other}"
    return images.problem("copy", row, kept, n_copies, suggestion, reason)


def near_copies(
    images: ReadableImages,
    rows: npt.NDArray[np.int64],
    correlation: npt.NDArray[np.float32],
    stands_for: npt.NDArray[np.int64],
) -> list[Problem]:
    """Return the pairs of images that show the same photograph in other bytes.

    Of copies in one class and split, the best stay, see `ReadableImages.rank`, and each other one goes that is a
    near-copy of one that stays. Pairs across classes come first, then those across splits. The score is the correlation
    of the details, see `featx.train.find_copies`.

    Args:
        images: n images.
        rows: `(k, 2)`, the pairs.
        correlation: `(k,)`, of each.
        stands_for: `(n,)`, see `exact_copies`: pairs of these say all about their copies.
    """
    pairs: dict[tuple[int, int], float] = {}
    for (one, other), score in zip(stands_for[rows].tolist(), correlation.tolist(), strict=True):
        if one != other:
            pair = (one, other) if images.rank(one) < images.rank(other) else (other, one)
            pairs[pair] = max(score, pairs.get(pair, 0.0))
    removed = dict(_removable(images, pairs, _undecided(images, stands_for)))
    across_classes: list[Problem] = []
    across_splits: list[Problem] = []
    within: list[Problem] = []
    for (best, other), score in sorted(pairs.items(), key=lambda item: -item[1]):
        if removed.get(other) == best:
            shape = f"{images.looks[best].width}×{images.looks[best].height} pixels"
            reason = f"shows the same photograph as {images.name(best)} of {shape}, which stays"
            within.append(images.problem("near-copy", other, best, score, REMOVE, reason))
        elif best in removed or other in removed:
            continue  # the one that stays says the same of it
        elif not images.are_of_one_class(best, other):
            label = printable(images.labels[best])
            reason = (
                f"shows the same photograph as {images.name(best)} of the class {label}: one of the labels is wrong"
            )
            across_classes.append(images.problem("near-copy", other, best, score, LOOK, reason))
        elif images.are_together(best, other):
            reason = f"shows the same photograph as {images.name(best)}, but has an exact copy that you have to look at"
            within.append(images.problem("near-copy", other, best, score, LOOK, reason))
        else:
            train, test = (best, other) if images.splits[best] == "train" else (other, best)
            reason = f"shows the same photograph as {images.name(test)}, so results look better than they are"
            across_splits.append(images.problem("near-copy", train, test, score, LOOK, reason))
    return [*across_classes, *across_splits, *within]


def _undecided(images: ReadableImages, stands_for: npt.NDArray[np.int64]) -> set[int]:
    """Return the images with an exact copy that a person has to look at: that copy would lose what it is a copy of."""
    copies = np.flatnonzero(stands_for != np.arange(len(stands_for)))
    pairs = zip(copies.tolist(), stands_for[copies].tolist(), strict=True)
    return {kept for row, kept in pairs if not images.are_of_one_class(row, kept) or images.are_one_file(row, kept)}


def _removable(
    images: ReadableImages, pairs: dict[tuple[int, int], float], undecided: set[int]
) -> Iterator[tuple[int, int]]:
    """Yield the images that can go, each with the near-copy of its class and split that stays; no `undecided` ones.

    Whether two images show the same photograph does not follow from a third one: so each has a copy of its own that
    stays. The best images are asked first.
    """
    better: dict[int, list[int]] = {}
    for best, other in pairs:
        if images.are_together(best, other):
            better.setdefault(other, []).append(best)
    gone: set[int] = set()
    for row in sorted(better, key=images.rank):
        kept = [one for one in better[row] if one not in gone]
        if kept and row not in undecided:
            gone.add(row)
            yield row, max(kept, key=lambda one: pairs[one, row])
