"""Looks at a comparison image by image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from featx.clean import LEAST_AGREEMENT, find_doubts, share_agreed
from featx.compare.mistakes import Reasons, SurestMistakes
from featx.dataset import ImageDataset, label_texts
from featx.heads import THRESHOLD, at_temperature, is_right
from featx.similar import feature_map
from featx.store import Rows
from featx.train import NO_LABEL, Copies, CoveragePoint, ReliabilityBin, measure, reliability, risk_coverage

#: So many are named: images in a cell of a confusion matrix, near-duplicates, doubtful labels.
N_IN_CELL, N_DUPLICATES, N_DOUBTFUL = 12, 40, 40

#: Training images of each class that are shown as samples.
N_SAMPLES = 4

#: Points on the map: more would hide each other, and each brings its thumbnail.
N_ON_MAP = 1500


@dataclass(frozen=True)
class Mistake:
    """A test image that an approach gets wrong: `probability` is that of the class `predicted`.

    With several labels, `label` and `predicted` are sets of labels, and the probability is that of the most certain
    wrong answer about one of them. `reasons` is what the answer rests on.
    """

    path: str
    label: str
    predicted: str
    probability: float
    reasons: Reasons = field(default_factory=Reasons)


@dataclass(frozen=True)
class Cell:
    """Some test images of the class `label` that an approach predicts as `predicted`, the most confident first.

    With several labels, one of the two is a label and the other the same with `not`: the label is predicted where it is
    not there, or missed.
    """

    label: str
    predicted: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class ApproachImages:
    """One approach, image by image.

    Attributes:
        name: of the approach.
        mistakes: the most confident first.
        cells: one for each pair of classes that has images.
        reliability: how often it is right, by its confidence.
        reliability_before: the same before it was calibrated; empty if it was not.
        calibration_error_before: the calibration error before; None if it was not calibrated.
        risk_coverage: how often it is wrong about the test images that it is surest of; empty in results of an older
            featx, and with several labels.
        accuracy_without_duplicates: on the test images without a near-duplicate in the train split; None if it is
            unknown or no image is left.
    """

    name: str
    mistakes: tuple[Mistake, ...]
    cells: tuple[Cell, ...]
    reliability: tuple[ReliabilityBin, ...]
    accuracy_without_duplicates: float | None
    reliability_before: tuple[ReliabilityBin, ...] = ()
    calibration_error_before: float | None = None
    risk_coverage: tuple[CoveragePoint, ...] = ()

    def __repr__(self) -> str:
        return f"<ApproachImages of {self.name}: {len(self.mistakes):,} mistakes, {len(self.cells):,} cells>"


@dataclass(frozen=True)
class NearDuplicate:
    """A test image and the training image that shows the same photograph; `cosine` of their details, at most 1."""

    test_path: str
    train_path: str
    test_label: str
    train_label: str
    cosine: float


@dataclass(frozen=True)
class CopyWithin:
    """Two images of one split that show the same photograph; `correlation` of their details, at most 1."""

    split: str
    first_path: str
    second_path: str
    first_label: str
    second_label: str
    correlation: float


@dataclass(frozen=True)
class ExactCopies:
    """Files with identical bytes.

    Attributes:
        kind: within one split, of a training image in the test split, or in another class; a copy can be all three.
        n: how many copies.
        examples: (path, path of its copy).
    """

    kind: Literal["within a split", "across splits", "across classes"]
    n: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClassSample:
    """A class: the number of its images, the validation part among the training images; and some of the latter."""

    label: str
    n_train: int
    n_test: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class DoubtfulLabel:
    """An image whose label is possibly wrong; both probabilities are from a head that has not seen it."""

    path: str
    split: str
    label: str
    label_probability: float
    suggested: str
    suggested_probability: float


@dataclass(frozen=True)
class MapPoint:
    """One test image on the map, at `x` and `y` from 0 to 1, and the class that the best approach predicts."""

    path: str
    label: str
    predicted: str
    x: float
    y: float


@dataclass(frozen=True)
class ErrorAnalysis:
    """A comparison, image by image. Paths are relative to the data set's folder.

    Attributes:
        approaches: in the comparison's order.
        backbone: whose features the remaining attributes use; None if there were no features, and then they are empty.
        n_near_duplicates: test images with a near-duplicate in the train split; None if they were not searched.
        near_duplicates: the closest of them.
        n_doubtful: images whose label is possibly wrong.
        doubtful: the most doubtful of them.
        map: some of the test images.
        skipped: (path, reason) of images that could not be read.
        n_copies_within: pairs of near-duplicates in one split; None if they were not searched.
        copies_within: some of them, those in different classes first, then the most certain.
        copies: exact copies, by kind; a kind without copies is left out.
        classes: every class, with sample images.
        weak_agreement: the share of labels, 0 to 1, that the head agrees with which doubts labels, if that is so small
            that most of its doubts may be wrong; else None.
    """

    approaches: tuple[ApproachImages, ...]
    backbone: str | None
    n_near_duplicates: int | None
    near_duplicates: tuple[NearDuplicate, ...]
    n_doubtful: int
    doubtful: tuple[DoubtfulLabel, ...]
    map: tuple[MapPoint, ...]
    skipped: tuple[tuple[str, str], ...]
    n_copies_within: int | None = None
    copies_within: tuple[CopyWithin, ...] = ()
    copies: tuple[ExactCopies, ...] = ()
    classes: tuple[ClassSample, ...] = ()
    weak_agreement: float | None = None

    def __repr__(self) -> str:
        return (
            f"<ErrorAnalysis of {len(self.approaches)} approaches: {self.n_near_duplicates or 0:,} near-duplicates, "
            f"{self.n_doubtful:,} doubtful labels>"
        )


def analyse_errors(
    dataset: ImageDataset,
    probabilities: Mapping[str, np.ndarray],
    best: str,
    seed: int,
    *,
    backbone: str | None = None,
    X: Rows | None = None,
    near: Copies | None = None,
    temperatures: Mapping[str, float | np.ndarray] | None = None,
    out_of_fold: np.ndarray | None = None,
    judge: str | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    reasons: Mapping[str, Mapping[str, Reasons]] | None = None,
) -> ErrorAnalysis:
    """Return a comparison image by image.

    Args:
        dataset: the images that everything was trained and tested on.
        probabilities: `(n_test, n_classes)` of each approach, by its name.
        best: the name of the approach whose predictions the map shows.
        seed: of the map.
        backbone: whose features `X` are.
        X: `(n, …)`, the features of all images of `dataset`; None if there are none.
        near: the near-duplicates among them; None if they were not searched.
        temperatures: what the probabilities of an approach were calibrated with, by its name: one number, or one for
            each test image, `(n_test,)`.
        out_of_fold: `(n_train, n_classes)`, see `featx.heads.training_loop.Trained`; None if there are none.
        judge: the approach that `out_of_fold` belongs to, whose probabilities check the test images' labels.
        skipped: (path, reason) of images that could not be read.
        reasons: what mistakes rest on, by the approach and the path of the image; None if there is nothing to say.
    """
    across, within = ([], []) if near is None else _near_duplicates(dataset, near)
    is_duplicate = None
    if near is not None:
        of_test = {pair.test_path for pair in across}
        is_duplicate = np.array([dataset.paths[row] in of_test for row in np.flatnonzero(dataset.is_test)], bool)
    doubtful: list[DoubtfulLabel] = []
    agreement = 1.0
    if out_of_fold is not None and judge is not None:
        doubtful, agreement = _doubtful(dataset, out_of_fold, probabilities[judge])
    return ErrorAnalysis(
        approaches=tuple(
            _approach_images(
                dataset, name, rows, is_duplicate, (temperatures or {}).get(name), (reasons or {}).get(name, {})
            )
            for name, rows in probabilities.items()
        ),
        backbone=backbone,
        n_near_duplicates=None if near is None else len(across),
        near_duplicates=tuple(across[:N_DUPLICATES]),
        n_doubtful=len(doubtful),
        doubtful=tuple(doubtful[:N_DOUBTFUL]),
        map=() if X is None else _map(dataset, X, probabilities[best], seed),
        skipped=tuple(skipped),
        n_copies_within=None if near is None else len(within),
        copies_within=tuple(within[:N_DUPLICATES]),
        copies=tuple(_copies(dataset)),
        classes=tuple(_class_samples(dataset)),
        weak_agreement=agreement if agreement < LEAST_AGREEMENT else None,
    )


def _copies(dataset: ImageDataset) -> Iterator[ExactCopies]:
    kinds: tuple[tuple[Literal["within a split", "across splits", "across classes"], np.ndarray], ...] = (
        ("within a split", dataset.duplicates()),
        ("across splits", dataset.leaks()),
        ("across classes", dataset.label_conflicts()),
    )
    for kind, pairs in kinds:
        if len(pairs):
            examples = tuple((dataset.paths[a], dataset.paths[b]) for a, b in pairs[:N_DUPLICATES].tolist())
            yield ExactCopies(kind, len(pairs), examples)


def _class_samples(dataset: ImageDataset) -> Iterator[ClassSample]:
    """Yield each class with a random sample of its training images, by their digests."""
    n_train, n_test = dataset.class_counts
    rows = np.flatnonzero(~dataset.is_test)
    rows = rows[np.argsort(dataset.digests[rows].view("S32")[:, 0], kind="stable")]
    for label, name in enumerate(dataset.class_names):
        paths = tuple(dataset.paths[row] for row in rows[dataset.has_class(label)[rows]][:N_SAMPLES])
        yield ClassSample(name, int(n_train[label]), int(n_test[label]), paths)


def _approach_images(
    dataset: ImageDataset,
    name: str,
    probabilities: np.ndarray,
    is_duplicate: np.ndarray | None,
    temperature: float | np.ndarray | None,
    reasons: Mapping[str, Reasons],
) -> ApproachImages:
    test = np.flatnonzero(dataset.is_test)
    labels, right = dataset.labels[test], is_right(probabilities, dataset.labels[test])
    true, guessed = (_names(answers, dataset.class_names) for answers in (labels, _answers(probabilities, labels)))
    surest = SurestMistakes.of(probabilities, labels)
    paths = [dataset.paths[row] for row in test[surest.rows]]
    mistakes = tuple(
        Mistake(path, true[i], guessed[i], probability, reasons.get(path, Reasons()))
        for path, i, probability in zip(paths, surest.rows, surest.probabilities.tolist(), strict=True)
    )
    kept = right if is_duplicate is None else right[~is_duplicate]
    cells = _label_cells(dataset, probabilities) if dataset.is_multilabel else _cells(dataset, probabilities)
    before = None
    if temperature is not None:
        before = at_temperature(probabilities, 1 / np.asarray(temperature), is_multilabel=dataset.is_multilabel)
    return ApproachImages(
        name=name,
        mistakes=mistakes,
        cells=tuple(cells),
        reliability=reliability(labels, probabilities),
        accuracy_without_duplicates=float(kept.mean()) if is_duplicate is not None and len(kept) else None,
        reliability_before=() if before is None else reliability(labels, before),
        calibration_error_before=None if before is None else measure(labels, before).calibration_error,
        risk_coverage=() if dataset.is_multilabel else risk_coverage(probabilities.max(axis=1), right),
    )


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what is predicted, in the form of `labels`: the most probable class, or which labels."""
    answers: np.ndarray = probabilities > THRESHOLD if labels.ndim == 2 else probabilities.argmax(axis=1)
    return answers


def _names(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    return [text or NO_LABEL for text in label_texts(labels, class_names)]


def _cells(dataset: ImageDataset, probabilities: np.ndarray) -> Iterator[Cell]:
    """Yield the cells of the confusion matrix that have images."""
    test, names = np.flatnonzero(dataset.is_test), dataset.class_names
    labels, predicted = dataset.labels[test], probabilities.argmax(axis=1)
    cells: dict[tuple[int, int], list[str]] = {}
    for i in np.argsort(-probabilities.max(axis=1), kind="stable"):
        paths = cells.setdefault((int(labels[i]), int(predicted[i])), [])
        if len(paths) < N_IN_CELL:
            paths.append(dataset.paths[test[i]])
    for (true, guess), paths in sorted(cells.items()):
        yield Cell(names[true], names[guess], tuple(paths))


def _label_cells(dataset: ImageDataset, probabilities: np.ndarray) -> Iterator[Cell]:
    """Yield for each label the images where it is missed, and where it is predicted without being there."""
    test = np.flatnonzero(dataset.is_test)
    for label, name in enumerate(dataset.class_names):
        has, p = dataset.labels[test, label], probabilities[:, label]
        for true, guess, wrong, sure in (
            (name, f"not {name}", has & (p <= THRESHOLD), -p),
            (f"not {name}", name, ~has & (p > THRESHOLD), p),
        ):
            rows = np.flatnonzero(wrong)
            if len(rows):
                surest = rows[np.argsort(-sure[rows], kind="stable")][:N_IN_CELL]
                yield Cell(true, guess, tuple(dataset.paths[row] for row in test[surest]))


def _near_duplicates(dataset: ImageDataset, near: Copies) -> tuple[list[NearDuplicate], list[CopyWithin]]:
    """Return the test images that show what a training image shows, and the pairs within a split, the surest first.

    Of several such training images, the one most like the test image is named. Within a split, copies byte for byte are
    left out, since `scan` names those; pairs in different classes come first.
    """
    paths, names = dataset.paths, _names(dataset.labels, dataset.class_names)
    across: dict[int, NearDuplicate] = {}
    within = []
    for (first, second), correlation in zip(near.rows.tolist(), near.correlation.tolist(), strict=True):
        test, train = (first, second) if dataset.is_test[first] else (second, first)
        if dataset.is_test[first] == dataset.is_test[second]:
            if (dataset.digests[first] != dataset.digests[second]).any():
                split = "test" if dataset.is_test[first] else "train"
                within.append(CopyWithin(split, paths[first], paths[second], names[first], names[second], correlation))
        elif test not in across:
            across[test] = NearDuplicate(paths[test], paths[train], names[test], names[train], correlation)
    within.sort(key=lambda pair: pair.first_label == pair.second_label)
    return list(across.values()), within


def _doubtful(dataset: ImageDataset, out_of_fold: np.ndarray, of_test: np.ndarray) -> tuple[list[DoubtfulLabel], float]:
    """Return the images whose label is possibly wrong, the most doubtful first, and the share of labels agreed with."""
    probabilities = np.empty((dataset.n_images, len(dataset.class_names)), np.float32)
    probabilities[~dataset.is_test] = out_of_fold
    probabilities[dataset.is_test] = of_test
    doubtful = [
        DoubtfulLabel(
            path=dataset.paths[doubt.row],
            split="test" if dataset.is_test[doubt.row] else "train",
            label=doubt.label,
            label_probability=doubt.probability,
            suggested=doubt.suggested,
            suggested_probability=doubt.suggested_probability,
        )
        for doubt in find_doubts(dataset.labels, probabilities, dataset.class_names)
    ]
    return doubtful, share_agreed(dataset.labels, probabilities)


def _map(dataset: ImageDataset, X: Rows, probabilities: np.ndarray, seed: int) -> tuple[MapPoint, ...]:
    """Return some of the test images, a random sample by their digests, with their places."""
    test = np.flatnonzero(dataset.is_test)
    by_digest = np.argsort(dataset.digests[test].view("S32")[:, 0], kind="stable")[:N_ON_MAP]
    chosen = np.sort(by_digest)
    places = feature_map(X[test[chosen]], seed)
    labels = dataset.labels[test]
    true, guessed = (_names(answers, dataset.class_names) for answers in (labels, _answers(probabilities, labels)))
    return tuple(
        MapPoint(dataset.paths[test[i]], true[i], guessed[i], float(x), float(y))
        for i, (x, y) in zip(chosen, places, strict=True)
    )
