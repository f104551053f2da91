"""Image files in, batches of pixels out: decoded by threads, in order, with a bounded look-ahead."""

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.errors import ImageError
from featx.images import decode_image, quiet_pillow, read_file

#: Why a file is skipped whose bytes are no longer those that were digested.
CHANGED = "changed while featx was running: run it again"

#: Batches that may be decoded, or on their way to it, before the first of them is asked for.
LOOK_AHEAD = 3


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
class Batch:
    """Consecutive images, those that could not be read left out.

    Attributes:
        images: `(n, height, width, 3)` uint8 RGB.
        rows: `(n,)` int64, the position of each image in the sequence that was asked for.
        unreadable: those left out.
    """

    images: np.ndarray
    rows: np.ndarray
    unreadable: tuple[Unreadable, ...]


def read_batches(
    paths: Sequence[Path],
    digests: np.ndarray,
    image_size: tuple[int, int],
    batch_size: int,
    workers: int | None = None,
) -> Generator[Batch, None, None]:
    """Yield the images at `paths` in batches made of `batch_size` files each.

    Args:
        paths: n files.
        digests: `(n, 32)` uint8, the SHA-256 that each file's bytes must have: a file that has changed since is
            skipped, never mistaken for what it was.
        image_size: `(height, width)` in pixels that images are resized to.
        batch_size: files in a batch.
        workers: decoding threads; as many as the machine has cores if None.
    """
    workers = workers or os.cpu_count() or 1
    # Handing out one image at a time would cost more than decoding a small one.
    portion = max(1, min(8, batch_size // workers))

    def decode_portion(start: int, stop: int) -> list[np.ndarray | Unreadable]:
        return [_decode(row, paths[row], digests[row].tobytes(), image_size) for row in range(start, stop)]

    with quiet_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="featx-decode") as pool:
        waiting: deque[tuple[int, list[Future[list[np.ndarray | Unreadable]]]]] = deque()
        try:
            for first in range(0, len(paths), batch_size):
                last = min(first + batch_size, len(paths))
                edges = [*range(first, last, portion), last]
                waiting.append((first, [pool.submit(decode_portion, *edge) for edge in itertools.pairwise(edges)]))
                if len(waiting) == LOOK_AHEAD:
                    yield _collect(*waiting.popleft(), image_size)
            while waiting:
                yield _collect(*waiting.popleft(), image_size)
        finally:
            # Whoever stops early does not wait for what was decoded in advance.
            pool.shutdown(wait=True, cancel_futures=True)


def _decode(row: int, path: Path, digest: bytes, image_size: tuple[int, int]) -> np.ndarray | Unreadable:
    try:
        data = read_file(path)
    except ImageError as error:
        return Unreadable(row, str(error), is_content=error.is_content and _has_digest(path, digest))
    if hashlib.sha256(data).digest() != digest:
        return Unreadable(row, CHANGED, is_content=False)
    try:
        return decode_image(data, image_size)
    except ImageError as error:
        return Unreadable(row, str(error), error.is_content)


def _has_digest(path: Path, digest: bytes) -> bool:
    """Return whether a file that is empty, or too large to be read at once, is the one that was digested."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == digest
    except OSError:
        return False


def _collect(first: int, portions: list[Future[list[np.ndarray | Unreadable]]], image_size: tuple[int, int]) -> Batch:
    decoded = dict(enumerate(itertools.chain.from_iterable(portion.result() for portion in portions), first))
    pixels = {row: item for row, item in decoded.items() if isinstance(item, np.ndarray)}
    images = np.empty((len(pixels), *image_size, 3), np.uint8)
    for i, item in enumerate(pixels.values()):
        images[i] = item
    unreadable = tuple(item for item in decoded.values() if isinstance(item, Unreadable))
    return Batch(images, np.array(list(pixels), np.int64), unreadable)
