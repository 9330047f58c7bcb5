"""Heads: features to scores of classes. The import lines below are the list of what exists."""

from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.heads.normal import Normal
from metaflowkit.models.heads.prototype import Prototype

__all__ = ["Linear", "Normal", "Prototype"]
