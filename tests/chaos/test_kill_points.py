"""SIGKILL before every rename, fsync, removal and opening of a file to write: what is made is whole, or not there.

All that the commands make lies in the data folder itself, whose folders are the classes: nothing that a kill leaves
behind may be taken for one.
"""

import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from tests.chaos.kill_points import PROGRAM, Point, read_points
from tests.chaos.processes import ROOT
from tests.chaos.scenario import OPTIONS, make_old, new_cache, segment_rows
from tests.chaos.tally import IS_FULL
from tests.dataset.kaggle.kaggle_server import serving, zipped
from tests.processes import ForkServer

WORDS = (
    *("--weights", "random", "--image-size", "32", "--layer", "block1_pool", "--pooling", "avg"),
    *("--precision", "float32"),
)
CLASSES = ("sea", "wood")
N_PER_CLASS = 16
PETS = "tongpython/cat-and-dog"
SIGKILLED = -9

#: Kills of each command in `make test`. The others take many seconds each, and are left to `make chaos`.
N_QUICK = {"train-top": 1, "fetch": 2, "cache rm": 2, "cache compact": 2}

#: A kill comes at the point itself, or so long after it, at most.
MAX_DELAY_S = 0.01


@dataclass(frozen=True)
class Command:
    """A command that makes or removes something.

    Attributes:
        words: its words; a path is below the data folder.
        target: what it makes, below the data folder; empty if it only changes the cache.
        removes_store: whether it removes the store.
    """

    words: tuple[object, ...]
    target: str = ""
    removes_store: bool = False

    def in_folder(self, data: Path) -> list[object]:
        """Return the words for a data folder."""
        cache = [] if self.words[0] == "fetch" else ["--cache-dir", data / "cache"]
        return [*(data / word if isinstance(word, Path) else word for word in self.words), *cache]


DATA, RUN = Path(), Path("runs/whole")
COMMANDS = {
    "train-top": Command(("train-top", DATA, *WORDS, "--epochs", 1, "--run-dir", Path("runs/new")), "runs/new"),
    "compare": Command(("compare", DATA, *WORDS, "--epochs", 1, "--report-dir", Path("reports/new")), "reports/new"),
    "export to keras": Command(("export", RUN, "--to", Path("exports/pets.keras")), "exports/pets.keras"),
    "export to savedmodel": Command(
        ("export", RUN, "--format", "savedmodel", "--to", Path("exports/pets")), "exports/pets"
    ),
    "export to onnx": Command(
        ("export", RUN, "--format", "onnx", "--to", Path("exports/pets.onnx")), "exports/pets.onnx"
    ),
    "fetch": Command(("fetch", PETS, "--to", Path("../pets")), "../pets"),
    "cache rm": Command(("cache", "rm", "vgg16", "--yes"), removes_store=True),
    "cache compact": Command(("cache", "compact")),
    "plan": Command(("plan", DATA, *WORDS)),
}
EXTRACT = Command(("extract", DATA, *WORDS))


def write_photos(data: Path) -> Path:
    """Write a folder of classes, without splits."""
    for number in range(N_PER_CLASS * len(CLASSES)):
        rng = np.random.default_rng(number)
        pixels = np.clip(rng.normal(rng.uniform(60, 200, 3), 30, (24, 28, 3)), 0, 255).astype(np.uint8)
        path = data / CLASSES[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    make_old(data)
    return data


class Bench:
    """Runs commands on copies of one folder: photographs, and with them their features and a run."""

    def __init__(self, folder: Path, networks_dir: Path) -> None:
        self.folder = folder
        self._model = folder / "model"
        data = write_photos(self._model / "photos")
        cache = new_cache(data / "cache", networks_dir)
        dataset = scan(data, cache)
        for part in range(4):  # a segment each
            rows = np.arange(dataset.n_images) % 4 == part
            extract_features(dataset.subset(rows), cache_dir=cache, pooling="avg", **OPTIONS)
        self.paths = dataset.paths
        (self.store_name,) = (path.name for path in cache.glob("vgg16*"))
        self.rows = segment_rows(cache / self.store_name)
        assert len(self.rows) == dataset.n_images
        self._server = ForkServer(folder, {"PYTHONPATH": str(ROOT)})
        self._kaggle = serving()
        self.kaggle = self._kaggle.__enter__()
        self.kaggle.archives = {PETS: zipped({str(p.relative_to(data)): p.read_bytes() for p in data.glob("*/*.jpg")})}
        assert self.run(COMMANDS["train-top"], data).returncode == 0
        (data / "runs" / "new").rename(data / RUN)

    def close(self) -> None:
        self._server.__exit__(None, None, None)
        self._kaggle.__exit__(None, None, None)

    def new_data(self) -> Path:
        """Copy everything, and return the data folder."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._model, copy, symlinks=True)
        return copy / "photos"

    def run(self, command: Command, data: Path, number: int = 0, delay_s: float = 0.0) -> "CompletedProcess[str]":
        """Run a command; kill it at the point `number`, or `delay_s` later."""
        address = f"""
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {self.kaggle.url!r}
"""
        words = [data.parent, number, delay_s, self.folder / "journal", *command.in_folder(data)]
        return self._server.run(address + PROGRAM, "featx", *words)

    def points(self, name: str) -> tuple[list[Point], dict[str, int]]:
        """Return the points that a command comes to when nobody kills it, and the sizes of the files that it makes."""
        data = self.new_data()
        done = self.run(COMMANDS[name], data)
        assert done.returncode == 0, done.stderr
        target = COMMANDS[name].target
        return read_points(self.folder / "journal"), sizes_of(data / target) if target else {}


def sizes_of(target: Path) -> dict[str, int]:
    """Return the size of a file, or those of all files in a folder, by their paths."""
    files = [path for path in target.rglob("*") if path.is_file()] if target.is_dir() else [target]
    return {str(path.relative_to(target)): path.stat().st_size for path in sorted(files)}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, networks_dir) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("kill-points"), networks_dir)
    yield bench
    bench.close()


def chosen_points(points: list[Point], name: str) -> list[tuple[int, float]]:
    """Return points, by number from 1, and how long after each the kill comes: at every one, or at some."""
    rng = random.Random(name)
    numbers = range(1, len(points) + 1)
    if not IS_FULL:
        renames = [number for number in numbers if points[number - 1].kind == "rename"]
        numbers = sorted({*rng.sample(numbers, min(N_QUICK[name] - 1, len(points))), rng.choice(renames or numbers)})
    return [(number, rng.choice([0.0, 0.0, rng.uniform(0, MAX_DELAY_S)])) for number in numbers]


@pytest.mark.parametrize("name", COMMANDS if IS_FULL else N_QUICK)
def test_a_command_killed_at_any_point_has_made_all_or_nothing_and_the_next_one_works(bench, tally, name):
    points, sizes = bench.points(name)
    assert points
    for number, delay_s in chosen_points(points, name):
        data, point = bench.new_data(), points[number - 1]
        done = bench.run(COMMANDS[name], data, number, delay_s)
        assert done.returncode in {0, SIGKILLED}, done.stderr
        if done.returncode == SIGKILLED:
            tally.kills[f"{name}: {point.kind}"] += 1
        was_made = assert_whole_or_not_there(bench, COMMANDS[name], data, sizes, point)
        assert_nothing_lost(bench, COMMANDS[name], data, point)
        assert_next_works(bench, COMMANDS[name], data, sizes, point, was_made=was_made)


def assert_whole_or_not_there(bench: Bench, command: Command, data: Path, sizes: dict[str, int], point: Point) -> bool:
    """Assert that what a killed command makes is as without the kill, or not there; return whether it is there."""
    target = data / command.target
    if not command.target or not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return False
    found = sizes_of(target)
    assert found.keys() == sizes.keys(), point
    assert all(n_bytes or not sizes[name] for name, n_bytes in found.items()), point
    for path in [target, *target.rglob("*")]:
        if path.suffix in {".keras", ".zip"}:
            with zipfile.ZipFile(path) as zip_file:
                assert zip_file.testzip() is None
    return True


def assert_nothing_lost(bench: Bench, command: Command, data: Path, point: Point) -> None:
    """Assert that the data set is what it was, with no class more, and that all its features are there."""
    dataset = scan(data, bench.folder / "no cache")
    assert (dataset.class_names, dataset.paths) == (CLASSES, bench.paths), point
    store_dir = data / "cache" / bench.store_name
    if not (command.removes_store and not store_dir.exists()):
        assert segment_rows(store_dir) == bench.rows, point


def assert_next_works(
    bench: Bench, command: Command, data: Path, sizes: dict[str, int], point: Point, *, was_made: bool
) -> None:
    """Assert that an hour later the same command works, and leaves nothing of the killed one behind.

    Where the command has done all that it was to do, another one cleans up.
    """
    for path in data.parent.rglob(".*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    target = data / command.target
    if was_made:
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    is_done = command.removes_store and not (data / "cache" / bench.store_name).exists()
    done = bench.run(EXTRACT if is_done else command, data)
    assert done.returncode == 0, f"{point}: {done.stderr}"
    assert_whole_or_not_there(bench, command, data, sizes, point)
    left = [str(path.relative_to(data)) for path in data.parent.rglob("*") if path.name.startswith((".tmp-", ".pets"))]
    assert left == [], point
