"""The result of a comparison: approaches measured on one split, with everything needed to check or repeat it."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from operator import methodcaller
from statistics import fmean, stdev
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from featx.compare.error_analysis import ErrorAnalysis
from featx.compare.significance import SIGNIFICANCE, holm, interval_of_mean, paired_p_value, resampled_p_value
from featx.errors import FeatxError
from featx.heads import Epoch
from featx.system import brief, duration, from_json_value
from featx.text import printable
from featx.train import (
    NO_LABEL,
    UNBALANCED,
    ClassMetrics,
    Confusion,
    Metrics,
    Settings,
    class_metrics,
    imbalance,
    resampled_interval,
)

FORMAT = "featx-comparison"

#: With more classes, `confusion` has the cells of the matrix that have images, which is what version 4 means.
MAX_ROWS = 100
VERSION_OF_ROWS, VERSION_OF_CELLS = 3, 4

#: What the JSON has of an approach for its readers, although it follows from the rest.
DERIVED = ("accuracy", "accuracy_sd", "accuracy_interval", "differs_from_best")


@dataclass(frozen=True)
class Approach:
    """One way to get a classifier, what it achieved on the test images, and what it cost.

    Attributes:
        name: unique in its comparison, e.g. `"vgg16 + logreg"` or `"report-cnn"`.
        kind: `"features"` for a head on bottleneck features, `"scratch"` for a network trained from pixels, `"direct"`
            for a pretrained network with its own classifier, which is not trained here.
        metrics: measured on the test split.
        representations_s: seconds it took to extract the features, even if they came from the cache; 0 from scratch.
        top_s: seconds of training, of the head or of the whole network.
        n_parameters: number of trained parameters, without the frozen backbone's.
        peak_memory_bytes: the most memory used at once.
        history: the epochs, counted from 1; empty where there are none (`logreg`).
        kept_epoch: the epoch whose weights were kept, 0 if no epoch of tuning made it better; `None` without a history.
        confusion: `confusion[true][predicted]`, number of test images; may be given as rows of numbers. Without cells
            if images can have several labels: `metrics.multilabel` then says how each label is recognized.
        p_value: of the hypothesis that it is as good as the best, which it is paired with; see
            `featx.compare.significance.paired_p_value`. `None` for the best itself, and before `with_p_values`.
        image_size: `(height, width)` in pixels that the approach has seen.
        details: what else decided the result, e.g. the regularization chosen.
        notes: sentences for the reader, shown under the table.
        repeats: accuracies with one seed after the other; empty if it was trained once. The first is the one of
            `metrics`; all else here is about it, too.
        p_holm: `p_value`, corrected for the number of pairs of approaches; `None` where `p_value` is.
        folds: in cross-validation, the accuracy on each fold, of all repetitions; else empty. `metrics` are then those
            of all images, each predicted by a model that has not seen it, and `repeats` has an accuracy on all images
            for each repetition, if there are several.
    """

    name: str
    kind: Literal["features", "scratch", "direct"]
    metrics: Metrics
    representations_s: float
    top_s: float
    n_parameters: int
    peak_memory_bytes: int
    history: tuple[Epoch, ...]
    kept_epoch: int | None
    confusion: Confusion
    p_value: float | None
    image_size: tuple[int, int]
    details: dict[str, str | int | float]
    notes: tuple[str, ...]
    repeats: tuple[float, ...] = ()
    p_holm: float | None = None
    folds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.confusion, Confusion):
            object.__setattr__(self, "confusion", Confusion.of_rows(self.confusion))

    def __repr__(self) -> str:
        return (
            f"<Approach {self.name}: {self.accuracy:.1%} of {self.metrics.n_samples:,} test images, in "
            f"{duration(self.total_s)}>"
        )

    @property
    def total_s(self) -> float:
        """Seconds from images to a trained classifier: to extract the features, and to train."""
        return self.representations_s + self.top_s

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images, from 0 to 1; the mean over the seeds if there are several."""
        return fmean(self.repeats) if self.repeats else self.metrics.accuracy

    @property
    def accuracy_sd(self) -> float | None:
        """The standard deviation of the accuracies over the seeds or folds; `None` if it was trained once."""
        return stdev(self.trainings) if self.trainings else None

    @property
    def classes(self) -> tuple[ClassMetrics, ...]:
        """The precision and the recall of each class, in their order; as `confusion`."""
        return class_metrics(self.confusion)

    @property
    def trainings(self) -> tuple[float, ...]:
        """The accuracy of each training: on the folds, or with the seeds; empty if it was trained once."""
        return self.folds or self.repeats

    @property
    def n_folds(self) -> int:
        """How many folds each repetition has; 0 without cross-validation."""
        return len(self.folds) // max(len(self.repeats), 1)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy`, for the choice of test images and, if there are several, seeds or folds."""
        if self.folds:
            return resampled_interval(self.folds, self.n_folds, self.accuracy, self.metrics.n_samples)
        if len(self.repeats) < 2:
            return self.metrics.accuracy_low, self.metrics.accuracy_high
        return interval_of_mean(self.repeats, self.metrics.n_samples)

    def is_above(self, accuracy: float) -> bool:
        """Return whether this is clearly better than that accuracy: its whole 95 % interval is above it."""
        return self.accuracy_interval[0] > accuracy

    @property
    def differs_from_best(self) -> bool:
        """Whether the best is significantly better than this, corrected for the number of pairs; False if untested."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy of an approach with a part of the training images.

    Attributes:
        approach: its name.
        fraction: the share of the training images, up to 1.
        n_train: number of training images, including the validation part.
        accuracies: on all test images, one for each seed.
        per_class: number of training images of each class; None if the curve is of shares or numbers of all.
    """

    approach: str
    fraction: float
    n_train: int
    accuracies: tuple[float, ...]
    per_class: int | None = None

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class Claim:
    """What somebody else claims about an approach, beside what was measured here.

    Attributes:
        approach: its name.
        source: who claims it.
        n_train: number of training images there, including those for validation.
        n_test: number of images there that the accuracy is said to be measured on.
        accuracy: from where to where it is, from 0 to 1; twice the same if it is one number.
        time: of features and training, as the source has it; empty if it says nothing.
        losses: as the source has them; empty if it says nothing.
        measured_accuracy: here; the mean over the seeds if there are several. `None` before it is measured.
        measured_interval: its 95 % interval, see `Approach.accuracy_interval`.
    """

    approach: str
    source: str
    n_train: int
    n_test: int
    accuracy: tuple[float, float]
    time: str = ""
    losses: str = ""
    measured_accuracy: float | None = None
    measured_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """Approaches trained and tested on the same images.

    Attributes:
        dataset: the name of the data set.
        dataset_digest: identifies its images, labels and split.
        class_names: in the order of the confusion matrices.
        n_train: number of images trained on, without the validation part.
        n_validation: number of images that chose the epoch or the regularization.
        n_test: number of images that everything is measured on.
        seed: the seed of every approach.
        approaches: at least one, their names unique.
        recipes: the recipes of the features, as JSON values.
        warnings: sentences that limit what the figures mean; shown on every table, page and picture.
        versions: of the libraries, by name.
        hardware: what it ran on, as JSON values.
        command: the command line that repeats it.
        created_at: ISO 8601 date and time.
        error_analysis: the same, image by image; None if it was not made. The JSON file calls it `examination`.
        learning_curve: the accuracy of each approach with fewer training images; empty if it was not requested.
        claims: what others claim about its approaches; see `featx.compare.claims.with_claims`.
        settings: all that decided it, which `featx rerun` needs; None in results of an older featx.

    Raises:
        FeatxError: no approach, two with the same name, or a confusion matrix that does not fit the classes.
    """

    dataset: str
    dataset_digest: str
    class_names: tuple[str, ...]
    n_train: int
    n_validation: int
    n_test: int
    seed: int
    approaches: tuple[Approach, ...]
    recipes: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    versions: dict[str, str]
    hardware: dict[str, Any]
    command: str
    created_at: str
    error_analysis: ErrorAnalysis | None = None
    learning_curve: tuple[CurvePoint, ...] = ()
    claims: tuple[Claim, ...] = ()
    settings: Settings | None = None

    def __post_init__(self) -> None:
        names = [approach.name for approach in self.approaches]
        if not names or len(set(names)) < len(names):
            raise FeatxError(f"A comparison needs approaches with unique names. Received: {names}")
        n_classes = len(self.class_names)
        for approach in self.approaches:
            if approach.confusion.n_classes != n_classes:
                raise FeatxError(f"The confusion matrix of {printable(approach.name)} is not {n_classes}×{n_classes}.")

    def __repr__(self) -> str:
        best = self.best
        return (
            f"<Comparison of {len(self.approaches)} approaches on {brief(self.dataset)}: {best.name} is right on "
            f"{best.accuracy:.1%} of {self.n_test:,} test images>"
        )

    @property
    def best(self) -> Approach:
        """The approach with the highest accuracy, of equals the one with the lowest loss; see `ranked`."""
        return ranked(self.approaches)[0]

    @property
    def counterpart(self) -> Approach | None:
        """What the best is compared with: of features and training from scratch, the best of the other kind.

        If there is none, the best of any other kind; if there is none, the runner-up; `None` if the best is alone.
        """
        best, *others = ranked(self.approaches)
        of_another_kind = [approach for approach in others if approach.kind != best.kind]
        trained = [approach for approach in of_another_kind if approach.kind != "direct"]
        return next(iter(trained or of_another_kind or others), None)

    @property
    def n_folds(self) -> int:
        """How many folds the images were divided into; 0 without cross-validation."""
        return self.approaches[0].n_folds

    @property
    def is_multilabel(self) -> bool:
        """Whether images can have several labels, or none. Accuracies are then subset accuracies."""
        return self.approaches[0].metrics.multilabel is not None

    @property
    def is_unbalanced(self) -> bool:
        """Whether the largest class has clearly more test images than the smallest one that has any."""
        return imbalance(self._n_test_of_class) > UNBALANCED

    @property
    def commonest_share(self) -> float:
        """The accuracy of always answering `commonest_class`, which needs no training."""
        if found := self.approaches[0].metrics.multilabel:
            return found.commonest_share
        return max(self._n_test_of_class) / max(sum(self._n_test_of_class), 1)

    @property
    def commonest_class(self) -> str:
        """The most common class of the test images; with several labels, the most common set of them."""
        if found := self.approaches[0].metrics.multilabel:
            return "|".join(self.class_names[label] for label in found.commonest) or NO_LABEL
        return self.class_names[self._n_test_of_class.index(max(self._n_test_of_class))]

    @property
    def _n_test_of_class(self) -> list[int]:
        n_of_class: list[int] = self.approaches[0].confusion.n_true.tolist()
        return n_of_class

    def to_json(self) -> str:
        """Return the comparison as strict JSON: NaN and infinity, possible in a history only, become strings.

        Raises:
            FeatxError: a value that JSON cannot hold.
        """
        members = {"examination" if name == "error_analysis" else name: value for name, value in asdict(self).items()}
        has_rows = len(self.class_names) <= MAX_ROWS
        version = VERSION_OF_ROWS if has_rows else VERSION_OF_CELLS
        fields = {"format": FORMAT, "format_version": version, "best": self.best.name, **members}
        for approach, one in zip(fields["approaches"], self.approaches, strict=True):
            approach.update({name: getattr(one, name) for name in DERIVED})
            if self.is_multilabel:
                approach["classes"] = []
            elif has_rows:  # of many classes, the cells say it in fewer words
                measured = zip(self.class_names, one.classes, strict=True)
                approach["classes"] = [{"class": name, **asdict(each)} for name, each in measured]
            approach["confusion"] = list(one.confusion) if has_rows else one.confusion.cells
            approach["history"] = [{key: _jsonable(value) for key, value in e.items()} for e in approach["history"]]
        try:
            text = json.dumps(fields, indent=2, allow_nan=False, default=methodcaller("item"))
        except (AttributeError, TypeError, ValueError) as error:
            raise FeatxError(f"The comparison cannot be written as JSON ({error}).") from None
        # A row of numbers, or a cell of three, is one line.
        return re.sub(r"\[(?:\n +-?\d+,?)+\n +\]", lambda row: re.sub(r"\s+", "", row[0]), text) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the comparison that `to_json` wrote, equal to it.

        Raises:
            FeatxError: `text` is not a comparison, or has another format version.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            found = (fields.pop("format"), fields.pop("format_version"))
            if found not in {(FORMAT, VERSION_OF_ROWS), (FORMAT, VERSION_OF_CELLS)}:
                raise FeatxError(
                    f"These results are not in the format {FORMAT} {VERSION_OF_ROWS} or {VERSION_OF_CELLS}. Run the "
                    f"comparison again with this version of featx. Received: {found[0]} {found[1]}"
                )
            fields.pop("best", None)
            fields["error_analysis"] = fields.pop("examination", None)
            for approach in fields["approaches"]:
                for name in (*DERIVED, "classes"):
                    approach.pop(name, None)
                if approach["p_value"] is not None:  # an older featx did not correct it; Holm's is never above this
                    approach.setdefault(
                        "p_holm", min(approach["p_value"] * math.comb(len(fields["approaches"]), 2), 1.0)
                    )
                rows = approach["confusion"]
                cells = Confusion.of_rows(rows).cells if found[1] == VERSION_OF_ROWS else rows
                approach["confusion"] = {"n_classes": len(fields["class_names"]), "cells": cells}
            comparison: Self = from_json_value(cls, fields)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise FeatxError(f"This is not a featx comparison ({error}). Received: {text[:80]!r}") from None
        return comparison


def ranked(approaches: Iterable[Approach]) -> list[Approach]:
    """Return the approaches with the best first: by mean accuracy over the seeds, then by loss."""
    return sorted(approaches, key=lambda approach: (-approach.accuracy, approach.metrics.loss))


def with_p_values(approaches: Iterable[Approach], correct: Mapping[str, npt.NDArray[np.bool_]]) -> tuple[Approach, ...]:
    """Return the approaches with their p values against the best, in the order given.

    The best is chosen by the same answers. Any approach could have been it, and any pair could have been compared. So
    the p values of all pairs count in Holm's correction, not only those against the best: these alone would be below
    `SIGNIFICANCE` too often.

    Args:
        approaches: at least one.
        correct: by the approach's name, bool: whether it was right on each test image, in one order. `(n_test,)`, or
            `(n_seeds, n_test)` if it was trained with several seeds.

    Raises:
        FeatxError: no approach, or answers that are missing, have another length, or disagree with the metrics.
    """
    given = tuple(approaches)
    if not given:
        raise FeatxError("P values need at least one approach. Received: none")
    answers = {approach.name: np.atleast_2d(correct[approach.name]) for approach in given if approach.name in correct}
    for approach in given:
        right = answers.get(approach.name)
        counts = None if right is None else (int(right[0].sum()), right.shape[1])
        if counts != (approach.metrics.n_correct, approach.metrics.n_samples):
            raise FeatxError(
                f"The answers of {printable(approach.name)} do not match its metrics, which count "
                f"{approach.metrics.n_correct} of {approach.metrics.n_samples} as correct. Received: {counts}"
            )
    pairs = list(combinations(answers, 2))
    by_name = {approach.name: approach for approach in given}
    p_values = [_p_value(by_name[one], by_name[other], answers) for one, other in pairs]
    of_pair = dict(zip(map(frozenset, pairs), zip(p_values, holm(p_values), strict=True), strict=True))
    best = ranked(given)[0]

    def with_p_value(approach: Approach) -> Approach:
        p_value, p_holm = (None, None) if approach is best else of_pair[frozenset((approach.name, best.name))]
        return replace(approach, p_value=p_value, p_holm=p_holm)

    return tuple(map(with_p_value, given))


def _p_value(one: Approach, other: Approach, answers: Mapping[str, npt.NDArray[np.bool_]]) -> float:
    """Return the p value of a pair: of the folds in cross-validation, else of the answers."""
    if one.folds and other.folds:
        return resampled_p_value(one.folds, other.folds, one.n_folds)
    return paired_p_value(answers[one.name], answers[other.name])


def _jsonable(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))
