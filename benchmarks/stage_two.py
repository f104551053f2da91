"""Both heads of featx against the recipe that people copy: the dense head of Keras's "bottleneck features" tutorial.

    python benchmarks/stage_two.py DATA --weights my_vgg16_notop.h5 --image-size 64 --json out.json

The recipe: Flatten → Dense(256, relu) → Dropout(0.5) → Dense(1, sigmoid), rmsprop, batches of 16, 50 epochs without
early stopping, `model.fit` on float32 arrays. It trains one head; featx trains two, one with cross-validation. Both get
the same features, and new models in each round: tracing counts, the start of Keras does not.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from photos import make_photos
from turns import Figures

from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from featx.extract.options import resolve_recipe
from featx.heads.dense import TrainingSet
from featx.heads.registry import DEFAULT_HEADS, train_head
from featx.heads.training_loop import Training, predict_proba
from featx.store.feature_store import FeatureStore
from featx.system.late_imports import import_keras
from featx.train.features import Features, stored_features
from featx.train.train import validation_part

EPOCHS = 50

#: Rows of the training that warms up both sides.
N_WARM_UP = 64


def train_recipe(X: np.ndarray, y: np.ndarray, n_classes: int, seed: int, epochs: int) -> Any:
    """Return the recipe's Keras model, trained on `X (n, ...)` float32 and `y (n,)`."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    is_binary = n_classes == 2
    layers = [
        keras.Input(X.shape[1:]),
        keras.layers.Flatten(),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1 if is_binary else n_classes, activation="sigmoid" if is_binary else "softmax"),
    ]
    model = keras.Sequential(layers)
    loss = "binary_crossentropy" if is_binary else "sparse_categorical_crossentropy"
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    model.fit(X, y, epochs=epochs, batch_size=16, verbose=0)
    return model


def contenders(features: Features, epochs: int) -> dict[str, Callable[[int, np.ndarray], Any]]:
    """Return what trains each model on some of the training rows, from a seed and the rows."""
    dataset, n_classes = features.dataset, len(features.dataset.class_names)
    train = ~dataset.is_test
    X, y, digests = features.X[train], dataset.labels[train], dataset.digests[train]
    is_validation = validation_part(dataset, 0)
    as_float32 = X.astype(np.float32)  # what a reader of the tutorial has in memory already

    def head(name: str) -> Callable[[int, np.ndarray], Any]:
        def trained(seed: int, rows: np.ndarray) -> Any:
            training = Training(seed, epochs)
            given = (X[rows], y[rows], digests[rows], is_validation[rows])
            return train_head(name, TrainingSet(*given, n_classes), training).model

        return trained

    return {
        "recipe": lambda seed, rows: train_recipe(as_float32[rows], y[rows], n_classes, seed, epochs),
        **{name: head(name) for name in DEFAULT_HEADS},
    }


def measure_features(features: Features, *, epochs: int = EPOCHS, repeats: int = 3) -> Figures:
    """Return seconds and test accuracies of all contenders, which take turns, and print them round by round."""
    dataset = features.dataset
    trainers = contenders(features, epochs)
    n_train, y_test = dataset.n_train, dataset.labels[dataset.is_test]
    few = np.random.default_rng(0).permutation(n_train)[:N_WARM_UP]
    for train in trainers.values():
        train(0, few)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    accuracies: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(repeats):
        for name in list(trainers)[:: 1 if number % 2 == 0 else -1]:
            started = time.perf_counter()
            model = trainers[name](number, np.arange(n_train))
            seconds[name].append(time.perf_counter() - started)
            predicted = predict_proba(model, features.X[dataset.is_test]).argmax(axis=1)
            accuracies[name].append(float((predicted == y_test).mean()))
            print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s, test accuracy {accuracies[name][-1]:.1%}")
    both = [sum(times) for times in zip(*(seconds[head] for head in DEFAULT_HEADS), strict=True)]
    ratios = [recipe / ours for recipe, ours in zip(seconds["recipe"], both, strict=True)]
    print(
        f"{n_train} rows of {features.X.shape[1:]}: the recipe in {statistics.median(seconds['recipe']):.1f} s, both "
        f"heads in {statistics.median(both):.1f} s: {statistics.median(ratios):.1f} times as fast "
        f"({min(ratios):.1f} to {max(ratios):.1f})"
    )
    return {
        "shape": [n_train, *features.X.shape[1:]],
        "epochs": epochs,
        "elapsed_s": seconds,
        "accuracy": accuracies,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def measure(
    data_dir: Path | None = None,
    *,
    weights: str = "random",
    backbone: str = "vgg16",
    image_size: tuple[int, int] = (64, 64),
    cache_dir: Path | None = None,
    repeats: int = 3,
    quick: bool = False,
) -> Figures:
    """Extract the features that the cache lacks, and return the figures.

    Without `data_dir`: crops of scikit-learn's two photographs. `quick`: a few of them, to see that all of it works.
    """
    import_keras()
    with tempfile.TemporaryDirectory() as name:
        data = data_dir or make_photos(Path(name, "photos"), 64 if quick else 2000)
        cache = cache_dir or Path(name, "cache")
        size = (32, 32) if quick else image_size
        extract_features(data, cache_dir=cache, backbone=backbone, weights=weights, image_size=size)
        dataset = scan(data, cache)
        recipe, _ = resolve_recipe(cache, dataset, backbone=backbone, weights=weights, image_size=size)
        features = stored_features(dataset, FeatureStore(cache, recipe), "featx extract")
        return measure_features(features, epochs=2 if quick else EPOCHS, repeats=1 if quick else repeats)


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--backbone", default="vgg16", show_default=True)
@click.option("--image-size", type=int, default=64, show_default=True, help="Side of the square images.")
@click.option("--cache-dir", type=click.Path(path_type=Path), default=Path("cache"), show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(data: Path, image_size: int, json_path: Path | None, **options: Any) -> None:
    """Measure the heads of stage two."""
    figures = measure(data, image_size=(image_size, image_size), **options)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
