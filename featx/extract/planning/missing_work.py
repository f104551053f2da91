"""What a store lacks of a data set: counted as `featx.extract.pipeline` and `featx.extract.extract` will do it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from featx.dataset import SkippedImages, views_of
from featx.extract.planning.planned import Work
from featx.extract.planning.survey import Survey
from featx.images import Views
from featx.recipe import Recipe
from featx.store import FeatureStore


def missing_images(found: Survey, recipe: Recipe, cache_dir: Path) -> Work:
    """Return how many of the images that were found have features, and how many are to be computed.

    Raises:
        StoreError: the store cannot be read.
    """
    store = FeatureStore(cache_dir, recipe)
    is_cached = store.contains(found.dataset.digests)
    contents = np.unique(found.dataset.digests[~is_cached], axis=0)
    memory = SkippedImages(store.dir / "skipped.csv")
    n_readable = sum(memory.reason(digest.tobytes()) is None for digest in contents)
    return Work(n_cached=int(is_cached.sum()), n_missing=n_readable + found.n_unread)


def missing_views(found: Survey, recipe: Recipe, views: Views, cache_dir: Path) -> Work:
    """Return the same of the augmented views of these images; `recipe` is that of the images.

    Raises:
        StoreError: the store cannot be read.
    """
    dataset = found.dataset
    memory = SkippedImages(FeatureStore(cache_dir, recipe).dir / "skipped.csv")
    is_readable = [memory.reason(digest.tobytes()) is None for digest in dataset.digests]
    viewed = dataset.subset(np.array(is_readable, dtype=bool) & (views.of_test | ~dataset.is_test))
    images = views_of(viewed, views.n)
    store = FeatureStore(cache_dir, replace(recipe, augmentation=views.augmentation))
    is_cached = store.contains(images.digests, images.views)
    names = np.hstack([images.digests, np.asarray(images.views)[:, np.newaxis].astype("<u2").view(np.uint8)])
    n_missing = len(np.unique(names[~is_cached], axis=0))
    n_unread = found.n_unread if views.of_test else found.n_unread_train
    return Work(n_cached=int(is_cached.sum()), n_missing=n_missing + n_unread * views.n)
