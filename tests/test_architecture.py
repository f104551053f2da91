"""The house: its rooms, the way that imports go between them, and what is imported late."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "featx"

#: Rooms, and the modules beside them, in the order of the pipeline: each may import from those before it.
ROOMS = [
    "text",
    "errors",
    "system",
    "storage",
    "images",
    "recipe",
    "dataset",
    "store",
    "backbones",
    "engines",
    "extract",
    "similar",
    "heads",
    "train",
    "clean",
    "predict",
    "export",
    "compare",
    "report",
    "repeat",
    "cli",
    "__main__",
]

#: Rooms inside of a room: for a job that most runs do without.
INNER_ROOMS = ["dataset.kaggle", "extract.cluster", "extract.planning", "report.html", "report.plots"]

#: Who may import them at all, and only inside functions.
LATE = {
    "tensorflow",
    "keras",
    "openvino",
    "onnx",
    "tf2onnx",
    "ncnn",
    "nncf",
    "pillow_heif",
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


@cache
def modules() -> dict[str, Path]:
    """Every module of featx by its name without `featx.`; a room's `__init__` by the room's."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")] = path
    del found["__init__"]
    return found


def room_of(module: str) -> str:
    """Return the innermost room of a module: `dataset.kaggle` of `dataset.kaggle.fetch`."""
    inner = next((room for room in INNER_ROOMS if f"{module}.".startswith(f"{room}.")), None)
    return inner or module.split(".", maxsplit=1)[0]


@cache
def imports_of(path: Path, *, top_level_only: bool = False) -> set[tuple[str, str]]:
    """Return what a file imports: each module, and the name that is taken from it or ""."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[tuple[str, str]] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def packages_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    return {module.split(".")[0] for module, _ in imports_of(path, top_level_only=top_level_only)}


def of_featx(module: str, name: str) -> str | None:
    """Return the module of featx that is imported, without `featx.`."""
    if module != "featx" and not module.startswith("featx."):
        return None
    inside = module.removeprefix("featx").removeprefix(".")
    as_module = f"{inside}.{name}".removeprefix(".")
    return as_module if as_module in modules() else inside or None


def test_every_module_is_in_a_room():
    flat = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.relative_to(PACKAGE).as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py")} - {"."}
    assert flat <= set(ROOMS)
    assert flat | folders == set(ROOMS) | set(INNER_ROOMS)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way_and_through_the_door(module):
    room = module.split(".")[0]
    for imported, name in sorted(imports_of(modules()[module])):
        target = of_featx(imported, name)
        if target is None or target.split(".")[0] == room:
            continue
        assert ROOMS.index(target.split(".")[0]) < ROOMS.index(room), f"{module} imports {target}, which comes later"
        if module != "__main__":
            assert imported.removeprefix("featx.") == room_of(target), f"{module} imports {imported}, not from the room"
            assert hasattr(importlib.import_module(imported), name), f"{imported} does not offer {name}"


def test_there_are_no_circles():
    graph = {
        module: {
            target
            for imported in imports_of(path, top_level_only=True)
            if (target := of_featx(*imported)) and target != module
        }
        for module, path in modules().items()
    }
    while leaves := {module for module, imported in graph.items() if not imported & set(graph)}:
        graph = {module: imported for module, imported in graph.items() if module not in leaves}
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("room", sorted({*ROOMS, *INNER_ROOMS} - {"text", "errors", "recipe", "__main__"}))
def test_a_room_says_what_it_is_for_and_lists_what_others_use(room):
    module = importlib.import_module(f"featx.{room}")
    sentences = [part for part in " ".join((module.__doc__ or "").split()).split(". ") if part]
    assert len(sentences) >= 2, f"featx.{room} says in two sentences what it is for"


def importers_of(packages: set[str]) -> set[str]:
    return {room_of(module) for module, path in modules().items() if packages & packages_of(path)}


def test_only_the_store_and_saved_heads_know_of_h5py():
    assert importers_of({"h5py"}) == {"store", "heads"}


def test_only_storage_knows_of_file_systems_elsewhere():
    libraries = {"fsspec", "upath", "s3fs", "gcsfs", "adlfs", "huggingface_hub", "botocore", "boto3", "aiohttp"}
    assert importers_of(libraries) == {"storage"}


def test_only_the_cluster_knows_of_ray():
    assert importers_of({"ray"}) == {"extract.cluster"}


#: What prints or asks, and what quotes a command, and the modules that may: the doors of text and of commands.
DOORS = {
    (
        "cli.terminal",
        "system.progress",
        "__main__",
    ): r"print|input|click\.(?:secho|echo|confirm|prompt)|sys\.(?:__)?std(?:out|err)(?:__)?\.write",
    ("text", "system.tables"): r"Shown",
    ("system.commands",): r"shlex\.\w+|subprocess\.list2cmdline",
}


def calls_in(source: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


def past_the_doors(module: str, source: str) -> set[str]:
    others = [pattern for doors, pattern in DOORS.items() if module not in doors]
    return {call for call in calls_in(source) if any(re.fullmatch(pattern, call) for pattern in others)}


@pytest.mark.parametrize("module", sorted(modules()))
def test_text_is_shown_and_commands_are_advised_through_one_door(module):
    assert past_the_doors(module, modules()[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("line", ["print(x)", "click.echo(x)", "sys.stderr.write(x)", "Shown(x)", "shlex.join(x)"])
def test_what_goes_past_a_door_would_be_found(line):
    assert past_the_doors("cli.cache", line)


def test_slow_packages_are_imported_inside_functions_only():
    for module, path in modules().items():
        top = packages_of(path, top_level_only=True)
        if module == "extract.transformer":  # is a scikit-learn transformer, and is itself loaded late
            top -= {"sklearn"}
        assert not top & LATE, f"{module} imports {top & LATE} when it is imported"


@pytest.mark.parametrize(
    "words",
    [["-c", "import featx"], ["-c", "import featx.cli.main"], ["-m", "featx", "--help"], ["-m", "featx", "backbones"]],
    ids=" ".join,
)
def test_start_loads_nothing_slow(words):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert not loaded & LATE
    assert "numpy" in loaded or words == ["-c", "import featx"]


@pytest.mark.parametrize("document", ["README.md", "docs/CONTRIBUTING.md"])
def test_the_documents_show_the_same_house(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    block = re.search(r"```text\nfeatx/\n(.*?)```", text, re.DOTALL)
    shown = re.findall(r"^[│├└─ ]+(\w+)(?:/|\.py) ", block[1] if block else "", re.MULTILINE)
    order = [
        name for room in ROOMS for name in (room, *(inner for inner in INNER_ROOMS if inner.startswith(f"{room}.")))
    ]
    assert shown == [name.rpartition(".")[2] for name in order if name != "__main__"]


def test_the_walk_of_one_image_names_what_there_is():
    text = (ROOT / "docs/CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = text[text.index("## The walk of one image") : text.index("## Adding things")]
    names = re.findall(r"`(\w+(?:\.\w+){2,})`", walk)
    assert len(names) > 25
    for name in names:
        module = next(end for end in range(name.count("."), 0, -1) if ".".join(name.split(".")[:end]) in modules())
        path = name.split(".")
        found = importlib.import_module("featx." + ".".join(path[:module]))
        for part in path[module:]:
            found = getattr(found, part)
