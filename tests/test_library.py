"""The examples in the docstrings of the library run: with weights in Keras's layout, photographs, and a run."""

import doctest
import importlib
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import featx
from featx.extract.extract import extract_features
from featx.heads.training_loop import Training
from featx.train.train import train_top


@pytest.fixture
def workplace(tmp_path, monkeypatch, make_photos, vgg16_weights):
    """A working folder as somebody has it who has run `featx extract` and `featx train-top` on two classes."""
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(vgg16_weights))
    monkeypatch.chdir(tmp_path)
    data = make_photos(tmp_path / "data", classes=("cats", "dogs"))
    for name in ("cat", "dog"):
        Image.open(data / "test" / f"{name}s" / f"{name}s.0.jpg").save(f"{name}.jpg")
    extract_features(data, image_size=(64, 64))
    train_top(data, run_dir=tmp_path / "runs" / "first", image_size=(64, 64), training=Training(epochs=5))
    return tmp_path


def test_examples_in_docstrings_are_true(workplace):
    """Those that need images, weights or a run are skipped elsewhere, and run here."""
    for example_of in (featx.Classifier, featx.FeatureExtractor, featx.load_features):
        module = importlib.import_module(example_of.__module__)
        n_examples = 0
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            if "DirectClassifier" in test.name:  # needs the weights of a whole classifier
                continue
            for example in test.examples:
                example.options.pop(doctest.SKIP, None)
            n_examples += len(test.examples)
            assert doctest.DocTestRunner().run(test).failed == 0
        assert n_examples >= 3, module


@pytest.mark.parametrize(
    "function",
    [
        featx.extract_features,
        featx.compare_approaches,
        featx.plan_extraction,
        partial(featx.train_top, run_dir=Path("run")),
        featx.load_features,
        lambda _, **options: featx.resolve_recipe(**options),
        lambda _, **options: featx.DirectClassifier.load(**options),
    ],
)
def test_a_misspelled_option_does_not_mean_the_default(tmp_path, make_photos, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"no option 'imagesize'. Options: .*image_size"):
        function(make_photos(tmp_path / "data"), imagesize=(64, 64))
    assert not Path("run").exists()
