"""Explanations as a folder: a page with heat maps and pictures, and the same data for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import FeatxError, system_errors
from featx.report.folder import PAGE_NAME
from featx.report.html.explanations import explanations_page
from featx.storage import StoragePath, as_path, new_folder
from featx.system import shown, waiting
from featx.text import printable

if TYPE_CHECKING:
    from featx.predict import Classifier, Explanation, Explanations

#: More images than this are too many for a page.
MAX_EXPLAINED = 500

#: The file for programs, beside the page.
LINES_NAME = "explanations.jsonl"


def explain_to(
    classifier: "Classifier", paths: Sequence[StoragePath], folder: Path, *, show: bool = False, **options: Any
) -> "Explanations":
    """Explain the predictions for images, write them to a folder as `write_explanations` does, and return them.

    Args:
        classifier: what predicts.
        paths: the images.
        folder: an empty or new folder.
        show: show progress on stderr.
        options: of `Classifier.explain`.

    Raises:
        FeatxError: the images are more than `MAX_EXPLAINED`, cannot be explained, or the folder cannot be written.
    """
    _check_number(len(paths))
    with new_folder(folder, last=PAGE_NAME) as making:
        explained = classifier.explain(paths, show=show, **options)
        with waiting("page", show=show):
            _fill(making.built, explained, making.path)
    return explained


def write_explanations(explained: "Explanations", folder: Path | str) -> None:
    """Write `index.html`, which needs no other file, and `explanations.jsonl` to an empty or new folder.

    Raises:
        FeatxError: these are no explanations, or more than `MAX_EXPLAINED`; or the folder cannot be written.
    """
    from featx.predict import Explanations

    if not isinstance(explained, Explanations):
        raise FeatxError(f"write_explanations needs the result of Classifier.explain. Received: {shown(explained)}")
    _check_number(len(explained))
    with new_folder(as_path(folder), last=PAGE_NAME) as making:
        _fill(making.built, explained, making.path)


def _check_number(n: int) -> None:
    if n > MAX_EXPLAINED:
        raise FeatxError(
            f"A page explains at most {MAX_EXPLAINED:,} images (--explain): choose some of them. Received: {n:,}"
        )


def _fill(built: Path, explained: "Explanations", folder: Path) -> None:
    lines = (json.dumps(_line(one)) + "\n" for one in explained)
    with system_errors(f"The folder {printable(folder)}", "written"):
        (built / LINES_NAME).write_text("".join(lines), encoding="utf-8")
        (built / PAGE_NAME).write_text(explanations_page(explained, folder), encoding="utf-8")


def _line(one: "Explanation") -> dict[str, Any]:
    prediction = one.prediction
    return {
        "path": prediction.path and str(prediction.path),
        "label": prediction.label,
        "labels": prediction.labels,
        "probability": prediction.probability,
        "reason": prediction.reason,
        "unsure": prediction.is_unsure,
        "unlike": prediction.is_unlike,
        "evidence": [
            {"label": name, "score": found.score, "base": found.base, "map": found.map.tolist()}
            for name, found in one.evidence.items()
        ],
        "nearest": [{"path": near.path, "label": near.label, "similarity": near.similarity} for near in one.nearest],
    }
