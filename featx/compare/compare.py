"""The comparison: all approaches on one split, with the same seed, and the cost of each."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from featx.backbones import NetworkClass, is_network_file, make_class_map, read_class_list
from featx.compare.baselines import (
    BASELINE_NAMES,
    KEPT_PIXELS,
    REPORT_BACKBONE,
    REPORT_RESNET50,
    report_resnet50_options,
    report_resnet50_views,
)
from featx.compare.candidates import (
    N_SEEDS,
    N_SEEDS_OF_SHOTS,
    SHOTS,
    Candidate,
    Curve,
    Evaluation,
    FeatureRequest,
    Procedure,
    baseline_candidate,
    direct_applications,
    direct_candidates,
    evaluate,
    head_candidates,
    options_of,
    report_resnet50_candidates,
    tuned_candidates,
)
from featx.compare.error_analysis import analyse_errors
from featx.compare.result import Comparison, ranked, with_p_values
from featx.dataset import Data, ImageDataset, SkippedImage, is_sample, scan
from featx.engines import check_engine
from featx.errors import FeatxError, reason_of
from featx.extract import (
    DEFAULT_CACHE_DIR,
    RECIPE_DEFAULTS,
    ExtractionOptions,
    ExtractionSettings,
    RecipeOptions,
    check_options,
    kept_aspect_ratio,
    layers_of,
    options_before,
    split_options,
)
from featx.heads import DEFAULT_HEADS, Training, check_class_weights, check_multilabel_heads, check_training, head_names
from featx.images import Views, as_views
from featx.recipe import Recipe
from featx.storage import StoragePath, as_cache_dir, as_path, check_empty
from featx.store import FeatureStore
from featx.system import (
    as_workers,
    check_name,
    command_line,
    hardware,
    names,
    now,
    shown,
    versions,
    waiting,
    whole_number,
)
from featx.text import printable
from featx.train import (
    DEFAULT_TRAINING,
    MAX_REPEATS,
    Folds,
    Tuning,
    accuracy_warnings,
    check_folds,
    crossing_warning,
    data_warnings,
    divide,
    find_copies,
    read_rows,
    settings_of,
    validation_part,
    without_test,
)

log = logging.getLogger("featx")


def compare_approaches(
    data_dir: Data,
    *,
    backbones: Sequence[Path | str] | Path | str = (RECIPE_DEFAULTS["backbone"],),
    heads: Sequence[str] | str = DEFAULT_HEADS,
    baselines: Sequence[str] | str = (),
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    training: Training = DEFAULT_TRAINING,
    workers: int | None = None,
    strict: bool = False,
    learning_curve: bool | Sequence[int] = False,
    shots: bool | Sequence[int] = False,
    views: Views | int | None = None,
    repeats: int = 1,
    folds: int | None = None,
    fold_repeats: int = 1,
    direct: bool = False,
    maps: Sequence[str] | str = (),
    class_list: Path | str | None = None,
    tune: str | None = None,
    runs_dir: Path | str | None = None,
    layers: Sequence[str] | str = (),
    **options: Unpack[ExtractionOptions],
) -> Comparison:
    """Compare heads on each backbone's features, and the baselines, on the images in `data_dir`.

    Missing features are extracted first. Their time counts even if they come from the cache.

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`; see `featx.dataset.scanning.scan`.
        backbones: names in `featx.backbones.table.BACKBONES`, or one of them.
        heads: names in `featx.heads.registry.HEADS`, or one of them.
        baselines: names in `featx.compare.baselines.BASELINE_NAMES`, or one of them.
        cache_dir: where the feature stores are.
        training: how heads and baselines are trained; baselines use their own batch size.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        learning_curve: also train every approach on smaller parts of the training images; numbers of images, or True
            for 1 to 100 % of them. Each is trained with three seeds, or `repeats` if that is more.
        shots: also train every approach on few images of each class: numbers of them, or True for 1, 2, 5 and 10. Each
            is drawn with ten seeds, or `repeats` if that is more. These points replace those of `learning_curve`.
        views: augmented views that each head is trained on as well, in a row of its own.
        repeats: how often each approach is trained, each time with the next seed.
        folds: divide all images, also those of the test split, into this many folds, and test each fold with models
            that were trained on the others. Groups and copies of an image, also near-duplicates, are not divided.
        fold_repeats: how often the images are divided, each time otherwise.
        direct: also use each backbone's whole pretrained network with its own classifier. A backbone without weights
            for the classifier is left out with a warning. If all lack them, that is an error.
        maps: with `direct`, which of the network's classes form which class; see
            `featx.backbones.class_map.make_class_map`.
        class_list: with `direct`, a JSON file with the network's classes; see
            `featx.backbones.class_map.read_class_list`.
        tune: also tune a block of each backbone, such as `"block5"`, or `"last"`, see `featx.train.train_top`.
        runs_dir: an empty or new folder. Each head on features, such as `vgg16-dense`, gets a run folder there as soon
            as it is trained. If None, no runs are kept.
        layers: several layers of one backbone, instead of the option `layer`: each has its rows. They are extracted in
            one pass, see `featx.extract.extract_features`, whose whole time counts for each.
        options: of stage one, by name; see `featx.extract.options.RecipeOptions`, without `backbone`, and
            `featx.engines.EngineOptions`.

    Raises:
        FeatxError: the data set, a backbone, the weights or the store cannot be used; the message says what to do.
    """
    given = {**locals()}  # before any of it is changed
    if "backbone" in options:
        raise TypeError("compare_approaches has no option 'backbone': use backbones, with one or more names")
    recipe_options, engine_options = split_options(options)
    check_training(training)
    backbones, baselines = _each_once("backbones", _as_text(backbones)), _each_once("baselines", baselines)
    maps, heads = names("maps", maps), head_names(heads)
    views, workers, repeats = as_views(views), as_workers(workers), whole_number("repeats", repeats, most=MAX_REPEATS)
    how = Procedure(training, repeats, _as_curve(learning_curve, shots, repeats))
    if folds is not None:
        folds, fold_repeats = _checked_folds(folds, fold_repeats, how, views, baselines)
    of_layers = layers_of(layers, recipe_options)
    _check_choice(backbones, baselines, of_layers, tune)
    of_backbones = [options_of(name, one, backbones) for name in backbones for one in of_layers]
    of_report = (
        report_resnet50_options({**recipe_options, "preprocess": None, "layout": None})
        if REPORT_RESNET50 in baselines
        else None
    )
    cache_dir = as_cache_dir(cache_dir)
    for recipe_of in [*of_backbones, *filter(None, [of_report])]:
        _check(recipe_of, engine_options.engine, cache_dir)
    before = [options_before(tune, cache_dir, **one) for one in of_backbones] if tune is not None else []
    network_classes = _network_classes(class_list, is_used=direct, maps=maps)
    runs_dir = _empty_folder(runs_dir)
    scanned = scan(data_dir, cache_dir, to_test=folds is None, show=training.show)
    _check_fit(scanned, how, heads, direct=direct)
    settings = ExtractionSettings(engine_options=engine_options, workers=workers, strict=strict, show=training.show)
    request = partial(FeatureRequest, scanned, data_dir, cache_dir, settings)
    of_heads = [
        request(one, views, partial(head_candidates, heads=heads, of_layers=len(of_layers) > 1)) for one in of_backbones
    ]
    requests = list(of_heads)
    requests += [
        _tuned_request(request, plain, one, views, *named, cache_dir)
        for plain, one, named in zip(requests, of_backbones, before, strict=False)
    ]
    if of_report:
        requests.append(request(of_report, report_resnet50_views(views), report_resnet50_candidates))
    warnings: list[str] = []
    if direct:
        map_to = partial(make_class_map, maps, class_list=network_classes, class_names=scanned.class_names)
        applications, warnings = direct_applications(backbones, recipe_options, map_to, cache_dir)
        requests += [request(whole, None, partial(direct_candidates, class_map)) for whole, class_map in applications]
    recipes = list(dict.fromkeys(chain.from_iterable(one.recipes for one in requests)))
    how = replace(how, settings=settings_of("compare", given, scanned, recipes))
    skipped = _extract(scanned, requests, of_heads if len(of_layers) > 1 else ())
    if folds is not None:
        scanned = without_test(scanned)
        how = replace(how, folds=_make_folds(requests, scanned, folds, fold_repeats, training))
    aspect_ratio = kept_aspect_ratio(recipe_options["resize"])
    candidate_of = partial(baseline_candidate, cache_dir=cache_dir, workers=workers, aspect_ratio=aspect_ratio)
    dataset, evaluations, left_out = _evaluate_all(requests, baselines, candidate_of, scanned, how, runs_dir)
    stores = [cache_dir / recipe.slug for recipe in recipes]
    limits = [*_random_weights_warnings(recipes), *_sample_warnings(scanned), *_kept_pixels_warnings(evaluations)]
    warnings = [*limits, *data_warnings(scanned, dataset, stores), *warnings, *left_out]
    comparison = _comparison(dataset, recipes, evaluations, how, warnings)
    return _analysed(comparison, dataset, evaluations, skipped, cache_dir, training)


def _extract(
    dataset: ImageDataset, requests: Sequence[FeatureRequest], of_layers: Sequence[FeatureRequest]
) -> list[SkippedImage]:
    """Compute what the stores lack, of several layers in one pass; return what cannot be read, each file once."""
    if of_layers:
        of_layers[0].extract_with(dataset, of_layers[1:])
    unreadable = (SkippedImage.of(dataset.root.absolute() / path, b"", reason) for path, reason in dataset.unreadable)
    skipped = dict.fromkeys(unreadable)  # each once, however many backbones it was skipped for
    for one in requests:
        skipped |= dict.fromkeys(one.extract(dataset).skipped)
    return list(skipped)


def _evaluate_all(
    requests: Sequence[FeatureRequest],
    baselines: Sequence[str],
    candidate_of: Callable[[ImageDataset, str], Candidate],
    dataset: ImageDataset,
    how: Procedure,
    runs_dir: Path | None,
) -> tuple[ImageDataset, list[Evaluation], list[str]]:
    """Return the images that could be read, what every candidate achieved on them, and a sentence for each left out.

    In cross-validation, all images are test images.

    Raises:
        FeatxError: all were left out.
    """
    evaluations: list[Evaluation] = []
    left_out: list[str] = []
    for request in requests:
        dataset, found = request.evaluate(dataset, how, left_out, runs_dir=runs_dir)
        evaluations += found
    for name in baselines:
        if name != REPORT_RESNET50:
            evaluations += evaluate(candidate_of(dataset, name), how, left_out)
    if not evaluations:
        raise FeatxError(" ".join(left_out))
    if how.folds:
        dataset = replace(dataset, is_test=np.ones(dataset.n_images, bool))
    return dataset, evaluations, left_out


def _checked_folds(
    folds: object, fold_repeats: object, how: Procedure, views: Views | None, baselines: Sequence[str]
) -> tuple[int, int]:
    """Return the numbers of folds and of repetitions; raise FeatxError if they do not go with the other options."""
    others = {
        "repeats (--repeats): use fold_repeats (--fold-repeats)": how.repeats > 1,
        "learning_curve (--learning-curve)": how.curve is not None,
        f"the baseline {REPORT_RESNET50}": REPORT_RESNET50 in baselines,
    }
    if wrong := [name for name, is_given in others.items() if is_given]:
        raise FeatxError(f"Cross-validation (folds, --folds) cannot be combined with {wrong[0]}.")
    return check_folds(folds, fold_repeats, views)


def _make_folds(
    requests: Sequence[FeatureRequest], dataset: ImageDataset, n_folds: int, n_repeats: int, training: Training
) -> Folds:
    """Return the folds, which keep together what the features of the first request find to be near-duplicates."""
    features = requests[0].features(dataset, training.memory)[0] if requests else None
    if features:
        return divide(features.dataset, features.X, n_folds, n_repeats, training)
    return divide(dataset, None, n_folds, n_repeats, training)


def _empty_folder(named: Path | str | None) -> Path | None:
    """Return the folder for runs, if there is one; raise FeatxError if there is something in it."""
    folder = as_path(named) if named else None
    if folder:
        check_empty(folder)
    return folder


def _network_classes(class_list: Path | str | None, *, is_used: bool, maps: Sequence[str]) -> tuple[NetworkClass, ...]:
    """Return the classes in a class list, if there is one; warn if nothing is applied directly."""
    if (maps or class_list) and not is_used:
        log.warning("maps and class_list (--map, --class-list) are only used with direct (--direct).")
    return read_class_list(as_path(class_list)) if is_used and class_list else ()


def _tuned_request(
    request: Callable[..., FeatureRequest],
    plain: FeatureRequest,
    options: RecipeOptions,
    views: Views | None,
    block: str,
    of_features: RecipeOptions,
    cache_dir: StoragePath,
) -> FeatureRequest:
    """Return the request for the features that a block is tuned on; `plain` is the one for those of its output."""
    # Weights are found once: looking for imagenet-or-random again would warn again.
    named = str(plain.weights.path or plain.weights.digest.replace("random-", "random:"))
    tuning: Tuning
    made = request(
        {**of_features, "weights": named}, views, lambda *found: tuned_candidates(tuning, plain.recipes[0], *found)
    )
    tuning = Tuning.of(block, options, made.recipes[0], made.weights, cache_dir)
    return made


def _as_curve(given: bool | Sequence[int], shots: bool | Sequence[int], repeats: int) -> Curve | None:
    """Return the learning curve that is asked for; None if there is none."""
    if shots is not False and not isinstance(given, bool):
        raise FeatxError("A learning curve has numbers of images (--curve-sizes) or numbers of each class (--shots).")
    of_class = (
        SHOTS if shots is True else _as_numbers("shots", "numbers of images of each class, like [1, 5, 10]", shots)
    )
    if of_class:
        return Curve(shots=of_class, n_seeds=max(N_SEEDS_OF_SHOTS, repeats))
    sizes = _as_numbers("learning_curve", "numbers of training images, like [50, 500]", given)
    return Curve(sizes, n_seeds=max(N_SEEDS, repeats)) if given else None


def _as_numbers(name: str, what: str, given: bool | Sequence[int]) -> tuple[int, ...]:
    """Return the numbers that are asked for; none for True and False."""
    if not isinstance(given, bool | Sequence) or isinstance(given, str):
        raise FeatxError(f"{name} is True, False, or {what}. Received: {shown(given)}")
    return () if isinstance(given, bool) else tuple(whole_number(f"a size of {name}", one) for one in given)


def _check(options: RecipeOptions, engine: str, cache_dir: StoragePath) -> None:
    """Raise FeatxError if there is no such recipe, or the engine cannot run it."""
    check_engine(engine, str(options["precision"]), str(options["backbone"]))
    check_options(cache_dir, **options)


def _as_text(backbones: Sequence[Path | str] | Path | str) -> Any:
    """Return the paths among backbones as text."""
    if isinstance(backbones, list | tuple):
        return [str(one) if isinstance(one, Path) else one for one in backbones]
    return str(backbones) if isinstance(backbones, Path) else backbones


def _each_once(what: str, given: Sequence[str] | str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names(what, given)))


def _check_choice(
    backbones: Sequence[str], baselines: Sequence[str], of_layers: Sequence[RecipeOptions], tune: str | None
) -> None:
    """Raise FeatxError if there is nothing to compare, or an option can only be meant for one of several backbones."""
    if not backbones and not baselines:
        raise FeatxError("There is nothing to compare: name a backbone or a baseline.")
    if tune is not None and not backbones:
        raise FeatxError("There is no backbone with a block to tune: name one.")
    if tune is not None and len(of_layers) > 1:
        raise FeatxError("Only one layer at a time can be compared with a tuned block: name one, or leave out --tune.")
    options = of_layers[0]
    for name in baselines:
        check_name(name, BASELINE_NAMES, f"A baseline must be one of {', '.join(BASELINE_NAMES)}.")
    if len({*backbones, *([REPORT_BACKBONE] if REPORT_RESNET50 in baselines else [])}) <= 1:
        return
    files = [Path(name).name for name in backbones if is_network_file(name)]
    if len(set(files)) < len(files):
        raise FeatxError(
            f"Two network files have the same name: rename one. Received: {', '.join(map(printable, files))}"
        )
    weights = str(options["weights"])
    if not re.fullmatch(r"imagenet|random(:\d+)?|imagenet-or-random", weights):
        raise FeatxError(
            f"A weights file fits only one backbone. Compare one backbone at a time, or put a file for each into a "
            f"folder and set FEATX_WEIGHTS_DIR to it. Received: --weights {printable(weights)}"
        )
    if options["layer"]:
        raise FeatxError(
            f"A layer belongs to only one backbone. Compare one backbone at a time. "
            f"Received: --layer {options['layer']}"
        )


def _check_fit(dataset: ImageDataset, how: Procedure, heads: Sequence[str], *, direct: bool) -> None:
    """Raise FeatxError if this cannot be done with the images of a data set."""
    check_class_weights(how.training.class_weights, dataset.class_names, is_multilabel=dataset.is_multilabel)
    if dataset.is_multilabel:
        check_multilabel_heads(heads)
    if dataset.is_multilabel and how.curve and how.curve.shots:
        raise FeatxError(
            "Numbers of images of each class (shots, --shots) need images with one class each, and these can have "
            "several labels: choose numbers of all images, with --curve-sizes."
        )
    if dataset.is_multilabel and direct:
        raise FeatxError(
            "A pretrained classifier (direct, --direct) chooses one class for each image, so it cannot be compared "
            "where images have several labels: leave it out."
        )
    if how.curve:
        how.curve.check_fit(dataset)


def _comparison(
    dataset: ImageDataset,
    recipes: Sequence[Recipe],
    evaluations: Sequence[Evaluation],
    how: Procedure,
    warnings: Sequence[str],
) -> Comparison:
    is_validation = validation_part(dataset, how.training.seed) if dataset.n_train else np.zeros(0, bool)
    n_folds = evaluations[0].approach.n_folds
    correct = {one.approach.name: one.correct for one in evaluations}
    measured = {one.approach.name: one.approach.metrics for one in evaluations}
    is_weighted = any("class_weights" in one.approach.details for one in evaluations)
    return Comparison(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        class_names=dataset.class_names,
        n_train=round(dataset.n_images * (1 - 1 / n_folds)) if n_folds else int((~is_validation).sum()),
        n_validation=int(is_validation.sum()),
        n_test=dataset.n_test,
        seed=how.training.seed,
        approaches=with_p_values([one.approach for one in evaluations], correct),
        recipes=tuple(json.loads(recipe.to_json()) for recipe in recipes),
        warnings=(*warnings, *accuracy_warnings(dataset, measured, is_weighted=is_weighted)),
        versions=versions(),
        hardware=dict(hardware()),
        command=command_line(),
        created_at=now(),
        settings=how.settings,
        learning_curve=tuple(point for one in evaluations for point in one.curve),
    )


def _analysed(comparison: Comparison, *rest: Any) -> Comparison:
    """Return the comparison with its error analysis; without, and with a warning, if that fails for any reason."""
    try:
        return _analyse_errors(comparison, *rest)
    except Exception as error:  # noqa: BLE001 - what was trained must not be lost
        log.warning("The comparison has no error analysis, because it failed: %s.", reason_of(error))
        return comparison


def _analyse_errors(
    comparison: Comparison,
    dataset: ImageDataset,
    evaluations: Sequence[Evaluation],
    skipped: Sequence[SkippedImage],
    cache_dir: StoragePath,
    training: Training,
) -> Comparison:
    """Return the comparison looked at image by image, with the features of the backbone that does best.

    It has one warning more if near-duplicates cross the splits, and no groups were named.
    """
    evaluation_of = {one.approach.name: one for one in evaluations}
    on_features = [approach for approach in ranked(comparison.approaches) if approach.kind == "features"]
    recipe = evaluation_of[on_features[0].name].recipe if on_features else None
    judge = next((one for one in evaluations if one.recipe == recipe and _saw_none(one.out_of_fold)), None)
    X = read_rows(FeatureStore(cache_dir, recipe), dataset.digests, training.memory) if recipe else None
    near = None if X is None else find_copies(dataset, X, show=training.show)
    crossing = crossing_warning(dataset, near, dataset.n_test) if near and dataset.groups is None else ""
    with waiting("error analysis", show=training.show):
        analysis = analyse_errors(
            dataset,
            {name: one.probabilities for name, one in evaluation_of.items()},
            comparison.best.name,
            comparison.seed,
            backbone=recipe.backbone if recipe else None,
            X=X,
            near=near,
            temperatures={name: one.temperature for name, one in evaluation_of.items() if one.temperature is not None},
            out_of_fold=judge.out_of_fold if judge else None,
            judge=judge.approach.name if judge else None,
            skipped=[(image.path, image.reason) for image in skipped],
            reasons={name: one.reasons for name, one in evaluation_of.items()},
        )
    return replace(comparison, warnings=(*comparison.warnings, *filter(None, [crossing])), error_analysis=analysis)


def _saw_none(out_of_fold: npt.NDArray[np.float32] | None) -> bool:
    """Return whether there are probabilities of all training images from heads that have not seen them."""
    return out_of_fold is not None and not np.isnan(out_of_fold).any()


def _random_weights_warnings(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    return tuple(
        f"{recipe.backbone} has random weights (seed {recipe.weights.removeprefix('random-')}): it was never trained, "
        f"and its figures say nothing about transfer learning."
        for recipe in recipes
        if recipe.has_random_weights
    )


def _kept_pixels_warnings(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return a sentence about what would have taken longer if the images had been decoded for it."""
    approaches = [one.approach for one in evaluations if KEPT_PIXELS in one.approach.details]
    names = ", ".join(printable(one.name) for one in approaches)
    said = "The time of these approaches does not include decoding, because featx had kept the pixels"
    return (f"{said}: {names}.",) if names else ()


def _sample_warnings(dataset: ImageDataset) -> tuple[str, ...]:
    if not (isinstance(dataset.root, Path) and is_sample(dataset.root)):
        return ()
    return (
        "These are scanned digits of 8×8 pixels, enlarged: they show how featx works, not what transfer learning can "
        "do on photographs. A CNN trained from scratch may win.",
    )
