"""featx."""
