"""What is misspelled is answered with the nearest word, and what cannot work is refused before any work begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import featx as library
from featx.errors import FeatxError
from featx.system.arguments import check_name, did_you_mean

RANDOM = ["--weights", "random"]


@pytest.fixture
def here(make_photos, tmp_path, monkeypatch) -> Path:
    """A working folder with images of two classes in `data`."""
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "data", classes=("cats", "dogs"))
    return tmp_path


MISSPELLED = [
    (["extrct", "data"], "extract"),
    (["trian-top", "data"], "train-top"),
    (["cache", "verfy"], "verify"),
    (["extract", "data", "--backbon", "vgg16"], "--backbone"),
    (["extract", "data", "--image_size", "64"], "--image-size"),
    (["extract", "data", "--rotate", "20"], "--rotation"),
    (["compare", "data", "--rivals", "report-dnn"], "--baseline"),  # by its former name, --rival
    (["cache", "rm", "--set-asde"], "--quarantined"),
    (["extract", "data", "--backbone", "VGG-16"], "vgg16"),
    (["compare", "data", "--backbone", "resnet"], "resnet50"),
    (["compare", "data", "--baseline", "report-cn"], "report-cnn"),
    (["extract", "data", "--engine", "opnvino"], "openvino"),
    (["extract", "data", "--precision", "bflot16"], "bfloat16"),
    (["extract", "data", "--dtype", "float36"], "float32"),
    (["extract", "data", "--pooling", "average"], "avg"),
    (["extract", "data", "--augment", "reprot"], "report"),
    (["extract", "data", "--weights", "imagnet"], "imagenet"),
    (["extract", "data", "--layer", "block5_pol"], "block5_pool"),
    (["extract", "data", "--backbone", "mobilenetv2", "--layer", "block_6_expand_relue"], "block_6_expand_relu"),
    (["train-top", "data", "--tune", "blok5"], "block5"),
    (["extract", "dat", *RANDOM], "data"),
    (["extract", "data", *RANDOM, "--train-folder", "trian"], "train"),
    (["export", "run", "--format", "onx"], "onnx"),
    (["export", "run", "--head", "dens"], "dense"),
    (["predict", "run", "x.jpg", "--format", "jsnl"], "jsonl"),
    (["predict", "dta", "x.jpg"], "data"),
    (["fetch", "sampel"], "sample"),
    (["compare", "data", *RANDOM, "--direct", "--map", "cat=281-285", "--map", "dogs=151"], "cats"),
]


@pytest.mark.parametrize(("words", "meant"), MISSPELLED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_misspelled_word_is_answered_with_the_nearest(here, featx, words, meant):
    stderr = featx(*words, exit_code=2).stderr
    assert f" Did you mean {meant}?" in stderr
    assert stderr.count("Did you mean") == 1


def test_the_nearest_name_in_python(here, tmp_path):
    how = {"cache_dir": tmp_path / "cache", "weights": "random"}
    for call, meant in (
        (lambda: library.resolve_recipe(backbone="vgg61"), "vgg16"),
        (lambda: library.extract_features("data", engine="kears"), "keras"),
        (lambda: library.extract_features("data", precision="int-8"), "int8"),
        (lambda: library.load_features("data", layer="block4pool", **how), "block4_pool"),
        (lambda: library.train_top("data", heads="logregg", run_dir="run"), "logreg"),
        (lambda: library.compare_approaches("data", baselines=["reprot-dnn"]), "report-dnn"),
        (lambda: library.export_run("run", format="savedmodl"), "savedmodel"),
        (lambda: library.DirectClassifier.load(maps=["cats=0-500", "dogs=501-999"], backbone="resnet05"), "resnet50"),
        (lambda: library.extract_features("data", imagesize=64), "image_size"),
    ):
        with pytest.raises((FeatxError, TypeError), match=rf"Did you mean {meant}\?$"):
            call()


def test_the_nearest_network_class_and_cache_entry(here, featx):
    Path("classes.json").write_text(json.dumps(["tabby cat", "beagle", *map(str, range(998))]))
    words = ["predict", "--direct", "x.jpg", *RANDOM, "--class-list", "classes.json", "--map", "cats=taby cat"]
    assert "Did you mean tabby cat?" in featx(*words, "--map", "dogs=beagle", exit_code=2).stderr
    Path("cache/notes").mkdir(parents=True)
    assert "Did you mean notes?" in featx("cache", "verify", "ntes", exit_code=2).stderr


def test_a_word_that_is_like_no_other_is_answered_without_a_guess():
    assert did_you_mean("abacus", ["keras", "openvino"]) == did_you_mean(7, ["7"]) == did_you_mean("x", []) == ""
    assert did_you_mean("c\x1bts", ["c\x1bats"]) == " Did you mean c\\x1bats?"
    for wrong in (7, None, ["keras"], True):
        with pytest.raises(FeatxError, match=r"^Known: keras\. Received: .* \(\w+\)$"):
            check_name(wrong, ["keras"], "Known: keras.")


#: What cannot work, and is known to before anything is done.
HOPELESS = [
    (["extract", "data", "--image-size", "20"], "vgg16 takes images of 32 pixels or more"),
    (["extract", "data", "--backbone", "mobilenetv2", "--image-size", "64x31"], "Received: 64x31"),
    (["train-top", "data", "--image-size", "20"], "32 pixels or more"),
    (["compare", "data", "--image-size", "20"], "32 pixels or more"),
    (["compare", "data", "--backbone", "vgg16", "--backbone", "resnet50", "--image-size", "31"], "32 pixels or more"),
    (["plan", "data", "--image-size", "20"], "32 pixels or more"),
    (["predict", "--direct", "x.jpg", "--backbone", "resnet50", "--image-size", "20"], "32 pixels or more"),
    (["predict", "--direct", "x.jpg", "--image-size", "100"], "takes images of 224x224 only"),
    (["extract", "data", "--layer", "predictions", "--image-size", "100"], "takes images of 224x224 only"),
    (["extract", "data", "--layer", "predictions", "--pooling", "avg"], "cannot be pooled"),
    (["extract", "data", "--backbone", "resnet50", "--layer", "block5_pool"], "resnet50 has no layer of this name"),
    (["plan", "data", "--layer", "top"], "no layer of this name"),
    (["train-top", "data", "--layer", "top"], "no layer of this name"),
    (["train-top", "data", "--tune", "block1"], "Some layers of vgg16 must stay frozen"),
    (["plan", "data", "--layer", "block4_pool", "--tune"], "Its last block is block5. Received: 'block5'"),
    (["compare", "data", "--backbone", "vgg16", "--backbone", "resnet50", "--tune", "block5"], "resnet50 has no block"),
    (["compare", "data", "--layer", "top"], "no layer of this name"),
    (["extract", "data", "--engine", "keras", "--precision", "int8"], "The keras engine does not support int8"),
    (["plan", "data", "--engine", "keras", "--precision", "int8"], "The keras engine does not support int8"),
    (["compare", "data", "--engine", "keras", "--precision", "int8"], "The keras engine does not support int8"),
    (["train-top", "data", "--weights", "gone.h5"], "There is no weights file gone.h5"),
    (["train-top", "data", "--seed", "4294967296"], "is not in the range"),
    (["compare", "data", "--seed", "4294967296"], "is not in the range"),
    (["train-top", "data", "--epochs", "0"], "not in the range"),
    (["train-top", "data", "--epochs", "1000000000000"], "not in the range"),
    (["extract", "data", "--workers", "1000000000"], "not in the range"),
    (["extract", "data", "--threads", "1000000000"], "not in the range"),
    (["compare", "data", "--streams", "1000000000"], "not in the range"),
    (["predict", "run", "x.jpg", "--top-k", "1000000000"], "not in the range"),
    (["extract", "data", "--weights", f"random:{10**30}"], "of 20 digits at most"),
    (["extract", "data", "--image-size", "99999"], "each from 1 to 4096"),
    (["compare", "--demo", "--views", "2", "--rotation", "nan"], "rotation must be from 0"),
    (["compare", "--demo", "--views", "2", "--shear", "much"], "'much' is not a number"),
    (["compare", "--demo", "--seed", "4294967296"], "not in the range"),
    (["train-top", "data", "--memory", "plenty"], "A size must be"),
    (["compare", "data", "--repeats", "1001"], "not in the range"),
    (["extract", "data", "--views", "65536"], "not in the range"),
    (["extract", "data", "--rotation", "20"], "Set their number per image"),
    (["extract", "data", "--views", "2", "--zoom", "nan"], "zoom must be from 0"),
    (["train-top", "data", "--run-dir", "file/run"], "The folder file/run cannot be "),
    (["compare", "data", "--report-dir", "file"], "The folder file cannot be written"),
    (["extract", "data", "--cache-dir", "file/cache"], "The cache cannot be in a file"),
    (["compare", "data", "--cache-dir", "file/cache"], "The cache cannot be in a file"),
    (["compare", "data", "--direct", "--class-list", "gone.json"], "The class list gone.json cannot be read"),
]


@pytest.mark.parametrize(("words", "message"), HOPELESS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_work_is_refused_before_images_are_listed(here, featx, words, message):
    Path("file").touch()
    stderr = featx(*words, exit_code=2).stderr
    assert message in stderr
    assert "cats (" not in stderr  # said when images have been listed
    assert not Path("cache").exists()
    assert not [path for path in here.glob("r*/*") if path.is_dir()]


def test_a_folder_of_weights_that_is_not_there_is_refused_before_images_are_listed(here, featx, monkeypatch):
    Path("weights").mkdir()
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", "wieghts")
    stderr = featx("extract", "data", exit_code=2).stderr
    assert stderr == "featx: FEATX_WEIGHTS_DIR names no folder. Received: wieghts. Did you mean weights?\n"


def test_a_map_without_direct_is_not_ignored_silently(here, featx):
    stderr = featx("compare", "dat", *RANDOM, "--map", "cats=1", exit_code=2).stderr
    assert "only used with direct (--direct)" in stderr


def test_a_refusal_loads_nothing_that_is_slow(here):
    """In a process of its own: this one may have loaded all of them."""
    program = """
import sys
from click.testing import CliRunner
from featx.cli.main import main
for words in (["--image-size", "20"], ["--layer", "block5_pol"], ["--backbone", "vgg61"], ["--weights", "gone.h5"]):
    for command in ("extract", "plan", "train-top", "compare"):
        result = CliRunner().invoke(main, [command, "data", *words])
        assert result.exit_code == 2, result.output
print({"tensorflow", "keras", "openvino", "sklearn", "scipy", "matplotlib", "pandas"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_export_that_cannot_be_written_is_refused_before_a_network_is_built(here):
    Path("file").touch()
    how = {"cache_dir": "cache", "weights": "random", "image_size": 32, "layer": "block1_pool"}
    library.extract_features("data", **how)
    library.train_top("data", run_dir="run", heads="logreg", **how)
    with pytest.raises(FeatxError, match=r"file/model.keras cannot be written: not a folder"):
        library.export_run("run", "file/model.keras")


@pytest.mark.parametrize("run_dir", ["file", "file/run", "data"])
def test_a_run_folder_that_cannot_be_written_is_refused_before_images_are_listed(here, run_dir, caplog):
    Path("file").touch()
    with pytest.raises(FeatxError, match="The folder"):
        library.train_top("data", run_dir=run_dir, weights="random")
    assert "cats (" not in caplog.text
