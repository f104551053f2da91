"""What class weights change if one class is rare: 5000 images of one class and 100 of the other.

    python benchmarks/imbalance.py data/ --weights weights/vgg16_notop.h5 --image-size 150

Takes all images of the first of two classes, and of the second as many as `--rare`, drawn anew for each seed: the same
share in the training split and in the test split. Trains both heads on cached features, without weights and with
balanced ones. Means over the seeds, and the lowest and the highest. The last column is of all test images of the rare
class, also those that were not drawn: of a few, the recall is known badly.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from featx.extract.extract import extract_features
from featx.heads.registry import DEFAULT_HEADS, HEADS
from featx.heads.training_loop import Training
from featx.recipe import as_image_size
from featx.train.features import Features, load_features
from featx.train.metrics import measure
from featx.train.train import train_on_features

COLUMNS = ("accuracy", "balanced accuracy", "PR-AUC", "rare recall", "rare precision", "loss", "ECE", "of all")


def figures(features: Features, head: str, n_rare: int, seed: int, class_weights: str | None) -> list[float]:
    """Return the figures of `COLUMNS`, for one drawing of the rare class."""
    dataset, rng = features.dataset, np.random.default_rng(seed)
    is_drawn = dataset.labels == 0
    share = n_rare / int((dataset.labels == 1).sum())
    for split in (dataset.is_test, ~dataset.is_test):
        rare = np.flatnonzero(split & (dataset.labels == 1))
        is_drawn[rng.permutation(rare)[: round(share * len(rare))]] = True
    some = features.subset(is_drawn | dataset.is_test)
    result = train_on_features(some, head, Training(seed=seed, class_weights=class_weights))
    y, drawn = some.y[some.dataset.is_test], is_drawn[dataset.is_test]
    is_right = result.probabilities.argmax(axis=1) == y
    metrics = measure(y[drawn], result.probabilities[drawn])
    n_taken = int((result.probabilities[drawn].argmax(axis=1) == 1).sum())
    n_right = int(is_right[drawn & (y == 1)].sum())
    return [
        metrics.accuracy,
        metrics.balanced_accuracy or 0.0,
        metrics.pr_auc or 0.0,
        n_right / int((drawn & (y == 1)).sum()),
        n_right / max(n_taken, 1),
        metrics.loss,
        metrics.calibration_error,
        float(is_right[y == 1].mean()),
    ]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*, two classes")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--rare", type=int, default=100, help="images of the rare class, of both splits")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=DEFAULT_HEADS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    args = parser.parse_args()
    options: dict[str, Any] = {name: getattr(args, name) for name in ("backbone", "weights", "image_size", "cache_dir")}
    extract_features(args.data_dir, show=True, **options)
    features = load_features(args.data_dir, **options)
    print(" | ".join(("head", "class weights", *COLUMNS)))
    for head in args.heads:
        for weights in (None, "balanced"):
            found = np.array([figures(features, head, args.rare, seed, weights) for seed in range(args.seeds)])
            cells = [
                f"{mean:.3f} ({low:.3f}–{high:.3f})"
                for mean, low, high in zip(found.mean(axis=0), found.min(axis=0), found.max(axis=0), strict=True)
            ]
            print(" | ".join((head, weights or "none", *cells)), flush=True)


if __name__ == "__main__":
    main()
