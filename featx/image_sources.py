"""Images wherever they come from: files, or arrays of pixels. Each is known by the SHA-256 of a file's bytes."""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from featx.dataset import ImageDataset
from featx.digests import digest_files
from featx.errors import FeatxError, ImageError, printable
from featx.images import MAX_PIXELS, decode_image, read_file
from featx.on_demand import OnDemand
from featx.places import Place, RemotePath, as_place

#: Where one image comes from: a file, here or elsewhere, or an array `(height, width, 3)` or `(height, width)` uint8.
Source = Place | np.ndarray

#: What users give for several images, or for one: see `images_in`.
ManyImages = Iterable[Any] | Place | str | Image.Image | ImageDataset | np.ndarray

#: What would be gone over letter by letter, name by name, or in no certain order.
_DOUBTFUL = (bytes, bytearray, memoryview, Mapping, set, frozenset)

#: Of an array: the last axis of an image in colour, or of a gray one that has its axis nevertheless.
_CHANNELS = (3, 1)

#: Modes of Pillow that a PNG keeps as they are.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


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


def images_in(given: object) -> Sequence[object]:
    """Return the images that a user gives: what a list or its like holds, or one image in a list of its own.

    Raises:
        FeatxError: it may mean something else; the message says what is expected.
    """
    if isinstance(given, str | os.PathLike | RemotePath | Image.Image):
        return [given]
    if isinstance(given, ImageDataset):
        return images_of(given).sources
    if isinstance(given, np.ndarray):
        return _images_in_array(given)
    is_doubtful = isinstance(given, _DOUBTFUL) or hasattr(given, "columns")  # as a data frame has them
    if is_doubtful or not isinstance(given, Iterable):
        raise FeatxError(f"Images are paths, arrays or Pillow images, in a list. Received: {type(given).__name__}")
    return list(given)


def _images_in_array(array: np.ndarray) -> Sequence[object]:
    if array.ndim == 0:
        return [array.item()]
    if array.ndim == 3 and array.shape[2] in _CHANNELS:
        return [array]
    if array.ndim == 1 or (array.ndim == 4 and array.shape[3] in _CHANNELS):
        return list(array)
    raise FeatxError(
        f"An array of images is (n, height, width, 3), one image (height, width, 3), and an array of paths (n,); give "
        f"gray images (height, width) in a list. Received: {array.shape} of {array.dtype}"
    )


def as_source(item: object) -> Source:
    """Return where one image comes from that a user gives.

    Raises:
        FeatxError: it is no path, no array of pixels and no Pillow image.
    """
    if isinstance(item, str | os.PathLike | RemotePath):
        return as_place(item)
    if isinstance(item, Image.Image):
        return _pixels(item)
    if isinstance(item, np.ndarray):
        return item[..., 0] if item.ndim == 3 and item.shape[2] == 1 else item
    raise FeatxError(f"An image is a path, an array or a Pillow image. Received: {type(item).__name__}")


def _pixels(image: Image.Image) -> np.ndarray:
    """Return what featx sees in a Pillow image, `(height, width, 3)` uint8: upright, on white, as in a PNG of it.

    Raises:
        FeatxError: its pixels cannot be read, or nothing says which of their values is white.
    """
    try:
        upright = ImageOps.exif_transpose(image)
        with io.BytesIO() as file:
            (upright if upright.mode in _PNG_MODES else _in_rgb(upright)).save(file, "PNG", compress_level=0)
            return decode_image(file.getvalue(), (upright.height, upright.width))
    except Exception as error:  # Pillow raises a dozen kinds of exception on damaged files
        raise FeatxError(f"The Pillow image of {image.size} in mode {image.mode} cannot be used: {error}.") from error


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in {"CMYK", "YCbCr", "HSV", "LAB", "RGBX"}:
        raise ImageError("it is not known which value is white; convert it to RGB")
    return image.convert("RGB")


def images_of_sources(sources: Sequence[Source], cache_dir: Place) -> Images:
    """Return images with their digests; those of files are remembered in `cache_dir`.

    Raises:
        ImageError: a file cannot be read.
        FeatxError: an array is no image.
    """
    files = {row: source for row, source in enumerate(sources) if not isinstance(source, np.ndarray)}
    arrays = [row for row in range(len(sources)) if row not in files]
    digests = np.zeros((len(sources), 32), np.uint8)
    digests[list(files)], reasons = digest_files(list(files.values()), cache_dir)
    for number, reason in reasons.items():
        raise ImageError(f"{printable(list(files.values())[number])} cannot be read: {reason}.")
    digests[arrays] = images_of_arrays([np.asarray(sources[row]) for row in arrays]).digests
    return Images(sources, digests)


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
    """Raise FeatxError unless `array` is an image. One of `(n, 3)` or `(n, 4)` is a row of pixels."""
    has_channels = array.ndim == 3 and array.shape[2] == 3
    is_gray = array.ndim == 2 and array.shape[1] not in {3, 4}
    if array.dtype != np.uint8 or not (is_gray or has_channels) or not 0 < array.size <= 3 * MAX_PIXELS:
        is_number = array.size and np.issubdtype(array.dtype, np.number)
        values = f", from {array.min():.4g} to {array.max():.4g}" if is_number else ""
        raise FeatxError(
            f"An image is an array (height, width, 3) or (height, width) of uint8, from 0 to 255. Received: "
            f"{array.shape} of {array.dtype}{values}"
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
