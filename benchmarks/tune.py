"""Tuning a backbone's last block on cached features against end-to-end fine-tuning in plain Keras: time and memory.

    python benchmarks/tune.py DATA --weights weights/vgg16_notop.h5 --image-size 150 --train 2000 --test 800 --epochs 3

Both train VGG16's fifth block and the same head on the same photographs, for the same number of epochs, with Adam at
1e-5 and batches of 32, and validate on the same tenth of the training images. featx does it from the features of the
fourth block. In Keras, each image passes the whole network in each epoch, decoded by tf.data: the recipe of Keras's
guide "Transfer learning & fine-tuning". The three jobs run one after the other, each in its own process, so that the
peak of each one's memory is its own; the start of Keras is not counted. Keras gets its head untrained: it would first
train it on the frozen network for some more epochs, and featx's time for that is shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset.image_dataset import sample_mask
from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from featx.extract.options import options_before
from featx.heads.training_loop import Training
from featx.heads.tuned import TUNED_BATCH_SIZE, TUNED_LEARNING_RATE
from featx.recipe import as_image_size
from featx.system.late_imports import import_keras
from featx.system.machine import peak_memory_bytes, reset_peak_memory
from featx.train.train import train_top, validation_part

BACKBONE, BLOCK = "vgg16", "block5"


def write_data(data_dir: Path, folder: Path, n_train: int, n_test: int) -> None:
    """Write some images of a data set twice, with hard links where that works: for featx, and for Keras.

    They are drawn by their content. For Keras, the images that featx validates on are in a folder of their own.
    """
    dataset = scan(data_dir, folder / "digests")
    mask = np.zeros(dataset.n_images, bool)
    for rows, n in ((np.flatnonzero(~dataset.is_test), n_train), (np.flatnonzero(dataset.is_test), n_test)):
        share = min(1.0, n / len(rows))
        mask[rows] = sample_mask(dataset.digests[rows], dataset.labels[rows], seed=0, fraction=share)
    chosen = dataset.subset(mask)
    train = np.flatnonzero(~chosen.is_test)
    kept_out = set(train[validation_part(chosen, seed=0)].tolist())
    for row, path in enumerate(chosen.paths):
        split = "test" if chosen.is_test[row] else "train"
        part = "validation" if row in kept_out else split
        name = f"{chosen.class_names[chosen.labels[row]]}/{row:06d}{Path(path).suffix}"
        for target in (folder / "featx" / split / name, folder / "keras" / part / name):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(chosen.root / path, target)
            except OSError:
                shutil.copy2(chosen.root / path, target)


def extract(folder: Path, options: dict[str, Any], _epochs: int) -> dict[str, Any]:
    """Compute the features of the layer before the block."""
    started = time.perf_counter()
    done = extract_features(folder / "featx", cache_dir=folder / "cache", **options_before(BLOCK, **options)[1])
    return {"elapsed_s": time.perf_counter() - started, "n_images": done.n_computed}


def tune(folder: Path, options: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Train the head on the frozen block, and tune both, on the features."""
    import_keras()
    reset_peak_memory()
    training = Training(epochs=epochs, patience=epochs)
    where = {"cache_dir": folder / "cache", "run_dir": folder / "run"}
    frozen, tuned = train_top(folder / "featx", tune=BLOCK, training=training, **where, **options).results
    return {
        "head_s": frozen.fit_s,
        "elapsed_s": tuned.fit_s - frozen.fit_s,
        "n_epochs": len(tuned.history),
        "accuracy": {result.name: result.metrics.accuracy for result in (frozen, tuned)},
    }


def train_in_keras(folder: Path, options: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Fine-tune end to end, as Keras's guide does, on the image files."""
    keras = import_keras()
    reset_peak_memory()
    keras.utils.set_random_seed(0)
    size = options["image_size"]
    files = {"label_mode": "binary", "image_size": size, "batch_size": TUNED_BATCH_SIZE, "verbose": False}
    train, validation = (
        keras.utils.image_dataset_from_directory(folder / "keras" / part, **files).prefetch(2)
        for part in ("train", "validation")
    )
    network = keras.applications.VGG16(include_top=False, weights=None, input_shape=(*size, 3))
    network.load_weights(options["weights"])
    for layer in network.layers:
        layer.trainable = layer.name.startswith(BLOCK)
    images = keras.Input((*size, 3))
    outputs = network(keras.applications.vgg16.preprocess_input(images))
    for layer in (keras.layers.Flatten(), keras.layers.Dense(256, "relu"), keras.layers.Dropout(0.5)):
        outputs = layer(outputs)
    model = keras.Model(images, keras.layers.Dense(1, "sigmoid")(outputs))
    model.compile(keras.optimizers.Adam(TUNED_LEARNING_RATE), "binary_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
    return {"elapsed_s": time.perf_counter() - started, "n_epochs": epochs}


JOBS = {"extract": extract, "tune": tune, "keras": train_in_keras}


def in_its_own_process(job: str, folder: Path, options: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Return what a job says of itself, with the peak of its memory."""
    given = json.dumps([job, str(folder), options, epochs])
    command = [sys.executable, __file__, "--job", given]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def do(given: str) -> None:
    """Do a job in this process, and print its figures."""
    job, folder, options, epochs = json.loads(given)
    options["image_size"] = tuple(options["image_size"])
    figures = JOBS[job](Path(folder), options, epochs)
    print(json.dumps({**figures, "peak_memory_bytes": peak_memory_bytes()}))


def print_table(figures: dict[str, Any]) -> None:
    """Print what each took, and how many times as much Keras took."""
    features, ours, keras = (figures[name] for name in JOBS)
    epochs = ours["n_epochs"]
    gib = {name: figures[name]["peak_memory_bytes"] / 2**30 for name in JOBS}
    per_epoch = ours["elapsed_s"] / epochs, keras["elapsed_s"] / keras["n_epochs"]
    total = features["elapsed_s"] + ours["elapsed_s"], keras["elapsed_s"]
    print(f"{features['n_images']:,} images, {epochs} epochs")
    print(f"featx: features of block 4 {features['elapsed_s']:8.1f} s {gib['extract']:8.2f} GiB")
    print(f"featx: head, block frozen  {ours['head_s']:8.1f} s")
    print(f"featx: tuning              {ours['elapsed_s']:8.1f} s {gib['tune']:8.2f} GiB, {per_epoch[0]:.1f} an epoch")
    print(f"Keras: end to end          {total[1]:8.1f} s {gib['keras']:8.2f} GiB, {per_epoch[1]:.1f} an epoch")
    print(f"Keras takes {per_epoch[1] / per_epoch[0]:.1f} times as long an epoch")
    print(f"Keras takes {total[1] / total[0]:.1f} times as long in all, with the time for the features")
    print(f"Keras takes {gib['keras'] / max(gib['tune'], gib['extract']):.1f} times as much memory")
    accuracy = ", ".join(f"{name} {share:.1%}" for name, share in ours["accuracy"].items())
    print(f"featx, test images right: {accuracy}")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="?", help="two classes: train/CLASS/* with test/CLASS/*")
    parser.add_argument("--weights", help="a file of VGG16's weights without the classifier")
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--train", type=int, default=2000, help="training images")
    parser.add_argument("--test", type=int, default=800, help="test images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="arithmetic of the features")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        do(args.job)
        return
    options = {
        "backbone": BACKBONE,
        "weights": str(Path(args.weights).absolute()),
        "image_size": args.image_size,
        "precision": args.precision,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(args.data_dir, folder, args.train, args.test)
        figures = {job: in_its_own_process(job, folder, options, args.epochs) for job in JOBS}
    print_table(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
