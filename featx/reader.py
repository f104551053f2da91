"""Images in, batches of pixels out: decoded by threads, in order, with a bounded look-ahead."""

import hashlib
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from featx.augmentation import Augmentation
from featx.errors import ImageError
from featx.image_sources import Source, read_source
from featx.images import decode_into, quiet_pillow
from featx.machine import n_cores
from featx.places import RemotePath
from featx.views import make_view

#: Why a file is skipped whose bytes are no longer those that were digested.
CHANGED = "changed while featx was running: run it again"

#: Batches that may be decoded, or on their way to it, before the first of them is asked for: enough for an engine that
#: takes several at once, and at most so many bytes of pixels. Two is the least, or nothing would overlap.
LOOK_AHEAD = 8
LOOK_AHEAD_BYTES = 128 << 20

#: Threads at least where images lie elsewhere: most of them wait for the network.
REMOTE_WORKERS = 32

#: Files that a thread takes on at a time. Handing out one would cost more than decoding a small image.
PORTION = 8


@dataclass(frozen=True)
class Unreadable:
    """An image without pixels.

    Attributes:
        row: its position in the sequence that was asked for.
        reason: why.
        is_content: whether its bytes are to blame, so that the same bytes will always fail; otherwise the file has
            changed or gone since it was scanned.
    """

    row: int
    reason: str
    is_content: bool


@dataclass(frozen=True)
class Dim:
    """An image of 16 bits that comes out nearly black, as if it held data of fewer bits.

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
        dim: those that come out nearly black; of several views of one image perhaps only the first.
    """

    images: np.ndarray
    rows: np.ndarray
    unreadable: tuple[Unreadable, ...]
    dim: tuple[Dim, ...]


def read_batches(
    sources: Sequence[Source],
    digests: np.ndarray,
    image_size: tuple[int, int],
    batch_size: int,
    workers: int | None = None,
    *,
    views: np.ndarray | int = 0,
    augmentation: Augmentation | None = None,
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
        views: the number of each one's view, `(n,)`, or one number for all; 0 is the image itself.
        augmentation: how views other than 0 are made.
    """
    views = np.broadcast_to(views, len(sources))
    workers = workers or _default_workers(sources)
    portion = max(1, min(PORTION, batch_size // workers))
    n_ahead = look_ahead(image_size, batch_size)

    def decode(first: int, pixels: np.ndarray) -> list[Unreadable | Dim]:
        """Fill `pixels` with the images from `first` on; return what there is to say of them."""
        rows = range(first, first + len(pixels))
        decoder = _Decoder(image_size, augmentation)
        results = (
            decoder.decode(row, sources[row], digests[row].tobytes(), int(views[row]), pixels[row - first])
            for row in rows
        )
        return [result for result in results if result]

    with quiet_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="featx-decode") as pool:
        waiting: deque[_Decoding] = deque()
        try:
            for first in range(0, len(sources), batch_size):
                pixels = np.empty((min(batch_size, len(sources) - first), *image_size, 3), np.uint8)
                starts = range(0, len(pixels), portion)
                tasks = [pool.submit(decode, first + start, pixels[start : start + portion]) for start in starts]
                waiting.append(_Decoding(first, pixels, tasks))
                if len(waiting) == n_ahead:
                    yield waiting.popleft().batch()
            while waiting:
                yield waiting.popleft().batch()
        finally:
            # Whoever stops early does not wait for what was decoded in advance.
            pool.shutdown(wait=True, cancel_futures=True)


def _default_workers(sources: Sequence[Source]) -> int:
    first = sources[0] if len(sources) else None
    return max(REMOTE_WORKERS, n_cores()) if isinstance(first, RemotePath) and first.is_distant else n_cores()


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
    tasks: list[Future[list[Unreadable | Dim]]]

    def batch(self) -> Batch:
        """Wait for the threads, and return the batch."""
        noted = [note for task in self.tasks for note in task.result()]
        unreadable = tuple(note for note in noted if isinstance(note, Unreadable))
        dim = tuple(note for note in noted if isinstance(note, Dim))
        rows = np.arange(self.first, self.first + len(self.pixels), dtype=np.int64)
        if not unreadable:
            return Batch(self.pixels, rows, unreadable, dim)
        is_readable = ~np.isin(rows, [image.row for image in unreadable])
        return Batch(self.pixels[is_readable], rows[is_readable], unreadable, dim)


class _Decoder:
    """Decodes one image after the other; views of one image, side by side, are made from one decoding."""

    def __init__(self, image_size: tuple[int, int], augmentation: Augmentation | None) -> None:
        self._augmentation = augmentation
        self._pixels = np.empty((*image_size, 3) if augmentation else (0,), np.uint8)
        self._digest = b""  # of the image in `_pixels`

    def decode(self, row: int, source: Source, digest: bytes, view: int, pixels: np.ndarray) -> Unreadable | Dim | None:
        """Write view `view` of the image to `pixels`; return what there is to say, such as why it cannot be read."""
        if not view or self._augmentation is None:
            return _decode(row, source, digest, pixels)
        note = None
        if digest != self._digest:
            self._digest = b""
            note = _decode(row, source, digest, self._pixels)
            if isinstance(note, Unreadable):
                return note
            self._digest = digest
        pixels[...] = make_view(self._pixels, digest, view, self._augmentation)
        return note


def _decode(row: int, source: Source, digest: bytes, pixels: np.ndarray) -> Unreadable | Dim | None:
    """Write the image to `pixels`, `(height, width, 3)` uint8; return what there is to say, as `_Decoder.decode`."""
    try:
        data = read_source(source)
    except ImageError as error:
        return Unreadable(row, str(error), is_content=error.is_content and _has_digest(source, digest))
    if hashlib.sha256(data).digest() != digest:
        return Unreadable(row, CHANGED, is_content=False)
    try:
        largest = decode_into(pixels, data)
    except ImageError as error:
        return Unreadable(row, str(error), error.is_content)
    return Dim(row, largest) if largest else None


def _has_digest(source: Source, digest: bytes) -> bool:
    """Return whether a file that is empty, or too large to be read at once, is the one that was digested."""
    if isinstance(source, np.ndarray):
        return True
    try:
        if isinstance(source, RemotePath):
            return hashlib.sha256(source.read_bytes()).digest() == digest
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == digest
    except OSError:
        return False
