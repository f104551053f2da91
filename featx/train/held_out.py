"""The held-out training images of a run, and what each head predicted for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset
from featx.errors import FeatxError
from featx.heads import HEADS, Trained
from featx.text import printable
from featx.train.tables import read_csv, write_csv

TABLE_NAME = "held_out.csv"

#: Images of each head in the table, at most: more would change no threshold by much.
MAX_IMAGES = 20_000

_COLUMNS = ("head", "path", "label", "predicted", "probability")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What heads said about n images that they had not seen.

    Attributes:
        probability: `(n,)`, of the class that was predicted; calibrated if the head is.
        is_right: `(n,)` bool, whether it is the class of the image.
    """

    probability: npt.NDArray[np.float64] = field(repr=False)
    is_right: npt.NDArray[np.bool_] = field(repr=False)

    def __len__(self) -> int:
        return len(self.probability)

    @classmethod
    def read(cls, folder: Path, head: str) -> Self | None:
        """Return those of one head in a run folder; None if an older featx made the run, without any.

        Raises:
            FeatxError: the table is damaged.
        """
        path = folder / TABLE_NAME
        if not path.exists():
            return None
        try:
            rows = [row for row in read_csv(path, _COLUMNS, MAX_IMAGES * (len(HEADS) + 1)) if row[0] == head]
            return cls(_probabilities([row[4] for row in rows]), np.array([row[2] == row[3] for row in rows], bool))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise FeatxError(
                f"{printable(path)} cannot be read ({printable(reason)}); train again with featx train-top."
            ) from error


def write_held_out(folder: Path, images: ImageDataset, trained: Sequence[Trained]) -> None:
    """Write what each head said about images that it had not seen; of many, those whose digests come first.

    Args:
        folder: of the run.
        images: n images that the heads were trained on, with one class each.
        trained: the heads; their `out_of_fold` is `(n, n_classes)`, or None.

    Raises:
        OSError: the table cannot be written.
    """
    write_csv(folder / TABLE_NAME, _COLUMNS, _rows(images, trained))


def _rows(images: ImageDataset, trained: Sequence[Trained]) -> Iterator[Sequence[Any]]:
    by_digest = np.argsort(images.digests.view("S32")[:, 0], kind="stable")
    labels, names = images.label_texts, images.class_names
    for head in trained:
        if head.out_of_fold is None:
            continue
        is_held_out = ~np.isnan(head.out_of_fold[:, 0])
        for row in np.sort(by_digest[is_held_out[by_digest]][:MAX_IMAGES]).tolist():
            probabilities = head.out_of_fold[row]
            predicted = int(probabilities.argmax())
            cells = (names[predicted], f"{probabilities[predicted]:.9f}")
            yield head.name, images.paths[row], labels[row], *cells


def _probabilities(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return probabilities that were written as text.

    Raises:
        ValueError: one is none.
    """
    probabilities = np.array(texts, dtype=object).astype(np.float64)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("a probability is not between 0 and 1")
    return probabilities
