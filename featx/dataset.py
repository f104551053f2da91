"""A data set: a folder's images with their classes, digests and splits, checked for what would spoil a comparison."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real

import numpy as np

from featx.arguments import as_mask, shown
from featx.digests import digest_files
from featx.errors import DatasetError, printable
from featx.layout import EXPECTED, Folders, Layout, find_layout, folders_below, list_folder
from featx.on_demand import OnDemand
from featx.places import FileState, Place, RemotePath, RemoteTree, as_data, as_place
from featx.progress import waiting
from featx.splits import hashed_test_mask, identical_groups

log = logging.getLogger("featx")

_MAX_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """The images of a folder. Row `i` of every column is one image file; rows are ordered by class, then by path.

    Attributes:
        root: the folder, on this machine or elsewhere.
        class_names: sorted names of the class folders.
        paths: n paths relative to `root`.
        labels: `(n,)` int64, indices into `class_names`.
        is_test: `(n,)` bool, true for the test split, false for the train split.
        digests: `(n, 32)` uint8, SHA-256 of each file's bytes.
        warnings: what the user should know of the data, one sentence each.
        unreadable: (path relative to `root`, reason) of image files that could not be read; they have no row.
    """

    root: Place
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    is_test: np.ndarray
    digests: np.ndarray
    warnings: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return (
            f"<ImageDataset {shown(str(self.root))}: {len(self.class_names)} classes, {self.n_train} training and "
            f"{self.n_test} test images>"
        )

    def warned(self, *sentences: str) -> "ImageDataset":
        """Return the same with these warnings added; an empty one is none."""
        return replace(self, warnings=(*self.warnings, *filter(None, sentences)))

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

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all images with their classes and splits; not of their paths or their order."""
        rows = np.concatenate(
            [self.digests, self.labels.astype("<i8").view(np.uint8).reshape(-1, 8), self.is_test[:, None]],
            axis=1,
            dtype=np.uint8,
        )
        hashed = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        hashed.update(np.sort(rows.view(f"S{rows.shape[1]}"), axis=0).tobytes())
        return hashed.hexdigest()

    def subset(self, mask: np.ndarray) -> "ImageDataset":
        """Return the rows where `mask`, `(n,)` bool, is true. The classes stay; the warnings were of the whole.

        Raises:
            FeatxError: `mask` is no such array: numbers of rows would be taken for something else.
        """
        rows = np.flatnonzero(as_mask(mask, self.n_images))
        paths = tuple(self.paths[row] for row in rows)
        return ImageDataset(
            self.root, self.class_names, paths, self.labels[rows], self.is_test[rows], self.digests[rows]
        )

    @cached_property
    def _groups(self) -> np.ndarray:
        return identical_groups(self.digests)

    def duplicates(self) -> np.ndarray:
        """Return `(k, 2)` int64: the first of several identical images in one split, and each further one."""
        return _pairs(self._groups * 2 + self.is_test)

    def leaks(self) -> np.ndarray:
        """Return `(k, 2)` int64: an image in the train split, and each identical one in the test split."""
        train, test = np.flatnonzero(~self.is_test), np.flatnonzero(self.is_test)
        groups, first = np.unique(self._groups[train], return_index=True)
        if not len(groups):
            return np.empty((0, 2), dtype=np.int64)
        at = np.searchsorted(groups, self._groups[test]).clip(max=len(groups) - 1)
        leaked = groups[at] == self._groups[test]
        return np.stack([train[first[at[leaked]]], test[leaked]], axis=1)

    def label_conflicts(self) -> np.ndarray:
        """Return `(k, 2)` int64: the first of several identical images, and each one that is in another class."""
        pairs = _pairs(self._groups)
        first, second = pairs.T
        return pairs[np.flatnonzero(self.labels[first] != self.labels[second])]


def scan(root: Place | str, cache_dir: Place | str, *, test_fraction: float = 0.2, show: bool = False) -> ImageDataset:
    """Return the data set in the folder `root`. Only files that are new or have changed are read.

    Args:
        root: a folder laid out as `train/CLASS/*` with `test/CLASS/*`, or as `CLASS/*`; or an address that fsspec
            opens, such as `s3://bucket/photos`, or a zip or tar file.
        cache_dir: the folder of the stat cache.
        test_fraction: the share of images, from 0 to below 1, that becomes the test split where `root` has none.
            An image's side is decided by its content alone.
        show: whether to show progress.

    Raises:
        DatasetError: there is nothing here to train a classifier on; the message says why, and what to do.
    """
    if not isinstance(test_fraction, Real) or not 0 <= test_fraction < 1:
        raise DatasetError(f"The test fraction is a number from 0 to below 1. Received: {test_fraction!r}")
    root = as_data(root)
    with waiting(f"list {printable(root)}", show=show and isinstance(root, RemotePath)):
        folders, tree = folders_below(root)
    layout = find_layout(root, folders)
    listed = _listed(root, layout, folders)
    dataset = _with_train_classes(_read(listed, tree, as_place(cache_dir), show=show))
    if dataset.n_test == 0:
        dataset = _split_by_content(dataset, test_fraction)
        if layout.test is not None:
            dataset = dataset.warned("The test split has no image: featx takes one from the train split, by content.")
    dataset = dataset.warned(_untested(dataset), *_repeats(dataset))
    for warning in dataset.warnings:
        log.warning("%s", warning)
    return dataset


def _listed(root: Place, layout: Layout, folders: Folders) -> ImageDataset:
    """Return the files that `layout` has: all its classes, and digests of zero."""
    prefix = f"{str(root.resolve()).rstrip('/')}/"  # exactly one slash, also for the root folder
    rows: list[tuple[str, str, bool]] = []
    others: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for is_test, class_folders in ((False, layout.train), (True, layout.test or {})):
        for class_name, folder in class_folders.items():
            listing = list_folder(folder, folders)
            rows += [(class_name, path.removeprefix(prefix), is_test) for path in listing.images]
            others += [path.removeprefix(prefix) for path in listing.others]
            unreadable += [(path.removeprefix(prefix), reason) for path, reason in listing.unreadable]
    strays = [path.removeprefix(prefix) for path in layout.strays]
    if not rows:
        raise _no_images(root, strays, unreadable)
    rows.sort()
    class_names = tuple(sorted(layout.train.keys() | (layout.test or {}).keys()))
    index = {class_name: label for label, class_name in enumerate(class_names)}
    dataset = ImageDataset(
        root=root,
        class_names=class_names,
        paths=tuple(path for _, path, _ in rows),
        labels=np.array([index[class_name] for class_name, _, _ in rows], dtype=np.int64),
        is_test=np.array([is_test for _, _, is_test in rows], dtype=bool),
        digests=np.zeros((len(rows), 32), dtype=np.uint8),
        warnings=layout.warnings,
        unreadable=tuple(unreadable),
    )
    return dataset.warned(
        _left_out("having no image suffix", "file", others), _left_out("lying in no class folder", "image", strays)
    )


class _RemoteFiles(OnDemand[RemotePath]):
    """The files of a data set elsewhere with their states."""

    def __init__(self, root: RemotePath, paths: Sequence[str], states: dict[str, FileState | None]) -> None:
        self._root, self._paths, self._states = root, paths, states

    def __len__(self) -> int:
        return len(self._paths)

    def _make(self, row: int) -> RemotePath:
        path = self._paths[row]
        return self._root.with_state(path, self._states[path])


def _read(dataset: ImageDataset, tree: RemoteTree | None, cache_dir: Place, *, show: bool) -> ImageDataset:
    """Return the images that can be read, with their digests; those of a place elsewhere were listed in `tree`."""
    if tree is None:
        folder = os.fsencode(str(dataset.root.resolve()))
        digests, reasons = digest_files(dataset.paths, cache_dir, folder=folder, show=show)
    else:
        files = _RemoteFiles(tree.root, dataset.paths, tree.states)
        digests, reasons = digest_files(files, cache_dir, show=show)
    readable = np.ones(dataset.n_images, dtype=bool)
    readable[list(reasons)] = False
    unreadable = (*dataset.unreadable, *((dataset.paths[row], reason) for row, reason in reasons.items()))
    warning = _left_out("being unreadable", "file", [f"{path} ({reason})" for path, reason in unreadable])
    if not readable.any():
        raise DatasetError(f"No image in {printable(dataset.root)} can be read. {warning}")
    return replace(replace(dataset, digests=digests).subset(readable), unreadable=unreadable).warned(
        *dataset.warnings, warning
    )


def _with_train_classes(dataset: ImageDataset) -> ImageDataset:
    """Return `dataset` with the classes that have training images.

    Raises:
        DatasetError: fewer than two are left, or the test split has a class that the train split lacks.
    """
    n_train = np.bincount(dataset.labels[~dataset.is_test], minlength=len(dataset.class_names))
    n_test = np.bincount(dataset.labels[dataset.is_test], minlength=len(dataset.class_names))
    if test_only := _named(dataset, (n_train == 0) & (n_test > 0)):
        raise DatasetError(
            f"The test split of {printable(dataset.root)} has {_counted('class', test_only)} of which the train split "
            f"has no image; add training images, or remove it from the test split."
        )
    names = _named(dataset, n_train > 0)
    if len(names) < 2:
        raise DatasetError(
            f"{printable(dataset.root)} has training images of only {_counted('class', names)}; a classifier needs "
            f"two or more. {EXPECTED}"
        )
    labels = np.searchsorted(np.flatnonzero(n_train), dataset.labels).astype(np.int64)
    return replace(dataset, class_names=tuple(names), labels=labels).warned(
        _left_out("having no training image", "class", _named(dataset, n_train == 0))
    )


def _split_by_content(dataset: ImageDataset, test_fraction: float) -> ImageDataset:
    """Return `dataset` with a test split taken from its images.

    Raises:
        DatasetError: there are too few images to have both splits.
    """
    split = replace(dataset, is_test=hashed_test_mask(dataset.digests, test_fraction))
    n_images = np.bincount(split.labels, minlength=len(split.class_names))
    n_test = np.bincount(split.labels[split.is_test], minlength=len(split.class_names))
    advice = f"add images, or make a train and a test split yourself. {EXPECTED}"
    if all_test := _named(split, n_images == n_test):
        raise DatasetError(
            f"By its content, every image of {_counted('class', all_test)} in {printable(split.root)} is in the test "
            f"split; {advice}"
        )
    if test_fraction and not n_test.any():
        raise DatasetError(
            f"By its content, not one of {split.n_images} images in {printable(split.root)} is in the test split; "
            f"{advice}"
        )
    return split


def _untested(dataset: ImageDataset) -> str:
    n_test = np.bincount(dataset.labels[dataset.is_test], minlength=len(dataset.class_names))
    names = _named(dataset, n_test == 0)
    return f"The test split has no image of {_counted('class', names)}." if names and n_test.any() else ""


def _repeats(dataset: ImageDataset) -> Iterator[str]:
    """Yield a sentence each for copies within a split, between the splits, and between classes."""
    for pairs, what in (
        (dataset.duplicates(), "Exact copies of other images in the same split"),
        (dataset.leaks(), "Test images that are in the train split too, which flatters every result"),
        (dataset.label_conflicts(), "Identical images in different classes"),
    ):
        if len(pairs):
            first, second = (printable(dataset.paths[row]) for row in pairs[0])
            yield f"{what}: {len(pairs)}, such as {second}, the same as {first}."


def _pairs(keys: np.ndarray) -> np.ndarray:
    """Return `(k, 2)` int64: the first row with a key, and each further one; in the order of the latter."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first_alike = first[inverse]
    later = np.flatnonzero(first_alike != np.arange(len(keys)))
    return np.stack([first_alike[later], later], axis=1).astype(np.int64)


def _no_images(root: Place, strays: Sequence[str], unreadable: Sequence[tuple[str, str]]) -> DatasetError:
    if strays:
        return DatasetError(
            f"{printable(root)} has {_counted('image', strays)} in no class folder; put the images of each class "
            f"into a folder of its own. {EXPECTED}"
        )
    folders = _counted("folder", [f"{path} ({reason})" for path, reason in unreadable])
    but = f"; not readable: {folders}" if unreadable else ""
    return DatasetError(f"There are no images in {printable(root)}{but}. {EXPECTED}")


def _named(dataset: ImageDataset, mask: np.ndarray) -> list[str]:
    return [dataset.class_names[label] for label in np.flatnonzero(mask)]


def _left_out(why: str, noun: str, names: Sequence[str]) -> str:
    return f"Left out, {why}: {_counted(noun, names)}." if names else ""


def _counted(noun: str, names: Sequence[str]) -> str:
    """Return the number of names with the first of them.

    >>> _counted("class", ["cats"]), _counted("file", ["a", "b", "c", "d"])
    ('1 class (cats)', '4 files (a, b, c, …)')
    """
    plural = "" if len(names) == 1 else "es" if noun.endswith("s") else "s"
    examples = ", ".join(printable(name) for name in names[:_MAX_EXAMPLES])
    return f"{len(names)} {noun}{plural} ({examples}{', …' if len(names) > _MAX_EXAMPLES else ''})"
