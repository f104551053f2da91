"""The charts of the results: accuracy, time, and one against the other."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.compare import SIGNIFICANCE, Approach, Comparison, ranked
from featx.report.cells import (
    accuracy_text,
    percent,
    result_cells,
)
from featx.report.plots.page import (
    COLOURS,
    DIM,
    DPI,
    FEATURES_COLOUR,
    INK,
    MARKERS,
    PALE,
    PICTURE,
    Sheet,
    new_page,
    short,
)
from featx.report.text import (
    accuracy_word,
    title,
)
from featx.system import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

#: What is drawn around points, and with several seeds also.
INTERVALS = "Lines: 95 % intervals."
SEEDS = "Small dots: the seeds. ±: their standard deviation."
FOLDS = "Small dots: the folds. ±: their standard deviation."

#: How the accuracy with one seed is drawn.
SEED_DOT: dict[str, Any] = {"color": INK, "marker": ".", "ls": "", "ms": 4, "alpha": 0.6, "zorder": 4}

#: Marks of a time axis, in seconds.
TIME_STEPS_S = (
    *(unit * n for unit in (0.001, 0.01, 0.1) for n in (1, 2, 5)),
    *(unit * n for unit in (1, 60) for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10)),
    *(86400 * n for n in (1, 2, 5, 10, 20, 50)),
)


def summary_chart(comparison: Comparison, sheet: Sheet = PICTURE) -> "Figure":
    """Accuracy against time: the most important picture."""
    figure = new_page(comparison, title(comparison, short), 4.6, sheet, note=accuracy_note(comparison))
    axes = figure.add_subplot()
    _time_scale(axes, [approach.total_s for approach in comparison.approaches], n_ticks=4 if sheet.is_narrow else 8)
    for approach in comparison.approaches:
        x, colour = _visible(approach.total_s), COLOURS[approach.kind]
        axes.vlines(x, *_interval([approach]), colour, lw=2, alpha=0.7)
        axes.plot([x] * len(approach.trainings), _percentages(approach), **SEED_DOT)
        axes.plot(x, 100 * approach.accuracy, MARKERS[approach.kind], color=colour, ms=9, zorder=3)
    low, high = _extent(comparison.approaches)
    margin = max(0.15 * (high - low), 0.5)
    axes.set_ylim(max(low - margin, -2), min(high + margin, 102))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel(f"{accuracy_word(comparison)} on test images")
    scale = " (log scale)" if axes.get_xscale() == "log" else ""
    axes.set_xlabel(f"total time: features and training{scale}")
    _kind_legend(axes, comparison, n_columns=1 if sheet.is_narrow else 3)
    _label_points(figure, axes, comparison.approaches)
    return figure


def accuracy_chart(comparison: Comparison, sheet: Sheet = PICTURE) -> "Figure":
    """Dots with intervals, the best approach on top, beside what chance reaches."""
    rows = ranked(comparison.approaches)
    figure = new_page(
        comparison, _accuracy_title(comparison), 1.2 + 0.42 * len(rows), sheet, note=accuracy_note(comparison)
    )
    axes = figure.add_subplot()
    for y, approach in enumerate(rows):
        low, high = _interval([approach])
        axes.hlines(y, low, high, COLOURS[approach.kind], lw=3, alpha=0.6)
        axes.plot(_percentages(approach), [y] * len(approach.trainings), **SEED_DOT)
        axes.plot(100 * approach.accuracy, y, MARKERS[approach.kind], color=COLOURS[approach.kind], ms=7.5)
        _right_of(axes, y, result_cells(approach, comparison)[0])
    _chance_line(axes, comparison, rows)
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.set_xlabel(f"{accuracy_word(comparison)} on test images, with its 95 % interval")
    _approach_rows(axes, rows, top=-1.1)
    _kind_legend(axes, comparison, n_columns=2)  # beside long names, three do not fit
    return figure


def accuracy_note(comparison: Comparison) -> str:
    """Return what a chart of accuracies shows beside the points."""
    if comparison.n_folds:
        return f"{INTERVALS} {FOLDS}"
    return f"{INTERVALS} {SEEDS}" if any(approach.repeats for approach in comparison.approaches) else INTERVALS


def _percentages(approach: Approach) -> list[float]:
    """Return the accuracy with each seed, in per cent; empty if there is one seed."""
    return [100 * share for share in approach.trainings]


def _chance_line(axes: "Axes", comparison: Comparison, rows: Sequence[Approach]) -> None:
    """Mark what chance reaches; if that is so far off that the intervals would shrink to dots, say it at the edge."""
    low, high = _extent(rows)
    chance = 100 * comparison.commonest_share
    what = "set of labels" if comparison.is_multilabel else "class"
    text = f"always the most common {what}: {percent(comparison.commonest_share, comparison.n_test)}"
    start = min(chance, low) - 2
    if low - chance > 4 * (high - low):
        text, start = f"◂ far left: {text}", low - 0.3 * (high - low)
    else:
        axes.axvline(chance, color=PALE, ls="--", lw=1.3)
    margin = 0.02 * (high - start)
    axes.set_xlim(max(start, -margin), min(high + 4 * margin, 100 + margin))
    axes.text(max(start, chance), -0.75, f" {text}", color=DIM, fontsize=9, va="center")


def _accuracy_title(comparison: Comparison) -> str:
    best = comparison.best
    others = [approach for approach in comparison.approaches if approach is not best]
    close = [approach for approach in others if not approach.differs_from_best]
    if not others:
        all_labels = "all labels of " if comparison.is_multilabel else ""
        return f"{short(best.name)} is right on {all_labels}{accuracy_text(best)} of the test images"
    name = f"{short(best.name)} ({accuracy_text(best)})" if best.trainings else short(best.name)
    if not close:
        return f"{name} is the most accurate, by a significant difference (p < {SIGNIFICANCE:g})"
    names = f"{short(close[0].name)} is" if len(close) == 1 else f"{len(close)} others are"
    return f"{name} leads, but {names} not clearly worse"


def time_chart(comparison: Comparison, sheet: Sheet = PICTURE) -> "Figure":
    """Stacked bars, so the axis is linear: on a logarithmic one the lengths of stacked parts mean nothing."""
    rows = sorted(comparison.approaches, key=lambda approach: approach.total_s)
    fastest = f"{short(rows[0].name)} {'was the fastest:' if len(rows) > 1 else 'took'} {duration(rows[0].total_s)}"
    note = "Features are extracted once per image and shared by all heads on a backbone; each bar counts them in full."
    has_features = any(approach.representations_s for approach in rows)
    row_in = 0.66 if sheet.is_narrow else 0.46
    figure = new_page(comparison, fastest, 1.2 + row_in * len(rows), sheet, note=note if has_features else "")
    axes = figure.add_subplot()
    height = 0.4 if sheet.is_narrow else 0.55
    starts = [approach.representations_s for approach in rows]
    if any(starts):
        style: dict[str, Any] = {"fc": FEATURES_COLOUR, "ec": COLOURS["features"], "hatch": "////", "lw": 1}
        axes.barh(range(len(rows)), starts, height, label="extracting features", **style)
    for kind, name in (("features", "training the head"), ("scratch", "training from scratch")):
        widths = [approach.top_s if approach.kind == kind else 0.0 for approach in rows]
        if any(widths):
            axes.barh(range(len(rows)), widths, height, starts, color=COLOURS[kind], label=name)
    axes.set_xlim(0, 1.03 * _visible(max(approach.total_s for approach in rows)))
    _linear_time_ticks(axes, max(approach.total_s for approach in rows), n_ticks=4 if sheet.is_narrow else 7)
    axes.set_xlabel("total time")
    _approach_rows(axes, rows, top=-0.6)
    for y, approach in enumerate(rows):
        if sheet.is_narrow:
            axes.text(0, y - 0.29, f"{short(approach.name, 28)}: {_time_label(approach)}", fontsize=9.5)
        else:
            _right_of(axes, y, _time_label(approach))
    if sheet.is_narrow:
        axes.set_yticks([])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=1 if sheet.is_narrow else 3, borderaxespad=0.2)
    return figure


def _time_label(approach: Approach) -> str:
    if approach.kind == "scratch":
        return duration(approach.total_s)
    return f"{duration(approach.representations_s)} + {duration(approach.top_s)}"


def _interval(approaches: Iterable[Approach]) -> tuple[float, float]:
    """Return the ends of the 95 % intervals of accuracy, in per cent: the lowest and the highest."""
    lows, highs = zip(*(approach.accuracy_interval for approach in approaches), strict=True)
    return 100 * min(lows), 100 * max(highs)


def _extent(approaches: Iterable[Approach]) -> tuple[float, float]:
    """Return the same of all that is drawn of an accuracy, which may be that of a seed."""
    shown = [end for each in approaches for end in (*_interval([each]), *_percentages(each))]
    return min(shown), max(shown)


def _kind_legend(axes: "Axes", comparison: Comparison, n_columns: int = 3) -> None:
    """Say above the axes, in so many columns, which kinds of approaches there are."""
    names = {
        "features": "head on pretrained features",
        "scratch": "trained from scratch",
        "direct": "pretrained classifier",
    }
    for approach in {approach.kind: approach for approach in comparison.approaches}.values():
        axes.plot([], [], MARKERS[approach.kind], color=COLOURS[approach.kind], ms=8, label=names[approach.kind])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, borderaxespad=0.2, handletextpad=0.2)


def _approach_rows(axes: "Axes", rows: Sequence[Approach], top: float) -> None:
    """Make the y axis a list of approaches, the first on top, with room above from `top`."""
    axes.set_yticks(range(len(rows)), [short(approach.name, 32) for approach in rows])
    axes.set_ylim(len(rows) - 0.5, top)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _right_of(axes: "Axes", y: float, text: str) -> None:
    """Write beside the axes, where no bar and no whisker can reach."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=10)


def _visible(seconds: float) -> float:
    """Return a time that has a place on a logarithmic axis."""
    return max(seconds, 0.001)


def _time_scale(axes: "Axes", times: Sequence[float], n_ticks: int) -> None:
    """Linear from 0; logarithmic where the longest is more than eight times the shortest, fit for points only."""
    shortest, longest = _visible(min(times)), _visible(max(times))
    if longest <= 8 * shortest:
        axes.set_xlim(0, 1.25 * longest)
        _linear_time_ticks(axes, 1.25 * longest, n_ticks)
        return
    low, high = shortest / 1.8, longest * 1.8
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    inside = [t for t in TIME_STEPS_S if low <= t <= high]
    ticks = inside[:: -(-len(inside) // n_ticks)]
    axes.set_xticks(ticks, [_tick(t) for t in ticks])
    axes.set_xticks([], minor=True)


def _linear_time_ticks(axes: "Axes", longest: float, n_ticks: int) -> None:
    """Mark at most so many round times from 0 to `longest` seconds."""
    step = next((step for step in TIME_STEPS_S if longest / step <= n_ticks), longest)
    ticks = np.arange(0, 1.001 * longest, step)
    axes.set_xticks(ticks, [_tick(t) for t in ticks])


def _tick(seconds: float) -> str:
    """Return a time without the units that are 0: `2 min`, not `2 min 00 s`."""
    return re.sub(r"(?<=[a-z]) 00 \w+$|\.0+(?= s)", "", duration(float(seconds)))


def _label_points(figure: "Figure", axes: "Axes", approaches: Sequence[Approach]) -> None:
    """Name each point where the label covers least: of many places around it, the nearest free one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # matplotlib's stubs lack it
    figure.draw_without_rendering()  # fixes the layout, and with it where the points are
    area = axes.get_window_extent()
    taken = [_point_box(axes, approach) for approach in approaches]
    for approach in ranked(approaches):
        label = axes.annotate(
            f"{short(approach.name, 28)}\n{accuracy_text(approach)} in {duration(approach.total_s)}",
            (_visible(approach.total_s), 100 * approach.accuracy),
            (0, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            linespacing=1.1,
            arrowprops={"arrowstyle": "-", "color": PALE, "lw": 0.8, "shrinkB": 7, "zorder": 1},
        )
        label.set_in_layout(False)
        label.update_positions(renderer)  # only then does it know where its point is
        box = _free_place(Text.get_window_extent(label), taken, area)
        x, y = axes.transData.transform(label.xy)
        label.set_position(((box.x0 - x) * 72 / DPI, ((box.y0 + box.y1) / 2 - y) * 72 / DPI))
        assert label.arrow_patch is not None
        label.arrow_patch.set_visible(_overlap(box.padded(12), _point_box(axes, approach)) == 0)
        taken.append(box)


def _free_place(own: "Bbox", taken: Sequence["Bbox"], area: "Bbox") -> "Bbox":
    """Return the box `own`, which starts at its point, moved to where it covers none of the boxes and stays inside."""
    rights = (14, 40, 80, 120)
    columns = [*rights, *(-right - own.width for right in rights), -own.width / 2]
    right, up = np.array([*product(columns, range(-200, 201, 8))]).T
    wrong = sum(_overlap(own.padded(3), other, right, up) for other in taken) - _overlap(own, area, right, up)
    distance = np.hypot(np.maximum(np.maximum(right, -right - own.width), 0), up)
    best = np.argmin(10 * wrong + distance + 4 * (right < 0))
    return own.translated(float(right[best]), float(up[best]))


def _point_box(axes: "Axes", approach: Approach) -> "Bbox":
    """Return the box of a point and its whisker, in pixels."""
    from matplotlib.transforms import Bbox

    ends = axes.transData.transform([(_visible(approach.total_s), end) for end in _extent([approach])])
    return Bbox(ends).padded(8)


def _overlap(box: "Bbox", other: "Bbox", right: Any = 0, up: Any = 0) -> Any:
    """Return the area that `box`, moved by `right` and `up`, shares with the other."""
    width = np.minimum(box.x1 + right, other.x1) - np.maximum(box.x0 + right, other.x0)
    height = np.minimum(box.y1 + up, other.y1) - np.maximum(box.y0 + up, other.y0)
    return np.maximum(width, 0) * np.maximum(height, 0)
