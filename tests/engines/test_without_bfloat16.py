"""Recipes in bfloat16 where OpenVINO has none, and messages that advise only what their command takes.

On a processor that has bfloat16, a process of its own is kept from it by the settings that OpenVINO, oneDNN and
TensorFlow have for that, which they read when they are loaded.
"""

import ast
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

import click
import numpy as np
import pytest

from featx.cli.main import main
from featx.cli.predict import _OF_DIRECT
from featx.dataset.scanning import scan
from featx.extract.extract import Extraction, extract_features
from featx.predict.classifier import Classifier
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from tests.processes import FEATX, ForkServer

#: What a processor of 2013 has. TensorFlow goes by the processor, not by oneDNN's limit, so it does without oneDNN.
OLD_PROCESSOR = {"OV_CPU_MAX_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ENABLE_ONEDNN_OPTS": "0"}

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block1_pool", "precision": "bfloat16"}
WORDS = ["--weights", "random", "--image-size", "32", "--layer", "block1_pool", "--precision", "bfloat16"]

GOING_ON = "featx: warning: OpenVINO has no bfloat16 on this processor: using keras, "


@pytest.fixture(scope="module")
def on_old_processor(folder) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """Return a function that runs a featx command, in a process of its own, where there is no bfloat16."""

    def run(*words: object, exit_code: int = 0) -> "subprocess.CompletedProcess[str]":
        result = server.run(FEATX, "featx", *words)
        assert result.returncode == exit_code, result.stderr
        return result

    with ForkServer(folder, {**OLD_PROCESSOR, "CUDA_VISIBLE_DEVICES": ""}) as server:
        yield run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, networks_dir) -> Path:
    """`data`, and two caches with one folder of converted networks: of this machine, and of the old one."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("precision")
    write_photos(folder / "data")
    for cache in ("here", "old"):
        (folder / cache).mkdir()
        (folder / cache / "networks").symlink_to(networks_dir, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def here(folder) -> Extraction:
    return extract_features(folder / "data", cache_dir=folder / "here", **OPTIONS)


@pytest.fixture(scope="module")
def extracted(folder, on_old_processor) -> str:
    """What an extraction in bfloat16 says on the old processor."""
    return on_old_processor("extract", folder / "data", *WORDS, "--cache-dir", folder / "old").stderr


def rows(cache: Path, recipe: Recipe, folder: Path) -> np.ndarray:
    dataset = scan(folder / "data", cache)
    return FeatureStore(cache, recipe).read(dataset.digests).astype(np.float64)


def test_old_processor_computes_bfloat16_and_says_so_once(folder, here, extracted):
    assert len([line for line in extracted.splitlines() if line.startswith(GOING_ON)]) == 1
    floats = extract_features(folder / "data", cache_dir=folder / "here", **{**OPTIONS, "precision": "float32"})
    expected, exact = (rows(folder / "here", one.recipe, folder) for one in (here, floats))
    computed = rows(folder / "old", here.recipe, folder)
    largest = np.abs(expected).max()
    assert np.abs(computed - expected).max() < 0.02 * largest
    assert np.abs(computed - exact).max() > 1e-3 * largest, "this is float32: a store would mix two arithmetics"


@pytest.fixture(scope="module")
def run_dir(folder, here) -> Path:
    words = ["train-top", str(folder / "data"), *WORDS, "--cache-dir", str(folder / "here"), "--epochs", "5"]
    main([*words, "--quiet", "--run-dir", str(folder / "run")], standalone_mode=False)
    return folder / "run"


def predicted(stdout: str) -> np.ndarray:
    """Return `(n, n_classes)` probabilities from lines of JSON, the classes in the order of their names."""
    tops = [json.loads(line)["top"] for line in stdout.splitlines()]
    return np.array([[one["probability"] for one in sorted(top, key=itemgetter("label"))] for top in tops])


def test_a_run_in_bfloat16_predicts_on_an_old_processor(folder, run_dir, tmp_path, networks_dir, on_old_processor):
    (tmp_path / "networks").symlink_to(networks_dir, target_is_directory=True)
    files = sorted((folder / "data" / "test").rglob("*.jpg"))
    words = ["predict", run_dir, folder / "data" / "test", "--top-k", "2", "--cache-dir", tmp_path]
    result = on_old_processor(*words, "--format", "jsonl")
    assert len([line for line in result.stderr.splitlines() if line.startswith(GOING_ON)]) == 1
    expected = Classifier.load(run_dir, cache_dir=folder / "here").predict_proba(files)
    np.testing.assert_allclose(predicted(result.stdout), expected, atol=0.02)


def test_an_engine_without_bfloat16_is_refused_with_advice_that_helps(
    folder, run_dir, tmp_path, networks_dir, on_old_processor
):
    (tmp_path / "networks").symlink_to(networks_dir, target_is_directory=True)
    words = ["predict", run_dir, next((folder / "data" / "test").rglob("*.jpg")), "--cache-dir", tmp_path]
    (said,) = on_old_processor(*words, "--quiet", "--engine", "openvino", exit_code=2).stderr.splitlines()
    assert said.startswith("featx: OpenVINO has no bfloat16 on this processor; choose --engine keras")
    on_old_processor(*words, *re.findall(r"choose (--engine) (keras)", said)[0])


def literals(path: Path) -> Iterator[str]:
    """Yield the texts in a module that are no docstrings: what may be said to a user."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.value


def advised(path: Path) -> set[str]:
    """Return the options named in a module's texts, as in "choose --engine keras"."""
    return {name for text in literals(path) for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}


def options_of(command: click.Command) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("--")}


def test_engines_advise_only_what_every_command_takes_that_runs_one():
    of_run = options_of(main.commands["predict"]) - {f"--{name.replace('_', '-')}" for name in _OF_DIRECT}
    with_data = set.intersection(*(options_of(main.commands[name]) for name in ("extract", "plan", "compare")))
    package = Path(__file__).parents[2] / "featx"
    modules = [*(package / "engines").glob("*.py"), package / "system" / "late_imports.py"]
    found = {path.stem: advised(path) for path in modules}
    assert "--engine" in found["openvino_engine"]
    for module, names in found.items():
        # Only who has a data set gets as far as calibrating, or is told what --precision fast is.
        takes = with_data if module in {"quantization", "late_imports", "precision"} else with_data & of_run
        assert names <= takes, f"{module} advises {names - takes}, which not every command takes"


def test_every_option_that_a_message_names_is_one():
    known = set().union(*(options_of(command) for command in all_commands(main))) | {
        "--help",
        "--version",
        "--python",
    }  # of uv
    source = Path(__file__).parents[2] / "featx"
    for path in source.rglob("*.py"):
        if path.parent.name == "html":  # whose names are those of CSS
            continue
        names = advised(path)
        assert names <= known, f"{path.relative_to(source)} names {names - known}, which no command takes"


def all_commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from all_commands(command) if isinstance(command, click.Group) else [command]
