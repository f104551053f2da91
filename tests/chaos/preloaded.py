"""What the fork server imports once, so that a new featx process costs a quarter of a second instead of one and a half.

No engine is started and no thread of featx's own: a process that is forked is as a fresh one.
"""

import h5py
import numpy as np
import PIL.BmpImagePlugin
import PIL.GifImagePlugin
import PIL.JpegImagePlugin
import PIL.PngImagePlugin

import featx.cli.main
import featx.engines.openvino_engine
import featx.extract.cache
import featx.extract.extract
import featx.store.compaction
import featx.store.segment_writer
import tests.chaos.processes
from featx.system.late_imports import import_openvino

import_openvino()

__all__ = ["PIL", "featx", "h5py", "np", "tests"]
