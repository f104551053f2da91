"""What stage one promises, measured on a real data set with real processes and real signals.

    python benchmarks/main_job.py DATA --weights vgg16_weights_notop.h5 --image-size 64

prints, one line each: the whole-process time of an extraction with nothing to do; what adding 100 images, renaming all
and relabelling computes; whether a store that was killed ten times equals an undisturbed one, bit for bit; whether h5py
alone reads the features from another folder after the cache was moved; peak memory for 1,000 and for all images.
"""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import h5py
import numpy as np

KILLS = 10
WARM_RUNS = 7
#: Segments of the killed runs are closed earlier than the usual 60 s, so that ten kills meet ten segments.
KILLED_SEGMENT_AGE_S = 4.0
KILLED = f"""
import featx.store.segment_writer
from featx.cli.main import main
featx.store.segment_writer.SEGMENT_AGE_S = {KILLED_SEGMENT_AGE_S}
main()
"""

BARE_READER = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    print(file["features"].shape, float(abs(file["features"][:]).mean()))
assert not {"featx", "tensorflow", "sklearn"} & set(sys.modules)
"""


class Featx:
    """Runs `featx extract` with the same options on any folder and cache."""

    def __init__(self, options: list[str]) -> None:
        self.options = options

    def command(self, data: Path, cache: Path) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "featx", "extract", str(data), "--cache-dir", str(cache), "--json", *self.options]

    def extract(self, data: Path, cache: Path) -> dict:
        """Run to the end and return the summary."""
        done = subprocess.run(self.command(data, cache), stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)


def linked_copy(data: Path, to: Path, *, part: slice = slice(None)) -> Path:
    """Return a copy of a data set made of hard links or, across file systems, of copies."""
    for folder in sorted(path for path in data.glob("*/*") if path.is_dir()):
        target = to / folder.relative_to(data)
        target.mkdir(parents=True)
        for path in sorted(folder.iterdir())[part]:
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copy2(path, target / path.name)
    return to


def rows_of(store_dir: Path) -> dict[bytes, bytes]:
    """Return the features of a store by digest, read from its segments."""
    rows: dict[bytes, bytes] = {}
    for path in store_dir.glob("seg-*.h5"):
        with h5py.File(path) as file:
            rows |= dict(zip(map(bytes, file["digest"][:]), map(bytes, file["features"][:]), strict=True))
    return rows


def report_warm(featx: Featx, data: Path, cache: Path) -> None:
    """Print how long a run with nothing to do takes."""
    times = []
    for _ in range(WARM_RUNS):
        started = time.perf_counter()
        featx.extract.extract(data, cache)
        times.append(time.perf_counter() - started)
    command = "from featx.cli.main import main; main(sys.argv[1:], standalone_mode=False)"
    probe = f"import sys; {command}; print(sorted(sys.modules))"
    words = featx.command(data, cache)[3:]
    modules = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True).stdout
    print(
        f"nothing to do: median {statistics.median(times):.2f} s, slowest {max(times):.2f} s of {WARM_RUNS} whole "
        f"processes; TensorFlow loaded: {'tensorflow' in modules}; scikit-learn loaded: {'sklearn' in modules}"
    )


def report_changes(featx: Featx, data: Path, folder: Path) -> None:
    """Print what adding, renaming and relabelling compute."""
    part = linked_copy(data, folder / "part", part=slice(25, None))
    whole_cache = folder / "part-cache"
    n_part = featx.extract.extract(part, whole_cache)["n_computed"]
    classes = sorted(path for path in data.glob("*/*") if path.is_dir())
    new = [path for directory in classes for path in sorted(directory.iterdir())[:25]]
    for path in new:
        shutil.copy(path, part / path.relative_to(data))
    print(f"added {len(new)} images to {n_part}: computed {featx.extract.extract(part, whole_cache)['n_computed']}")
    for path in [path for path in part.rglob("*") if path.is_file()]:
        path.rename(path.with_name(f"renamed-{path.name}"))
    print(f"renamed all: computed {featx.extract.extract(part, whole_cache)['n_computed']}")
    first, second = sorted(path for path in (part / "train").iterdir() if path.is_dir())[:2]
    for path in sorted(first.iterdir())[:100]:
        path.rename(second / path.name)
    print(f"relabelled 100: computed {featx.extract.extract(part, whole_cache)['n_computed']}")


def report_kills(featx: Featx, data: Path, undisturbed: Path, folder: Path) -> None:
    """Print whether a store that was killed again and again equals an undisturbed one."""
    cache = folder / "killed-cache"
    store = cache / undisturbed.name
    kept = []
    for _ in range(KILLS):
        before, n_segments = len(rows_of(store)), len(list(store.glob("seg-*")))
        command = [sys.executable, "-c", KILLED, *featx.command(data, cache)[3:]]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 600
        while process.poll() is None and len(list(store.glob("seg-*"))) == n_segments and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(random.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(len(rows_of(store)) - before)
    rest = featx.extract.extract(data, cache)["n_computed"]
    expected, found = rows_of(undisturbed), rows_of(store)
    print(
        f"killed {KILLS} times with SIGKILL: kept {kept} rows, then computed the last {rest}; "
        f"rows {len(found)} of {len(expected)}, bit for bit equal: {found == expected}"
    )


def report_bare_reader(store: Path, folder: Path) -> None:
    """Print whether h5py alone reads the features, from elsewhere, after a move."""
    moved = shutil.copytree(store, folder / "moved" / store.name)
    with h5py.File(store / "features.h5") as file:
        expected = f"{file['features'].shape} {float(np.abs(file['features'][:]).mean())}"
    words = [sys.executable, "-I", "-c", BARE_READER, str(moved / "features.h5")]
    seen = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/").stdout.strip()
    print(f"features.h5 with h5py alone, moved, from another folder: {seen}; as before: {seen == expected}")


def report_memory(featx: Featx, data: Path, folder: Path, n_per_class: int) -> None:
    """Print the peak memory of extracting a part of the data set and all of it."""
    small = linked_copy(data, folder / "small", part=slice(0, n_per_class))
    peaks = {}
    for name, images in (("small", small), ("all", data)):
        summary = featx.extract.extract(images, folder / f"memory-{name}")
        peaks[summary["n_computed"]] = summary["timings"]["peak_memory_bytes"] / 2**20
    (n_small, low), (n_all, high) = peaks.items()
    print(f"peak memory: {low:.0f} MiB for {n_small} images, {high:.0f} MiB for {n_all}: {high / low - 1:+.1%}")


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", required=True)
@click.option("--backbone", default="vgg16", show_default=True)
@click.option("--image-size", default="64", show_default=True)
def main(data: Path, weights: str, backbone: str, image_size: str) -> None:
    """Measure what stage one promises."""
    featx = Featx(["--weights", weights, "--backbone", backbone, "--image-size", image_size])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        summary = featx.extract.extract(data, cache)
        timings = summary["timings"]
        print(f"extracted {summary['n_computed']} images in {timings['elapsed_s']:.1f} s: {timings}", flush=True)
        store = Path(summary["store_dir"])
        report_warm(featx, data, cache)
        report_bare_reader(store, folder)
        report_memory(featx, data, folder, n_per_class=250)
        report_changes(featx, data, folder)
        report_kills(featx, data, store, folder)


if __name__ == "__main__":
    main()
