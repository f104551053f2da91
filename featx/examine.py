"""Looks at a comparison image by image."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from featx.dataset import ImageDataset
from featx.examination import (
    ApproachImages,
    Cell,
    DoubtfulLabel,
    Examination,
    MapPoint,
    Mistake,
    NearDuplicate,
)
from featx.feature_map import feature_map
from featx.metrics import reliability
from featx.neighbours import NEAR_DUPLICATE, is_feasible, nearest_training_images
from featx.rows import Rows, take

log = logging.getLogger("featx")

#: So many are named: the worst mistakes of an approach, images in a cell of its confusion matrix, near-duplicates,
#: doubtful labels.
N_MISTAKES, N_IN_CELL, N_DUPLICATES, N_DOUBTFUL = 12, 12, 40, 40

#: Points on the map: more would hide each other, and each brings its thumbnail.
N_ON_MAP = 1500

#: An image whose own class has at most this probability, from a head that has not seen it, has a doubtful label.
DOUBTFUL_BELOW = 0.1


def examine(
    dataset: ImageDataset,
    probabilities: Mapping[str, np.ndarray],
    best: str,
    seed: int,
    *,
    backbone: str | None = None,
    X: Rows | None = None,
    out_of_fold: np.ndarray | None = None,
    judge: str | None = None,
    skipped: Sequence[tuple[str, str]] = (),
) -> Examination:
    """Return a comparison image by image.

    Args:
        dataset: the images that everything was trained and tested on.
        probabilities: `(n_test, n_classes)` of each approach, by its name.
        best: the name of the approach whose predictions the map shows.
        seed: of the map.
        backbone: whose features `X` are.
        X: `(n, …)`, the features of all images of `dataset`; None if there are none.
        out_of_fold: `(n_train, n_classes)`, see `featx.heads.TrainedHead`; None if there are none.
        judge: the approach that `out_of_fold` belongs to, whose probabilities tell of the test images' labels.
        skipped: (path, reason) of images that could not be read.
    """
    test, train = np.flatnonzero(dataset.is_test), np.flatnonzero(~dataset.is_test)
    duplicates: list[NearDuplicate] = []
    is_duplicate = np.zeros(len(test), bool)
    is_searched = X is not None and is_feasible(len(train), len(test), X.shape[1:])
    if X is not None and not is_searched:
        log.info("Near-duplicates across the splits are not looked for: among so many images that would take too long.")
    if X is not None and is_searched:
        nearest = nearest_training_images(take(X, train), take(X, test))
        is_duplicate = nearest.cosine >= NEAR_DUPLICATE
        closest = np.flatnonzero(is_duplicate)[np.argsort(-nearest.cosine[is_duplicate], kind="stable")]
        duplicates = [
            _near_duplicate(dataset, test[i], train[nearest.rows[i]], float(nearest.cosine[i])) for i in closest
        ]
    doubtful = [] if out_of_fold is None or judge is None else _doubtful(dataset, out_of_fold, probabilities[judge])
    approaches = tuple(
        _approach_images(dataset, test, name, rows, is_duplicate if is_searched else None)
        for name, rows in probabilities.items()
    )
    return Examination(
        approaches=approaches,
        backbone=backbone,
        n_near_duplicates=len(duplicates),
        near_duplicates=tuple(duplicates[:N_DUPLICATES]),
        n_doubtful=len(doubtful),
        doubtful=tuple(doubtful[:N_DOUBTFUL]),
        map=() if X is None else _map(dataset, X, probabilities[best], seed),
        skipped=tuple(skipped),
    )


def _approach_images(
    dataset: ImageDataset, test: np.ndarray, name: str, probabilities: np.ndarray, is_duplicate: np.ndarray | None
) -> ApproachImages:
    labels, predicted = dataset.labels[test], probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    by_sureness = np.argsort(-sure, kind="stable")
    names = dataset.class_names
    wrong = [i for i in by_sureness if predicted[i] != labels[i]]
    mistakes = tuple(
        Mistake(dataset.paths[test[i]], names[labels[i]], names[predicted[i]], float(sure[i]))
        for i in wrong[:N_MISTAKES]
    )
    cells: dict[tuple[int, int], list[str]] = {}
    for i in by_sureness:
        paths = cells.setdefault((int(labels[i]), int(predicted[i])), [])
        if len(paths) < N_IN_CELL:
            paths.append(dataset.paths[test[i]])
    right = predicted == labels
    kept = right if is_duplicate is None else right[~is_duplicate]
    return ApproachImages(
        name=name,
        mistakes=mistakes,
        cells=tuple(Cell(names[true], names[guess], tuple(paths)) for (true, guess), paths in sorted(cells.items())),
        reliability=reliability(labels, probabilities),
        accuracy_without_duplicates=float(kept.mean()) if is_duplicate is not None and len(kept) else None,
    )


def _near_duplicate(dataset: ImageDataset, test_row: int, train_row: int, cosine: float) -> NearDuplicate:
    names, labels = dataset.class_names, dataset.labels
    return NearDuplicate(
        dataset.paths[test_row], dataset.paths[train_row], names[labels[test_row]], names[labels[train_row]], cosine
    )


def _doubtful(dataset: ImageDataset, out_of_fold: np.ndarray, of_test: np.ndarray) -> list[DoubtfulLabel]:
    """Return the images whose label their features contradict, the most doubtful first."""
    probabilities = np.empty((dataset.n_images, len(dataset.class_names)), np.float32)
    probabilities[~dataset.is_test] = out_of_fold
    probabilities[dataset.is_test] = of_test
    own = probabilities[np.arange(len(probabilities)), dataset.labels]
    rows = np.flatnonzero((own <= DOUBTFUL_BELOW) & (probabilities.argmax(axis=1) != dataset.labels))
    return [
        DoubtfulLabel(
            path=dataset.paths[row],
            split="test" if dataset.is_test[row] else "train",
            label=dataset.class_names[dataset.labels[row]],
            label_probability=float(own[row]),
            suggested=dataset.class_names[int(probabilities[row].argmax())],
            suggested_probability=float(probabilities[row].max()),
        )
        for row in rows[np.argsort(own[rows], kind="stable")]
    ]


def _map(dataset: ImageDataset, X: Rows, probabilities: np.ndarray, seed: int) -> tuple[MapPoint, ...]:
    """Return some of the test images, a random sample by their digests, with their places."""
    test = np.flatnonzero(dataset.is_test)
    by_digest = np.argsort(dataset.digests[test].view("S32")[:, 0], kind="stable")[:N_ON_MAP]
    chosen = np.sort(by_digest)
    places = feature_map(X[test[chosen]], seed)
    predicted = probabilities.argmax(axis=1)
    names = dataset.class_names
    return tuple(
        MapPoint(dataset.paths[test[i]], names[dataset.labels[test[i]]], names[predicted[i]], float(x), float(y))
        for i, (x, y) in zip(chosen, places, strict=True)
    )
