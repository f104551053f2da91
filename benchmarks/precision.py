"""What bfloat16 and int8 change: the features, and how well heads trained on them do.

    python benchmarks/precision.py data/ --weights weights/vgg16_notop.h5 --backbone vgg16 --image-size 64

Extracts the features of a data set in every precision, unless they are in the cache, and prints the cosine of each
image's features with their float32 selves, and the test accuracy of both heads for several seeds. Differences of
accuracies are of the same images, seed by seed.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from featx.extract.extract import extract_features
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.recipe import PRECISIONS, as_image_size
from featx.store.feature_store import FeatureStore
from featx.train.features import Features, stored_features
from featx.train.train import train_on_features


def measure(data_dir: Path, cache_dir: Path, *, seeds: int, **options: Any) -> dict[str, Any]:
    """Return cosines, and accuracies by head and seed, of every precision."""
    figures: dict[str, Any] = {}
    float32 = np.empty(0)
    for precision in PRECISIONS:
        features = _features(data_dir, cache_dir, precision, options)
        rows = features.X.reshape(len(features.X), -1)
        float32 = float32 if float32.size else rows
        cosines = np.concatenate([_cosines(rows[i : i + 500], float32[i : i + 500]) for i in range(0, len(rows), 500)])
        accuracy = {head: [_accuracy(features, head, seed) for seed in range(seeds)] for head in DEFAULT_HEADS}
        figures[precision] = {
            "cosine_mean": float(cosines.mean()),
            "cosine_1_percent": float(np.quantile(cosines, 0.01)),
            "cosine_min": float(cosines.min()),
            "accuracy": accuracy,
        }
    return figures


def _features(data_dir: Path, cache_dir: Path, precision: str, options: dict[str, Any]) -> Features:
    extraction = extract_features(data_dir, cache_dir=cache_dir, precision=precision, show=True, **options)
    return stored_features(extraction.dataset, FeatureStore(cache_dir, extraction.recipe), "featx extract")


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny)


def _accuracy(features: Features, head: str, seed: int) -> float:
    return train_on_features(features, head, Training(seed=seed, calibrate=False)).metrics.accuracy


def print_table(figures: dict[str, Any]) -> None:
    """Print a row for every precision; accuracies are means over the seeds, in per cent."""
    print(
        f"{'precision':<10} {'cosine':>8} {'1 %':>8} {'least':>8}",
        *(f"{head:>8} {'minus float32':>16}" for head in DEFAULT_HEADS),
    )
    for precision, row in figures.items():
        words = [
            f"{precision:<10} {row['cosine_mean']:>8.5f} {row['cosine_1_percent']:>8.5f} {row['cosine_min']:>8.5f}"
        ]
        for head in DEFAULT_HEADS:
            accuracies = row["accuracy"][head]
            differences = np.subtract(accuracies, figures["float32"]["accuracy"][head])
            change = f"{100 * differences.mean():+.2f} ({100 * differences.min():+.1f} {100 * differences.max():+.1f})"
            words.append(f"{100 * statistics.mean(accuracies):>8.2f} {change:>16}")
        print(*words)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*, or CLASS/*")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(64, 64))
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--seeds", type=int, default=3, help="how often each head is trained")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    figures = measure(
        args.data_dir,
        args.cache_dir,
        seeds=args.seeds,
        backbone=args.backbone,
        weights=args.weights,
        image_size=args.image_size,
    )
    print_table(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
