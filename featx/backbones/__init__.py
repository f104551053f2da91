"""Pretrained networks: which there are, where their weights come from, and how one runs from bytes to features.

A new backbone is one entry in `table.py`, and a line in `networks.json`. The file of any network can be one, too: see
`network_file.py`.
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
from featx.backbones.described import describe_network
from featx.backbones.listing import BackboneInfo, list_backbones
from featx.backbones.network_file import (
    CLASSIFIER_LAYER,
    NetworkFile,
    NetworkLayer,
    is_network_file,
    is_network_name,
    is_onnx,
)
from featx.backbones.onnx_file import OpenedOnnx, describe_onnx, open_onnx, read_onnx
from featx.backbones.preprocessing import PREPROCESSINGS, as_preprocessing, find_pixels, preprocessing_help
from featx.backbones.table import BACKBONES, LAST_BLOCK, find_backbone, find_block
from featx.backbones.weights import Weights, check_weights, find_weights, find_weights_again, has_weights_here
