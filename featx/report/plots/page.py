"""What every picture has: style, colours, fonts, a title, warnings and a footer."""

import io
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featx.compare import Comparison
from featx.report.plots.letters import can_draw, drawable, fonts_for, short, with_numbers, without_font_warnings
from featx.system import n_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which stay apart for colour-blind readers, by kind of approach; and a marker for each.
COLOURS = {"features": "#0072B2", "scratch": "#E69F00", "direct": "#009E73"}
MARKERS = {"features": "o", "scratch": "s", "direct": "D"}

#: Their sky blue, beside the blue of features.
REPRESENTATIONS_COLOUR = "#8CC8EC"
WARNING_COLOUR, INK, DIM, PALE, LINE = "#B3261E", "#222222", "#5F5F5F", "#8A8A8A", "#E6E6E6"

WIDTH_IN = 9.0
DPI = 100
LINE_IN = 0.2


@contextmanager
def page_style(texts: Iterable[str]) -> Iterator[None]:
    """Draw in featx's style, whatever matplotlib is set to, with fonts that have the letters of `texts`."""
    import matplotlib as mpl
    import matplotlib.style

    style: dict[str, Any] = {
        "font.family": fonts_for(texts),
        "font.size": 10.5,
        "text.parse_math": False,  # a class may be called "$5"
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": PALE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }
    with mpl.style.context(["default", style]), without_font_warnings():
        yield


def texts_of(comparison: Comparison) -> list[str]:
    """Return the texts in the pictures of a comparison that are not featx's own."""
    names = (approach.name for approach in comparison.approaches)
    return [comparison.dataset, *comparison.class_names, *comparison.warnings, *names]


def new_page(
    comparison: Comparison, title: str, body_in: float, *, width_in: float = WIDTH_IN, note: str = ""
) -> "Figure":
    """Return a figure with its title, the comparison's warnings, a footer, and `body_in` inches left for the rest."""
    from matplotlib.figure import Figure

    titles = _balanced(title, int(8.6 * width_in))
    texts = (drawable(with_numbers(text, comparison.class_names)) for text in comparison.warnings)
    warnings = [line for text in texts for line in _wrapped(f"⚠ {text}", int(11.5 * width_in))]
    dataset = f"{short(comparison.dataset)}: " if can_draw(comparison.dataset) else ""
    source = f"{dataset}{comparison.n_test:,} test images, {comparison.n_train:,} for training."
    footers = _wrapped(f"{source} {note}", int(14 * width_in))
    header_in = 0.15 + 0.26 * len(titles) + LINE_IN * len(warnings) + 0.08
    footer_in = 0.12 + 0.17 * len(footers)
    height_in = header_in + body_in + footer_in
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="compressed", facecolor="white")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.01, footer_in / height_in, 0.98, body_in / height_in))  # type: ignore[call-arg]
    left, top = 0.12 / width_in, 1 - 0.12 / height_in
    figure.text(left, top, "\n".join(titles), fontsize=13.5, fontweight="bold", va="top")
    below = top - (0.26 * len(titles) + 0.04) / height_in
    figure.text(left, below, "\n".join(warnings), fontsize=9.5, color=WARNING_COLOUR, va="top")
    figure.text(left, 0.08 / height_in, "\n".join(footers), fontsize=8.5, color=DIM, va="bottom")
    return figure


def _balanced(text: str, width: int) -> list[str]:
    """Return `text` in as few lines as `width` allows, about equally long, no number cut off from its unit."""
    text = re.sub(r"(?<=\d) (?=%|(?:s|min|h|d)\b)", "\N{NO-BREAK SPACE}", text)
    n_lines = len(_wrapped(text, width))
    narrower = (_wrapped(text, limit) for limit in range(width // 2, width + 1))
    return next(lines for lines in narrower if len(lines) == n_lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Return `text` in lines that fit `width` letters, of which some may be wide."""
    n_wide = max(n_columns(text) - len(text), 0)
    return textwrap.wrap(text, max(width - n_wide, width // 2))


def png(figure: "Figure") -> bytes:
    """Return the picture at twice the page's resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
    return buffer.getvalue()
