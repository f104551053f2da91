"""Images wherever they come from: files, or arrays of pixels. Each is known by the SHA-256 of a file's bytes."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featx.dataset import ImageDataset
from featx.errors import FeatxError
from featx.images import MAX_PIXELS, read_file
from featx.on_demand import OnDemand
from featx.places import Place, as_place

#: Where one image comes from: a file, here or elsewhere, or an array `(height, width, 3)` or `(height, width)` uint8.
Source = Place | np.ndarray


@dataclass(frozen=True, eq=False)
class Images:
    """Images, or views of them, whose features are wanted.

    Attributes:
        sources: n of them.
        digests: `(n, 32)` uint8, the SHA-256 of each one's bytes, see `read_source`.
        views: `(n,)` uint16, the number of each one's view, or one number for all; 0 is the image itself.
    """

    sources: Sequence[Source]
    digests: np.ndarray
    views: np.ndarray | int = 0

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, rows: np.ndarray) -> "Images":
        """Return the images `rows`, `(k,)` int64."""
        views = np.broadcast_to(self.views, len(self))[rows].astype(np.uint16)
        sources = self.sources
        chosen = sources.chosen(rows) if isinstance(sources, _Chosen) else _Chosen(sources, rows)
        return Images(chosen, self.digests[rows], views)


class _Chosen(OnDemand[Source]):
    """Some of the sources, in an order of their own."""

    def __init__(self, sources: Sequence[Source], rows: np.ndarray) -> None:
        self._sources, self._rows = sources, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _make(self, row: int) -> Source:
        return self._sources[int(self._rows[row])]

    def chosen(self, rows: np.ndarray) -> "_Chosen":
        """Return the sources `rows`, `(k,)` int64, of these."""
        return _Chosen(self._sources, self._rows[rows])

    def __reduce__(self) -> tuple[type, tuple[list[Source]]]:
        """Pickle what was chosen alone: a process that is sent some images is not sent the list of all."""
        return list, (list(self),)


class _FilesOfDataset(OnDemand[Source]):
    """The files of a data set."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._root, self._paths = dataset.root, dataset.paths

    def __len__(self) -> int:
        return len(self._paths)

    def _make(self, row: int) -> Source:
        return self._root / self._paths[row]


def images_of(dataset: ImageDataset) -> Images:
    """Return the images of a data set."""
    return Images(_FilesOfDataset(dataset), dataset.digests)


def views_of(dataset: ImageDataset, n_views: int) -> Images:
    """Return the views 1 to `n_views` of each image of a data set, those of one image side by side."""
    rows = np.repeat(np.arange(dataset.n_images), n_views)
    images = images_of(dataset)[rows]
    return Images(images.sources, images.digests, np.tile(np.arange(1, n_views + 1, dtype=np.uint16), dataset.n_images))


def images_of_arrays(arrays: Sequence[np.ndarray]) -> Images:
    """Return images that are in memory, each `(height, width, 3)` RGB or `(height, width)` gray, uint8.

    Raises:
        FeatxError: an array is no such image.
    """
    for array in arrays:
        check_array(array)
    digests = b"".join(hashlib.sha256(read_source(array)).digest() for array in arrays)
    return Images(arrays, np.frombuffer(digests, np.uint8).reshape(-1, 32))


def check_array(array: np.ndarray) -> None:
    """Raise FeatxError unless `array` is an image."""
    has_channels = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (array.ndim == 2 or has_channels) or not 0 < array.size <= 3 * MAX_PIXELS:
        raise FeatxError(
            f"An image is an array (height, width, 3) or (height, width) of uint8, from 0 to 255. Received: "
            f"{array.shape} of {array.dtype}"
        )


def read_source(source: Source) -> bytes:
    """Return the bytes of an image file: those of the file, or of the BMP that holds exactly an array's pixels.

    So an array has an identity that does not depend on where it came from, and is decoded as any other image.

    Raises:
        ImageError: the file cannot be read; the message is the reason alone.
    """
    if not isinstance(source, np.ndarray):
        return read_file(source)
    with io.BytesIO() as file:
        Image.fromarray(source).save(file, "BMP")
        return file.getvalue()


def source_path(source: Source) -> Place:
    """Return what an image is called in messages and lists."""
    return as_place(f"array of {source.shape}") if isinstance(source, np.ndarray) else source.absolute()
