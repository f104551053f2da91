"""Small pictures inside the page, as many as its size allows."""

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from featx.errors import ImageError
from featx.images import decode_image, read_file
from featx.places import Place, as_data

#: Sides in pixels of pictures that stand by themselves, and of those that show up under the pointer.
LARGE, SMALL = 96, 48

#: All thumbnails together take at most so many bytes of the page.
BUDGET_BYTES = 2_000_000


class Thumbnails:
    """Data URIs of images below `root`, square, as the backbone sees them: stretched.

    Without a root, or where the budget is used up or a file is gone, there is none.
    """

    def __init__(self, root: Place | str | None) -> None:
        self._root = None if root is None else as_data(root)
        self._left_bytes = BUDGET_BYTES
        self._known: dict[tuple[str, int], str] = {}

    def uri(self, path: str, side: int = LARGE) -> str:
        """Return the data URI of the image at `path`, or an empty string."""
        if (path, side) not in self._known:
            self._known[path, side] = self._make(path, side)
        return self._known[path, side]

    def uris(self, paths: Iterable[str], side: int) -> dict[str, str]:
        """Return the data URIs of those of `paths` that have one."""
        return {path: uri for path in dict.fromkeys(paths) if (uri := self.uri(path, side))}

    def _make(self, path: str, side: int) -> str:
        if self._root is None or self._left_bytes <= 0:
            return ""
        try:
            pixels = decode_image(read_file(self._root / path), (side, side))
        except ImageError:
            return ""
        uri = f"data:image/webp;base64,{base64.b64encode(_webp(pixels)).decode('ascii')}"
        self._left_bytes -= len(uri)
        return uri


def _webp(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "WEBP", quality=55, method=4)
        return file.getvalue()
