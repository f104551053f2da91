"""Plans an extraction: what is missing, what a sample of it takes, and what all of it will take."""

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Unpack

import numpy as np

from featx.backbones import Weights, is_network_file
from featx.dataset import Data, ImageDataset, ImageFolders, SkippedImage, images_of, read_batches
from featx.engines import (
    AUTO,
    ENGINES,
    EngineOptions,
    calibration_rows,
    choose_calibration,
    choose_engine,
    cpu_engine,
    fast_precision,
    is_converted,
)
from featx.errors import FeatxError
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    ExtractionOptions,
    RecipeOptions,
    check_options,
    options_before,
    resolve_recipe,
    split_options,
)
from featx.extract.pipeline import strict_error
from featx.extract.planning.estimate import Estimate, Plan
from featx.extract.planning.survey import Survey, missing_work, sample_rows, survey
from featx.extract.planning.trial import NOT_TRIED, Trial, try_out
from featx.images import Views, as_views
from featx.recipe import PRECISIONS, Recipe
from featx.storage import TEMPORARY_PREFIX, StoragePath, as_cache_dir, as_data, make_cache, workshop
from featx.system import as_workers, cuda_capability, shown, waiting
from featx.text import printable

#: Begins the name of a plan's folder in the cache, which goes when the plan is made.
FOLDER_PREFIX = f"{TEMPORARY_PREFIX}plan-"

#: Bytes that the list of a data set takes for each image: 600 to 900 when 60,000 were scanned.
LISTING_BYTES = 900

#: Seconds that are timed at a time.
PASS_S = 2.0

#: Seconds after which nothing but what an extraction would do is tried any more: starting a process for one more engine
#: and precision, and converting a network for it, takes ten seconds or more.
BUDGET_S = 25.0

#: Images that are decoded at a time to see whether they can be read.
_BATCH_SIZE = 16


def plan_extraction(
    data_dir: Data,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    workers: int | None = None,
    strict: bool = False,
    show: bool = False,
    views: Views | int | None = None,
    deadline_s: float | None = None,
    tune: str | None = None,
    **options: Unpack[ExtractionOptions],
) -> Plan:
    """Return what `extract_features` with the same arguments will cost on this machine: time, disk and memory.

    It runs stage one on a sample of 64 images, always the same ones, with each engine and precision in its own process:
    first with those that `extract_features` would use, then with as many others as half a minute allows. Digests of
    files and converted networks stay in the cache, and the extraction uses them; stores do not change.

    >>> from pathlib import Path
    >>> plan = plan_extraction(Path("data"), image_size=(150, 150), deadline_s=8 * 3600)  # doctest: +SKIP
    >>> plan.chosen.time_s, plan.chosen.disk.size_bytes, plan.chosen.n_machines  # doctest: +SKIP

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`.
        cache_dir: the cache.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image of the sample that cannot be read, instead of leaving it out.
        show: show progress on stderr.
        views: augmented views to plan for as well.
        deadline_s: seconds in which the extraction must be done, to learn how many machines that takes.
        tune: a block that will be tuned, see `featx.train_top`: the plan is for the features of the layer before it.
        options: see `extract_features`. `"auto"`, for the engine or the precision, measures several.

    Raises:
        FeatxError: the data set, the backbone or the weights cannot be used, no image of the sample can be read, or no
            engine runs here; the message says what to do.
    """
    started = time.perf_counter()
    named = ImageFolders.of(data_dir)
    root, cache_dir = _here(as_data(named.root)), _here(as_cache_dir(cache_dir))
    recipe_options, engine_options = split_options(options)
    check_options(cache_dir, **recipe_options)
    if tune is not None:
        _, recipe_options = options_before(tune, cache_dir, **recipe_options)
    views, workers = as_views(views), as_workers(workers)
    if deadline_s is not None and not (isinstance(deadline_s, Real) and deadline_s > 0):
        raise FeatxError(f"A deadline is a number of seconds above 0. Received: {shown(deadline_s)}")
    is_scanned = isinstance(data_dir, ImageDataset)
    found = survey(data_dir if is_scanned else replace(named, root=root), cache_dir, show=show)
    recipe, weights = resolve_recipe(cache_dir, found.dataset, **recipe_options)
    recipes = _recipes(recipe, weights, recipe_options, found.dataset, cache_dir)
    configurations = _configurations(engine_options, recipes)
    sample, unreadable = _sample(found.dataset, recipe, workers, strict=strict)
    calibration = calibration_rows(choose_calibration(found.dataset), found.dataset)
    estimates = []
    with _work_folder(cache_dir) as work_dir:

        def estimate(how: EngineOptions, of: Recipe, stop_at: float = math.inf) -> Estimate:
            images, images_views = missing_work(found, of, views, cache_dir)
            missing = Estimate(
                engine=how.engine, precision=of.precision, images=images, views=images_views, listing_s=found.listing_s
            )
            trial = Trial(
                missing=missing,
                recipe=of,
                weights=weights,
                options=how,
                data_dir=root,
                sample=tuple(found.dataset.paths[row] for row in sample),
                calibration=tuple(found.dataset.paths[row] for row in calibration),
                cache_dir=cache_dir,
                work_dir=work_dir,
                workers=workers,
                views=views,
                pass_s=PASS_S,
            )
            with waiting(f"plan {missing.name}", show=show):
                return _estimate(trial, found, stop_at) if missing.n_missing else missing

        likely = _likely(configurations, recipe, engine_options)
        tried = {likely: estimate(*configurations[likely])}
        for number, one in enumerate(configurations):
            if number not in tried:
                tried[number] = estimate(*one, stop_at=started + BUDGET_S)
        estimates = [tried[number] for number in range(len(configurations))]
        chosen = _chosen(estimates, recipe, engine_options)
        if chosen.reason == NOT_TRIED:
            number = estimates.index(chosen)
            estimates[number] = chosen = estimate(*configurations[number])
    if all(estimate.reason for estimate in estimates):
        failed = next((one for one in estimates if one.reason != NOT_TRIED), estimates[0])
        raise FeatxError(f"{failed.name} cannot run here: {failed.reason}")
    return Plan(
        data_dir=root,
        backbone=recipe.backbone,
        layer=recipe.layer,
        image_size=recipe.image_size,
        n_images=found.n_images,
        n_train=found.n_train,
        size_bytes=found.size_bytes,
        n_unread=found.n_unread,
        n_sample=len(sample),
        warnings=found.dataset.warnings,
        unreadable=(*found.dataset.unreadable, *unreadable),
        views=views,
        deadline_s=deadline_s,
        dtype=recipe.dtype,
        fast=fast_precision(recipe.backbone),
        estimates=tuple(
            replace(one, is_chosen=one is chosen, n_machines=one.machines_for(deadline_s)) for one in estimates
        ),
        elapsed_s=time.perf_counter() - started,
    )


def _here(path: StoragePath) -> Path:
    """Return a path on this machine.

    Raises:
        FeatxError: it is elsewhere, where reading an image may take as long as the network likes.
    """
    if isinstance(path, Path):
        return path
    raise FeatxError(
        f"A plan needs images and a cache on this machine: copy a few hundred images here, and plan for those. "
        f"Received: {printable(path)}"
    )


def _recipes(
    recipe: Recipe, weights: Weights, options: RecipeOptions, dataset: ImageDataset, cache_dir: Path
) -> list[Recipe]:
    """Return `recipe` in each precision that `options` may mean."""
    if options["precision"] != AUTO:
        return [recipe]
    # Found once: looking for imagenet-or-random again would warn again.
    if not is_network_file(recipe.backbone):
        options = {**options, "weights": str(weights.path or weights.digest.replace("random-", "random:"))}
    each: list[RecipeOptions] = [{**options, "precision": precision} for precision in PRECISIONS]
    return [resolve_recipe(cache_dir, dataset, **one)[0] for one in each]


def _configurations(options: EngineOptions, recipes: list[Recipe]) -> list[tuple[EngineOptions, Recipe]]:
    """Return each engine that may be meant with each precision that it has.

    Raises:
        FeatxError: the engine asked for has not the precision asked for.
    """
    found = [
        (replace(options, engine=engine), recipe)
        for engine, entry in ENGINES.items()
        for recipe in recipes
        if recipe.precision in entry.precisions and entry.runs(recipe.backbone)
        if engine == options.engine or (options.engine == AUTO and entry.suits(recipe) and entry.is_installed)
    ]
    if not found:
        choose_engine(options, recipes[0])  # which says why
    return found


def _sample(
    dataset: ImageDataset, recipe: Recipe, workers: int | None, *, strict: bool
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return rows of the images to be timed, `(k,)` int64, and path and reason of those that cannot be read.

    Raises:
        ImageError: `strict`, and one cannot be read.
        FeatxError: none of them can be read.
    """
    rows = sample_rows(dataset)
    images = images_of(dataset)[rows]
    batches = read_batches(
        images.sources, images.digests, recipe.image_size, _BATCH_SIZE, workers, aspect_ratio=recipe.aspect_ratio
    )
    bad = {image.row: image.reason for batch in batches for image in batch.unreadable}
    paths = [dataset.paths[row] for row in rows]
    if strict and bad:
        first = min(bad)
        raise strict_error(SkippedImage.of(dataset.root / paths[first], b"", bad[first]))
    if len(bad) == len(rows):
        raise FeatxError(
            f"None of {len(rows)} images of {printable(dataset.root)} can be read. The first is {printable(paths[0])} "
            f"({bad[0]})."
        )
    return np.delete(rows, list(bad)), [(paths[row], reason) for row, reason in bad.items()]


@contextmanager
def _work_folder(cache_dir: Path) -> Iterator[Path]:
    """Yield a folder in the cache, so on the disk of the features. It is always removed in the end."""
    with ExitStack() as stack:
        try:
            make_cache(cache_dir)
            folder = stack.enter_context(workshop(cache_dir / f"{FOLDER_PREFIX}{uuid.uuid4().hex}"))
        except OSError as error:
            raise FeatxError(
                f"The cache {printable(cache_dir)} cannot be written ({error.strerror}); choose another --cache-dir."
            ) from error
        yield folder


def _estimate(trial: Trial, found: Survey, stop_at: float) -> Estimate:
    """Return what the images that are missing cost, or why that is not known.

    Which images an int8 network is calibrated on depends on all of them. If not all were read, it is one for this plan
    only: an extraction that found it in the cache would use it, too.
    """
    estimate = trial.missing
    if ENGINES[trial.options.engine].converts and not is_converted(trial.recipe, trial.cache_dir):
        is_for_all = not (found.n_unread and trial.recipe.precision == "int8")
        trial = replace(trial, missing=replace(estimate, is_converted=is_for_all))
        estimate = try_out(trial, "convert", stop_at)
    if not estimate.reason:
        estimate = try_out(replace(trial, missing=estimate), "measure", stop_at)
    return replace(estimate, peak_memory_bytes=estimate.peak_memory_bytes + LISTING_BYTES * found.n_images)


def _likely(configurations: list[tuple[EngineOptions, Recipe]], recipe: Recipe, options: EngineOptions) -> int:
    """Return the number of the configuration that `featx extract` takes, as far as can be told without Keras."""
    is_known = cuda_capability() is None or is_network_file(recipe.backbone)
    engine = choose_engine(options, recipe) if is_known else "keras"
    wanted = [(engine, recipe.precision), (configurations[0][0].engine, recipe.precision)]
    kinds = [(how.engine, of.precision) for how, of in configurations]
    return next((kinds.index(kind) for kind in wanted if kind in kinds), 0)


def _chosen(estimates: list[Estimate], recipe: Recipe, options: EngineOptions) -> Estimate:
    """Return the one that `featx extract` takes; where there is a GPU, only Keras knows whether it can use it."""
    of_precision = [one for one in estimates if one.precision == recipe.precision]
    if cuda_capability() is None:
        engine = choose_engine(options, recipe)
    else:
        engine = next((one.engine for one in of_precision if one.on_gpu), None) or cpu_engine(recipe)
    return next((one for one in of_precision if one.engine == engine), of_precision[0])
