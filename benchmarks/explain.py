"""Does the evidence lie where the animal is? Images of a cat beside a dog, in both orders, and each head's heat maps.

    FEATX_WEIGHTS_DIR=weights/ python benchmarks/explain.py DATA --image-size 150

DATA has photographs of two classes with a test split. Each composite has the middle of one test photograph of each
class, 75 of 150 pixels wide. An image counts as right if the evidence for each class is more on its own half than on
the other one, and as strictly right if the evidence on each half speaks for the class of this half. Three formulas are
compared: what differs from the average training image (featx's own), what differs from features that are all 0, and
the gradient times the features.

Then heads are trained and tested on images whose left half is always the same photograph. It tells nothing about the
class: how much of the evidence is there, without signs?
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from featx.dataset.image_dataset import ImageDataset, sample_mask
from featx.extract.extract import extract_features
from featx.extract.transformer import FeatureExtractor
from featx.heads.dense import centre_and_scale
from featx.heads.evidence import find_evidence
from featx.heads.inference import Head, head_of
from featx.heads.training_loop import Training
from featx.recipe import as_image_size
from featx.system.tables import text_table
from featx.train.features import Features, load_features
from featx.train.train import train_on_features

HEADS = ("logreg", "dense", "svm", "prototypes")


def write_composites(first: Sequence[Path], second: Sequence[Path], folder: Path, side: int) -> list[Path]:
    """Write an image for each photograph of class 0 beside one of class 1, and one in the other order.

    They are PNG files, `side` pixels square. Half of one is the middle of the photograph, half as wide as high.
    """
    files = []
    for number, pair in enumerate(zip(first, second, strict=True)):
        halves = [_half(path, side) for path in pair]
        for order, name in ((1, "01"), (-1, "10")):
            files.append(folder / f"{number}-{name}.png")
            Image.fromarray(np.hstack(halves[::order])).save(files[-1])
    return files


def _test_photos(dataset: ImageDataset, label: int, n: int) -> list[Path]:
    """Return the first `n` test images of a class, by their digests."""
    rows = np.flatnonzero(dataset.is_test & (dataset.labels == label))
    rows = rows[np.argsort(dataset.digests[rows].view("S32")[:, 0], kind="stable")][:n]
    return [dataset.root / dataset.paths[row] for row in rows.tolist()]


def _half(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as photo:
        width, height = photo.size
        wanted = min(width, height // 2)
        left = (width - wanted) // 2
        middle = photo.convert("RGB").crop((left, 0, left + wanted, height))
        return np.asarray(middle.resize((side // 2, side), Image.Resampling.BILINEAR))


def write_common_halves(dataset: ImageDataset, folder: Path, n_train: int, n_test: int, side: int) -> Path:
    """Write `train/CLASS/*` and `test/CLASS/*`, PNG files whose left half is the same photograph, of another image."""
    rows = {
        (is_test, label): np.flatnonzero((dataset.is_test == is_test) & (dataset.labels == label))
        for is_test in (False, True)
        for label in range(len(dataset.class_names))
    }
    common = _half(dataset.root / dataset.paths[rows[True, 0][-1]], side)
    for (is_test, label), of_class in rows.items():
        target = folder / ("test" if is_test else "train") / dataset.class_names[label]
        target.mkdir(parents=True)
        for row in of_class[: (n_test if is_test else n_train) // len(dataset.class_names)].tolist():
            own = _half(dataset.root / dataset.paths[row], side)
            Image.fromarray(np.hstack([common, own])).save(target / f"{row}.png")
    return folder


def measure_common(features: Features, seed: int) -> list[list[str]]:
    """Return a row for each head: its accuracy, and the share of the evidence that is on the left half."""
    dataset = features.dataset
    X = features.X[dataset.is_test]
    rows = []
    for name in HEADS:
        result = train_on_features(features, name, Training(seed=seed))
        maps = _all_maps(head_of(result.model), X, _mean(features))
        half = X.shape[2] // 2
        shares = [np.abs(one[:, :, :half]).sum() / np.abs(one).sum() for one in maps]
        rows.append([name, f"{result.metrics.accuracy:.1%}", *(f"{share:.1%}" for share in shares)])
    return rows


def on_their_halves(maps: np.ndarray) -> tuple[float, float]:
    """Return the shares of composites that are right, and strictly right.

    Args:
        maps: `(2 n, h, w)`, the evidence for class 1 in composites as `write_composites` orders them.
    """
    half = maps.shape[2] // 2  # an odd column in the middle belongs to no half
    left, right = maps[:, :, :half].sum(axis=(1, 2)), maps[:, :, -half:].sum(axis=(1, 2))
    own, other = np.where(np.arange(len(maps)) % 2 == 0, [right, left], [left, right])
    return float((own > other).mean()), float(((own > 0) & (other < 0)).mean())


def gradient_times_features(head: Head, X: np.ndarray) -> np.ndarray:
    """Return `(n, h, w)`: the gradient of the score of class 1 at each image, times its features."""
    rows = X.reshape(len(X), -1).astype(np.float64)
    *hidden, last = head.layers
    active = [rows @ layer.kernel + layer.bias > 0 for layer in hidden]
    weights = np.broadcast_to(last.kernel[:, 0], (len(X), len(last.kernel)))
    for layer, is_active in zip(hidden, active, strict=True):
        weights = (weights * is_active) @ layer.kernel.T
    return (rows * weights).reshape(X.shape).sum(axis=-1)


def measure(features: Features, X: np.ndarray, seed: int) -> list[list[str]]:
    """Return a row for each head: its accuracy, and the shares of composites that are right with each formula."""
    rows = []
    for name in HEADS:
        result = train_on_features(features, name, Training(seed=seed))
        shares = map(on_their_halves, _all_maps(head_of(result.model), X, _mean(features)))
        rows.append([name, f"{result.metrics.accuracy:.1%}", *(f"{a:.1%} ({b:.1%})" for a, b in shares)])
    return rows


def _all_maps(head: Head, X: np.ndarray, mean: np.ndarray) -> list[np.ndarray]:
    """Return the evidence for class 1 with each formula, `(n, h, w)`."""
    ones = np.ones(len(X), int)
    ours, from_0 = (
        np.stack([one.map for one in find_evidence(head, X, ones, base)]) for base in (mean, np.zeros_like(mean))
    )
    return [ours, from_0, gradient_times_features(head, X)]


def _mean(features: Features) -> np.ndarray:
    X = features.X[~features.dataset.is_test]
    return centre_and_scale(X)[0].reshape(X.shape[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--composites", type=int, default=400, help="pairs of photographs, each in both orders")
    parser.add_argument("--n-train", type=int, nargs="+", default=[200, 2000, 8000])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    options = {"image_size": args.image_size}
    extract_features(args.data, cache_dir=args.cache_dir, show=True, **options)
    features = load_features(args.data, cache_dir=args.cache_dir, **options)
    with tempfile.TemporaryDirectory() as folder:
        photos = (_test_photos(features.dataset, label, args.composites) for label in (0, 1))
        files = write_composites(*photos, Path(folder), args.image_size[0])
        extractor = FeatureExtractor(cache_dir=args.cache_dir, flatten=False, **options)
        X = extractor.transform(files)
    header = ["head", "accuracy", "from the average image", "from 0", "gradient times features"]
    for n_train in args.n_train:
        some = _part(features, n_train, args.seed)
        print(f"\n{some.dataset.n_train:,} training images, {len(X):,} composites: right (strictly right)")
        print(text_table(header, measure(some, X, args.seed), n_left=1))
    with tempfile.TemporaryDirectory() as folder:
        data = write_common_halves(features.dataset, Path(folder), 600, 200, args.image_size[0])
        extract_features(data, cache_dir=args.cache_dir, show=True, **options)
        common = load_features(data, cache_dir=args.cache_dir, **options)
    print(f"\n{common.dataset.n_train:,} training images with the same left half: its share of the evidence")
    print(text_table(header, measure_common(common, args.seed), n_left=1))


def _part(features: Features, n_train: int, seed: int) -> Features:
    """Return the features with `n_train` of the training images, or all if there are no more."""
    dataset = features.dataset
    train = np.flatnonzero(~dataset.is_test)
    mask = dataset.is_test.copy()
    mask[train] = sample_mask(
        dataset.digests[train], dataset.labels[train], seed=seed, fraction=min(1.0, n_train / len(train))
    )
    return features.subset(mask)


if __name__ == "__main__":
    main()
