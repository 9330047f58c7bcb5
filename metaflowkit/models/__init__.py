"""Models: backbones and heads. The import lines below are the list of what exists."""

from metaflowkit.models.conv4 import Conv4
from metaflowkit.models.linear import Linear
from metaflowkit.models.mlp import MLP
from metaflowkit.models.prototype import Prototype
from metaflowkit.models.resnet12 import ResNet12
from metaflowkit.models.resnet18 import ResNet18

__all__ = ["MLP", "Conv4", "Linear", "Prototype", "ResNet12", "ResNet18"]
