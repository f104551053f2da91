"""What it costs to turn image files into batches of pixels: processor time per image, step by step.

Run it as `python benchmarks/decode.py DATA`, on a folder of JPEG files. The time is this process's own, user and
system, so that neither the disk nor other programs count, apart from the caches they share; each figure is the median
of several passes over files that the system has in memory. Only the last line, whether threads share the work, is by
the clock.
"""
# ruff: noqa: SLF001 - the steps are those of featx.images.decode

import hashlib
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from featx.dataset.loader import read_batches
from featx.images import decode
from featx.system.machine import n_cores

BATCH_SIZE = 32


def time_steps(paths: list[Path], image_size: tuple[int, int]) -> dict[str, float]:
    """Return the µs per image of each step, one image after the other in this thread."""
    pixels = np.empty((BATCH_SIZE, *image_size, 3), np.uint8)
    spent: dict[str, int] = {}
    started = 0

    def lap(step: str) -> None:
        nonlocal started
        spent[step] = spent.get(step, 0) + time.thread_time_ns() - started
        started = time.thread_time_ns()

    with decode.quiet_pillow():
        for i, path in enumerate(paths):
            started = time.thread_time_ns()
            data = decode.read_file(path)
            lap("open and read the file")
            hashlib.sha256(data).digest()
            lap("SHA-256")
            image = decode._open(data)
            lap("parse the header")
            box = decode._choose_jpeg_scale(image, image_size) or (0, 0, *image.size)
            lap("choose the scale")
            image.load()
            lap("decode the JPEG")
            decode._orientation(image)
            rgb = decode._rgb(image, data)
            lap("orientation and RGB")
            resized = decode._resize(rgb, image_size, box)
            lap("resize")
            pixels[i % BATCH_SIZE] = np.asarray(resized)
            lap("copy to the batch")
    return {step: nanoseconds / 1000 / len(paths) for step, nanoseconds in spent.items()}


def time_decoding(paths: list[Path], image_size: tuple[int, int]) -> float:
    """Return the µs per image of all steps together, without the stops in between."""
    pixels = np.empty((*image_size, 3), np.uint8)
    with decode.quiet_pillow():
        started = time.thread_time()
        for path in paths:
            data = decode.read_file(path)
            hashlib.sha256(data).digest()
            decode.decode_into(pixels, data)
        return (time.thread_time() - started) * 1e6 / len(paths)


def time_reader(
    paths: list[Path], digests: np.ndarray, image_size: tuple[int, int], workers: int
) -> tuple[float, float]:
    """Return the µs per image of `read_batches` with so many threads: of processor time, and by the clock."""
    busy, started = time.process_time(), time.perf_counter()
    for batch in read_batches(paths, digests, image_size, BATCH_SIZE, workers):
        assert not batch.unreadable
    spent = time.process_time() - busy, time.perf_counter() - started
    return spent[0] * 1e6 / len(paths), spent[1] * 1e6 / len(paths)


def measure(data_dir: Path, image_size: tuple[int, int], n_images: int = 2000, passes: int = 5) -> dict[str, Any]:
    """Return what decoding costs, on JPEG files picked evenly from `data_dir`: µs of processor time per image.

    `steps_us`: by step; `decode_us`: all of them in one go; `reader_us`: `read_batches` with one thread, the batches
    and the threads' bookkeeping included; `per_core`: images a second that leaves one core; `speedup`: how many times
    faster by the clock `read_batches` is with a thread for each of `cores` than with one.
    """
    paths = sorted(data_dir.rglob("*.jp*g"))
    paths = paths[:: max(1, len(paths) // n_images)][:n_images]
    digests = np.array([list(hashlib.sha256(path.read_bytes()).digest()) for path in paths], np.uint8)
    cores = n_cores()
    steps = [time_steps(paths, image_size) for _ in range(passes)]
    # In turn, so that what else goes on in the machine meets both.
    readers = np.array([[time_reader(paths, digests, image_size, n) for n in (1, cores)] for _ in range(passes)])
    reader_us = float(np.median(readers[:, 0, 0]))
    return {
        "image_size": image_size,
        "n_images": len(paths),
        "steps_us": {step: float(np.median([run[step] for run in steps])) for step in steps[0]},
        "decode_us": float(np.median([time_decoding(paths, image_size) for _ in range(passes)])),
        "reader_us": reader_us,
        "per_core": 1e6 / reader_us,
        "cores": cores,
        "speedup": float(np.median(readers[:, 0, 1] / readers[:, 1, 1])),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown, a column for each image size."""
    columns = []
    for result in results:
        height, width = result["image_size"]
        figures = [*result["steps_us"].values(), result["decode_us"], result["reader_us"], result["per_core"]]
        columns.append(
            [f"{height}×{width}", "---", *(f"{figure:.0f}" for figure in figures), f"{result['speedup']:.2f}"]
        )
    names = ["µs per image", "---", *results[0]["steps_us"], "all of them in one go", "`read_batches`"]
    names += ["images/s for each core", f"times faster with {results[0]['cores']} threads than with one"]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(names, *columns, strict=True))


@click.command()
@click.argument("data_dir", metavar="DATA", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--side", "sides", type=int, multiple=True, default=(64, 224), show_default=True)
@click.option("--n-images", default=2000, show_default=True)
def main(data_dir: Path, sides: tuple[int, ...], n_images: int) -> None:
    """Print what decoding the JPEG files in DATA costs, as a Markdown table."""
    print(table([measure(data_dir, (side, side), n_images) for side in sides]))


if __name__ == "__main__":
    main()
