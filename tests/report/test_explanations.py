"""The page of explanations: names are only names, and what the network sees is what is shown."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.extract import resolve_recipe
from featx.heads import Evidence
from featx.predict import Explanations
from featx.predict.predictions import Predictions
from featx.report.html.explanations import explanations_page
from featx.report.html.pictures import scaled, seen_pixels
from featx.train import NearestImage
from tests.conftest import SMALL

HOSTILE = "</span><img src=x onerror=alert(1)>\"'\n\x1b[31m\u202e"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return resolve_recipe(tmp_path_factory.mktemp("recipe"), None, **SMALL)[0]


class Elements(HTMLParser):
    """All elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_never_become_elements(tmp_path, recipe):
    photo = tmp_path / HOSTILE.replace("/", "∕")
    Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(photo, "PNG")
    names = (HOSTILE, "b")
    explained = Explanations(
        Predictions(
            names,
            (photo, Path(HOSTILE)),
            np.array([[0.9, 0.1], [np.nan, np.nan]]),
            (None, HOSTILE),
            is_unlike=np.array([True, False]),
        ),
        ({HOSTILE: Evidence(0, np.eye(3), 4.0, 1.0)}, {}),
        ((NearestImage(HOSTILE, HOSTILE, 0.5), NearestImage(photo.name, "b", 0.4), NearestImage("a\0", "b", 0.1)), ()),
        "",
        recipe,
        tmp_path,
    )
    page = explanations_page(explained, tmp_path)
    found = Elements(page).found
    assert all(str(attributes["src"]).startswith("data:image/webp") for tag, attributes in found if tag == "img")
    assert [tag for tag, _ in found].count("img") == 3
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)
    assert "script" not in {tag for tag, _ in found}
    assert not {"\x1b", "\u202e"} & set(page)
    assert "score +4.0: average image +1.0, evidence +3.0" in page
    assert page.count("unlike the training images") == 1


@pytest.mark.parametrize("aspect_ratio", [None, "crop", "pad"])
def test_the_picture_is_the_part_that_the_network_sees(tmp_path, aspect_ratio):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :20] = 255  # the quarter that is cropped
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    seen = seen_pixels(tmp_path / "photo.png", (150, 150), aspect_ratio, 60)
    assert seen.shape == (60, 60, 3)
    white = (seen > 200).mean()
    assert white == pytest.approx({None: 0.25, "crop": 0.0, "pad": 0.125}[aspect_ratio], abs=0.02)


def test_a_picture_keeps_the_shape_that_the_network_takes():
    assert scaled((150, 200), 144) == (108, 144)
    assert scaled((200, 100), 144) == (144, 72)
