"""Real signals to this process, held back until the work is at a seam."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from featx.system.progress import Terminated, held_interrupts, raise_terminated


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, raise_terminated)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def steps_until_raised(*numbers: int) -> tuple[list[str], KeyboardInterrupt]:
    """Send this process the signals `numbers` in a block; return the steps that were reached, and what was raised."""
    steps: list[str] = []
    try:
        with held_interrupts() as interrupted:
            for number in numbers:
                os.kill(os.getpid(), number)
                steps.append(f"after signal {number}: {interrupted()}")
    except KeyboardInterrupt as error:
        return steps, error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_the_first_signal_takes_effect_when_the_block_is_left(number, expected):
    steps, error = steps_until_raised(number)
    assert steps == [f"after signal {number}: True"]
    assert type(error) is expected


def test_the_second_signal_takes_effect_at_once():
    steps, error = steps_until_raised(signal.SIGINT, signal.SIGTERM)
    assert steps == [f"after signal {signal.SIGINT}: True"]
    assert type(error) is Terminated


def test_the_handlers_are_as_before_afterwards():
    with held_interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is raise_terminated


def test_an_error_of_the_block_is_not_hidden_by_a_signal():
    def fail() -> None:
        with held_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupted()


def test_a_thread_runs_as_ever():
    told: list[bool] = []

    def work():
        with held_interrupts() as interrupted:
            told.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_modules_are_imported_is_one_line(number, exit_code):
    """The import of the command line is interrupted for certain: by an import hook that sends the signal."""
    script = (
        "import os, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'featx.cli.main': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from featx.__main__ import run; run()"
    )
    result = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == exit_code
    assert result.stderr == "featx: stopped before anything was started.\n"
