"""Writes what other tools read without featx: a trained run as one file or folder, and features with their labels.

`graph` joins resizing, backbone and head, and writes them as a Keras file, a SavedModel or ONNX.
"""

from featx.export.export import Export, export_run
from featx.export.features import FeatureExport, export_features
