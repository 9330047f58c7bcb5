"""Outer steps, and what a run keeps: its directory, checkpoints and metrics."""
