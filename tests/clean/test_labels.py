"""Planted wrong labels are found, most of what is found is wrong, and the rule is the paper's."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.clean.labels import find_doubts
from featx.heads.dense import held_out_probabilities


def joint_of(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Return the confident joint, image by image as the paper counts it, and the images off its diagonal."""
    n, n_classes = probabilities.shape
    thresholds = [probabilities[labels == number, number].mean() for number in range(n_classes)]
    joint, off_diagonal = np.zeros((n_classes, n_classes)), {}
    for row in range(n):
        confident = [number for number in range(n_classes) if probabilities[row, number] >= thresholds[number]]
        if confident:
            likely = max(confident, key=lambda number: probabilities[row, number])
            joint[labels[row], likely] += 1
            if likely != labels[row]:
                off_diagonal[row] = likely
    return joint / joint.sum(axis=1, keepdims=True) * np.bincount(labels)[:, None], off_diagonal


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


def test_planted_wrong_labels_are_found_counted_and_rank_first(digits):
    labels, true, probabilities, is_wrong = digits
    doubts = find_doubts(labels, probabilities, list("0123456789"))
    rows = [doubt.row for doubt in doubts]
    assert 50 <= len(doubts) <= 65
    assert is_wrong[rows].sum() >= 50
    assert is_wrong[rows[:45]].mean() >= 0.95
    assert [doubt.probability for doubt in doubts] == sorted(doubt.probability for doubt in doubts)
    sure = [doubt for doubt in doubts if doubt.is_confident]
    assert np.mean([doubt.suggested == str(true[doubt.row]) for doubt in sure]) >= 0.9
    assert len(sure) >= 40


def test_doubts_are_as_many_as_the_confident_joint_says_and_confident_off_its_diagonal(digits):
    labels, _, probabilities, _ = digits
    joint, off_diagonal = joint_of(labels, probabilities)
    doubts = find_doubts(labels, probabilities, list("0123456789"))
    assert len(doubts) == round(joint.sum() - np.trace(joint))
    confident = {doubt.row: int(doubt.suggested) for doubt in doubts if doubt.is_confident}
    assert confident.items() <= off_diagonal.items()
    assert len(confident) >= 0.9 * len(off_diagonal)
    for doubt in doubts:
        assert doubt.label == str(labels[doubt.row])
        assert doubt.suggested == str(probabilities[doubt.row].argmax())
        assert doubt.probability == pytest.approx(probabilities[doubt.row, labels[doubt.row]])
        assert doubt.suggested_probability >= 2 * doubt.probability


def test_a_model_that_knows_nothing_doubts_nothing():
    rng = np.random.default_rng(0)
    probabilities = 0.5 + rng.uniform(-0.05, 0.05, (500, 1))
    assert find_doubts(rng.integers(0, 2, 500), np.hstack([probabilities, 1 - probabilities]), ["a", "b"]) == []


def test_each_of_several_labels_is_a_choice_of_its_own():
    rng = np.random.default_rng(0)
    labels = rng.random((200, 2)) < 0.5
    probabilities = np.where(labels, 0.9, 0.1) + rng.uniform(-0.05, 0.05, labels.shape)
    probabilities[3:6] = np.where(labels[3:6], 0.98, 0.02)
    labels[3, 1], labels[5] = not labels[3, 1], ~labels[5]
    probabilities[5, 0] = np.where(labels[5, 0], 0.001, 0.999)
    doubts = {doubt.row: doubt for doubt in find_doubts(labels, probabilities, ["dark", "warm"])}
    assert set(doubts) == {3, 5}
    assert {doubts[3].label, doubts[3].suggested} == {"warm", "not warm"}
    assert (doubts[3].label == "warm") == labels[3, 1]
    assert "dark" in doubts[5].label, "the label that is doubted most"


def test_a_class_without_images_is_never_suggested():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    assert "c" not in {doubt.suggested for doubt in find_doubts(labels, probabilities, ["a", "b", "c"])}
