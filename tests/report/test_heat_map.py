"""Heat maps: each colour is where its evidence is, and the image shows through."""

import numpy as np
import pytest

from featx.report.html.heat_map import AGAINST, FOR, draw_heat_map


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(100, 156, (80, 120, 3)).astype(np.uint8)


def test_colours_are_where_the_evidence_is(photo):
    evidence = np.zeros((4, 6))
    evidence[0, 0], evidence[3, 5] = 2.0, -2.0
    drawn = draw_heat_map(photo, evidence).astype(float)
    assert drawn.shape == photo.shape
    for place, colour in (((10, 10), FOR), ((69, 109), AGAINST)):
        distances = [np.linalg.norm(drawn[place] - one) for one in (FOR, AGAINST)]
        assert np.argmin(distances) == (FOR, AGAINST).index(colour)
        assert min(distances) < 60
    middle = drawn[35:45, 55:65]
    assert np.ptp(middle, axis=2).max() == 0, "gray where there is no evidence"
    assert np.ptp(middle[..., 0]) > 20, "the image shows through"


def test_weaker_evidence_is_paler(photo):
    evidence = np.array([[1.0, 0.25]])
    colourful = np.ptp(draw_heat_map(photo, evidence).astype(int), axis=2)
    assert 3 < colourful[:, :20].mean() / colourful[:, -20:].mean() < 5


def test_without_any_evidence_the_image_is_gray(photo):
    assert np.ptp(draw_heat_map(photo, np.zeros((2, 2))), axis=2).max() == 0
