"""The training images that a run remembers: which are nearest to an image, and whether the image is unlike them."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.dataset import label_texts
from featx.errors import FeatxError
from featx.storage import read_small
from featx.store import in_order, nearest_rows, take, unit_rows
from featx.system import progress_bar
from featx.text import printable
from featx.train.features import Features
from featx.train.tables import read_csv, write_csv

_Floats = npt.NDArray[np.float32]

ROWS_NAME, TABLE_NAME, MEAN_NAME = "reference.npy", "reference.csv", "mean_features.npy"

#: Training images that a run remembers, at most: they take 1 kB each with 512 features.
MAX_IMAGES = 20_000

#: The distance of an image is that to its so many-th nearest training image.
N_NEAREST = 10

_COLUMNS = ("path", "label", "distance")

#: The file of rows is not larger than this: 8,192 features are more than backbones give at a position. That of the mean
#: holds the features of one image.
_MAX_BYTES, _MAX_MEAN_BYTES = 2 * 8192 * MAX_IMAGES + 1024, 64 << 20

#: Images that are compared with all rows at a time.
_SLAB_IMAGES = 512


@dataclass(frozen=True)
class NearestImage:
    """A training image that is among the nearest to some image, by the cosine of their features.

    Attributes:
        path: relative to the folder of the data set.
        label: its class; several labels with `|` between them.
        similarity: the cosine, at most 1.
    """

    path: str
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Reference:
    """Some of the training images of a run, n at most `MAX_IMAGES`: their features, and how far they are from others.

    Attributes:
        rows: `(n, c)` float16, the features as rows of length 1, see `featx.store.unit_rows`.
        paths: n image files, relative to the folder of the data set.
        labels: their n classes; several labels of an image with `|` between them.
        distances: `(n,)` float64, the distance of each image, as if it were a new one: images of its own group and
            copies of it do not count. Infinite if there are not enough others.
        mean: `(…)` float32, the mean of their features, of the shape of one image's.
    """

    rows: npt.NDArray[np.float16] = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    distances: npt.NDArray[np.float64] = field(repr=False)
    mean: _Floats = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.rows) == len(self.paths) == len(self.labels) == len(self.distances):
            raise ValueError("its files do not fit together")
        if self.rows.ndim != 2 or self.mean.shape[-1:] != self.rows.shape[1:]:
            raise ValueError("its rows are not those of its mean")

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, features: Features, *, show: bool = False) -> Self:
        """Return the training images of `features`; of more than `MAX_IMAGES` a random part, by their digests.

        Args:
            features: of a data set.
            show: show progress on stderr.
        """
        dataset = features.dataset
        train = np.flatnonzero(~dataset.is_test)
        by_digest = np.argsort(dataset.digests[train].view("S32")[:, 0], kind="stable")
        images = np.sort(train[by_digest[:MAX_IMAGES]])
        rows = np.empty((len(images), features.X.shape[-1]), np.float16)
        total = np.zeros(features.X.shape[1:])
        for which, some in in_order(take(features.X, images)):
            rows[which] = unit_rows(some)
            total += some.sum(axis=0, dtype=np.float64)
        labels = label_texts(dataset.labels[images], dataset.class_names)
        _, unit = np.unique(dataset.units[images].view("S32")[:, 0], return_inverse=True)
        paths = tuple(dataset.paths[row] for row in images.tolist())
        mean = (total / max(1, len(images))).astype(np.float32)
        return cls(rows, paths, tuple(labels), _distances_to_others(rows, unit, show=show), mean)

    def save(self, folder: Path) -> None:
        """Write the three files of the reference into a run folder.

        Raises:
            OSError: they cannot be written.
        """
        np.save(folder / ROWS_NAME, self.rows)
        np.save(folder / MEAN_NAME, self.mean)
        lines = zip(self.paths, self.labels, (f"{distance:.6f}" for distance in self.distances), strict=True)
        write_csv(folder / TABLE_NAME, _COLUMNS, lines)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the reference in a run folder; None if an older featx made the run, without one.

        Raises:
            FeatxError: it is damaged.
        """
        if not (folder / ROWS_NAME).exists():
            return None
        try:
            rows = _read_array(folder / ROWS_NAME, np.float16, _MAX_BYTES)
            mean = _read_array(folder / MEAN_NAME, np.float32, _MAX_MEAN_BYTES)
            return cls(rows, *_read_table(folder / TABLE_NAME), mean)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise FeatxError(
                f"The reference of the run {printable(folder)} cannot be read ({printable(reason)}); train again with "
                f"featx train-top."
            ) from error

    def nearest(self, X: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[np.int64], _Floats]:
        """Return the `k` images whose features are nearest to each of the features `X`, `(q, …, c)`, by cosine.

        Returns:
            Which ones, `(q, k)`, the nearest first, and their cosines; see `featx.store.nearest_rows`.

        Raises:
            FeatxError: the features are not those of the run.
        """
        return nearest_rows(self._queries(X), self.rows, k)

    def nearest_images(self, X: npt.NDArray[Any], k: int) -> list[tuple[NearestImage, ...]]:
        """Return the same as `nearest`, the `k` images for each of the features `X`, the nearest first."""
        return [
            tuple(
                NearestImage(self.paths[row], self.labels[row], float(cosine)) for row, cosine in zip(*one, strict=True)
            )
            for one in zip(*self.nearest(X, k), strict=True)
        ]

    def distance(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return how far images with the features `X`, `(q, …, c)`, are from the training images: `(q,)`, 0 to 2.

        It is 1 - cosine to the `N_NEAREST`-th nearest of them. On rows of length 1, that is half the square of the
        Euclidean distance (Sun et al., Out-of-distribution detection with deep nearest neighbors, 2022).

        Raises:
            FeatxError: the features are not those of the run.
        """
        queries = self._queries(X)
        found = [_distance(cosines, len(self)) for _, cosines in _cosines(queries, self._unit)]
        return np.concatenate([np.empty(0), *found])

    def limit(self, false_alarms: float) -> float:
        """Return the distance above which at most this share of new images is that are like the training images.

        It is a quantile of `distances`, as conformal prediction has it (Vovk, Gammerman and Shafer, Algorithmic
        learning in a random world, 2005). Infinite if there are too few training images to tell: 1 % needs 99.

        Args:
            false_alarms: above 0 and below 1.
        """
        rank = math.ceil(round((len(self) + 1) * (1 - false_alarms), 6))
        return float(np.sort(self.distances)[rank - 1]) if rank <= len(self) else math.inf

    @cached_property
    def _unit(self) -> _Floats:
        """The rows as float32, in which they are multiplied."""
        return self.rows.astype(np.float32)

    def _queries(self, X: npt.NDArray[Any]) -> _Floats:
        if X.shape[-1] != self.rows.shape[1]:
            raise FeatxError(
                f"The reference of the run has rows of {self.rows.shape[1]} features, not {X.shape[-1]}: it "
                f"belongs to another recipe; train again with featx train-top."
            )
        return unit_rows(X)


def _cosines(queries: _Floats, unit: _Floats) -> Iterator[tuple[slice, _Floats]]:
    """Yield the cosines of some queries with all rows, `(k, n)`, and which queries these are."""
    for start in range(0, len(queries), _SLAB_IMAGES):
        which = slice(start, min(start + _SLAB_IMAGES, len(queries)))
        yield which, queries[which] @ unit.T


def _distance(cosines: _Floats, n: int) -> npt.NDArray[np.float64]:
    """Return the distance of each query from its cosines with rows, `(k, m)`; n is the number of images there are."""
    number = max(1, min(N_NEAREST, n - 1))
    nearest = np.partition(cosines, -number, axis=1)[:, -number]
    distance: npt.NDArray[np.float64] = np.maximum(1 - nearest.astype(np.float64), 0)
    return distance


def _distances_to_others(
    rows: npt.NDArray[np.float16], unit: npt.NDArray[np.int64], *, show: bool
) -> npt.NDArray[np.float64]:
    """Return the distance of each row to those of other units, `(n,)`."""
    of_rows = rows.astype(np.float32)
    distances = np.empty(len(rows))
    with progress_bar(len(rows), "reference", "images", show=show) as bar:
        for which, cosines in _cosines(of_rows, of_rows):
            cosines[unit[which, np.newaxis] == unit] = -np.inf
            distances[which] = _distance(cosines, len(rows))
            bar.update(len(cosines))
    return distances


def _read_array(path: Path, dtype: npt.DTypeLike, most_bytes: int) -> npt.NDArray[Any]:
    """Return the numbers in a file that anybody may have made: what it claims is checked before memory is taken for it.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    data = read_small(path, most_bytes)
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its numbers are in another format")
    shape, is_fortran, found = np.lib.format.read_array_header_1_0(file)
    if is_fortran or found != dtype or found.itemsize * math.prod(shape) != len(data) - file.tell():
        raise ValueError("its numbers are not what featx writes")
    numbers = np.frombuffer(data, found, offset=file.tell()).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError("its numbers are not finite")
    return numbers


def _read_table(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], npt.NDArray[np.float64]]:
    """Return paths, labels and distances in the file that anybody may have made.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    table = read_csv(path, _COLUMNS, MAX_IMAGES)
    distances = np.array([float(distance) for _, _, distance in table])
    if np.isnan(distances).any():
        raise ValueError("a distance is not a number")
    return tuple(row[0] for row in table), tuple(row[1] for row in table), distances
