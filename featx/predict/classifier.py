"""Classifies images: a head on a backbone, and what it shares with a whole network that is used as it is.

Features that were computed before come from the store.
"""

import logging
import math
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Self, Unpack

import numpy as np

from featx.backbones import Weights
from featx.dataset import ManyImages
from featx.engines import EngineChoices, EngineOptions, needs_weights, unpack_network
from featx.errors import FeatxError, WeightsError
from featx.extract import (
    DEFAULT_CACHE_DIR,
    ExtractionSettings,
    StoredImages,
    store_images,
)
from featx.heads import FEWEST_IMAGES, Head, TunedHead
from featx.predict.explanations import MAX_NEAREST, N_NEAREST, READ_BYTES, Explanations, explain_predictions
from featx.predict.predictions import Predictions
from featx.predict.selective import as_sure, find_threshold
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir, as_path
from featx.store import FeatureStore
from featx.system import brief, shown, whole_number
from featx.text import printable
from featx.train import Reference, SavedRun, read_run

log = logging.getLogger("featx")

DEFAULT_ENGINE = EngineOptions()

#: The share of images like the training images that may be called unlike them.
FALSE_ALARMS = 0.01


class ImageClassifier(ABC):
    """Images in, classes out; the features go through the store.

    Subclasses compute the probabilities: with a head on the features, or with the network's own classifier.

    Attributes:
        class_names: the classes, in the order of the probabilities.
        is_multilabel: whether an image can have several of them.
    """

    is_multilabel = False

    def __init__(
        self, recipe: Recipe, class_names: tuple[str, ...], cache_dir: StoragePath, engine_options: EngineOptions
    ) -> None:
        self.class_names = class_names
        self._recipe = recipe
        self._cache_dir = cache_dir
        self._engine_options = engine_options

    def predict(
        self,
        paths: ManyImages,
        *,
        max_error: float | None = None,
        workers: int | None = None,
        strict: bool = False,
        show: bool = False,
    ) -> Predictions:
        """Return the classes of images. Their features go to the store.

        An image is unlike the training images if it is farther from them than 99 % of them are from each other. The
        distance is between features, see `featx.train.reference.Reference`.

        Args:
            paths: images in a list, a tuple, an iterator, a pandas Series or a NumPy array; a data set; one image; or
                a folder or an archive, for all images in it. An image is the path of a file, an array
                `(height, width, 3)` or `(height, width)` uint8, or a Pillow image. A file that cannot be read is a
                prediction without a label, with a reason.
            max_error: the largest share of wrong answers that you accept, above 0 and below 1. An answer is unsure if
                its probability is too small for this share. Of the other answers, at most this share is wrong, with a
                confidence of 95 %, if the images are like the training images. See
                `featx.predict.selective.find_threshold`.
            workers: decoding threads; as many as cores if None.
            strict: raise on the first image that cannot be read.
            show: show progress on stderr.

        Raises:
            ImageError: `strict`, and an image cannot be read.
            WeightsError: features have to be computed, and the backbone's weights were not found.
            FeatxError: `paths` are not images, the store cannot be read or written, or no threshold can promise
                `max_error`.
        """
        threshold = 0.0 if max_error is None else self._threshold(_checked_share(max_error))
        return self._predict_stored(self._store(paths, workers, strict=strict, show=show), threshold)

    def predict_proba(self, paths: ManyImages, *, show: bool = False) -> np.ndarray:
        """Return `(n, n_classes)` float64 probabilities of images; `paths` as for `predict`.

        Raises:
            ImageError: an image cannot be read.
            FeatxError: as `predict`.
        """
        return self.predict(paths, strict=True, show=show).probabilities

    def _store(self, paths: ManyImages, workers: int | None, *, strict: bool, show: bool) -> StoredImages:
        """Compute the features of images that the store lacks."""
        settings = ExtractionSettings(engine_options=self._engine_options, workers=workers, strict=strict, show=show)
        images = store_images(paths, self._recipe, self._find_weights, self._cache_dir, settings)
        if n_bad := int(np.count_nonzero(~images.is_readable)):
            log.warning("%d of %d images cannot be read.", n_bad, len(images.paths))
        return images

    def _predict_stored(self, images: StoredImages, threshold: float) -> Predictions:
        """Return the classes of images whose features are in the store; below the threshold, an answer is unsure."""
        probabilities, is_unlike = self._judged(images.digests, images.is_readable)
        is_unsure = as_sure(probabilities.max(axis=1)) < threshold  # not so of what cannot be read
        _say_doubts(is_unsure, is_unlike)
        found = (self.class_names, images.paths, probabilities, images.reasons, self.is_multilabel)
        return Predictions(*found, is_unsure, is_unlike)

    @abstractmethod
    def _find_weights(self) -> Weights:
        """Return the backbone's weights; a converted network in the cache has them in it."""

    @abstractmethod
    def _from_features(self, X: np.ndarray) -> np.ndarray:
        """Return `(n, n_classes)` float64 probabilities for the features `X`, `(n, …)`."""

    @abstractmethod
    def _threshold(self, max_error: float) -> float:
        """Return the smallest probability with which an answer counts, if at most this share may be wrong."""

    @abstractmethod
    def _is_unlike(self, X: np.ndarray) -> np.ndarray:
        """Return whether images with the features `X`, `(n, …)`, are unlike the training images: `(n,)` bool."""

    def _judged(self, digests: np.ndarray, is_readable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what there is to say about the images with `digests`, `(n, 32)` uint8.

        Probabilities, `(n, n_classes)` float64, NaN where not readable; and whether they are unlike the training
        images, `(n,)` bool.
        """
        probabilities, is_unlike = np.full((len(digests), len(self.class_names)), np.nan), np.zeros(len(digests), bool)
        store = FeatureStore(self._cache_dir, self._recipe)
        rows = np.flatnonzero(is_readable)
        n_numbers = int(np.prod(store.segments[0].feature_shape)) if store.segments else 1
        step = max(1, READ_BYTES // (4 * n_numbers))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            X = store.read(digests[some])
            probabilities[some], is_unlike[some] = self._from_features(X), self._is_unlike(X)
        return probabilities, is_unlike


def _checked_share(max_error: object) -> float:
    if isinstance(max_error, bool) or not isinstance(max_error, int | float) or not 0 < max_error < 1:
        raise FeatxError(f"max_error is a share above 0 and below 1, like 0.05. Received: {shown(max_error)}")
    return float(max_error)


def _say_doubts(is_unsure: np.ndarray, is_unlike: np.ndarray) -> None:
    """Log how many predictions are doubtful, if any are."""
    counts = {"unsure": int(is_unsure.sum()), "unlike the training images": int(is_unlike.sum())}
    parts = [f"{n:,} {what}" for what, n in counts.items() if n]
    if parts:
        log.info("Of %s images: %s.", f"{len(is_unsure):,}", ", ".join(parts))


class Classifier(ImageClassifier):
    """A head on its backbone, as a run folder holds them.

    >>> classifier = Classifier.load("runs/first")  # doctest: +SKIP
    >>> predictions = classifier.predict(["cat.jpg", "no.jpg"])  # doctest: +SKIP
    >>> predictions.labels, predictions[1].reason  # doctest: +SKIP
    (['cats', None], 'No such file or directory')
    """

    def __init__(
        self,
        run: SavedRun,
        head: Head | TunedHead,
        cache_dir: StoragePath,
        weights_path: Path | None = None,
        engine_options: EngineOptions = DEFAULT_ENGINE,
        name: str | None = None,
    ) -> None:
        """Put a classifier together; `Classifier.load` is the usual way. `name` is that of the head."""
        super().__init__(run.recipe, run.class_names, cache_dir, engine_options)
        self.run = run
        self.is_multilabel = run.is_multilabel
        self._head = head
        self._weights_path = weights_path
        self._name = name or run.heads[0]

    @classmethod
    def load(
        cls,
        run_dir: Path | str,
        *,
        head: str | None = None,
        cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
        weights: Path | str | None = None,
        **engine_choices: Unpack[EngineChoices],
    ) -> Self:
        """Return the classifier in a run folder. Keras and the backbone start only when they are needed.

        Args:
            run_dir: a run folder of `featx train-top`; or a report folder of `featx compare`, for its best run.
            head: `"tuned"` or one of `featx.heads.HEADS`; if None, the first of these that the run has.
            cache_dir: the cache; features in it are not computed again.
            weights: file of the backbone's weights, if you moved it since the run was made.
            engine_choices: how the backbone is run, by name; see `featx.engines.EngineOptions`.

        Raises:
            FeatxError: there is no intact run.
        """
        run = read_run(as_path(run_dir), head)
        options = EngineOptions.of(engine_choices)
        return cls(
            run,
            run.read_head(head),
            as_cache_dir(cache_dir),
            as_path(weights) if weights else None,
            options,
            head,
        )

    def explain(
        self,
        paths: ManyImages,
        *,
        k: int = N_NEAREST,
        max_error: float | None = None,
        workers: int | None = None,
        strict: bool = False,
        show: bool = False,
    ) -> Explanations:
        """Return the predictions for images, each with the evidence and the nearest training images.

        Args:
            paths: as for `predict`.
            k: number of nearest training images for each image.
            max_error: as for `predict`.
            workers: decoding threads; as many as cores if None.
            strict: raise on the first image that cannot be read.
            show: show progress on stderr.

        Raises:
            FeatxError: as `predict`; or an older featx made the run, which does not know its training images.
        """
        k = whole_number("k", k, most=MAX_NEAREST)
        threshold = 0.0 if max_error is None else self._threshold(_checked_share(max_error))
        if (reference := self.run.reference()) is None:
            raise FeatxError(
                f"The run {printable(self.run.dir)} does not know its training images, because an older featx made it; "
                f"train again with featx train-top."
            )
        images = self._store(paths, workers, strict=strict, show=show)
        predictions, store = self._predict_stored(images, threshold), FeatureStore(self._cache_dir, self._recipe)
        return explain_predictions(predictions, images, self.run, self._head, store, reference, k, show=show)

    def __repr__(self) -> str:
        recipe = self._recipe
        return f"<Classifier of {brief(self.run.dir)}: {recipe.backbone}, {len(self.class_names)} classes>"

    def _find_weights(self) -> Weights:
        run = self.run
        unpack_network(run.recipe, run.dir, self._cache_dir)
        if needs_weights(run.recipe, self._cache_dir, self._engine_options):
            return run.find_weights(self._cache_dir, self._weights_path)
        try:
            return run.find_weights(self._cache_dir, self._weights_path, download=False)
        except WeightsError:
            return Weights(run.recipe.weights, None)

    def _from_features(self, X: np.ndarray) -> np.ndarray:
        return self._head.predict_proba(X)

    def _threshold(self, max_error: float) -> float:
        if self.is_multilabel:
            raise FeatxError(
                "These images can have several labels, but the largest share of wrong answers (--max-error) needs "
                "images with one class: leave it out."
            )
        held_out = self.run.held_out(self._name)
        if held_out is None:
            raise FeatxError(f"{self._no_held_out()} Or leave out the largest share of wrong answers (--max-error).")
        return find_threshold(held_out.probability, held_out.is_right, max_error).probability

    def _no_held_out(self) -> str:
        """Return why there are no held-out images of the head, and what helps."""
        name, run = self._name, printable(self.run.dir)
        if not self.run.has_held_out:
            return f"An older featx made the run {run}, which has no held-out images: train again."
        if self.run.output:
            return f"The run {run} has no held-out images of {name}, because a block was tuned: train with --folds."
        return (
            f"The run {run} has no held-out images of {name}: train it with {FEWEST_IMAGES} training images or more, "
            f"without --no-calibrate; or train it with --folds."
        )

    def _is_unlike(self, X: np.ndarray) -> np.ndarray:
        reference, limit = self._reference
        return np.zeros(len(X), bool) if reference is None else reference.distance(X) > limit

    @cached_property
    def _reference(self) -> tuple[Reference | None, float]:
        """The training images that the run remembers, and how far an image may be from them; None without any."""
        found = self.run.reference()
        limit = found.limit(FALSE_ALARMS) if found else math.inf
        return (None if math.isinf(limit) else found), limit
