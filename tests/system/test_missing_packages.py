import re
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from featx.system import import_failure, install_command

ROOT = Path(__file__).parents[2]


def test_the_command_is_for_the_environment_that_runs_featx(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"))
    pip = Path(sysconfig.get_path("scripts"), "pip")
    if pip.exists():
        assert install_command("featx[s3]") == 'pip install "featx[s3]"'
    foreign = tmp_path / "pip"
    foreign.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_command("featx[s3]") == f'{sys.executable} -m pip install "featx[s3]"'
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)  # no pip, as in the environments that uv makes
    assert install_command("featx[s3]") == f'uv pip install --python {sys.executable} "featx[s3]"'


def test_what_is_not_installed_is_told_apart_from_what_is_broken():
    missing = import_failure("ray", ModuleNotFoundError("No module named 'ray'", name="ray"), "featx[ray]")
    assert missing.startswith("ray is not installed. Install it with ")
    assert missing.endswith('pip install "featx[ray]"')
    broken = import_failure("ray", ImportError("no libray.so"), "featx[ray]")
    assert broken.startswith("ray does not load (no libray.so). Install it with ")


def test_each_extra_that_is_named_exists_and_each_that_exists_is_named():
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "featx").rglob("*.py"))
    named = set(re.findall(r"featx\[(\w+)\]", text)) | set(re.findall(r'extra="(\w+)"', text))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    assert named == extras - {"dev"}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_extras_are_installed_by_a_command_that_fits_a_clone_and_an_index(page):
    assert not re.search(r"pip install .*'?\.\[(?!dev)", (ROOT / page).read_text("utf-8"))
