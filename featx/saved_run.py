"""A run folder, read again: what is needed to predict with it. `featx.runs` writes it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, printable
from featx.heads import HEADS
from featx.places import Place
from featx.recipe import Recipe
from featx.runs import FORMAT, FORMAT_VERSION
from featx.weights import Weights, find_weights_again
from featx.weights_file import CLASSIFIER_LAYER


@dataclass(frozen=True)
class SavedRun:
    """A finished stage two, as it lies on disk.

    Attributes:
        dir: the run folder.
        recipe: what its features are: backbone, weights, preprocessing, image size.
        class_names: the classes, in the order of the probabilities.
        heads: names of the heads that were trained, the default first.
        weights_path: where the backbone's weights were; None if they are random, or not known.
    """

    dir: Path
    recipe: Recipe
    class_names: tuple[str, ...]
    heads: tuple[str, ...]
    weights_path: Path | None

    def head_path(self, head: str | None = None) -> Path:
        """Return the `.keras` file of the head called `head`, or of the default one.

        Raises:
            FeatxError: the run has no such head.
        """
        name = head or self.heads[0]
        if name not in self.heads:
            raise FeatxError(
                f"The run {printable(self.dir)} has the heads {', '.join(self.heads)}. Received: {printable(name)}"
            )
        return self.dir / f"{name}.keras"

    def find_weights(self, cache_dir: Place, named: Path | None = None, *, download: bool = True) -> Weights:
        """Return the weights that this run was trained with: `named` if given, or wherever they are found.

        They are downloaded again if `download` and they were Keras's own.

        Raises:
            WeightsError: they are not to be found, or the file named holds others.
        """
        whole = self.recipe.layer == CLASSIFIER_LAYER
        candidates = [named.expanduser()] if named else [self.weights_path]
        return find_weights_again(
            self.recipe.backbone, self.recipe.weights, candidates, cache_dir, download=download, whole=whole
        )


def read_run(run_dir: Path) -> SavedRun:
    """Return what the run folder `run_dir` says of itself. No model is loaded.

    Raises:
        FeatxError: it is no run folder, not a whole one, or one of a newer featx.
    """
    if not (run_dir / "metrics.json").is_file():
        raise FeatxError(f"There is no run in {printable(run_dir)}; make one with featx train-top.")
    metrics = _read_json(run_dir / "metrics.json", dict)
    if metrics.get("format") != FORMAT or metrics.get("format_version") != FORMAT_VERSION:
        raise FeatxError(
            f"The run {printable(run_dir)} has the format {printable(str(metrics.get('format_version')))}; this featx "
            f"knows version {FORMAT_VERSION}. Use the featx that wrote it, or train again."
        )
    class_names = _read_json(run_dir / "class_names.json", list)
    heads = tuple(head for head in HEADS if (run_dir / f"{head}.keras").is_file())
    if len(class_names) < 2 or not all(isinstance(name, str) for name in class_names) or not heads:
        raise FeatxError(f"The run {printable(run_dir)} is not whole; train again with featx train-top.")
    weights_path = metrics.get("weights_path")
    return SavedRun(
        dir=run_dir,
        recipe=Recipe.from_json(_read(run_dir / "recipe.json")),
        class_names=tuple(class_names),
        heads=heads,
        weights_path=Path(weights_path) if isinstance(weights_path, str) else None,
    )


def _read_json(path: Path, kind: Callable[[], Any]) -> Any:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise FeatxError(f"{printable(path)} is damaged ({error}); train again with featx train-top.") from error
    if type(value) is not kind:
        raise FeatxError(f"{printable(path)} is not what featx writes there; train again with featx train-top.")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FeatxError(f"{printable(path)} cannot be read: {reason}. Train again with featx train-top.") from error
