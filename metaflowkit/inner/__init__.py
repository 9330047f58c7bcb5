"""The inner loop: update rules and losses. The import lines below are the list of what exists."""

from metaflowkit.inner.adam import Adam
from metaflowkit.inner.contrastive import Contrastive
from metaflowkit.inner.cross_entropy import CrossEntropy
from metaflowkit.inner.prototype import PrototypeLoss
from metaflowkit.inner.sgd import SGD

__all__ = ["SGD", "Adam", "Contrastive", "CrossEntropy", "PrototypeLoss"]
