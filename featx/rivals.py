"""The rivals of features: networks trained from the pixels of a data set, and measured on its test split."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from featx import report_resnet50
from featx.dataset import ImageDataset
from featx.dim_images import DimImage, dim_sentence
from featx.errors import FeatxError, ImageError, printable
from featx.image_sources import images_of
from featx.keras_import import import_keras
from featx.memory import reset_peak_memory
from featx.places import Place, local_dir
from featx.progress import progress_bar
from featx.reader import read_batches
from featx.results import Result, Training, measured, validation_part
from featx.scratch import RIVALS, train_rival

log = logging.getLogger("featx")

#: Images decoded at a time.
_PORTION = 256


#: All that may be asked for: what is trained from pixels, and the report's other experiment.
RIVAL_NAMES = (*RIVALS, report_resnet50.NAME)


def check_rival(name: str) -> None:
    """Raise FeatxError if there is no rival called `name`."""
    if name not in RIVAL_NAMES:
        raise FeatxError(f"There is no rival of this name. Known: {', '.join(RIVAL_NAMES)}. Received: {name!r}")


def train_on_pixels(
    dataset: ImageDataset, rival: str, training: Training, cache_dir: Place, workers: int | None = None
) -> Result:
    """Return the rival named `rival`, trained on the training split and measured on the test split.

    Images are decoded once, into a temporary file in `cache_dir`; that time is part of the training.

    Raises:
        ImageError: an image has changed or gone since the data set was scanned.
    """
    image_size = RIVALS[rival].image_size
    train, test = ~dataset.is_test, dataset.is_test
    import_keras()  # its start is no part of training
    reset_peak_memory()
    dim: list[DimImage] = []
    started = time.perf_counter()
    with _decoded(dataset.subset(train), image_size, cache_dir, workers, dim, show=training.show) as pixels:
        trained = train_rival(
            rival,
            pixels,
            dataset.labels[train],
            validation_part(dataset, training.seed),
            n_classes=len(dataset.class_names),
            seed=training.seed,
            epochs=training.epochs,
            patience=training.patience,
            show=training.show,
        )
    fit_s = time.perf_counter() - started
    with _decoded(dataset.subset(test), image_size, cache_dir, workers, dim, show=training.show) as pixels:
        if dim:
            log.warning("%s", dim_sentence(dim))
        return measured(trained, pixels, dataset.labels[test], fit_s=fit_s, details={})


@contextmanager
def _decoded(
    dataset: ImageDataset,
    image_size: tuple[int, int],
    cache_dir: Place,
    workers: int | None,
    dim: list[DimImage],
    *,
    show: bool,
) -> Iterator[np.ndarray]:
    """Yield the pixels `(n, height, width, 3)` uint8 of a data set; on disk, so that they need not fit in memory.

    Images that come out nearly black are added to `dim`.
    """
    folder = local_dir(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [dataset.root / path for path in dataset.paths]
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file, len(paths) * int(np.prod(image_size)) * 3, folder)
        pixels: np.ndarray = np.memmap(file, np.uint8, "w+", shape=(len(paths), *image_size, 3))
        batches = read_batches(paths, dataset.digests, image_size, _PORTION, workers)
        with closing(batches), progress_bar(len(paths), "decode", "images", show=show) as bar:
            for batch in batches:
                for image in batch.unreadable:
                    raise ImageError(f"{printable(paths[image.row])} cannot be read any more: {image.reason}.")
                pixels[batch.rows] = batch.images
                dim += [DimImage.of(images_of(dataset), noted) for noted in batch.dim]
                bar.update(len(batch.rows))
        yield pixels


def _reserve(file: IO[bytes], size_bytes: int, cache_dir: Path) -> None:
    """Take the disk space now: when it runs out under a memory map, the process is killed without a word."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, max(size_bytes, 1))
    except OSError as error:
        raise FeatxError(
            f"Decoded images need {size_bytes / 2**20:,.0f} MiB in {printable(cache_dir)} while a network is trained "
            f"from scratch: {os.strerror(error.errno or 0)}. Free some space, or choose another --cache-dir."
        ) from error
