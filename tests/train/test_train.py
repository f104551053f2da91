"""Stage two, on the cached features of real JPEG files."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from featx.cli.train_top import run_json, run_text
from featx.dataset import ImageFolders
from featx.dataset.scanning import scan
from featx.errors import FeaturesMissingError, FeatxError, TrainingError
from featx.extract.extract import extract_features
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.storage import OUTPUT_MARK
from featx.store.feature_store import FeatureStore
from featx.train.metrics import measure
from featx.train.train import train_on_features, train_top

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
FAST = Training(epochs=3)


CLASSES = {"binary": ("sea", "wood"), "many classes": ("sea", "wood", "sky")}


@pytest.fixture(params=CLASSES)
def data(request, make_photos, tmp_path):
    return make_photos(tmp_path / "data", n_train=20, n_test=6, classes=CLASSES[request.param])


@pytest.fixture(scope="module")
def all_trained(tmp_path_factory, new_cache):
    """For two classes and for three: `data`, a `cache` with its features, and a `run`; no test may change them."""
    from tests.conftest import write_photos

    found = {}
    for name, classes in CLASSES.items():
        folder = tmp_path_factory.mktemp("trained")
        data = write_photos(folder / "data", n_train=20, n_test=6, classes=classes)
        options = {"cache_dir": new_cache(folder / "cache"), **OPTIONS}
        extract_features(data, **options)
        run = train_top(data, run_dir=folder / "run", training=FAST, **options)
        found[name] = SimpleNamespace(data=data, cache=options["cache_dir"], run=run)
    return found


@pytest.fixture(params=CLASSES)
def trained(request, all_trained):
    return all_trained[request.param]


@pytest.fixture
def run(trained):
    return trained.run


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_holds_everything(run, trained):
    assert {path.name for path in run.dir.iterdir()} == {
        OUTPUT_MARK,
        "dense.keras",
        "logreg.keras",
        "metrics.json",
        "history.csv",
        "predictions.csv",
        "split.csv",
        "held_out.csv",
        "reference.npy",
        "reference.csv",
        "mean_features.npy",
        "featx.toml",
        "recipe.json",
        "class_names.json",
    }
    metrics = json.loads((run.dir / "metrics.json").read_text())
    assert set(metrics["heads"]) == set(DEFAULT_HEADS)
    assert metrics["random_weights"] is True
    assert json.loads((run.dir / "class_names.json").read_text()) == sorted(
        path.name for path in (trained.data / "train").iterdir()
    )
    assert [int(row["epoch"]) for row in read_csv(run.dir / "history.csv")] == [1, 2, 3]


def test_metrics_can_be_computed_again_from_the_predictions(run):
    class_names = run.features.dataset.class_names
    rows = read_csv(run.dir / "predictions.csv")
    metrics = json.loads((run.dir / "metrics.json").read_text())["heads"]
    assert len(rows) == run.features.dataset.n_test
    for head in DEFAULT_HEADS:
        right = 0
        for row in rows:
            probabilities = [float(row[f"{head}:{name}"]) for name in class_names]
            assert sum(probabilities) == pytest.approx(1, abs=1e-5)
            assert f"/{row['label']}/" in row["path"]
            right += class_names[int(np.argmax(probabilities))] == row["label"]
        assert right == metrics[head]["n_correct"]


def test_saved_heads_predict_in_plain_keras_what_the_run_says(all_trained, tmp_path):
    """One process for all runs: Keras takes seconds to start."""
    runs = [one.run for one in all_trained.values()]
    for number, run in enumerate(runs):
        np.save(tmp_path / f"X{number}.npy", run.features.X[run.features.dataset.is_test])
    script = (
        "import sys, keras, numpy as np\n"
        "for number, run_dir in enumerate(sys.argv[1:]):\n"
        "    X = np.load(f'X{number}.npy')\n"
        "    np.savez(f'out{number}.npz', **{h: keras.models.load_model(f'{run_dir}/{h}.keras').predict(X, verbose=0)"
        " for h in ('dense', 'logreg')})\n"
        "assert 'featx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, *(run.dir for run in runs)], check=True, cwd=tmp_path)
    for number, run in enumerate(runs):
        with np.load(tmp_path / f"out{number}.npz") as predicted:
            for result in run.results:
                p = predicted[result.name]
                p = np.hstack([1 - p, p]) if p.shape[1] == 1 else p
                np.testing.assert_allclose(p, result.probabilities, atol=1e-5)


def test_same_seed_gives_the_same_figures(trained, tmp_path):
    again = train_top(trained.data, run_dir=tmp_path / "again", cache_dir=trained.cache, training=FAST, **OPTIONS)
    for first, second in zip(trained.run.results, again.results, strict=True):
        assert np.array_equal(first.probabilities, second.probabilities)


def test_missing_features_name_the_command_that_makes_them(data, cache, tmp_path, featx):
    with pytest.raises(FeaturesMissingError, match="Make them with: featx extract") as error:
        train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)
    words = str(error.value).split("Make them with: featx ")[1].split()
    assert not (tmp_path / "run").exists()
    featx(*words)
    train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)


def test_unreadable_images_are_left_out_and_shift_nothing(data, cache, tmp_path):
    (data / "train" / "sea" / "sea.3.jpg").write_bytes(b"no image")
    (data / "test" / "wood" / "wood.1.jpg").write_bytes(b"no image either")
    extract_features(data, cache_dir=cache, **OPTIONS)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)
    n = len(run.features.dataset.class_names)
    assert (run.features.dataset.n_train, run.features.dataset.n_test) == (20 * n - 1, 6 * n - 1)
    store = FeatureStore(cache, run.features.recipe)
    for row, digest in enumerate(run.features.dataset.digests):
        assert np.array_equal(store.read(digest[np.newaxis])[0], run.features.X[row])


def test_what_is_wrong_with_the_data_is_in_the_run(data, cache, tmp_path, featx):
    shutil.copy(data / "train" / "sea" / "sea.0.jpg", data / "train" / "wood" / "copy.jpg")
    (data / "train" / "wood" / "notes.txt").touch()
    (data / "train" / "wood" / "bad.jpg").write_bytes(b"no image")
    words = [data, "--cache-dir", cache, "--weights", "random", "--image-size", 32, "--layer", "block2_pool"]
    words += ["--json", "--quiet"]
    extracted = json.loads(featx("extract", *words).stdout)
    run_dir = tmp_path / "run"
    trained = json.loads(featx("train-top", *words, "--epochs", 1, "--run-dir", run_dir).stdout)
    n_images = scan(data, cache).n_images
    left_out = f"Left out because they cannot be read: 1 of {n_images} images, such as train/wood/bad.jpg."
    assert extracted["warnings"] == list(scan(data, cache).warnings)
    assert [warning for warning in extracted["warnings"] if "different classes" in warning]
    # The waves on these images may be taken for the same photograph.
    without_copies = [warning for warning in trained["warnings"] if "the same photograph" not in warning]
    assert without_copies == [*extracted["warnings"], left_out]
    assert json.loads((run_dir / "metrics.json").read_text())["warnings"] == trained["warnings"]


def test_class_with_too_few_readable_images_is_named(data, cache, tmp_path):
    first, *others = sorted((data / "train" / "wood").iterdir())
    for path in others:
        path.write_bytes(b"no image " + path.name.encode())
    extract_features(data, cache_dir=cache, **OPTIONS)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, heads="prototypes", **OPTIONS)
    assert "Only one training image: the class wood." in run.warnings
    first.write_bytes(b"no image " + first.name.encode())
    extract_features(data, cache_dir=cache, **OPTIONS)
    with pytest.raises(
        TrainingError,
        match=r"The class wood has no training image .* such as train/wood/wood\.\d+\.jpg: text, not an image",
    ):
        train_top(data, run_dir=tmp_path / "run-2", cache_dir=cache, training=FAST, **OPTIONS)


def test_run_folder_in_use_is_not_overwritten(trained):
    run, data, cache = trained.run, trained.data, trained.cache
    before = {path.name: path.read_bytes() for path in run.dir.iterdir()}
    with pytest.raises(FeatxError, match="is not empty; choose another one"):
        train_top(data, run_dir=run.dir, cache_dir=cache, training=FAST, heads=["logreg"], **OPTIONS)
    assert {path.name: path.read_bytes() for path in run.dir.iterdir()} == before
    assert not [path for path in run.dir.parent.iterdir() if path.name.startswith(".tmp-")]


# What anybody gets right


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory, new_cache):
    """A run on two classes of which the test split has 20 images and one."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("lopsided")
    data = write_photos(folder / "data", n_train=8, n_test=20, classes=("cats", "dogs"))
    for path in sorted((data / "test" / "dogs").iterdir())[1:]:
        path.unlink()
    new_cache(folder / "cache")
    extract_features(data, cache_dir=folder / "cache", **OPTIONS)
    return train_top(data, run_dir=folder / "run", cache_dir=folder / "cache", training=FAST, **OPTIONS)


def scoring(run, n_correct, n_samples=21):
    """The run as it would be had every head got so many test images right."""
    y = np.zeros(n_samples, int)
    metrics = measure(y, np.eye(2)[[0] * n_correct + [1] * (n_samples - n_correct)])
    return replace(run, results=tuple(replace(result, metrics=metrics) for result in run.results))


def test_a_head_that_is_no_better_than_one_answer_for_all_is_called_so(lopsided):
    for n_correct, said in ((20, "; no better than always answering cats"), (21, "; not clearly better than always")):
        text = run_text(scoring(lopsided, n_correct))
        assert text.count(said) == 2
        assert "Always answering cats, the most common class, gets 95.2 % right." in text
    better = scoring(lopsided, 1000, 1000)
    assert "better than" not in run_text(better)
    assert run_json(better)["better_than_baseline"] == {"dense": True, "logreg": True}


def test_a_small_test_split_is_said_to_be_small(lopsided, trained):
    expected = "With only 21 test images, these 95 % intervals are wide. Add --folds 5 to test on all 37 images."
    assert expected in run_text(lopsided)
    dataset, many = trained.run.features.dataset, np.ones(500, bool)
    dataset = replace(dataset, is_test=many, paths=("x",) * 500, labels=np.arange(500) % 2)
    assert "With only" not in run_text(replace(trained.run, features=replace(trained.run.features, dataset=dataset)))


def test_run_folder_and_json_have_what_the_commonest_class_gets(lopsided):
    metrics = json.loads((lopsided.dir / "metrics.json").read_text())
    assert metrics["baseline"] == {"class": "cats", "accuracy": 20 / 21}
    assert [head["better_than_baseline"] for head in metrics["heads"].values()] == [False, False]
    summary = json.loads(json.dumps(run_json(lopsided)))
    assert summary["baseline"] == metrics["baseline"]
    assert summary["better_than_baseline"] == {"dense": False, "logreg": False}


def test_of_a_test_split_with_one_class_nothing_is_claimed(lopsided):
    dataset = lopsided.features.dataset
    one_class = lopsided.features.subset(~dataset.is_test | (dataset.labels == 0))
    run = replace(lopsided, features=one_class)
    result = train_on_features(one_class, "logreg", FAST)
    assert one_class.test_baseline == ("cats", 1.0)
    assert result.metrics.roc_auc is None
    assert not result.metrics.is_above(1.0)
    assert "gets 100.0 % right" in run_text(run)


# The split


def test_a_run_hands_its_split_to_others(make_photos, tmp_path, new_cache):
    """Two people who have added images in another order have other splits; the table of a run gives both the same."""
    photos = make_photos(tmp_path / "photos", n_train=30, n_test=0) / "train"
    data, mine, yours = tmp_path / "data", new_cache(tmp_path / "mine"), new_cache(tmp_path / "yours")
    for number in range(30):
        for name in ("sea", "wood"):
            (data / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / name / f"{name}.{number}.jpg", data / name)
        if number in {6, 12, 20}:
            scan(data, mine)
    for cache in (mine, yours):
        extract_features(data, cache_dir=cache, **OPTIONS)
    of_mine = train_top(data, run_dir=tmp_path / "run", cache_dir=mine, training=FAST, **OPTIONS)
    assert scan(data, yours).digest != of_mine.features.dataset.digest
    labels = ImageFolders(data, labels=tmp_path / "run/split.csv")
    of_yours = train_top(labels, run_dir=tmp_path / "again", cache_dir=yours, training=FAST, **OPTIONS)
    assert of_yours.features.dataset.digest == of_mine.features.dataset.digest
    for name in ("predictions.csv", "history.csv", "split.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_the_split_of_a_run_has_its_groups(make_photos, tmp_path, cache):
    photos = make_photos(tmp_path / "photos", n_train=20, n_test=0) / "train"
    rows = [(f"{name}/{name}.{i}.jpg", name, None, f"{name} {i // 2}") for name in ("sea", "wood") for i in range(20)]
    table = "\n".join(["path,label,group", *(f"{path},{label},{group}" for path, label, _, group in rows)])
    (tmp_path / "labels.csv").write_text(table)
    data = ImageFolders(photos, labels=tmp_path / "labels.csv")
    extract_features(data, cache_dir=cache, **OPTIONS)
    run = train_top(data, run_dir=tmp_path / "run", cache_dir=cache, training=FAST, **OPTIONS)
    assert {row["path"]: row["group"] for row in read_csv(run.dir / "split.csv")} == {row[0]: row[3] for row in rows}
    labels = ImageFolders(photos, labels=run.dir / "split.csv")
    train_top(labels, run_dir=tmp_path / "again", cache_dir=cache, training=FAST, **OPTIONS)
    assert (tmp_path / "again/predictions.csv").read_bytes() == (run.dir / "predictions.csv").read_bytes()
