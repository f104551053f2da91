"""Estimates what an extraction will cost, before it runs, from the time that a sample takes.

`survey` counts the images, and those that are not in the store. `trial` runs stage one on a sample, in its own process.
`plan` makes an `estimate` from both for each engine and precision. The store is not changed.
"""

from featx.extract.planning.estimate import MARGIN, Estimate, Plan, Work
from featx.extract.planning.plan import plan_extraction
from featx.extract.planning.trial import NOT_TRIED
