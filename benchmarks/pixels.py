"""What kept pixels save a second network: the same extraction with and without them, in turns.

python benchmarks/pixels.py DATA --backbone resnet50 --image-size 64 --weights WEIGHTS.h5

Each turn begins with a cache that has the converted network, the digests of the files, and pixels or not.
"""

import shutil
import statistics
import tempfile
from pathlib import Path

import click
from turns import Figures, measuring

from featx.extract.extract import extract_features
from featx.system import size

#: Computed first, so that there are pixels: a network that takes a moment.
FIRST = {"backbone": "vgg16", "weights": "random", "layer": "block1_pool", "pooling": "avg"}

#: What both have in their cache: the converted network, and the digests of the files.
SHARED = ("networks", "digests.sqlite")


def measure(data: Path, cache_dir: Path, options: dict[str, object], keep: bool) -> Figures:
    """Return the figures of an extraction into a fresh cache; with the pixels of `cache_dir` if `keep`."""
    with tempfile.TemporaryDirectory(dir=cache_dir.parent) as name:
        fresh = Path(name, "cache")
        fresh.mkdir()
        for path in cache_dir.iterdir():
            if path.name in SHARED or (keep and path.name.startswith("pixels-")):
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, fresh / path.name)
        with measuring() as figures:
            timings = extract_features(data, cache_dir=fresh, **options).timings  # type: ignore[arg-type]
        figures |= {"rate": timings.n_images / (timings.elapsed_s - timings.start_s), "n_kept": timings.n_kept}
        return figures


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--backbone", default="resnet50", show_default=True)
@click.option("--image-size", type=int, default=64, show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--weights", default="random", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def main(data: Path, backbone: str, image_size: int, precision: str, weights: str, repeats: int) -> None:
    """Measure an extraction from the files in DATA and from kept pixels."""
    options = {"backbone": backbone, "image_size": image_size, "precision": precision, "weights": weights}
    with tempfile.TemporaryDirectory(prefix="featx-pixels-") as name:
        cache_dir = Path(name, "cache")
        with measuring() as plain:
            extract_features(data, cache_dir=Path(name, "other"), image_size=image_size, **FIRST)
        with measuring() as keeping:
            extract_features(data, cache_dir=cache_dir, image_size=image_size, keep_pixels=True, **FIRST)
        (pixels,) = cache_dir.glob("pixels-*")
        n_bytes = sum(path.stat().st_size for path in pixels.iterdir())
        click.echo(f"pixels: {size(n_bytes)}; a first extraction with and without keeping them: ", nl=False)
        click.echo(f"{keeping['elapsed_s']:.1f} and {plain['elapsed_s']:.1f} s")
        extract_features(data, cache_dir=cache_dir, **options)  # converts the network
        turns: dict[bool, list[Figures]] = {False: [], True: []}
        for number in range(repeats):
            for keep in (False, True) if number % 2 == 0 else (True, False):
                turns[keep].append(measure(data, cache_dir, options, keep))
        for keep, figures in turns.items():
            rates = [one["rate"] for one in figures]
            cpu_s = statistics.median(one["cpu_s"] for one in figures)
            source = "kept pixels" if keep else "files"
            click.echo(
                f"{backbone} at {image_size} from {source}: {statistics.median(rates):.1f} images/s "
                f"({min(rates):.1f}–{max(rates):.1f}), {cpu_s:.1f} s of processor time, {figures[0]['n_kept']:,} kept"
            )
        ratios = [kept["rate"] / plain["rate"] for plain, kept in zip(turns[False], turns[True], strict=True)]
        click.echo(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
