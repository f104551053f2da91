"""Problems with the images of a data set: one row for each problem."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from featx.dataset import ImageDataset
from featx.system import brief, csv_lines, data_frame

if TYPE_CHECKING:
    import pandas as pd

#: Every kind of problem, and what it is called in a table; the order is that of the table and of the page.
KINDS = {
    "unreadable": "files that cannot be read",
    "copy": "exact copies",
    "near-copy": "near-copies",
    "label": "doubtful labels",
    "blank": "images of one colour",
    "tiny": "very small images",
    "huge": "very large images",
    "shape": "very long images",
    "suffix": "wrong suffixes",
}

#: The kinds that are found by features; the others need no network.
KINDS_OF_FEATURES = ("near-copy", "label")

#: What can be suggested, besides `move to CLASS`, `relabel as CLASS` and `rename to NAME`.
REMOVE, LOOK = "remove", "look at"

#: Columns of a table of problems.
COLUMNS = ("kind", "path", "other_path", "split", "label", "score", "suggestion", "reason")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or may be wrong, with an image.

    Attributes:
        kind: one of `KINDS`.
        path: of the file, relative to the data set's folder.
        other_path: the other file of a pair; empty if there is none.
        split: `train` or `test`; empty if the data set has no test split of its own.
        label: the class of the file, or its labels with `|` between them; empty if it has none.
        score: how certain or how large the problem is; None for kinds without a score. docs/commands.md says what the
            score of each kind measures.
        suggestion: `remove`, `look at`, `move to CLASS`, `relabel as CLASS` or `rename to NAME`.
        reason: what is wrong, in words.
    """

    kind: str
    path: str
    other_path: str
    split: str
    label: str
    score: float | None
    suggestion: str
    reason: str

    def __repr__(self) -> str:
        return f"<Problem {self.kind}: {brief(self.path)}, {brief(self.suggestion)}>"

    @property
    def cells(self) -> tuple[str, ...]:
        """The values of `COLUMNS`, as text."""
        score = "" if self.score is None else f"{self.score:.4g}"
        return self.kind, self.path, self.other_path, self.split, self.label, score, self.suggestion, self.reason


@dataclass(frozen=True)
class Problems:
    """The problems of a data set, by kind. Within each kind, the most certain or the largest problem comes first.

    Attributes:
        dataset: every image file whose bytes could be read, also if it could not be decoded.
        found: every problem.
        kinds: the kinds of problems that featx looked for.
        not_checked: what featx could not check, or not reliably, and why: one sentence each.
    """

    dataset: ImageDataset
    found: tuple[Problem, ...]
    kinds: tuple[str, ...]
    not_checked: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        """Return the number of problems."""
        return len(self.found)

    def __iter__(self) -> Iterator[Problem]:
        """Yield every problem."""
        return iter(self.found)

    def __repr__(self) -> str:
        return f"<Problems of {brief(self.dataset.root)}: {len(self):,}, {len(self.to_remove):,} files to remove>"

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind that was looked for."""
        counted = Counter(problem.kind for problem in self.found)
        return {kind: counted[kind] for kind in self.kinds}

    @property
    def to_remove(self) -> tuple[Problem, ...]:
        """The problems with the suggestion to remove the file; no file is in two of them."""
        return tuple(problem for problem in self.found if problem.suggestion == REMOVE)

    @property
    def kept(self) -> ImageDataset:
        """All images except those that featx suggests to remove."""
        removed = {problem.path for problem in self.to_remove}
        return self.dataset.subset(np.array([path not in removed for path in self.dataset.paths], bool))

    def to_csv(self) -> str:
        """Return a table of all problems with the columns `COLUMNS`, as CSV; names of files are exact."""
        return "".join(csv_lines(COLUMNS, (problem.cells for problem in self.found)))

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table of all problems with the columns `COLUMNS`; `score` is a number.

        Raises:
            FeatxError: pandas is not installed.
        """
        return data_frame({name: [getattr(problem, name) for problem in self.found] for name in COLUMNS})
