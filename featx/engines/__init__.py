"""featx.engines."""
