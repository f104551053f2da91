"""What the tests share: real images, real weights where there are some, and the command line in one process."""

import fcntl
import gc
import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# Two or three test processes share the cores: threads of NumPy and scikit-learn that wait for work would only spin.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from featx.storage import stat_key

pytest_plugins = ["tests.chaos.counting"]

SHARED = Path(__file__).parents[2] / "shared"

#: Features that take a moment: the rest of the network would take most of the time, and add nothing.
SMALL = {
    "weights": "random",
    "image_size": (32, 32),
    "layer": "block2_pool",
    "pooling": "avg",
    "precision": "float32",
}

# A shell without job control starts what goes on in the background with Ctrl-C switched off, and so all that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files that take longest, the longest first: begun last, one of them would end alone while other processes wait.
SLOW_FILES = (
    *("engines/test_openvino_engine.py", "export/test_export.py", "chaos/test_full_disk.py", "train/test_tuning.py"),
    *("backbones/test_table.py", "compare/test_folds.py", "report/test_html.py", "extract/test_cluster.py"),
    *("heads/test_tuned.py", "extract/test_planning.py", "test_reproducible.py", "test_docs.py"),
    *("chaos/test_kill_points.py", "compare/test_compare.py", "cli/test_main.py", "chaos/test_signals.py"),
    *("engines/test_keras_engine.py", "extract/test_layers.py", "backbones/test_keras_file.py", "test_hostile_text.py"),
    *(
        "compare/test_learning_curve.py",
        "cli/test_streams.py",
        "compare/test_baselines.py",
        "dataset/kaggle/test_fetch.py",
    ),
    *("train/test_train.py", "extract/test_extract.py", "predict/test_direct.py", "chaos/test_kills.py"),
    *("test_benchmarks.py", "test_security.py", "heads/test_streamed_logistic.py", "chaos/test_damage.py"),
    *("test_session.py", "images/test_odd_images.py", "compare/test_unbalanced.py", "images/test_augmentation.py"),
    *("heads/test_dense.py", "extract/test_resize.py", "extract/test_advice.py"),
    *("heads/test_class_weights.py", "cli/test_shell.py", "test_windows.py", "engines/test_without_bfloat16.py"),
    *(
        "engines/test_onnx_network.py",
        "predict/test_classifier.py",
        "extract/test_rows_match.py",
        "dataset/test_sample.py",
    ),
    *(
        "heads/test_multilabel.py",
        "chaos/test_hostile_stores.py",
        "extract/test_onnx_backbone.py",
        "export/test_onnx_graph.py",
    ),
    *("backbones/test_network_file.py", "engines/test_int8_elsewhere.py", "test_architecture.py"),
    *("predict/test_explanations.py", "clean/test_find.py", "predict/test_selective.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; tests of one file keep their order."""
    turns = {Path(__file__).parent / name: turn for turn, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture(scope="module", autouse=True)
def _spared_collector() -> Iterator[None]:
    """Spare the garbage collector what a file leaves behind for good, such as TensorFlow's and Keras's modules.

    A full collection looks at all of it, a million objects, each time: a twelfth of the processor time of some files.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with real photographs, pretrained weights and reference features."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared: photographs, pretrained weights and reference features")
    return SHARED


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder once for all test processes, and returns it; nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    shared_dir = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared_dir / name
        with (shared_dir / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = shared_dir / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return make_once


@pytest.fixture(scope="session")
def networks_dir(made_once: Callable[..., Path]) -> Path:
    """Where the tests keep converted networks: converting them again for every test would take most of the time.

    Tests that run side by side share them, as commands that run side by side would.
    """
    return made_once("networks", lambda _: None)


@pytest.fixture(scope="session")
def new_cache(networks_dir: Path) -> Callable[[Path], Path]:
    """Return a function that makes a cache, empty but for networks that other tests may have converted."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "networks").symlink_to(networks_dir, target_is_directory=True)
        return folder

    return make


@pytest.fixture
def cache(tmp_path: Path, new_cache: Callable[[Path], Path]) -> Path:
    """An empty cache, but for networks that other tests may have converted."""
    return new_cache(tmp_path / "cache")


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What waits until the digests of files that were just written are remembered: in this process, 20 milliseconds."""
    monkeypatch.setattr(stat_key, "RACY_NS", 20_000_000)  # some ticks of the clock of a file system of today
    return lambda: time.sleep(0.03)


@pytest.fixture
def make_photos() -> Callable[..., Path]:
    return write_photos


def write_photos(root: Path, n_train: int = 12, n_test: int = 4, classes: tuple[str, ...] = ("sea", "wood")) -> Path:
    """Write JPEG files of 40×48 pixels, `train/CLASS/*` and `test/CLASS/*`; a class is a texture with noise."""
    for split, n in (("train", n_train), ("test", n_test)):
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                rng = np.random.default_rng([number, i, split == "test"])
                Image.fromarray(_texture(number, rng)).save(folder / f"{name}.{i}.jpg", quality=92)
    return root


def write_patients(folder: Path) -> tuple[Path, Path]:
    """Write images whose pixels tell the patient and not the class, and a table of them: path, label, patient."""
    (folder / "images").mkdir()
    rows = ["path,label,patient"]
    for patient in range(24):
        rng = np.random.default_rng(patient)
        fingerprint = np.asarray(Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32)), float)
        for number in range(4):
            noise = np.random.default_rng([patient, number]).normal(0, 12, (32, 32, 3))
            name = f"{patient}-{number}.png"
            Image.fromarray(np.clip(fingerprint + noise, 0, 255).astype(np.uint8)).save(folder / "images" / name)
            rows.append(f"{name},{'ill' if patient % 2 else 'well'},p{patient}")
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "images", folder / "labels.csv"


def _texture(number: int, rng: np.random.Generator) -> np.ndarray:
    """Return waves (40, 48, 3) uint8 whose direction and colour tell the class."""
    y, x = np.mgrid[0:40, 0:48]
    angle = number * np.pi / 3 + rng.normal(0, 0.1)
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) / 2 + rng.uniform(0, 6))
    colour = np.array([60 + 90 * (number % 2), 120, 200 - 80 * (number % 3)])
    pixels = colour + 50 * waves[..., np.newaxis] + rng.normal(0, 12, (40, 48, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture
def vgg16_weights(tmp_path: Path, made_once: Callable[..., Path]) -> Path:
    """A folder with a file in the layout of Keras's official one, which the test may change."""
    return Path(shutil.copytree(made_once("vgg16-weights", _write_vgg16_weights), tmp_path / "weights"))


def _write_vgg16_weights(folder: Path) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    from featx.system.late_imports import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(0)
    network = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    with h5py.File(folder / "vgg16_mine_notop.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


def load_model(path: Path) -> Any:
    """Return a saved model as plain Keras loads it."""
    from featx.system.late_imports import import_keras

    return import_keras().models.load_model(path, compile=False, safe_mode=True)


@pytest.fixture
def without_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave charts empty: to render those of a report takes longer than a small comparison, and the test needs none."""
    from matplotlib.figure import Figure

    def save(_: Figure, file: IO[Any], format: str = "png", **_options: object) -> None:  # noqa: A002 - Matplotlib's
        if format == "svg":
            file.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            Image.new("RGB", (1, 1)).save(file, "png")

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the benchmarks, which are scripts that stand side by side."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]


@pytest.fixture
def featx() -> Callable[..., Result]:
    """Run a featx command in this process and return its result; words may be paths."""

    from featx.cli.main import main

    def run(*words: object, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == exit_code, result.output
        return result

    return run


@pytest.fixture(scope="session")
def whole_resnet50(shared: Path, made_once: Callable[..., Path]) -> Path:
    """A file of a whole ResNet50 for 202 classes, in the layout of Keras's official ones."""
    name = "resnet50_tiny_imagenet.h5"
    return made_once("whole-resnet50", lambda folder: _write_whole_resnet50(shared, folder / name)) / name


def _write_whole_resnet50(shared: Path, path: Path) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    from featx.system.late_imports import import_keras

    keras = import_keras()
    network = keras.applications.ResNet50(include_top=True, weights=None, classes=202, input_shape=(64, 64, 3))
    trunk = keras.Model(network.input, network.get_layer("conv5_block3_out").output)
    trunk.load_weights(shared / "weights" / "resnet50_tiny_imagenet_notop.h5")
    with np.load(shared / "weights" / "resnet50_tiny_imagenet_head.npz") as head:
        network.get_layer("predictions").set_weights([head["kernel"], head["bias"]])
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
