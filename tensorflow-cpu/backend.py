"""Builds a small `tensorflow` wheel for machines without a GPU: half the size on disk and to download.

featx depends on `tensorflow`. The package index also has `tensorflow-cpu`, the same without code for GPUs, but pip
does not take it in place of `tensorflow`. So this build backend (PEP 517) downloads the wheel of `tensorflow-cpu` and
renames it to `tensorflow`, version `X+cpu`. It leaves out what only people who compile TensorFlow operations need:
the C++ headers, and the dependency on libclang.
"""

import base64
import csv
import hashlib
import io
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile, ZipInfo

HEADERS = "tensorflow/include/"
LOCK = Path(__file__).parent.parent / ".ci" / "constraints.txt"


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:  # noqa: ARG001
    """Write the wheel into `wheel_directory`; return its file name."""
    with tempfile.TemporaryDirectory() as folder:
        original = _download(Path(folder))
        distribution, version, tags = original.stem.split("-", 2)
        old, new = f"{distribution}-{version}", f"tensorflow-{version}+cpu"
        with ZipFile(original) as source, ZipFile(Path(wheel_directory, f"{new}-{tags}.whl"), "w") as target:
            metadata = _metadata(source.read(f"{old}.dist-info/METADATA").decode())
            for entry in source.infolist():
                if entry.is_dir() or entry.filename.startswith(HEADERS):
                    continue
                copy = ZipInfo(entry.filename.replace(f"{old}.", f"{new}.", 1), entry.date_time)
                copy.external_attr = entry.external_attr
                if entry.filename == f"{old}.dist-info/METADATA":
                    target.writestr(copy, metadata)
                elif entry.filename == f"{old}.dist-info/RECORD":
                    target.writestr(copy, _record(source.read(entry).decode(), old, new, metadata))
                else:
                    with source.open(entry) as reader, target.open(copy, "w", force_zip64=True) as writer:
                        shutil.copyfileobj(reader, writer, 1 << 20)
        return f"{new}-{tags}.whl"


def _download(folder: Path) -> Path:
    # The builds of `tensorflow` for macOS and for ARM have no GPU code, and there is no `tensorflow-cpu` for them.
    has_cpu_build = platform.system() != "Darwin" and platform.machine().lower() in {"x86_64", "amd64"}
    name = "tensorflow-cpu" if has_cpu_build else "tensorflow"
    options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--dest={folder}"]
    lock = [f"--constraint={LOCK}"] if LOCK.exists() else []
    subprocess.run([sys.executable, "-m", "pip", "download", *options, *lock, name], check=True)
    return next(folder.glob("*.whl"))


def _metadata(text: str) -> bytes:
    text = re.sub(r"^Name: .*$", "Name: tensorflow", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^(Version: .*)$", r"\1+cpu", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^Requires-Dist: libclang.*\n", "", text, flags=re.MULTILINE).encode()


def _record(text: str, old: str, new: str, metadata: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).rstrip(b"=").decode()
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for path, file_digest, size in csv.reader(text.splitlines()):
        if path == f"{old}.dist-info/METADATA":
            writer.writerow([f"{new}.dist-info/METADATA", f"sha256={digest}", len(metadata)])
        elif not path.startswith(HEADERS):
            writer.writerow([path.replace(f"{old}.", f"{new}.", 1), file_digest, size])
    return lines.getvalue()
