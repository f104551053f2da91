"""How folders are read: the trees of public data sets, and what is refused because it could be meant in two ways."""

import re
from pathlib import Path

import pytest

from featx.dataset import ImageDataset, ImageFolders, scan
from featx.errors import DatasetError
from tests.public_trees import TREES, PublicTree, write_tree
from tests.test_dataset import counts, fill

DOCUMENT = Path(__file__).parents[1] / "docs" / "layouts.md"

#: Data sets whose folders say something else than what people classify, and say it plainly. The classes are shown
#: before anything long, so that nobody is misled for hours.
READ_AS_THEY_SAY = {
    "Cityscapes (leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip)",  # cities
    "iNaturalist 2017 (train_val_images.tar.gz and test2017.tar.gz)",  # classes of animals and plants; species below
}


def read(root: Path, cache: Path) -> ImageDataset | DatasetError:
    try:
        return scan(root, cache, test_fraction=0)
    except DatasetError as error:
        return error


def outcome(root: Path, found: ImageDataset | DatasetError) -> str:
    """What featx makes of a tree, in the words of the document."""
    if isinstance(found, DatasetError):
        text = str(found).replace(str(root), "DATA")
        if why := re.search(r"is not clear: (.*?)\. Folders, with", text):
            return f"Refused: {why[1]}"
        return f"Refused: {text.split('. ')[0].rstrip('.')}"
    classes = ", ".join(found.class_names[:3]) + (", …" if len(found.class_names) > 3 else "")
    return f"{len(found.class_names)} classes: {classes}"


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name.split(" (")[0])
def test_a_public_data_set_is_read_right_or_refused(tree: PublicTree, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write_tree(tree, root)
    found = read(root, tmp_path / "cache")
    if isinstance(found, DatasetError):
        assert "\n" not in str(found)
        return
    if tree.name in READ_AS_THEY_SAY:
        return
    assert tree.classes is not None, f"{tree.note} Read as {counts(found)}"
    assert counts(found) == tree.classes


def test_the_document_says_what_featx_makes_of_them(tmp_path):
    rows = []
    for number, tree in enumerate(sorted(TREES, key=lambda tree: tree.name.casefold())):
        root = tmp_path / str(number) / "data"
        root.mkdir(parents=True)
        write_tree(tree, root)
        what = outcome(root, read(root, tmp_path / "cache")).replace("|", "\\|")
        rows.append(f"| {tree.name} | {what} |")
    table = "\n".join(rows)
    text = DOCUMENT.read_text(encoding="utf-8")
    (tmp_path / "table.md").write_text(table, encoding="utf-8")
    assert table in text, f"the table has changed: it is now {tmp_path / 'table.md'}"
    assert sum("Refused" not in row for row in rows) >= 50


# What is read from names and contents


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("rps", "rps-test-set"),
        ("trainingSet", "TestingData"),
        ("train_data", "holdout"),
        ("train2017", "val2017"),
        ("trainval", "test"),
        ("Final_Training/Images", "Final_Test/Images"),
        ("pets train", "pets eval"),
        ("pets/.", "pets/test"),
    ],
)
def test_splits_are_read_from_the_words_of_their_names(tmp_path, train, test):
    fill(tmp_path / "pets", **{f"{train}/dogs": 3, f"{train}/cats": 4, f"{test}/dogs": 1, f"{test}/cats": 2})
    assert counts(scan(tmp_path / "pets", tmp_path / "cache")) == {"cats": (4, 2), "dogs": (3, 1)}


@pytest.mark.parametrize(
    "names", [("bullet_train", "steam_train"), ("test tube", "train station"), ("no_mask", "mask")]
)
def test_words_in_the_names_of_classes_mean_nothing(tmp_path, names):
    fill(tmp_path / "pets", **dict.fromkeys(names, 40))
    assert scan(tmp_path / "pets", tmp_path / "cache").class_names == tuple(sorted(names))


def test_an_unlabelled_folder_is_set_apart_and_named_with_its_number(tmp_path):
    root = tmp_path / "scenes"
    fill(root, seg_train__seg_train__sea=4, seg_train__seg_train__wood=4, seg_pred__seg_pred=5)
    fill(root, seg_test__seg_test__sea=2, seg_test__seg_test__wood=2, seg_extra=1)
    dataset = scan(root, tmp_path / "cache")
    assert counts(dataset) == {"sea": (4, 2), "wood": (4, 2)}
    assert dataset.warnings == (
        "Left out, having no class folders: seg_pred (5 images).",
        "Left out, being neither a split nor a class: seg_extra (1 image).",
    )


def test_folders_that_an_archive_holds_twice_are_left_out(tmp_path):
    fill(tmp_path / "cells", yes=40, no=40, cells__yes=40, cells__no=40)
    dataset = scan(tmp_path / "cells", tmp_path / "cache")
    assert dataset.n_images == 80
    assert "Left out, being neither a split nor a class: cells (80 images)." in dataset.warnings


def test_folders_in_every_class_are_said_to_be_part_of_it(tmp_path):
    fill(tmp_path / "pets", cats__persian=20, cats__siamese=20, dogs__pug=20, dogs__poodle=20)
    dataset = scan(tmp_path / "pets", tmp_path / "cache")
    assert dataset.class_names == ("cats", "dogs")
    assert any("taken as part of it: cats/ has persian/, siamese/" in warning for warning in dataset.warnings)


# What may be meant in two ways


DOUBTFUL = {
    "images beside masks": ({"images": 4, "masks": 4}, "masks/ may hold masks"),
    "masks among classes": ({"cats": 4, "dogs": 4, "trimaps": 4}, "trimaps/ may hold masks"),
    "domains above classes": ({"photo__cat": 2, "photo__dog": 2, "art__cat": 2, "art__dog": 2}, "(cat/, dog/)"),
    "images and masks of each class": (
        {"a__images": 2, "a__masks": 2, "b__images": 2, "b__masks": 2},
        "(images/, masks/)",
    ),
    "classes above splits": ({"cat__train": 2, "cat__test": 2, "dog__train": 2, "dog__test": 2}, "(test/, train/)"),
    "parts of a set": ({"ham_part_1": 4, "ham_part_2": 4}, "may be parts of one set"),
    "test images beside classes": ({"cats": 4, "dogs": 4, "test": 4}, "test/ may hold test images without labels"),
    "a class of trains, or a split": (
        {"train__steam": 2, "train__new": 2, "boat__sail": 2, "boat__row": 2},
        "or a class like boat/",
    ),
    "an index": ({"a__abbey": 2, "a__arch": 2, "b__bar": 2}, "index by first letters"),
    "one folder deeper": ({"tiles__wood": 2, "tiles__sea": 2, "whole": 4}, "only tiles/ holds its images in several"),
    "two test splits": ({"train__a": 2, "train__b": 2, "test_x__a": 1, "test_y__a": 1}, "may be the test split"),
}


@pytest.mark.parametrize(("folders", "why"), DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_what_can_be_meant_in_two_ways_is_refused_with_the_tree_and_the_way_to_say_it(tmp_path, folders, why):
    root = tmp_path / "pets"
    fill(root, **folders)
    with pytest.raises(DatasetError) as caught:
        scan(root, tmp_path / "cache")
    message = str(caught.value)
    assert why in message
    first = min(folders).split("__")[0]
    assert f"Folders, with their numbers of images: {first}/" in message
    assert "--train-folder FOLDER" in message
    assert "\n" not in message


def test_file_names_that_may_be_the_classes_are_refused_and_shown(tmp_path):
    root = tmp_path / "pets"
    for folder in ("north", "south"):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            for name in ("cat", "dog"):
                (root / folder / f"{name}.{number}.jpg").write_bytes(f"{folder}{name}{number}".encode())
    with pytest.raises(DatasetError, match=r"names in each of north/, south/ begin with cat, dog, so these may be"):
        scan(root, tmp_path / "cache")
    assert scan(ImageFolders(root, "."), tmp_path / "cache").class_names == ("north", "south")


def test_names_that_cameras_give_say_nothing(tmp_path):
    root = tmp_path / "pets"
    for folder in ("cats", "dogs"):
        (root / folder).mkdir(parents=True)
        for number in range(20):
            for name in ("IMG_", "DSC0", "WhatsApp Image "):
                (root / folder / f"{name}{number}.jpg").write_bytes(f"{folder}{name}{number}".encode())
    assert scan(root, tmp_path / "cache").class_names == ("cats", "dogs")


# Saying what is meant


def test_named_folders_are_the_splits_whatever_they_are_called(tmp_path):
    root = tmp_path / "tissue"
    fill(root, **{"NCT-100K/tumor": 4, "NCT-100K/fat": 4, "CRC-7K/tumor": 2, "CRC-7K/fat": 1, "masks": 1})
    named = scan(ImageFolders(root, "NCT-100K", "CRC-7K"), tmp_path / "cache")
    assert counts(named) == {"fat": (4, 1), "tumor": (4, 2)}
    assert named.folders == ImageFolders(root, "NCT-100K", "CRC-7K")
    assert named.subset(~named.is_test).folders == named.folders


def test_the_folder_itself_may_be_named_and_the_test_split_lie_in_it(tmp_path):
    root = tmp_path / "pets"
    fill(root, cats=4, dogs=4, masks=4, other__cats=1, other__dogs=1, other__masks=1)
    named = scan(ImageFolders(root, ".", "other"), tmp_path / "cache")
    assert counts(named) == {"cats": (4, 1), "dogs": (4, 1), "masks": (4, 1)}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("nowhere", None, r"no folder nowhere in .*Found: cats/, dogs/"),
        ("cats", None, "has no folders in it"),
        (None, "cats", "--test-folder needs --train-folder"),
        ("..", None, "outside"),
    ],
)
def test_a_folder_that_cannot_be_a_split_is_a_clear_error(tmp_path, train, test, message):
    fill(tmp_path / "pets", cats=4, dogs=4)
    with pytest.raises(DatasetError, match=message):
        scan(ImageFolders(tmp_path / "pets", train, test), tmp_path / "cache")


def test_the_command_names_the_splits_too_and_so_does_what_it_advises(featx, tmp_path):
    root = tmp_path / "tissue"
    fill(root, **{"NCT-100K/tumor": 4, "NCT-100K/fat": 4, "CRC-7K/tumor": 2, "CRC-7K/fat": 1})
    words = ["--train-folder", "NCT-100K", "--test-folder", "CRC-7K", "--weights", "random", "--image-size", "32"]
    refused = featx("train-top", root, "--cache-dir", tmp_path / "cache", exit_code=2)
    assert "Say what is meant" in refused.stderr
    missing = featx("train-top", root, "--cache-dir", tmp_path / "cache", *words, exit_code=2)
    assert "--train-folder NCT-100K --test-folder CRC-7K" in missing.stderr


# The classes are said before anything long


@pytest.mark.parametrize("command", ["extract", "train-top", "compare", "plan"])
def test_every_command_says_the_classes_with_their_counts_first(featx, tmp_path, command):
    root = tmp_path / "pets"
    fill(root, train__cats=3, train__dogs=2, test__cats=1, test__dogs=1)
    result = featx(command, root, "--cache-dir", tmp_path / "cache", "--weights", tmp_path / "no.h5", exit_code=2)
    assert result.stderr.splitlines()[0] == (
        "featx: 2 classes, images in train/ (training) and test/ (test): cats 3 + 1, dogs 2 + 1."
    )


def test_of_many_classes_the_smallest_and_the_largest_are_said(tmp_path, caplog):
    fill(tmp_path / "many", **{f"c{number:02}": 5 + number for number in range(30)})
    with caplog.at_level("INFO", "featx"):
        scan(tmp_path / "many", tmp_path / "cache")
    line = next(record.getMessage() for record in caplog.records)
    assert line.startswith("30 classes, images in ")
    assert "c00 5, c01 6," in line
    assert line.endswith("…; the smallest is c00 5, the largest c29 34.")
