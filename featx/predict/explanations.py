"""Explanations of predictions: where in an image the evidence for its class is, and the nearest training images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from featx.extract import StoredImages
from featx.heads import Evidence, Head, TunedHead, find_evidence, why_no_evidence
from featx.predict.predictions import Prediction, Predictions
from featx.recipe import Recipe
from featx.storage import StoragePath
from featx.store import FeatureStore
from featx.system import progress_bar
from featx.train import NearestImage, Reference, SavedRun

#: Training images that are named for each image, and the most that can be.
N_NEAREST, MAX_NEAREST = 5, 1000

#: Features that are in memory at a time, as float32.
READ_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of the prediction for one image.

    Attributes:
        prediction: the prediction.
        evidence: by the name of the class, what each position of the image adds to the score of the class. It has the
            predicted class. If images can have several labels, it has each predicted label, or the most likely label if
            none is predicted. Empty if there is no evidence, see `Explanations.why_no_evidence`.
        nearest: the training images with the most similar features, the most similar first; empty for an image that
            cannot be read.
    """

    prediction: Prediction
    evidence: dict[str, Evidence] = field(repr=False)
    nearest: tuple[NearestImage, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """The explanations of the predictions for n images, in the order in which the images were given.

    Attributes:
        predictions: the n predictions.
        evidence: n, as in `Explanation`.
        nearest: n, as in `Explanation`.
        why_no_evidence: why there is no evidence, as a sentence; empty if there is.
        recipe: of the features; it says how the network sees an image.
        data_dir: the folder or archive that the paths of the training images are relative to; None if it is not on this
            machine.
    """

    predictions: Predictions
    evidence: tuple[dict[str, Evidence], ...] = field(repr=False)
    nearest: tuple[tuple[NearestImage, ...], ...] = field(repr=False)
    why_no_evidence: str
    recipe: Recipe
    data_dir: StoragePath | None

    def __len__(self) -> int:
        return len(self.predictions)

    @overload
    def __getitem__(self, row: int) -> Explanation: ...
    @overload
    def __getitem__(self, row: slice) -> list[Explanation]: ...
    def __getitem__(self, row: int | slice) -> Explanation | list[Explanation]:
        if isinstance(row, slice):
            return [self[number] for number in range(len(self))[row]]
        return Explanation(self.predictions[row], self.evidence[row], self.nearest[row])

    def __repr__(self) -> str:
        return f"<Explanations of {len(self):,} predictions>"


def explain_predictions(
    predictions: Predictions,
    images: StoredImages,
    run: SavedRun,
    head: Head | TunedHead,
    store: FeatureStore,
    reference: Reference,
    k: int,
    *,
    show: bool = False,
) -> Explanations:
    """Return the explanations of predictions.

    Args:
        predictions: of the images.
        images: the images, with their features in `store`.
        run: what predicts.
        head: its head.
        store: of the run's recipe.
        reference: the training images that the run remembers.
        k: number of training images for each image.
        show: show progress on stderr.
    """
    why = why_no_evidence(head)
    evidence: list[dict[str, Evidence]] = [{} for _ in images.paths]
    nearest: list[tuple[NearestImage, ...]] = [() for _ in images.paths]
    rows = np.flatnonzero(images.is_readable)
    step = max(1, READ_BYTES // (4 * int(np.prod(head.feature_shape))))
    with progress_bar(len(rows), "explain", "images", show=show) as bar:
        for start in range(0, len(rows), step):
            some = rows[start : start + step].tolist()
            X = store.read(images.digests[some])
            for row, found in zip(some, reference.nearest_images(X, k), strict=True):
                nearest[row] = found
            if not why:
                for row, name, one in _evidence(predictions, some, X, head, reference):
                    evidence[row][name] = one
            bar.update(len(some))
    return Explanations(predictions, tuple(evidence), tuple(nearest), why, run.recipe, run.data_dir())


def _evidence(
    predictions: Predictions, rows: list[int], X: np.ndarray, head: Head | TunedHead, reference: Reference
) -> list[tuple[int, str, Evidence]]:
    """Return the evidence for the predicted classes of the images with these numbers, whose features are `X`."""
    names = predictions.class_names
    shown = [(place, name) for place, row in enumerate(rows) for name in _explained(predictions[row])]
    places = [place for place, _ in shown]
    found = find_evidence(head, X[places], [names.index(name) for _, name in shown], reference.mean)
    return [(rows[place], name, one) for (place, name), one in zip(shown, found, strict=True)]


def _explained(prediction: Prediction) -> tuple[str, ...]:
    return prediction.labels or tuple(name for name, _ in prediction.top[:1])
