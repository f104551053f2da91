"""Labels from a table or from file names: what folders would say, or a sentence that names the row that is wrong."""

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.dataset import ImageFolders, Labels, scan
from featx.dataset.image_dataset import ImageDataset
from featx.errors import DatasetError
from featx.extract.extract import extract_features
from featx.extract.options import extract_command
from featx.heads.training_loop import Training
from featx.train.settings import read_settings
from featx.train.train import train_top
from tests.conftest import SMALL
from tests.test_reproducible import figures


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    """Ten training and five test images of two classes, in folders."""
    return make_photos(tmp_path / "data", n_train=10, n_test=5)


def rows_of(data: Path) -> list[tuple[str, str, str]]:
    """The path, label and split of each image, as the folders say them."""
    paths = [path.relative_to(data) for path in sorted(data.rglob("*.jpg"))]
    return [(path.as_posix(), path.parent.name, path.parts[0]) for path in paths]


def write_csv(path: Path, rows: list[tuple[str, ...]], header: str = "path,label,split", **how: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **how).writerows([header.split(","), *rows])
    return path


def scanned(data: Path, labels: object, **options: Any) -> ImageDataset:
    return scan(ImageFolders(data, labels=labels), data.parent / "cache", **options)


def assert_equal(one: ImageDataset, other: ImageDataset) -> None:
    assert (one.paths, one.class_names, one.digest) == (other.paths, other.class_names, other.digest)
    for name in ("labels", "is_test", "digests"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_folder_and_the_table_that_says_the_same_give_the_same_run(data, tmp_path, new_cache):
    cache = new_cache(tmp_path / "cache")
    table = write_csv(tmp_path / "labels.csv", list(reversed(rows_of(data))))
    given = {"folder": data, "table": ImageFolders(data, labels=table)}
    for name, one in given.items():
        extraction = extract_features(one, cache_dir=cache, **SMALL)
        assert extraction.n_computed == (30 if name == "folder" else 0)  # features belong to contents
        train_top(one, cache_dir=cache, run_dir=tmp_path / name, training=Training(epochs=2), **SMALL)
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {path.name for path in (tmp_path / "table").iterdir()}
    assert read_settings(tmp_path / "folder").found == read_settings(tmp_path / "table").found
    for file in sorted(names):
        one, other = (tmp_path / name / file for name in given)
        if file.endswith(".json"):
            assert figures(one) == figures(other), file
        elif not file.endswith((".keras", ".toml")):  # a zip has the time in it, and the settings name the table
            assert one.read_bytes() == other.read_bytes(), file


def as_csv(rows, folder, **how):
    return write_csv(folder / "labels.csv", rows, **how)


def as_utf16(rows, folder):
    path = as_csv(rows, folder)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    return path


def with_bom(rows, folder):
    path = as_csv(rows, folder)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


def as_json_lines(rows, folder):
    lines = (json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) for row in rows)
    (folder / "labels.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "labels.jsonl"


def as_frame(rows, _folder):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=["path", "label", "split"])


def as_parquet(rows, folder):
    pytest.importorskip("pyarrow")
    as_frame(rows, folder).to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


KINDS = {
    "commas": as_csv,
    "semicolons": lambda rows, folder: as_csv(rows, folder, delimiter=";"),
    "tabs": lambda rows, folder: as_csv(rows, folder, delimiter="\t").rename(folder / "labels.tsv"),
    "quotes": lambda rows, folder: as_csv(rows, folder, quoting=csv.QUOTE_ALL),
    "line feeds alone": lambda rows, folder: as_csv(rows, folder, lineterminator="\n"),
    "a byte order mark": with_bom,
    "UTF-16": as_utf16,
    "absolute paths": lambda rows, folder: as_csv([(str(folder / "data" / row[0]), *row[1:]) for row in rows], folder),
    "backslashes": lambda rows, folder: as_csv([(row[0].replace("/", "\\"), *row[1:]) for row in rows], folder),
    "dots": lambda rows, folder: as_csv([(f"./train/../{row[0]}", *row[1:]) for row in rows], folder),
    "blanks": lambda rows, folder: as_csv([(f" {row[0]} ", f" {row[1]}", row[2]) for row in rows], folder),
    "capitals": lambda rows, folder: as_csv(rows, folder, header="Path,LABEL,Split"),
    "another word for train": lambda rows, folder: as_csv(
        [(*row[:2], {"train": "Training", "test": "TEST"}[row[2]]) for row in rows], folder
    ),
    "a validation split alone": lambda rows, folder: as_csv(
        [(*row[:2], {"train": "train", "test": "val"}[row[2]]) for row in rows], folder
    ),
    "more columns": lambda rows, folder: as_csv(
        [("x", *row, "7") for row in rows], folder, header="patient,path,label,split,age"
    ),
    "rows that repeat": lambda rows, folder: as_csv([*rows, *rows[:3]], folder),
    "JSON lines": as_json_lines,
    "a DataFrame": as_frame,
    "Parquet": as_parquet,
    "a list": lambda rows, _folder: rows,
}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_every_kind_say_what_folders_say(kind, data, tmp_path, caplog):
    expected = scan(data, tmp_path / "cache")
    table = KINDS[kind](rows_of(data), tmp_path)
    caplog.set_level(logging.INFO, "featx")
    found = scanned(data, table)
    assert_equal(found, expected)
    assert "(training + test): sea (10 + 5), wood (10 + 5)." in caplog.text


def test_columns_of_other_names_are_named(data, tmp_path):
    table = write_csv(tmp_path / "t.csv", rows_of(data), header="image,diagnosis,part")
    labels = Labels(table, path_column="image", label_column="diagnosis", split_column="part")
    assert_equal(scanned(data, labels), scan(data, tmp_path / "cache"))


def test_paths_with_commas_quotes_line_breaks_and_accents_are_found(data, tmp_path):
    names = ["a,b.jpg", 'say "x".jpg', "two\nlines.jpg", "e\u0301te\u0301.jpg"]
    for name, path in zip(names, sorted((data / "train" / "sea").iterdir()), strict=False):
        path.rename(path.with_name(name))
    rows = rows_of(data)
    expected = scan(data, tmp_path / "cache")
    composed = [(path.replace("e\u0301", "é"), *rest) for path, *rest in rows]
    assert composed != rows
    assert_equal(scanned(data, write_csv(tmp_path / "labels.csv", composed)), expected)


def test_without_a_split_the_content_decides_as_it_does_in_folders(data, tmp_path):
    flat, classes = tmp_path / "flat", tmp_path / "classes"
    flat.mkdir()
    for number, (path, label, split) in enumerate(rows_of(data)):
        (classes / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(data / path, classes / label / f"{split}{number:02}.jpg")
        shutil.copy(data / path, flat / f"{split}{number:02}.jpg")
    rows = [(path.name, path.parent.name) for path in classes.rglob("*.jpg")]
    table = write_csv(tmp_path / "labels.csv", rows, header="path,label")
    found, expected = scanned(flat, table), scan(classes, tmp_path / "cache")
    assert 0 < found.n_test < found.n_train
    assert found.digest == expected.digest


def test_images_without_a_row_are_counted(data, tmp_path, caplog):
    table = write_csv(tmp_path / "labels.csv", [row for row in rows_of(data) if not row[0].endswith(".0.jpg")])
    assert scanned(data, table).n_images == 26
    assert "Left out, without a row in labels.csv: 4 images (test/sea/sea.0.jpg, " in caplog.text


def test_an_expression_finds_labels_in_paths(data, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path, label, split in rows_of(data):
        shutil.copy(data / path, flat / f"{split}-{label}.{Path(path).stem[-1]}.jpg")
    labels = Labels(regex=r"(?P<split>\w+)-(?P<label>[^/.]+)\.\d+\.jpg")
    found = scanned(flat, labels)
    assert found.class_names == ("sea", "wood")
    assert found.digest == scan(data, tmp_path / "cache").digest
    shutil.copy(flat / "test-sea.0.jpg", flat / "cover.jpg")
    with pytest.raises(DatasetError, match=r"^The expression gives no label for cover\.jpg\. .* --unlabelled skip"):
        scanned(flat, labels)
    assert scanned(flat, Labels(regex=labels.regex, skip_unlabelled=True)).digest == found.digest


def broken(data: Path, **changes: Any) -> list[tuple[str, ...]]:
    """The rows of a table, with the third changed: `path`, `label` or `split`; or with `more` rows at the end."""
    rows: list[tuple[str, ...]] = list(rows_of(data))
    path, label, split = rows[2]
    more = changes.pop("more", [])
    rows[2] = tuple({"path": path, "label": label, "split": split, **changes}.values())
    return [*rows, *more]


WRONG = {
    "a file that is not there": (
        {"path": "train/sea/no.jpg"},
        r"^Line 4 of labels\.csv names train/sea/no\.jpg, which",
    ),
    "a path below another folder": (
        {"path": "sea/sea.3.jpg"},
        r"names sea/sea\.3\.jpg, .*There is test/sea/sea\.3\.jpg",
    ),
    "a path without its suffix": (
        {"path": "test/sea/sea.2"},
        r"There is test/sea/sea\.2\.jpg: paths need their suffix",
    ),
    "a path elsewhere": ({"path": "/etc/passwd"}, r"names /etc/passwd, which is not in .*: name a folder above"),
    "a path above": ({"path": "../labels.csv"}, r"names \.\./labels\.csv, which is not in"),
    "no path": ({"path": ""}, r"^Line 4 of labels\.csv has no path\.$"),
    "an empty label": (
        {"label": " "},
        r"^Line 4 of labels\.csv has no label for test/sea/sea\.2\.jpg\. .*--unlabelled skip",
    ),
    "another split": (
        {"split": "fold 3"},
        r"^Line 4 of labels\.csv has a split that is neither train, validation nor",
    ),
    "an empty split": ({"split": ""}, r"^Line 4 of .* nor test\. Received: nothing"),
    "two labels": (
        {"more": [("test/sea/sea.2.jpg", "wood", "test")]},
        r"^Line 32 of labels\.csv gives test/sea/sea\.2\.jpg another label than line 4 of labels\.csv: wood "
        r"and sea\.",
    ),
    "two splits": ({"more": [("test/sea/sea.2.jpg", "sea", "train")]}, r"another split than line 4"),
    "a class without training images": (
        {"label": "sky"},
        r"the test split has 1 class \(sky\) without training images\. Line 4 of labels\.csv has the first of sky\.",
    ),
    "too few values": (
        {"more": [("test/sea/sea.2.jpg",)]},
        r"^Line 32 of labels\.csv has 1 value, and its first line 3",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_is_wrong_is_named_in_one_sentence(name, data, tmp_path):
    changes, message = WRONG[name]
    table = write_csv(tmp_path / "labels.csv", broken(data, **changes))
    with pytest.raises(DatasetError, match=message):
        scanned(data, table)


def test_copies_in_both_splits_are_named(data, tmp_path):
    shutil.copy(data / "train/sea/sea.1.jpg", data / "test/sea/copy.jpg")
    table = write_csv(tmp_path / "labels.csv", rows_of(data))
    with pytest.raises(
        DatasetError, match=r"^Line 14 of labels\.csv and line 2 of labels\.csv are copies of one image"
    ):
        scanned(data, table)


def test_empty_labels_may_be_skipped(data, tmp_path, caplog):
    table = write_csv(tmp_path / "labels.csv", broken(data, label=""))
    assert scanned(data, Labels(table, skip_unlabelled=True)).n_images == 29
    assert "Left out, without a label in labels.csv: 1 image (test/sea/sea.2.jpg)." in caplog.text


TABLES = {
    "no such column": (
        "file,label\na.jpg,x\n",
        r"^There is no column path in t\.csv; its columns are file, label\. Name",
    ),
    "a column twice": ("path,path,label\na.jpg,b.jpg,x\n", r"^Several columns in t\.csv are called path"),
    "an open quote": ('path,label\n"a.jpg,x\n', r"^Line 2 of t\.csv cannot be read"),
    "nothing": ("", r"no column path"),
    "no rows": ("path,label\n", r"^No image in .* has a label in t\.csv"),
    "zeros": ("path,label\n\0\0", r"is not a text table"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_refused(name, data, tmp_path):
    text, message = TABLES[name]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        scanned(data, tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"table": 3}, "Labels are a file, a DataFrame, or a list"),
        ({"table": ["a.jpg"]}, r"Item 1 of the list is not \(path, label\)"),
        ({"regex": "("}, "not a regular expression"),
        ({"regex": r"(\w+)"}, "needs a group called label"),
        ({}, "give one"),
        ({"table": [], "regex": "x"}, "give one"),
        ({"table": "there/is/none.csv"}, "There is no|cannot be read"),
    ],
)
def test_what_cannot_be_labels_is_refused(labels, message, data):
    with pytest.raises(DatasetError, match=message):
        scanned(data, Labels(**labels))


def test_latin_1_is_refused_with_its_line(data, tmp_path):
    (tmp_path / "t.csv").write_bytes("path,label\na.jpg,chat\nb.jpg,été\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"^Line 3 of .*t\.csv is not UTF-8: save the table as UTF-8"):
        scanned(data, tmp_path / "t.csv")


# Without labels


def test_features_need_no_labels(data, tmp_path, new_cache, caplog):
    caplog.set_level(logging.INFO, "featx")
    flat, cache = tmp_path / "flat", new_cache(tmp_path / "cache")
    flat.mkdir()
    for path, label, split in rows_of(data)[:6]:
        shutil.copy(data / path, flat / f"{split}-{label}-{Path(path).name}")
    assert extract_features(flat, cache_dir=cache, **SMALL).n_computed == 6
    assert "6 images without labels." in caplog.text
    (tmp_path / "files.txt").write_text("test-sea-sea.0.jpg\n\ntest-sea-sea.1.jpg\n")
    listed = extract_features(ImageFolders(flat, labels=tmp_path / "files.txt"), cache_dir=cache, **SMALL)
    assert (listed.n_computed, listed.n_cached) == (0, 2)
    with pytest.raises(DatasetError, match=r"6 images in no class folder|in no class folder"):
        scan(flat, cache)
    with pytest.raises(DatasetError, match=r"^Line 1 of files\.txt has no label"):
        scanned(flat, tmp_path / "files.txt")


# The commands


def run(*words: object) -> str:
    result = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_commands_take_labels(data, tmp_path, new_cache, caplog):
    cache = new_cache(tmp_path / "cache")
    table = write_csv(data / "labels.csv", rows_of(data), header="path,kind,split")
    common = ["--label-column", "kind", "--cache-dir", cache, "--image-size", 32, "--layer", "block2_pool"]
    common += ["--weights", "random", "--precision", "float32", "--pooling", "avg", "--quiet"]
    caplog.set_level(logging.INFO, "featx")
    run("extract", "--labels", table, *common)  # without DATA: paths are relative to the table's folder
    run("train-top", data, "--labels", table, *common, "--epochs", 1, "--run-dir", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["dataset"]["digest"] == scan(data, cache).digest


def test_options_that_contradict_each_other_are_refused(data, tmp_path):
    table = write_csv(tmp_path / "labels.csv", rows_of(data))
    for words, message in (
        (["--label-column", "kind"], "--label-column names a column of a table"),
        (["--labels", table, "--train-folder", "train"], "leave out --train-folder"),
        (["--labels", table, "--label-regex", "(?P<label>x)"], "give one"),
        (["--labels", table, "--unlabelled", "no"], "'no' is not one of"),
    ):
        result = CliRunner().invoke(
            main, ["train-top", str(data), *map(str, words), "--cache-dir", str(tmp_path / "c")]
        )
        assert result.exit_code
        assert message in " ".join(result.output.split())


def test_advice_names_the_labels(data, tmp_path, monkeypatch):
    labels = Labels("t.csv", label_column="kind", skip_unlabelled=True)
    command = extract_command(ImageFolders(data, labels=labels), tmp_path / "cache", weights="random")
    assert "--labels t.csv --label-column kind --unlabelled skip" in command
    command = extract_command(ImageFolders(data, labels=Labels(regex="(?P<label>x)")), tmp_path / "cache")
    assert "--label-regex '(?P<label>x)'" in command
    monkeypatch.setenv("FEATX_LABELS", "other.csv")
    assert "env -u FEATX_LABELS" in extract_command(data, tmp_path / "cache")
