"""Datasets: images in memory, grouped by class where they have classes. The import lines below are the list of what exists."""

from metaflowkit.datasets.clinc150 import Clinc150
from metaflowkit.datasets.digits import Digits
from metaflowkit.datasets.folder import Folder
from metaflowkit.datasets.glyphs import Glyphs
from metaflowkit.datasets.omniglot import Omniglot
from metaflowkit.datasets.torchvision_sets import TorchvisionSet

__all__ = ["Clinc150", "Digits", "Folder", "Glyphs", "Omniglot", "TorchvisionSet"]
