"""Pretrained networks: which there are, where their weights come from, and how one runs from bytes to features.

A new backbone is one entry in `table.py`, and a line in `networks.json`.
"""

from featx.backbones.build import (
    DTYPE_POLICIES,
    build_model,
    build_tail,
    check_fit,
    check_recipe,
    count_network_classes,
)
from featx.backbones.class_map import ClassMap, NetworkClass, make_class_map, read_class_list
from featx.backbones.listing import BackboneInfo, list_backbones
from featx.backbones.table import BACKBONES, LAST_BLOCK, find_backbone, find_block
from featx.backbones.weights import CLASSIFIER_LAYER, Weights, check_weights, find_weights, find_weights_again
