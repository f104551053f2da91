"""How featx is built and installed. `.ci/run` also installs the wheel, and works with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
hatchling = pytest.importorskip("hatchling.build", reason="needs hatchling: make develop")


@pytest.fixture
def in_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path, in_clone):
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / hatchling.build_editable(str(tmp_path))) as wheel:
        wheel.extractall(site)
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "featx").symlink_to(ROOT)
    code = (
        f"import site, sys; sys.path[1:] = [p for p in sys.path[1:] if p != {str(ROOT)!r}]\n"
        f"site.addsitedir({str(site)!r}); import featx; print(featx.__file__, callable(featx.load_features))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=parent, env=environment, check=False, capture_output=True, text=True
    )
    assert ran.stdout.split() == [str(ROOT / "featx" / "__init__.py"), "True"], ran.stderr


def test_the_wheel_holds_all_of_the_package_and_nothing_else(tmp_path, in_clone):
    with zipfile.ZipFile(tmp_path / hatchling.build_wheel(str(tmp_path))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "featx").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
