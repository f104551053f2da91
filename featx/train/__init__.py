"""Stage two: loads the features of a data set, trains the heads, measures them, writes a run folder.

The test split is used once, at the end. In cross-validation, `folds` divides the images instead, and
`near_duplicates` finds those that must not be divided.
"""

from featx.heads import Training
from featx.train.cross_validation import (
    FEW_TEST_IMAGES,
    CrossValidation,
    cross_validate,
    divide,
    resampled_interval,
    resampled_variance,
)
from featx.train.features import Features, data_warnings, load_features, read_rows, stored_features, with_views
from featx.train.folds import MAX_FOLDS, MAX_REPEATS, Folds, images_together
from featx.train.imbalance import UNBALANCED, accuracy_warnings, imbalance
from featx.train.metrics import (
    ClassMetrics,
    Confusion,
    CoveragePoint,
    Metrics,
    ReliabilityBin,
    Result,
    class_metrics,
    confusion_matrix,
    measure,
    reliability,
    risk_coverage,
    wilson_interval,
)
from featx.train.multilabel_metrics import NO_LABEL, LabelMetrics, MultilabelMetrics
from featx.train.near_duplicates import Copies, crossing_warning, find_copies, pooled
from featx.train.reference import NearestImage, Reference
from featx.train.run_folder import METRICS_NAME, REPORTS_NAME, RUN_HEADS, RUNS_NAME, SavedRun, read_run, write_run
from featx.train.settings import SETTINGS_NAME, Settings, read_settings, settings_of
from featx.train.train import (
    DEFAULT_TRAINING,
    Run,
    check_folds,
    train_on_features,
    train_top,
    tune_on_features,
    validation_part,
    without_test,
)
from featx.train.tuning import Tuning
