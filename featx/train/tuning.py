"""A block of a backbone that is tuned on cached features of the layer before it: its layers, and their weights."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from featx.backbones import Weights, build_tail
from featx.extract import RecipeOptions, check_options
from featx.recipe import Recipe
from featx.storage import StoragePath


@dataclass(frozen=True)
class Tuning:
    """A block that is tuned.

    Attributes:
        block: its name.
        output: the recipe of what the head stands on: the output of the block, or of a layer after it.
        scratch_dir: the cache.
        tail: the block and what follows it, a Keras model, see `featx.backbones.build_tail`.
    """

    block: str
    output: Recipe
    scratch_dir: StoragePath
    tail: Any = field(repr=False)

    @classmethod
    def of(cls, block: str, options: RecipeOptions, recipe: Recipe, weights: Weights, cache_dir: StoragePath) -> Self:
        """Return the block with its weights.

        Args:
            block: its name.
            options: of what the head stands on.
            recipe: of the features of the layer before the block.
            weights: of the backbone.
            cache_dir: the cache.

        Raises:
            BackboneError: what follows that layer also needs the output of an earlier one.
            WeightsError: the weights do not fit the network.
        """
        chosen = check_options(cache_dir, **options)
        output = replace(recipe, layer=chosen["layer"], pooling=chosen["pooling"])
        return cls(block, output, cache_dir, build_tail(output, weights.path, recipe.layer))

    @property
    def details(self) -> dict[str, float | int | str]:
        """What a run notes of it: with the recipe of the run's features, it says which layers the head has."""
        pooling = {"output_pooling": self.output.pooling} if self.output.pooling else {}
        return {"block": self.block, "output_layer": self.output.layer, **pooling}
