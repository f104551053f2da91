"""What decoding a JPEG at reduced scale costs in quality and saves in time: the evidence for `JPEG_SCALE_MARGIN`.

Run it as `python benchmarks/jpeg_scale.py [FOLDER]`, on the JPEGs of a folder or on scikit-learn's two sample photos.
Figures are mean absolute differences in grey levels of 255 after the same resize, between: decoding at reduced scale;
decoding in full; the JPEG encoded once more at quality 95, a yardstick; and the pixels before they became a JPEG.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SCALES = (2, 4, 8)
MARGINS = (1, 1.5, 2, 3, 4, 6)
QUALITIES = (60, 75, 90, 95)
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def encode(photo: Image.Image, quality: int, subsampling: int) -> bytes:
    """Return `photo` as a JPEG file."""
    stream = BytesIO()
    photo.save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def resized(data: bytes, size: tuple[int, int], scale: int = 1) -> np.ndarray:
    """Return the JPEG decoded at 1/`scale` and resized to `(width, height)`, as float64."""
    image = Image.open(BytesIO(data))
    box = (0.0, 0.0, float(image.width), float(image.height))
    if scale > 1:
        drafted = image.draft(None, (image.width // scale, image.height // scale))
        assert drafted is not None
        box = drafted[1]
    small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, box)
    return np.asarray(small, dtype=np.float64)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean absolute difference in grey levels of 255."""
    return float(np.abs(a - b).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in decibels."""
    return float(10 * np.log10(255**2 / max(float(((a - b) ** 2).mean()), 1e-9)))


def sample_photos() -> Iterator[tuple[bytes, Image.Image]]:
    """Yield scikit-learn's photos as JPEGs of every quality and subsampling, each with the pixels it was made from.

    The crop shifts the photo against the 8×8 blocks it once was compressed in, and has sides that no scale divides.
    """
    for pixels in load_sample_images().images:
        whole = Image.fromarray(pixels)
        for photo in (whole, whole.crop((3, 5, 636, 426))):
            for quality, subsampling in itertools.product(QUALITIES, SUBSAMPLINGS.values()):
                yield encode(photo, quality, subsampling), photo


def folder_photos(folder: Path, limit: int = 200) -> Iterator[tuple[bytes, Image.Image]]:
    """Yield the first JPEGs of a folder, each with its own pixels."""
    for path in sorted(folder.rglob("*.jp*g"))[:limit]:
        data = path.read_bytes()
        yield data, Image.open(BytesIO(data)).convert("RGB")


def compare(data: bytes, original: Image.Image, scale: int, margin: float) -> list[float]:
    """Return one JPEG's figures, in the order of the table's columns."""
    size = (max(1, int(original.width / scale / margin)), max(1, int(original.height / scale / margin)))
    truth = np.asarray(original.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)
    full, reduced = resized(data, size), resized(data, size, scale)
    again = resized(encode(Image.open(BytesIO(data)).convert("RGB"), 95, 2), size)
    return [
        mean_difference(full, reduced),
        -psnr(full, reduced),  # negative, so that the largest is the worst of every column
        mean_difference(full, again),
        mean_difference(truth, full),
        mean_difference(truth, reduced),
    ]


def time_large(scale: int, repeats: int = 7) -> float:
    """Return the best time in ms to decode a 12-megapixel JPEG at 1/`scale` and resize it to 224×224."""
    photo = Image.fromarray(load_sample_images().images[0]).resize((4000, 3000), Image.Resampling.BICUBIC)
    data = encode(photo, 90, 2)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        resized(data, (224, 224), scale)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder of photographs; scikit-learn's if not given")
    folder = parser.parse_args().folder
    photos = list(folder_photos(folder) if folder else sample_photos())
    print(f"{len(photos)} JPEGs, mean (worst)\n")
    print("| scale | margin | reduced to full | PSNR | re-encoded to full | full to original | reduced to original |")
    print("|---|---|---|---|---|---|---|")
    for scale, margin in itertools.product(SCALES, MARGINS):
        figures = np.array([compare(data, original, scale, margin) for data, original in photos])
        cells = [f"{abs(a):.2f} ({abs(b):.2f})" for a, b in zip(figures.mean(axis=0), figures.max(axis=0), strict=True)]
        print(f"| 1/{scale} | {margin:g} | {' | '.join(cells)} |")
    print("\n| 4000×3000 JPEG to 224×224 | time |\n|---|---|")
    for scale in (1, *SCALES):
        print(f"| decoded at 1/{scale} | {time_large(scale):.0f} ms |")


if __name__ == "__main__":
    main()
