"""Decoded images that are kept, so that other networks with the same image size decode nothing.

They lie in a store like features, in which a row is the pixels of an image. Everything that stores promise is true of
them: an image is found by its content, a row is checked when it is read, and a kill loses a segment at most.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Self

import numpy as np

from featx.dataset import Batch, Images, no_pixels
from featx.errors import DamagedSegmentError, FeatxError
from featx.recipe import Recipe
from featx.storage import StoragePath, local_dir
from featx.store.feature_store import FeatureStore
from featx.store.row_index import segment_paths
from featx.store.segment_writer import SegmentWriter
from featx.system import Stopwatch, Timings

log = logging.getLogger("featx")


class KeptPixels:
    """Pixels `(height, width, 3)` uint8 of images, kept on this machine, and found by the digests of their files.

    Reading may be done by many threads at once.
    """

    def __init__(self, cache_dir: StoragePath, image_size: tuple[int, int], aspect_ratio: str | None) -> None:
        """Look for pixels of images that were resized to `image_size`; they are opened when they are wanted.

        Args:
            cache_dir: where stores lie; of a cache elsewhere, pixels are in what featx keeps of it on this machine.
            image_size: `(height, width)` in pixels.
            aspect_ratio: what keeps that of an image, see `featx.images.decode_image`.
        """
        self._cache_dir = local_dir(cache_dir)
        self._recipe = Recipe.of_pixels(image_size, aspect_ratio)
        self._lock = threading.Lock()
        self._is_usable = True

    @classmethod
    def of(cls, recipe: Recipe, cache_dir: StoragePath) -> Self:
        """Return the pixels from which features of `recipe` are computed."""
        return cls(cache_dir, recipe.image_size, recipe.aspect_ratio)

    @cached_property
    def store(self) -> FeatureStore:
        """Where they lie.

        Raises:
            StoreError: the folder cannot be read.
        """
        return FeatureStore(self._cache_dir, self._recipe, (*self._recipe.image_size, 3))

    def reader(self, n_images: int) -> Callable[[Sequence[bytes]], Mapping[bytes, np.ndarray]]:
        """Return what `read_batches` asks for the pixels of so many images.

        That is `read`, unless there are none, or opening them may take longer than decoding so many images.
        """
        n_segments = 0
        with suppress(FeatxError):
            n_segments = len(segment_paths(self._cache_dir / self._recipe.slug))
        return self.read if 0 < n_segments <= n_images else no_pixels

    def read(self, digests: Sequence[bytes]) -> Mapping[bytes, np.ndarray]:
        """Return the pixels of those of the images with `digests` that are kept.

        What cannot be read counts as missing: the files are still there.
        """
        wanted = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        try:
            with self._lock:  # of several threads that find damage, each would quarantine it
                known = wanted[self.store.contains(wanted)] if self._is_usable else wanted[:0]
                rows = self.store.read(known) if len(known) else ()
        except DamagedSegmentError as error:
            log.debug("%s The files are decoded instead.", error)
            return {}
        except FeatxError as error:
            self._is_usable = False  # it would be so each time
            log.debug("%s The files are decoded instead.", error)
            return {}
        return dict(zip(map(bytes, known), rows, strict=True))


class PixelWriter(SegmentWriter):
    """Keeps the pixels that are decoded for one pass over some images. Leaving its context writes the rest."""

    def __init__(self, kept: KeptPixels, images: Images) -> None:
        """Begin without a row; the rows of batches are those of `images`."""
        super().__init__(kept.store, _Uncounted())
        self._kept, self._images = kept, images

    def keep(self, batch: Batch) -> None:
        """Keep what is new in a batch, but no views, and no image that looks nearly black, which decoding it says.

        Raises:
            StoreError: a segment cannot be written.
        """
        images = self._images[batch.rows]
        is_new = (np.broadcast_to(images.views, len(images)) == 0) & ~self._kept.store.contains(images.digests)
        is_new &= ~np.isin(batch.rows, [dim.row for dim in batch.dim])
        if is_new.any():
            self.add(batch.images[is_new], images.digests[is_new])


class _Uncounted(Stopwatch):
    """Says that pixels took no time of their own: they are decoded for features, and these count it."""

    def lap(self, n_images: int) -> Timings:
        super().lap(n_images)
        return Timings(n_images)
