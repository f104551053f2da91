"""The pictures of a comparison: a new one is one new file, and a line in `drawings`."""

from featx.plots.confusion import confusion_file_names
from featx.plots.drawings import chart_figures, draw

__all__ = ["chart_figures", "confusion_file_names", "draw"]
