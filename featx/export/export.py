"""Writes a run as one file or folder that needs no featx: images of any size in, probabilities and class names out."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from featx.backbones import is_onnx
from featx.errors import FeatxError, system_errors
from featx.export.graph import (
    Graph,
    build_graph,
    import_onnx,
    save_onnx,
    write_keras,
    write_onnx,
    write_savedmodel,
)
from featx.export.onnx_graph import join_onnx
from featx.extract import DEFAULT_CACHE_DIR, size_bytes
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir, as_path, check_writable, new_file, new_folder
from featx.system import brief, check_name, keras_backend, size, waiting
from featx.text import printable
from featx.train import SavedRun, read_run

log = logging.getLogger("featx")

#: How the name of each format's file ends, empty for a folder, and what writes it.
FORMATS: dict[str, tuple[str, Callable[[Graph, dict[str, Any], Path], None]]] = {
    "keras": (".keras", write_keras),
    "savedmodel": ("", write_savedmodel),
    "onnx": (".onnx", write_onnx),
}


#: Protocol buffers are not larger.
_MAX_ONNX_BYTES = 2 << 30


@dataclass(frozen=True)
class Export:
    """A file or folder that was written.

    Attributes:
        path: the file, or for `savedmodel` the folder.
        format: `"keras"`, `"savedmodel"` or `"onnx"`.
        head: the head in it.
        class_names: the classes, in the order of the probabilities.
        is_multilabel: whether an image can have several of them, so that its probabilities do not sum to 1.
        recipe: what the features are. The export computes in float32, whatever the precision of the recipe.
        size_bytes: of the file, or of all files in the folder.
        elapsed_s: seconds it took.
    """

    path: Path
    format: str
    head: str
    class_names: tuple[str, ...]
    recipe: Recipe
    size_bytes: int
    elapsed_s: float
    is_multilabel: bool = False

    def __repr__(self) -> str:
        classes = f"{len(self.class_names)} classes"
        return f"<Export {brief(self.path)}: {self.recipe.backbone} + {self.head}, {classes}, {size(self.size_bytes)}>"


def export_run(
    run_dir: Path | str,
    to_path: Path | str | None = None,
    *,
    format: str = "keras",  # noqa: A002 - what everybody calls it
    head: str | None = None,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    weights: Path | str | None = None,
    show: bool = False,
) -> Export:
    """Write the run in `run_dir` as one file or folder, whole or not at all.

    Args:
        run_dir: a run folder of `featx train-top`; or a report folder of `featx compare`, for its best run.
        to_path: the file or folder to write, which must not exist; in the run folder if None.
        format: `"keras"`, `"savedmodel"` or `"onnx"`.
        head: `"tuned"` or one of `featx.heads.HEADS`; if None, the first of these that the run has.
        cache_dir: remembers digests of weights files.
        weights: file of the backbone's weights, if you moved it since the run was made.
        show: show progress on stderr.

    Raises:
        WeightsError: the backbone's weights were not found.
        FeatxError: there is no intact run, `to_path` exists or cannot be written, or a package is missing.
    """
    start_s = time.perf_counter()
    check_name(format, FORMATS, f"The format is one of {', '.join(FORMATS)}.")
    suffix, write = FORMATS[format]
    run = read_run(as_path(run_dir), head)
    with waiting("start TensorFlow", show=show):  # which a head with a tuned block needs
        found = run.read_head(head)  # what is wrong with it is found before the network is built
    head_path = run.head_path(head)
    _check_backbone(run.recipe, format)
    path = as_path(to_path) if to_path else run.dir / f"model-{head_path.stem}{suffix}"
    _check_path(path, format, suffix)
    with waiting("start TensorFlow", show=show):
        _check_packages(format)
    _check_names(run, format)
    recipe = run.recipe
    if recipe.precision != "float32":
        log.info("The run computes in %s, the export in float32, so probabilities differ slightly.", recipe.precision)
    weights_path = run.find_weights(as_cache_dir(cache_dir), as_path(weights) if weights else None).path
    if format == "onnx":
        _check_onnx_size(head_path, weights_path)
    begin = new_file if suffix else partial(new_folder, last="saved_model.pb")
    with waiting(f"export to {format}", show=show) as note, begin(path) as making:
        note("building the network")
        notes = _notes(run, head_path.stem)
        if is_onnx(recipe.backbone):
            assert weights_path  # a network file is never random
            model = join_onnx(recipe, weights_path, found)
            finish = partial(save_onnx, model)
        else:
            finish = partial(write, build_graph(recipe, weights_path, found))
        note("converting and writing it")
        with system_errors(printable(path), "written"):
            finish(notes, making.built)
    path, elapsed_s = making.path, time.perf_counter() - start_s
    made = size_bytes(path)
    return Export(path, format, head_path.stem, run.class_names, recipe, made, elapsed_s, run.is_multilabel)


def _check_backbone(recipe: Recipe, form: str) -> None:
    """Raise FeatxError if the backbone cannot be written in this format."""
    if is_onnx(recipe.backbone) and form != "onnx":
        raise FeatxError(
            f"The backbone {printable(recipe.backbone)} is an ONNX network, which can only be exported as ONNX: add "
            f"--format onnx. Received: {form}"
        )


def _check_onnx_size(head_path: Path, weights_path: Path | None) -> None:
    """Raise FeatxError if the network and its head are larger than an ONNX file can be: `knn` has all its features."""
    n_bytes = sum(path.stat().st_size for path in (head_path, weights_path) if path)
    if n_bytes > _MAX_ONNX_BYTES:
        raise FeatxError(
            f"An ONNX file has at most {size(_MAX_ONNX_BYTES)}, and the network and the head {head_path.stem} have "
            f"{size(n_bytes)}: choose another --format or --head."
        )


def _check_path(path: Path, form: str, suffix: str) -> None:
    """Raise FeatxError if nothing new can be written to `path`: before a network is built."""
    if path.exists() or path.is_symlink():
        raise FeatxError(f"{printable(path)} already exists: remove it, or choose another path with --to.")
    if form == "savedmodel" and path.suffix in {".keras", ".onnx"}:
        raise FeatxError(f"A savedmodel is a folder: give it a name without this suffix. Received: {printable(path)}")
    if suffix and path.suffix != suffix:
        raise FeatxError(f"The name of a {form} file ends in {suffix}. Received: {printable(path)}")
    with system_errors(printable(path), "written"):
        check_writable(path.parent)


def _check_packages(form: str) -> None:
    """Raise FeatxError if the format cannot be written here: before a network is built."""
    if form != "keras" and keras_backend() != "tensorflow":
        raise FeatxError(
            f"TensorFlow writes the format {form}: unset KERAS_BACKEND, or set KERAS_BACKEND=tensorflow. "
            f"Received: {keras_backend()}"
        )
    if form == "onnx":
        import_onnx()


def _check_names(run: SavedRun, form: str) -> None:
    """Raise FeatxError if a class has a name that an ONNX file cannot hold: its texts are UTF-8."""
    bad = [name for name in run.class_names if any("\ud800" <= char <= "\udfff" for char in name)]
    if bad and form == "onnx":
        raise FeatxError(
            f"The class name {printable(bad[0])} is not valid UTF-8, which ONNX files need: rename the folder and "
            f"train again, or choose another --format."
        )


def _notes(run: SavedRun, head: str) -> dict[str, Any]:
    return {
        "class_names": list(run.class_names),
        "multilabel": run.is_multilabel,
        "head": head,
        "recipe": json.loads(run.recipe.to_json()),
        "random_weights": run.recipe.has_random_weights,
        "featx_version": metadata.version("featx"),
    }
