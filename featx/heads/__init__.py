"""The models of stage two: trained on features in seconds, and saved as Keras models.

A new head is one file, and one entry in `registry.py`.
"""

from featx.heads.calibration import FEWEST_IMAGES, at_temperature, temperature_of
from featx.heads.class_weights import BALANCED, check_class_weights, weigh_classes, weights_text
from featx.heads.dense import TrainingSet, held_out_probabilities
from featx.heads.evidence import Evidence, find_evidence, why_no_evidence
from featx.heads.held_out import calibrate, calibrated_by
from featx.heads.inference import Head, read_head, save_model
from featx.heads.registry import (
    DEFAULT_HEADS,
    HEADS,
    check_memory,
    check_multilabel_heads,
    head_names,
    needs_temperature,
    train_head,
)
from featx.heads.training_loop import (
    MAX_EPOCHS,
    MAX_SEED,
    THRESHOLD,
    Epoch,
    Targets,
    Trained,
    Training,
    check_training,
    fit,
    is_right,
    layer_seeds,
    output_layer,
    predict_proba,
    probability_of_truth,
    split,
)
from featx.heads.tuned import TUNED, TunedHead, read_tuned, train_tuned, trained_head
