"""The benchmarks of the other stages, in the same run."""

from pathlib import Path

import scratch
import stage_two
from turns import Figures


def measure_other_stages(data_dir: Path | None, weights: str, *, quick: bool) -> Figures:
    """Return the figures of stage two and of a baseline, which print what they find."""
    return {
        "stage_two": stage_two.measure(data_dir, weights=weights, quick=quick),
        "scratch": scratch.measure(data_dir, quick=quick),
    }
