"""A comparison in words: a table, and sentences that say what it shows."""

import textwrap
from collections.abc import Callable, Sequence
from statistics import mean, stdev

from featx.compare import SIGNIFICANCE, Approach, Comparison, ranked
from featx.errors import printable
from featx.system import duration, escape_markdown, markdown_table, n_columns, size, text_table

MAX_NAME = 36

RESULT_HEADER = ("Approach", "Accuracy (95 %)", "Loss", "ROC AUC", "Macro F1", "Calib. error", "p vs best")
REPEATS_HEADER = ("Approach", "Seeds", "Mean accuracy", "Standard deviation", "Lowest", "Highest")
COST_HEADER = ("Approach", "Representations", "+ top", "= total time", "Trained parameters", "Peak memory")

CAVEAT = (
    "Accuracy, loss and all else are of the test images, which nothing was trained or tuned on; only the best is named "
    "by them, which flatters it a little. The 95 % interval is Wilson's; p is McNemar's exact test against the best on "
    "the same images, not corrected for the number of approaches. Both speak of the choice of test images, not of what "
    "another seed would have trained."
)

REPEATS_NOTE = (
    "Seeds: the same, trained again with one seed after the other on the same images; another seed also chooses "
    "another validation part. This spread is of training alone; the interval above is of the choice of test images."
)

TIME_NOTE = (
    "Representations are what the features cost when they were made, also where they came from the cache now; top "
    "is training on them, or the whole training of a network from scratch."
)

LEARNING_NOTE = (
    "Accuracy on all test images after training on a part of the training images: the line is the mean over the seeds, "
    "the band goes from the lowest to the highest. Each seed draws other images."
)

CURVES_NOTE = (
    "Loss and accuracy by epoch, on the training images and on the validation images that chose the epoch kept. "
    "Training figures are no results: while training, dropout and augmentation are at work."
)

_BEST_OF_KIND = {
    "features": "the best on bottleneck features",
    "scratch": "the best trained from scratch",
    "direct": "the best that was pretrained and used as it is",
}


def table(comparison: Comparison, *, markdown: bool = False) -> str:
    """Return what each approach achieved and what it cost, the best first, under the comparison's warnings.

    Args:
        comparison: what to show.
        markdown: GitHub's Markdown instead of aligned columns for a terminal of 120 columns.
    """
    escape = escape_markdown if markdown else printable
    layout = markdown_table if markdown else text_table
    approaches = ranked(comparison.approaches)
    rows = [(_name(approach, comparison, escape, markdown=markdown), approach) for approach in approaches]
    parts = [
        layout(RESULT_HEADER, [(name, *result_cells(approach, comparison)) for name, approach in rows]),
        layout(COST_HEADER, [(name, *cost_cells(approach)) for name, approach in rows]),
    ]
    if repeated := [(name, *repeats_cells(approach)) for name, approach in rows if approach.repeats]:
        parts.append(layout(REPEATS_HEADER, repeated))
    if warnings := _warnings(comparison, markdown=markdown):
        parts.insert(0, warnings)
    if notes := [f"- {escape(_cut(printable(a.name)))}: {escape(note)}" for a in approaches for note in a.notes]:
        parts.append("\n".join(notes if markdown else map(_filled, notes)))
    return "\n\n".join(parts) + "\n"


def verdict(comparison: Comparison, escape: Callable[[str], str] = printable) -> str:
    """Return in one sentence what the comparison shows, and how sure that is; names are escaped for a terminal."""
    best, counterpart = comparison.best, comparison.counterpart
    share = f"{escape(best.name)} got {_accuracy_text(best)} of {best.metrics.n_samples:,} test images right"
    if counterpart is None:
        sentence = f"{share}, after {duration(best.total_s)}; there was nothing to compare it with"
    else:
        sentence = f"{share}, {_difference(best, counterpart, escape)}, {_times(best, counterpart)}"
        others = [a for a in comparison.approaches if a is not best and a is not counterpart and a.p_value is not None]
        if as_good := [approach for approach in others if not approach.differs_from_best]:
            names = ", ".join(escape(approach.name) for approach in as_good)
            sentence += f"; {names} may be as good as the best{_quickest_text(best, as_good, escape)}"
    sentence += _baseline_text(comparison, escape)
    if comparison.warnings:
        sentence += f"; all this is subject to the warning{'s' if len(comparison.warnings) > 1 else ''} shown with it"
    return sentence + "."


def _baseline_text(comparison: Comparison, escape: Callable[[str], str]) -> str:
    """Return who is not clearly better than one answer for all images; empty if everybody is."""
    share = comparison.commonest_share
    idle = [approach for approach in comparison.approaches if not approach.metrics.is_above(share)]
    if not idle:
        return ""
    always = f"; always answering {escape(comparison.commonest_class)}, the commonest class, gets {100 * share:.1f} %"
    if comparison.best in idle:
        return f"{always}, and no approach is clearly better"
    return f"{always}; not clearly better: {', '.join(escape(approach.name) for approach in idle)}"


def _quickest_text(best: Approach, as_good: Sequence[Approach], escape: Callable[[str], str]) -> str:
    """Return which of those that may be as good as the best took the least time, if the best took longer."""
    quickest = min((best, *as_good), key=lambda approach: approach.total_s)
    if quickest is best:
        return ""
    which = "" if len(as_good) == 1 else f"the quickest of them, {escape(quickest.name)}, "
    return f", {which}after {duration(quickest.total_s)}"


def curve_verdict(comparison: Comparison) -> str:
    """Return in one sentence how many images transfer saves; empty without a learning curve of both kinds.

    Names are escaped for a terminal.
    """
    kind_of = {approach.name: approach.kind for approach in comparison.approaches}
    scratch = [point for point in comparison.learning_curve if kind_of[point.approach] == "scratch"]
    features = [point for point in comparison.learning_curve if kind_of[point.approach] == "features"]
    if not scratch or not features:
        return ""
    n_all = max(point.n_train for point in scratch)
    target = max((point for point in scratch if point.n_train == n_all), key=lambda point: point.mean)
    reached = min((point for point in features if point.mean >= target.mean), key=lambda p: p.n_train, default=None)
    best = f"{printable(target.approach)} with all {n_all:,} training images ({100 * target.mean:.1f} %)"
    if reached is None:
        return f"No approach on features is as good as {best}: here, transfer does not pay."
    share = f"{round(100 * reached.fraction, 1):g} %"
    return (
        f"With {reached.n_train:,} training images ({share}), {printable(reached.approach)} is as good "
        f"({100 * reached.mean:.1f} %) as {best}, on average over {len(target.accuracies)} seeds."
    )


def _difference(best: Approach, counterpart: Approach, escape: Callable[[str], str]) -> str:
    """Return how the best stands against its counterpart, and whether that may be chance."""
    role = "the runner-up" if counterpart.kind == best.kind else _BEST_OF_KIND[counterpart.kind]
    role = f"{role}, {escape(counterpart.name)}"
    # Of the figures as they are shown: whoever subtracts them gets the same.
    points = round(100 * best.metrics.accuracy, 1) - round(100 * counterpart.metrics.accuracy, 1)
    against = f"against {_accuracy_text(counterpart)} by {role}"
    if counterpart.p_value is None:
        return f"{against}: {points:.1f} points more, not tested for chance"
    if counterpart.differs_from_best:
        return f"{against}: {points:.1f} points more, a difference beyond chance (McNemar, {_p_text(counterpart)})"
    return f"{against}: a difference of {points:.1f} points that may be chance (McNemar, {_p_text(counterpart)})"


def _times(best: Approach, counterpart: Approach) -> str:
    """Return what both cost, and how many times as much the dearer one, if that is more than a little."""
    text = f"and took {duration(best.total_s)} against {duration(counterpart.total_s)}"
    if not (best.total_s and counterpart.total_s):
        return text
    if counterpart.total_s >= 1.2 * best.total_s:
        return f"{text}, {_times_as_much(counterpart.total_s / best.total_s)} cheaper"
    if best.total_s >= 1.2 * counterpart.total_s:
        return f"{text}, {_times_as_much(best.total_s / counterpart.total_s)} as expensive"
    return text


def _times_as_much(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:,.0f}×"


def _p_text(approach: Approach) -> str:
    p = p_value(approach.p_value)
    return f"p < {p[1:]}" if p.startswith("<") else f"p = {p}"


def _accuracy_text(approach: Approach) -> str:
    metrics = approach.metrics
    low, high = 100 * metrics.accuracy_low, 100 * metrics.accuracy_high
    return f"{100 * metrics.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f} %)"


def _name(approach: Approach, comparison: Comparison, escape: Callable[[str], str], *, markdown: bool) -> str:
    text = escape(_cut(printable(approach.name)))
    if approach is not comparison.best:
        return text if markdown else f"  {text}"
    return f"**{text}**" if markdown else f"* {text}"


def result_cells(approach: Approach, comparison: Comparison) -> tuple[str, ...]:
    """Return what the table of results says of an approach, after its name."""
    metrics = approach.metrics
    return (
        f"{100 * metrics.accuracy:.1f} % ({100 * metrics.accuracy_low:.1f} – {100 * metrics.accuracy_high:.1f})",
        f"{metrics.loss:.3f}",
        "–" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}",
        f"{metrics.macro_f1:.3f}",
        f"{metrics.calibration_error:.3f}",
        "best" if approach is comparison.best else p_value(approach.p_value),
    )


def cost_cells(approach: Approach) -> tuple[str, ...]:
    """Return what the table of costs says of an approach, after its name."""
    representations = "–" if approach.kind == "scratch" else duration(approach.representations_s)
    return (
        representations,
        duration(approach.top_s),
        duration(approach.total_s),
        count(approach.n_parameters),
        size(approach.peak_memory_bytes),
    )


def repeats_cells(approach: Approach) -> tuple[str, ...]:
    """Return what the table of repeats says of an approach that has some, after its name."""
    repeats = approach.repeats
    figures = (mean(repeats), stdev(repeats), min(repeats), max(repeats))
    return (str(len(repeats)), *(f"{100 * figure:.1f} %" for figure in figures))


def _warnings(comparison: Comparison, *, markdown: bool) -> str:
    if markdown:
        return "\n>\n".join(f"> **Warning:** {escape_markdown(text)}" for text in comparison.warnings)
    return "\n".join(_filled(f"WARNING: {printable(text)}") for text in comparison.warnings)


def short_value(value: str | float) -> str:
    """Return a value with as many digits as anybody reads; `results.json` has them all."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _filled(text: str) -> str:
    """Return `text` in lines for a terminal of 120 columns, wide letters reckoned with."""
    return textwrap.fill(text, max(118 - n_columns(text) + len(text), 40))


def _cut(text: str) -> str:
    """Return `text` in at most `MAX_NAME` columns; of a longer one the start and the end.

    >>> _cut("vgg16 + logreg"), _cut("a" * 40 + "z"), n_columns(_cut("猫" * 40))
    ('vgg16 + logreg', 'aaaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaz', 35)
    """
    if n_columns(text) <= MAX_NAME:
        return text
    start, end = text, text
    while n_columns(start) > MAX_NAME - 13:
        start = start[:-1]
    while n_columns(end) > 12:
        end = end[1:]
    return f"{start}…{end}"


def p_value(p: float | None) -> str:
    """Return a p value to two digits; one below `SIGNIFICANCE` is never rounded up to it.

    >>> [p_value(p) for p in (None, 1.0, 0.3149, 0.0496, 0.0021, 1e-12)]
    ['–', '1.00', '0.31', '0.0496', '0.0021', '<0.001']
    """
    if p is None:
        return "–"
    if p < 0.001:
        return "<0.001"
    return f"{p:.2f}" if p >= SIGNIFICANCE else f"{p:.4f}"


def count(n: int) -> str:
    """Return a count in thousands, millions or billions.

    >>> [count(n) for n in (0, 513, 8_193, 999_960, 4_195_000, 2_000_000_000)]
    ['0', '513', '8.2 thousand', '1.0 million', '4.2 million', '2.0 billion']
    """
    if n < 1000:
        return str(n)
    for unit, name in ((1e3, "thousand"), (1e6, "million")):
        if n / unit < 999.95:
            return f"{n / unit:.1f} {name}"
    return f"{n / 1e9:.1f} billion"
