"""The inner loop: update rules and losses. The import lines below are the list of what exists."""

from metaflowkit.inner.adadelta import Adadelta
from metaflowkit.inner.adagrad import Adagrad
from metaflowkit.inner.adam import Adam
from metaflowkit.inner.adamax import Adamax
from metaflowkit.inner.adamw import AdamW
from metaflowkit.inner.contrastive import Contrastive
from metaflowkit.inner.cross_entropy import CrossEntropy
from metaflowkit.inner.higher_optimizer import HigherOptimizer
from metaflowkit.inner.nadam import NAdam
from metaflowkit.inner.prototype import PrototypeLoss
from metaflowkit.inner.rmsprop import RMSprop
from metaflowkit.inner.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Contrastive", "CrossEntropy", "HigherOptimizer", "NAdam", "PrototypeLoss", "RMSprop"]
