"""Which of `--resize stretch`, `crop` and `pad` does best on photographs of many shapes.

    python benchmarks/resize.py data/ --weights weights/vgg16_notop.h5 --backbone vgg16 --image-size 150

Cuts a window of its own shape out of each photograph, anywhere, as cameras and people do: from 1:2 to 2:1, as long as
the photograph's shorter side. Trains both heads on the features of each way. Each seed draws other windows, and trains
with other initial weights. Photographs of their own shapes can be used as they are, with `--as-they-are`.
"""

import argparse
import json
import zlib
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from featx.dataset.image_dataset import sample_mask
from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from featx.extract.options import RESIZES
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.recipe import as_image_size
from featx.train.features import load_features
from featx.train.train import train_on_features

#: The longest side of a window, in its shorter sides.
LARGEST_RATIO = 2.0


def cut_windows(data_dir: Path, to: Path, n: dict[str, int], cache_dir: Path, seed: int) -> None:
    """Write a window of each of `n["train"]` and `n["test"]` photographs to `to`, without loss."""
    dataset = scan(data_dir, cache_dir)
    for split, is_test in (("train", False), ("test", True)):
        rows = np.flatnonzero(dataset.is_test == is_test)
        share = min(1.0, n[split] / len(rows))
        chosen = rows[sample_mask(dataset.digests[rows], dataset.labels[rows], seed=seed, fraction=share)]
        for row in chosen:
            path = Path(dataset.paths[row])
            target = to / split / dataset.class_names[dataset.labels[row]] / f"{row}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(dataset.root / path) as image:
                image.convert("RGB").crop(_window(image.size, seed, str(path))).save(target, compress_level=1)


def _window(size: tuple[int, int], seed: int, name: str) -> tuple[int, int, int, int]:
    """Return a box of a random aspect ratio, evenly spread on a logarithmic scale, at a random place."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    ratio = LARGEST_RATIO ** rng.uniform(-1, 1)
    longest = min(size)
    width, height = (longest, round(longest / ratio)) if ratio > 1 else (round(longest * ratio), longest)
    left, top = (int(rng.integers(0, side - length + 1)) for side, length in zip(size, (width, height), strict=True))
    return (left, top, left + width, top + height)


def measure(data_dir: Path, cache_dir: Path, seed: int, **options: Any) -> dict[str, dict[str, float]]:
    """Return the accuracy on the test images by way and head."""
    figures: dict[str, dict[str, float]] = {}
    for resize in RESIZES:
        extract_features(data_dir, cache_dir=cache_dir, show=True, resize=resize, **options)
        features = load_features(data_dir, cache_dir=cache_dir, resize=resize, **options)
        results = {head: train_on_features(features, head, Training(seed=seed)) for head in DEFAULT_HEADS}
        figures[resize] = {head: result.metrics.accuracy for head, result in results.items()}
        print(f"seed {seed}, {resize}: {figures[resize]}", flush=True)
    return figures


def print_table(figures: list[dict[str, dict[str, float]]]) -> None:
    """Print a row for each way: the mean over the seeds, and each seed, in per cent."""
    for resize in RESIZES:
        cells = [[100 * one[resize][head] for one in figures] for head in DEFAULT_HEADS]
        texts = [f"{mean(some):5.1f} ({', '.join(f'{each:.1f}' for each in some)})" for some in cells]
        print(f"{resize:>8}  " + "  ".join(f"{head} {text}" for head, text in zip(DEFAULT_HEADS, texts, strict=True)))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*, or CLASS/*")
    parser.add_argument("--as-they-are", action="store_true", help="cut no windows: the photographs have many shapes")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--train", type=int, default=2000, help="number of training images")
    parser.add_argument("--test", type=int, default=800, help="number of test images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    options = {"backbone": args.backbone, "weights": args.weights, "image_size": args.image_size}
    figures = []
    for seed in range(args.seeds):
        with TemporaryDirectory() as folder:
            if not args.as_they_are:
                cut_windows(args.data_dir, Path(folder), {"train": args.train, "test": args.test}, args.cache_dir, seed)
            data_dir = args.data_dir if args.as_they_are else Path(folder)
            figures.append(measure(data_dir, args.cache_dir, seed, **options))
    print_table(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
