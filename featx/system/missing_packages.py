"""Says which package is missing, and the command that installs it."""

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path


def install_command(requirement: str) -> str:
    """Return the command that installs `requirement`, e.g. `featx[s3]`, into the environment that runs this.

    `pip install "featx[s3]"` fits a clone and an index: pip finds featx installed, and fetches what the extra adds. The
    double quotes fit every shell, that of Windows too.
    """
    pip = shutil.which("pip")
    if pip is not None and Path(pip).parent == Path(sysconfig.get_path("scripts")):
        return f'pip install "{requirement}"'
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    if importlib.util.find_spec("pip") is None:  # as in the environments that uv makes
        return f'uv pip install --python {python} "{requirement}"'
    return f'{python} -m pip install "{requirement}"'


def import_failure(package: str, error: ImportError, requirement: str) -> str:
    """Return one sentence that says why `package` cannot be used, and the command that installs it."""
    state = "is not installed" if error.name == package else f"does not load ({error})"
    return f"{package} {state}. Install it with {install_command(requirement)}"
