import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.dataset.image_dataset import ImageDataset, hashed_test_mask, identical_groups, validation_mask
from featx.dataset.scanning import scan
from featx.errors import DatasetError

JPEG = b"\xff\xd8\xff"  # how a JPEG begins
#: A whole image, a GIF of one pixel. What stands behind it belongs to nobody.
PICTURE = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"

CATS_DOGS = Path(__file__).parents[3] / "shared" / "data" / "cats-dogs"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pets"


@pytest.fixture
def scanned(tmp_path, root):
    """`scan` of the test's own folder; digests need no real images, only bytes."""
    return lambda **options: scan(root, tmp_path / "cache", **options)


def fill(root: Path, **folders: int) -> None:
    """Write n distinct files into each folder, which are images; `__` in a keyword stands for the slash."""
    for folder, n_images in folders.items():
        folder_path = root / folder.replace("__", "/")
        folder_path.mkdir(parents=True, exist_ok=True)
        for number in range(n_images):
            (folder_path / f"{number}.jpg").write_bytes(PICTURE + os.fsencode(f"{folder} {number}"))


def counts(dataset: ImageDataset) -> dict[str, tuple[int, int]]:
    """The number of training and of test images of each class."""
    return {
        name: (
            int(np.sum((dataset.labels == label) & ~dataset.is_test)),
            int(np.sum((dataset.labels == label) & dataset.is_test)),
        )
        for label, name in enumerate(dataset.class_names)
    }


def sides(dataset: ImageDataset) -> dict[bytes, bool]:
    return {digest.tobytes(): bool(side) for digest, side in zip(dataset.digests, dataset.is_test, strict=True)}


# Layouts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("training_set", "test_set"),
        ("Training", "Validation"),
        ("TRAIN", "val"),
        ("train", "valid"),
        ("training-set", "Test Set"),
        ("pets/train", "pets/test"),
        ("training_set/training_set", "test_set/test_set"),
        ("pets/training_set/training_set", "pets/test_set/test_set"),
    ],
)
def test_splits_are_found_under_the_names_people_give_them(root, scanned, train, test):
    fill(root, **{f"{train}/dogs": 3, f"{train}/cats": 4, f"{test}/dogs": 1, f"{test}/cats": 2})
    dataset = scanned()
    assert counts(dataset) == {"cats": (4, 2), "dogs": (3, 1)}
    assert dataset.warnings == ()
    assert dataset.name == "pets"
    assert (dataset.n_images, dataset.n_train, dataset.n_test) == (10, 7, 3)
    assert all((root / path).is_file() for path in dataset.paths)


@pytest.mark.parametrize("above", ["", "pets/"])
def test_class_folders_alone_are_split_by_content(root, scanned, above):
    fill(root, **{f"{above}cats": 200, f"{above}dogs": 200})
    dataset = scanned()
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.warnings == ()
    assert counts(dataset) == {"cats": (160, 40), "dogs": (160, 40)}


def test_rows_are_in_the_order_of_class_and_path(root, scanned):
    fill(root, train__b=3, train__B=2, train__a=2, test__b=1, test__B=1, test__a=1)
    dataset = scanned()
    assert dataset.class_names == ("B", "a", "b")
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert dataset.paths[:3] == ("test/B/0.jpg", "train/B/0.jpg", "train/B/1.jpg")
    assert dataset.is_test[:3].tolist() == [True, False, False]


def test_a_folder_is_the_same_data_set_from_anywhere(root, scanned, tmp_path, monkeypatch):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    whole = scanned()
    monkeypatch.chdir(root)
    relative = scan(Path(), tmp_path / "cache")
    assert relative.paths == whole.paths
    assert relative.name == "pets"
    (tmp_path / "link").symlink_to(root)
    assert scan(tmp_path / "link", tmp_path / "cache").paths == whole.paths


def test_train_without_test_is_split_and_says_so(root, scanned):
    fill(root, train__cats=50, train__dogs=50)
    dataset = scanned()
    assert 0 < dataset.n_test < 50
    assert len(dataset.warnings) == 1
    assert "no test split" in dataset.warnings[0]


def test_an_unlabelled_test_folder_is_left_out_and_named(root, scanned):
    fill(root, train__cats=50, train__dogs=50, test=20)
    dataset = scanned()
    assert dataset.n_images == 100
    assert "Left out, without class folders: test/ (20 images)." in dataset.warnings


def test_an_empty_test_split_is_as_good_as_none(root, scanned):
    fill(root, train__cats=50, train__dogs=50, test__cats=0, test__dogs=0)
    dataset = scanned()
    assert dataset.n_test > 0
    assert "test split is empty" in dataset.warnings[0]


def test_validation_beside_test_is_left_out_and_named(root, scanned):
    fill(root, train__cats=3, train__dogs=3, val__cats=2, val__dogs=2, test__cats=1, test__dogs=1)
    dataset = scanned()
    assert counts(dataset) == {"cats": (3, 1), "dogs": (3, 1)}
    assert dataset.warnings == ("Left out: val, because featx takes its own validation images from the train split.",)


@pytest.mark.parametrize("names", [("train", "plane"), ("test", "control"), ("valid", "invalid")])
def test_a_class_may_have_the_name_of_a_split(root, scanned, names):
    fill(root, **dict.fromkeys(names, 40))
    assert scanned().class_names == tuple(sorted(names))


def test_folders_beside_the_splits_are_named(root, scanned):
    fill(root, pets__train__cats=2, pets__train__dogs=2, pets__test__cats=1, pets__test__dogs=1)
    fill(root, pets__extra=1, old__pictures=1, empty=0)
    (warning,) = scanned().warnings
    assert "old" in warning
    assert "pets/extra" in warning
    assert "empty" not in warning


def test_images_in_no_class_folder_are_left_out_and_named(root, scanned):
    fill(root, train=1, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    dataset = scanned()
    assert dataset.n_images == 6
    assert dataset.warnings == ("Left out, in no class folder: 1 image (train/0.jpg).",)


# The files of a class


def test_classes_are_read_with_their_sub_folders(root, scanned):
    fill(root, train__cats__day__1=2, train__cats__day__2=2, train__cats=1, train__dogs=1, test__cats=1, test__dogs=1)
    assert counts(scanned())["cats"] == (5, 1)


def test_hidden_entries_are_passed_over(root, scanned):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    fill(root, **{".git/objects": 1, "__MACOSX/train/cats": 1, "train/.hidden": 1, "train/cats/.thumbs": 1})
    (root / "train/cats/._0.jpg").write_bytes(b"resource fork")
    dataset = scanned()
    assert dataset.n_images == 6
    assert dataset.warnings == ()


def test_files_that_are_no_images_are_counted_with_examples(root, scanned):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    for name in ("Thumbs.db", "notes", "labels\n.csv", "z.txt"):
        (root / "train/dogs" / name).write_text("no image")
    (root / "README.md").write_text("not in a class folder, so nobody takes it for an image")
    dataset = scanned()
    assert dataset.n_images == 6
    assert dataset.warnings == (
        "Left out, because featx does not read files with these suffixes: 1 .db, 1 .csv, 1 without suffix, 1 .txt, "
        "such as train/dogs/Thumbs.db.",
    )


def test_suffixes_count_in_any_case(root, scanned):
    fill(root, train__cats=0, train__dogs=2, test__cats=1, test__dogs=1)
    for name in ("a.JPG", "b.JpEg", "c.PNG", "d.tar.webp"):
        (root / "train/cats" / name).write_bytes(name.encode())
    assert counts(scanned())["cats"] == (4, 1)


def test_a_folder_with_an_image_suffix_is_a_folder(root, scanned):
    fill(root, **{"train/cats/holiday.jpg": 3, "train/dogs": 2, "test/cats": 1, "test/dogs": 1})
    dataset = scanned()
    assert counts(dataset)["cats"] == (3, 1)
    assert dataset.unreadable == ()


@pytest.mark.parametrize("name", [b"a\nb.jpg", b'it\'s "it".jpg', "🐈.jpg".encode(), b"\xff\xfe.jpg", b"-rf *.jpg"])
def test_any_file_name_is_an_image(root, scanned, name):
    fill(root, train__cats=1, train__dogs=2, test__cats=1, test__dogs=1)
    strange = root / "train/cats" / os.fsdecode(name)
    strange.write_bytes(b"strange")
    (root / "train/dogs/copy.jpg").write_bytes(b"strange")
    dataset = scanned()
    assert dataset.n_images == 7
    assert strange in {root / path for path in dataset.paths}
    assert dataset.digest
    for warning in dataset.warnings:
        assert warning.isprintable()
        warning.encode("utf-8")


@pytest.mark.parametrize("name", [b"c\nats", b"\xff", "ça va".encode()])
def test_any_folder_name_is_a_class(root, scanned, name):
    fill(root, **{os.fsdecode(name): 40, "dogs": 40})
    dataset = scanned()
    assert os.fsdecode(name) in dataset.class_names
    assert len(dataset.digest) == 64


def test_a_class_folder_may_be_a_link(root, scanned, tmp_path):
    fill(tmp_path, elsewhere=4)
    fill(root, train__dogs=3, test__cats=1, test__dogs=1)
    (root / "train/cats").symlink_to(tmp_path / "elsewhere")
    dataset = scanned()
    assert counts(dataset)["cats"] == (4, 1)
    assert "train/cats/0.jpg" in dataset.paths


def test_links_that_lead_in_circles_end(root, scanned):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    (root / "train/cats/here").symlink_to(".")
    (root / "train/cats/up").symlink_to("..")
    (root / "train/cats/top").symlink_to(root.parent)
    (root / "train/cats/deep").mkdir()
    (root / "train/cats/deep/back").symlink_to("../../cats")
    (root / "train/dogs/self.jpg").symlink_to("self.jpg")
    dataset = scanned()
    assert counts(dataset) == {"cats": (2, 1), "dogs": (2, 1)}
    assert [path for path, _ in dataset.unreadable] == ["train/dogs/self.jpg"]


def test_a_class_folder_that_is_a_link_upwards_is_an_empty_class(root, scanned):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    (root / "train/all").symlink_to("..")
    dataset = scanned()
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.n_images == 6


def test_a_folder_reached_by_two_links_is_read_once(root, scanned, tmp_path):
    fill(tmp_path, elsewhere=2)
    fill(root, train__cats=1, train__dogs=2, test__cats=1, test__dogs=1)
    for name in "ba":
        (root / "train/cats" / name).symlink_to(tmp_path / "elsewhere")
    assert len(scanned().duplicates()) == 0


def test_what_cannot_be_read_is_left_out_with_its_reason(root, scanned, monkeypatch):
    fill(root, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    os.mkfifo(root / "train/cats/fifo.jpg")
    (root / "train/cats/gone.jpg").symlink_to("nowhere.jpg")
    monkeypatch.chdir(root / "train/dogs")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        dataset = scanned()
    assert dataset.n_images == 6
    assert dataset.digests.any(axis=1).all()
    assert dataset.unreadable == (
        ("train/cats/fifo.jpg", "a FIFO, not a file"),
        ("train/cats/gone.jpg", "No such file or directory"),
        ("train/dogs/socket.png", "a socket, not a file"),
    )
    (warning,) = dataset.warnings
    assert warning.startswith("Left out, unreadable: 3 files (train/cats/fifo.jpg (a FIFO, not a file), ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_sub_folder_that_cannot_be_listed_is_reported(root, scanned):
    fill(root, train__cats=2, train__cats__secret=2, train__dogs=2, test__cats=1, test__dogs=1)
    (root / "train/cats/secret").chmod(0)
    dataset = scanned()
    (root / "train/cats/secret").chmod(0o700)
    assert dataset.unreadable == (("train/cats/secret", "Permission denied"),)


# What is no data set


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "There is no folder"),
        ({"": 0}, "has no images that featx can read"),
        ({"cats": 0, "dogs": 0}, "has no images that featx can read"),
        ({"": 3}, r"has 3 images \(0.jpg, 1.jpg, 2.jpg\) in no class folder"),
        ({"train": 2, "test": 1}, "in no class folder"),
        ({"train": 2}, "in no class folder"),
        ({"train/train": 2, "test1/test1": 1}, "in no class folder"),
        ({"train": 2, "train/cats": 0}, "in no class folder"),
        ({"cats": 30}, r"only 1 class \(cats\)"),
        ({"train/cats": 3, "test/cats": 1}, r"only 1 class \(cats\)"),
        ({"train/cats": 3, "train/dogs": 0, "test/cats": 1}, r"only 1 class \(cats\)"),
        (
            {"train/cats": 3, "train/dogs": 3, "test/cats": 1, "test/birds": 1},
            r"1 class \(birds\) without training images",
        ),
        ({"test/cats": 3, "test/dogs": 3}, "test split, but no train split"),
        (
            {"train/cats": 1, "training/cats": 1, "test/cats": 1},
            "either of train/ and training/ may be the train split",
        ),
        ({"a/train/cats": 1, "b/train/cats": 1}, "several folders with a train split"),
    ],
)
def test_what_is_no_data_set_is_a_clear_error(root, scanned, folders, message):
    fill(root, **folders)
    with pytest.raises(DatasetError, match=message) as caught:
        scanned()
    assert "\n" not in str(caught.value)


def test_a_file_is_no_data_set(root, scanned):
    root.write_text("a file")
    with pytest.raises(DatasetError, match="is a file; name the folder"):
        scanned()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_error(root):
    fill(root, data__cats=1)
    for folder in (root / "data", root):
        folder.chmod(0)
        try:
            with pytest.raises(DatasetError, match=r"cannot be read: Permission denied"):
                scan(root / "data", root.parent / "cache")
        finally:
            folder.chmod(0o700)


def test_a_data_set_none_of_which_can_be_read_is_an_error(root, scanned):
    fill(root, train__cats=0, train__dogs=0)
    os.mkfifo(root / "train/cats/fifo.jpg")
    with pytest.raises(DatasetError, match=r"can be read.*a FIFO"):
        scanned()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_test_fraction_is_an_error(scanned, fraction):
    with pytest.raises(DatasetError, match="Received: "):
        scanned(test_fraction=fraction)


def test_an_empty_class_is_left_out_with_a_warning(root, scanned):
    fill(root, train__ants=0, train__cats=2, train__dogs=2, test__cats=1, test__dogs=1)
    dataset = scanned()
    assert dataset.class_names == ("cats", "dogs")
    assert sorted(set(dataset.labels.tolist())) == [0, 1]
    assert dataset.warnings == ("Left out, without training images: 1 class (ants).",)


def test_a_class_that_cannot_be_tested_is_a_warning(root, scanned):
    fill(root, train__ants=2, train__cats=2, train__dogs=2, test__cats=1)
    assert scanned().warnings == ("The test split has no image of 2 classes (ants, dogs).",)


def test_too_few_images_to_split_are_an_error(root, scanned):
    fill(root, cats=2, dogs=2)
    with pytest.raises(DatasetError, match=r"20% of the images of each class for testing; in .* none of 4 images"):
        scanned()
    assert scanned(test_fraction=0).n_test == 0
    fill(root, cats=20, dogs=20)
    assert counts(scanned(test_fraction=0.9999999)) == {"cats": (2, 18), "dogs": (2, 18)}
    assert counts(scanned(test_fraction=1e-9)) == {"cats": (19, 1), "dogs": (19, 1)}


def test_file_names_that_tell_the_classes_are_shown_where_no_folder_does(root, scanned):
    (root / "train").mkdir(parents=True)
    for name in ("cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"):
        (root / "train" / name).write_bytes(name.encode())
    fill(root, test1=3)
    with pytest.raises(DatasetError, match=r"File names in train/ begin with cat, dog, which may be the classes"):
        scanned()


def test_images_of_other_formats_are_named_with_what_to_do(root, scanned):
    for number in range(3):
        for folder in ("cats", "dogs"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"IMG_{number}.JP2").write_bytes(b"jp2")
    (root / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError) as caught:
        scanned()
    assert "has no images that featx can read. Found: 6 .jp2, 1 .txt, such as" in str(caught.value)
    assert "save JPEG 2000 images as JPEG or PNG" in str(caught.value)


def test_what_was_left_out_is_said_before_the_error_it_causes(root, scanned, caplog):
    fill(root, train__dogs=3)
    (root / "train/cats").mkdir()
    (root / "train/cats/cat.jp2").write_bytes(b"jp2")
    with pytest.raises(DatasetError, match="only 1 class"):
        scanned()
    said = [record.getMessage() for record in caplog.records]
    assert any("1 .jp2, such as train/cats/cat.jp2; save JPEG 2000 images as JPEG or PNG" in line for line in said)


NEAR_MATCHES = [
    ("caf\u00e9", "cafe\u0301", "Unicode form"),
    ("cats", "Cats", "letter case"),
    ("cats", "cats ", "blanks"),
    ("cats", "Cats ", "blanks and letter case"),
    ("tulips", "tulip", "is 'tulip' the training class 'tulips'?"),
]


@pytest.mark.parametrize(("in_train", "in_test", "words"), NEAR_MATCHES)
def test_a_test_class_that_is_missing_in_training_is_shown_with_its_near_match(root, scanned, in_train, in_test, words):
    fill(root, **{f"train/{in_train}": 3, "train/dogs": 3, f"test/{in_test}": 1, "test/dogs": 1})
    with pytest.raises(DatasetError, match=r"has 1 class \(.*\) without training images") as caught:
        scanned()
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "other"), [("caf\u00e9", "cafe\u0301"), ("cats", "cats "), ("Cats ", "cats")])
def test_classes_whose_names_look_the_same_are_refused(root, scanned, name, other):
    fill(root, **{name: 20, other: 20, "dogs": 20})
    with pytest.raises(DatasetError, match="Two classes are called .* Rename one"):
        scanned()


def test_classes_that_differ_in_little_are_warned_of(root, scanned):
    joined = ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e")  # with a zero-width non-joiner and without
    fill(root, **dict.fromkeys(("a", "A", "b", "B", *joined), 40))
    dataset = scanned()
    assert len(dataset.class_names) == 6
    assert (
        "Two classes are called 'A' and 'a': the names differ only in letter case. There are 2 more such pairs."
        in dataset.warnings
    )


@pytest.mark.parametrize(
    "folders",
    [
        {"cats": 1, "dogs": 1},
        {"cats": 1},
        {"train/cats": 2, "train/dogs": 2, "test/birds": 1},
        {"cats": 1, "dogs": 300},
    ],
)
def test_what_only_training_needs_may_be_missing_where_nothing_is_trained(root, scanned, folders):
    fill(root, **folders)
    dataset = scanned(to_train=False)
    assert dataset.n_images == sum(folders.values())
    assert dataset.class_names == tuple(sorted({folder.split("/")[-1] for folder in folders}))


def test_what_is_no_image_is_no_copy(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=1, test__dogs=1)
    for folder in ("train/cats", "train/dogs", "test/dogs"):
        for number in range(2):
            (root / folder / f"empty {number}.jpg").touch()
            (root / folder / f"error {number}.jpg").write_bytes(b"<html>404</html>")
            (root / folder / f"cut off {number}.jpg").write_bytes(JPEG + b"no more of it")
    assert scanned().warnings == ()
    (root / "train/dogs/cat.jpg").write_bytes((root / "train/cats/1.jpg").read_bytes())
    assert [warning.split(":")[1].split(",")[0] for warning in scanned().warnings] == [" 1", " 1"]


# The split by content


def test_adding_renaming_and_relabelling_move_no_image_between_splits(root, scanned):
    fill(root, cats=40, dogs=40)
    before = sides(scanned())
    fill(root, birds=40)
    for number in range(20):
        (root / f"cats/{number}.jpg").rename(root / f"dogs/once a cat {number}.jpg")
    after = sides(scanned())
    assert len(after) == 120
    assert before.items() <= after.items()


def test_copies_are_on_one_side_whatever_their_class(root, scanned):
    fill(root, cats=40, dogs=40)
    for number in range(40):
        (root / f"dogs/copy {number}.jpg").write_bytes((root / f"cats/{number}.jpg").read_bytes())
    dataset = scanned()
    assert len(dataset.label_conflicts()) == 40
    assert len(dataset.leaks()) == 0


digest_lists = st.lists(st.binary(min_size=32, max_size=32), max_size=30)


def as_rows(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


@given(digest_lists, digest_lists, st.floats(0, 1, exclude_max=True))
def test_an_images_side_depends_on_itself_alone(digests, others, fraction):
    alone = hashed_test_mask(as_rows(digests), fraction)
    together = hashed_test_mask(as_rows(others + digests), fraction)
    assert (together[len(others) :] == alone).all()
    larger = hashed_test_mask(as_rows(digests), min(fraction * 1.5, 0.99))
    assert fraction > 0.66 or (larger >= alone).all()


def random_digests(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def test_the_test_split_has_its_share():
    assert abs(hashed_test_mask(random_digests(20_000), 0.2).mean() - 0.2) < 0.012  # 4 standard deviations


def test_the_splits_never_change():
    """Were they to, results of yesterday's featx would not compare with today's."""
    digests = as_rows([hashlib.sha256(b"%d" % number).digest() for number in range(30)])
    assert np.flatnonzero(hashed_test_mask(digests, 0.2)).tolist() == [0, 9, 16, 23]
    part = validation_mask(digests, np.arange(30) % 2, seed=7, fraction=0.2)
    assert np.flatnonzero(part).tolist() == [0, 5, 10, 17, 22, 23]


# Copies


def test_copies_within_a_split_are_reported(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=1, test__dogs=1)
    for name in ("copy 1.jpg", "copy 2.jpg"):
        (root / "train/cats" / name).write_bytes((root / "train/cats/1.jpg").read_bytes())
    dataset = scanned()
    named = [[dataset.paths[row] for row in pair] for pair in dataset.duplicates()]
    assert named == [["train/cats/1.jpg", "train/cats/copy 1.jpg"], ["train/cats/1.jpg", "train/cats/copy 2.jpg"]]
    assert len(dataset.leaks()) == len(dataset.label_conflicts()) == 0
    assert dataset.warnings == (
        "Exact copies of other images in the same split: 2, "
        "such as train/cats/copy 1.jpg, the same as train/cats/1.jpg.",
    )


def test_an_image_in_both_splits_is_reported(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=2, test__dogs=1)
    (root / "test/cats/leak.jpg").write_bytes((root / "train/cats/1.jpg").read_bytes())
    dataset = scanned()
    named = [[dataset.paths[row] for row in pair] for pair in dataset.leaks()]
    assert named == [["train/cats/1.jpg", "test/cats/leak.jpg"]]
    assert len(dataset.duplicates()) == len(dataset.label_conflicts()) == 0
    assert dataset.warnings == (
        "Test images that are also in the train split, so results look better than they are: 1, "
        "such as test/cats/leak.jpg, the same as train/cats/1.jpg.",
    )


def test_an_image_under_two_labels_is_reported(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=1, test__dogs=1)
    (root / "train/dogs/cat.jpg").write_bytes((root / "train/cats/1.jpg").read_bytes())
    dataset = scanned()
    named = [[dataset.paths[row] for row in pair] for pair in dataset.label_conflicts()]
    assert named == [["train/cats/1.jpg", "train/dogs/cat.jpg"]]
    assert any("different classes: 1, such as train/dogs/cat.jpg" in warning for warning in dataset.warnings)


def test_digests_that_differ_only_in_zeros_at_the_end_are_different():
    digests = np.zeros((3, 32), dtype=np.uint8)
    digests[1, 0] = digests[2, 31] = 1
    assert len(set(identical_groups(digests).tolist())) == 3


# The data set as a value


def test_subset_keeps_rows_together(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=1, test__dogs=1)
    dataset = scanned()
    subset = dataset.subset(~dataset.is_test)
    assert (subset.n_train, subset.n_test) == (6, 0)
    assert subset.class_names == dataset.class_names
    assert all(path.startswith("train/") for path in subset.paths)
    for row, path in enumerate(subset.paths):
        whole_row = dataset.paths.index(path)
        assert subset.labels[row] == dataset.labels[whole_row]
        assert (subset.digests[row] == dataset.digests[whole_row]).all()


def test_the_digest_of_a_data_set_is_of_content_class_and_split(root, scanned):
    fill(root, train__cats=3, train__dogs=3, test__cats=1, test__dogs=1)
    digest = scanned().digest
    (root / "train/cats/0.jpg").rename(root / "train/cats/zzz.jpg")
    assert scanned().digest == digest
    (root / "train/cats/zzz.jpg").rename(root / "train/dogs/zzz.jpg")
    relabelled = scanned().digest
    (root / "train/dogs/zzz.jpg").rename(root / "test/dogs/zzz.jpg")
    moved = scanned().digest
    (root / "test/dogs/zzz.jpg").write_bytes(b"another")
    assert len({digest, relabelled, moved, scanned().digest}) == 4


# The validation part


@st.composite
def train_splits(draw):
    """Digests with copies, some of them under two labels, and their labels."""
    pool = random_digests(draw(st.integers(1, 30)), seed=draw(st.integers(0, 99)))
    n_images = draw(st.integers(1, 80))
    rows = draw(st.lists(st.integers(0, len(pool) - 1), min_size=n_images, max_size=n_images))
    labels = draw(st.lists(st.integers(0, 3), min_size=n_images, max_size=n_images))
    return pool[rows], np.array(labels)


@settings(deadline=None)
@given(train_splits(), st.integers(0, 2**40), st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]), st.randoms())
def test_validation_part_is_of_content_alone(split, seed, fraction, random):
    digests, labels = split
    mask = validation_mask(digests, labels, seed=seed, fraction=fraction)
    order = list(range(len(labels)))
    random.shuffle(order)
    assert (validation_mask(digests[order], labels[order], seed=seed, fraction=fraction) == mask[order]).all()
    for group in (identical := identical_groups(digests)):
        assert len(set(mask[identical == group].tolist())) == 1


@given(st.integers(0, 99), st.lists(st.integers(2, 60), min_size=1, max_size=5), st.sampled_from([0.1, 0.3, 0.9]))
def test_validation_part_has_its_exact_share_of_every_class(seed, class_sizes, fraction):
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
    mask = validation_mask(random_digests(len(labels)), labels, seed=seed, fraction=fraction)
    for label, n_images in enumerate(class_sizes):
        assert mask[labels == label].sum() == min(max(round(fraction * n_images), 1), n_images - 1)


@given(train_splits(), st.integers(0, 99), st.sampled_from([0.1, 0.5, 0.9]))
def test_both_sides_have_something_of_each_class_with_two_images(split, seed, fraction):
    digests, labels = split
    own = identical_groups(digests) + 1000 * labels  # no copies across classes here
    digests = np.zeros((len(own), 32), dtype=np.uint8)
    digests[:, :8] = own.astype("<i8").view(np.uint8).reshape(-1, 8)
    mask = validation_mask(digests, labels, seed=seed, fraction=fraction)
    for label in np.unique(labels):
        of_class = labels == label
        if len(np.unique(own[of_class])) > 1:
            assert mask[of_class].any()
            assert not mask[of_class].all()
        else:
            assert not mask[of_class].any()


def test_another_seed_gives_another_validation_part():
    digests, labels = random_digests(400), np.arange(400) % 2
    masks = {validation_mask(digests, labels, seed=seed).tobytes() for seed in range(10)}
    assert len(masks) == 10
    assert validation_mask(digests, labels, seed=3).tobytes() in masks


def test_no_images_have_an_empty_validation_part():
    assert validation_mask(np.zeros((0, 32), np.uint8), np.zeros(0, np.int64), seed=1).shape == (0,)


# Real images


@pytest.mark.skipif(not CATS_DOGS.is_dir(), reason=f"there is no {CATS_DOGS}")
def test_cats_and_dogs(tmp_path):
    dataset = scan(CATS_DOGS, tmp_path)
    assert counts(dataset) == {"cats": (4000, 1000), "dogs": (4000, 1000)}
    # Were one of these to change, figures of an older featx would not compare with today's.
    assert hashlib.sha256(dataset.digests.tobytes()).hexdigest().startswith("8699ec4dca06398c")
    assert hashlib.sha256(dataset.is_test.tobytes()).hexdigest().startswith("4a5f4e4293c6984b")
    by_content = hashed_test_mask(dataset.digests, 0.2)
    assert hashlib.sha256(by_content.tobytes()).hexdigest().startswith("c9195f0e895c43e0")
    assert (scan(CATS_DOGS, tmp_path).digests == dataset.digests).all()
