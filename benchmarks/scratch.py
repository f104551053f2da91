"""A baseline trained by featx against plain `model.fit` on arrays in memory: the same network, images and epochs.

    python benchmarks/scratch.py DATA --baseline report-cnn --cache-dir cache --json out.json

Plain Keras is measured on uint8 and on float32 pixels, and the faster of the two counts. featx reads its pixels from a
memory map in the cache folder, as it does in a comparison. New networks in each turn: tracing counts on both sides,
decoding and the start of Keras on neither. Both measure the validation images after every epoch.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
from photos import make_photos
from turns import Figures

from featx.compare.baselines import BASELINES
from featx.dataset.loader import read_batches
from featx.dataset.scanning import scan
from featx.heads.training_loop import Training
from featx.system.late_imports import import_keras
from featx.train.train import validation_part

#: Images of the training that warms up both sides.
N_WARM_UP = 64

#: Trains on `(pixels, y, is_validation)`.
_Trainer = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def decode(data_dir: Path, cache_dir: Path, image_size: tuple[int, int], path: Path) -> list[np.ndarray]:
    """Return pixels, a memory map at `path`, labels and validation part of the training images."""
    whole = scan(data_dir, cache_dir)
    dataset = whole.subset(~whole.is_test)
    shape = (dataset.n_images, *image_size, 3)
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    paths = [dataset.root / name for name in dataset.paths]
    with closing(read_batches(paths, dataset.digests, image_size, 256)) as batches:
        for batch in batches:
            if batch.unreadable:
                raise SystemExit(f"{paths[batch.unreadable[0].row]} cannot be read; leave it out.")
            pixels[batch.rows] = batch.images
    return [pixels, dataset.labels, validation_part(whole, 0)]


def plain_keras(baseline: str, dtype: type, n_classes: int, epochs: int) -> _Trainer:
    """Return what anyone would write with Keras alone; pixels of `dtype` are made before the time is taken."""

    def train(pixels: np.ndarray, y: np.ndarray, is_validation: np.ndarray) -> Any:
        model = BASELINES[baseline].build(pixels.shape[1:3], n_classes, seed=0)
        is_binary = model.output_shape[-1] == 1
        loss = "binary_crossentropy" if is_binary else "sparse_categorical_crossentropy"
        model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
        X, X_validation = pixels[~is_validation].astype(dtype), pixels[is_validation].astype(dtype)
        started = time.perf_counter()
        model.fit(
            X,
            y[~is_validation],
            validation_data=(X_validation, y[is_validation]),
            batch_size=BASELINES[baseline].batch_size,
            epochs=epochs,
            verbose=0,
        )
        return time.perf_counter() - started

    return train


def featx_baseline(baseline: str, n_classes: int, epochs: int) -> _Trainer:
    """Return featx's training, which does not stop early here."""

    def train(pixels: np.ndarray, y: np.ndarray, is_validation: np.ndarray) -> Any:
        training = Training(epochs=epochs, patience=epochs)
        started = time.perf_counter()
        BASELINES[baseline].train(pixels, y, is_validation, training, n_classes=n_classes)
        return time.perf_counter() - started

    return train


def measure(
    data_dir: Path | None = None,
    *,
    baseline: str = "report-cnn",
    cache_dir: Path | None = None,
    epochs: int = 3,
    repeats: int = 3,
    quick: bool = False,
) -> Figures:
    """Return seconds per epoch of all contenders, which take turns, and print them round by round.

    Without `data_dir`: crops of scikit-learn's two photographs. `quick`: a few of them, to see that all of it works.
    """
    import_keras()
    epochs, repeats = (1, 1) if quick else (epochs, repeats)
    with tempfile.TemporaryDirectory(dir=cache_dir) as name:
        data = data_dir or make_photos(Path(name, "photos"), 64 if quick else 2000)
        images = decode(data, cache_dir or Path(name), BASELINES[baseline].image_size, Path(name, "pixels.npy"))
        n_classes = int(images[1].max()) + 1
        few = np.random.default_rng(0).permutation(len(images[1]))[:N_WARM_UP]
        trainers = {
            "keras uint8": lambda n: plain_keras(baseline, np.uint8, n_classes, n),
            "keras float32": lambda n: plain_keras(baseline, np.float32, n_classes, n),
            "featx": lambda n: featx_baseline(baseline, n_classes, n),
        }
        for trainer in trainers.values():
            trainer(1)(*(array[few] for array in images))
        epoch_s: dict[str, list[float]] = {kind: [] for kind in trainers}
        for number in range(repeats):
            for kind in list(trainers)[:: 1 if number % 2 == 0 else -1]:
                epoch_s[kind].append(trainers[kind](epochs)(*images) / epochs)
                print(f"round {number + 1}: {kind} {epoch_s[kind][-1]:.2f} s per epoch", flush=True)
    best = min((kind for kind in trainers if kind != "featx"), key=lambda kind: statistics.median(epoch_s[kind]))
    ratios = [keras / ours for keras, ours in zip(epoch_s[best], epoch_s["featx"], strict=True)]
    print(
        f"{baseline} on {len(images[1])} images: {best} {statistics.median(epoch_s[best]):.2f} s, "
        f"featx {statistics.median(epoch_s['featx']):.2f} s per epoch: {statistics.median(ratios):.2f} times as fast "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return {"baseline": baseline, "n_images": len(images[1]), "epoch_s": epoch_s, "ratios": ratios, "best_keras": best}


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--baseline", type=click.Choice(list(BASELINES)), default="report-cnn", show_default=True)
@click.option("--cache-dir", type=click.Path(path_type=Path, exists=True), default=Path("cache"), show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(data: Path, json_path: Path | None, **options: Any) -> None:
    """Measure the training of a baseline."""
    figures = measure(data, **options)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
