"""Groups, such as patients: no split divides them, and a classifier that knows the patients gains nothing."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.dataset import ImageDataset, ImageFolders, Labels, scan
from featx.errors import DatasetError
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.train.features import load_features
from featx.train.train import train_on_features, validation_part
from tests.conftest import SMALL

N_PATIENTS, N_EACH = 60, 6


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    """A folder of images of patients, and `labels.csv`. An image shows which patient it is of, but not which class."""
    root = tmp_path_factory.mktemp("patients")
    (root / "images").mkdir()
    rows = []
    for patient in range(N_PATIENTS):
        rng = np.random.default_rng(patient)
        fingerprint = np.asarray(Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32)), float)
        for number in range(N_EACH):
            noise = np.random.default_rng([patient, number]).normal(0, 12, (32, 32, 3))
            path = root / "images" / f"{patient:02}-{number}.png"
            Image.fromarray(np.clip(fingerprint + noise, 0, 255).astype(np.uint8)).save(path)
            rows.append((path.name, "ill" if patient % 2 else "well", f"patient {patient}"))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient"), *rows])
    return root


def accuracy(patients: Path, group_column: str | None) -> float:
    """The mean accuracy of logistic regression over three splits of the patients' images."""
    labels = Labels(patients / "labels.csv", group_column=group_column)
    data = ImageFolders(patients / "images", labels=labels)
    extract_features(data, cache_dir=patients / "cache", **SMALL)
    features = load_features(data, cache_dir=patients / "cache", **SMALL)
    return train_on_features(features, "logreg", Training()).metrics.accuracy


def test_without_groups_patients_are_learned_and_with_them_the_figure_is_chance(patients):
    assert accuracy(patients, None) > 0.9
    assert 0.2 < accuracy(patients, "patient") < 0.8


def scanned(patients: Path, root: Path, n_patients: int = N_PATIENTS) -> ImageDataset:
    """The data set of the first patients, with groups."""
    with (patients / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))[: 1 + n_patients * N_EACH]
    with (root / "some.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    labels = Labels(root / "some.csv", group_column="patient")
    return scan(ImageFolders(patients / "images", labels=labels), root / "cache")


def patient_of(path: str) -> str:
    return path.partition("-")[0]


def test_no_patient_is_in_two_parts_and_new_ones_move_none(patients, tmp_path):
    whole = scanned(patients, tmp_path)
    parts = {"test": whole.is_test, "validation": np.zeros(whole.n_images, bool)}
    parts["validation"][~whole.is_test] = validation_part(whole, seed=0)
    parts["train"] = ~parts["test"] & ~parts["validation"]
    names = {part: {patient_of(whole.paths[row]) for row in np.flatnonzero(mask)} for part, mask in parts.items()}
    assert all(names.values())
    assert sum(map(len, names.values())) == N_PATIENTS
    some = scanned(patients, tmp_path, n_patients=40)
    assert {patient_of(path) for path, is_test in zip(some.paths, some.is_test, strict=True) if is_test} == {
        name for name in names["test"] if int(name) < 40
    }


def test_groups_are_part_of_what_a_data_set_is(patients, tmp_path):
    with_groups = scanned(patients, tmp_path)
    without = scan(ImageFolders(patients / "images", labels=patients / "labels.csv"), tmp_path / "cache")
    assert with_groups.digest != without.digest
    assert without.groups is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("00-0.png", "a", "train", "p"), ("01-0.png", "b", "test", "p")],
            r"^Item 2 of the list and item 1 of the list put the group p into both splits",
        ),
        (
            [("00-0.png", "a", "train", "p"), ("01-0.png", "b", "test", "")],
            r"^Item 2 of the list has no group for 01-0",
        ),
        (
            [("00-0.png", "a", "train", "p"), ("00-0.png", "a", "train", "q")],
            r"^Item 2 of the list gives 00-0\.png another group than item 1 of the list: q and p",
        ),
    ],
)
def test_groups_that_contradict_the_splits_are_refused(rows, message, patients, tmp_path):
    with pytest.raises(DatasetError, match=message):
        scan(ImageFolders(patients / "images", labels=rows), tmp_path / "cache")


def test_groups_are_said_with_the_classes_and_an_expression_may_give_them(patients, tmp_path, caplog):
    caplog.set_level("INFO", "featx")
    flat = tmp_path / "flat"
    shutil.copytree(patients / "images", flat)
    for path in flat.iterdir():
        path.rename(flat / f"{'ill' if int(patient_of(path.name)) % 2 else 'well'}-{path.name}")
    labels = Labels(regex=r"(?P<label>\w+)-(?P<group>\d+)-")
    found = scan(ImageFolders(flat, labels=labels), tmp_path / "cache")
    assert "2 classes, labels from the expression, in 60 groups: ill (180), well (180)." in caplog.text
    in_test = {path.split("-")[1] for path, is_test in zip(found.paths, found.is_test, strict=True) if is_test}
    in_train = {path.split("-")[1] for path, is_test in zip(found.paths, found.is_test, strict=True) if not is_test}
    assert in_test
    assert not in_test & in_train
