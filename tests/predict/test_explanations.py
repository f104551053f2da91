"""What predictions rest on: heat maps that add up, the nearest training images, the page, and real cats beside dogs."""

import json
import shutil

import numpy as np
import pytest

import featx
from featx.errors import FeatxError
from featx.heads.training_loop import Training
from featx.report.explained import MAX_EXPLAINED, explain_to
from featx.train.features import load_features
from tests.conftest import write_photos

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "precision": "float32"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """A data set of three classes, a cache with its features and a run; no test may change them."""
    folder = tmp_path_factory.mktemp("explanations")
    data = write_photos(folder / "data", n_train=14, n_test=4, classes=("sea", "sky", "wood"))
    new_cache(folder / "cache")
    featx.extract_features(data, cache_dir=folder / "cache", **OPTIONS)
    how = {"cache_dir": folder / "cache", "training": Training(epochs=2), "heads": ["logreg", "knn"]}
    featx.train_top(data, run_dir=folder / "run", **how, **OPTIONS)
    return folder


@pytest.fixture(scope="module")
def classifier(world):
    return featx.Classifier.load(world / "run", cache_dir=world / "cache")


@pytest.fixture(scope="module")
def files(world):
    return sorted((world / "data" / "test").rglob("*.jpg"))


def test_the_heat_map_adds_up_to_the_score_of_the_predicted_class(classifier, files):
    explained = classifier.explain(files)
    assert explained.predictions.labels == classifier.predict(files).labels
    logs = np.log(explained.predictions.probabilities)
    scores = logs.max(axis=1) - logs.mean(axis=1)
    for one, score in zip(explained, scores, strict=True):
        ((name, found),) = one.evidence.items()
        assert name == one.prediction.label
        assert found.map.shape == (8, 8)
        assert found.score == pytest.approx(score, abs=1e-3)
        assert found.map.sum() == pytest.approx(found.score - found.base, abs=1e-3)


def test_the_nearest_are_those_with_the_highest_cosine(world, classifier, files):
    features = load_features(world / "data", cache_dir=world / "cache", **OPTIONS)
    rows = features.X.astype(np.float64).mean(axis=(1, 2))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    is_test = features.dataset.is_test
    cosines = rows[is_test] @ rows[~is_test].T
    paths = features.paths[~is_test]
    explained = classifier.explain([world / "data" / path for path in features.paths[is_test]], k=3)
    for one, cosine in zip(explained, cosines, strict=True):
        assert [near.similarity for near in one.nearest] == pytest.approx(np.sort(cosine)[:-4:-1], abs=1e-3)
        assert one.nearest[0].path.split("/")[1] == one.nearest[0].label
        assert cosine[paths == one.nearest[0].path] == pytest.approx(cosine.max(), abs=1e-3)


def test_an_image_that_was_trained_on_is_nearest_to_itself(world, classifier):
    path = sorted((world / "data" / "train" / "sky").iterdir())[2]
    (one,) = classifier.explain(path, k=1)
    assert one.nearest[0].path == path.relative_to(world / "data").as_posix()
    assert one.nearest[0].similarity == pytest.approx(1, abs=1e-3)


def test_pixels_are_explained_and_what_cannot_be_read_is_not(world, classifier, files):
    gray = np.full((32, 32, 3), 128, np.uint8)
    explained = classifier.explain([gray, world / "gone.jpg", files[0]])
    assert [len(one.evidence) for one in explained] == [1, 0, 1]
    assert [len(one.nearest) for one in explained] == [5, 0, 5]
    assert explained[1].prediction.reason == "No such file or directory"
    assert [one.prediction.path for one in explained[::2]] == [None, files[0]]


def test_an_older_run_says_to_train_again(world, files, tmp_path):
    run = shutil.copytree(world / "run", tmp_path / "run")
    (run / "reference.npy").unlink()
    with pytest.raises(FeatxError, match="does not know its training images, because an older featx made it; train"):
        featx.Classifier.load(run, cache_dir=world / "cache").explain(files)


def test_each_predicted_label_has_a_map(world, tmp_path):
    data = world / "data"
    rows = [
        (path.relative_to(data).as_posix(), f"{path.parent.name}|wet" if path.parent.name != "wood" else "wood", split)
        for split in ("train", "test")
        for path in sorted((data / split).rglob("*.jpg"))
    ]
    labelled = featx.ImageFolders(data, labels=featx.Labels(rows, separator="|"))
    cache = {"cache_dir": world / "cache"}
    featx.train_top(labelled, heads=["logreg"], run_dir=tmp_path / "run", **cache, **OPTIONS)
    explained = featx.Classifier.load(tmp_path / "run", **cache).explain([data / path for path, *_ in rows[:3]])
    assert [sorted(one.evidence) for one in explained] == [["sea", "wet"]] * 3
    assert explained[0].nearest[0].label == "sea|wet"


# The page


def explain(featx, world, folder, *words, **how):
    words = [world / "run", *words, "--cache-dir", world / "cache", "--explain", folder]
    return featx("predict", *words, **how)


def test_the_folder_has_a_page_with_pictures_and_the_same_as_json(world, featx, files, tmp_path):
    result = explain(featx, world, tmp_path / "why", *files[:3], world / "gone.jpg", "--format", "csv")
    assert result.stdout.splitlines()[0].startswith("path,label")
    page = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 3 * (1 + 1 + 5)
    assert page.count('href="') == 3 * (1 + 5)
    assert "cannot be read" in page
    assert "No such file or directory" in page
    lines = [json.loads(line) for line in (tmp_path / "why" / "explanations.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [*map(str, files[:3]), str(world / "gone.jpg")]
    assert [len(line["nearest"]) for line in lines] == [5, 5, 5, 0]
    for line in lines[:3]:
        (evidence,) = line["evidence"]
        assert evidence["label"] == line["label"]
        assert np.sum(evidence["map"]) == pytest.approx(evidence["score"] - evidence["base"], abs=1e-3)


def test_training_images_that_are_gone_are_named(world, featx, files, tmp_path):
    moved = shutil.copytree(world, tmp_path / "moved", symlinks=True)
    settings = moved / "run" / "featx.toml"
    text = settings.read_text(encoding="utf-8").replace(str(world / "data"), str(tmp_path / "gone"))
    settings.write_text(text, encoding="utf-8")
    explain(featx, moved, tmp_path / "why", files[0])
    page = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2
    assert page.count('<span class="no-picture">train/') == 5


def test_training_images_in_an_archive_have_pictures_and_no_links(world, featx, files, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", world / "data")
    moved = shutil.copytree(world, tmp_path / "moved", symlinks=True)
    settings = moved / "run" / "featx.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace(str(world / "data"), archive), encoding="utf-8")
    explain(featx, moved, tmp_path / "why", files[0])
    page = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2 + 5
    assert page.count('href="') == 1


def test_a_head_without_positions_says_so_on_the_page(world, featx, files, tmp_path):
    explain(featx, world, tmp_path / "why", files[0], "--head", "knn")
    page = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert "There is no heat map, because the head knn compares whole images" in page
    assert page.count("data:image/webp") == 1 + 5


def test_what_cannot_be_explained_is_refused_before_the_work(world, featx, classifier, files, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert "is not empty" in explain(featx, world, tmp_path / "full", files[0], exit_code=2).stderr
    with pytest.raises(FeatxError, match=r"explains at most 500 images .*choose some of them. Received: 501"):
        explain_to(classifier, [tmp_path / "no.jpg"] * (MAX_EXPLAINED + 1), tmp_path / "why")
    direct = featx("predict", "--direct", files[0], "--explain", tmp_path / "why", exit_code=2)
    assert "--explain can be used only with a RUN" in direct.stderr
    assert not (tmp_path / "why").exists()


# Real photographs


def test_the_evidence_for_each_lies_on_its_half_of_cats_beside_dogs(
    shared, cache, tmp_path, monkeypatch, benchmark_module
):
    """Trained on 80 photographs with ImageNet's VGG16; 40 composites, which it has not seen, in both orders."""
    weights = shared / "weights-imagenet"
    if not weights.is_dir():
        pytest.skip("needs ImageNet's weights")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(weights))
    composites = benchmark_module("explain")
    source, data, photos = shared / "data" / "cats-dogs", tmp_path / "data", []
    for name in ("cats", "dogs"):
        of_train, of_test = (sorted((source / split / name).iterdir()) for split in ("train", "test"))
        photos.append(of_test[:20])
        for split, files in (("train", of_train[:40]), ("test", of_test[20:22])):
            (data / split / name).mkdir(parents=True)
            for path in files:
                shutil.copy(path, data / split / name)
    options = {"image_size": (150, 150), "cache_dir": cache}
    featx.extract_features(data, **options)
    featx.train_top(data, heads=["svm"], run_dir=tmp_path / "run", **options)
    files = composites.write_composites(*photos, tmp_path, 150)
    explained = featx.Classifier.load(tmp_path / "run", cache_dir=cache).explain(files)
    sign = np.where(np.array(explained.predictions.labels) == "dogs", 1, -1)
    maps = [one.map for each in explained for one in each.evidence.values()]
    right, _ = composites.on_their_halves(sign[:, np.newaxis, np.newaxis] * np.array(maps))
    assert len(maps) == 40
    assert right >= 0.9
