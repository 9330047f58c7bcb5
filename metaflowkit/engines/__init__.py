"""Engines: how the inner loop is differentiated and batched. The import lines below are the list of what exists."""

from metaflowkit.engines.auto import auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.engines.vectorized import VectorizedEngine

__all__ = ["Exact", "First", "HigherEngine", "Implicit", "Reptile", "Truncate", "VectorizedEngine", "auto"]
