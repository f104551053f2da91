"""`featx extract`: stage one, or a picture of what augmented views will look like."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.dataset import ImageDataset, ImageFolders
from featx.extract import ExtractedViews, Extraction, extract_features
from featx.storage import StoragePath, new_folder
from featx.system import duration
from featx.text import Shown, shown_text
from featx.train import REPORTS_NAME, data_warnings

#: Skipped images that the terminal names; `skipped.csv` has all.
SKIPPED_SHOWN = 10


@click.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE_OF_LAYERS
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Compute on a Ray cluster: auto on one of its machines, HOST:PORT, or ray://HOST:PORT. All its machines need "
    "DATA and the cache under the same paths.  [default: this machine only]",
)
@opt.VIEWS
@opt.option(
    "--keep-pixels",
    is_flag=True,
    help="Also keep the decoded images, so that other networks with the same image size decode nothing. This takes "
    "HEIGHT × WIDTH × 3 bytes for each image.",
)
@click.option("--preview", is_flag=True, help="Draw some images with their views into a picture, and extract nothing.")
@opt.OUTPUT
def extract(data: ImageFolders, cache_dir: StoragePath, preview: bool, output: opt.Output, **options: Any) -> None:
    """Stage one: compute the features that are not in the store yet.

    \b
    Example:
      featx extract data/ --backbone vgg16 --image-size 150
      featx extract data/ --views 8 --flip --rotation 20 --preview
      featx extract data/ --ray auto
      featx extract data/ --backbone resnet50 --image-size 224 --keep-pixels
    """
    if preview:
        from featx.report import draw_preview

        chosen = {name: options[name] for name in ("views", "backbone", "image_size", "resize")}
        with new_folder(None, Path(REPORTS_NAME)) as making:
            name = draw_preview(data, making.built, cache_dir=cache_dir, **chosen).name
        picture = making.path / name
        output.say(picture, lambda path: shown_text([f"Views: {path}"]), lambda path: {"preview": str(path)})
    else:
        extraction = extract_features(data, cache_dir=cache_dir, show=output.show, **options)
        output.say(extraction, extraction_text, extraction_json)


def _classes(dataset: ImageDataset) -> str:
    n = len(dataset.class_names)
    return f"with {n} labels" if dataset.is_multilabel else f"in {n} classes"


def extraction_text(extraction: Extraction) -> Shown:
    """Return what an extraction did, in a few lines."""
    dataset, skipped, views = extraction.dataset, extraction.skipped, extraction.views
    line = (
        f"{dataset.n_images:,} images {_classes(dataset)} "
        f"({dataset.n_train:,} training, {dataset.n_test:,} test): {extraction.n_computed:,} computed, "
        f"{extraction.n_cached:,} from the cache, {len(skipped):,} skipped"
    )
    n_undecoded = len(skipped) - len(dataset.unreadable)  # of those that the data set has
    n_copies = dataset.n_images - extraction.n_computed - extraction.n_cached - n_undecoded
    lines = [f"{line}, {n_copies:,} exact copies." if n_copies else f"{line}."]
    timings = extraction.timings
    if timings.n_images:
        rate = timings.n_images / timings.elapsed_s
        lines.append(
            f"{duration(timings.elapsed_s)} in {extraction.recipe.precision} ({rate:,.0f} images/s): "
            f"{duration(timings.start_s)} to start, then waits of {duration(timings.decode_s)} for decoding, "
            f"{duration(timings.forward_s)} for the network, {duration(timings.write_s)} for writing; "
            f"{duration(extraction.elapsed_s)} in total."
        )
    if timings.n_kept:
        lines.append(f"featx had kept the pixels of {timings.n_kept:,} images, so it did not decode them again.")
    if extraction.faster:
        faster = extraction.faster
        lines.append(f"{faster.precision} would have taken about {duration(faster.elapsed_s)}: --precision fast.")
    if views:
        lines += _views_lines(views)
    lines += [f"Skipped {image.path}: {image.reason}" for image in skipped[:SKIPPED_SHOWN]]
    if len(skipped) > SKIPPED_SHOWN:
        lines.append(f"… and {len(skipped) - SKIPPED_SHOWN:,} more.")
    if skipped:
        lines.append(f"Skipped images: {extraction.store_dir / 'skipped.csv'}")
    lines += _store_lines(extraction)
    for other in extraction.others:
        lines.append(f"{other.recipe.layer}: {other.n_computed:,} computed, {other.n_cached:,} from the cache.")
        lines += [*(_views_lines(other.views) if other.views else []), *_store_lines(other)]
    return shown_text(lines)


def _store_lines(extraction: Extraction) -> list[str]:
    views = [f"Features of views: {extraction.views.store_dir}"] if extraction.views else []
    return [f"Features: {extraction.store_dir}", *views]


def _views_lines(extracted: ExtractedViews) -> list[str]:
    views = extracted.views
    lines = [
        f"{views.n:,} views of each of {extracted.n_images:,} {'' if views.of_test else 'training '}images "
        f"({views.augmentation}): {extracted.n_computed:,} computed, {extracted.n_cached:,} from the cache."
    ]
    if extracted.n_computed:
        rate = extracted.n_computed / extracted.timings.elapsed_s
        decoding = ", without decoding, since featx had kept the pixels" if extracted.timings.n_kept else ""
        lines.append(f"{duration(extracted.timings.elapsed_s)} for the views ({rate:,.0f} views/s{decoding}).")
    return lines


def extraction_json(extraction: Extraction) -> dict[str, Any]:
    """Return what an extraction did, as JSON values."""
    dataset = extraction.dataset
    return {
        "store_dir": str(extraction.store_dir),
        "recipe_key": extraction.recipe.key,
        "layer": extraction.recipe.layer,
        "precision": extraction.recipe.precision,
        "n_images": dataset.n_images,
        "n_train": dataset.n_train,
        "n_test": dataset.n_test,
        "class_names": dataset.class_names,
        "warnings": data_warnings(dataset, dataset, [extraction.store_dir]),
        "n_computed": extraction.n_computed,
        "n_cached": extraction.n_cached,
        "skipped": [{"path": image.path, "reason": image.reason} for image in extraction.skipped],
        "timings": extraction.timings.to_dict(),
        "elapsed_s": extraction.elapsed_s,
        "views": _views_json(extraction.views) if extraction.views else None,
        "others": list(map(extraction_json, extraction.others)),
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
