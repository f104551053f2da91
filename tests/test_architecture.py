"""Imports go one way, and what is slow is imported late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "featx"

#: A module may import from its own layer and from those above it in this list.
LAYERS = [
    {
        "errors",
        "arguments",
        "places",
        "augmentation",
        "recipe",
        "files",
        "stat_key",
        "memory",
        "rows",
        "on_demand",
        "image_formats",
        "image_metadata",
        "prefetch",
        "progress",
        "keras_import",
        "machine",
        "timings",
        "provenance",
        "metrics",
        "class_map",
        "comparison",
        "examination",
        "tables",
        "units",
        "data_frames",
        "interrupts",
    },
    {
        "images",
        "views",
        "image_sources",
        "digests",
        "statcache",
        "splits",
        "class_names",
        "folder_names",
        "folders",
        "layout",
        "layout_doubts",
        "dataset",
        "reader",
        "dim_images",
        "sources",
        "fetching",
        "fitting",
        "logistic",
        "streamed_logistic",
        "heads",
    },
    {
        "calibration",
        "weights_file",
        "backbones",
        "weights",
        "engines",
        "resolve",
        "report_resnet50",
        "store",
        "skipped",
        "segment_writer",
        "stage_one",
        "cluster",
        "missing",
        "scratch",
    },
    {"cache", "extract", "join", "results", "runs", "saved_run", "head_file", "train", "rivals"},
    {
        "examine",
        "neighbours",
        "feature_map",
        "learning_curve",
        "contenders",
        "feature_sources",
        "compare",
        "classifier",
        "direct",
        "predictions",
        "export",
        "export_graph",
        "export_formats",
        "extractor",
        "planning",
    },
    {
        "page",
        "preview",
        "plots",
        "report",
        "report_folder",
        "summaries",
        "cache_summaries",
        "options",
        "output",
        "cache_commands",
        "fetch_command",
        "export_command",
        "plan_command",
        "plan_text",
        "predict_command",
        "cli",
        "__init__",
        "__main__",
    },
]

#: Who may import them at all, and only inside functions.
LATE = {
    "tensorflow",
    "keras",
    "openvino",
    "onnx",
    "tf2onnx",
    "nncf",
    "sklearn",
    "pandas",
    "matplotlib",
    "fontTools",
    "scipy",
    "kaggle",
    "kagglesdk",
    "requests",
    "fsspec",
    "upath",
    "ray",
}


def modules() -> dict[str, list[Path]]:
    """Every module of featx by the name of its layer entry; the files of a package belong together."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def test_every_module_has_a_layer():
    assert set(modules()) == set().union(*LAYERS) & set(modules())
    assert sum(len(layer) for layer in LAYERS) == len(set().union(*LAYERS))


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_up_the_layers(module):
    for path in modules()[module]:
        imported = {name.split(".")[1] for name in imports_of(path) if name.startswith("featx.")}
        too_low = {name for name in imported & set(modules()) if layer_of(name) > layer_of(module)}
        assert not too_low, f"{path.name} imports from a lower layer: {sorted(too_low)}"


def test_there_are_no_circles():
    graph = {
        module: {
            n.split(".")[1] for path in paths for n in imports_of(path, top_level_only=True) if n.startswith("featx.")
        }
        & set(modules()) - {module}
        for module, paths in modules().items()
    }
    while leaves := {module for module, imported in graph.items() if not imported & set(graph)}:
        graph = {module: imported for module, imported in graph.items() if module not in leaves}
    assert not graph, f"these import each other: {sorted(graph)}"


def test_only_the_store_and_saved_heads_know_of_h5py():
    importers = {m for m, paths in modules().items() for p in paths if {"h5py"} & imports_of(p)}
    assert importers == {"store", "head_file"}


def test_only_places_knows_of_file_systems_elsewhere():
    libraries = {"fsspec", "upath", "s3fs", "gcsfs", "adlfs", "huggingface_hub", "botocore", "boto3", "aiohttp"}
    importers = {
        module
        for module, paths in modules().items()
        for path in paths
        if libraries & {name.split(".")[0] for name in imports_of(path)}
    }
    assert importers == {"places"}


def test_slow_packages_are_imported_inside_functions_only():
    for paths in modules().values():
        for path in paths:
            top = {name.split(".")[0] for name in imports_of(path, top_level_only=True)}
            if path.stem == "extractor":  # is a scikit-learn transformer, and is itself loaded late
                top -= {"sklearn"}
            assert not top & LATE, f"{path.name} imports {top & LATE} when it is imported"


@pytest.mark.parametrize("words", [["-c", "import featx"], ["-c", "import featx.cli"], ["-m", "featx", "--help"]])
def test_start_loads_nothing_slow(words):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert not loaded & LATE
    assert "numpy" in loaded or words == ["-c", "import featx"]
