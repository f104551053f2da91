"""The training images that a run remembers."""

from dataclasses import replace

import numpy as np
import pytest

from featx.dataset import ImageFolders, Labels, scan
from featx.errors import FeatxError
from featx.extract import resolve_recipe
from featx.system import Timings
from featx.train import Features
from featx.train.reference import MEAN_NAME, N_NEAREST, ROWS_NAME, TABLE_NAME, NearestImage, Reference
from tests.conftest import SMALL, write_patients, write_photos


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """60 training images and 10 test images, with made-up features of 2×2 positions."""
    folder = tmp_path_factory.mktemp("reference")
    dataset = scan(write_photos(folder / "data", n_train=30, n_test=5), folder / "cache")
    recipe, _ = resolve_recipe(folder / "cache", dataset, **SMALL)
    X = np.random.default_rng(0).normal(1, 1, (70, 2, 2, 16)).astype(np.float16)
    return Features(dataset, recipe, X, Timings())


def unit(X):
    rows = X.astype(np.float64).mean(axis=(1, 2))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_distance_is_that_to_the_tenth_nearest_other_training_image(features):
    reference = Reference.of(features)
    train = ~features.dataset.is_test
    assert reference.paths == tuple(np.array(features.dataset.paths)[train])
    assert set(reference.labels) == {"sea", "wood"}
    distances = 1 - unit(features.X[train]) @ unit(features.X[train]).T
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(reference.distances, np.sort(distances)[:, N_NEAREST - 1], atol=2e-4)
    of_test = 1 - unit(features.X[~train]) @ unit(features.X[train]).T
    np.testing.assert_allclose(reference.distance(features.X[~train]), np.sort(of_test)[:, N_NEAREST - 1], atol=2e-4)


def test_images_of_ones_own_group_do_not_count(tmp_path):
    images, table = write_patients(tmp_path)
    dataset = scan(ImageFolders(images, labels=Labels(table, group_column="patient")), tmp_path / "cache")
    recipe, _ = resolve_recipe(tmp_path / "cache", dataset, **SMALL)
    patient = np.array(dataset.group_names)
    of_patient = {one: np.random.default_rng(n).normal(0, 1, 16) for n, one in enumerate(np.unique(patient))}
    X = np.stack([of_patient[name] for name in patient]).astype(np.float32)
    reference = Reference.of(Features(dataset, recipe, X, Timings()))
    train = ~dataset.is_test
    rows = X[train] / np.linalg.norm(X[train], axis=1, keepdims=True)
    distances = np.where(patient[train][:, None] == patient[train], np.inf, 1 - rows @ rows.T)
    np.testing.assert_allclose(reference.distances, np.sort(distances)[:, N_NEAREST - 1], atol=1e-3)
    nearest, cosines = reference.nearest(X[train][:1], 5)
    assert sorted(nearest[0, :4]) == np.flatnonzero(patient[train] == patient[train][0]).tolist()
    assert cosines[0, :4] == pytest.approx(1, abs=1e-3)
    assert cosines[0, 4] < 0.99


def test_copies_of_an_image_do_not_count(features):
    digests = features.dataset.digests.copy()
    digests[:20] = digests[0]
    X = features.X.copy()
    X[:20] = X[0]
    copied = replace(features, dataset=replace(features.dataset, digests=digests), X=X)
    assert Reference.of(copied).distances[:20].min() > 0.01


def test_what_is_saved_is_read_again(features, tmp_path):
    reference = Reference.of(features)
    odd = replace(reference, paths=('a,\n"b".jpg', "\udcff.jpg", *reference.paths[2:]))
    odd.save(tmp_path)
    again = Reference.read(tmp_path)
    assert (again.paths, again.labels) == (odd.paths, odd.labels)
    np.testing.assert_array_equal(again.rows, odd.rows)
    np.testing.assert_allclose(again.distances, odd.distances, atol=1e-6)
    np.testing.assert_array_equal(again.mean, odd.mean)
    assert Reference.read(tmp_path / "an older run") is None


def test_the_mean_is_that_of_the_training_images(features):
    train = features.X[~features.dataset.is_test].astype(np.float64)
    np.testing.assert_allclose(Reference.of(features).mean, train.mean(axis=0), rtol=1e-6)


def test_the_nearest_images_have_names_and_labels(features):
    reference = Reference.of(features)
    row = int(np.flatnonzero(~features.dataset.is_test)[40])
    ((first, second),) = reference.nearest_images(features.X[[row]], 2)
    assert first == NearestImage(features.dataset.paths[row], "wood", pytest.approx(1, abs=1e-3))
    assert second.similarity < first.similarity


def test_of_many_images_a_part_is_remembered_whichever_others_there_are(features, monkeypatch):
    monkeypatch.setattr("featx.train.reference.MAX_IMAGES", 12)
    reference = Reference.of(features)
    assert len(reference) == len(reference.paths) == 12
    kept = np.isin(features.dataset.paths, reference.paths) | (np.arange(70) % 2 == 0)
    assert Reference.of(features.subset(kept)).paths == reference.paths


def test_at_most_so_many_new_images_are_beyond_the_limit():
    distances = np.random.default_rng(0).random(199)
    reference = Reference(
        np.ones((199, 16), np.float16), ("x",) * 199, ("y",) * 199, distances, np.ones(16, np.float32)
    )
    assert (reference.distances > reference.limit(0.05)).sum() == 9  # with a new image, one in twenty of 200
    assert reference.limit(0.005) == reference.distances.max()
    assert reference.limit(0.004) == np.inf


DAMAGES = {
    "no rows": lambda folder: (folder / ROWS_NAME).write_bytes(b""),
    "cut": lambda folder: (folder / ROWS_NAME).write_bytes((folder / ROWS_NAME).read_bytes()[:-1]),
    "objects": lambda folder: np.save(folder / ROWS_NAME, np.array([[{}]], object), allow_pickle=True),
    "numbers": lambda folder: np.save(folder / ROWS_NAME, np.ones((60, 16))),
    "not finite": lambda folder: np.save(folder / ROWS_NAME, np.full((60, 16), np.nan, np.float16)),
    "other dtype": lambda folder: np.save(folder / MEAN_NAME, np.ones((2, 2, 16))),
    "other channels": lambda folder: np.save(folder / MEAN_NAME, np.ones((2, 2, 8), np.float32)),
    "no mean": lambda folder: (folder / MEAN_NAME).unlink(),
    "fewer": lambda folder: np.save(folder / ROWS_NAME, np.ones((59, 16), np.float16)),
    "no table": lambda folder: (folder / TABLE_NAME).unlink(),
    "columns": lambda folder: (folder / TABLE_NAME).write_text("path,label\n"),
    "text": lambda folder: (folder / TABLE_NAME).write_text("path,label,distance\n" + "a,b,far\n" * 60),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_reference_is_an_error(features, tmp_path, damage):
    Reference.of(features).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(FeatxError, match=r"The reference of the run .* cannot be read \(.+\); train again"):
        Reference.read(tmp_path)


def test_features_of_another_recipe_are_an_error(features):
    with pytest.raises(FeatxError, match=r"has rows of 16 features, not 8: it belongs to another recipe"):
        Reference.of(features).distance(np.ones((1, 8), np.float32))
