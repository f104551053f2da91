"""Whether decoding, storing and travelling keep a GPU waiting: featx's whole pipeline against the network alone.

    KERAS_BACKEND=torch python benchmarks/gpu.py [DATA] --json

For each backbone, images per second of

- `decode`: JPEG files to pixels, and nothing else;
- `engine`: featx's engine, fed with pixels from memory: the most that the network can do here;
- `model`: the same Keras model in a plain loop over `predict_on_batch`, as one would write it without featx;
- `end to end`: `featx.extract_features` from JPEG files to a store, the scan of the folder and the digests included,
  the start of Keras and the compilation of the network left out;

and `end to end / engine`, which is to be at least 0.8 where 16 cores decode for one GPU. Each figure is the median of
several rounds in one process; nothing is measured before it has run once.

What limits a fast GPU, in this order:

1. Processor time. A photograph of 500×375 pixels costs about 2 ms: read, digested, decoded, resized. 16 cores do at
   most 8,000 of them a second, and give some of that to what follows.
2. Python's lock. Decoding, resizing, digests of files and the network run without it; opening a file, reading its
   header and handing over the pixels hold it for about 70 µs, so that no number of threads gets past some 14,000
   images a second, and threads that wait for each other stay well below. The thread that feeds the GPU needs the lock,
   too: it keeps two batches on the device, so that it may come late.
3. The disk. In float16, VGG16 has 50 KB of features an image, ResNet50 200 KB: 10,000 images a second are 2 GB/s, to be
   converted, checksummed and written.

If `decode` is near `end to end`, the first two are to blame, and more cores or smaller images would help; if `decode`
is far above and `waited` names the disk, the third.
"""

import importlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from photos import make_photos

from featx import extract_features
from featx.backbones.build import build_model
from featx.backbones.table import BACKBONES
from featx.dataset.image_dataset import ImageDataset
from featx.dataset.loader import read_batches
from featx.dataset.scanning import scan
from featx.engines.engine import EngineOptions, default_batch_size
from featx.engines.keras_engine import KerasEngine
from featx.extract.options import resolve_recipe
from featx.recipe import Recipe
from featx.system.late_imports import import_keras, keras_backend
from featx.system.machine import n_cores

Figures = dict[str, Any]

#: Photographs that are made; the others are copies with another comment, which cost as much to decode.
N_MADE = 64

#: Batches of pixels held in memory, so that the engine is not fed with the same numbers all the time.
N_BATCHES = 4


def make_many_photos(folder: Path, n: int) -> Path:
    """Return a folder `CLASS/*` with `n` JPEG files of 500×375 pixels, no two of which have the same bytes."""
    made = sorted(make_photos(folder / "made", min(n, N_MADE)).rglob("*.jpg"))
    for number, path in zip(range(n), itertools.cycle(made), strict=False):
        copy = folder / "photos" / path.parent.name / f"{number:06d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        start, rest = path.read_bytes()[:2], path.read_bytes()[2:]
        comment = b"\xff\xfe\x00\x0a" + f"{number:08d}".encode("ascii")  # marker, length, text
        copy.write_bytes(start + comment + rest)
    return folder / "photos"


def rate_of_decoding(dataset: ImageDataset, image_size: tuple[int, int], batch_size: int, workers: int) -> float:
    """Return how many images a second become pixels."""
    paths = [dataset.root / path for path in dataset.paths]
    started = time.perf_counter()
    n = sum(len(batch.rows) for batch in read_batches(paths, dataset.digests, image_size, batch_size, workers))
    return n / (time.perf_counter() - started)


def first_batches(dataset: ImageDataset, image_size: tuple[int, int], batch_size: int) -> list[np.ndarray]:
    """Return a few batches of pixels."""
    n = min(len(dataset.paths), N_BATCHES * batch_size)
    paths = [dataset.root / path for path in dataset.paths[:n]]
    return [batch.images for batch in read_batches(paths, dataset.digests[:n], image_size, batch_size)]


def rate_of_engine(engine: KerasEngine, batches: Sequence[np.ndarray], n_images: int) -> float:
    """Return how many images a second the engine computes, fed from memory."""
    under_way: deque[Any] = deque()
    n = 0
    started = time.perf_counter()
    for images in itertools.cycle(batches):
        if n >= n_images:
            break
        under_way.append(engine.submit(images))
        n += len(images)
        if len(under_way) > engine.depth:
            under_way.popleft().result()
    while under_way:
        under_way.popleft().result()
    return n / (time.perf_counter() - started)


def rate_of_model(model: Any, batches: Sequence[np.ndarray], n_images: int) -> float:
    """Return how many images a second the Keras model computes in a plain loop, full batches alone."""
    full = [images for images in batches if len(images) == len(batches[0])]
    np.asarray(model.predict_on_batch(full[0]))
    n_batches = max(1, n_images // len(full[0]))
    started = time.perf_counter()
    for images in itertools.islice(itertools.cycle(full), n_batches):
        np.asarray(model.predict_on_batch(images))
    return n_batches * len(full[0]) / (time.perf_counter() - started)


def run_pipeline(data_dir: Path, folder: Path, workers: int, batch_size: int, options: dict[str, Any]) -> Figures:
    """Return the images per second of a whole extraction, and what it waited for."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        started = time.perf_counter()
        extraction = extract_features(
            data_dir, cache_dir=Path(cache), engine="keras", batch_size=batch_size, workers=workers, **options
        )
        elapsed_s = time.perf_counter() - started
    timings = extraction.timings
    return {
        "rate": extraction.n_computed / (elapsed_s - timings.start_s),
        "waited_s": {"decode": timings.decode_s, "network": timings.forward_s, "disk": timings.write_s},
        "start_s": timings.start_s,
        "peak_memory_bytes": timings.peak_memory_bytes,
    }


def gpu_peak_bytes() -> int | None:
    """Return the most memory that was in use on the GPU since the process started; None where there is none."""
    backend = importlib.import_module(keras_backend())
    if keras_backend() == "torch":
        return int(backend.cuda.max_memory_allocated()) if backend.cuda.is_available() else None
    if keras_backend() == "jax":
        memory = backend.local_devices()[0].memory_stats()
        return int(memory["peak_bytes_in_use"]) if memory else None
    has_gpu = bool(backend.config.list_physical_devices("GPU"))
    return int(backend.config.experimental.get_memory_info("GPU:0")["peak"]) if has_gpu else None


def device_name() -> str:
    """Return what the backend computes on."""
    backend = importlib.import_module(keras_backend())
    if keras_backend() == "torch":
        return str(backend.cuda.get_device_name()) if backend.cuda.is_available() else "CPU"
    if keras_backend() == "jax":
        return str(backend.local_devices()[0].device_kind)
    gpus = backend.config.list_physical_devices("GPU")
    return str(backend.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else "CPU"


def measure(
    recipe: Recipe, data_dir: Path, folder: Path, rounds: int, batch_size: int | None, workers: int, options: Figures
) -> Figures:
    """Return the figures of one backbone."""
    _, weights = resolve_recipe(folder / "weights", **options)
    dataset = scan(data_dir, folder / "digests")
    n = len(dataset.paths)
    engine = KerasEngine(recipe, weights, min(n, batch_size or default_batch_size(EngineOptions(engine="keras"))))
    model = build_model(recipe, weights.path, recipe.precision)
    batches = first_batches(dataset, recipe.image_size, engine.batch_size)
    rate_of_engine(engine, batches, len(batches[0]))
    laps: dict[str, list[float]] = {"decode": [], "engine": [], "model": [], "end_to_end": [], "ratio": []}
    runs: list[Figures] = []
    for _ in range(rounds):
        laps["decode"].append(rate_of_decoding(dataset, recipe.image_size, engine.batch_size, workers))
        laps["engine"].append(rate_of_engine(engine, batches, n))
        laps["model"].append(rate_of_model(model, batches, n))
        runs.append(run_pipeline(data_dir, folder, workers, engine.batch_size, options))
        laps["end_to_end"].append(runs[-1]["rate"])
        laps["ratio"].append(laps["end_to_end"][-1] / laps["engine"][-1])
    engine.close()
    return {
        "backbone": recipe.backbone,
        "image_size": recipe.image_size,
        "precision": recipe.precision,
        "n_images": n,
        "batch_size": engine.batch_size,
        "images_per_second": {name: statistics.median(laps[name]) for name in laps if name != "ratio"},
        "end_to_end_to_engine": statistics.median(laps["ratio"]),
        "waited_s": runs[-1]["waited_s"],
        "start_s": runs[-1]["start_s"],
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "gpu_peak_memory_bytes": gpu_peak_bytes(),
        "rounds": laps,
    }


def print_figures(figures: Figures) -> None:
    """Print the figures of one backbone."""
    height, width = figures["image_size"]
    waited = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in figures["waited_s"].items())
    print(f"\n{figures['backbone']} {height}×{width} {figures['precision']}, batches of {figures['batch_size']}")
    for name, rate in figures["images_per_second"].items():
        print(f"  {name.replace('_', ' '):11} {rate:9,.1f} images/s")
    print(f"  end to end / engine: {figures['end_to_end_to_engine']:.2f}; waited for {waited}", end="")
    print(f"; start {figures['start_s']:.1f} s; memory {figures['peak_memory_bytes'] / 2**30:.2f} GiB", end="")
    gpu_peak = figures["gpu_peak_memory_bytes"]
    print(f", GPU {gpu_peak / 2**30:.2f} GiB" if gpu_peak else "", flush=True)


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--backbone", "backbones", multiple=True, type=click.Choice(list(BACKBONES)), help="Repeatable.")
@click.option("--pixels", default=224, show_default=True, help="Side of the images that the network sees.")
@click.option("--precision", default="bfloat16", show_default=True, type=click.Choice(["bfloat16", "float32"]))
@click.option("--images", "n_images", default=8192, show_default=True, help="Photographs to make if there is no DATA.")
@click.option("--batch-size", type=int, help="Default: featx's own.")
@click.option("--workers", type=int, default=n_cores, show_default="one a core", help="Decoding threads.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--weights", default="random", show_default=True, help="As for featx extract.")
@click.option(
    "--work-dir", type=click.Path(path_type=Path), help="Where photographs and stores are written for a while."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    data: Path | None,
    backbones: tuple[str, ...],
    pixels: int,
    precision: str,
    n_images: int,
    batch_size: int | None,
    workers: int,
    rounds: int,
    weights: str,
    work_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure featx's pipeline from the JPEG files in DATA against the network alone, on the GPU if there is one.

    Without DATA, photographs of 500x375 pixels are made. What must be installed: keras, numpy, pillow, h5py, click,
    tqdm, scikit-learn, threadpoolctl, and the backend that the variable KERAS_BACKEND names: torch, jax, or, if it is
    not set, tensorflow.

    \b
      KERAS_BACKEND=jax python benchmarks/gpu.py --backbone vgg16
      python benchmarks/gpu.py --pixels 64 --images 512 --rounds 1   # a first try
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import_keras()
    results = []
    with tempfile.TemporaryDirectory(dir=work_dir) as name:
        folder = Path(name)
        data_dir = data or make_many_photos(folder, n_images)
        for backbone in backbones or ("vgg16", "resnet50"):
            options: Figures = {
                "backbone": backbone,
                "weights": weights,
                "image_size": (pixels, pixels),
                "precision": precision,
            }
            recipe, _ = resolve_recipe(folder / "weights", **options)
            results.append(measure(recipe, data_dir, folder, rounds, batch_size, workers, options))
            if not as_json:
                print_figures(results[-1])
    if as_json:
        machine = {"backend": keras_backend(), "device": device_name(), "n_cores": n_cores(), "workers": workers}
        print(json.dumps({**machine, "backbones": results}, indent=2))


if __name__ == "__main__":
    main()
