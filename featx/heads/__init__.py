"""The models of stage two: trained on features in seconds, and saved as Keras models.

A new head is one file, and one entry in `registry.py`.
"""

from featx.heads.class_weights import BALANCED, check_class_weights, weigh_classes, weights_text
from featx.heads.dense import TrainingSet
from featx.heads.inference import Head, read_head, save_model
from featx.heads.registry import DEFAULT_HEADS, HEADS, check_memory, head_names, train_head
from featx.heads.training_loop import (
    MAX_EPOCHS,
    MAX_SEED,
    Epoch,
    Trained,
    Training,
    check_training,
    fit,
    layer_seeds,
    output_layer,
    predict_proba,
    split,
)
from featx.heads.tuned import TUNED, TunedHead, read_tuned, train_tuned
