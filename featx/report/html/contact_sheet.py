"""A page with pictures of photographs and of the images that are most similar to them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from featx.report.html.page import LARGE, asset, new_environment, thumbnail
from featx.storage import StoragePath

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
            link=lambda path: _link(path, page_dir),
            style=Markup(asset("page.css")),  # noqa: S704 - a file of featx's own
        )
    )


def _link(path: StoragePath, page_dir: Path) -> str:
    """Return the link to an image; empty unless it is a file on this machine."""
    if not isinstance(path, Path):
        return ""
    try:
        return quote(os.fsencode(Path(os.path.relpath(path.resolve(), page_dir.resolve())).as_posix()))
    except ValueError:  # on Windows, on another drive
        return path.resolve().as_uri()
