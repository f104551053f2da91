"""The pictures of a comparison, drawn by matplotlib.

A new one is a function that takes a comparison, and a line in `drawings.py`.
"""

from featx.report.plots.confusion import confusion_file_names
from featx.report.plots.drawings import chart_figures, draw
from featx.report.plots.letters import are_numbered
