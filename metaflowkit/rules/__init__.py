"""Inner update rules. The import lines below are the list of what exists."""

from metaflowkit.rules.adadelta import Adadelta
from metaflowkit.rules.adagrad import Adagrad
from metaflowkit.rules.adam import Adam
from metaflowkit.rules.adamax import Adamax
from metaflowkit.rules.adamw import AdamW
from metaflowkit.rules.higher_optimizer import HigherOptimizer
from metaflowkit.rules.nadam import NAdam
from metaflowkit.rules.rmsprop import RMSprop
from metaflowkit.rules.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "HigherOptimizer", "NAdam", "RMSprop"]
