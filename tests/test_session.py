"""From an empty folder to predictions elsewhere, as a user would go: every step a command of its own."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_photos
from tests.dataset.kaggle.kaggle_server import PROGRAM, serving, zipped
from tests.processes import ForkServer

#: Uses the ONNX file where there is no featx, on images one by one: they may have different sizes.
ELSEWHERE = """
import json, sys
sys.modules["featx"] = None
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
found = {}
for path in sys.argv[2:]:
    pixels = np.asarray(Image.open(path).convert("RGB"))[np.newaxis]
    probabilities, class_names = session.run(["probabilities", "class_names"], {"images": pixels})
    found[path] = dict(zip(map(str, class_names), map(float, probabilities[0])))
print(json.dumps(found))
"""


@pytest.fixture
def kaggle(tmp_path):
    """Kaggle with a data set as zips there are: everything one folder deeper, and once more in another zip."""
    photos = write_photos(tmp_path / "made", n_train=24, n_test=8, classes=("cats", "dogs"))
    files = {str(path.relative_to(photos)): path.read_bytes() for path in photos.rglob("*.jpg")}
    inner = zipped(
        {f"{name.replace('train', 'training_set').replace('test', 'test_set')}": c for name, c in files.items()}
    )
    with serving() as server:
        server.archives = {"tongpython/cat-and-dog": zipped({"archive.zip": inner})}
        server.cuts = [len(inner) // 2]  # the connection breaks once, half-way
        yield server


def test_fetch_extract_train_predict_export_and_the_onnx_file_elsewhere(kaggle, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    variables = {"FEATX_WEIGHTS": "random", "FEATX_IMAGE_SIZE": "32", "FEATX_PRECISION": "float32", "FEATX_EPOCHS": "5"}
    variables["FEATX_LAYER"] = "block1_pool"  # less to convert
    with ForkServer(here, {"HOME": str(tmp_path), **variables}) as server:
        names, rows = session(here, lambda *words: server.run(PROGRAM, "-c", kaggle.url, *words))
    elsewhere = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, "pets.onnx", *names],
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )
    for path, found in json.loads(elsewhere.stdout).items():
        row = next(row for row in rows if row["path"] == path)
        predicted = {row["label"]: float(row["probability"]), row["label_2"]: float(row["probability_2"])}
        assert max(found, key=found.get) == row["label"]
        np.testing.assert_allclose([found[name] for name in predicted], list(predicted.values()), atol=1e-3)


def session(
    here: Path, run: Callable[..., "subprocess.CompletedProcess[str]"]
) -> tuple[list[str], list[dict[str, str]]]:
    """Go from an empty folder to an ONNX file; return the paths of some images and what featx predicts of them."""

    def featx(*words: str) -> str:
        done = run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Next: featx extract data" in featx("fetch", "tongpython/cat-and-dog")
    assert json.loads(featx("extract", "data", "--json"))["n_computed"] == 64
    assert "logreg" in featx("train-top", "data", "--run-dir", "runs/first")
    names = sorted(str(path.relative_to(here)) for path in (here / "data").rglob("test_set/*/*.jpg"))
    Image.open(here / names[0]).resize((90, 70)).save(here / "larger.png")
    names.append("larger.png")
    rows = list(csv.DictReader(io.StringIO(featx("predict", "runs/first", *names, "--top-k", "2"))))
    assert [row["path"] for row in rows] == names
    exported = json.loads(featx("export", "runs/first", "--format", "onnx", "--to", "pets.onnx", "--json"))
    assert exported["class_names"] == ["cats", "dogs"]
    return names, rows
