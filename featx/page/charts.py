"""The charts of the page: matplotlib's, as SVG in the page itself, in the colours of the page, light or dark."""

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from featx.comparison import Comparison
from featx.plots import chart_figures
from featx.plots.picture_page import INK, PALE, page_style, texts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours of the pictures, and the page's names for them.
_COLOURS = {
    INK: "var(--ink)",
    PALE: "var(--pale)",
    "#5F5F5F": "var(--dim)",
    "#E6E6E6": "var(--line)",
    "#FFFFFF": "var(--card)",
    "#B3261E": "var(--warning)",
    "#0072B2": "var(--blue)",
    "#8CC8EC": "var(--light-blue)",
    "#E69F00": "var(--orange)",
    "#009E73": "var(--green)",
}


def charts(comparison: Comparison) -> dict[str, Markup]:
    """Return the charts of a comparison as SVG elements, by name."""
    with page_style(texts_of(comparison)):
        figures = chart_figures(comparison)
        return {name: _svg(figure, name) for name, figure in figures.items()}


def _svg(figure: "Figure", name: str) -> Markup:
    """Return a picture as an SVG element whose identifiers are nobody else's."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _COLOURS.items():
        text = re.sub(colour, variable, text, flags=re.IGNORECASE)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"|<svg ', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace("<svg ", '<svg role="presentation" aria-hidden="true" ', 1))  # noqa: S704 - matplotlib escapes what it writes
