"""Copies of photographs are found whatever was done to them, and different photographs are not taken for copies."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from featx.dataset.image_dataset import ImageDataset
from featx.dataset.scanning import scan
from featx.extract.transformer import FeatureExtractor
from featx.train.near_duplicates import N_NEIGHBOURS, SAME, _candidates, find_copies, pooled


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
    assert set(map(tuple, _candidates(pooled(X), is_test).tolist())) == expected


def test_features_that_are_all_the_same_give_no_candidates():
    assert len(_candidates(pooled(np.ones((5, 4), np.float16)), np.arange(5) % 2 == 0)) == 0


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
