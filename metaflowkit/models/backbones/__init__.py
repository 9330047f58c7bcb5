"""Backbones: images to features. The import lines below are the list of what exists."""

from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.backbones.mlp import MLP
from metaflowkit.models.backbones.resnet12 import ResNet12
from metaflowkit.models.backbones.resnet18 import ResNet18
from metaflowkit.models.backbones.text import TextEncoder
from metaflowkit.models.backbones.timm_network import TimmNetwork
from metaflowkit.models.backbones.torchvision_network import TorchvisionNetwork

__all__ = ["MLP", "Conv4", "ResNet12", "ResNet18", "TextEncoder", "TimmNetwork", "TorchvisionNetwork"]
