"""Inner losses. The import lines below are the list of what exists."""

from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.losses.example_weights import ExampleWeights
from metaflowkit.losses.prototype import PrototypeLoss
from metaflowkit.losses.task import TaskLoss

__all__ = ["Contrastive", "CrossEntropy", "ExampleWeights", "PrototypeLoss", "TaskLoss"]
