"""Stage two: loads the features of a data set, trains the heads, measures them, writes a run folder.

The test split is used once, at the end.
"""

from featx.heads import Training
from featx.train.features import Features, data_warnings, load_features, read_rows, stored_features, with_views
from featx.train.metrics import (
    Confusion,
    Metrics,
    ReliabilityBin,
    Result,
    confusion_matrix,
    measure,
    reliability,
    wilson_interval,
)
from featx.train.multilabel_metrics import NO_LABEL, LabelMetrics, MultilabelMetrics
from featx.train.run_folder import REPORTS_NAME, RUN_HEADS, RUNS_NAME, SavedRun, read_run, write_run
from featx.train.train import DEFAULT_TRAINING, Run, train_on_features, train_top, tune_on_features, validation_part
from featx.train.tuning import Tuning
