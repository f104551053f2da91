"""Finds doubtful labels by confident learning, with a model that was not trained on the image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.clean.problems import LOOK, Problem
from featx.clean.readable import ReadableImages
from featx.dataset import UNLABELLED, ImageDataset
from featx.heads import THRESHOLD, Targets, held_out_probabilities
from featx.store import Rows
from featx.text import printable
from featx.train import images_together, pooled

#: Another class must be so many times as probable as the label.
LEAST_ODDS = 2.0

#: A model that agrees with fewer of the labels is more likely to be wrong than they are: then a person has to look.
LEAST_AGREEMENT = 0.8


@dataclass(frozen=True)
class Doubt:
    """A label that is possibly wrong.

    Attributes:
        row: of the image.
        label: its class. If images can have several labels, one that it has, or `not` one that it lacks.
        probability: of that, from 0 to 1.
        suggested: what is most probable instead.
        suggested_probability: of that.
        is_confident: whether the label is as improbable as wrong ones are, see `find_doubts`.
    """

    row: int
    label: str
    probability: float
    suggested: str
    suggested_probability: float
    is_confident: bool


def find_doubts(labels: Targets, probabilities: npt.NDArray[np.floating], class_names: Sequence[str]) -> list[Doubt]:
    """Return the labels that are possibly wrong, the most doubtful first: those with the lowest probability.

    How many are wrong is estimated by confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating
    uncertainty in dataset labels", Journal of Artificial Intelligence Research 70, 2021). A class has a threshold: the
    mean probability of it among the images that are labelled so. An image is counted for the most probable class whose
    threshold it reaches. These counts by label and class, the confident joint, are scaled to the numbers of images of
    each label. What is then off the diagonal is the number of wrong labels. As many images are returned, if another
    class is at least twice as probable as the label.

    An image is confident if it is itself off the diagonal, and its label is at most as probable as labels are wrong: a
    model that learns from labels of which 2 % are wrong gives 2 % to the wrong ones. So few are confident if few are
    wrong, and most doubts are mistakes of the model.

    We planted wrong labels among 10,000 photographs of cats and dogs. With 2 % planted, 82 % of the list are planted
    labels, and the list has 87 % of the planted labels; with 8 %, 92 and 90 %. A list of all labels with a probability
    of at most 10 % would have 80 % of the planted labels with 2 %, but only half of them with 8 %. Of the confident
    labels, 99 % (with 2 %) and 100 % (with 8 %) are planted; they are 53 and 42 % of the planted labels.

    If images can have several labels, each label is looked at by itself, as a choice between having it and not. An
    image is in the list once, with the label that is doubted most.

    Args:
        labels: `(n,)` int64, or `(n, n_classes)` bool.
        probabilities: `(n, n_classes)` of each image, by models that were trained without it.
        class_names: of the classes.
    """
    if labels.ndim == 1:
        return list(_doubts_of_classes(labels, probabilities, class_names))
    by_row: dict[int, Doubt] = {}
    for number, name in enumerate(class_names):
        of_label = np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
        for doubt in _doubts_of_classes(labels[:, number].astype(np.int64), of_label, (f"not {name}", name)):
            if doubt.row not in by_row or doubt.probability < by_row[doubt.row].probability:
                by_row[doubt.row] = doubt
    return sorted(by_row.values(), key=lambda doubt: doubt.probability)


def _doubts_of_classes(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], class_names: Sequence[str]
) -> Iterator[Doubt]:
    rows, n_classes = np.arange(len(labels)), len(class_names)
    own = probabilities[rows, labels].astype(np.float64)
    n_images = np.bincount(labels, minlength=n_classes)
    means = np.bincount(labels, weights=own, minlength=n_classes) / np.maximum(n_images, 1)
    reached = np.where(probabilities >= np.where(n_images > 0, means, np.inf), probabilities, -1)
    counted = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (labels[counted >= 0], counted[counted >= 0]), 1)
    joint *= (n_images / np.maximum(joint.sum(axis=1), 1))[:, np.newaxis]
    n_wrong = round(joint.sum() - np.trace(joint))
    suggested = probabilities.argmax(axis=1)
    best = probabilities[rows, suggested].astype(np.float64)
    doubted = np.flatnonzero((suggested != labels) & (best >= LEAST_ODDS * own))
    is_confident = (counted == suggested) & (own * len(labels) <= n_wrong)
    for row in doubted[np.argsort(own[doubted], kind="stable")][:n_wrong].tolist():
        names = class_names[labels[row]], class_names[suggested[row]]
        yield Doubt(row, names[0], float(own[row]), names[1], float(best[row]), bool(is_confident[row]))


def doubtful_labels(
    images: ReadableImages, rows: npt.NDArray[np.int64], X: Rows, near: npt.NDArray[np.int64], *, show: bool
) -> tuple[list[Problem], str]:
    """Return the images whose label is possibly wrong, and a sentence if that is not known, or badly; else nothing.

    Each is held out, with its copies and all of its group, when the model is trained that looks at it: logistic
    regression on pooled features, which finds as many wrong labels as on all features, in a tenth of the time. The
    score is the probability of the label.

    Args:
        images: n images.
        rows: `(k,)`, those that have features.
        X: `(k, …)`, these.
        near: `(m, 2)`, positions in `rows` of two images that show the same photograph.
        show: whether to show progress on stderr.
    """
    cannot = "featx did not check the labels: this needs two classes, each with two different images."
    dataset = images.dataset.subset(np.isin(np.arange(images.dataset.n_images), rows))
    if dataset.class_names == (UNLABELLED,) or not len(rows):
        return [], cannot
    units = images_together(dataset, near)
    kept = _can_be_held_out(dataset, units)
    y, names = dataset.labels[kept], dataset.class_names
    if not dataset.is_multilabel:
        numbers, y = np.unique(y, return_inverse=True)
        names = tuple(names[number] for number in numbers)
    if len(names) < 2:
        return [], cannot
    of_unit = units[kept].astype("<i8").view(np.uint8).reshape(-1, 8)
    probabilities = held_out_probabilities(pooled(X)[kept], y, of_unit, len(names), show=show)
    agreement = share_agreed(y, probabilities)
    is_weak, rows = agreement < LEAST_AGREEMENT, rows[kept]
    found = [
        _problem(images, int(rows[doubt.row]), doubt, is_weak=is_weak) for doubt in find_doubts(y, probabilities, names)
    ]
    sentence = (
        f"The model that checks the labels agrees with only {100 * agreement:.0f} % of them, so most labels "
        f"that it doubts may be right: try another backbone, or larger images."
    )
    return found, sentence if is_weak else ""


def share_agreed(labels: Targets, probabilities: npt.NDArray[np.floating]) -> float:
    """Return the share of labels, 0 to 1, that are the most probable ones."""
    answers = probabilities > THRESHOLD if labels.ndim == 2 else probabilities.argmax(axis=1)
    return float((answers == labels).mean())


def _can_be_held_out(dataset: ImageDataset, units: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return `(n,)` bool: the images of classes that have an image left to train on when one is held out."""
    if dataset.is_multilabel:
        return np.ones(dataset.n_images, bool)
    _, first = np.unique(units, return_index=True)
    n_units = np.bincount(dataset.labels[first], minlength=len(dataset.class_names))
    can: npt.NDArray[np.bool_] = (n_units > 1)[dataset.labels]
    return can


def _problem(images: ReadableImages, row: int, doubt: Doubt, *, is_weak: bool) -> Problem:
    dataset, suggestion = images.dataset, LOOK
    if doubt.is_confident and not (is_weak or dataset.is_multilabel):
        suggestion = f"{'move to' if dataset.given_labels is None else 'relabel as'} {doubt.suggested}"
    label, suggested = printable(doubt.label), printable(doubt.suggested)
    reason = (
        f"looks like {suggested} ({100 * doubt.suggested_probability:.0f} %), not {label} "
        f"({100 * doubt.probability:.0f} %)"
    )
    path, split, text = dataset.paths[row], images.splits[row], images.labels[row]
    return Problem("label", path, "", split, text, doubt.probability, suggestion, reason)
