"""What featx advises when features are missing is run as it stands, and makes just the features that were missing."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import click
import numpy as np
import pytest

from featx import Recipe, extract_features, load_features, scan, train_top
from featx.cli.cache import check_text
from featx.cli.main import main
from featx.errors import FeaturesMissingError
from featx.extract.cache import check_cache
from featx.extract.options import DECIDING, RECIPE_OPTIONS, ExtractionOptions
from featx.extract.transformer import FeatureExtractor
from featx.heads.training_loop import Training
from featx.images.augmentation import Augmentation, Views
from featx.system.machine import has_fast_bfloat16

SMALL = {"weights": "random", "image_size": 32, "layer": "block1_pool"}


@pytest.fixture
def workplace(tmp_path, monkeypatch, make_photos):
    make_photos(tmp_path / "my photos", n_train=4, n_test=1)
    monkeypatch.chdir(tmp_path)
    return Path("my photos")


def advised(error: FeaturesMissingError) -> list[str]:
    return shlex.split(str(error).split("Make them with: ")[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backbone": "mobilenetv2", "layer": "predictions", "image_size": (32, 48)},
        {"backbone": "mobilenetv2", "layer": "predictions", "dtype": "float16"},
        {"pooling": "avg", "dtype": "float32", "weights": "random:1"},
        {"pooling": "max", "precision": "float32", "image_size": "48x32"},
        {"dtype": "float16", "precision": "auto", "weights": Path("wei ghts/vgg16_mine_notop.h5")},
        {"dtype": np.float32, "layer": None},
        {"precision": "int8"},
        pytest.param(
            {"precision": "bfloat16"},
            marks=pytest.mark.skipif(not has_fast_bfloat16(), reason="needs a processor with bfloat16"),
        ),
        {"views": 2},
        {"views": Views(1, Augmentation(rotation=7.5, zoom=0.125), of_test=True), "pooling": "avg"},
    ],
    ids=str,
)
def test_the_command_advised_makes_what_the_call_reads(workplace, cache, vgg16_weights, featx, options):
    vgg16_weights.rename("wei ghts")
    cache = cache.rename(cache.with_name("a cache"))
    options = {**SMALL, **options, "cache_dir": cache}
    if options.get("precision") == "int8":
        pytest.importorskip("nncf")
    with pytest.raises(FeaturesMissingError, match=r"10 of 10|8 of 8") as caught:
        load_features(workplace, **options)
    featx(*advised(caught.value)[1:])
    features = load_features(workplace, **options)
    assert len(features.X) == 10
    if views := options.pop("views", None):
        assert features.train_views.shape[1] == (views if isinstance(views, int) else views.n)
    extraction = extract_features(workplace, **options)
    assert (extraction.n_computed, extraction.n_cached) == (0, 10)


@pytest.mark.parametrize("archive", ["zip", "tar"])
def test_the_command_advised_for_an_archive_or_an_odd_name_works(workplace, cache, featx, archive):
    shutil.make_archive("-photos", archive, workplace)
    for data in (f"-photos.{archive}", scan(f"-photos.{archive}", cache)):
        with pytest.raises(FeaturesMissingError) as caught:
            load_features(data, cache_dir=cache, **{**SMALL, "layer": f"block{2 if isinstance(data, str) else 3}_pool"})
        featx(*advised(caught.value)[1:])
        load_features(data, cache_dir=cache, **{**SMALL, "layer": f"block{2 if isinstance(data, str) else 3}_pool"})


def test_training_advises_what_it_reads_whatever_the_variables_say(workplace, cache, monkeypatch):
    options = {**SMALL, "cache_dir": cache, "views": Views(1, Augmentation(rotation=5))}
    settings = {"POOLING": "avg", "DTYPE": "float32", "FLIP": "1", "AUGMENT": "report", "IMAGE_SIZE": "64", "ZOOM": ""}
    for name, value in settings.items():
        monkeypatch.setenv(f"FEATX_{name}", value)
    with pytest.raises(FeaturesMissingError) as caught:
        train_top(workplace, run_dir="run", **options)
    words = advised(caught.value)
    unset = ["-u", "FEATX_POOLING", "-u", "FEATX_DTYPE", "-u", "FEATX_AUGMENT", "-u", "FEATX_FLIP"]
    assert words[: len(unset) + 2] == ["env", *unset, "featx"]
    at = words.index("featx")
    words[at : at + 1] = [sys.executable, "-m", "featx"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(words, check=True, env=environment, capture_output=True)
    assert train_top(workplace, run_dir="run", training=Training(epochs=1), **options).dir == Path("run")


def test_every_option_that_decides_the_store_is_told_from_the_others():
    of_extract = {param.opts[0]: param for param in main.commands["extract"].params if isinstance(param, click.Option)}
    others = {"--engine", "--batch-size", "--threads", "--streams", "--workers", "--strict", "--ray", "--preview"}
    assert set(of_extract) - others - {"--keep-pixels"} - {"--quiet", "--verbose", "--json"} == set(DECIDING)


def test_an_option_of_the_recipe_is_none_until_it_is_resolved_wherever_it_is_given():
    for name in ("extract", "plan", "train-top"):
        given = main.commands[name].make_context(name, []).params
        given["layer"] = given.get("layers", ()) or given.get("layer")  # where there may be several
        assert {given[option] for option in RECIPE_OPTIONS} == {None}
    extractor = FeatureExtractor().get_params()
    assert {extractor[option] for option in get_type_hints(ExtractionOptions)} == {None}


@pytest.mark.parametrize(
    "options",
    [{"pooling": "avg"}, {"pooling": "max", "dtype": "float32"}, {"backbone": "mobilenetv2", "layer": "predictions"}],
    ids=str,
)
def test_extractor_library_and_advice_mean_the_same_store(workplace, cache, featx, options):
    options = {**SMALL, **options, "cache_dir": cache}
    paths = sorted(workplace.rglob("*.jpg"))
    features = FeatureExtractor(**options, flatten=False).transform(paths)
    assert len(list(cache.glob("*/recipe.json"))) == 1
    loaded = load_features(workplace, **options)
    assert features.shape[1:] == loaded.X.shape[1:]
    shutil.rmtree(cache / loaded.recipe.slug)
    with pytest.raises(FeaturesMissingError) as caught:
        load_features(workplace, **options)
    featx(*advised(caught.value)[1:])
    again = load_features(workplace, **options)
    assert again.recipe == loaded.recipe
    order = [str(path.relative_to(workplace)) for path in paths]
    rows = {path: row for row, path in enumerate(again.paths)}
    assert np.array_equal(features, again.X[:][[rows[path] for path in order]].astype(np.float32))


def test_a_damaged_store_is_made_again_by_the_command_that_verify_names(workplace, cache, featx):
    options = {**SMALL, "pooling": "avg", "dtype": "float32"}
    extraction = extract_features(workplace, cache_dir=cache, views=1, **options)
    for store_dir in (extraction.store_dir, extraction.views.store_dir):
        next(store_dir.glob("seg-*.h5")).write_bytes(b"damaged")
    check = check_cache(cache, mend=True)
    commands = [
        shlex.split(line)
        for line in check_text(check, cache, mended=True).splitlines()
        if " featx extract DATA" in line
    ]
    for words in commands:
        words[words.index("DATA")] = str(workplace)
        featx(*("1" if word == "N" else word for word in words[1:]))
    assert len(commands) == 2
    again = extract_features(workplace, cache_dir=cache, views=1, **options)
    assert (again.n_computed, again.views.n_computed) == (0, 0)


def test_a_recipe_of_wrong_types_is_an_error_where_it_is_made():
    good = Recipe(backbone="vgg16", weights="random-0", layer="x", image_size=(64, 64), preprocessing="caffe")
    for wrong in ({"image_size": 64}, {"image_size": [64, 64]}, {"dtype": np.float32}, {"augmentation": {}}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} has the wrong type"):
            replace(good, **wrong)
