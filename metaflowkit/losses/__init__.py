"""Inner losses. The import lines below are the list of what exists."""

from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.losses.prototype import PrototypeLoss

__all__ = ["Contrastive", "CrossEntropy", "PrototypeLoss"]
