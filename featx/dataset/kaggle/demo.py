"""The demo's data: photographs from Kaggle, or without a network the built-in handwritten digits."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.dataset.folders import DEMO_NAME, SAMPLE_NAME
from featx.dataset.kaggle.download import KaggleError
from featx.dataset.kaggle.fetch import fetch_part
from featx.dataset.sample import write_sample
from featx.errors import system_errors
from featx.storage import ArchiveError, StoragePath, local_dir
from featx.text import printable

log = logging.getLogger("featx")

_SLUG = "tongpython/cat-and-dog"

#: Photographs of each class and split: enough to tell transfer learning from training from scratch, in two minutes.
_N_PER_FOLDER = 200


@dataclass(frozen=True)
class Demo:
    """What the demo compares on.

    Attributes:
        folder: of the images.
        image_size: `(height, width)` in pixels at which a backbone is quick enough to watch.
    """

    folder: Path
    image_size: tuple[int, int]

    @property
    def options(self) -> dict[str, Any]:
        """What to give `compare_approaches`, by name, where the user has not said otherwise."""
        return {"image_size": self.image_size, "weights": "imagenet-or-random", "baselines": ("report-cnn",)}


def demo_data(cache_dir: StoragePath, *, show: bool = False) -> Demo:
    """Return the demo's data in the cache; fetch or write it first if it is not there. Log which data it is.

    Raises:
        FeatxError: it cannot be written, or the photographs that were fetched earlier are no longer whole.
    """
    photos_dir, digits_dir = (local_dir(cache_dir) / name for name in (DEMO_NAME, SAMPLE_NAME))
    log.info("The demo compares on photographs of cats and dogs.")
    try:
        with system_errors("The demo's photographs", "written"):
            fetched = fetch_part(_SLUG, photos_dir, _N_PER_FOLDER, show=show)
    except (KaggleError, ArchiveError) as error:
        write_sample(digits_dir)
        log.info("Could not fetch the photographs from Kaggle. %s", error)
        log.info(
            "Using the built-in handwritten digits instead, in %s. They show how featx works, not what transfer "
            "learning can do: they are 8×8 pixels, and a CNN trained from scratch may win.",
            printable(digits_dir),
        )
        return Demo(digits_dir, (64, 64))
    log.info("The %s photographs are in %s.", f"{fetched.n_files:,}", printable(photos_dir))
    return Demo(photos_dir, (150, 150))
