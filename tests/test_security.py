"""What comes from others never runs as code, never writes to a terminal, and secrets stay where they are."""

import ast
import csv
import io
import json
import os
import pickle
import re
import shutil
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import featx
from featx.backbones import describe_network
from featx.cli.main import main
from featx.cli.predict import format_predictions
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.export.export import export_run
from featx.heads.inference import read_head
from featx.predict.predictions import Predictions
from featx.system.late_imports import import_keras
from featx.text import printable

# Nothing is unpickled, evaluated or handed to a shell

MODULES = sorted(Path(featx.__file__).parent.rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}


def dangers(tree: ast.AST) -> list[str]:
    """What in a module runs, or may run, code that comes from a file or from a user."""
    return [danger for node in ast.walk(tree) for danger in _dangers(node)]


def _dangers(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
        yield from (f"imports {name}" for name in names if FORBIDDEN_MODULES & set(name.split(".")))
    if isinstance(node, ast.Attribute | ast.Name) and "unsafe_deserialization" in ast.unparse(node):
        yield ast.unparse(node)
    if isinstance(node, ast.Call):
        yield from _dangers_of_call(node)


def _dangers_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in FORBIDDEN_CALLS or (name.endswith("import_module") and FORBIDDEN_MODULES & literals(call)):
        yield ast.unparse(call)
    unsafe = {"allow_pickle": "False", "safe_mode": "True", "shell": "False"}
    yield from (ast.unparse(call) for option, safe in unsafe.items() if options.get(option, safe) != safe)
    if name.endswith("np.load") and len(call.args) > 2:  # the third is allow_pickle
        yield ast.unparse(call)


def literals(call: ast.Call) -> set[str]:
    return {str(argument.value) for argument in call.args if isinstance(argument, ast.Constant)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_runs_code_that_it_was_given(path):
    assert dangers(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import sklearn.externals.joblib as j",
        "importlib.import_module('marshal')",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "np.load(path, None, True)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_dangers_would_be_found(line):
    assert dangers(ast.parse(line))


# Files of weights and models from strangers


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def hostile_model(path: Path, marker: Path) -> None:
    """Write a model whose Lambda layer makes a file as soon as the model is put together."""
    keras = import_keras()
    layer = keras.layers.Lambda(eval(f"lambda x: (__import__('pathlib').Path({str(marker)!r}).touch(), x)[1]"))
    keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2, name="block1_conv1")]).save(path)
    marker.unlink()  # building it has made it


def hostile_keras(path: Path, marker: Path) -> None:
    hostile_model(path.with_suffix(".keras"), marker)
    if path.suffix != ".keras":
        path.with_suffix(".keras").rename(path)


def hostile_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(marker)))


def hostile_numpy(path: Path, marker: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)


def hostile_torch(path: Path, marker: Path) -> None:
    """The layout of PyTorch's files: a zip file with a pickle in it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Payload(marker)))


def no_archive(path: Path, marker: Path) -> None:
    path.write_bytes(b"PK no zip file at all")


SUFFIXES = [".keras", ".h5", ".hdf5", ".weights.h5", ".weights.json", ".pt", ".npz", ""]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", [hostile_keras, hostile_pickle, hostile_numpy, hostile_torch, no_archive])
def test_hostile_weights_are_refused_and_do_nothing(tmp_path, write, suffix):
    path, marker = tmp_path / f"vgg16_mine_notop{suffix}", tmp_path / "marker"
    write(path, marker)
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        load_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".keras", ".onnx"])
@pytest.mark.parametrize("write", [hostile_keras, hostile_pickle, hostile_numpy, hostile_torch, no_archive])
def test_hostile_network_files_are_refused_and_do_nothing(tmp_path, write, suffix):
    path, marker = tmp_path / f"network{suffix}", tmp_path / "marker"
    write(path, marker)
    with pytest.raises(BackboneError, match="runs code from the file|is not a file of Keras|is not an ONNX file"):
        describe_network(path, tmp_path / "cache")
    assert not marker.exists()


def load_weights(path: Path) -> None:
    """As an extraction with `--weights PATH` does it."""
    from featx.backbones.build import build_model
    from featx.extract.options import resolve_recipe

    options = {"weights": str(path), "layer": "block1_pool", "image_size": (32, 32), "precision": "float32"}
    recipe, weights = resolve_recipe(path.parent / "cache", **options)
    build_model(recipe, weights.path)


def test_hostile_model_of_the_old_format_is_refused_and_does_nothing(tmp_path):
    path, marker = tmp_path / "vgg16_mine_notop.h5", tmp_path / "marker"
    hostile_model(path, marker)
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        load_weights(path)
    assert not marker.exists()


def test_hostile_head_is_refused_and_does_nothing(tmp_path):
    path, marker = tmp_path / "dense.keras", tmp_path / "marker"
    hostile_model(path, marker)
    with pytest.raises(FeatxError, match="featx cannot run the head"):
        read_head(path)
    assert not marker.exists()


def test_the_payloads_are_live(tmp_path):
    """Otherwise the tests above would pass for nothing."""
    path, marker = tmp_path / "model.keras", tmp_path / "marker"
    hostile_model(path, marker)
    import_keras().models.load_model(path, safe_mode=False)
    assert marker.exists()
    marker.unlink()
    hostile_numpy(path, marker)
    np.load(path, allow_pickle=True)
    assert marker.exists()


# Names from strangers, and secrets in the environment

NAMES = [
    "\x1b[2J\x1b]0;title\x07",
    "new\nline\r",
    "<script>alert(1)</script>".replace("/", "∕"),
    "quote\"'",
    "pi|pe `tick` **bold** [a](b)",
    "=1+1",
    "\u202egpj.exe",
    "\u2028 \u200b \ufeff",
    os.fsdecode(b"\xff undecodable"),
    "گربه\u200cها",
    "ca\u200cts \u200dog",
    "👩🏽\u200d🔬",
    "\u200fשלום\u2067",
    "back\\slash \\xff, comma",
    "car\rriage",
]
SECRETS = {
    "KAGGLE_USERNAME": "kaggle-user-7f3a",
    "KAGGLE_KEY": "0123456789abcdefSECRETkey",
    "KAGGLE_API_TOKEN": "KGAT_SECRETtoken",
    "SOME_TOKEN": "ghp_SECRETtoken1234567890",
}
FAST = ["--weights", "random", "--layer", "block1_pool", "--image-size", "32", "--precision", "float32"]


@dataclass
class Session:
    """What the commands have said and written about a data set of hostile names."""

    here: Path
    said: dict[str, str]
    printed: dict[str, bytes]

    def files(self, pattern: str) -> list[Path]:
        found = sorted(path for path in self.here.rglob(pattern) if "data" not in path.parts and path.is_file())
        assert found, pattern
        return found


@pytest.fixture(scope="module")
def session(tmp_path_factory, new_cache) -> Iterator[Session]:
    """The three commands on hostile names, with secrets in the environment; the last ends in an error."""
    here = tmp_path_factory.mktemp("hostile")
    data = here / "data" / "da\x1b[31mta|<b>\n"
    write_hostile_photos(data)
    new_cache(here / "cache")
    commands = {
        "extract": ["extract", data, *FAST],
        "extract as JSON": ["extract", data, *FAST, "--json"],
        "train-top": ["train-top", data, *FAST, "--epochs", "1", "--run-dir", "run \x1b[31m"],
        "predict": ["predict", "run \x1b[31m", data / "test", "--top-k", "2"],
        "predict as JSON": ["predict", "run \x1b[31m", data / "test", "--json"],
        "predict as a table": ["predict", "run \x1b[31m", data / "test", "--format", "table"],
        "compare": ["compare", data, *FAST, "--epochs", "1", "--report-dir", "report \x1b[31m|"],
        "strict": ["extract", data, *FAST, "--strict"],
        "no data": ["extract", data / NAMES[0], *FAST],
        "no weights": ["extract", data, "--weights", NAMES[0]],
        "no layer": ["extract", data, *FAST, "--layer", NAMES[0]],
        "full": ["train-top", data, *FAST, "--run-dir", "run \x1b[31m"],
    }
    said, printed = {}, {}
    n_well = list(commands).index("strict")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        for name, words in commands.items():
            patch.setattr("sys.argv", ["featx", *map(str, words)])
            result = CliRunner().invoke(main, [str(word) for word in words])
            assert result.exit_code == (0 if name in list(commands)[:n_well] else 2), result.output
            printed[name] = result.stdout_bytes
            said[name] = result.stderr if name == "predict" else result.stdout + result.stderr
    yield Session(here, said, printed)
    shutil.rmtree(here / "data")  # names that not every program can list


def write_hostile_photos(root: Path) -> None:
    """Write a class of each name; in each a bad file, a copy and a stray of such names."""
    from tests.conftest import write_photos

    plain = write_photos(root.parent / "plain", n_train=3, n_test=1, classes=tuple(map(str, range(len(NAMES)))))
    for number, name in enumerate(NAMES):
        for split in ("train", "test"):
            folder = root / split / name
            folder.parent.mkdir(parents=True, exist_ok=True)
            (plain / split / str(number)).rename(folder)
        photo = next(folder.iterdir())
        shutil.copy(photo, folder / f"{name} copy.jpg")
        photo.rename(folder / f"{name}.jpg")
        (root / "train" / name / f"bad {name}.jpg").write_bytes(b"no image %d" % number)
        (root / "train" / name / f"{name}.txt").touch()


def wild(text: str) -> set[str]:
    """Characters of `text` that control a terminal or change how the rest is read; line ends are none.

    Neither are the carriage returns with which a progress bar makes room for a line of featx's own, nor joiners in
    words that need them.
    """
    text = re.sub(r"\r+(?=featx: )", "", text)
    text = text.replace("ه\u200cه", "").replace("🏽\u200d🔬", "")
    return {
        char for char in text if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    }


def test_names_reach_the_terminal_without_control_characters(session):
    for command, text in session.said.items():
        assert not wild(text), command
        assert "Traceback" not in text
    assert "=1+1" in session.said["extract"]
    assert r"\x1b[2J" in session.said["extract"]


def test_names_cannot_forge_lines(session):
    """A line end in a name would let it say whatever it likes in featx's name."""
    for command, text in session.said.items():
        assert not re.search(r"^line", text, re.MULTILINE), command
    assert session.said["no data"].count("\n") == 1


@pytest.mark.parametrize("name", ["results.md", "*.json"])
def test_names_reach_files_without_control_characters(session, name):
    for path in session.files(name):
        assert not wild(path.read_bytes().decode("utf-8")), path.name


def test_json_keeps_names_as_they_are(session):
    names = set(NAMES)
    (results,), classes = session.files("results.json"), session.files("class_names.json")
    assert set(json.loads(results.read_text())["class_names"]) == names
    assert len(classes) > 1  # of the run, and of those in the report
    assert all(set(json.loads(path.read_text())) == names for path in classes)


def paths_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.jpg")}


def test_predictions_name_files_that_open_and_classes_as_they_are(session):
    """From the folder's name to a program that reads what was printed: the same text, the same bytes."""
    (data,) = (session.here / "data").glob("da*")
    rows = rows_of(session.printed["predict"])
    items = [json.loads(line) for line in session.printed["predict as JSON"].splitlines()]
    for found in (rows, items):
        assert {one["path"] for one in found} == paths_in(data / "test")
        assert all(Path(one["path"]).read_bytes().startswith(b"\xff\xd8") for one in found)
    assert {row[f"label{rank}"] for row in rows for rank in ("", "_2")} <= set(NAMES)
    assert [row["label"] for row in rows] == [item["label"] for item in items]
    assert os.fsencode(str(data)) in session.printed["predict"]
    assert session.printed["predict as JSON"].isascii()


def test_a_run_and_a_store_name_files_and_classes_as_they_are(session):
    (data,) = (session.here / "data").glob("da*")
    (predictions,), (skipped,), (metrics,) = map(
        session.files, ("run */predictions.csv", "*block1_pool*/skipped.csv", "run */metrics.json")
    )
    rows = rows_of(predictions.read_bytes())
    assert {row["label"] for row in rows} == set(NAMES)
    assert {str(data / row["path"]) for row in rows} == paths_in(data / "test")
    heads = {f"{head}:{name}" for head in ("dense", "logreg") for name in NAMES}
    assert set(rows[0]) == {"path", "label"} | heads
    bad = {str(data / "train" / name / f"bad {name}.jpg") for name in NAMES}
    assert {row["path"] for row in rows_of(skipped.read_bytes())} == bad
    assert {item["path"] for item in json.loads(session.printed["extract as JSON"])["skipped"]} == bad
    assert json.loads(metrics.read_text())["dataset"]["name"] == data.name


def test_csv_on_a_terminal_has_control_characters_escaped():
    """No program reads it there, and what it would do to the terminal is the name's."""
    probabilities = np.eye(len(NAMES))
    predictions = Predictions(tuple(NAMES), tuple(map(Path, NAMES)), probabilities, (None,) * len(NAMES))
    text = format_predictions(predictions, "csv", on_terminal=True)
    assert not wild(text)
    assert len(text.splitlines()) == len(NAMES) + 1
    assert [row["path"] for row in rows_of(text.encode())] == [printable(name) for name in NAMES]


def rows_of(content: bytes) -> list[dict[str, str]]:
    """CSV, as docs/format.md says that it is to be read."""
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_an_export_names_classes_as_they_are_or_says_that_it_cannot(session):
    import tensorflow as tf

    run_dir, options = session.here / "run \x1b[31m", {"cache_dir": session.here / "cache"}
    with pytest.raises(FeatxError, match=r"^The class name \\udcff undecodable is not valid UTF-8"):
        export_run(run_dir, format="onnx", **options)
    assert not list(run_dir.glob("model-*"))
    done = export_run(run_dir, session.here / "served", format="savedmodel", **options)
    signature = tf.saved_model.load(done.path).signatures["serving_default"]
    names = signature(images=np.zeros((1, 32, 32, 3), np.uint8))["class_names"].numpy()[0]
    assert list(map(os.fsdecode, names)) == sorted(NAMES)
    shutil.rmtree(done.path)


def test_lists_of_files_on_standard_input_need_not_be_text(session):
    (data,) = (session.here / "data").glob("da*")
    paths = sorted(path for path in paths_in(data / "test") if b"\xff" in os.fsencode(path))
    words = ["predict", session.here / "run \x1b[31m", "-", "--cache-dir", session.here / "cache"]
    links = [session.here / os.fsdecode(b"\xfe%d.jpg" % number) for number in range(len(paths))]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path)
    result = CliRunner().invoke(main, list(map(str, words)), input=b"\n".join(map(os.fsencode, links)))
    assert [row["path"] for row in rows_of(result.stdout_bytes)] == list(map(str, links))
    assert not [row for row in rows_of(result.stdout_bytes) if row["reason"]]
    for link in links:
        link.unlink()


@pytest.mark.parametrize(
    "name",
    [
        *("گربه\u200cها", "می\u200cخواهم", "क्\u200cष", "ක්\u200dර"),
        *("👩\u200d🔬", "👩🏽\u200d🔬", "🏳\ufe0f\u200d🌈", "👩\u200d⚕\ufe0f", "👨\u200d👩\u200d👧"),
    ],
)
def test_joiners_stay_where_a_word_or_an_emoji_needs_them(name):
    assert printable(name) == name
    assert printable(f"a\u202e{name}\x1b") == f"a\\u202e{name}\\x1b"


@pytest.mark.parametrize(
    "name",
    [
        *("ca\u200dts", "ca\u200cts", "\u200ccats", "cats\u200c", "猫\u200d猫", "1\u200c1", "°\u200d°", "©\u200d©"),
        *("ا\u200cب", "ب\u200c؟", "ب\u200c", "\u200cب", "ب\u200c\u200cب", "ب\u200dب", "ب\u200ca", "क्\u200d"),
        *("\u202egpj.exe", "ب\u202eب", "\u2066a\u2069", "\u200eab", "\u200fab", "\u061cab", "क्\u202eष", "👩\u202e🔬"),
        *("\u200bcats", "\ufeffcats", "\xadcats", "\u2028", "🏴\U000e0067", "\x1b[31m", "\x9b31m", "a\rb"),
    ],
)
def test_names_that_hide_or_turn_something_are_escaped(name):
    assert not {char for char in printable(name) if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}


def test_markdown_shows_names_and_nothing_they_ask_for(session):
    (page,) = session.files("results.md")
    text = page.read_text(encoding="utf-8")
    shown = "\n".join(line for line in text.splitlines() if not line.startswith("    "))  # code is shown as it is
    assert not re.search(r"(?<!\\)<(script|b)\b", shown)
    assert r"\<script\>" in shown
    assert not re.search(r"(?<!\\)`tick|(?<!\\)\[a\]", shown)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 5  # quality, cost, classes, problems, and which class has which number in the pictures
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert sum(line.startswith("#") for line in shown.splitlines()) == 7


def test_tables_keep_their_columns(session):
    """CSV as RFC 4180 has it, with as many cells in each line as the header names."""
    for path in session.files("*.csv"):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert {len(row) for row in rows} == {len(rows[0])}, path.name


def test_pictures_are_drawn_all_the_same(session):
    for path in session.files("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_secrets_of_the_environment_are_nowhere(session):
    secrets = [value.encode() for value in SECRETS.values()]
    written = {str(path): path.read_bytes() for path in session.files("*")}
    for name, content in (written | {key: text.encode() for key, text in session.said.items()}).items():
        assert not [secret for secret in secrets if secret in content], name
    assert len(written) > 15
