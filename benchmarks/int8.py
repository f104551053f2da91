"""Whether int8 has holes: the cosine of each image's int8 features with its float32 features.

    featx fetch sample --to digits/
    python benchmarks/int8.py data/ --weights weights/vgg16_notop.h5 --image-size 64 --digits digits/

The images are photographs of a data set, handwritten digits, crops of scikit-learn's two photographs, and synthetic
extremes: flat colours, stripes, checkerboards, gradients and noise. Beside the mean and the least cosine, the table has
the share of images that int8 computes again in float32, and the images a second of both precisions. int8 is calibrated
on the training images of the data set.
"""

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.confidence import crops
from featx.dataset import scan
from featx.engines.engine import Engine, EngineOptions, create_engine
from featx.extract.options import resolve_recipe
from featx.images import decode_image
from featx.recipe import as_image_size

OPENVINO = EngineOptions(engine="openvino")

_Images = npt.NDArray[np.uint8]

#: Images that are in memory at a time.
N_AT_A_TIME = 512


def extremes(height: int, width: int) -> _Images:
    """Return images `(n, height, width, 3)` unlike any photograph."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    gray: list[npt.NDArray[np.integer]] = [np.full((height, width), level) for level in (0, 1, 2, 8, 32, 64, 128, 255)]
    for period in (1, 2, 3, 4, 8, 16, 32):
        checkers = (y // period + x // period) % 2
        gray += [255 * checkers, 20 * checkers, 255 * (x // period % 2), 255 * (y // period % 2)]
    gray += [255 * x // width, 255 * y // height]
    gray += [255 * (rng.random((height, width)) < share) for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)]
    gray += [rng.integers(0, levels, (height, width)) for levels in (2, 8, 32, 128, 256) for _ in range(4)]
    coloured = [np.stack([one] * 3, -1) for one in gray]
    for channel in range(3):
        pure = np.zeros((height, width, 3), int)
        pure[..., channel] = 255
        checkers = ((y // 16 + x // 16) % 2)[..., np.newaxis]
        coloured += [pure, 255 - pure, pure * checkers, (255 - pure) * checkers]
    coloured += [rng.integers(0, 256, (height, width, 3)) for _ in range(10)]
    coloured += [255 * rng.integers(0, 2, (height, width, 3)) for _ in range(10)]
    return np.array(coloured).astype(np.uint8)


def compare(name: str, images: _Images, engines: dict[str, Engine]) -> dict[str, Any]:
    """Return what a group of images comes to."""
    features, rates = {}, {}
    before = engines["int8"].n_fallback
    for precision, engine in engines.items():
        started = time.perf_counter()
        features[precision] = engine.features(images).reshape(len(images), -1).astype(np.float64)
        rates[precision] = len(images) / (time.perf_counter() - started)
    a, b = features.values()
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    is_zero = ~a.any(axis=1) & ~b.any(axis=1)  # as of a black image
    cosines = np.where(is_zero, 1.0, (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny))
    n_fallback = engines["int8"].n_fallback - before
    return {"group": name, "n": len(images), "cosines": cosines, "n_fallback": n_fallback, "rates": rates}


def print_rows(results: list[dict[str, Any]]) -> None:
    """Print a row for each group."""
    for group in dict.fromkeys(one["group"] for one in results):
        of_group = [one for one in results if one["group"] == group]
        cosines = np.concatenate([one["cosines"] for one in of_group])
        n = len(cosines)
        seconds = {
            precision: sum(one["n"] / one["rates"][precision] for one in of_group) for precision in of_group[0]["rates"]
        }
        print(
            f"| {group} | {n:,} | {cosines.mean():.4f} | {cosines.min():.4f} | {(cosines < 0.98).sum()} "
            f"| {sum(one['n_fallback'] for one in of_group) / n:.1%} "
            f"| {n / seconds['float32']:,.0f} | {n / seconds['int8']:,.0f} |",
            flush=True,
        )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="train/CLASS/* with test/CLASS/*")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(64, 64))
    parser.add_argument("--images", type=int, default=10_000, help="photographs of the data set, at most")
    parser.add_argument("--crops", type=int, default=4000, help="crops of each of scikit-learn's photographs")
    parser.add_argument("--digits", type=Path, help="where featx fetch sample has put its digits")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    args = parser.parse_args()
    dataset = scan(args.data_dir, args.cache_dir, to_train=False)
    engines = {}
    for precision in ("float32", "int8"):
        recipe, weights = resolve_recipe(
            args.cache_dir,
            dataset,
            backbone=args.backbone,
            weights=args.weights,
            image_size=args.image_size,
            precision=precision,
        )
        engines[precision] = create_engine(recipe, weights, args.cache_dir, dataset, OPENVINO, show=True)
    rows = np.linspace(0, dataset.n_images - 1, min(args.images, dataset.n_images)).astype(int)
    files = {"photographs": [dataset.root / dataset.paths[row] for row in rows]}
    if args.digits:
        files["digits"] = sorted(args.digits.rglob("*.png"))
    groups: dict[str, Any] = {
        **files,
        "crops": [one for some in crops(args.crops).values() for one in some],
        "extremes": extremes(*args.image_size),
    }
    print("| images | n | mean cosine | least | below 0.98 | again in float32 | float32/s | int8/s |")
    print("|---|---|---|---|---|---|---|---|")
    with closing(engines["float32"]), closing(engines["int8"]):
        for name, group in groups.items():
            results = []
            for start in range(0, len(group), N_AT_A_TIME):
                pixels = [_pixels(one, args.image_size) for one in group[start : start + N_AT_A_TIME]]
                results.append(compare(name, np.array(pixels), engines))
            print_rows(results)


def _pixels(image: Path | _Images, image_size: tuple[int, int]) -> _Images:
    if isinstance(image, Path):
        return decode_image(image.read_bytes(), image_size)
    height, width = image_size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


if __name__ == "__main__":
    main()
