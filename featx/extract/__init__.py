"""Stage one: computes the features that the store lacks, and nothing else.

`options` makes a recipe of what a user asks for, `extract` finds what is missing, `pipeline` computes it: reader →
engine → writer.
"""

from featx.extract.cache import (
    CacheCheck,
    CacheEntry,
    check_cache,
    compact_cache,
    list_cache,
    removable,
    remove,
    size_bytes,
)
from featx.extract.extract import ExtractedViews, Extraction, extract_command, extract_dataset, extract_features
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    RECIPE_DEFAULTS,
    ExtractionOptions,
    RecipeOptions,
    option_variable,
    resolve_recipe,
    split_options,
    with_defaults,
)
from featx.extract.pipeline import Computed, compute_missing
