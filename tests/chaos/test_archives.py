"""Hostile archives by the hundred, through `fetch`'s unpacking, `extract` and `compare`.

Whatever an archive claims: no exception but featx's own, no end that does not come, no file outside of the folder, and
no row whose image is not one of its class.
"""

import hashlib
import io
import shutil
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featx.compare.compare import compare_approaches
from featx.dataset.image_dataset import ImageDataset
from featx.dataset.kaggle import fetch
from featx.dataset.scanning import scan
from featx.errors import FeatxError
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.store.feature_store import FeatureStore
from featx.system.machine import peak_memory_bytes, reset_peak_memory
from tests.chaos.scenario import OPTIONS
from tests.chaos.tally import chosen
from tests.storage.hostile_archives import hostile_archive

#: Archives, how many of them are extracted, and how many compared.
N_ARCHIVES = chosen(full=2000, quick=50)
EVERY_EXTRACTED, EVERY_COMPARED = 10, chosen(full=250, quick=100)

#: What an archive of less than a megabyte may take: `hostile_archives` has bombs of 16 MiB, which an image may have.
MAX_S, MAX_BYTES = 20.0, 600 << 20

#: Archives of one test, so that several processes share the work.
N_TOGETHER = 50

CLASSES = ("sea", "wood")


class TooLong(BaseException):
    """It did not end in time; no `Exception`, which featx may take for one of the system's."""


def images() -> dict[str, bytes]:
    """Return a few small images by their paths."""
    found = {}
    for number in range(12):
        rng = np.random.default_rng(number)
        buffer = io.BytesIO()
        pixels = np.clip(rng.normal(rng.uniform(60, 200, 3), 30, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        split = "test" if number % 3 == 2 else "train"
        found[f"{split}/{CLASSES[number % 2]}/{number:02d}.jpg"] = buffer.getvalue()
    return found


IMAGES = images()
CLASS_OF = {hashlib.sha256(content).digest(): name.split("/")[1] for name, content in IMAGES.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, networks_dir) -> Iterator[dict[bytes, bytes]]:
    """The features of the images, by digest."""
    folder = tmp_path_factory.mktemp("reference")
    for name, content in IMAGES.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes(content)
    return rows_of(extract_features(folder / "data", cache_dir=folder / "cache", **OPTIONS))


def rows_of(extraction: Any) -> dict[bytes, bytes]:
    """Return the features of an extraction's images, by digest."""
    digests = extraction.dataset.digests
    store = FeatureStore(extraction.store_dir.parent, extraction.recipe)
    digests = digests[store.contains(digests)]
    return {bytes(d): row.tobytes() for d, row in zip(digests, store.read(digests), strict=True)}


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Fail if the block takes more time or memory than it may."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(what)

    # Of the processor's time, since other tests may have most of it; and ten times as much by the clock.
    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, MAX_S)
    signal.setitimer(signal.ITIMER_REAL, 10 * MAX_S)
    reset_peak_memory()
    at_first = peak_memory_bytes()
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)
    assert peak_memory_bytes() - at_first < MAX_BYTES, what


def result_of(what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a function returns; None for an error of featx's, whose message is one line."""
    with bounded(what):
        try:
            return function(*arguments, **options)
        except FeatxError as error:
            message = str(error)
    assert message.isprintable(), what
    return None


def assert_right(dataset: ImageDataset, what: str) -> None:
    """Assert that what is taken for an image of a class is one, or no image at all."""
    for path, label, digest in zip(dataset.paths, dataset.labels, dataset.digests, strict=True):
        name = dataset.class_names[label]
        assert CLASS_OF.get(bytes(digest), name) == name or name not in CLASSES, f"{what}: {path}"


def tree(folder: Path) -> set[str]:
    """Return all that is below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_unpacked_in(folder: Path, what: str) -> None:
    """Assert that there are files and folders only: no links, no devices, nothing that can be run."""
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), f"{what}: {path}"
        assert stat.S_ISDIR(mode) or not mode & 0o7111, f"{what}: {path}"


@pytest.fixture
def never_downloaded(monkeypatch) -> Callable[[Path], None]:
    """Have `fetch` take an archive on this machine for what Kaggle sends."""

    def take(archive: Path) -> None:
        monkeypatch.setattr(fetch, "download", lambda _source, path, **_options: shutil.copyfile(archive, path))

    return take


@pytest.mark.parametrize("first", range(0, N_ARCHIVES, N_TOGETHER))
def test_hostile_archives_harm_nobody(first, reference, never_downloaded, tmp_path, new_cache, tally):
    cache = new_cache(tmp_path / "cache")
    for number in range(first, first + N_TOGETHER):
        folder = tmp_path / "archive"
        folder.mkdir()
        archive, lies = hostile_archive(number, IMAGES, folder)
        what = f"archive {number} ({', '.join(lies)})"
        tally.archives.update(lies)
        before = tree(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zipfile
            dataset = result_of(what, scan, archive, tmp_path / "digests", to_train=False)
            if dataset is not None:
                assert_right(dataset, what)
            if archive.suffix == ".zip":
                never_downloaded(archive)
                to = tmp_path / "in" / "to"
                to.parent.mkdir()
                if result_of(what, fetch.fetch_data, "a/b", to):
                    assert_unpacked_in(to, what)
                    unpacked = result_of(what, scan, to, tmp_path / "digests", to_train=False)
                    if unpacked is not None:
                        assert_right(unpacked, what)
                else:
                    assert not to.exists(), what
                shutil.rmtree(to.parent)
            if dataset is not None and number % EVERY_EXTRACTED == 0:
                done = result_of(what, extract_features, archive, cache_dir=cache, **OPTIONS)
                if done is not None:
                    assert_right(done.dataset, what)
                    rows = rows_of(done)
                    wrong = [digest.hex() for digest, row in rows.items() if reference.get(digest) != row]
                    tally.n_rows_compared += len(rows)
                    tally.n_rows_wrong += len(wrong)
                    assert wrong == [], what
            if number % EVERY_COMPARED == 0:
                training = Training(epochs=1)
                result_of(what, compare_approaches, archive, cache_dir=cache, training=training, **OPTIONS)
        outside = {path for path in tree(tmp_path) - before if not path.startswith(("cache", "digests"))}
        assert outside == set(), what
        shutil.rmtree(folder)
