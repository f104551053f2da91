"""What augmented views buy, and what they cost, with few training images and with many.

    python benchmarks/views.py data/ --weights weights/vgg16_notop.h5 --backbone vgg16 --image-size 64 --views 8

Extracts the features of a data set and of views of its training images, unless they are in the cache, and trains both
heads on 50, 500 and 5000 of these, without views and with them. Each seed draws other images; differences are of the
same images, seed by seed. Prints accuracies on all test images, and times.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from featx.dataset.image_dataset import sample_mask
from featx.extract.extract import extract_features
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.images.augmentation import AUGMENTATIONS, Views
from featx.recipe import as_image_size
from featx.train.features import Features, load_features
from featx.train.metrics import Result
from featx.train.train import train_on_features


def measure(
    data_dir: Path, cache_dir: Path, views: Views, sizes: list[int], *, seeds: int, **options: Any
) -> dict[str, Any]:
    """Return what the features cost, and accuracies and times by number of training images, head and seed."""
    extract_features(data_dir, cache_dir=cache_dir, views=views, show=True, **options)
    plain = load_features(data_dir, cache_dir=cache_dir, **options)
    viewed = load_features(data_dir, cache_dir=cache_dir, views=views, **options)
    rows = []
    for n_train in (size for size in sizes if size <= plain.dataset.n_train):
        for head in DEFAULT_HEADS:
            results = [[_train(some, head, n_train, seed) for seed in range(seeds)] for some in (plain, viewed)]
            rows.append({"n_train": n_train, "head": head, **_figures(results)})
    return {
        "n_views": views.n,
        "images_s": plain.timings.elapsed_s,
        "images_and_views_s": viewed.timings.elapsed_s,
        "rows": rows,
    }


def _train(features: Features, head: str, n_train: int, seed: int) -> Result:
    """Return a head trained on `n_train` of the training images, chosen by `seed`."""
    dataset = features.dataset
    train = np.flatnonzero(~dataset.is_test)
    mask = dataset.is_test.copy()
    mask[train] = sample_mask(dataset.digests[train], dataset.labels[train], seed=seed, fraction=n_train / len(train))
    return train_on_features(features.subset(mask), head, Training(seed=seed))


def _figures(results: list[list[Result]]) -> dict[str, Any]:
    names = ("without", "with")
    accuracies = {name: [result.metrics.accuracy for result in some] for name, some in zip(names, results, strict=True)}
    times = {f"{name}_s": mean(result.fit_s for result in some) for name, some in zip(names, results, strict=True)}
    return {**accuracies, **times}


def print_table(figures: dict[str, Any]) -> None:
    """Print a row for each number of training images and head: accuracies are means over the seeds, in per cent."""
    ratio = figures["images_and_views_s"] / figures["images_s"]
    print(
        f"Features of all images: {figures['images_s']:.1f} s; with {figures['n_views']} views of each training image "
        f"{figures['images_and_views_s']:.1f} s, {ratio:.1f}× as much."
    )
    print(f"{'images':>7} {'head':<7} {'without':>8} {'with':>8} {'difference':>24} {'training':>18}")
    for row in figures["rows"]:
        differences = 100 * np.subtract(row["with"], row["without"])
        change = f"{differences.mean():+.2f} ({differences.min():+.1f} to {differences.max():+.1f})"
        times = f"{row['without_s']:.1f} s, {row['with_s']:.1f} s"
        print(
            f"{row['n_train']:>7,} {row['head']:<7} {100 * mean(row['without']):>8.2f} {100 * mean(row['with']):>8.2f} "
            f"{change:>24} {times:>18}"
        )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*, or CLASS/*")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(64, 64))
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--augment", choices=list(AUGMENTATIONS), default="report")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 5000], help="numbers of training images")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--seeds", type=int, default=5, help="how often each head is trained")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    figures = measure(
        args.data_dir,
        args.cache_dir,
        Views(args.views, AUGMENTATIONS[args.augment]),
        args.sizes,
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
