"""Stage one as a scikit-learn transformer: paths or arrays in, features out, each image computed once, ever.

The only module that imports scikit-learn when it is loaded, which is when somebody asks for `featx.FeatureExtractor`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from featx.digests import digest_files
from featx.engines import EngineOptions
from featx.errors import FeatxError, ImageError, printable
from featx.image_sources import Images, Source, images_of_arrays
from featx.missing import compute_missing
from featx.places import Place, RemotePath, as_place
from featx.recipe import parse_image_size
from featx.resolve import resolve_recipe
from featx.store import FeatureStore


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns images into the features of a pretrained backbone.

    Nothing is learned from the images, so folds and grids cost only what is not in the cache yet.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(FeatureExtractor(image_size=64), LogisticRegression())
    >>> pipeline.fit(["cat.jpg", "dog.jpg"], ["cat", "dog"]).predict(["cat.jpg"])  # doctest: +SKIP
    array(['cat'], dtype='<U3')

    Args:
        backbone: name in `featx.backbones.BACKBONES`.
        image_size: `(height, width)`, one number for both, or None for the backbone's own.
        weights: see `featx.weights.find_weights`.
        layer: name of the layer whose output is wanted; the backbone's last one if None.
        precision: `"auto"`, `"float32"` or `"bfloat16"`; int8 depends on the data set it is calibrated on.
        dtype: how features are stored, `"float16"` or `"float32"`.
        cache_dir: where stores lie.
        engine: what runs the backbone; see `featx.engines.EngineOptions`, also for the next three.
        batch_size: images in a batch.
        threads: processor cores for `openvino`.
        streams: batches that `openvino` runs side by side.
        workers: decoding threads; as many as cores if None.
        flatten: return `(n, n_features)`, as scikit-learn's estimators want it, instead of the backbone's own shape.
        show: show progress on stderr.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        *,
        image_size: tuple[int, int] | int | None = None,
        weights: str = "imagenet",
        layer: str | None = None,
        precision: str = "auto",
        dtype: str = "float16",
        cache_dir: Place | str = "cache",
        engine: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        streams: int | None = None,
        workers: int | None = None,
        flatten: bool = True,
        show: bool = False,
    ) -> None:
        self.backbone = backbone
        self.image_size = image_size
        self.weights = weights
        self.layer = layer
        self.precision = precision
        self.dtype = dtype
        self.cache_dir = cache_dir
        self.engine = engine
        self.batch_size = batch_size
        self.threads = threads
        self.streams = streams
        self.workers = workers
        self.flatten = flatten
        self.show = show

    def fit(self, X: Sequence[Any] | np.ndarray, y: object = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Compute the features of `X`, so that they are there, and learn nothing."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Sequence[Any] | np.ndarray, y: object = None) -> np.ndarray:  # noqa: ARG002
        """Do as `transform`."""
        features = self.transform(X)
        self._n_features_out = features[0].size if len(features) else 0
        return features

    def transform(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the features of `X`, `(n, n_features)` float32, or `(n, …)` if not `flatten`.

        Args:
            X: n images: paths of files, or arrays `(height, width, 3)` or `(height, width)` uint8.

        Raises:
            ImageError: an image cannot be read.
            FeatxError: the recipe, the weights or the store is not fit; the message says what to do.
        """
        cache_dir = as_place(self.cache_dir)
        images = _images(X, cache_dir)
        recipe, weights = resolve_recipe(
            cache_dir,
            backbone=self.backbone,
            image_size=_height_and_width(self.image_size),
            weights=self.weights,
            layer=self.layer,
            precision=self.precision,
            dtype=self.dtype,
        )
        options = EngineOptions(
            engine=self.engine, batch_size=self.batch_size, threads=self.threads, streams=self.streams
        )
        compute_missing(
            images, recipe, lambda: weights, cache_dir, options, workers=self.workers, strict=True, show=self.show
        )
        features = FeatureStore(cache_dir, recipe).read(images.digests).astype(np.float32)
        return features.reshape(len(features), -1) if self.flatten and len(features) else features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _height_and_width(image_size: tuple[int, int] | int | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = image_size if isinstance(image_size, tuple | list) else (image_size,)
    return parse_image_size("x".join(map(str, sides)))


def _images(X: Sequence[Any] | np.ndarray, cache_dir: Place) -> Images:
    """Return the images that `X` names or holds."""
    sources = [_source(item) for item in X]
    digests = np.zeros((len(sources), 32), np.uint8)
    files = {row: source for row, source in enumerate(sources) if not isinstance(source, np.ndarray)}
    arrays = [row for row in range(len(sources)) if row not in files]
    digests[list(files)], reasons = digest_files(list(files.values()), cache_dir)
    for number, reason in reasons.items():
        raise ImageError(f"{printable(list(files.values())[number])} cannot be read: {reason}.")
    digests[arrays] = images_of_arrays([np.asarray(sources[row]) for row in arrays]).digests
    return Images(sources, digests)


def _source(item: object) -> Source:
    if isinstance(item, str | Path | RemotePath):
        return as_place(item)
    if isinstance(item, np.ndarray):
        return item
    raise FeatxError(f"An image is a path or an array. Received: {type(item).__name__}")
