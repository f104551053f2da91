"""Writes a run as one file or folder that needs no featx: images in, probabilities and class names out.

`graph` joins resizing, backbone and head, and writes them as a Keras file, a SavedModel or ONNX.
"""

from featx.export.export import Export, export_run
