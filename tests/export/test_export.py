"""Artefacts: loaded in processes that have no featx, on real JPEG files, they say what featx predict says."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featx.dataset.loader import read_source
from featx.errors import FeatxError, WeightsError
from featx.export import export as export_module
from featx.export import graph
from featx.export.export import export_run
from featx.extract.extract import extract_features
from featx.extract.options import options_before
from featx.heads.registry import DEFAULT_HEADS
from featx.heads.training_loop import Training
from featx.images.decode import decode_image
from featx.predict.classifier import Classifier
from featx.system import import_keras
from featx.train.train import train_top
from tests.chaos.tally import IS_FULL
from tests.conftest import SHARED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
PAGE_CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

FORMATS = ("keras", "savedmodel", "onnx")

#: Of the network with real weights: the format that is not TensorFlow's. Of networks with random weights, all are made.
REAL_FORMATS = FORMATS if IS_FULL else ("onnx",)

#: Of the photographs, 8 each: smaller than the network's input, larger, and equal in one side or both. None is so
#: large that featx decodes it at a reduced scale.
SIZES = [(40, 48), (32, 32), (64, 64), (37, 91), (33, 31), (120, 160), (250, 150), (20, 300)]

#: A run for each head, one with two classes and one with three, on networks with different preprocessing.
RUNS = {
    "dense": {"backbone": "vgg16", "layer": "block2_pool", "classes": ("sea", "wood")},
    "logreg": {
        "backbone": "mobilenetv2",
        "layer": "block_2_add",
        "classes": ("sea", "wood", "sky 'n\" Ⓢ"),
        "resize": "pad",
    },
    "knn": {"backbone": "vgg16", "layer": "block2_pool", "classes": ("sea", "wood")},
    "tuned": {
        "backbone": "vgg16",
        "layer": "block2_pool",
        "classes": ("sea", "wood"),
        "tune": "block2",
        "resize": "crop",
    },
}

#: The formats that each run is exported to: all for the first, and one for each of the others, since a run's graph is
#: the same in every format. `make chaos` makes all.
FORMATS_OF = dict.fromkeys(RUNS, FORMATS)
if not IS_FULL:
    FORMATS_OF |= {"logreg": ("savedmodel",), "knn": ("onnx",), "tuned": ("keras",)}

#: What is asked of them: a SavedModel also takes the bytes of files.
ASKED = [(head, form) for head, forms in FORMATS_OF.items() for form in forms]
ASKED += [(head, "bytes") for head, forms in FORMATS_OF.items() if "savedmodel" in forms]

WITHOUT_FEATX = """
import contextlib, io, json, os, sys, traceback
sys.modules["featx"] = None
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from PIL import Image
"""

#: Runs the page's code, then does jobs, each an artefact, its format (or `bytes`: a SavedModel that is given the files
#: as they are) and files. The files' pixels go in as one batch for each size.
LOADER = (
    WITHOUT_FEATX
    + """
def load_keras(artefact):
    import keras, zipfile
    model = keras.models.load_model(artefact, safe_mode=True)
    names = json.loads(zipfile.ZipFile(artefact).read("featx.json"))["class_names"]
    return lambda images: (names, model.predict(images, verbose=0))

def load_signature(artefact, signature, name):
    import tensorflow as tf
    model = tf.saved_model.load(artefact)
    def predict(inputs):
        outputs = model.signatures[signature](**{name: tf.constant(inputs)})
        probabilities, names = outputs["probabilities"].numpy(), outputs["class_names"].numpy()
        assert names.shape == probabilities.shape and (names == names[0]).all()
        return [name.decode() for name in names[0]], probabilities
    return predict

def load_onnx(artefact):
    import onnxruntime
    session = onnxruntime.InferenceSession(artefact)
    assert [value.name for value in session.get_inputs()] == ["images"]
    def predict(images):
        probabilities, names = session.run(["probabilities", "class_names"], {"images": images})
        assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == names.tolist()
        return names.tolist(), probabilities
    return predict

def do(artefact, form, files):
    if form == "bytes":
        names, probabilities = load_signature(artefact, "serve_bytes", "image_bytes")(
            [open(file, "rb").read() for file in files]
        )
        return names, probabilities.tolist()
    predict = {
        "keras": load_keras,
        "savedmodel": lambda artefact: load_signature(artefact, "serving_default", "images"),
        "onnx": load_onnx,
    }[form](artefact)
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    rows_of = {}
    for row, image in enumerate(pixels):
        rows_of.setdefault(image.shape, []).append(row)
    found = {}
    for rows in rows_of.values():
        names, probabilities = predict(np.stack([pixels[row] for row in rows]))
        assert probabilities.dtype == np.float32
        found.update(zip(rows, probabilities.tolist(), strict=True))
    return names, [found[row] for row in range(len(files))]

def run_page(code):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            exec(code, {"__name__": "__main__"})
        except Exception:
            traceback.print_exc(file=output)
    return output.getvalue()

with open(sys.argv[1]) as file:
    page, jobs = json.load(file)
answers = run_page(page), [do(*job) for job in jobs]
assert not [name for name, module in sys.modules.items() if name.split(".")[0] == "featx" and module]
with open(sys.argv[2], "w") as file:
    json.dump(answers, file)
"""
)


def write_photographs(folder: Path, sizes: list[tuple[int, int]], n: int, light: float = 1) -> list[Path]:
    """Write `n` JPEG files of each size: smooth shades with edges and grain, as photographs have."""
    folder.mkdir(parents=True)
    for height, width in sizes:
        for number in range(n):
            rng = np.random.default_rng([height, width, number])
            coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
            shades = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
            shades = np.where(shades[..., :1] > 150, shades, shades * rng.uniform(0.2, 1))
            pixels = np.clip(light * shades + rng.normal(0, 8, shades.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{height}x{width}.{number}.jpg", quality=90)
    return sorted(folder.iterdir())


def train(folder: Path, data: Path, heads: Sequence[str], tune: str | None = None, **options: object) -> Path:
    """Return the folder of a new run on `data` with these heads, or with those of a block that is tuned."""
    stored = options_before(tune, **options)[1] if tune else options
    extract_features(data, cache_dir=folder / "cache", **stored)
    how = {"run_dir": folder / "run", "cache_dir": folder / "cache", "training": Training(epochs=4), "tune": tune}
    train_top(data, heads=heads, **how, **options)
    return how["run_dir"]


def run_python(code: str, *words: object, isolated: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-I"] if isolated else []), "-c", code, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def load_elsewhere(
    folder: Path, page: str, *jobs: tuple[Path, str, list[Path]]
) -> tuple[str, list[tuple[list[str], np.ndarray]]]:
    """Return what `page`, some code, prints in a process without featx, and what that gets for each job.

    These are class names and probabilities `(n, n_classes)`.
    """
    (folder / "jobs.json").write_text(json.dumps([page, jobs], default=str))
    run_python(LOADER, folder / "jobs.json", folder / "answers.json", cwd=folder)
    printed, answers = json.loads((folder / "answers.json").read_text())
    return printed, [(names, np.array(probabilities)) for names, probabilities in answers]


def check_equal(probabilities: np.ndarray, expected: np.ndarray, at_most: float = 1e-3) -> None:
    assert probabilities.shape == expected.shape
    assert np.abs(probabilities - expected).max() <= at_most
    assert np.array_equal(probabilities.argmax(axis=1), expected.argmax(axis=1))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs") / "files", SIZES, 8)


def write_data(root: Path, classes: tuple[str, ...]) -> Path:
    """Write a data set of photographs whose classes differ a little: heads trained on it are seldom sure."""
    for number, name in enumerate(classes):
        light = 1 - number / 4
        write_photographs(root / "train" / name, [(40 + number, 48)], 24, light)
        write_photographs(root / "test" / name, [(50 + number, 48)], 2, light)
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """For each of `RUNS` a run, its cache, and an artefact in each of its formats, made by one process."""
    folder = tmp_path_factory.mktemp("world")
    commands = []
    for head, settings in RUNS.items():
        data = write_data(folder / head / "data", settings["classes"])
        options = {"weights": "random", "image_size": (32, 48), "precision": "float32"}
        options |= {name: settings[name] for name in ("backbone", "layer")}
        heads = (
            [head] if head in {"dense", "knn"} else DEFAULT_HEADS
        )  # the other head is there to be told from this one
        run_dir = train(folder / head, data, heads, settings.get("tune"), **options)
        commands += [["export", str(run_dir), "--format", form, "--head", head, "--json"] for form in FORMATS_OF[head]]
    code = "import json, sys; from featx.cli.main import main; from featx.cli.streams import silent_stderr\n"
    code += "from featx.system import hide_with; hide_with(silent_stderr)\n"  # as the command does in its own process
    code += "for words in json.loads(sys.argv[1]): main(words, standalone_mode=False)"
    result = run_python(code, json.dumps(commands), isolated=False, cwd=folder)
    decoder, rest, exports = json.JSONDecoder(), result.stdout, []
    while rest := rest.lstrip():
        export, end = decoder.raw_decode(rest)
        exports.append(export)
        rest = rest[end:]
    paths = {(export["head"], export["format"]): Path(export["path"]) for export in exports}
    return SimpleNamespace(folder=folder, stderr=result.stderr, exports=exports, paths=paths)


def classifier(world: SimpleNamespace, head: str) -> Classifier:
    return Classifier.load(world.folder / head / "run", head=head, cache_dir=world.folder / head / "cache")


@pytest.fixture(scope="module")
def predicted(world, photographs):
    """What featx predict says of the photographs, for each head: `(64, n_classes)`."""
    return {head: classifier(world, head).predict_proba(photographs) for head in RUNS}


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory):
    return write_odd_files(tmp_path_factory.mktemp("odd") / "files")


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A photograph that its EXIF data turns by 90 degrees, and the same without EXIF data."""
    folder = tmp_path_factory.mktemp("turned")
    (path,) = write_photographs(folder / "photograph", [(60, 110)], 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.open(path)
    photo.save(folder / "turned.jpg", exif=exif)
    photo.save(folder / "upright.jpg")
    return [folder / "turned.jpg", folder / "upright.jpg"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Photographs so large that featx decodes them at a reduced scale."""
    return write_photographs(tmp_path_factory.mktemp("large") / "files", [(600, 800), (1100, 900)], 3)


@pytest.fixture(scope="module")
def less_precise(photographs, tmp_path_factory):
    """By precision: an artefact of a run in it; what featx predict says in this precision; what it says in float32."""
    folder = tmp_path_factory.mktemp("precision")
    data = write_data(folder / "data", ("sea", "wood"))
    options = {"backbone": "vgg16", "layer": "block1_pool", "weights": "random", "image_size": (32, 48)}
    found = {}
    for precision in ("bfloat16", "int8"):
        run_dir = train(folder / precision, data, ["logreg"], precision=precision, **options)
        cache_dir = folder / precision / "cache"
        in_float32 = shutil.copytree(run_dir, folder / precision / "float32")
        recipe = json.loads((run_dir / "recipe.json").read_text()) | {"precision": "float32"}
        for member in ("calibration", "fallback"):
            recipe.pop(member, None)
        (in_float32 / "recipe.json").write_text(json.dumps(recipe))
        found[precision] = (
            export_run(run_dir, cache_dir=cache_dir).path,
            *(Classifier.load(one, cache_dir=cache_dir).predict_proba(photographs) for one in (run_dir, in_float32)),
        )
    return found


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Artefacts of a real network by format, real photographs and what featx predict says; None without `../shared`."""
    if not SHARED.is_dir():
        return None
    folder, photographs = tmp_path_factory.mktemp("real"), []
    data = folder / "data"
    for name in ("cats", "dogs"):
        for split, n in (("train", 24), ("test", 32)):
            (data / split / name).mkdir(parents=True)
            for path in sorted((SHARED / "data" / "cats-dogs" / split / name).glob("*.jpg"))[:n]:
                shutil.copy(path, data / split / name)
        photographs += sorted((data / "test" / name).iterdir())
    weights = SHARED / "weights" / "vgg16_tiny_imagenet_notop.h5"
    options = {"weights": str(weights), "layer": "block3_pool", "image_size": (64, 64), "precision": "float32"}
    run_dir = train(folder, data, ["logreg"], **options)
    expected = Classifier.load(run_dir, cache_dir=folder / "cache").predict_proba(photographs)
    paths = {form: export_run(run_dir, format=form, cache_dir=folder / "cache").path for form in REAL_FORMATS}
    return SimpleNamespace(paths=paths, photographs=photographs, expected=expected)


@pytest.fixture(scope="module")
def elsewhere(world, photographs, odd_files, turned, large, less_precise, real, tmp_path_factory):
    """What the page's code prints and what every artefact says, in one process without featx: TensorFlow is slow."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for form, name in {"keras": "pets.keras", "onnx": "pets.onnx"}.items():
        shutil.copy(world.paths["dense", form], folder / name)
    shutil.copytree(world.paths["dense", "savedmodel"], folder / "pets" / "1")
    shutil.copy(photographs[0], folder / "photo.jpg")
    encoded = [*photographs, *odd_files, *turned]
    jobs: dict[Any, tuple[Path, str, list[Path]]] = {
        (head, form): (world.paths[head, "savedmodel"], form, encoded)
        if form == "bytes"
        else (world.paths[head, form], form, photographs)
        for head, form in ASKED
    }
    jobs["large"] = (world.paths["dense", "onnx"], "onnx", large)
    jobs |= {precision: (path, "keras", photographs) for precision, (path, *_) in less_precise.items()}
    if real:
        jobs |= {("real", form): (path, form, real.photographs) for form, path in real.paths.items()}
    printed, answers = load_elsewhere(folder, "\n".join(PAGE_CODE), *jobs.values())
    return SimpleNamespace(printed=printed, said=dict(zip(jobs, answers, strict=True)))


@pytest.fixture(scope="module")
def said(elsewhere):
    """What every artefact says: class names and probabilities, by what it is."""
    return elsewhere.said


# What artefacts say


@pytest.mark.parametrize(("head", "form"), ASKED)
def test_artefact_without_featx_says_what_featx_predict_says(world, photographs, predicted, said, head, form):
    expected = predicted[head]
    assert len(photographs) == 64
    assert expected.std(axis=0).min() > 0.05, "all photographs look alike: this would test nothing"
    names, probabilities = said[head, form]
    assert tuple(names) == classifier(world, head).class_names == tuple(sorted(RUNS[head]["classes"]))
    check_equal(probabilities[:64], expected, 1e-5)


@pytest.mark.parametrize("head", [head for head, form in ASKED if form == "bytes"])
def test_savedmodel_decodes_as_featx_does(world, odd_files, said, head):
    probabilities = said[head, "bytes"][1][64 : 64 + len(odd_files)]
    check_equal(probabilities, classifier(world, head).predict_proba(odd_files), 1e-5)


def test_savedmodel_does_not_turn_images_by_their_exif_orientation(world, turned, said):
    of_turned, of_upright = said["dense", "bytes"][1][-2:]
    expected = classifier(world, "dense").predict_proba(turned)
    check_equal(of_upright[np.newaxis], expected[1:], 1e-5)
    assert np.array_equal(of_turned, of_upright)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def write_odd_files(folder: Path) -> list[Path]:
    """Write a photograph in every format that a SavedModel decodes: gray, in a palette, transparent."""
    folder.mkdir()
    (path,) = write_photographs(folder / "photograph", [(70, 90)], 1)
    photo = Image.open(path).convert("RGB")
    transparent = photo.copy()
    transparent.putalpha(photo.convert("L"))
    photo.save(folder / "png.png")
    transparent.save(folder / "transparent.png")
    transparent.convert("LA").save(folder / "gray-transparent.png")
    photo.convert("P").save(folder / "palette.png")
    photo.convert("L").save(folder / "gray.jpg")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.save(folder / "progressive.jpg", progressive=True, subsampling=0)
    photo.save(folder / "webp.webp", quality=80)
    photo.save(folder / "still.gif")
    return sorted(path for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("aspect_ratio", [None, "crop", "pad"])
def test_pixels_are_resized_as_featx_resizes_to_the_last_bit(aspect_ratio, tmp_path):
    """By the graph itself, saved by Keras and loaded again, and converted to ONNX."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    keras = import_keras()
    resizer = graph.build_resizer((32, 48), aspect_ratio)
    resizer.save(tmp_path / "resizer.keras")
    loaded = keras.models.load_model(tmp_path / "resizer.keras")
    function, spec = tf.function(lambda images: resizer(images)), [graph._images_spec(tf)]  # noqa: PLW0108 - Keras 3
    onnx, _ = tf2onnx.convert.from_function(function, input_signature=spec, opset=graph.ONNX_OPSET)
    session = onnxruntime.InferenceSession(onnx.SerializeToString())
    name = session.get_inputs()[0].name
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (33, 49), (64, 96), (7, 901), (499, 375), (1200, 1601), (901, 7), (33, 47), (65, 97), (96, 64)]
    for height, width in [*SIZES, *sizes]:
        images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        expected = np.stack([decode_image(read_source(image), (32, 48), aspect_ratio) for image in images])
        assert np.array_equal(resizer(images), expected), f"{height}×{width}"
        assert np.array_equal(loaded(images), expected), f"{height}×{width}"
        assert np.array_equal(session.run(None, {name: images})[0], expected), f"{height}×{width}"


def test_large_jpegs_differ_by_no_more_than_the_page_says(world, large, said):
    """featx decodes them at a reduced scale, an artefact is given all their pixels."""
    at_most = float(re.search(r"a large JPEG.*?at most (0\.\d+)", PAGE, re.DOTALL)[1])
    expected = classifier(world, "dense").predict_proba(large)
    _, probabilities = said["large"]
    assert 1e-5 < np.abs(probabilities - expected).max() <= at_most


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_artefact_of_a_run_in_less_precision_computes_in_float32(less_precise, said, precision):
    """Whatever the precision changes on this processor, and by which engine it is computed there."""
    at_most = float(re.search(rf"a run in {precision}.*?at most (0\.\d+)", PAGE, re.DOTALL)[1])
    _, in_this, in_float32 = less_precise[precision]
    _, probabilities = said[precision]
    assert np.abs(probabilities - in_this).max() <= at_most
    check_equal(probabilities, in_float32, 1e-5)


@pytest.mark.parametrize("form", REAL_FORMATS)
def test_real_network_on_real_photographs(shared, real, said, form):
    assert len(real.photographs) == 64
    assert real.expected.std(axis=0).min() > 0.1
    names, probabilities = said["real", form]
    assert names == ["cats", "dogs"]
    check_equal(probabilities, real.expected)


# The artefacts


def test_only_featx_speaks_while_it_exports(world):
    progress = {"start TensorFlow", "export to keras", "export to savedmodel", "export to onnx"}  # of what takes long
    assert {line.split(":")[0] for line in world.stderr.splitlines()} <= progress
    assert len(world.exports) == sum(map(len, FORMATS_OF.values()))
    for export in world.exports:
        path = Path(export["path"])
        suffix = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx"}[export["format"]]
        assert path == world.folder / export["head"] / "run" / f"model-{export['head']}{suffix}"
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        assert export["size_bytes"] == sum(file.stat().st_size for file in files)
        assert export["random_weights"] is True


def notes_in(path: Path, form: str) -> dict[str, Any]:
    """Return what an artefact says of itself."""
    if form == "keras":
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read("featx.json"))
    if form == "savedmodel":
        return json.loads((path / "assets.extra" / "featx.json").read_text(encoding="utf-8"))
    return {item.key: item.value for item in pytest.importorskip("onnx").load(path).metadata_props}


def as_text(notes: dict[str, Any]) -> dict[str, str]:
    """Return notes as an ONNX file has them."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}


@pytest.mark.parametrize("head", RUNS)
def test_artefacts_say_what_they_are_made_of(world, head):
    run_dir = world.folder / head / "run"
    found = [notes_in(world.paths[head, form], form) for form in FORMATS_OF[head]]
    assert all(as_text(notes) == as_text(found[0]) for notes in found)
    notes = as_text(found[0])
    assert json.loads(notes["class_names"]) == json.loads((run_dir / "class_names.json").read_text())
    assert json.loads(notes["recipe"]) == json.loads((run_dir / "recipe.json").read_text())
    assert (notes["head"], notes["random_weights"]) == (head, "true")
    table = PAGE.split("## Metadata")[1]
    assert set(notes) == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_the_pages_code_runs_without_featx(world, photographs, elsewhere):
    assert len(PAGE_CODE) == 4
    label = classifier(world, "dense").predict([photographs[0]]).labels[0]
    assert [line.split()[0] for line in elsewhere.printed.splitlines()] == [label] * 4, elsewhere.printed


# What is refused


@pytest.fixture
def run_dir(world, tmp_path):
    """A run folder without artefacts."""
    shutil.copytree(world.folder / "logreg" / "run", tmp_path / "run", ignore=shutil.ignore_patterns("model-*"))
    return tmp_path / "run"


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_there_is_not_overwritten(run_dir, tmp_path, form):
    to = tmp_path / f"mine{'' if form == 'savedmodel' else '.' + form}"
    to.write_text("mine")
    with pytest.raises(FeatxError, match="already exists"):
        export_run(run_dir, to, format=form)
    assert to.read_text() == "mine"


@pytest.mark.parametrize("form", FORMATS)
def test_artefact_is_whole_or_not_there(run_dir, form, monkeypatch):
    before = sorted(run_dir.rglob("*"))

    def write_half(graph, notes, path):
        (path / "saved_model.pb" if path.is_dir() else path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export_module.FORMATS, form, (export_module.FORMATS[form][0], write_half))
    with pytest.raises(FeatxError, match="cannot be written: No space left on device"):
        export_run(run_dir, format=form)
    assert sorted(run_dir.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "keras, savedmodel, onnx. Received: 'tflite'"),
        ({"to_path": Path("x.h5")}, r"ends in \.keras"),
        ({"to_path": Path("x.keras"), "format": "onnx"}, r"ends in \.onnx"),
        ({"to_path": Path("x.onnx"), "format": "savedmodel"}, "is a folder"),
        ({"head": "forest"}, "has the heads dense, logreg"),
    ],
)
def test_wrong_wishes_are_named(run_dir, options, message):
    with pytest.raises(FeatxError, match=message):
        export_run(run_dir, **options)


def test_a_head_that_is_too_large_for_onnx_is_named(run_dir, monkeypatch):
    monkeypatch.setattr(export_module, "_MAX_ONNX_BYTES", 100_000)
    message = r"at most 97\.7 KiB, .* the head dense have .* choose another --format or --head"
    with pytest.raises(FeatxError, match=message):
        export_run(run_dir, format="onnx")
    assert not (run_dir / "model-dense.onnx").exists()


def test_a_missing_package_is_named_with_the_way_to_install_it(run_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(FeatxError, match=re.escape('pip install "featx[onnx]"')):
        export_run(run_dir, format="onnx")


@pytest.mark.parametrize("form", ["savedmodel", "onnx"])
def test_tensorflows_formats_need_its_backend(run_dir, form, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(FeatxError, match="KERAS_BACKEND=tensorflow"):
        export_run(run_dir, format=form)
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_moved_weights_are_named(vgg16_weights, tmp_path, monkeypatch):
    weights = vgg16_weights / "vgg16_mine_notop.h5"
    data = write_data(tmp_path / "data", ("sea", "wood"))
    options = {"layer": "block1_pool", "image_size": (32, 32), "precision": "float32"}
    run_dir = train(tmp_path, data, ["logreg"], weights=str(weights), **options)
    moved = weights.rename(tmp_path / "moved.h5")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="Name their file with --weights"):
        export_run(run_dir, cache_dir=tmp_path / "cache")
    assert export_run(run_dir, cache_dir=tmp_path / "cache", weights=moved).path.is_file()
