"""Outer objectives. The import lines below are the list of what exists."""

from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss

__all__ = ["BootstrappedKL", "QueryLoss"]
