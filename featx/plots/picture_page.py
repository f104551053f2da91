"""The page that every picture of a comparison is drawn on: its style, title, warnings, footer and letters."""

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from featx.comparison import Comparison
from featx.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which stay apart for colour-blind readers; the pale blue is their sky blue.
FEATURES_COLOUR, REPRESENTATIONS_COLOUR, SCRATCH_COLOUR, DIRECT_COLOUR = "#0072B2", "#8CC8EC", "#E69F00", "#009E73"
WARNING_COLOUR, INK, PALE = "#B3261E", "#222222", "#8A8A8A"

WIDTH_IN = 9.0
DPI = 100
LINE_IN = 0.2

#: Tried after matplotlib's own DejaVu Sans for letters that it lacks; those not installed are passed over.
FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in featx's style, whatever matplotlib is set to."""
    import matplotlib as mpl
    import matplotlib.style

    style: dict[str, Any] = {
        "font.family": list(_fonts()),
        "font.size": 10.5,
        "text.parse_math": False,  # a class may be called "$5"
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": PALE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }
    with mpl.style.context(["default", style]):
        yield


def new_page(
    comparison: Comparison, title: str, body_in: float, *, width_in: float = WIDTH_IN, note: str = ""
) -> "Figure":
    """Return a figure with its title, the comparison's warnings, a footer, and `body_in` inches left for the rest."""
    from matplotlib.figure import Figure

    titles = _balanced(title, int(8.6 * width_in))
    warnings = [
        line for text in comparison.warnings for line in textwrap.wrap("⚠ " + drawable(text), int(11.5 * width_in))
    ]
    source = f"{short(comparison.dataset)}: {comparison.n_test:,} test images, {comparison.n_train:,} for training."
    footers = textwrap.wrap(f"{source} {note}", int(14 * width_in))
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
    figure.text(left, 0.08 / height_in, "\n".join(footers), fontsize=8.5, color="#5F5F5F", va="bottom")
    return figure


def _balanced(text: str, width: int) -> list[str]:
    """Return `text` in as few lines as `width` allows, about equally long, no number cut off from its unit."""
    text = re.sub(r"(?<=\d) (?=%|(?:s|min|h|d)\b)", "\N{NO-BREAK SPACE}", text)
    n_lines = len(textwrap.wrap(text, width))
    narrower = (textwrap.wrap(text, limit) for limit in range(width // 2, width + 1))
    return next(lines for lines in narrower if len(lines) == n_lines)


def png(figure: "Figure") -> bytes:
    """Return the picture at twice the page's resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
    return buffer.getvalue()


def short(name: str, width: int = 40) -> str:
    """Return a name fit for a picture; of long ones the start and the end, which is where similar names differ."""
    start = end = [drawable(letter) for letter in printable(name)]
    if len("".join(start)) <= width:
        return "".join(start)
    while len("".join(start)) > width - width // 3 - 1:
        start = start[:-1]
    while len("".join(end)) > width // 3:
        end = end[1:]
    return "".join([*start, "…", *end])


def drawable(text: str) -> str:
    """Return `text` with the letters that no installed font has as escapes, which can be told apart, unlike boxes."""
    known = _letters()
    return "".join(
        char if ord(char) in known else char.encode("unicode_escape").decode("ascii") for char in printable(text)
    )


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed))


@cache
def _letters() -> frozenset[int]:
    """Return the code points that the fonts have in both weights used."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = {
        weight: {
            point
            for name in _fonts()
            for point in get_font(findfont(FontProperties(family=[name], weight=weight))).get_charmap()
        }
        for weight in ("normal", "bold")
    }
    return frozenset(known["normal"] & known["bold"])
