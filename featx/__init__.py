"""Transfer learning on your own images: features extracted once, cached for ever, compared honestly.

>>> from pathlib import Path
>>> import featx
>>> comparison = featx.compare_approaches(Path("data"), backbones=["vgg16"], rivals=["report-cnn"])  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.cache import check_cache, compact_cache, list_cache
    from featx.classifier import Classifier, Predictions
    from featx.compare import compare_approaches
    from featx.comparison import Comparison
    from featx.dataset import ImageDataset, ImageFolders, scan
    from featx.direct import DirectClassifier
    from featx.errors import FeatxError
    from featx.export import Export, export_run
    from featx.extract import Extraction, extract_features
    from featx.extractor import FeatureExtractor
    from featx.fetching import Fetched, fetch_data
    from featx.join import Features, load_features
    from featx.places import as_data
    from featx.planning import Plan, plan_extraction
    from featx.recipe import Recipe
    from featx.report_folder import write_report
    from featx.resolve import resolve_recipe
    from featx.results import Training
    from featx.store import FeatureStore
    from featx.train import Run, train_top

__all__ = [
    "Classifier",
    "Comparison",
    "DirectClassifier",
    "Export",
    "Extraction",
    "FeatureExtractor",
    "FeatureStore",
    "Features",
    "FeatxError",
    "Fetched",
    "ImageDataset",
    "ImageFolders",
    "Plan",
    "Predictions",
    "Recipe",
    "Run",
    "Training",
    "as_data",
    "check_cache",
    "compact_cache",
    "compare_approaches",
    "export_run",
    "extract_features",
    "fetch_data",
    "list_cache",
    "load_features",
    "plan_extraction",
    "resolve_recipe",
    "scan",
    "train_top",
    "write_report",
]

_MODULES = {
    "Export": "export",
    "export_run": "export",
    "fetch_data": "fetching",
    "Fetched": "fetching",
    "load_features": "join",
    "Features": "join",
    "FeatureExtractor": "extractor",
    "as_data": "places",
    "Plan": "planning",
    "plan_extraction": "planning",
    "Predictions": "classifier",
    "Classifier": "classifier",
    "Comparison": "comparison",
    "DirectClassifier": "direct",
    "Extraction": "extract",
    "FeatureStore": "store",
    "FeatxError": "errors",
    "ImageDataset": "dataset",
    "ImageFolders": "dataset",
    "Recipe": "recipe",
    "Run": "train",
    "Training": "results",
    "check_cache": "cache",
    "compact_cache": "cache",
    "compare_approaches": "compare",
    "extract_features": "extract",
    "list_cache": "cache",
    "resolve_recipe": "resolve",
    "scan": "dataset",
    "train_top": "train",
    "write_report": "report_folder",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562), so that `import featx` costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    return getattr(importlib.import_module(f"featx.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
