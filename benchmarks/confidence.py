"""Whether a run keeps what it promises about its own mistakes, and knows images that are unlike its training images.

    featx fetch sample --to digits/
    python benchmarks/confidence.py data/ --weights weights/vgg16_notop.h5 --digits digits/

The first table is of heads that are trained on a random part of all images, another one for each seed, and tested on
all others: how many answers are wrong among those that are sure enough for a largest share of wrong ones, and for how
many of the seeds no more are. The second one is of how much temperature changes the calibration error and the loss.

The third one is of the training split: how many of the handwritten digits, of crops of scikit-learn's two photographs
(a flower, a temple), and of the real test images are called unlike the training images. It tries numbers of neighbours
k and ways to compare features (Sun et al., Out-of-distribution detection with deep nearest neighbors, 2022). The limit
is the distance that a share of the training images exceeds.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.extract.transformer import FeatureExtractor
from featx.heads.calibration import at_temperature
from featx.heads.registry import DEFAULT_HEADS, HEADS
from featx.heads.training_loop import Training
from featx.predict.selective import find_threshold
from featx.recipe import as_image_size
from featx.store import unit_rows
from featx.system import progress_bar
from featx.train.features import Features, load_features
from featx.train.metrics import Metrics, Result, measure
from featx.train.train import train_on_features

MAX_ERRORS = (0.05, 0.02, 0.01)
NEIGHBOURS = (1, 5, 10, 50)
FALSE_ALARMS = (0.01, 0.02, 0.05)

_Rows = npt.NDArray[np.float32]


def flat(X: npt.NDArray[np.generic]) -> _Rows:
    """Return all positions as one row of length 1."""
    rows = X.reshape(len(X), -1).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def means(X: npt.NDArray[np.generic]) -> _Rows:
    """Return the mean over the positions, as it is."""
    return X.astype(np.float32).reshape(len(X), -1, X.shape[-1]).mean(axis=1)


#: How features are compared: by Euclidean distance, which on rows of length 1 is in the order of the cosine.
ROWS: dict[str, Callable[[npt.NDArray[np.generic]], _Rows]] = {
    "means, length 1": unit_rows,
    "positions, length 1": flat,
    "means": means,
}


def trained(features: Features, head: str, n_train: int, seed: int) -> tuple[Result, Metrics]:
    """Return a head that is trained on `n_train` random images, and what it achieves without its temperature."""
    order = np.random.default_rng(seed).permutation(features.dataset.n_images)
    is_test = np.ones(features.dataset.n_images, bool)
    is_test[order[:n_train]] = False
    some = features.with_test(is_test)
    result = train_on_features(some, head, Training(seed=seed))
    temperature = float(result.details["temperature"]) if "calibration_images" in result.details else 1.0
    before = at_temperature(result.probabilities, 1 / temperature, is_multilabel=False)
    return result, measure(some.y[is_test], before)


def realised(result: Result, y_train: npt.NDArray[np.int64], y: npt.NDArray[np.int64], max_error: float) -> Any:
    """Return the share of wrong answers among those that are sure enough, and their share of all; None if no promise.

    Args:
        result: a head.
        y_train: labels of its training images.
        y: those of its test images.
        max_error: the largest share of wrong answers.
    """
    held_out = result.out_of_fold
    assert held_out is not None
    seen = ~np.isnan(held_out[:, 0])
    p, right = held_out.max(axis=1)[seen].astype(np.float64), (held_out.argmax(axis=1) == y_train)[seen]
    try:
        threshold = find_threshold(p, right, max_error).probability
    except FeatxError:
        return None
    accepted = result.probabilities.max(axis=1) >= threshold
    wrong = result.probabilities.argmax(axis=1) != y
    return float(wrong[accepted].mean()), float(accepted.mean())


def promises(features: Features, heads: Sequence[str], n_train: int, n_seeds: int) -> None:
    """Print the first two tables."""
    change: list[str] = []
    print("head | promised | realised, mean | highest | answered | kept | without a promise")
    for head in heads:
        runs = []
        with progress_bar(n_seeds, head, "seeds", show=True) as bar:
            for seed in range(n_seeds):
                result, before = trained(features, head, n_train, seed)
                order = np.random.default_rng(seed).permutation(features.dataset.n_images)
                y_train, y = features.y[np.sort(order[:n_train])], features.y[np.sort(order[n_train:])]
                runs.append((replace(result, model=None), before, y_train, y))
                bar.update()
        for max_error in MAX_ERRORS:
            found = [realised(result, y_train, y, max_error) for result, _, y_train, y in runs]
            kept = [one for one in found if one is not None]
            if not kept:
                print(f"{head} | {max_error:.0%} | | | | | {n_seeds} of {n_seeds}", flush=True)
                continue
            errors, shares = np.array(kept).T
            n_kept = int((errors <= max_error).sum())
            cells = (f"{errors.mean():.2%}", f"{errors.max():.2%}", f"{shares.mean():.1%}", f"{n_kept} of {len(kept)}")
            print(" | ".join((head, f"{max_error:.0%}", *cells, f"{n_seeds - len(kept)} of {n_seeds}")), flush=True)
        temperatures = [float(result.details.get("temperature", 1)) for result, *_ in runs]
        figures = [
            (before.calibration_error, result.metrics.calibration_error, before.loss, result.metrics.loss)
            for result, before, *_ in runs
        ]
        cells = [f"{mean:.4f}" for mean in np.mean(figures, axis=0)]
        change.append(" | ".join((head, f"{min(temperatures):.2f}–{max(temperatures):.2f}", *cells)))
    print("\nhead | temperature | ECE before | after | loss before | after", *change, sep="\n", flush=True)


def nearest(queries: _Rows, rows: _Rows, *, are_same: bool) -> _Rows:
    """Return the distances of queries to the nearest rows, `(q, k)` in order; a row is not its own neighbour."""
    squares = np.einsum("ij,ij->i", rows, rows)
    k = max(NEIGHBOURS) + 1
    found = []
    for start in range(0, len(queries), 500):
        some = queries[start : start + 500]
        distances = squares - 2 * some @ rows.T + np.einsum("ij,ij->i", some, some)[:, np.newaxis]
        if are_same:
            distances[np.arange(len(some)), np.arange(start, start + len(some))] = np.inf
        found.append(np.sort(np.partition(distances, k, axis=1)[:, :k], axis=1))
    return np.concatenate(found)


def unlike(features: Features, others: dict[str, npt.NDArray[np.float32]]) -> None:
    """Print the third table: what is called unlike the training images."""
    is_test = features.dataset.is_test
    X = np.asarray(features.X[:])
    print(f"\nrows | k | limit | real test images | {' | '.join(others)}")
    for name, rows_of in ROWS.items():
        rows = rows_of(X[~is_test])
        own = nearest(rows, rows, are_same=True)
        of_test = nearest(rows_of(X[is_test]), rows, are_same=False)
        of_others = [nearest(rows_of(one), rows, are_same=False) for one in others.values()]
        for k in NEIGHBOURS:
            for share in FALSE_ALARMS:
                limit = np.quantile(own[:, k - 1], 1 - share)
                cells = [f"{(found[:, k - 1] > limit).mean():.1%}" for found in (of_test, *of_others)]
                print(" | ".join((name, str(k), f"{share:.0%}", *cells)), flush=True)


def crops(n: int) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """Return `n` crops of each of scikit-learn's two photographs: squares of 100 to 300 pixels, at random places."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    found: dict[str, list[npt.NDArray[np.uint8]]] = {}
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        sides = rng.integers(100, 300, n)
        places = [(rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)) for side in sides]
        found[name] = [photo[y : y + side, x : x + side] for side, (y, x) in zip(sides, places, strict=True)]
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=DEFAULT_HEADS)
    parser.add_argument("--train", type=int, default=1000, help="images to train on, for the first two tables")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=("promises", "unlike"), help="the first two tables, or the third")
    parser.add_argument("--digits", type=Path, help="where featx fetch sample has put its digits")
    parser.add_argument("--crops", type=int, default=200, help="crops of each of scikit-learn's photographs")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    args = parser.parse_args()
    options: dict[str, Any] = {name: getattr(args, name) for name in ("backbone", "weights", "image_size", "cache_dir")}
    extract_features(args.data_dir, show=True, **options)
    features = load_features(args.data_dir, **options)
    if args.only != "promises":
        images: dict[str, Any] = crops(args.crops)
        if args.digits:
            images["digits"] = sorted(args.digits.rglob("*.png"))[::3]
        extractor = FeatureExtractor(**options, flatten=False, show=True)
        unlike(features, {name: extractor.transform(some) for name, some in images.items()})
        print()
    if args.only != "unlike":
        promises(features, args.heads, args.train, args.seeds)


if __name__ == "__main__":
    main()
