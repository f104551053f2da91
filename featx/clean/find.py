"""Finds what is wrong with the images of a data set: files, copies and labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from featx.backbones import Weights
from featx.clean.copies import exact_copies, near_copies
from featx.clean.files import FileLook, look_at_files, unreadable_problem, wrong_suffixes
from featx.clean.labels import doubtful_labels
from featx.clean.problems import KINDS, KINDS_OF_FEATURES, LOOK, REMOVE, Problem, Problems
from featx.clean.readable import ReadableImages
from featx.dataset import UNLABELLED, Data, ImageDataset, scan
from featx.errors import DamagedSegmentError, ImageError
from featx.extract import (
    DEFAULT_CACHE_DIR,
    ExtractionOptions,
    ExtractionSettings,
    check_options,
    extract_dataset,
    resolve_recipe,
    split_options,
)
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir
from featx.store import FeatureStore, Rows
from featx.system import HALF_OF_FREE, check_name, names
from featx.text import printable
from featx.train import find_copies, read_rows


def find_problems(
    data: Data,
    *,
    kinds: Sequence[str] | str = tuple(KINDS),
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    **options: Unpack[ExtractionOptions],
) -> Problems:
    """Return what is wrong, or may be wrong, with the images of a data set.

    featx decodes every file. If a kind needs features, featx first extracts those that are missing.

    >>> problems = find_problems("data", image_size=150)  # doctest: +SKIP
    >>> problems.counts["copy"], [problem.path for problem in problems.to_remove]  # doctest: +SKIP
    (1, ['train/dogs/dog.3082.jpg'])

    Args:
        data: as for `extract_features`. Without labels, featx checks no label. featx makes no splits, but uses those
            of the data set.
        kinds: the kinds of problems to look for: names in `featx.clean.problems.KINDS`, or one name.
        cache_dir: where the feature stores are.
        workers: threads that read and decode; as many as cores if None.
        strict: raise on the first file that cannot be read, instead of listing it.
        show: show progress on stderr.
        options: of the recipe and the engine, see `featx.extract.options.ExtractionOptions`.

    Raises:
        ImageError: `strict`, and a file cannot be read.
        FeatxError: there is no such kind, or the data set, the weights or the store cannot be used.
    """
    kinds = _checked_kinds(kinds)
    cache_dir = as_cache_dir(cache_dir)
    recipe_options, engine_options = split_options(options)
    settings = ExtractionSettings(engine_options=engine_options, workers=workers, strict=strict, show=show)
    check_options(cache_dir, **recipe_options)
    dataset = scan(data, cache_dir, test_fraction=0.0, to_train=False, to_test=False, show=show)
    needs_features = bool(set(kinds) & set(KINDS_OF_FEATURES))
    recipe = resolve_recipe(cache_dir, dataset, **recipe_options) if needs_features else None
    looks = look_at_files([dataset.root / path for path in dataset.paths], settings.workers, show=show)
    unreadable, images = _readable(dataset, looks, strict=strict)
    copies, stands_for = exact_copies(images)
    found, not_checked = [*unreadable, *copies], list[str]()
    if recipe and images.dataset.n_images:
        rows, X = _extracted(images.dataset, *recipe, cache_dir, settings)
        of_features, not_checked = _by_features(images, stands_for, rows, X, kinds, show=show)
        found += of_features
    found += [*images.odd, *wrong_suffixes(images.dataset.paths, images.splits, images.labels, images.looks)]
    chosen = _sparing_classes([problem for kind in kinds for problem in found if problem.kind == kind], dataset)
    removed = {problem.path for problem in chosen if problem.suggestion == REMOVE}
    decided = [one for one in chosen if one.suggestion == REMOVE or one.path not in removed]
    return Problems(dataset, tuple(decided), kinds, tuple(not_checked))


def _extracted(
    dataset: ImageDataset, recipe: Recipe, weights: Weights, cache_dir: StoragePath, settings: ExtractionSettings
) -> tuple[npt.NDArray[np.int64], Rows]:
    """Return the rows of the images that have features, `(k,)`, and these, `(k, …)`, after extracting missing ones."""
    extract_dataset(dataset, recipe, weights, cache_dir, settings)
    try:
        return _stored(dataset, FeatureStore(cache_dir, recipe))
    except DamagedSegmentError:  # it has been quarantined, with a warning
        extract_dataset(dataset, recipe, weights, cache_dir, settings)
        return _stored(dataset, FeatureStore(cache_dir, recipe))


def _stored(dataset: ImageDataset, store: FeatureStore) -> tuple[npt.NDArray[np.int64], Rows]:
    rows = np.flatnonzero(store.contains(dataset.digests))
    return rows, read_rows(store, dataset.digests[rows], HALF_OF_FREE)


def _by_features(
    images: ReadableImages,
    stands_for: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    X: Rows,
    kinds: Sequence[str],
    *,
    show: bool,
) -> tuple[list[Problem], list[str]]:
    """Return the near-copies and the doubtful labels, and a sentence for each kind that was not, or badly, looked for.

    Args:
        images: n images.
        stands_for: `(n,)`, see `exact_copies`.
        rows: `(k,)`, those that have features.
        X: `(k, …)`, these.
        kinds: what to look for.
        show: whether to show progress on stderr.
    """
    found: list[Problem] = []
    not_checked: list[str] = []
    near = np.empty((0, 2), np.int64)
    if "near-copy" in kinds:
        has_features = np.isin(np.arange(images.dataset.n_images), rows)
        copies = find_copies(images.dataset.subset(has_features), X, show=show)
        if copies is None:
            not_checked.append("featx did not look for near-copies: there are too many images, or most are too small.")
        else:
            near = copies.rows
            found += near_copies(images, rows[near], copies.correlation, stands_for)
    if "label" in kinds:
        doubtful, sentence = doubtful_labels(images, rows, X, near, show=show)
        found += doubtful
        not_checked += [sentence] if sentence else []
    return found, not_checked


def _checked_kinds(given: Sequence[str] | str) -> tuple[str, ...]:
    """Return the kinds that are given, each once, in the order of `KINDS`."""
    chosen = names("kinds", given)
    for kind in chosen:
        check_name(kind, KINDS, f"A kind of problem must be one of {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in chosen)


def _readable(
    dataset: ImageDataset, looks: Sequence[FileLook], *, strict: bool
) -> tuple[list[Problem], ReadableImages]:
    """Return the files that cannot be read, and the images that can.

    Raises:
        ImageError: `strict`, and there is one that cannot.
    """
    has_labels = dataset.class_names != (UNLABELLED,)
    labels = dataset.label_texts if has_labels else [""] * dataset.n_images
    splits = [("test" if is_test else "train") if dataset.n_test else "" for is_test in dataset.is_test]
    of_files = list(zip(dataset.paths, splits, labels, looks, strict=True))
    unreadable = [unreadable_problem(*one) for one in of_files if one[-1].reason]
    unreadable += [unreadable_problem(path, "", "", FileLook(reason=reason)) for path, reason in dataset.unreadable]
    if strict and unreadable:
        raise ImageError(f"{printable(unreadable[0].path)} cannot be read: {unreadable[0].reason}.")
    kept = [one for one in of_files if not one[-1].reason]
    is_readable = np.array([not look.reason for look in looks], bool)
    images = ReadableImages(
        dataset.subset(is_readable), [one[1] for one in kept], [one[2] for one in kept], [one[3] for one in kept]
    )
    return unreadable, images


def _sparing_classes(found: Sequence[Problem], dataset: ImageDataset) -> list[Problem]:
    """Return the problems; nothing is to be removed from a class of a split that would lose all its files."""
    classes, places = dataset.strata.tolist(), dataset.is_test.tolist()
    cell_of = dict(zip(dataset.paths, zip(classes, places, strict=True), strict=True))
    n_files = Counter(cell_of.values())
    n_removed = Counter(cell_of[one.path] for one in found if one.suggestion == REMOVE)
    lost = {cell for cell, n in n_removed.items() if n == n_files[cell]}
    why = "but its class would lose all its files in this split"
    return [
        replace(one, suggestion=LOOK, reason=f"{one.reason}, {why}")
        if one.suggestion == REMOVE and cell_of[one.path] in lost
        else one
        for one in found
    ]
