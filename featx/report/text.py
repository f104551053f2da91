"""A comparison in words: a title, a few sentences, tables, and what the columns mean."""

import math
import textwrap
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from featx.compare import SIGNIFICANCE, Approach, Comparison, CurvePoint, ranked
from featx.heads import THRESHOLD
from featx.report.cells import (
    N_FOR_DECIMALS,
    accuracy_ends,
    accuracy_text,
    cost_cells,
    figure,
    p_value,
    percent,
    precision_cell,
    repeats_cells,
    result_cells,
)
from featx.system import duration, escape_markdown, markdown_table, n_columns, size, text_table
from featx.text import printable
from featx.train import FEW_TEST_IMAGES

#: Columns of a terminal that everything fits.
TERMINAL_WIDTH = 80

#: The longest name in a table, and the fewest columns that it is wrapped to.
MAX_NAME, MIN_NAME = 44, 14

#: Words of a title, at most.
MAX_TITLE_WORDS = 15

#: A difference of fewer points that is not significant is called a tie.
TIE_POINTS = 1

RESULT_HEADER = (
    "Approach",
    "Accuracy (95 % CI)",
    "Balanced",
    "Loss",
    "AUC",
    "PR-AUC",
    "F1",
    "ECE",
    "p (Holm)",
)

#: The same where images can have several labels.
LABELS_HEADER = ("Approach", "Subset accuracy", "mAP (95 % CI)", "AUC", "F1", "p (Holm)")

#: What the terminal has no room for: where classes are unbalanced, balanced accuracy says more than calibration.
_LEFT_OUT, _LEFT_OUT_UNBALANCED = {"Balanced", "PR-AUC"}, {"ECE", "PR-AUC"}
COST_HEADER = ("Approach", "Features", "Training", "Total", "Parameters", "Memory")
REPEATS_HEADER = ("Approach", "Seeds", "Mean accuracy", "SD", "Lowest", "Highest")
FOLDS_HEADER = ("Approach", "Folds", "Mean accuracy", "SD", "Lowest", "Highest")

#: The table of the labels.
LABEL_COLUMNS = (
    *("Label", "Test images", "Average precision", "AUC", "F1", "Precision", "Recall", "Missed", "Wrongly predicted"),
)

MEASURES_NOTE = (
    "Balanced: balanced accuracy, the mean of the classes' recalls. AUC: area under the ROC curve. PR-AUC: average "
    "precision; of two classes, that of the rarer one. F1: mean over the classes. ECE: expected calibration error. "
)

QUALITY_NOTE = (
    "All figures are for the test images, which no training or tuning used. The best approach is chosen by its "
    f"test accuracy, so this accuracy is slightly optimistic. CI: 95 % interval (Wilson). {MEASURES_NOTE}"
)

HOLM_NOTE = (
    "It is corrected for the number of pairs of approaches (Holm): if all were equally good, a p below 0.05 would "
    "appear in at most 5 % of comparisons. "
)

ONE_SEED_NOTE = (
    f"p: McNemar's exact test against the best approach. {HOLM_NOTE}CI and p cover the choice of test images, not the "
    f"choice of seed."
)

SEEDS_NOTE = (
    f"p: paired t-test of the mean accuracies against the best approach; McNemar's exact test if no answer depends on "
    f"the seed. {HOLM_NOTE}CI and p cover the choice of test images and of seeds. The "
    f"other columns and the confusion matrix are for the first seed."
)

FOLDS_NOTE = (
    f"Cross-validation: every image was tested once in each repetition, by a model trained on the other folds. Groups, "
    f"copies and near-duplicates were not divided. The best approach is chosen by its accuracy, so this accuracy is "
    f"slightly optimistic. CI: 95 % interval of the corrected resampled t-test, or Wilson's if that is wider. "
    f"{MEASURES_NOTE}p: corrected resampled t-test of the folds against the best approach (Nadeau and Bengio, 2003). "
    f"{HOLM_NOTE}With several repetitions, the other columns and the confusion matrix are for the first."
)

#: Instead of `MEASURES_NOTE` where images can have several labels.
LABELS_NOTE = (
    f"Images can have several labels. Subset accuracy: share of the images whose labels are all right; a label counts "
    f"as predicted above a probability of {THRESHOLD:g}. It is the accuracy everywhere here. mAP: mean over the labels "
    f"of the average precision, with a 95 % bootstrap interval for the choice of test images; it needs no threshold. "
    f"AUC (area under the ROC curve) and F1: means over the labels. "
)

WEIGHTS_NOTE = (
    "Trained with class weights: probabilities are those of images in which the classes are as common as their weights "
    "make them. So loss and ECE on the test images are usually higher than without weights."
)

FOLD_SPREAD_NOTE = (
    "Each fold was tested by a model of its own. This spread comes from the choice of the test images, of the training "
    "images and of the seed. SD and ±: standard deviation over the folds."
)

REPEATS_NOTE = (
    "Each approach was trained once per seed on the same images. The seed also selects the validation images. This "
    "spread comes from training alone. SD and ±: standard deviation over the seeds."
)

TIME_NOTE = (
    "Features: time to extract them, counted in full even if they came from the cache. Training: time to train the "
    "head, or the whole network if it is trained from scratch. Parameters: the trained ones. Memory: the peak."
)

LEARNING_NOTE = (
    "Accuracy on all test images, by number of training images. Each point is the mean over the seeds; each seed draws "
    "different training images. The bars go from the lowest to the highest seed."
)

CURVES_NOTE = (
    "Loss and accuracy after each epoch, on the training images and on the validation images that decide which epoch "
    "is kept. Dropout and augmentation are active during training, so training figures are not results."
)

_BEST_OF_KIND = {
    "features": "the best on pretrained features",
    "scratch": "the best trained from scratch",
    "direct": "the best pretrained classifier",
}


def table(comparison: Comparison, *, markdown: bool = False) -> str:
    """Return what each approach achieved and what it cost, the best first, under the comparison's warnings.

    Args:
        comparison: what to show.
        markdown: GitHub's Markdown instead of aligned columns for a terminal of `TERMINAL_WIDTH` columns.
    """
    escape = escape_markdown if markdown else printable
    approaches = ranked(comparison.approaches)
    repeated = [approach for approach in approaches if approach.trainings]
    left_out: set[str] = set() if markdown else _LEFT_OUT_UNBALANCED if comparison.is_unbalanced else _LEFT_OUT
    columns = LABELS_HEADER if comparison.is_multilabel else RESULT_HEADER
    shown = [i for i, name in enumerate(columns[1:]) if name not in left_out]
    header = [columns[0], *(columns[i + 1] for i in shown)]

    def cells(approach: Approach) -> tuple[str, ...]:
        found = result_cells(approach, comparison)
        return tuple(found[i] for i in shown)

    parts = [
        _table(header, approaches, cells, comparison, markdown=markdown),
        _table(COST_HEADER, approaches, cost_cells, comparison, markdown=markdown),
    ]
    if repeated:
        parts.append(_table(repeats_header(comparison), repeated, repeats_cells, comparison, markdown=markdown))
    if warnings := _warnings(comparison, markdown=markdown):
        parts.insert(0, warnings)
    if notes := [f"- {escape(_cut(printable(a.name)))}: {escape(note)}" for a in approaches for note in a.notes]:
        parts.append("\n".join(notes if markdown else map(_filled, notes)))
    return "\n\n".join(parts) + "\n"


def _table(
    header: Sequence[str],
    approaches: Sequence[Approach],
    cells_of: Callable[[Approach], tuple[str, ...]],
    comparison: Comparison,
    *,
    markdown: bool,
) -> str:
    cells = [cells_of(approach) for approach in approaches]
    if markdown:
        names = [_markdown_name(approach, comparison) for approach in approaches]
        return markdown_table(header, [(name, *row) for name, row in zip(names, cells, strict=True)])
    others = [max(map(n_columns, column)) + 2 for column in zip(header[1:], *cells, strict=True)]
    width = max(MIN_NAME, TERMINAL_WIDTH - 2 - sum(others))
    lines: list[tuple[str, ...]] = []
    for approach, row in zip(approaches, cells, strict=True):
        first, *rest = _wrapped(_cut(printable(approach.name)), width)
        lines.append((f"{'*' if approach is comparison.best else ' '} {first}", *row))
        lines += [(f"  {more}", *[""] * len(row)) for more in rest]
    return text_table(header, lines)


def _markdown_name(approach: Approach, comparison: Comparison) -> str:
    text = escape_markdown(_cut(printable(approach.name)))
    return f"**{text}**" if approach is comparison.best else text


def title(comparison: Comparison, escape: Callable[[str], str] = printable) -> str:
    """Return the result in `MAX_TITLE_WORDS` words at most."""
    best, counterpart = comparison.best, comparison.counterpart
    right = right_text(comparison)
    alone = f"{escape(_cut(printable(best.name)))}: {accuracy_text(best)} {right}"
    titles = [_title_against(best, counterpart, escape, right)] if counterpart else []
    if not best.is_above(comparison.commonest_share):
        share = percent(comparison.commonest_share, comparison.n_test)
        name = escape(_cut(printable(comparison.commonest_class)))
        titles = [f"No approach is clearly better than always answering {name} ({share})"]
    return next((text for text in titles if len(text.split()) <= MAX_TITLE_WORDS), alone)


def right_text(comparison: Comparison) -> str:
    """Return what an accuracy is the share of, after it."""
    return "fully right" if comparison.is_multilabel else "right"


def accuracy_word(comparison: Comparison) -> str:
    """Return what an accuracy is called."""
    return "subset accuracy" if comparison.is_multilabel else "accuracy"


def _title_against(best: Approach, counterpart: Approach, escape: Callable[[str], str], right: str) -> str:
    name, other = escape(_cut(printable(best.name))), _called(counterpart, escape)
    if not counterpart.differs_from_best and counterpart.p_holm is not None:
        is_tie = _points(best, counterpart) < TIE_POINTS
        if _called(best, escape).startswith("the "):
            name, other = other, _called(best, escape)
            best, counterpart = counterpart, best
        shares = dict.fromkeys((accuracy_text(best), accuracy_text(counterpart)))
        if is_tie:
            return f"{name} and {other} tied: {' and '.join(shares)} {right}"
        return f"No clear winner: {name} {accuracy_text(best)}, {other} {accuracy_text(counterpart)} {right}"
    return f"{name}: {accuracy_text(best)} {right}, {_points_text(best, counterpart)} above {other}"


def _called(approach: Approach, escape: Callable[[str], str]) -> str:
    """Return what a title calls an approach."""
    return "the CNN from scratch" if approach.name.startswith("report-cnn") else escape(_cut(printable(approach.name)))


def verdict(comparison: Comparison, escape: Callable[[str], str] = printable) -> str:
    """Return in a few sentences what the comparison shows, and how sure that is; names are escaped for a terminal."""
    text = " ".join(verdict_lines(comparison, escape))
    if n := len(comparison.warnings):
        text += f" See the {'warning' if n == 1 else f'{n} warnings'} shown with these results."
    return text


def verdict_lines(comparison: Comparison, escape: Callable[[str], str] = printable) -> tuple[str, ...]:
    """Return the same as a line each on accuracy, on significance, and on time, without the warnings."""
    best, counterpart = comparison.best, comparison.counterpart
    low, high = accuracy_ends(best)
    images = "images" if comparison.n_folds else "test images"
    all_labels = "all labels of " if comparison.is_multilabel else ""
    share = f"{escape(best.name)} got {all_labels}{accuracy_text(best)} of {best.metrics.n_samples:,} {images} right"
    share += f" ({_seeds_text(best)}95 % interval {low} to {high} %)"
    if counterpart is None:
        alone = f"{share}, in {duration(best.total_s)}. There is nothing to compare it with."
        more = (_precision_text(comparison, escape), _baseline_text(comparison, escape))
        return tuple(filter(None, (alone, " ".join(filter(None, more)))))
    role = "the runner-up" if counterpart.kind == best.kind else _BEST_OF_KIND[counterpart.kind]
    low, high = accuracy_ends(counterpart)
    of_seeds = "" if best.trainings else _seeds_text(counterpart)
    accuracy = f"{share}. {escape(counterpart.name)}, {role}, got {accuracy_text(counterpart)} "
    accuracy += f"({of_seeds}{low} to {high} %)."
    others = [a for a in comparison.approaches if a is not best and a is not counterpart and a.p_holm is not None]
    as_good = [approach for approach in others if not approach.differs_from_best]
    doubts = (
        _significance(comparison, counterpart),
        _precision_text(comparison, escape),
        _as_good_text(best, as_good, escape),
        _layers_text(comparison, escape),
        _baseline_text(comparison, escape),
    )
    return accuracy, " ".join(filter(None, doubts)), _times(best, counterpart, escape)


def _precision_text(comparison: Comparison, escape: Callable[[str], str]) -> str:
    """Return the mean average precision of the best, if images can have several labels."""
    found = comparison.best.metrics.multilabel
    if not found or found.mean_average_precision is None:
        return ""
    highest = max(comparison.approaches, key=_mean_average_precision)
    is_best = _mean_average_precision(highest) <= found.mean_average_precision
    more = "" if is_best else f" {escape(highest.name)} has the highest, {precision_cell(highest)}."
    return (
        f"The mean average precision of {escape(comparison.best.name)} is {precision_cell(comparison.best)}; that of "
        f"always answering each label's share is {percent(found.mean_prevalence, comparison.n_test)}.{more}"
    )


def _mean_average_precision(approach: Approach) -> float:
    found = approach.metrics.multilabel
    return (found.mean_average_precision if found else None) or 0.0


def _seeds_text(approach: Approach) -> str:
    """Return what its accuracy is of several seeds or folds, before an interval; empty of one training."""
    if not approach.trainings:
        return ""
    what = "folds" if approach.folds else "seeds"
    return f"mean and standard deviation of {len(approach.trainings)} {what}; "


def _baseline_text(comparison: Comparison, escape: Callable[[str], str]) -> str:
    """Return who is not clearly better than one answer for all images; empty if everybody is."""
    share = comparison.commonest_share
    idle = [approach for approach in comparison.approaches if not approach.is_above(share)]
    if not idle:
        return ""
    what = "set of labels" if comparison.is_multilabel else "class"
    answer = f"always answering {escape(comparison.commonest_class)}, the most common {what}"
    if comparison.best in idle:
        return f"No approach is clearly better than {answer} ({percent(share, comparison.n_test)})."
    names = _listed([escape(approach.name) for approach in idle])
    are = "is" if len(idle) == 1 else "are"
    return f"{names} {are} not clearly better than {answer} ({percent(share, comparison.n_test)})."


def _as_good_text(best: Approach, as_good: Sequence[Approach], escape: Callable[[str], str]) -> str:
    """Return who is not clearly worse than the best, and which of them was fastest, if the best was not."""
    if not as_good:
        return ""
    text = f"{_listed([escape(one.name) for one in as_good])} {'is' if len(as_good) == 1 else 'are'} not clearly worse"
    fastest = min((best, *as_good), key=lambda approach: approach.total_s)
    if fastest is best:
        return f"{text}."
    if len(as_good) == 1:
        return f"{text}, and took {duration(fastest.total_s)}."
    return f"{text}; the fastest, {escape(fastest.name)}, took {duration(fastest.total_s)}."


def _layers_text(comparison: Comparison, escape: Callable[[str], str]) -> str:
    """Return which layer of the backbone does best on these images, and how sure that is; empty for one layer."""
    best_of: dict[str, Approach] = {}
    for approach in ranked(comparison.approaches):
        if layer := approach.details.get("layer"):
            best_of.setdefault(str(layer), approach)
    if len(best_of) < 2:
        return ""
    (layer, first), *others = best_of.items()
    text = f"Of the layers, {escape(layer)} is the best for these images ({accuracy_text(first)})"
    if first is not comparison.best:
        return f"{text}, but the difference between layers was not tested for significance."
    as_good = [escape(other) for other, approach in others if not approach.differs_from_best]
    if not as_good:
        return f"{text}; the difference is statistically significant."
    return f"{text}; {_listed(as_good)} {'is' if len(as_good) == 1 else 'are'} not clearly worse."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def quality_note(comparison: Comparison) -> str:
    """Return what the columns of the table of results mean."""
    has_seeds = any(approach.repeats for approach in comparison.approaches)
    note = FOLDS_NOTE if comparison.n_folds else QUALITY_NOTE + (SEEDS_NOTE if has_seeds else ONE_SEED_NOTE)
    if comparison.is_multilabel:
        return note.replace(MEASURES_NOTE, LABELS_NOTE)
    is_weighted = any("class_weights" in approach.details for approach in comparison.approaches)
    return f"{note} {WEIGHTS_NOTE}" if is_weighted else note


def few_images_note(comparison: Comparison) -> str:
    """Return how little a small test split says, and what says more; empty for a larger one, or in cross-validation."""
    n = comparison.n_test
    if n >= FEW_TEST_IMAGES or comparison.n_folds:
        return ""
    low, high = (round(100 * end) for end in comparison.best.accuracy_interval)
    n_all = n + comparison.n_train + comparison.n_validation
    name = printable(comparison.best.name)
    return (
        f"With only {n:,} test images, the accuracy of {name} is known only roughly: it is probably between {low} and "
        f"{high} %. Add --folds 5 to test on all {n_all:,} images."
    )


def first_seed_note(comparison: Comparison) -> str:
    """Return whose results are shown where only those of one training can be; empty if there was only one."""
    if not any(each.repeats for each in comparison.approaches):
        return ""
    return f"These results are for the first {'repetition' if comparison.n_folds else 'seed'}."


def classes_text(comparison: Comparison) -> str:
    """Return how many classes or labels there are."""
    n = f"{len(comparison.class_names):,}"
    return f"{n} labels, several for an image." if comparison.is_multilabel else f"{n} classes."


def images_text(comparison: Comparison) -> str:
    """Return how many images were for what, with a capital and a full stop."""
    if comparison.n_folds:
        return f"Images: {comparison.n_test:,}, tested in {comparison.n_folds} folds."
    return (
        f"Images: {comparison.n_train:,} for training, {comparison.n_validation:,} for validation, "
        f"{comparison.n_test:,} for testing."
    )


def repeats_header(comparison: Comparison) -> tuple[str, ...]:
    """Return the columns of the table of all trainings."""
    return FOLDS_HEADER if comparison.n_folds else REPEATS_HEADER


def repeats_note(comparison: Comparison) -> str:
    """Return what that table shows."""
    return FOLD_SPREAD_NOTE if comparison.n_folds else REPEATS_NOTE


def hardware_text(comparison: Comparison, escape: Callable[[str], str] = printable) -> str:
    """Return what the comparison ran on."""
    values = {
        name.removesuffix("_bytes"): size(value) if name.endswith("_bytes") else str(value)
        for name, value in comparison.hardware.items()
    }
    return ", ".join(escape(f"{name}: {value}") for name, value in values.items()) or "unknown"


def curve_verdict(comparison: Comparison) -> str:
    """Return how many images transfer learning saves; empty without a learning curve of both kinds.

    If the curve is of numbers of images of each class, return what is most accurate with each number instead. Names are
    escaped for a terminal.
    """
    if any(point.per_class for point in comparison.learning_curve):
        return _shots_verdict(comparison)
    kind_of = {approach.name: approach.kind for approach in comparison.approaches}
    scratch = [point for point in comparison.learning_curve if kind_of[point.approach] == "scratch"]
    features = [point for point in comparison.learning_curve if kind_of[point.approach] == "features"]
    if not scratch or not features:
        return ""

    def spread(accuracies: Sequence[float]) -> str:
        low, high = (figure(one, comparison.n_test) for one in (min(accuracies), max(accuracies)))
        return f"{percent(fmean(accuracies), comparison.n_test)} ({low} to {high} %)"

    n_all = max(point.n_train for point in scratch)
    target = max((point for point in scratch if point.n_train == n_all), key=lambda point: point.mean)
    reached = min((point for point in features if point.mean >= target.mean), key=lambda p: p.n_train, default=None)
    best = f"{printable(target.approach)} trained on all {n_all:,} images"
    if reached is None:
        accuracy = spread(target.accuracies)
        return f"No approach on features reaches {best}: {accuracy}. Transfer learning does not pay off here."
    return (
        f"With {reached.n_train:,} training images ({round(100 * reached.fraction, 1):g} %), "
        f"{printable(reached.approach)} is as accurate as {best}: {spread(reached.accuracies)} against "
        f"{spread(target.accuracies)}, means and ranges of {len(target.accuracies)} seeds."
    )


def _shots_verdict(comparison: Comparison) -> str:
    """Return which approach is the most accurate with each number of images of each class, and which are as good."""
    points = comparison.learning_curve
    parts = []
    for shots in sorted({point.per_class or 0 for point in points}):
        best, *others = sorted((one for one in points if one.per_class == shots), key=lambda one: -one.mean)
        low, high = (figure(one, comparison.n_test) for one in (min(best.accuracies), max(best.accuracies)))
        accuracy = f"{percent(best.mean, comparison.n_test)}, {low} to {high} %"
        as_good = ", ".join(printable(one.approach) for one in others if not _is_clearly_better(best, one))
        images = f"{shots:,} image{'' if shots == 1 else 's'}"
        tied = f"; not clearly worse: {as_good}" if as_good else ""
        name = printable(best.approach)
        parts.append(f"With {images} of each class, {name} is the most accurate ({accuracy}{tied}).")
    n_seeds = len(points[0].accuracies)
    parts.append(f"These are means and ranges of {n_seeds} seeds, each with other training images.")
    has_epochs = any(approach.history for approach in comparison.approaches)
    if has_epochs and any(point.per_class == 1 for point in points):
        parts.append("One image of each class leaves none to choose the epoch by, so networks train for all epochs.")
    return " ".join(parts)


def _is_clearly_better(best: CurvePoint, other: CurvePoint) -> bool:
    """Return whether one point is higher than another beyond chance, by a paired t-test over the seeds."""
    from scipy.special import stdtrit

    differences = [one - two for one, two in zip(best.accuracies, other.accuracies, strict=True)]
    n, mean = len(differences), fmean(differences)
    return mean > float(stdtrit(n - 1, 1 - SIGNIFICANCE / 2)) * stdev(differences) / math.sqrt(n)


def _points(best: Approach, counterpart: Approach) -> float:
    """Return the difference of two accuracies as they are shown: whoever subtracts them gets the same."""
    n = best.metrics.n_samples
    return float(figure(best.accuracy, n)) - float(figure(counterpart.accuracy, n))


def _points_text(best: Approach, counterpart: Approach) -> str:
    n, points = best.metrics.n_samples, _points(best, counterpart)
    text = f"{points:.0f}" if n < N_FOR_DECIMALS or points >= 9.95 else f"{points:.1f}"
    return f"{text} point{'' if text == '1' else 's'}"


def _significance(comparison: Comparison, counterpart: Approach) -> str:
    """Return whether the best is better than its counterpart beyond chance."""
    best = comparison.best
    points = _points_text(best, counterpart)
    if counterpart.p_holm is None:
        return f"The difference of {points} was not tested for significance."
    test = "paired test over images and seeds" if best.repeats or counterpart.repeats else "McNemar's test"
    test = "corrected resampled t-test" if comparison.n_folds else test
    correction = " with Holm's correction" if len(comparison.approaches) > 2 else ""
    test = f"{test}{correction}, {_p_text(counterpart)}"
    if counterpart.differs_from_best:
        return f"The difference of {points} is statistically significant ({test})."
    difference = _points(best, counterpart)
    if difference >= TIE_POINTS:
        return f"The difference of {points} is not statistically significant ({test})."
    if not round(difference, 1):
        return f"They tied ({test})."
    return f"They tied: the difference of {points} is not statistically significant ({test})."


def _times(best: Approach, counterpart: Approach, escape: Callable[[str], str]) -> str:
    """Return what both cost, and how many times as long the slower one took, if that is more than a little."""
    slow, fast = sorted((best, counterpart), key=lambda approach: -approach.total_s)
    times = f"{duration(slow.total_s)} against {duration(fast.total_s)}"
    if not fast.total_s or slow.total_s < 1.2 * fast.total_s:
        ours, theirs = duration(best.total_s), duration(counterpart.total_s)
        if ours == theirs:
            return f"{escape(best.name)} and {escape(counterpart.name)} both took {ours}."
        return f"{escape(best.name)} took {ours}, {escape(counterpart.name)} {theirs}."
    ratio = slow.total_s / fast.total_s
    text = f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"
    return f"{escape(slow.name)} took {text} times as long as {escape(fast.name)}: {times}."


def _p_text(approach: Approach) -> str:
    p = p_value(approach.p_holm)
    return f"p < {p[1:]}" if p.startswith("<") else f"p = {p}"


def _warnings(comparison: Comparison, *, markdown: bool) -> str:
    if markdown:
        return "\n>\n".join(f"> **Warning:** {escape_markdown(text)}" for text in comparison.warnings)
    return "\n".join(_filled(f"WARNING: {printable(text)}") for text in comparison.warnings)


def _filled(text: str) -> str:
    """Return `text` in lines of `TERMINAL_WIDTH` columns, also if it has wide letters."""
    return textwrap.fill(text, max(TERMINAL_WIDTH - n_columns(text) + len(text), TERMINAL_WIDTH // 2))


def _cut(text: str, width: int = MAX_NAME) -> str:
    """Return `text` in at most `width` columns; of a longer one the start and the end.

    >>> _cut("vgg16 + logreg"), _cut("a" * 40 + "z", 36), n_columns(_cut("猫" * 40, 36))
    ('vgg16 + logreg', 'aaaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaz', 35)
    """
    if n_columns(text) <= width:
        return text
    start, end = text, text
    while n_columns(start) > width - width // 3 - 1:
        start = start[:-1]
    while n_columns(end) > width // 3:
        end = end[1:]
    return f"{start}…{end}"


def _wrapped(name: str, width: int) -> list[str]:
    """Return a name in lines of at most `width` columns; a longer word is shortened.

    >>> _wrapped("resnet50 + logreg, 8 views", 20)
    ['resnet50 + logreg, 8', 'views']
    """
    lines = [""]
    for word in (_cut(word, width) for word in name.split(" ")):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if n_columns(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
