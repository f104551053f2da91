"""The pictures of a comparison, as PNG files at twice the resolution of the page they are meant for, and for a page."""

from typing import TYPE_CHECKING

from featx.compare import Comparison
from featx.report.plots.accuracy import accuracy_chart, summary_chart
from featx.report.plots.confusion import confusion_chart, confusion_file_names
from featx.report.plots.curves import learning_curve_chart, reliability_chart, training_curves_chart
from featx.report.plots.page import page_style, png, texts_of
from featx.report.plots.times import time_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return the PNG files of a comparison by file name; `training-curves.png` only if an approach has a history."""
    with page_style(texts_of(comparison)):
        pictures = {
            "summary.png": summary_chart(comparison),
            "accuracy.png": accuracy_chart(comparison),
            "time.png": time_chart(comparison),
        }
        if any(approach.history for approach in comparison.approaches):
            pictures["training-curves.png"] = training_curves_chart(comparison)
        if comparison.learning_curve:
            pictures["learning-curve.png"] = learning_curve_chart(comparison)
        for approach, name in zip(comparison.approaches, confusion_file_names(comparison), strict=True):
            pictures[name] = confusion_chart(comparison, approach)
        return {name: png(figure) for name, figure in pictures.items()}


def chart_figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Return the charts of a page: `summary`, `time`; `curves`, `learning` and `reliability` if there are any."""
    figures = {"summary": summary_chart(comparison), "time": time_chart(comparison)}
    if any(approach.history for approach in comparison.approaches):
        figures["curves"] = training_curves_chart(comparison)
    if comparison.learning_curve:
        figures["learning"] = learning_curve_chart(comparison)
    if comparison.error_analysis:
        figures["reliability"] = reliability_chart(comparison, comparison.error_analysis)
    return figures
