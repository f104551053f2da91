"""Planted wrong labels are found, most of what is found is wrong, and the rule is the paper's."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.clean.labels import find_doubts
from featx.heads.dense import held_out_probabilities


def off_diagonal(labels: np.ndarray, probabilities: np.ndarray) -> dict[int, int]:
    """Return the images off the diagonal of the confident joint, image by image as the paper counts them."""
    n, n_classes = probabilities.shape
    thresholds = [probabilities[labels == number, number].mean() for number in range(n_classes)]
    found = {}
    for row in range(n):
        confident = [number for number in range(n_classes) if probabilities[row, number] >= thresholds[number]]
        if confident:
            likely = max(confident, key=lambda number: probabilities[row, number])
            if likely != labels[row]:
                found[row] = likely
    return found


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Handwritten digits with 3 % of wrong labels: labels, true labels, probabilities, and which are wrong."""
    X, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    is_wrong = np.zeros(len(true), bool)
    is_wrong[rng.permutation(len(true))[:54]] = True
    labels = np.where(is_wrong, (true + rng.integers(1, 10, len(true))) % 10, true)
    units = np.arange(len(true)).astype("<i8").view(np.uint8).reshape(-1, 8)
    return labels, true, held_out_probabilities(X.astype(np.float32), labels, units, 10), is_wrong


def test_planted_wrong_labels_are_found_and_rank_first(digits):
    labels, true, probabilities, is_wrong = digits
    doubts = find_doubts(labels, probabilities, list("0123456789"))
    rows = [doubt.row for doubt in doubts]
    assert is_wrong[rows].sum() >= 50
    assert is_wrong[rows[:45]].mean() >= 0.95
    assert [doubt.margin for doubt in doubts] == sorted((doubt.margin for doubt in doubts), reverse=True)
    n_right = sum(doubt.suggested == str(true[doubt.row]) for doubt in doubts if is_wrong[doubt.row])
    assert n_right >= 0.95 * is_wrong[rows].sum()


def test_doubts_are_the_images_off_the_diagonal_of_the_confident_joint(digits):
    labels, _, probabilities, _ = digits
    doubts = find_doubts(labels, probabilities, list("0123456789"))
    assert {doubt.row: int(doubt.suggested) for doubt in doubts} == off_diagonal(labels, probabilities)
    for doubt in doubts:
        assert doubt.label == str(labels[doubt.row])
        assert doubt.probability == pytest.approx(probabilities[doubt.row, labels[doubt.row]])


def test_each_of_several_labels_is_a_choice_of_its_own():
    rng = np.random.default_rng(0)
    labels = rng.random((200, 2)) < 0.5
    probabilities = np.where(labels, 0.9, 0.1) + rng.uniform(-0.05, 0.05, labels.shape)
    labels[3, 1], labels[5] = not labels[3, 1], ~labels[5]
    probabilities[5, 0] = 0.99 if probabilities[5, 0] > 0.5 else 0.01
    doubts = find_doubts(labels, probabilities, ["dark", "warm"])
    assert {doubt.row for doubt in doubts} == {3, 5}
    by_row = {doubt.row: doubt for doubt in doubts}
    assert {by_row[3].label, by_row[3].suggested} == {"warm", "not warm"}
    assert (by_row[3].label == "warm") == labels[3, 1]
    assert "dark" in by_row[5].label, "the label that is doubted most"


def test_a_class_without_images_is_never_suggested():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    assert "c" not in {doubt.suggested for doubt in find_doubts(labels, probabilities, ["a", "b", "c"])}
