"""Stage two: joins a data set with its features, trains the heads, measures them, writes a run folder.

The test split is touched once, at the end.
"""

from featx.train.features import Features, data_warnings, join_features, join_rows, load_features, with_views
from featx.train.metrics import Metrics, ReliabilityBin, confusion_matrix, evaluate, mcnemar_p_value, reliability
from featx.train.result import (
    Result,
    TrainedBaseline,
    Training,
    averaged_over_views,
    check_training,
    measured,
    validation_part,
)
from featx.train.run_folder import SavedRun, read_run
from featx.train.train import DEFAULT_TRAINING, Run, train_on_features, train_top
