"""What all charts of a comparison share: how an approach is marked, and rows of approaches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featx.comparison import Approach, Comparison
from featx.plots.letters import short
from featx.plots.picture_page import DIRECT_COLOUR, FEATURES_COLOUR, SCRATCH_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: What lines through points mean.
INTERVALS = "Lines: 95 % intervals (Wilson)."


def colour(approach: Approach) -> str:
    """Return the colour of an approach, which tells its kind, as does its marker."""
    return {"features": FEATURES_COLOUR, "scratch": SCRATCH_COLOUR, "direct": DIRECT_COLOUR}[approach.kind]


def marker(approach: Approach) -> str:
    """Return the marker of an approach, as matplotlib knows it."""
    return {"features": "o", "scratch": "s", "direct": "D"}[approach.kind]


def kind_legend(axes: "Axes", comparison: Comparison, n_columns: int = 3) -> None:
    """Say above the axes, in so many columns, which kinds of approaches there are."""
    names = {
        "features": "top model on bottleneck features",
        "scratch": "trained from scratch",
        "direct": "pretrained, used as it is",
    }
    for approach in {approach.kind: approach for approach in comparison.approaches}.values():
        axes.plot([], [], marker(approach), color=colour(approach), ms=8, label=names[approach.kind])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, borderaxespad=0.2, handletextpad=0.2)


def approach_rows(axes: "Axes", rows: Sequence[Approach], top: float) -> None:
    """Make the y axis a list of approaches, the first on top, with room above from `top`."""
    axes.set_yticks(range(len(rows)), [short(approach.name, 32) for approach in rows])
    axes.set_ylim(len(rows) - 0.5, top)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def right_of(axes: "Axes", y: float, text: str) -> None:
    """Write beside the axes, where no bar and no whisker can reach."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=10)
