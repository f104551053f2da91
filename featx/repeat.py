"""A run or a report, made again with the settings in its folder. It says what is different this time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featx.report import make_report
from featx.storage import as_path
from featx.system import brief
from featx.text import printable
from featx.train import METRICS_NAME, Settings, read_settings, train_top


@dataclass(frozen=True)
class Rerun:
    """A run or a report that was made again.

    Attributes:
        dir: the new folder.
        differences: what is different from the old one, a few words each: of the data, the weights, versions and the
            processor.
        results: the accuracy of each head or approach, by name: before and now; None where there was or is none.
        is_same: whether the results are the same, bit for bit.
    """

    dir: Path
    differences: tuple[str, ...]
    results: dict[str, tuple[float | None, float | None]]
    is_same: bool

    def __repr__(self) -> str:
        same = "the same" if self.is_same else "different"
        return f"<Rerun {brief(self.dir)}: results are {same}, {len(self.differences):,} differences before training>"

    def __str__(self) -> str:
        """Return one line that says what is different."""
        if self.is_same and not self.differences:
            return "Data, weights, versions and processor are the same, and so are the results, bit for bit."
        what = f"Different: {'; '.join(self.differences)}. " if self.differences else ""
        if self.is_same:
            return f"{what}The results are still the same, bit for bit."
        changes = [f"{name} {_percent(old)} before, {_percent(new)} now" for name, (old, new) in self.results.items()]
        why = (
            "" if self.differences else "Data, weights, versions and processor are the same, but the results are not. "
        )
        return f"{why}{what}Accuracy: {'; '.join(changes)}."


def rerun(folder: Path | str, to: Path | str | None = None, *, show: bool = False) -> Rerun:
    """Make a run or a report again, with the settings in its `featx.toml`.

    Args:
        folder: a run folder of `train_top`, or a report folder of `featx compare`.
        to: an empty or new folder; a new one in `runs` or `reports` if None.
        show: show progress on stderr.

    Raises:
        FeatxError: there are no settings in the folder, or as for `train_top` and `compare_approaches`.
    """
    folder, target = as_path(folder), as_path(to) if to else None
    before = read_settings(folder)
    arguments = before.restored()
    if "training" in arguments:
        arguments["training"] = replace(arguments["training"], show=show)
    if before.command == "train-top":
        made = train_top(**arguments, run_dir=target).dir
    else:
        made = make_report(arguments.pop("data_dir"), target, show=show, **arguments)[1]
    results, is_same = _compared(folder, made)
    return Rerun(made, tuple(_differences(before, read_settings(made))), results, is_same)


def _differences(before: Settings, now: Settings) -> Iterator[str]:
    """Yield what is different, a few words each."""
    old, new = before.found, now.found
    data, data_now = old.get("data", {}), new["data"]
    if data.get("digest") != data_now["digest"]:
        yield f"the data ({_images(data)} before, {_images(data_now)} now)"
    if old.get("recipes") != new["recipes"]:
        is_weights = sorted(old.get("recipes", {}).values()) != sorted(new["recipes"].values())
        yield "the weights of the backbone" if is_weights else "the recipe of the features"
    for what in ("versions", "hardware"):
        yield from _changes(old.get(what, {}), new[what], leave_out={"memory_bytes"})


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], leave_out: set[str]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if name not in leave_out and old.get(name) != new.get(name):
            yield f"{name} {printable(old.get(name, 'none'))} before, {printable(new.get(name, 'none'))} now"


def _images(data: Mapping[str, Any]) -> str:
    return f"{data.get('n_train', '?')} training and {data.get('n_test', '?')} test images"


def _compared(old: Path, new: Path) -> tuple[dict[str, tuple[float | None, float | None]], bool]:
    """Return the accuracies in two folders, and whether all that was measured is the same."""
    results, results_now = _results(old), _results(new)
    accuracies = {
        name: (_accuracy(results.get(name)), _accuracy(results_now.get(name)))
        for name in dict.fromkeys((*results, *results_now))
    }
    predictions = [folder / "predictions.csv" for folder in (old, new)]
    is_same = results == results_now
    if all(path.is_file() for path in predictions):
        is_same = predictions[0].read_bytes() == predictions[1].read_bytes()
    return accuracies, is_same


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was measured of each head of a run, or of each approach of a report, without times and memory."""
    is_run = (folder / METRICS_NAME).is_file()
    try:
        found = json.loads((folder / (METRICS_NAME if is_run else "results.json")).read_text(encoding="utf-8"))
        heads = found["heads"] if is_run else {one["name"]: one for one in found["approaches"]}
        kept = ("accuracy", "loss", "roc_auc", "confusion", "repeats", "folds", "fold_accuracies")
        return {name: {key: head[key] for key in kept if key in head} for name, head in heads.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # the old folder lacks them: that is a difference, and no reason to lose the new one


def _accuracy(head: Mapping[str, Any] | None) -> float | None:
    return head.get("accuracy") if head else None


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
