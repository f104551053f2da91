"""All approaches on one split: what each is worth, what it cost, and where it is wrong.

`candidates` and `baselines` are what is compared, `result` is what comes of it, `error_analysis` looks at it image by
image.
"""

from featx.compare.baselines import BASELINE_NAMES
from featx.compare.compare import compare_approaches
from featx.compare.error_analysis import ApproachImages, ErrorAnalysis
from featx.compare.result import SIGNIFICANCE, Approach, Comparison, ranked
