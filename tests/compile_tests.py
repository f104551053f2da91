"""Compiles the tests as pytest does, once for all of its processes: each would take nine seconds of processor time.

That is so where Python may not write bytecode, or has not yet. What pytest finds here, it reads in any case.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from _pytest.assertion import rewrite

#: What pytest asks about itself meanwhile: whether to report assertions that hold, and where to note what it does.
PYTEST = SimpleNamespace(getini=lambda _: False, trace=lambda _: None)


def compile_test(path: Path) -> None:
    """Write the bytecode of a test file, with what shows the values in an `assert` that fails, where pytest looks."""
    compiled = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
    if rewrite._read_pyc(path, compiled) is None:
        compiled.parent.mkdir(exist_ok=True)
        digest, code = rewrite._rewrite_test(path, PYTEST)
        rewrite._write_pyc(PYTEST, code, digest, compiled)


if __name__ == "__main__":
    tests = [path for path in Path(__file__).parent.rglob("*.py") if path.name.startswith(("test_", "conftest"))]
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1)) as processes:
        list(processes.map(compile_test, sorted(tests), chunksize=8))
