import hashlib
import shutil

import h5py
import numpy as np
import pytest

from featx.backbones import BACKBONES
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.resolve import resolve_recipe
from featx.weights import find_weights


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


@pytest.mark.parametrize("place", ["keras/models", "weights"])
def test_official_file_with_the_wrong_hash_is_neither_used_nor_touched(tmp_path, monkeypatch, place):
    path = weights_file(tmp_path / place / BACKBONES["vgg16"].weights_name)
    before = path.read_bytes()
    if place == "weights":
        monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(path.parent))
    with pytest.raises(WeightsError, match="MD5 expected 6d6bbae143d832006294945121d1f1fc, got"):
        find_weights("vgg16", "imagenet", tmp_path / "cache")
    assert path.read_bytes() == before


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


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="Known: vgg16"):
        resolve_recipe(tmp_path, backbone="vgg17")
    with pytest.raises(FeatxError, match="float16 or float32"):
        resolve_recipe(tmp_path, weights="random", dtype="int8")


def test_unreadable_folder_of_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="names no folder"):
        find_weights("vgg16", "imagenet", tmp_path)
    shutil.rmtree(tmp_path)
