"""Of a set of copies one stays, and what a person has to decide is not decided."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from featx.clean.copies import exact_copies, near_copies
from featx.clean.files import FileLook
from featx.clean.readable import ReadableImages
from featx.dataset.image_dataset import ImageDataset
from featx.dataset.scanning import scan


def images_of(dataset: ImageDataset, looks: dict[str, FileLook] | None = None) -> ReadableImages:
    splits = ["test" if is_test else "train" for is_test in dataset.is_test]
    usual = FileLook("JPEG", 40, 48, 1000, 50)
    return ReadableImages(
        dataset, splits, dataset.label_texts, [(looks or {}).get(path, usual) for path in dataset.paths]
    )


def suggestions(problems) -> dict[tuple[str, str], str]:
    return {(problem.path, problem.other_path): problem.suggestion for problem in problems}


@pytest.fixture
def data(tmp_path, make_photos) -> Path:
    return make_photos(tmp_path / "data", n_train=4, n_test=2)


def test_of_exact_copies_the_test_image_stays_then_the_shortest_path(data, tmp_path):
    sea = data / "train/sea"
    shutil.copy(sea / "sea.0.jpg", sea / "sea.0 (1).jpg")
    shutil.copy(sea / "sea.1.jpg", data / "test/sea/copy.jpg")
    shutil.copy(sea / "sea.1.jpg", data / "test/sea/another copy.jpg")
    problems, stands_for = exact_copies(images_of(scan(data, tmp_path / "cache")))
    assert suggestions(problems) == {
        ("train/sea/sea.0 (1).jpg", "train/sea/sea.0.jpg"): "remove",
        ("train/sea/sea.1.jpg", "test/sea/copy.jpg"): "remove",
        ("test/sea/another copy.jpg", "test/sea/copy.jpg"): "remove",
    }
    assert [problem.score for problem in problems] == [3, 3, 2]
    assert len(np.unique(stands_for)) == len(stands_for) - 3


def test_copies_in_two_classes_come_first_and_nothing_is_removed(data, tmp_path):
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/wood/wet.jpg")
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea/again.jpg")
    shutil.copy(data / "train/sea/sea.1.jpg", data / "train/sea/copy.jpg")
    problems, _ = exact_copies(images_of(scan(data, tmp_path / "cache")))
    assert [problem.suggestion for problem in problems] == ["look at", "look at", "remove"]
    assert "train/wood/wet.jpg" in {problems[0].path, problems[1].path, problems[0].other_path}
    assert all("one of the labels is wrong" in problem.reason for problem in problems[:2])


@pytest.mark.parametrize("link", ["a link.jpg", "l.jpg"])
def test_a_link_to_a_file_is_no_copy_that_could_go(data, tmp_path, link):
    (data / "train/sea" / link).symlink_to(data / "train/sea/sea.0.jpg")
    (problem,), _ = exact_copies(images_of(scan(data, tmp_path / "cache")))
    assert problem.suggestion == "look at"
    assert "the same file" in problem.reason


def near(images: ReadableImages, *pairs: tuple[str, str], correlation: float = 0.95):
    paths = images.dataset.paths
    rows = np.array([[paths.index(path) for path in pair] for pair in pairs])
    _, stands_for = exact_copies(images)
    return near_copies(images, rows, np.full(len(rows), correlation, np.float32), stands_for)


def test_of_near_copies_in_one_class_and_split_the_best_stays(data, tmp_path):
    large, odd = FileLook("JPEG", 80, 96, 900, 50), FileLook("JPEG", 5000, 6000, 9000, 50)
    fine = FileLook("JPEG", 40, 48, 2000, 50)
    looks = {"train/sea/sea.1.jpg": large, "train/sea/sea.2.jpg": odd, "train/wood/wood.1.jpg": fine}
    images = images_of(scan(data, tmp_path / "cache"), looks)
    found = near(
        images,
        ("train/sea/sea.0.jpg", "train/sea/sea.1.jpg"),
        ("train/sea/sea.1.jpg", "train/sea/sea.2.jpg"),
        ("train/wood/wood.0.jpg", "train/wood/wood.1.jpg"),
    )
    assert suggestions(found) == {
        ("train/sea/sea.0.jpg", "train/sea/sea.1.jpg"): "remove",
        ("train/sea/sea.2.jpg", "train/sea/sea.1.jpg"): "remove",
        ("train/wood/wood.0.jpg", "train/wood/wood.1.jpg"): "remove",
    }


def test_an_image_whose_exact_copy_is_to_be_looked_at_does_not_go(data, tmp_path):
    (data / "train/sea/a link.jpg").symlink_to(data / "train/sea/sea.0.jpg")
    images = images_of(scan(data, tmp_path / "cache"), {"train/sea/sea.1.jpg": FileLook("JPEG", 80, 96, 900, 50)})
    (problem,) = near(images, ("train/sea/sea.0.jpg", "train/sea/sea.1.jpg"))
    assert (problem.path, problem.suggestion) == ("train/sea/sea.0.jpg", "look at")
    assert "has an exact copy that you have to look at" in problem.reason


def test_each_image_that_goes_has_a_copy_of_its_own_that_stays(data, tmp_path):
    looks = {f"train/sea/sea.{number}.jpg": FileLook("JPEG", 90 - number, 90, 1, 50) for number in range(4)}
    names = list(looks)
    found = near(images_of(scan(data, tmp_path / "cache"), looks), *pairwise(names))
    assert suggestions(found) == {(names[1], names[0]): "remove", (names[3], names[2]): "remove"}


def test_near_copies_across_classes_and_splits_are_to_be_looked_at(data, tmp_path):
    found = near(
        images_of(scan(data, tmp_path / "cache")),
        ("train/sea/sea.2.jpg", "train/sea/sea.3.jpg"),
        ("test/sea/sea.0.jpg", "train/sea/sea.0.jpg"),
        ("train/sea/sea.1.jpg", "train/wood/wood.1.jpg"),
    )
    assert [problem.suggestion for problem in found] == ["look at", "look at", "remove"]
    assert "one of the labels is wrong" in found[0].reason
    assert (found[1].path, found[1].other_path) == ("train/sea/sea.0.jpg", "test/sea/sea.0.jpg")


def test_an_exact_copy_of_a_near_copy_is_told_once(data, tmp_path):
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea/exact copy.jpg")
    images = images_of(scan(data, tmp_path / "cache"))
    (problem,) = near(
        images,
        ("train/sea/sea.0.jpg", "train/sea/sea.1.jpg"),
        ("train/sea/exact copy.jpg", "train/sea/sea.1.jpg"),
        ("train/sea/exact copy.jpg", "train/sea/sea.0.jpg"),
    )
    assert "exact copy" not in problem.path + problem.other_path
