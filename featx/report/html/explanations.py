"""A page that explains predictions: heat maps, and the nearest training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from featx.report.html.heat_map import AGAINST, FOR, draw_heat_map
from featx.report.html.page import asset, new_environment
from featx.report.html.pictures import LARGE, link_to, picture_uri, scaled, seen_pixels, thumbnail
from featx.text import printable

if TYPE_CHECKING:
    from featx.heads import Evidence
    from featx.predict import Explanation, Explanations, Prediction
    from featx.storage import StoragePath

#: Sides in pixels of an image and its heat maps, and of training images; the second of each with more images than this.
_SIDES, _NEAR_SIDES, _MANY = (224, LARGE), (96, 72), 100

#: Classes of each image that are named with their probabilities.
_N_CLASSES = 3

#: What stands under the heat map of an image that is not a file.
_PLAIN_GRAY = 200

EVIDENCE_TEXT = (
    "The heat map shows where in the image the head finds evidence: blue is evidence for the class, orange is evidence "
    "against it. The strongest colour is the strongest evidence in the image. The score of the class, in log odds, is "
    "the score for the average training image plus all the evidence in the map. Each position of the map sees a part "
    "of the image that is larger than the position."
)
SIMILARITY_TEXT = "The number under a training image is the cosine of its features and those of the image, at most 1."


def explanations_page(explained: "Explanations", page_dir: Path) -> str:
    """Return a page of HTML, a row for each image: the image, its heat maps, and the training images nearest to it.

    Args:
        explained: what to show.
        page_dir: where the page will be; links to images on this machine are relative to it.
    """
    side, small = (sides[len(explained) > _MANY] for sides in (_SIDES, _NEAR_SIDES))
    n = len(explained)
    return (
        new_environment()
        .from_string(asset("explanations.html.j2"))
        .render(
            title=f"{n:,} predictions explained" if n > 1 else "A prediction explained",
            rows=(_row(one, explained, page_dir, side, small) for one in explained),
            small=small,
            side=side,
            why_no_evidence=explained.why_no_evidence,
            evidence_text=EVIDENCE_TEXT,
            similarity_text=SIMILARITY_TEXT,
            colour_for=FOR,
            colour_against=AGAINST,
            style=Markup(asset("page.css")),  # noqa: S704 - a file of featx's own
        )
    )


def _row(one: "Explanation", explained: "Explanations", page_dir: Path, side: int, small: int) -> dict[str, Any]:
    path, recipe = one.prediction.path, explained.recipe
    pixels = None if path is None else seen_pixels(path, recipe.image_size, recipe.aspect_ratio, side)
    verdict, rest = _verdict(one.prediction)
    under = np.full((*scaled(recipe.image_size, side), 3), _PLAIN_GRAY, np.uint8) if pixels is None else pixels
    return {
        "name": "not a file" if path is None else printable(path),
        "link": "" if path is None else link_to(path, page_dir),
        "picture": "" if pixels is None else picture_uri(pixels),
        "height": under.shape[0],
        "width": under.shape[1],
        "verdict": verdict,
        "note": one.prediction.note,
        "rest": rest,
        "maps": [
            {
                "class_name": printable(name),
                "picture": picture_uri(draw_heat_map(under, found.map)),
                "score": _score(found),
            }
            for name, found in one.evidence.items()
        ],
        "nearest": list(_nearest(one, explained.data_dir, page_dir, small)),
    }


def _score(found: "Evidence") -> str:
    return f"{found.score:+.1f}: average image {found.base:+.1f}, evidence {found.score - found.base:+.1f}"


def _nearest(one: "Explanation", data_dir: "StoragePath | None", page_dir: Path, side: int) -> Iterator[dict[str, str]]:
    for near in one.nearest:
        path = None if data_dir is None or "\0" in near.path else data_dir / near.path
        yield {
            "name": printable(near.path),
            "label": printable(near.label),
            "similarity": f"{near.similarity:.3f}",
            "picture": "" if path is None else thumbnail(path, side),
            "link": "" if path is None else link_to(path, page_dir),
        }


def _verdict(prediction: "Prediction") -> tuple[str, str]:
    """Return what is predicted, and what else there is to say: the other classes, or why there is no prediction."""
    if prediction.reason is not None:
        return "cannot be read", printable(prediction.reason)
    named = [f"{printable(name)} {probability:.1%}" for name, probability in prediction.top]
    is_predicted = [name in prediction.labels for name, _ in prediction.top]
    predicted = [text for text, yes in zip(named, is_predicted, strict=True) if yes]
    others = [text for text, yes in zip(named, is_predicted, strict=True) if not yes]
    return ", ".join(predicted) or "no label", ", ".join(others[:_N_CLASSES])
