"""What the tests of commands share: photographs, and a working folder with a cache."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def data(make_photos: Callable[..., Path], tmp_path: Path) -> Path:
    return make_photos(tmp_path / "data")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_cache: Callable[[Path], Path]) -> Path:
    """The working folder, empty but for a cache."""
    folder = tmp_path / "here"
    new_cache(folder / "cache")
    monkeypatch.chdir(folder)
    return folder
