"""Why others measured other accuracies with the same networks: their recipes on the same photographs.

    python benchmarks/claims.py DATA --weights vgg16_notop.h5 --json out.json

The first part takes the recipe of F. Chollet, "Building powerful image classification models using very little data",
The Keras Blog, 2016: VGG16 on pixels divided by 255, then Flatten, Dense(256, relu), Dropout(0.5) and a sigmoid,
rmsprop with Keras's own rate, 16 rows in a step, 50 epochs, no early stopping. It changes one thing after the other,
until all are featx's. Plain Keras computes all features.

The second part trains the report's CNN without early stopping, and prints both losses after each tenth of the epochs:
the report gives 0.0546 and 3.2969, and an accuracy of 32 %.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import click
import numpy as np
from scratch import decode

from featx.compare.baselines import BASELINES
from featx.dataset.image_dataset import ImageDataset
from featx.dataset.scanning import scan
from featx.heads import Training, TrainingSet, predict_proba, train_head
from featx.system import has_fast_bfloat16, import_keras
from featx.train.train import validation_part

SIDE = 150

#: What the blog does with pixels, and what the network was trained with.
BLOG_PIXELS, OWN_PIXELS = "pixels divided by 255", "the network's own preprocessing"


def first_of_each_class(dataset: ImageDataset, n_train: int, n_test: int) -> ImageDataset:
    """Return the first images of each class in both splits, `n_train` and `n_test` in all."""
    mask = np.zeros(dataset.n_images, bool)
    for is_test, n in ((False, n_train), (True, n_test)):
        for label in range(len(dataset.class_names)):
            rows = np.flatnonzero((dataset.is_test == is_test) & (dataset.labels == label))
            mask[rows[: n // len(dataset.class_names)]] = True
    return dataset.subset(mask)


def features_of(dataset: ImageDataset, weights: str, kind: str) -> np.ndarray:
    """Return VGG16's `(n, 4, 4, 512)` float32 features as plain Keras computes them from resized images."""
    keras = import_keras()
    keras.config.set_dtype_policy("mixed_bfloat16" if has_fast_bfloat16() else "float32")
    network = keras.applications.VGG16(include_top=False, weights=weights, input_shape=(SIDE, SIDE, 3))
    keras.config.set_dtype_policy("float32")
    prepare = keras.applications.vgg16.preprocess_input if kind == OWN_PIXELS else lambda pixels: pixels / 255
    slabs = []
    for start in range(0, dataset.n_images, 32):
        paths = [dataset.root / path for path in dataset.paths[start : start + 32]]
        pixels = [keras.utils.img_to_array(keras.utils.load_img(path, target_size=(SIDE, SIDE))) for path in paths]
        slabs.append(np.asarray(network.predict_on_batch(prepare(np.stack(pixels))), np.float32))
    return np.concatenate(slabs)


def blog_accuracy(X: np.ndarray, dataset: ImageDataset, *, seed: int, batch_size: int, stops_early: bool) -> float:
    """Return the accuracy on the test split of the blog's top model, as plain Keras trains it."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    top = [layers.Flatten(), layers.Dense(256, "relu"), layers.Dropout(0.5), layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input(X.shape[1:]), *top])
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    rows, y = np.flatnonzero(~dataset.is_test), dataset.labels
    held_out = validation_part(dataset, seed) if stops_early else np.zeros(len(rows), bool)
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.fit(
        X[rows[~held_out]],
        y[rows[~held_out]],
        batch_size=batch_size,
        epochs=50,
        validation_data=(X[rows[held_out]], y[rows[held_out]]) if stops_early else None,
        callbacks=[stop] if stops_early else [],
        verbose=0,
    )
    return float(model.evaluate(X[dataset.is_test], y[dataset.is_test], verbose=0)[1])


def featx_accuracy(X: np.ndarray, dataset: ImageDataset, *, seed: int, head: str) -> float:
    """Return the accuracy on the test split of one of featx's heads, on the same features."""
    train, y = ~dataset.is_test, dataset.labels
    is_validation = validation_part(dataset, seed)
    images = TrainingSet(X[train], y[train], dataset.digests[train], is_validation, n_classes=2)
    trained = train_head(head, images, Training(seed=seed))
    return float((predict_proba(trained.model, X[~train]).argmax(axis=1) == y[~train]).mean())


def transfer(dataset: ImageDataset, weights: str, seeds: int) -> list[dict[str, Any]]:
    """Return and print the accuracies of the blog's recipe, and of those that differ in one thing after the other."""
    recipes = [
        ("the blog's recipe", BLOG_PIXELS, blog_accuracy, {"batch_size": 16, "stops_early": False}),
        ("early stopping", BLOG_PIXELS, blog_accuracy, {"batch_size": 16, "stops_early": True}),
        ("featx's dense head", BLOG_PIXELS, featx_accuracy, {"head": "dense"}),
        ("the blog's recipe", OWN_PIXELS, blog_accuracy, {"batch_size": 16, "stops_early": False}),
        ("early stopping", OWN_PIXELS, blog_accuracy, {"batch_size": 16, "stops_early": True}),
        ("featx's dense head", OWN_PIXELS, featx_accuracy, {"head": "dense"}),
        ("featx's logreg head", OWN_PIXELS, featx_accuracy, {"head": "logreg"}),
    ]
    features = {kind: features_of(dataset, weights, kind) for kind in (BLOG_PIXELS, OWN_PIXELS)}
    rows = []
    for name, kind, accuracy, options in recipes:
        found = [accuracy(features[kind], dataset, seed=seed, **options) for seed in range(seeds)]
        rows.append({"recipe": name, "pixels": kind, "accuracies": found})
        spread = statistics.stdev(found) if seeds > 1 else 0.0
        print(f"{kind:32}{name:22}{statistics.mean(found):7.1%} ± {100 * spread:.1f}", flush=True)
    return rows


def from_scratch(data: Path, cache_dir: Path, epochs: int) -> list[dict[str, float]]:
    """Return and print the epochs of the report's CNN without early stopping."""
    baseline = BASELINES["report-cnn"]
    path = cache_dir / "claims-pixels.npy"
    try:
        pixels, y, is_validation = decode(data, cache_dir, baseline.image_size, path)
        training = Training(epochs=epochs, patience=epochs)
        trained = baseline.train(pixels, y, is_validation, training, n_classes=int(y.max()) + 1)
    finally:
        path.unlink(missing_ok=True)
    for epoch in trained.history[:: max(1, epochs // 10)] + trained.history[-1:]:
        print(
            f"report-cnn, epoch {epoch.epoch}: training loss {epoch.loss:.4f}, validation loss {epoch.val_loss:.4f}, "
            f"validation accuracy {epoch.val_accuracy:.1%}",
            flush=True,
        )
    return [vars(epoch) for epoch in trained.history]


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", required=True, type=click.Path(exists=True), help="VGG16 without its classifier.")
@click.option("--cache-dir", type=click.Path(path_type=Path, exists=True), default=Path("cache"), show_default=True)
@click.option("--train", "n_train", type=click.IntRange(4), default=2000, show_default=True)
@click.option("--test", "n_test", type=click.IntRange(4), default=800, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(0), default=60, show_default=True, help="Of the CNN from scratch.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(
    data: Path,
    weights: str,
    cache_dir: Path,
    n_train: int,
    n_test: int,
    seeds: int,
    epochs: int,
    json_path: Path | None,
) -> None:
    """Run the recipes of others."""
    dataset = first_of_each_class(scan(data, cache_dir), n_train, n_test)
    figures: dict[str, Any] = {"transfer": transfer(dataset, weights, seeds)}
    if epochs:
        figures["from_scratch"] = from_scratch(data, cache_dir, epochs)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
