"""What an extraction will cost, found out before it runs: a sample is timed, the rest is arithmetic."""

from featx.planning.plan import plan_extraction
from featx.planning.planned import Estimate, Plan

__all__ = ["Estimate", "Plan", "plan_extraction"]
