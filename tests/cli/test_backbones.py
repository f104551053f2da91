"""`featx backbones`, and how `--backbone` speaks of forty names."""

import json

import pytest

from featx.backbones import BACKBONES, list_backbones


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("FEATX_WEIGHTS_DIR", raising=False)


def test_the_table_has_every_backbone_and_what_it_costs(featx, monkeypatch, tmp_path):
    lines = featx("backbones").stdout.splitlines()
    rows = [line.split("  ") for line in lines[2 : 2 + len(BACKBONES)]]
    assert [row[1] for row in rows] == list(BACKBONES)
    vgg16 = [cell.strip() for cell in rows[0] if cell.strip()]
    assert vgg16 == ["vgg16", "224", "7×7×512", "14.7 M", "56.1 MiB", "71.3 %"]
    (tmp_path / "vgg16_mine_notop.h5").write_bytes(b"")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path))
    assert [info.name for info in list_backbones() if info.has_weights_here] == ["vgg16"]
    assert featx("backbones").stdout.splitlines()[2].endswith("yes")


def test_json_and_names(featx):
    assert featx("backbones", "--quiet").stdout.split() == list(BACKBONES)
    infos = json.loads(featx("backbones", "--json").stdout)
    assert infos[0] == {
        "name": "vgg16",
        "image_size": [224, 224],
        "feature_shape": [7, 7, 512],
        "n_parameters": 14_714_688,
        "weights_bytes": 58_858_752,
        "top1": 71.3,
        "has_weights_here": False,
    }
    assert all(info["n_parameters"] and len(info["feature_shape"]) == 3 for info in infos)


def test_help_names_some_and_says_where_all_are(featx):
    for command in ("extract", "compare"):
        text = " ".join(featx(command, "--help").stdout.split())
        assert "--backbone NAME Pretrained network, such as vgg16, resnet50," in text
        assert "featx backbones lists all" in text
        assert "resnet152v2" not in text


def test_a_misspelled_backbone_is_answered_with_the_nearest(featx):
    for command in ("extract", "compare"):
        said = featx(command, "--backbone", "efficientnet-v2-s", exit_code=2).stderr
        assert "'efficientnet-v2-s' is not in the list of featx backbones. Did you mean efficientnetv2s?" in said
        assert "resnet152v2" not in said
