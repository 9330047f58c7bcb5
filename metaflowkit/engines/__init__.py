"""Engines: how the inner loop is differentiated and batched. The import lines below are the list of what exists."""

from metaflowkit.engines.auto import auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.vectorized import VectorizedEngine

__all__ = ["HigherEngine", "VectorizedEngine", "auto"]
