"""What an extraction will cost, found out before it runs: a sample is timed, the rest is arithmetic.

`survey` counts the images and what the store lacks, `trial` runs stage one on a sample in a process of its own, and
`plan` makes an `estimate` of that for each engine and precision. No store is touched.
"""

from featx.extract.planning.estimate import MARGIN, Estimate, Plan, Work
from featx.extract.planning.plan import plan_extraction
