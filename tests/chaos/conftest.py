"""What the chaos suite shares: one data set and its undisturbed features, and the fork server."""

from pathlib import Path

import pytest

from tests.chaos import victims
from tests.chaos.world import World, write_images


@pytest.fixture(scope="session")
def server() -> None:
    """The fork server runs."""
    victims.start_server()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """96 images, two files that are none, and their features."""
    folder = tmp_path_factory.mktemp("chaos")
    networks = folder / "networks"
    networks.mkdir()
    return World.of(write_images(folder / "data", 96), networks, folder / "undisturbed")


@pytest.fixture
def cache(world: World, tmp_path: Path) -> Path:
    """An empty cache with the converted network."""
    return world.new_cache(tmp_path / "cache")
