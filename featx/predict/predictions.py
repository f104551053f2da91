"""What classifiers say about images: a table of predictions, of which each row can be looked at by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from featx.heads import THRESHOLD
from featx.storage import StoragePath
from featx.system import as_rows, data_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about one image.

    Attributes:
        path: the file; None for an image that is not a file.
        label: the most likely class; None if the image cannot be read.
        probability: of that class, from 0 to 1.
        top: all classes with their probabilities, the most likely first.
        reason: why the image cannot be read; None if it can.
        labels: the predicted labels, the most likely first: the most likely class, or, if images can have several
            labels, those with a probability above 0.5, which may be none. Empty if the image cannot be read.
        is_unsure: whether the probability is too small for `max_error`, see `ImageClassifier.predict`.
        is_unlike: whether the image is unlike the training images.
    """

    path: StoragePath | None
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = field(repr=False)
    reason: str | None
    labels: tuple[str, ...] = ()
    is_unsure: bool = False
    is_unlike: bool = False

    @property
    def note(self) -> str:
        """Why the prediction is doubtful; empty if it is not."""
        notes = {"unsure": self.is_unsure, "unlike the training images": self.is_unlike}
        return "; ".join(note for note, is_so in notes.items() if is_so)


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """Predictions for n images, in the order in which they were given.

    One of them is a `Prediction`. Some of them, by a slice, a mask `(n,)` bool or numbers `(k,)`, are `Predictions`.

    >>> predictions = Predictions(("cats", "dogs"), (None, None), np.array([[0.9, 0.1], [0.2, 0.8]]), (None, None))
    >>> predictions[-1].label, predictions[predictions.probabilities[:, 0] > 0.5].labels
    ('dogs', ['cats'])

    Attributes:
        class_names: the classes.
        paths: n files; None for each image that is not a file.
        probabilities: `(n, n_classes)` float64; NaN for an image that cannot be read.
        reasons: why each cannot be read; None where it can.
        is_multilabel: whether an image can have several labels, so that its probabilities do not sum to 1.
        is_unsure: `(n,)` bool, see `Prediction`; False if None.
        is_unlike: `(n,)` bool, the same.
    """

    class_names: tuple[str, ...]
    paths: tuple[StoragePath | None, ...]
    probabilities: np.ndarray
    reasons: tuple[str | None, ...]
    is_multilabel: bool = False
    is_unsure: np.ndarray = None  # type: ignore[assignment]  # set below
    is_unlike: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("is_unsure", "is_unlike"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(len(self.paths), bool))

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, row: int) -> Prediction: ...
    @overload
    def __getitem__(self, row: "slice | npt.ArrayLike") -> "Predictions": ...
    def __getitem__(self, row: "int | slice | npt.ArrayLike") -> "Prediction | Predictions":
        if isinstance(row, bool) or not isinstance(row, int | np.integer):
            return self._some(row)
        path, reason, probabilities = self.paths[row], self.reasons[row], self.probabilities[row]
        if reason is not None:
            return Prediction(path, None, None, (), reason)
        order = np.argsort(-probabilities, kind="stable")
        top = tuple((self.class_names[label], float(probabilities[label])) for label in order)
        above = tuple(name for name, probability in top if probability > THRESHOLD)
        doubts = (bool(self.is_unsure[row]), bool(self.is_unlike[row]))
        return Prediction(path, *top[0], top, None, above if self.is_multilabel else top[0][:1], *doubts)

    def _some(self, rows: "slice | npt.ArrayLike") -> "Predictions":
        numbers = np.arange(len(self))
        chosen = numbers[rows if isinstance(rows, slice) else as_rows(rows, len(self))]
        paths, reasons = (tuple(column[row] for row in chosen) for column in (self.paths, self.reasons))
        doubts = (self.is_unsure[chosen], self.is_unlike[chosen])
        return Predictions(self.class_names, paths, self.probabilities[chosen], reasons, self.is_multilabel, *doubts)

    def __repr__(self) -> str:
        n_bad = f"{self.n_unreadable:,} unreadable"
        return f"<Predictions of {len(self):,} images in {len(self.class_names)} classes, {n_bad}>"

    @property
    def labels(self) -> list[str | None]:
        """The most likely class of each image; None for one that cannot be read."""
        return [prediction.label for prediction in self]

    @property
    def n_unreadable(self) -> int:
        """How many images could not be read."""
        return sum(reason is not None for reason in self.reasons)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with `path`, `label`, `probability`, `reason`, `is_unsure` and `is_unlike`.

        There is also a column for each class and, if images can have several labels, `labels`, a tuple for each image.

        Raises:
            FeatxError: pandas is not installed.
        """
        columns = {
            "path": [path and str(path) for path in self.paths],
            "label": self.labels,
            "probability": [prediction.probability for prediction in self],
            "reason": list(self.reasons),
            "is_unsure": self.is_unsure,
            "is_unlike": self.is_unlike,
        }
        if self.is_multilabel:
            columns["labels"] = [prediction.labels for prediction in self]
        by_class = {f"p:{name}": self.probabilities[:, label] for label, name in enumerate(self.class_names)}
        return data_frame({**columns, **by_class})
