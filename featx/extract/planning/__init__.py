"""What an extraction will cost, found out before it runs: a sample is timed, the rest is arithmetic.

It touches no store.
"""

from featx.extract.planning.plan import plan_extraction
from featx.extract.planning.planned import MARGIN, Estimate, Plan, Work
