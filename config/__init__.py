"""Sandbox specification, limits, defaults and logging."""
