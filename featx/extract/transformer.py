"""Stage one as a scikit-learn transformer: paths or arrays in, features out. featx computes each image only once.

The only module that imports scikit-learn when it is loaded, which is when somebody asks for `featx.FeatureExtractor`.
"""

from contextlib import closing
from pathlib import Path
from typing import Any, Self, cast, get_type_hints

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from featx.backbones import Weights
from featx.dataset import ManyImages, as_source, images_in, images_of_sources
from featx.engines import EngineOptions, create_engine
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    ExtractionOptions,
    ExtractionSettings,
    check_options,
    resolve_recipe,
    split_options,
)
from featx.extract.pipeline import compute_missing
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir
from featx.store import FeatureStore


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns images into the features of a pretrained backbone.

    It learns nothing from the images, so cross-validation and grid searches compute only what is not in the cache yet.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(FeatureExtractor(image_size=64), LogisticRegression())
    >>> pipeline.fit(["cat.jpg", "dog.jpg"], ["cat", "dog"]).predict(["cat.jpg"])  # doctest: +SKIP
    array(['cat'], dtype='<U3')

    Args:
        backbone: name in `featx.backbones.table.BACKBONES`, or the path of a network file (`.onnx`); `"vgg16"` if None.
        image_size: `(height, width)`, one number for both, or text like `"120x160"`; the backbone's own if None.
        resize: how images get that size: `"stretch"`, which None means, `"crop"` or `"pad"`.
        weights: see `featx.backbones.weights.find_weights`; `"imagenet"` if None.
        layer: name of the layer whose output to return; the backbone's last one if None.
        preprocess: what a network file wants of pixels, see `featx.backbones.as_preprocessing`.
        layout: `"nchw"` or `"nhwc"`, if the shape of a network file's input does not tell.
        pooling: `"avg"` or `"max"`, for the mean or the maximum of each channel; the complete output if None.
        precision: `"auto"`, which None means, `"float32"` or `"bfloat16"`; int8 depends on the data set.
        dtype: how features are stored, `"float16"` or `"float32"`; if None, float32 for class probabilities, else
            float16.
        cache_dir: the cache.
        engine: what runs the backbone, `"auto"` if None; see `featx.engines.EngineOptions`, also for the next three.
        batch_size: images in a batch.
        threads: processor cores for `openvino` and `ncnn`.
        streams: batches (`openvino`) or images (`ncnn`) that run in parallel.
        workers: decoding threads; as many as cores if None.
        flatten: return `(n, n_features)`, which scikit-learn's estimators need, instead of the backbone's own shape.
        show: show progress on stderr.
    """

    def __init__(
        self,
        backbone: Path | str | None = None,
        *,
        image_size: tuple[int, int] | int | str | None = None,
        resize: str | None = None,
        weights: Path | str | None = None,
        layer: str | None = None,
        preprocess: str | None = None,
        layout: str | None = None,
        pooling: str | None = None,
        precision: str | None = None,
        dtype: str | None = None,
        cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
        engine: str | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        streams: int | None = None,
        workers: int | None = None,
        flatten: bool = True,
        show: bool = False,
    ) -> None:
        self.backbone = backbone
        self.image_size = image_size
        self.resize = resize
        self.weights = weights
        self.layer = layer
        self.preprocess = preprocess
        self.layout = layout
        self.pooling = pooling
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

    def fit(self, X: ManyImages, y: object = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Compute and store the features of `X`; learn nothing."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: ManyImages, y: object = None) -> np.ndarray:  # noqa: ARG002
        """Return the same as `transform`."""
        features = self.transform(X)
        self._n_features_out = int(np.prod(features.shape[1:]))
        return features

    def transform(self, X: ManyImages) -> np.ndarray:
        """Return the features of `X`, `(n, n_features)` float32, or `(n, …)` if not `flatten`.

        Args:
            X: n images in a list, a tuple, an iterator, a pandas Series or a NumPy array; a data set; or one image. An
                image is the path of a file, an array `(height, width, 3)` or `(height, width)` uint8, or a Pillow
                image. An array of n images is `(n, height, width, 3)`.

        Raises:
            ImageError: an image cannot be read.
            FeatxError: `X` is ambiguous, or the recipe, the weights or the store cannot be used; the message says what
                to do.
        """
        cache_dir = as_cache_dir(self.cache_dir)
        given = {name: getattr(self, name) for name in get_type_hints(ExtractionOptions)}
        recipe_options, engine_options = split_options(cast("ExtractionOptions", given))
        check_options(cache_dir, **recipe_options)
        settings = ExtractionSettings(engine_options=engine_options, workers=self.workers, strict=True, show=self.show)
        images = images_of_sources([as_source(item) for item in images_in(X)], cache_dir)
        recipe, weights = resolve_recipe(cache_dir, **recipe_options)
        compute_missing(images, [recipe], lambda: weights, cache_dir, settings)
        features = FeatureStore(cache_dir, recipe).read(images.digests).astype(np.float32)
        if not len(images):
            features = np.empty((0, *_feature_shape(recipe, weights, cache_dir, engine_options)), np.float32)
        return features.reshape(len(features), int(np.prod(features.shape[1:]))) if self.flatten else features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _feature_shape(recipe: Recipe, weights: Weights, cache_dir: StoragePath, options: EngineOptions) -> tuple[int, ...]:
    """Return the shape of one image's features; where none are stored yet, the network is asked."""
    if segments := FeatureStore(cache_dir, recipe).segments:
        return segments[0].feature_shape
    with closing(create_engine(recipe, weights, cache_dir, None, options)) as engine:
        return engine.features(np.zeros((1, *recipe.image_size, 3), np.uint8)).shape[1:]
