"""The ways to compute the features that were asked for: each engine with each precision that it has."""

from dataclasses import dataclass, replace
from pathlib import Path

from featx.backbones import Weights, check_image_size
from featx.dataset import ImageDataset
from featx.engines import AUTO, ENGINES, EngineOptions, choose_engine
from featx.extract.options import RecipeOptions, resolve_recipe
from featx.recipe import PRECISIONS, Recipe
from featx.system import cuda_capability, has_fast_bfloat16


@dataclass(frozen=True)
class Way:
    """An engine and a precision.

    Attributes:
        recipe: what the features are.
        weights: that it names.
        options: how the backbone is run; its engine is never `"auto"`.
    """

    recipe: Recipe
    weights: Weights
    options: EngineOptions

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.options.engine} {self.recipe.precision}"


def find_ways(
    dataset: ImageDataset, cache_dir: Path, engine_options: EngineOptions, options: RecipeOptions
) -> list[Way]:
    """Return every way there is; if an engine or a precision is asked for, only those.

    Args:
        dataset: whose images these are; int8 depends on it.
        cache_dir: remembers digests of files.
        engine_options: how the backbone is run.
        options: all of `featx.extract.options.RecipeOptions`.

    Raises:
        WeightsError: there are no such weights.
        FeatxError: there is no such recipe, or the engine lacks the precision.
    """
    recipe, weights = resolve_recipe(cache_dir, dataset, **options)
    check_image_size(recipe)
    choose = engine_options.engine, options["precision"]
    engines = tuple(ENGINES) if choose[0] == AUTO else (choose[0],)
    precisions = PRECISIONS if choose[1] == "auto" else (choose[1],)
    if choose[0] != AUTO and choose[1] != "auto":
        choose_engine(engine_options, recipe)  # which says so if they do not go together
    # Found once: looking for imagenet-or-random again would warn again.
    found: list[RecipeOptions] = [{**options, "weights": _named(weights), "precision": p} for p in precisions]
    recipes = {one["precision"]: resolve_recipe(cache_dir, dataset, **one)[0] for one in found}
    return [
        Way(recipes[precision], weights, replace(engine_options, engine=engine))
        for engine in engines
        for precision in precisions
        if precision in ENGINES[engine].precisions
    ]


def _named(weights: Weights) -> str:
    """Return how `find_weights` is told to find the same weights again."""
    return str(weights.path) if weights.path else weights.digest.replace("random-", "random:")


def chosen_way(ways: list[Way], engine_options: EngineOptions, precision: str, auto_engine: str | None) -> Way:
    """Return the one of `ways` that `featx extract` takes.

    Args:
        ways: all there are.
        engine_options: that were asked for.
        precision: that was asked for.
        auto_engine: what a trial says that `--engine auto` is; None if it does not know. Where there is a GPU, only
            Keras knows whether it can use it.
    """
    wanted = ("bfloat16" if has_fast_bfloat16() else "float32") if precision == "auto" else precision
    of_precision = [way for way in ways if way.recipe.precision == wanted]
    engine = auto_engine or next(iter(ENGINES))
    if cuda_capability() is None:
        engine = choose_engine(engine_options, of_precision[0].recipe)
    return next((way for way in of_precision if way.options.engine == engine), of_precision[0])
