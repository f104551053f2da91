"""A store of a million rows: opened, joined with its data set, and trained on within a bound of memory.

    python benchmarks/million.py /tmp/million --shape 512
    python benchmarks/million.py /tmp/million --shape 4,4,512 --rows 1000000 --memory 4GiB

Makes image files of 62 bytes each, of which every one is another, and a store of features that are noise with a little
of the class in it; both stay in the folder for the next time. Each measurement is a process of its own, with the peak
of its resident memory. `deliver` is what reading and checking the training features takes when nothing is done with
them, by the same code, before and after each head; MB/s are of these features, for an epoch and for a pass.
`extract` begins with nothing: it digests and decodes all images, and stores what the first block of VGG16 makes of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset.image_dataset import ImageDataset
from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.recipe import Recipe
from featx.store.feature_array import FeatureArray
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system.arguments import parse_size, size
from featx.system.machine import MemoryLimit, peak_memory_bytes
from featx.system.timings import Timings
from featx.train.features import Features, stored_features

CLASSES = ("cats", "dogs")
N_FOLDERS = 200
SEGMENT_BYTES = 32 << 20
RESIDENT_BYTES = 1 << 30
TEST_SHARE = 10
#: What extraction is measured with: hours of a whole VGG16 would say the same about memory.
SMALL_NETWORK: dict[str, Any] = {"weights": "random", "layer": "block1_pool", "pooling": "avg", "image_size": (32, 32)}
#: Of the features, how far the means of the two classes are apart, in standard deviations of one feature.
SIGNAL = 0.02


def recipe_of(shape: tuple[int, ...]) -> Recipe:
    """Return a recipe whose features have this shape; the layer's name tells shapes apart."""
    layer = "noise_" + "x".join(map(str, shape))
    return Recipe(backbone="vgg16", weights="random-0", layer=layer, image_size=(150, 150), preprocessing="caffe")


def make_images(folder: Path, n_rows: int) -> None:
    """Write `n_rows` BMP files of two pixels, in which the number of the file is written."""
    header = bytes.fromhex(
        "424d3e000000000000003600000028000000020000000100000001001800000000000800000000000000000000000000000000000000"
    )
    for number, images in enumerate(np.array_split(np.arange(n_rows), N_FOLDERS)):
        split = "test" if number % TEST_SHARE == 0 else "train"
        inner = folder / split / CLASSES[(number + number // TEST_SHARE) % 2] / f"{number:03}"
        inner.mkdir(parents=True, exist_ok=True)
        for image in images.tolist():
            (inner / f"{image:08}.bmp").write_bytes(header + image.to_bytes(8, "little"))


def make_store(store: FeatureStore, dataset: ImageDataset, shape: tuple[int, ...]) -> None:
    """Write features of all images of `dataset`, in its order, as an extraction does."""
    rng = np.random.default_rng(0)
    n_features = int(np.prod(shape))
    noise = rng.standard_normal(1 << 24, np.float32)
    direction = rng.choice([-1, 1], n_features).astype(np.float32) * SIGNAL / 2
    rows_each = max(1, SEGMENT_BYTES // (2 * n_features))
    for start in range(0, dataset.n_images, rows_each):
        digests = dataset.digests[start : start + rows_each]
        labels = dataset.labels[start : start + rows_each]
        offsets = rng.integers(0, len(noise) - n_features, len(digests))
        features = np.stack([noise[offset : offset + n_features] for offset in offsets])
        features += np.where(labels, 1, -1)[:, np.newaxis] * direction
        cost = Timings(len(digests), elapsed_s=len(digests) * 0.01)
        store.write_segment(
            new_segment_name(), features.astype(np.float16).reshape(-1, *shape), digests, lambda cost=cost: cost
        )


def measured(job: Callable[[], dict[str, Any]]) -> None:
    """Print what `job` returns, its time, and the peak of this process's memory, as JSON."""
    started, cpu_started = time.perf_counter(), time.process_time()
    figures = job()
    elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    figures = {"elapsed_s": elapsed_s, "cpu_s": cpu_s, "peak_memory_bytes": peak_memory_bytes()} | figures
    print(json.dumps(figures))


class Jobs:
    """What is measured, each in a process of its own."""

    def __init__(self, folder: Path, shape: tuple[int, ...], memory: int) -> None:
        self.data_dir, self.cache_dir = folder / "data", folder / "cache"
        self.extracted_dir = folder / "extracted"
        self.recipe, self.memory = recipe_of(shape), MemoryLimit(memory)
        self.row_bytes = 2 * int(np.prod(shape))

    def open(self) -> dict[str, Any]:
        """Open the store."""
        return {"rows": len(FeatureStore(self.cache_dir, self.recipe))}

    def scan(self) -> dict[str, Any]:
        """List the data set and look up all digests."""
        return {"images": scan(self.data_dir, self.cache_dir).n_images}

    def digest(self) -> dict[str, Any]:
        """List the data set and digest all files, of which nothing is known yet."""
        with tempfile.TemporaryDirectory(dir=self.cache_dir) as folder:
            return {"images": scan(self.data_dir, Path(folder)).n_images}

    def join(self) -> dict[str, Any]:
        """Join the data set with the store; opening both is not counted."""
        dataset, store = scan(self.data_dir, self.cache_dir), FeatureStore(self.cache_dir, self.recipe)
        started, cpu_started = time.perf_counter(), time.process_time()
        features = stored_features(dataset, store, "", self.memory)
        elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        return {"elapsed_s": elapsed_s, "cpu_s": cpu_s, "rows": len(features.X)}

    def deliver(self) -> dict[str, Any]:
        """Read and check all training features, and do nothing with them."""
        X = self._train_rows()
        started = time.perf_counter()
        n_bytes = sum(features.nbytes for _, features in X.in_order())
        elapsed_s = time.perf_counter() - started
        return {"elapsed_s": elapsed_s, "read_s": elapsed_s, "n_bytes": n_bytes}

    def dense(self) -> dict[str, Any]:
        """Train the dense head for one epoch and for two: the difference is an epoch, validation included."""
        return self._epoch_of(self._features())

    def resident(self) -> dict[str, Any]:
        """Do the same with as many rows as fit in memory: at what rate is the head trained if nothing is read?"""
        features = self._features()
        mask = np.random.default_rng(0).random(features.dataset.n_images) < RESIDENT_BYTES / (
            self.row_bytes * features.dataset.n_images
        )
        some = features.subset(mask)
        some = replace(some, X=some.X[:])
        figures = self._epoch_of(some)
        # As if it had been all rows, to be compared with those.
        return figures | {"read_s": figures["read_s"] * features.dataset.n_train / some.dataset.n_train}

    def _epoch_of(self, features: Features) -> dict[str, Any]:
        from featx.train.train import train_on_features

        one, two = (train_on_features(features, "dense", Training(epochs=n, memory=self.memory)) for n in (1, 2))
        return {"read_s": two.fit_s - one.fit_s, "accuracy": two.metrics.accuracy, "fit_s": two.fit_s}

    def logreg(self) -> dict[str, Any]:
        """Fit logistic regression."""
        started = time.perf_counter()
        from featx.heads import streamed_logistic
        from featx.train.train import train_on_features

        passes: list[float] = []
        at = streamed_logistic._Objective.at  # noqa: SLF001 - to time a pass

        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            result = at(*args)
            passes.append(time.perf_counter() - began)
            return result

        streamed_logistic._Objective.at = timed  # type: ignore[method-assign]  # noqa: SLF001
        result = train_on_features(self._features(), "logreg", Training(memory=self.memory))
        return {
            "elapsed_s": time.perf_counter() - started,
            "read_s": float(np.median(passes)),
            "passes": len(passes),
            "accuracy": result.metrics.accuracy,
            "fit_s": result.fit_s,
        }

    def verify(self) -> dict[str, Any]:
        """Read and check everything in the store."""
        from featx.store.verification import check_store

        check = check_store(self.cache_dir / self.recipe.slug)
        return {"rows": check.n_rows, "damages": [damage.reason for damage in check.damages]}

    def compact(self) -> dict[str, Any]:
        """Look for small segments to merge."""
        from featx.store.compaction import compact

        return {"rows": compact(FeatureStore(self.cache_dir, self.recipe)).n_rows}

    def extract(self) -> dict[str, Any]:
        """Compute features of all images from the start: digest, decode, and send them through a network."""
        shutil.rmtree(self.extracted_dir, ignore_errors=True)
        return self.again()

    def again(self) -> dict[str, Any]:
        """Do the same when nothing is missing."""
        extraction = extract_features(self.data_dir, cache_dir=self.extracted_dir, show=True, **SMALL_NETWORK)
        return {"computed": extraction.n_computed, "cached": extraction.n_cached}

    def verify_extracted(self) -> dict[str, Any]:
        """Read and check what was extracted."""
        from featx.store.verification import check_store

        (store_dir,) = (path.parent for path in self.extracted_dir.glob("*/recipe.json"))
        return {"rows": check_store(store_dir).n_rows}

    def _features(self) -> Features:
        dataset = scan(self.data_dir, self.cache_dir)
        return stored_features(dataset, FeatureStore(self.cache_dir, self.recipe), "", self.memory)

    def _train_rows(self) -> FeatureArray:
        features = self._features()
        assert isinstance(features.X, FeatureArray), "these features fit in memory: nothing would be streamed"
        return features.X.take(~features.dataset.is_test)


JOBS = (
    "open",
    "digest",
    "scan",
    "join",
    "verify",
    "compact",
    "deliver",
    "dense",
    "deliver",
    "resident",
    "logreg",
    "deliver",
    "extract",
    "again",
    "verify_extracted",
)


def prepare(jobs: Jobs, folder: Path, shape: tuple[int, ...], n_rows: int) -> None:
    """Make what is not there yet."""
    if not jobs.data_dir.exists():
        make_images(jobs.data_dir, n_rows)
    dataset = scan(jobs.data_dir, jobs.cache_dir, show=True)
    assert dataset.n_images == n_rows, f"{folder} is of {dataset.n_images} images: choose another folder"
    store = FeatureStore(jobs.cache_dir, jobs.recipe)
    if not store.segments:
        make_store(store, dataset, shape)
        store.publish()


def forget(folder: Path) -> None:
    """Have the system drop the store's files from its cache."""
    for path in folder.rglob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        with suppress(OSError):
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def run_all(
    folder: Path, shape: str, memory: str, names: Sequence[str], *, cold: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each job's name and figures."""
    for name in names:
        if cold:
            forget(folder / "cache")
        words = [sys.executable, __file__, str(folder), "--shape", shape, "--memory", memory]
        done = subprocess.run([*words, "--job", name], stdout=subprocess.PIPE, text=True, check=True)
        yield name, json.loads(done.stdout.splitlines()[-1])


def print_line(name: str, figures: dict[str, Any], n_bytes: int) -> None:
    """Print a job's figures; of one that reads all training features, of which there are `n_bytes`, at what rate."""
    read_s = figures.pop("read_s", None)
    rate = f"{n_bytes / read_s / 1e6:,.0f} MB/s" if read_s else ""
    elapsed_s, peak = figures.pop("elapsed_s"), size(figures.pop("peak_memory_bytes"))
    figures.pop("cpu_s")
    print(f"{name:<16} {elapsed_s:>8.2f} s  peak {peak:>9}  {rate:>10}  {figures}", flush=True)


def main() -> None:
    """Parse, make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where images and stores are made, and stay")
    parser.add_argument("--shape", default="512", help="of one image's features, like 4,4,512")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--cold", action="store_true", help="drop files from the system's cache before each")
    parser.add_argument("--only", nargs="+", choices=sorted(set(JOBS)), help="measure these alone")
    parser.add_argument("--job", choices=sorted(set(JOBS)), help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = tuple(map(int, args.shape.split(",")))
    jobs = Jobs(args.folder, shape, parse_size(args.memory))
    if args.job:
        measured(getattr(jobs, args.job))
        return
    prepare(jobs, args.folder, shape, args.rows)
    n_bytes = args.rows * int(np.prod(shape)) * 2 * (TEST_SHARE - 1) // TEST_SHARE
    for name, figures in run_all(args.folder, args.shape, args.memory, args.only or JOBS, cold=args.cold):
        print_line(name, figures, n_bytes)


if __name__ == "__main__":
    main()
