"""Plans an extraction: what is missing, what a sample of it takes, and what all of it will take."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from featx.dataset import Data, ImageFolders, SkippedImage, images_of, read_batches
from featx.engines import default_batch_size
from featx.errors import FeatxError, printable
from featx.extract.options import DEFAULT_CACHE_DIR, ExtractionOptions, split_options
from featx.extract.pipeline import strict_error
from featx.extract.planning.missing_work import missing_images, missing_views
from featx.extract.planning.planned import Estimate, Plan
from featx.extract.planning.survey import Survey, sample_rows, survey
from featx.extract.planning.trials import Trials
from featx.extract.planning.ways import Way, chosen_way, find_ways
from featx.images import Views, as_views
from featx.storage import ABANDONED_AFTER_S, TEMPORARY_PREFIX, StoragePath, as_data, as_storage_path
from featx.system import as_workers, progress_bar, shown

#: Begins the name of a plan's folder in the cache, which goes when the plan is made.
FOLDER_PREFIX = f"{TEMPORARY_PREFIX}plan-"


def plan_extraction(
    data_dir: Data,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    views: Views | int | None = None,
    deadline_s: float | None = None,
    **options: Unpack[ExtractionOptions],
) -> Plan:
    """Return what `extract_features` with the same arguments will cost on this machine: time, disk and memory.

    Stage one is run on a sample of 64 images, always the same ones, with each engine and precision in a process of its
    own. In the cache, digests of files and converted networks stay, from which the extraction profits; no store is
    touched.

    >>> from pathlib import Path
    >>> plan = plan_extraction(Path("data"), image_size=(150, 150), deadline_s=8 * 3600)  # doctest: +SKIP
    >>> plan.chosen.time_s, plan.chosen.room.size_bytes, plan.chosen.n_machines  # doctest: +SKIP

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`.
        cache_dir: where stores lie.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image of the sample that cannot be read, instead of leaving it out.
        show: show progress on stderr.
        views: augmented views to plan for as well.
        deadline_s: seconds in which all is to be done; how many machines does that take?
        options: see `extract_features`; each engine and each precision is measured if it is `"auto"`.

    Raises:
        FeatxError: the data set, the backbone or the weights are not fit, no image of the sample can be read, or no
            engine runs here; the message says what to do.
    """
    started = time.perf_counter()
    named = ImageFolders.of(data_dir)
    root, cache_dir = _here(as_data(named.root)), _here(as_storage_path(cache_dir))
    recipe_options, engine_options = split_options(options)
    views, workers = as_views(views), as_workers(workers)
    if deadline_s is not None and not (isinstance(deadline_s, Real) and deadline_s > 0):
        raise FeatxError(f"A deadline is a number of seconds above 0. Received: {shown(deadline_s)}")
    found = survey(replace(named, root=root), cache_dir, show=show)
    ways = find_ways(found.dataset, cache_dir, engine_options, recipe_options)
    sample, unreadable = _sample(found, ways[0], workers, strict=strict)
    with _work_folder(cache_dir) as work_dir, progress_bar(len(ways), "plan", "trials", show=show) as bar:
        trials = Trials(found, sample, cache_dir, work_dir, workers, views, partial(_redraw, bar))
        estimates = [_estimate(way, trials, bar) for way in ways]
    if all(estimate.reason for estimate in estimates):
        raise FeatxError(f"{ways[0].name} cannot run here: {estimates[0].reason}")
    chosen = chosen_way(ways, engine_options, str(recipe_options["precision"]), trials.auto_engine)
    return Plan(
        data_dir=root,
        backbone=chosen.recipe.backbone,
        image_size=chosen.recipe.image_size,
        n_images=found.n_images,
        n_train=found.n_train,
        size_bytes=found.size_bytes,
        n_unread=found.n_unread,
        n_sample=len(sample),
        warnings=found.dataset.warnings,
        unreadable=(*found.dataset.unreadable, *unreadable),
        views=views,
        deadline_s=deadline_s,
        dtype=chosen.recipe.dtype,
        estimates=tuple(
            replace(
                estimate,
                is_chosen=way == chosen,
                n_machines=estimate.machines_for(deadline_s) if deadline_s and not estimate.reason else None,
            )
            for way, estimate in zip(ways, estimates, strict=True)
        ),
        elapsed_s=time.perf_counter() - started,
    )


def _estimate(way: Way, trials: Trials, bar: Any) -> Estimate:
    """Return what the extraction costs in this way; nothing is tried out if there is nothing to compute."""
    bar.set_postfix_str(way.name, refresh=False)
    found, views, cache_dir = trials.found, trials.views, trials.cache_dir
    missing = Estimate(
        engine=way.options.engine,
        precision=way.recipe.precision,
        images=missing_images(found, way.recipe, cache_dir),
        views=missing_views(found, way.recipe, views, cache_dir) if views else None,
    )
    estimate = trials.estimate(way, missing) if missing.n_missing else replace(missing, listing_s=found.listing_s)
    bar.update()
    return estimate


def _sample(
    found: Survey, way: Way, workers: int | None, *, strict: bool
) -> tuple[np.ndarray, tuple[tuple[str, str], ...]]:
    """Return rows of the images to be timed, `(k,)` int64, and path and reason of those that cannot be read.

    Raises:
        ImageError: `strict`, and one cannot be read.
        FeatxError: not one of them can be read.
    """
    dataset = found.dataset
    rows = sample_rows(dataset)
    images = images_of(dataset)[rows]
    batches = read_batches(
        images.sources, images.digests, way.recipe.image_size, default_batch_size(way.options), workers
    )
    bad = {image.row: image.reason for batch in batches for image in batch.unreadable}
    if strict and bad:
        row, reason = next(iter(bad.items()))
        raise strict_error(SkippedImage.of(dataset.root / dataset.paths[rows[row]], b"", reason))
    if len(bad) == len(rows):
        raise FeatxError(
            f"Not one of {len(rows)} images of {printable(dataset.root)} can be read: the first is "
            f"{printable(dataset.paths[rows[0]])}, {bad[0]}."
        )
    readable = np.setdiff1d(np.arange(len(rows)), list(bad))
    return rows[readable], tuple((dataset.paths[rows[row]], reason) for row, reason in bad.items())


def _here(place: StoragePath) -> Path:
    """Return a place on this machine.

    Raises:
        FeatxError: it is elsewhere, where reading an image may take as long as the network likes.
    """
    if isinstance(place, Path):
        return place
    raise FeatxError(
        f"A plan is made of images that lie on this machine, with a cache on it: copy some hundred images here, and "
        f"plan for those. Received: {printable(place)}"
    )


@contextmanager
def _work_folder(cache_dir: Path) -> Iterator[Path]:
    """Yield a folder in the cache, on the disk that features are to lie on, that goes whatever happens."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        for path in cache_dir.glob(f"{FOLDER_PREFIX}*"):
            with suppress(OSError):  # of a plan that was killed
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                    shutil.rmtree(path)
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=cache_dir)
    except OSError as error:
        raise FeatxError(
            f"The cache {printable(cache_dir)} cannot be written ({error.strerror}); choose another --cache-dir."
        ) from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _redraw(bar: Any) -> None:
    """Let a bar on a terminal show that time goes by; in a log, that would be one line more."""
    if not bar.disable and bar.fp.isatty():
        bar.refresh()
