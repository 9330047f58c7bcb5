"""Outer objectives. The import lines below are the list of what exists."""

from metaflowkit.objectives.bootstrapped_features import BootstrappedFeatures
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.bootstrapped_l2 import BootstrappedL2
from metaflowkit.objectives.nt_xent import NTXent
from metaflowkit.objectives.prototype_contrastive import PrototypeContrastive
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.objectives.weighted_sum import WeightedSum

__all__ = ["BootstrappedFeatures", "BootstrappedKL", "BootstrappedL2", "NTXent", "PrototypeContrastive", "QueryLoss", "WeightedSum"]
