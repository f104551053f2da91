"""The comparison: all approaches on one split, with the same seed, and what each of them cost."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Unpack

from featx.backbones import make_class_map, read_class_list
from featx.compare.baselines import BACKBONE, REPORT_RESNET50, check_baseline, recipe_options, report_views
from featx.compare.candidates import (
    Contender,
    Entry,
    FeatureSource,
    Wanted,
    baseline_contender,
    direct_applications,
    enter,
    head_contenders,
    report_resnet50_contender,
)
from featx.compare.error_analysis import Examination, examine
from featx.compare.learning_curve import learning_curve as curve_of
from featx.compare.result import Comparison, CurvePoint, ranked, with_p_values
from featx.dataset import Data, ImageDataset, SkippedImage, scan
from featx.errors import FeatxError, printable
from featx.extract import (
    DEFAULT_CACHE_DIR,
    RECIPE_DEFAULTS,
    ExtractionOptions,
    ExtractionSettings,
    RecipeOptions,
    split_options,
)
from featx.images import Views, as_views
from featx.recipe import Recipe
from featx.storage import StoragePath, as_path, as_storage_path
from featx.store import FeatureStore
from featx.system import MemoryLimit, as_workers, command_line, hardware, names, now, versions, whole_number
from featx.train import DEFAULT_TRAINING, Features, Training, check_training, data_warnings, join_rows, validation_part


def compare_approaches(
    data_dir: Data,
    *,
    backbones: Sequence[str] | str = (RECIPE_DEFAULTS["backbone"],),
    baselines: Sequence[str] | str = (),
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    training: Training = DEFAULT_TRAINING,
    workers: int | None = None,
    strict: bool = False,
    learning_curve: bool = False,
    views: Views | int | None = None,
    repeats: int = 1,
    direct: bool = False,
    maps: Sequence[str] | str = (),
    class_list: Path | str | None = None,
    **options: Unpack[ExtractionOptions],
) -> Comparison:
    """Return how the heads on each backbone's features, and the baselines, do on the images in `data_dir`.

    Features that are missing are extracted first; what they cost is counted also when they come from the cache.

    Args:
        data_dir: `train/CLASS/*` with `test/CLASS/*`, or `CLASS/*`; see `featx.dataset.image_dataset.scan`.
        backbones: names in `featx.backbones.table.BACKBONES`, or one of them.
        baselines: names in `featx.compare.baselines.BASELINE_NAMES`, or one of them.
        cache_dir: where stores lie.
        training: how heads and baselines are trained; `batch_size` of a baseline is its own.
        workers: decoding threads; as many as cores if None.
        strict: raise on the first image that cannot be read, instead of skipping it.
        learning_curve: also train every approach on smaller parts of the training images, see
            `featx.compare.learning_curve`.
        views: augmented views that each head is trained on as well, in a row of its own.
        repeats: how often each approach is trained, each time with the next seed.
        direct: also apply each backbone's whole pretrained network as it is; one whose weights with the classifier are
            not to be had is left out with a warning, unless none is left.
        maps: for that, which of the network's classes make which class; see `featx.backbones.class_map.make_class_map`.
        class_list: for that, a JSON file with the network's classes; see `featx.backbones.class_map.read_class_list`.
        options: of stage one, by name; see `featx.extract.options.RecipeOptions`, without `backbone`, and
            `featx.engines.EngineOptions`.

    Raises:
        FeatxError: the data set, a backbone, the weights or the store is not fit; the message says what to do.
    """
    if "backbone" in options:
        raise TypeError("there is no option 'backbone' here: name one or several in backbones")
    recipe_options, engine_options = split_options(options)
    check_training(training)
    backbones, baselines, maps = names("backbones", backbones), names("baselines", baselines), names("maps", maps)
    views, workers, repeats = as_views(views), as_workers(workers), whole_number("repeats", repeats)
    wanted = _wanted(backbones, baselines, views, recipe_options)
    cache_dir = as_storage_path(cache_dir)
    dataset = scanned = scan(data_dir, cache_dir, show=training.show)
    settings = ExtractionSettings(engine_options=engine_options, workers=workers, strict=strict, show=training.show)
    sources = [FeatureSource(one, dataset, data_dir, cache_dir, settings) for one in wanted]
    warnings: list[str] = []
    if direct:
        network_classes = read_class_list(as_path(class_list)) if class_list else ()
        map_to = partial(make_class_map, maps, class_list=network_classes, class_names=dataset.class_names)
        chosen, warnings = direct_applications(backbones, recipe_options, map_to, cache_dir)
        sources += [FeatureSource(one, dataset, data_dir, cache_dir, settings) for one in chosen]
    unreadable = (SkippedImage.of(dataset.root.absolute() / path, b"", reason) for path, reason in dataset.unreadable)
    skipped = dict.fromkeys(unreadable)  # each once, however many backbones it was skipped for
    for source in sources:
        skipped |= dict.fromkeys(source.extract(dataset).skipped)
    contest = _Contest(training, repeats, with_curve=learning_curve)
    for source in sources:
        dataset = contest.enter_all(source, dataset)
    for name in dict.fromkeys(baselines):
        if name != REPORT_RESNET50:
            contest.enter(baseline_contender(dataset, name, cache_dir, workers), dataset)
    recipes = list(dict.fromkeys(chain.from_iterable(source.recipes for source in sources)))
    stores = [cache_dir / recipe.slug for recipe in recipes]
    warnings = [*_random_weights_warnings(recipes), *data_warnings(scanned, dataset, stores), *warnings]
    comparison = _comparison(dataset, recipes, contest.entries, training.seed, warnings)
    examination = _examine(comparison, dataset, contest.entries, list(skipped), cache_dir, training.memory)
    return replace(comparison, examination=examination, learning_curve=tuple(contest.curve))


class _Contest:
    """Trains and measures one contender after the other.

    Attributes:
        entries: of those measured so far.
        curve: their learning curves, if there are to be any.
    """

    def __init__(self, training: Training, repeats: int, *, with_curve: bool) -> None:
        self.entries: list[Entry] = []
        self.curve: list[CurvePoint] = []
        self._training, self._repeats, self._with_curve = training, repeats, with_curve

    def enter_all(self, source: FeatureSource, dataset: ImageDataset) -> ImageDataset:
        """Measure who competes with the features of `source`, of which no more are in memory than these.

        Returns the images that could be read: what cannot is left out for everybody.
        """
        features, viewed = source.join(dataset, self._training.memory)
        for contender in source.contenders(features, viewed):
            self.enter(contender, features.dataset)
        return features.dataset

    def enter(self, contender: Contender, dataset: ImageDataset) -> None:
        """Measure a contender."""
        self.entries += enter(contender, dataset, self._training, self._repeats)
        if self._with_curve and contender.is_trained:
            self.curve += curve_of(contender, dataset, self._training)


def _wanted(
    backbones: Sequence[str], baselines: Sequence[str], views: Views | None, options: RecipeOptions
) -> list[Wanted]:
    """Return the features that are needed.

    Raises:
        FeatxError: there is nothing to compare, or an option can only be meant for one of several backbones.
    """
    if not backbones and not baselines:
        raise FeatxError("There is nothing to compare: name a backbone or a baseline.")
    for baseline in baselines:
        check_baseline(baseline)
    has_report = REPORT_RESNET50 in baselines
    if len({*backbones, *([BACKBONE] if has_report else [])}) > 1:
        _check_fits_all(options)
    wanted = [Wanted({**options, "backbone": name}, views, _heads) for name in dict.fromkeys(backbones)]
    if has_report:
        wanted.append(Wanted(recipe_options(options), report_views(views), _report_resnet50))
    return wanted


def _heads(features: Features, viewed: Features | None) -> Iterator[Contender]:
    yield from head_contenders(features)
    if viewed:
        yield from head_contenders(viewed)


def _report_resnet50(features: Features, viewed: Features | None) -> Iterator[Contender]:
    yield report_resnet50_contender(viewed or features)


def _examine(
    comparison: Comparison,
    dataset: ImageDataset,
    entries: Sequence[Entry],
    skipped: Sequence[SkippedImage],
    cache_dir: StoragePath,
    memory: MemoryLimit,
) -> Examination:
    """Look at the comparison image by image, with the features of the backbone that does best."""
    entry_of = {entry.approach.name: entry for entry in entries}
    on_features = [approach for approach in ranked(comparison.approaches) if approach.kind == "features"]
    recipe = entry_of[on_features[0].name].recipe if on_features else None
    judge = next((entry for entry in entries if entry.recipe == recipe and entry.out_of_fold is not None), None)
    return examine(
        dataset,
        {name: entry.probabilities for name, entry in entry_of.items()},
        comparison.best.name,
        comparison.seed,
        backbone=recipe.backbone if recipe else None,
        X=join_rows(FeatureStore(cache_dir, recipe), dataset.digests, memory) if recipe else None,
        out_of_fold=judge.out_of_fold if judge else None,
        judge=judge.approach.name if judge else None,
        skipped=[(image.path, image.reason) for image in skipped],
    )


def _comparison(
    dataset: ImageDataset, recipes: Sequence[Recipe], entries: Sequence[Entry], seed: int, warnings: Sequence[str]
) -> Comparison:
    is_validation = validation_part(dataset, seed)
    correct = {entry.approach.name: entry.correct for entry in entries}
    return Comparison(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        class_names=dataset.class_names,
        n_train=int((~is_validation).sum()),
        n_validation=int(is_validation.sum()),
        n_test=dataset.n_test,
        seed=seed,
        approaches=with_p_values([entry.approach for entry in entries], correct),
        recipes=tuple(json.loads(recipe.to_json()) for recipe in recipes),
        warnings=tuple(warnings),
        versions=versions(),
        hardware=dict(hardware()),
        command=command_line(),
        created_at=now(),
    )


def _check_fits_all(options: RecipeOptions) -> None:
    """Raise for an option that can only be meant for one backbone."""
    weights = str(options["weights"])
    if not re.fullmatch(r"imagenet|random(:\d+)?|imagenet-or-random", weights):
        raise FeatxError(
            f"A weights file belongs to one backbone: compare them one by one, or put a file for each into a folder "
            f"and set FEATX_WEIGHTS_DIR to it. Received: --weights {printable(weights)}"
        )
    if options["layer"]:
        raise FeatxError(
            f"A layer belongs to one backbone: compare them one by one. Received: --layer {options['layer']}"
        )


def _random_weights_warnings(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    return tuple(
        f"{recipe.backbone} has random weights (seed {recipe.weights.removeprefix('random-')}): it was never trained, "
        f"and its figures say nothing about transfer learning."
        for recipe in recipes
        if recipe.has_random_weights
    )
