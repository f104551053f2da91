"""Figures as people read them: shares, p values, and the cells of the tables, each as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from featx.compare import SIGNIFICANCE, Approach, Comparison
from featx.system import duration, size

#: With fewer test images than this, percentages have no decimals: a single image is more than half a point.
N_FOR_DECIMALS = 200


def figure(share: float, n: int) -> str:
    """Return a share in per cent: to a tenth if it is of enough images, else without decimals.

    >>> figure(0.8333, 1000), figure(5 / 6, 12)
    ('83.3', '83')
    """
    return f"{100 * share:.{0 if n < N_FOR_DECIMALS else 1}f}"


def percent(share: float, n: int) -> str:
    """Return the same with its unit."""
    return f"{figure(share, n)} %"


def accuracy_text(approach: Approach) -> str:
    """Return the accuracy for a sentence or a picture: of several seeds or folds, mean and standard deviation."""
    n = approach.metrics.n_samples
    if approach.accuracy_sd is None:
        return percent(approach.accuracy, n)
    return f"{figure(approach.accuracy, n)}±{percent(approach.accuracy_sd, n)}"


def accuracy_ends(approach: Approach) -> tuple[str, str]:
    """Return the ends of the 95 % interval of the accuracy, without a unit."""
    low, high = approach.accuracy_interval
    return figure(low, approach.metrics.n_samples), figure(high, approach.metrics.n_samples)


def result_cells(approach: Approach, comparison: Comparison) -> tuple[str, ...]:
    """Return what the table of results says of an approach, after its name."""
    metrics = approach.metrics
    low, high = accuracy_ends(approach)
    if comparison.is_multilabel:
        return (
            f"{percent(approach.accuracy, metrics.n_samples)} ({low}–{high})",
            precision_cell(approach),
            "–" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}",
            f"{metrics.macro_f1:.3f}",
            "best" if approach is comparison.best else p_value(approach.p_holm),
        )
    return (
        f"{percent(approach.accuracy, metrics.n_samples)} ({low}–{high})",
        "–" if metrics.balanced_accuracy is None else percent(metrics.balanced_accuracy, metrics.n_samples),
        f"{metrics.loss:.3f}",
        "–" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}",
        "–" if metrics.pr_auc is None else f"{metrics.pr_auc:.3f}",
        f"{metrics.macro_f1:.3f}",
        f"{metrics.calibration_error:.3f}",
        "best" if approach is comparison.best else p_value(approach.p_holm),
    )


def precision_cell(approach: Approach) -> str:
    """Return the mean average precision with its interval, if images can have several labels."""
    found, n = approach.metrics.multilabel, approach.metrics.n_samples
    if not found or found.mean_average_precision is None:
        return "–"
    low, high = (figure(end or 0.0, n) for end in (found.mean_average_precision_low, found.mean_average_precision_high))
    return f"{percent(found.mean_average_precision, n)} ({low}–{high})"


def cost_cells(approach: Approach) -> tuple[str, ...]:
    """Return what the table of costs says of an approach, after its name."""
    return (
        "–" if approach.kind == "scratch" else duration(approach.representations_s),
        duration(approach.top_s),
        duration(approach.total_s),
        f"{approach.n_parameters:,}",
        size(approach.peak_memory_bytes),
    )


def repeats_cells(approach: Approach) -> tuple[str, ...]:
    """Return what the table of repeats says of an approach that has some, after its name."""
    repeats, n = approach.trainings, approach.metrics.n_samples
    shares = (percent(share, n) for share in (approach.accuracy, stdev(repeats), min(repeats), max(repeats)))
    return str(len(repeats)), *shares


@dataclass(frozen=True)
class ClassMeasures:
    """How well an approach recognizes a class: precision and recall with intervals, as texts; `–` if not defined."""

    label: str
    n_test: int
    precision: str
    recall: str
    f1: str


def class_measures(approach: Approach, names: Sequence[str], most: int) -> list[ClassMeasures]:
    """Return the classes in their order; of more than `most`, so many with the lowest F1, the lowest first."""
    measured = list(zip(names, approach.classes, strict=True))
    if len(measured) > most:
        measured = sorted(measured, key=lambda named: named[1].f1)[:most]
    return [
        ClassMeasures(
            name,
            one.n_samples,
            _share(one.precision, one.precision_low, one.precision_high, one.n_predicted),
            _share(one.recall, one.recall_low, one.recall_high, one.n_samples),
            percent(one.f1, one.n_samples),
        )
        for name, one in measured
    ]


def _share(share: float | None, low: float | None, high: float | None, n: int) -> str:
    if share is None or low is None or high is None:
        return "–"
    return f"{percent(share, n)} ({figure(low, n)}–{figure(high, n)})"


@dataclass(frozen=True)
class LabelMeasures:
    """How well an approach recognizes one of several labels, as texts, `–` where they are not defined.

    `n_missed` images have the label and `n_wrong` do not, and the approach says the contrary.
    """

    label: str
    n_test: int
    average_precision: str
    roc_auc: str
    f1: str
    precision: str
    recall: str
    n_missed: int
    n_wrong: int


def label_measures(approach: Approach, names: Sequence[str], most: int) -> list[LabelMeasures]:
    """Return the labels in their order; of more than `most`, so many with the lowest average precision, lowest first.

    None for images with one class each.
    """
    labels = approach.metrics.multilabel.labels if approach.metrics.multilabel else ()
    order = sorted(range(len(labels)), key=lambda i: labels[i].average_precision or 0.0)[:most]

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    return [
        LabelMeasures(
            *(names[i], one.n_true, text(one.average_precision), text(one.roc_auc), text(one.f1)),
            precision="–" if one.precision is None else percent(one.precision, one.n_predicted),
            recall="–" if one.recall is None else percent(one.recall, one.n_true),
            n_missed=one.n_true - one.n_right,
            n_wrong=one.n_predicted - one.n_right,
        )
        for i in (range(len(labels)) if len(labels) <= most else order)
        for one in [labels[i]]
    ]


def short_value(value: str | float) -> str:
    """Return a value with as many digits as anybody reads; `results.json` has them all."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def p_value(p: float | None) -> str:
    """Return a p value to two digits; one below `SIGNIFICANCE` is never rounded up to it.

    >>> [p_value(p) for p in (None, 1.0, 0.3149, 0.0496, 0.0123, 0.0021, 1e-12)]
    ['–', '1.00', '0.31', '0.0496', '0.012', '0.0021', '<0.001']
    """
    if p is None:
        return "–"
    if p < 0.001:
        return "<0.001"
    if p >= SIGNIFICANCE:
        return f"{p:.2f}"
    text = f"{p:.2g}"
    return text if float(text) < SIGNIFICANCE else f"{p:.4f}"
