"""What a progress bar says, and that it never stands in the way of the next one."""

import re
import time

import pytest

from featx.system import progress
from featx.system.progress import pace, progress_bar, waiting


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.05)


def test_a_bar_says_what_is_done_the_pace_and_the_time_left(capsys):
    with progress_bar(4, "vgg16", "images", show=True) as bar:
        for _ in range(3):
            time.sleep(0.1)
            bar.update()
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"vgg16: 75 % \S+ +3 of 4 images, \d+(\.\d)? images a second, 0 s left", line)


def test_bytes_are_sizes(capsys):
    with progress_bar(4 << 20, "downloading", "B", show=True) as bar:
        time.sleep(0.1)
        bar.update(1 << 20)
    assert "1.0 MiB of 4.0 MiB, " in capsys.readouterr().err


def test_what_may_end_early_says_so(capsys):
    with progress_bar(50, "dense", "epochs", show=True) as bar:
        time.sleep(0.1)
        bar.update()
    assert " left" in (said := capsys.readouterr().err)
    assert "at most" in said


@pytest.mark.parametrize("rate", [0.001, 0.5, 9.96, 1e6])
@pytest.mark.parametrize("unit", ["epochs", "images", "passes", "MiB", "B", "seconds"])
def test_every_pace_reads_well(rate, unit):
    assert re.fullmatch(r"[\d,.]+ (min \d+ s|\S+) (a|an) \w+|[\d,.]+ \w+ a second", pace(rate, unit))


def test_waiting_says_for_how_long_and_what_is_being_done(capsys):
    with waiting("logreg", show=True) as note:
        note("fit 2 of at most 65")
        time.sleep(1.5)
    assert "logreg: 1 s, fit 2 of at most 65\n" in capsys.readouterr().err
    with progress_bar(2, "next", "images", show=True) as bar:  # tqdm's lock is free again
        bar.update()


def test_nothing_is_shown_unasked(capsys):
    with waiting("logreg", show=False) as note:
        note("fit 2")
    with progress_bar(2, "next", "images", show=False) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
