"""A data set: images with their classes, digests and splits, and the rule that puts an image into a split.

The content of an image decides its split, never its name or folder. Identical images always get the same answer, so
that no copy of a training image is among those that measure it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, repeat
from operator import truediv
from typing import Any, Self, TypeAlias

import numpy as np

from featx.dataset.labelled import UNLABELLED, Labels
from featx.dataset.path_table import PathTable
from featx.dataset.stratification import iterative_mask
from featx.storage import StoragePath
from featx.system import OnDemand, as_mask, brief, csv_lines

# Changing one of them moves images between splits: results would no longer compare with older ones.
_TEST_SALT = b"featx test split"
_VALIDATION_SALT = b"featx validation part, seed %d"
_SAMPLE_SALT = b"featx sample, seed %d"

#: Rows that are made into text at a time.
_SLAB_ROWS = 1 << 14

#: Of each class, so many images stay for training.
_MIN_TO_TRAIN = 2


@dataclass(frozen=True)
class ImageFolders:
    """A data set's folder, and where its splits and labels are, in case the names of its folders do not show it.

    Attributes:
        root: the folder of the data set, an archive of it, or its address.
        train: the folder whose sub-folders are the classes of the train split, relative to `root`; `"."` is `root`
            itself. If None, featx finds it by names and contents.
        test: the same for the test split; if it is None and `train` is not, featx chooses a test split.
        labels: instead of folders, what says which image has which label: a `featx.dataset.Labels`, or a table as that
            takes it.

    Raises:
        DatasetError: these are no labels.
    """

    root: StoragePath | str
    train: str | None = None
    test: str | None = None
    labels: Any = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", Labels.of(self.labels))

    @classmethod
    def of(cls, data: "Data") -> Self:
        """Return the folders that `data` names; a path or an address names only the root."""
        if isinstance(data, ImageDataset):
            return cls(data.root, data.train_folder, data.test_folder, data.given_labels)
        return data if isinstance(data, cls) else cls(data)  # type: ignore[arg-type]  # it is one or the other


#: Where one image comes from: a file, here or elsewhere, or an array `(height, width, 3)` or `(height, width)` uint8.
Source = StoragePath | np.ndarray


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """The images of a folder. Row `i` of every column is one image file; rows are ordered by class, then by path.

    Attributes:
        root: the folder, on this machine or remote.
        class_names: sorted names of the class folders, or the labels.
        paths: n paths relative to `root`, as a `featx.dataset.path_table.PathTable`.
        labels: `(n,)` int64, indices into `class_names`; or `(n, n_classes)` bool, which labels each image has, if
            images can have several.
        is_test: `(n,)` bool, true for the test split, false for the train split.
        digests: `(n, 32)` uint8, SHA-256 of each file's bytes.
        warnings: what the user should know about the data, one sentence each.
        unreadable: (path relative to `root`, reason) of image files that could not be read; they have no row.
        train_folder: the folder of the train split that the user has named, see `ImageFolders.train`.
        test_folder: the same for the test split.
        given_labels: what the user has given instead of class folders, see `ImageFolders.labels`.
        groups: `(n, 32)` uint8, SHA-256 of the name of each image's group, such as a patient; None without groups.
        group_names: n names of these groups; empty without groups.
    """

    root: StoragePath
    class_names: tuple[str, ...]
    paths: PathTable
    labels: np.ndarray
    is_test: np.ndarray
    digests: np.ndarray
    warnings: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    train_folder: str | None = None
    test_folder: str | None = None
    given_labels: Labels | None = None
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PathTable):
            object.__setattr__(self, "paths", PathTable(self.paths))

    def __repr__(self) -> str:
        kinds = "labels" if self.is_multilabel else "classes"
        return (
            f"<ImageDataset {brief(self.root)}: {len(self.class_names)} {kinds}, {self.n_train:,} training and "
            f"{self.n_test:,} test images>"
        )

    def warned(self, *sentences: str) -> "ImageDataset":
        """Return the same with these warnings added; an empty one is none."""
        return replace(self, warnings=(*self.warnings, *filter(None, sentences)))

    @property
    def folders(self) -> ImageFolders:
        """What `scan` was given."""
        return ImageFolders.of(self)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.root.resolve().name

    @property
    def n_images(self) -> int:
        """How many images there are in both splits."""
        return len(self.paths)

    @property
    def n_train(self) -> int:
        """How many images there are in the train split."""
        return self.n_images - self.n_test

    @property
    def n_test(self) -> int:
        """How many images there are in the test split."""
        return int(np.count_nonzero(self.is_test))

    @property
    def is_multilabel(self) -> bool:
        """Whether images can have several labels, or none."""
        return self.labels.ndim == 2

    def has_class(self, label: int) -> np.ndarray:
        """Return `(n,)` bool: which images are of the class `label`, or have this label."""
        has: np.ndarray = self.labels[:, label] if self.is_multilabel else self.labels == label
        return has

    @cached_property
    def strata(self) -> np.ndarray:
        """`(n,)` int64, the same for images of one class; if images can have several labels, for those of one set."""
        return np.unique(self.labels, axis=0, return_inverse=True)[1] if self.is_multilabel else self.labels

    @property
    def label_texts(self) -> list[str]:
        """The class of each image; its labels with `|` between them if it can have several."""
        return label_texts(self.labels, self.class_names)

    @property
    def class_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many images each class has in the train split, and how many in the test split."""
        n_classes = len(self.class_names)
        train, test = self.labels[~self.is_test], self.labels[self.is_test]
        if self.is_multilabel:
            return np.count_nonzero(train, axis=0), np.count_nonzero(test, axis=0)
        return np.bincount(train, minlength=n_classes), np.bincount(test, minlength=n_classes)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all images with their classes, splits and groups; not of their paths or order."""
        groups = [] if self.groups is None else [self.groups]
        labels = self.labels if self.is_multilabel else self.labels.astype("<i8").view(np.uint8).reshape(-1, 8)
        rows = np.concatenate([self.digests, labels, self.is_test[:, None], *groups], axis=1, dtype=np.uint8)
        hashed = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        hashed.update(b"\0several labels" if self.is_multilabel else b"")
        hashed.update(np.sort(rows.view(f"S{rows.shape[1]}"), axis=0).tobytes())
        return hashed.hexdigest()

    def subset(self, mask: np.ndarray) -> "ImageDataset":
        """Return the rows where `mask`, `(n,)` bool, is true. All classes stay; warnings do not.

        Raises:
            FeatxError: `mask` is not such an array.
        """
        rows = np.flatnonzero(as_mask(mask, self.n_images))
        return replace(
            self,
            paths=self.paths.take(rows),
            labels=self.labels[rows],
            is_test=self.is_test[rows],
            digests=self.digests[rows],
            groups=None if self.groups is None else self.groups[rows],
            group_names=tuple(self.group_names[row] for row in rows) if self.group_names else (),
            warnings=(),
            unreadable=(),
        )

    @property
    def units(self) -> np.ndarray:
        """`(n, 32)` uint8, the same for images that no split may divide: those of a group; without groups, copies."""
        return self.digests if self.groups is None else self.groups

    @cached_property
    def _copies(self) -> np.ndarray:
        return identical_groups(self.digests)

    def duplicates(self) -> np.ndarray:
        """Return `(k, 2)` int64: the first of several identical images in one split, and each further one."""
        return _pairs(self._copies * 2 + self.is_test)

    def label_rows(self) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
        """Return columns and rows of a table that `Labels` takes: path, label, split and group of each image.

        Without test images there are no splits, and without labels the labels are empty.
        """
        no_label = self.class_names == (UNLABELLED,)
        labels = repeat("", self.n_images) if no_label else chain.from_iterable(self._label_slabs())
        columns: dict[str, Iterable[str]] = {"path": self.paths, "label": labels}
        if self.n_test:
            columns["split"] = ("test" if is_test else "train" for is_test in self.is_test)
        if self.group_names:
            columns["group"] = self.group_names
        return tuple(columns), zip(*columns.values(), strict=True)

    def label_table(self) -> str:
        """Return which label, split and group each image has, as CSV that `Labels` takes; see `label_rows`."""
        return "".join(csv_lines(*self.label_rows()))

    def _label_slabs(self) -> Iterator[list[str]]:
        for first in range(0, self.n_images, _SLAB_ROWS):
            yield label_texts(self.labels[first : first + _SLAB_ROWS], self.class_names)

    def leaks(self) -> np.ndarray:
        """Return `(k, 2)` int64: an image in the train split, and each identical one in the test split."""
        train, test = np.flatnonzero(~self.is_test), np.flatnonzero(self.is_test)
        groups, first = np.unique(self._copies[train], return_index=True)
        if not len(groups):
            return np.empty((0, 2), dtype=np.int64)
        at = np.searchsorted(groups, self._copies[test]).clip(max=len(groups) - 1)
        leaked = groups[at] == self._copies[test]
        return np.stack([train[first[at[leaked]]], test[leaked]], axis=1)

    def label_conflicts(self) -> np.ndarray:
        """Return `(k, 2)` int64: the first of several identical images, and each one that is in another class."""
        pairs = _pairs(self._copies)
        first, second = pairs.T
        return pairs[np.flatnonzero(self.strata[first] != self.strata[second])]


def label_texts(labels: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return the class of each image as text, or its labels with `|` between them; empty if it has none.

    >>> label_texts(np.array([1, 0]), ["cat", "dark"]), label_texts(np.array([[1, 1], [0, 0]]), ["cat", "dark"])
    (['dark', 'cat'], ['cat|dark', ''])

    Args:
        labels: see `ImageDataset.labels`.
        names: of the classes.
    """
    if labels.ndim == 1:
        return [names[label] for label in labels]
    return ["|".join(names[label] for label in np.flatnonzero(row).tolist()) for row in labels]


#: What a data set is given as: its folder, that with the folders in it that are its splits, or what `scan` returned.
Data: TypeAlias = StoragePath | str | ImageFolders | ImageDataset


def _pairs(keys: np.ndarray) -> np.ndarray:
    """Return `(k, 2)` int64: the first row with a key, and each further one; in the order of the latter."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first_alike = first[inverse]
    later = np.flatnonzero(first_alike != np.arange(len(keys)))
    return np.stack([first_alike[later], later], axis=1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Images:
    """Images, or views of them, whose features are wanted.

    Attributes:
        sources: n of them.
        digests: `(n, 32)` uint8, the SHA-256 of each one's bytes, see `read_source`.
        views: `(n,)` uint16, the number of each one's view, or one number for all; 0 is the image itself.
    """

    sources: Sequence[Source]
    digests: np.ndarray
    views: np.ndarray | int = 0

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, rows: np.ndarray) -> "Images":
        """Return the images `rows`, `(k,)` int64."""
        views = np.broadcast_to(self.views, len(self))[rows].astype(np.uint16)
        sources = self.sources
        chosen = sources.chosen(rows) if isinstance(sources, _Chosen) else _Chosen(sources, rows)
        return Images(chosen, self.digests[rows], views)


class _Chosen(OnDemand[Source]):
    """Some of the sources, in an order of their own."""

    def __init__(self, sources: Sequence[Source], rows: np.ndarray) -> None:
        super().__init__(rows, lambda row: sources[int(row)])
        self._sources, self._rows = sources, rows

    def chosen(self, rows: np.ndarray) -> "_Chosen":
        """Return the sources `rows`, `(k,)` int64, of these."""
        return _Chosen(self._sources, self._rows[rows])

    def __reduce__(self) -> tuple[type, tuple[list[Source]]]:
        """Pickle what was chosen alone: a process that is sent some images is not sent the list of all."""
        return list, (list(self),)


def images_of(dataset: ImageDataset) -> Images:
    """Return the images of a data set."""
    return Images(OnDemand(dataset.paths, partial(truediv, dataset.root)), dataset.digests)


def views_of(dataset: ImageDataset, n_views: int) -> Images:
    """Return the views 1 to `n_views` of each image of a data set, those of one image side by side."""
    rows = np.repeat(np.arange(dataset.n_images), n_views)
    images = images_of(dataset)[rows]
    return Images(images.sources, images.digests, np.tile(np.arange(1, n_views + 1, dtype=np.uint16), dataset.n_images))


# Splits


def identical_groups(digests: np.ndarray) -> np.ndarray:
    """Return `(n,)` int64: a number for each row of `digests`, `(n, 32)` uint8, the same for identical rows only.

    The numbers count up from 0 in the order of the digests.
    """
    # S32 drops trailing zeros when compared, which tells no two values of exactly 32 bytes apart wrongly.
    rows = np.ascontiguousarray(digests).view("S32").ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def hashed_test_mask(digests: np.ndarray, fraction: float) -> np.ndarray:
    """Return `(n,)` bool: which images an older featx took for its test split, about `fraction` of them.

    Depends on the one image, or its group, only. So classes have more or less than their share.

    Args:
        digests: `(n, 32)` uint8, see `ImageDataset.units`.
        fraction: from 0 to below 1.
    """
    return _lots(digests, _TEST_SALT) < np.uint64(int(fraction * 2**64))


def stratified_test_mask(units: np.ndarray, labels: np.ndarray, sides: np.ndarray, *, fraction: float) -> np.ndarray:
    """Return `(n,)` bool: which images are the test split, the same share of every class.

    Images that are on a side stay there. With the others, each class of three images or more gets
    `round(fraction * n)` test images of its n, but at least one, and keeps two for training. Groups and copies of an
    image are never divided; where they make that number impossible, it gets fewer. Of images without a side, those with
    the smallest lots become test images. A lot depends on the image, or the name of its group, only. The order of the
    rows makes no difference. Images that can have several labels are divided by
    `featx.dataset.stratification.iterative_mask`.

    Args:
        units: `(n, 32)` uint8, see `ImageDataset.units`.
        labels: `(n,)` integers, or `(n, n_classes)` bool, see `ImageDataset.labels`.
        sides: `(n,)` int8: 1 for a test image, 0 for a training image, -1 for one without a side; the same for all
            images of a unit.
        fraction: from 0 to below 1.
    """
    is_known = sides >= 0
    if is_known.all():
        return np.asarray(sides == 1)
    groups = identical_groups(units)
    if labels.ndim == 2 and fraction:
        lots = _lots(units, _TEST_SALT)
        return iterative_mask(labels, groups, lots, fraction, sides=sides, n_kept=_MIN_TO_TRAIN)
    if labels.ndim == 2:
        return np.asarray(sides == 1)
    drawn: dict[int, bool] = dict(zip(groups[is_known].tolist(), (sides[is_known] == 1).tolist(), strict=True))

    def n_wanted(n: int) -> int:
        return min(max(round(fraction * n), 1), n - _MIN_TO_TRAIN) if n > _MIN_TO_TRAIN and fraction else 0

    return _drawn_mask(groups, labels, _lots(units, _TEST_SALT), n_wanted, drawn)


def validation_mask(digests: np.ndarray, labels: np.ndarray, *, seed: int, fraction: float = 0.1) -> np.ndarray:
    """Return `(n,)` bool: the validation part of a train split, the same share of every class.

    Each class gives `round(fraction * n)` of its n images, but at least one, and keeps at least one, if it has two
    that differ. Where copies of an image make that number impossible, it gives fewer. An image that is in several
    classes is on the side that the first of them puts it on. The order of the rows makes no difference.

    Images that can have several labels are divided by `featx.dataset.stratification.iterative_mask`.

    Args:
        digests: `(n, 32)` uint8, see `ImageDataset.units`.
        labels: `(n,)` integers, or `(n, n_classes)` bool, see `ImageDataset.labels`.
        seed: another seed, another part.
        fraction: from 0 to below 1.
    """
    lots = _lots(digests, _VALIDATION_SALT % seed)
    groups = identical_groups(digests)
    if labels.ndim == 2:
        return iterative_mask(labels, groups, lots, fraction)
    return _drawn_mask(groups, labels, lots, lambda n: max(round(fraction * n), 1), {})


def _drawn_mask(
    groups: np.ndarray, labels: np.ndarray, lots: np.ndarray, n_wanted: Callable[[int], int], drawn: dict[int, bool]
) -> np.ndarray:
    """Return `(n,)` bool: the images of every class with the smallest lots, of n images about `n_wanted(n)`.

    `drawn` says of groups that are decided whether they are among them, and in the end says so of all.
    """
    by_label = np.argsort(labels, kind="stable")
    for members in np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1):
        distinct, first, sizes = np.unique(groups[members], return_index=True, return_counts=True)
        order = np.argsort(lots[members[first]], kind="stable")
        _draw(distinct[order].tolist(), sizes[order].tolist(), n_wanted(len(members)), drawn)
    return np.fromiter((drawn[group] for group in groups.tolist()), dtype=bool, count=len(groups))


def sample_mask(
    digests: np.ndarray, labels: np.ndarray, *, seed: int, fraction: float, at_least: int = 1
) -> np.ndarray:
    """Return `(n,)` bool: a share of the images of every class, rounded, a smaller one always within a larger one.

    Args:
        digests: `(n, 32)` uint8.
        labels: `(n,)` integers, or `(n, n_classes)` bool, see `ImageDataset.labels`: then each label gives this share,
            and so do the images without one.
        seed: another seed, other images.
        fraction: from 0 to 1.
        at_least: the least number of images of each class, or all if it has fewer.
    """
    mask = np.zeros(len(digests), bool)
    lots = _lots(digests, _SAMPLE_SALT % seed)
    masks = (labels == label for label in np.unique(labels)) if labels.ndim == 1 else (*labels.T, ~labels.any(axis=1))
    for mask_of_class in masks:
        members = np.flatnonzero(mask_of_class)
        n_wanted = max(at_least, round(fraction * len(members)))
        mask[members[np.argsort(lots[members], kind="stable")[:n_wanted]]] = True
    return mask


def _draw(groups: list[int], sizes: list[int], n_wanted: int, drawn: dict[int, bool]) -> None:
    """Decide for the groups of one class, in the order of their lots, until `n_wanted` images are drawn."""
    open_groups = [(group, size) for group, size in zip(groups, sizes, strict=True) if group not in drawn]
    n_drawn = sum(size for group, size in zip(groups, sizes, strict=True) if drawn.get(group))
    has_kept = any(drawn.get(group) is False for group in groups)
    n_open = len(open_groups)
    for group, size in open_groups:
        must_stay = n_open == 1 and not has_kept
        drawn[group] = n_drawn + size <= n_wanted and not must_stay
        n_drawn += size * drawn[group]
        has_kept |= not drawn[group]
        n_open -= 1
    if n_wanted and n_drawn == 0 and len(open_groups) > 1:
        drawn[min(open_groups, key=lambda item: item[1])[0]] = True


def _lots(digests: np.ndarray, salt: bytes) -> np.ndarray:
    """Return `(n,)` uint64, evenly spread: a number that an image draws, by its digest and the salt alone.

    A digest's own bits are as good as random; SplitMix64's output function (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014) makes those of different salts independent.
    """
    start = int.from_bytes(hashlib.sha256(salt).digest()[:8], "little")
    lots = np.ascontiguousarray(digests[:, :8]).view("<u8").ravel().astype(np.uint64) ^ np.uint64(start)
    lots ^= lots >> np.uint64(30)
    lots *= np.uint64(0xBF58476D1CE4E5B9)
    lots ^= lots >> np.uint64(27)
    lots *= np.uint64(0x94D049BB133111EB)
    return lots ^ (lots >> np.uint64(31))
