"""What the chaos suite shares: one data set and its undisturbed features, the fork server, and the tally."""

from pathlib import Path

import pytest

from tests.chaos import victims
from tests.chaos.tally import Tally
from tests.chaos.world import World, write_images

_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash.get(_TALLY, None)
    if tally is None or tally.is_empty():
        return
    terminalreporter.section("chaos")
    for line in tally.lines():
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Where the tests count what they do."""
    if _TALLY not in pytestconfig.stash:
        pytestconfig.stash[_TALLY] = Tally()
    return pytestconfig.stash[_TALLY]


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
