"""The fonts that draw a picture's letters, and numbers for classes whose names cannot be drawn."""

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from featx.errors import printable
from featx.system import n_columns

if TYPE_CHECKING:
    from matplotlib.font_manager import FontPath

#: matplotlib's own font, which is always there.
OWN_FONT = "DejaVu Sans"

#: The first to be asked for letters that matplotlib's own font lacks; then comes any other font that is installed.
PREFERRED_FONTS = (
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

#: Fonts that have boxes or nothing for letters, or colours that matplotlib cannot draw.
_UNFIT_FONTS = re.compile(r"last ?resort|blank|color", re.IGNORECASE)

#: Invisible, but Persian, Hindi and emoji need them: zero-width non-joiner and joiner.
_JOINERS = "\u200c\u200d"


def fonts_for(texts: Iterable[str]) -> list[str]:
    """Return the font families that draw the texts, matplotlib's own first."""
    fonts = (_font(word) for text in texts for word in _words(text))
    return list(dict.fromkeys((OWN_FONT, *filter(None, fonts))))


def are_numbered(names: Sequence[str], width: int = 18) -> bool:
    """Return whether a picture has to number classes: a name cannot be drawn, or two look alike in `width` columns."""
    looks = {unicodedata.normalize("NFKC", re.sub(f"[{_JOINERS}]", "", short(name, width))).strip() for name in names}
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
    return [char if char in _JOINERS else printable(char) for char in unicodedata.normalize("NFC", text)]


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
    from matplotlib.ft2font import FT2Font

    paths = (_path(family, weight) for weight in ("normal", "bold"))
    faces = [FT2Font(path, face_index=path.face_index) for path in paths]
    return {letter for letter in letters if not all(face.get_char_index(ord(letter)) for face in faces)}


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
