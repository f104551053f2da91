"""Images in, batches of pixels out: decoded by threads, in order, with a bounded look-ahead."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from featx.dataset.digests import digest_files
from featx.dataset.folders import files_of
from featx.dataset.image_dataset import ImageDataset, Images, Source, images_of
from featx.errors import FeatxError, ImageError
from featx.images import MAX_PIXELS, Augmentation, decode_image, decode_into, make_view, quiet_pillow, read_file
from featx.storage import RemotePath, StoragePath, as_data, as_storage_path, file_digest, is_distant
from featx.system import DaemonThreads, n_cores, shown
from featx.text import printable

#: What users give for several images, or for one: see `images_in`.
ManyImages = Iterable[Any] | StoragePath | str | Image.Image | ImageDataset | np.ndarray

#: What would be gone over letter by letter, name by name, or in no certain order.
_DOUBTFUL = (bytes, bytearray, memoryview, Mapping, set, frozenset)

#: Of an array: the last axis of an image in colour, or of a gray one that has its axis nevertheless.
_CHANNELS = (3, 1)

#: Modes of Pillow that a PNG keeps as they are.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}

#: Why a file is skipped whose bytes are no longer those that were digested.
_CHANGED = "changed while featx was running: run it again"

#: Batches that may be decoded, or on their way to it, before the first of them is asked for: enough for an engine that
#: takes several at once, and at most so many bytes of pixels. Two is the least, or nothing would overlap.
LOOK_AHEAD = 8
LOOK_AHEAD_BYTES = 128 << 20

#: Threads at least where images lie elsewhere: most of them wait for the network.
REMOTE_WORKERS = 32

#: Seconds between two looks at whether whoever waits for a batch wants it still.
_POLL_S = 0.2

#: Files that a thread takes on at a time. Handing out one would cost more than decoding a small image.
PORTION = 8


def images_in(given: object) -> Sequence[object]:
    """Return the images that a user gives: the items of a list or other sequence, or one image in a list.

    A folder or an archive stands for all images in it, unless it is in a list: there, each item is one image.

    Raises:
        FeatxError: it is ambiguous or not images; the message says what to give.
    """
    if isinstance(given, str | os.PathLike | RemotePath):
        return files_of(as_data(given))
    if isinstance(given, Image.Image):
        return [given]
    if isinstance(given, ImageDataset):
        return images_of(given).sources
    if isinstance(given, np.ndarray):
        return _images_in_array(given)
    is_frame = hasattr(given, "columns")
    if is_frame or isinstance(given, _DOUBTFUL) or not isinstance(given, Iterable):
        one = "; give one column of it" if is_frame else ""
        raise FeatxError(
            f"Give images as a list of paths, arrays or Pillow images, or as a folder. Received: "
            f"{type(given).__name__}{one}"
        )
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
        return as_storage_path(item)
    if isinstance(item, Image.Image):
        return _pixels(item)
    if isinstance(item, np.ndarray):
        return item[..., 0] if item.ndim == 3 and item.shape[2] == 1 else item
    raise FeatxError(f"An image is a path, an array or a Pillow image. Received: {shown(item)}")


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


def images_of_sources(sources: Sequence[Source], cache_dir: StoragePath) -> Images:
    """Return images with their digests; those of files are remembered in `cache_dir`.

    Raises:
        ImageError: a file cannot be read.
        FeatxError: an array is no image.
    """
    digests, reasons = digest_sources(sources, cache_dir)
    for row, reason in reasons.items():
        raise ImageError(f"{printable(sources[row])} cannot be read: {reason}.")
    return Images(sources, digests)


def digest_sources(
    sources: Sequence[Source], cache_dir: StoragePath, *, show: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the SHA-256 of each image's bytes, `(n, 32)` uint8, and by row why a file cannot be read.

    Raises:
        FeatxError: an array is no image.
    """
    arrays = {row: source for row, source in enumerate(sources) if isinstance(source, np.ndarray)}
    files = {row: source for row, source in enumerate(sources) if not isinstance(source, np.ndarray)}
    digests = np.zeros((len(sources), 32), np.uint8)
    digests[list(arrays)] = images_of_arrays(list(arrays.values())).digests
    digests[list(files)], reasons = digest_files(list(files.values()), cache_dir, show=show)
    rows = list(files)
    return digests, {rows[number]: reason for number, reason in reasons.items()}


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


def source_path(source: Source) -> StoragePath:
    """Return what an image is called in messages and lists."""
    return as_storage_path(f"array of {source.shape}") if isinstance(source, np.ndarray) else source.absolute()


@dataclass(frozen=True)
class Unreadable:
    """An image without pixels.

    Attributes:
        row: its position in the sequence that was asked for.
        reason: why.
        is_content: whether its bytes are to blame, so that the same bytes will always fail; otherwise the file has
            changed or gone since it was scanned.
        has_changed: whether its bytes are no longer those that were digested.
    """

    row: int
    reason: str
    is_content: bool
    has_changed: bool = False


@dataclass(frozen=True)
class Dim:
    """An image of 16 bits that looks nearly black, as if it held data of fewer bits.

    Attributes:
        row: its position in the sequence that was asked for.
        largest: its largest value, of 65,535.
    """

    row: int
    largest: int


@dataclass(frozen=True)
class Batch:
    """Consecutive images, those that could not be read left out.

    Attributes:
        images: `(n, height, width, 3)` uint8 RGB.
        rows: `(n,)` int64, the position of each image in the sequence that was asked for.
        unreadable: those left out.
        dim: those that look nearly black; of several views of one image perhaps only the first.
        n_kept: images whose pixels were kept from before.
    """

    images: np.ndarray
    rows: np.ndarray
    unreadable: tuple[Unreadable, ...]
    dim: tuple[Dim, ...]
    n_kept: int


def no_pixels(_digests: Sequence[bytes]) -> Mapping[bytes, np.ndarray]:
    """Return that no pixels are kept of any image."""
    return {}


def read_batches(
    sources: Sequence[Source],
    digests: np.ndarray,
    image_size: tuple[int, int],
    batch_size: int,
    workers: int | None = None,
    *,
    aspect_ratio: str | None = None,
    views: np.ndarray | int = 0,
    augmentation: Augmentation | None = None,
    kept: Callable[[Sequence[bytes]], Mapping[bytes, np.ndarray]] = no_pixels,
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator[Batch, None, None]:
    """Yield the images from `sources`, or views of them, in batches made of `batch_size` each.

    Views of one image that come one after the other cost one decoding.

    Args:
        sources: n files or arrays.
        digests: `(n, 32)` uint8, the SHA-256 that each file's bytes must have: a file that has changed since is
            skipped, never mistaken for what it was.
        image_size: `(height, width)` in pixels that images are resized to.
        batch_size: images in a batch.
        workers: decoding threads; if None, as many as this process may use cores, and more where the images lie
            elsewhere. Pillow decodes and resizes without Python's lock.
        aspect_ratio: what keeps that of an image, see `featx.images.decode_image`; None stretches images.
        views: the number of each one's view, `(n,)`, or one number for all; 0 is the image itself.
        augmentation: how views other than 0 are made.
        kept: returns pixels `(height, width, 3)` uint8 by digest, of those of the images with these digests that were
            decoded before; these files are not read again. Threads call it.
        interrupted: whether to end before the next batch that is not ready yet.
    """
    views = np.broadcast_to(views, len(sources))
    is_remote = len(sources) and is_distant(sources[0])
    workers = workers or (max(REMOTE_WORKERS, n_cores()) if is_remote else n_cores())
    portion = max(1, min(PORTION, batch_size // workers))
    n_ahead = look_ahead(image_size, batch_size)

    def decode(first: int, pixels: np.ndarray) -> tuple[list[Unreadable | Dim], int]:
        """Fill `pixels` with the images from `first` on; return what there is to say, and how many were kept."""
        rows = range(first, first + len(pixels))
        known = kept(list(dict.fromkeys(digests[row].tobytes() for row in rows)))
        decoder = _Decoder(image_size, aspect_ratio, augmentation, known)
        results = (
            decoder.decode(row, sources[row], digests[row].tobytes(), int(views[row]), pixels[row - first])
            for row in rows
        )
        return [result for result in results if result], sum(digests[row].tobytes() in known for row in rows)

    pool = DaemonThreads(workers, "featx-decode")
    with quiet_pillow():
        waiting: deque[_Decoding] = deque()
        try:
            for first in range(0, len(sources), batch_size):
                pixels = np.empty((min(batch_size, len(sources) - first), *image_size, 3), np.uint8)
                starts = range(0, len(pixels), portion)
                tasks = [pool.submit(decode, first + start, pixels[start : start + portion]) for start in starts]
                waiting.append(_Decoding(first, pixels, tasks))
                if len(waiting) == n_ahead:
                    if not waiting[0].is_ready(unless=interrupted):
                        return
                    yield waiting.popleft().batch()
            while waiting:
                if not waiting[0].is_ready(unless=interrupted):
                    return
                yield waiting.popleft().batch()
        finally:
            # Whoever stops early does not wait for what is decoded in advance, or never comes.
            pool.shutdown(cancel_futures=True)


def look_ahead(image_size: tuple[int, int], batch_size: int) -> int:
    """Return how many batches may be decoded, or on their way to it, at once.

    >>> look_ahead((224, 224), 32), look_ahead((224, 224), 256), look_ahead((1000, 1000), 256)
    (8, 3, 2)
    """
    return max(2, min(LOOK_AHEAD, LOOK_AHEAD_BYTES // (batch_size * image_size[0] * image_size[1] * 3)))


@dataclass(frozen=True)
class _Decoding:
    """A batch while threads fill its `pixels`, whose first image has the row `first`."""

    first: int
    pixels: np.ndarray
    tasks: list[Future[tuple[list[Unreadable | Dim], int]]]

    def is_ready(self, unless: Callable[[], bool]) -> bool:
        """Wait for the threads; give up, and return False, as soon as `unless` says so."""
        while wait(self.tasks, _POLL_S).not_done:
            if unless():
                return False
        return True

    def batch(self) -> Batch:
        """Return the batch, once the threads are ready."""
        noted = [note for task in self.tasks for note in task.result()[0]]
        n_kept = sum(task.result()[1] for task in self.tasks)
        unreadable = tuple(note for note in noted if isinstance(note, Unreadable))
        dim = tuple(note for note in noted if isinstance(note, Dim))
        rows = np.arange(self.first, self.first + len(self.pixels), dtype=np.int64)
        if not unreadable:
            return Batch(self.pixels, rows, unreadable, dim, n_kept)
        is_readable = ~np.isin(rows, [image.row for image in unreadable])
        return Batch(self.pixels[is_readable], rows[is_readable], unreadable, dim, n_kept)


class _Decoder:
    """Decodes one image after the other; views of one image, side by side, are made from one decoding."""

    def __init__(
        self,
        image_size: tuple[int, int],
        aspect_ratio: str | None,
        augmentation: Augmentation | None,
        known: Mapping[bytes, np.ndarray],
    ) -> None:
        self._known = known
        self._aspect_ratio = aspect_ratio
        self._augmentation = augmentation
        self._pixels = np.empty((*image_size, 3) if augmentation else (0,), np.uint8)
        self._digest = b""  # of the image in `_pixels`

    def decode(self, row: int, source: Source, digest: bytes, view: int, pixels: np.ndarray) -> Unreadable | Dim | None:
        """Write view `view` of the image to `pixels`; return what there is to say, such as why it cannot be read."""
        if not view or self._augmentation is None:
            return self._decode(row, source, digest, pixels)
        note = None
        if digest != self._digest:
            self._digest = b""
            note = self._decode(row, source, digest, self._pixels)
            if isinstance(note, Unreadable):
                return note
            self._digest = digest
        pixels[...] = make_view(self._pixels, digest, view, self._augmentation)
        return note

    def _decode(self, row: int, source: Source, digest: bytes, pixels: np.ndarray) -> Unreadable | Dim | None:
        known = self._known.get(digest)
        if known is None:
            return _decode(row, source, digest, pixels, self._aspect_ratio)
        pixels[...] = known
        return None


def _decode(
    row: int, source: Source, digest: bytes, pixels: np.ndarray, aspect_ratio: str | None
) -> Unreadable | Dim | None:
    """Write the image to `pixels`, `(height, width, 3)` uint8; return what there is to say, as `_Decoder.decode`."""
    try:
        data = read_source(source)
    except ImageError as error:
        return Unreadable(row, str(error), is_content=error.is_content and _has_digest(source, digest))
    if hashlib.sha256(data).digest() != digest:
        return Unreadable(row, _CHANGED, is_content=False, has_changed=True)
    try:
        largest = decode_into(pixels, data, aspect_ratio)
    except ImageError as error:
        return Unreadable(row, str(error), error.is_content)
    return Dim(row, largest) if largest else None


def _has_digest(source: Source, digest: bytes) -> bool:
    """Return whether a file that is empty, or too large to be read at once, is the one that was digested."""
    if isinstance(source, np.ndarray):
        return True
    try:
        return file_digest(source) == digest
    except OSError:
        return False
