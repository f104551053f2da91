"""Writes the run folder of stage two, and reads what predictions need from it."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones import CLASSIFIER_LAYER, Weights, build_tail, check_recipe, find_weights_again
from featx.dataset import ImageDataset
from featx.engines import pack_network
from featx.errors import FeatxError
from featx.heads import (
    HEADS,
    TUNED,
    Epoch,
    Head,
    Training,
    TunedHead,
    read_head,
    read_tuned,
    save_model,
    weigh_classes,
)
from featx.recipe import Recipe
from featx.storage import StoragePath, as_data, expanded, nearest_folder, read_small
from featx.system import brief, check_name, command_line, hardware, now, versions
from featx.text import printable
from featx.train.cross_validation import CrossValidated, CrossValidation
from featx.train.features import Features
from featx.train.held_out import TABLE_NAME as HELD_OUT_NAME
from featx.train.held_out import HeldOut, write_held_out
from featx.train.metrics import Result, class_metrics, confusion_matrix
from featx.train.reference import Reference
from featx.train.settings import SETTINGS_NAME, Settings, read_settings
from featx.train.tables import write_csv

FORMAT = "featx-run"
#: A run with a tuned block has its own version: its heads are not what they were before, and an older featx says so.
#: So has one for images with several labels, with a tuned block or without: an older featx would make the
#: probabilities of the labels sum to 1.
FORMAT_VERSION, TUNED_FORMAT_VERSION, MULTILABEL_FORMAT_VERSION = 1, 2, 3

log = logging.getLogger("featx")

#: The heads that a run may have, the default first.
RUN_HEADS = (TUNED, *HEADS)

#: The folder in a report folder that has the runs of a comparison.
RUNS_NAME = "runs"

#: The folder of report folders that the user has not named.
REPORTS_NAME = "reports"

#: Without this file, a run folder is none.
METRICS_NAME = "metrics.json"

#: The table of the split. Messages about a lost split name it, too.
SPLIT_NAME = "split.csv"


@dataclass(frozen=True)
class SavedRun:
    """A finished run of stage two on disk.

    Attributes:
        dir: the run folder.
        recipe: what its features are: backbone, weights, preprocessing, image size.
        class_names: the classes, in the order of the probabilities.
        heads: names of the heads that were trained, the default first.
        weights_path: where the backbone's weights were; None if they are random or unknown.
        output: the recipe of what the heads stand on, if they begin with a block that was tuned; else None.
        is_multilabel: whether images can have several labels, each with a probability of its own.
    """

    dir: Path
    recipe: Recipe
    class_names: tuple[str, ...] = field(repr=False)
    heads: tuple[str, ...]
    weights_path: Path | None
    output: Recipe | None = field(default=None, repr=False)
    is_multilabel: bool = False

    def head_path(self, head: str | None = None) -> Path:
        """Return the `.keras` file of the head called `head`, or of the default one.

        Raises:
            FeatxError: the run has no such head.
        """
        name = head or self.heads[0]
        check_name(name, self.heads, f"The run {printable(self.dir)} has the heads {', '.join(self.heads)}.")
        return self.dir / f"{name}.keras"

    def read_head(self, head: str | None = None) -> Head | TunedHead:
        """Return the head called `head`, or the default one. One that begins with a tuned block starts Keras.

        Raises:
            FeatxError: the run has no such head, or it is damaged, or it has other classes than the run.
        """
        path = self.head_path(head)
        if self.output:
            tail = build_tail(self.output, None, self.recipe.layer, load_weights=False)
            return read_tuned(path, tail, len(self.class_names), is_multilabel=self.is_multilabel)
        found = read_head(path)
        if found.is_multilabel != self.is_multilabel:
            raise FeatxError(
                f"{printable(path)} and {METRICS_NAME} do not agree on whether an image can have several labels; train "
                f"again with featx train-top."
            )
        if found.n_classes != len(self.class_names):
            raise FeatxError(
                f"{printable(path)} has {found.n_classes} classes, but the run {printable(self.dir)} names "
                f"{len(self.class_names)}; train again with featx train-top."
            )
        return found

    def reference(self) -> Reference | None:
        """Return the training images that the run remembers; None if an older featx made it.

        Raises:
            FeatxError: it is damaged.
        """
        return Reference.read(self.dir)

    def data_dir(self) -> StoragePath | None:
        """Return the folder or archive of the data set, where it was when the run was made.

        None if it was not on this machine, or an older featx made the run.
        """
        try:
            root = read_settings(self.dir).arguments["data_dir"]["root"]
            return as_data(root) if isinstance(root, str) and "://" not in root and "\0" not in root else None
        except (FeatxError, LookupError, TypeError, OSError):
            return None

    @property
    def has_held_out(self) -> bool:
        """Whether the run says what its heads said about held-out images; one of an older featx does not."""
        return (self.dir / HELD_OUT_NAME).exists()

    def held_out(self, head: str | None = None) -> HeldOut | None:
        """Return what the head called `head`, or the default one, said about training images it had not seen.

        None if it was trained without any, as a tuned block is, or an older featx made the run.

        Raises:
            FeatxError: the table is damaged.
        """
        found = HeldOut.read(self.dir, head or self.heads[0])
        return found if found and len(found) else None

    def find_weights(self, cache_dir: StoragePath, named: Path | None = None, *, download: bool = True) -> Weights:
        """Return the weights that this run was trained with: `named` if given, or wherever they are found.

        They are downloaded again if `download` and they were Keras's own.

        Raises:
            WeightsError: they were not found, or the file named holds others.
        """
        whole = self.recipe.layer == CLASSIFIER_LAYER
        candidates = [expanded(named)] if named else [self.weights_path]
        return find_weights_again(
            self.recipe.backbone, self.recipe.weights, candidates, cache_dir, download=download, whole=whole
        )


def read_run(run_dir: Path, head: str | None = None) -> SavedRun:
    """Return the run in the folder `run_dir`. No model is loaded.

    `run_dir` may also be a report folder of `featx compare`. Then this returns the run in it whose head, or whose head
    called `head`, is the most accurate on the test split.

    Raises:
        FeatxError: it is not a run folder, is incomplete, or comes from a newer featx.
    """
    if not (run_dir / METRICS_NAME).is_file():
        return _best_run(run_dir, head)
    metrics = _read_json(run_dir / METRICS_NAME, dict)
    known = (FORMAT_VERSION, TUNED_FORMAT_VERSION, MULTILABEL_FORMAT_VERSION)
    if metrics.get("format") != FORMAT or metrics.get("format_version") not in known:
        raise FeatxError(
            f"The run {printable(run_dir)} has format version {brief(metrics.get('format_version'))}; "
            f"this featx reads {', '.join(map(str, known))}. Use the featx that wrote it, or train again."
        )
    is_multilabel = metrics["format_version"] == MULTILABEL_FORMAT_VERSION
    is_tuned = metrics["format_version"] == TUNED_FORMAT_VERSION or (is_multilabel and "tuned" in metrics)
    class_names = _read_json(run_dir / "class_names.json", list)
    heads = tuple(head for head in (RUN_HEADS if is_tuned else HEADS) if (run_dir / f"{head}.keras").is_file())
    if len(class_names) < 2 or not all(map(_is_class_name, class_names)) or not heads:
        raise FeatxError(f"The run {printable(run_dir)} is incomplete; train again with featx train-top.")
    if len(set(class_names)) < len(class_names):
        raise FeatxError(f"The run {printable(run_dir)} names a class twice; train again with featx train-top.")
    weights_path = metrics.get("weights_path")
    recipe = _read_recipe(run_dir / "recipe.json")
    return SavedRun(
        dir=run_dir,
        recipe=recipe,
        class_names=tuple(class_names),
        heads=heads,
        weights_path=Path(weights_path) if isinstance(weights_path, str) else None,
        output=_output(run_dir / METRICS_NAME, metrics, recipe) if is_tuned else None,
        is_multilabel=is_multilabel,
    )


def _is_class_name(name: object) -> bool:
    """Return whether this can be the name of a folder: text, whose bytes were UTF-8 or are kept as `os.fsdecode` does.

    Other lone surrogates can be in JSON, and in no file that featx writes.
    """
    if not isinstance(name, str) or not name:
        return False
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _read_recipe(path: Path) -> Recipe:
    """Return the recipe of a run, which this featx computes as it says."""
    text = _read(path)
    try:
        recipe = Recipe.from_json(text)
        check_recipe(recipe)
    except FeatxError as error:
        raise FeatxError(f"{printable(path)}: {error}") from error
    return recipe


def _output(path: Path, metrics: dict[str, Any], recipe: Recipe) -> Recipe:
    """Return the recipe of what the heads of a tuned run stand on, which this featx computes as it says."""
    tuned = metrics.get("tuned")
    if not isinstance(tuned, dict) or not isinstance(tuned.get("output_layer"), str):
        raise FeatxError(f"{printable(path)} does not say which block was tuned; train again with featx train-top.")
    try:
        output = replace(recipe, layer=tuned["output_layer"], pooling=tuned.get("output_pooling"))
        check_recipe(output)
    except (FeatxError, TypeError) as error:
        raise FeatxError(f"{printable(path)}: {error}") from error
    return output


def _best_run(report_dir: Path, head: str | None) -> SavedRun:
    """Return the run in a report folder that did best, as a comparison ranks: by accuracy, then by loss."""
    found: list[tuple[float, float, SavedRun]] = []
    for path in sorted((report_dir / RUNS_NAME).glob(f"*/{METRICS_NAME}")):
        try:
            run = read_run(path.parent)
        except FeatxError as error:  # the others are as good as they were
            log.warning("%s It is left out.", error)
            continue
        rank = _rank(_read_json(path, dict).get("heads"), head or run.heads[0])
        if rank:
            found.append((*rank, run))
    if not found:
        which = f" with the head {printable(head)}" if head else ""
        meant = "" if report_dir.exists() else nearest_folder(report_dir)
        raise FeatxError(
            f"There is no run{which} in {printable(report_dir)}; create one with featx train-top or featx "
            f"compare.{meant}"
        )
    return min(found, key=lambda one: one[:2])[2]


def _rank(heads: object, name: str) -> tuple[float, float] | None:
    """Return what the run with these metrics of its `heads` is sorted by; None if it has no such head."""
    metrics = heads.get(name) if isinstance(heads, dict) else None
    if not isinstance(metrics, dict):
        return None
    accuracy, loss = metrics.get("accuracy"), metrics.get("loss")
    if not isinstance(accuracy, int | float) or not isinstance(loss, int | float) or not math.isfinite(accuracy):
        return None
    return -accuracy, loss if math.isfinite(loss) else math.inf


def write_run(
    folder: Path,
    features: Features,
    results: Sequence[Result],
    training: Training,
    weights: Weights,
    warnings: Sequence[str] = (),
    cache_dir: StoragePath | None = None,
    crossed: CrossValidation | None = None,
    settings: Settings | None = None,
    reference: Reference | None = None,
) -> None:
    """Fill the empty `folder` with a run: models, metrics, history, predictions, split, the recipe and the class names.

    It also notes the path of the backbone's `weights`, which predictions need, and the `warnings` about the data. An
    int8 network is copied from the cache, because it depends on training images that may be gone later. If the heads
    were cross-validated, `crossed` says how, and the predictions are those of the folds.
    `settings` are what decided all of it, and `reference` has the training images that the run remembers. Unless images
    can have several labels, the run also has what each head said about images that it had not seen.

    Raises:
        OSError: the folder cannot be written.
    """
    columns = ["head", *(column.name for column in fields(Epoch))]
    epochs = ([result.name, *astuple(epoch)] for result in results for epoch in result.history)
    for result in results:
        save_model(result.model, folder / f"{result.name}.keras")
    _write_json(folder / METRICS_NAME, _metrics(features, results, training, weights, warnings, crossed))
    _write_json(folder / "class_names.json", features.dataset.class_names)
    (folder / "recipe.json").write_text(features.recipe.to_json() + "\n", encoding="utf-8")
    write_csv(folder / "history.csv", columns, epochs)
    _write_predictions(folder / "predictions.csv", features, results, crossed)
    if crossed is None:
        write_csv(folder / SPLIT_NAME, *features.dataset.label_rows())
    if not features.dataset.is_multilabel:
        trained_on = features.dataset if crossed else features.dataset.subset(~features.dataset.is_test)
        write_held_out(folder, trained_on, results)
    if reference is not None:
        reference.save(folder)
    if settings is not None:
        (folder / SETTINGS_NAME).write_bytes(settings.to_toml())
    if cache_dir is not None:
        pack_network(features.recipe, cache_dir, folder)


def _metrics(
    features: Features,
    results: Sequence[Result],
    training: Training,
    weights: Weights,
    warnings: Sequence[str],
    crossed: CrossValidation | None,
) -> dict[str, Any]:
    dataset = features.dataset
    commonest, share = features.test_baseline
    names = ("block", "output_layer", "output_pooling")
    tuned = {name: results[0].details[name] for name in names if name in results[0].details}
    y = dataset.labels if crossed else dataset.labels[~dataset.is_test]  # what the heads in the run are trained on
    class_weights = weigh_classes(training.class_weights, y, dataset.class_names)
    version = TUNED_FORMAT_VERSION if tuned else FORMAT_VERSION
    return {
        "format": FORMAT,
        "format_version": MULTILABEL_FORMAT_VERSION if dataset.is_multilabel else version,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "n_train": dataset.n_images if crossed else dataset.n_train,
            "n_test": dataset.n_test,
        },
        "warnings": list(warnings),
        "baseline": {"class": commonest, "accuracy": share},
        "recipe_key": features.recipe.key,
        "random_weights": features.recipe.has_random_weights,
        **({"tuned": tuned} if tuned else {}),
        "weights_path": str(weights.path.absolute()) if weights.path else None,
        "training": {
            "seed": training.seed,
            "epochs": training.epochs,
            "patience": training.patience,
            "class_weights": None
            if class_weights is None
            else dict(zip(dataset.class_names, class_weights.tolist(), strict=True)),
        },
        "representations": features.timings.to_dict(),
        **({"folds": crossed.folds.n, "fold_repeats": len(crossed.folds.numbers)} if crossed else {}),
        "heads": {
            result.name: {
                **asdict(result.metrics),
                "classes": _by_class(result, dataset),
                "better_than_baseline": result.metrics.is_above(share),
                "top_s": result.fit_s,
                "n_parameters": result.n_parameters,
                "peak_memory_bytes": result.peak_memory_bytes,
                "kept_epoch": result.kept_epoch,
                **result.details,
                **(_of_folds(crossed.heads[number]) if crossed else {}),
            }
            for number, result in enumerate(results)
        },
        "versions": versions(),
        "hardware": hardware(),
        "command": command_line(),
        "created_at": now(),
    }


def _of_folds(head: CrossValidated) -> dict[str, Any]:
    """Return what the folds say of a head; its time is that of all trainings of the folds."""
    return {
        "accuracy_sd": head.accuracy_sd,
        "fold_accuracies": head.accuracies,
        "repeat_accuracies": [result.metrics.accuracy for result in head.results],
        "folds_s": sum(result.fit_s for result in head.results),
    }


def _by_class(result: Result, dataset: ImageDataset) -> list[dict[str, Any]]:
    """Return the precision and the recall of each class, with its name; nothing if images can have several labels."""
    if dataset.is_multilabel:
        return []
    names, predicted = dataset.class_names, result.probabilities.argmax(axis=1)
    measured = class_metrics(confusion_matrix(dataset.labels[dataset.is_test], predicted, len(names)))
    return [{"class": name, **asdict(one)} for name, one in zip(names, measured, strict=True)]


def _write_predictions(
    path: Path, features: Features, results: Sequence[Result], crossed: CrossValidation | None
) -> None:
    """Write one row for each test image: its path, its label, and every head's probability of every class.

    In cross-validation, these are all images, and each row also has the number of the fold, from 1; all is of the first
    repetition.
    """
    dataset = features.dataset
    names, labels = dataset.class_names, dataset.label_texts
    folds = [] if crossed is None else crossed.folds.of(dataset)[0] + 1
    fold = [] if crossed is None else ["fold"]
    columns = ["path", "label", *fold, *(f"{result.name}:{name}" for result in results for name in names)]
    probabilities = np.hstack([result.probabilities for result in results])
    test = np.flatnonzero(dataset.is_test)
    rows = (
        [dataset.paths[row], labels[row], *folds[i : i + 1], *(f"{value:.6f}" for value in probabilities[i])]
        for i, row in enumerate(test)
    )
    write_csv(path, columns, rows)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")


def _read_json(path: Path, kind: Callable[[], Any]) -> Any:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise FeatxError(f"{printable(path)} is damaged ({error}); train again with featx train-top.") from error
    if type(value) is not kind:
        raise FeatxError(
            f"{printable(path)} does not contain what featx writes there; train again with featx train-top."
        )
    return value


def _read(path: Path) -> str:
    try:
        return read_small(path).decode("utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise FeatxError(f"{printable(path)} cannot be read: {reason}. Train again with featx train-top.") from error
