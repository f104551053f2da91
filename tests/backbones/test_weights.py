import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.backbones.table import BACKBONES
from featx.backbones.weights import find_weights, find_weights_again
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.extract.options import resolve_recipe


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty Keras cache, and a proxy on loopback that nobody listens at."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("FEATX_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def weights_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
    return path


def test_a_file_is_known_by_its_sha256(tmp_path):
    path = weights_file(tmp_path / "mine.h5")
    found = find_weights("vgg16", str(path), tmp_path / "cache")
    assert found.path == path
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_folder_of_weights_is_looked_into_first(tmp_path, monkeypatch):
    path = weights_file(tmp_path / "weights" / "vgg16_mine_notop.h5")
    weights_file(tmp_path / "weights" / "vgg16_whole.h5")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(path.parent))
    assert find_weights("vgg16", "imagenet", tmp_path / "cache").path == path


def test_several_files_for_one_backbone_are_refused_rather_than_guessed(tmp_path, monkeypatch):
    for name in ("a", "b"):
        weights_file(tmp_path / "weights" / f"vgg16_{name}_notop.h5")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "weights"))
    with pytest.raises(WeightsError, match="several files"):
        find_weights("vgg16", "imagenet", tmp_path / "cache")


def test_whole_classifier_has_a_file_of_its_own(tmp_path, monkeypatch):
    folder, cache = tmp_path / "weights", tmp_path / "cache"
    weights_file(folder / "vgg16_mine_notop.h5")
    weights_file(folder / "vgg16_mine_no_top.h5")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(folder))
    with pytest.raises(WeightsError, match=r"Looked for vgg16\*\.h5 in .*vgg16_weights_tf_dim_ordering_tf_kernels\.h5"):
        find_weights("vgg16", "imagenet", cache, whole=True)
    path = weights_file(folder / "vgg16_whole.h5")
    found = find_weights("vgg16", "imagenet", cache, whole=True)
    assert found.path == path
    assert find_weights_again("vgg16", found.digest, (), cache, whole=True) == found
    assert find_weights("vgg16", "random", cache, whole=True).digest == "random-0"
    weights_file(folder / "vgg16_other.h5")
    with pytest.raises(WeightsError, match=r"several files for vgg16: vgg16_other\.h5, vgg16_whole\.h5"):
        find_weights("vgg16", "imagenet", cache, whole=True)
    official = weights_file(folder / BACKBONES["vgg16"].whole.name)
    with pytest.raises(WeightsError, match="MD5 expected 64373286793e3c8b2b4e3219cbf3544b, got"):
        find_weights("vgg16", str(official), cache, whole=True)


@pytest.mark.parametrize("place", ["keras/models", "weights"])
def test_official_file_with_the_wrong_hash_is_neither_used_nor_touched(tmp_path, monkeypatch, place):
    path = weights_file(tmp_path / place / BACKBONES["vgg16"].notop.name)
    before = path.read_bytes()
    if place == "weights":
        monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(path.parent))
    with pytest.raises(WeightsError, match="MD5 expected 6d6bbae143d832006294945121d1f1fc, got"):
        find_weights("vgg16", "imagenet", tmp_path / "cache")
    assert path.read_bytes() == before


def test_an_official_file_is_checked_when_it_has_changed_and_else_not_read(tmp_path, monkeypatch, settle):
    entry = BACKBONES["vgg16"]
    path = weights_file(tmp_path / "weights" / entry.notop.name)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(BACKBONES, "vgg16", replace(entry, notop=replace(entry.notop, checksum=md5)))
    settle()
    found = find_weights("vgg16", str(path), tmp_path / "cache")
    with monkeypatch.context() as patch:
        for name in ("featx.backbones.weights.hashlib.file_digest", "featx.dataset.digests._sha256"):
            patch.setattr(name, lambda *_: pytest.fail("it was read again"))
        assert find_weights("vgg16", str(path), tmp_path / "cache") == found
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()
    for _ in range(2):  # what was refused once is not remembered as checked
        with pytest.raises(WeightsError, match="has the name of Keras's official weights but is not that file"):
            find_weights("vgg16", str(path), tmp_path / "cache")


@pytest.mark.parametrize("seed", ["9" * 21, "9" * 5000, "-1", "x", "٣"])
def test_a_seed_that_is_no_short_number_is_refused(tmp_path, seed):
    with pytest.raises(WeightsError, match="The seed of random weights is a whole number of 20 digits at most"):
        find_weights("vgg16", f"random:{seed}", tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-this-name/x.h5"])
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(WeightsError, match="There is no weights file"):
        find_weights("vgg16", name, tmp_path)
    with pytest.raises(WeightsError, match="were not found"):
        find_weights_again("vgg16", "ab" * 32, [Path(name)], tmp_path)


def test_no_weights_to_be_had_names_what_was_tried_and_the_ways_out(tmp_path):
    with pytest.raises(WeightsError) as error:
        find_weights("vgg16", "imagenet", tmp_path / "cache")
    for words in ("FEATX_WEIGHTS_DIR (not set)", "keras/models", "Connect", "set FEATX_WEIGHTS_DIR", "--weights PATH"):
        assert words in str(error.value)
    assert not list((tmp_path / "keras" / "models").iterdir())


def test_only_the_option_for_demonstrations_falls_back_to_random_weights(tmp_path, caplog):
    found = find_weights("vgg16", "imagenet-or-random", tmp_path / "cache")
    assert (found.digest, found.path) == ("random-0", None)
    assert "say nothing about transfer learning" in caplog.text


def test_option_for_demonstrations_prefers_real_weights(tmp_path, monkeypatch):
    path = weights_file(tmp_path / "weights" / "vgg16_mine_notop.h5")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(path.parent))
    assert find_weights("vgg16", "imagenet-or-random", tmp_path / "cache").path == path


def test_seeds_of_random_weights_are_different_recipes(tmp_path):
    assert find_weights("vgg16", "random", tmp_path).digest == "random-0"
    assert find_weights("vgg16", "random:7", tmp_path).digest == "random-7"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights file .*nothing\.h5"):
        find_weights("vgg16", str(tmp_path / "nothing.h5"), tmp_path)


def test_defaults_are_the_backbones_own(tmp_path):
    recipe, _ = resolve_recipe(tmp_path, backbone="resnet50", weights="random")
    assert (recipe.layer, recipe.image_size, recipe.dtype) == ("conv5_block3_out", (224, 224), "float16")


def test_class_probabilities_are_stored_as_float32_unless_told_otherwise(tmp_path):
    options = {"backbone": "resnet50", "weights": "random", "layer": "predictions"}
    assert resolve_recipe(tmp_path, **options)[0].dtype == "float32"
    assert resolve_recipe(tmp_path, **options, dtype="float16")[0].dtype == "float16"
    assert resolve_recipe(tmp_path, weights="random", pooling="max")[0].pooling == "max"
    with pytest.raises(FeatxError, match="pooled by avg or max. Received: 'sum'"):
        resolve_recipe(tmp_path, weights="random", pooling="sum")


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="featx backbones lists all"):
        resolve_recipe(tmp_path, backbone="vgg-16")
    with pytest.raises(FeatxError, match="float16 or float32"):
        resolve_recipe(tmp_path, weights="random", dtype="int8")


def test_unreadable_folder_of_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="names no folder"):
        find_weights("vgg16", "imagenet", tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "name", "other"),
    [
        ("resnet50", "resnet50_mine_notop.h5", "resnet50v2_mine_notop.h5"),
        ("mobilenet", "mobilenet_mine_notop.h5", "mobilenetv3small_mine_notop.h5"),
        ("efficientnetb0", "efficientnetb0_mine_notop.h5", "efficientnetv2-b0_notop.h5"),
    ],
)
def test_a_file_named_after_another_backbone_is_not_taken(tmp_path, monkeypatch, backbone, name, other):
    folder, cache = tmp_path / "weights", tmp_path / "cache"
    weights_file(folder / other)
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(folder))
    with pytest.raises(WeightsError, match="Could not find or download"):
        find_weights(backbone, "imagenet", cache)
    path = weights_file(folder / name)
    assert find_weights(backbone, "imagenet", cache).path == path


def test_another_backbones_official_file_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    weights_file(tmp_path / "weights" / BACKBONES["mobilenetv2"].whole.name)
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "weights"))
    with pytest.raises(WeightsError, match="Could not find or download"):
        find_weights("mobilenet", "imagenet", tmp_path / "cache", whole=True)


def test_a_checksum_may_be_a_sha256(tmp_path):
    path = weights_file(tmp_path / BACKBONES["convnexttiny"].notop.name)
    with pytest.raises(WeightsError, match="SHA256 expected d547c096cabd.*, got [0-9a-f]{64}"):
        find_weights("convnexttiny", str(path), tmp_path / "cache")
