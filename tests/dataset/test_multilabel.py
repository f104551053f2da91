"""Images with several labels each: what tables say, and how such images are divided."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.dataset import ImageFolders, Labels, sample_mask, scan, validation_mask
from featx.dataset.image_dataset import ImageDataset, stratified_test_mask
from featx.dataset.stratification import iterative_parts
from featx.errors import DatasetError, FeatxError
from featx.extract.options import extract_command
from featx.train.folds import make_folds

#: The labels of the ten images of a class, in turn.
LABELS = ("sea", "sea|dark", "wood|dark", "wood", "dark|sea|wood", "sea", "wood", "dark", "sea|dark", "wood")


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    return make_photos(tmp_path / "data", n_train=10, n_test=5)


def rows_of(data: Path) -> list[tuple[str, str, str]]:
    """The path, labels and split of each image."""
    paths = [path.relative_to(data) for path in sorted(data.rglob("*.jpg"))]
    return [(path.as_posix(), LABELS[i % len(LABELS)], path.parts[0]) for i, path in enumerate(paths)]


def write_csv(path: Path, rows: list[tuple[str, ...]], header: str = "path,label,split") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def scanned(data: Path, table: object, **options: Any) -> ImageDataset:
    return scan(ImageFolders(data, labels=Labels(table, **options)), data.parent / "cache")


def sets_of(dataset: ImageDataset) -> dict[str, set[str]]:
    names = np.array(dataset.class_names)
    return {path: set(names[row]) for path, row in zip(dataset.paths, dataset.labels, strict=True)}


def assert_equal(one: ImageDataset, other: ImageDataset) -> None:
    assert (one.paths, one.class_names, one.digest) == (other.paths, other.class_names, other.digest)
    assert np.array_equal(one.labels, other.labels)


def as_json_lines(rows, folder):
    lines = [json.dumps({"path": path, "label": label.split("|"), "split": split}) for path, label, split in rows]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder / "labels.jsonl"


def as_frame(rows, _folder):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame([(path, label.split("|"), split) for path, label, split in rows]).rename(
        columns={0: "path", 1: "label", 2: "split"}
    )


def as_parquet(rows, folder):
    pytest.importorskip("pyarrow")
    as_frame(rows, folder).to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


LISTS = {
    "a list": lambda rows, _: [(path, label.split("|"), split) for path, label, split in rows],
    "a set": lambda rows, _: [(path, set(label.split("|")), split) for path, label, split in rows],
    "JSON lines": as_json_lines,
    "a DataFrame": as_frame,
    "Parquet": as_parquet,
}


def test_a_separator_gives_sets_of_labels(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "featx")
    rows = rows_of(data)
    dataset = scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")
    assert dataset.class_names == ("dark", "sea", "wood")
    assert dataset.labels.dtype == bool
    assert sets_of(dataset) == {path: set(label.split("|")) for path, label, _ in rows}
    assert (
        "3 labels, several for an image (1.5 on average, 3 at most), from labels.csv (training + test): dark (10 + 5), "
        "sea (10 + 5), wood (10 + 5)." in caplog.text
    )


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_labels_say_what_a_separator_says(kind, data, tmp_path):
    rows = rows_of(data)
    expected = scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")
    assert_equal(scanned(data, LISTS[kind](rows, tmp_path)), expected)


def test_blanks_repetitions_and_order_make_no_difference(data, tmp_path):
    rows = rows_of(data)
    expected = scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")
    odd = [(path, " ; ".join([*reversed(label.split("|")), label.split("|")[0]]), split) for path, label, split in rows]
    assert_equal(scanned(data, write_csv(tmp_path / "odd.csv", odd), separator=";"), expected)


def test_file_names_can_have_several_labels(data, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, (path, label, split) in enumerate(rows_of(data)):
        (data / path).rename(flat / f"{split}.{label.replace('|', '+')}.{number}.jpg")
    labels = Labels(regex=r"(?P<split>\w+)\.(?P<label>[\w+]+)\.\d+\.jpg", separator="+")
    dataset = scan(ImageFolders(flat, labels=labels), tmp_path / "cache")
    assert sets_of(dataset) == {path: set(path.split(".")[1].split("+")) for path in dataset.paths}


def test_images_with_no_label_are_an_error_left_out_or_kept(data, tmp_path, caplog):
    rows = rows_of(data)
    rows[3] = (rows[3][0], " ", rows[3][2])
    table = write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(
        DatasetError, match=r"^Line 5 of labels\.csv has no label .* skip, or --unlabelled keep if they"
    ):
        scanned(data, table, separator="|")
    assert scanned(data, table, separator="|", skip_unlabelled=True).n_images == 29
    caplog.set_level(logging.INFO, "featx")
    kept = scanned(data, table, separator="|", keep_unlabelled=True)
    assert sets_of(kept)[rows[3][0]] == set()
    assert "3 at most; 1 image has none)" in caplog.text
    with pytest.raises(DatasetError, match="Only images that can have several labels can be kept without one"):
        scanned(data, table, keep_unlabelled=True)


WRONG = {
    "nothing between separators": ("sea||dark", r"^Line 4 of labels\.csv has an empty label .* Received: sea\|\|dark$"),
    "nothing at the end": ("sea|", r"^Line 4 of labels\.csv has an empty label among several"),
    "a label that one training image has": ("sea|fog", r"^Only one training image has the label fog\. To learn"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_set_that_is_wrong_is_named(name, data, tmp_path):
    label, message = WRONG[name]
    rows = rows_of(data)
    rows[2] = (rows[2][0], label, "train")
    with pytest.raises(DatasetError, match=message):
        scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")


@pytest.mark.parametrize(("n_without", "having"), [(0, "All training images have"), (1, "images but one have")])
def test_a_label_that_nearly_all_images_have_cannot_be_learned(n_without, having, data, tmp_path):
    rows = [(path, f"{label}|photo", split) for path, label, split in rows_of(data)]
    train = [i for i, row in enumerate(rows) if row[2] == "train"][:n_without]
    for i in train:
        rows[i] = (rows[i][0], rows[i][1].removesuffix("|photo"), rows[i][2])
    with pytest.raises(DatasetError, match=rf"{having} the label photo"):
        scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")


@pytest.mark.parametrize("item", [("train/sea/sea.0.jpg", ["sea", ""]), ("train/sea/sea.0.jpg", ["sea", {}])])
def test_a_list_with_something_else_than_labels_is_named(item, data):
    with pytest.raises(DatasetError, match=r"^Item 1 of the list has (an empty label|something that is neither)"):
        scanned(data, [item])


def test_a_separator_that_is_missing_or_not_there_is_said(data, tmp_path, caplog):
    rows = [(path, "sea|dark" if "sea" in path else "wood|dark", split) for path, _, split in rows_of(data)]
    scanned(data, write_csv(tmp_path / "labels.csv", rows))
    assert "Most labels in labels.csv contain |, such as sea|dark. If these" in caplog.text
    assert "add --label-separator '|'" in caplog.text
    caplog.clear()
    scanned(data, write_csv(tmp_path / "single.csv", [(p, label[:4], s) for p, label, s in rows]), separator=";")
    assert "No label in single.csv contains the separator ;, so each image has at most one" in caplog.text


def test_the_command_line_and_advice_have_the_options(data, tmp_path):
    table = write_csv(tmp_path / "labels.csv", rows_of(data))
    labels = Labels(table, separator="|", keep_unlabelled=True)
    command = extract_command(ImageFolders(data, labels=labels), tmp_path / "cache")
    assert "--label-separator '|' --unlabelled keep" in command
    for words, message in (
        (["--label-separator", "|"], "--label-separator divides the labels of a table"),
        (["--labels", table, "--label-separator", ""], "is empty"),
    ):
        result = CliRunner().invoke(main, ["train-top", str(data), *map(str, words)])
        assert result.exit_code
        assert message in " ".join(result.output.split())
    with pytest.raises(DatasetError, match="either skipped or kept"):
        Labels(table, skip_unlabelled=True, keep_unlabelled=True)


def test_the_digest_depends_on_every_label_and_copies_in_other_sets_are_found(data, tmp_path):
    rows = rows_of(data)
    one = scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")
    rows[0] = (rows[0][0], f"{rows[0][1]}|dark", rows[0][2])
    other = scanned(data, write_csv(tmp_path / "labels.csv", rows), separator="|")
    assert one.digest != other.digest
    (data / "test/sea/copy.jpg").write_bytes((data / rows[1][0]).read_bytes())
    with_copy = scanned(
        data, write_csv(tmp_path / "c.csv", [*rows, ("test/sea/copy.jpg", "wood", "test")]), separator="|"
    )
    assert len(with_copy.label_conflicts()) == 1


# How images are divided


def random_labels(n: int, shares: tuple[float, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, len(shares))) < np.array(shares)


def digests(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_the_validation_part_has_its_share_of_each_label(seed):
    labels = random_labels(1000, (0.5, 0.2, 0.05, 0.004), seed)
    mask = validation_mask(digests(1000), labels, seed=seed, fraction=0.1)
    wanted = 0.1 * labels.sum(axis=0)
    assert np.abs(labels[mask].sum(axis=0) - wanted).max() <= 3
    assert abs(mask.sum() - 100) <= 6
    assert labels[mask].any(axis=0)[labels.sum(axis=0) > 1].all()
    assert labels[~mask].any(axis=0)[labels.any(axis=0)].all()
    order = np.random.default_rng(1).permutation(1000)
    assert np.array_equal(validation_mask(digests(1000)[order], labels[order], seed=seed, fraction=0.1), mask[order])


def test_labels_of_few_images_are_learned_from_first():
    """Four images, two of each label: one of each is learned from, as far as they can be told apart."""
    labels = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]], bool)
    for seed in range(20):
        mask = validation_mask(digests(4, seed), labels, seed=seed)
        assert labels[~mask].any(axis=0).all()
        assert mask.any()


def test_the_test_split_has_its_share_of_each_label_and_moves_no_image(data, tmp_path):
    labels = random_labels(1000, (0.5, 0.2, 0.05, 0.005))
    units, nobody = digests(1000), np.full(1000, -1, np.int8)
    first = stratified_test_mask(units[:600], labels[:600], nobody[:600], fraction=0.2)
    assert np.abs(labels[:600][first].sum(axis=0) - 0.2 * labels[:600].sum(axis=0)).max() <= 3
    sides = np.concatenate([first, nobody[600:]]).astype(np.int8)
    grown = stratified_test_mask(units, labels, sides, fraction=0.2)
    assert np.array_equal(grown[:600], first)
    assert np.abs(labels[grown].sum(axis=0) - 0.2 * labels.sum(axis=0)).max() <= 4
    assert (labels[~grown].sum(axis=0) >= 2).all()
    assert not stratified_test_mask(units, labels, nobody, fraction=0.0).any()
    table = write_csv(tmp_path / "labels.csv", [row[:2] for row in rows_of(data)], header="path,label")
    dataset = scanned(data, table, separator="|")
    assert dataset.n_test == pytest.approx(6, abs=1)
    assert dataset.labels[dataset.is_test].any(axis=0).all()
    assert np.array_equal(scanned(data, table, separator="|").is_test, dataset.is_test)


@pytest.mark.parametrize("seed", range(10))
def test_a_label_of_three_images_keeps_two_to_train_on(seed):
    labels = np.zeros((40, 3), bool)
    labels[:20, 0] = labels[20:, 1] = labels[[0, 1, 30], 2] = True
    mask = stratified_test_mask(digests(40, seed), labels, np.full(40, -1, np.int8), fraction=0.2)
    assert labels[mask].sum(axis=0)[2] == 1


def test_groups_and_copies_stay_together():
    labels = random_labels(300, (0.3, 0.3))
    units = np.repeat(np.arange(100), 3)
    mask = validation_mask(digests(100)[units], labels, seed=0, fraction=0.2)
    assert all(len(set(mask[units == unit])) == 1 for unit in range(100))
    parts = iterative_parts(labels, units, units, 5)
    assert all(len(set(parts[units == unit])) == 1 for unit in range(100))
    assert np.bincount(parts).max() - np.bincount(parts).min() <= 6


def test_iterative_parts_are_nearer_to_the_shares_than_chance():
    labels = random_labels(500, (0.4, 0.1, 0.03))
    parts = iterative_parts(labels, np.arange(500), np.random.default_rng(0).permutation(500), 5)
    counts = np.array([labels[parts == part].sum(axis=0) for part in range(5)])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 2
    drawn = np.random.default_rng(0).permutation(500) % 5
    by_chance = np.array([labels[drawn == part].sum(axis=0) for part in range(5)])
    assert np.ptp(by_chance, axis=0).sum() > np.ptp(counts, axis=0).sum()


def test_a_smaller_sample_is_in_a_larger_one_and_has_each_label():
    labels = random_labels(400, (0.5, 0.1, 0.02))
    small, large = (sample_mask(digests(400), labels, seed=1, fraction=f, at_least=4) for f in (0.05, 0.2))
    assert (large | ~small).all()
    assert (labels[small].sum(axis=0) >= 4).all()
    assert sample_mask(digests(400), labels, seed=1, fraction=1.0).all()


def dataset_of(labels: np.ndarray, groups: np.ndarray | None = None) -> ImageDataset:
    n = len(labels)
    names = tuple(f"label {i}" for i in range(labels.shape[1]))
    paths = tuple(map(str, range(n)))
    return ImageDataset(Path(), names, paths, labels, np.zeros(n, bool), digests(n), groups=groups)


def test_folds_have_each_label_and_do_not_divide_groups():
    labels = random_labels(200, (0.5, 0.1))
    groups = digests(40, seed=9)[np.repeat(np.arange(40), 5)]
    dataset = dataset_of(labels, groups)
    folds = make_folds(dataset, np.empty((0, 2), np.int64), 4, 2, seed=0)
    numbers = folds.of(dataset)
    assert not np.array_equal(*numbers)
    for of_repeat in numbers:
        assert all(len(set(of_repeat[group : group + 5])) == 1 for group in range(0, 200, 5))
        assert all(labels[of_repeat == fold].any(axis=0).all() for fold in range(4))


def test_a_fold_that_would_leave_a_label_nothing_to_learn_from_is_refused():
    labels = random_labels(40, (0.5, 0.5))
    labels[:, 1] = False
    labels[:2, 1] = True
    with pytest.raises(FeatxError, match=r"^A fold leaves too few images to train on\. Only one .* label 1"):
        make_folds(dataset_of(labels), np.empty((0, 2), np.int64), 2, 1, seed=0)
