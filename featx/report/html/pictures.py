"""Pictures of images on a page: inside of it, as data URIs, and as links to their files."""

import base64
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image

from featx.errors import ImageError
from featx.images import decode_image, read_file
from featx.report.html.heat_map import draw_heat_map
from featx.storage import StoragePath, as_data

#: Sides in pixels of pictures that stand by themselves, and of those that show up under the pointer.
LARGE, SMALL = 144, 64

#: All thumbnails together take at most so many bytes of the page.
BUDGET_BYTES = 2_000_000


class Thumbnails:
    """Data URIs of images below `root`, square, as the backbone sees them: stretched; and links to their files.

    Without a root, or where the budget is used up or a file is gone, there is none. There are links to files on this
    machine only: relative to `report_dir`, so that they hold when a folder with both is moved, or absolute.
    """

    def __init__(self, root: StoragePath | str | None, report_dir: Path | None = None) -> None:
        self._root = None if root is None else as_data(root)
        self._left_bytes = BUDGET_BYTES
        self._known: dict[tuple[str, int], str] = {}
        self.base = self._link_to_root(report_dir)

    def _link_to_root(self, report_dir: Path | None) -> str:
        """Return the link to the root, with a slash at its end; an empty string if there is none."""
        if not isinstance(self._root, Path) or not self._root.is_dir():
            return ""
        root = self._root.resolve()
        if report_dir is not None:
            with suppress(ValueError):  # on Windows, on another drive
                return quote(os.fsencode(Path(os.path.relpath(root, report_dir.resolve())).as_posix())) + "/"
        return root.as_uri() + "/"

    def link(self, path: str) -> str:
        """Return the link to the image at `path`, or an empty string."""
        return self.base and self.base + quote(os.fsencode(path))

    def uri(self, path: str, side: int = LARGE) -> str:
        """Return the data URI of the image at `path`, or an empty string."""
        if (path, side) not in self._known:
            self._known[path, side] = self._make(path, lambda file: thumbnail(file, side))
        return self._known[path, side]

    def heat_map(
        self, path: str, evidence: npt.ArrayLike, image_size: tuple[int, int], aspect_ratio: str | None
    ) -> tuple[str, int, int]:
        """Return the data URI of the image at `path` with evidence over it, or an empty string; its width and height.

        Args:
            path: of the image.
            evidence: `(h, w)`, see `draw_heat_map`.
            image_size: `(height, width)` that the network takes.
            aspect_ratio: see `featx.images.decode_image`.
        """
        height, width = scaled(image_size, LARGE)

        def draw(file: StoragePath) -> str:
            pixels = seen_pixels(file, image_size, aspect_ratio, LARGE)
            return "" if pixels is None else picture_uri(draw_heat_map(pixels, evidence))

        return self._make(path, draw), width, height

    def _make(self, path: str, draw: Callable[[StoragePath], str]) -> str:
        if self._root is None or self._left_bytes <= 0:
            return ""
        uri = draw(self._root / path)
        self._left_bytes -= len(uri)
        return uri


def thumbnail(path: StoragePath, side: int) -> str:
    """Return the data URI of a picture of an image, `side` pixels square; empty if the image cannot be read."""
    try:
        pixels = decode_image(read_file(path), (side, side))
    except ImageError:
        return ""
    return picture_uri(pixels)


def seen_pixels(
    path: StoragePath, image_size: tuple[int, int], aspect_ratio: str | None, side: int
) -> np.ndarray | None:
    """Return what a network sees of an image, `(height, width, 3)` uint8 RGB; None if the image cannot be read.

    Args:
        path: the image.
        image_size: `(height, width)` that the network takes.
        aspect_ratio: see `featx.images.decode_image`.
        side: pixels of the longer side.
    """
    try:
        return decode_image(read_file(path), scaled(image_size, side), aspect_ratio)
    except ImageError:
        return None


def scaled(image_size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the `(height, width)` of an image whose longer side gets `side` pixels.

    >>> scaled((150, 200), 144)
    (108, 144)
    """
    height, width = (max(1, round(one * side / max(image_size))) for one in image_size)
    return height, width


def picture_uri(pixels: np.ndarray) -> str:
    """Return the data URI of a picture with these pixels, `(height, width, 3)` uint8 RGB."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "WEBP", quality=55, method=4)
        return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def link_to(path: StoragePath, page_dir: Path) -> str:
    """Return the link to an image; empty unless it is a file on this machine."""
    if not isinstance(path, Path):
        return ""
    try:
        return quote(os.fsencode(Path(os.path.relpath(path.resolve(), page_dir.resolve())).as_posix()))
    except ValueError:  # on Windows, on another drive
        return path.resolve().as_uri()
