"""A data set: a folder's images with their classes, digests and splits, checked for what would spoil a comparison."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from numbers import Real
from typing import Self, TypeAlias

import numpy as np

from featx.dataset.digests import digest_files
from featx.dataset.folders import Folders, by_suffix, list_folder
from featx.dataset.layout import EXPECTED, Layout, find_layout, folders_below
from featx.dataset.names import alike_warning, class_prefixes, near_match
from featx.dataset.splits import hashed_test_mask, identical_groups
from featx.errors import DatasetError, ImageError, printable
from featx.images import decode_image, looks_like_image, read_file, read_start
from featx.storage import FileState, RemotePath, RemoteTree, StoragePath, as_data, as_storage_path
from featx.system import OnDemand, as_mask, shown, waiting

log = logging.getLogger("featx")

_MAX_EXAMPLES = 3
_MAX_CLASSES = 10  # that are named with their counts
_MAX_DECODED = 1000  # files that are alike, to tell whether they are images
_THREADS = 32  # for reading the beginnings of files, most of them waiting


@dataclass(frozen=True)
class ImageFolders:
    """A data set's folder, and the folders in it that are its splits, for where their names do not say it.

    Attributes:
        root: the folder of the data set, an archive of it, or its address.
        train: the folder whose sub-folders are the classes of the train split, relative to `root`; `"."` is `root`
            itself. If None, names and contents tell.
        test: the same of the test split; if it is None and `train` is not, featx takes a test split by content.
    """

    root: StoragePath | str
    train: str | None = None
    test: str | None = None

    @classmethod
    def of(cls, data: "Data") -> Self:
        """Return what `data` says; just a path or an address says no more than the folder."""
        return data if isinstance(data, cls) else cls(data)  # type: ignore[arg-type]  # it is one or the other


#: What a data set is named by: its folder, or also the folders in it that are its splits.
Data: TypeAlias = StoragePath | str | ImageFolders


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
        train_folder: the folder of the train split that the user has named, see `ImageFolders.train`.
        test_folder: the same of the test split.
    """

    root: StoragePath
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    is_test: np.ndarray
    digests: np.ndarray
    warnings: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    train_folder: str | None = None
    test_folder: str | None = None

    def __repr__(self) -> str:
        return (
            f"<ImageDataset {shown(str(self.root))}: {len(self.class_names)} classes, {self.n_train} training and "
            f"{self.n_test} test images>"
        )

    def warned(self, *sentences: str) -> "ImageDataset":
        """Return the same with these warnings added; an empty one is none."""
        return replace(self, warnings=(*self.warnings, *filter(None, sentences)))

    @property
    def folders(self) -> ImageFolders:
        """What `scan` was given."""
        return ImageFolders(self.root, self.train_folder, self.test_folder)

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
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            is_test=self.is_test[rows],
            digests=self.digests[rows],
            warnings=(),
            unreadable=(),
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


def scan(
    data: Data, cache_dir: StoragePath | str, *, test_fraction: float = 0.2, to_train: bool = True, show: bool = False
) -> ImageDataset:
    """Return the data set in a folder. Only files that are new or have changed are read.

    The classes with their numbers of images are logged before any file is read.

    Args:
        data: a folder laid out as `train/CLASS/*` with `test/CLASS/*`, or as `CLASS/*`; or an address that fsspec
            opens, such as `s3://bucket/photos`, or a zip or tar file; or one of them with its splits.
        cache_dir: the folder of the stat cache.
        test_fraction: the share of images, from 0 to below 1, that becomes the test split where there is none.
            An image's side is decided by its content alone.
        to_train: whether a classifier is to be trained on it. If not, what only training needs (two classes, both
            splits, images of every class) may be missing.
        show: whether to show progress.

    Raises:
        DatasetError: there is nothing here to train a classifier on; the message says why, and what to do.
    """
    if not isinstance(test_fraction, Real) or not 0 <= test_fraction < 1:
        raise DatasetError(f"The test fraction is a number from 0 to below 1. Received: {test_fraction!r}")
    listed = list_images(data, show=show)
    return scan_listed(listed, cache_dir, test_fraction=test_fraction, to_train=to_train, show=show)


def scan_listed(
    listed: "ListedImages",
    cache_dir: StoragePath | str,
    *,
    test_fraction: float = 0.2,
    to_train: bool = True,
    show: bool = False,
) -> ImageDataset:
    """Return the data set of images that have been listed; arguments and errors as for `scan`."""
    dataset = _read(listed.dataset, listed.tree, as_storage_path(cache_dir), show=show)
    dataset = _with_images(dataset, to_train=to_train)
    if dataset.n_test == 0:
        dataset = _split_by_content(dataset, test_fraction, to_train=to_train)
        if listed.has_test_dir:
            dataset = _warn(
                dataset, "The test split has no image: featx takes a test split from the train split, by content."
            )
    return _warn(dataset, _untested(dataset), *_repeats(dataset))


@dataclass(frozen=True)
class ListedImages:
    """The images of a folder before any of them is read.

    Attributes:
        dataset: all its classes, and digests of zero.
        tree: the listing that it is from, if it is elsewhere.
        has_test_dir: whether there is a folder for the test split, be it empty.
    """

    dataset: ImageDataset
    tree: RemoteTree | None
    has_test_dir: bool


def list_images(data: Data, *, show: bool = False) -> ListedImages:
    """Return the images of a data set by their paths, after logging its classes; `data` as for `scan`.

    Raises:
        DatasetError: there are none, or it is not clear which folders are the classes.
    """
    named = ImageFolders.of(data)
    root = as_data(named.root)
    with waiting(f"list {printable(root)}", show=show and isinstance(root, RemotePath)):
        folders, tree = folders_below(root)
    doubts = tree.root.warnings if tree else ()
    for warning in doubts:  # a layout that is refused may come of names that were misread
        log.warning("%s", warning)
    layout = find_layout(root, folders, train=named.train, test=named.test)
    dataset = replace(_listed(root, layout, folders), train_folder=named.train, test_folder=named.test)
    log.info("%s", _classes(dataset, layout))
    for warning in dataset.warnings:
        log.warning("%s", warning)
    return ListedImages(dataset.warned(*doubts), tree, layout.test is not None)


def _warn(dataset: ImageDataset, *sentences: str) -> ImageDataset:
    """Return `dataset` with these warnings, which are logged at once: an error may come before there are more."""
    for sentence in filter(None, sentences):
        log.warning("%s", sentence)
    return dataset.warned(*sentences)


def _listed(root: StoragePath, layout: Layout, folders: Folders) -> ImageDataset:
    """Return the files that `layout` has: all its classes, and digests of zero."""
    top = str(root.resolve())
    prefix = f"{top.rstrip('/')}/"  # exactly one slash, also for the root folder
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
        raise _no_images(root, strays, list_folder(top, folders).others, unreadable)
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
    return dataset.warned(_other_files(others), _left_out("lying in no class folder", "image", strays))


def _classes(dataset: ImageDataset, layout: Layout) -> str:
    """Return where the classes are and how many images each has.

    Many classes are not all named; then the smallest and the largest are.
    """
    n_classes = len(dataset.class_names)
    n_test = np.bincount(dataset.labels[dataset.is_test], minlength=n_classes)
    n_all = np.bincount(dataset.labels, minlength=n_classes)
    has_test = layout.test is not None

    def counted(label: int) -> str:
        counts = f"{n_all[label] - n_test[label]:,} + {n_test[label]:,}" if has_test else f"{n_all[label]:,}"
        return f"{printable(dataset.class_names[label])} ({counts})"  # a class may be called 7

    named = [counted(label) for label in range(min(n_classes, _MAX_CLASSES))]
    if n_classes > _MAX_CLASSES:
        named[-1] = f"…; the smallest is {counted(int(n_all.argmin()))}, the largest {counted(int(n_all.argmax()))}"
    where = _folder(dataset.root, layout.train_dir)
    if layout.test_dir is not None:
        where = f"{where} (training) and {_folder(dataset.root, layout.test_dir)} (test)"
    return f"{n_classes:,} class{'' if n_classes == 1 else 'es'}, images in {where}: {', '.join(named)}."


def _folder(root: StoragePath, path: str) -> str:
    below = os.path.relpath(path, str(root.resolve()))
    return printable(root) if below == "." else f"{printable(below)}/"


class _RemoteFiles(OnDemand[RemotePath]):
    """The files of a data set elsewhere with their states."""

    def __init__(self, root: RemotePath, paths: Sequence[str], states: dict[str, FileState | None]) -> None:
        self._root, self._paths, self._states = root, paths, states

    def __len__(self) -> int:
        return len(self._paths)

    def _make(self, row: int) -> RemotePath:
        path = self._paths[row]
        return self._root.with_state(path, self._states[path])


def _read(dataset: ImageDataset, tree: RemoteTree | None, cache_dir: StoragePath, *, show: bool) -> ImageDataset:
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
    kept = replace(replace(dataset, digests=digests).subset(readable), unreadable=unreadable)
    return _warn(kept.warned(*dataset.warnings), warning)


def _with_images(dataset: ImageDataset, *, to_train: bool) -> ImageDataset:
    """Return `dataset` with the classes that have training images; all that have images if nothing is to be trained.

    Raises:
        DatasetError: two classes cannot be told apart by their names; or there are fewer than two to train on, or the
            test split has a class that the train split lacks.
    """
    if not to_train:
        return _with_classes(dataset, np.bincount(dataset.labels, minlength=len(dataset.class_names)) > 0, "image")
    n_train = np.bincount(dataset.labels[~dataset.is_test], minlength=len(dataset.class_names))
    n_test = np.bincount(dataset.labels[dataset.is_test], minlength=len(dataset.class_names))
    if test_only := _named(dataset, (n_train == 0) & (n_test > 0)):
        raise DatasetError(
            f"The test split of {printable(dataset.root)} has {_counted('class', test_only)} without training images; "
            f"{near_match(test_only, _named(dataset, n_train > 0))}add training images, or name the train "
            f"split alone with --train-folder FOLDER: featx then takes a test split from it."
        )
    names = _named(dataset, n_train > 0)
    if len(names) < 2:
        raise DatasetError(
            f"{printable(dataset.root)} has training images of only {_counted('class', names)}; a classifier needs "
            f"two or more.{_prefixes(dataset.paths) if len(names) == 1 else ''} {EXPECTED} "
            f"--train-folder FOLDER names the folder whose sub-folders are the classes."
        )
    return _with_classes(dataset, n_train > 0, "training image")


def _with_classes(dataset: ImageDataset, has_images: np.ndarray, what: str) -> ImageDataset:
    """Return `dataset` with the classes that have images, all rows being of these.

    Raises:
        DatasetError: two classes cannot be told apart by their names.
    """
    names = _named(dataset, has_images)
    labels = np.searchsorted(np.flatnonzero(has_images), dataset.labels).astype(np.int64)
    left_out = _left_out(f"having no {what}", "class", _named(dataset, ~has_images))
    return _warn(replace(dataset, class_names=tuple(names), labels=labels), left_out, alike_warning(names))


def _split_by_content(dataset: ImageDataset, test_fraction: float, *, to_train: bool) -> ImageDataset:
    """Return `dataset` with a test split taken from its images.

    Raises:
        DatasetError: a classifier is to be trained, and there are too few images to have both splits.
    """
    split = replace(dataset, is_test=hashed_test_mask(dataset.digests, test_fraction))
    if not to_train:
        return split
    n_images = np.bincount(split.labels, minlength=len(split.class_names))
    n_test = np.bincount(split.labels[split.is_test], minlength=len(split.class_names))
    advice = f"add images, or make a train and a test split yourself. {EXPECTED}"
    if all_test := _named(split, n_images == n_test):
        raise DatasetError(
            f"featx takes about {test_fraction:.0%} of the images for testing, chosen by their content; in "
            f"{printable(split.root)} it would take every image of {_counted('class', all_test)}: {advice}"
        )
    if test_fraction and not n_test.any():
        raise DatasetError(
            f"featx takes about {test_fraction:.0%} of the images for testing, chosen by their content; in "
            f"{printable(split.root)} it would take not one of {split.n_images} images: {advice}"
        )
    return split


def _untested(dataset: ImageDataset) -> str:
    n_test = np.bincount(dataset.labels[dataset.is_test], minlength=len(dataset.class_names))
    names = _named(dataset, n_test == 0)
    return f"The test split has no image of {_counted('class', names)}." if names and n_test.any() else ""


def _repeats(dataset: ImageDataset) -> Iterator[str]:
    """Yield a sentence each for copies within a split, between the splits, and between classes."""
    kinds = (
        (dataset.duplicates(), "Exact copies of other images in the same split"),
        (dataset.leaks(), "Test images that are in the train split too, which flatters every result"),
        (dataset.label_conflicts(), "Identical images in different classes"),
    )
    rows = np.unique(np.concatenate([pairs[:, 0] for pairs, _ in kinds])).tolist()
    # Decoding takes a while: of very many, only the beginnings are looked at.
    look = partial(_is_image, dataset, whole=len(rows) <= _MAX_DECODED)
    with ThreadPoolExecutor(_THREADS) as pool:
        is_image = dict(zip(rows, pool.map(look, rows), strict=True))
    for all_pairs, what in kinds:
        # Empty files and error pages are alike, and no copies of an image.
        pairs = [pair for pair in all_pairs.tolist() if is_image[pair[0]]]
        if pairs:
            first, second = (printable(dataset.paths[row]) for row in pairs[0])
            yield f"{what}: {len(pairs)}, such as {second}, the same as {first}."


def _is_image(dataset: ImageDataset, row: int, *, whole: bool) -> bool:
    """Return whether a file is an image: by all that is in it, or by how it begins."""
    path = dataset.root / dataset.paths[row]
    try:
        if not whole:
            return looks_like_image(read_start(path))
        decode_image(read_file(path), (8, 8))
    except ImageError:
        return False
    return True


def _pairs(keys: np.ndarray) -> np.ndarray:
    """Return `(k, 2)` int64: the first row with a key, and each further one; in the order of the latter."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first_alike = first[inverse]
    later = np.flatnonzero(first_alike != np.arange(len(keys)))
    return np.stack([first_alike[later], later], axis=1).astype(np.int64)


def _no_images(
    root: StoragePath, strays: Sequence[str], others: Sequence[str], unreadable: Sequence[tuple[str, str]]
) -> DatasetError:
    if strays:
        return DatasetError(
            f"{printable(root)} has {_counted('image', strays)} in no class folder; put the images of each class "
            f"into a folder of its own.{_prefixes(strays)} {EXPECTED}"
        )
    folders = _counted("folder", [f"{path} ({reason})" for path, reason in unreadable])
    but = f" Not readable: {folders}." if unreadable else ""
    found = f" Found: {by_suffix(others)}." if others else ""
    return DatasetError(f"{printable(root)} has no images that featx reads.{found}{but} {EXPECTED}")


def _prefixes(paths: Sequence[str]) -> str:
    """Return the sentence that says with which words file names begin, if these may be classes."""
    names: dict[str, list[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        names.setdefault(folder, []).append(name)
    for folder, in_folder in names.items():
        if prefixes := class_prefixes(in_folder):
            where = f" in {printable(folder)}/" if folder else ""
            begin = ", ".join(map(printable, prefixes[:_MAX_CLASSES]))
            return f" File names{where} begin with {begin}, which may be the classes."
    return ""


def _other_files(paths: Sequence[str]) -> str:
    """Return the warning of files in class folders that do not have an image's suffix."""
    return f"Left out, as featx reads no images with these suffixes: {by_suffix(paths)}." if paths else ""


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
