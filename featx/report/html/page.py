"""Puts the page together."""

import base64
import hashlib
import io
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from featx.compare import Comparison, duration
from featx.errors import printable
from featx.report.html.content import (
    HEADER,
    WHY_THEY_DIFFER,
    Thumbnails,
    matrices,
    page_data,
    ranked_images,
    repeats,
    rows,
)
from featx.report.plots.drawings import chart_figures
from featx.report.plots.letters import are_numbered
from featx.report.plots.page import INK, PALE, page_style, texts_of
from featx.report.text import (
    CAVEAT,
    CURVES_NOTE,
    LEARNING_NOTE,
    REPEATS_HEADER,
    REPEATS_NOTE,
    TIME_NOTE,
    curve_verdict,
    short_value,
    verdict,
)
from featx.storage import StoragePath

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


def page_html(comparison: Comparison, data_dir: StoragePath | str | None = None) -> str:
    """Return the page of a comparison: HTML that needs neither a network nor another file.

    Args:
        comparison: what to show.
        data_dir: the data set's folder, from which thumbnails are made; without it there are none.

    Every name is escaped by the template, and control characters in it are made visible. The page forbids itself, by a
    content security policy, to load anything or to run any script but its own.
    """
    from jinja2 import Environment, StrictUndefined

    # Whatever is put into the page is escaped unless it is Markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "printable": printable,
        "duration": duration,
        "percent": lambda share: f"{100 * share:.1f} %",
        "short": short_value,
    }
    style, script = _asset("page.css"), _asset("page.js")
    thumbnails = Thumbnails(data_dir)
    return environment.from_string(_asset("page.html.j2")).render(
        comparison=comparison,
        examination=comparison.error_analysis,
        verdict=_unbroken(verdict(comparison)),
        header=HEADER,
        rows=rows(comparison),
        repeats_header=REPEATS_HEADER,
        repeats=repeats(comparison),
        repeats_note=REPEATS_NOTE,
        ranked_images=ranked_images(comparison),
        matrices=matrices(comparison, comparison.error_analysis),
        why_claims_differ=WHY_THEY_DIFFER,
        charts=charts(comparison),
        are_numbered=are_numbered(comparison.class_names),
        thumbnail=thumbnails.uri,
        caveat=CAVEAT,
        time_note=TIME_NOTE,
        curves_note=CURVES_NOTE,
        learning_note=LEARNING_NOTE,
        curve_verdict=curve_verdict(comparison),
        recipes=[json.dumps(recipe, sort_keys=True) for recipe in comparison.recipes],
        style=_trusted(style),
        script=_trusted(script),
        script_hash=_hash(script),
        data=lambda: page_data(comparison, thumbnails),  # last: what stands on the page itself has first claim
    )


def _unbroken(text: str) -> str:
    """Return `text` with spaces that no line breaks at: in `85.7 %` and in `p < 0.001`."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=p [<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def _asset(name: str) -> str:
    return resources.files("featx.report.html").joinpath(name).read_text(encoding="utf-8")


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - a file of featx's own


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}"
