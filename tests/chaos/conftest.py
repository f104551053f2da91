"""What the chaos suite shares: one data set and its undisturbed features, and the fork server."""

from pathlib import Path

import pytest

from tests.chaos import processes
from tests.chaos.scenario import Scenario, write_images, write_onnx


@pytest.fixture(scope="session")
def server() -> None:
    """The fork server runs."""
    processes.start_server()


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """96 images, two files that are none, and their features."""
    folder = tmp_path_factory.mktemp("chaos")
    networks = folder / "networks"
    networks.mkdir()
    return Scenario.of(write_images(folder / "data", 96), networks, folder / "undisturbed")


@pytest.fixture(scope="session")
def onnx_scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """The same with an ONNX network."""
    folder = tmp_path_factory.mktemp("chaos-onnx")
    networks = folder / "networks"
    networks.mkdir()
    data = write_images(folder / "data", 96)
    write_onnx(data)
    return Scenario.of(data, networks, folder / "undisturbed")


@pytest.fixture
def cache(scenario: Scenario, tmp_path: Path) -> Path:
    """An empty cache with the converted network."""
    return scenario.new_cache(tmp_path / "cache")
