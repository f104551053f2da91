"""What others have written, or damaged, is read or refused: never another exception, never a wrong row.

Random recipes, sizes, files of a store and folders of images. What is drawn is the same in every run.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from featx.dataset.image_dataset import ImageDataset
from featx.dataset.scanning import scan
from featx.dataset.skipped import SkippedImage, SkippedImages
from featx.errors import DamagedSegmentError, DatasetError, FeatxError, StoreError
from featx.images.decode import IMAGE_SUFFIXES
from featx.recipe import Recipe, as_image_size
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.store.verification import check_store, list_store, mend_store
from featx.system.timings import Timings
from tests.chaos.tally import IS_FULL


def bounded(n_examples: int) -> settings:
    """So many examples, or a sixth outside of `make chaos`; the same in every run: a failure is one of the code."""
    return settings(
        max_examples=n_examples if IS_FULL else n_examples // 6,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


RECIPE = Recipe(backbone="vgg16", weights="random-0", layer="block1_pool", image_size=(32, 32), preprocessing="caffe")

# Recipes and sizes

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def near_recipes(draw) -> str:
    """The JSON of a recipe in which some members are something else, are missing, or are unknown."""
    members = json.loads(RECIPE.to_json())
    names = st.sampled_from([field.name for field in fields(Recipe)]) | st.text(max_size=8)
    for name in draw(st.lists(names, min_size=1, max_size=3)):
        if draw(st.booleans()):
            members[name] = draw(JSON_VALUES)
        else:
            members.pop(name, None)
    if draw(st.booleans()):
        members["image_size"] = draw(st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=3))
    return json.dumps(members)


@bounded(600)
@given(text=st.text() | JSON_VALUES.map(json.dumps) | near_recipes())
@example(text=RECIPE.to_json())
@example(text=RECIPE.to_json().replace("[32,32]", "[Infinity,32]"))
@example(text=RECIPE.to_json().replace('"pixels_version":3', '"pixels_version":NaN'))
@example(text=RECIPE.to_json().replace('"block1_pool"', "3"))
@example(text=RECIPE.to_json().replace('"vgg16"', "null"))
@example(text=RECIPE.to_json().replace('"vgg16"', '"../../vgg16"'))
@example(text="[" * 100_000)
def test_any_text_is_a_recipe_that_comes_back_the_same_or_none(text):
    try:
        recipe = Recipe.from_json(text)
    except FeatxError:
        return
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert re.fullmatch(r"[0-9a-f]{64}", recipe.key)
    assert recipe.slug.endswith(recipe.key[:8])
    assert "/" not in recipe.slug


@bounded(400)
@given(text=st.text() | st.from_regex(r"\s?-?[0-9٠-٩]{1,6}([xX×,][0-9]{0,6}){0,2}\s?", fullmatch=True))
@example(text="1")
@example(text="4096x1")
@example(text="4097")
def test_any_text_is_an_image_size_or_none(text):
    sides = text.strip().lower().split("x")
    is_size = len(sides) in {1, 2} and all(
        side.isascii() and side.isdigit() and len(side) <= 5 and 1 <= int(side) <= 4096 for side in sides
    )
    try:
        size = as_image_size(text)
    except FeatxError:
        assert not is_size
    else:
        assert is_size
        assert size == (int(sides[0]), int(sides[-1]))


# Files of a store

N_ROWS = (5, 4)
DIGESTS = np.stack([np.frombuffer(hashlib.sha256(b"%d" % i).digest(), np.uint8) for i in range(sum(N_ROWS))])
FEATURES = np.random.default_rng(0).normal(size=(sum(N_ROWS), 4, 4, 8)).astype(np.float16)
BAD = hashlib.sha256(b"no image").digest()


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A cache with a sound store of two segments, and an image that could not be read."""
    cache = tmp_path_factory.mktemp("sound")
    store = FeatureStore(cache, RECIPE)
    start = 0
    for n in N_ROWS:
        rows = slice(start, start + n)
        timings = Timings(n_images=n, forward_s=0.5, elapsed_s=1.0)
        store.write_segment(new_segment_name(), FEATURES[rows], DIGESTS[rows], lambda timings=timings: timings)
        start += n
    store.publish()
    images = [SkippedImage.of(Path("/photos/sea/bad.jpg"), BAD, "no image"), SkippedImage.of(Path("/b"), b"", "gone")]
    SkippedImages(store.dir / "skipped.csv").remember(images, Path("/photos"))
    return cache


Mutation = Callable[[bytes], bytes]

PLACES = st.floats(0, 1, exclude_max=True)
LENGTHS = st.sampled_from([1, 4, 16, 100, 1000])


@st.composite
def mutations(draw) -> Mutation:
    """One to three things that disks, networks and editors do to bytes."""
    steps = draw(st.lists(st.tuples(st.integers(0, 4), PLACES, PLACES, LENGTHS, st.binary(max_size=40)), min_size=1))[
        :3
    ]

    def mutate(data: bytes) -> bytes:
        for kind, place, other, length, new in steps:
            at, origin = int(place * len(data)), int(other * len(data))
            block = data[origin : origin + length]
            if kind == 0 and data:
                data = data[:at] + bytes([data[at] ^ 1 << length % 8]) + data[at + 1 :]
            elif kind == 1:
                data = data[:at]
            elif kind == 2:
                data = data[:at] + bytes(len(data[at : at + length])) + data[at + length :]
            elif kind == 3:
                data = data[:at] + block + data[at + len(block) * (length % 3 == 1) :]
            elif kind == 4:
                data = data[:at] + new + data[at + len(new) :]
        return data

    return mutate


@contextmanager
def copy_of(sound: Path) -> Iterator[Path]:
    copy = sound.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound, copy)
    yield copy


@contextmanager
def messages() -> Iterator[list[str]]:
    """What featx logs meanwhile."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    log = logging.getLogger("featx")
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)


def segment_with(cache: Path, n_rows: int) -> Path:
    for path in (cache / RECIPE.slug).glob("seg-*.h5"):
        with h5py.File(path) as file:
            if len(file["view"]) == n_rows:
                return path
    raise AssertionError(f"no segment has {n_rows} rows")


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_rows(store: FeatureStore) -> np.ndarray:
    """Hold all rows that the store has against what was written; return which those are."""
    present = store.contains(DIGESTS)
    assert len(store) == present.sum()
    assert store.read(DIGESTS[present]).tobytes() == FEATURES[present].tobytes()
    return present


def check_damaged_segment(cache: Path, path: Path) -> None:
    """Use a store whose second segment is `path` in every way; all must come out right, or as StoreError."""
    others = [name for name in path.parent.glob("seg-*.h5") if name != path]
    with h5py.File(others[0]) as file:
        is_safe = (DIGESTS[:, np.newaxis] == file["digest"][:]).all(axis=2).any(axis=1)
    before = files_in(path.parent)
    list_store(path.parent)
    check = check_store(path.parent)
    assert files_in(path.parent) == before  # looking changes nothing
    with messages() as said:
        store = FeatureStore(cache, RECIPE)
        try:
            present = check_rows(store)
        except DamagedSegmentError:
            present = check_rows(FeatureStore(cache, RECIPE))
        store.cost(DIGESTS)
        FeatureStore(cache, RECIPE).publish()
    assert present[is_safe].all()
    is_quarantined = path.with_name(f"damaged-{path.name}").exists()
    assert is_quarantined == any(path.name in message and "is damaged" in message for message in said)
    assert is_quarantined == (not present.all())
    assert is_quarantined == any(damage.path == path for damage in check.damages)
    with h5py.File(path.parent / "features.h5") as file:
        for digest, features in zip(file["digest"][:], file["features"][:], strict=True):
            row = np.flatnonzero((digest == DIGESTS).all(axis=1))[0]
            assert features.tobytes() == FEATURES[row].tobytes()


@bounded(300)
@given(mutate=mutations(), which=st.integers(0, 1))
@example(mutate=lambda data: data, which=0)
@example(mutate=lambda _data: b"", which=1)
def test_a_segment_of_any_bytes_is_read_right_or_quarantined_with_a_warning(sound, mutate, which):
    with copy_of(sound) as cache:
        path = segment_with(cache, N_ROWS[which])
        path.write_bytes(mutate(path.read_bytes()))
        check_damaged_segment(cache, path)


ARRAYS = st.one_of(
    st.tuples(
        st.sampled_from(["f2", ">f2", "f4", "u1", "u2", "u4", "i8", "S3"]),
        st.lists(st.integers(0, 5), max_size=4),
    ).map(lambda drawn: np.zeros(drawn[1], drawn[0])),
    st.text("ab", max_size=4),
)
ATTRIBUTES = st.one_of(
    st.text('0123456789{}[]":,abnrtue_', max_size=20),
    JSON_VALUES.map(json.dumps),
    st.dictionaries(st.sampled_from([field.name for field in fields(Timings)]), JSON_VALUES).map(json.dumps),
    st.integers(-2, 3),
    st.lists(st.integers(0, 3), max_size=3),
)


@bounded(300)
@given(
    arrays=st.dictionaries(st.sampled_from(["features", "digest", "view", "crc32"]), st.none() | ARRAYS, max_size=2),
    attributes=st.dictionaries(
        st.sampled_from(["format", "format_version", "recipe", "timings"]), st.none() | ATTRIBUTES, max_size=2
    ),
)
@example(arrays={}, attributes={"timings": '{"n_images": "5"}'})
@example(arrays={}, attributes={"timings": '{"elapsed_s": null}'})
@example(arrays={}, attributes={"timings": '{"elapsed_s": NaN}'})
@example(arrays={}, attributes={"timings": "[" * 30_000})
@example(arrays={}, attributes={"format_version": [1, 2]})
@example(arrays={"features": np.zeros(5, "f2")}, attributes={})
def test_a_segment_of_any_structure_is_read_right_or_quarantined_or_refused(sound, arrays, attributes):
    """A sound HDF5 file whose checksums are right, but not what featx writes."""
    with copy_of(sound) as cache:
        path = segment_with(cache, N_ROWS[1])
        with h5py.File(path, "r+") as file:
            for name, array in arrays.items():
                del file[name]
                if array is not None:
                    file[name] = array
            for name, value in attributes.items():
                del file.attrs[name]
                if value is not None:
                    file.attrs[name] = value
        if "format" not in attributes and attributes.get("format_version") in (2, 3, [2], [3]):
            with pytest.raises(StoreError, match="has the format version"):
                FeatureStore(cache, RECIPE)
            assert path.exists()
        else:
            check_damaged_segment(cache, path)


@bounded(300)
@given(name=st.sampled_from(["features.h5", "recipe.json", "timings.json"]), mutate=mutations())
def test_derived_files_of_any_bytes_change_nothing_and_can_be_mended(sound, name, mutate):
    with copy_of(sound) as cache:
        store_dir = cache / RECIPE.slug
        path = store_dir / name
        path.write_bytes(mutate(path.read_bytes()))
        assert list_store(store_dir).recipe == RECIPE
        check = check_store(store_dir)
        assert {damage.path for damage in check.damages} <= {path}
        store = FeatureStore(cache, RECIPE)
        assert check_rows(store).all()
        store.publish()
        mend_store(check)
        assert not check_store(store_dir).damages
        with h5py.File(store_dir / "features.h5") as file:
            assert sorted(file["features"][:].tobytes()) == sorted(FEATURES.tobytes())


@bounded(300)
@given(mutate=mutations())
@example(mutate=lambda data: data)
@example(mutate=lambda data: b"path,digest\n" + data)
def test_a_list_of_skipped_images_of_any_bytes_is_only_a_memory(sound, mutate):
    with copy_of(sound) as cache:
        path = cache / RECIPE.slug / "skipped.csv"
        path.write_bytes(mutate(path.read_bytes()))
        check_store(path.parent)
        memory = SkippedImages(path)
        assert memory.reason(bytes(DIGESTS[0])) is None
        memory.reason(BAD)
        new = hashlib.sha256(b"new").digest()
        memory.remember([SkippedImage.of(Path("/photos/new.jpg"), new, "why, and\nwhere")], Path("/photos"))
        again = SkippedImages(path)
        assert again.reason(new) == "why, and\nwhere"
        assert again.reason(BAD) is None or path.read_bytes().count(b"/photos/") == 1
        assert check_rows(FeatureStore(cache, RECIPE)).all()


# Folders of images

ODD_NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=10),
    st.binary(min_size=1, max_size=6).map(
        lambda data: os.fsdecode(data.replace(b"/", b"").replace(b"\0", b"") or b"x")
    ),
    st.sampled_from(["e\u0301", "\u00e9", "\u202egpj", "-rf", "a\nb", "\x1b[2J", " ", "CON", "%s", "é\u2028"]),
)
FOLDER_NAMES = st.one_of(
    st.sampled_from(["train", "test", "Training Set", "test-set", "validation", "VAL", "valid", "testing"]),
    st.sampled_from(["cats", "dogs", "birds", "data", "x.jpg", "__MACOSX", ".hidden"]),
    ODD_NAMES,
)
FILE_NAMES = st.one_of(
    st.tuples(ODD_NAMES, st.sampled_from([".jpg", ".JPG", ".png", ".jpeg", ".tiff", ".txt", ""])).map("".join),
    st.sampled_from([".DS_Store", "Thumbs.db", "a.jpg", "b.jpg", "c.png", ".jpg"]),
)
#: Bytes are a file, a dictionary is a folder, a string is a symbolic link.
FILES = st.dictionaries(
    FILE_NAMES,
    st.integers(0, 30).map(lambda i: b"%d" % i) | st.sampled_from([".", "..", "../cats", "nowhere", "a.jpg", "/"]),
    max_size=8,
)
TREES = st.recursive(
    FILES,
    lambda inner: st.dictionaries(FOLDER_NAMES, inner | st.sampled_from(["../cats", "..", "dogs"]), max_size=4),
    max_leaves=8,
)
CLASS_FOLDERS = st.dictionaries(FOLDER_NAMES, FILES.filter(bool), min_size=2, max_size=4)
SPLIT_FOLDERS = st.fixed_dictionaries(
    {"train": CLASS_FOLDERS, "test": CLASS_FOLDERS | st.just({})}, optional={"val": CLASS_FOLDERS, "stray": FILES}
)


def same_classes(tree: dict) -> dict:
    """Give the test split the classes of the train split, so that there is a data set to speak of."""
    return {**tree, "test": {name: {"a.jpg": b"t" + name.encode("utf-8", "replace")} for name in tree["train"]}}


def make_tree(folder: Path, tree: dict) -> None:
    folder.mkdir(exist_ok=True)
    for name, node in tree.items():
        path = folder / name
        if name in {".", ".."} or len(os.fsencode(name)) > 200 or os.path.lexists(path):
            continue
        if isinstance(node, dict):
            make_tree(path, node)
        elif isinstance(node, str):
            path.symlink_to(node)
        else:
            path.write_bytes(node)


@bounded(500)
@given(tree=TREES | CLASS_FOLDERS | SPLIT_FOLDERS | SPLIT_FOLDERS.map(same_classes))
def test_any_tree_of_folders_is_a_sound_data_set_or_an_error(tmp_path_factory, tree):
    base = tmp_path_factory.getbasetemp() / "tree"
    shutil.rmtree(base, ignore_errors=True)
    root = base / "some data"
    base.mkdir()
    make_tree(root, tree)
    try:
        dataset = scan(root, base / "cache")
    except DatasetError as error:
        message = str(error)
    else:
        message = ""
        check_dataset(dataset, root)
    assert is_one_clean_line(message)


def is_one_clean_line(text: str) -> bool:
    """Whether nothing in `text` controls a terminal, or cannot be written as UTF-8."""
    return not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)


def check_dataset(dataset: ImageDataset, root: Path) -> None:
    parts = [Path(path).parts for path in dataset.paths]
    names = [dataset.class_names[label] for label in dataset.labels]
    assert len(set(dataset.paths)) == len(dataset.paths)
    assert list(zip(names, dataset.paths, strict=True)) == sorted(zip(names, dataset.paths, strict=True))
    assert list(dataset.class_names) == sorted(set(dataset.class_names))
    assert len(dataset.class_names) >= 2
    assert set(names) == {names[row] for row in np.flatnonzero(~dataset.is_test)} == set(dataset.class_names)
    assert dataset.n_test > 0
    for row, path in enumerate(dataset.paths):
        content = (root / path).read_bytes()
        assert hashlib.sha256(content).digest() == bytes(dataset.digests[row])
        assert Path(path).suffix.lower() in IMAGE_SUFFIXES
        assert not any(part.startswith(".") or part == "__MACOSX" for part in parts[row])
    check_class_folders(dataset, root, parts, names)
    for text in (*dataset.warnings, *(reason for _, reason in dataset.unreadable)):
        assert is_one_clean_line(text)


def check_class_folders(dataset: ImageDataset, root: Path, parts: list[tuple[str, ...]], names: list[str]) -> None:
    """Labels are the names of folders that lie beside each other, and each image in such a folder has a row."""
    sides = [np.flatnonzero(dataset.is_test), np.flatnonzero(~dataset.is_test)]
    above = [common_folder([parts[row] for row in rows], [names[row] for row in rows]) for rows in sides]
    if None in above or above[0] != above[1]:
        both = common_folder(parts, names)
        above = above if both is None else [both, both]
    assert None not in above
    unreadable = {path for path, _ in dataset.unreadable}
    for folder in {Path(*prefix, name) for prefix in above for name in dataset.class_names}:
        for path in (root / folder).glob("*"):
            relative = str(path.relative_to(root))
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
            if is_image and path.is_file() and not path.is_symlink():
                assert relative in dataset.paths or relative in unreadable


def common_folder(parts: list[tuple[str, ...]], names: list[str]) -> tuple[str, ...] | None:
    """The folder that all of these images' class folders lie in; None if there is no such one."""
    for depth in range(4):
        prefixes = {part[:depth] for part in parts}
        is_class = all(part[depth : depth + 1] == (name,) for part, name in zip(parts, names, strict=True))
        if len(prefixes) == 1 and is_class:
            return prefixes.pop()
    return None
