"""What the documentation says is true: code runs, commands parse, links lead somewhere, the format is kept."""

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import zlib
from functools import partial
from pathlib import Path

import click
import h5py
import numpy as np
import pytest

import featx
from featx.cli.main import main
from featx.dataset.skipped import SkippedImage, SkippedImages
from featx.extract.planning import plan as plan_module
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import new_segment_name
from featx.system.timings import Timings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "cache" / "README.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
OPTION = r"(?<![\w-])--[a-z][a-z-]*"


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language in a Markdown page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows_of(text: str) -> dict[str, str]:
    """Return the defaults in the tables of options in a text, by what is in the first column."""
    return dict(re.findall(r"^\| `(\S+?)[ `].*\| (.*?) ?\|$", text, re.MULTILINE))


def shared_sections(name: str) -> list[str]:
    """Return the sections on shared options that a command's section links."""
    line = re.search(r"^Shared options: (.*?\.)$", section(COMMANDS, f"## {name}"), re.DOTALL | re.MULTILINE)
    linked = re.findall(r"\(#([\w-]+)\)", line[1]) if line else []
    shared = re.findall(r"^### .*$", section(COMMANDS, "## Shared options"), re.MULTILINE)
    by_anchor = {heading.removeprefix("### ").lower().replace(" ", "-"): heading for heading in shared}
    return [section(COMMANDS, by_anchor[anchor]) for anchor in linked]


def sections_of(name: str) -> list[str]:
    """Return all sections that say what a command's options do; its own is the last, and the one that decides."""
    return [*shared_sections(name), section(COMMANDS, f"## {name}")]


def commands(name: str = "featx", command: click.Command = main) -> list[tuple[str, click.Command]]:
    """Return a command and all below it, each with the words that are typed to call it."""
    below = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    return [(name, command), *(pair for word, sub in below for pair in commands(f"{name} {word}", sub))]


def shown(command: click.Command) -> list[click.Parameter]:
    """Return the arguments and options of a command that its help shows."""
    return [param for param in command.params if not getattr(param, "hidden", False)]


def flags(param: click.Parameter) -> list[str]:
    """Return all words that stand for an option, also those that switch it off."""
    return [*param.opts, *param.secondary_opts]


def command_lines(text: str) -> list[str]:
    """Return the featx commands in a page's blocks for a shell, without variables before them."""
    lines = "\n".join(blocks(text, "sh")).splitlines()
    return [found[1] for line in lines if (found := re.match(r"(?:\w+=\S+ )*(featx .*)", line))]


def parse(line: str) -> None:
    """Raise click.UsageError unless the command line, up to a pipe to another program, can be typed like this."""
    _, *words = shlex.split(line.partition(" | ")[0], comments=True)
    try:
        if words[0].startswith("-"):
            main.make_context("featx", words)
        else:
            name, command, rest = main.resolve_command(click.Context(main), words)
            while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
                name, command, rest = command.resolve_command(click.Context(command), rest)
            assert command is not None
            command.make_context(name, rest)
    except click.exceptions.Exit:  # --help and --version do their work while they are parsed
        return


# The commands


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_has_help(name, command):
    assert command.help
    example = re.search(rf"Example:\n((?: +{name}.*\n?)+)", command.help)
    assert example, f"{name} has no example"
    for line in example[1].strip().splitlines():
        parse(line)
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help, f"{name} {param.name} has no help"


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_option_is_in_the_documentation_with_its_default(name, command):
    rows = rows_of("\n".join(sections_of(name)))
    for param in shown(command):
        row = param.human_readable_name.upper() if isinstance(param, click.Argument) else param.opts[0]
        assert row in rows, f"docs/commands.md does not say what {row} of {name} does"
        if isinstance(param, click.Option) and param.show_default:
            default = param.default[0] if param.multiple else param.default
            assert rows[row] == f"`{default}`", f"{name} {row}"


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_option_has_an_example_in_the_documentation(name, command):
    words = {word for text in sections_of(name) for block in blocks(text, "sh") for word in block.split()}
    for param in shown(command):
        assert not isinstance(param, click.Option) or words & set(flags(param)), (
            f"no example of {param.opts[0]} of {name}"
        )


@pytest.mark.parametrize(("name", "command"), commands())
def test_the_documentation_invents_no_option(name, command):
    known = {option for param in command.params for option in flags(param) if option.startswith("--")} | {"--help"}
    shared = [row for text in shared_sections(name) for row in rows_of(text) if row.startswith("--")]
    for option in [*shared, *re.findall(OPTION, section(COMMANDS, f"## {name}"))]:
        assert option in known, f"{name} has no {option}"


def test_the_sections_on_shared_options_invent_no_option():
    known = {option for _, command in commands() for param in command.params for option in flags(param)} | {"--help"}
    text = section(COMMANDS, "## Shared options")
    assert set(re.findall(OPTION, text)) <= known
    linked = {text for name, _ in commands() for text in shared_sections(name)}
    for heading in re.findall(r"^### .*$", text, re.MULTILINE):
        shared = section(COMMANDS, heading)
        assert shared in linked or not any(row.startswith("--") for row in rows_of(shared)), f"nobody links {heading}"


def test_every_command_has_a_section():
    headings = set(re.findall(r"^## (featx.*)$", COMMANDS, re.MULTILINE))
    assert headings == {name for name, _ in commands()}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_the_documentation_parse(page):
    text = page.read_text(encoding="utf-8")
    for line in command_lines(text):
        try:
            parse(line)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")
    for name in re.findall(r"`featx ([a-z-]+)", text):
        assert name.startswith("-") or name in main.commands, f"there is no command {name}"


def test_the_check_of_commands_can_fail():
    wrong = ["featx extract --layers x", "featx extrac data/", "featx compare --seed -1", "featx fetch moon"]
    for line in [*wrong, "featx cache mv", "featx cache rm --sure"]:
        with pytest.raises(click.UsageError):
            parse(line)


# The pages


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file), f"{target} has no such heading"


def test_every_page_is_linked_from_the_readme():
    for page in PAGES:
        name = page_id(page)
        assert name.endswith("README.md") or f"]({name}" in README, f"the README does not link {name}"


def test_every_test_that_a_promise_names_exists():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for path, name in named:
        code = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in code, f"there is no {name} in {path}"


def test_no_file_names_a_registry_or_somebodys_home():
    hosts = [
        ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
    ]
    hosts += [".".join(parts) for parts in (("anaconda", "org"), ("anaconda", "com"), ("crates", "io"))]
    hosts += [".".join(parts) for parts in (("golang", "org"), ("rubygems", "org"), ("docker", "io"), ("ghcr", "io"))]
    homes = "|".join(f"/{folder}/" for folder in ("home", "Users", "root", "work"))
    forbidden = re.compile(rf"{'|'.join(map(re.escape, hosts))}|(?<![\w.~-])(?:{homes})\w|[A-Z]:\\Users")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git, and the project in it")
    for path in filter(Path.is_file, (ROOT / name for name in names if name)):
        content = path.read_bytes()
        found = None if b"\0" in content else forbidden.search(content.decode("utf-8", "replace"))
        assert not found, f"{page_id(path)} names {found[0]}"


# The guide's code, and the README's, which is some of it


GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


def guide_code() -> str:
    return "\n".join(blocks(GUIDE, "python"))


def test_the_readmes_code_is_the_guides():
    lines = set(
        guide_code().replace('Path("data")', '"data"').replace('Path("runs/first")', '"runs/first"').splitlines()
    )
    assert set("\n".join(blocks(README, "python")).splitlines()) <= lines


def test_names_in_the_guides_code_exist():
    tree = ast.parse(guide_code())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "featx":
            assert hasattr(importlib.import_module("featx"), node.attr)


def test_the_guides_code_runs(tmp_path, monkeypatch, make_photos, vgg16_weights, capsys):
    """It plans for one engine in one precision, in short passes, and trains on few images: it must not take long."""
    for name, options in {
        "plan_extraction": {"engine": "openvino", "precision": "float32"},
        "train_top": {"training": featx.Training(epochs=2)},
        "compare_approaches": {"training": featx.Training(epochs=2)},
    }.items():
        monkeypatch.setattr(featx, name, partial(getattr(featx, name), **options))
    monkeypatch.setattr(plan_module, "PASS_S", 0.1)
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(vgg16_weights))
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "data", n_train=6, n_test=2, classes=("cats", "dogs"))
    names: dict[str, object] = {}
    exec(compile(guide_code(), "guide.md", "exec"), names)
    assert "16 computed, 0 from the cache" in capsys.readouterr().out
    features = names["features"]
    assert isinstance(features, np.ndarray)
    assert f"{features.shape} {features.dtype}" == "(8, 4, 4, 512) float16"  # as the guide says
    for name in re.findall(r"`([\w-]+\.(?:keras|json|csv))`", section(GUIDE, "## What you get")):
        assert (tmp_path / "runs" / "first" / name).exists() or (tmp_path / "reports" / "first" / name).exists()


# The format, by the rules of docs/format.md alone: nothing of featx is used to read or write

DTYPES = {"digest": "<u1", "view": "<u2", "crc32": "<u4"}


def row_checksum(digest: np.ndarray, view: int, features: np.ndarray) -> int:
    stored = features.astype(features.dtype.newbyteorder("<")).tobytes("C")
    return zlib.crc32(digest.tobytes() + int(view).to_bytes(2, "little") + stored)


def read_segment(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, digests and views of a segment; fail where it breaks a rule of the format."""
    assert re.fullmatch(r"seg-[0-9a-f]{32}\.h5", path.name)
    assert path.read_bytes()[8] <= 3, "the superblock is newer than HDF5 1.10"
    with h5py.File(path, "r", locking=False) as file:
        assert file.attrs["format"] == b"featx-features"
        assert file.attrs["format_version"] == 1
        text = file.attrs["recipe"].decode("ascii")
        recipe = json.loads(text)
        assert text == json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        key = hashlib.sha256(text.encode("ascii")).hexdigest()
        layer = re.sub(r"[^A-Za-z0-9_.]+", "_", recipe["layer"])
        height, width = recipe["image_size"]
        assert path.parent.name == f"{recipe['backbone']}-{layer}-{height}x{width}-{key[:8]}"
        assert set(json.loads(file.attrs["timings"])) <= set(documented("### timings.json"))
        assert set(file) == {"features", *DTYPES}
        n = len(file["features"])
        assert n >= 1
        assert {name: file[name].dtype.newbyteorder("<") for name in DTYPES} == DTYPES
        assert file["features"].dtype == np.dtype(recipe["dtype"]).newbyteorder("<")
        assert file["digest"].shape == (n, 32)
        assert file["view"].shape == file["crc32"].shape == (n,)
        for dataset in file.values():
            assert dataset.chunks[1:] == dataset.shape[1:]
            assert dataset.fletcher32
            assert (dataset.compression, dataset.shuffle, dataset.scaleoffset) == (None, False, None)
        features, digests, views = (file[name][:] for name in ("features", "digest", "view"))
        assert np.isfinite(features).all()
        for row in zip(file["crc32"], digests, views, features, strict=True):
            assert row[0] == row_checksum(*row[1:])
    return features, digests, views


def write_segment(path: Path, recipe: str, features: np.ndarray, digests: np.ndarray, version: int = 1) -> None:
    """Write a segment as docs/format.md says, with h5py alone."""
    views = np.zeros(len(digests), "<u2")
    sums = np.array([row_checksum(*row) for row in zip(digests, views, features, strict=True)], "<u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    with h5py.File(temporary, "w") as file:
        file.attrs.update(format="featx-features", format_version=version, recipe=recipe, timings="{}")
        for name, rows in {"features": features, "digest": digests, "view": views, "crc32": sums}.items():
            file.create_dataset(name, data=rows, chunks=(1, *rows.shape[1:]), fletcher32=True)
    temporary.rename(path)


def documented(heading: str) -> list[str]:
    """Return the first column of the table under a heading of docs/format.md."""
    return re.findall(r"^\| `(\w+)` \|", section(FORMAT, heading), re.MULTILINE)


def some_rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 9, (n, 2, 3, 40)).astype(np.float16), rng.integers(1, 256, (n, 32), np.uint8)


RECIPE = Recipe(
    backbone="vgg16",
    weights="ab" * 32,
    layer="block 5/è",
    image_size=(32, 48),
    preprocessing="caffe",
    resize="bilinear",
)


def test_the_worked_example_of_a_key_is_right():
    text = blocks(FORMAT, "json")[0].strip()
    key = hashlib.sha256(text.encode("ascii")).hexdigest()
    assert f"`{key}`" in FORMAT
    recipe = Recipe.from_json(text)
    assert (recipe.to_json(), recipe.key) == (text, key)
    assert f"`{recipe.slug}`" in FORMAT
    assert documented("## The recipe and its key") == sorted(
        [*json.loads(text), "aspect_ratio", "augmentation", "calibration", "fallback", "layout", "pooling"]
    )


def test_a_segment_of_featx_is_read_by_the_rules_of_the_format(tmp_path):
    store = FeatureStore(tmp_path, RECIPE)
    features, digests = some_rows(7)
    store.write_segment(new_segment_name(), features, digests, lambda: Timings(7, elapsed_s=2.0))
    (path,) = store.dir.glob("seg-*.h5")
    read = read_segment(path)
    assert np.array_equal(read[0], features)
    assert np.array_equal(read[1], digests)
    assert not read[2].any()
    store.publish()
    assert {file.name for file in store.dir.iterdir()} == {path.name, "features.h5", "recipe.json", "timings.json"}
    assert (store.dir / "recipe.json").read_text() == RECIPE.to_json() + "\n"
    timings = json.loads((store.dir / "timings.json").read_text())
    assert sorted([*timings, "n_fallback", "n_kept"]) == sorted(documented("### timings.json"))


def test_featx_reads_a_segment_written_by_the_rules_of_the_format(tmp_path):
    folder = tmp_path / RECIPE.slug
    features, digests = some_rows(5)
    write_segment(folder / f"seg-{1:032x}.h5", RECIPE.to_json(), features, digests)
    write_segment(folder / f"seg-{2:032x}.h5", RECIPE.to_json(), -features[:2], digests[:2])  # rows may be there twice
    store = FeatureStore(tmp_path, RECIPE)
    assert len(store) == 5
    assert np.array_equal(store.read(digests[::-1]), features[::-1])


def test_one_file_shows_all_segments_and_gaps_as_no_image(tmp_path):
    store = FeatureStore(tmp_path / "cache", RECIPE)
    rows = [some_rows(3, seed) for seed in (1, 2)]
    paths: list[Path] = []
    for part in rows:
        store.write_segment(new_segment_name(), *part, lambda: Timings(3))
        paths += set(store.dir.glob("seg-*.h5")) - set(paths)
    store.publish()
    (tmp_path / "cache").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / RECIPE.slug
    (moved / paths[0].name).unlink()
    with h5py.File(moved / "features.h5", "r") as file:
        order = [name.decode() for name in file["segments"]]
        assert order == sorted(path.name for path in paths)
        assert (file.attrs["format"], file.attrs["format_version"]) == (b"featx-features", 1)
        assert "timings" not in file.attrs
        assert set(file) == {"features", "digest", "view", "segments"}
        gone = slice(0, 3) if order[0] == paths[0].name else slice(3, 6)
        there = slice(3, 6) if gone.start == 0 else slice(0, 3)
        assert np.isnan(file["features"][gone]).all()
        assert not file["digest"][gone].any()
        assert np.array_equal(file["features"][there], rows[1][0])


def test_damage_is_quarantined_and_a_newer_version_left_alone(tmp_path, caplog):
    folder = tmp_path / RECIPE.slug
    damaged = folder / f"seg-{1:032x}.h5"
    write_segment(damaged, "{}", *some_rows(2))
    assert len(FeatureStore(tmp_path, RECIPE)) == 0
    assert [path.name for path in folder.iterdir()] == [f"damaged-{damaged.name}"]
    assert "damaged" in caplog.text
    newer = folder / f"seg-{2:032x}.h5"
    write_segment(newer, RECIPE.to_json(), *some_rows(2), version=2)
    with pytest.raises(Exception, match="format version 2"):
        FeatureStore(tmp_path, RECIPE)
    assert newer.exists()


def test_skipped_csv_has_the_documented_columns(tmp_path):
    path = tmp_path / "skipped.csv"
    SkippedImages(path).remember([SkippedImage.of(tmp_path / "a,b.jpg", b"\1" * 32, "empty file")], tmp_path)
    header, line = path.read_text(encoding="utf-8").splitlines()
    columns = re.findall(r"^\| `(\w+)` \|", section(FORMAT, "## skipped.csv"), re.MULTILINE)
    assert header == ",".join(columns) == ",".join(list(inspect.signature(SkippedImage).parameters)[: len(columns)])
    assert line.startswith(f'"{tmp_path}/a,b.jpg",{"01" * 32},empty file,')
