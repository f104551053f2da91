"""The images of a data set that can be read, and how two of them are related."""

import os
from collections.abc import Sequence
from pathlib import Path

from featx.clean.files import FileLook, odd_images
from featx.clean.problems import Problem
from featx.dataset import ImageDataset
from featx.text import printable


class ReadableImages:
    """The images of a data set that can be read, with their splits, classes and files.

    Attributes:
        dataset: these images.
        splits: of each image, `train` or `test`; empty if the data set has no test split of its own.
        labels: the class of each image.
        looks: what each file is.
        odd: those that are unlike the others.
    """

    def __init__(
        self, dataset: ImageDataset, splits: Sequence[str], labels: Sequence[str], looks: Sequence[FileLook]
    ) -> None:
        self.dataset, self.splits, self.labels, self.looks = dataset, splits, labels, looks
        self.odd = list(odd_images(dataset.paths, splits, labels, looks))
        self._odd = {problem.path for problem in self.odd}
        self._cells = dataset.strata * 2 + dataset.is_test

    def are_of_one_class(self, one: int, other: int) -> bool:
        """Return whether two images have the same class, or the same labels."""
        return bool(self.dataset.strata[one] == self.dataset.strata[other])

    def are_together(self, one: int, other: int) -> bool:
        """Return whether two images are of the same class and in the same split."""
        return bool(self._cells[one] == self._cells[other])

    def are_one_file(self, one: int, other: int) -> bool:
        """Return whether links lead from both paths to the same file, so that to move one may break the other."""
        root = self.dataset.root
        if not isinstance(root, Path):
            return False
        first, second = (os.path.realpath(root / self.dataset.paths[row]) for row in (one, other))
        return first == second

    def rank(self, row: int) -> tuple[bool, int, int, int, str]:
        """Return what near-copies are ranked by: the best comes first.

        Images that are odd come last. The best has the most pixels, then the most bytes, because it is compressed
        least, and then the shortest path.
        """
        path, look = self.dataset.paths[row], self.looks[row]
        return path in self._odd, -look.n_pixels, -look.n_bytes, len(path), path

    def name(self, row: int) -> str:
        """Return the path of an image for a sentence, with its split if there are splits."""
        split = {"": "", "train": "the training image ", "test": "the test image "}[self.splits[row]]
        return f"{split}{printable(self.dataset.paths[row])}"

    def problem(self, kind: str, row: int, other: int, score: float, suggestion: str, reason: str) -> Problem:
        """Return a problem with an image and another one."""
        paths = self.dataset.paths
        return Problem(kind, paths[row], paths[other], self.splits[row], self.labels[row], score, suggestion, reason)
