"""From a folder to a data set: lists, digests and splits its images, and checks them for problems such as copies."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge
from itertools import chain, repeat
from numbers import Real

import numpy as np

from featx.dataset.digests import digest_files
from featx.dataset.folders import EXPECTED, Folders, as_text, by_suffix, folders_below, list_folder, not_images
from featx.dataset.image_dataset import Data, ImageDataset, ImageFolders, stratified_test_mask
from featx.dataset.labelled import UNLABELLED, Labelled, LabelledPath, Labels, names_in, read_labels
from featx.dataset.layout import Layout, find_layout
from featx.dataset.multilabel import label_shortage, labels_per_image
from featx.dataset.names import alike_warning, class_prefixes, near_match
from featx.dataset.path_table import PathTable
from featx.dataset.split_record import ADVICE, SplitRecord
from featx.errors import DatasetError, ImageError
from featx.images import decode_image, format_read, read_file
from featx.storage import OUTPUT_MARK, RemotePath, StoragePath, as_cache_dir, as_data, read_start
from featx.system import DaemonThreads, waiting
from featx.text import printable

log = logging.getLogger("featx")

_MAX_EXAMPLES = 3
_MAX_CLASSES = 10  # that are named with their counts
_MAX_DECODED = 1000  # files that are alike, to tell whether they are images
_THREADS = 32  # for reading the beginnings of files, most of them waiting


@dataclass(frozen=True)
class ListedImages:
    """The images of a folder before any of them is read.

    Attributes:
        dataset: all its classes, and digests of zero.
        folders: the folders that they are in.
        has_test_dir: whether there is a folder for the test split, even if it is empty.
        labelled: what gives the labels, if not the folders.
    """

    dataset: ImageDataset
    folders: Folders
    has_test_dir: bool = False
    labelled: Labelled | None = None


def scan(
    data: Data,
    cache_dir: StoragePath | str,
    *,
    test_fraction: float = 0.2,
    to_train: bool = True,
    to_test: bool = True,
    show: bool = False,
) -> ImageDataset:
    """Return the data set in a folder. Only files that are new or have changed are read.

    It logs the classes with their numbers of images before it reads any file.

    Args:
        data: a folder laid out as `train/CLASS/*` with `test/CLASS/*`, or as `CLASS/*`; a zip or tar file of one; an
            address that fsspec opens, such as `s3://bucket/photos`; or an `ImageFolders`, which names the splits, or a
            table of labels. A data set that was scanned before, or a subset of one, is returned unchanged.
        cache_dir: the cache, which knows the digests of files, and the test images that featx has chosen before.
        test_fraction: the share of images of each class, from 0 to below 1, that becomes the test split if there is
            none. Which they are depends on their contents, or on the names of their groups. What was chosen once stays:
            new images only fill up the share of their class.
        to_train: whether you will train a classifier on it. If not, what only training needs (labels, two classes,
            both splits, images of every class) may be missing.
        to_test: whether you will test it on the test split. If not, as in cross-validation, that may be empty.
        show: whether to show progress.

    Raises:
        DatasetError: no classifier can be trained on these images, or what was chosen before cannot be read; the
            message says why, and what to do.
    """
    if isinstance(data, ImageDataset):
        return _checked(data, to_test=to_test) if to_train else data
    if not isinstance(test_fraction, Real) or not 0 <= test_fraction < 1:
        raise DatasetError(f"The test fraction is a number from 0 to below 1. Received: {test_fraction!r}")
    listed = list_images(data, to_train=to_train, show=show)
    return scan_listed(listed, cache_dir, test_fraction=test_fraction, to_train=to_train, to_test=to_test, show=show)


def _checked(dataset: ImageDataset, *, to_test: bool) -> ImageDataset:
    """Return a data set that was made before.

    Raises:
        DatasetError: nothing can be trained on it: a subset may have lost a class or a split.
    """
    n_train, n_test = dataset.class_counts
    n_used = n_train if to_test else n_train + n_test
    lacks = [f"training images of {printable(name)}" for name in _named(dataset, n_used == 0)]
    lacks += ["two classes"] if len(dataset.class_names) < 2 else []
    lacks += [] if dataset.n_test or not to_test else ["test images"]
    if lacks:
        raise DatasetError(
            f"A classifier needs two classes or more, training images of each, and test images. This data set lacks "
            f"{lacks[0]}. Received: {dataset!r}"
        )
    return dataset


def scan_listed(
    listed: ListedImages,
    cache_dir: StoragePath | str,
    *,
    test_fraction: float = 0.2,
    to_train: bool = True,
    to_test: bool = True,
    show: bool = False,
) -> ImageDataset:
    """Return the data set of images that have been listed; arguments and errors as for `scan`."""
    labelled, cache_dir = listed.labelled, as_cache_dir(cache_dir)
    # Before any new image is read: what the cache knows now, an older featx may have split.
    record = SplitRecord(cache_dir, test_fraction) if test_fraction and not listed.dataset.n_test else None
    dataset = _with_images(_read(listed, cache_dir, show=show), labelled, to_train=to_train)
    if dataset.n_test == 0 and test_fraction:
        record = record or SplitRecord(cache_dir, test_fraction)
        dataset = _split_by_content(dataset, record, labelled, is_needed=to_train and to_test)
        empty = "The test split is empty: featx takes test images from the train split."
        dataset = _warn(dataset, empty if listed.has_test_dir and to_test else "")
    elif labelled and to_test:
        _check_splits(dataset, labelled)
    used = dataset if to_test else replace(dataset, is_test=np.zeros(dataset.n_images, bool))
    if to_train and (shortage := label_shortage(used)):
        raise DatasetError(shortage)
    return _warn(dataset, _untested(dataset) if to_test else "", *_repeats(dataset, to_test=to_test))


def _check_splits(dataset: ImageDataset, labelled: Labelled) -> None:
    """Raise DatasetError if a table puts copies of one image into both splits."""
    for train, test in dataset.leaks()[:1].tolist():
        one, other = (labelled.where[dataset.paths[row]] for row in (train, test))
        n_more = len(dataset.leaks()) - 1
        raise DatasetError(
            f"{one[:1].upper()}{one[1:]} and {other} are copies of one image, the first for training, the second for "
            f"testing{f', and there are {n_more:,} more such pairs' if n_more else ''}. Put both into one split, or "
            f"remove one."
        )


def list_images(data: Data, *, to_train: bool = True, show: bool = False) -> ListedImages:
    """Return the images of a data set by their paths, after logging its classes; `data` and `to_train` as for `scan`.

    Raises:
        DatasetError: there are none, or it is not clear which labels they have.
    """
    named = ImageFolders.of(data)
    root = as_data(named.root)
    with waiting(f"list {printable(root)}", show=show and isinstance(root, RemotePath)):
        folders = folders_below(root)
    for warning in folders.warnings:  # a layout that is refused may come of names that were misread
        log.warning("%s", warning)
    try:
        if named.labels is None:
            listed, classes = _by_folders(root, folders, named, to_train=to_train)
        else:
            listed, classes = _by_labels(root, folders, named, to_train=to_train)
    finally:
        made, own_images = _outputs(root, folders)
        if made:
            log.info("%s", made)
    log.info("%s", classes)
    for warning in listed.dataset.warnings:
        log.warning("%s", warning)
    return replace(listed, dataset=_warn(listed.dataset.warned(*folders.warnings), own_images))


def _by_folders(
    root: StoragePath, folders: Folders, named: ImageFolders, *, to_train: bool
) -> tuple[ListedImages, str]:
    """Return the images in class folders, and the line that says which classes these are."""
    layout = find_layout(root, folders, train=named.train, test=named.test)
    dataset = _listed(root, layout, folders, to_train=to_train)
    dataset = replace(dataset, train_folder=named.train, test_folder=named.test)
    where = _folder(root, layout.train_dir)
    if layout.test_dir is not None:
        where = f"{where} (training) and {_folder(root, layout.test_dir)} (test)"
    has_test_dir = layout.test is not None
    classes = _classes(dataset, f"images in {where}", has_splits=has_test_dir)
    return ListedImages(dataset, folders, has_test_dir), classes


def _by_labels(root: StoragePath, folders: Folders, named: ImageFolders, *, to_train: bool) -> tuple[ListedImages, str]:
    """Return the images that have a label elsewhere than in the names of folders, and the line that names the classes.

    Raises:
        DatasetError: as for `read_labels`; or a folder was named as a split, too.
    """
    if named.train is not None or named.test is not None:
        raise DatasetError(
            "Labels and splits come from a table or from folders: leave out --train-folder and --test-folder, or the "
            "labels."
        )
    top = as_text(root)
    prefix = f"{top.rstrip('/')}/"
    listing = list_folder(top, folders)
    labels: Labels = named.labels
    labelled = read_labels(root, listing, labels, to_train=to_train)
    unreadable = tuple((path.removeprefix(prefix), reason) for path, reason in listing.unreadable)
    dataset = replace(_of_rows(root, labelled.rows), given_labels=named.labels, unreadable=unreadable)
    if labelled.groups:
        names = tuple(labelled.groups[path] for path in dataset.paths)
        dataset = replace(dataset, groups=_digests(names), group_names=names)
    without = f"without a row in {labelled.name}" if not labelled.n_empty else f"without a label in {labelled.name}"
    table = as_text(labels.table) if isinstance(labels.table, StoragePath) else ""
    others = not_images([path.removeprefix(prefix) for path in listing.others if path != table])
    dataset = dataset.warned(*labelled.warnings, others, _left_out(without, "image", labelled.left_out))
    n_groups = len(set(labelled.groups.values()))
    where = f"labels from {labelled.name}" + (f", in {n_groups:,} groups" if n_groups else "")
    classes = _classes(dataset, where, has_splits=labelled.has_splits)
    return ListedImages(dataset, folders, labelled=labelled), classes


def _outputs(root: StoragePath, folders: Folders) -> tuple[str, str]:
    """Return the sentence that says which folders were left out because featx made them, and one about images in them.

    Either is empty if there are none.
    """
    found = folders.outputs()
    names = [os.path.relpath(path, as_text(root)) for path in found]
    made = _left_out(f"because featx made {'it' if len(found) == 1 else 'them'}", "folder", names)
    holders = [name for name, path in zip(names, found, strict=True) if folders.has_own_images(path)]
    if not holders:
        return made, ""
    own = _left_out("because featx made it, although there are images in it", "folder", holders)
    return made, f"{own} To read them, remove {OUTPUT_MARK} from it."


def _warn(dataset: ImageDataset, *sentences: str) -> ImageDataset:
    """Return `dataset` with these warnings, which are logged at once: an error may come before there are more."""
    for sentence in filter(None, sentences):
        log.warning("%s", sentence)
    return dataset.warned(*sentences)


def _listed(root: StoragePath, layout: Layout, folders: Folders, *, to_train: bool) -> ImageDataset:
    """Return the files that `layout` has: all its classes, and digests of zero.

    If there are no class folders at all, and none are needed, all images are of the class `UNLABELLED`.
    """
    top = as_text(root)
    prefix = f"{top.rstrip('/')}/"  # exactly one slash, also for the root folder
    found: dict[str, list[tuple[bool, PathTable]]] = {}
    others: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for is_test, class_folders in ((False, layout.train), (True, layout.test or {})):
        for class_name, folder in class_folders.items():
            listing = list_folder(folder, folders)
            images = PathTable(path.removeprefix(prefix) for path in listing.images)
            found.setdefault(class_name, []).append((is_test, images))
            others += [path.removeprefix(prefix) for path in listing.others]
            unreadable += [(path.removeprefix(prefix), reason) for path, reason in listing.unreadable]
    strays = [path.removeprefix(prefix) for path in layout.strays]
    has_images = any(len(images) for parts in found.values() for _, images in parts)
    if not has_images and strays and not to_train:
        found, has_images, strays = {UNLABELLED: [(False, PathTable(strays))]}, True, []
    if not has_images:
        raise _no_images(root, strays, list_folder(top, folders).others, unreadable)
    all_folders = [*layout.train.items(), *(layout.test or {}).items()]
    empty_classes = {name for name, folder in all_folders if not folders.has_only_outputs(folder)}
    dataset = replace(_of_classes(root, found, empty_classes), warnings=layout.warnings, unreadable=tuple(unreadable))
    return dataset.warned(not_images(others), _left_out("in no class folder", "image", strays))


def _of_classes(
    root: StoragePath, found: Mapping[str, Sequence[tuple[bool, PathTable]]], empty_classes: Collection[str]
) -> ImageDataset:
    """Return the data set of images by class, one class at a time: it may have millions. Its digests are zero.

    Args:
        root: the folder.
        found: for each class, whether these are test images, and their paths.
        empty_classes: classes that count even without images.
    """
    class_names = tuple(
        sorted({*empty_classes, *(name for name, parts in found.items() if any(len(images) for _, images in parts))})
    )
    paths, labels, is_test = [PathTable()], [np.empty(0, np.int64)], [np.empty(0, bool)]
    for label, name in enumerate(class_names):
        of_class, of_test = _merged(found.get(name, ()))
        paths.append(of_class)
        labels.append(np.full(len(of_class), label, np.int64))
        is_test.append(of_test)
    return _undigested(root, class_names, PathTable.joined(paths), np.concatenate(labels), np.concatenate(is_test))


def _merged(parts: Sequence[tuple[bool, PathTable]]) -> tuple[PathTable, np.ndarray]:
    """Return the paths of sorted parts, sorted, and which of them are of test images, `(n,)` bool."""
    of_test = bytearray()

    def noted() -> Iterator[str]:
        for path, is_test in merge(*(zip(images, repeat(is_test)) for is_test, images in parts)):
            of_test.append(is_test)
            yield path

    return PathTable(noted()), np.frombuffer(of_test, bool)


def _undigested(
    root: StoragePath, class_names: tuple[str, ...], paths: PathTable, labels: np.ndarray, is_test: np.ndarray
) -> ImageDataset:
    """Return a data set with digests of zero."""
    return ImageDataset(root, class_names, paths, labels, is_test, np.zeros((len(paths), 32), np.uint8))


def _digests(names: Iterable[str]) -> np.ndarray:
    """Return `(n, 32)` uint8: the SHA-256 of each name."""
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _of_rows(root: StoragePath, rows: Sequence[LabelledPath]) -> ImageDataset:
    """Return the data set of (class or labels, path, whether it is a test image); its digests are zero."""
    rows = sorted(rows)
    names = [names_in(label) for label, _, _ in rows]
    class_names = tuple(sorted(set(chain.from_iterable(names))))
    index = {class_name: label for label, class_name in enumerate(class_names)}
    if isinstance(rows[0][0], tuple):
        labels = np.zeros((len(rows), len(class_names)), bool)
        for row, of_image in zip(labels, names, strict=True):
            row[[index[name] for name in of_image]] = True
    else:
        labels = np.array([index[name] for (name,) in names], dtype=np.int64)
    is_test = np.array([of_test for _, _, of_test in rows], bool)
    return _undigested(root, class_names, PathTable(path for _, path, _ in rows), labels, is_test)


def _classes(dataset: ImageDataset, where: str, *, has_splits: bool) -> str:
    """Return where the classes are and how many images each has.

    Many classes are not all named; then the smallest and the largest are.
    """
    if dataset.class_names == (UNLABELLED,):
        return f"{dataset.n_images:,} images without labels."
    n_classes = len(dataset.class_names)
    n_train, n_test = dataset.class_counts
    n_all = n_train + n_test

    def counted(label: int) -> str:
        counts = f"{n_train[label]:,} + {n_test[label]:,}" if has_splits else f"{n_train[label]:,}"
        return f"{printable(dataset.class_names[label])} ({counts})"  # a class may be called 7

    named = [counted(label) for label in range(min(n_classes, _MAX_CLASSES))]
    if n_classes > _MAX_CLASSES:
        named[-1] = f"…; the smallest is {counted(int(n_all.argmin()))}, the largest {counted(int(n_all.argmax()))}"
    splits = " (training + test)" if has_splits and where.startswith("labels") else ""
    if dataset.is_multilabel:
        where = f"{labels_per_image(dataset)}, {where.removeprefix('labels ')}"
    return f"{_number(_noun(dataset), n_classes)}, {where}{splits}: {', '.join(named)}."


def _folder(root: StoragePath, path: str) -> str:
    below = os.path.relpath(path, as_text(root))
    return printable(root) if below == "." else f"{printable(below)}/"


def _read(listed: ListedImages, cache_dir: StoragePath, *, show: bool) -> ImageDataset:
    """Return the images that can be read, with their digests."""
    dataset = listed.dataset
    files, folder = listed.folders.files(dataset.paths), os.fsencode(str(dataset.root.resolve()))
    digests, reasons = digest_files(files, cache_dir, folder=folder, show=show)
    readable = np.ones(dataset.n_images, dtype=bool)
    readable[list(reasons)] = False
    unreadable = (*dataset.unreadable, *((dataset.paths[row], reason) for row, reason in reasons.items()))
    warning = _left_out("unreadable", "file", [f"{path} ({reason})" for path, reason in unreadable])
    if not readable.any():
        raise DatasetError(f"No image in {printable(dataset.root)} can be read. {warning}")
    kept = replace(replace(dataset, digests=digests).subset(readable), unreadable=unreadable)
    return _warn(kept.warned(*dataset.warnings), warning)


def _with_images(dataset: ImageDataset, labelled: Labelled | None, *, to_train: bool) -> ImageDataset:
    """Return `dataset` with the classes that have training images; all that have images if not `to_train`.

    Raises:
        DatasetError: two classes cannot be told apart by their names; or there are fewer than two to train on, or the
            test split has a class that the train split lacks.
    """
    n_train, n_test = dataset.class_counts
    if not to_train:
        return _with_classes(dataset, n_train + n_test > 0, "image")
    if test_only := _named(dataset, (n_train == 0) & (n_test > 0)):
        if labelled:
            raise DatasetError(
                f"In {labelled.name}, the test split has {_counted(_noun(dataset), test_only)} without training images."
                f"{labelled.first_of(test_only[0])}"
            )
        raise DatasetError(
            f"The test split of {printable(dataset.root)} has {_counted('class', test_only)} without training images; "
            f"{near_match(test_only, _named(dataset, n_train > 0))}add training images, or name the train "
            f"split alone with --train-folder FOLDER: featx then takes a test split from it."
        )
    names = _named(dataset, n_train > 0)
    if len(names) < 2 and labelled:
        raise DatasetError(
            f"In {labelled.name}, only {_counted(_noun(dataset), names)} has training images; a classifier needs two "
            f"or more."
        )
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
    if dataset.is_multilabel:
        labels = dataset.labels[:, has_images]
    else:
        labels = np.searchsorted(np.flatnonzero(has_images), dataset.labels).astype(np.int64)
    left_out = _left_out(f"without {what}s", "class", _named(dataset, ~has_images))
    return _warn(replace(dataset, class_names=tuple(names), labels=labels), left_out, alike_warning(names))


def _split_by_content(
    dataset: ImageDataset, record: SplitRecord, labelled: Labelled | None, *, is_needed: bool
) -> ImageDataset:
    """Return `dataset` with a test split taken from its images, which is recorded if it is needed.

    Raises:
        DatasetError: it is needed, and there are too few images for both splits.
    """
    sides, is_new = record.sides(dataset)
    problem = ""
    with ExitStack() as stack:
        if is_needed and is_new.any():
            stack.enter_context(record.held())
            sides, is_new = record.sides(dataset)  # another process may have recorded some meanwhile
        is_test = stratified_test_mask(dataset.units, dataset.labels, sides, fraction=record.fraction)
        split = replace(dataset, is_test=is_test)
        if not is_needed:
            return split
        _check_taken(split, record.fraction, labelled)
        if is_new.any():
            problem = record.add(dataset.units[is_new], is_test[is_new])
    return _warn(split, *_about_split(split, sides, record, problem))


def _check_taken(split: ImageDataset, test_fraction: float, labelled: Labelled | None) -> None:
    """Raise DatasetError if no image, or every image of a class, is in the test split that featx has chosen."""
    n_train, _ = split.class_counts
    taken = ""
    if all_test := _named(split, n_train == 0):
        taken = f"every image of {_counted(_noun(split), all_test)}"
    elif not split.n_test:
        taken = f"none of {split.n_images} images"
    if taken:
        first = labelled.first_of(all_test[0]) if labelled and all_test else ""
        how = "with a column split in the table" if labelled else "yourself"
        raise DatasetError(
            f"featx takes about {test_fraction:.0%} of the images of each class for testing; in "
            f"{printable(split.root)} it would take {taken}: add images, or make a train and a test split {how}."
            f"{first or ('' if labelled else f' {EXPECTED}')}"
        )


def _about_split(split: ImageDataset, sides: np.ndarray, record: SplitRecord, problem: str) -> Iterator[str]:
    """Yield what the user should be warned of about a test split that featx has chosen; log how it was chosen."""
    path, is_new = printable(record.path), sides < 0
    if record.is_lost and is_new.any():
        yield (
            f"{path}, the record of the test split, is gone, so featx has chosen test images anew: they may be others "
            f"than in earlier runs. {ADVICE}"
        )
    elif is_new.all():
        log.info(
            "Chose %s of %s images for testing, the same share of every %s. %s keeps them in the test split.",
            *(f"{split.n_test:,}", f"{split.n_images:,}", _noun(split), path),
        )
    elif is_new.any():
        log.info(
            "New images: %s, of which %s are test images. The others stay in their split.",
            *(f"{is_new.sum():,}", f"{split.is_test[is_new].sum():,}"),
        )
    if record.n_moved:
        yield (
            f"{path} has {record.n_moved:,} images on another side than an older featx had on this machine: earlier "
            f"runs do not compare with new ones."
        )
    if problem:
        yield (
            f"The test split cannot be recorded in {path} ({problem}): it stays the same only as long as the images do."
        )


def _untested(dataset: ImageDataset) -> str:
    _, n_test = dataset.class_counts
    names = _named(dataset, n_test == 0)
    return f"The test split has no image of {_counted(_noun(dataset), names)}." if names and n_test.any() else ""


def _repeats(dataset: ImageDataset, *, to_test: bool) -> Iterator[str]:
    """Yield a sentence each for copies within a split, between the splits if they are used, and between classes."""
    leaks = dataset.leaks() if to_test else np.empty((0, 2), np.int64)
    kinds = (
        (dataset.duplicates(), "Exact copies of other images in the same split"),
        (leaks, "Test images that are also in the train split, so results look better than they are"),
        (dataset.label_conflicts(), "Identical images in different classes"),
    )
    rows = np.unique(np.concatenate([pairs[:, 0] for pairs, _ in kinds])).tolist()
    # Decoding takes a while: of very many, only the beginnings are looked at.
    look = partial(_is_image, dataset, whole=len(rows) <= _MAX_DECODED)
    with DaemonThreads(_THREADS, "featx-look") as pool:
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
            return format_read(read_start(path, 64)) is not None
        decode_image(read_file(path), (8, 8))
    except (ImageError, OSError):
        return False
    return True


def _no_images(
    root: StoragePath, strays: Sequence[str], others: Sequence[str], unreadable: Sequence[tuple[str, str]]
) -> DatasetError:
    if strays:
        return DatasetError(
            f"{printable(root)} has {_counted('image', strays)} in no class folder; put the images of each class "
            f"into their own folder, or name a table of labels with --labels.{_prefixes(strays)} {EXPECTED}"
        )
    folders = _counted("folder", [f"{path} ({reason})" for path, reason in unreadable])
    but = f" Not readable: {folders}." if unreadable else ""
    found = f" Found: {by_suffix(others)}." if others else ""
    return DatasetError(f"{printable(root)} has no images that featx can read.{found}{but} {EXPECTED}")


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


def _noun(dataset: ImageDataset) -> str:
    return "label" if dataset.is_multilabel else "class"


def _named(dataset: ImageDataset, mask: np.ndarray) -> list[str]:
    return [dataset.class_names[label] for label in np.flatnonzero(mask)]


def _left_out(why: str, noun: str, names: Sequence[str]) -> str:
    return f"Left out, {why}: {_counted(noun, names)}." if names else ""


def _counted(noun: str, names: Sequence[str]) -> str:
    """Return the number of names with the first of them.

    >>> _counted("class", ["cats"]), _counted("file", ["a", "b", "c", "d"])
    ('1 class (cats)', '4 files (a, b, c, …)')
    """
    examples = ", ".join(printable(name) for name in names[:_MAX_EXAMPLES])
    return f"{_number(noun, len(names))} ({examples}{', …' if len(names) > _MAX_EXAMPLES else ''})"


def _number(noun: str, n: int) -> str:
    """Return a number with its noun.

    >>> _number("class", 1), _number("class", 2), _number("label", 2)
    ('1 class', '2 classes', '2 labels')
    """
    plural = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural}"
