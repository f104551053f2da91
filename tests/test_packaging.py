"""How featx is built and installed. `.ci/run` also installs the wheel, and works with it."""

import base64
import csv
import hashlib
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hatchling(monkeypatch):
    monkeypatch.chdir(ROOT)
    return pytest.importorskip("hatchling.build", reason="needs hatchling: make develop")


def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path, hatchling):
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


def test_the_wheel_holds_all_of_the_package_and_nothing_else(tmp_path, hatchling):
    with zipfile.ZipFile(tmp_path / hatchling.build_wheel(str(tmp_path))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "featx").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.skipif(
    platform.system() == "Darwin" or platform.machine().lower() not in {"x86_64", "amd64"},
    reason="there is no tensorflow-cpu for this machine",
)
def test_tensorflow_cpu_is_installed_as_tensorflow_without_its_headers(tmp_path):
    lock = (ROOT / ".ci" / "constraints.txt").read_text("utf-8")
    version = re.search(r"^tensorflow-cpu==([\d.]+)", lock, re.MULTILINE)[1]
    info = f"tensorflow_cpu-{version}.dist-info"
    files = {
        "tensorflow/__init__.py": b"there = True\n",
        "tensorflow/include/a.h": b"// left out\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tensorflow_cpu\nVersion: {version}\n"
        "Requires-Dist: libclang>=13.0.0\nRequires-Dist: keras>=3.12.0\n\nName: of nothing\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / f"tensorflow_cpu-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/RECORD", "".join(f"{n},{_sha256(c)},{len(c)}\n" for n, c in files.items()))
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_EXTRA_INDEX_URL": ""}
    code = f"import sys, backend; backend.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tensorflow-cpu", env=environment, check=True)
    with zipfile.ZipFile(tmp_path / f"tensorflow-{version}+cpu-py3-none-any.whl") as wheel:
        contents = {name: wheel.read(name) for name in wheel.namelist()}
    info = f"tensorflow-{version}+cpu.dist-info"
    assert set(contents) == {"tensorflow/__init__.py", *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD"))}
    assert contents[f"{info}/METADATA"].decode().splitlines() == [
        *("Metadata-Version: 2.1", "Name: tensorflow", f"Version: {version}+cpu"),
        *("Requires-Dist: keras>=3.12.0", "", "Name: of nothing"),
    ]
    record = list(csv.reader(contents.pop(f"{info}/RECORD").decode().splitlines()))
    assert record == [[name, _sha256(content), str(len(content))] for name, content in contents.items()]


def _sha256(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
