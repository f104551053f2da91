"""`featx train-top`: stage two, on cached features."""

from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.dataset import ImageFolders
from featx.system import duration, text_table
from featx.text import Shown, shown_text
from featx.train import FEW_TEST_IMAGES, UNBALANCED, CrossValidation, Metrics, Run, imbalance
from featx.train import train_top as train

#: Labels in the table on the terminal, at most.
MAX_LABELS = 20


@click.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_TWO
@opt.TRAIN_VIEWS
@opt.HEADS_TO_TRAIN
@opt.TUNE
@opt.FOLDS
@click.option("--run-dir", type=opt.LocalPath(path_type=Path), help="Run folder.  [default: a new one in runs/]")
@opt.OUTPUT
def train_top(data: ImageFolders, output: opt.Output, **options: Any) -> None:
    """Stage two: train heads on cached features.

    The heads are dense, a small neural network, and logreg, logistic regression. With --tune, they are dense and tuned:
    the same network, trained together with the last block of the backbone. Name others with --head: knn, the nearest
    training images; prototypes, the nearest class mean; svm, a linear support vector machine.

    With --folds, all images are tested, each by heads that have not seen it. The heads in the run folder are then
    trained on all images.

    \b
    Example:
      featx train-top data/ --backbone vgg16 --image-size 150 --run-dir runs/first
      featx train-top data/ --backbone vgg16 --image-size 150 --tune block5
      featx train-top data/ --backbone vgg16 --image-size 150 --head prototypes --head svm
      featx train-top data/ --backbone vgg16 --image-size 150 --folds 10
    """
    output.say(train(data, **options), run_text, run_json)


def run_text(run: Run) -> Shown:
    """Return what the heads achieved, in a few lines."""
    features, recipe = run.features, run.features.recipe
    commonest, share = features.test_baseline
    crossed = run.cross_validation
    images = f"{features.dataset.n_train:,} training and {features.dataset.n_test:,} test images"
    is_multilabel = features.dataset.is_multilabel
    is_unbalanced = not is_multilabel and imbalance(features.dataset.class_counts[1]) > UNBALANCED
    lines = [
        f"{recipe.backbone} features {features.X.shape[1:]} of "
        f"{f'{features.dataset.n_images:,} images' if crossed else images}, extracted in "
        f"{duration(features.timings.elapsed_s)}."
    ]
    if recipe.has_random_weights:
        lines.append("The backbone has random weights: these figures say nothing about transfer learning.")
    all_labels = "all labels of " if is_multilabel else ""
    width = max(8, *(len(result.name) for result in run.results))
    for number, result in enumerate(run.results):
        metrics = result.metrics
        sd = f"±{100 * crossed.heads[number].accuracy_sd:.1f}" if crossed else ""
        images = "images" if crossed else "test images"
        lines.append(
            f"{result.name:>{width}}: {all_labels}{100 * metrics.accuracy:.1f}{sd} % of the {images} "
            f"({_percent(metrics.accuracy_low)} to {_percent(metrics.accuracy_high)}){_map(metrics)}, "
            f"{_balanced(metrics) if is_unbalanced else ''}loss {metrics.loss:.3f}, "
            f"trained in {duration(result.fit_s)}{_against(metrics, commonest, share)}"
        )
    if crossed:
        lines.append(_folds_text(crossed))
    elif features.dataset.n_test < FEW_TEST_IMAGES:
        lines.append(
            f"With only {features.dataset.n_test:,} test images, these 95 % intervals are wide. Add --folds 5 to "
            f"test on all {features.dataset.n_images:,} images."
        )
    what = "set of labels" if is_multilabel else "class"
    lines.append(f"Always answering {commonest}, the most common {what}, gets {_percent(share)} right.")
    lines += _label_lines(run)
    lines.append(f"Run: {run.dir}")
    return shown_text(lines)


def _map(metrics: Metrics) -> str:
    """Return the mean average precision with its interval, if images can have several labels."""
    found = metrics.multilabel
    if found is None or found.mean_average_precision is None:
        return ""
    low, high = (_percent(end or 0.0) for end in (found.mean_average_precision_low, found.mean_average_precision_high))
    return f", mean average precision {_percent(found.mean_average_precision)} ({low} to {high})"


def _label_lines(run: Run) -> list[str]:
    """Return a table of the labels with what each head reaches, of many labels the hardest; empty for classes."""
    found = [result.metrics.multilabel for result in run.results]
    first = found[0]
    if first is None:
        return []
    names = run.features.class_names
    hardest = sorted(range(len(names)), key=lambda label: first.labels[label].average_precision or 0.0)[:MAX_LABELS]
    shown = range(len(names)) if len(names) <= MAX_LABELS else hardest
    header = ["label", "images", *(f"{r.name} {what}" for r in run.results for what in ("AP", "F1", "AUC"))]
    rows = [
        [
            f"  {names[label]}",
            f"{first.labels[label].n_true:,}",
            *(
                "–" if value is None else f"{value:.3f}"
                for each in found
                if each
                for of in [each.labels[label]]
                for value in (of.average_precision, of.f1, of.roc_auc)
            ),
        ]
        for label in shown
    ]
    more = [f"The {MAX_LABELS} hardest of {len(names):,} labels:"] if len(names) > MAX_LABELS else []
    answer = f"Always answering each label's share has a mean average precision of {_percent(first.mean_prevalence)}."
    return [answer, *more, *text_table(header, rows).split("\n")]


def _folds_text(crossed: CrossValidation) -> str:
    """Return what the figures of cross-validation are, and what the heads in the run were trained on."""
    n_repeats = len(crossed.folds.numbers)
    times = f", {n_repeats} times" if n_repeats > 1 else ""
    elapsed = duration(sum(result.fit_s for head in crossed.heads for result in head.results))
    return (
        f"These are figures of {crossed.folds.n}-fold cross-validation{times}, in {elapsed}: each image was tested by "
        f"heads that had seen neither it nor its group or copies. ± is the standard deviation over the folds. The "
        f"heads in the run are trained on all images."
    )


def _against(metrics: Metrics, commonest: str, share: float) -> str:
    """Return that a head is not better than the same answer for all images, right for this share; empty if it is."""
    if metrics.is_above(share):
        return ""
    how = "not clearly" if metrics.accuracy > share else "no"
    return f"; {how} better than always answering {commonest}"


def _balanced(metrics: Metrics) -> str:
    return f"balanced accuracy {_percent(metrics.balanced_accuracy or 0)}, "


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def run_json(run: Run) -> dict[str, Any]:
    """Return what the heads achieved, as JSON values."""
    commonest, share = run.features.test_baseline
    precisions = {
        result.name: result.metrics.multilabel.mean_average_precision
        for result in run.results
        if result.metrics.multilabel
    }
    return {
        "run_dir": str(run.dir),
        "recipe_key": run.features.recipe.key,
        "random_weights": run.features.recipe.has_random_weights,
        "warnings": run.warnings,
        "feature_shape": run.features.X.shape[1:],
        "accuracy": {result.name: result.metrics.accuracy for result in run.results},
        **({"mean_average_precision": precisions} if precisions else {}),
        **(_folds_json(run, run.cross_validation) if run.cross_validation else {}),
        "balanced_accuracy": {result.name: result.metrics.balanced_accuracy for result in run.results},
        "pr_auc": {result.name: result.metrics.pr_auc for result in run.results},
        "baseline": {"class": commonest, "accuracy": share},
        "better_than_baseline": {result.name: result.metrics.is_above(share) for result in run.results},
    }


def _folds_json(run: Run, crossed: CrossValidation) -> dict[str, Any]:
    heads = {result.name: head for result, head in zip(run.results, crossed.heads, strict=True)}
    return {
        "folds": crossed.folds.n,
        "fold_repeats": len(crossed.folds.numbers),
        "accuracy_sd": {name: head.accuracy_sd for name, head in heads.items()},
        "fold_accuracies": {name: head.accuracies for name, head in heads.items()},
    }
