"""Logistic regression in memory: what it says while it goes on, and its threads. `test_dense` has what it fits."""

import re

import numpy as np

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


def test_folds_that_are_fitted_at_once_give_the_same_bits(monkeypatch):
    rng = np.random.default_rng(1)
    y = np.arange(600) % 3
    X = rng.normal(size=(600, 40)).astype(np.float32) + y[:, np.newaxis]
    scaled, folds = Scaled(X, np.zeros(40), 1.0), folds_of(y, rng.integers(0, 256, (600, 32), np.uint8), 3, 0)
    found = []
    for n in (1, 2, 5):
        monkeypatch.setattr(logistic, "FOLDS_AT_ONCE", n)
        monkeypatch.setattr(logistic, "n_cores", lambda: 8)
        found.append(fit_logreg(scaled, y, folds, 600, lambda _: None))
    assert len({one.coef.tobytes() + one.out_of_fold.tobytes() for one in found}) == 1
