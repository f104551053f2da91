"""The ways to run a backbone on this machine: a new one is one new file."""

from featx.engines.engine import Engine, create_engine

__all__ = ["Engine", "create_engine"]
