"""Explains an approach's most confident mistakes: the evidence for the wrong answer, the nearest training images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset
from featx.heads import Targets, find_evidence, is_right, probability_of_truth, trained_head, why_no_evidence
from featx.train import Features, NearestImage, Reference, Result

#: The mistakes of an approach that are shown, and the training images that are named for each.
N_MISTAKES, N_NEAREST = 12, 3

#: A heat map has at most so many positions a side: more cannot be told apart on the page.
MAX_SIDE = 28


@dataclass(frozen=True)
class HeatMap:
    """The evidence for the class `label` at each position of an image, `(h, w)`, see `featx.heads.find_evidence`."""

    label: str
    map: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Reasons:
    """The explanation of the answer about one image.

    Attributes:
        nearest: the training images with the most similar features, the most similar first; empty if there were no
            features, and in cross-validation.
        heat_map: the evidence for the wrong answer; None if the head or its features have no positions.
    """

    nearest: tuple[NearestImage, ...] = ()
    heat_map: HeatMap | None = None


@dataclass(frozen=True, eq=False)
class SurestMistakes:
    """Of n test images, the k that are wrong with the most confidence, at most `N_MISTAKES`, the most confident first.

    Attributes:
        rows: `(k,)` int64, which ones.
        labels: `(k,)` int64, the classes that they are taken for; if images can have several labels, the label whose
            wrong answer is the most certain.
        probabilities: `(k,)` float64, of these answers.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: npt.NDArray[np.float64], y: Targets) -> "SurestMistakes":
        """Find them by the probabilities `(n, n_classes)` of images with the labels `y`."""
        answers = 1 - probability_of_truth(probabilities, y) if y.ndim == 2 else probabilities
        sure = answers.max(axis=1)
        order = np.argsort(-sure, kind="stable")
        rows = order[~is_right(probabilities, y)[order]][:N_MISTAKES]
        return cls(rows, answers[rows].argmax(axis=1), sure[rows])


def explain_mistakes(features: Features, result: Result, reference: Reference) -> dict[str, Reasons]:
    """Return what the surest mistakes of a head on the test images rest on, by the path of the image.

    Args:
        features: what it was trained and measured on.
        result: the head.
        reference: the training images.
    """
    dataset = features.dataset
    test = np.flatnonzero(dataset.is_test)
    mistakes = SurestMistakes.of(result.probabilities, dataset.labels[test])
    images = test[mistakes.rows]
    if not len(images):
        return {}
    X = features.X[images]
    maps = _heat_maps(dataset, result, X, mistakes.labels, reference.mean)
    nearest = reference.nearest_images(X, N_NEAREST)
    return {
        dataset.paths[row]: Reasons(near, heat_map)
        for row, near, heat_map in zip(images.tolist(), nearest, maps, strict=True)
    }


def _heat_maps(
    dataset: ImageDataset, result: Result, X: np.ndarray, labels: npt.NDArray[np.int64], mean: np.ndarray
) -> list[HeatMap | None]:
    names = dataset.class_names
    head = trained_head(result, len(names))
    if why_no_evidence(head):
        return [None] * len(X)
    found = find_evidence(head, X, labels, mean)
    return [HeatMap(names[one.label], tuple(map(tuple, _coarse(one.map).round(4).tolist()))) for one in found]


def _coarse(evidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the same evidence at `MAX_SIDE` positions a side or fewer: neighbours are added up."""
    for axis, side in enumerate(evidence.shape):
        together = -(-side // MAX_SIDE)
        evidence = np.add.reduceat(evidence, np.arange(0, side, together), axis=axis)
    return evidence
