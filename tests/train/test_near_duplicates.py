"""Copies of photographs are found whatever was done to them, and different photographs are not taken for copies."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from featx.compare.compare import compare_approaches
from featx.dataset.image_dataset import ImageDataset, ImageFolders
from featx.dataset.scanning import scan
from featx.extract.extract import extract_features
from featx.extract.transformer import FeatureExtractor
from featx.heads.training_loop import Training
from featx.train.near_duplicates import N_NEIGHBOURS, SAME, _candidates, crossing_copies, find_copies, pooled
from featx.train.train import train_top
from tests.conftest import SMALL


def cropped(image: Image.Image) -> Image.Image:
    """Return the image without a twentieth of its width on the left and of its height at the bottom."""
    return image.crop((image.width // 20, 0, image.width, image.height - image.height // 20))


#: What is done to an image, and the quality of the JPEG file then.
CHANGES = {
    "encoded": (lambda image: image, 60),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 85),
    "halved": (lambda image: image.resize((image.width // 2, image.height // 2)), 85),
    "cropped": (cropped, 85),
    "mirrored": (ImageOps.mirror, 85),
}


def plant(photos: list[Path], folder: Path) -> None:
    """Write one changed copy of each photograph, `NAME+CHANGE.jpg`, the changes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(photos):
        change = list(CHANGES)[number % len(CHANGES)]
        function, quality = CHANGES[change]
        function(Image.open(path).convert("RGB")).save(folder / f"{path.stem}+{change}.jpg", quality=quality)


def found_by_change(dataset: ImageDataset, X: np.ndarray) -> tuple[Counter, list]:
    """Return how many planted copies `find_copies` finds, by what was done to them, and the other pairs it finds."""
    copies = find_copies(dataset, X)
    assert (copies.correlation[:-1] >= copies.correlation[1:]).all()
    assert (copies.correlation >= SAME).all()
    found, others = Counter(), []
    for first, second in copies.rows:
        assert first < second
        one, other = (Path(dataset.paths[row]).stem.partition("+") for row in (first, second))
        if one[0] == other[0]:
            found[one[2] or other[2]] += 1
        else:
            others.append((dataset.paths[first], dataset.paths[second]))
    return found, others


def features(dataset: ImageDataset, cache: Path, **options: object) -> np.ndarray:
    extractor = FeatureExtractor(image_size=64, cache_dir=cache, precision="float32", pooling="avg", **options)
    return extractor.transform([dataset.root / path for path in dataset.paths])


def test_copies_of_photographs_are_found_and_nothing_else(shared, tmp_path, cache):
    photos = []
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in sorted((shared / "data" / "cats-dogs" / "train" / name).iterdir())[:150]:
            photos.append(tmp_path / "data" / name / path.name)
            photos[-1].symlink_to(path)
    plant(photos[::3], tmp_path / "data" / "cats")  # of dogs, too: their labels differ then
    dataset = scan(tmp_path / "data", cache)
    weights = shared / "weights-imagenet" / "vgg16_imagenet_notop.h5"
    found, others = found_by_change(dataset, features(dataset, cache, weights=str(weights)))
    assert others == []
    assert set(found) == set(CHANGES)
    assert sum(found.values()) >= 95


def test_copies_of_drawn_images_are_found_with_random_weights(tmp_path, cache):
    rng = np.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "data" / ("train", "test")[number % 2] / ("a", "b")[number // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((90, 90)).save(folder / f"{number}.png")
    photos = sorted((tmp_path / "data" / "train").rglob("*.png"))
    plant(photos[:10], tmp_path / "data" / "test" / "b")
    dataset = scan(tmp_path / "data", cache)
    found, others = found_by_change(dataset, features(dataset, cache, weights="random", layer="block1_pool"))
    assert others == []
    assert sum(found.values()) >= 9


@pytest.mark.parametrize("block_bytes", [1, 4096, 1 << 30])
def test_candidates_are_what_comparing_all_pairs_finds(monkeypatch, block_bytes):
    monkeypatch.setattr("featx.train.near_duplicates._BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("featx.train.near_duplicates.CANDIDATE", -1.0)
    X = np.random.default_rng(0).gamma(1, 2, (40, 2, 3, 8)).astype(np.float16)
    is_test = np.arange(40) % 3 == 0
    roots = np.sqrt(X.astype(np.float64).mean(axis=(1, 2)))
    roots -= roots.mean(axis=0)
    cosines = roots @ roots.T / np.outer(np.linalg.norm(roots, axis=1), np.linalg.norm(roots, axis=1))
    expected = set()
    for row in range(40):
        for split in (is_test, ~is_test):
            others = [other for other in np.flatnonzero(split) if other != row]
            nearest = sorted(others, key=lambda other: -cosines[row, other])[:N_NEIGHBOURS]
            expected |= {(min(row, other), max(row, other)) for other in nearest}
    sides = [(np.arange(40), np.flatnonzero(split)) for split in (is_test, ~is_test)]
    assert set(map(tuple, _candidates(pooled(X), sides).tolist())) == expected


def test_features_that_are_all_the_same_give_no_candidates():
    rows = np.arange(5)
    assert len(_candidates(pooled(np.ones((5, 4), np.float16)), [(rows, rows)])) == 0


def test_images_of_one_colour_are_no_copies_and_one_that_is_gone_is_left_out(tmp_path, cache):
    for name, shade in (("a", 40), ("b", 41)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (50, 50), (shade, number, 0)).save(tmp_path / "data" / name / f"{number}.png")
    dataset = scan(tmp_path / "data", cache)
    (dataset.root / dataset.paths[3]).unlink()
    X = np.random.default_rng(0).gamma(1, 2, (2, 8))[np.arange(10) % 2]  # the features of five are the same
    assert len(find_copies(dataset, X).rows) == 0


def test_tiny_images_and_too_many_are_not_looked_at_and_that_is_said(make_photos, tmp_path, cache, monkeypatch, caplog):
    caplog.set_level("INFO", logger="featx")
    (tmp_path / "digits").mkdir()
    for name in "ab":
        (tmp_path / "digits" / name).mkdir()
        for number in range(5):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "digits" / name / f"{name}{number}.png")
    dataset = scan(tmp_path / "digits", cache)
    X = np.random.default_rng(0).gamma(1, 2, (2, 8))[np.arange(10) % 2]
    assert find_copies(dataset, X) is None
    assert "images below 32 pixels" in caplog.text
    monkeypatch.setattr("featx.train.near_duplicates.MAX_OPERATIONS", 10)
    assert find_copies(dataset, X) is None
    assert "too long" in caplog.text


# Across the splits


def drawn(folder: Path, n: int) -> Path:
    """Write `n` drawn pictures of each of two classes for training, and half as many for testing."""
    rng = np.random.default_rng(0)
    for name in "ab":
        for split, n_of_split in (("train", n), ("test", n // 2)):
            (folder / split / name).mkdir(parents=True)
            for number in range(n_of_split):
                pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).resize((90, 90)).save(folder / split / name / f"{number}.png")
    return folder


def test_training_warns_of_copies_across_the_splits_and_says_what_to_do(tmp_path, cache, caplog):
    data = drawn(tmp_path / "data", 10)
    for copied in ("train/a/3.png", "train/b/4.png"):
        plant([data / copied], data / "test/a")
    shutil.copy(data / "train/a/5.png", data / "test/a/exact.png")  # which another warning names
    extract_features(data, cache_dir=cache, **SMALL)
    options = {"cache_dir": cache, "heads": "logreg", **SMALL}
    run = train_top(data, run_dir=tmp_path / "run", **options)
    (warning,) = [text for text in run.warnings if "same photograph" in text]
    assert warning.startswith(
        "Test images that show the same photograph as a training image, so results look better than they are: 2 of 13, "
        "such as test/a/"
    )
    assert "--group-column" in warning
    assert "--folds 5" in warning
    assert warning in caplog.text
    assert warning in json.loads((run.dir / "metrics.json").read_text())["warnings"]
    crossed = train_top(data, run_dir=tmp_path / "crossed", folds=3, **options)
    assert not [text for text in crossed.warnings if "same photograph" in text]
    rows = [
        (path, path.split("/")[1], path.split("/")[0], path)
        for path in run.features.dataset.paths
        if "exact" not in path
    ]
    grouped = train_top(ImageFolders(data, labels=rows), run_dir=tmp_path / "grouped", **options)
    assert not [text for text in grouped.warnings if "same photograph" in text]


def test_data_without_copies_across_the_splits_gives_no_warning(tmp_path, cache):
    data = drawn(tmp_path / "data", 10)
    plant([data / "train/a/3.png"], data / "train/a")
    dataset = scan(data, cache)
    assert crossing_copies(dataset, features(dataset, cache, weights="random", layer="block1_pool")) == ""


def test_a_comparison_warns_too_and_counts_all_test_images(tmp_path, cache):
    data = drawn(tmp_path / "data", 6)
    plant([data / "train/a/3.png"], data / "test/a")
    options = {"cache_dir": cache, "training": Training(epochs=1), **SMALL}
    comparison = compare_approaches(data, **options)
    assert [text for text in comparison.warnings if "they are: 1 of 7, such as test/a/3+encoded.jpg, like" in text]
    assert comparison.error_analysis.n_near_duplicates == 1
    assert not [text for text in compare_approaches(data, folds=3, **options).warnings if "same photograph" in text]


def test_features_on_disk_are_not_searched_and_that_is_said(tmp_path, cache, caplog):
    caplog.set_level("INFO", logger="featx")
    data = drawn(tmp_path / "data", 10)
    plant([data / "train/a/3.png"], data / "test/a")
    extract_features(data, cache_dir=cache, **SMALL)
    run = train_top(
        data, run_dir=tmp_path / "run", cache_dir=cache, heads="logreg", training=Training(memory=1), **SMALL
    )
    assert not [text for text in run.warnings if "same photograph" in text]
    assert "Not looking for near-duplicates of training images in the test split" in caplog.text


def test_of_many_test_images_some_are_looked_at(tmp_path, cache, monkeypatch):
    data = drawn(tmp_path / "data", 10)
    plant([data / f"train/a/{number}.png" for number in range(10)], data / "test/a")
    dataset = scan(data, cache)
    X = features(dataset, cache, weights="random", layer="block1_pool")
    monkeypatch.setattr("featx.train.near_duplicates.N_LOOKED", 15)
    assert re.search(r"they are: \d of 15, such as", crossing_copies(dataset, X))
