"""Logistic regression in memory: what it says while it goes on, and its threads. `test_dense` has what it fits."""

import re
import threading
import time

import numpy as np
import pytest

from featx.heads import logistic
from featx.heads.logistic import C_GRID, N_FOLDS, Scaled, fit_logreg, folds_of


def test_it_says_which_fit_it_is_at():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 8)).astype(np.float32) + y[:, np.newaxis]
    digests = rng.integers(0, 256, (40, 32), np.uint8)
    notes = []
    fit_logreg(Scaled(X, X.mean(axis=0).astype(np.float64), 1.0), y, folds_of(y, digests, 2, 0), 40, notes.append)
    *fits, last = notes
    numbers = [re.fullmatch(rf"cross-validation, fit (\d+) of at most {N_FOLDS * len(C_GRID)}", note) for note in fits]
    assert [int(match[1]) for match in numbers if match] == list(range(1, len(fits) + 1))
    assert last == "fitting to all images"


@pytest.fixture
def fit(monkeypatch):
    """Fits three classes on a machine with eight cores."""
    rng = np.random.default_rng(1)
    y = np.arange(600) % 3
    X = rng.normal(size=(600, 40)).astype(np.float32) + y[:, np.newaxis]
    scaled, folds = Scaled(X, np.zeros(40), 1.0), folds_of(y, rng.integers(0, 256, (600, 32), np.uint8), 3, 0)
    monkeypatch.setattr(logistic, "n_cores", lambda: 8)
    return lambda: fit_logreg(scaled, y, folds, 600, lambda _: None)


def test_folds_that_are_fitted_at_once_give_the_same_bits(fit, monkeypatch):
    found = []
    for n in (1, 2, 5):
        monkeypatch.setattr(logistic, "FOLDS_AT_ONCE", n)
        found.append(fit())
    assert len({one.coef.tobytes() + one.out_of_fold.tobytes() for one in found}) == 1


def with_fit(monkeypatch, called):
    """Have `called` called at each fit."""
    make = logistic._regression

    def made(*arguments, **options):
        model = make(*arguments, **options)
        fit = model.fit
        monkeypatch.setattr(model, "fit", lambda *rows: (called(), fit(*rows))[1])
        return model

    monkeypatch.setattr(logistic, "_regression", made)


def test_two_folds_are_fitted_at_once(fit, monkeypatch):
    together, names = threading.Barrier(2), []

    def meet():
        names.append(threading.current_thread().name)
        if len(names) <= 2:
            together.wait(30)

    with_fit(monkeypatch, meet)
    fit()
    assert set(names[:2]) == {"featx-fold-0", "featx-fold-1"}


def test_an_error_in_a_fold_is_raised_and_leaves_no_thread(fit, monkeypatch):
    def fail():
        raise ValueError("the fold")

    with_fit(monkeypatch, fail)
    with pytest.raises(ValueError, match="the fold"):
        fit()
    until = time.monotonic() + 10
    while any(thread.name.startswith("featx-fold") for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.name.startswith("featx-fold") for thread in threading.enumerate())
