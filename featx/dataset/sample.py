"""The data if the user names none: the folder `data`, or else the built-in sample."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from featx.dataset.folders import SAMPLE_NAME
from featx.errors import FeatxError, system_errors
from featx.storage import (
    TEMPORARY_PREFIX,
    StoragePath,
    local_dir,
    make_folder,
    place,
    read_small,
    room_for,
    sweep,
    temporary_path,
    workshop,
)
from featx.text import printable

log = logging.getLogger("featx")

N_TRAIN_PER_CLASS = 50
_N_IMAGES = 1797
_README_NAME = "README.txt"
_README = """\
The handwritten digits that come with scikit-learn (sklearn.datasets.load_digits), written as 8x8 grayscale PNG files by
featx: 50 training images of each digit, the others for testing.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
"""


def write_sample(sample_dir: Path) -> Path:
    """Return `sample_dir`, which holds the sample: `train/0` … `train/9` with 50 images each, the rest in `test/`.

    The images are the same, byte for byte, every time; if they are all there, nothing is done.

    Raises:
        FeatxError: there is something else at `sample_dir`, or it cannot be written.
    """
    if is_sample(sample_dir):
        return sample_dir
    named_dir = sample_dir.resolve()  # "." has no name
    try:
        if sample_dir.exists() and not _is_empty_folder(sample_dir):
            raise FeatxError(
                f"{printable(sample_dir)} exists, but is not the complete sample: remove it, or name another folder."
            )
        make_folder(named_dir.parent)
        room = room_for(named_dir)
        sweep(room)
        with workshop(temporary_path(room / named_dir.name)) as shop:
            _write_digits(shop / "sample")
            place(shop / "sample", named_dir, last=_README_NAME)
    except OSError as error:
        if not is_sample(sample_dir):  # unless another process was quicker
            raise FeatxError(f"The sample cannot be written to {printable(sample_dir)}: {error.strerror}.") from error
    return sample_dir


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and all(below.name.startswith(TEMPORARY_PREFIX) for below in path.iterdir())


def chosen_data(data_dir: StoragePath | None, cache_dir: StoragePath) -> StoragePath:
    """Return the folder that the user has named, or the default one, which is logged.

    Raises:
        FeatxError: there is no default one.
    """
    if data_dir is not None:
        return data_dir
    folder, line = default_data(cache_dir)
    log.info(line)
    return folder


def default_data(cache_dir: StoragePath, data_dir: Path = Path("data")) -> tuple[Path, str]:
    """Return the folder to use when the user names none, and one line that says which it is.

    It is `data_dir` if there is anything in it, else the sample, which is written to `cache_dir` if it is not there.

    Raises:
        FeatxError: `data_dir` cannot be read, or the sample cannot be written.
    """
    if has_data(data_dir):
        return data_dir, f"You named no data: using the images in {printable(data_dir)}."
    sample_dir = write_sample(local_dir(cache_dir) / SAMPLE_NAME)
    return sample_dir, (
        f"You named no data, and there is nothing in {printable(data_dir)}: using the built-in sample, scikit-learn's "
        f"handwritten digits, in {printable(sample_dir)}."
    )


def has_data(data_dir: Path = Path("data")) -> bool:
    """Whether there is anything in the folder that is used when the user names none.

    Raises:
        FeatxError: it cannot be read.
    """
    with system_errors(f"The folder {printable(data_dir)}", "read"), suppress(FileNotFoundError, NotADirectoryError):
        return any(not path.name.startswith(".") for path in data_dir.iterdir())
    return False


def is_sample(sample_dir: Path) -> bool:
    """Whether the whole sample is in `sample_dir`."""
    try:
        return read_small(sample_dir / _README_NAME).decode("ascii") == _README and _n_png(sample_dir) == _N_IMAGES
    except (OSError, ValueError):
        return False


def _n_png(sample_dir: Path) -> int:
    return sum(
        entry.name.endswith(".png")
        for split in ("train", "test")
        for digit in range(10)
        for entry in os.scandir(sample_dir / split / str(digit))
    )


def _write_digits(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    n_written = [0] * 10
    for split in ("train", "test"):
        for digit in range(10):
            (folder / split / str(digit)).mkdir(parents=True)
    for number, (image, digit) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        split = "train" if n_written[digit] < N_TRAIN_PER_CLASS else "test"
        n_written[digit] += 1
        Image.fromarray(image).save(folder / split / str(digit) / f"{number:04d}.png")
    (folder / _README_NAME).write_text(_README, "ascii")
