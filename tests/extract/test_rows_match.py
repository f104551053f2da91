"""Rows always match their images: whatever happens to a folder, its cache and an extraction, in whatever order.

Random sequences of what people and disks do to real JPEG and PNG files and to a real store. After every extraction,
each row that stage two would be given is held against the features of that file's content, computed by themselves.
"""

import errno
import hashlib
import io
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from PIL import Image

from featx.engines.engine import EngineOptions, create_engine
from featx.engines.openvino_engine import OpenVinoEngine
from featx.errors import DamagedSegmentError, ImageError, StoreError
from featx.extract.extract import Extraction, extract_features
from featx.extract.options import resolve_recipe
from featx.images.decode import decode_image
from featx.store.compaction import compact
from featx.store.feature_store import FeatureStore
from featx.train.features import stored_features
from tests.chaos.tally import IS_FULL

CLASSES = ("field", "sea", "wood")
SPLITS = ("train", "test")
OPTIONS = {"weights": "random", "layer": "block1_pool", "image_size": (32, 32), "precision": "float32"}
ROW_BYTES = 16 * 16 * 64 * 2
BATCH_SIZE = 3
#: So many rows make a segment, so that a few images make several.
ROWS_PER_SEGMENT = 3
DERIVED = ("features.h5", "recipe.json", "timings.json", "skipped.csv")

POSITIONS = st.floats(0, 1, exclude_max=True)
CONTENTS = st.integers(0, 40)


def picture(number: int) -> bytes:
    """The content of an image file: a JPEG or a PNG, in colour or not; every eighth is none, and some are cut off."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (rng.integers(20, 50), rng.integers(20, 50), 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert(("RGB", "RGB", "L", "P")[number % 4])
    image.save(file, "PNG" if number % 2 or image.mode == "P" else "JPEG")
    content = file.getvalue()
    return {5: content[: len(content) // 2], 7: b"no image %d" % number}.get(number % 8, content)


class Oracle:
    """The features of contents, each computed by itself: without a folder, a batch or a store."""

    def __init__(self, cache_dir: Path) -> None:
        self.recipe, weights = resolve_recipe(cache_dir, **OPTIONS)
        options = EngineOptions(engine="openvino", batch_size=1)
        self._engine = create_engine(self.recipe, weights, cache_dir, None, options)
        self._known: dict[bytes, np.ndarray | None] = {}
        self.close = self._engine.close

    def features(self, content: bytes) -> np.ndarray | None:
        """Features `(16, 16, 64)` of an image file's content; None if it is none."""
        digest = hashlib.sha256(content).digest()
        if digest not in self._known:
            try:
                pixels = decode_image(content, self.recipe.image_size)
            except ImageError:
                self._known[digest] = None
            else:
                self._known[digest] = self._engine.features(pixels[np.newaxis])[0].astype(self.recipe.dtype)
        return self._known[digest]

    def of_digest(self, digest: bytes) -> np.ndarray:
        features = self._known[digest]
        assert features is not None
        return features

    @property
    def digests(self) -> np.ndarray:
        """All contents that have features, `(n, 32)` uint8."""
        known = sorted(digest for digest, features in self._known.items() if features is not None)
        return np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)


def flipped(content: bytes, position: float) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[int(position * len(changed))] ^= 0x10
    return bytes(changed)


def cut(content: bytes, position: float) -> bytes:
    return content[: int(position * len(content))]


def zeroed(content: bytes, position: float) -> bytes:
    start = int(position * len(content))
    return content[:start] + bytes(len(content[start : start + 64])) + content[start + 64 :]


DAMAGES = st.sampled_from([flipped, cut, zeroed])


@contextmanager
def segments_of(n_rows: int) -> Iterator[None]:
    with mock.patch("featx.store.segment_writer.SEGMENT_BYTES", n_rows * ROW_BYTES):
        yield


@contextmanager
def at_batch(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Do `act` just before the engine is given its batch `number`, which counts from 0."""
    submit = OpenVinoEngine.submit
    numbers = iter(range(1 << 30))

    def submit_or_act(engine, images):
        if next(numbers) == number:
            act()
        return submit(engine, images)

    with mock.patch.object(OpenVinoEngine, "submit", submit_or_act):
        yield


@contextmanager
def full_disk_after(n_files: int) -> Iterator[None]:
    """Let `n_files` files be flushed to the disk, and then no more."""
    fsync = os.fsync
    numbers = iter(range(1 << 30))

    def fsync_or_fail(descriptor):
        if next(numbers) >= n_files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with mock.patch("os.fsync", fsync_or_fail):
        yield


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


class Folder:
    """A data set on disk, and what people do to it. Files that are touched get a time of their own, long ago."""

    def __init__(self, root: Path, oracle: Oracle) -> None:
        self.root = root
        self._oracle = oracle
        self._names = iter(range(1 << 30))
        for number, class_name in enumerate(CLASSES):
            for split, n in (("train", 2), ("test", 1)):
                (root / split / class_name).mkdir(parents=True)
                for i in range(n):  # `.keep`: these stay, so that there always is a data set
                    self.write(root / split / class_name / f"keep.{i}.jpg", picture(8 * (100 + 10 * number + i)))

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, with the same time as all others: it does not tell them apart."""
        self._oracle.features(content)  # now: it may be gone when the row is checked
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))

    def place(self, split: str, class_name: str, suffix: str = ".jpg") -> Path:
        """A path that was never used, in a class folder."""
        return self.root / split / class_name / f"{next(self._names)}{suffix}"

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*/*/*") if not path.name.startswith("keep"))

    def choose(self, position: float) -> Path | None:
        files = self.files()
        return files[int(position * len(files))] if files else None

    def contents(self) -> dict[str, bytes]:
        """The content of every file that can be opened, by its path in the folder."""
        paths = sorted(path for path in self.root.glob("*/*/*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


class RowsMatchImages(RuleBasedStateMachine):
    """Edits, damage, interruptions and extractions in any order."""

    def __init__(self, work_dir: Path, networks_dir: Path, oracle: Oracle) -> None:
        super().__init__()
        base = work_dir / uuid.uuid4().hex
        self.oracle = oracle
        self.cache = base / "cache"
        self.cache.mkdir(parents=True)
        (self.cache / "networks").symlink_to(networks_dir, target_is_directory=True)
        self.folder = Folder(base / "data", oracle)
        self.store_dir = self.cache / oracle.recipe.slug
        self.held: dict[str, set[bytes]] = {}  # which images each segment held when it was written
        self.damaged: set[str] = set()  # files that featx has written otherwise than they are now, if they are there

    # What people do to images

    @initialize(numbers=st.lists(CONTENTS, min_size=2, max_size=6))
    def begin(self, numbers):
        for i, number in enumerate(numbers):
            self.add(number, SPLITS[i % 2], CLASSES[i % 3], ".png")

    @rule(
        number=CONTENTS,
        split=st.sampled_from(SPLITS),
        class_name=st.sampled_from(CLASSES),
        suffix=st.sampled_from([".jpg", ".png"]),
    )
    def add(self, number, split, class_name, suffix):
        self.folder.write(self.folder.place(split, class_name, suffix), picture(number))

    @rule(position=POSITIONS)
    def remove(self, position):
        if path := self.folder.choose(position):
            path.unlink()

    @rule(position=POSITIONS, split=st.sampled_from(SPLITS), class_name=st.sampled_from(CLASSES))
    def rename_or_relabel(self, position, split, class_name):
        if path := self.folder.choose(position):
            path.rename(self.folder.place(split, class_name, path.suffix))

    @rule(position=POSITIONS, other=POSITIONS)
    def swap_names(self, position, other):
        one, two = self.folder.choose(position), self.folder.choose(other)
        if one and two and one != two:
            between = one.with_name("between.jpg")
            one.rename(between)
            two.rename(one)
            between.rename(two)

    @rule(position=POSITIONS, number=CONTENTS)
    def change_content(self, position, number):
        if (path := self.folder.choose(position)) and path.is_file():
            self.folder.write(path, picture(number))

    @rule(position=POSITIONS, damage=DAMAGES, where=POSITIONS)
    def damage_image(self, position, damage, where):
        if (path := self.folder.choose(position)) and path.is_file():
            self.folder.write(path, damage(path.read_bytes(), where))

    @rule(
        position=POSITIONS,
        split=st.sampled_from(SPLITS),
        class_name=st.sampled_from(CLASSES),
        how=st.sampled_from([shutil.copy2, os.symlink, os.link]),
    )
    def duplicate(self, position, split, class_name, how):
        if (path := self.folder.choose(position)) and path.is_file():
            how(path, self.folder.place(split, class_name, path.suffix))

    @rule()
    def move_the_data_set(self):
        self.folder.root = self.folder.root.rename(self.folder.root.with_name(f"data {uuid.uuid4().hex}"))

    # What disks and people do to the cache

    @rule(position=POSITIONS, damage=DAMAGES, where=POSITIONS)
    def damage_segment(self, position, damage, where):
        if path := self.choose_segment(position):
            path.write_bytes(damage(path.read_bytes(), where))
            self.damaged.add(path.name)

    @rule(position=POSITIONS)
    def delete_segment(self, position):
        if path := self.choose_segment(position):
            path.unlink()

    @rule(position=POSITIONS, other=POSITIONS)
    def swap_segments(self, position, other):
        one, two = self.choose_segment(position), self.choose_segment(other)
        if one and two and one != two:
            content = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(content)
            self.held[one.name], self.held[two.name] = self.held[two.name], self.held[one.name]
            self.damaged |= {one.name, two.name}

    @rule(position=POSITIONS)
    def copy_segment(self, position):
        if path := self.choose_segment(position):
            name = f"seg-{uuid.uuid4().hex}.h5"
            shutil.copy(path, path.with_name(name))
            self.held[name] = self.held[path.name]
            self.damaged |= {name} if path.name in self.damaged else set()

    @rule(position=POSITIONS, where=POSITIONS)
    def leave_half_a_segment_of_a_killed_process(self, position, where):
        if path := self.choose_segment(position):
            path.with_name(f".tmp-{uuid.uuid4().hex}.h5").write_bytes(cut(path.read_bytes(), where))

    @rule(name=st.sampled_from(DERIVED))
    def delete_derived_file(self, name):
        (self.store_dir / name).unlink(missing_ok=True)

    @rule(name=st.sampled_from(DERIVED), damage=DAMAGES, where=POSITIONS)
    def damage_derived_file(self, name, damage, where):
        path = self.store_dir / name
        if path.exists():
            path.write_bytes(damage(path.read_bytes(), where))
            self.damaged.add(name)

    @rule()
    def delete_digests(self):
        (self.cache / "digests.sqlite").unlink(missing_ok=True)

    @rule(damage=DAMAGES, where=POSITIONS)
    def damage_digests(self, damage, where):
        path = self.cache / "digests.sqlite"
        if path.exists():
            path.write_bytes(damage(path.read_bytes(), where))

    @rule()
    def compact_the_store(self):
        compact(FeatureStore(self.cache, self.oracle.recipe))
        self.note_segments()

    # Extractions

    @rule(n_batches=st.integers(0, 4), error=st.sampled_from([KeyboardInterrupt, StoreError, MemoryError]))
    def extract_and_be_interrupted(self, n_batches, error):
        with at_batch(n_batches, raising(error("interrupted"))):
            self.extract_or(error)

    @rule(n_files=st.integers(0, 6))
    def extract_until_the_disk_is_full(self, n_files):
        with full_disk_after(n_files):
            self.extract_or(StoreError)

    @rule(n_batches=st.integers(0, 3), position=POSITIONS, number=CONTENTS)
    def extract_while_a_file_changes(self, n_batches, position, number):
        with at_batch(n_batches, lambda: self.change_content(position, number)):
            self.extract_or(StoreError)

    @rule()
    def extract_and_check(self):
        """Extract, and again for each damaged segment that only reading has shown; then hold row against image."""
        extraction = self.extract_what_is_missing()
        while (features := self.load_or_quarantine(extraction)) is None:
            extraction = self.extract_what_is_missing()
        contents = {path: content for path, content in self.folder.contents().items() if self.is_image(content)}
        dataset = features.dataset
        assert sorted(dataset.paths) == sorted(contents)
        for row, path in enumerate(dataset.paths):
            split, class_name, _ = Path(path).parts
            assert dataset.class_names[dataset.labels[row]] == class_name
            assert dataset.is_test[row] == (split == "test")
            expected = self.oracle.features(contents[path])
            assert features.X[row].tobytes() == expected.tobytes(), f"{path} has the features of another image"
        self.check_what_others_read()

    def teardown(self):
        self.extract_and_check()

    def extract_or(self, error: type[BaseException]) -> None:
        """Extract; an `error` may end that, but only one that was asked for, and nothing wrong is left behind."""
        with suppress(error):
            self.extract()
        self.note_segments()

    def extract_what_is_missing(self) -> Extraction:
        """Extract, and hold the number of images that were computed against what no sound segment had."""
        before = {path.name for path in self.segments()}
        extraction = self.extract()
        kept = before & {path.name for path in self.segments()}
        stored = set().union(*(self.held[name] for name in kept))
        wanted = {hashlib.sha256(c).digest() for c in self.folder.contents().values() if self.is_image(c)}
        assert extraction.n_computed == len(wanted - stored)
        self.note_segments()
        return extraction

    def extract(self) -> Extraction:
        with segments_of(ROWS_PER_SEGMENT):
            return extract_features(
                self.folder.root, cache_dir=self.cache, engine="openvino", batch_size=BATCH_SIZE, **OPTIONS
            )

    def load_or_quarantine(self, extraction: Extraction):
        """What stage two is given; None if a segment turned out to be damaged, which can happen once for each.

        A segment and its copies may turn out so together."""
        before = {path.name for path in self.segments()}
        try:
            store = FeatureStore(self.cache, extraction.recipe)
            features = stored_features(extraction.dataset, store, "featx extract")
            self.check_all_rows(store)
        except DamagedSegmentError:
            assert before - {path.name for path in self.segments()}  # several, where damaged segments were copied
            return None
        return features

    def check_all_rows(self, store: FeatureStore) -> None:
        """Also those whose images are gone: they may come back."""
        digests = self.oracle.digests
        digests = digests[store.contains(digests)]
        assert len(digests) == len(store)
        for digest, features in zip(digests, store.read(digests), strict=True):
            assert features.tobytes() == self.oracle.of_digest(bytes(digest)).tobytes()

    def check_what_others_read(self) -> None:
        """`features.h5`, read with h5py alone: without damage, since HDF5's checksums do not find all of it."""
        if not any((self.store_dir / name).exists() for name in self.damaged):
            with h5py.File(self.store_dir / "features.h5") as file:
                for digest, features in zip(file["digest"][:], file["features"][:], strict=True):
                    if digest.any():  # zeros: of a damaged copy that was quarantined since, so no image
                        assert features.tobytes() == self.oracle.of_digest(bytes(digest)).tobytes()

    def is_image(self, content: bytes) -> bool:
        return self.oracle.features(content) is not None

    def segments(self) -> list[Path]:
        return sorted(self.store_dir.glob("seg-*.h5"))

    def choose_segment(self, position: float) -> Path | None:
        segments = self.segments()
        return segments[int(position * len(segments))] if segments else None

    def note_segments(self) -> None:
        """Remember what new segments hold: damage may make them say something else."""
        for path in self.segments():
            if path.name not in self.held:
                with h5py.File(path) as file:
                    self.held[path.name] = {bytes(digest) for digest in file["digest"][:]}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory, networks_dir) -> Iterator[Oracle]:
    pristine = tmp_path_factory.mktemp("pristine")
    (pristine / "networks").symlink_to(networks_dir, target_is_directory=True)
    with closing(Oracle(pristine)) as oracle:
        yield oracle


@pytest.mark.usefixtures("settle")
def test_rows_always_match_their_images(tmp_path, networks_dir, oracle, caplog):
    caplog.set_level(logging.ERROR, logger="featx")  # a failure is hard to find among thousands of warnings
    run_state_machine_as_test(
        lambda: RowsMatchImages(tmp_path, networks_dir, oracle),
        settings=settings(
            max_examples=80 if IS_FULL else 15,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
