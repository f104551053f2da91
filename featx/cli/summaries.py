"""What the commands say when they are done: for people, and as JSON."""

import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featx.compare import Comparison, duration
from featx.errors import printable
from featx.extract import ExtractedViews, Extraction
from featx.report import curve_verdict, table, verdict
from featx.train import Metrics, Run, data_warnings

#: So many skipped images are named on the terminal; `skipped.csv` has all.
SKIPPED_SHOWN = 10


def percent(share: float) -> str:
    """Return a share of 1 in per cent.

    >>> percent(0.8475)
    '84.8 %'
    """
    return f"{100 * share:.1f} %"


def extraction_text(extraction: Extraction) -> str:
    """Return what an extraction did, in a few lines."""
    dataset = extraction.dataset
    lines = [
        f"{dataset.n_images:,} images in {len(dataset.class_names)} classes "
        f"({dataset.n_train:,} training, {dataset.n_test:,} test): {extraction.n_computed:,} computed, "
        f"{extraction.n_cached:,} from the cache, {len(extraction.skipped):,} skipped."
    ]
    n_undecoded = len(extraction.skipped) - len(dataset.unreadable)  # of those that the data set has
    n_copies = dataset.n_images - extraction.n_computed - extraction.n_cached - n_undecoded
    if n_copies:
        lines[0] = lines[0].removesuffix(".") + f", {n_copies:,} the same as another."
    timings = extraction.timings
    if timings.n_images:
        rate = timings.n_images / timings.elapsed_s
        lines.append(
            f"{duration(timings.elapsed_s)} in {extraction.recipe.precision} ({rate:,.0f} images/s): "
            f"start {duration(timings.start_s)}, then waiting for decode {duration(timings.decode_s)}, "
            f"forward {duration(timings.forward_s)}, write {duration(timings.write_s)}; "
            f"{duration(extraction.elapsed_s)} in all."
        )
    if extraction.views:
        lines += _views_lines(extraction.views)
    lines += [f"Skipped {printable(image.path)}: {image.reason}" for image in extraction.skipped[:SKIPPED_SHOWN]]
    if len(extraction.skipped) > SKIPPED_SHOWN:
        lines.append(f"… and {len(extraction.skipped) - SKIPPED_SHOWN:,} more.")
    if extraction.skipped:
        lines.append(f"All that was skipped: {printable(extraction.store_dir / 'skipped.csv')}")
    lines.append(f"Features: {printable(extraction.store_dir)}")
    if extraction.views:
        lines.append(f"Features of views: {printable(extraction.views.store_dir)}")
    return "\n".join(lines)


def _views_lines(extracted: ExtractedViews) -> list[str]:
    """Return what an extraction did about augmented views."""
    views = extracted.views
    lines = [
        f"{views.n:,} views of each of {extracted.n_images:,} {'' if views.of_test else 'training '}images "
        f"({views.augmentation}): {extracted.n_computed:,} computed, {extracted.n_cached:,} from the cache."
    ]
    if extracted.n_computed:
        rate = extracted.n_computed / extracted.timings.elapsed_s
        lines.append(f"{duration(extracted.timings.elapsed_s)} for the views ({rate:,.0f} views/s).")
    return lines


def extraction_json(extraction: Extraction) -> dict[str, Any]:
    """Return what an extraction did, as JSON knows it."""
    dataset = extraction.dataset
    return {
        "store_dir": str(extraction.store_dir),
        "recipe_key": extraction.recipe.key,
        "precision": extraction.recipe.precision,
        "n_images": dataset.n_images,
        "n_train": dataset.n_train,
        "n_test": dataset.n_test,
        "class_names": list(dataset.class_names),
        "warnings": list(data_warnings(dataset, dataset, [extraction.store_dir])),
        "n_computed": extraction.n_computed,
        "n_cached": extraction.n_cached,
        "skipped": [{"path": image.path, "reason": image.reason} for image in extraction.skipped],
        "timings": extraction.timings.to_dict(),
        "elapsed_s": extraction.elapsed_s,
        "views": _views_json(extraction.views) if extraction.views else None,
    }


def _views_json(extracted: ExtractedViews) -> dict[str, Any]:
    return {
        "n_views": extracted.views.n,
        "augmentation": asdict(extracted.views.augmentation),
        "of_test": extracted.views.of_test,
        "store_dir": str(extracted.store_dir),
        "recipe_key": extracted.recipe.key,
        "n_images": extracted.n_images,
        "n_computed": extracted.n_computed,
        "n_cached": extracted.n_cached,
        "timings": extracted.timings.to_dict(),
    }


def comparison_text(comparison: Comparison, report_dir: Path) -> str:
    """Return the table and the verdict, for a terminal."""
    width = min(118, shutil.get_terminal_size((118, 24)).columns)
    sentences = [text for text in (verdict(comparison), curve_verdict(comparison)) if text]
    words = "\n".join(textwrap.fill(sentence, width) for sentence in sentences)
    page = printable(report_dir / "index.html")
    return f"{table(comparison)}\n{words}\n\nReport: {printable(report_dir)}; open {page} in a browser"


def run_text(run: Run) -> str:
    """Return what the heads achieved, in a few lines."""
    dataset, recipe = run.features.dataset, run.features.recipe
    commonest, share = run.features.test_baseline
    lines = [
        f"{recipe.backbone} features {run.features.X.shape[1:]} of {dataset.n_train:,} training and "
        f"{dataset.n_test:,} test images; they took {duration(run.features.timings.elapsed_s)} to make."
    ]
    if recipe.has_random_weights:
        lines.append("The backbone has random weights: these figures say nothing about transfer learning.")
    for result in run.results:
        metrics = result.metrics
        lines.append(
            f"{result.name:>8}: {percent(metrics.accuracy)} of the test images "
            f"({percent(metrics.accuracy_low)} to {percent(metrics.accuracy_high)}), loss {metrics.loss:.3f}, "
            f"trained in {duration(result.fit_s)}{_against(metrics, commonest, share)}"
        )
    lines.append(f"Always answering {printable(commonest)}, the commonest class, gets {percent(share)} of them right.")
    lines.append(f"Run: {printable(run.dir)}")
    return "\n".join(lines)


def _against(metrics: Metrics, commonest: str, share: float) -> str:
    """Return that a head is not better than the same answer for all images, right for this share; empty if it is."""
    if metrics.is_above(share):
        return ""
    how = "not clearly" if metrics.accuracy > share else "no"
    return f"; {how} better than always answering {printable(commonest)}"


def run_json(run: Run) -> dict[str, Any]:
    """Return what the heads achieved, as JSON knows it."""
    commonest, share = run.features.test_baseline
    return {
        "run_dir": str(run.dir),
        "recipe_key": run.features.recipe.key,
        "random_weights": run.features.recipe.has_random_weights,
        "warnings": list(run.warnings),
        "feature_shape": [int(n) for n in np.shape(run.features.X)[1:]],
        "accuracy": {result.name: result.metrics.accuracy for result in run.results},
        "baseline": {"class": commonest, "accuracy": share},
        "better_than_baseline": {result.name: result.metrics.is_above(share) for result in run.results},
    }
