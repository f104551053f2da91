"""`featx doctor` finds what is here, and notices wrong features."""

import json
import tomllib
from pathlib import Path

import numpy as np

from featx.cli.doctor import diagnosis_json, diagnosis_text
from featx.extract import diagnosis
from featx.extract.diagnosis import diagnose, picture
from featx.extract.extract import extract_features
from featx.system import has_fast_bfloat16
from tests.conftest import write_photos


def test_this_machine_is_sound_and_what_it_has_is_said(tmp_path, cache, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet50_notop.h5").write_bytes(b"")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "weights"))
    data = write_photos(tmp_path / "data", n_train=4, n_test=2)
    extract_features(data, cache_dir=cache, weights="random", image_size=32, layer="block1_pool")
    found = diagnose(cache)
    lines = diagnosis_text(found).splitlines()
    assert 9 <= len(lines) <= 11
    assert any(line.startswith("Cache: 1 store with 12 rows of features") for line in lines)
    assert any("weights on this machine" in line and "resnet50" in line for line in lines)
    assert sum("passed" in line for line in lines) == 1 + has_fast_bfloat16()
    values = json.loads(json.dumps(diagnosis_json(found)))
    assert values["sound"]
    assert values["self_tests"][0]["deviation"] < 1e-5


def test_wrong_features_are_noticed(tmp_path, featx, monkeypatch):
    monkeypatch.setattr(diagnosis, "picture", lambda: np.ascontiguousarray(picture()[..., ::-1]))  # blue for red
    lines = featx("doctor", "--cache-dir", tmp_path / "none", exit_code=1).stdout.splitlines()
    assert all("FAILED: these features are wrong" in line for line in lines if line.startswith("Self-test"))
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_not_there_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(diagnosis, "_self_test", lambda *_args, **_options: diagnosis.SelfTest("float32", "", 0, 0))
    found = diagnose(tmp_path)
    assert any("names no folder" in problem for problem in found.problems)
    assert not found.is_sound


def test_the_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name != "dev"}
    assert diagnosis.EXTRAS.keys() == extras.keys()
    for name, package in diagnosis.EXTRAS.items():
        assert any(needed.startswith(package) for needed in extras[name])
