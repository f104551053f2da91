"""How folders are read: the trees of public data sets, and what is refused because it could be meant in two ways."""

import os
import re
from pathlib import Path

import pytest

from featx.dataset.image_dataset import ImageDataset, ImageFolders
from featx.dataset.scanning import scan
from featx.errors import DatasetError
from tests.dataset.public_trees import TREES, PublicTree, write_tree
from tests.dataset.test_image_dataset import counts, fill

DOCUMENT = Path(__file__).parents[2] / "docs" / "layouts.md"

#: Data sets whose folders say something else than what people classify, and say it plainly. The classes are shown
#: before anything long, so that nobody is misled for hours.
READ_AS_THEY_SAY = {
    "Google Landmarks (Kaggle competition landmark-recognition-2020)",  # the first digits of file names
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
        if why := re.search(r"is not clear what .*? mean: (.*?)\. Folders, with", text):
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
        "Left out, without class folders: seg_pred/ (5 images).",
        "Left out, neither a split nor a class: seg_extra/ (1 image).",
    )


def test_folders_that_an_archive_holds_twice_are_left_out(tmp_path):
    fill(tmp_path / "cells", yes=40, no=40, cells__yes=40, cells__no=40)
    dataset = scan(tmp_path / "cells", tmp_path / "cache")
    assert dataset.n_images == 80
    assert "Left out, with the same folders and file names as the classes: cells/ (80 images)." in dataset.warnings


def test_folders_in_every_class_are_said_to_be_part_of_it(tmp_path):
    fill(tmp_path / "pets", cats__persian=20, cats__siamese=20, dogs__pug=20, dogs__poodle=20)
    dataset = scan(tmp_path / "pets", tmp_path / "cache")
    assert dataset.class_names == ("cats", "dogs")
    assert any(
        "include those in its sub-folders: cats/ has persian/, siamese/" in warning for warning in dataset.warnings
    )


# What may be meant in two ways


DOUBTFUL = {
    "images beside masks": ({"images": 4, "masks": 4}, "masks/ may hold masks"),
    "masks among classes": ({"cats": 4, "dogs": 4, "trimaps": 4}, "trimaps/ may hold masks"),
    "domains above classes": (
        {"photo__cat": 2, "photo__dog": 2, "art__cat": 2, "art__dog": 2},
        "so cat/, dog/ may be the classes",
    ),
    "images and masks of each class": (
        {"a__images": 2, "a__masks": 2, "b__images": 2, "b__masks": 2},
        "a/masks/ may hold masks",
    ),
    "classes above splits": (
        {"cat__train": 2, "cat__test": 2, "dog__train": 2, "dog__test": 2},
        "so test/, train/ may be the classes",
    ),
    "parts of a set": ({"ham_part_1": 4, "ham_part_2": 4}, "may be parts of one set"),
    "test images beside classes": ({"cats": 4, "dogs": 4, "test": 4}, "test/ may hold test images without labels"),
    "a class of trains, or a split": (
        {"train__steam": 2, "train__new": 2, "boat__sail": 2, "boat__row": 2},
        "or a class like boat/",
    ),
    "an index": ({"a__abbey": 2, "a__arch": 2, "b__bar": 2}, "index by first letters"),
    "one folder deeper": ({"tiles__wood": 2, "tiles__sea": 2, "whole": 4}, "only tiles/ holds its images in several"),
    "splits of each class": (
        {"train_cats": 4, "train_dogs": 4, "test_cats": 2, "test_dogs": 2},
        "one class in two splits",
    ),
    "letters for splits": ({"trainA": 4, "trainB": 4, "testA": 2, "testB": 2}, "may be one class in two splits"),
    "a train split beside flat classes": ({"train__steam": 2, "train__new": 2, "plane": 4}, "or a class like plane/"),
    "a train split, a class and a flat test": (
        {"train__old": 2, "train__new": 2, "plane__jet": 4, "plane__prop": 4, "test": 5},
        "or a class like plane/",
    ),
    "masks in each class": ({"cats": 4, "cats__masks": 4, "dogs": 4, "dogs__masks": 4}, "cats/masks/ may hold masks"),
    "a validation folder": ({"cats": 4, "dogs": 4, "val": 4}, "val/ may hold test images"),
    "test images one deeper": ({"cats": 4, "dogs": 4, "test__images": 4}, "test/ may hold test images"),
    "more of the same": (
        {"cats": 4, "dogs": 4, "new__cats": 2, "new__dogs": 2},
        "new/ holds folders named like the classes",
    ),
    "years": (
        {"2023__cats": 2, "2023__dogs": 2, "2024__cats": 2, "2024__fish": 2},
        "so cats/ may be the classes instead",
    ),
    "patients": ({"p1__benign": 3, "p2__malignant": 3, "p3__benign": 3}, "so benign/ may be the classes instead"),
    "a folder called images": ({"cats": 4, "dogs": 4, "images": 4}, "images/ may not be a class"),
    "splits on two levels": (
        {"data__train__a": 4, "data__train__b": 4, "test__a": 2, "test__b": 2},
        "test/ may be the test split",
    ),
    "a test split with other classes": (
        {"cats": 4, "dogs": 4, "test__cats": 2, "test__birds": 2},
        "test/ is a test split",
    ),
    "a doubtful folder among many": (
        {"d0": 3, "d1": 3, "d2": 3, "d3": 3, "d4": 3, "z__a": 3, "z__b": 3},
        "only z/ holds its images in several",
    ),
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
    assert "Folders, with their numbers of images: " in message
    tree = message.partition("numbers of images: ")[2].partition("Say what")[0]
    assert all(folder in tree for folder in re.findall(r"\w+/", message.partition(" mean: ")[2].partition(". ")[0]))
    assert "--train-folder FOLDER" in message
    assert "\n" not in message


def test_file_names_that_may_be_the_classes_are_refused_and_shown(tmp_path):
    root = tmp_path / "pets"
    for folder in ("north", "south"):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            for name in ("cat", "dog"):
                (root / folder / f"{name}.{number}.jpg").write_bytes(f"{folder}{name}{number}".encode())
    with pytest.raises(DatasetError, match=r"names in each of north/, south/ begin with cat, dog, which may be the"):
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


@pytest.mark.parametrize("mask", ["{}_mask.png", "mask_{}.png"])
def test_masks_beside_their_images_are_refused_by_the_names_of_the_files(tmp_path, mask):
    for name in ("benign", "malignant"):
        fill(tmp_path / "scans", **{name: 4})
        for number in range(4):
            (tmp_path / "scans" / name / mask.format(number)).write_bytes(f"{name}{number}".encode())
    with pytest.raises(
        DatasetError, match="4 files in benign/ are named like another file there, plus a word for a mask"
    ):
        scan(tmp_path / "scans", tmp_path / "cache")


@pytest.mark.parametrize(
    "folders",
    [
        {"mask": 40, "nomask": 40},
        {"mask": 40, "no-mask": 40, "incorrect": 40},
        {"face mask": 40, "gloves": 40, "gown": 40},
        {"depth": 40, "flat": 40},
        {"shipping label": 40, "barcode": 40, "box": 40},
        {"cats": 40, "cats__new": 10, "cats__old": 10, "dogs": 40, "dogs__new": 10, "dogs__old": 10},
        {"cats__originals": 40, "dogs__originals": 40},
        {"valid": 40, "invalid": 40, "unsure": 40},
        {"x2": 40, "x\u00b2": 40},
        {"Stra\u00dfe": 40, "Strasse": 40},
        {"\u732b": 40, "\u72ac": 40},
    ],
)
def test_ordinary_classes_are_read(tmp_path, folders):
    fill(tmp_path / "pets", **folders)
    names = {folder.split("__")[0] for folder in folders}
    assert scan(tmp_path / "pets", tmp_path / "cache").class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    "folders",
    [
        {
            "train__cats__a": 2,
            "train__cats__b": 2,
            "train__dogs__a": 2,
            "train__dogs__b": 2,
            "test__cats": 1,
            "test__dogs": 1,
        },
        {"train_augmented__cats": 4, "train_augmented__dogs": 4, "test__cats": 1, "test__dogs": 1},
        {
            "a__b__c__d__e__f__g__train__cats": 4,
            "a__b__c__d__e__f__g__train__dogs": 4,
            "a__b__c__d__e__f__g__test__cats": 1,
            "a__b__c__d__e__f__g__test__dogs": 1,
        },
        {"train__cats": 4, "train__dogs": 4, "test__cats": 1, "test__dogs": 1, "masks": 4},
    ],
)
def test_ordinary_splits_are_read(tmp_path, folders):
    fill(tmp_path / "pets", **folders)
    assert counts(scan(tmp_path / "pets", tmp_path / "cache")) == {"cats": (4, 1), "dogs": (4, 1)}


def test_images_above_the_classes_are_named_and_change_nothing(tmp_path):
    fill(tmp_path / "pets", **{".": 1, "data__train__cats": 40, "data__train__dogs": 40, "data": 1})
    fill(tmp_path / "flowers", **{".": 1, "flowers__rose": 20, "flowers__tulip": 20})
    pets = scan(tmp_path / "pets", tmp_path / "cache")
    assert any("in no class folder: 2 images (0.jpg, data/0.jpg)" in warning for warning in pets.warnings)
    assert scan(tmp_path / "flowers", tmp_path / "cache").class_names == ("rose", "tulip")


def test_a_folder_that_cannot_be_looked_into_is_left_out_with_its_reason(tmp_path, monkeypatch):
    fill(tmp_path / "pets", cats=40, dogs=40, birds=40)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("birds"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("featx.dataset.folders.os.scandir", refuse)  # root may read everything
    dataset = scan(tmp_path / "pets", tmp_path / "cache")
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.unreadable == (("birds", "Permission denied"),)


# Saying what is meant


def test_named_folders_are_the_splits_whatever_they_are_called(tmp_path):
    root = tmp_path / "tissue"
    fill(root, **{"NCT-100K/tumor": 4, "NCT-100K/fat": 4, "CRC-7K/tumor": 2, "CRC-7K/fat": 1, "masks": 1})
    named = scan(ImageFolders(root, "NCT-100K", "CRC-7K"), tmp_path / "cache")
    assert counts(named) == {"fat": (4, 1), "tumor": (4, 2)}
    assert named.folders == ImageFolders(root, "NCT-100K", "CRC-7K")
    assert named.subset(~named.is_test).folders == named.folders


def test_a_named_folder_may_be_a_whole_path_and_what_it_leaves_out_is_said(tmp_path):
    root = tmp_path / "tissue"
    fill(root, day__a__x=4, day__a__y=4, day__b__x=4, day__b__z=4, night__a=2)
    named = scan(ImageFolders(root, str(root / "day")), tmp_path / "cache", test_fraction=0)
    assert counts(named) == {"a": (8, 0), "b": (8, 0)}
    assert named.warnings == (
        "The images of a class include those in its sub-folders: a/ has x/, y/.",
        "Left out, neither a split nor a class: night/ (2 images).",
    )


def test_a_train_split_alone_may_be_named_beside_a_test_split(tmp_path):
    fill(tmp_path / "pets", train__cats=40, train__dogs=40, test__cats=2, test__birds=2)
    with pytest.raises(DatasetError, match="name the train split alone with --train-folder FOLDER"):
        scan(tmp_path / "pets", tmp_path / "cache")
    named = scan(ImageFolders(tmp_path / "pets", "train"), tmp_path / "cache")
    assert named.class_names == ("cats", "dogs")
    assert named.n_test > 0
    assert "Left out, neither a split nor a class: test/ (4 images)." in named.warnings


def test_the_folder_itself_may_be_named_and_the_test_split_lie_in_it(tmp_path):
    root = tmp_path / "pets"
    fill(root, cats=4, dogs=4, masks=4, other__cats=1, other__dogs=1, other__masks=1)
    named = scan(ImageFolders(root, ".", "other"), tmp_path / "cache")
    assert counts(named) == {"cats": (4, 1), "dogs": (4, 1), "masks": (4, 1)}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("nowhere", None, r"has no folder nowhere, .*Found: cats/, dogs/"),
        ("cats", None, "has no folders in it"),
        (None, "cats", "--test-folder needs --train-folder"),
        ("..", None, "outside"),
        ("", None, "or . for itself"),
        (".", "", "or . for itself"),
        (".", ".", "are the same folder"),
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
    assert "Say what you mean" in refused.stderr
    missing = featx("train-top", root, "--cache-dir", tmp_path / "cache", *words, exit_code=2)
    assert "--train-folder NCT-100K --test-folder CRC-7K" in missing.stderr


# The classes are said before anything long


@pytest.mark.parametrize("command", ["extract", "train-top", "compare", "plan"])
def test_every_command_says_the_classes_with_their_counts_first(featx, tmp_path, monkeypatch, command):
    root, weights = tmp_path / "pets", tmp_path / "weights"
    fill(root, train__cats=3, train__dogs=2, test__cats=1, test__dogs=1)
    weights.mkdir()
    for name in ("vgg16_a_notop.h5", "vgg16_b_notop.h5"):  # which of them is meant ends the command, once it looks
        (weights / name).touch()
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(weights))
    result = featx(command, root, "--cache-dir", tmp_path / "cache", exit_code=2)
    assert result.stderr.splitlines()[0] == (
        "featx: 2 classes, images in train/ (training) and test/ (test): cats (3 + 1), dogs (2 + 1)."
    )


def test_of_many_classes_the_smallest_and_the_largest_are_said(tmp_path, caplog):
    fill(tmp_path / "many", **{f"c{number:02}": 5 + number for number in range(30)})
    with caplog.at_level("INFO", "featx"):
        scan(tmp_path / "many", tmp_path / "cache")
    line = next(record.getMessage() for record in caplog.records)
    assert line.startswith("30 classes, images in ")
    assert "c00 (5), c01 (6)," in line
    assert line.endswith("…; the smallest is c00 (5), the largest c29 (34).")
