"""Compares approaches on one split, or in cross-validation: their accuracy, their cost and their mistakes.

`candidates` and `baselines` define what is compared. `result` contains the outcome,
`significance` says which differences are beyond chance, and `claims` what others claim. `error_analysis` looks at the
mistakes image by image.
"""

from featx.compare.baselines import BASELINE_NAMES
from featx.compare.candidates import SHOTS
from featx.compare.claims import with_claims
from featx.compare.compare import compare_approaches
from featx.compare.error_analysis import ApproachImages, ClassSample, ErrorAnalysis, Mistake
from featx.compare.result import Approach, Claim, Comparison, CurvePoint, ranked
from featx.compare.significance import SIGNIFICANCE
