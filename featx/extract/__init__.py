"""Stage one: computes the features that the store lacks, and nothing else.

`options` makes a recipe from the user's options. `pipeline` finds which features of some images are missing, and
computes them. `extract` does this for a data set and its views.
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
from featx.extract.diagnosis import Diagnosis, SelfTest, diagnose
from featx.extract.extract import ExtractedViews, Extraction, extract_dataset, extract_features, extract_layers
from featx.extract.options import (
    DEFAULT_CACHE_DIR,
    RECIPE_DEFAULTS,
    RECIPE_OPTIONS,
    ExtractionOptions,
    ExtractionSettings,
    RecipeOptions,
    as_typed,
    check_options,
    extract_command,
    kept_aspect_ratio,
    layers_of,
    option_flag,
    option_variable,
    options_before,
    resolve_layers,
    resolve_recipe,
    split_options,
    with_defaults,
)
from featx.extract.pipeline import compute_missing
from featx.extract.stored import StoredImages, readable_images, store_images
