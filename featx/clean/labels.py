"""Which labels are doubtful, by what a model that has not seen an image says of it: confident learning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.clean.copies import Images
from featx.clean.problems import LOOK, Problem
from featx.dataset import UNLABELLED, ImageDataset
from featx.heads import Targets, held_out_probabilities
from featx.store import Rows
from featx.text import printable
from featx.train import images_together, pooled

#: A label that is at most this probable is suggested to be changed; of others, a person has to look.
CHANGE_BELOW = 0.1


@dataclass(frozen=True)
class Doubt:
    """A label that is possibly wrong.

    Attributes:
        row: of the image.
        label: its class. If images can have several labels, one that it has, or `not` one that it lacks.
        probability: of that, from 0 to 1.
        suggested: what is likely instead.
        suggested_probability: of that.
    """

    row: int
    label: str
    probability: float
    suggested: str
    suggested_probability: float

    @property
    def margin(self) -> float:
        """How much more probable the suggestion is than the label, from -1 to 1."""
        return self.suggested_probability - self.probability


def find_doubts(labels: Targets, probabilities: npt.NDArray[np.floating], class_names: Sequence[str]) -> list[Doubt]:
    """Return the labels that are possibly wrong, the most doubtful first: those with the largest margin.

    An image is likely to be of a class if its probability of it is at least the mean of those of the images with this
    label: a class that a model knows badly has a low threshold. Of several such classes, the most probable counts. If
    it is not the label, the label is doubtful: in the words of confident learning, the image is off the diagonal of the
    confident joint (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 70, 2021).

    If images can have several labels, each label is looked at by itself, as a choice between having it and not. An
    image is in the list once, with the label that is doubted most.

    Args:
        labels: `(n,)` int64, or `(n, n_classes)` bool.
        probabilities: `(n, n_classes)` of each image, by models that were trained without it.
        class_names: of the classes.
    """
    if labels.ndim == 1:
        doubts = list(_doubts_of_classes(labels, probabilities, class_names))
    else:
        by_row: dict[int, Doubt] = {}
        for number, name in enumerate(class_names):
            of_label = np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
            answers = (f"not {name}", name)
            for doubt in _doubts_of_classes(labels[:, number].astype(np.int64), of_label, answers):
                if doubt.row not in by_row or doubt.margin > by_row[doubt.row].margin:
                    by_row[doubt.row] = doubt
        doubts = list(by_row.values())
    return sorted(doubts, key=lambda doubt: -doubt.margin)


def _doubts_of_classes(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], class_names: Sequence[str]
) -> Iterator[Doubt]:
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=len(class_names))
    means = np.bincount(labels, weights=own, minlength=len(class_names)) / np.maximum(counts, 1)
    above = np.where(probabilities >= np.where(counts > 0, means, np.inf), probabilities, -1)
    likely = above.argmax(axis=1)
    for row in np.flatnonzero((above.max(axis=1) >= 0) & (likely != labels)).tolist():
        suggested = class_names[likely[row]]
        yield Doubt(row, class_names[labels[row]], float(own[row]), suggested, float(above[row, likely[row]]))


def doubtful_labels(
    images: Images, rows: npt.NDArray[np.int64], X: Rows, near: npt.NDArray[np.int64], *, show: bool
) -> list[Problem] | None:
    """Return the images whose label is possibly wrong; None if no label can be checked.

    Each is held out, with its copies and all of its group, when the model is trained that looks at it: logistic
    regression on pooled features. The score is the margin.

    Args:
        images: n images.
        rows: `(k,)`, those that have features.
        X: `(k, …)`, these.
        near: `(m, 2)`, positions in `rows` of two images that show the same photograph.
        show: whether to show progress on stderr.
    """
    dataset = images.dataset.subset(np.isin(np.arange(images.dataset.n_images), rows))
    if dataset.class_names == (UNLABELLED,) or not len(rows):
        return None
    units = images_together(dataset, near)
    kept = _can_be_held_out(dataset, units)
    y, names = dataset.labels[kept], dataset.class_names
    if not dataset.is_multilabel:
        numbers, y = np.unique(y, return_inverse=True)
        names = tuple(names[number] for number in numbers)
    if len(names) < 2:
        return None
    of_unit = units[kept].astype("<i8").view(np.uint8).reshape(-1, 8)
    probabilities = held_out_probabilities(pooled(X)[kept], y, of_unit, len(names), show=show)
    has_table = dataset.given_labels is not None
    return [
        _problem(images, int(rows[kept][doubt.row]), doubt, has_table) for doubt in find_doubts(y, probabilities, names)
    ]


def _can_be_held_out(dataset: ImageDataset, units: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return `(n,)` bool: the images of classes that have an image left to train on when one is held out."""
    if dataset.is_multilabel:
        return np.ones(dataset.n_images, bool)
    _, first = np.unique(units, return_index=True)
    n_units = np.bincount(dataset.labels[first], minlength=len(dataset.class_names))
    can: npt.NDArray[np.bool_] = (n_units > 1)[dataset.labels]
    return can


def _problem(images: Images, row: int, doubt: Doubt, has_table: bool) -> Problem:
    dataset, suggestion = images.dataset, LOOK
    if doubt.probability <= CHANGE_BELOW and not dataset.is_multilabel:
        suggestion = f"{'relabel as' if has_table else 'move to'} {doubt.suggested}"
    label, suggested = printable(doubt.label), printable(doubt.suggested)
    reason = (
        f"looks like {suggested} ({100 * doubt.suggested_probability:.0f} %), not {label} "
        f"({100 * doubt.probability:.0f} %)"
    )
    path, split, text = dataset.paths[row], images.splits[row], images.labels[row]
    return Problem("label", path, "", split, text, doubt.margin, suggestion, reason)
