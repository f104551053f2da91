"""The run folder: everything that stage two leaves behind, whole or not at all."""

import json
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featx import provenance
from featx.errors import FeatxError, printable
from featx.files import TEMPORARY_PREFIX, sync_folder
from featx.fitting import save_model
from featx.join import Features
from featx.results import Result, Training
from featx.tables import csv_lines
from featx.weights import Weights

FORMAT = "featx-run"
FORMAT_VERSION = 1


def write_run(
    run_dir: Path,
    features: Features,
    results: Sequence[Result],
    training: Training,
    weights: Weights,
    warnings: Sequence[str] = (),
) -> None:
    """Write the run folder `run_dir`: models, metrics, history, predictions, the recipe and the class names.

    Where the backbone's `weights` were is noted too: whoever predicts with the run needs them. So are `warnings` of the
    data.

    Raises:
        FeatxError: the folder has something in it already, or cannot be written.
    """
    run_dir = run_dir.resolve()
    temporary_dir = run_dir.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        temporary_dir.mkdir(parents=True)
        _write_files(temporary_dir, features, results, _metrics(features, results, training, weights, warnings))
        temporary_dir.rename(run_dir)  # takes the place of an empty folder, and of nothing else
        sync_folder(run_dir.parent)
    except OSError as error:
        raise FeatxError(
            f"The run folder {printable(run_dir)} cannot be written: {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(temporary_dir, ignore_errors=True)


def _write_files(folder: Path, features: Features, results: Sequence[Result], metrics: dict[str, Any]) -> None:
    for result in results:
        save_model(result.model, folder / f"{result.name}.keras")
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "class_names.json", features.dataset.class_names)
    (folder / "recipe.json").write_text(features.recipe.to_json() + "\n", encoding="utf-8")
    epochs = [{"head": result.name, **asdict(epoch)} for result in results for epoch in result.history]
    names = ["head", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    _write_csv(folder / "history.csv", names, ([epoch[name] for name in names] for epoch in epochs))
    _write_predictions(folder / "predictions.csv", features, results)


def _metrics(
    features: Features, results: Sequence[Result], training: Training, weights: Weights, warnings: Sequence[str]
) -> dict[str, Any]:
    dataset = features.dataset
    commonest, share = features.test_baseline
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "n_train": dataset.n_train,
            "n_test": dataset.n_test,
        },
        "warnings": list(warnings),
        "baseline": {"class": commonest, "accuracy": share},
        "recipe_key": features.recipe.key,
        "random_weights": features.recipe.has_random_weights,
        "weights_path": str(weights.path.absolute()) if weights.path else None,
        "training": {"seed": training.seed, "epochs": training.epochs, "patience": training.patience},
        "representations": features.timings.to_dict(),
        "heads": {
            result.name: {
                **asdict(result.metrics),
                "better_than_baseline": result.metrics.is_above(share),
                "top_s": result.fit_s,
                "n_parameters": result.n_parameters,
                "peak_memory_bytes": result.peak_memory_bytes,
                "kept_epoch": result.kept_epoch,
                **result.details,
            }
            for result in results
        },
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "command": provenance.command_line(),
        "created_at": provenance.now(),
    }


def _write_predictions(path: Path, features: Features, results: Sequence[Result]) -> None:
    """Write one row for each test image: its path, its label, and every head's probability of every class."""
    dataset = features.dataset
    names = dataset.class_names
    columns = ["path", "label", *(f"{result.name}:{name}" for result in results for name in names)]
    probabilities = np.hstack([result.probabilities for result in results])
    test = np.flatnonzero(dataset.is_test)
    rows = (
        [dataset.paths[row], names[dataset.labels[row]], *map(_probability, probabilities[i])]
        for i, row in enumerate(test)
    )
    _write_csv(path, columns, rows)


def _probability(value: float) -> str:
    return f"{value:.6f}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")


def _write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(csv_lines(names, rows))
