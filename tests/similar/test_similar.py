"""`featx similar` and `find_similar`, on real JPEG files."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

import featx
from featx.errors import FeaturesMissingError, FeatxError, ImageError
from tests.conftest import write_photos

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool"}
WORDS = ("--weights", "random", "--image-size", "32", "--layer", "block2_pool")


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """A flat folder without labels and a cache with its features; no test may change them."""
    folder = tmp_path_factory.mktemp("similar")
    photos = write_photos(folder / "photos", n_train=20, n_test=0)
    (folder / "data").mkdir()
    for path in sorted(photos.rglob("*.jpg")):
        shutil.copy(path, folder / "data" / f"{path.parent.name} {path.name}")
    new_cache(folder / "cache")
    featx.extract_features(folder / "data", cache_dir=folder / "cache", **OPTIONS)
    return folder


@pytest.fixture(scope="module")
def photo(world):
    """A photograph that is not in the data set: one of it, saved again."""
    path = world / "saved again.jpg"
    with Image.open(sorted((world / "data").iterdir())[3]) as image:
        image.save(path, quality=97)
    return path


def test_nearest_are_those_of_scikit_learn(world, photo):
    found = featx.find_similar(world / "data", [photo], k=7, cache_dir=world / "cache", **OPTIONS)
    extractor = featx.FeatureExtractor(cache_dir=world / "cache", flatten=False, **OPTIONS)
    of_data, of_photo = (extractor.transform(X).mean(axis=(1, 2)) for X in (found.dataset, [photo]))
    cosine = cosine_similarity(of_photo, of_data)[0]
    np.testing.assert_allclose(found.similarity[0], np.sort(cosine)[::-1][:7], atol=1e-5)
    assert found.of(0)[0][0] == sorted((world / "data").iterdir())[3], "the photograph that was saved again"
    assert {label for _, label, _ in found.of(0)} == {""}, "they have no labels"
    assert found.to_pandas()["rank"].tolist() == list(range(1, 8))


def test_a_photo_of_the_data_is_not_similar_to_itself_but_a_copy_is(world, tmp_path):
    own = min((world / "data").iterdir())
    copy = Path(shutil.copy(own, tmp_path / "copy.jpg"))
    found = featx.find_similar(world / "data", [own, copy], k=1000, cache_dir=world / "cache", **OPTIONS)
    assert len(found.of(0)) == found.dataset.n_images - 1
    assert own not in [path for path, *_ in found.of(0)]
    path, _, similarity = found.of(1)[0]
    assert path == own
    assert similarity == pytest.approx(1, abs=1e-5)


def test_missing_features_name_the_command(world, photo, tmp_path):
    with pytest.raises(FeaturesMissingError, match=r"40 of 40 images have no vgg16 features yet.*featx extract"):
        featx.find_similar(world / "data", [photo], cache_dir=tmp_path, **OPTIONS)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True])
def test_k_is_a_whole_number(world, photo, k):
    with pytest.raises(FeatxError, match="k must be a whole number"):
        featx.find_similar(world / "data", [photo], k=k, cache_dir=world / "cache", **OPTIONS)


def test_photos_that_cannot_be_read(world, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no JPEG")
    found = featx.find_similar(world / "data", [broken, photo], k=2, cache_dir=world / "cache", **OPTIONS)
    assert found.of(0) == []
    assert found.reasons[0]
    assert len(found.of(1)) == 2
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        featx.find_similar(world / "data", [broken], strict=True, cache_dir=world / "cache", **OPTIONS)


def test_command_in_all_formats(world, photo, featx, tmp_path):
    words = ["similar", world / "data", photo, "-k", 3, "--cache-dir", world / "cache", "--quiet", *WORDS]
    page = tmp_path / "similar.html"
    table = featx(*words, "--format", "table", "--html", page).stdout
    rows = list(csv.DictReader(io.StringIO(featx(*words).stdout)))
    (line,) = featx(*words, "--json").stdout.splitlines()
    paths = featx(*words, "--format", "paths").stdout.splitlines()
    ended = featx(*words, "--format", "paths", "--null").stdout
    assert [row["path"] for row in rows] == [one["path"] for one in json.loads(line)["similar"]] == paths
    assert ended == "".join(f"{path}\0" for path in paths)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert all(path in table for path in paths)
    html = page.read_text(encoding="utf-8")
    assert html.count('<img src="data:image/webp') == 4
    assert f"{float(rows[0]['similarity']):.3f}" in html
    assert os.path.relpath(paths[0], tmp_path).replace(" ", "%20") in html
    assert "already exists" in featx(*words, "--html", page, exit_code=2).stderr


def test_command_refuses_null_without_paths_and_says_if_no_photo_can_be_read(world, featx, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no JPEG")
    words = ["similar", world / "data", broken, "--cache-dir", world / "cache", *WORDS]
    assert "--format paths" in featx(*words, "--null", exit_code=2).stderr
    assert "broken.jpg" in featx(*words, exit_code=1).stdout
