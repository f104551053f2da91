"""The ways to run a backbone on this machine: a new one is one new file."""

from featx.engines.engine import (
    ENGINES,
    Engine,
    EngineChoices,
    EngineOptions,
    create_engine,
    default_batch_size,
    needs_keras,
)

__all__ = ["ENGINES", "Engine", "EngineChoices", "EngineOptions", "create_engine", "default_batch_size", "needs_keras"]
