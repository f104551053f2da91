"""A page with pictures of photographs and of the images that are most similar to them."""

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from featx.report.html.page import asset, new_environment
from featx.report.html.pictures import LARGE, link_to, thumbnail

if TYPE_CHECKING:
    from featx.similar import SimilarImages

#: The smaller pictures of a page with many.
_SMALL, _MANY = 96, 500


def contact_sheet(found: "SimilarImages", page_dir: Path) -> str:
    """Return a page of HTML, a row for each photograph, with the similar images beside it.

    Args:
        found: what to show.
        page_dir: where the page will be; links to images on this machine are relative to it.
    """
    side = LARGE if found.rows.size <= _MANY else _SMALL
    rows = [
        (photo, thumbnail(photo, side) if photo and not reason else "", reason, found.of(number))
        for number, (photo, reason) in enumerate(zip(found.photos, found.reasons, strict=True))
    ]
    return (
        new_environment()
        .from_string(asset("contact_sheet.html.j2"))
        .render(
            found=found,
            rows=rows,
            side=side,
            picture=lambda path: thumbnail(path, side),
            link=lambda path: link_to(path, page_dir),
            style=Markup(asset("page.css")),  # noqa: S704 - a file of featx's own
        )
    )
