"""The pictures of a comparison: a new one is one new file, and a line in `drawings`."""

from featx.plots.confusion import confusion_file_names
from featx.plots.drawings import chart_figures, draw
from featx.plots.letters import are_numbered

__all__ = ["are_numbered", "chart_figures", "confusion_file_names", "draw"]
