"""What every picture has: style, colours, fonts, and on its own also a title, warnings and a footer."""

import io
import logging
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from featx.compare import Comparison
from featx.system import n_columns
from featx.text import JOINERS, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontPath

#: matplotlib's own font, which is always there.
OWN_FONT = "DejaVu Sans"

#: The first to be asked for letters that matplotlib's own font lacks; then comes any other font that is installed.
PREFERRED_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Hiragino Sans"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS"),
)

#: Fonts that have boxes or nothing for letters, or colours that matplotlib cannot draw.
_UNFIT_FONTS = re.compile(r"last ?resort|blank|color", re.IGNORECASE)


#: Eight colours, markers and dashes for what is drawn side by side. On white, each colour has a contrast of 3 or more;
#: a colour-blind reader tells them apart by lightness and marker. The page has lighter ones for a dark background.
SERIES = ("#0072B2", "#D55E00", "#00805C", "#540046", "#6363F7", "#5C3D00", "#C2408E", "#6B7780")
SERIES_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
SERIES_DASHES = ("-", (0, (6, 2)), (0, (1, 1.5)), (0, (7, 2, 1, 2)), (0, (3, 1)), (0, (9, 3)), (0, (2, 3)), "-")

#: Colour and marker by kind of approach.
COLOURS = dict(zip(("features", "scratch", "direct"), SERIES, strict=False))
MARKERS = dict(zip(COLOURS, SERIES_MARKERS, strict=False))

#: The time to extract features: hatched, with the colour of features around it.
FEATURES_COLOUR = "#CFE6F5"
WARNING_COLOUR, INK, DIM, PALE, LINE = "#B3261E", "#222222", "#5F5F5F", "#8A8A8A", "#E6E6E6"

DPI = 100
LINE_IN = 0.2


@dataclass(frozen=True)
class Sheet:
    """What a chart is drawn on: a picture of its own, or a part of the page, which has title, warnings and notes."""

    width_in: float
    is_framed: bool

    @property
    def is_narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.width_in < 6


PICTURE, WIDE, NARROW = Sheet(9.0, is_framed=True), Sheet(10.4, is_framed=False), Sheet(3.9, is_framed=False)


def fonts_for(texts: Iterable[str]) -> list[str]:
    """Return the font families that draw the texts, matplotlib's own first."""
    fonts = (_font(word) for text in texts for word in _words(text))
    return list(dict.fromkeys((OWN_FONT, *filter(None, fonts))))


def are_numbered(names: Sequence[str], width: int = 18) -> bool:
    """Return whether a picture has to number classes: a name cannot be drawn, or two look alike in `width` columns."""
    looks = {unicodedata.normalize("NFKC", re.sub(f"[{JOINERS}]", "", short(name, width))).strip() for name in names}
    return len(looks) < len(names) or not all(map(can_draw, names))


def class_labels(names: Sequence[str], width: int = 18) -> list[str]:
    """Return what a picture calls its classes: their names in `width` columns, after numbers from 1 if need be.

    A name that cannot be drawn is a number alone: whoever shows the picture says what the numbers mean.
    """
    if not are_numbered(names, width):
        return [short(name, width) for name in names]
    return [f"{n}: {short(name, width - 4)}" if can_draw(name) else str(n) for n, name in enumerate(names, start=1)]


def with_numbers(text: str, names: Sequence[str]) -> str:
    """Return `text` with `class 2` for the second of `names`, and so on, if that name cannot be drawn."""
    for n, name in sorted(enumerate(names, start=1), key=lambda pair: -len(pair[1])):
        text = text if can_draw(name) else text.replace(printable(name), f"class {n}")
    return text


def short(name: str, width: int = 40) -> str:
    """Return a name fit for a picture; of long ones the start and the end, which is where similar names differ.

    A name from right to left is isolated, or it would change places with the numbers beside it.
    """
    start = end = _drawable_letters(name)
    if n_columns("".join(start)) > width:
        while n_columns("".join(start)) > width - width // 3 - 1:
            start = start[:-1]
        while end and (n_columns("".join(end)) > width // 3 or unicodedata.category(end[0][0]).startswith("M")):
            end = end[1:]
        start = [*start, "…", *end]
    text = "".join(start)
    is_rtl = any(unicodedata.bidirectional(char) in {"R", "AL"} for char in text)
    if is_rtl:
        text = text.replace(" ", "\N{NO-BREAK SPACE}")  # a line must not end inside what is isolated
        return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"
    return text


def drawable(text: str) -> str:
    """Return `text` with the letters that no installed font has as escapes, which can be told apart, unlike boxes."""
    return "".join(_drawable_letters(text))


def _drawable_letters(text: str) -> list[str]:
    """Return the letters of `text`, those that cannot be drawn as escapes."""
    letters = _legible(text)
    missing = _lacking(OWN_FONT, "".join(letters)).difference(*filter(_font, _words(text)))
    return [letter.encode("unicode_escape").decode("ascii") if letter in missing else letter for letter in letters]


def can_draw(text: str) -> bool:
    """Return whether some installed font has the letters of each word."""
    return all(map(_font, _words(text)))


def _words(text: str) -> list[str]:
    return "".join(_legible(text)).split(" ")


def _legible(text: str) -> list[str]:
    """Return the letters of `text`, control and undecodable characters as escapes."""
    return [char if char in JOINERS else printable(char) for char in unicodedata.normalize("NFC", text)]


@cache
def _font(word: str) -> str | None:
    """Return the family that has the letters of `word` that matplotlib's own font lacks; None if no family has them."""
    lacking = _lacking(OWN_FONT, word)
    if not lacking:
        return OWN_FONT
    has_marks = any(unicodedata.category(char).startswith("M") for char in lacking)
    fit = (name for name in _families() if not _lacking(name, lacking) and (not has_marks or _has_rules(name)))
    return next(fit, None)


@cache
def _families() -> list[str]:
    """Return the families installed, the preferred first, then those without serifs."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    # matplotlib keeps its list of fonts on disk and never looks for newer ones.
    for path in sorted({*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}):
        with suppress(OSError, RuntimeError, ValueError, LookupError):  # no font, or one of pixels
            manager.addfont(path)
    ranks = {name: rank for rank, name in enumerate(PREFERRED_FONTS)}
    names = (name for name in manager.get_font_names() if not _UNFIT_FONTS.search(name))
    return sorted(names, key=lambda name: (ranks.get(name, len(ranks)), "Sans" not in name, name))


def _lacking(family: str, letters: Iterable[str]) -> set[str]:
    """Return those of `letters` that a family lacks in one of the two weights that pictures use."""
    paths = (_path(family, weight) for weight in ("normal", "bold"))
    there = [_letters_in(str(path), path.face_index) for path in paths]
    return {letter for letter in letters if not all(ord(letter) in of_face for of_face in there)}


@cache
def _letters_in(path: str, face_index: int) -> frozenset[int]:
    """Return the letters of a font, as numbers. A font is opened once, and not again for each of thousands of names."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path, face_index=face_index).get_charmap())


def _has_rules(family: str) -> bool:
    """Return whether a family has rules for letters that change beside others, without which Hindi is drawn wrong."""
    from fontTools.ttLib import TTFont

    path = _path(family)
    with TTFont(path, fontNumber=path.face_index, lazy=True) as font:
        return "GSUB" in font or "morx" in font


def _path(family: str, weight: str = "normal") -> "FontPath":
    from matplotlib.font_manager import FontProperties, findfont

    with without_font_warnings():
        return findfont(FontProperties(family=[family], weight=weight))


@contextmanager
def without_font_warnings() -> Iterator[None]:
    """Keep matplotlib from telling which fonts have no bold letters: it takes others of the same font."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


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


def new_page(comparison: Comparison, title: str, body_in: float, sheet: Sheet, *, note: str = "") -> "Figure":
    """Return a figure with `body_in` inches for the chart; its label is the title.

    On a sheet with a frame there are also the title, the comparison's warnings, and a footer with the note.
    """
    if not sheet.is_framed:
        return new_figure((sheet.width_in, body_in), title)
    width_in = sheet.width_in
    titles = _balanced(title, int(8.6 * width_in))
    texts = (drawable(with_numbers(text, comparison.class_names)) for text in comparison.warnings)
    warnings = [line for text in texts for line in _wrapped(f"⚠ {text}", int(11.5 * width_in))]
    dataset = f"{short(comparison.dataset)}: " if can_draw(comparison.dataset) else ""
    numbers = f"{comparison.n_test:,} test images, {comparison.n_train:,} for training."
    if comparison.n_folds:
        numbers = f"{comparison.n_test:,} images in {comparison.n_folds} folds."
    source = f"{dataset}{numbers}"
    footers = _wrapped(f"{source} {note}", int(14 * width_in))
    header_in = 0.15 + 0.26 * len(titles) + LINE_IN * len(warnings) + 0.08
    footer_in = 0.12 + 0.17 * len(footers)
    height_in = header_in + body_in + footer_in
    figure = new_figure((width_in, height_in), title)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.01, footer_in / height_in, 0.98, body_in / height_in))  # type: ignore[call-arg]
    left, top = 0.12 / width_in, 1 - 0.12 / height_in
    figure.text(left, top, "\n".join(titles), fontsize=13.5, fontweight="bold", va="top")
    below = top - (0.26 * len(titles) + 0.04) / height_in
    figure.text(left, below, "\n".join(warnings), fontsize=9.5, color=WARNING_COLOUR, va="top")
    figure.text(left, 0.08 / height_in, "\n".join(footers), fontsize=8.5, color=DIM, va="bottom")
    return figure


def new_figure(size_in: tuple[float, float], title: str = "") -> "Figure":
    """Return an empty figure of `(width, height)` inches; its label is the title."""
    return _figure_class()(figsize=size_in, dpi=DPI, layout="compressed", facecolor="white", label=title)


@cache
def _figure_class() -> "type[Figure]":
    """Return a figure that is drawn once when it is saved: Matplotlib draws it before that, unseen, for its layout."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    class LaidOutFigure(Figure):
        def draw(self, renderer: Any) -> None:
            engine = self.get_layout_engine()
            if isinstance(engine, ConstrainedLayoutEngine):  # which is switched off for the drawing itself
                engine.execute(self)
            else:
                super().draw(renderer)

    return LaidOutFigure


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
