"""Measures the structure of featx: files, lines of code, rooms, floors of imports, and the files that one image enters.

    python benchmarks/house.py

A line of code is one that is neither blank nor comment nor docstring. A floor is a step of the longest chain of imports
from room to room; rooms that import each other share one. A file is entered if one of its functions
runs during the command.
"""

import ast
import io
import sys
import tempfile
import threading
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from PIL import Image

import featx

PACKAGE = Path(featx.__file__).parent
SETTINGS = ["--backbone", "vgg16", "--image-size", "32", "--weights", "random"]


def lines_of_code(path: Path) -> int:
    """Return how many lines of a file are code."""
    source = path.read_text(encoding="utf-8")
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def module_name(path: Path) -> str:
    """Return the dotted name of a file, `featx.store` for its `__init__`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, modules: set[str]) -> Iterator[str]:
    """Yield the modules of featx that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if (found := full if full in modules else node.module) in modules:
                    yield found


def n_floors(files: list[Path]) -> int:
    """Return the length of the longest chain of imports, counted in rooms and in the modules that are in none."""
    modules = {module_name(path) for path in files} - {"featx"}  # which names everything, late
    graph: dict[str, set[str]] = {module.split(".")[1]: set() for module in modules}
    for path in files:
        if (module := module_name(path)) in modules:
            graph[module.split(".")[1]] |= {other.split(".")[1] for other in imports(path, modules)}

    @cache
    def reached(module: str) -> frozenset[str]:
        found, todo = set(), [module]
        while todo:
            new = graph[todo.pop()] - found
            found |= new
            todo += new
        return frozenset(found)

    @cache
    def floor(module: str) -> int:
        below = {other for other in reached(module) if module not in reached(other)}
        return 1 + max(map(floor, below), default=0)

    return max(map(floor, graph))


def entered(words: list[str]) -> int:
    """Return in how many files of featx a function runs during a command."""
    from featx.cli import main as cli

    main = getattr(cli, "main", cli)
    files: set[str] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)) and frame.f_code.co_name != "<module>":
            files.add(name)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        main([*words, "--quiet"], standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as documented
    return len(files)


def write_images(root: Path) -> Path:
    """Write the smallest data set that can be compared on: eight images of two classes, in two splits."""
    for split, n in (("train", 6), ("test", 2)):
        for i in range(n):
            name = ("dark", "light")[i % 2]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (200 * (i % 2) + i, 20, 40 * n)).save(root / split / name / f"{i}.png")
    return root


def main() -> None:
    """Print the figures."""
    files = sorted(PACKAGE.rglob("*.py"))
    listings = [path for path in files if path.name == "__init__.py"]
    code = sum(map(lines_of_code, files))
    print(f"{len(files)} files, {len(files) - len(listings)} of them modules; {code} lines of code")
    in_none = sum(path.parent == PACKAGE for path in files)
    print(f"{len(listings) - 1} rooms; {in_none} files in none; {n_floors(files)} floors")
    with tempfile.TemporaryDirectory() as folder:
        data = write_images(Path(folder) / "data")
        common = [str(data), *SETTINGS, "--cache-dir", f"{folder}/cache"]
        for words in (
            ["extract", *common],
            ["train-top", *common, "--epochs", "1", "--run-dir", f"{folder}/run"],
            ["compare", *common, "--epochs", "1", "--with-scratch-cnn", "--report-dir", f"{folder}/report"],
        ):
            print(f"featx {words[0]}: {entered(words)} files entered")


if __name__ == "__main__":
    main()
