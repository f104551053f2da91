"""A plugin of pytest: the tally of the chaos suite, put together from all processes that ran tests, and shown last."""

import pickle
from typing import Any

import pytest

from tests.chaos.tally import Tally

_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Where the tests count what they do."""
    return pytestconfig.stash[_TALLY]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts over, where this is one of several processes that run tests side by side."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = pickle.dumps(session.config.stash[_TALLY])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a process that ran some of the tests."""
    if "tally" in getattr(node, "workeroutput", {}):
        node.config.stash[_TALLY].add(pickle.loads(node.workeroutput["tally"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[_TALLY]
    if tally.is_empty():
        return
    terminalreporter.section("chaos")
    for line in tally.lines():
        terminalreporter.line(line)
