"""Transfer learning on your own images: extract features once, cache them, and compare approaches fairly.

>>> from pathlib import Path
>>> import featx
>>> comparison = featx.compare_approaches(Path("data"), backbones=["vgg16"], baselines=["report-cnn"])  # doctest: +SKIP
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from featx.text import SafeLog

if TYPE_CHECKING:
    from featx.backbones import BackboneInfo, list_backbones
    from featx.clean import Moved, Problem, Problems, find_problems, remove_files, restore_files
    from featx.compare import Comparison, compare_approaches
    from featx.dataset import ImageDataset, ImageFolders, Labels, scan
    from featx.dataset.kaggle import Fetched, fetch_data
    from featx.errors import FeatxError
    from featx.export import Export, FeatureExport, export_features, export_run
    from featx.extract import (
        Diagnosis,
        Extraction,
        check_cache,
        compact_cache,
        diagnose,
        extract_features,
        list_cache,
        resolve_recipe,
    )
    from featx.extract.planning import Plan, plan_extraction
    from featx.extract.transformer import FeatureExtractor
    from featx.predict import Classifier, DirectClassifier, Explanations, Predictions
    from featx.recipe import Recipe
    from featx.repeat import Rerun, rerun
    from featx.report import write_explanations, write_report
    from featx.similar import SimilarImages, find_similar
    from featx.storage import as_data
    from featx.store import FeatureStore
    from featx.train import Features, Run, Training, load_features, train_top

_ROOMS = {
    "backbones": ["BackboneInfo", "list_backbones"],
    "clean": ["Moved", "Problem", "Problems", "find_problems", "remove_files", "restore_files"],
    "compare": ["Comparison", "compare_approaches"],
    "dataset": ["ImageDataset", "ImageFolders", "Labels", "scan"],
    "dataset.kaggle": ["Fetched", "fetch_data"],
    "errors": ["FeatxError"],
    "export": ["Export", "FeatureExport", "export_features", "export_run"],
    "extract": [
        "Diagnosis",
        "Extraction",
        "check_cache",
        "compact_cache",
        "diagnose",
        "extract_features",
        "list_cache",
        "resolve_recipe",
    ],
    "extract.planning": ["Plan", "plan_extraction"],
    "extract.transformer": ["FeatureExtractor"],
    "predict": ["Classifier", "DirectClassifier", "Explanations", "Predictions"],
    "recipe": ["Recipe"],
    "repeat": ["Rerun", "rerun"],
    "report": ["write_explanations", "write_report"],
    "similar": ["SimilarImages", "find_similar"],
    "storage": ["as_data"],
    "store": ["FeatureStore"],
    "train": ["Features", "Run", "Training", "load_features", "train_top"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = list(_ROOM_OF)

logging.getLogger("featx").addFilter(SafeLog())


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562), so that `import featx` costs nothing."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    return getattr(importlib.import_module(f"featx.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
